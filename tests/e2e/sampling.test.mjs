// Remote sampling: what Jaeger's clients poll, from a file that changes while the server runs; the real client must obey.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { PUGMARK, Server, until } from './lib.mjs';

const require = createRequire(import.meta.url);

let dir;
let file;
let server;
/** As an editor saves it: another file in its place. */
const save = async (text) => {
  await writeFile(`${file}.new`, typeof text === 'string' ? text : JSON.stringify(text));
  await rename(`${file}.new`, file);
};
const ask = async (url) => {
  const response = await fetch(server.endpoints.sampling + url);
  return { status: response.status, type: response.headers.get('content-type'), text: await response.text() };
};
const of = async (service) => JSON.parse((await ask(`/sampling?service=${service}`)).text);
const rate = (samplingRate) => ({ strategyType: 'PROBABILISTIC', probabilisticSampling: { samplingRate } });

before(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'pugmark-sampling-'));
  file = path.join(dir, 'strategies.json');
  await save({
    default_strategy: { type: 'probabilistic', param: 0.5 },
    service_strategies: [
      { service: 'few', type: 'ratelimiting', param: 7 },
      { service: 'ops', type: 'probabilistic', param: 0, operation_strategies: [{ operation: 'wanted', type: 'probabilistic', param: 1 }] },
    ],
  });
  server = await Server.start({ args: ['--sampling-strategies', file] });
});
after(async () => {
  await server?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe('remote sampling', () => {
  test('each service gets its strategy, on every path that clients use', async () => {
    for (const url of ['/sampling?service=api', '/api/sampling?service=api', '/?service=api']) {
      const answer = await ask(url);
      assert.deepEqual([answer.status, answer.type], [200, 'application/json'], url);
      assert.deepEqual(JSON.parse(answer.text), rate(0.5));
    }
    assert.deepEqual(await of('few'), { strategyType: 'RATE_LIMITING', rateLimitingSampling: { maxTracesPerSecond: 7 } });
    assert.deepEqual(await of('ops'), { ...rate(0), operationSampling: {
      defaultSamplingProbability: 0, defaultLowerBoundTracesPerSecond: 0, defaultUpperBoundTracesPerSecond: 0,
      perOperationStrategies: [{ operation: 'wanted', probabilisticSampling: { samplingRate: 1 } }],
    } });
    assert.deepEqual(JSON.parse((await ask('/baggageRestrictions?service=api')).text), []);
    for (const url of ['/sampling', '/sampling?service=', '/sampling?service=a&service=b', '/baggageRestrictions'])
      assert.deepEqual(await ask(url), { status: 400, type: 'text/plain; charset=utf-8', text: "'service' parameter must be provided once\n" }, url);
    assert.equal((await ask('/nothing')).status, 404);
  });

  test("Jaeger's client obeys, per operation, and follows a change", async () => {
    const { ConstSampler, NoopReporter, RemoteSampler, Tracer } = require('jaeger-client');
    const { port } = new URL(server.endpoints.sampling);
    const sampler = new RemoteSampler('ops', {
      sampler: new ConstSampler(true), host: '127.0.0.1', port: Number(port), refreshInterval: 20,
      logger: { info() {}, error(message) { assert.fail(message); } },
    });
    const tracer = new Tracer('ops', new NoopReporter(), sampler);
    const sampled = (operation) => tracer.startSpan(operation).context().isSampled();
    try {
      const polled = (want) => until('the tracer to follow', () =>
        (want.every(([operation, yes]) => sampled(operation) === yes) ? true : undefined));
      await polled([['wanted', true], ['other', false]]);
      await save({ service_strategies: [
        { service: 'ops', type: 'probabilistic', param: 1, operation_strategies: [{ operation: 'wanted', type: 'probabilistic', param: 0 }] }] });
      await polled([['wanted', false]]);
      assert.equal(sampled('another'), true); // of operations that it knows the client takes no new default
    } finally {
      await new Promise((resolve) => { tracer.close(resolve); });
    }
  });

  test('a file that is wrong is told once, and the old strategies stay', async () => {
    const before_ = await of('ops');
    await save('{"default_strategy":{"type":"probabilistic","param":2}}');
    await until('the error', async () => {
      assert.deepEqual(await of('ops'), before_);
      return server.stderr.includes('the old ones stay') || undefined;
    });
    assert.match(server.stderr, /strategies\.json: byte \d+: .*a param from 0 to 1.*; the old ones stay/);
    await rm(file);
    await until('the other error', async () => {
      assert.deepEqual(await of('ops'), before_);
      return server.stderr.includes('No such file') || undefined;
    });
    await save({ default_strategy: { type: 'probabilistic', param: 0.25 } });
    await until('the new ones', async () => ((await of('ops')).probabilisticSampling.samplingRate === 0.25 ? true : undefined));
    assert.equal(server.stderr.match(/the old ones stay/g).length, 2);
  });

  test('without a file everything is kept; with a wrong one the server does not start', async () => {
    const other = await Server.start();
    try {
      assert.deepEqual(await (await fetch(`${other.endpoints.sampling}/sampling?service=a`)).json(), rate(1));
    } finally {
      await other.stop();
    }
    await save('{]');
    for (const [name, why] of [[file, /strategies\.json: byte 1: /], [path.join(dir, 'absent'), /No such file/], [dir, /not a file/]]) {
      const run = spawnSync(PUGMARK, ['serve', '--ports', 'auto', '--data', path.join(dir, 'data'), '--sampling-strategies', name], { encoding: 'utf8', timeout: 20_000 });
      assert.equal(run.status, 1, name);
      assert.match(run.stderr, why);
    }
  });
});
