// What Jaeger's UI asks beside names, searches and traces (those: api.test.mjs): metrics of services, archive, transform, deep
// dependencies, quality. Golden answers: tests/golden/api/jaeger.json.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { checkGolden } from './golden.mjs';
import { otlpRequest, Server, until } from './lib.mjs';

const T0 = 1_767_323_040_000_000_000n; // 2026-01-02T03:04:00Z
const at = (ms) => String(T0 + BigInt(Math.round(ms * 1e6)));
const id = (n) => n.toString(16).padStart(16, '0');
const trace = (n) => `0af7651916cd43dd8448eb21${n.toString(16).padStart(8, '0')}`;

/** front answers a request, calls cart (client and server), cart asks its database; every fifth cart fails. */
function requests(n) {
  const front = [];
  const cart = [];
  for (let i = 1; i <= n; i++) {
    const traceId = trace(i);
    const start = i * 1000;
    const bad = i % 5 === 0;
    front.push({ traceId, spanId: id(1), name: i % 2 ? 'GET /cart' : 'GET /pay', kind: 2, startTimeUnixNano: at(start), endTimeUnixNano: at(start + 100) },
      { traceId, spanId: id(2), parentSpanId: id(1), name: 'call', kind: 3, startTimeUnixNano: at(start + 10), endTimeUnixNano: at(start + 90) });
    cart.push({ traceId, spanId: id(3), parentSpanId: id(2), name: 'load', kind: 2, startTimeUnixNano: at(start + 20), endTimeUnixNano: at(start + (bad ? 85 : 40)),
      status: bad ? { code: 2, message: 'timeout' } : {} },
    { traceId, spanId: id(4), parentSpanId: id(3), name: 'SELECT', kind: 3, startTimeUnixNano: at(start + 21), endTimeUnixNano: at(start + 30),
      attributes: [{ key: 'db.system', value: { stringValue: 'sqlite' } }] });
  }
  return [otlpRequest('front', front), otlpRequest('cart', cart)];
}

const end = Number(T0 / 1_000_000n) + 30_000;
const range = `endTs=${end}&lookback=20000&step=5000&ratePer=10000`;
const us = `start=${T0 / 1000n}&end=${T0 / 1000n + 60_000_000n}`;
const questions = {
  'calls': `/api/metrics/calls?service=cart&${range}`,
  'calls-of-two': `/api/metrics/calls?service=cart&service=front&${range}`,
  'calls-by-operation': `/api/metrics/calls?service=front&groupByOperation=true&${range}`,
  'calls-of-clients': `/api/metrics/calls?service=cart&spanKind=client&spanKind=SPAN_KIND_PRODUCER&${range}`,
  'calls-of-nobody': `/api/metrics/calls?service=nobody&${range}`,
  'errors': `/api/metrics/errors?service=cart&service=front&${range}`,
  'latencies': `/api/metrics/latencies?service=cart&quantile=0.5&${range}`,
  'latencies-by-operation': `/api/metrics/latencies?service=front&quantile=0.95&groupByOperation=true&${range}`,
  'minstep': '/api/metrics/minstep',
  'deep': `/analytics/v1/dependencies?service=cart&operation=load&${us}`,
  'deep-of-the-root': `/analytics/v1/dependencies?service=front&start=0&end=0`,
  'deep-of-an-operation': `/analytics/v1/dependencies?service=front&operation=${encodeURIComponent('GET /pay')}&${us}`,
  'deep-of-nobody': '/analytics/v1/dependencies?service=nobody',

  'bad-calls': '/api/metrics/calls',
  'bad-kind': '/api/metrics/calls?service=a&spanKind=odd',
  'bad-group': '/api/metrics/calls?service=a&groupByOperation=maybe',
  'bad-step': '/api/metrics/calls?service=a&step=0',
  'bad-steps': `/api/metrics/calls?service=a&endTs=${end}&lookback=3600000&step=1`,
  'bad-quantile': '/api/metrics/latencies?service=a&quantile=2',
  'bad-no-quantile': '/api/metrics/latencies?service=a',
  'bad-deep': '/analytics/v1/dependencies',
  'bad-quality': '/api/quality-metrics',
  'bad-hours': '/api/quality-metrics?service=a&hours=0',
};

let data;
let server;
const page = (url, options) => fetch(server.endpoints.page + url, options);
before(async () => {
  data = await mkdtemp(path.join(tmpdir(), 'pugmark-jaeger-'));
  server = await Server.start({ data });
  for (const request of requests(20)) await server.send(request);
});
after(async () => {
  await server.stop();
  await rm(data, { recursive: true, force: true });
});

describe("what Jaeger's UI asks", () => {
  test('is answered as before, from memory', () => checkGolden('jaeger', server.endpoints.page, questions));

  test('rates are what was sent', async () => {
    // One request a second from the first second on: a window of ten whole ones holds ten.
    const { metrics: [calls] } = await server.get(questions.calls);
    assert.equal(calls.metricPoints.at(-2).gaugeValue.doubleValue, 0.6); // from 15 s to 25 s: those of 15 to 20 s
    assert.ok(calls.metricPoints.some((p) => p.gaugeValue.doubleValue === 1));
    const { metrics: [errors] } = await server.get(questions.errors);
    assert.ok(errors.metricPoints.some((p) => p.gaugeValue.doubleValue === 0.2));
    const { metrics: [half] } = await server.get(questions.latencies);
    for (const { gaugeValue } of half.metricPoints.slice(0, 3)) assert.ok(gaugeValue.doubleValue > 10 && gaugeValue.doubleValue < 40, JSON.stringify(half));
  });

  test('an archived trace is pinned, and outlives what retention drops', async () => {
    const post = (url, headers = {}) => page(url, { method: 'POST', headers });
    const kept = await post(`/api/archive/${trace(1)}`);
    assert.deepEqual([kept.status, (await kept.json()).data], [200, []]);
    assert.equal((await post(`/api/archive/${trace(1)}`)).status, 200);
    const absent = await post('/api/archive/ffffffffffffffffffffffffffffffff');
    assert.equal(absent.status, 404);
    assert.deepEqual((await absent.json()).errors, [{ code: 404, msg: 'trace not found', traceID: 'ffffffffffffffffffffffffffffffff' }]);
    assert.equal((await post('/api/archive/xyz')).status, 400);
    assert.equal((await page(`/api/archive/${trace(1)}`)).status, 405);
    assert.equal((await post(`/api/archive/${trace(2)}`, { origin: 'http://evil.example' })).status, 403);
    assert.equal((await post(`/api/archive/${trace(2)}`, { origin: server.endpoints.page })).status, 200);

    await server.stop();
    server = await Server.start({ data, args: ['--retention', '1h'] });
    const gone = async () => ((await page(`/api/traces/${trace(3)}`)).status === 404 ? true : undefined);

    await until('retention', gone, 20_000);
    assert.equal((await page(`/api/traces/${trace(1)}`)).status, 200);
    assert.equal((await page(`/api/traces/${trace(2)}`)).status, 200);
  });

  test('an uploaded trace is drawn as a stored one', async () => {
    const upload = (body) => page('/api/transform', { method: 'POST', body });
    const [front, cart] = requests(2);
    const whole = JSON.stringify({ resourceSpans: [...front.resourceSpans, ...cart.resourceSpans] });
    const answer = await (await upload(whole)).json();
    assert.equal(answer.total, 2);
    const { data: [stored] } = await server.get(`/api/traces/${trace(1)}`);
    const drawn = answer.data.find((t) => t.traceID === trace(1));
    assert.deepEqual(drawn.spans.map((s) => s.spanID), stored.spans.map((s) => s.spanID));
    assert.deepEqual(drawn, stored);
    assert.deepEqual((await (await upload('{"resourceSpans":[]}')).json()).data, []);
    const bad = await upload('{"resourceSpans":[{]}');
    assert.equal(bad.status, 400);
    assert.match((await bad.json()).errors[0].msg, /at byte 19/);
    assert.equal((await upload('x'.repeat(33 << 20))).status, 413);
  });

  test('the quality of traces is told with examples', async () => {
    const now = BigInt(Date.now()) * 1_000_000n;
    const t = (ms) => String(now + BigInt(ms) * 1_000_000n);
    await server.send(otlpRequest('shop', [
      { traceId: trace(100), spanId: id(1), name: 'GET /', kind: 2, startTimeUnixNano: t(0), endTimeUnixNano: t(50) },
      { traceId: trace(100), spanId: id(2), parentSpanId: id(1), name: 'GET /item/12345', kind: 3, startTimeUnixNano: t(10), endTimeUnixNano: t(60) },
      { traceId: trace(101), spanId: id(1), parentSpanId: id(9), name: 'lost', kind: 1, startTimeUnixNano: t(1000), endTimeUnixNano: t(1001) },
    ]));
    const quality = await server.get('/api/quality-metrics?service=shop&hours=1');
    const of = Object.fromEntries(quality.metrics.map((m) => [m.name, m]));
    const counts = Object.fromEntries(quality.metrics.map((m) => [m.name, [m.passCount, m.failureCount]]));
    assert.deepEqual(counts, { WholeTraces: [1, 1], UniqueSpanIds: [3, 0], SpansInsideParents: [0, 1], NamesWithoutIds: [2, 1], AnsweredCalls: [0, 1] });
    assert.deepEqual(of.WholeTraces.failureExamples, [{ traceID: trace(101) }]);
    assert.deepEqual(of.NamesWithoutIds.failureExamples, [{ traceID: trace(100), spanIDs: [id(2)] }]);
    assert.deepEqual(quality.scores.map((s) => [s.key, s.value]), [['completeness', 50], ['clarity', 22]]);
    for (const m of quality.metrics) assert.ok(quality.scores.some((s) => s.key === m.category));
  });
});
