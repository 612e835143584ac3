// The lines of a trace, as the server has them: loaded a chunk at a time around what is looked at, so that a trace of a
// million spans costs as much as one of a hundred.
//
// 1. The outline is a picture of one moment (`asOf`); all that is asked afterwards is of the same one. When the server has
//    forgotten it and the trace has grown since, everything is loaded anew.
// 2. A way to fold is a list of its own. While a chunk of the new list is on its way, nothing is shown in its place; when only
//    the marks of a search change, the old lines stand until the new ones are here.

import { signal, type Signal } from '@preact/signals';
import * as api from '../api';
import type { Outline, Params, Place, SpanAnswer, WindowRow } from '../api';
import { serviceColor } from '../color';
import { parseNs } from '../time';

export interface ServiceInfo {
  name: string;
  color: number;
  spans: number;
  errors: number;
}

export interface TraceModel {
  traceId: string;
  outline: Outline;
  start: bigint;
  duration: number;
  spans: number;
  depth: number;
  services: ServiceInfo[]; // in the server's order, which rows refer to
  shifts: number[]; // what adjusted clocks add to the starts of each
  windows: Windows;
}

export interface Line {
  line: number;
  row: number;
  spanId: string;
  depth: number;
  service: ServiceInfo;
  name: string;
  start: number;
  duration: number;
  below: number;
  folded: boolean;
  merged: number;
  data: WindowRow;
}

export interface Mark {
  at: number;
  name: string;
}

/** How the lines are made; what is not set is left out of the request. */
export interface Shown {
  fold?: string;
  flip?: string;
  merge?: string;
}

const chunkLines = 120;
const chunksMax = 40; // kept

const unknownService: ServiceInfo = { name: 'unknown_service', color: 0, spans: 0, errors: 0 };

export class Windows {
  /** Goes on when something has come: who draws lines reads it. */
  readonly version: Signal<number> = signal(0);
  readonly failed: Signal<unknown> = signal(null);
  total: number;
  private shown: Shown = {};
  private listKey = '';
  private marksKey = '';
  private chunks = new Map<number, { lines: Line[]; marks: string }>();
  private pending = new Map<number, Promise<void>>();
  private marks = new Map<number, Mark[]>();
  private marksAsked = new Set<string>();
  private find: Params = {};

  constructor(
    private readonly id: string,
    private asOf: string,
    private readonly services: ServiceInfo[],
    total: number,
    private readonly changed: () => void, // the trace is another one now
  ) {
    this.total = total;
  }

  params(more: Params = {}): Params {
    return { asOf: this.asOf, ...this.shown, ...more };
  }

  /** Another way to fold, or another search whose matches are marked. */
  show(shown: Shown, find: Params): void {
    const listKey = JSON.stringify(shown);
    const marksKey = JSON.stringify(find);
    if (listKey === this.listKey && marksKey === this.marksKey) return;
    if (listKey !== this.listKey) this.chunks.clear();
    this.pending.clear();
    this.listKey = listKey;
    this.marksKey = marksKey;
    this.shown = shown;
    this.find = find;
  }

  at(line: number): Line | undefined {
    return this.chunks.get(Math.floor(line / chunkLines))?.lines[line % chunkLines];
  }

  /** Loads what is missing between two lines. */
  need(first: number, last: number): void {
    for (let c = Math.floor(Math.max(0, first) / chunkLines); c * chunkLines < last; c++) void this.load(c);
  }

  async ensure(line: number): Promise<Line | undefined> {
    await this.load(Math.floor(line / chunkLines));
    return this.at(line);
  }

  private load(chunk: number): Promise<void> {
    const kept = this.chunks.get(chunk);
    if (kept && kept.marks === this.marksKey) return Promise.resolve();
    const under = this.pending.get(chunk);
    if (under) return under;
    const { listKey, marksKey } = this;
    const run = api.tracePart<api.Window>(this.id, 'window', this.params({ ...this.find, first: String(chunk * chunkLines), lines: String(chunkLines) }))
      .then((w) => {
        if (listKey !== this.listKey || marksKey !== this.marksKey) return;
        if (w.asOf !== this.asOf) return this.changed();
        if (!Array.isArray(w.rows)) throw new Error('The server answered with something else than lines of a trace.');
        this.total = w.lines;
        this.chunks.delete(chunk);
        this.chunks.set(chunk, { lines: w.rows.map((r, i) => this.lineOf(r, w.first + i)), marks: marksKey });
        for (const old of this.chunks.keys()) {
          if (this.chunks.size <= chunksMax) break;
          this.chunks.delete(old);
        }
        this.failed.value = null;
        this.version.value++;
      })
      .catch((e: unknown) => {
        if (listKey === this.listKey) this.failed.value = e;
      })
      .finally(() => this.pending.get(chunk) === run && this.pending.delete(chunk));
    this.pending.set(chunk, run);
    return run;
  }

  private lineOf(r: WindowRow, line: number): Line {
    const start = Number(r.startOffsetNano) || 0;
    const end = r.merged ? Number(r.endOffsetNano) : start + Math.max(0, Number(r.durationNano) || 0);
    return {
      line, row: r.row, spanId: r.spanId, depth: r.depth, service: this.services[r.service] ?? unknownService,
      name: r.name || '(no name)', start, duration: end - start, below: r.below ?? 0, folded: Boolean(r.folded),
      merged: r.merged ?? 0, data: r,
    };
  }

  // ---- events on the bars: asked for when the rows hold still ----

  marksOf(row: number): Mark[] | undefined {
    return this.marks.get(row);
  }

  async loadMarks(first: number, last: number): Promise<void> {
    const key = `${this.listKey} ${first} ${last}`;
    if (last <= first || this.marksAsked.has(key)) return;
    this.marksAsked.add(key);
    try {
      const answer = await api.tracePart<api.EventMarks>(this.id, 'events', this.params({ first: String(first), lines: String(last - first) }));
      for (const r of answer.rows) this.marks.set(r.row, r.events.map((e) => ({ at: Number(e.offsetNano), name: e.name })));
      if (answer.rows.length) this.version.value++;
    } catch {
      this.marksAsked.delete(key); // they are an ornament
    }
  }

  // ---- spans ----

  span(spanId: string, abort?: AbortSignal): Promise<SpanAnswer> {
    return api.tracePart<SpanAnswer>(this.id, `spans/${encodeURIComponent(spanId)}`, this.params(), abort);
  }

  /** The next match after a row, around the end; without `step` only how many there are. */
  search(what: Params, step?: 'next' | 'previous', row?: number, abort?: AbortSignal): Promise<api.Found> {
    return api.tracePart<api.Found>(this.id, 'find', this.params({ ...what, step, row: row === undefined ? undefined : String(row) }), abort);
  }

  operations(abort?: AbortSignal): Promise<api.TraceOperations> {
    return api.tracePart<api.TraceOperations>(this.id, 'operations', { asOf: this.asOf, limit: '500' }, abort);
  }

  overview(width: number, lanes: number, adjusted: boolean, abort?: AbortSignal): Promise<api.Overview> {
    return api.tracePart<api.Overview>(this.id, 'overview',
      this.params({ width: String(width), lanes: String(lanes), clock: adjusted ? 'adjusted' : undefined }), abort);
  }
}

export const placeOf = (f: api.Found): Place | null => (f.row === undefined ? null : (f as Place & api.Found));

export function modelOf(outline: Outline, changed: () => void): TraceModel {
  if (!Array.isArray(outline.services)) throw new Error('The server answered with something else than a trace.');
  const services = outline.services.map((s) => ({ name: s.name, color: serviceColor(s.name), spans: s.spanCount, errors: s.errorCount }));
  const shifts = services.map(() => 0);
  for (const c of outline.clocks ?? []) shifts[c.service] = -Number(c.aheadNano) || 0;
  return {
    shifts,
    traceId: outline.traceId, outline, start: parseNs(outline.startUnixNano), duration: Number(outline.durationNano) || 0,
    spans: outline.spanCount, depth: outline.depth, services,
    windows: new Windows(outline.traceId, outline.asOf, services, outline.lines, changed),
  };
}
