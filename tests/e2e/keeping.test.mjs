// What a server keeps and lets go: its configuration, rules of retention, deletion, redaction, and files
// of spans that go out and come in.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { PUGMARK, Server, otlpRequest, until } from './lib.mjs';

let scratch;
before(async () => { scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-keeping-')); });
after(async () => { await rm(scratch, { recursive: true, force: true }); });

/** A server that a failing test does not leave behind. */
async function start(t, options) {
  const server = await Server.start(options);
  t.after(async () => {
    if (server.process.exitCode === null && server.process.signalCode === null) await server.kill();
  });
  return server;
}
const run = (args, options = {}) => spawnSync(PUGMARK, args, { encoding: 'utf8', timeout: 20_000, ...options });
let files = 0;
async function config(text) {
  const name = path.join(scratch, `${++files}.toml`);
  await writeFile(name, text);
  return name;
}
const HOUR = 3600_000_000_000n;
const ago = (ns) => String(BigInt(Date.now()) * 1_000_000n - ns);
const span = (ns, more) => ({ startTimeUnixNano: ago(ns), endTimeUnixNano: ago(ns), ...more });
const count = async (server, q) => (await server.get(`/api/pugmark/search?start=0&limit=1000&q=${encodeURIComponent(q)}`)).traces
  .reduce((n, trace) => n + trace.matched, 0);

describe('the configuration of the server', () => {
  test('is read from the file, under environment and command line', async (t) => {
    const file = await config('[server]\nreceivers = ["otlp_http", "zipkin"]\nspans_max = 2\ndata = "/nowhere"\nlisten = "127.0.0.3"\n');
    const server = await start(t, { args: ['--config', file], env: { PUG_SERVER_LISTEN: '127.0.0.2' } });
    for (const name of ['otlp_http', 'zipkin', 'page']) assert.ok(server.endpoints[name], name);
    for (const name of ['otlp_grpc', 'jaeger_http', 'jaeger_compact', 'jaeger_binary', 'xray']) assert.equal(server.endpoints[name], undefined, name);
    assert.match(server.endpoints.page, /127\.0\.0\.2/);
    await server.send(otlpRequest('a', [{}, {}]));
    await assert.rejects(server.send(otlpRequest('a', [{}, {}, {}])), /limit/);
    await server.stop();
  });

  test('that is wrong keeps the server from starting, with all that is wrong', async () => {
    const file = await config('[server]\nlisten = 1\nretention = "soon"\ncolour = 2\nport = 3\n\n[[server.retention_rules]]\nmatch = "{ .a = }"\nkeep = "1h"\n\n'
      + '[[server.retention_rules]]\nmatch = "{} >> {}"\nkeep = 3\n\n[[server.retention_rules]]\nkeep = "1h"\n');
    const served = run(['serve', '--config', file, '--ports', 'auto', '--data', path.join(scratch, 'wrong')]);
    const checked = run(['config', 'check', file]);
    for (const said of [served, checked]) {
      assert.equal(said.status, 1);
      for (const place of ['2:10: listen: expected a string', '3:13: ', '4:1: "colour" is not known in [server]', '5:1: "port"', '8:9: match: ', '12:9: match: this needs whole traces',
        '13:8: keep: expected a string', '15:10: ']) assert.ok(said.stderr.includes(`${file}:${place}`), `${place} in ${said.stderr}`);
    }
    assert.match(checked.stderr, /8 errors/);
    for (const text of ['server = 5\n', '[[server]]\nretention = "7d"\n']) {
      const no = await config(text);
      for (const said of [run(['serve', '--config', no, '--ports', 'auto', '--data', path.join(scratch, 'wrong')]), run(['config', 'check', no])]) {
        assert.equal(said.status, 1);
        assert.match(said.stderr, /server: expected a table \[server\], not an? /);
      }
    }
  });

  test('is shown, and what is shown is a configuration', async () => {
    const file = await config('[server]\nretention = "7d"\nmemtable_bytes = "1M"\n[server.port]\npage = 0\n[[server.retention_rules]]\nmatch = "{ .a = \\"b\\" }"\nkeep = "forever"\n');
    const shown = run(['config', 'show', file]);
    assert.equal(shown.status, 0, shown.stderr);
    assert.match(shown.stdout, /^retention = "7d" +# .*:2$/m);
    assert.match(shown.stdout, /^memtable_bytes = 1048576 +# .*:3$/m);
    const again = await config(shown.stdout);
    assert.equal(run(['config', 'check', again]).status, 0, run(['config', 'check', again]).stderr);
    const json = (name) => JSON.parse(run(['config', 'show', name, '--json']).stdout);
    assert.deepEqual(json(again).settings.map((s) => s.value), json(file).settings.map((s) => s.value));
    assert.deepEqual(json(again).retentionRules, [{ match: '{ .a = "b" }', keep: 'forever' }]);
  });
});

describe('rules of retention', () => {
  test('keep spans by a filter, are counted, and change with SIGHUP', async (t) => {
    const file = await config('[server]\nretention = "24h"\n[[server.retention_rules]]\nmatch = "{ status = error }"\nkeep = "48h"\n');
    const data = path.join(scratch, 'rules');
    const args = ['--config', file];
    let server = await start(t, { data, args });
    await server.send(otlpRequest('a', [span(30n * HOUR), span(30n * HOUR, { status: { code: 2 } }), span(60n * HOUR, { status: { code: 2 } })]));
    await server.stop(); // seals
    server = await start(t, { data, args });
    const state = await until('the rules to be applied', async () => {
      const answer = await server.get('/api/pugmark/retention');
      return answer.spansDropped.age === '2' ? answer : undefined;
    });
    assert.deepEqual(state.rules, [{ match: '{ status = error }', keepNano: String(48n * HOUR), spansDropped: '1' }, { match: null, keepNano: String(24n * HOUR), spansDropped: '1' }]);
    assert.equal(await count(server, '{}'), 1);
    assert.equal(await count(server, '{ status = error }'), 1);
    const metrics = await (await fetch(`${server.endpoints.page}/metrics`)).text();
    assert.match(metrics, /^pugmark_store_rule_dropped_spans_total\{rule="\{ status = error \}"\} 1$/m);

    await writeFile(file, '[server]\nretention = "x"\n');
    server.process.kill('SIGHUP');
    await until('the refusal', () => (server.stderr.includes('the old one stays') ? true : undefined));
    assert.equal((await server.get('/api/pugmark/retention')).rules.length, 2);

    await writeFile(file, '[server]\nretention = "25h"\nspans_max = 7\n');
    server.process.kill('SIGHUP');
    await until('the new rules', async () => ((await server.get('/api/pugmark/retention')).rules.length === 1 ? true : undefined));
    await until('the span to go', async () => (await count(server, '{}') === 0 ? true : undefined));
    await until('words for the rest', () => (/spans_max = 7 takes a restart/.test(server.stderr) ? true : undefined));
    await server.stop();
  });
});

/** Names of the files of a store in which some bytes stand as they are. */
async function filesWith(data, text) {
  const names = [];
  for (const entry of await readdir(data, { withFileTypes: true })) {
    if (entry.isDirectory()) names.push(...await filesWith(path.join(data, entry.name), text));
    else if ((await readFile(path.join(data, entry.name))).includes(text)) names.push(entry.name);
  }
  return names;
}
const text = (key, value) => ({ key, value: { stringValue: value } });
const ask = async (server, method, pathname, headers = {}) => {
  const response = await fetch(server.endpoints.page + pathname, { method, headers });
  return { status: response.status, body: JSON.parse(await response.text()) };
};
const q = (query) => `q=${encodeURIComponent(query)}`;

describe('erasing', () => {
  test('a dry run counts, a confirmed deletion is for good, also across kill -9', async (t) => {
    const data = path.join(scratch, 'erase');
    let server = await start(t, { data });
    const one = '1'.repeat(32);
    await server.send(otlpRequest('shop', [
      { traceId: one, spanId: '1'.repeat(16), attributes: [text('user', 'ann-4711')] },
      { traceId: one, spanId: '2'.repeat(16), parentSpanId: '1'.repeat(16), name: 'child' },
      { attributes: [text('user', 'bob')] }]));
    assert.deepEqual(await filesWith(data, 'ann-4711').then((names) => names.length), 1);
    const dry = await ask(server, 'DELETE', `/api/pugmark/spans?${q('{ .user = "ann-4711" }')}`);
    assert.deepEqual(dry, { status: 200, body: { dryRun: true, spans: '1', traces: '1', partial: false } });
    assert.equal(await count(server, '{}'), 3);
    const done = await ask(server, 'DELETE', `/api/pugmark/spans?${q('{ .user = "ann-4711" }')}&confirm=true`);
    assert.equal(done.status, 200);
    assert.equal(done.body.spans, '1');
    assert.equal(await count(server, '{}'), 2);
    assert.deepEqual(await filesWith(data, 'ann-4711'), []);
    await server.kill();
    server = await start(t, { data });
    assert.equal(await count(server, '{}'), 2);
    // What needs whole traces: all of the trace that the child is in.
    const whole = await ask(server, 'DELETE', `/api/pugmark/spans?${q(`{ trace:id = "${one}" }`)}&confirm=true`);
    assert.equal(whole.body.spans, '1');
    assert.equal((await fetch(`${server.endpoints.page}/api/pugmark/traces/${one}`)).status, 404);
    assert.equal((await server.get('/api/pugmark/retention')).spansDropped.deleted, '2');
    await server.stop();
  });

  test('redaction takes values out and leaves the rest', async (t) => {
    const data = path.join(scratch, 'redact');
    const server = await start(t, { data });
    const id = '3'.repeat(32);
    await server.send(otlpRequest('shop', [{ traceId: id, name: 'mail to ann@example.org', attributes: [text('card.number', '4111-secret'), text('path', '/pay')] }]));
    assert.equal((await ask(server, 'POST', `/api/pugmark/spans/redact?${q('{}')}&confirm=true`)).status, 400);
    for (const wrong of ['key=card.*&q=', 'key=card.*&end=', 'key=card.*&end=0', 'key=card.*&start=', 'pattern=(', `key=${'a'.repeat(200)}`])
      for (const confirm of ['', '&confirm=true'])
        assert.equal((await ask(server, 'POST', `/api/pugmark/spans/redact?${wrong}${confirm}`)).status, 400, wrong + confirm);
    assert.equal((await ask(server, 'DELETE', `/api/pugmark/spans?${q('{}')}&end=0&confirm=true`)).status, 400);
    const dry = await ask(server, 'POST', '/api/pugmark/spans/redact?key=card.*');
    assert.deepEqual(dry.body, { dryRun: true, spans: '1', traces: '1', partial: false });
    const done = await ask(server, 'POST', '/api/pugmark/spans/redact?key=card.*&pattern=email&confirm=true');
    assert.equal(done.body.spans, '1', JSON.stringify(done));
    const [span] = (await server.get(`/api/pugmark/traces/${id}`)).spans;
    assert.equal(span.name, 'mail to [redacted]');
    assert.deepEqual(span.attributes, [text('card.number', '[redacted]'), text('path', '/pay')]);
    for (const secret of ['4111-secret', 'ann@example.org']) assert.deepEqual(await filesWith(data, secret), []);
    assert.match(await (await fetch(`${server.endpoints.page}/metrics`)).text(), /^pugmark_store_redacted_spans_total 1$/m);
    await server.stop();
  });

  test('is refused to pages of other origins, and from everywhere when others can reach the server', async (t) => {
    const server = await start(t);
    await server.send(otlpRequest('a', [{}]));
    const all = `/api/pugmark/spans?${q('{}')}&confirm=true`;
    assert.equal((await ask(server, 'DELETE', all, { origin: 'http://evil.example' })).status, 403);
    assert.equal((await ask(server, 'DELETE', all, { origin: 'null' })).status, 403);
    assert.equal((await ask(server, 'DELETE', '/api/pugmark/spans?confirm=true')).status, 400);
    const wrong = await ask(server, 'DELETE', `/api/pugmark/spans?${q('{ .a = }')}&confirm=true`);
    assert.deepEqual([wrong.status, wrong.body.error.parameter, wrong.body.error.position], [400, 'q', 7]);
    assert.equal((await fetch(`${server.endpoints.page}/api/pugmark/spans`)).status, 405);
    assert.equal(await count(server, '{}'), 1);
    assert.equal((await ask(server, 'DELETE', all, { origin: server.endpoints.page })).status, 200);
    assert.equal(await count(server, '{}'), 0);
    await server.stop();
    const open = await start(t, { args: ['--listen', '0.0.0.0'] });
    assert.equal((await ask(open, 'DELETE', all)).status, 403);
    await open.stop();
  });

  test('works on a store that no server has open', async (t) => {
    const data = path.join(scratch, 'offline');
    const server = await start(t, { data });
    await server.send(otlpRequest('shop', [{ name: 'a' }, { name: 'b', attributes: [text('token', 'hunter2')] }]));
    const busy = run(['store', 'delete', data, '{}', '--confirm']);
    assert.equal(busy.status, 1);
    assert.match(busy.stderr, /a server has it open/);
    await server.stop();
    const dry = run(['store', 'delete', data, '{ name = "a" }']);
    assert.deepEqual([dry.status, dry.stdout], [0, '1 spans of 1 traces; --confirm deletes them\n']);
    const json = JSON.parse(run(['store', 'redact', data, '--keys', 'tok*', '--confirm', '--json']).stdout);
    assert.deepEqual(json, { dryRun: false, spans: 1, traces: 2, partial: false });
    assert.match(run(['store', 'delete', data, '{ name = "a" }', '--confirm']).stdout, /^deleted 1 spans; 1 segments/);
    assert.deepEqual(JSON.parse(run(['store', 'stats', data, '--json']).stdout).spans, 1);
    assert.deepEqual(await filesWith(data, 'hunter2'), []);
    for (const [args, words] of [[['delete', data], 'which spans'], [['redact', data, '{}'], 'what to take out'], [['pins', data, '--confirm'], 'are for delete and redact']]) {
      const said = run(['store', ...args]);
      assert.equal(said.status, 2);
      assert.ok(said.stderr.includes(words), said.stderr);
    }
    assert.match(run(['store', 'delete', data, '{ .a = }']).stderr, /expected an attribute/);
  });
});

const CORPUS = fileURLToPath(new URL('../../fuzz/corpus/span_file/', import.meta.url));
/** All spans of a server, by id, as its API tells them. */
async function everything(server) {
  const { traces } = await server.get('/api/pugmark/search?start=0&limit=1000');
  const spans = new Map();
  for (const { traceId } of traces) {
    const trace = await server.get(`/api/pugmark/traces/${traceId}`);
    for (const s of trace.spans) spans.set(`${traceId} ${s.spanId}`, { ...s, resource: trace.resources[s.resource], scope: trace.scopes[s.scope] });
  }
  return new Map([...spans].sort(([a], [b]) => (a < b ? -1 : 1)));
}

describe('files of spans', () => {
  test('what a server exports another imports, span for span', async (t) => {
    const from = await start(t, { args: ['--memtable-bytes', '200K'] });
    const made = path.join(scratch, 'load.pb');
    assert.equal(run(['load', '--traces', '60', '--spans-per-trace', '12', '--seed', '7', '--out', made]).status, 0);
    const imported = run(['import', made, '--server', from.endpoints.page]);
    assert.equal(imported.status, 0, imported.stderr);
    assert.match(imported.stderr, /720 spans from OTLP protobuf/);
    const file = path.join(scratch, 'all.pb');
    const exported = run(['export', file, '--server', from.endpoints.page]);
    assert.equal(exported.status, 0, exported.stderr);
    assert.match(exported.stderr, /720 spans/);
    assert.match(run(['export', file, '--server', from.endpoints.page]).stderr, /is there already/);
    const to = await start(t);
    assert.equal(run(['import', file, '--otlp', to.endpoints.otlp_http]).status, 0);
    const [sent, got] = [await everything(from), await everything(to)];
    assert.equal(sent.size, 720);
    assert.deepEqual(got, sent);
    // The same without a server, in parts and by query.
    const [one, two] = ['a.pb', 'b.pb'].map((name) => path.join(scratch, name));
    await from.stop();
    const store = path.join(scratch, 'imported');
    const data = to.data;
    to.process.kill('SIGTERM');
    await to.exited;
    const by = (q, out) => run(['store', 'export', data, out, q]).status;
    assert.deepEqual([by('{ status = error }', one), by('{ status != error }', two)], [0, 0]);
    const empty = await start(t, { data: store });
    await empty.stop();
    const back = run(['store', 'import', store, one, two]);
    assert.equal(back.status, 0, back.stderr);
    const again = await start(t, { data: store });
    assert.deepEqual(await everything(again), sent);
    await again.stop();
    await rm(to.scratch, { recursive: true, force: true });
  });

  test('of other kinds are known by their content', async (t) => {
    const server = await start(t);
    const words = { otlp_json: 'OTLP JSON', otlp_json_lines: 'OTLP JSON', jaeger_json: "Jaeger's JSON", chrome: 'a Chrome trace', zipkin: "Zipkin's JSON", zipkin_v1: "Zipkin's JSON, version 1" };
    for (const [name, kind] of Object.entries(words)) {
      const said = run(['import', path.join(CORPUS, name), '--server', server.endpoints.page]);
      assert.equal(said.status, 0, said.stderr);
      assert.ok(said.stderr.includes(` span from ${kind}\n`) || said.stderr.includes(` spans from ${kind}\n`), said.stderr);
      const shown = run(['trace', path.join(CORPUS, name)]);
      assert.equal(shown.status, 0, shown.stderr);
      assert.match(shown.stdout, /shop/);
    }
    for (const [name, why] of [['none', 'expected "resourceSpans"'], ['list', 'at byte']]) {
      const said = run(['import', path.join(CORPUS, name), '--server', server.endpoints.page]);
      assert.equal(said.status, 1);
      assert.ok(said.stderr.includes(why), said.stderr);
    }
    assert.match(run(['import', path.join(scratch, 'nothing'), '--server', server.endpoints.page]).stderr, /No such file/);
    await server.stop();
  });

  test('Jaeger and Chrome files say what they know of a span', async (t) => {
    const id = '00112233445566778899aabbccddeeff';
    for (const [name, check] of [['jaeger_json', (spans, resources) => {
      const [s] = spans;
      assert.deepEqual([s.name, s.kind, s.status.code, s.parentSpanId, s.startUnixNano, s.durationNano], ['get', 'SERVER', 'ERROR', '2222222222222222', '1700000000000000000', '1500000']);
      assert.deepEqual(Object.fromEntries(s.attributes.map((a) => [a.key, a.value])), { n: { intValue: '5' }, f: { doubleValue: 1 }, ok: { boolValue: true }, raw: { bytesValue: 'AQID' } });
      assert.deepEqual(s.links.map((l) => l.spanId), ['3333333333333333']);
      assert.deepEqual(s.events.map((e) => [e.name, e.timeUnixNano, e.attributes.length]), [['retry', '1700000000000700000', 1]]);
      assert.deepEqual(resources[s.resource].attributes.map((a) => a.key).sort(), ['host.name', 'service.name']);
    }], ['chrome', (spans) => {
      const [pay, far] = spans;
      assert.deepEqual([pay.name, pay.kind, pay.status, pay.startUnixNano, pay.durationNano], ['pay', 'SERVER', { code: 'ERROR', message: 'no' }, '1700000000000012345', '100001']);
      assert.deepEqual(pay.attributes.map((a) => a.key), ['n', 'f', 'list', 'map']);
      assert.deepEqual(pay.attributes[2].value.arrayValue.values.length, 3);
      assert.deepEqual(pay.events.map((e) => [e.name, e.timeUnixNano]), [['retry', '1700000000000013000']]);
      assert.deepEqual([far.name, far.parentSpanId, far.durationNano], ['far', '1111111111111111', '6500']);
    }]]) {
      const server = await start(t);
      assert.equal(run(['import', path.join(CORPUS, name), '--server', server.endpoints.page]).status, 0);
      const trace = await server.get(`/api/pugmark/traces/${id}`);
      check(trace.spans, trace.resources);
      await server.stop();
    }
  });
});
