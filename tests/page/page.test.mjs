// The page in a browser, on a real server.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { PUGMARK, Server, randomHex, until } from '../e2e/lib.mjs';
import { axeFinds, noBrowser, openBrowser, withPage } from './browser.mjs';
import { bigTrace, hello, hostileTrace, script, shopTrace, text } from './data.mjs';

const skip = noBrowser;
const second = 1_000_000_000n;
let server;
let browser;
let good; // a trace of four spans in three services
let bad; // the same with an error, linked to `good`
let broken; // the same with a missing parent

before(async () => {
  if (skip) return;
  [server, browser] = await Promise.all([Server.start(), openBrowser()]);
  const now = BigInt(Date.now()) * 1_000_000n;
  good = shopTrace({ start: now - 600n * second });
  bad = shopTrace({ start: now - 300n * second, failed: true, scale: 4, links: [{ traceId: good.traceId, spanId: good.ids.query, attributes: [text('why', 'retry')] }] });
  broken = shopTrace({ start: now - 120n * second, orphan: true });
  for (const t of [good, bad, broken]) await server.send(t.request);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const params = (page) => new URL(page.url()).searchParams;
const row = (page, name) => page.locator('.row', { has: page.locator('.name', { hasText: name }) }).first();
const result = (page, t) => page.locator(`.result[data-trace="${t.traceId}"]`);
/** Rows come from the server: waits until the active one is this. */
const active = (page, name) => until(`the row "${name}" to be active`, async () => ((await activeRow(page)) === name ? true : undefined));
const rowCount = (page, n) => until(`${n} rows`, async () => ((await page.locator('.row').count()) === n ? true : undefined));
const activeRow = (page) => page.evaluate(() => {
  const id = document.activeElement?.getAttribute('aria-activedescendant');
  return id ? document.getElementById(id)?.querySelector('.label .name')?.textContent : null;
});

test('the document carries a strict policy and everything comes from the server itself', { skip }, async () => {
  const answer = await fetch(`${server.endpoints.page}/search`);
  const policy = answer.headers.get('content-security-policy');
  assert.match(policy, /default-src 'none'/);
  assert.match(policy, /script-src 'self'(;|$)/);
  assert.match(policy, /style-src 'self'(;|$)/);
  assert.doesNotMatch(policy, /unsafe/);
  const html = await answer.text();
  assert.doesNotMatch(html, /<script(?![^>]*\ssrc=)[^>]*>|<style|\sstyle=|\son\w+=|https?:/);
  const asset = /src="(\/assets\/[^"]+\.js)"/.exec(html)[1];
  const js = await fetch(server.endpoints.page + asset);
  assert.equal(js.status, 200);
  assert.match(js.headers.get('content-type'), /^text\/javascript/);
  assert.match(js.headers.get('cache-control'), /immutable/);
  await withPage(browser, server, '/', async (page) => {
    await result(page, good).waitFor();
    // The check of the policy can see a violation, or it would prove nothing.
    const seen = await page.evaluate(async () => {
      document.body.setAttribute('style', 'color: red');
      await new Promise((done) => setTimeout(done, 0));
      return globalThis.cspViolations.splice(0).length;
    });
    assert.equal(seen, 1);
  }, { expected: /Applying inline style/ });
});

test('search lists traces newest first with their services, errors and durations', { skip }, async () => {
  await withPage(browser, server, '/search', async (page) => {
    await result(page, good).waitFor();
    const ids = await page.locator('.result[data-trace]').evaluateAll((all) => all.map((e) => e.dataset.trace));
    assert.deepEqual(ids.filter((id) => [good, bad, broken].some((t) => t.traceId === id)), [broken, bad, good].map((t) => t.traceId));
    const line = await result(page, bad).innerText();
    for (const part of ['shop-api', 'GET /orders/{id}', 'shop-db', '400 ms', '1']) assert.ok(line.includes(part), `${part} in ${line}`);
    assert.equal(await result(page, bad).locator('.error-count').innerText(), '1');
    assert.equal(await result(page, good).locator('.error-count').count(), 0);
    assert.equal(await result(page, broken).locator('.badge.warn').innerText(), 'incomplete');
    assert.equal(await page.locator('.scatter .mark.failed').count(), 1);
  });
});

test('the scatter points to the list, and dragging over it searches that time', { skip }, async () => {
  await withPage(browser, server, '/search', async (page) => {
    await result(page, bad).waitFor();
    const mark = await page.locator('.scatter .mark.failed').boundingBox();
    await page.mouse.move(mark.x + mark.width / 2, mark.y + mark.height / 2);
    await page.waitForFunction((id) => document.querySelector(`.result[data-trace="${id}"]`).classList.contains('hot'), bad.traceId);
    assert.match(await page.locator('.tip').innerText(), /GET \/orders.*400 ms/s);
    await page.mouse.down();
    await page.mouse.up();
    await page.waitForFunction((id) => document.activeElement.closest('.result')?.dataset.trace === id, bad.traceId);
    await page.mouse.move(mark.x - 15, mark.y + 8);
    await page.mouse.down();
    await page.mouse.move(mark.x + mark.width / 2, mark.y, { steps: 3 });
    await page.mouse.move(mark.x + mark.width + 15, mark.y + 8, { steps: 3 });
    await page.mouse.up();
    await page.waitForURL(/start=\d+/);
    await result(page, good).waitFor({ state: 'detached' });
    await result(page, bad).waitFor();
    const [start, end] = [BigInt(params(page).get('start')), BigInt(params(page).get('end'))];
    assert.ok(start < bad.start && bad.start < end, `${start} < ${bad.start} < ${end}`);
    await page.goBack();
    await result(page, good).waitFor();
  });
});

test('the form narrows by service, operation, TraceQL and duration, and the address keeps it', { skip }, async () => {
  await withPage(browser, server, '/search', async (page) => {
    await result(page, good).waitFor();
    await page.getByRole('combobox', { name: 'Service' }).click();
    await page.getByRole('option', { name: 'shop-db' }).click();
    await page.waitForURL(/service=shop-db/);
    await result(page, good).waitFor();
    await page.getByLabel('TraceQL').fill('{ name = "SELECT orders" }');
    await page.getByLabel('Shortest').fill('100ms');
    await page.keyboard.press('Enter');
    await page.waitForURL(/minDuration=100ms/);
    await result(page, good).waitFor({ state: 'detached' });
    await result(page, bad).waitFor();
    assert.match(await result(page, bad).locator('.c-number').first().innerText(), /4\s*\(1\)/);
    await page.reload();
    await result(page, bad).waitFor();
    assert.equal(await page.getByLabel('TraceQL').inputValue(), '{ name = "SELECT orders" }');
    assert.equal(await page.getByLabel('Shortest').inputValue(), '100ms');
    await page.getByLabel('Shortest').fill('1h');
    await page.keyboard.press('Enter');
    await page.getByText('No trace fulfils this').waitFor();
    await page.getByRole('button', { name: 'of any duration' }).click();
    await result(page, good).waitFor();
  });
});

test('a query is completed from what is stored, with the keyboard, and underlined where it is wrong', { skip }, async () => {
  await withPage(browser, server, '/search', async (page) => {
    await result(page, good).waitFor();
    await page.keyboard.press('/');
    const box = page.getByLabel('TraceQL');
    const option = (name) => page.getByRole('option', { name, exact: true });
    await page.keyboard.type('{ span.http.ro');
    await option('span.http.route').waitFor();
    await page.keyboard.press('Tab');
    await page.keyboard.type('= ');
    await option('"/orders/{id}"').waitFor();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    assert.equal(await box.inputValue(), '{ span.http.route = "/orders/{id}" ');
    await page.keyboard.type('&& sta');
    await page.getByRole('option', { name: /^status/ }).first().waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.type('tus == 5 }');
    await page.locator('.query-mirror mark').waitFor({ state: 'attached' });
    await page.locator('.query-hint').waitFor();
    await box.fill('{ span.http.route = "/orders/{id}" }');
    await page.locator('.query-mirror mark').waitFor({ state: 'detached' });
    await page.keyboard.press('Enter');
    await page.waitForURL(/q=/);
    await result(page, good).waitFor();
  });
});

test('a query that cannot be read is shown with the place, and the server is asked nothing for a bad duration', { skip }, async () => {
  await withPage(browser, server, '/search', async (page) => {
    await page.getByLabel('TraceQL').fill('{ name = "µ" && duration >> 5 }');
    await page.keyboard.press('Enter');
    const error = page.locator('.query-error');
    await error.waitFor();
    assert.equal(await error.locator('code').innerText(), '{ name = "µ" && duration >> 5 }');
    assert.equal(await error.locator('mark').count(), 1);
    await page.locator('.query-mirror mark').waitFor({ state: 'attached' });
    assert.equal(await page.locator('.query-hint').count(), 0, 'said once');
    await page.getByLabel('TraceQL').fill('{ name >< 2 }');
    await page.locator('.query-hint').waitFor();
    assert.equal(await error.count(), 0, 'what is written now is spoken of');
    await page.getByLabel('TraceQL').fill('');
    await page.getByLabel('Shortest').fill('5 parsecs');
    await page.keyboard.press('Enter');
    await page.locator('.form-problem').waitFor();
    assert.equal(params(page).get('minDuration'), null);
  }, { expected: /400 \(Bad Request\)/ });
});

test('from search to a trace to its details and back, with the keyboard alone', { skip }, async () => {
  await withPage(browser, server, '/search?q=%7B%20name%20%3D%20%22SELECT%20orders%22%20%7D', async (page) => {
    await result(page, good).waitFor();
    await page.keyboard.press('/');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'q');
    await page.keyboard.press('Escape');
    const focused = () => page.evaluate(() => document.activeElement.closest('.result')?.dataset.trace);
    for (let i = 0; (await focused()) !== bad.traceId; i++) {
      assert.ok(i < 10, 'j walks over the list');
      await page.keyboard.press('j');
    }
    await page.keyboard.press('Enter');
    await page.waitForURL(`**/trace/${bad.traceId}`);
    await page.locator('.row').first().waitFor();
    await page.keyboard.press('j');
    await active(page, 'GET /orders/{id}');
    await page.keyboard.press('ArrowDown');
    await active(page, 'SELECT orders');
    await page.keyboard.press('ArrowLeft'); // folds
    await rowCount(page, 3);
    await page.keyboard.press('ArrowRight');
    await rowCount(page, 4);
    await page.keyboard.press('ArrowRight');
    await active(page, 'work');
    await page.keyboard.press('ArrowLeft');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.activeElement.classList.contains('detail-body'));
    assert.match(await page.locator('.detail').innerText(), /connection reset/);
    await page.keyboard.press('Escape');
    await active(page, 'SELECT orders');
    await page.keyboard.press('Escape');
    await page.locator('.detail').waitFor({ state: 'detached' });
    await page.keyboard.press('Escape');
    await page.waitForURL('**/search?q=*');
    await page.waitForFunction((id) => document.activeElement.closest('.result')?.dataset.trace === id, bad.traceId);
    await page.keyboard.press('?');
    await page.getByRole('dialog').getByText('Next trace').waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'hidden' });
  });
});

test('details show values of every type, times to the nanosecond, events, resource and scope', { skip }, async () => {
  await withPage(browser, server, `/trace/${bad.traceId}?span=${bad.ids.root}`, async (page) => {
    const detail = page.locator('.detail');
    await detail.waitFor();
    const value = (key) => detail.locator('tr', { has: page.getByRole('rowheader', { name: key, exact: true }) }).locator('td').first();
    const expectValue = async (key, wanted, type) => {
      const shown = await value(key).innerText();
      assert.ok(shown.includes(wanted), `${key} shows ${wanted}: ${shown}`);
      assert.equal(await value(key).locator('.type').first().textContent(), type);
    };
    await expectValue('http.route', '/orders/{id}', 'string');
    await expectValue('big', '9007199254740993', 'int');
    await expectValue('ratio', '0.25', 'double');
    await expectValue('cached', 'true', 'bool');
    await expectValue('raw', '3 bytes: 00 ff 10', 'bytes');
    await expectValue('list', 'one', 'array');
    await expectValue('user', 'ada', 'map');
    const all = await detail.innerText();
    const fraction = String(bad.start % second).padStart(9, '0');
    for (const part of [`.${fraction}`, '400,000,000 ns', 'server', '3 dropped', 'vendor=1', 'host.name', 'shop', '1.2', bad.ids.root])
      assert.ok(all.includes(part), `${part} in ${all}`);
    await row(page, 'SELECT orders').click();
    await page.getByText('connection reset').waitFor();
    const events = page.locator('.events');
    assert.match(await events.innerText(), /\+216 ms[\s\S]*exception[\s\S]*Reset[\s\S]*at query \(db\.c:88\)/);
    assert.equal(await row(page, 'SELECT orders').locator('.event-mark.failed').count(), 1);
    assert.equal(params(page).get('span'), bad.ids.query);
  });
});

test('facts and warnings are at the top: duration, services, errors, missing parents', { skip }, async () => {
  await withPage(browser, server, `/trace/${bad.traceId}`, async (page) => {
    await page.locator('.row').first().waitFor();
    const facts = await page.locator('.facts').innerText();
    for (const part of ['400 ms', '2026', 'Services', '3']) assert.ok(facts.replace(/\s+/g, ' ').includes(part) || part === '2026', `${part} in ${facts}`);
    assert.equal(await page.locator('.notice').count(), 0);
    await page.keyboard.press('e');
    await active(page, 'SELECT orders');
    assert.equal(await page.locator('.row.failed').count(), 1);
  });
  await withPage(browser, server, `/trace/${broken.traceId}`, async (page) => {
    await page.locator('.notice').waitFor();
    assert.match(await page.locator('.notice').innerText(), /one parent span is not here/);
    await page.getByRole('button', { name: 'Show it' }).click();
    await page.waitForURL(new RegExp(`span=${broken.ids.query}`));
    assert.match(await page.locator('.detail').innerText(), /fefefefefefefefe[\s\S]*not in this trace/);
  });
});

test('a link to a span of another trace is followed by a click, and back comes back', { skip }, async () => {
  await withPage(browser, server, `/trace/${bad.traceId}?span=${bad.ids.root}`, async (page) => {
    await page.locator('.links a').click();
    await page.waitForURL(`**/trace/${good.traceId}?span=${good.ids.query}`);
    await page.locator('.detail h2', { hasText: 'SELECT orders' }).waitFor();
    assert.match(await page.locator('.detail').innerText(), /cache miss/);
    await page.goBack();
    await page.locator('.detail h2', { hasText: 'GET /orders/{id}' }).waitFor();
    assert.equal(new URL(page.url()).pathname, `/trace/${bad.traceId}`);
  });
});

test('an attribute finds the traces that have it too', { skip }, async () => {
  await withPage(browser, server, `/trace/${bad.traceId}?span=${bad.ids.root}`, async (page) => {
    const line = page.locator('.detail tr', { has: page.getByRole('rowheader', { name: 'http.route', exact: true }) });
    await line.hover();
    await line.getByRole('link', { name: 'Find traces with this http.route' }).click();
    await page.waitForURL('**/search?q=*');
    assert.equal(params(page).get('q'), '{ span.http.route = "/orders/{id}" }');
    await result(page, good).waitFor();
  });
});

test('dragging over the bars zooms, the address keeps the range, 0 shows the whole again', { skip }, async () => {
  await withPage(browser, server, `/trace/${good.traceId}`, async (page) => {
    await page.locator('.row').first().waitFor();
    const box = await page.locator('.row .cell-bar').first().boundingBox();
    const at = (share) => box.x + box.width * share;
    await page.mouse.move(at(0.25), box.y + 30);
    await page.mouse.down();
    await page.mouse.move(at(0.4), box.y + 34, { steps: 3 });
    await page.mouse.move(at(0.5), box.y + 34, { steps: 3 });
    await page.mouse.up();
    await page.waitForURL(/from=\d+&to=\d+/);
    const [from, to] = [Number(params(page).get('from')), Number(params(page).get('to'))];
    assert.ok(Math.abs(from - 25e6) < 1e6 && Math.abs(to - 50e6) < 1e6, `${from} to ${to}`);
    assert.equal(params(page).get('span'), null, 'a drag selects nothing');
    const zoomed = page.url();
    await page.locator('.minimap-window').waitFor();
    await page.keyboard.press('0');
    await page.locator('.minimap-window').waitFor({ state: 'detached' });
    await page.goBack();
    assert.equal(page.url(), zoomed);
    await page.reload();
    await page.locator('.minimap-window').waitFor();
    assert.match(await page.locator('.elsewhere').first().innerText(), /20 ms/); // render starts 20 ms after the range
  });
});

test('find marks what it finds and steps over it', { skip }, async () => {
  await withPage(browser, server, `/trace/${good.traceId}`, async (page) => {
    await page.locator('.row').first().waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('ORDER');
    await page.getByText('2', { exact: true }).and(page.locator('.find span')).waitFor();
    assert.equal(await page.locator('.row.match').count(), 2);
    await page.keyboard.press('Enter');
    await page.keyboard.press('Enter');
    await page.waitForURL(new RegExp(`span=${good.ids.query}`));
    assert.equal(await page.locator('.find span').innerText(), '2 of 2');
  });
});

test('live shows a span when it is stored, keeps still while paused, and filters', { skip }, async () => {
  await withPage(browser, server, '/live', async (page) => {
    await page.locator('.connection.open').waitFor();
    const one = shopTrace();
    await server.send(one.request);
    const rows = page.locator('.live-row[data-n]');
    await page.locator('.live-row', { hasText: 'GET /orders/{id}' }).waitFor();
    await until('four spans', async () => ((await rows.count()) === 4 ? true : undefined));
    await page.keyboard.press('p');
    await server.send(shopTrace().request);
    await page.getByRole('button', { name: '4 new' }).waitFor();
    assert.equal(await rows.count(), 4);
    await page.keyboard.press('p');
    await until('eight spans', async () => ((await rows.count()) === 8 ? true : undefined));
    await page.getByLabel('TraceQL').fill('{ name = "work" }');
    await page.keyboard.press('Enter');
    await page.waitForURL(/q=/);
    await page.locator('.connection.open').waitFor();
    await until('an empty list', async () => ((await rows.count()) === 0 ? true : undefined));
    // The stream of the new filter may start a moment after the old one has ended: send until it shows.
    await until('a filtered span', async () => {
      await server.send(shopTrace().request);
      await page.waitForTimeout(100);
      return (await rows.count()) > 0 ? true : undefined;
    });
    const names = await page.locator('.live-row[data-n] a').allInnerTexts();
    assert.deepEqual([...new Set(names)], ['work']);
    await page.locator('.live-row[data-n] a').first().click();
    await page.waitForURL(/\/trace\/[0-9a-f]{32}\?span=/);
    await page.locator('.detail h2', { hasText: 'work' }).waitFor();
    await page.goBack();
    await rows.first().waitFor();
    assert.ok((await rows.count()) >= names.length, 'the list is still there');
    assert.equal(await page.locator('.live-row.selected').count(), 1);
  });
});

test('a live page that nobody looks at gives its connection back, and goes on when it is looked at', { skip }, async () => {
  await withPage(browser, server, null, async (page) => {
    let streams = 0;
    const isStream = (r) => r.url().includes('/api/pugmark/live');
    page.on('request', (r) => isStream(r) && streams++);
    for (const end of ['requestfailed', 'requestfinished']) page.on(end, (r) => isStream(r) && streams--);
    await page.clock.install();
    await page.goto(`${server.endpoints.page}/live`);
    await page.clock.runFor(500);
    await page.locator('.connection.open').waitFor();
    const first = shopTrace();
    await server.send(first.request);
    const rows = page.locator('.live-row[data-n]');
    const show = (n) => until(`${n} rows`, async () => {
      await page.clock.runFor(200);
      return (await rows.count()) === n ? true : undefined;
    });
    await show(4);
    const hide = (hidden) => page.evaluate((h) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => h });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
    assert.equal(streams, 1);
    await hide(true);
    await page.clock.runFor(61_000);
    await until('no stream', async () => (streams === 0 ? true : undefined));
    await hide(false);
    await until('a stream', async () => {
      await page.clock.runFor(200);
      return streams === 1 ? true : undefined;
    });
    await page.locator('.connection.open').waitFor();
    await server.send(shopTrace().request);
    await show(8); // the old ones are still there
  });
});

test('live says what is wrong with a filter', { skip }, async () => {
  await withPage(browser, server, `/live?q=${encodeURIComponent('{ duration >> 5 }')}`, async (page) => {
    await page.locator('.query-error').waitFor();
    assert.match(await page.locator('.connection').innerText(), /Not connected/);
  }, { expected: /400 \(Bad Request\)|EventSource/ });
});

test('markup in names and values stays text on every page', { skip }, async () => {
  const evil = hostileTrace();
  await withPage(browser, server, '/live', async (page) => {
    await page.locator('.connection.open').waitFor();
    await server.send(evil.request);
    await page.locator('.live-row', { hasText: script }).waitFor();
  });
  await withPage(browser, server, '/search', async (page) => {
    await result(page, evil).waitFor();
    assert.ok((await result(page, evil).innerText()).includes(script));
    await result(page, evil).hover();
    assert.ok((await page.locator('.tip').innerText()).includes(script));
    await page.getByRole('combobox', { name: 'Service' }).click();
    await page.getByRole('option', { name: hello }).waitFor();
  });
  await withPage(browser, server, `/trace/${evil.traceId}?span=${evil.root}`, async (page) => {
    const detail = page.locator('.detail');
    await detail.waitFor();
    const shown = await detail.innerText();
    for (const part of [script, hello, 'javascript:alert(1)', '</style>', '__proto__']) assert.ok(shown.includes(part), part);
    const made = await page.evaluate(() => ({
      images: document.querySelectorAll('img').length,
      scripts: document.querySelectorAll('script').length,
      links: [...document.querySelectorAll('a')].filter((a) => a.protocol === 'javascript:').length,
      title: document.title,
    }));
    assert.equal(made.images, 0);
    assert.equal(made.scripts, 1);
    assert.equal(made.links, 0);
    assert.ok(made.title.includes(script));
    assert.ok(await detail.isVisible());
  });
});

test('a trace of 20,000 spans opens within two seconds and scrolls', { skip }, async () => {
  const big = bigTrace(20_000);
  for (const request of big.requests) await server.send(request);
  await withPage(browser, server, '/search', async (page) => {
    // The machine may be busy with other tests: the best of three counts.
    let best = Infinity;
    for (let i = 0; i < 3 && best > 2000; i++) {
      const start = Date.now();
      await page.goto(`${server.endpoints.page}/trace/${big.traceId}`);
      await page.locator('.row').first().waitFor();
      best = Math.min(best, Date.now() - start);
    }
    assert.ok(best < 2000, `it took ${best} ms`);
    assert.match((await page.locator('.facts').innerText()).replace(/\s+/g, ' '), /Spans 20,000/);
    const rows = page.locator('.rows');
    assert.equal(await rows.evaluate((e) => e.scrollHeight), 20_000 * 24);
    for (const share of [0.3, 0.77, 1]) {
      await rows.evaluate((e, s) => (e.scrollTop = s * (e.scrollHeight - e.clientHeight)), share);
      const wanted = Math.floor(share * (20_000 - 40));
      await page.waitForFunction((w) => {
        const shown = [...document.querySelectorAll('.row')].map((r) => Number(r.dataset.row));
        return shown.length < 80 && Math.max(...shown) >= w;
      }, wanted);
      const blank = await rows.evaluate((e) => {
        const r = e.getBoundingClientRect();
        return [0.1, 0.5, 0.9].filter((s) => !document.elementFromPoint(r.left + 60, r.top + r.height * s)?.closest('.row')).length;
      });
      assert.equal(blank, 0, `rows in sight at ${share}`);
    }
    await rows.focus();
    await page.keyboard.press('End');
    await page.waitForURL(/span=/);
    await page.keyboard.press('Home');
    await page.waitForURL(new RegExp(`span=${big.root}`));
    await active(page, 'big root');
    await page.keyboard.press('e');
    await page.locator('.row.selected.failed').waitFor();
  });
});

test('a trace of many spans begins with its short ones together, is searched inside, and its end is near', { skip }, async () => {
  const fresh = await Server.start();
  const n = process.env.LONG ? 1_000_000 : 120_000;
  try {
    await promisify(execFile)(PUGMARK, ['load', '--otlp', fresh.endpoints.otlp_http, '--traces', '1', '--spans-per-trace', String(n)]);
    const { traces: [t] } = await fresh.get('/api/pugmark/search');
    await withPage(browser, fresh, null, async (page) => {
      const times = [];
      page.on('requestfinished', (r) => r.url().includes('/window?') && times.push(r.timing().responseEnd));
      await page.goto(`${fresh.endpoints.page}/trace/${t.traceId}`);
      const rows = page.locator('.rows');
      await page.locator('.row.merged').first().waitFor();
      const height = () => rows.evaluate((e) => Number(e.getAttribute('aria-label').replace(/\D/g, '')));
      const together = await height();
      assert.ok(together < n / 3, `${together} lines of ${n}`);
      await page.keyboard.press('m');
      await until('a line for each', async () => ((await height()) === n ? true : undefined));
      const whole = () => page.waitForFunction(() => document.querySelector('.row') && !document.querySelector('.row.loading'));
      for (const share of [0.2, 0.61, 1]) {
        await rows.evaluate((e, s) => (e.scrollTop = s * (e.scrollHeight - e.clientHeight)), share);
        await page.waitForFunction(([s, all]) => [...document.querySelectorAll('.row[data-row]')].some((r) => Number(r.dataset.row) > s * (all - 100)), [share, n]);
        await whole();
      }
      assert.ok((await page.locator('.row').count()) < 80);
      await page.keyboard.press('/');
      await page.keyboard.type('{ status = error && kind = server }');
      await page.waitForFunction(() => /^[\d,]+$/.test(document.querySelector('.find [role=status]')?.textContent ?? ''), null, { timeout: 60_000 });
      await page.keyboard.press('Enter');
      await page.locator('.row.selected.match.failed').waitFor();
      assert.match(await page.locator('.find [role=status]').innerText(), /^1 of /);
      times.sort((a, b) => a - b);
      console.log(`# ${n} spans: ${times.length} windows, the median in ${times[times.length >> 1].toFixed(1)} ms, the slowest in ${times.at(-1).toFixed(1)} ms`);
    });
  } finally {
    await fresh.stop();
  }
});

test('a clock that is wrong is told, and the bars move when it is put right', { skip }, async () => {
  const traceId = randomHex(32);
  const now = BigInt(Date.now()) * 1_000_000n - 60n * second;
  const at = (ms) => String(now + BigInt(ms) * 1_000_000n);
  const [root, call] = [randomHex(16), randomHex(16)];
  const of = (service, spans) => ({ resource: { attributes: [text('service.name', service)] }, scopeSpans: [{ scope: { name: 's' }, spans: spans.map((s) => ({ traceId, ...s })) }] });
  await server.send({ resourceSpans: [
    of('front', [
      { spanId: root, name: 'GET /', kind: 2, startTimeUnixNano: at(0), endTimeUnixNano: at(1000) },
      { spanId: call, parentSpanId: root, name: 'call', kind: 3, startTimeUnixNano: at(100), endTimeUnixNano: at(200) },
    ]),
    of('backend', [{ spanId: randomHex(16), parentSpanId: call, name: 'work', kind: 2, startTimeUnixNano: at(620), endTimeUnixNano: at(680) }]),
  ] });
  await withPage(browser, server, `/trace/${traceId}`, async (page) => {
    await page.locator('.clocks').waitFor();
    assert.match(await page.locator('.clocks').innerText(), /backend is 500 ms ahead \(± 20 ms\)/);
    const left = () => row(page, 'work').locator('.bar').evaluate((e) => parseFloat(e.style.left));
    assert.equal(Math.round(await left()), 62);
    await page.getByRole('button', { name: 'Adjusted' }).click();
    await until('the bar to move', async () => (Math.round(await left()) === 12 ? true : undefined));
    await page.reload();
    await page.locator('.row').first().waitFor();
    await until('the bar to stay', async () => (Math.round(await left()) === 12 ? true : undefined));
    await page.keyboard.press('a');
    await until('the bar to be back', async () => (Math.round(await left()) === 62 ? true : undefined));
  });
});

test('an empty store says how to send a first span, and shows it when it comes', { skip }, async () => {
  const fresh = await Server.start();
  try {
    await withPage(browser, fresh, '/', async (page) => {
      await page.getByText('No span has come yet').waitFor();
      await page.locator('.first', { hasText: fresh.endpoints.otlp_http }).waitFor();
      const first = shopTrace();
      await fresh.send(first.request);
      await result(page, first).waitFor();
    });
  } finally {
    await fresh.stop();
  }
});

test('older traces come on demand, each once, and sorting does not ask again', { skip }, async () => {
  const fresh = await Server.start();
  try {
    const start = BigInt(Date.now()) * 1_000_000n - 900n * second;
    const sent = [];
    for (let i = 0; i < 45; i++) {
      const t = shopTrace({ start: start + BigInt(i) * second, scale: 1 + (i % 9) });
      sent.push(t.traceId);
      await fresh.send(t.request);
    }
    await withPage(browser, fresh, '/search?limit=20', async (page) => {
      const ids = () => page.locator('.result[data-trace]').evaluateAll((all) => all.map((e) => e.dataset.trace));
      await page.getByRole('button', { name: 'Older traces' }).click();
      await until('the second part', async () => ((await ids()).length > 20 ? true : undefined));
      while (await page.getByRole('button', { name: 'Older traces' }).count()) {
        const before = (await ids()).length;
        await page.getByRole('button', { name: 'Older traces' }).click();
        await until('the next part', async () => ((await ids()).length > before || !(await page.getByRole('button', { name: 'Older traces' }).count()) ? true : undefined));
      }
      assert.deepEqual(await ids(), [...sent].reverse());
      let asked = 0;
      page.on('request', (r) => r.url().includes('/search?') && asked++);
      await page.getByRole('columnheader', { name: 'Duration' }).getByRole('button').click();
      await page.waitForURL(/sort=longest/);
      assert.match(await page.locator('.result[data-trace]').first().innerText(), /900 ms/);
      assert.equal(asked, 0);
    });
  } finally {
    await fresh.stop();
  }
});

test('folding by level is in the address, and a link into a fold opens it', { skip }, async () => {
  await withPage(browser, server, `/trace/${good.traceId}`, async (page) => {
    await page.locator('.row').first().waitFor();
    await page.keyboard.press('[');
    await page.waitForURL(/fold=1/);
    await until('three rows', async () => ((await page.locator('.row').count()) === 3 ? true : undefined));
    await page.keyboard.press('[');
    await until('one row', async () => ((await page.locator('.row').count()) === 1 ? true : undefined));
    assert.equal(await page.locator('.folded-count').innerText(), '3');
    await page.goto(`${page.url()}&span=${good.ids.work}`);
    await page.locator('.row.selected').waitFor();
    await rowCount(page, 4);
  });
});

test('an answer that is not what it should be is an error on the page, not a blank one', { skip }, async () => {
  await withPage(browser, server, null, async (page) => {
    await page.route('**/api/pugmark/traces/**', (r) => r.fulfill({ contentType: 'application/json', body: '{"spans":[{"spanId":5}],"resources":[]}' }));
    await page.route('**/api/pugmark/search*', (r) => r.fulfill({ status: 502, contentType: 'text/html', body: '<h1>Bad Gateway</h1>' }));
    await page.goto(`${server.endpoints.page}/trace/${good.traceId}`);
    await page.getByRole('alert').waitFor();
    await page.goto(`${server.endpoints.page}/search`);
    await page.getByRole('alert').getByText('502').first().waitFor();
    await page.unroute('**/api/pugmark/search*');
    await page.getByRole('button', { name: 'Try again' }).click();
    await result(page, good).waitFor();
  }, { expected: /502|Error/ });
});

test('a trace that is not there says so', { skip }, async () => {
  await withPage(browser, server, `/trace/${'0'.repeat(31)}9`, async (page) => {
    await page.getByText('There is no trace').waitFor();
    await page.getByRole('button', { name: 'Look again' }).waitFor();
  }, { expected: /404 \(Not Found\)/ });
});

test('the theme follows the system until it is chosen, and the zone can be UTC', { skip }, async () => {
  const ground = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await withPage(browser, server, `/trace/${good.traceId}?span=${good.ids.root}`, async (page) => {
    await page.locator('.detail').waitFor();
    const dark = await ground(page);
    await page.keyboard.press('t');
    const light = await ground(page);
    assert.notEqual(dark, light);
    const hour = (zone) => new Intl.DateTimeFormat('en-GB', { timeZone: zone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(Number(good.start / 1_000_000n));
    assert.ok((await page.locator('.facts').innerText()).includes(`${hour('Europe/Berlin')}:`));
    await page.keyboard.press('u');
    await page.getByText(/UTC$/).first().waitFor();
    assert.ok((await page.locator('.facts').innerText()).includes(`${hour('UTC')}:`));
    await page.reload();
    await page.locator('.detail').waitFor();
    assert.equal(await ground(page), light);
    assert.match(await page.locator('.facts').innerText(), /UTC/);
  }, { colorScheme: 'dark' });
});

test('a store that is damaged is told above the answer', { skip }, async (t) => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-damaged-'));
  const data = path.join(scratch, 'data');
  t.after(() => rm(scratch, { recursive: true, force: true }));
  const now = BigInt(Date.now()) * 1_000_000n;
  const kept = shopTrace({ start: now - 60n * second });
  for (const lost of [true, false]) {
    const one = await Server.start({ data });
    await one.send((lost ? shopTrace({ start: now - 90n * second }) : kept).request);
    if (!lost)
      await withPage(browser, one, '/search', async (page) => {
        await result(page, kept).waitFor();
        assert.equal(await page.locator('.notice.partial').count(), 0);
      });
    await one.stop();
  }
  const file = path.join(data, (await readdir(data)).filter((name) => name.endsWith('.seg')).sort()[0]);
  const bytes = await readFile(file);
  bytes[bytes.length - 20] ^= 1;
  await writeFile(file, bytes);
  const damaged = await Server.start({ data });
  t.after(() => damaged.stop());
  await withPage(browser, damaged, '/search', async (page) => {
    await result(page, kept).waitFor();
    await page.locator('.notice.partial', { hasText: 'pugmark store verify' }).waitFor();
  });
});

test('a screen reader and weak eyes are served: axe finds nothing, in light and dark', { skip }, async () => {
  for (const colorScheme of ['light', 'dark']) {
    for (const path of ['/search', `/trace/${bad.traceId}?span=${bad.ids.query}`, `/trace/${broken.traceId}`, '/live', '/search?minDuration=1h']) {
      await withPage(browser, server, path, async (page) => {
        await page.locator('.row, .result, .waiting, .nothing').first().waitFor();
        assert.deepEqual(await axeFinds(page), [], `${path} in ${colorScheme}`);
      }, { colorScheme });
    }
  }
});
