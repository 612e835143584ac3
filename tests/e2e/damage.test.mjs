// Answers from which a damaged segment has taken something say so, in every protocol that reads, and those from which nothing is
// missing do not.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import http2 from 'node:http2';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';

import { PUGMARK, Server, otlpRequest } from './lib.mjs';

const T = '0af7651916cd43dd8448eb211c80319c';
const SAYS = /pugmark store verify/;
const now = Date.now();
let data;
let server;

const ns = (ms) => String(BigInt(now + ms) * 1_000_000n);
const span = (spanId, name, more) => ({ traceId: T, spanId, name, kind: 2, startTimeUnixNano: ns(-2000), endTimeUnixNano: ns(-1000), ...more });
/** Of an answer with 200: its header, its body, and its text. */
async function ask(address, pathname, accept = 'application/json') {
  const response = await fetch(server.endpoints[address] + pathname, { headers: { accept } });
  const text = Buffer.from(await response.arrayBuffer()).toString('latin1');
  assert.equal(response.status, 200, `${address} ${pathname}: ${text}`);
  return { partial: response.headers.get('x-pugmark-partial'), text, body: accept === 'application/json' ? JSON.parse(text) : undefined };
}
const run = async (...args) => promisify(execFile)(PUGMARK, [...args, '--server', server.endpoints.page], { timeout: 20_000 });

const seconds = `start=${Math.floor(now / 1000) - 600}&end=${Math.floor(now / 1000) + 600}`;
const own = ['services', 'operations', 'search?q=%7B%7D', 'metrics?q=%7B%7D%20%7C%20rate()', 'tags', 'tags/name/values', `traces/${T}`, `traces/${T}/outline`, `traces/${T}/window`,
  `traces/${T}/overview?width=100`, `traces/${T}/find?q=whole&step=next&row=0`, `traces/${T}/events`, `traces/${T}/spans/b000000000000002`,
  'resources', `traces/${T}/logs`, 'logs', 'metrics/names', 'series?name=m'];
const legacy = ['/api/services', '/api/services/lost/operations', '/api/operations?service=lost', '/api/traces?service=whole&limit=5', `/api/traces/${T}`, `/api/dependencies?endTs=${now + 60_000}&lookback=600000`];
const span3 = `query.service_name=whole&query.start_time_min=${new Date(now - 600_000).toISOString()}&query.start_time_max=${new Date(now + 60_000).toISOString()}`;
const headerOnly = [
  ...['/api/v3/services', '/api/v3/operations?service=lost', `/api/v3/traces?${span3}`, `/api/v3/trace-summaries?${span3}`, `/api/v3/traces/${T}`].map((url) => ['page', url]),
  ...[`/api/traces/${T}`, `/api/v2/traces/${T}`, `/api/search?q=%7B%7D&${seconds}`, '/api/search/tags', '/api/v2/search/tags', '/api/v2/search/tag/name/values'].map((url) => ['tempo', url]),
  ...['/api/v2/services', '/api/v2/spans?serviceName=lost', '/api/v2/traces?limit=5', `/api/v2/trace/${T}`, '/api/v2/autocompleteKeys', `/api/v2/dependencies?endTs=${now + 60_000}`].map((url) => ['zipkin', url]),
];

/** A call of Jaeger's gRPC query service: what its trailers say of it. */
async function jaeger(method, message) {
  const client = http2.connect(server.endpoints.jaeger_grpc);
  const stream = client.request({ ':method': 'POST', ':path': `/jaeger.api_v3.QueryService/${method}`, 'content-type': 'application/grpc', te: 'trailers' });
  const trailers = new Promise((resolve, reject) => { stream.on('trailers', resolve).on('error', reject).resume(); });
  stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]));
  const { 'grpc-status': status, 'x-pugmark-partial': partial } = await trailers;
  client.close();
  assert.equal(String(status), '0', method);
  return partial ?? null;
}
const trace = Buffer.concat([Buffer.from([0x0a, T.length]), Buffer.from(T)]);

/** Every answer there is, for what is the same of all: [what, answer]. */
async function everything() {
  const answers = [];
  for (const url of own) answers.push([url, await ask('page', `/api/pugmark/${url}`)]);
  for (const url of legacy) answers.push([url, await ask('page', url)]);
  for (const [method, message] of [['GetServices', Buffer.alloc(0)], ['GetTrace', trace]])
    answers.push([`gRPC ${method}`, { partial: await jaeger(method, message), text: '' }]);
  for (const [address, url] of headerOnly) answers.push([`${address} ${url}`, await ask(address, url)]);
  return answers;
}

before(async () => {
  data = path.join(await mkdtemp(path.join(tmpdir(), 'pugmark-damage-')), 'data');
  server = await Server.start({ data });
  await server.send(otlpRequest('lost', [span('a000000000000001', 'lost')]));
  const resource = { attributes: [{ key: 'service.name', value: { stringValue: 'lost' } }] };
  for (const [signal, body] of [
    ['logs', { resourceLogs: [{ resource, scopeLogs: [{ logRecords: [{ timeUnixNano: ns(-1500), traceId: T, body: { stringValue: 'lost' } }] }] }] }],
    ['metrics', { resourceMetrics: [{ resource, scopeMetrics: [{ metrics: [{ name: 'm', gauge: { dataPoints: [{ timeUnixNano: ns(-1500), asDouble: 1 }] } }] }] }] }],
  ]) {
    const answer = await fetch(`${server.endpoints.otlp_http}/v1/${signal}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
    assert.equal(answer.status, 200, await answer.text());
  }
  await server.stop(); // seals
  server = await Server.start({ data });
  await server.send(otlpRequest('whole', [span('b000000000000002', 'whole', { parentSpanId: 'a000000000000001' })]));
});
after(async () => {
  await server?.stop();
  await rm(path.dirname(data), { recursive: true, force: true });
});

describe('a store', () => {
  test('that is whole says nothing of damage', async () => {
    for (const [what, { partial, text }] of await everything()) {
      assert.equal(partial, null, what);
      assert.doesNotMatch(text, SAYS, what);
    }
    const { body } = await ask('tempo', `/api/v2/traces/${T}`);
    assert.equal(body.status, 'COMPLETE');
    assert.equal((await run('query', '{}')).stderr, '');
    assert.equal((await run('trace', T)).stderr, '');
  });

  test('with a flipped byte says in every answer that something is missing', async () => {
    await server.stop();
    const records = path.join(data, 'records');
    for (const [dir, end] of [[data, '.seg'], [records, '.rec']]) {
      const name = (await readdir(dir)).filter((file) => file.endsWith(end)).sort()[0];
      const bytes = await readFile(path.join(dir, name));
      bytes[bytes.length - 20] ^= 1;
      await writeFile(path.join(dir, name), bytes);
    }
    server = await Server.start({ data });
    for (const [what, { partial }] of await everything()) assert.equal(partial, 'true', what);
    for (const url of own) {
      const { body } = await ask('page', `/api/pugmark/${url}`);
      assert.equal(body.partial, true, url);
      assert.match(body.message, SAYS, url);
    }
    assert.deepEqual((await ask('page', '/api/pugmark/services')).body.services, ['whole']);
    for (const url of legacy) {
      const { body } = await ask('page', url);
      assert.equal(body.errors?.[0]?.code, 206, url);
      assert.match(body.errors[0].msg, SAYS, url);
    }
    const { body } = await ask('tempo', `/api/v2/traces/${T}`);
    assert.equal(body.status, 'PARTIAL');
    assert.match(body.message, SAYS);
    assert.match((await ask('tempo', `/api/v2/traces/${T}`, 'application/protobuf')).text, /\x18\x01\x22.*pugmark store verify/s);
    for (const args of [['query', '{}'], ['query', '{} | rate()'], ['trace', T], ['trace', T, '--json']]) {
      const { stdout, stderr } = await run(...args);
      assert.match(stdout, args[1] === '{} | rate()' ? /\d/ : /whole/, args.join(' '));
      assert.match(stderr, new RegExp(`^pugmark ${args[0]}: .*pugmark store verify.*\n$`), args.join(' '));
    }
  });

  test('of which nothing that was asked for can be read is an error', async () => {
    const response = await fetch(`${server.endpoints.page}/api/pugmark/traces/ffffffffffffffffffffffffffffffff`);
    assert.equal(response.status, 500);
    assert.equal(response.headers.get('x-pugmark-partial'), null);
  });
});
