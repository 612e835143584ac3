// docs/openapi.json, as the server gives it: it has every route of our own API and no other, every path in it answers, and what is
// answered (here, and in the golden files) is what its schemas say, with nothing beside it.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';

import { otlpRequest, Server } from './lib.mjs';

const require = createRequire(import.meta.url);
const Ajv = require('ajv/dist/2020').default;

const A = '0af7651916cd43dd8448eb211c80319c';
let server;
let doc;
let ajv;

/** What an answer has only when the store is damaged. */
const whenDamaged = ({ $ref }) => /\/Partial(Message)?$/.test($ref ?? '');

/** Objects whose keys are listed have no others: so that an answer cannot grow without its schema. */
function close(node) {
  if (Array.isArray(node)) node.forEach(close);
  else if (node && typeof node === 'object') {
    if (node.type === 'object' && node.properties && node.required?.length === Object.values(node.properties).filter((p) => !whenDamaged(p)).length) node.additionalProperties ??= false;
    Object.values(node).forEach(close);
  }
}

const pointer = (...parts) => `openapi#/${parts.map((p) => encodeURIComponent(String(p).replaceAll('~', '~0').replaceAll('/', '~1'))).join('/')}`;

/** The path of the document that a path of a URL is of. */
function pathOf(pathname) {
  return Object.keys(doc.paths)
    .filter((p) => new RegExp(`^${p.replace(/\{\w+\}/g, '[^/]+').replaceAll('.', '\\.')}$`).test(pathname))
    .sort((a, b) => a.split('{').length - b.split('{').length)[0];
}

function check(url, method, status, type, body) {
  const path = pathOf(url.split('?')[0]);
  assert.ok(path, `${url} is not in the document`);
  let at = ['paths', path, method, 'responses', status];
  let answer = doc.paths[path][method].responses[status];
  assert.ok(answer, `${method} ${path} has no answer ${status}`);
  if (answer.$ref) {
    at = answer.$ref.slice(2).split('/');
    answer = at.reduce((o, key) => o[key], doc);
  }
  assert.ok(answer.content[type], `${method} ${path} ${status} is no ${type}`);
  if (type !== 'application/json') return;
  const validate = ajv.compile({ $ref: pointer(...at, 'content', type, 'schema') });
  assert.ok(validate(body), `${method} ${url} ${status}: ${ajv.errorsText(validate.errors)}\n${JSON.stringify(body).slice(0, 500)}`);
}

before(async () => {
  server = await Server.start();
  const now = BigInt(Date.now()) * 1_000_000n;
  const attributes = [{ key: 'a', value: { stringValue: 'b' } }, { key: 'list', value: { arrayValue: { values: [{ intValue: '1' }, {}] } } }];
  await server.send(otlpRequest('front', [
    { traceId: A, spanId: 'a000000000000001', name: 'GET /', kind: 2, attributes, events: [{ timeUnixNano: String(now), name: 'e', attributes }] },
    { traceId: A, spanId: 'a000000000000002', parentSpanId: 'a000000000000001', name: 'call', kind: 3, status: { code: 2, message: 'no' },
      links: [{ traceId: A, spanId: 'a000000000000001', attributes }] },
    { traceId: A, spanId: 'a000000000000003', parentSpanId: 'a0000000000000ff', name: 'lost' }]));
  const post = async (what, body) => assert.equal((await fetch(`${server.endpoints.otlp_http}/v1/${what}`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })).status, 200);
  const resource = { attributes: [{ key: 'service.name', value: { stringValue: 'front' } }] };
  await post('logs', { resourceLogs: [{ resource, scopeLogs: [{ scope: { name: 'l' }, logRecords: [
    { timeUnixNano: String(now), observedTimeUnixNano: String(now + 1n), traceId: A, spanId: 'a000000000000001', severityNumber: 9, severityText: 'INFO', body: { stringValue: 'hi' }, attributes }] }] }] });
  await post('metrics', { resourceMetrics: [{ resource, scopeMetrics: [{ scope: { name: 'm' }, metrics: [
    { name: 'orders', unit: '1', sum: { aggregationTemporality: 2, isMonotonic: true, dataPoints: [{ startTimeUnixNano: String(now - 1n), timeUnixNano: String(now), asInt: '4', attributes }] } },
    { name: 'heat', gauge: { dataPoints: [{ timeUnixNano: String(now), asDouble: 1.5 }] } }] }] }] });
  doc = await server.get('/api/pugmark/openapi.json');
  const strict = structuredClone(doc);
  close(strict.paths);
  close(strict.components);
  ajv = new Ajv({ strict: false, allErrors: true });
  ajv.addSchema(strict, 'openapi');
});
after(() => server?.stop());

describe('the OpenAPI document', () => {
  test('is the one in docs/, of version 3.1, and whole in itself', async () => {
    assert.deepEqual(doc, JSON.parse(await readFile(new URL('../../docs/openapi.json', import.meta.url), 'utf8')));
    assert.match(doc.openapi, /^3\.1\./);
    const ids = new Set();
    for (const [path, item] of Object.entries(doc.paths))
      for (const [method, operation] of Object.entries(item)) {
        assert.ok(!ids.has(operation.operationId), operation.operationId);
        ids.add(operation.operationId);
        assert.ok(operation.summary && operation.responses['200'], `${method} ${path}`);
        const named = (path.match(/\{\w+\}/g) ?? []).map((p) => p.slice(1, -1));
        assert.deepEqual((operation.parameters ?? []).filter((p) => p.in === 'path').map((p) => p.name), named, path);
      }
    for (const [, ref] of JSON.stringify(doc).matchAll(/"\$ref":"#\/([^"]+)"/g))
      assert.ok(ref.split('/').reduce((o, key) => o?.[key], doc), ref);
  });

  test('has every route of our own API with its method, and no other', async () => {
    const table = await readFile(new URL('../../src/web/web.c', import.meta.url), 'utf8');
    const routes = [...table.matchAll(/\{"(\/[^"]*)",\s*\w+,\s*DIALECT_\w+,\s*\w+(?:,\s*METHOD_(\w+))?\}/g)]
      .map(([, path, method]) => `${(method ?? 'GET').toLowerCase()} ${path}`)
      .filter((route) => / (\/api\/pugmark\/|\/healthz$|\/readyz$|\/metrics$)/.test(route));
    assert.ok(routes.length > 20, `${routes}`);
    const paths = Object.entries(doc.paths).flatMap(([path, item]) => Object.keys(item).map((method) => `${method} ${path.replace(/\{\w+\}/g, '*')}`));
    assert.deepEqual(paths.sort(), routes.sort());
  });

  test('every path in it answers, as its schema says', async () => {
    const of = `/api/pugmark/traces/${A}`;
    const asked = {
      search: '?q=%7B%7D&limit=1', operations: '?service=front', metrics: '?q=%7B%7D%20%7C%20rate()%20by%20(name)%20with(exemplars=3)', series: '?name=orders', traceFind: '?q=call&step=next&row=0',
      traceWindow: '?lines=10', parse: '?q=%7B%7D', traceOverview: '?width=100', live: '?q=%7B%7D', deleteSpans: '?q=%7B%20name%20%3D%20%22lost%22%20%7D', redactSpans: '?key=a',
      ledger: `?trace=${A}`,
    };
    for (const [path, item] of Object.entries(doc.paths))
      for (const [method, { operationId }] of Object.entries(item)) {
        const url = path.replace('/api/pugmark/traces/{id}', of).replace('{spanId}', 'a000000000000002').replace('{tag}', 'name') + (asked[operationId] ?? '');
        const stop = new AbortController();
        const response = await fetch(server.endpoints.page + url, { method: method.toUpperCase(), signal: stop.signal });
        const type = response.headers.get('content-type').split(';')[0];
        assert.equal(response.status, 200, `${method} ${url}`);
        check(url, method, 200, type, type === 'application/json' ? await response.json() : undefined);
        stop.abort();
      }
  });

  test('what is asked wrongly is answered as it says', async () => {
    for (const url of ['search?limit=0', 'search?q=%7B', 'metrics', 'traces/xyz', 'traces/ff', 'live?q=%7B', `traces/${A}/window?lines=x`, `traces/ff/outline`, 'logs?limit=0', 'breakdown?values=0', 'breakdown?q=%7B%7D%20%7C%20rate()', 'breakdown?start=2&end=1', `traces/${A}/operations?limit=0`, 'series', 'ledger', 'ledger?trace=x']) {
      const response = await fetch(`${server.endpoints.page}/api/pugmark/${url}`);
      assert.ok(response.status === 400 || response.status === 404, url);
      check(`/api/pugmark/${url}`, 'get', response.status, response.headers.get('content-type'), await response.json());
    }
  });

  test('the golden answers are what it says', async () => {
    let n = 0;
    for (const file of ['own', 'bad'])
      for (const { url, status, body } of Object.values(JSON.parse(await readFile(new URL(`../golden/api/${file}.json`, import.meta.url), 'utf8')))) {
        if (!url.startsWith('/api/pugmark/') || url === '/api/pugmark/nothing' || body.scanned === 'now') continue;
        if (body.scanned) Object.assign(body.scanned, Object.fromEntries(Object.keys(doc.components.schemas.Scanned.properties)
          .filter((k) => !(k in body.scanned)).map((k) => [k, k.startsWith('parts') || k.startsWith('groups') ? 0 : '0'])));
        check(url, 'get', status, 'application/json', body);
        n++;
      }
    assert.ok(n > 30, `${n} answers`);
  });

  test('a schema that is broken would be seen', () => {
    assert.throws(() => check('/api/pugmark/services', 'get', 200, 'application/json', { services: [1] }));
    assert.throws(() => check('/api/pugmark/services', 'get', 200, 'application/json', { services: [], more: 1 }));
    assert.throws(() => check('/api/pugmark/nothing', 'get', 200, 'application/json', {}));
  });
});
