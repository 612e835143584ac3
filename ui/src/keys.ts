// Keyboard shortcuts. Each page says which it has while it is shown; the help lists what is there.
// A key does nothing while somebody types, except Escape, which leaves the field.

import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';

export interface Shortcut {
  keys: string[]; // "j", "ArrowDown", "g s" (one after the other), "Shift+Enter"
  does: string;
  run: (e: KeyboardEvent) => void | boolean; // false: not mine, let it pass
  shown?: string; // in the help, when not `keys`
}

interface Group {
  title: string;
  shortcuts: () => Shortcut[];
}

const groups = signal<Group[]>([]);
export const helpOpen = signal(false);
export const shortcutGroups = (): { title: string; shortcuts: Shortcut[] }[] =>
  groups.value.map((g) => ({ title: g.title, shortcuts: g.shortcuts() }));

export function useShortcuts(title: string, shortcuts: Shortcut[]): void {
  const latest = useRef(shortcuts);
  latest.current = shortcuts;
  useEffect(() => {
    const group: Group = { title, shortcuts: () => latest.current };
    groups.value = [...groups.peek(), group];
    return () => {
      groups.value = groups.peek().filter((g) => g !== group);
    };
  }, [title]);
}

const isTyping = (t: EventTarget | null): boolean =>
  t instanceof HTMLElement &&
  (t.isContentEditable || t instanceof HTMLTextAreaElement || t instanceof HTMLSelectElement ||
    (t instanceof HTMLInputElement && !['checkbox', 'radio', 'button', 'submit'].includes(t.type)));

const nameOf = (e: KeyboardEvent): string => {
  const shift = e.shiftKey && e.key.length > 1 ? 'Shift+' : '';
  return shift + e.key;
};

let pending = '';
let pendingUntil = 0;

document.addEventListener('keydown', (e) => {
  if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || e.isComposing) return;
  if (isTyping(e.target)) {
    if (e.key === 'Escape') (e.target as HTMLElement).blur();
    return;
  }
  if (document.querySelector('dialog[open]')) return;
  const key = nameOf(e);
  const two = pending && e.timeStamp < pendingUntil ? `${pending} ${key}` : '';
  pending = '';
  // A button or link that has the focus keeps its own Enter and Space.
  const own = e.target instanceof Element && e.target.closest('a,button,summary') && (key === 'Enter' || key === ' ');
  for (const wanted of two ? [two, key] : [key]) {
    for (const group of [...groups.peek()].reverse()) {
      for (const s of group.shortcuts()) {
        if (!s.keys.includes(wanted)) continue;
        if (own) continue;
        if (s.run(e) === false) continue;
        e.preventDefault();
        return;
      }
    }
  }
  const starts = groups.peek().some((g) => g.shortcuts().some((s) => s.keys.some((k) => k.startsWith(`${key} `))));
  if (starts) {
    pending = key;
    pendingUntil = e.timeStamp + 1200;
  }
});
