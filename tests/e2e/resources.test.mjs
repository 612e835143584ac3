// Resources by their fingerprint: listed, found in queries, the same in memory, when sealed, and by whatever receiver.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { otlpRequest, randomHex, Server } from './lib.mjs';

let scratch, server;
const text = (key, value) => ({ key, value: { stringValue: value } });
const base = 1_790_000_000_000_000_000n;

function request(attributes, spans) {
  const r = otlpRequest('x', spans);
  r.resourceSpans[0].resource.attributes = attributes;
  return r;
}
const at = (seconds) => { const t = base + BigInt(seconds) * 1_000_000_000n; return { startTimeUnixNano: String(t), endTimeUnixNano: String(t + 1000n) }; };
const shop = [text('service.name', 'shop'), text('host.name', 'a')];
const other = [text('service.name', 'shop'), text('host.name', 'b')];

before(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-resources-'));
  const data = path.join(scratch, 'data');
  server = await Server.start({ data });
  await server.send(request(shop, [at(10), at(30)]));
  await server.send(request(other, [at(20)]));
  await server.stop(); // sealed
  server = await Server.start({ data });
  await server.send(request([...shop].reverse(), [{ ...at(40), traceId: randomHex(32) }])); // another order
  const zipkin = await fetch(`${server.endpoints.zipkin}/api/v2/spans`, { method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify([{ traceId: randomHex(32), id: randomHex(16), timestamp: Number(base / 1000n), duration: 5, localEndpoint: { serviceName: 'cart' } }]) });
  assert.equal(zipkin.status, 202);
});
after(async () => {
  await server?.stop();
  await rm(scratch, { recursive: true, force: true });
});

const range = `&limit=100&start=${base - 60_000_000_000n}&end=${base + 60_000_000_000n}`;
const search = async (query) => (await server.get(`/api/pugmark/search?q=${encodeURIComponent(query)}${range}`)).traces;
const list = (query = '') => server.get(`/api/pugmark/resources${query}`);

describe('resources', () => {
  test('are listed once each, the one that sent last first, whatever the order of attributes', async () => {
    const { resources, total, more } = await list();
    assert.deepEqual([total, more], [3, false]);
    assert.deepEqual(resources.map((r) => [r.service, r.spanCount, (BigInt(r.firstUnixNano) - base) / 1_000_000_000n, (BigInt(r.lastUnixNano) - base) / 1_000_000_000n]),
      [['shop', '3', 10n, 40n], ['shop', '1', 20n, 20n], ['cart', '1', 0n, 0n]]);
    assert.deepEqual(new Map(resources[0].attributes.map((a) => [a.key, a.value.stringValue])), new Map(shop.map((a) => [a.key, a.value.stringValue])));
    for (const { fingerprint, query } of resources) {
      assert.match(fingerprint, /^[0-9a-f]{16}$/);
      assert.equal(query, `{ resource.pugmark.fingerprint = "${fingerprint}" }`);
    }
  });

  test('can be asked for by service and time, some at a time', async () => {
    assert.deepEqual((await list('?service=cart')).resources.map((r) => r.service), ['cart']);
    assert.equal((await list(`?start=${base + 15_000_000_000n}&end=${base + 35_000_000_000n}`)).total, 2);
    const some = await list('?limit=1');
    assert.deepEqual([some.resources.length, some.total, some.more], [1, 3, true]);
    for (const wrong of ['?limit=0', '?limit=1001', '?start=x', '?start=2&end=1'])
      assert.equal((await fetch(`${server.endpoints.page}/api/pugmark/resources${wrong}`)).status, 400, wrong);
  });

  test('narrow a search, and metrics, to one of them', async () => {
    const { resources } = await list();
    for (const { query, spanCount } of resources) {
      assert.equal((await search(query)).length, Number(spanCount), query);
    }
    assert.equal((await search(resources[0].query.replace('=', '!='))).length, 2);
    assert.equal((await search(`${resources[0].query} >> { name = "none" }`)).length, 0);
    const by = encodeURIComponent('{ } | count_over_time() by (resource.pugmark.fingerprint)');
    const { series } = await server.get(`/api/pugmark/metrics?q=${by}${range}`);
    const labels = series.map((s) => JSON.stringify(s));
    for (const { fingerprint } of resources) assert.equal(labels.filter((l) => l.includes(fingerprint)).length, 1, labels.join('\n'));
  });

  test('are told with each trace', async () => {
    const { resources } = await list();
    const [{ traceId }] = await search(resources[1].query);
    const trace = await server.get(`/api/pugmark/traces/${traceId}`);
    assert.equal(trace.resources[0].fingerprint, resources[1].fingerprint);
  });
});
