import assert from 'node:assert/strict';
import test from 'node:test';
import { colors, serviceColor } from './color';
import tokens from './style/tokens.css';

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

// Colours as eyes that lack one kind of cone see them: Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB.
const eyes: Record<string, number[][]> = {
  usual: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  'without red': [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  'without green': [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  'without blue': [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
};

const times = (m: number[][], v: number[]): number[] => m.map((row) => row.reduce((sum, x, i) => sum + x * v[i]!, 0));

function linear(hex: string): number[] {
  return [1, 3, 5].map((at) => {
    const c = parseInt(hex.slice(at, at + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
}

/** Oklab (Ottosson 2020), where equal distances look equally different. */
function oklab(rgb: number[]): number[] {
  const lms = times([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]],
    rgb.map((x) => Math.max(0, x))).map(Math.cbrt);
  return times([[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099], [0.0259040371, 0.7827717662, -0.808675766]], lms);
}

test('no two services look alike, nor like an error, to any kind of eye in either theme', () => {
  const pairs = new Map([...tokens.matchAll(/--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)/g)].map((m) => [m[1]!, [m[2]!, m[3]!]]));
  const names = [...Array.from({ length: colors }, (_, i) => `svc-${i}`), 'error'];
  for (const theme of [0, 1]) {
    for (const [eye, matrix] of Object.entries(eyes)) {
      const seen = names.map((name) => oklab(times(matrix, linear(pairs.get(name)![theme]!))));
      for (let a = 0; a < seen.length; a++)
        for (let b = 0; b < a; b++) {
          const distance = Math.hypot(...seen[a]!.map((x, i) => x - seen[b]![i]!));
          assert.ok(distance > 0.055, `${names[a]} and ${names[b]} are ${distance.toFixed(3)} apart, ${['light', 'dark'][theme]}, ${eye}`);
        }
    }
  }
});
