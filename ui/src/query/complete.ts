// What could stand at the cursor of a TraceQL query. Only the shape of the text before the cursor is looked at: whether
// it is in a filter, and which words came last; what is right is the server's word.

export type Wanted = 'field' | 'compare' | 'join' | 'value' | 'start' | 'after' | 'stage' | 'none';

export interface Spot {
  wanted: Wanted;
  from: number; // where the word at the cursor begins
  to: number; // and ends
  prefix: string; // of it, before the cursor
  field: string; // of a value: what it is compared with
}

export interface Choice {
  text: string; // what is put in
  shown?: string;
  hint?: string;
  cursor?: number; // where the cursor goes within `text`; its end else
}

interface Token {
  type: 'word' | 'string' | 'op' | 'open' | 'close' | 'bar' | 'other';
  text: string;
  from: number;
  to: number;
}

const compares = ['=', '!=', '=~', '!~', '>=', '<=', '>', '<'];
const joins = ['&&', '||'];

export function tokens(text: string): Token[] {
  const out: Token[] = [];
  const pattern = /"(?:[^"\\]|\\.)*"?|`[^`]*`?|[{}]|&&|\|\||!?>>|!?<<|[!=<>]=|[=!]~|&>>|&<<|[=<>|]|[^\s{}()=~!<>&|^,"`]+|./gs;
  for (const m of text.matchAll(pattern)) {
    const t = m[0];
    if (/^\s$/.test(t)) continue;
    const type: Token['type'] = t[0] === '"' || t[0] === '`' ? 'string'
      : t === '{' ? 'open' : t === '}' ? 'close' : t === '|' ? 'bar'
      : compares.includes(t) || joins.includes(t) || /^(!?>>|!?<<|&>>|&<<)$/.test(t) ? 'op'
      : /^[^\s{}()=~!<>&|^,"`]/.test(t) ? 'word' : 'other';
    out.push({ type, text: t, from: m.index, to: m.index + t.length });
  }
  return out;
}

const isOpenString = (t: Token): boolean => t.type === 'string' && (t.text.length < 2 || t.text[t.text.length - 1] !== t.text[0] || /[^\\]\\"$/.test(t.text));

export function spotAt(text: string, cursor: number): Spot {
  const all = tokens(text.slice(0, cursor));
  let depth = 0;
  for (const t of all) depth += t.type === 'open' ? 1 : t.type === 'close' ? -1 : 0;
  const last = all[all.length - 1];
  // The word that is being written, if the cursor touches one.
  const touching = last && last.to === cursor && (last.type === 'word' || isOpenString(last)) ? last : undefined;
  const before = touching ? all.slice(0, -1) : all;
  const from = touching?.from ?? cursor;
  const rest = touching?.type === 'word' ? (/^[^\s{}()=~!<>&|^,"`]*/.exec(text.slice(cursor))?.[0].length ?? 0) : 0;
  const spot = (wanted: Wanted, field = ''): Spot => ({ wanted, from, to: cursor + rest, prefix: text.slice(from, cursor), field });
  const b = before[before.length - 1];
  const c = before[before.length - 2];
  if (depth > 0) {
    if (b?.type === 'op' && compares.includes(b.text)) return c?.type === 'word' ? spot('value', c.text) : spot('none');
    if (touching?.type === 'string') return spot('none');
    if (!b || b.type === 'open' || b.type === 'other' || (b.type === 'op' && joins.includes(b.text))) return spot('field');
    if (b.type === 'word') {
      // A field, when no comparison stands before it.
      return c?.type === 'op' && compares.includes(c.text) ? spot('join') : spot('compare');
    }
    return b.type === 'string' ? spot('join') : spot('none');
  }
  if (!b) return spot('start');
  if (b.type === 'bar') return spot('stage');
  if (b.type === 'close') return spot('after');
  if (b.type === 'op') return spot('start');
  return spot('none');
}

const intrinsics: [string, string][] = [
  ['name', 'of the span'], ['duration', 'of the span'], ['status', 'error, ok, unset'], ['statusMessage', ''], ['kind', 'server, client, …'],
  ['rootName', 'of the trace'], ['rootServiceName', 'of the trace'], ['traceDuration', ''], ['parent', 'nil: a root'],
  ['event:name', ''], ['span:id', ''], ['span:childCount', ''], ['trace:id', ''], ['instrumentation:name', ''],
];
const stages: [string, string][] = [
  ['count() > ', 'spans of a trace'], ['avg(duration) > ', ''], ['max(duration) > ', ''], ['min(duration) > ', ''], ['sum(duration) > ', ''],
  ['by(resource.service.name)', 'a set for each'], ['select(name)', ''], ['rate()', 'spans a second'], ['rate() by (resource.service.name)', ''],
  ['count_over_time()', ''], ['quantile_over_time(duration, .5, .95)', ''], ['histogram_over_time(duration)', ''], ['avg_over_time(duration)', ''],
  ['max_over_time(duration)', ''], ['compare({ status = error })', ''],
];
const structure: [string, string][] = [
  ['|', 'go on with what was found'], ['&&', 'both in one trace'], ['||', ''], ['>>', 'ancestor of'], ['>', 'parent of'], ['<<', 'descendant of'],
  ['<', 'child of'], ['~', 'sibling of'],
];

const plain = /^[A-Za-z_][A-Za-z0-9_.\-/]*$/;
export const fieldText = (scope: string, key: string): string => `${scope}.${plain.test(key) ? key : JSON.stringify(key)}`;

const of = (list: [string, string][], after = ' '): Choice[] =>
  list.map(([text, hint]) => ({ text: text + (text.endsWith(' ') ? '' : after), shown: text, ...(hint ? { hint } : {}) }));

/** The choices that begin with the prefix, then those that have it elsewhere. `values` are the server's, for a value. */
export function choices(spot: Spot, fields: Choice[], values: Choice[], most = 40): Choice[] {
  const all: Record<Wanted, () => Choice[]> = {
    field: () => [...of(intrinsics), ...fields],
    compare: () => of(compares.map((c) => [c, ''])),
    join: () => [...of(joins.map((j) => [j, ''])), { text: '}', shown: '}', hint: 'the end of the filter' }],
    value: () => values,
    start: () => [{ text: '{  }', shown: '{ }', hint: 'a filter: spans that …', cursor: 2 }],
    after: () => of(structure),
    stage: () => of(stages, ''),
    none: () => [],
  };
  const needle = spot.prefix.toLowerCase().replace(/^["`]/, '');
  const text = (c: Choice): string => (c.shown ?? c.text).toLowerCase().replace(/^["`]/, '');
  const list = all[spot.wanted]();
  if (!needle) return list.slice(0, most);
  const exact = (c: Choice): boolean => text(c).trim() === needle;
  const first = list.filter((c) => text(c).startsWith(needle));
  const second = list.filter((c) => !text(c).startsWith(needle) && text(c).includes(needle));
  const found = [...first, ...second];
  return found.length === 1 && exact(found[0]!) ? [] : found.slice(0, most);
}

export function apply(text: string, spot: Spot, choice: Choice): { text: string; cursor: number } {
  const rest = text.slice(spot.to);
  const put = choice.text.endsWith(' ') && rest.startsWith(' ') ? choice.text.slice(0, -1) : choice.text;
  const cursor = spot.from + (choice.cursor ?? put.length) + (put !== choice.text ? 1 : 0);
  return { text: text.slice(0, spot.from) + put + rest, cursor };
}
