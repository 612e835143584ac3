// Tempo's StreamingQuerier on the address of its HTTP API, asked by a real gRPC client (@grpc/grpc-js). What it says must be what
// HTTP says, whose answers have a golden file (tempo.test.mjs).

import assert from 'node:assert/strict';
import http from 'node:http';
import { createRequire } from 'node:module';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { otlpRequest, Server, until } from './lib.mjs';

const require = createRequire(import.meta.url);
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const here = fileURLToPath(new URL('.', import.meta.url));
const { tempopb } = grpc.loadPackageDefinition(loader.loadSync(path.join(here, 'tempo_query.proto'), { keepCase: true, longs: String, enums: String, arrays: true }));

const S0 = 1_767_323_045; // 2026-01-02T03:04:05Z
const ns = (ms) => String(BigInt(S0) * 1_000_000_000n + BigInt(ms) * 1_000_000n);
const trace = (n) => `0af7651916cd43dd8448eb21${n.toString(16).padStart(8, '0')}`;
const id = (n) => n.toString(16).padStart(16, '0');
const TRACES = 600; // one a second
const range = { start: S0, end: S0 + TRACES };
const nanoRange = { start: ns(0), end: ns(TRACES * 1000) };

let server;
let client;

/** All messages of a call. */
const all = (method, request, to = client) => new Promise((resolve, reject) => {
  const messages = [];
  to[method](request, { deadline: Date.now() + 60_000 }).on('data', (m) => messages.push(m)).on('error', reject).on('end', () => resolve(messages));
});
const get = async (url) => {
  const response = await fetch(server.endpoints.tempo + url);
  assert.equal(response.status, 200, url);
  return response.json();
};
const query = (params) => new URLSearchParams(Object.entries(params).filter(([, v]) => v !== undefined)).toString();
/** Keys in one order, and nothing where a field has its default: JSON and protobuf leave out different ones. */
function plain(v) {
  if (Array.isArray(v)) return v.map(plain);
  if (v === null || typeof v !== 'object') return typeof v === 'number' ? String(v) : v;
  return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, plain(x)])
    .filter(([, x]) => x !== '' && x !== '0' && x !== false && !(Array.isArray(x) && !x.length)).sort());
}

before(async () => {
  server = await Server.start();
  client = new tempopb.StreamingQuerier(new URL(server.endpoints.tempo).host, grpc.credentials.createInsecure());
  // Each trace begins 100 s before its second span: every slice of a search ends inside of traces.
  await server.send(otlpRequest('front', Array.from({ length: TRACES }, (_, n) => (
    { traceId: trace(n + 1), spanId: id(1), name: 'GET /cart', kind: 2, startTimeUnixNano: ns(n * 1000), endTimeUnixNano: ns(n * 1000 + 150_000),
      attributes: [{ key: 'n', value: { intValue: String(n) } }, { key: 'list', value: { arrayValue: { values: [{ stringValue: 'a' }] } } }] }))));
  await server.send(otlpRequest('cart', Array.from({ length: TRACES - 100 }, (_, n) => (
    { traceId: trace(n + 1), spanId: id(2), parentSpanId: id(1), name: `load ${n % 7}`, kind: 3, startTimeUnixNano: ns(n * 1000 + 100_000),
      endTimeUnixNano: ns(n * 1000 + 100_000 + (n % 50)), status: n % 3 ? {} : { code: 2 }, attributes: [{ key: 'shard', value: { boolValue: n % 2 === 0 } }] }))));
});
after(async () => {
  client?.close();
  await server?.stop();
});

describe("Tempo's StreamingQuerier", () => {
  for (const [name, request] of Object.entries({
    'everything': { Query: '{}' },
    'as many as wanted': { Query: '{}', Limit: 1000, SpansPerSpanSet: 1 },
    'a few': { Query: '{ status = error }', Limit: 7 },
    'spans that start long after their trace': { Query: '{ status = error && resource.service.name = "cart" }', Limit: 60 },
    'attributes that are selected': { Query: '{ } | select(span.list, span.n, kind, status)', Limit: 30 },
    'structure': { Query: '{ name = "GET /cart" } >> { span.shard = true }', Limit: 400 },
    'groups and aggregates': { Query: '{ } | by(resource.service.name) | count() > 0', Limit: 150 },
    'tags and durations': { Tags: { 'service.name': 'cart', error: 'true', name: 'load 3' }, MinDurationMs: 100_000, MaxDurationMs: 200_000 },
    'nothing': { Query: '{ .no = "thing" }' },
    'one trace': { Query: `{ trace:id = "${trace(5)}" }` },
  })) {
    test(`finds what HTTP finds: ${name}`, async () => {
      const messages = await all('Search', { ...range, ...request });
      const whole = await get(`/api/search?${query({
        ...range, q: request.Query, limit: request.Limit, spss: request.SpansPerSpanSet,
        tags: request.Tags && Object.entries(request.Tags).map(([k, v]) => `${k}="${v}"`).join(' '),
        minDuration: request.MinDurationMs && `${request.MinDurationMs}ms`, maxDuration: request.MaxDurationMs && `${request.MaxDurationMs}ms`,
      })}`);
      if (name !== 'nothing') assert.ok(whole.traces.length);
      assert.deepEqual(plain(messages.flatMap((m) => m.traces)), plain(whole.traces));
      for (const { metrics } of messages) assert.ok(metrics.totalJobs >= metrics.completedJobs);
      const { metrics } = messages.at(-1);
      assert.equal(metrics.completedJobs, metrics.totalJobs);
      if (!['nothing', 'one trace'].includes(name)) assert.ok(Number(metrics.inspectedSpans) > 0);
    });
  }

  test('shows the newest traces before it has looked everywhere', async () => {
    const messages = await all('Search', { ...range, Query: '{ }', Limit: 300, SpansPerSpanSet: 1 });
    assert.ok(messages.length >= 3, `${messages.length} messages`);
    assert.ok(messages[0].traces.length && messages[0].metrics.completedJobs < messages[0].metrics.totalJobs);
    assert.equal(messages[0].traces[0].traceID, trace(TRACES));
  });

  test('series are those of HTTP, with exemplars', async () => {
    for (const q of ['{ } | rate() by (name, status)', '{ } | quantile_over_time(duration, .5, .9) by (resource.service.name)', '{ } | rate() by (span.shard) with(exemplars=5)',
      '{ kind = client } | compare({ status = error })', '{ } | histogram_over_time(duration) with(exemplars=false)', '{ .no = "thing" } | rate()']) {
      const messages = await all('MetricsQueryRange', { ...nanoRange, query: q, step: String(60_000_000_000), exemplars: 10 });
      const whole = await get(`/api/metrics/query_range?${query({ ...nanoRange, q, step: '60s', exemplars: 10 })}`);
      for (const s of whole.series) delete s.promLabels;
      assert.deepEqual(plain(messages.flatMap((m) => m.series)), plain(whole.series), q);
      assert.equal(messages.at(-1).metrics.completedJobs, 1);
      if (/rate\(\) by \(name/.test(q)) {
        const exemplars = messages.flatMap((m) => m.series.flatMap((s) => s.exemplars));
        assert.equal(exemplars.length, 10);
        for (const x of exemplars) assert.match(x.labels.find((l) => l.key === 'trace:id').value.stringValue, /^0af7651916cd43dd8448eb21[0-9a-f]{8}$/);
      }

      const [instant, ...more] = await all('MetricsQueryInstant', { ...nanoRange, query: q });
      assert.deepEqual(more, []);
      assert.deepEqual(plain(instant.series), plain((await get(`/api/metrics/query?${query({ ...nanoRange, q })}`)).series), q);
    }
    const [defaults] = await all('MetricsQueryRange', { ...nanoRange, query: '{ } | rate()' });
    const stamps = defaults.series[0].samples.map((s) => Number(s.timestampMs));
    assert.equal(stamps[1] - stamps[0], 2000); // 600 s in some 240
    const [cut] = await all('MetricsQueryRange', { ...nanoRange, query: '{ } | rate() by (name)', maxSeries: 2, step: String(60_000_000_000) });
    assert.equal(cut.series.length, 2);
    assert.equal(cut.status, 'PARTIAL');
    assert.match(cut.message, /more than 2 series/);
  });

  test('names and values are those of HTTP', async () => {
    for (const [http, request] of [['', {}], ['?scope=span&limit=1', { scope: 'span', maxTagsPerScope: 1 }], [`?${query({ ...range, q: '{ kind = client }' })}`, { ...range, query: '{ kind = client }' }]]) {
      const two = await all('SearchTagsV2', request);
      assert.deepEqual(two.flatMap((m) => m.scopes), (await get(`/api/v2/search/tags${http}`)).scopes);
      assert.equal(two.at(-1).metrics.completedJobs, 1);
      assert.deepEqual((await all('SearchTags', request)).flatMap((m) => m.tagNames), (await get(`/api/search/tags${http}`)).tagNames);
    }
    for (const tag of ['resource.service.name', 'name', 'span.shard', 'status', 'span.n', '.odd key%41']) {
      const url = `/search/tag/${encodeURIComponent(encodeURIComponent(tag))}/values?${query({ ...range, limit: 50 })}`;
      const request = { tagName: tag, ...range, maxTagValues: 50 };
      assert.deepEqual((await all('SearchTagValuesV2', request)).flatMap((m) => m.tagValues), (await get(`/api/v2${url}`)).tagValues, tag);
      assert.deepEqual((await all('SearchTagValues', request)).flatMap((m) => m.tagValues), (await get(`/api${url}`)).tagValues, tag);
    }
  });

  test('says what is wrong', async () => {
    const { INVALID_ARGUMENT, UNIMPLEMENTED } = grpc.status;
    for (const [method, request, code, why] of [
      ['Search', { Query: '{ name = ' }, INVALID_ARGUMENT, /invalid TraceQL query.*at byte/],
      ['Search', { Query: '{ } | rate()' }, INVALID_ARGUMENT, /series/],
      ['Search', { Query: '{ }', Limit: 5000 }, INVALID_ARGUMENT, /limit: expected a whole number from 1 to 1000/],
      ['Search', { Query: '{ }', MinDurationMs: 5 }, INVALID_ARGUMENT, /minDuration/],
      ['Search', { Query: '{ }', start: 5, end: 4 }, INVALID_ARGUMENT, /before the start/],
      ['SearchTags', { scope: 'moon' }, INVALID_ARGUMENT, /scope/],
      ['SearchTagValuesV2', {}, INVALID_ARGUMENT, /tag/],
      ['MetricsQueryRange', { ...nanoRange, query: '{ }' }, INVALID_ARGUMENT, /not a metrics query/],
      ['MetricsQueryRange', { ...nanoRange, query: '{ } | rate()', step: '1000000' }, INVALID_ARGUMENT, /step of 1ms is too small, minimum step for given range is 60ms/],
      ['MetricsQueryRange', { start: ns(1), end: ns(0), query: '{ } | rate()' }, INVALID_ARGUMENT, /end must be greater than start/],
      ['MetricsQueryInstant', { start: '18446744073709551615', end: ns(0), query: '{ } | rate()' }, INVALID_ARGUMENT, /no clock shows/],
      ['NoSuchMethod', {}, UNIMPLEMENTED, /no such method/],
    ]) await assert.rejects(all(method, request), (error) => error.code === code && why.test(error.details), `${method} ${JSON.stringify(request)}`);
  });

  test('a client that leaves, or reads nothing, disturbs nobody', async () => {
    const calls = Array.from({ length: 20 }, (_, i) => {
      const call = client.Search({ ...range, Query: '{ } | select(span.n)', Limit: 600, SpansPerSpanSet: 50 });
      call.on('error', () => {});
      if (i % 2) call.once('data', () => call.cancel());
      else call.pause();
      return call;
    });
    await until('an answer beside them', async () => ((await all('Search', { ...range, Query: '{ }', Limit: 1 })).at(-1).metrics.completedJobs ? true : undefined));
    for (const call of calls) call.cancel();
    assert.equal((await get(`/api/search?${query({ ...range, q: '{ }', limit: 1 })}`)).traces.length, 1);
  });

  test('shares its port with HTTP, also with who sends its first bytes one by one, and with who is neither', async () => {
    const { hostname, port } = new URL(server.endpoints.tempo);
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < 3; i++)
      assert.equal(await new Promise((resolve, reject) => {
        http.get({ hostname, port, path: '/api/echo', agent }, (r) => r.setEncoding('utf8').on('data', resolve)).on('error', reject);
      }), 'echo');
    agent.destroy();
    const said = (bytes, one = false) => new Promise((resolve, reject) => {
      let text = '';
      const socket = net.connect({ host: hostname, port, noDelay: true }, () => {
        if (one) for (const b of bytes) socket.write(b);
        else socket.write(bytes);
      });
      socket.on('data', (d) => { text += d.toString('latin1'); socket.end(); }).on('error', reject).on('close', () => resolve(text));
    });
    assert.match(await said('POST /api/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n', true), /^HTTP\/1.1 405 /);
    assert.match(await said('\x16\x03\x01 nonsense\r\n\r\n'), /^HTTP\/1.[01] 4/);
    const metrics = await (await fetch(`${server.endpoints.page}/metrics`)).text();
    assert.match(metrics, /^pugmark_http_requests_total\{route="tempo grpc"\} [1-9]/m);
  });
});
