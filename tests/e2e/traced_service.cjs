// A small Node service, traced by the OpenTelemetry SDK as its documentation says. It serves two routes, calls
// itself once, makes a span with everything in it, ends, and writes what the SDK's own span processor saw to
// the file in argv[3]. argv[2] names the exporter.
'use strict';

const [, , exporterName, outFile] = process.argv;
const { NodeSDK } = require('@opentelemetry/sdk-node');
const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http');
const { BatchSpanProcessor, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${exporterName}`);

const seen = [];
const recorder = {
  export(spans, done) { seen.push(...spans); done({ code: 0 }); },
  shutdown: async () => {},
};

const sdk = new NodeSDK({
  resource: resourceFromAttributes({
    'service.name': `shop-${exporterName}`,
    'service.version': '1.2.3',
    'deployment.ring': 7,
    'deployment.canary': true,
  }),
  autoDetectResources: true,
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter()), new SimpleSpanProcessor(recorder)],
  spanLimits: { attributeCountLimit: 40, eventCountLimit: 8, linkCountLimit: 4 },
  instrumentations: [new HttpInstrumentation()],
});
sdk.start();

const http = require('node:http');
const { trace, context, SpanKind, SpanStatusCode, ROOT_CONTEXT, TraceFlags, createTraceState } =
  require('@opentelemetry/api');
// trace.getTracer would not pass the schema on.
const tracer = trace.getTracerProvider().getTracer('shop.orders', '4.5.6', { schemaUrl: 'https://opentelemetry.io/schemas/1.27.0' });

function call(port, path) {
  return new Promise((resolve, reject) => {
    http.get({ port, path, host: '127.0.0.1' }, (res) => { res.resume(); res.on('end', resolve); }).on('error', reject);
  });
}

const server = http.createServer(async (req, res) => {
  if (req.url === '/order') {
    await call(server.address().port, '/stock?sku=%C3%BC');
    everything(trace.getActiveSpan());
    res.end('ordered');
  } else {
    res.statusCode = 503;
    res.end('no stock');
  }
});

function everything(parent) {
  const span = tracer.startSpan('order.place', {
    kind: SpanKind.PRODUCER,
    attributes: {
      text: 'grüße €🐾', empty: '', newline: 'a\nb\t"c"\\', long: 'x'.repeat(5000),
      yes: true, no: false,
      zero: 0, negative: -42, big: Number.MAX_SAFE_INTEGER, least: Number.MIN_SAFE_INTEGER,
      half: 0.5, tiny: 5e-324, huge: 1.7976931348623157e308, third: 1 / 3,
      texts: ['a', '', 'ü'], numbers: [1, 2, 3], reals: [0.25, 1.5], flags: [true, false], none: [],
    },
    links: [
      { context: { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', traceFlags: TraceFlags.SAMPLED,
        traceState: createTraceState('vendor=a,other=b') }, attributes: { why: 'batch', n: 1 } },
      { context: parent.spanContext() },
    ],
  });
  for (let i = 0; i < 60; i++) span.setAttribute(`over.${i}`, i); // some of them over the SDK's limit
  for (let i = 0; i < 10; i++) span.addEvent(`step ${i}`, { i, at: 'here' });
  span.recordException(new Error('card declined'));
  span.setStatus({ code: SpanStatusCode.ERROR, message: 'declined: ü' });
  const child = tracer.startSpan('order.audit', { kind: SpanKind.CONSUMER, startTime: [1700000000, 123456789] },
    trace.setSpan(context.active(), span));
  child.setStatus({ code: SpanStatusCode.OK });
  child.end([1700000001, 987654321]);
  span.end();
  // A trace of its own that was started elsewhere, with a trace state.
  const remote = trace.setSpanContext(ROOT_CONTEXT, { traceId: 'ffeeddccbbaa99887766554433221100', spanId: '00000000000000ab',
    traceFlags: TraceFlags.SAMPLED, isRemote: true, traceState: createTraceState('congo=t61rcWkgMzE,rojo=00f067aa0ba902b7') });
  tracer.startSpan('order.resumed', { kind: SpanKind.INTERNAL }, remote).end();
}

const hrToNs = ([seconds, nanos]) => String(BigInt(seconds) * 1_000_000_000n + BigInt(nanos));

// What the SDK says it sent, in plain JSON.
function describe(span) {
  const { traceId, spanId, traceState } = span.spanContext();
  return {
    traceId, spanId,
    parentSpanId: span.parentSpanContext?.spanId ?? '',
    traceState: traceState?.serialize() ?? '',
    name: span.name, kind: span.kind,
    start: hrToNs(span.startTime), end: hrToNs(span.endTime),
    status: { code: span.status.code, message: span.status.message ?? '' },
    attributes: span.attributes, droppedAttributes: span.droppedAttributesCount,
    events: span.events.map((e) => ({ name: e.name, time: hrToNs(e.time), attributes: e.attributes ?? {} })),
    droppedEvents: span.droppedEventsCount,
    links: span.links.map((l) => ({ traceId: l.context.traceId, spanId: l.context.spanId,
      traceState: l.context.traceState?.serialize() ?? '', attributes: l.attributes ?? {} })),
    droppedLinks: span.droppedLinksCount,
    resource: span.resource.attributes,
    scope: { name: span.instrumentationScope.name, version: span.instrumentationScope.version ?? '' },
  };
}

server.listen(0, '127.0.0.1', async () => {
  await call(server.address().port, '/order');
  server.close();
  await sdk.shutdown();
  require('node:fs').writeFileSync(outFile, JSON.stringify(seen.map(describe)));
});
