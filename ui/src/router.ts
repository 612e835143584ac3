// Every state of the page is in its address: what a user sees can be sent to another.

import { batch, signal } from '@preact/signals';

export type Page = 'search' | 'live' | 'trace' | 'store' | 'ledger' | 'missing';

export interface Route {
  page: Page;
  id: string; // of the trace
  params: URLSearchParams;
}

function read(): Route {
  const path = decode(location.pathname).replace(/\/+$/, '') || '/';
  const params = new URLSearchParams(location.search);
  const m = /^\/trace\/([0-9a-fA-F]{1,32})$/.exec(path);
  if (m) return { page: 'trace', id: m[1]!.toLowerCase().padStart(32, '0'), params };
  if (path === '/' || path === '/search' || path === '/index.html') return { page: 'search', id: '', params };
  if (path === '/live') return { page: 'live', id: '', params };
  if (path === '/store') return { page: 'store', id: '', params };
  if (path === '/ledger') return { page: 'ledger', id: '', params };
  return { page: 'missing', id: '', params };
}

function decode(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

export const route = signal<Route>(read());

addEventListener('popstate', () => (route.value = read()));

export function navigate(to: string, { replace = false } = {}): void {
  const url = new URL(to, location.href);
  if (url.href === location.href) return;
  const leaves = url.pathname !== location.pathname;
  if (replace) history.replaceState(history.state, '', url);
  else history.pushState({ inside: true }, '', url);
  batch(() => (route.value = read()));
  if (leaves) scrollTo(0, 0);
}

/** Changes some parameters of the address; null takes one away. */
export function setParams(changes: Record<string, string | null>, options: { replace?: boolean } = {}): void {
  const params = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes))
    if (value === null || value === '') params.delete(name);
    else params.set(name, value);
  const text = params.toString();
  navigate(location.pathname + (text ? `?${text}` : ''), options);
}

/** Back when this page brought us here, else to `otherwise`. */
export function goBack(otherwise: string): void {
  if ((history.state as { inside?: boolean } | null)?.inside) history.back();
  else navigate(otherwise);
}

// Ordinary links within the page stay ordinary links: they open in a new tab, show their address and
// work with a screen reader. Only a plain click is taken over.
document.addEventListener('click', (e) => {
  if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
  const a = e.target instanceof Element ? e.target.closest('a') : null;
  if (!a || a.target || a.hasAttribute('download') || a.origin !== location.origin) return;
  if (a.pathname.startsWith('/api/') || a.pathname.startsWith('/licenses')) return;
  e.preventDefault();
  navigate(a.href);
});

export const traceUrl = (traceId: string, spanId?: string): string =>
  `/trace/${encodeURIComponent(traceId)}${spanId ? `?span=${encodeURIComponent(spanId)}` : ''}`;
