import assert from 'node:assert/strict';
import test from 'node:test';
import { breakdownOf, formatSample, heatOf, seriesName, summaryOf, unitOf, valueTicks } from './model';

const series = (labels: Record<string, string | number>, samples: (number | null)[]) => ({
  labels: Object.entries(labels).map(([key, v]) => ({ key, value: typeof v === 'number' ? { doubleValue: v } : { stringValue: v } })), samples,
});
const answer = (...list: ReturnType<typeof series>[]) => ({ series: list, startUnixNano: '0', stepNano: '1', steps: list[0]?.samples.length ?? 0 });

test('the unit comes from what is measured', () => {
  assert.deepEqual([
    '{ } | rate() by (name)', '{ } | quantile_over_time(duration, .5)', '{ } | avg_over_time(span.bytes)', '{ name = "a - (b" } | rate()',
    '({ } | rate()) / ({ } | rate()) * 100', '{ } | count_over_time()',
  ].map(unitOf), ['rate', 'duration', 'number', 'rate', 'number', 'count']);
  assert.deepEqual([formatSample(0.25, 'duration'), formatSample(0.5, 'rate'), formatSample(12345, 'count'), formatSample(null, 'count'), formatSample(0.12345, 'number')],
    ['250 ms', '0.5/s', '12,345', '–', '0.123']);
});

test('a series is called by its labels', () => {
  assert.equal(seriesName(series({ 'resource.service.name': 'api' }, [])), 'api');
  assert.equal(seriesName(series({ 'resource.service.name': 'api', p: 0.5 }, [])), 'service.name=api, p=0.5');
  assert.equal(seriesName({ labels: [{ key: 'span.x', value: {} }], samples: [] }), 'none');
});

test('gaps are no samples', () => {
  assert.deepEqual(summaryOf([null, 1, 3, null]), { last: 3, mean: 2, max: 3 });
  assert.deepEqual(summaryOf([null]), { last: null, mean: null, max: null });
  assert.deepEqual(valueTicks(0, 1), [0, 0.2, 0.4, 0.6000000000000001, 0.8, 1]);
  assert.deepEqual(valueTicks(0, 0), [0]);
});

test('buckets of a histogram stand above each other, those between that are empty too', () => {
  const heat = heatOf(answer(series({ __bucket: 4 }, [1, 0]), series({ __bucket: 1 }, [0, 2]), series({ __bucket: 1, a: 'x' }, [3, null])))!;
  assert.deepEqual(heat, { buckets: [{ top: 1, counts: [3, 2] }, { top: 2, counts: [0, 0] }, { top: 4, counts: [1, 0] }], most: 3 });
  assert.equal(heatOf(answer(series({ name: 'x' }, [1]))), null);
});

test('a comparison is a breakdown of attributes', () => {
  const b = breakdownOf(answer(
    series({ __meta_type: 'selection', 'span.region': 'eu' }, [4, 4]), series({ __meta_type: 'baseline', 'span.region': 'eu' }, [1, 1]),
    series({ __meta_type: 'baseline', 'span.region': 'us' }, [45, 45]),
    { labels: [{ key: '__meta_type', value: { stringValue: 'selection_total' } }, { key: 'span.region', value: {} }], samples: [4, 4] },
    { labels: [{ key: '__meta_type', value: { stringValue: 'baseline_total' } }, { key: 'span.region', value: {} }], samples: [46, 46] },
  ))!;
  assert.deepEqual(b.counted, { found: '8', all: '100' });
  assert.deepEqual([b.fields[0]!.scope, b.fields[0]!.key, b.fields[0]!.values[0]!.found, b.fields[0]!.values[0]!.all], ['span', 'region', '8', '10']);
  assert.equal(breakdownOf(answer(series({ name: 'x' }, [1]))), null);
});
