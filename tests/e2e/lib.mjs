// What every end-to-end test needs: a real `pugmark serve` on ports of its own, and a few ways to ask it.
// Node 18 is enough.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const PUGMARK = process.env.PUGMARK ?? fileURLToPath(new URL('../../build/pugmark', import.meta.url));

/** Asks `probe` until it gives something other than undefined; fails after `ms`, saying what was waited for. */
export async function until(what, probe, ms = 10_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (Date.now() > end) assert.fail(`waited ${ms} ms for ${what}`);
    await sleep(10);
  }
}

// A test that fails leaves nothing running.
const running = new Set();
process.on('exit', () => { for (const child of running) child.kill('SIGKILL'); });

export class Server {
  /** Starts a server. `data` keeps its directory between two of them; without it a fresh one is made and removed. */
  static async start({ data, args = [], env = {} } = {}) {
    const server = new Server();
    server.scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-test-'));
    server.data = data ?? path.join(server.scratch, 'data');
    const ready = path.join(server.scratch, 'ready.json');
    server.process = spawn(PUGMARK, ['serve', '--ports', 'auto', '--ready-file', ready, '--data', server.data, ...args],
      { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...env } });
    server.stderr = '';
    server.process.stderr.setEncoding('utf8').on('data', (text) => { server.stderr += text; });
    running.add(server.process);
    server.exited = once(server.process, 'exit').finally(() => running.delete(server.process));
    const state = await until('the server to be ready', async () => {
      if (server.process.exitCode !== null) assert.fail(`the server ended: ${server.stderr}`);
      return readFile(ready, 'utf8').then(JSON.parse, () => undefined);
    });
    assert.equal(state.pid, server.process.pid);
    server.endpoints = state.endpoints;
    return server;
  }

  /** SIGTERM, and the exit status must be 0. */
  async stop() {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill('SIGTERM');
      const [code, signal] = await this.exited;
      assert.deepEqual([code, signal], [0, null], `the server did not end well: ${this.stderr}`);
    }
    await rm(this.scratch, { recursive: true, force: true });
  }

  /** SIGKILL; the data directory is left as it is when it was given to `start`. */
  async kill() {
    this.process.kill('SIGKILL');
    await this.exited;
    await rm(this.scratch, { recursive: true, force: true });
  }

  /** GET on the page's address: the parsed body of a 200. */
  async get(pathname) {
    const response = await fetch(this.endpoints.page + pathname);
    const text = await response.text();
    assert.equal(response.status, 200, `GET ${pathname}: ${response.status} ${text}`);
    return JSON.parse(text);
  }

  /** POST of OTLP JSON; resolves to the parsed answer of a 200. */
  async send(request) {
    const response = await fetch(`${this.endpoints.otlp_http}/v1/traces`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(request),
    });
    const text = await response.text();
    assert.equal(response.status, 200, text);
    return JSON.parse(text);
  }
}

/** A number of hex digits, never all zeros. */
export function randomHex(digits) {
  let hex = '';
  while (hex.length < digits) hex += Math.floor(Math.random() * 16).toString(16);
  return `${hex.slice(0, -1)}1`;
}

/** An ExportTraceServiceRequest of one service. Spans need only what a test cares about. */
export function otlpRequest(service, spans) {
  const now = BigInt(Date.now()) * 1_000_000n;
  return {
    resourceSpans: [{
      resource: { attributes: [{ key: 'service.name', value: { stringValue: service } }] },
      scopeSpans: [{
        scope: { name: 'test', version: '1' },
        spans: spans.map((span) => ({
          traceId: randomHex(32),
          spanId: randomHex(16),
          name: 'span',
          kind: 1,
          startTimeUnixNano: String(now),
          endTimeUnixNano: String(now + 1_000_000n),
          ...span,
        })),
      }],
    }],
  };
}
