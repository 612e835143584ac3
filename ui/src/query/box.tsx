// The TraceQL box: completes what is being written, and underlines what the server does not understand while it is
// written. The text lies once more behind the field, in the same letters, for the underline.

import type { JSX } from 'preact';
import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import * as api from '../api';
import { indexOfByte } from '../query_error';
import { apply, choices, fieldText, spotAt, type Choice } from './complete';

let fields: Choice[] = [];
let fieldsAt = 0;
const valuesOf = new Map<string, Choice[]>();
const keptMs = 60_000;

interface Tags { scopes: { name: string; tags: string[] }[] }
interface Values { tagValues: { type: string; value: string }[] }

async function loadFields(): Promise<void> {
  if (Date.now() - fieldsAt < keptMs) return;
  fieldsAt = Date.now();
  valuesOf.clear();
  const { scopes } = await api.get<Tags>('tags', { limit: '1000' });
  fields = scopes.filter((s) => s.name !== 'intrinsic')
    .flatMap((s) => s.tags.map((key) => ({ text: `${fieldText(s.name, key)} `, shown: fieldText(s.name, key) })));
}

const durations: Choice[] = ['1ms', '10ms', '100ms', '1s', '10s'].map((text) => ({ text: `${text} `, shown: text }));

async function loadValues(field: string): Promise<Choice[]> {
  if (/duration$/i.test(field)) return durations;
  const kept = valuesOf.get(field);
  if (kept) return kept;
  const { tagValues } = await api.get<Values>(`tags/${encodeURIComponent(field)}/values`, { limit: '500' });
  const list = tagValues.map(({ type, value }) => {
    const text = type === 'string' ? JSON.stringify(value) : value;
    return { text: `${text} `, shown: text };
  });
  valuesOf.set(field, list);
  return list;
}

export function QueryBox({ id, value, placeholder, error, onChange }: {
  id: string;
  value: string;
  placeholder: string;
  error?: string; // the id of an element that says what is wrong with what was sent
  onChange: (text: string) => void;
}): JSX.Element {
  const listId = useId();
  const input = useRef<HTMLInputElement>(null);
  const mirror = useRef<HTMLDivElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const taken = useRef<{ text: string; cursor: number } | null>(null);
  const [cursor, setCursor] = useState(value.length);
  const [open, setOpen] = useState(false);
  const [asked, setAsked] = useState(false);
  const [at, setAt] = useState(-1);
  const [left, setLeft] = useState(0);
  const [known, setKnown] = useState<{ field: string; values: Choice[] }>({ field: '', values: [] });
  const [, again] = useState(0);
  const [wrong, setWrong] = useState<{ text: string; at: number; message: string } | null>(null);

  const spot = useMemo(() => spotAt(value, cursor), [value, cursor]);
  // Where a word is being chosen the list comes by itself; where one has just been finished it is asked for.
  const offered = ['field', 'value', 'stage', 'compare'].includes(spot.wanted) || spot.prefix !== '';
  const shown = open && (offered || asked) ? choices(spot, fields, known.field === spot.field ? known.values : []) : [];

  useEffect(() => {
    if (!open || spot.wanted !== 'value' || known.field === spot.field) return;
    let mine = true;
    loadValues(spot.field).then((values) => mine && setKnown({ field: spot.field, values })).catch(() => mine && setKnown({ field: spot.field, values: [] }));
    return () => void (mine = false);
  }, [open, spot.wanted, spot.field]);

  // What is wrong so far, a moment after the last key. What is wrong at the very end is only not finished.
  useEffect(() => {
    setWrong(null);
    if (!value.trim()) return;
    const abort = new AbortController();
    const timer = setTimeout(() => {
      api.get<{ wrong?: string; position?: number }>('parse', { q: value }, abort.signal).then(({ wrong: message, position }) => {
        if (abort.signal.aborted || !message || position === undefined) return;
        const where = indexOfByte(value, position);
        if (where < value.trimEnd().length || document.activeElement !== input.current) setWrong({ text: value, at: where, message });
      }).catch(() => {});
    }, 250);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [value]);

  const look = (): void => {
    const el = input.current;
    if (!el) return;
    setCursor(el.selectionStart ?? el.value.length);
    // Where the word begins: the letters are all of one width.
    const width = Number.parseFloat(getComputedStyle(el).fontSize) * 0.602;
    setLeft(Math.max(0, Math.min(el.clientWidth - 260, 10 + spotAt(el.value, el.selectionStart ?? 0).from * width - el.scrollLeft)));
    if (mirror.current) mirror.current.scrollLeft = el.scrollLeft;
  };
  const take = (choice: Choice): void => {
    const next = apply(value, spot, choice);
    onChange(next.text);
    setAt(-1);
    setCursor(next.cursor);
    taken.current = next;
    input.current?.focus();
  };
  // At once when it is drawn: the next key may come before the next frame.
  useLayoutEffect(() => {
    const next = taken.current;
    taken.current = null;
    if (next?.text !== value) return;
    input.current?.setSelectionRange(next.cursor, next.cursor);
    look();
  }, [value]);
  useEffect(() => {
    list.current?.children[at]?.scrollIntoView({ block: 'nearest' });
  }, [at]);

  const marked = wrong && wrong.text === value ? wrong : null;
  const end = marked ? Math.max(marked.at + 1, marked.at + (/^[^\s{}()]+/.exec(value.slice(marked.at))?.[0].length ?? 1)) : 0;
  return (
    <div class="query-box">
      <div class="query-mirror" ref={mirror} aria-hidden="true">
        {marked && <>{value.slice(0, marked.at)}<mark>{value.slice(marked.at, end) || ' '}</mark>{value.slice(end)}</>}
      </div>
      <input id={id} ref={input} type="text" role="combobox" autocomplete="off" autocapitalize="off" spellcheck={false}
        placeholder={placeholder} value={value} title={marked?.message}
        aria-invalid={marked !== null || error !== undefined} aria-describedby={error} aria-autocomplete="list"
        aria-expanded={shown.length > 0} aria-controls={listId} aria-activedescendant={at >= 0 && shown[at] ? `${listId}-${at}` : undefined}
        onFocus={() => {
          loadFields().then(() => again((n) => n + 1)).catch(() => {});
          look();
        }}
        onBlur={() => setOpen(false)}
        onInput={(e) => {
          onChange(e.currentTarget.value);
          setOpen(true);
          setAsked(false);
          setAt(-1);
          look();
        }}
        onScroll={look} onClick={look} onKeyUp={(e) => (e.key.startsWith('Arrow') || e.key === 'Home' || e.key === 'End') && look()}
        onKeyDown={(e) => {
          const step = e.key === 'ArrowDown' ? 1 : e.key === 'ArrowUp' ? -1 : 0;
          if (step || (e.key === ' ' && e.ctrlKey)) {
            if (shown.length === 0) {
              if (step < 0) return;
              e.preventDefault();
              look();
              setAsked(true);
              return setOpen(true);
            }
            e.preventDefault();
            if (shown.length && step) setAt((at + step + shown.length + (at < 0 && step < 0 ? 1 : 0)) % shown.length);
          } else if ((e.key === 'Enter' && at >= 0 && shown[at]) || (e.key === 'Tab' && open && shown.length > 0 && !e.shiftKey)) {
            e.preventDefault();
            take(shown[Math.max(0, at)]!);
          } else if (e.key === 'Enter') setOpen(false);
          else if (e.key === 'Escape' && shown.length > 0) {
            e.preventDefault();
            e.stopPropagation();
            setOpen(false);
            setAt(-1);
          }
        }} />
      <ul id={listId} ref={list} role="listbox" aria-label="Completions" hidden={shown.length === 0} style={{ left: `${left}px` }}>
        {shown.map((c, i) => (
          <li key={c.text} id={`${listId}-${i}`} role="option" aria-selected={i === at}
            onMouseDown={(e) => {
              e.preventDefault();
              take(c);
            }}>
            <span class="option-value">{c.shown ?? c.text}</span>
            {c.hint && <span class="muted">{c.hint}</span>}
          </li>
        ))}
      </ul>
      {marked && error === undefined && <p class="query-hint" role="status">{marked.message}</p>}
    </div>
  );
}
