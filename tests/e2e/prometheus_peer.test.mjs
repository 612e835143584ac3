// PromQL as Prometheus itself means it: Debian's gets our samples, and answers the same questions.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { Server, until } from './lib.mjs';
import { ACCEPTED, otlpOf, spansOfAnHour, T0 } from './promql.mjs';

const found = (name) => !spawnSync(name, ['--version']).error;
const skip = found('prometheus') && found('promtool') ? false : 'Debian\'s prometheus is not installed';

let server;
let peer;
let peerUrl;
let scratch;

const ask = async (base, pathname, parameters) => {
  const response = await fetch(`${base}/api/v1/${pathname}`, { method: 'POST', body: new URLSearchParams(parameters) });
  return { status: response.status, body: await response.json() };
};

async function freePort() {
  const listener = net.createServer().listen(0, '127.0.0.1');
  await new Promise((done) => listener.once('listening', done));
  const { port } = listener.address();
  await new Promise((done) => listener.close(done));
  return port;
}

const escape = (s) => s.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');

/** All our samples as OpenMetrics. */
async function exposition() {
  const { body } = await ask(server.endpoints.tempo, 'query', { query: '{__name__=~"traces_.*"}[2h]', time: T0 + 4500 });
  const families = new Map();
  for (const { metric, values } of body.data.result) {
    const { __name__: name, ...labels } = metric;
    const text = Object.entries(labels).map(([k, v]) => `${k}="${escape(v)}"`).join(',');
    if (!families.has(name)) families.set(name, []);
    for (const [time, value] of values) families.get(name).push(`${name}{${text}} ${value} ${time}`);
  }
  return `${[...families].map(([name, lines]) => `# TYPE ${name} unknown\n${lines.join('\n')}`).join('\n')}\n# EOF\n`;
}

before(async () => {
  if (skip) return;
  scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-prometheus-'));
  server = await Server.start();
  await server.send(otlpOf(spansOfAnHour()));
  await writeFile(path.join(scratch, 'samples'), await exposition());
  const data = path.join(scratch, 'data');
  const made = spawnSync('promtool', ['tsdb', 'create-blocks-from', 'openmetrics', path.join(scratch, 'samples'), data], { encoding: 'utf8' });
  assert.equal(made.status, 0, made.stderr);
  await writeFile(path.join(scratch, 'config.yml'), 'global: {}\n');
  // Somebody else may take the port in between.
  peerUrl = await until('Prometheus to be ready', async () => {
    if (!peer || peer.exitCode !== null) {
      const port = await freePort();
      peerUrl = `http://127.0.0.1:${port}`;
      peer = spawn('prometheus', [`--config.file=${scratch}/config.yml`, `--storage.tsdb.path=${data}`, '--storage.tsdb.retention.time=100y',
        `--web.listen-address=127.0.0.1:${port}`, '--enable-feature=promql-at-modifier,promql-negative-offset'], { stdio: 'ignore' });
      process.once('exit', () => peer.kill('SIGKILL'));
    }
    return fetch(`${peerUrl}/-/ready`).then((r) => (r.ok ? peerUrl : undefined), () => undefined);
  }, 60_000);
});
after(async () => {
  if (peer) {
    const ended = new Promise((done) => peer.once('exit', done));
    peer.kill('SIGKILL');
    await ended;
  }
  await server?.stop();
  if (scratch) await rm(scratch, { recursive: true, force: true });
});

const key = (metric) => JSON.stringify(Object.entries(metric).sort());
const near = (a, b) => a === b || (Number.isNaN(Number(a)) && Number.isNaN(Number(b))) || Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b), 1e-3);

function compare(query, ours, theirs) {
  assert.equal(ours.status, theirs.status, `${query}: ${JSON.stringify(ours.body).slice(0, 300)} is not ${JSON.stringify(theirs.body).slice(0, 300)}`);
  if (theirs.status !== 200) return;
  const [a, b] = [ours.body.data, theirs.body.data];
  assert.equal(a.resultType, b.resultType, query);
  if (a.resultType === 'scalar' || a.resultType === 'string') {
    assert.equal(a.result[0], b.result[0], query);
    assert.ok(a.resultType === 'string' ? a.result[1] === b.result[1] : near(a.result[1], b.result[1]), `${query}: ${a.result} is not ${b.result}`);
    return;
  }
  const order = (list) => [...list].sort((x, y) => (key(x.metric) < key(y.metric) ? -1 : 1));
  const [mine, peers] = [order(a.result), order(b.result)];
  assert.deepEqual(mine.map((s) => key(s.metric)), peers.map((s) => key(s.metric)), query);
  mine.forEach((s, i) => {
    const [v, w] = [s.values ?? [s.value], peers[i].values ?? [peers[i].value]];
    assert.deepEqual(v.map(([t]) => t), w.map(([t]) => t), `${query}: times of ${key(s.metric)}`);
    v.forEach(([t, x], k) => assert.ok(near(x, w[k][1]), `${query}: ${key(s.metric)} at ${t}: ${x} is not ${w[k][1]}`));
  });
}

describe('Prometheus answers the same', { skip }, () => {
  // Not on a sample: whether the left end of a range belongs to it changed between Prometheus 2 and 3.
  const times = [T0 + 3607.5, T0 + 1807.25, T0 + 67.125, T0 - 100];
  test('at an instant', async () => {
    for (const query of ACCEPTED)
      for (const time of times)
        compare(query, await ask(server.endpoints.tempo, 'query', { query, time }), await ask(peerUrl, 'query', { query, time }));
  });
  test('over a range', async () => {
    for (const query of ACCEPTED) {
      const parameters = { query, start: T0 - 187.75, end: T0 + 3652, step: 41 };
      compare(query, await ask(server.endpoints.tempo, 'query_range', parameters), await ask(peerUrl, 'query_range', parameters));
    }
  });
});
