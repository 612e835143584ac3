// A trace as the waterfall wants it: spans in tree order, in flat arrays.
//
// 1. `order` is preorder: a span's descendants are the `size` rows after it, so that folding is one
//    addition and needs no pointers. Siblings are in start order.
// 2. Input is what programs sent. Parents may be missing (the span becomes a top row and is marked),
//    name each other in a circle (the first of the circle in start order becomes a top row), or be
//    the span itself; ids may come twice (the first one is the parent that is meant).
// 3. Times are offsets from the earliest start, in nanoseconds.
// 4. No recursion: a trace may be as deep as it has spans.

import type { AnyValue, KeyValue, Span, Trace } from '../api';
import { serviceColor } from '../color';
import { parseNs } from '../time';

export interface Node {
  row: number; // its place in preorder
  span: Span;
  service: string;
  color: number;
  parent: Node | null;
  depth: number;
  size: number; // descendants
  children: number; // direct ones
  start: number;
  duration: number;
  error: boolean;
  orphan: boolean; // names a parent that is not here
  circular: boolean; // names a parent that is its descendant
  errorBelow: boolean; // some descendant has an error
}

export interface ServiceInfo {
  name: string;
  color: number;
  spans: number;
  errors: number;
}

export interface TraceModel {
  traceId: string;
  trace: Trace;
  start: bigint;
  duration: number;
  nodes: Node[];
  byId: Map<string, Node>;
  services: ServiceInfo[];
  roots: number;
  depth: number;
  errors: Node[];
  orphans: Node[];
}

/** Starts as nanoseconds after the earliest one. A bigint for each of a million spans would cost a second, so the text
 * is split into seconds and the rest, which numbers hold exactly. */
function startOffsets(trace: Trace): { offsets: Float64Array; first: number } {
  const n = trace.spans.length;
  const seconds = new Float64Array(n);
  const rest = new Float64Array(n);
  let first = 0;
  for (let i = 0; i < n; i++) {
    const text = trace.spans[i]!.startUnixNano;
    const s = text.length > 9 ? Number(text.slice(0, -9)) : 0;
    const r = Number(text.length > 9 ? text.slice(-9) : text);
    if (s >= 0 && r >= 0) {
      seconds[i] = s;
      rest[i] = r;
    }
    if (seconds[i]! < seconds[first]! || (seconds[i] === seconds[first] && rest[i]! < rest[first]!)) first = i;
  }
  const offsets = new Float64Array(n);
  for (let i = 0; i < n; i++) offsets[i] = (seconds[i]! - seconds[first]!) * 1e9 + (rest[i]! - rest[first]!);
  return { offsets, first };
}

export function buildTrace(trace: Trace): TraceModel {
  const n = trace.spans.length;
  const { offsets, first } = startOffsets(trace);
  const start = n > 0 ? parseNs(trace.spans[first]!.startUnixNano) : parseNs(trace.startUnixNano);

  const inTime = new Array<number>(n);
  let sorted = true; // as the server sends them
  for (let i = 0; i < n; i++) {
    inTime[i] = i;
    if (i > 0 && offsets[i]! < offsets[i - 1]!) sorted = false;
  }
  if (!sorted) inTime.sort((a, b) => offsets[a]! - offsets[b]! || a - b);

  const indexOf = new Map<string, number>();
  for (const i of inTime) {
    const id = trace.spans[i]!.spanId;
    if (!indexOf.has(id)) indexOf.set(id, i);
  }

  const none = -1;
  const parentOf = new Int32Array(n).fill(none);
  const orphan = new Uint8Array(n);
  const circular = new Uint8Array(n);
  for (let i = 0; i < n; i++) {
    const id = trace.spans[i]!.parentSpanId;
    if (!id) continue;
    const p = indexOf.get(id);
    if (p === undefined) orphan[i] = 1;
    else if (p === i) circular[i] = 1;
    else parentOf[i] = p;
  }

  // Circles: walk up from each span; meeting the walk's own mark again closes one.
  const mark = new Int32Array(n).fill(none);
  for (const i of inTime) {
    let at = i;
    while (at !== none && mark[at] === none) {
      mark[at] = i;
      at = parentOf[at]!;
    }
    if (at !== none && mark[at] === i) {
      // Cut at the circle's earliest span.
      let cut = at;
      for (let c = parentOf[at]!; c !== at; c = parentOf[c]!)
        if (offsets[c]! < offsets[cut]! || (offsets[c] === offsets[cut] && c < cut)) cut = c;
      parentOf[cut] = none;
      circular[cut] = 1;
    }
  }

  // Children as linked lists, filled from the last start to the first so that they come out in order.
  const firstChild = new Int32Array(n).fill(none);
  const nextSibling = new Int32Array(n).fill(none);
  const childCount = new Int32Array(n);
  let firstTop = none;
  for (let k = n - 1; k >= 0; k--) {
    const i = inTime[k]!;
    const p = parentOf[i]!;
    if (p === none) {
      nextSibling[i] = firstTop;
      firstTop = i;
    } else {
      nextSibling[i] = firstChild[p]!;
      firstChild[p] = i;
      childCount[p]!++;
    }
  }

  const nodes: Node[] = [];
  const byId = new Map<string, Node>();
  const byService = new Map<string, ServiceInfo>();
  const errors: Node[] = [];
  const orphans: Node[] = [];
  const path: Node[] = [];
  let end = 0;
  let depth = 0;
  let roots = 0;
  let at = firstTop;
  while (at !== none) {
    const span = trace.spans[at]!;
    const service = trace.resources[span.resource]?.service ?? 'unknown_service';
    let info = byService.get(service);
    if (!info) byService.set(service, (info = { name: service, color: serviceColor(service), spans: 0, errors: 0 }));
    const parent = path[path.length - 1] ?? null;
    const node: Node = {
      row: nodes.length, span, service, color: info.color, parent, depth: path.length, size: 0,
      children: childCount[at]!,
      start: offsets[at]!,
      duration: Math.max(0, Number(span.durationNano) || 0),
      error: span.status?.code === 'ERROR',
      orphan: orphan[at] === 1, circular: circular[at] === 1, errorBelow: false,
    };
    nodes.push(node);
    if (!byId.has(span.spanId)) byId.set(span.spanId, node);
    info.spans++;
    if (node.error) {
      info.errors++;
      errors.push(node);
      for (let a = parent; a && !a.errorBelow; a = a.parent) a.errorBelow = true;
    }
    if (node.orphan) orphans.push(node);
    if (!parent) roots++;
    end = Math.max(end, node.start + node.duration);
    depth = Math.max(depth, path.length + 1);

    if (firstChild[at] !== none) {
      path.push(node);
      at = firstChild[at]!;
      continue;
    }
    while (at !== none && nextSibling[at] === none) {
      const up = path.pop();
      if (!up) {
        at = none;
        break;
      }
      up.size = nodes.length - 1 - up.row;
      at = parentOf[at]!;
    }
    if (at !== none) at = nextSibling[at]!;
  }

  const services = [...byService.values()].sort((a, b) => b.spans - a.spans || (a.name < b.name ? -1 : 1));
  return {
    traceId: trace.traceId, trace, start, duration: end, nodes, byId, services, roots, depth, errors, orphans,
  };
}

/** What of a span's time no child covers. */
export function selfTime(model: TraceModel, node: Node): number {
  let covered = 0;
  let until = node.start;
  const end = node.start + node.duration;
  for (let row = node.row + 1; row <= node.row + node.size; row += 1 + model.nodes[row]!.size) {
    const child = model.nodes[row]!; // in start order
    const from = Math.max(child.start, until);
    const to = Math.min(child.start + child.duration, end);
    if (to > from) {
      covered += to - from;
      until = to;
    }
  }
  return node.duration - covered;
}

/** Which spans are folded: those at `depth` or deeper, with `flipped` ids the other way round. */
export interface Fold {
  depth: number; // Infinity: none
  flipped: ReadonlySet<string>;
}

export const isFolded = (node: Node, fold: Fold): boolean =>
  node.children > 0 && (node.depth >= fold.depth) !== fold.flipped.has(node.span.spanId);

export function visibleNodes(model: TraceModel, fold: Fold): Node[] {
  if (fold.depth === Infinity && fold.flipped.size === 0) return model.nodes;
  const out: Node[] = [];
  for (let row = 0; row < model.nodes.length; ) {
    const node = model.nodes[row]!;
    out.push(node);
    row += isFolded(node, fold) ? 1 + node.size : 1;
  }
  return out;
}

/** Rows whose name, service, ids, attributes or events contain `text`, in any case. */
export function findNodes(model: TraceModel, text: string): Node[] {
  const needle = text.trim().toLowerCase();
  if (!needle) return [];
  const inText = (s: string | undefined): boolean => s !== undefined && s.toLowerCase().includes(needle);
  const inValue = (v: AnyValue | undefined): boolean => {
    if (!v) return false;
    if (v.stringValue !== undefined) return inText(v.stringValue);
    if (v.intValue !== undefined) return inText(String(v.intValue));
    if (v.boolValue !== undefined) return inText(String(v.boolValue));
    if (v.doubleValue !== undefined) return inText(String(v.doubleValue));
    if (v.arrayValue) return (v.arrayValue.values ?? []).some(inValue);
    if (v.kvlistValue) return inAttributes(v.kvlistValue.values ?? []);
    return false;
  };
  const inAttributes = (list: KeyValue[]): boolean =>
    list.some((a) => inText(a.key) || inValue(a.value) ||
      (needle.includes('=') && plain(a.value) !== null && `${a.key}=${plain(a.value)}`.toLowerCase().includes(needle)));
  return model.nodes.filter(({ span, service }) =>
    inText(span.name) || inText(service) || span.spanId === needle || inText(span.status?.message) ||
    inAttributes(span.attributes) ||
    span.events.some((e) => inText(e.name) || inAttributes(e.attributes)));
}

const plain = (v: AnyValue): string | null => {
  const x = v.stringValue ?? v.intValue ?? v.boolValue ?? v.doubleValue;
  return x === undefined ? null : String(x);
};
