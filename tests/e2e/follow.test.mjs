// Followed files: every line becomes what docs/followed-files.md says, exactly once, whatever happens to the file and to
// the server meanwhile.

import assert from 'node:assert/strict';
import { appendFileSync, closeSync, copyFileSync, existsSync, openSync, renameSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { Server, randomHex, until } from './lib.mjs';

const traceOf = (traceId, spanId = randomHex(16)) => ({ traceparent: `00-${traceId}-${spanId}-01` });
const line = (record) => `${JSON.stringify(record)}\n`;

/** The attribute `n` of each span of a trace. */
async function numbers(server, traceId) {
  const response = await fetch(`${server.endpoints.page}/api/pugmark/traces/${traceId}`);
  if (response.status === 404) return [];
  return (await response.json()).spans.map((s) => Number(s.attributes.find((a) => a.key === 'n').value.intValue));
}

async function fate(server, name) {
  const text = await (await fetch(`${server.endpoints.page}/metrics`)).text();
  return Number(text.match(new RegExp(`^pugmark_follow_lines_total\\{fate="${name}"\\} (\\d+)$`, 'm'))[1]);
}

describe('a followed file', () => {
  let server, dir, file;
  before(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'pugmark-follow-'));
    file = path.join(dir, 'orders.json');
    server = await Server.start({ args: ['--follow', file, '--follow', path.join(dir, '*.log')] });
  });
  after(async () => {
    await server?.stop();
    await rm(dir, { recursive: true, force: true });
  });

  test('becomes spans below the context of each line, with times, names and attributes', async () => {
    const traceId = randomHex(32);
    const parent = randomHex(16);
    appendFileSync(file, line({ msg: 'order taken', n: 1, time: '2026-01-02T03:04:05.5Z', _trace: traceOf(traceId, parent) })
      + line({ name: 'order.pay', n: 2, start: 1767323045, duration_ms: 250, service: 'bank', kind: 'CLIENT', _trace: traceOf(traceId, parent) }));
    const trace = await until('both spans', async () => ((await numbers(server, traceId)).length === 2
      ? server.get(`/api/pugmark/traces/${traceId}`) : undefined));
    const [pay, taken] = trace.spans;
    assert.deepEqual([pay.name, pay.durationNano, pay.kind, pay.parentSpanId], ['order.pay', '250000000', 'CLIENT', parent]);
    assert.deepEqual([taken.name, taken.durationNano, taken.parentSpanId], ['log line', '0', parent]);
    assert.equal(taken.startUnixNano, '1767323045500000000');
    assert.deepEqual(taken.attributes[0], { key: 'msg', value: { stringValue: 'order taken' } });
    assert.deepEqual([trace.resources[taken.resource].service, trace.resources[pay.resource].service], ['orders', 'bank']);
  });

  test('waits for the end of a line, and takes files that come later', async () => {
    const traceId = randomHex(32);
    const late = path.join(dir, 'late.log');
    const whole = line({ n: 3, _trace: traceOf(traceId) });
    writeFileSync(late, whole.slice(0, 20));
    appendFileSync(file, line({ n: 4, _trace: traceOf(traceId) }));
    await until('the other file', async () => ((await numbers(server, traceId)).length === 1 ? true : undefined));
    appendFileSync(late, whole.slice(20));
    await until('the rest of the line', async () => ((await numbers(server, traceId)).length === 2 ? true : undefined));
  });

  test('gives each line its service, however many services there are', async () => {
    const traceId = randomHex(32);
    const lines = Array.from({ length: 150 }, (_, n) => line({ n, service: `service-${n}`, _trace: traceOf(traceId) }));
    appendFileSync(file, lines.join(''));
    const trace = await until('all of them', async () => ((await numbers(server, traceId)).length === 150
      ? server.get(`/api/pugmark/traces/${traceId}`) : undefined));
    for (const span of trace.spans) {
      const n = span.attributes.find((a) => a.key === 'n').value.intValue;
      assert.equal(trace.resources[span.resource].service, `service-${n}`);
    }
  });

  test('keeps logs that name their trace, counts what is nothing, and says where', async () => {
    const traceId = randomHex(32);
    appendFileSync(file, line({ message: 'slow bank', level: 'warn', time: new Date().toISOString(), otel_trace_id: traceId, otel_span_id: randomHex(16) })
      + 'Not JSON at all\n' + '{"plain":1}\n\n' + `{"long":"${'x'.repeat(2 << 20)}"}\n` + line({ n: 5, _trace: traceOf(traceId) }));
    await until('the last line', async () => ((await numbers(server, traceId)).length === 1 ? true : undefined));
    const { logs } = await server.get(`/api/pugmark/traces/${traceId}/logs`);
    assert.deepEqual(logs.map((l) => [l.body.stringValue, l.severity, l.service]), [['slow bank', 13, 'orders']]);
    assert.deepEqual([await fate(server, 'log'), await fate(server, 'passed'), await fate(server, 'invalid')], [1, 2, 2]);
    assert.match(server.stderr, /orders\.json:155: /);
    assert.equal(server.stderr.match(/orders\.json:\d+: /g).length, 1);
  });
});

for (const how of ['rename', 'copytruncate']) {
  for (const copies of ['outside of the pattern', 'inside it']) {
    test(`every line is there once: ${how}, rotated files ${copies}, kill -9 meanwhile`, async () => {
      const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-follow-'));
      const data = path.join(scratch, 'data');
      const file = path.join(scratch, 'app.json');
      const args = ['--follow', copies === 'inside it' ? `${file}*` : file];
      const traces = [randomHex(32), randomHex(32), randomHex(32)];
      let server = await Server.start({ data, args });
      let written = 0, rotations = 0, stop = false;
      const write = () => {
        const many = 1 + Math.floor(Math.random() * 40);
        let text = '';
        for (let i = 0; i < many; i++, written++) text += line({ n: written, pad: 'p'.repeat(Math.random() * 300), _trace: traceOf(traces[written % 3]) });
        // In two parts, so that a reader meets half a line.
        const at = Math.floor(Math.random() * text.length);
        const fd = openSync(file, 'a');
        writeSync(fd, text.slice(0, at));
        writeSync(fd, text.slice(at));
        closeSync(fd);
      };
      const rotate = () => {
        if (!existsSync(file)) return;
        rotations++;
        const old = `${file}.${rotations}`;
        if (how === 'rename') renameSync(file, old);
        else { copyFileSync(file, old); truncateSync(file, 0); }
      };
      const writer = (async () => {
        while (!stop) {
          write();
          if (Math.random() < 0.1) rotate();
          await sleep(Math.random() * 15);
        }
      })();
      for (let kill = 0; kill < 3; kill++) {
        const target = written + 500;
        await until('lines', async () => (written >= target ? true : undefined), 20_000);
        await server.kill();
        await sleep(Math.random() * 200); // the writer goes on alone
        server = await Server.start({ data, args });
      }
      stop = true;
      await writer;
      const all = async () => (await Promise.all(traces.map((t) => numbers(server, t)))).flat().sort((a, b) => a - b);
      const expected = Array.from({ length: written }, (_, i) => i);
      const found = await until(`${written} lines`, async () => {
        const now = await all();
        return now.length >= written ? now : undefined;
      }, 20_000).catch(all);
      const missing = expected.filter((n) => !found.includes(n));
      const twice = found.filter((n, i) => i && found[i - 1] === n);
      assert.deepEqual({ missing, twice }, { missing: [], twice: [] }, `${rotations} rotations, ${server.stderr}`);
      assert.ok(rotations > 0);
      await server.stop();
      await rm(scratch, { recursive: true, force: true });
    });
  }
}

test('a file that was renamed, and one that was removed, while the server was away', async () => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-follow-'));
  const data = path.join(scratch, 'data');
  const file = path.join(scratch, 'app.json');
  const traceId = randomHex(32);
  let server = await Server.start({ data, args: ['--follow', file] });
  writeFileSync(file, line({ n: 0, _trace: traceOf(traceId) }));
  await until('the first line', async () => ((await numbers(server, traceId)).length === 1 ? true : undefined));
  await server.stop();
  appendFileSync(file, line({ n: 1, _trace: traceOf(traceId) }));
  renameSync(file, `${file}.1`);
  writeFileSync(file, line({ n: 2, _trace: traceOf(traceId) }));
  server = await Server.start({ data, args: ['--follow', file] });
  await until('three lines', async () => ((await numbers(server, traceId)).length === 3 ? true : undefined));
  rmSync(file);
  writeFileSync(file, line({ n: 3, _trace: traceOf(traceId) }));
  await until('four lines', async () => ((await numbers(server, traceId)).length === 4 ? true : undefined));
  assert.deepEqual((await numbers(server, traceId)).sort(), [0, 1, 2, 3]);
  await server.stop();
  await rm(scratch, { recursive: true, force: true });
});

test('a file that is all one trace goes on after kill -9 as quickly as any other', async () => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-follow-'));
  const data = path.join(scratch, 'data');
  const file = path.join(scratch, 'app.json');
  const traceId = randomHex(32);
  const lines = 40_000;
  writeFileSync(file, Array.from({ length: lines }, (_, n) => line({ n, pad: 'p'.repeat(80), _trace: traceOf(traceId) })).join(''));
  let server = await Server.start({ data, args: ['--follow', file] });
  await until('a quarter of them', async () => ((await fate(server, 'span')) >= lines / 4 ? true : undefined), 60_000);
  await server.kill();
  server = await Server.start({ data, args: ['--follow', file] });
  const all = async () => (await server.get(`/api/pugmark/traces/${traceId}/outline`)).spanCount;
  // Comparing each line with the whole trace would take some minutes.
  await until('the rest', async () => ((await all()) === lines ? true : undefined), 40_000);
  const taken = await fate(server, 'span') + await fate(server, 'repeated');
  assert.ok(taken <= lines * 3 / 4 + 2000, `${taken} lines were read after the start`);
  await server.stop();
  await rm(scratch, { recursive: true, force: true });
});

test('the files to follow may stand in the configuration', async () => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-follow-'));
  const config = path.join(scratch, 'pugmark.toml');
  const traceId = randomHex(32);
  writeFileSync(config, `[server]\nfollow = ["${scratch}/a.json", "${scratch}/b*.json"]\n`);
  writeFileSync(path.join(scratch, 'a.json'), line({ n: 1, _trace: traceOf(traceId) }));
  writeFileSync(path.join(scratch, 'bee.json'), line({ n: 2, _trace: traceOf(traceId) }));
  const server = await Server.start({ args: ['--config', config] });
  await until('both lines', async () => ((await numbers(server, traceId)).length === 2 ? true : undefined));
  await server.stop();
  await rm(scratch, { recursive: true, force: true });
});
