// The processes of the sample system in a run directory, for the tests that want them.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { until } from './lib.mjs';

export const DECOYS = process.env.DECOYS ?? fileURLToPath(new URL('../../build/examples/decoys', import.meta.url));
export const DECKIES = { 'web-01': 'http', 'ssh-01': 'ssh', 'telnet-01': 'telnet' };
export const PIPELINE = ['collector', 'ingester', 'profiler', 'correlation', 'api'];

// A test that fails leaves nothing running.
const children = new Set();
process.on('exit', () => { for (const child of children) child.kill('SIGKILL'); });

/** The processes of one run directory. */
export class System {
  /** Without a server it is not traced. `without`: names of programs that are not started; `args`: of a program, by name. */
  static async start(server, without = [], args = {}) {
    const system = new System();
    system.dir = await mkdtemp(path.join(tmpdir(), 'pugmark-decoys-'));
    system.env = { ...process.env };
    delete system.env.PUG_TRACING;
    if (server) Object.assign(system.env, { PUG_TRACING: 'true', PUG_BACKEND: 'otlp', PUG_OTLP_ENDPOINT: server.endpoints.otlp_http });
    system.running = new Map();
    for (const [name, kind] of Object.entries(DECKIES)) system.run(name, 'decoy', '--kind', kind, '--name', name);
    for (const name of PIPELINE) if (!without.includes(name)) system.run(name, name, ...args[name] ?? []);
    system.ports = {};
    for (const name of [...Object.keys(DECKIES), ...without.includes('api') ? [] : ['api']]) await system.listens(name);
    return system;
  }

  async listens(name) {
    this.ports[name] = await until(`the port of ${name}`, () =>
      readFile(path.join(this.dir, 'ports', name), 'utf8').then(Number, () => undefined));
    return this.ports[name];
  }

  run(name, program, ...args) {
    const child = spawn(path.join(DECOYS, program), ['--dir', this.dir, ...args], { env: this.env, stdio: ['ignore', 'pipe', 'pipe'] });
    child.text = '';
    child.stdout.setEncoding('utf8').on('data', (text) => { child.text += text; });
    child.stderr.setEncoding('utf8').on('data', (text) => { child.text += text; });
    child.ended = once(child, 'exit').finally(() => children.delete(child));
    children.add(child);
    this.running.set(name, child);
    return child;
  }

  async end(name, signal = 'SIGTERM') {
    const child = this.running.get(name);
    this.running.delete(name);
    child.kill(signal);
    const [code] = await child.ended;
    if (signal === 'SIGTERM') assert.equal(code, 0, `${name} ended with ${code}: ${child.text}`);
  }

  /** Ends each with SIGTERM; each must exit 0. What it exported has arrived then. */
  async stop() {
    for (const name of [...this.running.keys()]) await this.end(name);
    await rm(this.dir, { recursive: true });
  }

  /** One intrusion: {traceId, ip}. */
  async intrusion() {
    const driver = this.run('driver', 'driver', '--once');
    const [code] = await driver.ended;
    this.running.delete('driver');
    assert.equal(code, 0, driver.text);
    const [, traceId, ip] = driver.text.match(/^intrusion (\S+) (\S+)$/m);
    return { traceId, ip };
  }

  /** Asks the API as the admin, who logs in first: [status, parsed body]. */
  async ask(pathname, options = {}) {
    const base = `http://127.0.0.1:${this.ports.api}`;
    if (!this.token) {
      const password = await readFile(path.join(this.dir, 'admin-password'), 'utf8');
      const login = await fetch(`${base}/auth/login`, { method: 'POST', body: JSON.stringify({ username: 'admin', password }) });
      this.token = (await login.json()).token;
    }
    const response = await fetch(base + pathname, { headers: { authorization: `Bearer ${this.token}` }, ...options });
    return [response.status, await response.json()];
  }

  async sql(query) {
    const { stdout } = await promisify(execFile)('sqlite3', ['-json', '-readonly', path.join(this.dir, 'decoys.db'), query]);
    return stdout ? JSON.parse(stdout) : [];
  }

  async records() {
    const text = await readFile(path.join(this.dir, 'logs.jsonl'), 'utf8');
    let offset = 0;
    return text.split('\n').slice(0, -1).flatMap((line) => {
      const at = offset;
      offset += Buffer.byteLength(line) + 1;
      try {
        return [{ ...JSON.parse(line), at }];
      } catch { // what a killed collector left half written, or a test put there
        return [];
      }
    });
  }

  /** Sends bytes from an address of its own; resolves to the answer. */
  async talk(decky, from, bytes) {
    const socket = net.connect({ port: this.ports[decky], host: '127.0.0.1', localAddress: from });
    let answer = '';
    socket.setEncoding('latin1').on('data', (text) => { answer += text; });
    socket.end(bytes, 'latin1');
    await once(socket, 'close');
    return answer;
  }

  async rows(count) {
    return until(`${count} rows`, async () => {
      const rows = await this.sql('SELECT * FROM logs ORDER BY id').catch(() => []);
      return rows.length >= count ? rows : undefined;
    });
  }
}

/** The trace as soon as `ready` finds in it what it wants. */
export async function trace(server, traceId, ready) {
  return until(`trace ${traceId}`, async () => {
    const response = await fetch(`${server.endpoints.page}/api/pugmark/traces/${traceId}`);
    if (response.status !== 200) return undefined;
    const found = await response.json();
    for (const span of found.spans) span.service = found.resources[span.resource].service;
    found.by = new Map(found.spans.map((span) => [span.spanId, span]));
    return ready(found) ? found : undefined;
  });
}

export const named = (found, name) => found.spans.filter((span) => span.name === name);
export const parentName = (found, span) => found.by.get(span.parentSpanId)?.name;
export const attribute = (span, key) => {
  const value = span.attributes.find((a) => a.key === key)?.value;
  return value && Object.values(value)[0];
};
