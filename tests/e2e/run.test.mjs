// `pugmark run`: real programs that know nothing of Pugmark, the spans they leave in a real server, and that they behave as
// they do without it.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { chmod, chown, copyFile, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PUGMARK, Server, until } from './lib.mjs';

const BUILD = path.dirname(PUGMARK);
const plain = (name) => path.join(BUILD, 'tests', `plain-${name}`);
const root = process.getuid() === 0;
const NOBODY = { uid: 65534, gid: 65534 };

let server;
let dir;
const children = new Set();
before(async () => {
  server = await Server.start();
  dir = await mkdtemp(path.join(tmpdir(), 'pugmark-run-test-'));
  await chmod(dir, 0o755);
});
after(async () => {
  for (const child of children) child.kill('SIGKILL');
  await server.stop();
  await rm(dir, { recursive: true, force: true });
});

function environment(extra) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([k]) => !/^(PUG_|OTEL_|LD_|http_proxy)/i.test(k)));
  return { ...env, ...extra };
}

/** Runs a command to its end: what it said, and how it ended. */
function run(command, args, { cwd = dir, env = {}, input } = {}) {
  return new Promise((resolve) => {
    const child = execFile(command, args, { cwd, env: environment(env), timeout: 30_000 }, (error, stdout, stderr) =>
      resolve({ code: child.exitCode, signal: child.signalCode, stdout, stderr }));
    if (input !== undefined) child.stdin.end(input);
  });
}

const traced = (options, command, ...more) => run(PUGMARK, ['run', ...options, '--', ...command], ...more);

/** Sends to the server, under a name of its own: the spans in order of their start. */
async function spansOf(command, { options = [], ...more } = {}) {
  const service = `run-${Math.random().toString(36).slice(2)}`;
  const done = await traced(['--server', server.endpoints.page, '--service', service, ...options], command, more);
  return { ...done, service, spans: await spansOfService(service) };
}

async function spansOfService(service) {
  const { traces } = await server.get(`/api/pugmark/search?service=${service}&limit=1000`);
  const all = await Promise.all(traces.map(({ traceId }) => server.get(`/api/pugmark/traces/${traceId}`)
    .then((t) => t.spans.map((s) => ({ ...s, traceId, service: t.resources[s.resource].service })))));
  return all.flat().filter((s) => s.service === service)
    .sort((a, b) => (BigInt(a.startUnixNano) < BigInt(b.startUnixNano) ? -1 : 1));
}

const attributes = (span) => Object.fromEntries(span.attributes.map(({ key, value }) => [key, Object.values(value)[0]]));

/** Does the span have these attributes (and perhaps others)? */
function has(span, wanted) {
  const found = attributes(span);
  assert.deepEqual(Object.fromEntries(Object.keys(wanted).map((k) => [k, found[k]])), wanted, span.name);
}

/** A web server that keeps what it was asked. */
async function recorder() {
  const requests = [];
  const listener = http.createServer((request, response) => {
    requests.push({ url: request.url, method: request.method, headers: request.headers, raw: request.rawHeaders });
    request.resume();
    if (request.url === '/never') return;
    const status = Number(/^\/(\d{3})$/.exec(request.url)?.[1] ?? 200);
    if (request.url === '/redirect') response.writeHead(302, { location: '/200' }).end();
    else response.writeHead(status).end('hello\n');
  }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  return {
    requests,
    base: `http://127.0.0.1:${listener.address().port}`,
    port: listener.address().port,
    close: () => { listener.close(); listener.closeAllConnections?.(); },
  };
}

const traceparent = (span) => `00-${span.traceId}-${span.spanId}-`;

// ---- libcurl ----

test('curl sends its span to the server it asks, and says nothing of it', async () => {
  const r = await recorder();
  const url = `${r.base.replace('//', '//user:word@')}/200?sig=secret&a=b`;
  const { code, stdout, stderr, spans } = await spansOf(['curl', '-s', '-H', 'X-Mine: kept', url]);
  r.close();
  assert.deepEqual([code, stdout], [0, 'hello\n']);
  assert.match(stderr, /1 span of 1 process, sent to http:/);
  assert.equal(spans.length, 1);
  const [span] = spans;
  assert.equal(r.requests[0].headers.traceparent.slice(0, 53), traceparent(span));
  assert.equal(r.requests[0].headers['x-mine'], 'kept');
  assert.deepEqual([span.name, span.kind, span.status.code, span.parentSpanId], ['GET', 'CLIENT', 'UNSET', '']);
  has(span, {
    'http.request.method': 'GET', 'http.response.status_code': '200', 'server.address': '127.0.0.1',
    'server.port': String(r.port), 'network.protocol.version': '1.1',
    'url.full': `${r.base.replace('//', '//REDACTED:REDACTED@')}/200?sig=REDACTED&a=b`,
  });
  const spoken = JSON.stringify(span);
  assert.ok(!spoken.includes('secret') && !spoken.includes('word@'), spoken);
});

test('what curl could not do is in its span', async () => {
  const r = await recorder();
  const { code, spans } = await spansOf(
    ['curl', '-s', '-X', 'PROPFIND', `${r.base}/404`, '--next', '-s', '-L', `${r.base}/redirect`, '--next', '-s', 'http://127.0.0.1:1/']);
  r.close();
  assert.equal(code, 7, 'the exit status is the one of curl');
  assert.deepEqual(spans.map((s) => s.status.code), ['ERROR', 'UNSET', 'ERROR']);
  has(spans[0], { 'http.response.status_code': '404', 'error.type': '404', 'http.request.method': '_OTHER',
    'http.request.method_original': 'PROPFIND' });
  has(spans[1], { 'http.response.status_code': '200', 'http.request.resend_count': '1' });
  has(spans[2], { 'error.type': 'CURLE_COULDNT_CONNECT' });
});

test('headers given by the program stay its own, easy and multi, reused, shared, freed and reset', async () => {
  const [one, two] = [await recorder(), await recorder()];
  const without = await run(plain('client'), [one.base]);
  const { code, stdout, spans } = await spansOf([plain('client'), two.base]);
  for (const r of [one, two]) r.close();
  assert.deepEqual([code, stdout], [0, without.stdout]);
  // Ours aside, the requests are the same, byte for byte and in order (those of multi are in any).
  const ours = (raw) => raw.filter((_, i) => !['traceparent', 'host'].includes(raw[i - (i % 2)].toLowerCase()));
  const shown = (r) => r.requests.map((q) => `${q.method} ${q.url} ${ours(q.raw).join('|')}`);
  assert.deepEqual(shown(two).slice(0, 6), shown(one).slice(0, 6));
  assert.deepEqual(shown(two).slice(6).sort(), shown(one).slice(6).sort());
  assert.ok(one.requests.every((q) => q.url === '/own' || !q.headers.traceparent || q.headers['x-name'] === 'own'));

  assert.equal(spans.length, 12);
  const sent = new Set(spans.map(traceparent));
  for (const q of two.requests) {
    const value = q.headers.traceparent;
    if (q.headers['x-name'] === 'own') assert.equal(value, '00-11111111111111111111111111111111-2222222222222222-01');
    else assert.ok(sent.delete(value.slice(0, 53)), `${q.url}: ${value} is of no span, or of one that was sent already`);
  }
  const refused = spans.filter((s) => attributes(s)['error.type'] === 'CURLE_COULDNT_CONNECT');
  const removed = spans.filter((s) => attributes(s)['error.type'] === 'cancelled');
  assert.deepEqual([refused.length, removed.length], [1, 1]);
  assert.match(removed[0].status.message, /removed before/);
});

// ---- SQLite ----

test('the sqlite3 shell: a span for each statement, without values', async () => {
  const { code, stdout, spans } = await spansOf(['sqlite3', 'shop.db',
    "CREATE TABLE users(id INTEGER, name TEXT UNIQUE); INSERT INTO users VALUES(1,'alice'),(2,'bob');"
    + " SELECT name FROM users WHERE name='alice' OR id = 2; INSERT INTO users VALUES(3,'bob');"]);
  assert.deepEqual([code, stdout], [19, 'alice\nbob\n']);
  assert.deepEqual(spans.map((s) => s.name), ['CREATE users', 'INSERT users', 'SELECT users', 'INSERT users']);
  has(spans[2], { 'db.system.name': 'sqlite', 'db.operation.name': 'SELECT', 'db.collection.name': 'users',
    'db.query.summary': 'SELECT users', 'db.query.text': 'SELECT name FROM users WHERE name=? OR id = ?;' });
  assert.match(attributes(spans[2])['db.namespace'], /\/shop\.db$/);
  assert.ok(!JSON.stringify(spans).includes('alice'));
  has(spans[3], { 'error.type': '2067', 'db.response.status_code': '2067' }); // SQLITE_CONSTRAINT_UNIQUE
  assert.equal(spans[3].status.message, 'UNIQUE constraint failed: users.name');
});

test('the text of queries is full or not at all when that is asked for', async () => {
  const full = await spansOf(['sqlite3', ':memory:', "SELECT 'x1' -- why"], { options: ['--query-text', 'full'] });
  has(full.spans[0], { 'db.query.text': "SELECT 'x1' -- why", 'db.namespace': ':memory:' });
  const off = await spansOf(['sqlite3', ':memory:', "SELECT 'x1'"], { options: ['--query-text', 'off'] });
  assert.equal(attributes(off.spans[0])['db.query.text'], undefined);
});

test('a library that only a plugin of the program brought is seen as well (Python)', async (t) => {
  const program = 'import sqlite3\nc = sqlite3.connect(":memory:")\n'
    + 'c.create_function("twice", 1, lambda n: n * 2)\nprint(c.execute("SELECT twice(21)").fetchall())\n'
    + 'try:\n  c.execute("SELEC 1")\nexcept sqlite3.OperationalError as e:\n  print(e)\n';
  const without = await run('python3', ['-c', program]);
  if (without.code !== 0) { t.skip('Python has no sqlite3'); return; }
  const { stdout, spans } = await spansOf(['python3', '-c', program]);
  assert.equal(stdout, without.stdout);
  assert.deepEqual(spans.map((s) => [s.name, s.status.code]), [['SELECT', 'UNSET'], ['SELEC', 'ERROR']]);
});

test('plugins that come and go, threads, and children without exec', async () => {
  const { code, stdout, stderr } = await traced(['-o', 'plugins'], [plain('host'), path.join(BUILD, 'tests', 'libplain-plugin.so')]);
  assert.deepEqual([code, stdout], [0, 'all well\n'], stderr);
  const files = (await readdir(path.join(dir, 'plugins'))).map((f) => path.join(dir, 'plugins', f));
  const ids = files.flatMap((f) => JSON.parse(readFileSync(f, 'utf8')).traceEvents.filter((e) => /^[Xb]$/.test(e.ph)))
    .map((e) => e.args.span_id);
  // 8 openings, 4 threads with 100 rounds each, 4 children with 25 each; of 3 statements.
  assert.equal(ids.length, 3 * (8 + 400 + 100), stderr);
  assert.equal(new Set(ids).size, ids.length);
  assert.match(stderr, /1524 spans of 5 processes/);
});

// ---- PostgreSQL ----

function postgresBin() {
  const base = '/usr/lib/postgresql';
  const versions = existsSync(base) ? readdirSync(base) : [];
  return versions.map((v) => path.join(base, v, 'bin')).find((b) => existsSync(path.join(b, 'initdb')));
}

async function postgres() {
  const bin = postgresBin();
  const data = path.join(dir, 'postgres');
  const as = root ? NOBODY : {};
  await mkdir(data);
  if (root) await chown(data, NOBODY.uid, NOBODY.gid);
  const init = spawn(path.join(bin, 'initdb'), ['-D', path.join(data, 'd'), '-U', 'tester', '-A', 'trust', '-N', '-E', 'UTF8',
    '--locale=C'], { stdio: 'ignore', cwd: data, ...as });
  assert.deepEqual(await once(init, 'exit'), [0, null]);
  const child = spawn(path.join(bin, 'postgres'), ['-D', path.join(data, 'd'), '-k', data, '-c', 'listen_addresses=',
    '-c', 'fsync=off'], { stdio: 'ignore', cwd: data, ...as });
  children.add(child);
  const psql = path.join(bin, 'psql');
  const info = `host=${data} user=tester dbname=postgres`;
  await until('PostgreSQL', async () => ((await run(psql, [info, '-c', 'SELECT 1'])).code === 0 ? true : undefined), 30_000);
  return { psql, info, data, stop: async () => { child.kill('SIGQUIT'); await once(child, 'exit'); children.delete(child); } };
}

test('psql and libpq against a real PostgreSQL', { skip: !postgresBin() && 'PostgreSQL is not installed' }, async (t) => {
  const pg = await postgres();
  await t.test('psql: connecting, queries, errors', async () => {
    const args = [pg.info, '-XAt', '-c', "SELECT 'secret', 40 + 2", '-c', 'SELECT * FROM nothing_here'];
    const without = await run(pg.psql, args);
    const { code, stdout, spans } = await spansOf([pg.psql, ...args]);
    assert.deepEqual([code, stdout], [without.code, without.stdout]);
    assert.equal(stdout, 'secret|42\n');
    assert.deepEqual(spans.map((s) => [s.name, s.kind, s.status.code]),
      [['connect', 'CLIENT', 'UNSET'], ['SELECT', 'CLIENT', 'UNSET'], ['SELECT nothing_here', 'CLIENT', 'ERROR']]);
    for (const span of spans) has(span, { 'db.system.name': 'postgresql', 'db.namespace': 'postgres', 'server.address': pg.data });
    has(spans[1], { 'db.query.text': 'SELECT ?, ? + ?', 'db.response.returned_rows': '1' });
    has(spans[2], { 'error.type': '42P01', 'db.response.status_code': '42P01' });
    assert.equal(spans[2].status.message, 'relation ? does not exist');
  });
  await t.test('libpq: parameters, prepared, sent, pipelined, slowly connected', { skip: !existsSync(plain('postgres')) && 'libpq-dev is not installed' }, async () => {
    const without = await run(plain('postgres'), [pg.info]);
    assert.equal(without.code, 0, without.stderr);
    const { code, stdout, spans } = await spansOf([plain('postgres'), pg.info]);
    assert.deepEqual([code, stdout], [0, without.stdout]);
    assert.deepEqual(spans.map((s) => s.name), ['connect', 'connect', 'CREATE t', 'INSERT t', 'SELECT', 'PREPARE', 'EXECUTE',
      'SELECT', 'SELECT pg_stat_activity', 'SELECT', 'SELECT', 'EXECUTE', 'PREPARE', 'connect']);
    assert.deepEqual(spans.filter((s) => s.status.code === 'ERROR').map((s) => attributes(s)['error.type']),
      ['connection', '22P02']);
    has(spans[3], { 'db.query.text': 'INSERT INTO t VALUES(?, ?)' });
    has(spans[4], { 'db.query.text': 'SELECT $1::int + ?', 'db.response.returned_rows': '1' });
    assert.ok(!JSON.stringify(spans).includes('secret'));
    const commented = await spansOf([plain('postgres'), pg.info], { options: ['--sql-comment'] });
    assert.equal(commented.stdout, without.stdout.replace(/(comment: PGRES_TUPLES_OK 1) f/, '$1 t'), 'the server saw the context');
    assert.notEqual(commented.stdout, without.stdout);
  });
  await pg.stop();
});

// ---- Redis ----

async function redis() {
  const home = path.join(dir, 'redis');
  const socket = path.join(home, 's');
  await mkdir(home);
  const child = spawn('redis-server', ['--port', '0', '--unixsocket', socket, '--save', '', '--dir', home],
    { stdio: 'ignore', cwd: home });
  children.add(child);
  const failed = once(child, 'error').then(() => 'failed');
  const up = until('redis-server', () => (existsSync(socket) ? 'up' : undefined));
  assert.equal(await Promise.race([failed, up]), 'up');
  return { socket, stop: async () => { child.kill('SIGTERM'); await once(child, 'exit'); children.delete(child); } };
}

test('hiredis: commands, appended ones, asynchronous ones',
  { skip: !(existsSync(plain('redis')) && existsSync('/usr/bin/redis-server')) && 'hiredis or redis-server is not installed' },
  async () => {
    const r = await redis();
    const without = await run(plain('redis'), [r.socket]);
    await r.stop();
    await rm(path.join(dir, 'redis'), { recursive: true });
    const again = await redis();
    const { code, stdout, spans } = await spansOf([plain('redis'), again.socket]);
    const full = await spansOf([plain('redis'), again.socket], { options: ['--query-text', 'full'] });
    await again.stop();
    assert.equal(without.code, 0, without.stderr);
    assert.deepEqual([code, stdout], [0, without.stdout]);
    assert.deepEqual(spans.map((s) => s.name), ['SET', 'GET', 'SET', 'HSET', 'INCR', 'INCR', 'HSET', 'GET',
      'SET', 'GET', 'INCR', 'INCR', 'GET']);
    assert.deepEqual(spans.map((s) => attributes(s)['db.query.text']), ['SET ? ?', 'GET ?', 'SET ? ?', 'HSET ? ? ?', 'INCR ?', 'INCR ?',
      'HSET ? ? ?', 'GET ?', 'SET ? ?', 'GET ?', 'INCR ?', 'INCR ?', 'GET ?']);
    for (const span of spans) has(span, { 'db.system.name': 'redis', 'server.address': again.socket });
    assert.deepEqual(spans.filter((s) => s.status.code === 'ERROR').map((s) => attributes(s)['error.type']),
      ['ERR', 'ERR', 'connection'], 'the last one was given up with its connection');
    assert.deepEqual(full.spans.slice(0, 2).map((s) => attributes(s)['db.query.text']),
      ['SET key:7 secret value', 'GET key:7']);
  });

// ---- libmicrohttpd ----

async function plainServer(mode, service) {
  const child = spawn(PUGMARK, ['run', '-q', '--server', server.endpoints.page, '--service', service, '--', plain('server'), mode],
    { stdio: ['pipe', 'pipe', 'inherit'], cwd: dir, env: environment() });
  children.add(child);
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text) => { said += text; });
  const port = await until('the port', () => /^(\d+)\n/.exec(said)?.[1]);
  return {
    base: `http://127.0.0.1:${port}`,
    port,
    stop: async () => {
      child.stdin.end();
      assert.deepEqual(await once(child, 'exit'), [0, null]);
      children.delete(child);
      return said.split('\n')[1];
    },
  };
}

for (const mode of ['threads', 'pool', 'external']) {
  test(`one trace from curl into a libmicrohttpd server and its SQLite, ${mode}`, async () => {
    const service = `server-${mode}-${Math.random().toString(36).slice(2)}`;
    const s = await plainServer(mode, service);
    const paths = ['/hello', '/rows', '/fail', '/late'];
    const { spans: asked, stdout } = await spansOf(['curl', '-s', ...paths.map((p) => s.base + p)]);
    const refused = await spansOf(['curl', '-s', `${s.base}/refuse`]); // alone: curl asks again on a connection it reused
    const upload = await spansOf(['curl', '-s', '--data-binary', 'x'.repeat(100_000), `${s.base}/upload`]);
    assert.equal(await s.stop(), '5 ok, 1 else, accepted');
    assert.equal(stdout, 'hello\n2 rows\nhello\nhello\n');
    assert.equal(upload.stdout, '100000 bytes\n');
    const spans = await spansOfService(service);
    const served = spans.filter((x) => x.kind === 'SERVER');
    assert.deepEqual(served.map((x) => attributes(x)['url.path']), [...paths, '/refuse', '/upload']);
    [...asked, ...refused.spans, ...upload.spans].forEach((client, i) => {
      assert.equal(served[i].traceId, client.traceId, 'one trace over two processes');
      assert.equal(served[i].parentSpanId, client.spanId);
      assert.ok(BigInt(client.startUnixNano) <= BigInt(served[i].startUnixNano));
    });
    assert.deepEqual(served.map((x) => [x.name, attributes(x)['http.response.status_code'], x.status.code]),
      [['GET', '200', 'UNSET'], ['GET', '200', 'UNSET'], ['GET', '500', 'ERROR'], ['GET', '200', 'UNSET'],
        ['GET', undefined, 'ERROR'], ['POST', '201', 'UNSET']]);
    has(served[0], { 'url.scheme': 'http', 'server.address': '127.0.0.1', 'server.port': s.port, 'client.address': '127.0.0.1',
      'network.protocol.version': '1.1', 'http.request.method': 'GET' });
    const rows = spans.find((x) => x.name === 'SELECT');
    assert.deepEqual([rows.traceId, rows.parentSpanId], [served[1].traceId, served[1].spanId]);
  });
}

// ---- the command ----

test('the exit status and the signal of the command are passed through', async () => {
  assert.equal((await traced([], ['sh', '-c', 'exit 7'])).code, 7);
  assert.equal((await traced(['-q'], ['sh', '-c', 'kill -USR1 $$'])).signal, 'SIGUSR1');
  assert.equal((await traced(['-q'], ['sh', '-c', 'kill -SEGV $$'])).signal, 'SIGSEGV');
  const child = spawn(PUGMARK, ['run', '-q', '--', 'sh', '-c', 'trap "echo got; exit 3" TERM; echo up; while :; do sleep 0.05; done'],
    { stdio: ['ignore', 'pipe', 'ignore'], cwd: dir, env: environment() });
  children.add(child);
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text) => { said += text; });
  await until('the command', () => (said.includes('up') ? true : undefined));
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [3, null]);
  children.delete(child);
  assert.equal(said, 'up\ngot\n');
});

test('input, output, arguments and environment are the ones of the command', async () => {
  const { stdout, stderr, code } = await traced(['-q'], ['sh', '-c', 'cat; echo "$0 $1" "$FOO"; echo err >&2', '--help', '-q'],
    { input: 'in\n', env: { FOO: 'bar' } });
  assert.deepEqual([stdout, stderr, code], ['in\n--help -q bar\n', 'err\n', 0]);
  const { stdout: preload } = await traced(['-q'], ['sh', '-c', 'echo $LD_PRELOAD'], { env: { LD_PRELOAD: '/lib/x86_64-linux-gnu/libm.so.6' } });
  assert.match(preload, /libpugmark-run\.so:\/lib\/x86_64-linux-gnu\/libm\.so\.6\n$/);
});

test('without a server the spans of all processes are in Chrome traces, and it says where', async () => {
  const { stderr, code } = await traced(['-o', 'out'], ['sh', '-c', 'sqlite3 a.db "SELECT 1" && cd / && sqlite3 :memory: "SELECT 2"; true']);
  assert.equal(code, 0);
  assert.match(stderr, /^pugmark run: 2 spans of 2 processes; open in ui\.perfetto\.dev:$/m);
  const files = (await readdir(path.join(dir, 'out'))).map((f) => path.join(dir, 'out', f));
  assert.deepEqual([...stderr.matchAll(/^ {2}(\/.*)$/gm)].map((m) => m[1]).sort(), files.sort());
  const names = files.flatMap((f) => JSON.parse(readFileSync(f, 'utf8')).traceEvents.filter((e) => /^[Xb]$/.test(e.ph)).map((e) => e.name));
  assert.deepEqual(names, ['SELECT', 'SELECT']);
});

test('a program that uses none of the libraries is left alone, and told so', async () => {
  const empty = path.join(dir, 'empty');
  await mkdir(empty);
  const { stderr, code } = await traced([], ['true'], { cwd: empty });
  assert.equal(code, 0);
  assert.match(stderr, /no spans: neither true nor what it started called libcurl/);
  assert.deepEqual(await readdir(empty), []);
});

test('what cannot be run or traced is said in words, with exit status 1', async () => {
  const says = async (command, words) => {
    const { code, stdout, stderr } = await traced([], command);
    assert.deepEqual([code, stdout], [1, ''], stderr);
    assert.match(stderr, words);
  };
  await says(['no-such-command'], /there is no "no-such-command" in PATH/);
  await says(['/nonexistent/x'], /\/nonexistent\/x is not there/);
  await says([dir], /is a directory/);
  await writeFile(path.join(dir, 'plain.txt'), 'x');
  await says([path.join(dir, 'plain.txt')], /may not be executed/);
  await says(['/sbin/ldconfig'], /linked statically/);
  await writeFile(path.join(dir, 'script'), '#!/sbin/ldconfig -p\n', { mode: 0o755 });
  await says([path.join(dir, 'script')], /ldconfig is linked statically/);
  if (root) {
    const copy = path.join(dir, 'setuid');
    await copyFile('/bin/true', copy);
    await chown(copy, NOBODY.uid, NOBODY.gid);
    await chmod(copy, 0o4755);
    await says([copy], /other rights than yours/);
  }
  const refused = await traced(['--server', 'http://127.0.0.1:1'], ['true']);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /127\.0\.0\.1:1/);
});

test('wrong usage is exit status 2', async () => {
  for (const args of [[], ['--nonsense'], ['-o', 'x', '--otlp', 'http://h', '--', 'true'], ['--query-text', 'some', '--', 'true']]) {
    const { code, stderr } = await run(PUGMARK, ['run', ...args]);
    assert.equal(code, 2, stderr);
    assert.notEqual(stderr, '');
  }
  const { code, stdout } = await run(PUGMARK, ['run', '--help']);
  assert.equal(code, 0);
  assert.match(stdout, /^usage: pugmark run/);
});

test('a receiver that is not there is told at the end, and the command is none the worse', async () => {
  const { code, stdout, stderr } = await traced(['--otlp', 'http://127.0.0.1:1'], ['sqlite3', ':memory:', 'SELECT 1']);
  assert.deepEqual([code, stdout], [0, '1\n']);
  assert.match(stderr, /127\.0\.0\.1:1/);
  assert.match(stderr, /1 spans? (was|were) lost|not sent|Couldn't connect|could not/i);
});

test('the preload object stands before the functions of its list, and links none of the libraries', async () => {
  const object = path.join(BUILD, 'libpugmark-run.so');
  const map = await readFile(fileURLToPath(new URL('../../src/probe/libpugmark-run.map', import.meta.url)), 'utf8');
  const listed = [...map.matchAll(/^\s+(\w+);$/gm)].map((m) => m[1]).sort();
  const { stdout } = await run('nm', ['-D', '--defined-only', object]);
  const exported = stdout.trim().split('\n').map((line) => line.split(' ').at(-1)).sort();
  assert.deepEqual(exported, listed);
  assert.ok(listed.length > 40 && listed.every((name) => /^(curl_|PQ|sqlite3_|redis|MHD_)/.test(name)), listed.join());
  const { stdout: needed } = await run('readelf', ['-d', object]);
  const libraries = [...needed.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map((m) => m[1]);
  assert.deepEqual(libraries.filter((l) => !/^(libpugmark\.so|libc\.so|libgcc_s\.so|ld-linux)/.test(l)), []);
});
