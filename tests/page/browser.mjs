// A headless Chromium on a page that must not complain: a test fails on any console error, uncaught exception,
// violation of the content security policy, or request to anywhere but its server.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const executable = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
  .find((path) => path && existsSync(path));

/** Why the browser tests cannot run here, or false. For node:test's `skip`. */
export const noBrowser = executable ? false : 'no Chromium (apt-get install chromium, or name one in $CHROMIUM)';

export async function openBrowser() {
  return chromium.launch({
    executablePath: executable,
    args: ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
}

/**
 * A fresh page (its own storage) at `path`; `use` gets it. What it complains about fails the test, but for console
 * messages that match `expected` (a request that must fail says so on the console).
 */
export async function withPage(browser, server, path, use, { expected = null, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, timezoneId: 'Europe/Berlin', ...options });
  const complaints = [];
  const origin = new URL(server.endpoints.page).origin;
  try {
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    page.on('console', (m) => ['error', 'warning'].includes(m.type()) && !expected?.test(m.text()) && complaints.push(`console: ${m.text()}`));
    page.on('pageerror', (e) => complaints.push(`exception: ${e.stack}`));
    page.on('request', (r) => !r.url().startsWith('data:') && new URL(r.url()).origin !== origin && complaints.push(`request: ${r.url()}`));
    page.on('dialog', (d) => {
      complaints.push(`dialog: ${d.message()}`);
      void d.dismiss();
    });
    await page.addInitScript(() => {
      globalThis.cspViolations = [];
      document.addEventListener('securitypolicyviolation', (e) => globalThis.cspViolations.push(`${e.violatedDirective}: ${e.blockedURI} ${e.sample}`));
    });
    if (path !== null) await page.goto(origin + path);
    await use(page);
    complaints.push(...(await page.evaluate(() => globalThis.cspViolations)).map((v) => `CSP: ${v}`));
  } finally {
    await context.close();
  }
  assert.deepEqual(complaints, []);
}

/** What axe says against the page as it is now. */
export async function axeFinds(page) {
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'));
  return page.evaluate(async () => (await globalThis.axe.run(document, { resultTypes: ['violations'] })).violations
    .map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target.join(' ')} ${n.any.concat(n.all)[0]?.message ?? ''}`).slice(0, 4).join(' | ')}`));
}
