// Prometheus's API over the series that are counted from spans: values against a count in this file, every path's answer
// against a golden file (tests/golden/api/prometheus.json; UPDATE=1 rewrites it), from memory and from what was sealed.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Server } from './lib.mjs';
import { ACCEPTED, INTERVAL, otlpOf, REFUSED, spansOfAnHour, T0 } from './promql.mjs';

const GOLDEN = fileURLToPath(new URL('../golden/api/prometheus.json', import.meta.url));
const KINDS = ['UNSPECIFIED', 'INTERNAL', 'SERVER', 'CLIENT', 'PRODUCER', 'CONSUMER'].map((s) => `SPAN_KIND_${s}`);
const STATUSES = ['UNSET', 'OK', 'ERROR'].map((s) => `STATUS_CODE_${s}`);
const BOUNDS = Array.from({ length: 14 }, (_, i) => 0.002 * 2 ** i);

const spans = spansOfAnHour();
const text = (parameters) => new URLSearchParams(parameters).toString();
const at = (query, more = {}) => `query?${text({ query, time: T0 + 3600, ...more })}`;
const over = (query, more = {}) => `query_range?${text({ query, start: T0 + 600, end: T0 + 1200, step: 300, ...more })}`;
const C = 'traces_spanmetrics_calls_total';
const PAY = '{service=~"pay.*"}';

const questions = {
  'vector': at(`${C}{service="front"}`),
  'vector-none': at('no_such_metric'),
  'vector-rfc3339': at(`sum(${C})`, { time: '2026-01-02T04:04:00.250Z' }),
  'vector-milliseconds': at(`sum(${C})`, { time: T0 + 3600.05 }),
  'vector-before': at(C, { time: T0 - 3600 }),
  'vector-special': at('vector(1) / 0 or label_replace(vector(NaN), "n", "nan", "", "") or label_replace(vector(-Inf), "n", "inf", "", "") or label_replace(vector(1e21), "n", "big", "", "") or label_replace(vector(0.0000001), "n", "small", "", "") or label_replace(vector(-0.001234), "n", "point", "", "")'),
  'scalar': at('1 + 1'),
  'scalar-range': over('time() / 100'),
  'string': at('"a \\"text\\""'),
  'matrix-of-instant': at(`${C}${PAY}[45s]`),
  'matrix': over(`sum by (service) (rate(${C}[5m]))`),
  'matrix-step-duration': over(`sum(${C})`, { step: '5m' }),
  'matrix-of-subquery': at('sum(traces_spanmetrics_calls_total)[2m:1m]'),
  'quantile': over('histogram_quantile(0.9, sum by (le) (rate(traces_spanmetrics_latency_bucket{span_kind="SPAN_KIND_SERVER"}[5m])))'),
  'sorted': at(`sort_desc(sum by (service) (${C}))`),
  'topk': at(`topk(2, sum by (service) (${C}))`),
  'buckets': at(`traces_spanmetrics_latency_bucket{service=~"pay.*", status_code="STATUS_CODE_ERROR"}`),
  'connector-buckets': at(`traces_span_metrics_duration_milliseconds_bucket{service_name=~"pay.*", status_code="STATUS_CODE_ERROR"}`),
  'series': `series?${text({ 'match[]': `${C}{service="cart"}` })}`,
  'series-two': 'series?match[]=traces_spanmetrics_calls_total{service="cart",status_code="STATUS_CODE_OK"}&match[]={__name__="traces_spanmetrics_latency_sum",service="cart",status_code=~".*_OK"}&match[]=traces_spanmetrics_latency_sum{service="cart",status_code="STATUS_CODE_OK",span_name="load"}',
  'series-before': `series?${text({ 'match[]': C, start: T0 - 7200, end: T0 - 3600 })}`,
  'series-limit': `series?${text({ 'match[]': C, limit: 1 })}`,
  'labels': 'labels',
  'labels-match': `labels?${text({ 'match[]': C })}`,
  'values-names': 'label/__name__/values',
  'values-service': 'label/service/values',
  'values-service-early': `label/service/values?${text({ start: T0, end: T0 + 600 })}`,
  'values-span-name': `label/span_name/values?${text({ 'match[]': `${C}{service="front"}` })}`,
  'values-le': `label/le/values?${text({ 'match[]': 'traces_spanmetrics_latency_bucket' })}`,
  'values-none': 'label/nothing/values',
  'values-limit': 'label/service/values?limit=1',
  'metadata': 'metadata',
  'metadata-one': 'metadata?metric=traces_spanmetrics_latency',
  'exemplars': `query_exemplars?${text({ query: `histogram_quantile(0.9, rate(traces_spanmetrics_latency_bucket${PAY.replace('}', ',status_code="STATUS_CODE_ERROR"}')}[5m]))`, start: T0, end: T0 + 3600 })}`,
  'graph': at('sum by (client, server, connection_type) (traces_service_graph_request_total)'),
  'exemplars-none': `query_exemplars?${text({ query: C, start: T0, end: T0 + 3600 })}`,
  'rules': 'rules',

  'bad-query': at('sum('),
  'bad-query-place': at('sum(\n  rate(a)\n)'),
  'bad-query-absent': 'query',
  'bad-time': at('1', { time: 'yesterday' }),
  'bad-execution': at(`${C} + on(service) ${C}`),
  'bad-group': at(`${C} + on(service) group_left ${C}`),
  'bad-label': at(`label_replace(${C}, "1a", "x", "service", ".*")`),
  'bad-labelset': at(`label_replace(${C}{service="cart"}, "status_code", "x", "", "")`),
  'bad-regex': at('a{b=~"x("}'),
  'bad-regex-reference': at(`label_replace(${C}, "a", "$1", "service", "(.)\\\\1")`),
  'bad-regex-steps': at(`label_replace(label_replace(vector(1), "v", "${'a'.repeat(60)}b", "", ""), "w", "", "v", "(a|aa)+[cd]")`),
  'bad-timeout': at('1', { timeout: 'soon' }),
  'bad-range-string': over('"a"'),
  'bad-range-matrix': over(`${C}[5m]`),
  'bad-step': over('1', { step: 0 }),
  'bad-step-text': over('1', { step: 'x' }),
  'bad-end': over('1', { end: T0 }),
  'bad-start': `query_range?${text({ query: 1, end: 5, step: 1 })}`,
  'bad-resolution': over('1', { end: T0 + 600 + 11001 * 15, step: 15 }),
  'bad-samples': over(`sum_over_time(${C}[3650d])`),
  'bad-match': 'series?match[]=a{',
  'bad-match-expression': 'series?match[]=sum(a)',
  'bad-match-absent': 'series',
  'bad-match-many': `series?${'match[]=a&'.repeat(33)}`,
  'bad-label-name': 'label/a-b/values',
  'bad-path': 'nothing',
  'bad-method': 'metadata',
};

let data;
let server;
before(async () => {
  data = await mkdtemp(path.join(tmpdir(), 'pugmark-prometheus-'));
  server = await Server.start({ data });
  await server.send(otlpOf(spans));
});
after(async () => {
  await server.stop();
  await rm(data, { recursive: true, force: true });
});

const ask = (url, options) => fetch(`${server.endpoints.tempo}/api/v1/${url}`, options);
const value = async (query, time) => {
  const response = await ask('query', { method: 'POST', body: new URLSearchParams({ query, time }) });
  assert.equal(response.status, 200, query);
  return (await response.json()).data.result;
};

async function checkAll() {
  const answers = {};
  for (const [name, url] of Object.entries(questions)) {
    const response = await ask(url, name === 'bad-method' ? { method: 'POST' } : {});
    answers[name] = { url, status: response.status, type: response.headers.get('content-type'), body: await response.json() };
  }
  if (process.env.UPDATE) await writeFile(GOLDEN, `${JSON.stringify(answers, null, 1)}\n`);
  const golden = JSON.parse(await readFile(GOLDEN, 'utf8'));
  for (const [name, answer] of Object.entries(answers)) assert.deepEqual(answer, golden[name], name);
  assert.deepEqual(Object.keys(golden), Object.keys(answers));
}

const labelsOf = (s) => ({ service: s.service, span_name: s.name, span_kind: KINDS[s.kind], status_code: STATUSES[s.status] });
const key = (labels) => JSON.stringify(Object.entries(labels).sort());

/** What the counters are at a sample: all spans that started before it; 0 at the sample before the first. */
function counted(time, amount) {
  const found = new Map();
  for (const s of spans) {
    const k = key(labelsOf(s));
    const startS = T0 + s.startMs / 1000;
    if (Math.floor(startS / INTERVAL) * INTERVAL > time) continue;
    found.set(k, (found.get(k) ?? 0) + (startS < time ? amount(s) : 0));
  }
  return found;
}

async function checkCounters() {
  for (const time of [T0, T0 + 15, T0 + 900, T0 + 915, T0 + 1800, T0 + 2400, T0 + 3600, T0 + 3615]) {
    const check = async (query, amount) => {
      const expected = counted(time, amount);
      const result = await value(query, time + 0.001);
      assert.deepEqual(result.map(({ metric: { __name__, le, ...labels } }) => key(labels)).sort(), [...expected.keys()].sort(), `${query} at ${time - T0}`);
      for (const { metric: { __name__, le, ...labels }, value: [, v] } of result) {
        const wanted = expected.get(key(labels));
        assert.ok(Math.abs(v - wanted) <= 1e-9 * Math.max(1, wanted), `${query} at ${time - T0} of ${key(labels)}: ${v} is not ${wanted}`);
      }
    };
    await check(C, () => 1);
    await check('traces_spanmetrics_latency_count', () => 1);
    await check('traces_spanmetrics_latency_sum', (s) => s.durationUs / 1e6);
    await check('traces_spanmetrics_latency_bucket{le="+Inf"}', () => 1);
    for (const bound of BOUNDS) await check(`traces_spanmetrics_latency_bucket{le="${bound}"}`, (s) => (s.durationUs / 1e6 <= bound ? 1 : 0));
  }
}

const GRAPH = ['a', 'b'].map((c) => c.repeat(32));
const id = (n) => n.toString(16).padStart(16, '0');
const attributes = (o) => Object.entries(o).map(([key, v]) => ({ key, value: typeof v === 'number' ? { intValue: String(v) } : { stringValue: v } }));
const graphSpan = (service, n, parent, kind, durationMs, more = {}) => ({ service, span: {
  traceId: GRAPH[0], spanId: id(n), parentSpanId: parent ? id(parent) : '', name: 'x', kind,
  startTimeUnixNano: String(BigInt(T0) * 1_000_000_000n + BigInt(n) * 1_000_000n),
  endTimeUnixNano: String(BigInt(T0) * 1_000_000_000n + BigInt(n + durationMs) * 1_000_000n), ...more, attributes: attributes(more.attributes ?? {}) } });
const failed = { status: { code: 2 } };
const SERVER = 2, CLIENT = 3, PRODUCER = 4, CONSUMER = 5;
const graphParents = [
  graphSpan('front', 1, 0, SERVER, 500),
  graphSpan('front', 2, 1, CLIENT, 300, { attributes: { 'peer.service': 'cart' } }), // and cart answers
  graphSpan('front', 3, 1, CLIENT, 50, { attributes: { 'peer.service': 'bank' }, ...failed }), // nobody does
  graphSpan('front', 4, 1, CLIENT, 10), // nor here, and nobody knows whom it asked
  graphSpan('front', 5, 1, PRODUCER, 1),
  graphSpan('front', 6, 1, CLIENT, 20),
  graphSpan('batch', 7, 0, CONSUMER, 70, { traceId: GRAPH[1], attributes: { 'peer.service': 'queue' } }),
];
const graphChildren = [
  graphSpan('cart', 12, 2, SERVER, 250, failed),
  graphSpan('cart', 13, 12, CLIENT, 40, { attributes: { 'db.system': 'postgresql', 'db.name': 'shop', 'network.peer.address': '10.0.0.7', 'network.peer.port': 5432 } }),
  graphSpan('cart', 14, 12, CLIENT, 41, { attributes: { 'db.system': 'redis', 'server.address': 'cache' }, ...failed }),
  graphSpan('cart', 15, 12, CLIENT, 42, { attributes: { 'db.namespace': 'shop', 'db.name': 'no' } }),
  graphSpan('worker', 16, 5, CONSUMER, 90),
  graphSpan('front', 17, 6, SERVER, 15), // itself
  graphSpan('cart', 18, 2, 1, 5), // internal
];
const graphEdges = [ // client, server, connection, failed, client ms, server ms
  ['user', 'front', 'virtual_node', 0, 0, 500], ['front', 'cart', undefined, 1, 300, 250], ['front', 'bank', 'virtual_node', 1, 50, 0],
  ['front', 'worker', 'messaging_system', 0, 1, 90], ['front', 'front', undefined, 0, 20, 15], ['queue', 'batch', 'virtual_node', 0, 0, 70],
  ['cart', '10.0.0.7:5432', 'database', 0, 40, 40], ['cart', 'cache', 'database', 1, 41, 41], ['cart', 'shop', 'database', 0, 42, 42],
];

async function checkGraph(url) {
  const edges = async (query) => {
    const response = await fetch(`${url}/api/v1/${at(query)}`);
    assert.equal(response.status, 200);
    return (await response.json()).data.result.map(({ metric: { __name__, ...m }, value: [, v] }) => [m.client, m.server, m.connection_type, Math.round(Number(v) * 1e6) / 1e6]).sort();
  };
  const expected = (amount) => graphEdges.map((e) => [...e.slice(0, 3), amount(e)]).sort();
  const P = 'traces_service_graph_request';
  assert.deepEqual(await edges(`${P}_total`), expected(() => 1));
  assert.deepEqual(await edges(`${P}_failed_total`), expected((e) => e[3]).filter((e) => e[3]));
  assert.deepEqual(await edges(`${P}_client_seconds_sum`), expected((e) => e[4] / 1000));
  assert.deepEqual(await edges(`${P}_server_seconds_sum`), expected((e) => e[5] / 1000));
  assert.deepEqual((await edges(`${P}_server_seconds_bucket{le="0.1"}`)), expected((e) => (e[5] <= 100 ? 1 : 0)));
  assert.deepEqual((await edges(`${P}_total{connection_type="database", server=~"sh.*"}`)), [['cart', 'shop', 'database', 1]]);
}

describe("Prometheus's API", () => {
  test('draws the service graph, also of spans that came apart', async () => {
    const otlp = (list) => ({ resourceSpans: list.map(({ service, span }) => ({
      resource: { attributes: attributes({ 'service.name': service }) }, scopeSpans: [{ spans: [span] }] })) });
    const dir = await mkdtemp(path.join(tmpdir(), 'pugmark-graph-'));
    let other = await Server.start({ data: dir });
    try {
      await other.send(otlp(graphParents));
      await other.stop(); // which seals
      other = await Server.start({ data: dir });
      await other.send(otlp(graphChildren));
      await checkGraph(other.endpoints.tempo);
      await other.stop();
      other = await Server.start({ data: dir });
      await checkGraph(other.endpoints.tempo);
    } finally {
      await other.stop();
      await rm(dir, { recursive: true, force: true });
    }
    const together = await Server.start();
    try {
      await together.send(otlp([...graphChildren, ...graphParents]));
      await checkGraph(together.endpoints.tempo);
    } finally {
      await together.stop();
    }
  });

  test('answers as before, from memory', checkAll);
  test('counts spans, from memory', checkCounters);

  test('understands what Prometheus does', async () => {
    assert.ok(ACCEPTED.length >= 100);
    for (const query of ACCEPTED) assert.equal((await ask(at(query))).status, 200, query);
  });

  test('refuses what it does not understand, and says where', async () => {
    assert.ok(REFUSED.length >= 50);
    for (const query of REFUSED) {
      const response = await ask(at(query));
      const body = await response.json();
      assert.equal(response.status, 400, query);
      assert.equal(body.errorType, 'bad_data', query);
      assert.match(body.error, /^invalid parameter "query": \d+:\d+: parse error: ./, query);
    }
  });

  test('takes a form as Grafana sends it', async () => {
    const form = (query, more = {}) => ({ method: 'POST', body: new URLSearchParams({ query, ...more }) });
    const posted = await ask('query_range', form(`sum(rate(${C}{service="front"}[5m]))`, { start: T0, end: T0 + 600, step: 60 }));
    assert.equal(posted.status, 200);
    const got = await ask(`query_range?${text({ query: `sum(rate(${C}{service="front"}[5m]))`, start: T0, end: T0 + 600, step: 60 })}`);
    assert.deepEqual(await posted.json(), await got.json());
    const series = await ask('series', { method: 'POST', body: new URLSearchParams([['match[]', `${C}{service="cart"}`], ['match[]', `${C}{service="front"}`]]) });
    assert.equal((await series.json()).data.length, 15);
  });

  test('is on the address of the page too', async () => {
    const response = await fetch(`${server.endpoints.page}/api/v1/${at(`sum(${C})`)}`);
    assert.deepEqual(await response.json(), await (await ask(at(`sum(${C})`))).json());
  });

  test('says what it is to who probes', async () => {
    const { status, data: info } = await (await ask('status/buildinfo')).json();
    assert.equal(status, 'success');
    assert.equal(info.version, '3.0.0');
    assert.match(info.revision, /^pugmark-/);
    for (const probe of ['healthy', 'ready']) assert.equal((await fetch(`${server.endpoints.tempo}/-/${probe}`)).status, 200);
  });

  test('has no samples of the future', async () => {
    const now = Math.floor(Date.now() / 1000);
    assert.deepEqual(await value(C, now + 3600), []);
    assert.notDeepEqual(await value(C, now), []);
  });

  test('answers the same from what was sealed', async () => {
    await server.stop();
    server = await Server.start({ data });
    await checkAll();
    await checkCounters();
  });
});
