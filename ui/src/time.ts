// Times are bigint nanoseconds since the epoch. Offsets within a trace and durations are numbers of
// nanoseconds: exact up to 104 days.

import { effect, signal } from '@preact/signals';
import { recall, remember } from './settings';

export type Zone = 'local' | 'utc';
export const zone = signal<Zone>(recall('zone') === 'utc' ? 'utc' : 'local');
effect(() => remember('zone', zone.value));

export const zoneName = (): string =>
  zone.value === 'utc' ? 'UTC' : Intl.DateTimeFormat().resolvedOptions().timeZone || 'local';

/** A decimal string from the API; what is no number is 0. */
export function parseNs(text: string | number | undefined): bigint {
  try {
    return BigInt(text ?? 0);
  } catch {
    return 0n;
  }
}

const units: [number, string][] = [
  [1e9, 's'],
  [1e6, 'ms'],
  [1e3, 'µs'],
];

const trim = (text: string): string => (text.includes('.') ? text.replace(/\.?0+$/, '') : text);

/** For people, to three or four digits: "850 ns", "12.3 µs", "1.05 s", "2m 05s", "3h 04m", "2d 03h". */
export function formatDuration(ns: number): string {
  if (!Number.isFinite(ns)) return '–';
  if (ns < 0) return `−${formatDuration(-ns)}`;
  if (ns < 1000) return `${Math.round(ns)} ns`;
  const two = (n: number) => String(n).padStart(2, '0');
  const seconds = Math.round(ns / 1e9);
  if (seconds >= 86400) return `${Math.floor(seconds / 86400)}d ${two(Math.floor((seconds % 86400) / 3600))}h`;
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)}h ${two(Math.floor((seconds % 3600) / 60))}m`;
  if (seconds >= 60) return `${Math.floor(seconds / 60)}m ${two(seconds % 60)}s`;
  for (const [size, name] of units) {
    const n = ns / size;
    if (n < 0.9995) continue;
    return `${trim(n.toFixed(n < 9.995 ? 2 : n < 99.95 ? 1 : 0))} ${name}`;
  }
  return '1 µs';
}

/** Every digit: "1,234,567 ns". */
export const formatExact = (ns: bigint | number | string): string => `${group(ns)} ns`;

export function group(n: bigint | number | string): string {
  return String(n).replace(/\B(?=(\d{3})+(?!\d))/g, ',');
}

interface Parts {
  year: string;
  month: string;
  day: string;
  weekday: string;
  clock: string;
  zone: string;
}

const formats = new Map<string, Intl.DateTimeFormat>();

function parts(ms: number): Parts {
  let format = formats.get(zone.value);
  if (!format) {
    const options: Intl.DateTimeFormatOptions = {
      year: 'numeric', month: 'short', day: 'numeric', weekday: 'short',
      hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23', timeZoneName: 'short',
    };
    if (zone.value === 'utc') options.timeZone = 'UTC';
    format = new Intl.DateTimeFormat('en-GB', options);
    formats.set(zone.value, format);
  }
  const p: Record<string, string> = {};
  for (const { type, value } of format.formatToParts(ms)) p[type] = value;
  return {
    year: p.year ?? '', month: p.month ?? '', day: p.day ?? '', weekday: p.weekday ?? '',
    clock: `${p.hour}:${p.minute}:${p.second}`, zone: p.timeZoneName ?? '',
  };
}

/** Whole milliseconds, rounded down, and the nanoseconds within the second. */
function split(ns: bigint): { ms: number; fraction: string } {
  const second = ns / 1_000_000_000n;
  const rest = ns % 1_000_000_000n;
  // Past what a Date can hold (the year 275760) the clock stands still rather than the page.
  const ms = Math.min(Number(second) * 1000 + Number(rest / 1_000_000n), 8.64e15);
  return { ms, fraction: String(rest).padStart(9, '0') };
}

/** "13:05:07.123": `digits` of the fraction, cut and not rounded, so that order is kept. */
export function formatClock(ns: bigint, digits = 3): string {
  const { ms, fraction } = split(ns);
  return `${parts(ms).clock}${digits ? `.${fraction.slice(0, digits)}` : ''}`;
}

/** "Fri 20 Nov 2026, 13:05:07.123456789 GMT+1" */
export function formatFull(ns: bigint, digits = 9): string {
  const { ms, fraction } = split(ns);
  const p = parts(ms);
  return `${p.weekday} ${p.day} ${p.month} ${p.year}, ${p.clock}${digits ? `.${fraction.slice(0, digits)}` : ''} ${p.zone}`;
}

/** "20 Nov", and the year when it is another one than now. */
export function formatDay(ns: bigint): string {
  const p = parts(split(ns).ms);
  return p.year === parts(Date.now()).year ? `${p.day} ${p.month}` : `${p.day} ${p.month} ${p.year}`;
}

export function formatAgo(ns: bigint, nowMs: number): string {
  const s = Math.round((nowMs - split(ns).ms) / 1000);
  if (s < -1) return 'in the future';
  if (s < 5) return 'just now';
  if (s < 60) return `${s}s ago`;
  if (s < 3600) return `${Math.floor(s / 60)}m ago`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ago`;
  return `${Math.floor(s / 86400)}d ago`;
}

const durationUnits: Record<string, number> = {
  ns: 1, us: 1e3, 'µs': 1e3, 'μs': 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9, d: 86400e9,
};

/** "1.5s", "200ms", "1h30m": nanoseconds, or NaN. */
export function parseDuration(text: string): number {
  const compact = text.replace(/\s+/g, '');
  if (!compact) return NaN;
  const piece = /(\d+(?:\.\d+)?)(ns|us|µs|μs|ms|s|m|h|d)/gy;
  let sum = 0;
  let at = 0;
  for (let m = piece.exec(compact); m; m = piece.exec(compact)) {
    sum += Number(m[1]) * durationUnits[m[2]!]!;
    at = piece.lastIndex;
  }
  return at === compact.length ? sum : NaN;
}

const clockSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400].map((s) => s * 1e9);

/** Round steps for an axis from `from` to `to`: at most `max` of them. With `clock` they are round on a clock (15 s and
 * 30 s, not 20 s and 50 s). */
export function ticks(from: number, to: number, max: number, clock = false): number[] {
  const span = to - from;
  if (!(span > 0) || max < 1) return [from];
  const raw = span / max;
  const power = 10 ** Math.floor(Math.log10(raw));
  let step = power;
  if (raw >= 60e9 || (clock && raw > 0.5e9)) {
    step = clockSteps.find((s) => s >= raw) ?? Math.ceil(raw / 86400e9) * 86400e9;
  } else {
    step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999999) ?? 10 * power;
  }
  const out: number[] = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++) out.push(i * step + 0); // never −0
  return out;
}

/** A tick's label with the digits that the step asks for, in one unit for the whole axis. */
export function tickLabel(value: number, end: number, step: number): string {
  if (value === 0) return '0';
  if (end >= 60e9) return formatDuration(value);
  const [size, name] = units.find(([u]) => end >= u) ?? [1, 'ns'];
  const digits = Math.min(9, Math.max(0, Math.ceil(-Math.log10(step / size) - 1e-9)));
  return `${(value / size).toFixed(digits)} ${name}`;
}

/** Nanoseconds since the midnight before, in the chosen zone. */
export function sinceMidnight(ns: bigint): bigint {
  const minutes = zone.value === 'utc' ? 0 : new Date(split(ns).ms).getTimezoneOffset();
  const day = 86_400_000_000_000n;
  return (((ns - BigInt(minutes) * 60_000_000_000n) % day) + day) % day;
}

/** For <input type="datetime-local">: the wall clock of the chosen zone, and back. */
export function toInputTime(ns: bigint): string {
  const { ms } = split(ns);
  const shift = zone.value === 'utc' ? 0 : new Date(ms).getTimezoneOffset() * 60000;
  return new Date(ms - shift).toISOString().slice(0, 19);
}

export function fromInputTime(text: string): bigint | null {
  const ms = Date.parse(zone.value === 'utc' ? `${text}Z` : text);
  return Number.isNaN(ms) ? null : BigInt(ms) * 1_000_000n;
}
