// libpugmark as a client: a C program traces itself into a real server over HTTP and over gRPC, and into collectors that
// behave badly.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { PUGMARK, Server, until } from './lib.mjs';

const CLIENT = path.join(path.dirname(PUGMARK), 'tests', 'sdk_client');
const PARENT = { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331' };

async function client(env, ...args) {
  const { stdout } = await promisify(execFile)(CLIENT, args, {
    env: { PATH: process.env.PATH, PUG_TRACING: 'true', PUG_BACKEND: 'otlp', OTEL_SERVICE_NAME: 'c-client', ...env },
  });
  return JSON.parse(stdout);
}

let server;
before(async () => { server = await Server.start(); });
after(() => server.stop());

function attributes(list) {
  return Object.fromEntries(list.map(({ key, value }) => [key, value]));
}

async function check(env) {
  const started = BigInt(Date.now() - 1) * 1_000_000n;
  const said = await client(env, `00-${PARENT.traceId}-${PARENT.spanId}-01`, 'vendor=value');
  const ended = BigInt(Date.now() + 1) * 1_000_000n;
  assert.deepEqual({ ...said, request: 0, handle: 0 },
    { request: 0, handle: 0, told: '', flushed: 0, recorded: 2, exported: 2, lost: 0 });
  assert.equal(said.request.traceId, PARENT.traceId);

  const trace = await server.get(`/api/pugmark/traces/${PARENT.traceId}`);
  const request = trace.spans.find((s) => s.spanId === said.request.spanId);
  const handle = trace.spans.find((s) => s.spanId === said.handle.spanId);
  assert.equal(request.name, 'client.request');
  assert.equal(request.parentSpanId, PARENT.spanId);
  assert.equal(request.kind, 'SERVER');
  assert.equal(request.traceState, 'vendor=value');
  assert.equal(request.flags & 0x3ff, 0x301, 'sampled, and its parent is remote');
  assert.deepEqual(request.status, { code: 'UNSET', message: '' });
  assert.deepEqual(attributes(request.attributes), {
    int: { intValue: '-9223372036854775808' }, bool: { boolValue: true }, double: { doubleValue: 0.1 },
    string: { stringValue: 'grüß' },
  });
  assert.equal(request.events.length, 1);
  assert.equal(request.events[0].name, 'half.way');
  assert.deepEqual(attributes(request.events[0].attributes), { percent: { intValue: '50' } });
  assert.equal(request.links.length, 1);
  assert.equal(request.links[0].traceId, '0123456789abcdef0123456789abcdef');
  assert.equal(request.links[0].spanId, '0123456789abcdef');
  assert.equal(handle.name, 'client.handle');
  assert.equal(handle.parentSpanId, said.request.spanId);
  assert.equal(handle.kind, 'CLIENT');
  assert.deepEqual(handle.status, { code: 'ERROR', message: 'it broke' });
  for (const span of [request, handle]) {
    const start = BigInt(span.startUnixNano);
    assert.ok(started <= start && start + BigInt(span.durationNano) <= ended, 'the times are those of the run');
    const resource = attributes(trace.resources[span.resource].attributes);
    assert.equal(resource['service.name'].stringValue, 'c-client');
    assert.equal(resource['telemetry.sdk.name'].stringValue, 'pugmark');
    assert.equal(resource['telemetry.sdk.language'].stringValue, 'c');
    assert.equal(trace.scopes[span.scope].name, 'pugmark');
  }
  const inside = BigInt(handle.startUnixNano) - BigInt(request.startUnixNano);
  assert.ok(inside >= 0n && inside + BigInt(handle.durationNano) <= BigInt(request.durationNano));
}

test('a program traces itself over HTTP', () => check({ PUG_OTLP_ENDPOINT: server.endpoints.otlp_http }));

test('a program traces itself over gRPC', () => check({
  PUG_OTLP_ENDPOINT: server.endpoints.otlp_grpc, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
}));

/** A collector that answers each request with the next of `answers`, and keeps what it got. */
async function collector(...answers) {
  const requests = [];
  const listener = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    requests.push({ url: request.url, headers: request.headers, body: Buffer.concat(chunks) });
    const [status, headers, body] = answers[Math.min(requests.length, answers.length) - 1];
    response.writeHead(status, headers).end(body);
  }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  return { requests, endpoint: `http://127.0.0.1:${listener.address().port}`, close: () => listener.close() };
}

test('a collector that is busy gets the same spans again', async () => {
  const c = await collector([503, { 'retry-after': '1' }, ''], [429, {}, ''], [200, {}, '']);
  const begun = Date.now();
  const said = await client({ PUG_OTLP_ENDPOINT: c.endpoint });
  c.close();
  assert.ok(Date.now() - begun >= 1000, 'Retry-After is obeyed');
  assert.equal(c.requests.length, 3);
  assert.deepEqual(c.requests[2].body, c.requests[0].body);
  assert.equal(c.requests[0].url, '/v1/traces');
  assert.equal(c.requests[0].headers['content-type'], 'application/x-protobuf');
  assert.deepEqual([said.flushed, said.exported, said.lost], [0, 2, 0]);
});

test('what a collector refuses is lost, counted and told, and the loss is in the data', async () => {
  const c = await collector([400, {}, ''], [200, {}, '']);
  const said = await client({ PUG_OTLP_ENDPOINT: c.endpoint });
  await until('the report of the loss', () => c.requests.length > 1 || undefined);
  c.close();
  assert.match(said.told, /refused spans \(HTTP 400\); is this a gRPC port\? OTEL_EXPORTER_OTLP_PROTOCOL=grpc/);
  assert.deepEqual([said.exported, said.lost], [0, 2]);
  assert.ok(c.requests.at(-1).body.includes('pugmark.lost.spans'));
});

test('spans that a collector leaves out of a request are counted', async () => {
  const message = Buffer.from('too old');
  const partial = Buffer.concat([Buffer.from([0x08, 0x01, 0x12, message.length]), message]);
  const c = await collector([200, { 'content-type': 'application/x-protobuf' },
    Buffer.concat([Buffer.from([0x0a, partial.length]), partial])], [200, {}, '']);
  const said = await client({ PUG_OTLP_ENDPOINT: c.endpoint });
  c.close();
  assert.match(said.told, /too old/);
  assert.deepEqual([said.exported, said.lost], [1, 1]);
});

test('headers and the endpoint come from the standard variables', async () => {
  const c = await collector([200, {}, '']);
  await client({
    OTEL_EXPORTER_OTLP_ENDPOINT: `${c.endpoint}/prefix/`,
    OTEL_EXPORTER_OTLP_HEADERS: 'Authorization=Bearer%20abc, x-tenant=a',
    OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment=test%20bench,service.name=ignored',
  });
  c.close();
  assert.equal(c.requests[0].url, '/prefix/v1/traces');
  assert.equal(c.requests[0].headers.authorization, 'Bearer abc');
  assert.equal(c.requests[0].headers['x-tenant'], 'a');
  assert.ok(c.requests[0].body.includes('test bench'));
  assert.ok(c.requests[0].body.includes('c-client') && !c.requests[0].body.includes('ignored'));
});
