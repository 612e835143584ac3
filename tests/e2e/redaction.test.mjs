// Rules of redaction: what each receiver takes is looked for in the bytes of the data directory. A second value that no
// rule is about is found there each time, so that looking proves something.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import dgram from 'node:dgram';
import { appendFile, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import http2 from 'node:http2';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { otlpRequest, PUGMARK, randomHex, Server, until } from './lib.mjs';

const KEY = 'user.password';
const CARD = '4111 1111 1111 1111';
let scratch, server, followed;

before(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-redaction-'));
  followed = path.join(scratch, 'orders.json');
  await writeFile(followed, '');
  const config = path.join(scratch, 'pugmark.toml');
  await writeFile(config, `[server]
redact_keys = ["default"]
[[server.redaction_rules]]
name = "cards"
patterns = ["credit_card"]
[[server.redaction_rules]]
name = "customers"
keys = ["customer.*", "customer"]
action = "hash"
[[server.redaction_rules]]
name = "private"
keys = ["private*"]
action = "drop"
`);
  server = await Server.start({ args: ['--config', config, '--follow', followed] });
});
after(async () => {
  await server?.stop();
  await rm(scratch, { recursive: true, force: true });
});

/** All bytes of all files of the store. */
async function everything(dir = server.data) {
  const parts = [];
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    const name = path.join(dir, entry.name);
    if (entry.isDirectory()) parts.push(await everything(name));
    else parts.push(await readFile(name).catch(() => Buffer.alloc(0))); // a file may go meanwhile
  }
  return Buffer.concat(parts);
}

/** The values that one sender sends: three that must not be on disk, and one that must. */
const values = (who) => ({ secret: `hunter2-${who}`, customer: `ann-${who}`, dropped: `diary-${who}`, open: `open-${who}` });

/** Waits until what `who` sent is on disk, and looks for what must not be there. */
async function check(who) {
  const v = values(who);
  const bytes = await until(`what ${who} sent to be on disk`, async () => {
    const all = await everything();
    return all.includes(v.open) ? all : undefined;
  });
  for (const value of [v.secret, v.customer, v.dropped, CARD]) assert.equal(bytes.includes(value), false, `${who}: ${value} is on disk`);
}

const text = (key, value) => ({ key, value: { stringValue: value } });
const attributes = (who) => {
  const v = values(who);
  return [text(KEY, v.secret), text('customer', v.customer), text('private.note', v.dropped), text('note', `${v.open} paid with ${CARD}`)];
};
const everywhere = (who) => {
  const request = otlpRequest('shop', [{ attributes: attributes(who), name: `pay ${CARD}`, status: { code: 2, message: `no ${CARD}` },
    events: [{ timeUnixNano: '1', name: `event ${CARD}`, attributes: attributes(who) }],
    links: [{ traceId: randomHex(32), spanId: randomHex(16), attributes: attributes(who) }] }]);
  request.resourceSpans[0].resource.attributes.push(...attributes(who));
  request.resourceSpans[0].scopeSpans[0].scope.attributes = attributes(who);
  return request;
};

// ---- protobuf, as much as is needed ----

const varint = (n) => { const out = []; for (let v = BigInt(n); ; v >>= 7n) { if (v < 128n) return Buffer.from([...out, Number(v)]); out.push(Number(v & 127n) | 128); } };
const field = (id, body) => { const b = Buffer.from(body); return Buffer.concat([varint(id << 3 | 2), varint(b.length), b]); };
const fixed64 = (id, n) => { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(n)); return Buffer.concat([varint(id << 3 | 1), b]); };
const keyValue = ({ key, value }) => Buffer.concat([field(1, key), field(2, field(1, value.stringValue))]);
const now = () => BigInt(Date.now()) * 1_000_000n;
/** One span that is kept, one without an id that is not: neither may leave its secret behind. */
function protobufBody(who) {
  const span = (id) => Buffer.concat([field(1, Buffer.from(randomHex(32), 'hex')), field(2, id), field(5, 'pay'), fixed64(7, now()), fixed64(8, now()),
    ...attributes(who).map((a) => field(9, keyValue(a)))]);
  const unknown = field(99, `${values(who).secret} in a field of a later version`);
  const scope = Buffer.concat([field(2, Buffer.concat([span(Buffer.from(randomHex(16), 'hex')), unknown])), field(2, span(Buffer.alloc(8)))]);
  const resource = field(1, keyValue(text('service.name', 'shop')));
  return field(1, Buffer.concat([field(1, resource), field(2, scope)]));
}

async function grpc(body) {
  const client = http2.connect(server.endpoints.otlp_grpc);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  const stream = client.request({ ':method': 'POST', ':path': '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
    'content-type': 'application/grpc', te: 'trailers' });
  const status = await new Promise((resolve, reject) => {
    stream.on('trailers', (h) => resolve(h['grpc-status'])).on('error', reject).resume();
    stream.end(Buffer.concat([head, body]));
  });
  client.close();
  assert.equal(String(status), '0');
}

// ---- thrift ----

/** TBinaryProtocol. */
class Thrift {
  out = [];
  i8(n) { this.out.push(n & 255); return this; }
  i16(n) { return this.i8(n >> 8).i8(n); }
  i32(n) { return this.i16(n >> 16).i16(n); }
  i64(n) { const b = Buffer.alloc(8); b.writeBigInt64BE(BigInt.asIntN(64, BigInt(n))); this.out.push(...b); return this; }
  bytes(s) { const b = Buffer.from(s); this.i32(b.length).out.push(...b); return this; }
  field(type, id) { return this.i8(type).i16(id); }
  text(id, s) { return this.field(11, id).bytes(s); }
  long(id, n) { return this.field(10, id).i64(n); }
}
const us = () => BigInt(Date.now()) * 1000n;
function jaegerBatch(who, t = new Thrift()) {
  t.field(12, 1).text(1, 'shop').i8(0);
  t.field(15, 2).i8(12).i32(1);
  t.long(1, 7).long(2, 0).long(3, `0x${randomHex(15)}`).long(4, 0).text(5, 'pay').field(8, 7).i32(1).long(8, us()).long(9, 5);
  t.field(15, 10).i8(12).i32(attributes(who).length);
  for (const { key, value } of attributes(who)) t.text(1, key).field(8, 2).i32(0).text(3, value.stringValue).i8(0);
  return t.i8(0).i8(0);
}
function zipkinThrift(who) {
  const t = new Thrift();
  t.i8(12).i32(1).long(1, 9).text(3, 'pay').long(4, 10);
  t.field(15, 8).i8(12).i32(attributes(who).length);
  for (const { key, value } of attributes(who)) t.text(1, key).text(2, value.stringValue).field(8, 3).i32(6).i8(0);
  return Buffer.from(t.long(10, us()).long(11, 5).i8(0).out);
}
/** emitBatch in TCompactProtocol. */
function jaegerCompact(who) {
  const string = (s) => Buffer.concat([varint(Buffer.byteLength(s)), Buffer.from(s)]);
  const zigzag = (n) => varint(BigInt(n) * 2n);
  const tags = attributes(who).map(({ key, value }) => Buffer.concat([Buffer.from([0x18]), string(key), Buffer.from([0x15, 0, 0x18]), string(value.stringValue), Buffer.from([0])]));
  return Buffer.concat([Buffer.from([0x82, 0x81, 1]), string('emitBatch'), Buffer.from([0x1c, 0x1c, 0x18]), string('shop'), Buffer.from([0, 0x19, 0x1c]),
    Buffer.from([0x16]), zigzag(3), Buffer.from([0x16]), zigzag(0), Buffer.from([0x16]), zigzag(5), Buffer.from([0x16]), zigzag(0),
    Buffer.from([0x18]), string('pay'), Buffer.from([0x25, 2, 0x16]), zigzag(us()), Buffer.from([0x16]), zigzag(5),
    Buffer.from([0x19, tags.length << 4 | 0x0c]), ...tags, Buffer.from([0, 0, 0])]);
}

async function post(name, pathname, type, body) {
  const answer = await fetch(server.endpoints[name] + pathname, { method: 'POST', headers: { 'content-type': type }, body });
  assert.ok(answer.status === 200 || answer.status === 202, `${pathname}: ${answer.status} ${await answer.text()}`);
}
async function datagram(name, bytes) {
  const socket = dgram.createSocket('udp4');
  await new Promise((resolve) => socket.send(bytes, Number(new URL(server.endpoints[name].replace('udp:', 'http:')).port), '127.0.0.1', resolve));
  socket.close();
}
const tags = (who) => Object.fromEntries(attributes(who).map(({ key, value }) => [key, value.stringValue]));
const json = 'application/json';
const resource = (who) => ({ attributes: [text('service.name', 'shop'), ...attributes(who)] });

const senders = {
  'OTLP over HTTP, JSON': (who) => post('otlp_http', '/v1/traces', json, JSON.stringify(everywhere(who))),
  'OTLP over HTTP, protobuf': (who) => post('otlp_http', '/v1/traces', 'application/x-protobuf', protobufBody(who)),
  'OTLP over gRPC': (who) => grpc(protobufBody(who)),
  'Zipkin 2': (who) => post('zipkin', '/api/v2/spans', json, JSON.stringify([{ traceId: randomHex(32), id: randomHex(16), name: 'pay', timestamp: Number(us()),
    duration: 5, localEndpoint: { serviceName: 'shop' }, annotations: [{ timestamp: 5, value: `card ${CARD}` }], tags: tags(who) }])),
  'Zipkin 1': (who) => post('zipkin', '/api/v1/spans', json, JSON.stringify([{ traceId: randomHex(32), id: randomHex(16), name: 'pay', timestamp: Number(us()),
    duration: 5, binaryAnnotations: Object.entries(tags(who)).map(([key, value]) => ({ key, value, endpoint: { serviceName: 'shop' } })) }])),
  'Zipkin 1, thrift': (who) => post('zipkin', '/api/v1/spans', 'application/x-thrift', zipkinThrift(who)),
  'Jaeger over HTTP': (who) => post('jaeger_http', '/api/traces', 'application/x-thrift', Buffer.from(jaegerBatch(who).out)),
  'Jaeger binary over UDP': (who) => datagram('jaeger_binary', Buffer.from(jaegerBatch(who, new Thrift().i32(0x80010004 | 0).bytes('emitBatch').i32(1).field(12, 1)).i8(0).out)),
  'Jaeger compact over UDP': (who) => datagram('jaeger_compact', jaegerCompact(who)),
  'X-Ray': (who) => datagram('xray', `{"format":"json","version":1}\n${JSON.stringify({ name: 'shop', id: randomHex(16), start_time: Date.now() / 1000,
    trace_id: `1-${randomHex(8)}-${randomHex(24)}`, end_time: Date.now() / 1000, annotations: tags(who), http: { request: { url: `http://shop/?card=${CARD}` } } })}`),
  'a followed file': (who) => appendFile(followed, `${JSON.stringify({ ...tags(who), name: 'pay', _trace: { traceparent: `00-${randomHex(32)}-${randomHex(16)}-01` } })}\n`),
  'a log of a followed file': (who) => appendFile(followed, `${JSON.stringify({ ...tags(who), message: `paid ${CARD}`, otel_trace_id: randomHex(32) })}\n`),
  'OTLP logs': (who) => post('otlp_http', '/v1/logs', json, JSON.stringify({ resourceLogs: [{ resource: resource(who), scopeLogs: [{ scope: { name: 's' },
    logRecords: [{ timeUnixNano: String(now()), body: { stringValue: `paid with ${CARD}` }, attributes: attributes(who) }] }] }] })),
  'OTLP metrics': (who) => post('otlp_http', '/v1/metrics', json, JSON.stringify({ resourceMetrics: [{ resource: resource(who), scopeMetrics: [{ scope: { name: 's' },
    metrics: [{ name: 'm', gauge: { dataPoints: [{ timeUnixNano: String(now()), asDouble: 1, attributes: attributes(who) }] } }] }] }] })),
};

describe('rules of redaction', () => {
  for (const [name, send] of Object.entries(senders)) {
    test(`nothing that they are about reaches the disk: ${name}`, async () => {
      const who = name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
      await send(who);
      await check(who);
    });
  }

  test('the values are masked, hashed and gone in what is answered, and equal ones stay equal', async () => {
    const traceId = randomHex(32);
    const same = (key, value) => ({ traceId, attributes: [text(key, value), text(KEY, 'x'), text('private.x', 'x')] });
    await server.send(otlpRequest('shop', [same('customer.id', 'ann'), same('customer.id', 'ann'), same('customer.id', 'bob')]));
    const { spans } = await server.get(`/api/pugmark/traces/${traceId}`);
    const plain = spans.map((s) => Object.fromEntries(s.attributes.map(({ key, value }) => [key, value.stringValue])));
    for (const a of plain) {
      assert.deepEqual(Object.keys(a).sort(), ['customer.id', KEY].sort());
      assert.equal(a[KEY], '[redacted]');
      assert.match(a['customer.id'], /^hmac-sha256:[0-9a-f]{32}$/);
    }
    assert.equal(new Set(plain.map((a) => a['customer.id'])).size, 2);
    const hash = plain.map((a) => a['customer.id']).sort((a, b) => plain.filter((p) => p['customer.id'] === b).length - plain.filter((p) => p['customer.id'] === a).length)[0];
    const { traces } = await server.get(`/api/pugmark/search?q=${encodeURIComponent(`{ span.customer.id = "${hash}" }`)}`);
    assert.equal(traces.length, 1);
    const ledger = await server.get(`/api/pugmark/ledger?trace=${traceId}`);
    assert.deepEqual(ledger.fates.map(({ fate, spans: n }) => [fate, n]), [['redacted', '3']]);
  });

  test('what they did is counted by rule', async () => {
    const { totals } = await server.get(`/api/pugmark/ledger?trace=${randomHex(32)}`);
    assert.deepEqual(totals.redacted.map(({ rule, action }) => [rule, action]), [['cards', 'mask'], ['customers', 'hash'], ['private', 'drop'], ['server', 'mask']]);
    for (const { rule, values: n } of totals.redacted) assert.ok(Number(n) >= Object.keys(senders).length, `${rule}: ${n}`);
    const metrics = await (await fetch(`${server.endpoints.page}/metrics`)).text();
    assert.match(metrics, /^pugmark_ingest_redacted_values_total\{rule="customers",action="hash"\} [1-9]/m);
  });

  test('the key of the hashes is nobody else\'s to read, and outlives the server', async () => {
    const info = await stat(path.join(server.data, 'redaction.key'));
    assert.equal(info.mode & 0o777, 0o600);
    assert.equal(info.size, 32);
  });

  test('a restart seals them as they are', async () => {
    const data = path.join(scratch, 'data');
    const args = ['--redact-keys', 'user.*', '--redact-action', 'hash'];
    const hashes = [];
    for (let i = 0; i < 2; i++) {
      const own = await Server.start({ data, args });
      const traceId = randomHex(32);
      await own.send(otlpRequest('shop', [{ traceId, attributes: [text(KEY, 'hunter2'), text('note', 'open')] }]));
      const { spans } = await own.get(`/api/pugmark/traces/${traceId}`);
      hashes.push(spans[0].attributes.find((a) => a.key === KEY).value.stringValue);
      await own.stop();
      assert.equal((await everything(data)).includes('hunter2'), false);
    }
    assert.match(hashes[0], /^hmac-sha256:/);
    assert.equal(hashes[0], hashes[1]);
  });

  test('SIGHUP reads them again; what is wrong is said and changes nothing', async () => {
    const config = path.join(scratch, 'reload.toml');
    await writeFile(config, '[server]\nredact_keys = ["a.*"]\n');
    const own = await Server.start({ args: ['--config', config] });
    const send = async () => {
      const traceId = randomHex(32);
      await own.send(otlpRequest('shop', [{ traceId, attributes: [text('a.x', 'A'), text('b.x', 'B')] }]));
      const { spans } = await own.get(`/api/pugmark/traces/${traceId}`);
      return spans[0].attributes.map((a) => a.value.stringValue).join(' ');
    };
    const reload = async (toml, said) => {
      await writeFile(config, toml);
      own.stderr = '';
      own.process.kill('SIGHUP');
      await until(`"${said}"`, () => own.stderr.includes(said) || undefined);
    };
    assert.equal(await send(), '[redacted] B');
    await reload('[server]\nredact_patterns = ["("]\n', 'the old one stays');
    assert.equal(await send(), '[redacted] B');
    await reload('[[server.redaction_rules]]\nkeys = ["b.*"]\naction = "drop"\n', 'configuration read from');
    assert.equal(await send(), 'A');
    await reload('', 'configuration read from');
    assert.equal(await send(), 'A B');
    await own.stop();
  });

  test('pugmark config shows them, and says what is wrong with its place', async () => {
    const config = path.join(scratch, 'check.toml');
    const run = (verb, toml) => writeFile(config, toml).then(() => spawnSync(PUGMARK, ['config', verb, config], { encoding: 'utf8', timeout: 20_000 }));
    const shown = await run('show', '[[server.redaction_rules]]\nname = "cards"\npatterns = ["credit_card"]\naction = "drop"\n');
    assert.equal(shown.status, 0, shown.stderr);
    assert.match(shown.stdout, /\[\[server\.redaction_rules\]\]\nname = "cards".*\nkeys = \[\]\npatterns = \["credit_card"\]\naction = "drop"/);
    for (const [toml, said] of [
      ['[[server.redaction_rules]]\nkeys = ["a"]\naction = "burn"\n', /:3:\d+: action: expected "mask", "hash" or "drop"/],
      ['[[server.redaction_rules]]\naction = "drop"\n', /:1:\d+: .*expected keys = /],
      ['[[server.redaction_rules]]\npatterns = ["credit_crad"]\n', /"credit_crad" is not known/],
      ['[[server.redaction_rules]]\nkeys = "a"\n', /keys: expected a list of strings/],
      ['[[server.redaction_rules]]\nkey = ["a"]\n', /"key" is not known .*expected name, keys, patterns, action/],
      ['[[server.redaction_rules]]\nname = "x"\nkeys = ["a"]\n[[server.redaction_rules]]\nname = "x"\nkeys = ["b"]\n', /two rules of redaction are named "x"/],
      ['[server]\nredact_patterns = ["("]\n', /:2:\d*:? ?.*redact_patterns/],
    ]) {
      const { status, stderr } = await run('check', toml);
      assert.equal(status, 1, toml);
      assert.match(stderr, said);
    }
  });

  test('a key that cannot be read keeps the server from starting', async () => {
    const key = path.join(scratch, 'short.key');
    await writeFile(key, 'short');
    for (const file of [key, path.join(scratch, 'none')]) {
      const { status, stderr } = spawnSync(PUGMARK, ['serve', '--ports', 'auto', '--data', path.join(scratch, 'never'), '--redact-keys', 'a', '--redact-action', 'hash'],
        { encoding: 'utf8', timeout: 20_000, env: { ...process.env, PUG_SERVER_REDACT_KEY_FILE: file } });
      assert.equal(status, 1);
      assert.match(stderr, /the key of redaction/);
    }
  });
});
