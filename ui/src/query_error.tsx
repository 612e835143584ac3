// Where in the TraceQL the server stopped understanding.

import type { JSX } from 'preact';
import { ApiError } from './api';
import { Icon } from './parts';

/** The place in the text (not in its bytes, which the server counts), when the error has one. */
export function queryErrorAt(error: unknown, q: string): number | undefined {
  if (!(error instanceof ApiError) || error.status !== 400 || error.position === undefined || !q) return undefined;
  return indexOfByte(q, error.position);
}

export function indexOfByte(text: string, position: number): number {
  const encoder = new TextEncoder();
  let bytes = 0;
  let index = 0;
  for (const character of text) {
    if (bytes >= position) break;
    bytes += encoder.encode(character).length;
    index += character.length;
  }
  return index;
}

export function QueryError({ id, q, at, message }: { id: string; q: string; at: number; message: string }): JSX.Element {
  const end = at < q.length ? at + String.fromCodePoint(q.codePointAt(at)!).length : at;
  return (
    <div class="query-error" id={id} role="alert">
      <code>{q.slice(0, at)}<mark>{q.slice(at, end) || ' '}</mark>{q.slice(end)}</code>
      <span><Icon name="error" /> {message}</span>
    </div>
  );
}
