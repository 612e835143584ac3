import assert from 'node:assert/strict';
import test from 'node:test';
import {
  formatAgo, formatClock, formatDuration, formatFull, fromInputTime, group, parseDuration, parseNs, tickLabel, ticks, toInputTime, zone,
} from './time';

zone.value = 'utc';

test('a duration keeps three digits and its unit', () => {
  const cases: [number, string][] = [
    [0, '0 ns'], [1, '1 ns'], [999, '999 ns'], [1000, '1 µs'], [1234, '1.23 µs'], [12_345, '12.3 µs'], [999_499, '999 µs'],
    [999_600, '1 ms'], [1_500_000, '1.5 ms'], [2_000_000_000, '2 s'], [59_400_000_000, '59.4 s'], [59_700_000_000, '1m 00s'],
    [61e9, '1m 01s'], [3600e9, '1h 00m'], [3659e9, '1h 00m'], [90_000e9, '1d 01h'], [-1500, '−1.5 µs'], [NaN, '–'],
  ];
  for (const [ns, text] of cases) assert.equal(formatDuration(ns), text, String(ns));
});

test('a clock cuts and never rounds, so that order is kept', () => {
  const ns = parseNs('1792587907999999999');
  assert.equal(formatClock(ns, 3), formatClock(ns, 9).slice(0, -6));
  assert.match(formatClock(ns, 9), /:07\.999999999$/);
  assert.match(formatFull(ns), /2026, .*:07\.999999999 UTC$/);
});

test('times that no Date can hold do not throw', () => {
  for (const text of ['0', '18446744073709551615', '-5', 'x', '']) assert.equal(typeof formatFull(parseNs(text)), 'string');
  assert.equal(parseNs('1e9'), 0n);
  assert.equal(parseNs(undefined), 0n);
});

test('durations are read in every unit, and nothing else is', () => {
  assert.equal(parseDuration('1.5s'), 1.5e9);
  assert.equal(parseDuration('1h 30m'), 5400e9);
  assert.equal(parseDuration('2µs'), 2000);
  assert.equal(parseDuration('30d'), 30 * 86400e9);
  for (const bad of ['', 'x', '5', '5 parsecs', '1s2', 's', '-1s', '1..5s']) assert.ok(Number.isNaN(parseDuration(bad)), bad);
});

test('an axis has round steps within its ends, and not too many', () => {
  for (const [from, to] of [[0, 1], [0, 1234], [17, 9.7e6], [0, 3.2e9], [5e9, 4e12], [0, 9e14]] as const) {
    const t = ticks(from, to, 8);
    assert.ok(t.length >= 2 && t.length <= 9, `${t.length} between ${from} and ${to}`);
    assert.ok(t[0]! >= from && t[t.length - 1]! <= to * (1 + 1e-9));
    const labels = t.map((x) => tickLabel(x, to, t[1]! - t[0]!));
    if (to < 4e12) assert.equal(new Set(labels).size, t.length, labels.join());
  }
  assert.deepEqual(ticks(3, 3, 5), [3]);
  assert.deepEqual(ticks(0, 100e9, 5, true), [0, 30e9, 60e9, 90e9]);
  assert.deepEqual(ticks(0, 100e9, 5), [0, 20e9, 40e9, 60e9, 80e9, 100e9]);
});

test('an input of date and time reads back what it shows', () => {
  const ns = 1_795_000_000_000_000_000n;
  assert.equal(fromInputTime(toInputTime(ns)), ns);
  assert.equal(fromInputTime('nonsense'), null);
});

test('digits are grouped and ages are short', () => {
  assert.equal(group(1234567n), '1,234,567');
  assert.equal(group('999'), '999');
  assert.equal(formatAgo(0n, 1000), 'just now');
  assert.equal(formatAgo(0n, 90_000), '1m ago');
  assert.equal(formatAgo(10_000_000_000n, 0), 'in the future');
});
