// Live spans over server-sent events.

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';

import { Server, otlpRequest, until } from './lib.mjs';

let server;
before(async () => { server = await Server.start(); });
after(async () => { await server.stop(); });

/** A client that keeps every event; `pause` stops reading the socket. */
class Live {
  static async open(query = '') {
    const live = new Live();
    live.events = [];
    live.comments = 0;
    let rest = '';
    live.response = await new Promise((resolve, reject) => {
      live.request = http.get(`${server.endpoints.page}/api/pugmark/live${query}`, { agent: false }, resolve);
      live.request.on('error', reject);
    });
    live.request.removeAllListeners('error').on('error', () => {});
    live.response.on('error', () => {});
    live.response.on('end', () => { live.ended = true; });
    live.response.setEncoding('utf8').on('data', (text) => {
      const blocks = (rest + text).split('\n\n');
      rest = blocks.pop();
      for (const block of blocks) {
        if (block.startsWith(':') || block.startsWith('retry:')) { live.comments++; continue; }
        const [, event, data] = block.match(/^event: (\w+)\ndata: (.*)$/);
        live.events.push({ event, data: JSON.parse(data) });
      }
    });
    await until('the stream to begin', () => (live.comments ? true : undefined));
    return live;
  }

  spans() { return this.events.filter((e) => e.event === 'span').map((e) => e.data); }
  dropped() { return this.events.filter((e) => e.event === 'dropped').reduce((n, e) => n + Number(e.data.count), 0); }
  close() { this.request.destroy(); }
}

const clients = async () => Number((await (await fetch(`${server.endpoints.page}/metrics`)).text()).match(/^pugmark_live_clients (\d+)$/m)[1]);

describe('live spans', () => {
  test('come as they become durable, with what the list needs', async () => {
    const live = await Live.open();
    assert.equal(live.response.headers['content-type'], 'text/event-stream');
    const request = otlpRequest('shop', [{
      traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', parentSpanId: '00f067aa0ba902b7',
      name: 'buy "now"\n', kind: 2, startTimeUnixNano: '1767323045000000001', endTimeUnixNano: '1767323045000000006',
      status: { code: 2, message: 'no' },
    }]);
    await server.send(request);
    await until('the span', () => live.spans()[0]);
    assert.deepEqual(live.spans(), [{
      traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', parentSpanId: '00f067aa0ba902b7',
      service: 'shop', name: 'buy "now"\n', kind: 'SERVER', startUnixNano: '1767323045000000001', durationNano: '5',
      status: 'ERROR',
    }]);
    live.close();
  });

  test('are those that the query asks for', async () => {
    const errors = await Live.open(`?q=${encodeURIComponent('{ status = error && resource.service.name = "shop" }')}`);
    const all = await Live.open('?q=%7B%7D');
    await server.send(otlpRequest('shop', [{ name: 'good' }, { name: 'bad', status: { code: 2 } }]));
    await server.send(otlpRequest('other', [{ name: 'bad elsewhere', status: { code: 2 } }]));
    await until('three spans', () => (all.spans().length === 3 ? true : undefined));
    assert.deepEqual(errors.spans().map((s) => s.name), ['bad']);
    errors.close();
    all.close();
  });

  test('that a slow client misses are counted and told, and nobody waits for it', async () => {
    const slow = await Live.open();
    slow.response.pause();
    const name = 'x'.repeat(1000);
    const sent = 12_000;
    const started = Date.now();
    for (let i = 0; i < sent; i += 1000)
      await server.send(otlpRequest('busy', Array.from({ length: 1000 }, () => ({ name }))));
    assert.ok(Date.now() - started < 20_000);
    slow.response.resume();
    await until('every span to come or to be counted', () =>
      (slow.spans().length + slow.dropped() === sent ? true : undefined), 20_000);
    assert.ok(slow.dropped() > 0, 'some had to be dropped');
    assert.ok(slow.spans().length > 0, 'and some to come');
    slow.close();
  });

  test('end for clients that leave, and have a limit', async () => {
    await until('the others to be gone', async () => ((await clients()) === 0 ? true : undefined));
    const many = await Promise.all(Array.from({ length: 32 }, () => Live.open()));
    assert.equal(await clients(), 32);
    const refused = await fetch(`${server.endpoints.page}/api/pugmark/live`);
    assert.equal(refused.status, 503);
    assert.equal(refused.headers.get('retry-after'), '5');
    assert.match((await refused.json()).error.message, /too many live streams/);
    many.forEach((live) => live.close());
    await until('all to be gone', async () => ((await clients()) === 0 ? true : undefined));
  });

  test('end well when the server does', async () => {
    const live = await Live.open();
    await server.stop();
    await until('the end of the stream', () => live.ended);
  });
});
