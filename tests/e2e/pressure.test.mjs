// Clients that misbehave: thousands that say nothing, some that trickle, some that never read their answers. Others are
// served as ever meanwhile, and memory stays where it was said to stay.

import assert from 'node:assert/strict';
import http2 from 'node:http2';
import net from 'node:net';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Server, otlpRequest, until } from './lib.mjs';

const IDLE = Number(process.env.IDLE_CONNECTIONS ?? 5000);

async function residentMiB(server) {
  const status = await readFile(`/proc/${server.process.pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)[1]) / 1024;
}

function opened(url, first) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(new URL(url).port), '127.0.0.1', () => {
      if (first) socket.write(first);
      resolve(socket);
    });
    socket.once('error', reject);
  });
}

async function manyOpened(url, n, first) {
  const sockets = [];
  while (sockets.length < n) {
    const some = Array.from({ length: Math.min(250, n - sockets.length) }, () => opened(url, first));
    sockets.push(...await Promise.all(some));
  }
  for (const socket of sockets) socket.on('error', () => {});
  return sockets;
}

/** How long a span takes to be acknowledged and found. */
async function served(server) {
  const request = otlpRequest('pressure', [{ name: 'meanwhile' }]);
  const began = performance.now();
  await server.send(request);
  const [span] = request.resourceSpans[0].scopeSpans[0].spans;
  const trace = await server.get(`/api/pugmark/traces/${span.traceId}`);
  assert.ok(JSON.stringify(trace).includes(span.spanId));
  return performance.now() - began;
}

test(`${IDLE} connections that say nothing keep nobody out`, async () => {
  const server = await Server.start();
  try {
    await served(server);
    const before = await residentMiB(server);
    const half = Math.floor(IDLE / 2);
    const idle = [
      ...await manyOpened(server.endpoints.otlp_http, half),
      ...await manyOpened(server.endpoints.otlp_grpc, IDLE - half, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0'),
    ];
    const ms = await served(server);
    const after = await residentMiB(server);
    console.log(`# ${idle.length} idle connections: ${(after - before).toFixed(1)} MiB; a span meanwhile took ${ms.toFixed(0)} ms`);
    assert.ok(after - before < 400, `${after - before} MiB for ${idle.length} connections`);
    // A connection is made once the kernel has it; the server takes it up in its own time.
    await until(`the server to count ${IDLE} connections`, async () => {
      const metrics = await (await fetch(`${server.endpoints.page}/metrics`)).text();
      const now = [...metrics.matchAll(/^pugmark_\w*connections\w*(?:\{[^}]*\})? (\d+)/gm)].reduce((sum, m) => sum + Number(m[1]), 0);
      return now >= IDLE ? true : undefined;
    });
    for (const socket of idle) socket.destroy();
  } finally {
    await server.stop();
  }
});

test('heads and bodies that come a byte at a time delay nobody', async () => {
  const server = await Server.start();
  try {
    const head = 'POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n';
    const slow = [
      ...await manyOpened(server.endpoints.otlp_http, 100),
      ...await manyOpened(server.endpoints.otlp_http, 100, head),
      ...await manyOpened(server.endpoints.page, 50),
    ];
    let at = 0;
    const timer = setInterval(() => {
      for (const socket of slow.slice(0, 100)) socket.write(head[at % head.length]);
      for (const socket of slow.slice(100)) socket.write(' ');
      at++;
    }, 50);
    for (let i = 0; i < 10; i++) {
      const ms = await served(server);
      assert.ok(ms < 5000, `${ms} ms`);
    }
    clearInterval(timer);
    for (const socket of slow) socket.destroy();
  } finally {
    await server.stop();
  }
});

/** A trace large enough that its answers fill every buffer on the way. */
async function largeTrace(server) {
  const traceId = 'abcdef0123456789abcdef0123456789';
  const text = 'x'.repeat(1000);
  for (let part = 0; part < 4; part++) {
    await server.send(otlpRequest('large', Array.from({ length: 2000 }, (_, i) => ({
      traceId, name: `part ${part} span ${i}`, attributes: [{ key: 'text', value: { stringValue: text + i } }],
    }))));
  }
  return traceId;
}

test('clients that never read their answers cost bounded memory, and others nothing', async () => {
  const server = await Server.start();
  try {
    const traceId = await largeTrace(server);
    const get = `GET /api/pugmark/traces/${traceId} HTTP/1.1\r\nHost: ${new URL(server.endpoints.page).host}\r\n\r\n`;
    await server.get(`/api/pugmark/traces/${traceId}`);
    const before = await residentMiB(server);
    const deaf = await manyOpened(server.endpoints.page, 20, get.repeat(20));
    const live = await manyOpened(server.endpoints.page, 20, `GET /api/pugmark/live HTTP/1.1\r\nHost: ${new URL(server.endpoints.page).host}\r\n\r\n`);
    for (const socket of [...deaf, ...live]) socket.pause();
    const h2 = http2.connect(server.endpoints.otlp_grpc, { settings: { initialWindowSize: 1 } });
    h2.on('error', () => {});
    for (let i = 0; i < 50; i++) {
      const stream = h2.request({ ':method': 'POST', ':path': '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
        'content-type': 'application/grpc', te: 'trailers' });
      stream.on('error', () => {});
      stream.pause();
      stream.end(Buffer.from([0, 0, 0, 0, 0]));
    }
    let most = 0;
    for (let i = 0; i < 30; i++) {
      const ms = await served(server);
      assert.ok(ms < 5000, `${ms} ms`);
      await server.send(otlpRequest('noise', Array.from({ length: 200 }, (_, k) => ({ name: `noise ${k}` }))));
      most = Math.max(most, await residentMiB(server));
      await sleep(50);
    }
    console.log(`# 20 unread answers of 8 MB, 20 unread tails: ${(most - before).toFixed(1)} MiB`);
    assert.ok(most - before < 640, `${most - before} MiB`);
    for (const socket of [...deaf, ...live]) socket.destroy();
    h2.destroy();
    await until('the memory to come back', async () => ((await residentMiB(server)) < before + 200 ? true : undefined), 30_000);
  } finally {
    await server.stop();
  }
});
