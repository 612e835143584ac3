// Light, dark, or what the system says. CSS does the work through color-scheme and light-dark().

import { effect, signal } from '@preact/signals';
import { recall, remember } from './settings';

export type Theme = 'auto' | 'light' | 'dark';

const dark = matchMedia('(prefers-color-scheme: dark)');
const systemDark = signal(dark.matches);
dark.addEventListener('change', () => (systemDark.value = dark.matches));

const stored = recall('theme');
export const theme = signal<Theme>(stored === 'light' || stored === 'dark' ? stored : 'auto');
export const isDark = (): boolean =>
  theme.value === 'dark' || (theme.value === 'auto' && systemDark.value);

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  remember('theme', theme.value);
});

/** From what is seen now to the other one; back to "auto" when that is what the system says anyway. */
export function toggleTheme(): void {
  const next: Theme = isDark() ? 'light' : 'dark';
  theme.value = (next === 'dark') === systemDark.value ? 'auto' : next;
}
