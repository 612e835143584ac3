// A small Node program that sends traces, logs and metrics as the OpenTelemetry SDK does when only its environment says
// so. It writes the ids of its spans to the file in argv[2].
'use strict';

const { writeFileSync } = require('node:fs');
const { NodeSDK } = require('@opentelemetry/sdk-node');

const sdk = new NodeSDK({ instrumentations: [] });
sdk.start();

const { trace, metrics } = require('@opentelemetry/api');
const { logs } = require('@opentelemetry/api-logs');

const logger = logs.getLogger('shop.log', '2.0.0');
const meter = metrics.getMeter('shop.meter', '3.0.0');
const orders = meter.createCounter('shop.orders', { unit: '{order}', description: 'Orders taken.' });
const depth = meter.createUpDownCounter('shop.queue.depth');
const seconds = meter.createHistogram('shop.duration', { unit: 's' });

trace.getTracer('shop').startActiveSpan('order.place', (span) => {
  logger.emit({
    severityNumber: 9, severityText: 'INFO', body: 'order taken é',
    attributes: { 'order.id': 17, express: true, weight: 1.5, tags: ['a', 'b'] },
  });
  logger.emit({ severityNumber: 17, severityText: 'ERROR', body: { code: 42, why: ['stock', 'price'] } });
  trace.getTracer('shop').startActiveSpan('order.pay', (inner) => {
    logger.emit({ severityNumber: 13, severityText: 'WARN', body: 'slow bank', eventName: 'bank.slow' });
    for (let i = 0; i < 5; i++) orders.add(2, { kind: i % 2 ? 'gift' : 'own' });
    depth.add(-3);
    for (const s of [0.001, 0.02, 7, 9000]) seconds.record(s);
    writeFileSync(process.argv[2], JSON.stringify({
      traceId: span.spanContext().traceId, outer: span.spanContext().spanId, inner: inner.spanContext().spanId,
    }));
    inner.end();
  });
  span.end();
});
logger.emit({ body: 'outside of any span' });
sdk.shutdown().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
