// What a metrics query gave, ready to be drawn.

import type { AnyValue, Breakdown, BreakdownField, Series, SeriesAnswer } from '../api';
import { formatDuration, group } from '../time';
import { typeOf, valueText } from '../values';

export type Unit = 'duration' | 'rate' | 'count' | 'number';

/** What the samples are, from the words of the query; what is calculated with is a plain number. */
export function unitOf(q: string): Unit {
  if (/[)\d]\s*[-+*/^%]\s*[(\d{]/.test(q.replace(/"(?:[^"\\]|\\.)*"/g, '""'))) return 'number';
  if (/(min|max|avg|sum|quantile)_over_time\s*\(\s*(span:)?(duration|traceDuration)/.test(q)) return 'duration';
  if (/\|\s*rate\s*\(/.test(q)) return 'rate';
  return /count_over_time|histogram_over_time/.test(q) ? 'count' : 'number';
}

export function formatSample(v: number | null | undefined, unit: Unit): string {
  if (v === null || v === undefined || !Number.isFinite(v)) return '–';
  if (unit === 'duration') return formatDuration(v * 1e9);
  const size = Math.abs(v);
  const text = size === 0 ? '0' : size >= 1e6 ? `${(v / 1e6).toFixed(size < 1e7 ? 2 : 1)} M` : size >= 1000 ? group(Math.round(v))
    : size >= 0.001 ? String(Number(v.toPrecision(3))) : v.toExponential(1);
  return unit === 'rate' ? `${text}/s` : text;
}

const labelText = (v: AnyValue): string => (typeOf(v) === 'none' ? 'none' : valueText(v));

/** A series by its labels; one without any by what it is. */
export function seriesName(s: Series): string {
  const only = s.labels.length === 1 ? s.labels[0]! : null;
  if (only) return only.key === 'p' ? `p${labelText(only.value)}` : labelText(only.value);
  return s.labels.map((l) => `${l.key.replace(/^(resource|span)\./, '')}=${labelText(l.value)}`).join(', ') || 'all';
}

export function summaryOf(samples: (number | null)[]): { last: number | null; mean: number | null; max: number | null } {
  let sum = 0;
  let n = 0;
  let max: number | null = null;
  let last: number | null = null;
  for (const v of samples) {
    if (v === null) continue;
    sum += v;
    n++;
    last = v;
    if (max === null || v > max) max = v;
  }
  return { last, mean: n ? sum / n : null, max };
}

/** Round steps of an axis of values, from 0 or below. */
export function valueTicks(low: number, high: number, most = 5): number[] {
  const raw = (high - low) / most;
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999999) ?? 10 * power;
  const out: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(i * step + 0);
  return out;
}

export interface Heat {
  buckets: { top: number; counts: number[] }[]; // the lowest first
  most: number;
}

/** histogram_over_time(): the buckets of all groups together; null for anything else. */
export function heatOf(answer: SeriesAnswer): Heat | null {
  const byTop = new Map<number, number[]>();
  for (const s of answer.series) {
    const bucket = s.labels.find((l) => l.key === '__bucket');
    if (!bucket) return null;
    const top = Number(bucket.value.doubleValue ?? bucket.value.intValue ?? 0);
    const counts = byTop.get(top) ?? new Array<number>(answer.steps).fill(0);
    s.samples.forEach((v, i) => (counts[i]! += v ?? 0));
    byTop.set(top, counts);
  }
  if (byTop.size === 0) return null;
  const tops = [...byTop.keys()].sort((a, b) => a - b);
  // Powers of two between that nobody fell into are there too, so that the axis is even.
  for (let top = tops.find((t) => t > 0) ?? 0; top > 0 && top < tops[tops.length - 1]! && byTop.size < 80; top *= 2)
    if (![...byTop.keys()].some((t) => Math.abs(t - top) < top * 1e-6)) byTop.set(top, new Array<number>(answer.steps).fill(0));
  const buckets = [...byTop].sort(([a], [b]) => a - b).map(([top, counts]) => ({ top, counts }));
  return { buckets, most: buckets.reduce((m, b) => Math.max(m, ...b.counts), 0) };
}

/** compare(): as a breakdown of attributes; null for anything else. */
export function breakdownOf(answer: SeriesAnswer): Breakdown | null {
  const fields = new Map<string, { found: number; all: number; values: Map<string, { value: AnyValue; found: number; all: number }> }>();
  for (const s of answer.series) {
    const type = s.labels.find((l) => l.key === '__meta_type')?.value.stringValue;
    const label = s.labels.find((l) => l.key !== '__meta_type');
    if (!type || !label) return null;
    const n = s.samples.reduce<number>((sum, v) => sum + (v ?? 0), 0);
    const field = fields.get(label.key) ?? { found: 0, all: 0, values: new Map() };
    fields.set(label.key, field);
    const selected = type.startsWith('selection');
    if (type.endsWith('_total')) {
      field.all += n;
      if (selected) field.found += n;
      continue;
    }
    const key = `${typeOf(label.value)} ${valueText(label.value)}`;
    const value = field.values.get(key) ?? { value: label.value, found: 0, all: 0 };
    field.values.set(key, value);
    value.all += n;
    if (selected) value.found += n;
  }
  if (fields.size === 0) return null;
  const found = Math.max(...[...fields.values()].map((f) => f.found));
  const all = Math.max(...[...fields.values()].map((f) => f.all));
  const list: BreakdownField[] = [...fields].map(([name, f]) => {
    const [, scope, key] = /^(span|resource)\.(.*)$/s.exec(name) ?? [null, 'intrinsic', name];
    const values = [...f.values.values()].map((v) => ({
      value: v.value, found: String(v.found), all: String(v.all), difference: (found ? v.found / found : 0) - (all ? v.all / all : 0),
    })).sort((a, b) => Math.abs(b.difference) - Math.abs(a.difference) || Number(b.found) - Number(a.found));
    return {
      scope: scope as BreakdownField['scope'], key: key ?? name, asked: false, found: String(f.found), all: String(f.all), values,
      difference: Math.abs(values[0]?.difference ?? 0), different: String(values.length),
      more: values.reduce((n, v) => n + Number(v.all), 0) < f.all,
    };
  }).sort((a, b) => b.difference - a.difference);
  const spans = { found: String(found), all: String(all) };
  return { spans, counted: spans, wholeTraces: true, fields: list, more: false };
}
