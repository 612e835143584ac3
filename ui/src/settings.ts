// What the page remembers on this browser: theme, zone, widths, colours. A browser that forbids
// storage gets the defaults each time.

const prefix = 'pugmark.';

export function recall(name: string): string | null {
  try {
    return localStorage.getItem(prefix + name);
  } catch {
    return null;
  }
}

export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(prefix + name, value);
  } catch {
    /* private window, or full */
  }
}

export function recallNumber(name: string, fallback: number, min: number, max: number): number {
  const n = Number(recall(name) ?? NaN);
  return Number.isFinite(n) ? Math.min(max, Math.max(min, n)) : fallback;
}
