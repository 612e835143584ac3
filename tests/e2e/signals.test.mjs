// Logs and metrics beside spans: what the OpenTelemetry Node SDK and libpugmark send is found by trace, by time and by
// name; what cannot be kept has its answer; and what was acknowledged is there after a kill.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';

import { PUGMARK, Server, otlpRequest, randomHex, until } from './lib.mjs';

const service = fileURLToPath(new URL('./signals_service.cjs', import.meta.url));
const sdkClient = path.join(path.dirname(PUGMARK), 'tests', 'sdk_client');

const now = () => BigInt(Date.now()) * 1_000_000n;

function logsRequest(serviceName, records) {
  return {
    resourceLogs: [{
      resource: { attributes: [{ key: 'service.name', value: { stringValue: serviceName } }] },
      scopeLogs: [{ scope: { name: 'test' }, logRecords: records }],
    }],
  };
}

async function post(server, signal, body, headers = {}) {
  const response = await fetch(`${server.endpoints.otlp_http}/v1/${signal}`, {
    method: 'POST', headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
  });
  return { status: response.status, body: JSON.parse(await response.text()) };
}

for (const protocol of ['grpc', 'http/protobuf', 'http/json']) {
  describe(`the Node SDK over ${protocol}`, () => {
    let server, scratch, sent;
    before(async () => {
      server = await Server.start();
      scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-signals-'));
      const out = path.join(scratch, 'ids.json');
      await promisify(execFile)(process.execPath, [service, out], {
        env: {
          ...process.env, OTEL_SERVICE_NAME: 'shop', OTEL_NODE_RESOURCE_DETECTORS: 'env',
          OTEL_TRACES_EXPORTER: 'otlp', OTEL_LOGS_EXPORTER: 'otlp', OTEL_METRICS_EXPORTER: 'otlp',
          OTEL_EXPORTER_OTLP_PROTOCOL: protocol, OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip',
          OTEL_EXPORTER_OTLP_ENDPOINT: server.endpoints[protocol === 'grpc' ? 'otlp_grpc' : 'otlp_http'],
        },
        timeout: 30_000,
      });
      sent = JSON.parse(await readFile(out, 'utf8'));
    });
    after(async () => {
      await server?.stop();
      await rm(scratch, { recursive: true, force: true });
    });

    test('its logs are found by their trace, with the span each was written in', async () => {
      const { logs, resources, scopes, more } = await server.get(`/api/pugmark/traces/${sent.traceId}/logs`);
      assert.equal(more, false);
      assert.deepEqual(logs.map((l) => [l.spanId, l.severity, l.severityText]),
        [[sent.outer, 9, 'INFO'], [sent.outer, 17, 'ERROR'], [sent.inner, 13, 'WARN']]);
      assert.deepEqual(logs[0].body, { stringValue: 'order taken é' });
      assert.deepEqual(logs[0].attributes, [
        { key: 'order.id', value: { intValue: '17' } }, { key: 'express', value: { boolValue: true } },
        { key: 'weight', value: { doubleValue: 1.5 } },
        { key: 'tags', value: { arrayValue: { values: [{ stringValue: 'a' }, { stringValue: 'b' }] } } },
      ]);
      assert.deepEqual(logs[1].body.kvlistValue.values[0], { key: 'code', value: { intValue: '42' } });
      assert.equal(logs[2].eventName, 'bank.slow');
      assert.equal(resources[logs[0].resource].service, 'shop');
      assert.deepEqual(scopes[logs[0].scope], { name: 'shop.log', version: '2.0.0' });
      const trace = await server.get(`/api/pugmark/traces/${sent.traceId}`);
      assert.deepEqual(trace.spans.map((s) => s.spanId).sort(), [sent.outer, sent.inner].sort());
    });

    test('its logs are found by time, newest first, and page by page', async () => {
      const all = (await server.get('/api/pugmark/logs?since=1h&service=shop')).logs;
      assert.equal(all.length, 4);
      assert.equal(all.filter((l) => l.traceId === '').length, 1);
      const paged = [];
      for (let cursor = ''; cursor !== undefined;) {
        const page = await server.get(`/api/pugmark/logs?limit=3&cursor=${cursor}`);
        paged.push(...page.logs);
        cursor = page.cursor;
      }
      assert.deepEqual(paged.map((l) => l.body), all.map((l) => l.body));
      assert.equal((await server.get('/api/pugmark/logs?severity=13')).logs.length, 2);
      assert.equal((await server.get('/api/pugmark/logs?service=other')).logs.length, 0);
    });

    test('its metrics are there by name, with types, units and numbers', async () => {
      const { metrics } = await server.get('/api/pugmark/metrics/names');
      assert.deepEqual(metrics.map((m) => [m.name, m.type, m.unit, m.monotonic]), [
        ['shop.duration', 'histogram', 's', undefined], ['shop.orders', 'sum', '{order}', true],
        ['shop.queue.depth', 'sum', '', false]]);
      const { series } = await server.get('/api/pugmark/series?name=shop.orders&service=shop');
      assert.deepEqual(series.map((s) => [s.attributes[0].value.stringValue, s.temporality,
        Number(s.points.at(-1).asInt ?? s.points.at(-1).asDouble)]).sort(), [['gift', 'cumulative', 4], ['own', 'cumulative', 6]]);
      assert.equal(series[0].resource.service, 'shop');
      assert.equal(series[0].scope.name, 'shop.meter');
      const histogram = (await server.get('/api/pugmark/series?name=shop.duration')).series[0].points.at(-1);
      assert.equal(histogram.count, '4');
      assert.equal(histogram.sum, 9007.021);
      assert.equal(histogram.bucketCounts.map(Number).reduce((a, b) => a + b), 4);
      assert.equal(histogram.bucketCounts.length, histogram.explicitBounds.length + 1);
    });
  });
}

describe('libpugmark', () => {
  test('sends metrics that are kept: names, types and counts', async () => {
    const server = await Server.start();
    await promisify(execFile)(sdkClient, [], {
      env: {
        ...process.env, PUG_TRACING: 'true', PUG_METRICS: 'true', PUG_BACKEND: 'otlp', OTEL_SERVICE_NAME: 'measured',
        PUG_OTLP_ENDPOINT: server.endpoints.otlp_http,
      },
      timeout: 30_000,
    });
    const { metrics } = await server.get('/api/pugmark/metrics/names');
    const types = Object.fromEntries(metrics.map((m) => [m.name, `${m.type} ${m.temporality} ${m.unit}`]));
    assert.match(types['traces.span.metrics.calls'], /^sum cumulative/);
    assert.match(types['traces.span.metrics.duration'], /^exponential_histogram cumulative ns/);
    const of = async (name) => Object.fromEntries((await server.get(`/api/pugmark/series?name=${name}&service=measured`)).series
      .map((s) => [Object.fromEntries(s.attributes.map((a) => [a.key, a.value.stringValue]))['span.name'], s.points.at(-1)]));
    const calls = await of('traces.span.metrics.calls');
    assert.deepEqual([calls['client.request'].asInt, calls['client.handle'].asInt], ['1', '1']);
    const durations = await of('traces.span.metrics.duration');
    assert.deepEqual([durations['client.request'].count, durations['client.handle'].count], ['1', '1']);
    assert.ok(durations['client.request'].sum >= durations['client.handle'].sum);
    await server.stop();
  });
});

describe('the receivers of logs and metrics', () => {
  let server;
  before(async () => { server = await Server.start(); });
  after(async () => { await server.stop(); });

  test('say what they left out in the words of the protocol', async () => {
    const metric = (data) => ({ resourceMetrics: [{ scopeMetrics: [{ metrics: [{ name: 'm', ...data }] }] }] });
    let answer = await post(server, 'metrics', metric({ summary: { dataPoints: [{ count: '1' }, {}] } }));
    assert.deepEqual([answer.status, answer.body.partialSuccess.rejectedDataPoints], [200, '2']);
    assert.match(answer.body.partialSuccess.errorMessage, /summaries are not kept/);
    answer = await post(server, 'metrics', metric({ gauge: { dataPoints: [{ asInt: 1, timeUnixNano: String(now()) }] } }));
    assert.deepEqual([answer.status, answer.body], [200, {}]);
    answer = await post(server, 'logs', logsRequest('x', [{ body: { stringValue: 'a'.repeat(5_000_000) } }, {}]));
    assert.deepEqual([answer.status, answer.body.partialSuccess.rejectedLogRecords], [200, '1']);
  });

  test('refuse what is no request, and other types', async () => {
    for (const signal of ['logs', 'metrics']) {
      const answer = await post(server, signal, '{"resourceLogs":[3],"resourceMetrics":[3]}');
      assert.equal(answer.status, 400, signal);
      assert.match(answer.body.message, /byte \d+ of \d+/);
      assert.equal((await post(server, signal, 'x', { 'content-type': 'text/plain' })).status, 415);
      assert.equal((await fetch(`${server.endpoints.otlp_http}/v1/${signal}`)).status, 405);
    }
  });

  test('take gzip', async () => {
    const body = gzipSync(JSON.stringify(logsRequest('zipped', [{ timeUnixNano: String(now()) }])));
    assert.equal((await post(server, 'logs', body, { 'content-encoding': 'gzip' })).status, 200);
    assert.equal((await server.get('/api/pugmark/logs?service=zipped')).logs.length, 1);
  });

  test('count every record by its fate', async () => {
    const text = await (await fetch(`${server.endpoints.page}/metrics`)).text();
    const value = (name) => Number(text.match(new RegExp(`^${name} (\\d+)$`, 'm'))[1]);
    for (const what of ['logs', 'points'])
      assert.equal(value(`pugmark_ingest_${what}_received_total`),
        value(`pugmark_ingest_${what}_stored_total`) + value(`pugmark_ingest_${what}_refused_total`));
    assert.equal(value('pugmark_ingest_points_refused_total'), 2);
    assert.equal(value('pugmark_records_points'), 1);
  });

  test('say what is wrong with a question', async () => {
    for (const [question, parameter] of [['logs?limit=0', 'limit'], ['logs?cursor=x', 'cursor'], ['logs?severity=25', 'severity'],
      ['logs?since=never', 'since'], ['series', 'name'], ['series?name=m&start=9&end=3', 'end']]) {
      const response = await fetch(`${server.endpoints.page}/api/pugmark/${question}`);
      assert.equal(response.status, 400, question);
      assert.equal((await response.json()).error.parameter, parameter, question);
    }
    assert.equal((await fetch(`${server.endpoints.page}/api/pugmark/traces/xyz/logs`)).status, 400);
    assert.deepEqual((await server.get(`/api/pugmark/traces/${randomHex(32)}/logs`)).logs, []);
  });
});

test('acknowledged logs and points are there after kill -9, each once', async () => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-signals-'));
  const data = path.join(scratch, 'data');
  const traceId = randomHex(32);
  const acknowledged = new Set();
  for (let round = 0; round < 3; round++) {
    const server = await Server.start({ data });
    let stop = false;
    const senders = [0, 1, 2, 3].map(async (sender) => {
      for (let i = 0; !stop; i++) {
        const body = `${round}-${sender}-${i}`;
        try {
          const answer = await post(server, 'logs', logsRequest('killed', [
            { traceId, spanId: randomHex(16), timeUnixNano: String(now()), body: { stringValue: body } }]));
          if (answer.status === 200) acknowledged.add(body);
        } catch { return; }
      }
    });
    const wanted = acknowledged.size + 30;
    await until('some answers', async () => (acknowledged.size >= wanted ? true : undefined));
    await server.kill();
    stop = true;
    await Promise.all(senders);
  }
  const server = await Server.start({ data });
  const { logs, more } = await server.get(`/api/pugmark/traces/${traceId}/logs?limit=10000`);
  assert.equal(more, false);
  const found = logs.map((l) => l.body.stringValue);
  assert.equal(new Set(found).size, found.length, 'a record is there twice');
  assert.deepEqual([...acknowledged].filter((body) => !found.includes(body)), []);
  await server.send(otlpRequest('killed', [{ traceId }]));
  assert.equal((await server.get(`/api/pugmark/traces/${traceId}`)).spanCount, 1);
  await server.stop();
  const { stdout } = await promisify(execFile)(PUGMARK, ['store', 'verify', '--json', data]);
  const verified = JSON.parse(stdout);
  assert.deepEqual([verified.damaged, verified.records], [0, found.length]);
  await rm(scratch, { recursive: true, force: true });
});
