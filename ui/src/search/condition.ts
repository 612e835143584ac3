// Another condition for a TraceQL query: of the same span where the query is one filter, of the spans found so far
// where it is more.

import { tokens } from '../query/complete';

/** Where the query is one filter and nothing else: what is in it, else null. */
function insideOf(q: string): string | null {
  const all = tokens(q.trim());
  if (all.length < 2 || all[0]!.type !== 'open' || all[all.length - 1]!.type !== 'close') return null;
  if (all.slice(1, -1).some((t) => t.type === 'open' || t.type === 'close')) return null;
  return q.trim().slice(1, -1).trim();
}

export function withCondition(q: string, condition: string): string {
  if (!q.trim()) return `{ ${condition} }`;
  const inside = insideOf(q);
  // `&&` and `||` group from the left, so that what is appended holds together with all before it.
  if (inside !== null) return inside ? `{ ${inside} && ${condition} }` : `{ ${condition} }`;
  return `${q.trim()} | { ${condition} }`;
}
