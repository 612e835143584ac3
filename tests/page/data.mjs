// Spans for the page to show.

import { randomHex } from '../e2e/lib.mjs';

export const text = (key, stringValue) => ({ key, value: { stringValue } });
export const hello = '<img src=x onerror="alert(1)">';
export const script = '"><script>alert(document.domain)</script>';

/** Requests of one shape: an api, its database, a worker. Returns the trace's id and its spans' ids by name. */
export function shopTrace({ start, failed = false, scale = 1, links = [], orphan = false, attributes = [] } = {}) {
  const traceId = randomHex(32);
  const at = start ?? BigInt(Date.now()) * 1_000_000n - 30_000_000_000n;
  const ms = (n) => String(at + BigInt(Math.round(n * scale * 1e6)));
  const ids = { root: randomHex(16), query: randomHex(16), render: randomHex(16), work: randomHex(16) };
  const span = (id, parent, name, kind, from, to, more = {}) => ({
    traceId, spanId: id, parentSpanId: parent, name, kind, startTimeUnixNano: ms(from), endTimeUnixNano: ms(to), ...more,
  });
  const resource = (service, spans) => ({
    resource: { attributes: [text('service.name', service), text('host.name', 'm1')] },
    scopeSpans: [{ scope: { name: 'shop', version: '1.2' }, spans }],
  });
  return {
    traceId, ids, start: at,
    request: {
      resourceSpans: [
        resource('shop-api', [
          span(ids.root, '', 'GET /orders/{id}', 2, 0, 100, {
            traceState: 'vendor=1',
            attributes: [
              ...attributes,
              text('http.route', '/orders/{id}'),
              { key: 'http.response.status_code', value: { intValue: failed ? '500' : '200' } },
              { key: 'big', value: { intValue: '9007199254740993' } },
              { key: 'ratio', value: { doubleValue: 0.25 } },
              { key: 'cached', value: { boolValue: true } },
              { key: 'raw', value: { bytesValue: Buffer.from([0, 255, 16]).toString('base64') } },
              { key: 'list', value: { arrayValue: { values: [{ stringValue: 'one' }, { intValue: '2' }] } } },
              { key: 'user', value: { kvlistValue: { values: [text('name', 'ada')] } } },
            ],
            droppedAttributesCount: 3,
            links,
          }),
          span(ids.render, ids.root, 'render', 1, 70, 95),
        ]),
        resource('shop-db', [
          span(ids.query, orphan ? 'fefefefefefefefe' : ids.root, 'SELECT orders', 3, 5, 60, {
            status: failed ? { code: 2, message: 'connection reset' } : {},
            events: failed
              ? [{ timeUnixNano: ms(59), name: 'exception', attributes: [text('exception.type', 'Reset'), text('exception.stacktrace', 'at query (db.c:88)')] }]
              : [{ timeUnixNano: ms(10), name: 'cache miss', attributes: [text('key', 'order:1')] }],
          }),
        ]),
        resource('shop-worker', [span(ids.work, ids.query, 'work', 5, 10, 50)]),
      ],
    },
  };
}

/** A trace that tries to become markup wherever a string can be. */
export function hostileTrace() {
  const traceId = randomHex(32);
  const now = BigInt(Date.now()) * 1_000_000n;
  const root = randomHex(16);
  return {
    traceId, root,
    request: {
      resourceSpans: [{
        resource: { attributes: [text('service.name', hello), text(script, hello)] },
        scopeSpans: [{
          scope: { name: hello, version: script },
          spans: [{
            traceId, spanId: root, name: script, kind: 2, startTimeUnixNano: String(now - 5_000_000n), endTimeUnixNano: String(now),
            traceState: '', attributes: [
              text(hello, script), text('url', 'javascript:alert(1)'), text('style', '</style><style>*{display:none}</style>'),
              text('__proto__', 'x'), { key: 'map', value: { kvlistValue: { values: [text(script, hello)] } } },
            ],
            status: { code: 2, message: hello },
            events: [{ timeUnixNano: String(now), name: script, attributes: [text(hello, script), text('exception.stacktrace', hello)] }],
            links: [{ traceId: randomHex(32), spanId: randomHex(16), attributes: [text(hello, hello)] }],
          }],
        }],
      }],
    },
  };
}

/** `n` spans under one root, in chains of eight, over three services. Sent in parts. */
export function bigTrace(n) {
  const traceId = randomHex(32);
  const start = BigInt(Date.now()) * 1_000_000n - 60_000_000_000n;
  const root = randomHex(16);
  const spans = [[], [], []];
  let parent = root;
  for (let i = 0; i < n; i++) {
    const id = i === 0 ? root : (i + 1).toString(16).padStart(16, '0');
    const from = start + BigInt(i) * 1_000_000n;
    spans[i % 3].push({
      traceId, spanId: id, parentSpanId: i === 0 ? '' : parent, name: i === 0 ? 'big root' : `step ${i % 7}`, kind: 1,
      startTimeUnixNano: String(from), endTimeUnixNano: String(from + (i === 0 ? BigInt(n) * 1_000_000n : 3_500_000n)),
      attributes: [{ key: 'i', value: { intValue: String(i) } }, text('http.route', '/a/b/c'), text('peer.address', '10.0.0.1:8080')],
      status: i % 1000 === 999 ? { code: 2, message: 'failed' } : {},
    });
    parent = i % 8 === 0 ? root : id;
  }
  const requests = [];
  for (const [k, list] of spans.entries())
    for (let at = 0; at < list.length; at += 5000)
      requests.push({
        resourceSpans: [{
          resource: { attributes: [text('service.name', `big-${k}`)] },
          scopeSpans: [{ scope: { name: 'big', version: '1' }, spans: list.slice(at, at + 5000) }],
        }],
      });
  return { traceId, root, requests };
}
