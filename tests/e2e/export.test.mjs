// The library's exporters against collectors that are real servers: what arrives, in which form, and what happens when
// they are busy, strange, slow or not there.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import zlib from 'node:zlib';
import { certificates, decode, freePort, fromJson, grpcCollector, httpCollector, rawCollector, spansOf } from './collectors.mjs';
import { PUGMARK, Server, until } from './lib.mjs';

const CLIENT = path.join(path.dirname(PUGMARK), 'tests', 'export_client');
const ENCODER = path.join(path.dirname(PUGMARK), 'tests', 'metrics_encoder');
const ENVIRONMENT = { PATH: process.env.PATH, PUG_TRACING: 'true', OTEL_SERVICE_NAME: 'c-client' };
const otlp = (endpoint, protocol, more) => ({
  PUG_BACKEND: 'otlp', PUG_OTLP_ENDPOINT: endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: protocol, PUG_METRICS: 'false',
  PUG_SYSTEM_METRICS_INTERVAL_SECS: '0', ...more,
});

/** Starts the client; `said` resolves to what it says in the end. */
function start(env, actions, stdout = 'pipe') {
  const child = spawn(CLIENT, actions, { env: { ...ENVIRONMENT, ...env }, stdio: ['pipe', stdout, 'pipe'] });
  let text = '';
  child.stderr.setEncoding('utf8').on('data', (more) => { text += more; });
  child.waits = () => until('the client to wait', () => (text.includes('waiting\n') ? true : undefined));
  child.stdin.on('error', () => {});
  child.said = once(child, 'close').then(([code, signal]) => {
    assert.deepEqual([code, signal], [0, null], text);
    return JSON.parse(text.replaceAll('waiting\n', ''));
  });
  child.goOn = () => child.stdin.write('\n');
  return child;
}
const run = (env, ...actions) => {
  const child = start(env, actions);
  child.stdout.resume();
  return child.said;
};

const attributes = (list) => Object.fromEntries(list.map(({ key, value }) => [key, Object.values(value)[0]]));

let tls;
before(() => { tls = certificates(); });
after(() => tls.remove());

function checkSpans(spans) {
  assert.deepEqual(spans.map((s) => s.name).sort(), ['client.call', 'client.call', 'client.inner', 'client.inner']);
  const [first, last] = spans.filter((s) => s.name === 'client.call');
  assert.deepEqual(attributes(last.attributes), { n: '1', 'peer.service': 'database', error: false });
  assert.deepEqual([first.status?.code ?? 0, last.status.code, last.status.message], [0, 2, 'it broke']);
  assert.equal(last.kind, 3);
  assert.deepEqual(last.events.map((e) => e.name), ['answered', 'plain']);
  assert.ok(BigInt(last.endTimeUnixNano) > BigInt(last.startTimeUnixNano));
}

// ---- forms ----

test('OTLP over HTTP is JSON when that is asked for', async () => {
  const c = await httpCollector();
  const said = await run(otlp(c.endpoint, 'http/json'), 'span:2', 'flush:5000');
  c.close();
  assert.deepEqual([said.exported, said.lostExport, said.told], [4, 0, []]);
  const { url, headers, body } = c.requests[0];
  assert.deepEqual([url, headers['content-type'], headers['content-encoding']], ['/v1/traces', 'application/json', undefined]);
  const sent = JSON.parse(body);
  const spans = spansOf(sent);
  checkSpans(spans);
  for (const s of spans) {
    assert.match(s.traceId, /^[0-9a-f]{32}$/);
    assert.match(s.spanId, /^[0-9a-f]{16}$/);
    assert.equal(typeof s.startTimeUnixNano, 'string');
    assert.equal(typeof s.kind, 'number');
  }
  assert.equal(attributes(sent.resourceSpans[0].resource.attributes)['service.name'], 'c-client');
});

test('batches that wait are joined to one JSON document', async () => {
  // While the first request waits to be sent again, the second and third batch queue up.
  const c = await httpCollector([[503, { 'retry-after': '1' }, ''], [200, {}, '']]);
  const child = start(otlp(c.endpoint, 'http/json'), ['span:1', 'flush:300', 'span:1', 'flush:300', 'span:1', 'flush:8000']);
  child.stdout.resume();
  const said = await child.said;
  c.close();
  assert.deepEqual(c.requests.slice(1).map((r) => spansOf(JSON.parse(r.body)).length), [2, 4], 'the batch that was refused, then the others in one');
  assert.equal(said.exported, 6);
});

for (const protocol of ['http/protobuf', 'http/json', 'grpc']) {
  test(`gzip over ${protocol} is what any inflater reads`, async () => {
    const c = protocol === 'grpc' ? await grpcCollector() : await httpCollector();
    const said = await run(otlp(c.endpoint, protocol, { OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip' }), 'span:2', 'flush:5000');
    c.close();
    assert.deepEqual([said.exported, said.told], [4, []]);
    const { headers, body } = c.requests[0];
    let packed = body;
    if (protocol === 'grpc') {
      assert.equal(headers['grpc-encoding'], 'gzip');
      assert.deepEqual([body[0], body.readUInt32BE(1)], [1, body.length - 5], 'the flag and the length of a compressed message');
      packed = body.subarray(5);
    } else {
      assert.equal(headers['content-encoding'], 'gzip');
    }
    const bytes = zlib.gunzipSync(packed);
    checkSpans(spansOf(protocol === 'http/json' ? JSON.parse(bytes) : decode('Traces', bytes)));
  });
}

test('our server takes every form of OTLP, plain and compressed', async () => {
  const server = await Server.start();
  try {
    for (const protocol of ['http/protobuf', 'http/json', 'grpc']) {
      for (const compression of ['none', 'gzip']) {
        const endpoint = server.endpoints[protocol === 'grpc' ? 'otlp_grpc' : 'otlp_http'];
        const said = await run(otlp(endpoint, protocol, { OTEL_EXPORTER_OTLP_COMPRESSION: compression }), 'span:2', 'flush:5000');
        assert.deepEqual([said.exported, said.lostExport, said.told], [4, 0, []], `${protocol} ${compression}`);
      }
    }
  } finally {
    await server.stop();
  }
});

test('metrics are encoded as the specification numbers and spells them', async () => {
  const output = (form) => new Promise((resolve, reject) => {
    execFile(ENCODER, [form], { encoding: 'buffer' }, (error, stdout) => (error ? reject(error) : resolve(stdout)));
  });
  const sent = decode('Metrics', await output('protobuf'));
  const json = JSON.parse(await output('json'));
  assert.deepEqual(fromJson('Metrics', json), sent, 'both encodings say the same');
  const [{ resource, scopeMetrics: [{ scope, metrics }] }] = sent.resourceMetrics;
  assert.deepEqual(attributes(resource.attributes), { 'service.name': 'metrics' });
  assert.deepEqual([scope.name, scope.version], ['pugmark', '1.2']);
  assert.deepEqual(metrics.map((m) => [m.name, m.unit]), [['process.memory', 'By'], ['cpu', '1'], ['sent', '{message}'], ['spans', 'ns']]);
  const [memory, cpu, messages, spans] = metrics;
  assert.equal(memory.description, 'resident');
  const [point] = memory.gauge.dataPoints;
  assert.deepEqual([point.startTimeUnixNano, point.timeUnixNano, point.asInt], ['0', '1700000000000000001', '-9007199254740993']);
  assert.equal(cpu.gauge.dataPoints[0].asDouble, 0.25);
  assert.deepEqual([messages.sum.aggregationTemporality, messages.sum.isMonotonic], [2, true]);
  assert.deepEqual(messages.sum.dataPoints.map((p) => [p.asInt, attributes(p.attributes).channel]), [['0', 'a'], ['7', 'b']]);
  assert.equal(spans.exponentialHistogram.aggregationTemporality, 1);
  const [h] = spans.exponentialHistogram.dataPoints;
  assert.deepEqual([h.count, h.sum, h.scale, h.zeroCount, h.min, h.max, h.positive.offset], ['7', 12.5, -3, '1', 0, 9.5, -2]);
  assert.deepEqual(h.positive.bucketCounts, ['0', '5', '300']);
  const [, empty] = spans.exponentialHistogram.dataPoints;
  assert.ok(!('min' in empty) && !('max' in empty), 'nothing was measured: there is no least and no greatest');
});

test('Zipkin gets spans as its v2 API and the transformation have them', async () => {
  const c = await httpCollector([[202, {}, '']]);
  const said = await run({ PUG_BACKEND: 'zipkin', OTEL_EXPORTER_ZIPKIN_ENDPOINT: `${c.endpoint}/api/v2/spans` }, 'span:2', 'flush:5000');
  c.close();
  assert.deepEqual([said.exported, said.lostExport, said.told], [4, 0, []]);
  assert.deepEqual([c.requests[0].url, c.requests[0].headers['content-type']], ['/api/v2/spans', 'application/json']);
  const spans = JSON.parse(c.requests[0].body);
  assert.equal(spans.length, 4);
  const [first, last] = spans.filter((s) => s.name === 'client.call');
  const inner = spans.find((s) => s.name === 'client.inner' && s.parentId === last.id);
  for (const s of spans) {
    assert.match(s.traceId, /^[0-9a-f]{32}$/);
    assert.match(s.id, /^[0-9a-f]{16}$/);
    assert.ok(Number.isInteger(s.timestamp) && Math.abs(s.timestamp / 1000 - Date.now()) < 60_000);
    assert.ok(Number.isInteger(s.duration) && s.duration >= 1);
    assert.deepEqual(s.localEndpoint, { serviceName: 'c-client' });
    assert.ok(Object.values(s.tags).every((v) => typeof v === 'string'));
  }
  assert.equal(last.kind, 'CLIENT');
  assert.deepEqual(last.remoteEndpoint, { serviceName: 'database' });
  assert.equal(last.tags.n, '1');
  assert.deepEqual([last.tags.error, last.tags['otel.status_code']], ['it broke', 'ERROR']);
  assert.deepEqual(['error' in first.tags, 'otel.status_code' in first.tags], [false, false], 'error=false would make it an error');
  assert.deepEqual(last.annotations.map((a) => a.value), ['"answered": {"rows":2}', 'plain']);
  assert.equal(last.tags['telemetry.sdk.name'], 'pugmark');
  assert.deepEqual([inner.kind, inner.traceId, inner.tags.ratio, inner.annotations], [undefined, last.traceId, '0.5', undefined]);
});

// ---- TLS ----

for (const protocol of ['http/protobuf', 'grpc']) {
  const collect = (name, more) => {
    const options = { cert: tls.read(`${name}.pem`), key: tls.read(`${name}.key`), ...more };
    return protocol === 'grpc' ? grpcCollector(undefined, options) : httpCollector(undefined, options);
  };

  test(`${protocol} over TLS: the certificate is checked against the given authority`, async () => {
    const good = await collect('server'), other = await collect('other');
    const trusted = { OTEL_EXPORTER_OTLP_CERTIFICATE: tls.file('ca.pem') };
    const said = await run(otlp(good.endpoint, protocol, trusted), 'span:2', 'flush:5000', 'span:2', 'flush:5000');
    assert.deepEqual([said.exported, said.lostExport, said.told], [8, 0, []]);
    assert.equal(good.connections, 1, 'one handshake for both requests');
    const before = good.requests.length;
    for (const [endpoint, authority, why] of [[good.endpoint, 'stranger.pem', 'another authority'], [other.endpoint, 'ca.pem', 'another name'],
      [good.endpoint, null, 'the machine does not know the authority']]) {
      const refused = await run(otlp(endpoint, protocol, authority && { OTEL_EXPORTER_OTLP_CERTIFICATE: tls.file(authority) }),
        'span:1', 'flush:5000');
      assert.deepEqual([refused.exported, refused.lostExport], [0, 2], why);
      assert.match(refused.told.join(), /cannot be sent to https:.*(certificate|SSL)/i, why);
      assert.ok(refused.done[1].ms < 4000, `${why}: it is final, there is nothing to wait for`);
    }
    assert.deepEqual([good.requests.length, other.requests.length], [before, 0], 'nothing was sent to a server that is not the one');
    good.close();
    other.close();
  });

  test(`${protocol} over TLS: the client shows its certificate when it has one`, async () => {
    const c = await collect('server', { ca: tls.read('ca.pem'), requestCert: true, rejectUnauthorized: true });
    const trusted = { OTEL_EXPORTER_OTLP_CERTIFICATE: tls.file('ca.pem'), OTEL_EXPORTER_OTLP_TIMEOUT: '300' };
    const without = await run(otlp(c.endpoint, protocol, trusted), 'span:1', 'flush:5000');
    assert.deepEqual([without.exported, c.requests.length], [0, 0]);
    const said = await run(otlp(c.endpoint, protocol, {
      ...trusted, OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: tls.file('client.pem'), OTEL_EXPORTER_OTLP_CLIENT_KEY: tls.file('client.key'),
      OTEL_EXPORTER_OTLP_TIMEOUT: '5000',
    }), 'span:1', 'flush:5000');
    c.close();
    assert.deepEqual([said.exported, said.told], [2, []]);
  });
}

// ---- again, and no more ----

test('a date in Retry-After is waited for', async () => {
  const when = new Date(Math.ceil(Date.now() / 1000) * 1000 + 1000);
  const c = await httpCollector([[429, { 'retry-after': when.toUTCString() }, ''], [200, {}, '']]);
  const said = await run(otlp(c.endpoint, 'http/protobuf'), 'span:1', 'flush:8000');
  c.close();
  assert.equal(c.requests.length, 2);
  assert.ok(c.requests[1].at >= when.getTime(), 'not before it');
  assert.equal(said.exported, 2);
});

test('a pause that the collector names is waited for, however long its requests may take', async () => {
  // Requests may take a second, so what is only busy is given up after three.
  const c = await httpCollector([[503, { 'retry-after': '5' }, ''], [200, {}, '']]);
  const said = await run(otlp(c.endpoint, 'http/protobuf', { OTEL_EXPORTER_OTLP_TIMEOUT: '1000' }), 'span:1', 'flush:300', 'span:1', 'flush:15000');
  c.close();
  assert.deepEqual([c.requests.length, said.exported, said.lostExport], [3, 4, 0], 'the batch, again, and what came meanwhile');
  assert.ok(c.requests[1].at - c.requests[0].at >= 4990, 'not before it');
});

test('without a wish of the collector the pauses grow', async () => {
  const c = await httpCollector([[502, {}, ''], [503, {}, ''], [504, {}, ''], [429, {}, ''], [200, {}, '']]);
  const said = await run(otlp(c.endpoint, 'http/protobuf'), 'span:1', 'flush:9000');
  c.close();
  assert.deepEqual([c.requests.length, said.exported, said.lostExport], [5, 2, 0]);
  const pauses = c.requests.slice(1).map((r, i) => r.at - c.requests[i].at);
  for (const [i, pause] of pauses.entries()) assert.ok(pause >= 49 * 2 ** i, `pause ${i} was ${pause} ms`);
});

test('gRPC: RESOURCE_EXHAUSTED is tried again after the time that RetryInfo names, and not without it', async () => {
  const details = { code: 8, message: 'slow down', details: [{
    typeUrl: 'type.googleapis.com/google.rpc.RetryInfo', value: Buffer.from([0x0a, 0x02, 0x08, 0x01]) }] };
  const c = await grpcCollector([{ status: 8, message: 'slow down', details }, { status: 0 }]);
  const said = await run(otlp(c.endpoint, 'grpc'), 'span:1', 'flush:8000');
  c.close();
  assert.deepEqual([c.requests.length, said.exported], [2, 2]);
  assert.ok(c.requests[1].at - c.requests[0].at >= 1000);

  const full = await grpcCollector([{ status: 8, message: 'no quota' }, { status: 0 }]);
  const refused = await run(otlp(full.endpoint, 'grpc'), 'span:1', 'flush:8000');
  full.close();
  assert.deepEqual([refused.exported, refused.lostExport], [0, 2]);
  assert.match(refused.told[0], /refused spans \(gRPC 8 no quota\)/);
});

test('gRPC: UNAVAILABLE is tried again, INVALID_ARGUMENT is not', async () => {
  const c = await grpcCollector([{ status: 14 }, { status: 0 }]);
  assert.equal((await run(otlp(c.endpoint, 'grpc'), 'span:1', 'flush:8000')).exported, 2);
  c.close();
  const bad = await grpcCollector([{ status: 3, message: 'what is this' }, { status: 0 }]);
  const said = await run(otlp(bad.endpoint, 'grpc'), 'span:1', 'flush:8000');
  bad.close();
  assert.equal(said.lostExport, 2);
});

test('gRPC: requests use one connection, and a new one when that was closed, losing nothing', async () => {
  const c = await grpcCollector();
  const child = start(otlp(c.endpoint, 'grpc'), ['span:1', 'flush:5000', 'span:1', 'flush:5000', 'span:1', 'flush:5000', 'read',
    'span:1', 'flush:5000', 'span:1', 'flush:5000']);
  child.stdout.resume();
  await child.waits();
  assert.deepEqual([c.requests.length, c.connections], [3, 1]);
  c.hangUp();
  child.goOn();
  const said = await child.said;
  assert.deepEqual([said.exported, said.lostExport, said.told], [10, 0, []]);
  assert.equal(c.connections, 2);
  assert.deepEqual(c.errors, [], 'no connection began as anything but HTTP/2');
  c.close();
});

test('a collector that comes late gets what waited for it', async () => {
  const port = await freePort();
  const child = start(otlp(`http://127.0.0.1:${port}`, 'http/protobuf'), ['span:1', 'flush:300', 'read', 'flush:8000']);
  child.stdout.resume();
  await child.waits();
  const server = createServer((request, response) => { request.resume().on('end', () => response.end()); });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  child.goOn();
  const said = await child.said;
  server.close();
  server.closeAllConnections();
  assert.deepEqual([said.exported, said.lostExport], [2, 0]);
});

test('an unreachable collector costs the batch after some tries: counted, told once, and the program goes on', async () => {
  const port = await freePort();
  const said = await run(otlp(`http://127.0.0.1:${port}`, 'http/protobuf', { OTEL_EXPORTER_OTLP_TIMEOUT: '300' }),
    'span:2', 'flush:5000', 'span:2', 'flush:5000');
  assert.deepEqual(said.told.length, 1);
  assert.match(said.told[0], /cannot send to http/);
  assert.equal(said.exported, 0);
  assert.ok(said.lostExport >= 8, 'all of them, and the reports of the loss');
  assert.ok(said.done[1].ms < 4000 && said.done[3].ms < 4000);
});

test('what does not fit into the queue is dropped, counted and told once', async () => {
  const c = await rawCollector(() => {});
  const said = await run(otlp(c.endpoint, 'http/protobuf', { QUEUE_BYTES: '60000', STOP_TIMEOUT_MS: '200' }),
    ...Array.from({ length: 12 }, () => ['span:200', 'flush:60']).flat(), 'stop');
  c.close();
  assert.ok(said.lostQueueFull > 0);
  assert.equal(said.told.filter((t) => /are dropped/.test(t)).length, 1);
  assert.equal(said.exported, 0);
  assert.ok(said.lostQueueFull + said.lostExport >= 12 * 400, 'each of the spans, and the reports of the loss');
});

// ---- collectors that hang ----

const STUCK = {
  'never answers': () => {},
  'answers a byte at a time': (socket) => {
    const timer = setInterval(() => socket.write('H'), 50);
    socket.on('close', () => clearInterval(timer));
  },
  'sends headers without end': (socket) => {
    socket.write('HTTP/1.1 200 OK\r\n');
    const timer = setInterval(() => socket.write('X-More: 0123456789\r\n'), 5);
    socket.on('close', () => clearInterval(timer));
  },
  'closes at once': (socket) => socket.destroy(),
  'speaks something else': (socket) => socket.write('220 mail.test ESMTP\r\n'),
};
for (const [what, handle] of Object.entries(STUCK)) {
  for (const env of [otlp('', 'http/protobuf'), otlp('', 'grpc'), { PUG_BACKEND: 'zipkin' }]) {
    const name = env.OTEL_EXPORTER_OTLP_PROTOCOL ?? 'zipkin';
    test(`a ${name} collector that ${what} does not keep the program from ending`, async () => {
      const c = await rawCollector(handle);
      const said = await run({ ...env, PUG_OTLP_ENDPOINT: c.endpoint, OTEL_EXPORTER_ZIPKIN_ENDPOINT: c.endpoint, STOP_TIMEOUT_MS: '300' },
        'span:2', 'flush:100', 'stop');
      c.close();
      assert.equal(said.exported, 0);
      assert.ok(said.lostExport >= 4, `${said.lostExport} lost`);
      assert.ok(said.done[2].ms < 3000, `pug_stop took ${said.done[2].ms} ms`);
    });
  }
}

test('an answer that is far too long is broken off, and what it says at its head counts', async () => {
  const c = await rawCollector((socket) => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n\r\n');
      const more = () => { while (socket.writable && socket.write(Buffer.alloc(65536))); };
      socket.on('drain', more);
      more();
    });
  });
  const said = await run(otlp(c.endpoint, 'http/protobuf'), 'span:1', 'flush:5000');
  c.close();
  assert.deepEqual([said.exported, said.lostExport], [2, 0]);
  assert.ok(said.done[1].ms < 4000);
});

// ---- standard output ----

const LINES = { PUG_BACKEND: 'stdout' };

test('lines on standard output are JSON, one span each', async () => {
  const child = start(LINES, ['span:2', 'flush:5000']);
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (more) => { text += more; });
  const said = await child.said;
  assert.deepEqual([said.exported, said.told], [4, []]);
  assert.ok(text.endsWith('\n'));
  const [head, ...spans] = text.trimEnd().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual([head.type, head.service, head.attributes['telemetry.sdk.name']], ['process', 'c-client', 'pugmark']);
  assert.equal(spans.length, 4);
  const last = spans.filter((s) => s.name === 'client.call').at(-1);
  const inner = spans.find((s) => s.parent_id === last.span_id);
  assert.deepEqual(Object.keys(last), ['type', 'time', 'service', 'name', 'kind', 'trace_id', 'span_id', 'start_unix_nano', 'duration_ns',
    'thread', 'status', 'status_message', 'attributes', 'events']);
  assert.deepEqual([last.type, last.kind, last.status, last.status_message], ['span', 'CLIENT', 'ERROR', 'it broke']);
  assert.deepEqual(last.attributes, { n: 1, 'peer.service': 'database', error: false });
  assert.deepEqual(last.events.map((e) => [e.name, e.attributes]), [['answered', { rows: 2 }], ['plain', undefined]]);
  assert.match(last.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/);
  assert.equal(BigInt(last.start_unix_nano) / 1_000_000_000n, BigInt(Date.parse(`${last.time.slice(0, 19)}Z`) / 1000));
  assert.equal(inner.trace_id, last.trace_id);
});

test('a reader of standard output that stops reading holds nobody up, and gets whole lines later', async () => {
  const child = start(LINES, ['span:1000', 'flush:2000', 'span:20', 'flush:2000', 'read', 'span:1', 'flush:5000', 'stop']);
  let text = '';
  await child.waits(); // and not a byte was read
  child.stdout.setEncoding('utf8').on('data', (more) => { text += more; });
  await until('what was in the pipe', () => (text.length > 0 ? true : undefined));
  child.goOn();
  const said = await child.said;
  assert.ok(said.lostQueueFull > 0, 'a pipe holds 64 KiB');
  assert.equal(said.told.filter((t) => /nobody reads/.test(t)).length, 1);
  const lines = text.trimEnd().split('\n').map((line) => JSON.parse(line)).filter((l) => l.type === 'span');
  assert.equal(lines.length, said.exported);
  assert.equal(lines.filter((l) => l.name === 'client.call').at(-1).status, 'ERROR', 'the last span is there');
});

test('a reader of standard output that goes away does not end the program', async () => {
  const child = start(LINES, ['span:1', 'flush:2000', 'read', 'span:2', 'flush:2000', 'span:2', 'flush:2000', 'stop']);
  child.stdout.resume();
  await child.waits();
  child.stdout.destroy();
  await once(child.stdout, 'close');
  child.goOn();
  const said = await child.said;
  assert.equal(said.exported, 2);
  assert.ok(said.lostExport >= 8);
  assert.equal(said.told.length, 1);
});

test('without a standard output tracing does not start, and says so', async () => {
  const { stderr } = await new Promise((resolve, reject) => {
    execFile('sh', ['-c', `exec "${CLIENT}" span:1 stop >&-`], { env: { ...ENVIRONMENT, ...LINES } },
      (error, stdout, text) => (error ? reject(error) : resolve({ stderr: text })));
  });
  const said = JSON.parse(stderr);
  assert.deepEqual([said.started, said.recorded], [-5, 0]);
  assert.match(said.told[0], /standard output is closed/);
});
