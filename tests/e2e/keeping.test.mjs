// What a server keeps and lets go: its configuration, rules of retention.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

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
    assert.deepEqual(Object.keys(server.endpoints).sort(), ['otlp_http', 'page', 'tempo', 'zipkin']);
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
