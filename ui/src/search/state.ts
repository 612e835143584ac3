// The search as it runs. It follows the address; its answer outlives the page, so that coming back
// from a trace shows the same list at once, at the same place.

import { effect, signal } from '@preact/signals';
import * as api from '../api';
import type { SearchAnswer, SeriesAnswer, TraceSummary } from '../api';
import { route } from '../router';
import { colorsReady } from '../services';
import { parseNs } from '../time';
import { apiParams, formFromParams, problems, type Form } from './form';

export interface Found {
  key: string;
  form: Form;
  traces: TraceSummary[];
  series: SeriesAnswer | null; // of a metrics query
  more: boolean;
  scanned: SearchAnswer['scanned'];
  atMs: number; // when the server was asked
}

export const found = signal<Found | null>(null);
export const searching = signal(false);
export const searchError = signal<unknown>(null);
export const selected = signal(''); // trace id: under the pointer or the focus
export const lastOpened = signal('');

let running: AbortController | null = null;

/** Presentation only: does not ask the server again. */
export const viewParams = ['sort', 'view'];

export function searchKey(params: URLSearchParams): string {
  const p = new URLSearchParams(params);
  for (const name of viewParams) p.delete(name);
  p.sort();
  return p.toString();
}

const exemplars = '40';

/** A query that ends in a metric gives series; only the server can tell. */
async function findsSeries(q: string, signal: AbortSignal): Promise<boolean> {
  if (!q.includes('_over_time') && !/\|\s*(rate|compare)\b/.test(q)) return false;
  return (await api.get<{ finds?: string }>('parse', { q }, signal)).finds === 'series';
}

async function ask(form: Form, step: string, atMs: number, signal: AbortSignal): Promise<Omit<Found, 'key' | 'form' | 'atMs'>> {
  const params = apiParams(form, atMs);
  if (await findsSeries(form.q, signal)) {
    const series = await api.get<SeriesAnswer>('metrics', { q: form.q, start: params.start, end: params.end, step, exemplars }, signal);
    if (!Array.isArray(series.series)) throw new Error('The server answered with something else than series.');
    return { traces: [], series, more: false, scanned: series.scanned };
  }
  const answer = await api.search(params, signal);
  if (!Array.isArray(answer.traces)) throw new Error('The server answered with something else than traces.');
  return { traces: answer.traces, series: null, more: answer.more, scanned: answer.scanned };
}

export async function runSearch(params: URLSearchParams): Promise<void> {
  running?.abort();
  const key = searchKey(params);
  const form = formFromParams(params);
  const wrong = Object.values(problems(form))[0];
  if (wrong) {
    searchError.value = new Error(wrong);
    searching.value = false;
    found.value = null;
    return;
  }
  const run = (running = new AbortController());
  searching.value = true;
  try {
    const atMs = Date.now();
    const [answer] = await Promise.all([ask(form, params.get('step') ?? '', atMs, run.signal), colorsReady]);
    if (run.signal.aborted) return;
    found.value = { key, form, ...answer, atMs };
    searchError.value = null;
  } catch (e) {
    if (run.signal.aborted) return;
    searchError.value = e;
    found.value = null;
  } finally {
    if (running === run) searching.value = false;
  }
}

/** The next page: what starts no later than the oldest shown. */
export async function loadOlder(): Promise<void> {
  const now = found.peek();
  if (!now?.more || searching.peek()) return;
  const oldest = now.traces.reduce<bigint | null>((min, t) => {
    const at = parseNs(t.startUnixNano);
    return min === null || at < min ? at : min;
  }, null);
  if (oldest === null) return;
  const run = (running = new AbortController());
  searching.value = true;
  try {
    const answer = await api.search({ ...apiParams(now.form, now.atMs), end: String(oldest) }, run.signal);
    if (run.signal.aborted) return;
    const known = new Set(now.traces.map((t) => t.traceId));
    const fresh = answer.traces.filter((t) => !known.has(t.traceId));
    found.value = { ...now, traces: [...now.traces, ...fresh], more: answer.more && fresh.length > 0 };
  } catch (e) {
    if (!run.signal.aborted) searchError.value = e;
  } finally {
    if (running === run) searching.value = false;
  }
}

export function refresh(): void {
  void runSearch(route.peek().params);
}

/** The next visit asks the server instead of showing the last answer. */
export function freshSearch(): void {
  found.value = null;
  lastOpened.value = '';
  const { page, params } = route.peek();
  if (page === 'search' && params.size === 0) refresh();
}

effect(() => {
  const { page, params } = route.value;
  if (page !== 'search') return;
  if (found.peek()?.key === searchKey(params)) return;
  void runSearch(params);
});
