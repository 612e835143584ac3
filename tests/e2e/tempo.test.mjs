// Tempo's API on the address of its own: what Grafana's Tempo data source asks, about a fixed set of spans, compared
// with a golden file (tests/golden/api/tempo.json; UPDATE=1 rewrites it), from memory and from what was sealed.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Server } from './lib.mjs';

const GOLDEN = fileURLToPath(new URL('../golden/api/tempo.json', import.meta.url));

const T0 = 1_767_323_045_000_000_000n; // 2026-01-02T03:04:05Z
const S0 = Number(T0 / 1_000_000_000n);
const A = '0af7651916cd43dd8448eb211c80319c';
const B = '0bf7651916cd43dd8448eb211c80319c';
const C = '00000000000000000000000000000abc';
const value = (v) =>
  typeof v === 'string' ? { stringValue: v }
  : typeof v === 'boolean' ? { boolValue: v }
  : typeof v === 'bigint' ? { intValue: String(v) }
  : typeof v === 'number' ? { doubleValue: v }
  : Array.isArray(v) ? { arrayValue: { values: v.map(value) } }
  : v;
const attributes = (o = {}) => Object.entries(o).map(([key, v]) => ({ key, value: value(v) }));
const span = (traceId, spanId, parentSpanId, name, kind, startMs, durationMs, more = {}) => ({
  traceId, spanId, parentSpanId, name, kind,
  startTimeUnixNano: String(T0 + BigInt(startMs) * 1_000_000n),
  endTimeUnixNano: String(T0 + BigInt(startMs + durationMs) * 1_000_000n),
  ...more, attributes: attributes(more.attributes),
});
const spans = {
  front: [
    span(A, 'a000000000000001', '', 'GET /cart', 2, 0, 120, {
      flags: 1, traceState: 'vendor=x', status: { code: 1 },
      attributes: { 'http.method': 'GET', 'http.status_code': 200n, ratio: 0.25, cached: false, tags: ['a', 'b'],
        raw: { bytesValue: 'AAEC/w==' }, 'odd key': 'x "y"' },
    }),
    span(A, 'a000000000000002', 'a000000000000001', 'call cart', 3, 10, 100),
    span(B, 'b000000000000001', '', 'GET /pay', 2, 2000, 30, { status: { code: 2, message: 'declined' },
      attributes: { 'http.method': 'POST' } }),
  ],
  cart: [
    span(A, 'a000000000000003', 'a000000000000002', 'cart.load', 2, 20, 80, {
      status: { code: 2, message: 'timeout' }, attributes: { 'http.status_code': 504n, attempt: 3n },
      events: [
        { timeUnixNano: String(T0 + 90_000_000n), name: 'exception',
          attributes: attributes({ 'exception.type': 'Timeout' }), droppedAttributesCount: 2 },
        { timeUnixNano: String(T0 + 95_000_000n), name: 'retry', attributes: attributes({ 'exception.type': 'Again' }) },
      ],
      links: [{ traceId: B, spanId: 'b000000000000001', traceState: 'l=1', attributes: attributes({ why: 'batch' }) }],
      droppedAttributesCount: 1, droppedEventsCount: 4, droppedLinksCount: 5,
    }),
    span(A, 'a000000000000004', 'a000000000000003', 'SELECT', 3, 30, 5, { attributes: { 'db.system': 'sqlite' } }),
  ],
  worker: [span(C, 'c000000000000001', 'c0000000000000ff', 'job', 5, 5000, 7, { attributes: { attempt: 3.5 } })],
};
const request = {
  resourceSpans: Object.entries(spans).map(([service, list]) => ({
    resource: { attributes: attributes({ 'service.name': service, 'host.name': 'box' }) },
    scopeSpans: [{ scope: { name: 'lib', version: '1.2', attributes: attributes({ lang: 'c' }) }, spans: list }],
  })),
};

const range = `start=${S0}&end=${S0 + 60}`;
const q = (text, more = '') => `/api/search?${range}&q=${encodeURIComponent(text)}${more}`;
const twice = (tag) => encodeURIComponent(encodeURIComponent(tag));
const values = (tag, more = '') => `/api/v2/search/tag/${twice(tag)}/values?${range}${more}`;

const series = (text, more = '&step=20s') => `/api/metrics/query_range?${range}&q=${encodeURIComponent(text)}${more}`;
const instant = (text, more = '') => `/api/metrics/query?${range}&q=${encodeURIComponent(text)}${more}`;

const questions = {
  'echo': '/api/echo',
  'ready': '/ready',
  'trace': `/api/traces/${A}`,
  'trace-short-id': '/api/traces/abc',
  'trace-v2': `/api/v2/traces/${A}?start=${S0}&end=${S0 + 60}`,
  'trace-absent': '/api/traces/ffffffffffffffffffffffffffffffff',
  'trace-v2-absent': '/api/v2/traces/ffffffffffffffffffffffffffffffff',

  'search': `/api/search?${range}`,
  'search-empty-query': q('{}'),
  'search-last-hour': '/api/search',
  'search-limit': q('{}', '&limit=1&spss=1'),
  'search-all-spans': q('{}', '&spss=0'),
  'search-status': q('{ status = error }'),
  'search-attribute': q('{ span.http.status_code >= 500 && resource.service.name = "cart" }'),
  'search-select': q('{ } | select(status, kind, resource.service.name, nestedSetLeft, nestedSetRight, nestedSetParent)'),
  'search-select-texts': q('{ } | select(statusMessage, event:timeSinceStart, span:parentID)'),
  'search-drilldown': q('({ nestedSetParent < 0 } &>> { status = error }) || ({ nestedSetParent < 0 }) | select(status, name)'),
  'search-by': q('{ } | by(resource.service.name) | count() > 1'),
  'search-average': q('{ } | avg(duration) > 50ms'),
  'search-time': `/api/search?start=${S0 + 2}&end=${S0 + 2}&q=%7B%7D`,
  'search-none': q('{ .no = "thing" }'),
  'search-tags': `/api/search?${range}&tags=${encodeURIComponent('service.name=cart error=true')}`,
  'bad-tags-key': `/api/search?${range}&tags=${encodeURIComponent('"odd key"=x')}`,
  'search-tags-name': `/api/search?${range}&tags=${encodeURIComponent('name="GET /pay"')}`,
  'search-tags-root': `/api/search?${range}&tags=${encodeURIComponent('root.service.name=front root.name="GET /cart"')}&minDuration=100ms&maxDuration=1s`,
  'search-duration': `/api/search?${range}&minDuration=110ms`,

  'tags': '/api/search/tags',
  'tags-intrinsic': '/api/search/tags?scope=intrinsic',
  'tags-other-time': '/api/search/tags?start=1&end=2',
  'tags-v2': `/api/v2/search/tags?${range}`,
  'tags-v2-span': `/api/v2/search/tags?${range}&scope=span`,
  'tags-v2-event': '/api/v2/search/tags?scope=event',
  'tags-v2-query': `/api/v2/search/tags?${range}&scope=span&q=${encodeURIComponent('{ resource.service.name = "cart" }')}`,
  'tags-v2-limit': `/api/v2/search/tags?${range}&scope=span&limit=2`,

  'values': '/api/search/tag/service.name/values',
  'values-bare': '/api/search/tag/http.status_code/values',
  'values-v2-service': values('resource.service.name'),
  'values-v2-service-query': values('resource.service.name', `&q=${encodeURIComponent('{ status = error }')}`),
  'values-v2-unfinished-query': values('resource.service.name', `&q=${encodeURIComponent('{ status = ')}`),
  'values-v2-empty-query': values('resource.service.name', '&q=%7B%7D'),
  'values-v2-name': '/api/v2/search/tag/name/values',
  'values-v2-string': values('span.http.method'),
  'values-v2-number': values('.attempt'),
  'values-v2-bool': values('span.cached'),
  'values-v2-array': values('span.tags'),
  'values-v2-quoted': values('span."odd key"'),
  'values-v2-unquoted': values('span.odd key'),
  'values-v2-event': values('event.exception.type'),
  'values-v2-event-name': values('event:name'),
  'values-v2-link': values('link.why'),
  'values-v2-scope': values('instrumentation.lang'),
  'values-v2-status': values('status'),
  'values-v2-kind': values('span:kind'),
  'values-v2-status-message': values('statusMessage'),
  'values-v2-root': values('rootName'),
  'values-v2-duration': values('duration'),
  'values-v2-absent': values('span.nothing'),
  'values-v2-limit': values('span.http.method', '&limit=1'),
  'values-v2-later': `/api/v2/search/tag/span.http.method/values?start=${S0 + 1}&end=${S0 + 60}`,

  'metrics-rate': series('{ } | rate()'),
  'metrics-rate-by': series('{ } | rate() by (resource.service.name)', '&step=20&exemplars=0'),
  'metrics-count-by-several': series('{ } | count_over_time() by (kind, status, span.attempt)', '&step=1m&exemplars=0'),
  'metrics-average': series('{ kind = server } | avg_over_time(duration) by (name)', '&step=60.0&exemplars=2'),
  'metrics-quantiles': series('{ } | quantile_over_time(duration, .5, .99) by (resource.service.name)', '&step=60s&exemplars=0'),
  'metrics-histogram': series('{ } | histogram_over_time(duration) with(sample=true)', '&step=60s&exemplars=0'),
  'metrics-drilldown': series('{ nestedSetParent<0 && true && resource.service.name != nil } | rate() by(resource.service.name)', '&step=60s&exemplars=0'),
  'metrics-compare': series('{ resource.service.name = "front" } | compare({ status = error }, 2)', '&step=60s'),
  'metrics-top': series('{ } | count_over_time() by (name) | topk(1)', '&step=60s&exemplars=0'),
  'metrics-bottom': series('{ } | max_over_time(duration) by (name) | bottomk(1)', '&step=60s&exemplars=0'),
  'metrics-math': series('({ status = error } | count_over_time()) / ({ } | count_over_time()) * 100', '&step=60s&exemplars=1'),
  'metrics-hint': series('{ } | rate() with(exemplars=false)', '&step=60s'),
  'metrics-boundary': `/api/metrics/query_range?start=${S0 - 10}&end=${S0 + 10}&step=5s&exemplars=0&q=${encodeURIComponent('{ name = "GET /cart" } | count_over_time()')}`,
  'metrics-nanoseconds': `/api/metrics/query_range?start=${T0}&end=${T0 + 10_000_000_000n}&step=5s&exemplars=0&q=${encodeURIComponent('{ } | rate()')}`,
  'metrics-rfc3339': `/api/metrics/query_range?start=2026-01-02T03:04:05Z&end=2026-01-02T03:04:15Z&step=5s&exemplars=0&q=${encodeURIComponent('{ } | rate()')}`,
  'metrics-fraction': `/api/metrics/query_range?start=${S0}.25&end=${S0 + 10}.5&step=5s&exemplars=0&query=${encodeURIComponent('{ } | rate()')}`,
  'metrics-since': `/api/metrics/query_range?end=${S0 + 10}&since=10s&step=5s&exemplars=0&q=${encodeURIComponent('{ } | rate()')}`,
  'metrics-default-step': `/api/metrics/query_range?start=${S0}.0&end=${S0}.1&exemplars=0&q=${encodeURIComponent('{ } | rate()')}`,
  'metrics-max-series': series('{ } | count_over_time() by (name)', '&step=60s&maxSeries=2&exemplars=0'),
  'metrics-none': series('{ .no = "thing" } | rate()'),
  'metrics-instant': instant('{ } | rate() by (resource.service.name)'),
  'metrics-instant-quantile': instant('{ } | quantile_over_time(duration, .5, .9)'),
  'metrics-instant-structure': instant('{ resource.service.name = "front" } >> { status = error } | count_over_time() by (name)'),
  'metrics-instant-none': instant('{ .no = "thing" } | max_over_time(duration)'),

  'bad-metrics-traces': series('{ }'),
  'bad-metrics-query-range': series('{ } | rate() by'),
  'bad-metrics-hint': series('{ } | rate() with(span_limit=3)'),
  'bad-metrics-no-query': `/api/metrics/query_range?${range}`,
  'bad-metrics-step': series('{ } | rate()', '&step=fast'),
  'bad-metrics-step-0': series('{ } | rate()', '&step=0'),
  'bad-metrics-step-small': series('{ } | rate()', '&step=5ms'),
  'bad-metrics-order': `/api/metrics/query_range?start=${S0}&end=${S0}&q=${encodeURIComponent('{ } | rate()')}`,
  'bad-metrics-start': `/api/metrics/query_range?start=yesterday&q=${encodeURIComponent('{ } | rate()')}`,
  'bad-metrics-since': `/api/metrics/query?since=0s&q=${encodeURIComponent('{ } | rate()')}`,
  'bad-metrics-exemplars': series('{ } | rate()', '&step=60s&exemplars=many'),
  'bad-query': q('{ name = "x" name }'),
  'bad-metrics-query': q('{ } | rate()'),
  'bad-both': q('{ }', '&tags=a%3Db'),
  'bad-tags': `/api/search?${range}&tags=lonely`,
  'bad-tags-quote': `/api/search?${range}&tags=${encodeURIComponent('a="b')}`,
  'bad-duration': `/api/search?${range}&minDuration=fast`,
  'bad-start': '/api/search?start=yesterday',
  'bad-range': '/api/search?start=5&end=4',
  'bad-limit': q('{ }', '&limit=0'),
  'bad-spss': q('{ }', '&spss=101'),
  'bad-scope': '/api/v2/search/tags?scope=moon',
  'values-v2-odd': values('span.'),
  'values-v2-injected': values('name) | select(kind'),
  'bad-tag': '/api/v2/search/tag/%25FF/values',
  'bad-trace-id': '/api/traces/xyz',
  'bad-path': '/api/nothing',
  'bad-page-path': '/api/pugmark/services',
};

/** What depends on how the store keeps things. */
function steady(body) {
  if (body.metrics) {
    assert.match(body.metrics.inspectedBytes, /^\d+$/);
    assert.equal(body.metrics.totalJobs, 1);
    delete body.metrics;
  }
  return body;
}

let data;
let server;
before(async () => {
  data = await mkdtemp(path.join(tmpdir(), 'pugmark-tempo-'));
  server = await Server.start({ data });
  await server.send(request);
});
after(async () => {
  await server.stop();
  await rm(data, { recursive: true, force: true });
});

const ask = (url, headers = {}) => fetch(server.endpoints.tempo + url, { headers });

async function checkAll() {
  const answers = {};
  for (const [name, url] of Object.entries(questions)) {
    const response = await ask(url);
    const type = response.headers.get('content-type');
    const body = type === 'application/json' ? steady(await response.json()) : await response.text();
    answers[name] = { url, status: response.status, type, body };
  }
  if (process.env.UPDATE) await writeFile(GOLDEN, `${JSON.stringify(answers, null, 1)}\n`);
  const golden = JSON.parse(await readFile(GOLDEN, 'utf8'));
  for (const [name, answer] of Object.entries(answers)) assert.deepEqual(answer, golden[name], name);
  assert.deepEqual(Object.keys(golden), Object.keys(answers));
}

/** A trace in protobuf, sent to another server as what it is said to be, must be there the same trace. */
async function arrivesWhole(bytes, traceId) {
  const other = await Server.start();
  try {
    const sent = await fetch(`${other.endpoints.otlp_http}/v1/traces`, {
      method: 'POST', headers: { 'content-type': 'application/x-protobuf' }, body: bytes,
    });
    assert.equal(sent.status, 200);
    assert.deepEqual(await other.get(`/api/pugmark/traces/${traceId}`), await server.get(`/api/pugmark/traces/${traceId}`));
  } finally {
    await other.stop();
  }
}

describe("Tempo's API", () => {
  test('answers as before, from memory', checkAll);

  test('gives a trace in protobuf to who asks for it', async () => {
    const first = await ask(`/api/traces/${A}`, { accept: 'application/protobuf' });
    assert.equal(first.headers.get('content-type'), 'application/protobuf');
    const trace = Buffer.from(await first.arrayBuffer());
    await arrivesWhole(trace, A);

    const second = await ask(`/api/v2/traces/${A}`, { accept: 'application/protobuf' });
    assert.equal(second.headers.get('content-type'), 'application/protobuf');
    const answer = Buffer.from(await second.arrayBuffer());
    // TraceByIDResponse: one field, number 1, the trace; absent is the status, which is then COMPLETE.
    assert.equal(answer[0], 0x0a);
    let at = 1;
    let length = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = answer[at++];
      length += (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    assert.equal(at + length, answer.length);
    assert.deepEqual(answer.subarray(at), trace);

    const json = await ask(`/api/v2/traces/${A}`, { accept: 'application/json;q=0.9, application/protobuf;q=0.1' });
    assert.equal(json.headers.get('content-type'), 'application/json');
    const absent = await ask('/api/v2/traces/ff', { accept: 'application/protobuf' });
    assert.equal(absent.status, 404);
  });

  test('says what it is', async () => {
    for (const url of ['/status/buildinfo', '/api/status/buildinfo']) {
      const info = await (await ask(url)).json();
      assert.match(info.version, /^\d+\.\d+\.\d+/);
      assert.deepEqual(Object.keys(info), ['version', 'revision', 'branch', 'buildDate', 'buildUser', 'goVersion']);
    }
  });

  test('is on an address of its own, and counted under its own name', async () => {
    assert.equal((await fetch(`${server.endpoints.page}/api/echo`)).status, 404);
    assert.equal((await ask('/')).status, 404);
    const post = await fetch(`${server.endpoints.tempo}/api/search`, { method: 'POST', body: 'x' });
    assert.equal(post.status, 405);
    const metrics = await (await fetch(`${server.endpoints.page}/metrics`)).text();
    assert.match(metrics, /^pugmark_http_requests_total\{route="tempo \/api\/search"\} [1-9]/m);
    assert.equal((await server.get('/api/pugmark/status')).endpoints.tempo, server.endpoints.tempo);
  });

  test('answers as before after a restart', async () => {
    await server.stop();
    server = await Server.start({ data });
    await checkAll();
  });

  test('knows the names of what was sealed and of what was not', async () => {
    await server.send({ resourceSpans: [{
      resource: { attributes: attributes({ 'service.name': 'late', 'late.resource': 'r' }) },
      scopeSpans: [{ scope: {}, spans: [span(B, 'b0000000000000aa', 'b000000000000001', 'late', 1, 2001, 1, { attributes: { 'late.key': 'v' } })] }],
    }] });
    const { tagNames } = await (await ask('/api/search/tags')).json();
    for (const name of ['late.key', 'late.resource', 'http.method', 'host.name']) assert.ok(tagNames.includes(name), name);
    const { tagValues } = await (await ask('/api/v2/search/tag/resource.service.name/values')).json();
    assert.deepEqual(tagValues.map((v) => v.value), ['cart', 'front', 'late', 'worker']);
  });
});
