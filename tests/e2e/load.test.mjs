// `pugmark load`: what it draws, sends, sends again and counts.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';

import { PUGMARK, Server } from './lib.mjs';

const START = '1700000000000000000';

async function load(...args) {
  const child = spawn(PUGMARK, ['load', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr']) {
    child[stream].setEncoding('utf8').on('data', (text) => { output[stream] += text; });
  }
  const [status] = await once(child, 'close');
  return { status, ...output };
}

/** An OTLP receiver that answers the n-th request with what `answer` says of it. */
async function receiver(answer) {
  const requests = [];
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      const { status = 200, headers = {}, body = Buffer.alloc(0) } = answer(requests.length);
      requests.push({ path: request.url, type: request.headers['content-type'], at: Date.now(), body: Buffer.concat(chunks) });
      response.writeHead(status, { 'content-type': 'application/x-protobuf', ...headers }).end(body);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    requests,
    url: `http://127.0.0.1:${server.address().port}`,
    stop: () => { server.closeAllConnections(); server.close(); },
  };
}

/** The messages of a length-delimited file. */
function messages(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length;) {
    let length = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      length += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    assert.ok(at + length <= bytes.length, 'a message ends beyond the file');
    found.push(bytes.subarray(at, at + length));
    at += length;
  }
  return found;
}

test('a server takes all that was drawn, and says so', async () => {
  const server = await Server.start();
  try {
    const { status, stdout, stderr } =
      await load('--otlp', server.endpoints.otlp_http, '--traces', '250', '--batch', '40', '--json');
    assert.equal(status, 0, stderr);
    const result = JSON.parse(stdout);
    assert.equal(result.spansDrawn, 2500);
    assert.equal(result.spansAcked, 2500);
    assert.equal(result.spansRejected, 0);
    assert.equal(result.spansRefused, 0);
    assert.equal(result.posts, 7);
    const state = await server.get('/api/pugmark/status');
    assert.equal(state.store.spans, '2500');
    const { services } = await server.get('/api/pugmark/services');
    assert.equal(services.length, 10);
  } finally {
    await server.stop();
  }
});

// Its entropy is 36 bytes; the log that is left behind, the catalogue and the checksums count as well.
test('the data set takes at most 45 bytes a span on disk', async () => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-load-'));
  try {
    const server = await Server.start({ data: scratch });
    const { status, stdout, stderr } =
      await load('--otlp', server.endpoints.otlp_http, '--traces', '5000', '--json');
    assert.equal(status, 0, stderr);
    await server.stop();
    const { spansAcked, entropyBytesPerSpan } = JSON.parse(stdout);
    let bytes = 0;
    for (const name of await readdir(scratch)) bytes += (await stat(path.join(scratch, name))).size;
    const perSpan = bytes / spansAcked;
    assert.ok(perSpan > entropyBytesPerSpan, `${perSpan} bytes a span are fewer than there can be`);
    assert.ok(perSpan <= 45, `${perSpan} bytes a span`);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
});

test('a seed and a start always give the same bytes, in a file as on the wire', async () => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-load-'));
  const target = await receiver(() => ({}));
  try {
    const file = async (name, ...args) => {
      const out = path.join(scratch, name);
      const { status, stderr } = await load('--out', out, '--traces', '60', '--batch', '25', '--start', START, ...args);
      assert.equal(status, 0, stderr);
      return readFile(out);
    };
    const first = await file('a', '--seed', '7');
    assert.deepEqual(await file('b', '--seed', '7'), first);
    assert.notDeepEqual(await file('c', '--seed', '8'), first);
    const inFile = messages(first);
    assert.equal(inFile.length, 3);

    const { status, stderr } = await load('--otlp', target.url, '--traces', '60', '--batch', '25', '--start', START,
      '--seed', '7', '--connections', '1', '--prepare');
    assert.equal(status, 0, stderr);
    assert.deepEqual(target.requests.map((request) => request.body), inFile);
    assert.ok(target.requests.every((r) => r.path === '/v1/traces' && r.type === 'application/x-protobuf'));
  } finally {
    target.stop();
    await rm(scratch, { recursive: true, force: true });
  }
});

test('what was refused for now is sent again, not before its time', async () => {
  const target = await receiver((nth) =>
    (nth === 0 ? { status: 503, headers: { 'retry-after': '1' } } : nth === 1 ? { status: 429 } : {}));
  try {
    const { status, stdout, stderr } =
      await load('--otlp', target.url, '--traces', '20', '--batch', '10', '--connections', '1', '--json');
    assert.equal(status, 0, stderr);
    const result = JSON.parse(stdout);
    assert.equal(result.spansAcked, 200);
    assert.equal(result.retries, 2);
    const { requests } = target;
    assert.equal(requests.length, 4);
    assert.deepEqual(requests[1].body, requests[0].body);
    assert.deepEqual(requests[2].body, requests[0].body);
    assert.notDeepEqual(requests[3].body, requests[0].body);
    assert.ok(requests[1].at - requests[0].at >= 990, 'Retry-After was not waited for');
  } finally {
    target.stop();
  }
});

test('what was refused for good and what was rejected is counted, and the exit status tells', async () => {
  // partial_success { rejected_spans: 3 }
  const partial = Buffer.from([0x0a, 0x02, 0x08, 0x03]);
  const target = await receiver((nth) => (nth === 0 ? { status: 400 } : nth === 1 ? { body: partial } : {}));
  try {
    const { status, stdout } =
      await load('--otlp', target.url, '--traces', '30', '--batch', '10', '--connections', '1', '--json');
    assert.equal(status, 1);
    const result = JSON.parse(stdout);
    assert.equal(result.spansRefused, 100);
    assert.equal(result.spansRejected, 3);
    assert.equal(result.spansAcked, 197);
  } finally {
    target.stop();
  }
});

test('says once why it was refused; the address may end in slashes', async () => {
  const text = Buffer.from('\x08\x03\x12\x07no room');
  const target = await receiver(() => ({ status: 400, body: text }));
  try {
    const { status, stderr } = await load('--otlp', `${target.url}//`, '--traces', '30', '--batch', '10');
    assert.equal(status, 1);
    assert.equal(stderr, `pugmark load: ${target.url}/v1/traces answered with HTTP status 400: no room\n`);
    assert.ok(target.requests.every((request) => request.path === '/v1/traces'));
  } finally {
    target.stop();
  }
});

test('a lost connection does not lose the figures', async () => {
  const target = await receiver((nth) => {
    if (nth === 1) target.stop();
    return {};
  });
  const { status, stdout, stderr } =
    await load('--otlp', target.url, '--traces', '30', '--batch', '10', '--connections', '1', '--json');
  assert.equal(status, 1);
  assert.match(stderr, /^pugmark load: http.*: ./);
  assert.equal(JSON.parse(stdout).spansAcked, 100);
});

test('a rate is kept', async () => {
  const target = await receiver(() => ({}));
  try {
    const { status, stdout, stderr } =
      await load('--otlp', target.url, '--traces', '60', '--batch', '1', '--rate', '1000', '--json');
    assert.equal(status, 0, stderr);
    // The last of 600 spans at 1000 a second is due after 590 ms.
    assert.ok(JSON.parse(stdout).seconds >= 0.55, stdout);
  } finally {
    target.stop();
  }
});

test('nobody there, and nonsense asked', async () => {
  const target = await receiver(() => ({}));
  target.stop();
  const nobody = await load('--otlp', target.url, '--traces', '1');
  assert.equal(nobody.status, 1);
  assert.match(nobody.stderr, /pugmark load: http:\/\/127\.0\.0\.1:\d+\/v1\/traces: /);
  for (const args of [['--traces', '-1'], ['--traces', 'many'], ['--spans-per-trace', '0'], ['--nothing'], ['extra']]) {
    const wrong = await load(...args);
    assert.equal(wrong.status, 2, args.join(' '));
    assert.notEqual(wrong.stderr, '');
  }
  const unwritable = await load('--out', '/nonexistent/file', '--traces', '1');
  assert.equal(unwritable.status, 1);
  assert.match(unwritable.stderr, /cannot write/);
});
