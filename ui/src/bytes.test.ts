import assert from 'node:assert/strict';
import test from 'node:test';
import { formatBytes } from './bytes';
import { percent } from './percent';

test('sizes have three digits and a unit of 1024', () => {
  assert.deepEqual([0, 512, 1024, 1536, 1_048_575, 10_485_760, 5e9].map(formatBytes),
    ['0 B', '512 B', '1.00 KiB', '1.50 KiB', '1.00 MiB', '10.0 MiB', '4.66 GiB']);
});

test('parts are told to two digits, and the least is not nothing', () => {
  assert.deepEqual([0, 0.0001, 0.005, 0.0994, 0.5, 1, NaN].map(percent), ['0 %', '< 0.1 %', '0.5 %', '9.9 %', '50 %', '100 %', '0 %']);
});
