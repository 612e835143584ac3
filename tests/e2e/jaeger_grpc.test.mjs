// Jaeger's gRPC query service and sampling manager, asked by a real gRPC client (@grpc/grpc-js).

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { otlpRequest, Server, until } from './lib.mjs';

const require = createRequire(import.meta.url);
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const here = fileURLToPath(new URL('.', import.meta.url));
const load = (file) => grpc.loadPackageDefinition(loader.loadSync(path.join(here, file), { keepCase: true, longs: String, enums: String, includeDirs: [here] }));

const T0 = 1_767_323_045n; // 2026-01-02T03:04:05Z
const ns = (ms) => String(T0 * 1_000_000_000n + BigInt(ms) * 1_000_000n);
const trace = (n) => `0af7651916cd43dd8448eb21${n.toString(16).padStart(8, '0')}`;
const id = (n) => n.toString(16).padStart(16, '0');
const LARGE = 12_000;

let dir;
let server;
let query;
let sampling;
const range = { start_time_min: { seconds: String(T0) }, start_time_max: { seconds: String(T0 + 600n) } };

/** One answer, or the error. */
const ask = (client, method, request) => new Promise((resolve, reject) => {
  client[method](request, { deadline: Date.now() + 20_000 }, (error, answer) => (error ? reject(error) : resolve(answer)));
});
/** All messages of a stream. */
const all = (method, request) => new Promise((resolve, reject) => {
  const messages = [];
  query[method](request, { deadline: Date.now() + 60_000 }).on('data', (m) => messages.push(m)).on('error', reject).on('end', () => resolve(messages));
});
const spansOf = (messages) => messages.flatMap((m) => m.resource_spans).flatMap((r) => r.scope_spans.flatMap((s) => s.spans));
const ids = (spans) => spans.map((s) => `${s.trace_id.toString('hex')}/${s.span_id.toString('hex')}`).sort();

before(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'pugmark-jaeger-grpc-'));
  const file = path.join(dir, 'strategies.json');
  await writeFile(file, JSON.stringify({ default_strategy: { type: 'probabilistic', param: 0.5 }, service_strategies: [
    { service: 'few', type: 'ratelimiting', param: 7, operation_strategies: [{ operation: 'x', type: 'probabilistic', param: 0.25 }] }] }));
  server = await Server.start({ args: ['--sampling-strategies', file] });
  const address = new URL(server.endpoints.jaeger_grpc).host;
  const options = { 'grpc.max_receive_message_length': 64 << 20 };
  query = new (load('jaeger_query.proto').jaeger.api_v3.QueryService)(address, grpc.credentials.createInsecure(), options);
  sampling = new (load('jaeger_sampling.proto').jaeger.api_v2.SamplingManager)(address, grpc.credentials.createInsecure());
  await server.send(otlpRequest('front', [1, 2, 3].map((n) => (
    { traceId: trace(n), spanId: id(1), name: 'GET /cart', kind: 2, startTimeUnixNano: ns(n * 1000), endTimeUnixNano: ns(n * 1000 + 100) }))));
  await server.send(otlpRequest('cart', [1, 2].map((n) => (
    { traceId: trace(n), spanId: id(2), parentSpanId: id(1), name: 'load', kind: 2, startTimeUnixNano: ns(n * 1000 + 10), endTimeUnixNano: ns(n * 1000 + 20 * n),
      status: { code: 2 }, attributes: [{ key: 'shard', value: { intValue: String(n) } }] }))));
  for (let part = 0; part < 3; part++)
    await server.send(otlpRequest('large', Array.from({ length: LARGE / 3 }, (_, i) => {
      const n = part * (LARGE / 3) + i;
      const start = 100_000 + Math.floor(n / 3); // three start together
      return { traceId: trace(9), spanId: id(n + 1), parentSpanId: n ? id(1) : '', name: 'step', startTimeUnixNano: ns(start), endTimeUnixNano: ns(start + 1),
        attributes: [{ key: 'text', value: { stringValue: 'x'.repeat(200) } }] };
    })));
});
after(async () => {
  query?.close();
  sampling?.close();
  await server?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe("Jaeger's gRPC query service", () => {
  test('names services and operations', async () => {
    assert.deepEqual((await ask(query, 'GetServices', {})).services, ['cart', 'front', 'large']);
    assert.deepEqual((await ask(query, 'GetOperations', { service: 'cart' })).operations, [{ name: 'load', span_kind: 'server' }]);
    assert.deepEqual(await ask(query, 'GetOperations', { service: 'cart', span_kind: 'client' }), {});
    await assert.rejects(ask(query, 'GetOperations', {}), { code: grpc.status.INVALID_ARGUMENT, details: 'service is required' });
    await assert.rejects(ask(query, 'GetOperations', { service: 'a', span_kind: 'odd' }), { code: grpc.status.INVALID_ARGUMENT });
    await assert.rejects(ask(query, 'NoSuchMethod', {}), { code: grpc.status.UNIMPLEMENTED });
  });

  test('gives a trace', async () => {
    const spans = spansOf(await all('GetTrace', { trace_id: trace(1) }));
    assert.deepEqual(ids(spans), [`${trace(1)}/${id(1)}`, `${trace(1)}/${id(2)}`]);
    assert.deepEqual(spans.map((s) => s.name).sort(), ['GET /cart', 'load']);
    await assert.rejects(all('GetTrace', { trace_id: 'ff' }), { code: grpc.status.NOT_FOUND, details: 'trace not found' });
    await assert.rejects(all('GetTrace', { trace_id: 'xyz' }), { code: grpc.status.INVALID_ARGUMENT });
  });

  test('finds traces, as many as asked for, newest first', async () => {
    const found = async (more) => [...new Set(spansOf(await all('FindTraces', { query: { ...range, ...more } })).map((s) => s.trace_id.toString('hex')))];
    assert.deepEqual(await found({ service_name: 'front' }), [trace(3), trace(2), trace(1)]);
    assert.deepEqual(await found({ service_name: 'front', search_depth: 2 }), [trace(3), trace(2)]);
    assert.deepEqual(await found({ service_name: 'cart', attributes: { shard: '2', error: 'true' } }), [trace(2)]);
    assert.deepEqual(await found({ operation_name: 'load', duration_min: { nanos: 20_000_000 } }), [trace(2)]);
    assert.deepEqual(await found({ operation_name: 'load', duration_max: { nanos: 20_000_000 } }), [trace(1)]);
    assert.deepEqual(await found({ service_name: 'nobody' }), []);
    for (const [wrong, why] of [[{ query: {} }, /required/], [{ query: { ...range, search_depth: -1 } }, /search_depth/],
      [{ query: { start_time_min: range.start_time_max, start_time_max: range.start_time_min } }, /before the minimum/],
      [{ query: { start_time_min: { seconds: -1 }, start_time_max: { seconds: 1 } } }, /before 1970/], [{ query: { ...range, filter: Buffer.from('x') } }, /filter/]])
      await assert.rejects(all('FindTraces', wrong), (error) => error.code === grpc.status.INVALID_ARGUMENT && why.test(error.details));
  });

  test('summarises traces', async () => {
    const [{ summaries }] = await all('FindTraceSummaries', { query: { ...range, service_name: 'cart' } });
    assert.deepEqual(summaries[1], {
      trace_id: trace(1), root_service_name: 'front', root_operation_name: 'GET /cart', min_start_time_unix_nano: ns(1000), max_end_time_unix_nano: ns(1100),
      span_count: 2, error_span_count: 1, services: [{ name: 'cart', span_count: 1, error_span_count: 1 }, { name: 'front', span_count: 1 }],
    });
    assert.deepEqual(await all('FindTraceSummaries', { query: { ...range, service_name: 'nobody' } }), []);
  });

  test('counts who calls whom', async () => {
    const times = { start_time: { seconds: String(T0) }, end_time: { seconds: String(T0 + 600n) } };
    assert.deepEqual((await ask(query, 'GetDependencies', times)).dependencies, [{ parent: 'front', child: 'cart', call_count: '2' }]);
  });

  test('sends a large trace in parts, each span once, also to a client that is slow', async () => {
    const stream = query.GetTrace({ trace_id: trace(9) }, { deadline: Date.now() + 60_000 });
    const messages = [];
    for await (const message of stream) {
      messages.push(message);
      await new Promise((resolve) => { setTimeout(resolve, 20); });
    }
    const spans = spansOf(messages);
    assert.equal(spans.length, LARGE);
    assert.equal(new Set(ids(spans)).size, LARGE);
    assert.ok(messages.length >= LARGE / 1002, `${messages.length} messages`);
    for (const message of messages) assert.ok(spansOf([message]).length <= 1002);
  });

  test('a client that leaves in the middle, or never reads, disturbs nobody', async () => {
    const calls = Array.from({ length: 20 }, (_, i) => {
      const call = query.GetTrace({ trace_id: trace(9) });
      call.on('error', () => {});
      if (i % 2) call.once('data', () => call.cancel());
      else call.pause();
      return call;
    });
    await until('an answer beside them', async () => (spansOf(await all('GetTrace', { trace_id: trace(2) })).length === 2 ? true : undefined));
    for (const call of calls) call.cancel();
    assert.deepEqual((await ask(query, 'GetServices', {})).services.length, 3);
  });

  test('tells strategies of sampling', async () => {
    assert.deepEqual(await ask(sampling, 'GetSamplingStrategy', { serviceName: 'api' }), { probabilisticSampling: { samplingRate: 0.5 } });
    assert.deepEqual(await ask(sampling, 'GetSamplingStrategy', { serviceName: 'few' }), {
      strategyType: 'RATE_LIMITING', rateLimitingSampling: { maxTracesPerSecond: 7 },
      operationSampling: { defaultSamplingProbability: 1, perOperationStrategies: [{ operation: 'x', probabilisticSampling: { samplingRate: 0.25 } }] },
    });
  });
});
