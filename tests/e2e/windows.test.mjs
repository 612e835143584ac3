// Parts of a trace: what the page asks for instead of the whole. `LONG=1` has a million spans, else 60,000.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { PUGMARK, Server, otlpRequest, randomHex } from './lib.mjs';

const run = promisify(execFile);
const million = Boolean(process.env.LONG);
const spans = million ? 1_000_000 : 60_000;
let server;
let id; // of the large trace
let outline;

before(async () => {
  server = await Server.start();
  await run(PUGMARK, ['load', '--otlp', server.endpoints.otlp_http, '--traces', '1', '--spans-per-trace', String(spans)]);
  const { traces } = await server.get('/api/pugmark/search');
  assert.equal(traces.length, 1);
  id = traces[0].traceId;
  outline = await server.get(`/api/pugmark/traces/${id}/outline`);
});

after(() => server?.stop());

const part = (name, params = {}) =>
  server.get(`/api/pugmark/traces/${id}/${name}?${new URLSearchParams({ asOf: outline.asOf, ...params })}`);

test('the outline says what the trace is', () => {
  assert.equal(outline.spanCount, spans);
  assert.equal(outline.lines, spans);
  assert.equal(outline.roots, 1);
  assert.equal(outline.services.reduce((n, s) => n + s.spanCount, 0), spans);
  assert.equal(outline.services.reduce((n, s) => n + s.errorCount, 0), outline.errorCount);
  assert.ok(outline.errorCount > 0 && outline.orphanCount === 0);
});

test('windows are pieces of one list in tree order, and each is there at once', async () => {
  const times = [];
  let seen = 0;
  for (const first of [0, 1000, 2000, spans - 1000, spans - 10]) {
    const start = performance.now();
    const w = await part('window', { first, lines: 1000 });
    times.push(performance.now() - start);
    assert.equal(w.asOf, outline.asOf);
    assert.equal(w.lines, spans);
    assert.equal(w.rows.length, Math.min(1000, spans - first));
    const depths = new Map(w.rows.map((r) => [r.spanId, r.depth]));
    for (const [i, r] of w.rows.entries()) {
      assert.equal(r.row, first + i);
      assert.equal(r.name.length > 0 && r.service < outline.services.length, true);
      if (depths.has(r.parentSpanId)) assert.equal(r.depth, depths.get(r.parentSpanId) + 1);
    }
    seen += w.rows.length;
  }
  times.sort((a, b) => a - b);
  console.log(`# ${spans} spans, 1000 lines a window: ${times.map((t) => t.toFixed(1)).join(', ')} ms`);
  assert.equal(seen, 4010);
});

test('operations share out all spans and their time', async () => {
  const { total, operations, selfNano } = await part('operations', { limit: 10_000 });
  assert.equal(total, operations.length);
  assert.equal(operations.reduce((n, o) => n + o.spanCount, 0), spans);
  assert.equal(operations.reduce((n, o) => n + o.errorCount, 0), outline.errorCount);
  assert.equal(operations.reduce((n, o) => n + BigInt(o.selfNano), 0n), BigInt(selfNano));
  for (const o of operations) assert.ok(BigInt(o.longestNano) <= BigInt(o.durationNano) && o.service < outline.services.length);
  const few = await part('operations', { limit: 2 });
  assert.deepEqual([few.total, few.operations], [total, operations.slice(0, 2)]);
});

test('folding by depth leaves the top, and the rows say how much is below them', async () => {
  const w = await part('window', { fold: 1, lines: 1000 });
  const root = w.rows[0];
  assert.equal(root.below, spans - 1);
  assert.equal(w.lines, root.children + 1);
  assert.equal(w.rows.slice(1).reduce((n, r) => n + 1 + (r.below ?? 0), 0), spans - 1);
  const inner = w.rows.find((r) => r.folded);
  const open = await part('window', { fold: 1, flip: inner.spanId, lines: 1000 });
  assert.equal(open.lines, w.lines + inner.children);
});

test('what is too short to be seen becomes one line, and none of it is lost', async () => {
  const merge = BigInt(outline.durationNano) / 100n;
  let total = 0;
  let merged = 0;
  let shown = 0;
  for (let first = 0, lines = 1; first < lines; first += 1000) {
    const w = await part('window', { merge, first, lines: 1000 });
    lines = w.lines;
    for (const r of w.rows) {
      total += r.merged ? r.spans : 1;
      shown++;
      if (!r.merged) continue;
      merged++;
      assert.ok(r.merged > 1 && !r.error && !r.errorBelow);
      assert.ok(BigInt(r.longestNano) < merge);
    }
  }
  assert.equal(total, spans);
  assert.ok(merged > 0 && shown < spans / 2, `${shown} lines, ${merged} of them merged`);
});

test('a span is told with its place, also inside a fold', async () => {
  const { rows: [wanted] } = await part('window', { first: spans - 1, lines: 1 });
  const s = await part(`spans/${wanted.spanId}`);
  assert.equal(s.row, wanted.row);
  assert.equal(s.line, wanted.row);
  assert.equal(s.span.spanId, wanted.spanId);
  assert.equal(s.span.name, wanted.name);
  assert.equal(s.span.durationNano, wanted.durationNano);
  assert.equal(s.span.attributes.length, 11);
  assert.equal(s.span.parentSpanId, wanted.parentSpanId);
  assert.equal(s.resource.service, outline.services[wanted.service].name);
  assert.ok(BigInt(s.selfNano) <= BigInt(wanted.durationNano));
  const hidden = await part(`spans/${wanted.spanId}`, { fold: 0 });
  assert.equal(hidden.line, 0);
  assert.equal(hidden.hiddenBy.length, wanted.depth);
  const opened = await part(`spans/${wanted.spanId}`, { fold: 0, flip: hidden.hiddenBy.join('.') });
  assert.deepEqual(opened.hiddenBy, []);
  const { rows: [again] } = await part('window', { fold: 0, flip: hidden.hiddenBy.join('.'), first: opened.line, lines: 1 });
  assert.equal(again.spanId, wanted.spanId);
});

test('text and queries find the same inside as they do outside, and stepping goes around', async () => {
  const failed = await part('find', { q: '{ status = error }' });
  assert.equal(failed.total, outline.errorCount);
  const { traces: [found] } = await server.get(`/api/pugmark/search?q=${encodeURIComponent('{ status = error }')}`);
  assert.equal(failed.total, found.matched);
  const text = await part('find', { q: 'PUBLISH' });
  const { traces: [named] } = await server.get(`/api/pugmark/search?q=${encodeURIComponent('{ name =~ "publish.*" }')}`);
  assert.equal(text.total, named.matched);
  const first = await part('find', { q: 'PUBLISH', step: 'next' });
  const last = await part('find', { q: 'PUBLISH', step: 'previous' });
  assert.equal(first.index, 0);
  assert.equal(last.index, text.total - 1);
  assert.equal((await part('find', { q: 'PUBLISH', step: 'next', row: last.row })).row, first.row);
  assert.equal((await part('find', { q: 'PUBLISH', step: 'previous', row: first.row })).row, last.row);
  const { rows } = await part('window', { q: 'PUBLISH', first: first.line, lines: 100 });
  assert.ok(rows[0].match);
  for (const r of rows) assert.equal(Boolean(r.match), r.name.startsWith('publish'));
  const below = await part('find', { q: '{ status = error } > { kind = server }' });
  const { traces: [structure] } = await server.get(`/api/pugmark/search?q=${encodeURIComponent('{ status = error } > { kind = server }')}`);
  assert.equal(below.total, structure.matched);
});

test('the overview covers the trace with stretches of services', async () => {
  const o = await part('overview', { width: 500, lanes: 40 });
  assert.equal(o.lanes, 40);
  assert.equal(o.runs.length % 5, 0);
  const covered = new Set();
  for (let i = 0; i < o.runs.length; i += 5) {
    const [lane, x, n, service] = o.runs.slice(i, i + 4);
    assert.ok(lane < 40 && x + n <= 500 && service < outline.services.length);
    covered.add(lane);
  }
  assert.equal(covered.size, 40);
});

test('the whole trace comes as a stream, in start order, and a client that leaves ends it', async () => {
  const response = await fetch(`${server.endpoints.page}/api/pugmark/traces/${id}`);
  assert.equal(response.status, 200);
  let bytes = 0;
  let tail = Buffer.alloc(0);
  let count = 0;
  const mark = Buffer.from('"spanId":"');
  for await (const chunk of response.body) {
    bytes += chunk.length;
    const text = Buffer.concat([tail, chunk]);
    for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, at + 1)) count++;
    tail = text.subarray(-mark.length + 1);
  }
  assert.equal(count, spans, `${bytes} bytes`);
  if (!million) {
    const whole = await server.get(`/api/pugmark/traces/${id}`);
    assert.equal(whole.spans.length, spans);
    assert.equal(new Set(whole.spans.map((s) => s.spanId)).size, spans);
    for (let i = 1; i < spans; i++) assert.ok(whole.spans[i - 1].startUnixNano <= whole.spans[i].startUnixNano);
    const some = await part(`spans/${whole.spans[spans / 2].spanId}`);
    const same = whole.spans[spans / 2];
    assert.deepEqual(some.resource, whole.resources[same.resource]);
    assert.deepEqual({ ...some.span, resource: same.resource, scope: same.scope }, same);
  }
  for (let i = 0; i < 10; i++) {
    const abort = new AbortController();
    const leaving = await fetch(`${server.endpoints.page}/api/pugmark/traces/${id}`, { signal: abort.signal });
    if (leaving.status === 503) continue; // those before have not been noticed yet
    assert.equal(leaving.status, 200);
    abort.abort();
  }
});

test('who goes on with a moment keeps its rows; who names none sees what came', async () => {
  const trace = randomHex(32);
  const root = randomHex(16);
  await server.send(otlpRequest('one', [{ traceId: trace, spanId: root, name: 'root' }]));
  const before = await server.get(`/api/pugmark/traces/${trace}/outline`);
  await server.send(otlpRequest('two', [{ traceId: trace, parentSpanId: root, name: 'late' }]));
  const same = await server.get(`/api/pugmark/traces/${trace}/window?asOf=${before.asOf}`);
  assert.equal(same.lines, 1);
  const now = await server.get(`/api/pugmark/traces/${trace}/window`);
  assert.equal(now.lines, 2);
  assert.notEqual(now.asOf, before.asOf);
});

test('what is asked wrongly is said, and a trace or span that is not there is 404', async () => {
  const status = async (path) => (await fetch(`${server.endpoints.page}/api/pugmark/traces/${path}`)).status;
  assert.equal(await status(`${'0'.repeat(31)}9/window`), 404);
  assert.equal(await status(`${id}/spans/00000000000000ff`), 404);
  assert.equal(await status(`${id}/spans/xyz`), 400);
  assert.equal(await status(`${id}/window?first=-1`), 400);
  assert.equal(await status(`${id}/window?lines=100000`), 400);
  assert.equal(await status(`${id}/window?flip=xyz`), 400);
  assert.equal(await status(`${id}/find?q=${encodeURIComponent('{ nonsense')}`), 400);
  assert.equal(await status(`${id}/find?q=${encodeURIComponent('{ } | rate()')}`), 400);
  assert.equal(await status(`${id}/find?what=nothing`), 400);
  assert.equal(await status(`${id}/overview?width=100000`), 400);
  assert.equal(await status('nonsense/outline'), 400);
});
