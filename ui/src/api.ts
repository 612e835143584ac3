// The server's API (docs/api.md) in types. Nothing here trusts more than that the answer is JSON of
// this shape; every string in it came from somebody's program and is only ever shown as text.

import { signal } from '@preact/signals';

export interface AnyValue {
  stringValue?: string;
  boolValue?: boolean;
  intValue?: string | number;
  doubleValue?: number | string;
  bytesValue?: string;
  arrayValue?: { values?: AnyValue[] };
  kvlistValue?: { values?: KeyValue[] };
}

export interface KeyValue {
  key: string;
  value: AnyValue;
}

export type Kind = 'UNSPECIFIED' | 'INTERNAL' | 'SERVER' | 'CLIENT' | 'PRODUCER' | 'CONSUMER';
export type StatusCode = 'UNSET' | 'OK' | 'ERROR';

export interface Event {
  timeUnixNano: string;
  name: string;
  attributes: KeyValue[];
}

export interface Link {
  traceId: string;
  spanId: string;
  attributes: KeyValue[];
}

export interface Span {
  spanId: string;
  parentSpanId: string;
  name: string;
  kind: Kind;
  startUnixNano: string;
  durationNano: string;
  status: { code: StatusCode; message: string };
  traceState: string;
  flags: number;
  attributes: KeyValue[];
  droppedAttributes: number;
  events: Event[];
  droppedEvents: number;
  links: Link[];
  droppedLinks: number;
}

export interface Resource {
  service: string;
  attributes: KeyValue[];
}

export interface Scope {
  name: string;
  version: string;
  attributes?: KeyValue[];
}

/** What is known of a trace without its spans. */
export interface Outline {
  asOf: string;
  traceId: string;
  rootService: string;
  rootName: string;
  startUnixNano: string;
  durationNano: string;
  spanCount: number;
  lines: number;
  depth: number;
  roots: number;
  errorCount: number;
  orphanCount: number;
  missingParents: number;
  services: ServiceCount[];
  clocks?: ClockEstimate[];
}

export interface ClockEstimate {
  service: number;
  aheadNano: string;
  lowNano?: string;
  highNano?: string;
  relativeTo?: number;
  calls?: number;
  contradicted?: boolean;
}

export interface WindowRow {
  row: number;
  spanId: string;
  depth: number;
  service: number;
  name: string;
  kind: Kind;
  startOffsetNano: string;
  durationNano: string;
  children?: number;
  below?: number;
  parentSpanId?: string;
  parentLine?: number;
  sameService?: boolean;
  folded?: boolean;
  error?: boolean;
  errorBelow?: boolean;
  orphan?: boolean;
  circular?: boolean;
  critical?: boolean;
  match?: boolean;
  merged?: number; // neighbours in this line
  spans?: number;
  endOffsetNano?: string;
  longestNano?: string;
}

export interface Window {
  asOf: string;
  lines: number;
  first: number;
  rows: WindowRow[];
}

/** Where a span is among the lines. */
export interface Place {
  row: number;
  line: number;
  isMerged?: boolean;
  spanId: string;
  hiddenBy: string[];
}

export interface SpanAnswer extends Place {
  asOf: string;
  depth: number;
  children: number;
  below: number;
  startOffsetNano: string;
  selfNano: string;
  critical?: boolean;
  orphan?: boolean;
  circular?: boolean;
  parent?: { spanId: string; name: string; service: number; startOffsetNano: string; durationNano: string };
  span: Span;
  resource: Resource;
  scope: Scope;
}

export interface Found extends Partial<Place> {
  asOf: string;
  total: number;
  index?: number;
}

export interface Overview {
  asOf: string;
  width: number;
  lanes: number;
  runs: number[]; // lane, first cell, cells, service, failed
}

/** Where the time of a trace went. */
export interface TraceOperation {
  service: number;
  name: string;
  spanCount: number;
  errorCount: number;
  selfNano: string;
  durationNano: string;
  longestNano: string;
  longestSpanId: string;
}

export interface TraceOperations {
  asOf: string;
  total: number;
  selfNano: string;
  operations: TraceOperation[];
}

export interface EventMarks {
  asOf: string;
  rows: { row: number; events: { offsetNano: string; name: string }[] }[];
}

export interface ServiceCount {
  name: string;
  spanCount: number;
  errorCount: number;
}

export interface TraceSummary {
  traceId: string;
  rootService: string;
  rootName: string;
  startUnixNano: string;
  durationNano: string;
  spanCount: number;
  errorCount: number;
  orphanCount: number;
  services: ServiceCount[];
  matched: number;
}

export interface Scanned {
  start: string;
  end: string;
  parts: number;
  partsPruned: number;
  groups: number;
  groupsPruned: number;
  rows: string;
  micros: string;
}

export interface SearchAnswer {
  traces: TraceSummary[];
  limit: number;
  more: boolean;
  scanned?: Scanned;
}

/** Of spans: among those found, and among all of the time. */
export interface FoundOfAll {
  found: string;
  all: string;
}

export interface BreakdownValue extends FoundOfAll {
  value: AnyValue;
  difference: number;
}

export interface BreakdownField extends FoundOfAll {
  scope: 'span' | 'resource' | 'intrinsic';
  key: string;
  asked: boolean;
  difference: number;
  different: string;
  more: boolean;
  values: BreakdownValue[];
}

/** Which attributes tell the spans that a search finds from the others. */
export interface Breakdown {
  spans: FoundOfAll;
  counted: FoundOfAll;
  wholeTraces: boolean;
  fields: BreakdownField[];
  more: boolean;
  scanned?: Scanned;
}

export interface Series {
  labels: KeyValue[];
  samples: (number | null)[];
  exemplars?: { traceId: string; spanId: string; service: string; name: string; startUnixNano: string; durationNano: string; value: number }[];
}

/** What a metrics query gives: sample i is of the spans from start + i * step on, for one step. */
export interface SeriesAnswer {
  series: Series[];
  startUnixNano: string;
  stepNano: string;
  steps: number;
  scanned?: Scanned;
}

export interface Log {
  timeUnixNano: string;
  traceId: string;
  spanId: string;
  severity: number;
  severityText: string;
  eventName?: string;
  body: AnyValue;
  attributes: KeyValue[];
  service: string;
}

export interface LogsAnswer {
  logs: Log[];
  more: boolean;
  cursor?: string;
}

export interface Operation {
  service: string;
  name: string;
  kind: Kind;
  spanCount: string;
}

export interface LiveSpan {
  traceId: string;
  spanId: string;
  parentSpanId: string;
  service: string;
  name: string;
  kind: Kind;
  startUnixNano: string;
  durationNano: string;
  status: StatusCode;
}

export interface Status {
  version: string;
  uptimeSeconds: number;
  store: { spans: string; segments: number; startMin: string; startMax: string; logBytes: string; memtableBytes: string; memtableSpans: string };
  ingest: { requests: string; spansReceived: string; spansStored: string; spansRefused: { reason: string; count: string }[] };
  endpoints: Record<string, string>;
}

export interface Fate {
  fate: string;
  reason: string;
  spans: string;
}

/** What became of the spans of a trace. */
export interface Ledger {
  traceId: string;
  stored: { spanCount: number; errorCount: number; orphanCount: number; startUnixNano: string; durationNano: string } | null;
  partial: boolean;
  fates: Fate[];
  entries: (Fate & { unixNano: string })[];
  more: boolean;
  horizon: { entriesMax: number; entries: number; sinceUnixNano: string | null; spansSkipped: string; notNamed: string[] };
}

export interface Retention {
  rules: { match: string | null; keepNano: string | null; spansDropped: string }[];
  nextUnixNano: string | null;
  diskBytesMax: string | null;
  diskBytes: string;
  oldestUnixNano: string | null;
  spansDropped: { age: string; disk: string; deleted: string };
  spansRedacted: string;
  pinnedTraces: string;
}

export interface Segment {
  name: string;
  spans: string;
  bytes: string;
  startMin: string;
  startMax: string;
  sealedUnixNano: string | null;
  damaged: boolean;
}

/** What went wrong, in the server's words where it has any. */
export class ApiError extends Error {
  constructor(
    readonly status: number, // 0: no answer at all
    message: string,
    readonly position?: number,
  ) {
    super(message);
  }
}

/** Since the page was loaded, an answer lacked what a damaged part of the store had. */
export const partial = signal(false);

export type Params = Record<string, string | string[] | undefined>;

export function query(params: Params): string {
  const q = new URLSearchParams();
  for (const [name, value] of Object.entries(params))
    for (const v of Array.isArray(value) ? value : [value]) if (v) q.append(name, v);
  const text = q.toString();
  return text ? `?${text}` : '';
}

export async function get<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(`/api/pugmark/${path}${query(params)}`, {
      signal: signal ?? null,
      headers: { accept: 'application/json' },
    });
  } catch (e) {
    if (signal?.aborted) throw e;
    throw new ApiError(0, 'The server does not answer. Is `pugmark serve` still running?');
  }
  if (answer.headers.has('x-pugmark-partial')) partial.value = true;
  if (answer.ok) return (await answer.json()) as T;
  throw await errorOf(answer);
}

export async function errorOf(answer: Response): Promise<ApiError> {
  try {
    const { error } = (await answer.json()) as { error: { message: string; position?: number } };
    return new ApiError(answer.status, error.message, error.position);
  } catch {
    return new ApiError(answer.status, `The server answered ${answer.status} ${answer.statusText}`.trim());
  }
}

export const services = (signal?: AbortSignal) => get<{ services: string[] }>('services', {}, signal).then((a) => a.services);
export const operations = (service: string, signal?: AbortSignal) =>
  get<{ operations: Operation[] }>('operations', { service }, signal).then((a) => a.operations);
export const search = (params: Params, signal?: AbortSignal) => get<SearchAnswer>('search', params, signal);
export const breakdown = (params: Params, signal?: AbortSignal) => get<Breakdown>('breakdown', params, signal);
/** A part of a trace: outline, window, spans/ID, find, overview, events. */
export const tracePart = <T>(id: string, part: string, params: Params = {}, signal?: AbortSignal) =>
  get<T>(`traces/${encodeURIComponent(id)}/${part}`, params, signal);
export const status = (signal?: AbortSignal) => get<Status>('status', {}, signal);
