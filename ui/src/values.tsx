// Attribute values of every type, shown as text. Nothing is ever turned into markup or a link.

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { AnyValue, KeyValue } from './api';
import { CopyButton, IconLink } from './parts';

const shownMax = 2000; // characters of one value, until asked for all
const itemsMax = 50; // of an array or map
const depthMax = 32;

export type ValueType = 'string' | 'int' | 'double' | 'bool' | 'bytes' | 'array' | 'map' | 'none';

export function typeOf(v: AnyValue | undefined): ValueType {
  if (!v) return 'none';
  if (v.stringValue !== undefined) return 'string';
  if (v.intValue !== undefined) return 'int';
  if (v.doubleValue !== undefined) return 'double';
  if (v.boolValue !== undefined) return 'bool';
  if (v.bytesValue !== undefined) return 'bytes';
  if (v.arrayValue) return 'array';
  if (v.kvlistValue) return 'map';
  return 'none';
}

/** The value as one text, for copying. */
export function valueText(v: AnyValue | undefined): string {
  switch (typeOf(v)) {
    case 'string': return v!.stringValue!;
    case 'int': return String(v!.intValue);
    case 'double': return doubleText(v!.doubleValue!);
    case 'bool': return String(v!.boolValue);
    case 'bytes': return v!.bytesValue!;
    case 'array':
    case 'map': return JSON.stringify(toJson(v!, 0));
    case 'none': return '';
  }
}

function doubleText(d: number | string): string {
  const text = String(d);
  return /^-?\d+$/.test(text) ? `${text}.0` : text; // a double stays one when it is whole
}

function toJson(v: AnyValue, depth: number): unknown {
  if (depth > depthMax) return '…';
  switch (typeOf(v)) {
    case 'string': return v.stringValue;
    case 'int': {
      const n = Number(v.intValue);
      return Number.isSafeInteger(n) ? n : String(v.intValue);
    }
    case 'double': return v.doubleValue;
    case 'bool': return v.boolValue;
    case 'bytes': return v.bytesValue;
    case 'array': return (v.arrayValue!.values ?? []).map((x) => toJson(x, depth + 1));
    case 'map': {
      const out: Record<string, unknown> = Object.create(null);
      for (const { key, value } of v.kvlistValue!.values ?? []) out[key] = toJson(value, depth + 1);
      return out;
    }
    case 'none': return null;
  }
}

/** The TraceQL literal of a value, or null for those that the language cannot name. */
export function traceqlLiteral(v: AnyValue): string | null {
  switch (typeOf(v)) {
    case 'string': return v.stringValue!.length <= 200 ? JSON.stringify(v.stringValue) : null;
    case 'int': return String(v.intValue);
    case 'double': return Number.isFinite(Number(v.doubleValue)) ? doubleText(v.doubleValue!) : null;
    case 'bool': return String(v.boolValue);
    default: return null;
  }
}

const plainKey = /^[A-Za-z_][A-Za-z0-9_.\-/]*$/;

export function traceqlFor(scope: 'span' | 'resource', a: KeyValue): string | null {
  const literal = traceqlLiteral(a.value);
  if (literal === null) return null;
  const key = plainKey.test(a.key) ? a.key : JSON.stringify(a.key);
  return `{ ${scope}.${key} = ${literal} }`;
}

function bytesPreview(base64: string): { size: number; hex: string } {
  try {
    const raw = atob(base64);
    let hex = '';
    for (let i = 0; i < raw.length && i < 64; i++) hex += `${raw.charCodeAt(i).toString(16).padStart(2, '0')} `;
    return { size: raw.length, hex: hex.trim() + (raw.length > 64 ? ' …' : '') };
  } catch {
    return { size: 0, hex: base64.slice(0, 100) };
  }
}

function Text({ text }: { text: string }): JSX.Element {
  const [all, setAll] = useState(false);
  if (text === '') return <span class="v-empty">empty</span>;
  if (text.length <= shownMax || all) return <span class="v-string">{text}</span>;
  return (
    <span class="v-string">
      {text.slice(0, shownMax)}…{' '}
      <button type="button" class="textual" onClick={() => setAll(true)}>
        all {text.length.toLocaleString('en')} characters
      </button>
    </span>
  );
}

function Items({ n, item }: { n: number; item: (i: number) => JSX.Element }): JSX.Element {
  const [all, setAll] = useState(false);
  const shown = all ? n : Math.min(n, itemsMax);
  return (
    <>
      {Array.from({ length: shown }, (_, i) => item(i))}
      {shown < n && (
        <li>
          <button type="button" class="textual" onClick={() => setAll(true)}>{n - shown} more</button>
        </li>
      )}
    </>
  );
}

export function Value({ value, depth = 0 }: { value: AnyValue | undefined; depth?: number }): JSX.Element {
  const type = typeOf(value);
  if (depth > depthMax) return <span class="v-empty">too deep</span>;
  switch (type) {
    case 'string': return <Text text={value!.stringValue!} />;
    case 'int':
    case 'double': return <span class="v-number">{valueText(value)}</span>;
    case 'bool': return <span class="v-bool">{valueText(value)}</span>;
    case 'bytes': {
      const { size, hex } = bytesPreview(value!.bytesValue!);
      return <span class="v-bytes">{size} bytes{hex && ': '}{hex}</span>;
    }
    case 'array': {
      const items = value!.arrayValue!.values ?? [];
      if (items.length === 0) return <span class="v-empty">[ ]</span>;
      return (
        <ol class="v-items">
          <Items n={items.length} item={(i) => <li key={i}><Value value={items[i]} depth={depth + 1} /></li>} />
        </ol>
      );
    }
    case 'map': {
      const items = value!.kvlistValue!.values ?? [];
      if (items.length === 0) return <span class="v-empty">{'{ }'}</span>;
      return (
        <ul class="v-items">
          <Items
            n={items.length}
            item={(i) => (
              <li key={i}>
                <span class="v-key">{items[i]!.key}</span> <Value value={items[i]!.value} depth={depth + 1} />
              </li>
            )}
          />
        </ul>
      );
    }
    case 'none': return <span class="v-empty">no value</span>;
  }
}

/** Long keys break after a dot, not within a word. */
function Key({ text }: { text: string }): JSX.Element {
  if (!text) return <span class="v-empty">no key</span>;
  if (text.length > 500) return <>{text.slice(0, 500)}…</>;
  return <>{text.split(/(?<=[./])/).map((part, i) => [i > 0 && <wbr />, part])}</>;
}

export function Attributes({ list, scope, label }: {
  list: KeyValue[];
  scope?: 'span' | 'resource'; // where TraceQL finds it
  label: string;
}): JSX.Element {
  return (
    <table class="attributes" aria-label={label}>
      <tbody>
        {list.map((a, i) => {
          const q = scope ? traceqlFor(scope, a) : null;
          return (
            <tr key={i}>
              <th scope="row"><Key text={a.key} /></th>
              <td>
                <Value value={a.value} />
                <span class="attribute-tools">
                  <span class="type">{typeOf(a.value)}</span>
                  {q && <IconLink icon="find" href={`/search?q=${encodeURIComponent(q)}`} label={`Find traces with this ${a.key}`} />}
                  <CopyButton text={() => valueText(a.value)} label={`Copy ${a.key}`} />
                </span>
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
