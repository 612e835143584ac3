// The OpenTelemetry Node SDK, unmodified, sends to Pugmark through each of its three OTLP exporters; what the query
// API gives back is compared field by field with what the SDK says it sent.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Server } from './lib.mjs';

const service = fileURLToPath(new URL('./traced_service.cjs', import.meta.url));
const STATUS = ['UNSET', 'OK', 'ERROR'];
const KIND = ['INTERNAL', 'SERVER', 'CLIENT', 'PRODUCER', 'CONSUMER']; // the SDK's numbers, one less than OTLP's

/** OTLP's AnyValue from what the SDK holds: whole numbers are integers, as far as OTLP's 64 bits reach. */
function anyValue(value) {
  if (Number.isInteger(value) && Math.abs(value) >= 2 ** 63) return { doubleValue: value };
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'number') return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value };
  if (Array.isArray(value)) return { arrayValue: { values: value.map(anyValue) } };
  throw new Error(`no such value: ${value}`);
}
const keyValues = (attributes) => Object.entries(attributes).map(([key, value]) => ({ key, value: anyValue(value) }));

/** The same spans as the page's API should show them. */
function expectedSpan(sent) {
  return {
    spanId: sent.spanId, parentSpanId: sent.parentSpanId, name: sent.name, kind: KIND[sent.kind],
    startUnixNano: sent.start, durationNano: String(BigInt(sent.end) - BigInt(sent.start)),
    status: { code: STATUS[sent.status.code], message: sent.status.message },
    traceState: sent.traceState,
    attributes: keyValues(sent.attributes), droppedAttributes: sent.droppedAttributes,
    events: sent.events.map((e) => ({ timeUnixNano: e.time, name: e.name, attributes: keyValues(e.attributes) })),
    droppedEvents: sent.droppedEvents,
    links: sent.links.map((l) => ({ traceId: l.traceId, spanId: l.spanId, attributes: keyValues(l.attributes) })),
    droppedLinks: sent.droppedLinks,
    resourceAttributes: keyValues(sent.resource),
    scope: sent.scope,
  };
}

/** From GET /api/pugmark/traces/{id}. */
function shownByPage(trace) {
  return trace.spans.map((s) => ({
    spanId: s.spanId, parentSpanId: s.parentSpanId, name: s.name, kind: s.kind,
    startUnixNano: s.startUnixNano, durationNano: s.durationNano, status: s.status, traceState: s.traceState,
    attributes: s.attributes, droppedAttributes: s.droppedAttributes,
    events: s.events.map(({ timeUnixNano, name, attributes }) => ({ timeUnixNano, name, attributes })),
    droppedEvents: s.droppedEvents,
    links: s.links.map(({ traceId, spanId, attributes }) => ({ traceId, spanId, attributes })),
    droppedLinks: s.droppedLinks,
    resourceAttributes: trace.resources[s.resource].attributes,
    scope: { name: trace.scopes[s.scope].name, version: trace.scopes[s.scope].version },
  }));
}

/** From GET /api/v3/traces/{id}, which is OTLP JSON: what is empty may be absent there. */
function shownByJaeger(answer) {
  return answer.result.resourceSpans.flatMap((rs) => rs.scopeSpans.flatMap((ss) => ss.spans.map((s) => ({
    spanId: s.spanId, parentSpanId: s.parentSpanId ?? '', name: s.name, kind: KIND[s.kind - 1],
    startUnixNano: s.startTimeUnixNano, durationNano: String(BigInt(s.endTimeUnixNano) - BigInt(s.startTimeUnixNano)),
    status: { code: STATUS[s.status?.code ?? 0], message: s.status?.message ?? '' }, traceState: s.traceState ?? '',
    attributes: s.attributes ?? [], droppedAttributes: s.droppedAttributesCount ?? 0,
    events: (s.events ?? []).map((e) => ({ timeUnixNano: e.timeUnixNano, name: e.name, attributes: e.attributes ?? [] })),
    droppedEvents: s.droppedEventsCount ?? 0,
    links: (s.links ?? []).map((l) => ({ traceId: l.traceId, spanId: l.spanId, attributes: l.attributes ?? [] })),
    droppedLinks: s.droppedLinksCount ?? 0,
    resourceAttributes: rs.resource.attributes,
    scope: { name: ss.scope.name, version: ss.scope.version ?? '' },
  }))));
}

const bySpanId = (a, b) => (a.spanId < b.spanId ? -1 : a.spanId > b.spanId ? 1 : 0);

for (const [exporter, endpoint] of [['grpc', 'otlp_grpc'], ['proto', 'otlp_http'], ['http', 'otlp_http']]) {
  describe(`the Node SDK over exporter-trace-otlp-${exporter}`, () => {
    let server, scratch, sent;
    before(async () => {
      server = await Server.start();
      scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-node-sdk-'));
      const out = path.join(scratch, 'sent.json');
      await promisify(execFile)(process.execPath, [service, exporter, out], {
        env: { ...process.env, OTEL_EXPORTER_OTLP_ENDPOINT: server.endpoints[endpoint], OTEL_EXPORTER_OTLP_TIMEOUT: '5000',
          OTEL_EXPORTER_OTLP_COMPRESSION: exporter === 'proto' ? 'gzip' : 'none' },
        timeout: 30_000,
      });
      sent = JSON.parse(await readFile(out, 'utf8'));
    });
    after(async () => {
      await server?.stop();
      await rm(scratch, { recursive: true, force: true });
    });

    test('sends what the test is about', () => {
      // Two requests make a client and a server span each; three are made by hand.
      assert.equal(sent.length, 7);
      assert.equal(new Set(sent.map((s) => s.kind)).size, 5);
      const full = sent.find((s) => s.name === 'order.place');
      assert.ok(full.droppedAttributes > 0 && full.droppedEvents > 0);
    });

    for (const [what, url, shown] of [
      ['the page\'s API', '/api/pugmark/traces/', shownByPage],
      ['Jaeger\'s API v3', '/api/v3/traces/', shownByJaeger],
    ]) {
      test(`comes back whole from ${what}`, async () => {
        for (const traceId of new Set(sent.map((s) => s.traceId))) {
          const expected = sent.filter((s) => s.traceId === traceId).map(expectedSpan).sort(bySpanId);
          const actual = shown(await server.get(url + traceId)).sort(bySpanId);
          assert.deepEqual(actual, expected);
        }
      });
    }

    test('keeps the trace state of links and the ids in the answer', async () => {
      const full = sent.find((s) => s.name === 'order.place');
      const answer = await server.get(`/api/v3/traces/${full.traceId}`);
      const spans = answer.result.resourceSpans.flatMap((rs) => rs.scopeSpans.flatMap((ss) => ss.spans));
      for (const span of spans) assert.equal(span.traceId, full.traceId);
      const link = spans.find((s) => s.name === 'order.place').links[0];
      assert.equal(link.traceState, 'vendor=a,other=b');
    });

    test('keeps the schema of the scope', async () => {
      const full = sent.find((s) => s.name === 'order.place');
      const answer = await server.get(`/api/v3/traces/${full.traceId}`);
      const scopes = answer.result.resourceSpans.flatMap((rs) => rs.scopeSpans);
      const orders = scopes.find((ss) => ss.scope.name === 'shop.orders');
      assert.equal(orders.schemaUrl, 'https://opentelemetry.io/schemas/1.27.0');
    });
  });
}
