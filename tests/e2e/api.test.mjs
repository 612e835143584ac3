// What the page address answers about a fixed set of spans: our own API and Jaeger's two, compared with golden files
// (tests/golden/api; UPDATE=1 rewrites them), once from memory and once more after a restart, from what was sealed.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Server } from './lib.mjs';

const GOLDEN = fileURLToPath(new URL('../golden/api/', import.meta.url));

// ---- the spans: three traces; times are fixed ----

const T0 = 1_767_323_045_000_000_000n; // 2026-01-02T03:04:05Z
const ms = (n) => BigInt(Math.round(n * 1e6));
const A = '0af7651916cd43dd8448eb211c80319c';
const B = '0bf7651916cd43dd8448eb211c80319c';
const C = '00000000000000000000000000000abc'; // as clients send that know 64 bits only
const value = (v) =>
  typeof v === 'string' ? { stringValue: v }
  : typeof v === 'boolean' ? { boolValue: v }
  : typeof v === 'bigint' ? { intValue: String(v) }
  : typeof v === 'number' ? { doubleValue: v }
  : Array.isArray(v) ? { arrayValue: { values: v.map(value) } }
  : v;
const attributes = (o = {}) => Object.entries(o).map(([key, v]) => ({ key, value: value(v) }));
const span = (traceId, spanId, parentSpanId, name, kind, start, duration, more = {}) => ({
  traceId, spanId, parentSpanId, name, kind,
  startTimeUnixNano: String(T0 + start), endTimeUnixNano: String(T0 + start + duration), ...more,
  attributes: attributes(more.attributes),
});
const spans = {
  front: [
    span(A, 'a000000000000001', '', 'GET /cart', 2, ms(0), ms(120), {
      flags: 1, traceState: 'vendor=x', status: { code: 1 },
      attributes: { 'http.method': 'GET', 'http.status_code': 200n, 'big': 9007199254740993n, ratio: 0.25, cached: false,
        tags: ['a', 'b'], nothing: {}, raw: { bytesValue: 'AAEC/w==' }, 'user': 'Grüße <b>"&\u0001' },
    }),
    span(A, 'a000000000000002', 'a000000000000001', 'call cart', 3, ms(10), ms(100) + 1n),
    span(B, 'b000000000000001', '', 'GET /pay', 2, ms(2000), ms(30), { status: { code: 2, message: 'declined' } }),
  ],
  cart: [
    span(A, 'a000000000000003', 'a000000000000002', 'cart.load', 2, ms(20), ms(80), {
      status: { code: 2, message: 'timeout' }, attributes: { 'http.status_code': 504n, attempt: 3n },
      events: [
        { timeUnixNano: String(T0 + ms(90)), name: 'exception',
          attributes: attributes({ 'exception.type': 'Timeout', 'exception.message': 'no answer' }), droppedAttributesCount: 2 },
        { timeUnixNano: String(T0 + ms(95)), name: 'retry', attributes: [] },
      ],
      links: [{ traceId: B, spanId: 'b000000000000001', traceState: 'l=1', attributes: attributes({ why: 'batch' }) }],
      droppedAttributesCount: 1, droppedEventsCount: 4, droppedLinksCount: 5,
    }),
    span(A, 'a000000000000004', 'a000000000000003', 'SELECT', 3, ms(30), ms(5), { attributes: { 'db.system': 'sqlite' } }),
  ],
  worker: [
    span(C, 'c000000000000001', 'c0000000000000ff', 'job', 5, ms(5000), 700n, { attributes: { attempt: 3.5 } }),
  ],
};
const request = {
  resourceSpans: Object.entries(spans).map(([service, list]) => ({
    resource: { attributes: attributes({ 'service.name': service, 'host.name': 'box', 'process.pid': 42n }) },
    scopeSpans: [{ scope: { name: 'lib', version: '1.2' }, spans: list }],
  })),
};

// ---- the questions ----

const window = `start=${T0}&end=${T0 + ms(60_000)}`;
const q = (text, more = '') => `/api/pugmark/search?${window}&q=${encodeURIComponent(text)}${more}`;
const v3time = 'query.startTimeMin=2026-01-02T03:04:05Z&query.startTimeMax=2026-01-02T03:05:05Z';
const us = (n) => String((T0 + n) / 1000n);
const old = `start=${us(0n)}&end=${us(ms(60_000))}`;

const questions = {
  'services': '/api/pugmark/services',
  'operations': '/api/pugmark/operations',
  'operations-of-one': '/api/pugmark/operations?service=cart',
  'operations-of-nobody': '/api/pugmark/operations?service=nobody',
  'search-all': `/api/pugmark/search?${window}`,
  'search-limit': `/api/pugmark/search?${window}&limit=2`,
  'search-explain': q('{ status = error }', '&explain=1'),
  'search-explain-structure': q('{ name = "GET /cart" } >> { status = error } | count() > 0', '&explain=1'),
  'search-explain-whole': q('{ event:name = "retry" && status = error } | avg(duration) > 1ms', '&explain=1'),
  'search-explain-id': q(`{ trace:id = "${A}" }`, '&explain=1'),
  'search-last-hour': '/api/pugmark/search',
  'search-service': `/api/pugmark/search?${window}&service=cart`,
  'search-operation': `/api/pugmark/search?${window}&service=front&operation=GET%20%2Fpay`,
  'search-duration': `/api/pugmark/search?${window}&minDuration=50ms&maxDuration=100ms`,
  'search-tag-int': `/api/pugmark/search?${window}&tag=http.status_code%3D504`,
  'search-tags': `/api/pugmark/search?${window}&tag=attempt%3D3&tag=error%3Dtrue`,
  'search-tag-float': `/api/pugmark/search?${window}&tag=attempt%3D3.5`,
  'search-time': `/api/pugmark/search?start=${T0 + ms(25)}&end=${T0 + ms(1999)}`,
  'search-q': q('{ status = error && duration > 50ms }'),
  'search-q-and-service': q('{ status = error }', '&service=front'),
  'search-q-spansets': q('{ name = "cart.load" } && { kind = client && name != "SELECT" }'),
  'search-q-root': q('{ rootName = "GET /cart" && name =~ "cart.*" }'),
  'search-q-event': q('{ event.exception.type = "Timeout" }'),
  'search-q-root-only': q('{ nestedSetParent < 0 }'),
  'search-q-trace-id': q(`{ trace:id = "${A}" }`),
  'search-spans': q('{ status = error }', '&spans=1'),
  'search-select': q('{ status = error } | select(span.http.status_code, kind, duration, resource.host.name, .no)'),
  'search-by': q('{ } | by(kind) | count() > 1 | select(name)', '&spans=2'),
  'search-spans-too-many': q('{ }', '&spans=1001'),
  'search-q-none': q('{ .no = "thing" }'),
  'trace': `/api/pugmark/traces/${A}`,
  'trace-short-id': '/api/pugmark/traces/abc',
  'trace-absent': '/api/pugmark/traces/ffffffffffffffffffffffffffffffff',

  'v3-services': '/api/v3/services',
  'v3-operations': '/api/v3/operations?service=cart',
  'v3-operations-kind': '/api/v3/operations?service=front&spanKind=server',
  'v3-summaries': `/api/v3/trace-summaries?${v3time}`,
  'v3-summaries-service': `/api/v3/trace-summaries?${v3time}&query.serviceName=cart&query.operationName=cart.load`
    + '&query.durationMin=50ms&query.durationMax=1s&query.searchDepth=5',
  'v3-summaries-snake-case': '/api/v3/trace-summaries?query.start_time_min=2026-01-02T04:04:05.000000000+01:00'
    + '&query.start_time_max=2026-01-02T03:05:05Z&query.service_name=front&query.num_traces=1',
  'v3-summaries-attributes': `/api/v3/trace-summaries?${v3time}`
    + `&query.attributes=${encodeURIComponent('{"http.status_code":"504"}')}`,
  'v3-traces': `/api/v3/traces?${v3time}&query.serviceName=worker`,
  'v3-traces-none': `/api/v3/traces?${v3time}&query.serviceName=nobody`,
  'v3-trace': `/api/v3/traces/${A}?startTime=2026-01-02T03:04:05Z&endTime=2026-01-02T03:05:05Z&rawTraces=true`,
  'v3-trace-absent': '/api/v3/traces/ffffffffffffffffffffffffffffffff',

  'v3-dependencies': '/api/v3/dependencies?startTime=2026-01-02T03:04:05Z&endTime=2026-01-02T03:05:05Z',
  'v3-dependencies-later': '/api/v3/dependencies?start_time=2026-01-02T03:04:06Z&end_time=2026-01-02T03:05:05Z',

  'legacy-services': '/api/services',
  'legacy-service-operations': '/api/services/front/operations',
  'legacy-operations': '/api/operations?service=cart',
  'legacy-operations-kind': '/api/operations?service=cart&spanKind=client',
  'legacy-search': `/api/traces?service=front&${old}&limit=20`,
  'legacy-search-tags': `/api/traces?service=cart&${old}&tags=${encodeURIComponent('{"error":"true","db.system":"x"}')}`,
  'legacy-search-tag': `/api/traces?service=cart&${old}&tag=error:true&tag=span.kind:server&minDuration=1ms&maxDuration=2s`,
  'legacy-search-lookback': `/api/traces?service=worker&end=${us(ms(60_000))}&lookback=1h`,
  'legacy-trace': `/api/traces/${A}`,
  'legacy-traces-by-id': `/api/traces?traceID=abc&traceID=${B}&traceID=ff`,
  'legacy-trace-absent': '/api/traces/ffffffffffffffffffffffffffffffff',
  'legacy-dependencies': `/api/dependencies?endTs=${(T0 + ms(60_000)) / 1_000_000n}&lookback=3600000`,

  'legacy-dependencies-service': `/api/dependencies?endTs=${(T0 + ms(60_000)) / 1_000_000n}&lookback=3600000&service=worker`,

  'bad-start': '/api/pugmark/search?start=yesterday',
  'bad-range': '/api/pugmark/search?start=5&end=4',
  'bad-limit': '/api/pugmark/search?limit=0',
  'bad-cursor': '/api/pugmark/search?cursor=abc',
  'bad-limit-large': '/api/pugmark/search?limit=1001',
  'bad-duration': '/api/pugmark/search?minDuration=fast',
  'bad-tag': '/api/pugmark/search?tag=lonely',
  'bad-q': q('{ name = "x" name }'),
  'bad-q-later': q('{ .a } >> 5'),
  'bad-q-pattern': q('{ name =~ "a(b" }'),
  'bad-trace-id': '/api/pugmark/traces/xyz',
  'bad-live': '/api/pugmark/live?q=%7B',
  'bad-live-trace': `/api/pugmark/live?q=${encodeURIComponent('{ rootName = "x" }')}`,
  'bad-path': '/api/pugmark/nothing',
  'bad-v3-times': '/api/v3/traces',
  'bad-v3-time': '/api/v3/trace-summaries?query.startTimeMin=yesterday&query.startTimeMax=2026-01-02T03:04:05Z',
  'bad-v3-duration': `/api/v3/trace-summaries?${v3time}&query.durationMin=fast`,
  'bad-v3-depth': `/api/v3/trace-summaries?${v3time}&query.searchDepth=-1`,
  'bad-v3-attributes': `/api/v3/trace-summaries?${v3time}&query.attributes=%7B%22a%22%3A1%7D`,
  'bad-v3-filter': `/api/v3/trace-summaries?${v3time}&query.filter=%7B%7D`,
  'bad-v3-trace-id': '/api/v3/traces/xyz',
  'bad-v3-operations': '/api/v3/operations',
  'bad-v3-kind': '/api/v3/operations?service=a&spanKind=odd',
  'bad-v3-path': '/api/v3/nothing',
  'bad-v3-dependencies': '/api/v3/dependencies?startTime=2026-01-02T03:04:05Z',
  'bad-legacy-service': `/api/traces?${old}`,
  'bad-legacy-start': '/api/traces?service=a&start=x',
  'bad-legacy-lookback': '/api/traces?service=a&lookback=x',
  'bad-legacy-tag': '/api/traces?service=a&tag=x',
  'bad-legacy-tags': '/api/traces?service=a&tags=x',
  'bad-legacy-limit': '/api/traces?service=a&limit=x',
  'bad-legacy-trace-id': '/api/traces/xyz',
  'bad-legacy-trace-ids': '/api/traces?traceID=a&traceID=xyz',
  'bad-legacy-operations': '/api/operations',
  'bad-legacy-dependencies': '/api/dependencies?endTs=x',
  'bad-legacy-path': '/api/nothing',
};

/** What depends on the clock or on how the store keeps things. */
function steady(body) {
  if (body?.scanned) {
    for (const key of Object.keys(body.scanned)) if (key !== 'start' && key !== 'end') delete body.scanned[key];
    if (!body.scanned.start.startsWith('1767')) body.scanned = 'now';
  }
  // How many starts had to be asked for is another number once traces were sealed.
  if (body?.plan) body.plan.tracesSettled = '0';
  return body;
}

let data;
let server;
before(async () => {
  data = await mkdtemp(path.join(tmpdir(), 'pugmark-api-'));
  server = await Server.start({ data });
  await server.send(request);
});
after(async () => {
  await server.stop();
  await rm(data, { recursive: true, force: true });
});

/** One golden file for each part: own, v3, legacy, bad. */
async function checkAll() {
  const answers = {};
  for (const [name, url] of Object.entries(questions)) {
    const response = await fetch(server.endpoints.page + url);
    assert.equal(response.headers.get('content-type'), 'application/json', `${name}: ${url}`);
    assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
    const part = name.match(/^(v3|legacy|bad)-/)?.[1] ?? 'own';
    (answers[part] ??= {})[name] = { url, status: response.status, body: steady(await response.json()) };
  }
  for (const [part, all] of Object.entries(answers)) {
    const file = path.join(GOLDEN, `${part}.json`);
    if (process.env.UPDATE) {
      await mkdir(GOLDEN, { recursive: true });
      await writeFile(file, `${JSON.stringify(all, null, 1)}\n`);
    }
    const golden = JSON.parse(await readFile(file, 'utf8'));
    for (const [name, answer] of Object.entries(all)) assert.deepEqual(answer, golden[name], name);
    assert.deepEqual(Object.keys(golden), Object.keys(all));
  }
}

describe('a search', () => {
  test('goes on with the cursor of its last page, and with no other', async () => {
    const all = (await server.get(questions['search-all'])).traces.map((t) => t.traceId);
    assert.equal(all.length, 3);
    const found = [];
    let cursor = '';
    for (let page = 0; page < all.length; page++) {
      // The range is the one of the first page: only that one says it.
      const answer = await server.get(page === 0 ? `${questions['search-all']}&limit=1` : `/api/pugmark/search?limit=1&cursor=${cursor}`);
      assert.equal(answer.traces.length, 1);
      assert.equal(answer.more, page + 1 < all.length);
      assert.equal(answer.cursor !== undefined, answer.more);
      found.push(answer.traces[0].traceId);
      if (answer.more) cursor = answer.cursor;
    }
    assert.deepEqual(found, all);
    for (const other of [`cursor=${cursor}&q=%7B%7D`, `cursor=${cursor}&service=front`, `cursor=${cursor.replace(/./, (c) => (c === '0' ? '1' : '0'))}`, `cursor=${cursor}00`]) {
      const response = await fetch(`${server.endpoints.page}/api/pugmark/search?${other}`);
      assert.equal(response.status, 400, other);
      assert.match(await response.text(), /no cursor/);
    }
  });
});

describe('the API answers as before', () => {
  test('from memory', checkAll);

  test('with integers that JavaScript cannot hold, whole in the text', async () => {
    for (const url of [`/api/pugmark/traces/${A}`, `/api/v3/traces/${A}`, `/api/traces/${A}`]) {
      const text = await (await fetch(server.endpoints.page + url)).text();
      assert.match(text, /9007199254740993/, url);
    }
  });

  test('after a restart', async () => {
    await server.stop();
    server = await Server.start({ data });
    await checkAll();
  });
});

// ---- the rest of the address ----

const get = (url, { method = 'GET', headers = {} } = {}) => new Promise((resolve, reject) => {
  const { hostname, port } = new URL(server.endpoints.page);
  http.request({ hostname, port, path: url, method, headers }, (response) => {
    const chunks = [];
    response.on('data', (chunk) => chunks.push(chunk));
    response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() }));
  }).on('error', reject).end();
});

describe('the address', () => {
  test('says whether it lives and is ready', async () => {
    for (const url of ['/healthz', '/readyz']) {
      const answer = await get(url);
      assert.deepEqual([answer.status, answer.text], [200, 'ok\n']);
    }
  });

  test('tells Prometheus what it counted', async () => {
    const { status, headers, text } = await get('/metrics');
    assert.equal(status, 200);
    assert.match(headers['content-type'], /^text\/plain; version=0\.0\.4/);
    for (const line of text.trimEnd().split('\n'))
      assert.match(line, /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="([^"\\\n]|\\.)*"\})? [0-9.]+)$/, line);
    assert.match(text, /^pugmark_store_spans 6$/m);
    assert.match(text, /^pugmark_http_requests_total\{route="\/healthz"\} [1-9]/m);
  });

  test('tells how it is', async () => {
    const status = await server.get('/api/pugmark/status');
    assert.equal(status.store.spans, '6');
    assert.deepEqual(status.endpoints, server.endpoints);
  });

  test('only answers GET and HEAD', async () => {
    for (const method of ['POST', 'PUT', 'DELETE']) {
      const answer = await get('/api/pugmark/services', { method });
      assert.equal(answer.status, 405);
      assert.equal(answer.headers.allow, 'GET, HEAD');
    }
    const head = await get('/api/pugmark/services', { method: 'HEAD' });
    assert.deepEqual([head.status, head.text], [200, '']);
  });

  test('answers to names of this machine only, so that no other page can read it under a name of its own', async () => {
    for (const host of ['localhost', 'localhost:16686', '127.0.0.1:1', '[::1]:5', 'a.localhost'])
      assert.equal((await get('/api/pugmark/services', { headers: { host } })).status, 200, host);
    for (const host of ['evil.example', 'localhost.evil.example', 'notlocalhost', '127.0.0.1.evil.example', '[evil]'])
      assert.equal((await get('/api/pugmark/services', { headers: { host } })).status, 421, host);
  });

  test('gives the page on every path of the page, under a strict policy, and not again when it is known', async () => {
    for (const url of ['/', '/search?q=x', '/live', `/trace/${A}`]) {
      const answer = await get(url);
      assert.equal(answer.status, 200);
      if (!answer.headers['content-type'].startsWith('text/html')) {
        assert.match(answer.text, /built without its page/);
        return;
      }
      assert.match(answer.headers['content-security-policy'], /default-src 'none'/);
      assert.doesNotMatch(answer.headers['content-security-policy'], /unsafe/);
      assert.equal(answer.headers['cache-control'], 'no-cache');
      const again = await get(url, { headers: { 'if-none-match': `"x", ${answer.headers.etag}` } });
      assert.deepEqual([again.status, again.text], [304, '']);
      const script = answer.text.match(/src="(\/[^"]+\.js)"/)[1];
      const asset = await get(script);
      assert.equal(asset.status, 200);
      assert.match(asset.headers['cache-control'], /immutable/);
    }
    assert.equal((await get('/no/such/page')).status, 404);
    assert.equal((await get('/assets/../index.html')).status, 404);
  });

  test('takes a path apart with care', async () => {
    for (const url of ['/api/services/%/operations', '/api/services/%zz/operations', '/api/traces/%4'])
      assert.equal((await get(url)).status, 400, url);
    assert.equal((await get('/api/services//operations')).status, 404);
    assert.equal((await get('/api/services/a%2Fb/operations')).status, 200);
    assert.equal((await get(`/api/traces/${A}/`)).status, 404);
  });
});
