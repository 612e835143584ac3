// The life of `pugmark serve`: how it starts, says where it is, traces itself, and ends.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { access, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { PUGMARK, Server, otlpRequest, randomHex, until } from './lib.mjs';

let scratch;
before(async () => { scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-serve-')); });
after(async () => { await rm(scratch, { recursive: true, force: true }); });

/** A server that a failing test does not leave behind. */
async function start(t, options) {
  const server = await Server.start(options);
  t.after(async () => {
    if (server.process.exitCode === null && server.process.signalCode === null) await server.kill();
  });
  return server;
}
const run = (args, options = {}) => spawnSync(PUGMARK, ['serve', ...args], { encoding: 'utf8', timeout: 20_000, ...options });
const memoryMiB = async (pid, field) =>
  Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(await readFile(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;

describe('starting', () => {
  test('names each endpoint in the ready file, and each answers', async (t) => {
    const server = await start(t);
    assert.deepEqual(Object.keys(server.endpoints).sort(), ['jaeger_binary', 'jaeger_compact', 'jaeger_grpc', 'jaeger_http', 'otlp_grpc', 'otlp_http', 'page', 'sampling', 'tempo', 'xray', 'zipkin']);
    for (const url of Object.values(server.endpoints)) assert.match(url, /^(http|udp):\/\/127\.0\.0\.1:\d+$/);
    assert.equal((await fetch(`${server.endpoints.page}/healthz`)).status, 200);
    assert.equal((await fetch(`${server.endpoints.page}/readyz`)).status, 200);
    const status = await server.get('/api/pugmark/status');
    assert.equal(status.endpoints.otlp_http, server.endpoints.otlp_http);
    for (const url of Object.values(server.endpoints)) assert.ok(server.stderr.includes(url), server.stderr);
    await server.stop();
  });

  test('takes under 100 ms, and idles under 40 MiB', async () => {
    let best = Infinity;
    for (let i = 0; i < 5; i++) {
      const ready = path.join(scratch, `ready-${i}`);
      const began = performance.now();
      const child = spawn(PUGMARK, ['serve', '--ports', 'auto', '--ready-file', ready, '--data', path.join(scratch, 'quick')],
        { stdio: 'ignore' });
      const ended = new Promise((resolve) => { child.on('exit', resolve); });
      while (!await access(ready).then(() => true, () => false)) {
        assert.equal(child.exitCode, null);
        await sleep(1);
      }
      best = Math.min(best, performance.now() - began);
      assert.ok(await memoryMiB(child.pid, 'VmRSS') < 40);
      child.kill('SIGTERM');
      assert.equal(await ended, 0);
    }
    assert.ok(best < 100, `${best} ms`);
  });

  test('makes the data directory and those above it', async (t) => {
    const data = path.join(scratch, 'a', 'b', 'c');
    const server = await start(t, { data });
    await server.send(otlpRequest('x', [{}]));
    await server.stop();
    assert.ok((await readdir(data)).length > 0);
  });

  test('keeps its data in XDG_STATE_HOME when no directory is named', async () => {
    const state = path.join(scratch, 'state');
    const ready = path.join(scratch, 'ready-state');
    const child = spawn(PUGMARK, ['serve', '--ports', 'auto', '--ready-file', ready],
      { stdio: 'ignore', env: { ...process.env, XDG_STATE_HOME: state } });
    await until('the server', () => readFile(ready).catch(() => undefined));
    assert.ok((await readdir(path.join(state, 'pugmark'))).length > 0);
    const ended = new Promise((resolve) => { child.on('exit', resolve); });
    child.kill('SIGINT');
    assert.equal(await ended, 0);
  });

  test('replaces a ready file that is there, and removes it at its end', async () => {
    const ready = path.join(scratch, 'ready-stale');
    await writeFile(ready, 'stale');
    const child = spawn(PUGMARK, ['serve', '--ports', 'auto', '--ready-file', ready, '--data', path.join(scratch, 'stale')],
      { stdio: 'ignore' });
    const state = await until('the new ready file', async () => {
      const text = await readFile(ready, 'utf8');
      return text === 'stale' ? undefined : JSON.parse(text); // never half of it
    });
    assert.equal(state.pid, child.pid);
    const ended = new Promise((resolve) => { child.on('exit', resolve); });
    child.kill('SIGTERM');
    await ended;
    await assert.rejects(access(ready));
  });

  test('fails with words when the directory is held, cannot be made, or the address is none', async (t) => {
    const data = path.join(scratch, 'held');
    const server = await start(t, { data });
    const second = run(['--ports', 'auto', '--data', data]);
    assert.equal(second.status, 1);
    assert.match(second.stderr, /another server/);
    assert.equal((await fetch(`${server.endpoints.page}/readyz`)).status, 200);
    await server.stop();
    await writeFile(path.join(scratch, 'file'), '');
    const blocked = run(['--ports', 'auto', '--data', path.join(scratch, 'file', 'data')]);
    assert.equal(blocked.status, 1);
    assert.match(blocked.stderr, /file/);
    const nowhere = run(['--ports', 'auto', '--listen', 'example', '--data', data]);
    assert.equal(nowhere.status, 1);
    assert.match(nowhere.stderr, /"example" is not a numeric/);
    const unwritable = run(['--ports', 'auto', '--data', data, '--ready-file', path.join(scratch, 'no', 'such', 'folder')]);
    assert.equal(unwritable.status, 1);
    assert.match(unwritable.stderr, /No such file/);
  });

  test('refuses wrong usage with 2 and explains itself with --help', () => {
    for (const args of [['--ports', 'some'], ['--nothing'], ['extra'], ['--data'], ['--durability', 'maybe'], ['--data=']])
      assert.equal(run(args).status, 2, args.join(' '));
    const help = run(['--help']);
    assert.equal(help.status, 0);
    for (const word of ['--data', '--listen', '--ports', '--ready-file', '4317', '4318', '16686']) assert.ok(help.stdout.includes(word), word);
    assert.equal(help.stderr, '');
  });

  test('listens on IPv6', async (t) => {
    if (!await readFile('/proc/net/if_inet6', 'utf8').then((s) => s.length > 0, () => false)) {
      t.skip('this machine has no IPv6');
      return;
    }
    const server = await start(t, { args: ['--listen', '::1'] });
    assert.match(server.endpoints.otlp_http, /^http:\/\/\[::1\]:\d+$/);
    const traceId = randomHex(32);
    await server.send(otlpRequest('six', [{ traceId }]));
    assert.equal((await server.get(`/api/pugmark/traces/${traceId}`)).spans.length, 1);
    await server.stop();
  });
});

describe('ending', () => {
  test('answers what is under way at SIGTERM, and loses nothing that was answered', async (t) => {
    const data = path.join(scratch, 'drained');
    const first = await start(t, { data });
    const kept = [];
    let refused = 0;
    const sender = async () => {
      for (;;) {
        const traceId = randomHex(32);
        try {
          await first.send(otlpRequest('drained', [{ traceId }, { traceId }]));
          kept.push(traceId);
        } catch {
          refused++;
          return;
        }
      }
    };
    const senders = Array.from({ length: 8 }, sender);
    await until('some answers', () => (kept.length > 100 ? true : undefined));
    const stopped = first.stop();
    await Promise.all(senders);
    await stopped;
    assert.equal(refused, 8);
    const second = await start(t, { data });
    const status = await second.get('/api/pugmark/status');
    assert.ok(Number(status.store.spans) >= 2 * kept.length);
    for (const traceId of kept) assert.equal((await second.get(`/api/pugmark/traces/${traceId}`)).spans.length, 2);
    await second.stop();
  });

  test('goes on after SIGHUP', async (t) => {
    const server = await start(t);
    server.process.kill('SIGHUP');
    await until('the signal to be taken', () => (server.stderr.includes('SIGHUP') ? true : undefined));
    const traceId = randomHex(32);
    await server.send(otlpRequest('after', [{ traceId }]));
    await server.get(`/api/pugmark/traces/${traceId}`);
    await server.stop();
  });

  test('gives the memory of a burst back', async (t) => {
    const server = await start(t);
    if (await memoryMiB(server.process.pid, 'VmSize') > 1 << 20) {
      t.skip('an allocator of a sanitizer keeps what is free');
      return;
    }
    // Nothing of it is kept, so all of it can go.
    const spans = Array.from({ length: 2000 }, () => ({
      traceId: '0'.repeat(32), attributes: [{ key: 'k', value: { stringValue: 'x'.repeat(1000) } }],
    }));
    const before = await memoryMiB(server.process.pid, 'VmRSS');
    await Promise.all(Array.from({ length: 20 }, () => server.send(otlpRequest('burst', spans))));
    const peak = await memoryMiB(server.process.pid, 'VmHWM');
    await until(`memory to be given back (${before} MiB, ${peak} MiB at most)`, async () =>
      (await memoryMiB(server.process.pid, 'VmRSS') < before + (peak - before) / 2 || undefined), 15_000);
    await server.stop();
  });
});

describe('tracing itself', () => {
  const spansOf = async (server) => {
    const { operations } = await server.get('/api/pugmark/operations?service=pugmark');
    return Object.fromEntries(operations.map((o) => [o.name, Number(o.spanCount)]));
  };

  test('is off unless asked for', async (t) => {
    const server = await start(t);
    await server.send(otlpRequest('plain', [{}]));
    await sleep(600);
    const { services } = await server.get('/api/pugmark/services');
    assert.deepEqual(services, ['plain']);
    await server.stop();
  });

  for (const [how, options] of [['--trace-self', { args: ['--trace-self'] }], ['PUG_TRACING', { env: { PUG_TRACING: 'true' } }]]) {
    test(`shows requests, but not those that bring its own spans (${how})`, async (t) => {
      const server = await start(t, options);
      for (let i = 0; i < 3; i++) await server.send(otlpRequest('traced', [{}, { traceId: '0'.repeat(32) }]));
      const refused = await fetch(`${server.endpoints.otlp_http}/v1/traces`,
        { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{' });
      assert.equal(refused.status, 400);
      await until('its spans', async () => ((await spansOf(server))['ingest.request'] >= 4 || undefined));

      const found = await server.get('/api/pugmark/search?service=pugmark&operation=ingest.request&limit=100');
      assert.equal(found.traces.length, 4);
      const traces = await Promise.all(found.traces.map((t) => server.get(`/api/pugmark/traces/${t.traceId}`)));
      const taken = traces.filter((t) => t.spans.some((s) => s.name === 'ingest.append'));
      assert.equal(taken.length, 3);
      for (const { spans, resources } of taken) {
        const root = spans.find((s) => s.parentSpanId === '');
        assert.deepEqual(spans.map((s) => s.name).sort(), ['ingest.append', 'ingest.decode', 'ingest.request']);
        for (const s of spans) if (s !== root) assert.equal(s.parentSpanId, root.spanId);
        assert.equal(root.kind, 'SERVER');
        const value = Object.fromEntries(root.attributes.map((a) => [a.key, Object.values(a.value)[0]]));
        assert.equal(value.format, 'json');
        assert.equal(value.spans, '1');
        assert.equal(value['spans.rejected'], '1');
        assert.equal(resources[0].service, 'pugmark');
      }
      const failed = traces.find((t) => !taken.includes(t)).spans.find((s) => s.name === 'ingest.request');
      assert.equal(failed.status.code, 'ERROR');

      // Quiet now: only what these questions cause may come, and nothing of the ingest.
      const before = await spansOf(server);
      await sleep(1500);
      const later = await spansOf(server);
      assert.equal(later['ingest.request'], before['ingest.request']);
      assert.ok(later['web.query'] >= before['web.query']);
      await server.stop();
    });
  }
});
