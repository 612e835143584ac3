import assert from 'node:assert/strict';
import test from 'node:test';
import type { Span, Trace } from '../api';
import { buildTrace, findNodes, isFolded, selfTime, visibleNodes } from './model';

interface Brief {
  id: string;
  parent?: string;
  start: number;
  duration?: number;
  error?: boolean;
  service?: number;
}

const epoch = 1_700_000_000_000_000_000n;

function span(b: Brief): Span {
  return {
    spanId: b.id, parentSpanId: b.parent ?? '', name: `name of ${b.id}`, kind: 'INTERNAL',
    startUnixNano: String(epoch + BigInt(b.start)), durationNano: String(b.duration ?? 10),
    status: { code: b.error ? 'ERROR' : 'UNSET', message: '' }, traceState: '', flags: 1, resource: b.service ?? 0, scope: 0,
    attributes: [{ key: 'id', value: { stringValue: `Value-${b.id}` } }], droppedAttributes: 0,
    events: [], droppedEvents: 0, links: [], droppedLinks: 0,
  };
}

const trace = (...spans: Brief[]): Trace => ({
  traceId: 't', startUnixNano: String(epoch), durationNano: '0', orphanCount: 0,
  resources: [{ service: 'api', attributes: [] }, { service: 'db', attributes: [] }], scopes: [], spans: spans.map(span),
});

const rows = (...spans: Brief[]): string => buildTrace(trace(...spans)).nodes.map((n) => `${'.'.repeat(n.depth)}${n.span.spanId}`).join(' ');

test('spans come in tree order, siblings by start, however they are sent', () => {
  assert.equal(
    rows({ id: 'c', parent: 'a', start: 5 }, { id: 'd', parent: 'b', start: 3 }, { id: 'b', parent: 'a', start: 1 }, { id: 'a', start: 0 }),
    'a .b ..d .c');
});

test('a span whose parent is missing stands on its own and says so', () => {
  const m = buildTrace(trace({ id: 'a', start: 0 }, { id: 'b', parent: 'gone', start: 1 }, { id: 'c', parent: 'b', start: 2 }));
  assert.deepEqual(m.orphans.map((n) => n.span.spanId), ['b']);
  assert.equal(m.roots, 2);
  assert.equal(m.nodes.length, 3);
});

test('parents in a circle are cut at the earliest span, and no span is lost', () => {
  assert.equal(rows({ id: 'a', parent: 'c', start: 0 }, { id: 'b', parent: 'a', start: 1 }, { id: 'c', parent: 'b', start: 2 }), 'a .b ..c');
  assert.equal(rows({ id: 'a', parent: 'a', start: 0 }, { id: 'b', parent: 'a', start: 1 }), 'a .b');
  // A tail that leads into a circle.
  assert.equal(rows({ id: 'x', parent: 'a', start: 9 }, { id: 'a', parent: 'b', start: 2 }, { id: 'b', parent: 'a', start: 1 }), 'b .a ..x');
});

test('an id that comes twice keeps both spans', () => {
  const m = buildTrace(trace({ id: 'a', start: 0 }, { id: 'a', start: 5 }, { id: 'b', parent: 'a', start: 6 }));
  assert.equal(m.nodes.length, 3);
  assert.equal(m.nodes[1]!.parent, m.nodes[0]);
});

test('every row knows how many are below it', () => {
  const m = buildTrace(trace({ id: 'a', start: 0 }, { id: 'b', parent: 'a', start: 1 }, { id: 'c', parent: 'b', start: 2 }, { id: 'd', parent: 'a', start: 3 }, { id: 'e', start: 9 }));
  assert.deepEqual(m.nodes.map((n) => n.size), [3, 1, 0, 0, 0]);
  assert.deepEqual(m.nodes.map((n) => n.children), [2, 1, 0, 0, 0]);
});

test('folding hides what is below, by depth and by single span', () => {
  const m = buildTrace(trace({ id: 'a', start: 0 }, { id: 'b', parent: 'a', start: 1 }, { id: 'c', parent: 'b', start: 2 }, { id: 'd', parent: 'a', start: 3 }));
  const shown = (depth: number, ...ids: string[]): string =>
    visibleNodes(m, { depth, flipped: new Set(ids) }).map((n) => n.span.spanId).join('');
  assert.equal(shown(Infinity), 'abcd');
  assert.equal(shown(Infinity, 'b'), 'abd');
  assert.equal(shown(0), 'a');
  assert.equal(shown(1), 'abd');
  assert.equal(shown(0, 'a'), 'abd');
  assert.equal(isFolded(m.nodes[3]!, { depth: 0, flipped: new Set() }), false); // a leaf cannot be
});

test('own time is what no child covers, also when children overlap or overrun', () => {
  const m = buildTrace(trace({ id: 'a', start: 0, duration: 100 }, { id: 'b', parent: 'a', start: 10, duration: 30 },
    { id: 'c', parent: 'a', start: 20, duration: 30 }, { id: 'd', parent: 'a', start: 90, duration: 50 }));
  assert.equal(selfTime(m, m.nodes[0]!), 100 - 40 - 10);
});

test('errors are known to every span above them', () => {
  const m = buildTrace(trace({ id: 'a', start: 0 }, { id: 'b', parent: 'a', start: 1 }, { id: 'c', parent: 'b', start: 2, error: true, service: 1 }));
  assert.deepEqual(m.nodes.map((n) => n.errorBelow), [true, true, false]);
  assert.deepEqual(m.services.map((s) => [s.name, s.spans, s.errors]), [['api', 2, 0], ['db', 1, 1]]);
});

test('a chain of 100,000 spans is built without recursion', () => {
  const spans: Brief[] = [];
  for (let i = 0; i < 100_000; i++) spans.push({ id: `s${i}`, parent: i ? `s${i - 1}` : '', start: i });
  const m = buildTrace(trace(...spans));
  assert.equal(m.depth, 100_000);
  assert.equal(m.nodes[0]!.size, 99_999);
});

test('text is found in names and values, in any case', () => {
  const m = buildTrace(trace({ id: 'a', start: 0 }, { id: 'b', start: 1, service: 1 }));
  assert.deepEqual(findNodes(m, 'value-B').map((n) => n.span.spanId), ['b']);
  assert.deepEqual(findNodes(m, 'id=value-a').map((n) => n.span.spanId), ['a']);
  assert.deepEqual(findNodes(m, 'DB').map((n) => n.span.spanId), ['b']);
  assert.deepEqual(findNodes(m, '  '), []);
});

test('offsets are exact to the nanosecond, also across a second and from the year 1970', () => {
  const t = trace({ id: 'a', start: 0 }, { id: 'b', start: 1 }, { id: 'c', start: 2 });
  t.spans[0]!.startUnixNano = '1699999999999999999';
  t.spans[1]!.startUnixNano = '1700000000000000000';
  t.spans[2]!.startUnixNano = '1700000001000000001';
  assert.deepEqual(buildTrace(t).nodes.map((n) => n.start), [0, 1, 1_000_000_002]);
  assert.equal(buildTrace(t).start, 1699999999999999999n);
  t.spans[0]!.startUnixNano = '7';
  t.spans[1]!.startUnixNano = '1000000008';
  t.spans[2]!.startUnixNano = 'nonsense';
  assert.deepEqual(buildTrace(t).nodes.map((n) => [n.span.spanId, n.start]), [['c', 0], ['a', 7], ['b', 1_000_000_008]]);
});

test('an empty trace is a trace', () => {
  const m = buildTrace(trace());
  assert.equal(m.nodes.length, 0);
  assert.equal(m.duration, 0);
});
