// What the page shows beside the list and the waterfall, in a browser, on a real server.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Server, until } from '../e2e/lib.mjs';
import { axeFinds, noBrowser, openBrowser, withPage } from './browser.mjs';
import { shopTrace, text } from './data.mjs';

const skip = noBrowser;
const second = 1_000_000_000n;
let server;
let browser;
let good; // traces of four spans in three services
let bad;

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
    // Four of the 80 spans failed, each the query of its trace; regions are on the roots.
    await card('name').getByText('SELECT orders').waitFor();
    assert.match((await card('name').locator('.share').first().innerText()).replace(/\s+/g, ' '), /SELECT orders 100 % 25 %/);
    await page.getByLabel('TraceQL').fill('{ span.http.response.status_code = 500 }');
    await page.keyboard.press('Enter');
    await page.waitForURL(/status_code/);
    await card('cloud.region').getByRole('button', { name: /^Only with cloud.region eu-2: 4 of the 4 found, 4 of all 80/ }).click();
    await page.waitForURL(/eu-2/);
    assert.equal(params(page).get('q'), '{ span.http.response.status_code = 500 && span.cloud.region = "eu-2" }');
    assert.equal(params(page).get('view'), 'attributes');
    await page.getByLabel('TraceQL').fill('{ kind = server }');
    await page.keyboard.press('Enter');
    await page.waitForURL(/kind/);
    await page.locator('.attributes-said', { hasText: /20\s+spans found/ }).waitFor();
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

test('a screen reader and weak eyes are served here too: axe finds nothing, in light and dark', { skip }, async () => {
  const views = [
    ['/search?q=%7B%20status%20%3D%20error%20%7D&view=attributes', '.field-card'],
    [`/trace/${bad?.traceId}?panel=operations`, '.operations tbody tr'],
  ];
  for (const colorScheme of ['light', 'dark'])
    for (const [path, ready] of views)
      await withPage(browser, server, path, async (page) => {
        await page.locator(ready).first().waitFor();
        assert.deepEqual(await axeFinds(page), [], `${path} in ${colorScheme}`);
      }, { colorScheme });
});
