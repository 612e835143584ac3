// `pugmark tail`, and `pugmark trace` of a trace that is too large to come whole.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { PUGMARK, Server, otlpRequest, randomHex, until } from './lib.mjs';

const run = promisify(execFile);
let server;

before(async () => { server = await Server.start(); });
const children = new Set();
after(async () => {
  for (const child of children) child.kill('SIGKILL');
  await server?.stop();
});

/** A tail that is watching: its output grows in `out` and `err`. */
async function tail(args, { url = server.endpoints.page } = {}) {
  await until('the streams before to be gone', async () => ((await liveClients()) === 0 ? true : undefined));
  const child = spawn(PUGMARK, ['tail', '--server', url, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  const t = { child, out: '', err: '', exited: once(child, 'exit') };
  child.stdout.setEncoding('utf8').on('data', (text) => { t.out += text; });
  child.stderr.setEncoding('utf8').on('data', (text) => { t.err += text; });
  await until('the stream', async () => ((await liveClients()) === 1 ? true : undefined));
  return t;
}

async function liveClients() {
  const text = await (await fetch(`${server.endpoints.page}/metrics`)).text();
  return Number(/^pugmark_live_clients(?:\{[^}]*\})? (\d+)/m.exec(text)?.[1] ?? 0);
}

test('a span is a line as soon as it is stored, and SIGINT ends well', async () => {
  const t = await tail(['{ name = "wanted" }']);
  const traceId = randomHex(32);
  await server.send(otlpRequest('api', [{ name: 'other' }, { traceId, name: 'wanted', status: { code: 2 } }]));
  await until('the line', () => (t.out.includes('\n') ? true : undefined));
  assert.match(t.out, new RegExp(`^\\d\\d:\\d\\d:\\d\\d\\.\\d+ +1\\.00 ms  api  (x|✗) wanted  ${traceId}\n$`));
  assert.doesNotMatch(t.out, /\u001b/);
  t.child.kill('SIGINT');
  assert.deepEqual(await t.exited, [0, null]);
});

test('--json gives a line of JSON a span, --limit ends it, and no name is a control sequence', async () => {
  const t = await tail(['--json', '--limit', '2']);
  await server.send(otlpRequest('api', [{ name: 'one' }, { name: 'evil \u001b[31m' }, { name: 'three' }]));
  assert.deepEqual(await t.exited, [0, null]);
  const lines = t.out.trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(lines.map((l) => l.name), ['one', 'evil \u001b[31m']);
  const plain = await tail(['--limit', '1']);
  await server.send(otlpRequest('api', [{ name: 'evil \u001b[31m' }]));
  await plain.exited;
  assert.doesNotMatch(plain.out, /\u001b/);
});

test('a filter that cannot be answered live is refused with its place', async () => {
  for (const [query, words] of [['{ foo', /foo[\s\S]*\^/], ['{ } >> { }', /whole trace/]]) {
    await assert.rejects(run(PUGMARK, ['tail', '--server', server.endpoints.page, query]), (e) => {
      assert.equal(e.code, 1);
      assert.match(e.stderr, words);
      return true;
    });
  }
  await assert.rejects(run(PUGMARK, ['tail', '--server', 'http://127.0.0.1:1']), (e) => e.code === 1 && /nothing answers/.test(e.stderr));
});

test('what was missed is said', async () => {
  const t = await tail(['--json']);
  await run(PUGMARK, ['load', '--otlp', server.endpoints.otlp_http, '--traces', '1500', '--spans-per-trace', '10']);
  await until('the count', () => (/(\d+) spans were stored and not sent/.test(t.err) ? true : undefined));
  t.child.kill('SIGTERM');
  await t.exited;
  const shown = t.out.trim().split('\n').length;
  const missed = [...t.err.matchAll(/(\d+) spans were stored and not sent/g)].reduce((n, m) => n + Number(m[1]), 0);
  assert.ok(shown > 0 && shown + missed <= 15_000, `${shown} shown, ${missed} missed`);
  assert.match(t.err, new RegExp(`${shown} spans shown, ${missed} missed`));
});

test('a connection that breaks is made again', async () => {
  const target = new URL(server.endpoints.page);
  const sockets = new Set();
  const proxy = net.createServer((client) => {
    const upstream = net.connect(Number(target.port), target.hostname);
    for (const s of [client, upstream]) {
      sockets.add(s);
      s.on('error', () => {});
      s.on('close', () => { sockets.delete(s); client.destroy(); upstream.destroy(); });
    }
    client.pipe(upstream).pipe(client);
  });
  proxy.unref();
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const t = await tail(['{ name = "again" }'], { url: `http://127.0.0.1:${proxy.address().port}` });
  for (const s of sockets) s.destroy();
  await until('the words', () => (/connection .* ended; trying again/.test(t.err) ? true : undefined));
  await until('a span after it', async () => {
    await server.send(otlpRequest('api', [{ name: 'again' }]));
    return t.out.includes('again') ? true : undefined;
  });
  t.child.kill('SIGINT');
  await t.exited;
  proxy.close();
});

test('a large trace comes in lines: so many, so deep, all', async () => {
  const { stdout: loaded } = await run(PUGMARK, ['load', '--otlp', server.endpoints.otlp_http, '--traces', '1', '--spans-per-trace', '7000', '--seed', '4', '--json']);
  assert.equal(JSON.parse(loaded).spansAcked, 7000);
  const { traces } = await server.get('/api/pugmark/search?limit=1000');
  const id = traces.find((t) => t.spanCount === 7000).traceId;
  const show = async (...args) => (await run(PUGMARK, ['trace', '--server', server.endpoints.page, id, ...args])).stdout;
  const rows = (text) => text.split('\n').filter((line) => / (ns|µs|us|ms|s)(  .)?$/.test(line) && !line.includes('spans ')).length;
  const some = await show('--max-rows', '20');
  assert.equal(rows(some), 20);
  assert.match(some, /7000 spans/);
  assert.match(some, /and 6980 more lines/);
  const deep = await show('--depth', '2');
  const outline = await server.get(`/api/pugmark/traces/${id}/outline?fold=1`);
  assert.equal(rows(deep), outline.lines);
  const below = [...deep.matchAll(/\(\+(\d+)\)/g)].reduce((n, m) => n + Number(m[1]), 0);
  assert.equal(below + outline.lines, 7000);
  assert.equal(rows(await show('--all')), 7000);
});
