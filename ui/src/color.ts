// The colours of services: a service has the same one on every page and every visit.
//
// There are twelve (style/tokens.css, --svc-0 to --svc-11), chosen to differ for every kind of
// eye. A service asks for the one its name hashes to; when another service has that already, it gets
// the next that is least used. What was given is remembered, because a colour that moves when a
// service is added is worse than a colour that is shared. No colour here is red: that is for errors.

import { recall, remember } from './settings';

export const colors = 12;
const keptMax = 400;

const given = new Map<string, number>();
const used = new Array<number>(colors).fill(0);

function load(): void {
  try {
    const kept: unknown = JSON.parse(recall('colors') ?? '{}');
    if (typeof kept !== 'object' || kept === null) return;
    for (const [name, slot] of Object.entries(kept))
      if (Number.isInteger(slot) && slot >= 0 && slot < colors) take(name, slot as number);
  } catch {
    /* somebody else's bytes: start anew */
  }
}

function take(name: string, slot: number): void {
  given.set(name, slot);
  used[slot]!++;
}

function hash(name: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 0x01000193);
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  return (h ^ (h >>> 12)) >>> 0;
}

let saving = false;

function save(): void {
  if (saving) return;
  saving = true;
  queueMicrotask(() => {
    saving = false;
    remember('colors', JSON.stringify(Object.fromEntries([...given].slice(-keptMax))));
  });
}

load();

/** The slot of a service: 0 to 11. */
export function serviceColor(name: string): number {
  const kept = given.get(name);
  if (kept !== undefined) return kept;
  const wish = hash(name) % colors;
  let slot = wish;
  for (let i = 1; i < colors; i++) {
    const other = (wish + i * 5) % colors; // 5: neighbours in the table are far apart in hue
    if (used[other]! < used[slot]!) slot = other;
  }
  take(name, slot);
  save();
  return slot;
}
