// `pugmark config`, and a traced program that is configured by pugmark.toml, the environment and a Vault.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PUGMARK, Server } from './lib.mjs';

const CLIENT = path.join(path.dirname(PUGMARK), 'tests', 'sdk_client');
let dir;
before(async () => { dir = await mkdtemp(path.join(tmpdir(), 'pugmark-config-')); });
after(() => rm(dir, { recursive: true, force: true }));

function run(program, args, env = {}) {
  return new Promise((resolve) => {
    execFile(program, args, { cwd: dir, env: { PATH: process.env.PATH, HOME: dir, ...env }, timeout: 30_000 },
      (error, stdout, stderr) => resolve({ status: error ? error.code : 0, stdout, stderr }));
  });
}
const config = (args, env) => run(PUGMARK, ['config', ...args], env);

async function file(text, name = 'pugmark.toml') {
  await writeFile(path.join(dir, name), text);
  await chmod(path.join(dir, name), 0o644);
}

test('check tells all that is wrong, with its place', async () => {
  await file('[telemetry]\nsampel_rate = 1\nbackend = "jaeger"\nsampler = "never"\nredact_patterns = ["(a"]\n');
  const said = await config(['check'], { PUG_METRICS: 'perhaps' });
  assert.equal(said.status, 1);
  assert.equal(said.stdout, '');
  for (const words of ['error: pugmark.toml:2:1: "sampel_rate" is not known in [telemetry]; did you mean "sample_rate"?',
    'error: pugmark.toml:3:11: backend = "jaeger" is not known here: expected one of local, otlp',
    'error: pugmark.toml:4: the sampler "never" is not known here',
    'error: PUG_METRICS: "perhaps" is not known here: expected true or false',
    'pugmark config: ']) assert.ok(said.stderr.includes(words), `${words}\n${said.stderr}`);
  await file('[telemetry]\nredact_patterns = ["(a"]\n');
  assert.match((await config(['check'])).stderr, /error: pugmark.toml:2: redact_patterns: "\(a": .*without its/);
});

test('check is content with what is good', async () => {
  await file('[telemetry]\nenabled = true\n[server]\nretention = "7d"\n[profile]\nx = 1\n');
  assert.deepEqual(await config(['check']), { status: 0, stdout: 'pugmark.toml: good\n', stderr: '' });
  await rm(path.join(dir, 'pugmark.toml'));
  assert.equal((await config(['check', 'nothing.toml'])).status, 1);
  assert.match((await config(['check', dir])).stderr, /is not a regular file/);
  for (const [args, words] of [[['chekc'], '"chekc": expected check, show or migrate'], [[], 'check, show or migrate?'],
    [['check', '--json'], '--json is for show'], [['show', '--write'], '--write is for migrate'],
    [['show', '--jsno'], 'there is no option --jsno'], [['check', 'a', 'b'], 'one file at a time, not also "b"']]) {
    const said = await config(args);
    assert.equal(said.status, 2);
    assert.equal(said.stderr, `pugmark config: ${words}; \`pugmark config --help\` tells more\n`);
  }
});

test('show prints every value and who set it, and no secret', async () => {
  await file('[telemetry]\nservice_name = "shop"\notlp_endpoint = "http://me:hunter2@host/?k=hunter2"\n'
    + '[telemetry.secrets]\nprovider = "command"\ncommand = ["/bin/echo", "hunter2"]\n');
  const env = { PUG_SAMPLE_RATE: '0.5', OTEL_EXPORTER_OTLP_HEADERS: 'a=hunter2', PUG_OTEL_HEADERS: 'hunter2', VAULT_TOKEN: 'hunter2' };
  const shown = await config(['show'], env);
  assert.equal(shown.status, 0, shown.stderr);
  assert.match(shown.stdout, /^service_name = "shop" +# pugmark.toml:2$/m);
  assert.match(shown.stdout, /^sample_rate = 0.5 +# PUG_SAMPLE_RATE$/m);
  assert.match(shown.stdout, /^stop_timeout_ms = 2000 +# default$/m);
  assert.match(shown.stdout, /^otlp_endpoint = "http:\/\/\.\.\.@host\/\?\.\.\."/m);
  assert.ok(!`${shown.stdout}${shown.stderr}`.includes('hunter2'));
  const json = await config(['show', '--json'], env);
  assert.ok(!json.stdout.includes('hunter2'));
  const { settings, file: name } = JSON.parse(json.stdout);
  assert.equal(name, 'pugmark.toml');
  assert.equal(settings.find((s) => s.name === 'service_name').origin, 'pugmark.toml:2');
  // What is shown is a configuration itself.
  await file(shown.stdout.replace('http://...@host/?...', 'http://host'), 'shown.toml');
  assert.equal((await config(['check', 'shown.toml'])).status, 0);
});

test('the document has every setting, with its default and its variables', async () => {
  await rm(path.join(dir, 'pugmark.toml'), { force: true });
  const { settings } = JSON.parse((await config(['show', '--json'])).stdout);
  const text = await readFile(fileURLToPath(new URL('../../docs/configuration.md', import.meta.url)), 'utf8');
  const rows = new Map();
  let section;
  for (const line of text.split('\n')) {
    section = /^### \[(.*)\]$/.exec(line)?.[1] ?? (line.startsWith('## ') ? undefined : section);
    const row = /^\| `(\w+)` \| (.*?) \| (.*?) \| (.*) \|$/.exec(line);
    if (row && section) rows.set(`${section}.${row[1]}`, row.slice(2));
  }
  for (const s of settings) {
    const key = `${s.section}.${s.name}`;
    assert.ok(rows.has(key), `${key} is not in docs/configuration.md`);
    const [otherwise, environment, doc] = rows.get(key);
    const value = JSON.parse(otherwise.replaceAll('`', '') || 'null');
    assert.deepEqual(value, s.value, `the default of ${key}`);
    assert.equal(environment, s.environment.map((name) => `\`${name}\``).join(', '), `the variables of ${key}`);
    assert.equal(doc, s.doc, `the words for ${key}`);
    rows.delete(key);
  }
  assert.deepEqual([...rows.keys()], [], 'these are documented and do not exist');
});

test('migrate rewrites old sections, once, and only when asked in place', async () => {
  const old = '# ours\n[observability]\nexporter = "chrome" # files\n\n[server]\nx = 1\n\n[debug.traces]\ndir = "t"\n';
  const now = '# ours\n[telemetry]\nbackend = "local" # files\ntrace_dir = "t"\n\n[server]\nx = 1\n\n';
  await file(old);
  const printed = await config(['migrate']);
  assert.equal(printed.status, 0);
  assert.equal(printed.stdout, now);
  assert.match(printed.stderr, /warning: pugmark.toml:2:2: \[observability\] is deprecated/);
  assert.match(printed.stderr, /warning: pugmark.toml:8:8: \[debug.traces\] is deprecated/);
  assert.equal(await readFile(path.join(dir, 'pugmark.toml'), 'utf8'), old);
  await chmod(path.join(dir, 'pugmark.toml'), 0o640);
  assert.deepEqual(await config(['migrate', '--write']).then(({ status, stdout }) => [status, stdout]), [0, '']);
  assert.equal(await readFile(path.join(dir, 'pugmark.toml'), 'utf8'), now);
  assert.equal((await stat(path.join(dir, 'pugmark.toml'))).mode & 0o777, 0o640);
  assert.deepEqual(await config(['migrate', '--write']), { status: 0, stdout: '', stderr: '' });
  assert.equal(await readFile(path.join(dir, 'pugmark.toml'), 'utf8'), now);
  assert.deepEqual((await readdir(dir)).filter((name) => name.startsWith('pugmark.toml.')), [], 'nothing is left beside it');
});

test('a program is configured by the file, and the environment stands over it', async () => {
  const server = await Server.start();
  try {
    await file(`[telemetry]\nenabled = true\nbackend = "otlp"\notlp_endpoint = "${server.endpoints.otlp_http}"\nservice_name = "from-file"\n`);
    const traced = JSON.parse((await run(CLIENT, [])).stdout);
    assert.equal(traced.exported, 2);
    const trace = await server.get(`/api/pugmark/traces/${traced.request.traceId}`);
    const name = trace.resources[0].attributes.find((a) => a.key === 'service.name');
    assert.equal(name.value.stringValue, 'from-file');
    const off = JSON.parse((await run(CLIENT, [], { PUG_TRACING: 'false' })).stdout);
    assert.equal(off.recorded, 0, 'enabled = false: nothing is recorded');
    assert.equal(off.told, '');
  } finally {
    await server.stop();
  }
});

test('a program gets its headers from Vault, and goes on or not without them', async () => {
  const seen = [];
  const vault = http.createServer((request, response) => {
    const known = request.headers['x-vault-token'] === 's.token' && request.url === '/v1/secret/data/shop';
    response.writeHead(known ? 200 : 403, { 'content-type': 'application/json' });
    response.end(JSON.stringify(known
      ? { data: { data: { PUG_OTEL_HEADERS: '{"authorization":"Bearer hunter2"}' }, metadata: { version: 1 } } }
      : { errors: ['permission denied'] }));
  });
  const collector = http.createServer((request, response) => {
    if (request.url === '/v1/traces') seen.push(request.headers.authorization);
    request.resume().on('end', () => response.end());
  });
  for (const server of [vault, collector]) await once(server.listen(0, '127.0.0.1'), 'listening');
  const toml = (optional) => `[telemetry]\nenabled = true\nbackend = "otlp"\notlp_headers_optional = ${optional}\n`
    + `otlp_endpoint = "http://127.0.0.1:${collector.address().port}"\n[telemetry.secrets]\nprovider = "vault"\n`
    + `vault_address = "http://127.0.0.1:${vault.address().port}"\nvault_path = "secret/data/shop"\n`;
  try {
    await file(toml(false));
    const good = await run(CLIENT, [], { VAULT_TOKEN: 's.token' });
    assert.equal(good.status, 0, good.stderr);
    assert.ok(seen.length && seen.every((value) => value === 'Bearer hunter2'), `sent: ${seen}`);
    assert.ok(!`${good.stdout}${good.stderr}`.includes('hunter2'));
    const refused = await run(CLIENT, [], { VAULT_TOKEN: 's.other' });
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /tracing is off: .*no OTLP headers from the provider "vault".*HTTP 403/);
    seen.length = 0;
    await file(toml(true));
    const without = await run(CLIENT, [], { VAULT_TOKEN: 's.other' });
    assert.match(without.stdout, /HTTP 403.*spans are sent without authentication/);
    assert.match(without.stdout, /"exported":2,/);
    assert.ok(seen.length && seen.every((value) => value === undefined));
  } finally {
    vault.close();
    collector.close();
  }
});
