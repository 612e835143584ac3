import assert from 'node:assert/strict';
import test from 'node:test';
import { colors, serviceColor } from './color';

test('a service keeps its colour, and twelve services have twelve', () => {
  const names = Array.from({ length: colors }, (_, i) => `service-${i}`);
  const given = names.map(serviceColor);
  assert.equal(new Set(given).size, colors);
  assert.deepEqual(names.map(serviceColor), given);
});

test('more services than colours share them evenly', () => {
  const count = new Array<number>(colors).fill(0);
  for (let i = 0; i < colors; i++) count[serviceColor(`service-${i}`)]!++;
  for (let i = 0; i < 5 * colors; i++) count[serviceColor(`more-${i}`)]!++;
  assert.deepEqual(count, new Array<number>(colors).fill(6));
});
