// What the page shows beside the list and the waterfall, in a browser, on a real server.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Server, otlpRequest, randomHex, until } from '../e2e/lib.mjs';
import { axeFinds, noBrowser, openBrowser, withPage } from './browser.mjs';
import { shopTrace, text } from './data.mjs';

const skip = noBrowser;
const second = 1_000_000_000n;
let server;
let browser;
let good; // traces of four spans in three services
let bad;
let linking; // links to a span of `good`

before(async () => {
  if (skip) return;
  [server, browser] = await Promise.all([Server.start(), openBrowser()]);
  const now = BigInt(Date.now()) * 1_000_000n;
  for (let i = 0; i < 20; i++) {
    const failed = i % 5 === 0;
    const trace = shopTrace({
      start: now - BigInt(100 + 10 * i) * second, failed, scale: failed ? 4 : 1,
      attributes: [text('cloud.region', failed ? 'eu-2' : i % 2 ? 'us-1' : 'eu-1'), text('tenant', `t${i}`)],
    });
    if (failed) bad = trace;
    else good = trace;
    await server.send(trace.request);
  }
  linking = shopTrace({ start: now - 50n * second, links: [{ traceId: good.traceId, spanId: good.ids.query, attributes: [] }] });
  await server.send(linking.request);
  const at = (ms) => String(bad.start + BigInt(ms) * 1_000_000n);
  const log = (ms, severityNumber, severityText, spanId, body) => ({
    timeUnixNano: at(ms), severityNumber, severityText, traceId: bad.traceId, spanId, body: { stringValue: body }, attributes: [text('logger', 'app')],
  });
  const answer = await fetch(`${server.endpoints.otlp_http}/v1/logs`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({
      resourceLogs: [{
        resource: { attributes: [text('service.name', 'shop-db')] },
        scopeLogs: [{ scope: { name: 'db' }, logRecords: [
          log(20, 9, 'INFO', bad.ids.root, 'order taken'), log(200, 5, 'DEBUG', bad.ids.query, 'SELECT 1'), log(236, 17, 'ERROR', bad.ids.query, 'connection reset by peer'),
        ] }],
      }],
    }),
  });
  assert.equal(answer.status, 200, await answer.text());
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const params = (page) => new URL(page.url()).searchParams;

test('attributes that tell what was found from the rest come first, and a click takes one into the query', { skip }, async () => {
  await withPage(browser, server, '/search?q=%7B%20status%20%3D%20error%20%7D', async (page) => {
    await page.locator('.result[data-trace]').first().waitFor();
    await page.keyboard.press('b');
    await page.waitForURL(/view=attributes/);
    const card = (key) => page.locator('.field-card', { has: page.getByRole('heading', { name: key, exact: true }) });
    await card('cloud.region').waitFor();
    assert.equal(await page.locator('.result[data-trace]').count(), 0);
    const keys = await page.locator('.field-card h2').allInnerTexts();
    assert.ok(keys.indexOf('cloud.region') < keys.indexOf('tenant'), `${keys}`);
    assert.equal(keys.at(-1), 'status', 'what was asked for is no news');
    // Four of the 84 spans failed, each the query of its trace; regions are on the roots.
    await card('name').getByText('SELECT orders').waitFor();
    assert.match((await card('name').locator('.share').first().innerText()).replace(/\s+/g, ' '), /SELECT orders 100 % 25 %/);
    await page.getByLabel('TraceQL').fill('{ span.http.response.status_code = 500 }');
    await page.keyboard.press('Enter');
    await page.waitForURL(/status_code/);
    await card('cloud.region').getByRole('button', { name: /^Only with cloud.region eu-2: 4 of the 4 found, 4 of all 84/ }).click();
    await page.waitForURL(/eu-2/);
    assert.equal(params(page).get('q'), '{ span.http.response.status_code = 500 && span.cloud.region = "eu-2" }');
    assert.equal(params(page).get('view'), 'attributes');
    await page.getByLabel('TraceQL').fill('{ kind = server }');
    await page.keyboard.press('Enter');
    await page.waitForURL(/kind/);
    await page.locator('.attributes-said', { hasText: /21\s+spans found/ }).waitFor();
    await card('cloud.region').getByRole('button', { name: 'Without cloud.region us-1' }).click();
    await page.waitForURL(/us-1/);
    assert.equal(params(page).get('q'), '{ kind = server && !(span.cloud.region = "us-1") }');
    await card('cloud.region').getByRole('button', { name: /^Only with cloud.region us-1: 0 of/ }).waitFor();
    await page.getByRole('button', { name: 'Traces', exact: true }).click();
    await page.locator('.result[data-trace]').first().waitFor();
    assert.equal(params(page).get('view'), null);
  });
});

test('a trace says where its time went, and shows the spans of an operation', { skip }, async () => {
  await withPage(browser, server, `/trace/${good.traceId}`, async (page) => {
    await page.locator('.row').first().waitFor();
    await page.keyboard.press('o');
    await page.waitForURL(/panel=operations/);
    const lines = page.locator('.operations tbody tr');
    await lines.first().waitFor();
    const said = (await lines.allInnerTexts()).map((t) => t.replace(/\s+/g, ' ').trim());
    assert.equal(said.length, 4);
    // 100 ms in all: work 40, render 25, the root 20, the query 15.
    assert.match(said[0], /shop-worker work 40 ms 40 % 1 40 ms 40 ms/);
    assert.match(said[3], /shop-db SELECT orders 15 ms 15 % 1 55 ms 55 ms/);
    await lines.nth(3).getByRole('button', { name: '55 ms' }).click();
    await page.locator('.detail h2', { hasText: 'SELECT orders' }).waitFor();
    await lines.nth(1).getByRole('button', { name: /render/ }).click();
    await until('the spans of the operation to be marked', async () => ((await page.locator('.row.match').count()) === 1 ? true : undefined));
    await page.reload();
    await lines.first().waitFor();
    await page.getByRole('button', { name: 'Close the panel' }).click();
    await lines.first().waitFor({ state: 'detached' });
    assert.equal(params(page).get('panel'), null);
  });
});

test('logs of a trace stand below the waterfall and beside a span, and lead to their spans', { skip }, async () => {
  await withPage(browser, server, `/trace/${bad.traceId}`, async (page) => {
    await page.locator('.row').first().waitFor();
    await page.locator('.drawer-strip', { hasText: /Logs\s*3/ }).waitFor();
    await page.keyboard.press('i');
    const lines = page.locator('.drawer .log');
    await lines.nth(2).waitFor();
    const said = (await lines.allInnerTexts()).map((t) => t.replace(/\s+/g, ' ').trim());
    assert.deepEqual(said, ['INFO +20 ms shop-db order taken', 'DEBUG +200 ms shop-db SELECT 1', 'ERROR +236 ms shop-db connection reset by peer']);
    await lines.nth(2).getByRole('button', { name: /Show the span of this log/ }).click();
    await page.locator('.detail h2', { hasText: 'SELECT orders' }).waitFor();
    assert.equal(params(page).get('span'), bad.ids.query);
    await until('the logs of the span to be marked', async () => ((await page.locator('.drawer .log.chosen').count()) === 2 ? true : undefined));
    assert.equal(await page.locator('.detail .log').count(), 2);
    await page.getByLabel('of the chosen span').check();
    await lines.nth(2).waitFor({ state: 'detached' });
    await page.getByLabel('Least severity').selectOption('17');
    await lines.nth(1).waitFor({ state: 'detached' });
    await page.locator('.drawer').getByRole('button', { name: 'connection reset by peer', exact: true }).click();
    await page.locator('.drawer .log-more', { hasText: 'logger' }).waitFor();
  });
  await withPage(browser, server, `/trace/${good.traceId}?panel=logs`, async (page) => {
    await page.locator('.drawer-none', { hasText: 'No log was written' }).waitFor();
  });
});

test('links are followed both ways', { skip }, async () => {
  await withPage(browser, server, `/trace/${good.traceId}`, async (page) => {
    await page.locator('.row').first().waitFor();
    await page.getByRole('button', { name: 'Links to this trace' }).click();
    await page.getByRole('status').filter({ hasText: '1 trace links here' }).waitFor();
    await page.locator('.drawer .c-link', { hasText: 'GET /orders/{id}' }).click();
    await page.waitForURL(`**/trace/${linking.traceId}?find=*`);
    await page.locator('.row.match', { hasText: 'GET /orders/{id}' }).waitFor();
    await page.locator('.row.match').click();
    await page.locator('.links a').click();
    await page.waitForURL(`**/trace/${good.traceId}?span=${good.ids.query}`);
  });
  await withPage(browser, server, `/trace/${linking.traceId}?panel=links`, async (page) => {
    await page.locator('.drawer-none', { hasText: 'No span of another trace' }).waitFor();
    await page.getByRole('button', { name: 'Find the spans here that link elsewhere' }).click();
    await page.locator('.row.match', { hasText: 'GET /orders/{id}' }).waitFor();
  });
});

test('a metrics query is drawn, its lines are told and hidden, and a drag searches that time', { skip }, async () => {
  const q = encodeURIComponent('{ } | rate() by (resource.service.name)');
  await withPage(browser, server, `/search?q=${q}&step=1m`, async (page) => {
    const names = page.locator('.series-name');
    await names.nth(2).waitFor();
    assert.deepEqual((await names.allInnerTexts()).map((t) => t.trim()).sort(), ['shop-api', 'shop-db', 'shop-worker']);
    assert.equal(await page.locator('.line path').count(), 3);
    assert.equal(await page.locator('.result[data-trace]').count(), 0);
    assert.match(await page.locator('.legend-panel tbody tr').first().innerText(), /shop-api.*\/s/s);
    await page.locator('.exemplar').first().waitFor({ state: 'attached' });
    await names.first().click();
    await until('the line to be hidden', async () => ((await page.locator('.line path').count()) === 2 ? true : undefined));
    await names.first().click();
    const chart = page.locator('.chart');
    await chart.focus();
    await page.keyboard.press('ArrowLeft');
    await page.locator('.chart .at').waitFor({ state: 'attached' });
    assert.match(await page.locator('.legend-panel thead').innerText(), /\d\d:\d\d:00/);
    const box = await page.locator('.chart svg').boundingBox();
    await page.mouse.move(box.x + box.width * 0.6, box.y + 60);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.7, box.y + 60, { steps: 4 });
    await page.mouse.move(box.x + box.width * 0.95, box.y + 60, { steps: 4 });
    await page.mouse.up();
    await page.waitForURL(/start=\d+/);
    const [start, end] = [BigInt(params(page).get('start')), BigInt(params(page).get('end'))];
    assert.ok(start < end && end - start < 3600n * second, `${start} to ${end}`);
    assert.equal(params(page).get('step'), '1m');
  });
  await withPage(browser, server, `/search?q=${encodeURIComponent('{ } | histogram_over_time(duration)')}`, async (page) => {
    await page.locator('.cells rect').first().waitFor({ state: 'attached' });
    await page.locator('.chart').focus();
    await page.keyboard.press('ArrowRight');
    await page.locator('.chart .tip', { hasText: 'spans' }).waitFor();
  });
  await withPage(browser, server, `/search?q=${encodeURIComponent('{ kind = server } | compare({ span.http.response.status_code = 500 })')}`, async (page) => {
    await page.locator('.field-card', { has: page.getByRole('heading', { name: 'cloud.region' }) }).getByText('eu-2').waitFor();
  });
});

test('the ledger says what became of a trace, and where all spans went', { skip }, async (t) => {
  const strict = await Server.start({ env: { PUG_SERVER_SPANS_MAX: '4' } });
  t.after(() => strict.stop());
  const [kept, refused] = [randomHex(32), randomHex(32)];
  await strict.send(otlpRequest('a', [{ traceId: kept }]));
  await assert.rejects(strict.send(otlpRequest('a', [0, 1, 2, 3, 4].map(() => ({ traceId: refused })))), /limit/);
  await withPage(browser, strict, `/trace/${refused}`, async (page) => {
    await page.getByRole('link', { name: 'Where did it go?' }).click();
    await page.waitForURL(`**/ledger?trace=${refused}`);
    await page.locator('.ledger-said', { hasText: '5 spans were refused' }).waitFor();
    const line = page.getByRole('table', { name: 'What happened to spans of this trace' }).locator('tbody tr');
    assert.match((await line.innerText()).replace(/\s+/g, ' '), /5 Not stored more spans in one request than the limit/);
    const flow = page.locator('.flow');
    const said = async (label) => (await flow.filter({ has: page.getByText(label, { exact: true }) }).locator('.c-number').first().innerText());
    await flow.first().waitFor();
    assert.deepEqual([await said('Received'), await said('Stored'), await said('Refused: more spans in one request than the limit'), await said('On their way'), await said('Here now')],
      ['6', '1', '5', '0', '1']);
    await page.getByLabel('Trace id').last().fill(kept);
    await page.keyboard.press('Enter');
    await page.locator('.ledger-said', { hasText: '1 span is stored' }).waitFor();
    await page.getByRole('link', { name: 'Open the trace' }).click();
    await page.waitForURL(`**/trace/${kept}`);
    await page.locator('.row').first().waitFor();
    await page.getByRole('button', { name: 'Ledger' }).click();
    await page.locator('.drawer .ledger-said', { hasText: '1 span is stored' }).waitFor();
    await page.goto(`${strict.endpoints.page}/ledger`);
    await page.locator('.flow').first().waitFor();
    assert.deepEqual(await axeFinds(page), []);
  }, { expected: /404 \(Not Found\)/ });
});

test('the store says what is kept, how long, and where the room goes', { skip }, async (t) => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-page-'));
  t.after(() => rm(scratch, { recursive: true, force: true }));
  const first = await Server.start({ data: path.join(scratch, 'data') });
  await first.send(good.request);
  await first.send(otlpRequest('b', [{}, {}]));
  await first.stop(); // seals
  const second = await Server.start({ data: path.join(scratch, 'data'), args: ['--retention', '7d', '--disk-max', '64M'] });
  t.after(() => second.stop());
  assert.equal((await fetch(`${second.endpoints.page}/api/archive/${good.traceId}`, { method: 'POST' })).status, 200);
  for (const colorScheme of ['light', 'dark'])
    await withPage(browser, second, '/search', async (page) => {
      await page.getByRole('link', { name: 'Store' }).click();
      await page.waitForURL('**/store');
      await page.getByRole('heading', { name: 'Retention in force' }).waitFor();
      assert.match((await page.getByRole('table', { name: 'Rules of retention' }).locator('tbody').innerText()).replace(/\s+/g, ' '), /all 7 days 0/);
      const facts = (await page.locator('.big-facts').innerText()).replace(/\s+/g, ' ');
      assert.match(facts, /Spans 6 /);
      assert.match(facts, /Disk budget 64\.0 MiB/);
      assert.match(facts, /Pinned traces 1$/);
      await page.getByRole('meter', { name: 'Disk budget used' }).waitFor();
      assert.match((await page.getByRole('table', { name: 'Sealed spans by age' }).locator('tbody tr').first().innerText()).replace(/\s+/g, ' '), /under an hour .* 6 1/);
      assert.equal(await page.getByRole('table', { name: 'Files of sealed spans' }).locator('tbody tr').count(), 1);
      assert.deepEqual(await axeFinds(page), [], colorScheme);
      await page.locator('.pins a').click();
      await page.waitForURL(`**/trace/${good.traceId}`);
    }, { colorScheme });
});

test('a screen reader and weak eyes are served here too: axe finds nothing, in light and dark', { skip }, async () => {
  const views = [
    ['/search?q=%7B%20status%20%3D%20error%20%7D&view=attributes', '.field-card'],
    [`/trace/${bad?.traceId}?panel=operations`, '.operations tbody tr'],
    [`/trace/${bad?.traceId}?panel=logs&span=${bad?.ids.query}`, '.drawer .log'],
    [`/trace/${good?.traceId}?panel=links`, '.drawer .c-link'],
    [`/trace/${good?.traceId}?panel=ledger`, '.drawer .ledger-said'],
    [`/search?q=${encodeURIComponent('{ } | rate() by (resource.service.name)')}`, '.series-name'],
    [`/search?q=${encodeURIComponent('{ } | histogram_over_time(duration)')}`, '.chart'],
  ];
  for (const colorScheme of ['light', 'dark'])
    for (const [path, ready] of views)
      await withPage(browser, server, path, async (page) => {
        await page.locator(ready).first().waitFor();
        assert.deepEqual(await axeFinds(page), [], `${path} in ${colorScheme}`);
      }, { colorScheme });
});
