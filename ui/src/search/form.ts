// What a search asks for: read from the address, written to it, turned into the API's parameters.

import type { Params } from '../api';
import { parseDuration, parseNs } from '../time';

export interface Form {
  q: string;
  service: string;
  operation: string;
  tags: string; // as typed: key=value key2="two words"
  minDuration: string;
  maxDuration: string;
  lookback: string; // one of `lookbacks`, or "custom"
  start: string; // nanoseconds, when custom
  end: string;
  limit: string;
}

export const lookbacks: [string, string][] = [
  ['5m', 'Last 5 minutes'],
  ['15m', 'Last 15 minutes'],
  ['1h', 'Last hour'],
  ['3h', 'Last 3 hours'],
  ['12h', 'Last 12 hours'],
  ['1d', 'Last day'],
  ['2d', 'Last 2 days'],
  ['7d', 'Last 7 days'],
  ['30d', 'Last 30 days'],
];
export const limits = ['20', '50', '100', '200', '500', '1000'];

export const emptyForm: Form = {
  q: '', service: '', operation: '', tags: '', minDuration: '', maxDuration: '', lookback: '1h', start: '', end: '', limit: '50',
};

export function formFromParams(p: URLSearchParams): Form {
  const text = (name: keyof Form): string => p.get(name) ?? emptyForm[name];
  const number = (name: 'start' | 'end'): string => (/^\d{1,20}$/.test(p.get(name) ?? '') ? p.get(name)! : '');
  const start = number('start');
  const end = number('end');
  const lookback = lookbacks.some(([v]) => v === p.get('lookback')) ? p.get('lookback')! : emptyForm.lookback;
  return {
    q: text('q'), service: text('service'), operation: text('operation'),
    tags: p.getAll('tag').map(quoteTag).join(' '),
    minDuration: text('minDuration'), maxDuration: text('maxDuration'),
    lookback: start || end ? 'custom' : lookback, start, end,
    limit: /^\d+$/.test(text('limit')) ? text('limit') : emptyForm.limit,
  };
}

export function paramsFromForm(f: Form): URLSearchParams {
  const p = new URLSearchParams();
  const put = (name: string, value: string, usual = ''): void => {
    if (value.trim() && value !== usual) p.set(name, value.trim());
  };
  put('q', f.q);
  put('service', f.service);
  put('operation', f.operation);
  for (const tag of parseTags(f.tags)) p.append('tag', tag);
  put('minDuration', f.minDuration);
  put('maxDuration', f.maxDuration);
  if (f.lookback === 'custom') {
    put('start', f.start);
    put('end', f.end);
  } else put('lookback', f.lookback, emptyForm.lookback);
  put('limit', f.limit, emptyForm.limit);
  return p;
}

/** The API's parameters. A look-back ends when the server says, so its clock decides what is new. */
export function apiParams(f: Form, nowMs: number): Params {
  const params: Params = {
    q: f.q, service: f.service, operation: f.operation, tag: parseTags(f.tags),
    minDuration: f.minDuration.replace(/\s+/g, ''), maxDuration: f.maxDuration.replace(/\s+/g, ''), limit: f.limit,
  };
  if (f.lookback === 'custom') {
    params.start = f.start || '0';
    params.end = f.end;
  } else params.start = String(BigInt(nowMs) * 1_000_000n - BigInt(parseDuration(f.lookback)));
  return params;
}

/** What is wrong with the form, by field; the server is not asked until nothing is. */
export function problems(f: Form): Partial<Record<keyof Form, string>> {
  const out: Partial<Record<keyof Form, string>> = {};
  for (const name of ['minDuration', 'maxDuration'] as const)
    if (f[name].trim() && Number.isNaN(parseDuration(f[name]))) out[name] = 'A duration looks like 1.5s, 200ms or 2m';
  const min = parseDuration(f.minDuration);
  const max = parseDuration(f.maxDuration);
  if (min > max) out.maxDuration = 'This is shorter than the shortest';
  if (f.lookback === 'custom' && f.start && f.end && parseNs(f.start) > parseNs(f.end)) out.end = 'This is before the start';
  for (const tag of splitTags(f.tags))
    if (tag.indexOf('=') < 1) out.tags = `“${tag}” is not key=value`;
  return out;
}

/** Words at spaces; quotes keep spaces together: a=1 b="two words". */
function splitTags(text: string): string[] {
  const out: string[] = [];
  const word = /(?:[^\s"]|"(?:[^"\\]|\\.)*"?)+/g;
  for (const [w] of text.matchAll(word)) out.push(w.replace(/"((?:[^"\\]|\\.)*)"?/g, (_, inner: string) => inner.replace(/\\(.)/g, '$1')));
  return out;
}

export const parseTags = (text: string): string[] => splitTags(text).filter((t) => t.indexOf('=') > 0);

function quoteTag(tag: string): string {
  const at = tag.indexOf('=');
  const value = tag.slice(at + 1);
  if (at < 0 || (value !== '' && !/[\s"\\]/.test(value))) return tag;
  return `${tag.slice(0, at)}="${value.replace(/["\\]/g, '\\$&')}"`;
}
