// "Where did my span go?": spans that are stored, cut, and refused, asked for by their trace; and numbers that add up.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';

import { PUGMARK, Server, otlpRequest, randomHex } from './lib.mjs';

const whole = randomHex(32);
const cut = randomHex(32);
const refused = randomHex(32);
const rejected = randomHex(32);
const text = (key, n) => ({ key, value: { stringValue: 'x'.repeat(n) } });
let server;

before(async () => {
  server = await Server.start({ env: { PUG_SERVER_SPANS_MAX: '4', PUG_SERVER_VALUE_BYTES_MAX: '1000', PUG_SERVER_ATTRS_MAX: '8' } });
  await server.send(otlpRequest('a', [{ traceId: whole }, { traceId: whole, attributes: [text('short', 900)] }]));
  await server.send(otlpRequest('a', [{ traceId: cut, attributes: [text('long', 2000)] }, { traceId: whole },
    { traceId: cut, attributes: Array.from({ length: 9 }, (_, i) => text(`k${i}`, 1)) }]));
  await assert.rejects(server.send(otlpRequest('a', [0, 1, 2, 3, 4].map((i) => ({ traceId: i < 3 ? refused : whole })))), /limit/);
  /* No id: counted, and in no entry. */
  await server.send(otlpRequest('a', [{ traceId: '0'.repeat(32) }, { traceId: whole }]));
});
after(() => server?.stop());

const ledger = (id) => server.get(`/api/pugmark/ledger?trace=${id}`);
const fates = (answer) => answer.fates.map(({ fate, spans }) => `${fate} ${spans}`);

describe('the ledger', () => {
  test('says what is stored of a trace, and nothing else when nothing happened', async () => {
    const answer = await ledger(randomHex(32));
    assert.equal(answer.stored, null);
    assert.deepEqual([answer.fates, answer.entries, answer.more, answer.partial], [[], [], false, false]);
    assert.equal(answer.horizon.entriesMax, 65536);
    assert.equal(answer.horizon.sinceUnixNano, null);
    assert.ok(answer.horizon.notNamed.length > 0);
  });

  test('tells values that were cut and attributes that were left out, of the spans they belong to', async () => {
    const answer = await ledger(cut);
    assert.equal(answer.stored.spanCount, 2);
    assert.deepEqual(fates(answer), ['cut 1', 'left-out 1']);
    assert.equal(answer.entries.length, 2);
    for (const { unixNano } of answer.entries) assert.ok(Math.abs(Number(BigInt(unixNano) / 1_000_000n) - Date.now()) < 120_000);
  });

  test('tells which limit refused spans that are nowhere, and those of a trace that is there', async () => {
    const gone = await ledger(refused);
    assert.equal(gone.stored, null);
    assert.deepEqual(gone.fates, [{ fate: 'refused', reason: 'more spans in one request than the limit', spans: '3' }]);
    const partly = await ledger(whole);
    assert.equal(partly.stored.spanCount, 4);
    assert.deepEqual(fates(partly), ['refused 2']);
  });

  test('names the traces of what no decoder could keep, whoever sent it', async () => {
    const now = Date.now() * 1000;
    const zipkin = await fetch(`${server.endpoints.zipkin}/api/v2/spans`, { method: 'POST', headers: { 'content-type': 'application/json' },
      body: JSON.stringify([{ traceId: rejected, id: '0'.repeat(16), name: 'x', timestamp: now, duration: 1 }]) });
    assert.equal(zipkin.status, 400, await zipkin.text());
    await server.send(otlpRequest('a', [{ traceId: rejected, spanId: '0'.repeat(16) }, { traceId: rejected, spanId: '12' }]));
    // Protobuf: the trace's id, and a span id of one byte.
    const field = (id, body) => Buffer.concat([Buffer.from([id << 3 | 2, body.length]), body]);
    const span = Buffer.concat([field(1, Buffer.from(rejected, 'hex')), field(2, Buffer.from([1])), field(5, Buffer.from('a name'))]);
    const proto = await fetch(`${server.endpoints.otlp_http}/v1/traces`, { method: 'POST', headers: { 'content-type': 'application/x-protobuf' },
      body: field(1, field(2, field(2, span))) });
    assert.equal(proto.status, 200);
    const answer = await ledger(rejected);
    assert.equal(answer.stored, null);
    assert.deepEqual(answer.fates.map(({ fate, spans }) => [fate, spans]), [['refused', '4']]);
    assert.match(answer.fates[0].reason, /cannot be kept/);
    assert.equal(answer.entries.length, 3);
  });

  test('adds up', async () => {
    const { totals, store } = await ledger(whole);
    const refusals = totals.refused.reduce((n, { count }) => n + Number(count), 0);
    assert.deepEqual([totals.received, totals.stored, refusals, totals.onTheirWay, totals.requestsRefused, store.spans], ['16', '6', 10, '0', '1', '6']);
  });

  test('is printed by pugmark trace --ledger', () => {
    const run = (...args) => spawnSync(PUGMARK, ['trace', ...args, '--server', server.endpoints.page], { encoding: 'utf8', timeout: 20_000 });
    const shown = run(refused, '--ledger');
    assert.equal(shown.status, 0, shown.stderr);
    assert.match(shown.stdout, new RegExp(`^trace ${refused}$`, 'm'));
    assert.match(shown.stdout, /^ +0 {2}stored now$/m);
    assert.match(shown.stdout, /^ +3 {2}refused: more spans in one request than the limit$/m);
    assert.match(shown.stdout, /^ +16 {2}received$/m);
    assert.match(shown.stdout, /^ +1 {2}requests refused as a whole$/m);
    assert.doesNotMatch(shown.stdout, /datagrams/);
    assert.equal(JSON.parse(run(cut, '--ledger', '--json').stdout).traceId, cut);
    assert.equal(run('xyz', '--ledger').status, 2);
    assert.equal(run(cut, '--ledger', '--all').status, 2);
  });
});
