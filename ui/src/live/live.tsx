// Spans as they become durable. Newest on top; nothing moves while it is read: pausing (the key, the
// button, scrolling away from the top, choosing a row) holds the list and counts what comes.

import type { JSX } from 'preact';
import { memo } from 'preact/compat';
import { useEffect, useRef, useState } from 'preact/hooks';
import { errorOf, query, type LiveSpan } from '../api';
import { serviceColor } from '../color';
import { useShortcuts } from '../keys';
import { Icon, IconButton, Problem } from '../parts';
import { QueryBox } from '../query/box';
import { QueryError, queryErrorAt } from '../query_error';
import { navigate, route, setParams, traceUrl } from '../router';
import { formatClock, formatDuration, formatFull, group, parseNs, zone } from '../time';
import { FirstSpan } from '../search/first';
import { services } from '../services';

const keptMax = 1000; // rows
const heldMax = 5000; // while paused
const sleepAfterMs = 60_000;
const movingMax = 120; // rows in the document while they move: more than fit on a screen; the rest when it holds still

interface Item extends LiveSpan {
  n: number;
}

type Connection = 'connecting' | 'open' | 'lost';

/** What was on the page when it was left, for coming back from a trace. */
let kept: { q: string; items: Item[]; paused: boolean; dropped: bigint; total: number; at: number } | null = null;

const Row = memo(function Row({ item, selected }: { item: Item; selected: boolean; zone: string }): JSX.Element {
  const start = parseNs(item.startUnixNano);
  const duration = Number(item.durationNano);
  // A decade of duration is a seventh of the bar: 1 µs is nothing, 10 s is all.
  const share = Math.min(1, Math.max(0.02, (Math.log10(Math.max(1000, duration)) - 3) / 7));
  const failed = item.status === 'ERROR';
  return (
    <div class={`live-row svc-${serviceColor(item.service)}${failed ? ' failed' : ''}${selected ? ' selected' : ''}`} role="row" data-n={item.n}>
      <span role="cell" class="number" title={formatFull(start)}>{formatClock(start)}</span>
      <span role="cell" class="live-service"><span class="dot" aria-hidden="true" />{item.service}</span>
      <span role="cell" class="live-name">
        {failed && <span class="error-icon" title="failed"><Icon name="error" /></span>}
        <a href={traceUrl(item.traceId, item.spanId)}>{item.name || '(no name)'}</a>
        {!item.parentSpanId && <span class="badge">root</span>}
      </span>
      <span role="cell" class="muted live-kind">{item.kind.toLowerCase()}</span>
      <span role="cell" class="c-duration">
        <span class="duration-bar" aria-hidden="true"><span style={{ width: `${share * 100}%` }} /></span>
        <span class="number">{formatDuration(duration)}</span>
      </span>
      <span role="cell" class="live-id"><code>{item.traceId.slice(0, 8)}</code></span>
    </div>
  );
});

export function Live(): JSX.Element {
  const { params } = route.value;
  const q = params.get('q') ?? '';
  const [text, setText] = useState(q);
  useEffect(() => setText(q), [q]);
  const before = kept?.q === q ? kept : null;
  const [items, setItems] = useState<Item[]>(before?.items ?? []);
  const [held, setHeld] = useState(0);
  const [paused, setPaused] = useState(before?.paused ?? false);
  const [dropped, setDropped] = useState(before?.dropped ?? 0n);
  const [total, setTotal] = useState(before?.total ?? 0);
  const [rate, setRate] = useState(0);
  const [connection, setConnection] = useState<Connection>('connecting');
  const [error, setError] = useState<unknown>(null);
  const [attempt, setAttempt] = useState(0);
  const [asleep, setAsleep] = useState(false);
  const [at, setAt] = useState(before?.at ?? -1); // the chosen item's number
  const list = useRef<HTMLDivElement>(null);
  const holding = useRef(false);
  holding.current = paused;
  const waiting = useRef<Item[]>([]);
  const overflow = useRef(0);
  const seen = useRef(before?.total ?? 0);
  const listOf = useRef(q); // whose list it is
  kept = { q: listOf.current, items, paused, dropped, total: seen.current, at };

  useEffect(() => {
    document.title = 'Live · Pugmark';
  }, []);

  const release = (): void => {
    const more = waiting.current;
    waiting.current = [];
    overflow.current = 0;
    setHeld(0);
    if (more.length) setItems((now) => [...more.reverse(), ...now].slice(0, keptMax));
  };

  // Another filter is another list; the same one taken up again goes on.
  useEffect(() => {
    if (listOf.current === q) return;
    listOf.current = q;
    setItems([]);
    setDropped(0n);
    setTotal(0);
    setHeld(0);
    setAt(-1);
    setPaused(false);
    waiting.current = [];
    overflow.current = 0;
    seen.current = 0;
  }, [q]);

  useEffect(() => {
    if (asleep) return;
    setError(null);
    setConnection('connecting');
    let frame = 0;
    let flushedAt = 0;
    let since = 0;
    const abort = new AbortController();
    const url = `/api/pugmark/live${query({ q })}`;
    const source = new EventSource(url);
    const bound = (max: number): void => {
      if (waiting.current.length > max) overflow.current += waiting.current.splice(0, waiting.current.length - heldMax).length;
    };
    // A burst is one render, not one each; a stream is ten a second, which the eye can still follow.
    const flush = (at: number): void => {
      if (at - flushedAt < 90) {
        frame = requestAnimationFrame(flush);
        return;
      }
      flushedAt = at;
      frame = 0;
      setTotal(seen.current);
      if (holding.current) {
        bound(heldMax);
        setHeld(waiting.current.length + overflow.current);
      } else release();
    };
    source.addEventListener('open', () => {
      setConnection('open');
      setError(null);
    });
    source.addEventListener('span', (e) => {
      try {
        waiting.current.push({ ...(JSON.parse((e as MessageEvent<string>).data) as LiveSpan), n: seen.current++ });
      } catch {
        return;
      }
      since++;
      bound(2 * heldMax); // a page that is not shown gets no frames
      frame ||= requestAnimationFrame(flush);
    });
    source.addEventListener('dropped', (e) => {
      try {
        const { count } = JSON.parse((e as MessageEvent<string>).data) as { count: string };
        setDropped((d) => d + BigInt(count));
      } catch {
        /* not a count */
      }
    });
    source.addEventListener('error', () => {
      setConnection('lost');
      if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      // An EventSource does not tell what the answer was: ask once more.
      const ask = new AbortController();
      fetch(url, { signal: ask.signal }).then(async (a) => {
        if (abort.signal.aborted) return;
        if (a.ok) {
          ask.abort();
          setTimeout(() => !abort.signal.aborted && setAttempt((x) => x + 1), 1000);
        } else setError(await errorOf(a));
      }).catch(() => setTimeout(() => !abort.signal.aborted && setAttempt((x) => x + 1), 2000));
    });
    const meter = setInterval(() => {
      setRate((r) => (r === 0 ? since : r * 0.4 + since * 0.6));
      since = 0;
    }, 1000);
    return () => {
      abort.abort();
      source.close();
      clearInterval(meter);
      cancelAnimationFrame(frame);
    };
  }, [q, attempt, asleep]);

  // A browser keeps six connections to a server: pages that nobody has looked at for a minute give theirs back.
  useEffect(() => {
    let timer = 0;
    const look = (): void => {
      clearTimeout(timer);
      if (document.hidden) timer = window.setTimeout(() => setAsleep(true), sleepAfterMs);
      else setAsleep(false);
    };
    document.addEventListener('visibilitychange', look);
    return () => {
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', look);
    };
  }, []);

  const toggle = (): void => {
    if (paused) {
      release();
      setAt(-1);
      list.current?.scrollTo({ top: 0 });
    }
    setPaused(!paused);
  };
  const clear = (): void => {
    waiting.current = [];
    overflow.current = 0;
    setHeld(0);
    setItems([]);
  };
  const move = (step: number): void => {
    if (!items.length) return;
    setPaused(true);
    const now = items.findIndex((i) => i.n === at);
    const next = items[now < 0 ? 0 : Math.min(items.length - 1, Math.max(0, now + step))]!;
    setAt(next.n);
    const row = list.current?.querySelector<HTMLElement>(`[data-n="${next.n}"]`);
    row?.scrollIntoView({ block: 'nearest' });
    row?.querySelector('a')?.focus({ preventScroll: true });
  };
  useShortcuts('Live', [
    { keys: ['/'], does: 'Write a filter', run: () => document.getElementById('live-q')?.focus() },
    { keys: ['p', ' '], shown: 'p', does: 'Pause or go on', run: toggle },
    { keys: ['x'], does: 'Clear the list', run: clear },
    { keys: ['j', 'ArrowDown'], does: 'Next span (pauses)', run: () => move(1) },
    { keys: ['k', 'ArrowUp'], does: 'Previous span (pauses)', run: () => move(-1) },
    {
      keys: ['Enter', 'o'], does: 'Open its trace', run: () => {
        const item = items.find((i) => i.n === at);
        if (!item) return false;
        navigate(traceUrl(item.traceId, item.spanId));
      },
    },
  ]);

  const queryAt = queryErrorAt(error, q);
  const refused = queryAt !== undefined && text.trim() === q.trim(); // of a changed text the box says what is wrong
  const states: Record<Connection, string> = { connecting: 'Connecting…', open: paused ? 'Paused' : 'Live', lost: 'Connection lost; trying again…' };
  return (
    <div class="page live">
      <h1 class="off-screen">Live spans</h1>
      <form class="search-form" role="search" aria-label="Live spans" onSubmit={(e) => {
        e.preventDefault();
        if (text.trim() === q) setAttempt(attempt + 1);
        else setParams({ q: text.trim() });
      }}>
        <div class="search-line">
          <div class="field grow traceql">
            <label for="live-q">TraceQL</label>
            <QueryBox id="live-q" value={text} placeholder={'{ status = error || duration > 100ms }'}
              {...(refused ? { error: 'live-q-error' } : {})} onChange={setText} />
          </div>
          <button type="submit" class="primary"><Icon name="live" />Watch</button>
        </div>
      </form>
      {refused && <QueryError id="live-q-error" q={q} at={queryAt} message={(error as Error).message} />}
      {error !== null && queryAt === undefined && <Problem error={error} retry={() => setAttempt(attempt + 1)} />}
      <div class="summary">
        <span class={`connection ${connection}${paused ? ' paused' : ''}`} role="status"><span class="lamp" aria-hidden="true" />{error !== null ? 'Not connected' : states[connection]}</span>
        <span class="muted number">{group(total)} spans · {rate < 10 ? rate.toFixed(rate === 0 ? 0 : 1) : group(Math.round(rate))}/s</span>
        {dropped > 0n && <span class="badge warn" title="Stored, but not shown: more came than the server sends to a page">{group(dropped)} dropped</span>}
        {items.length === keptMax && <span class="muted">the last {group(keptMax)} are kept</span>}
        <span class="grow" />
        {held > 0 && <button type="button" class="textual" onClick={toggle}>{group(held)} new</button>}
        <IconButton icon={paused ? 'play' : 'pause'} text={paused ? 'Go on' : 'Pause'} label="Pause or go on" keys="p" pressed={paused} onClick={toggle} />
        <IconButton icon="close" text="Clear" label="Clear the list" keys="x" onClick={clear} />
      </div>
      <div class="panel live-list" ref={list} role="table" aria-label="Live spans" tabIndex={-1}
        onScroll={(e) => {
          if (e.currentTarget.scrollTop > 40 && !holding.current) setPaused(true);
        }}
        onPointerDown={(e) => {
          const row = (e.target as Element).closest<HTMLElement>('[data-n]');
          if (!row) return;
          setPaused(true);
          setAt(Number(row.dataset.n));
        }}>
        <div class="live-row head" role="row">
          <span role="columnheader">Start</span>
          <span role="columnheader">Service</span>
          <span role="columnheader">Span</span>
          <span role="columnheader">Kind</span>
          <span role="columnheader" class="c-duration">Duration</span>
          <span role="columnheader">Trace</span>
        </div>
        {(paused ? items : items.slice(0, movingMax)).map((i) => <Row key={i.n} item={i} selected={i.n === at} zone={zone.value} />)}
        {items.length === 0 && connection === 'open' && error === null && (
          total === 0 && !q ? <FirstSpanOrWait /> : <p class="waiting muted">Waiting for the next span{q ? ' that fulfils the query' : ''}…</p>
        )}
      </div>
    </div>
  );
}

/** Nothing since the page was opened: perhaps nothing ever, then help. */
const FirstSpanOrWait = (): JSX.Element =>
  services.value?.length === 0 ? <FirstSpan /> : <p class="waiting muted">Waiting for the next span…</p>;
