// Collectors for tests: real servers of HTTP/1.1 and of gRPC that answer as they are told and keep what they got.

import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import protobuf from 'protobufjs';

/** OTLP as the specification numbers its fields: what a decoder that is not ours needs to read it. */
const { root } = protobuf.parse(`
  syntax = "proto3";
  message AnyValue { oneof value { string string_value = 1; bool bool_value = 2; int64 int_value = 3; double double_value = 4;
    ArrayValue array_value = 5; KeyValueList kvlist_value = 6; bytes bytes_value = 7; } }
  message ArrayValue { repeated AnyValue values = 1; }
  message KeyValueList { repeated KeyValue values = 1; }
  message KeyValue { string key = 1; AnyValue value = 2; }
  message InstrumentationScope { string name = 1; string version = 2; repeated KeyValue attributes = 3; }
  message Resource { repeated KeyValue attributes = 1; uint32 dropped_attributes_count = 2; }
  message Event { fixed64 time_unix_nano = 1; string name = 2; repeated KeyValue attributes = 3; }
  message Status { string message = 2; int32 code = 3; }
  message Span { bytes trace_id = 1; bytes span_id = 2; string trace_state = 3; bytes parent_span_id = 4; string name = 5;
    int32 kind = 6; fixed64 start_time_unix_nano = 7; fixed64 end_time_unix_nano = 8; repeated KeyValue attributes = 9;
    repeated Event events = 11; Status status = 15; fixed32 flags = 16; }
  message ScopeSpans { InstrumentationScope scope = 1; repeated Span spans = 2; string schema_url = 3; }
  message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; string schema_url = 3; }
  message Traces { repeated ResourceSpans resource_spans = 1; }

  message NumberDataPoint { fixed64 start_time_unix_nano = 2; fixed64 time_unix_nano = 3;
    oneof value { double as_double = 4; sfixed64 as_int = 6; } repeated KeyValue attributes = 7; uint32 flags = 8; }
  message Gauge { repeated NumberDataPoint data_points = 1; }
  message Sum { repeated NumberDataPoint data_points = 1; int32 aggregation_temporality = 2; bool is_monotonic = 3; }
  message Buckets { sint32 offset = 1; repeated uint64 bucket_counts = 2; }
  message ExponentialHistogramDataPoint { repeated KeyValue attributes = 1; fixed64 start_time_unix_nano = 2;
    fixed64 time_unix_nano = 3; fixed64 count = 4; optional double sum = 5; sint32 scale = 6; fixed64 zero_count = 7;
    Buckets positive = 8; Buckets negative = 9; uint32 flags = 10; optional double min = 12; optional double max = 13;
    double zero_threshold = 14; }
  message ExponentialHistogram { repeated ExponentialHistogramDataPoint data_points = 1; int32 aggregation_temporality = 2; }
  message Metric { string name = 1; string description = 2; string unit = 3;
    oneof data { Gauge gauge = 5; Sum sum = 7; ExponentialHistogram exponential_histogram = 10; } }
  message ScopeMetrics { InstrumentationScope scope = 1; repeated Metric metrics = 2; string schema_url = 3; }
  message ResourceMetrics { Resource resource = 1; repeated ScopeMetrics scope_metrics = 2; string schema_url = 3; }
  message Metrics { repeated ResourceMetrics resource_metrics = 1; }

  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
  message Any { string type_url = 1; bytes value = 2; }
  message RpcStatus { int32 code = 1; string message = 2; repeated Any details = 3; }
`);

export const type = (name) => root.lookupType(name);
const plain = (name, message) => type(name).toObject(message, { longs: String, bytes: String, defaults: true });

/** The message as plain values; 64-bit numbers are strings, bytes base64, what is not there has its default. */
export const decode = (name, bytes) => plain(name, type(name).decode(bytes));
/** The same from OTLP JSON that has neither ids nor bytes. */
export const fromJson = (name, object) => plain(name, type(name).fromObject(object));

export const spansOf = (traces) => traces.resourceSpans.flatMap((r) => r.scopeSpans.flatMap((s) => s.spans));

async function listen(server) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server.address().port;
}

async function bytesOf(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Answers each request with the next of `answers`, the last one for ever: [status, headers, body]. `tls`: https. */
export async function httpCollector(answers = [[200, {}, '']], tls) {
  const c = { requests: [], connections: 0 };
  const handler = async (request, response) => {
    const body = await bytesOf(request).catch(() => null);
    if (body === null) return;
    c.requests.push({ url: request.url, headers: request.headers, body, at: Date.now(), http: request.httpVersion });
    const [status, headers, text] = answers[Math.min(c.requests.length, answers.length) - 1];
    response.writeHead(status, headers).end(text);
  };
  const server = tls ? https.createServer(tls, handler) : http.createServer(handler);
  server.on(tls ? 'secureConnection' : 'connection', () => { c.connections++; });
  const port = await listen(server);
  c.endpoint = `http${tls ? 's' : ''}://127.0.0.1:${port}`;
  c.close = () => { server.close(); server.closeAllConnections(); };
  return c;
}

/** gRPC: each answer is {status, message, details (RpcStatus), body}. `c.hangUp()` closes the connections there are. */
export async function grpcCollector(answers = [{ status: 0 }], tls) {
  const c = { requests: [], connections: 0, errors: [] };
  const server = tls ? http2.createSecureServer(tls) : http2.createServer();
  const sessions = new Set();
  server.on('session', (session) => {
    c.connections++;
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
    session.on('error', (error) => c.errors.push(error.message));
  });
  server.on('sessionError', (error) => c.errors.push(error.message));
  server.on('unknownProtocol', () => c.errors.push('not HTTP/2'));
  server.on('stream', async (stream, headers) => {
    stream.on('error', () => {});
    const body = await bytesOf(stream).catch(() => null);
    if (body === null) return;
    c.requests.push({ url: headers[':path'], headers, body, at: Date.now() });
    const answer = answers[Math.min(c.requests.length, answers.length) - 1];
    const trailers = { 'grpc-status': String(answer.status) };
    if (answer.message) trailers['grpc-message'] = answer.message;
    if (answer.details)
      trailers['grpc-status-details-bin'] = Buffer.from(type('RpcStatus').encode(answer.details).finish()).toString('base64');
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    const message = answer.body ?? Buffer.alloc(0);
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(message.length, 1);
    stream.end(answer.status === 0 ? Buffer.concat([prefix, message]) : undefined);
  });
  const port = await listen(server);
  c.endpoint = `http${tls ? 's' : ''}://127.0.0.1:${port}`;
  c.hangUp = () => { for (const session of sessions) session.destroy(); };
  c.close = () => { server.close(); c.hangUp(); };
  return c;
}

/** A server that does with each connection what `handle(socket)` does; HTTP is its business. */
export async function rawCollector(handle) {
  const sockets = new Set();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    handle(socket);
  });
  const port = await listen(server);
  return { endpoint: `http://127.0.0.1:${port}`, port, close: () => { server.close(); for (const s of sockets) s.destroy(); } };
}

/** A port that nobody listens on. */
export async function freePort() {
  const server = net.createServer();
  const port = await listen(server);
  server.close();
  await once(server, 'close');
  return port;
}

/** An authority made for this run, a server's certificate for 127.0.0.1, one for another name, and a client's. */
export function certificates() {
  const dir = mkdtempSync(path.join(tmpdir(), 'pugmark-tls-'));
  const at = (name) => path.join(dir, name);
  const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const key = (name) => ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', at(`${name}.key`)];
  for (const authority of ['ca', 'stranger'])
    openssl('req', '-x509', ...key(authority), '-out', at(`${authority}.pem`), '-days', '2', '-subj', `/CN=${authority}`);
  for (const [name, alternative] of [['server', 'IP:127.0.0.1'], ['other', 'DNS:elsewhere.test'], ['client', 'DNS:client.test']])
    openssl('req', '-x509', ...key(name), '-out', at(`${name}.pem`), '-days', '2', '-subj', `/CN=${name}`,
      '-addext', `subjectAltName=${alternative}`, '-addext', 'basicConstraints=critical,CA:FALSE',
      '-CA', at('ca.pem'), '-CAkey', at('ca.key'));
  return { file: at, read: (name) => readFileSync(at(name)), remove: () => rmSync(dir, { recursive: true, force: true }) };
}
