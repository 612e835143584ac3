// Zipkin's query API on Zipkin's own port: what its UI and Grafana's Zipkin data source ask, about spans that came from a
// Zipkin client (a shared one among them) and from OTLP. Golden answers: tests/golden/api/zipkin.json.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { checkGolden } from './golden.mjs';
import { otlpRequest, Server } from './lib.mjs';

const T0 = 1_767_323_045_000_000; // 2026-01-02T03:04:05Z, microseconds
const A = '4e441824ec2b6a44ffdc9bb9a6453df3';
const B = '86154a4ba6e91385'; // a client that knows 64 bits only
const C = '0bf7651916cd43dd8448eb211c80319c'; // over OTLP

const web = { serviceName: 'web', ipv4: '10.0.0.1', port: 8080 };
const shop = { serviceName: 'shop', ipv6: '2001:db8::c001' };
/** As Zipkin's clients send them, and expect them back. */
const traceA = [
  { traceId: A, id: '000000000000000a', kind: 'SERVER', name: 'get /cart', timestamp: T0, duration: 120_000, localEndpoint: web,
    remoteEndpoint: { ipv4: '192.168.99.101', port: 9000 }, tags: { 'http.method': 'GET', 'http.path': '/cart "1"' }, debug: true },
  { traceId: A, parentId: '000000000000000a', id: '000000000000000b', kind: 'CLIENT', name: 'get', timestamp: T0 + 10_000, duration: 100_000,
    localEndpoint: web, remoteEndpoint: { serviceName: 'shop' }, tags: { 'http.status_code': '504', error: 'timeout' } },
  { traceId: A, parentId: '000000000000000a', id: '000000000000000b', kind: 'SERVER', name: 'get /items', timestamp: T0 + 20_000, duration: 80_000,
    localEndpoint: shop, annotations: [{ timestamp: T0 + 30_000, value: 'retried' }], tags: { shard: '7' }, shared: true },
  { traceId: A, parentId: '000000000000000b', id: '000000000000000c', kind: 'CLIENT', name: 'select', timestamp: T0 + 40_000, duration: 5_000,
    localEndpoint: shop, remoteEndpoint: { serviceName: 'mysql', ipv4: '10.0.0.9', port: 3306 }, tags: { 'sql.query': 'select 1' } },
];
const traceB = [
  { traceId: B, id: B, kind: 'PRODUCER', name: 'send', timestamp: T0 + 2_000_000, duration: 7, localEndpoint: shop,
    remoteEndpoint: { serviceName: 'kafka' }, tags: {} },
  { traceId: B, parentId: B, id: '00000000000000bb', name: 'local', timestamp: T0 + 2_000_010, duration: 1, localEndpoint: shop, tags: { error: '' } },
];

const end = (T0 + 60_000_000) / 1000;
const range = `endTs=${end}&lookback=3600000`;
const traces = (more) => `/api/v2/traces?${range}&${more}`;
const annotation = (text) => `annotationQuery=${encodeURIComponent(text)}`;

const questions = {
  'services': '/api/v2/services',
  'spans': '/api/v2/spans?serviceName=shop',
  'spans-nobody': '/api/v2/spans?serviceName=nobody',
  'remote-services': '/api/v2/remoteServices?serviceName=shop',
  'autocomplete-keys': '/api/v2/autocompleteKeys',
  'autocomplete-values': '/api/v2/autocompleteValues?key=http.status_code',
  'trace': `/api/v2/trace/${A}`,
  'trace-64': `/api/v2/trace/${B}`,
  'trace-padded': `/api/v2/trace/0000000000000000${B}`,
  'trace-absent': '/api/v2/trace/ffffffffffffffff',
  'trace-many': `/api/v2/traceMany?traceIds=${B},${A},ffffffffffffffff`,
  'traces-all': traces(''),
  'traces-limit': traces('limit=1'),
  'traces-service': traces('serviceName=web'),
  'traces-span': traces('serviceName=shop&spanName=select'),
  'traces-span-of-another-service': traces('serviceName=web&spanName=select'),
  'traces-remote': traces('serviceName=shop&remoteServiceName=mysql'),
  'traces-duration': traces('minDuration=80000&maxDuration=80000'),
  'traces-duration-of-service': traces('serviceName=shop&minDuration=100000'),
  'traces-annotation': traces(annotation('retried')),
  'traces-tag': traces(annotation('http.status_code=504')),
  'traces-tag-that-is-a-number': traces(annotation('http.status_code=200')),
  'traces-tags-of-two-spans': traces(`serviceName=shop&${annotation('shard=7 and sql.query=select 1 and retried')}`),
  'traces-tag-quoted': traces(annotation('http.path=/cart "1"')),
  'traces-error': traces(annotation('error')),
  'traces-error-message': traces(annotation('error=timeout')),
  'traces-none': traces(annotation('error=never')),
  'traces-earlier': `/api/v2/traces?endTs=${T0 / 1000 - 1}&lookback=1000`,
  'traces-last-day': '/api/v2/traces',
  'dependencies': `/api/v2/dependencies?${range}`,
  'dependencies-earlier': `/api/v2/dependencies?endTs=${T0 / 1000 - 1}`,
  'config': '/config.json',
  'health': '/health',
  'below-zipkin': '/zipkin/api/v2/services',
  'config-below-zipkin': '/zipkin/config.json',

  'bad-spans': '/api/v2/spans',
  'bad-remote': '/api/v2/remoteServices',
  'bad-remote-alone': traces('remoteServiceName=mysql'),
  'bad-key': '/api/v2/autocompleteValues',
  'bad-trace': '/api/v2/trace/xyz',
  'bad-trace-many': `/api/v2/traceMany?traceIds=${A}`,
  'bad-trace-many-twice': `/api/v2/traceMany?traceIds=${A},${A}`,
  'bad-limit': traces('limit=0'),
  'bad-duration': traces('minDuration=10&maxDuration=9'),
  'bad-end': '/api/v2/traces?endTs=soon',
  'bad-terms': traces(annotation(Array.from({ length: 65 }, (_, i) => `k${i}`).join(' and '))),
  'bad-dependencies': '/api/v2/dependencies',
  'bad-path': '/api/v2/nothing',
};

let data;
let server;
const ask = (url, options) => fetch(server.endpoints.zipkin + url, options);
before(async () => {
  data = await mkdtemp(path.join(tmpdir(), 'pugmark-zipkin-'));
  server = await Server.start({ data });
  for (const spans of [traceA, traceB])
    assert.equal((await ask('/api/v2/spans', { method: 'POST', body: JSON.stringify(spans) })).status, 202);
  await server.send(otlpRequest('worker', [{
    traceId: C, spanId: 'c000000000000001', parentSpanId: 'c0000000000000ff', name: 'job', kind: 5,
    startTimeUnixNano: String(BigInt(T0) * 1000n + 5_000_000_123n), endTimeUnixNano: String(BigInt(T0) * 1000n + 5_000_000_999n),
    attributes: [{ key: 'http.status_code', value: { intValue: '200' } }, { key: 'on', value: { boolValue: true } },
      { key: 'network.peer.address', value: { stringValue: 'broker' } }],
    status: { code: 2, message: 'late' },
  }]));
});
after(async () => {
  await server.stop();
  await rm(data, { recursive: true, force: true });
});

describe("Zipkin's query API", () => {
  test('answers as before, from memory', () => checkGolden('zipkin', server.endpoints.zipkin, questions));

  test('gives the spans of a client back as they came', async () => {
    const order = (spans) => [...spans].sort((a, b) => a.timestamp - b.timestamp);
    for (const sent of [traceA, traceB]) {
      const got = await (await ask(`/api/v2/trace/${sent[0].traceId}`)).json();
      for (const span of got)
        for (const key of Object.keys(span.tags)) if (key.startsWith('otel.')) delete span.tags[key];
      assert.deepEqual(order(got), order(sent));
    }
  });

  test('answers as before after a restart, from what was sealed', async () => {
    await server.stop();
    server = await Server.start({ data });
    await checkGolden('zipkin', server.endpoints.zipkin, questions);
  });

  test('says that a search is too long, as the fault of who asked', async () => {
    const answer = await ask(traces(`serviceName=web&remoteServiceName=${'x'.repeat(7000)}`));
    assert.equal(answer.status, 400);
    assert.match(await answer.text(), /more than 32768 bytes/);
  });

  test('still takes spans, and says what is not to be had', async () => {
    const spans = JSON.stringify([{ ...traceB[0], traceId: '00000000000000ab', id: '00000000000000ab' }]);
    assert.equal((await ask('/zipkin/api/v2/spans', { method: 'POST', body: spans })).status, 202);
    assert.equal((await ask('/api/v2/trace/ab')).status, 200);
    const post = await ask('/api/v2/traces', { method: 'POST', body: '{}' });
    assert.deepEqual([post.status, post.headers.get('allow')], [405, 'GET, HEAD']);
    assert.match((await (await ask('/info')).json()).pugmark.version, /^\d+\.\d+\.\d+/);
    const metrics = await (await fetch(`${server.endpoints.page}/metrics`)).text();
    assert.match(metrics, /^pugmark_http_requests_total\{route="zipkin \/api\/v2\/services"\} [1-9]/m);
  });
});
