// Small parts that several pages use.

import { signal } from '@preact/signals';
import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { ApiError } from './api';
import { serviceColor } from './color';

const icons = {
  search: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.4 10.4 14 14',
  find: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.4 10.4 14 14',
  live: 'M2 8h3l2-5 3 10 2-5h2',
  copy: 'M6 5.5h7.5v8H6zM4 10.5H2.5v-8H10V4',
  done: 'm3 8.5 3.5 3.5L13 4.5',
  close: 'm4 4 8 8M12 4l-8 8',
  sun: 'M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1',
  moon: 'M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5z',
  help: 'M5.5 6a2.5 2.5 0 1 1 3.5 2.3c-.7.300-1 .8-1 1.7M8 12.8v.1',
  error: 'M8 2 14.5 13.5h-13zM8 6.5v3.2M8 11.5v.2',
  left: 'M10 3.5 5.5 8l4.5 4.5',
  right: 'M6 3.5 10.5 8 6 12.5',
  down: 'M3.5 6 8 10.5 12.5 6',
  pause: 'M5.5 3v10M10.5 3v10',
  play: 'M5 3v10l8-5z',
  link: 'M6.5 9.5l3-3M7 4.5 8.5 3A3 3 0 0 1 13 7.5L11.5 9M9 11.5 7.5 13A3 3 0 0 1 3 8.5L4.5 7',
  zoom: 'M2 5V2h3M11 2h3v3M14 11v3h-3M5 14H2v-3M5 8h6',
  unfold: 'M3.5 3 8 7.5 12.5 3M3.5 8.5 8 13l4.5-4.5',
  fold: 'M3.5 7.5 8 3l4.5 4.5M3.5 13 8 8.5l4.5 4.5',
  clock: 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 4.8V8l2.2 1.6',
  merge: 'M2.5 3.5h11M2.5 12.5h11M5 8h1M7.5 8h1M10 8h1',
  minus: 'M4 8h8',
  reload: 'M13 3v3.5H9.5M12.7 6.5A5 5 0 1 0 13 9.5',
} as const;

export type IconName = keyof typeof icons;

export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <path d={icons[name]} fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  );
}

export function IconButton({ icon, label, onClick, pressed, text, disabled, keys }: {
  icon: IconName;
  label: string;
  onClick: () => void;
  pressed?: boolean;
  text?: string;
  disabled?: boolean;
  keys?: string;
}): JSX.Element {
  return (
    <button type="button" class="icon-button" title={keys ? `${label} (${keys})` : label}
      aria-label={text ? undefined : label} aria-pressed={pressed} disabled={disabled} onClick={onClick}>
      <Icon name={icon} />
      {text}
    </button>
  );
}

export const IconLink = ({ icon, label, href }: { icon: IconName; label: string; href: string }): JSX.Element => (
  <a class="icon-button" href={href} title={label} aria-label={label}><Icon name={icon} /></a>
);

// ---- what was just done, for eyes and for screen readers ----

const said = signal('');
let saidTimer = 0;

export function say(text: string): void {
  said.value = text;
  clearTimeout(saidTimer);
  saidTimer = window.setTimeout(() => (said.value = ''), 2200);
}

export const Said = (): JSX.Element => (
  <div class={`said${said.value ? ' shown' : ''}`} role="status" aria-live="polite">{said.value}</div>
);

export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied`);
  } catch {
    // No clipboard outside secure contexts: the old way.
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'off-screen';
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    say(done ? `${what} copied` : `This browser does not let the page copy ${what}`);
  }
}

export function CopyButton({ text, label }: { text: () => string; label: string }): JSX.Element {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [done]);
  return (
    <button type="button" class="icon-button" title={label} aria-label={label}
      onClick={(e) => {
        e.stopPropagation();
        void copy(text(), label.replace(/^Copy /, '')).then(() => setDone(true));
      }}>
      <Icon name={done ? 'done' : 'copy'} />
    </button>
  );
}

export const ServiceDot = ({ name }: { name: string }): JSX.Element => (
  <span class={`dot svc-${serviceColor(name)}`} aria-hidden="true" />
);

// ---- states of a whole page ----

export function Problem({ error, retry }: { error: unknown; retry?: () => void }): JSX.Element {
  const message = error instanceof Error ? error.message : String(error);
  const status = error instanceof ApiError && error.status ? error.status : null;
  return (
    <div class="problem" role="alert">
      <Icon name="error" />
      <div>
        <strong>{message}</strong>
        {status !== null && <span class="muted"> ({status})</span>}
      </div>
      {retry && <button type="button" onClick={retry}>Try again</button>}
    </div>
  );
}

export const Loading = ({ what }: { what: string }): JSX.Element => (
  <div class="loading" role="status"><span class="spinner" aria-hidden="true" />{what}</div>
);

/** A command to copy. */
export const Command = ({ text, label }: { text: string; label: string }): JSX.Element => (
  <div class="command">
    <pre tabIndex={0} aria-label={label}><code>{text}</code></pre>
    <CopyButton text={() => text} label={`Copy ${label}`} />
  </div>
);

// ---- a text field with suggestions ----

export interface Suggestion {
  value: string;
  hint?: string;
  dot?: string; // a service
}

/** WAI-ARIA's editable combobox with a list: type to narrow, arrows to move, Enter to take. */
export function Combobox({ label, value, onChange, onCommit, suggestions, placeholder, onFocus }: {
  label: string;
  value: string;
  onChange: (value: string) => void;
  onCommit?: (value: string) => void;
  suggestions: Suggestion[];
  placeholder: string;
  onFocus?: () => void;
}): JSX.Element {
  const id = useId();
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  const [typed, setTyped] = useState(false);
  const list = useRef<HTMLUListElement>(null);
  const needle = typed ? value.trim().toLowerCase() : '';
  const shown = suggestions.filter((s) => s.value.toLowerCase().includes(needle)).slice(0, 200);
  const take = (v: string): void => {
    onChange(v);
    onCommit?.(v);
    setOpen(false);
    setAt(-1);
    setTyped(false);
  };
  useEffect(() => {
    list.current?.children[at]?.scrollIntoView({ block: 'nearest' });
  }, [at]);
  return (
    <div class="field combobox">
      <label for={id}>{label}</label>
      <input id={id} type="text" role="combobox" autocomplete="off" spellcheck={false} placeholder={placeholder}
        aria-expanded={open} aria-controls={`${id}-list`} aria-autocomplete="list"
        aria-activedescendant={open && at >= 0 ? `${id}-${at}` : undefined}
        value={value}
        onInput={(e) => {
          onChange(e.currentTarget.value);
          setTyped(true);
          setOpen(true);
          setAt(-1);
        }}
        onFocus={(e) => {
          onFocus?.();
          e.currentTarget.select();
        }}
        onMouseDown={() => {
          setTyped(false);
          setOpen(true);
        }}
        onBlur={() => {
          setOpen(false);
          setTyped(false);
        }}
        onKeyDown={(e) => {
          if (e.key === 'ArrowDown' || e.key === 'ArrowUp') {
            e.preventDefault();
            if (!open) return setOpen(true);
            const step = e.key === 'ArrowDown' ? 1 : -1;
            setAt(shown.length ? (at + step + shown.length + (at < 0 && step < 0 ? 1 : 0)) % shown.length : -1);
          } else if (e.key === 'Enter' && open && at >= 0 && shown[at]) {
            e.preventDefault();
            take(shown[at].value);
          } else if (e.key === 'Escape' && open) {
            e.preventDefault();
            e.stopPropagation();
            setOpen(false);
          }
        }} />
      {value && (
        <button type="button" class="clear" aria-label={`Clear ${label.toLowerCase()}`} onClick={() => take('')}>
          <Icon name="close" />
        </button>
      )}
      <ul id={`${id}-list`} ref={list} role="listbox" aria-label={label} hidden={!open || shown.length === 0}>
        {open && shown.map((s, i) => (
          <li key={s.value} id={`${id}-${i}`} role="option" aria-selected={i === at}
            onMouseDown={(e) => {
              e.preventDefault();
              take(s.value);
            }}>
            {s.dot && <ServiceDot name={s.dot} />}
            <span class="option-value">{s.value}</span>
            {s.hint && <span class="muted">{s.hint}</span>}
          </li>
        ))}
      </ul>
    </div>
  );
}

export const Field = ({ label, id, children, class: c = '' }: { label: string; id: string; children: ComponentChildren; class?: string }): JSX.Element => (
  <div class={`field ${c}`}>
    <label for={id}>{label}</label>
    {children}
  </div>
);
