// What of a trace is shown: the part of time, the folded spans, the selected one, the text looked for.
// All of it lives in the address:
//   span=ID  from=NS to=NS (offsets from the trace's start)  fold=DEPTH flip=ID.ID  find=TEXT  only=SERVICE  merge=1|0

import { route, setParams } from '../router';
import type { TraceModel } from './windows';

export interface Range {
  from: number;
  to: number;
}

const mergedFrom = 100_000; // spans
const flippedMax = 200; // in the address; a user who folds more than this by hand uses the depth

/** Which spans are folded: those at `depth` or deeper, with `flipped` ids the other way round. */
export interface Fold {
  depth: number; // Infinity: none
  flipped: ReadonlySet<string>;
}

export function rangeOf(model: TraceModel, p: URLSearchParams): Range {
  const whole = { from: 0, to: Math.max(1, model.duration) };
  const number = (name: string): number => (p.has(name) ? Number(p.get(name)) : NaN);
  const from = number('from');
  const to = number('to');
  return from >= 0 && to > from && from < whole.to ? { from, to: Math.min(to, whole.to) } : whole;
}

export const isWhole = (model: TraceModel, r: Range): boolean => r.from <= 0 && r.to >= Math.max(1, model.duration);

/** Keeps the range inside the trace and no shorter than what can be told apart. */
export function setRange(model: TraceModel, range: Range, replace = false): void {
  const whole = Math.max(1, model.duration);
  const length = Math.min(whole, Math.max(range.to - range.from, Math.min(whole, 20)));
  const from = Math.min(Math.max(0, range.from), whole - length);
  const all = length >= whole;
  setParams(all ? { from: null, to: null } : { from: String(Math.floor(from)), to: String(Math.ceil(from + length)) }, { replace });
}

export function zoomAt(model: TraceModel, range: Range, center: number, factor: number, replace = false): void {
  const length = (range.to - range.from) * factor;
  const share = (center - range.from) / (range.to - range.from);
  setRange(model, { from: center - length * share, to: center + length * (1 - share) }, replace);
}

export function foldOf(p: URLSearchParams): Fold {
  const depth = /^\d+$/.test(p.get('fold') ?? '') ? Number(p.get('fold')) : Infinity;
  return { depth, flipped: new Set((p.get('flip') ?? '').split('.').filter(Boolean)) };
}

export function flip(fold: Fold, spanIds: string[]): void {
  const flipped = new Set(fold.flipped);
  for (const id of spanIds) if (!flipped.delete(id)) flipped.add(id);
  setParams({ flip: [...flipped].slice(-flippedMax).join('.') }, { replace: true });
}

export function foldAt(depth: number): void {
  setParams({ fold: depth === Infinity ? null : String(depth), flip: null }, { replace: true });
}

/** Whether times are shown as the clocks' estimates put them right. */
export const adjustsOf = (model: TraceModel, p: URLSearchParams): boolean =>
  p.get('clock') === 'adjusted' && model.shifts.some((s) => s !== 0);

export const setAdjusts = (on: boolean): void => setParams({ clock: on ? 'adjusted' : null }, { replace: true });

/** Short neighbours become one line: what a large trace begins with. */
export const mergesOf = (model: TraceModel, p: URLSearchParams): boolean =>
  p.has('merge') ? p.get('merge') === '1' : model.spans >= mergedFrom;

export const setMerges = (model: TraceModel, on: boolean): void =>
  setParams({ merge: on === model.spans >= mergedFrom ? null : on ? '1' : '0' }, { replace: true });

/** What is shorter than two pixels, in steps of two so that a small zoom changes nothing. */
export const mergeBelow = (range: Range, barWidth: number): number =>
  2 ** Math.floor(Math.log2(Math.max(1, (2 * (range.to - range.from)) / Math.max(1, barWidth))));

export function selectSpan(id: string | null): void {
  if (route.peek().params.get('span') !== id) setParams({ span: id }, { replace: true });
}
