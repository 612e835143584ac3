// Zipkin's, Jaeger's and X-Ray's own clients, unmodified, send to Pugmark; what our API gives back is compared with
// what they were told.

import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';

import { randomHex, Server, until } from './lib.mjs';

const require = createRequire(import.meta.url);

let server;
before(async () => { server = await Server.start(); });
after(async () => { await server?.stop(); });

const udp = (name) => new URL(server.endpoints[name].replace('udp:', 'http:'));

/** The trace once it has `n` spans: each with its attributes and its resource as plain objects. */
async function trace(id, n) {
  const plain = (list) => Object.fromEntries(list.map(({ key, value }) => [key, Object.values(value)[0]]));
  return until(`${n} spans of trace ${id}`, async () => {
    const answer = await fetch(`${server.endpoints.page}/api/pugmark/traces/${id}`);
    if (answer.status !== 200) return undefined;
    const found = await answer.json();
    if (found.spans.length < n) return undefined;
    return found.spans.map((s) => ({ ...s, tags: plain(s.attributes), resource: plain(found.resources[s.resource].attributes),
      events: s.events.map((e) => ({ ...e, tags: plain(e.attributes) })) }));
  });
}
const by = (spans, name) => spans.find((s) => s.name === name) ?? assert.fail(`no span ${name} in ${spans.map((s) => s.name)}`);

const metric = async (row) => {
  const text = await (await fetch(`${server.endpoints.page}/metrics`)).text();
  return Number(text.split('\n').find((line) => line.startsWith(row))?.slice(row.length) ?? assert.fail(`no row ${row}`));
};

const post = (body, { version = 'v2', type = 'application/json', headers = {} } = {}) =>
  fetch(`${server.endpoints.zipkin}/api/${version}/spans`, { method: 'POST', body, headers: { 'content-type': type, ...headers } });

describe('Zipkin', () => {
  const now = Date.now() * 1000;

  test('the client of npm sends over HTTP, and every field comes back', async () => {
    const { Tracer, BatchRecorder, ExplicitContext, Annotation, InetAddress, jsonEncoder, TraceId, option } = require('zipkin');
    const { HttpLogger } = require('zipkin-transport-http');
    const ctxImpl = new ExplicitContext();
    const logger = new HttpLogger({ endpoint: `${server.endpoints.zipkin}/api/v2/spans`, jsonEncoder: jsonEncoder.JSON_V2,
      httpInterval: 20 });
    const tracer = new Tracer({ ctxImpl, recorder: new BatchRecorder({ logger }), localServiceName: 'shop' });
    const root = tracer.createRootId();
    tracer.letId(root, () => {
      tracer.recordServiceName('shop');
      tracer.recordRpc('get /cart');
      tracer.recordBinary('http.method', 'GET');
      tracer.recordAnnotation(new Annotation.ServerRecv());
      tracer.recordAnnotation(new Annotation.LocalAddr({ host: new InetAddress('10.1.2.3'), port: 8080 }));
      tracer.recordMessage('cache miss');
      tracer.letId(tracer.createChildId(), () => {
        tracer.recordServiceName('shop');
        tracer.recordRpc('select');
        tracer.recordAnnotation(new Annotation.ClientSend());
        tracer.recordAnnotation(new Annotation.ServerAddr({ serviceName: 'orders-db', host: new InetAddress('10.9.9.9'), port: 5432 }));
        tracer.recordBinary('error', 'no such table');
        tracer.recordAnnotation(new Annotation.ClientRecv());
      });
      tracer.recordAnnotation(new Annotation.ServerSend());
    });
    const spans = await trace(root.traceId, 2);
    logger.close?.();
    const [get, select] = [by(spans, 'get /cart'), by(spans, 'select')];
    assert.equal(get.spanId, root.spanId);
    assert.equal(get.parentSpanId, '');
    assert.equal(get.kind, 'SERVER');
    assert.equal(get.resource['service.name'], 'shop');
    assert.equal(get.tags['http.method'], 'GET');
    assert.equal(get.tags['network.local.address'], '10.1.2.3');
    assert.equal(get.tags['network.local.port'], '8080');
    assert.deepEqual(get.events.map((e) => e.name), ['cache miss']);
    assert.equal(select.parentSpanId, root.spanId);
    assert.equal(select.kind, 'CLIENT');
    assert.equal(select.tags['peer.service'], 'orders-db');
    assert.equal(select.tags['network.peer.address'], '10.9.9.9');
    assert.equal(select.tags['network.peer.port'], '5432');
    assert.deepEqual(select.status, { code: 'ERROR', message: 'no such table' });
    assert.ok(Math.abs(Number(get.startUnixNano) / 1e6 - Date.now()) < 60_000);
  });

  test('a shared span is two spans, and the server\'s children are below the server\'s half', async () => {
    const traceId = randomHex(16), id = randomHex(16), child = randomHex(16);
    const span = (more) => ({ traceId, id, name: 'x', timestamp: now, duration: 1000, ...more });
    const answer = await post(gzipSync(JSON.stringify([
      span({ name: 'call', kind: 'CLIENT', localEndpoint: { serviceName: 'front' } }),
      span({ name: 'serve', kind: 'SERVER', shared: true, localEndpoint: { serviceName: 'back' } }),
      span({ name: 'work', id: child, parentId: id, localEndpoint: { serviceName: 'back' } }),
    ])), { headers: { 'content-encoding': 'gzip' } });
    assert.equal(answer.status, 202);
    assert.equal(await answer.text(), '');
    const spans = await trace(traceId.padStart(32, '0'), 3);
    const [call, serve, work] = ['call', 'serve', 'work'].map((name) => by(spans, name));
    assert.equal(call.spanId, id);
    assert.notEqual(serve.spanId, id);
    assert.equal(serve.parentSpanId, id);
    assert.equal(work.parentSpanId, serve.spanId);
  });

  test('says what is wrong as Zipkin does: 400 with words, 405, 404, 415', async () => {
    for (const [body, options] of [
      ['', {}], ['[{]', {}], ['{}', {}], ['[{"traceId":"1"}]', {}], ['hello', { version: 'v1' }],
      [Buffer.from([12, 0, 0, 0, 9, 1]), { version: 'v1', type: 'application/x-thrift' }],
      [Buffer.from([0x0a, 0x7f]), { type: 'application/x-protobuf' }],
    ]) {
      const answer = await post(body, options);
      assert.equal(answer.status, 400, `${body}`);
      assert.notEqual(await answer.text(), '');
    }
    assert.equal((await post('[]')).status, 202);
    assert.equal((await post('x', { type: 'application/x-thrift' })).status, 415);
    assert.equal((await post('x', { version: 'v3' })).status, 404);
  });

  test('takes the thrift that py_zipkin posts to /api/v1/spans', async () => {
    // As py_zipkin encodes a list of spans: TBinaryProtocol, fields in order.
    const out = [];
    const i8 = (n) => out.push(n & 255), i16 = (n) => { i8(n >> 8); i8(n); }, i32 = (n) => { i16(n >> 16); i16(n); };
    const i64 = (n) => { const b = Buffer.alloc(8); b.writeBigInt64BE(BigInt.asIntN(64, n)); out.push(...b); };
    const field = (type, id) => { i8(type); i16(id); };
    const string = (s) => { const b = Buffer.from(s); i32(b.length); out.push(...b); };
    const endpoint = (id) => { field(12, id); field(8, 1); i32(0x7f000001); field(6, 2); i16(9000); field(11, 3); string('seed'); i8(0); };
    const traceId = randomHex(16), id = randomHex(16);
    i8(12); i32(1); // list<struct>, one
    field(10, 1); i64(BigInt(`0x${traceId}`));
    field(11, 3); string('handle');
    field(10, 4); i64(BigInt(`0x${id}`));
    field(15, 6); i8(12); i32(3);
    for (const [us, value] of [[now, 'sr'], [now + 2500, 'ss'], [now + 5, 'logged']]) {
      field(10, 1); i64(BigInt(us)); field(11, 2); string(value); endpoint(3); i8(0);
    }
    field(15, 8); i8(12); i32(2);
    field(11, 1); string('http.uri'); field(11, 2); string('/a'); field(8, 3); i32(6); endpoint(4); i8(0);
    field(11, 1); string('n'); field(11, 2); i32(2); i16(-7); field(8, 3); i32(2); endpoint(4); i8(0);
    field(2, 9); i8(1);
    field(10, 10); i64(BigInt(now)); field(10, 11); i64(2500n); i8(0);
    const answer = await post(Buffer.from(out), { version: 'v1', type: 'application/x-thrift' });
    assert.equal(answer.status, 202, await answer.text());
    const [span] = await trace(traceId.padStart(32, '0'), 1);
    assert.equal(span.name, 'handle');
    assert.equal(span.kind, 'SERVER');
    assert.equal(span.spanId, id);
    assert.equal(span.startUnixNano, `${now}000`);
    assert.equal(span.durationNano, '2500000');
    assert.equal(span.resource['service.name'], 'seed');
    assert.deepEqual(span.tags, { 'http.uri': '/a', n: '-7', 'network.local.address': '127.0.0.1',
      'network.local.port': '9000', 'zipkin.debug': true });
    assert.deepEqual(span.events.map((e) => [e.name, e.timeUnixNano]), [['logged', `${now + 5}000`]]);
  });
});

describe('Jaeger', () => {
  const { initTracer, opentracing } = require('jaeger-client');

  for (const [how, reporter] of [
    ['UDP', () => ({ agentHost: '127.0.0.1', agentPort: Number(udp('jaeger_binary').port) })],
    ['HTTP', () => ({ collectorEndpoint: `${server.endpoints.jaeger_http}/api/traces` })],
  ]) {
    test(`the client of npm sends over ${how}, and every field comes back`, async () => {
      const errors = [];
      const tracer = initTracer(
        { serviceName: `shop-${how}`, sampler: { type: 'const', param: 1 }, reporter: { ...reporter(), flushIntervalMs: 20 }, traceId128bit: true },
        { tags: { 'deployment.environment': 'test' }, logger: { info() {}, error: (message) => errors.push(message) } });
      const begin = Date.now() - 50;
      const root = tracer.startSpan('place order', { startTime: begin, tags: { 'span.kind': 'server', amount: 12, ratio: 0.5, paid: true, note: 'ümlaut' } });
      root.log({ event: 'reserved', shelf: 'b7' }, begin + 10);
      const child = tracer.startSpan('charge', { childOf: root, startTime: begin + 1, tags: { error: true, 'span.kind': 'client' } });
      child.finish(begin + 20);
      const follower = tracer.startSpan('mail', { references: [opentracing.followsFrom(child.context())] });
      follower.finish();
      root.finish(begin + 30);
      await new Promise((resolve) => tracer.close(resolve));
      assert.deepEqual(errors, []);
      const spans = await trace(root.context().traceIdStr.padStart(32, '0'), 3);
      const [order, charge, mail] = ['place order', 'charge', 'mail'].map((name) => by(spans, name));
      assert.equal(order.kind, 'SERVER');
      assert.equal(order.parentSpanId, '');
      assert.equal(order.spanId, root.context().spanIdStr.padStart(16, '0'));
      assert.equal(order.durationNano, '30000000');
      assert.equal(order.startUnixNano, `${begin}000000`);
      assert.equal(order.resource['service.name'], `shop-${how}`);
      assert.equal(order.resource['deployment.environment'], 'test');
      assert.match(order.resource['jaeger.version'], /^Node-/);
      for (const [key, value] of Object.entries({ paid: true, note: 'ümlaut' })) assert.equal(order.tags[key], value, key);
      assert.equal(Number(order.tags.amount), 12);
      assert.equal(Number(order.tags.ratio), 0.5);
      assert.deepEqual(order.events.map((e) => [e.name, e.timeUnixNano, e.tags]), [['reserved', `${begin + 10}000000`, { shelf: 'b7' }]]);
      assert.equal(charge.parentSpanId, order.spanId);
      assert.equal(charge.kind, 'CLIENT');
      assert.equal(charge.status.code, 'ERROR');
      assert.deepEqual(mail.links.map((l) => l.spanId), [charge.spanId]);
      assert.deepEqual(mail.links[0].attributes, [{ key: 'opentracing.ref_type', value: { stringValue: 'follows_from' } }]);
    });
  }

  test('what is no thrift is counted, and over HTTP refused in words', async () => {
    const before = await metric('pugmark_receiver_requests_refused_total{receiver="jaeger_compact"} ');
    const socket = dgram.createSocket('udp4');
    socket.send('no thrift at all', Number(udp('jaeger_compact').port), '127.0.0.1');
    await until('the datagram to be counted', async () =>
      (await metric('pugmark_receiver_requests_refused_total{receiver="jaeger_compact"} ')) > before || undefined);
    socket.close();
    const url = `${server.endpoints.jaeger_http}/api/traces`;
    const headers = { 'content-type': 'application/x-thrift' };
    assert.equal((await fetch(url, { method: 'POST', body: 'x', headers })).status, 400);
    assert.equal((await fetch(url, { method: 'POST', body: 'x', headers: { 'content-type': 'text/plain' } })).status, 415);
    assert.equal((await fetch(url)).status, 405);
  });

  test('thousands of datagrams are stored or counted', async () => {
    const socket = dgram.createSocket('udp4');
    const n = 2000, port = Number(udp('jaeger_compact').port);
    const rows = ['requests_total', 'spans_stored_total', 'datagrams_dropped_total']
      .map((row) => `pugmark_receiver_${row}{receiver="jaeger_compact"} `);
    const before = await Promise.all(rows.map(metric));
    // emitBatch in the compact protocol, one span without anything but ids and times.
    const datagram = Buffer.from([0x82, 0x81, 1, 9, ...Buffer.from('emitBatch'),
      0x1c, 0x1c, 0x18, 4, ...Buffer.from('many'), 0, 0x19, 0x1c,
      0x16, 2, 0x16, 2, 0x16, 2, 0x16, 0, 0x18, 1, 0x78, 0x25, 2, 0x16, 2, 0x16, 2, 0, 0, 0]);
    for (let i = 0; i < n; i++) await new Promise((resolve) => socket.send(datagram, port, '127.0.0.1', resolve));
    await until('every datagram to have its fate', async () => {
      const now = await Promise.all(rows.map(metric));
      const [requests, stored, dropped] = now.map((value, i) => value - before[i]);
      // The kernel tells of a drop with the next datagram.
      if (requests + dropped < n) { socket.send(datagram, port, '127.0.0.1'); await sleep(20); return undefined; }
      return stored === requests || undefined;
    });
    socket.close();
  });
});

describe('X-Ray', () => {
  test('the SDK of npm sends a segment, and every field comes back', async () => {
    const { hostname, port } = udp('xray');
    const xray = require('aws-xray-sdk-core');
    xray.setLogger({ debug() {}, info() {}, warn() {}, error() {} });
    xray.setDaemonAddress(`${hostname}:${port}`);
    xray.enableManualMode();
    const segment = new xray.Segment('checkout');
    segment.addAnnotation('customer', 'c7');
    segment.addAnnotation('items', 3);
    segment.addAnnotation('paid', true);
    segment.addMetadata('cart', { a: [1, 2] }, 'shop');
    segment.http = { request: { method: 'GET', url: 'http://shop/cart' }, response: { status: 502 } };
    segment.fault = true;
    const call = segment.addNewSubsegment('payment');
    call.namespace = 'remote';
    const inner = call.addNewSubsegment('sign');
    inner.close(new TypeError('no key'));
    call.close();
    segment.close();
    const id = segment.trace_id.replaceAll('-', '').slice(1);
    const spans = await trace(id, 3);
    const [checkout, payment, sign] = ['checkout', 'payment', 'sign'].map((name) => by(spans, name));
    assert.equal(checkout.spanId, segment.id);
    assert.equal(checkout.kind, 'SERVER');
    assert.equal(checkout.status.code, 'ERROR');
    assert.equal(checkout.resource['service.name'], 'checkout');
    for (const [key, value] of Object.entries({ customer: 'c7', items: '3', paid: true, 'http.request.method': 'GET',
      'url.full': 'http://shop/cart', 'http.response.status_code': '502', 'aws.xray.fault': true }))
      assert.equal(checkout.tags[key], value, key);
    assert.deepEqual(JSON.parse(checkout.tags['aws.xray.metadata.shop']), { cart: { a: [1, 2] } });
    assert.ok(Math.abs(Number(checkout.startUnixNano) / 1e9 - segment.start_time) < 0.001);
    assert.ok(Math.abs(Number(checkout.durationNano) / 1e9 - (segment.end_time - segment.start_time)) < 0.001);
    assert.equal(payment.parentSpanId, segment.id);
    assert.equal(payment.kind, 'CLIENT');
    assert.equal(payment.resource['service.name'], 'checkout');
    assert.equal(sign.parentSpanId, payment.spanId);
    assert.equal(sign.kind, 'INTERNAL');
    assert.deepEqual(sign.status, { code: 'ERROR', message: 'no key' });
    assert.equal(sign.events[0].name, 'exception');
    assert.equal(sign.events[0].tags['exception.type'], 'TypeError');
    assert.match(sign.events[0].tags['exception.stacktrace'], /^at .* \(file\)$/m);
  });

  test('a datagram without the header line is counted', async () => {
    const row = 'pugmark_receiver_requests_refused_total{receiver="xray"} ', before = await metric(row);
    const socket = dgram.createSocket('udp4');
    socket.send('{"name":"x"}', Number(udp('xray').port), '127.0.0.1');
    await until('the datagram to be counted', async () => (await metric(row)) > before || undefined);
    socket.close();
  });
});
