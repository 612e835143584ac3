// What arrives at the OTLP ports and should not: each case gets the protocol's answer, and after each the server takes
// and shows a good span. At the end every span it has seen is accounted for, and its memory stayed bounded.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http2 from 'node:http2';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import zlib from 'node:zlib';

import { Server, otlpRequest, randomHex, until } from './lib.mjs';

const MiB = 1 << 20;
const BODY_MAX = 64 * MiB;

// ---- OTLP protobuf by hand, so that it can be wrong ----

function varint(n) {
  const bytes = [];
  for (; n > 127; n = Math.floor(n / 128)) bytes.push((n % 128) | 128);
  return Buffer.from([...bytes, n]);
}
const bytesField = (number, bytes) => Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
const textField = (number, text) => bytesField(number, Buffer.from(text));

function attribute(key, value) {
  return bytesField(9, Buffer.concat([bytesField(1, Buffer.from(key)), bytesField(2, bytesField(1, Buffer.from(value)))]));
}
function protoSpan({ traceId, spanId = randomHex(16), name = 'span', more = [] }) {
  const times = Buffer.alloc(18);
  times[0] = 7 * 8 + 1;
  times.writeBigUInt64LE(BigInt(Date.now()) * 1_000_000n, 1);
  times[9] = 8 * 8 + 1;
  times.writeBigUInt64LE(BigInt(Date.now()) * 1_000_000n + 5n, 10);
  return bytesField(2, Buffer.concat([bytesField(1, Buffer.from(traceId, 'hex')), bytesField(2, Buffer.from(spanId, 'hex')),
    bytesField(5, Buffer.from(name)), times, ...more]));
}
const protoRequest = (...spans) => bytesField(1, bytesField(2, Buffer.concat(spans)));

// ---- asking ----

let server;
let port;
let sentGood = 0;

async function post(body, headers = {}, pathname = '/v1/traces') {
  const response = await fetch(server.endpoints.otlp_http + pathname, {
    method: 'POST', body, headers: { 'content-type': 'application/x-protobuf', ...headers },
  });
  return { status: response.status, headers: response.headers, body: Buffer.from(await response.arrayBuffer()) };
}

/** Bytes to a port as they are; all that comes back until the other side closes, or `enough` says so. */
function raw(where, pieces, { enough = () => false, halfClose = false, gapMs = 0 } = {}) {
  return new Promise((resolve, reject) => {
    const { hostname, port: p } = new URL(where);
    const socket = net.connect({ host: hostname, port: Number(p), allowHalfOpen: true });
    let got = Buffer.alloc(0);
    const end = () => { socket.destroy(); resolve(got); };
    socket.setTimeout(20_000, () => reject(new Error(`no answer in 20 s, only ${JSON.stringify(got.toString('latin1'))}`)));
    socket.on('data', (bytes) => {
      got = Buffer.concat([got, bytes]);
      if (enough(got)) end();
    });
    socket.on('end', end);
    socket.on('close', end);
    socket.on('error', () => end());
    socket.on('connect', async () => {
      for (const piece of pieces) {
        if (socket.destroyed) return;
        socket.write(piece);
        if (gapMs) await sleep(gapMs);
      }
      if (halfClose) socket.end();
    });
  });
}

/** Sends bytes and leaves without waiting. */
function hitAndRun(where, bytes) {
  return new Promise((resolve) => {
    const { hostname, port: p } = new URL(where);
    const socket = net.connect({ host: hostname, port: Number(p) });
    socket.on('error', resolve);
    socket.on('connect', () => socket.write(bytes, () => { socket.resetAndDestroy?.() ?? socket.destroy(); resolve(); }));
  });
}

const httpHead = (length, more = '') => 'POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n'
  + `${more}${length === undefined ? '' : `Content-Length: ${length}\r\n`}\r\n`;

function grpcFrame(message, flag = 0, length = message.length) {
  const head = Buffer.alloc(5);
  head[0] = flag;
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

/** One gRPC call: HTTP status, grpc-status and grpc-message. */
function grpc(body, { path = '/opentelemetry.proto.collector.trace.v1.TraceService/Export', headers = {}, end = true } = {}) {
  return new Promise((resolve, reject) => {
    const session = http2.connect(server.endpoints.otlp_grpc);
    session.on('error', reject);
    const stream = session.request({
      ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', ...headers,
    }, { endStream: false });
    const answer = { data: Buffer.alloc(0) };
    const take = (h) => {
      answer.http ??= h[':status'];
      if (h['grpc-status'] !== undefined) {
        answer.code = Number(h['grpc-status']);
        answer.message = decodeURIComponent(h['grpc-message'] ?? '');
        answer.details = h['grpc-status-details-bin'];
      }
    };
    stream.setTimeout(20_000, () => reject(new Error('no answer to a gRPC call in 20 s')));
    stream.on('response', take);
    stream.on('trailers', take);
    stream.on('data', (bytes) => { answer.data = Buffer.concat([answer.data, bytes]); });
    stream.on('error', () => {});
    stream.on('close', () => { session.close(); resolve(answer); });
    stream.write(body);
    if (end) stream.end();
  });
}

// ---- after each: the server still works ----

async function goodSpanWorks() {
  const traceId = randomHex(32);
  await server.send(otlpRequest('good', [{ traceId, name: 'still here' }]));
  const viaGrpc = randomHex(32);
  const answer = await grpc(grpcFrame(protoRequest(protoSpan({ traceId: viaGrpc, name: 'here too' }))));
  assert.equal(answer.code, 0);
  sentGood += 2;
  assert.equal((await server.get(`/api/pugmark/traces/${traceId}`)).spans[0].name, 'still here');
  assert.equal((await server.get(`/api/pugmark/traces/${viaGrpc}`)).spans[0].name, 'here too');
}

function bad(name, body) {
  test(name, async () => {
    await body();
    await goodSpanWorks();
  });
}

before(async () => {
  server = await Server.start();
  port = server.endpoints.otlp_http;
});
after(async () => { await server?.stop(); });

describe('OTLP over HTTP answers', () => {
  const good = protoRequest(protoSpan({ traceId: randomHex(32) }));

  bad('a truncated body with 400 and a Status', async () => {
    const answer = await post(good.subarray(0, good.length - 7));
    assert.equal(answer.status, 400);
    assert.equal(answer.headers.get('content-type'), 'application/x-protobuf');
    assert.match(answer.body.toString(), /byte \d+ of \d+/);
    assert.equal(answer.headers.get('retry-after'), null);
  });

  bad('garbage with 400, in the encoding of the request', async () => {
    for (const seed of [1, 77, 254]) {
      const garbage = Buffer.from(Array.from({ length: 500 }, (_, i) => (i * i * seed + 11 * i + seed) & 255));
      assert.equal((await post(garbage)).status, 400);
    }
    const json = await post('{"resourceSpans":[', { 'content-type': 'application/json' });
    assert.equal(json.status, 400);
    assert.equal(json.headers.get('content-type'), 'application/json');
    assert.equal(JSON.parse(json.body).code, 3);
    assert.equal((await post('\u0000\u0001', { 'content-type': 'application/json' })).status, 400);
    assert.equal((await post('[]', { 'content-type': 'application/json' })).status, 400);
  });

  bad('a wrong or missing content type with 415', async () => {
    assert.equal((await post(good, { 'content-type': 'text/plain' })).status, 415);
    assert.equal((await post(good, { 'content-type': 'application/x-protobuf-2' })).status, 415);
    const none = await raw(port, ['POST /v1/traces HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx']);
    assert.match(none.toString(), /^HTTP\/1\.1 415 /);
  });

  bad('other paths and methods with 404 and 405', async () => {
    assert.equal((await post(good, {}, '/v1development/profiles')).status, 404);
    assert.equal((await post(good, {}, '/v1/traces/')).status, 404);
    const get = await fetch(`${port}/v1/traces`);
    assert.equal(get.status, 405);
    assert.equal(get.headers.get('allow'), 'POST');
  });

  bad('a gzip bomb with 413, at the price of the limit', async () => {
    const bomb = zlib.gzipSync(Buffer.alloc(300 * MiB));
    assert.ok(bomb.length < MiB);
    assert.equal((await post(bomb, { 'content-encoding': 'gzip' })).status, 413);
  });

  bad('compressed bodies that are torn, lie, or name an unknown coding', async () => {
    const packed = zlib.gzipSync(good);
    assert.equal((await post(packed.subarray(0, packed.length - 4), { 'content-encoding': 'gzip' })).status, 400);
    assert.equal((await post(good, { 'content-encoding': 'gzip' })).status, 400);
    const flipped = Buffer.from(packed);
    flipped[flipped.length - 6] ^= 1; // the checksum
    assert.equal((await post(flipped, { 'content-encoding': 'gzip' })).status, 400);
    const unknown = await post(good, { 'content-encoding': 'br' });
    assert.equal(unknown.status, 415);
    assert.match(unknown.headers.get('accept-encoding'), /gzip/);
  });

  bad('a body over the limit with 413, announced or not', async () => {
    const announced = await raw(port, [httpHead(BODY_MAX + 1, 'Expect: 100-continue\r\n')]);
    assert.match(announced.toString(), /^HTTP\/1\.1 413 /);
    const chunk = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(MiB), Buffer.from('\r\n')]);
    const chunks = Array.from({ length: 66 }, () => chunk);
    const unannounced = await raw(port, [httpHead(undefined, 'Connection: close\r\nTransfer-Encoding: chunked\r\n'), ...chunks, '0\r\n\r\n']);
    assert.match(unannounced.toString(), /^HTTP\/1\.1 413 /);
  });

  bad('text that is not UTF-8 with a partial success, and keeps the rest', async () => {
    const traceId = randomHex(32);
    const answer = await post(protoRequest(
      protoSpan({ traceId, name: Buffer.from([0xc3, 0x28]) }),
      protoSpan({ traceId, name: 'whole' }),
      protoSpan({ traceId, more: [attribute(Buffer.from([0xff, 0xfe]), 'v')] }),
    ));
    assert.equal(answer.status, 200);
    assert.match(answer.body.toString(), /2 of 3 spans cannot be kept/);
    const shown = await server.get(`/api/pugmark/traces/${traceId}`);
    assert.deepEqual(shown.spans.map((s) => s.name), ['whole']);
  });

  bad('ids of zeros or of a wrong length with a partial success', async () => {
    const traceId = randomHex(32);
    const answer = await post(protoRequest(
      protoSpan({ traceId: '0'.repeat(32) }), protoSpan({ traceId, spanId: '0'.repeat(16) }),
      protoSpan({ traceId: 'abcd' }), protoSpan({ traceId, name: 'whole' }),
    ));
    assert.equal(answer.status, 200);
    assert.match(answer.body.toString(), /3 of 4 spans cannot be kept/);
    assert.equal((await server.get(`/api/pugmark/traces/${traceId}`)).spans.length, 1);
    const json = await server.send(otlpRequest('zeros', [{ traceId: '0'.repeat(32) }]));
    assert.equal(json.partialSuccess.rejectedSpans, '1');
  });

  bad('empty keys, values and names like any other', async () => {
    const traceId = randomHex(32);
    const answer = await post(protoRequest(protoSpan({ traceId, name: '', more: [attribute('', ''), attribute('empty', '')] })));
    assert.equal(answer.status, 200);
    assert.equal(answer.body.length, 0);
    const [span] = (await server.get(`/api/pugmark/traces/${traceId}`)).spans;
    assert.deepEqual(span.attributes.find((a) => a.key === 'empty'), { key: 'empty', value: { stringValue: '' } });
  });

  bad('an attribute of 16 MiB with a warning: it is cut, the span says so, its neighbour is whole', async () => {
    const traceId = randomHex(32);
    const huge = Buffer.alloc(16 * MiB, 'ä');
    const answer = await post(protoRequest(
      protoSpan({ traceId, spanId: '1'.repeat(16), name: 'huge', more: [attribute('text', huge)] }),
      protoSpan({ traceId, spanId: '2'.repeat(16), name: 'neighbour', more: [attribute('text', 'short')] }),
    ));
    assert.equal(answer.status, 200);
    assert.match(answer.body.toString(), /1 value was longer than 1048576 bytes and cut/);
    const { spans } = await server.get(`/api/pugmark/traces/${traceId}`);
    const byName = Object.fromEntries(spans.map((s) => [s.name, s.attributes]));
    assert.deepEqual(byName.neighbour, [{ key: 'text', value: { stringValue: 'short' } }]);
    assert.equal(byName.huge[0].value.stringValue, 'ä'.repeat(MiB / 2));
    assert.deepEqual(byName.huge[1], { key: 'pugmark.cut', value: { arrayValue: { values: [{ stringValue: 'text' }] } } });
  });

  bad('a span of 3000 attributes keeps 1024, says how many it lost, and its neighbour is whole', async () => {
    const traceId = randomHex(32);
    const many = Array.from({ length: 3000 }, (_, i) => attribute(`key.${i}`, 'v'));
    const answer = await post(protoRequest(
      protoSpan({ traceId, spanId: '1'.repeat(16), name: 'many', more: many }),
      protoSpan({ traceId, spanId: '2'.repeat(16), name: 'neighbour', more: [attribute('text', 'short')] }),
    ));
    assert.equal(answer.status, 200);
    assert.match(answer.body.toString(), /1 list had more than 1024 attributes, the rest was left out/);
    const { spans } = await server.get(`/api/pugmark/traces/${traceId}`);
    const cut = spans.find((s) => s.name === 'many');
    assert.equal(cut.attributes.filter((a) => a.key.startsWith('key.')).length, 1024);
    assert.equal(cut.droppedAttributes, 3000 - 1024);
    assert.ok(cut.attributes.some((a) => a.key === 'pugmark.cut'));
    assert.equal(spans.find((s) => s.name === 'neighbour').attributes.length, 1);
  });

  bad('values nested without end', async () => {
    let value = textField(1, 'x');
    for (let i = 0; i < 5000; i++) value = bytesField(5, bytesField(1, value));
    const nested = bytesField(9, Buffer.concat([textField(1, 'deep'), bytesField(2, value)]));
    assert.equal((await post(protoRequest(protoSpan({ traceId: randomHex(32), more: [nested] })))).status, 400);
    const deep = '{"arrayValue":{"values":['.repeat(5000);
    const json = `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"${randomHex(32)}","spanId":"${randomHex(16)}","attributes":[{"key":"k","value":${deep}`;
    assert.equal((await post(json, { 'content-type': 'application/json' })).status, 400);
  });

  bad('a body that decodes to far more than it is with 413', async () => {
    // 8 MiB of attributes of two bytes each.
    const answer = await post(protoRequest(protoSpan({ traceId: randomHex(32), more: [Buffer.alloc(8 * MiB, Buffer.from([9 * 8 + 2, 0]))] })));
    assert.equal(answer.status, 413);
    assert.match(answer.body.toString(), /smaller batches/);
  });

  bad('a chunked body like any other', async () => {
    const traceId = randomHex(32);
    const body = protoRequest(protoSpan({ traceId, name: 'in chunks' }));
    const pieces = [...body].map((byte) => Buffer.from([0x31, 13, 10, byte, 13, 10]));
    const answer = await raw(port, [httpHead(undefined, 'Connection: close\r\nTransfer-Encoding: chunked\r\n'), ...pieces, '0\r\n\r\n']);
    assert.match(answer.toString(), /^HTTP\/1\.1 200 /);
    assert.equal((await server.get(`/api/pugmark/traces/${traceId}`)).spans[0].name, 'in chunks');
  });

  bad('requests in one packet in their order', async () => {
    const ids = [randomHex(32), randomHex(32)];
    const one = (id) => { const body = protoRequest(protoSpan({ traceId: id })); return [httpHead(body.length), body]; };
    const wrong = Buffer.from(httpHead(3) + 'abc');
    const all = Buffer.concat([...one(ids[0]), wrong, ...one(ids[1])].map((p) => Buffer.from(p)));
    const answer = await raw(port, [all], { enough: (got) => got.toString('latin1').split('HTTP/1.1 ').length === 4 });
    const statuses = [...answer.toString('latin1').matchAll(/HTTP\/1\.1 (\d+)/g)].map((m) => m[1]);
    assert.deepEqual(statuses, ['200', '400', '200']);
    for (const id of ids) await server.get(`/api/pugmark/traces/${id}`);
  });

  bad('a client that closes its half, or leaves in the middle', async () => {
    const traceId = randomHex(32);
    const body = protoRequest(protoSpan({ traceId }));
    const answer = await raw(port, [httpHead(body.length, 'Connection: close\r\n'), body], { halfClose: true });
    // libmicrohttpd may take the half-close for a farewell; what it does say must be true.
    if (answer.length) {
      assert.match(answer.toString(), /^HTTP\/1\.1 200 /);
      await server.get(`/api/pugmark/traces/${traceId}`);
    }
    for (let cut = 0; cut < 200; cut += 20) await hitAndRun(port, (httpHead(body.length) + body.toString('latin1')).slice(0, cut));
  });

  bad('a slow client, while others are served', async () => {
    const traceId = randomHex(32);
    const body = protoRequest(protoSpan({ traceId, name: 'slow' }));
    const whole = Buffer.concat([Buffer.from(httpHead(body.length, 'Connection: close\r\n')), body]);
    const slow = raw(port, [...whole].map((byte) => Buffer.from([byte])), { gapMs: 3 });
    for (let i = 0; i < 5; i++) await goodSpanWorks();
    assert.match((await slow).toString(), /^HTTP\/1\.1 200 /);
    await server.get(`/api/pugmark/traces/${traceId}`);
  });

  bad('what is not HTTP/1.1 at all', async () => {
    const hello = Buffer.from('16030100c8010000c403035a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a', 'hex');
    for (const bytes of ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', hello, 'GET\r\n\r\n', 'POST /v1/traces HTTP/7.7\r\n\r\n',
      httpHead('-1'), httpHead('12x'), httpHead(3, 'Content-Length: 4\r\n'),
      `GET /${'x'.repeat(100_000)} HTTP/1.1\r\n\r\n`, `GET / HTTP/1.1\r\nA: ${'x'.repeat(100_000)}\r\n\r\n`,
      Buffer.from(Array.from({ length: 4000 }, (_, i) => (i * 7919) & 255))]) {
      await hitAndRun(port, bytes);
      await goodSpanWorks();
    }
  });

  bad('hundreds of connections that say nothing', async () => {
    const { hostname, port: p } = new URL(port);
    const sockets = Array.from({ length: 300 }, () => net.connect({ host: hostname, port: Number(p) }).on('error', () => {}));
    await until('them to be connected', () => (sockets.every((s) => !s.connecting) ? true : undefined));
    await goodSpanWorks();
    for (const socket of sockets) socket.destroy();
  });
});

describe('OTLP over gRPC answers', () => {
  const good = () => protoRequest(protoSpan({ traceId: randomHex(32) }));

  bad('a truncated or garbled request with INVALID_ARGUMENT', async () => {
    const message = good();
    const torn = await grpc(grpcFrame(message.subarray(0, message.length - 5)));
    assert.equal(torn.code, 3);
    assert.match(torn.message, /byte \d+ of \d+/);
    assert.equal(torn.details, undefined);
    assert.equal((await grpc(grpcFrame(Buffer.alloc(300, 0xfe)))).code, 3);
  });

  bad('what is not one message with INTERNAL', async () => {
    assert.equal((await grpc(Buffer.from([0, 0]))).code, 13);
    assert.equal((await grpc(grpcFrame(good(), 0, 100_000))).code, 13);
    assert.equal((await grpc(Buffer.concat([grpcFrame(good()), grpcFrame(good())]))).code, 13);
    assert.equal((await grpc(grpcFrame(good(), 1))).code, 13);
    assert.equal((await grpc(grpcFrame(good(), 255))).code, 13);
    assert.equal((await grpc(grpcFrame(zlib.gzipSync(good()).subarray(0, 20), 1), { headers: { 'grpc-encoding': 'gzip' } })).code, 13);
  });

  bad('an oversized message with RESOURCE_EXHAUSTED and no invitation to come back', async () => {
    const answer = await grpc(grpcFrame(Buffer.alloc(MiB), 0, 0x7fffffff));
    assert.equal(answer.code, 8);
    assert.equal(answer.details, undefined);
    const bomb = await grpc(grpcFrame(zlib.gzipSync(Buffer.alloc(300 * MiB)), 1), { headers: { 'grpc-encoding': 'gzip' } });
    assert.equal(bomb.code, 8);
  });

  bad('a compressed message like any other', async () => {
    const traceId = randomHex(32);
    const packed = zlib.gzipSync(protoRequest(protoSpan({ traceId })));
    assert.equal((await grpc(grpcFrame(packed, 1), { headers: { 'grpc-encoding': 'gzip' } })).code, 0);
    await server.get(`/api/pugmark/traces/${traceId}`);
  });

  bad('unknown methods and encodings with UNIMPLEMENTED', async () => {
    const service = '/opentelemetry.proto.collector.';
    assert.equal((await grpc(grpcFrame(good()), { path: `${service}trace.v1.TraceService/Import` })).code, 12);
    assert.equal((await grpc(grpcFrame(good()), { path: `${service}trace.v9.TraceService/Export` })).code, 12);
    assert.equal((await grpc(grpcFrame(good()), { headers: { 'grpc-encoding': 'br' } })).code, 12);
    assert.equal((await grpc(grpcFrame(good()), { path: `${service}profiles.v1development.ProfilesService/Export` })).code, 12);
  });

  bad('what is not gRPC with an HTTP status', async () => {
    assert.equal((await grpc(good(), { headers: { 'content-type': 'application/json' } })).http, 415);
    assert.equal((await grpc(good(), { headers: { ':method': 'PUT' } })).http, 405);
    const plain = await raw(server.endpoints.otlp_grpc, ['POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n']);
    assert.match(plain.toString(), /^HTTP\/1\.1 400 .*gRPC/s);
  });

  bad('ids of zeros with a partial success', async () => {
    const traceId = randomHex(32);
    const answer = await grpc(grpcFrame(protoRequest(protoSpan({ traceId: '0'.repeat(32) }), protoSpan({ traceId }))));
    assert.equal(answer.code, 0);
    assert.match(answer.data.toString(), /1 of 2 spans cannot be kept/);
    await server.get(`/api/pugmark/traces/${traceId}`);
  });

  bad('broken HTTP/2', async () => {
    const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    const noise = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919 + 13) & 255));
    const frame = (type, flags, stream, payload) => {
      const head = Buffer.alloc(9);
      head.writeUIntBE(payload.length, 0, 3);
      head[3] = type;
      head[4] = flags;
      head.writeUInt32BE(stream, 5);
      return Buffer.concat([head, payload]);
    };
    for (const bytes of [
      noise,
      Buffer.concat([preface, noise]),
      Buffer.concat([preface, settings, frame(0, 0, 1, Buffer.alloc(100))]), // DATA on an idle stream
      Buffer.concat([preface, settings, frame(1, 4, 1, noise.subarray(0, 200))]), // HEADERS that HPACK cannot read
      Buffer.concat([preface, settings, frame(1, 4, 2, Buffer.alloc(1))]), // an even stream
      Buffer.concat([preface, settings, frame(9, 4, 1, Buffer.alloc(10))]), // CONTINUATION of nothing
      Buffer.concat([preface, settings, Buffer.from([255, 255, 255, 0, 0, 0, 0, 0, 1])]), // a frame of 16 MiB
      Buffer.concat([preface, settings, frame(8, 0, 0, Buffer.from([0, 0, 0, 0]))]), // a window update of zero
    ]) {
      await raw(server.endpoints.otlp_grpc, [bytes], { halfClose: true });
      await goodSpanWorks();
    }
  });

  bad('clients that leave in the middle of a message', async () => {
    for (let i = 0; i < 20; i++) {
      await new Promise((resolve) => {
        const session = http2.connect(server.endpoints.otlp_grpc);
        session.on('error', () => {});
        const stream = session.request({ ':method': 'POST', 'content-type': 'application/grpc',
          ':path': '/opentelemetry.proto.collector.trace.v1.TraceService/Export' }, { endStream: false });
        stream.on('error', () => {});
        stream.write(grpcFrame(Buffer.alloc(1000), 0, 5000), () => {
          if (i % 2) session.destroy();
          else stream.close(http2.constants.NGHTTP2_CANCEL, () => session.destroy());
          resolve();
        });
      });
    }
  });

  bad('streams that are opened and reset, over and over', async () => {
    const session = http2.connect(server.endpoints.otlp_grpc);
    session.on('error', () => {});
    for (let i = 0; i < 1500 && !session.destroyed; i++) {
      const stream = session.request({ ':method': 'POST', 'content-type': 'application/grpc',
        ':path': '/opentelemetry.proto.collector.trace.v1.TraceService/Export' }, { endStream: false });
      stream.on('error', () => {});
      stream.close(http2.constants.NGHTTP2_CANCEL);
      if (i % 100 === 99) await sleep(0);
    }
    session.destroy();
  });
});

describe('more than it can hold', () => {
  bad('is taken as far as memory goes and else asked to come back, in the protocol\'s words', async () => {
    const text = Buffer.alloc(MiB, 'x');
    const more = Array.from({ length: 24 }, (_, i) => attribute(`part.${i}`, text));
    const ids = Array.from({ length: 24 }, () => randomHex(32));
    const answers = await Promise.all(ids.map((traceId) => post(protoRequest(protoSpan({ traceId, more })))));
    const taken = ids.filter((_, i) => answers[i].status === 200);
    const refused = answers.filter((answer) => answer.status !== 200);
    for (const answer of refused) {
      assert.ok([429, 503].includes(answer.status), String(answer.status));
      assert.ok(Number(answer.headers.get('retry-after')) > 0);
    }
    assert.ok(refused.length > 0, 'nothing was refused, so nothing was tried');
    assert.ok(taken.length > 0);
    const last = await server.get(`/api/pugmark/traces/${taken.at(-1)}`);
    assert.equal(last.spans[0].attributes.length, 24);
  });
});

describe('after all of that', () => {
  test('every span is accounted for', async () => {
    const { ingest, store } = await server.get('/api/pugmark/status');
    const refused = ingest.spansRefused.reduce((sum, r) => sum + BigInt(r.count), 0n);
    assert.equal(BigInt(ingest.spansReceived), BigInt(ingest.spansStored) + refused);
    assert.equal(store.spans, ingest.spansStored);
    assert.ok(BigInt(ingest.spansStored) >= BigInt(sentGood));
    assert.ok(refused > 0n);
  });

  test('its memory stayed within what it may have in flight', async (t) => {
    const status = await readFile(`/proc/${server.process.pid}/status`, 'utf8');
    const peakMiB = Number(/VmHWM:\s+(\d+) kB/.exec(status)[1]) / 1024;
    // 256 MiB in flight, and what the store holds and copies of the largest request.
    t.diagnostic(`${Math.round(peakMiB)} MiB at most`);
    assert.ok(peakMiB < 640, `${peakMiB} MiB`);
  });
});
