import { signal } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import * as api from '../api';
import { ApiError, type Found, type Outline, type Params, type SpanAnswer } from '../api';
import { colorsReady } from '../services';
import { useShortcuts } from '../keys';
import { copy, CopyButton, Icon, IconButton, Loading, Problem, ServiceDot } from '../parts';
import { goBack, route, setParams } from '../router';
import { recallNumber, remember } from '../settings';
import { formatClock, formatDuration, formatExact, formatFull, group } from '../time';
import { Detail, zoomTo } from './detail';
import { Drawer, panelOf, togglePanel } from './drawer';
import { Minimap } from './minimap';
import { adjustsOf, flip, foldAt, foldOf, isWhole, mergeBelow, mergesOf, rangeOf, selectSpan, setAdjusts, setMerges, setRange, zoomAt } from './view';
import { Splitter, Waterfall } from './waterfall';
import { modelOf, type Line, type Shown, type TraceModel } from './windows';

/** The last trace, so that back and forward do not load it again. */
const loaded = signal<TraceModel | null>(null);

export function Trace({ id }: { id: string }): JSX.Element {
  const [error, setError] = useState<unknown>(null);
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    if (attempt === 0 && loaded.peek()?.traceId === id) return;
    const abort = new AbortController();
    setError(null);
    Promise.all([api.tracePart<Outline>(id, 'outline', {}, abort.signal), colorsReady])
      .then(([o]) => {
        if (abort.signal.aborted) return;
        if (o.traceId !== id) throw new Error('The server answered with something else than this trace.');
        loaded.value = modelOf(o, () => setAttempt((n) => n + 1));
      })
      .catch((e: unknown) => !abort.signal.aborted && setError(e));
    return () => abort.abort();
  }, [id, attempt]);
  useEffect(() => {
    document.title = `Trace ${id.slice(0, 8)} · Pugmark`;
  }, [id]);
  const again = (): void => setAttempt(attempt + 1);
  const model = loaded.value;
  if (error !== null) {
    return (
      <div class="page">
        {error instanceof ApiError && error.status === 404 ? <NoTrace id={id} retry={again} /> : <Problem error={error} retry={again} />}
      </div>
    );
  }
  if (!model || model.traceId !== id) return <div class="page"><Loading what="Loading the trace…" /></div>;
  return <View key={model.traceId} model={model} reload={again} />;
}

function NoTrace({ id, retry }: { id: string; retry: () => void }): JSX.Element {
  return (
    <div class="nothing">
      <h2>There is no trace <code>{id}</code></h2>
      <p class="muted">
        Its spans have not come yet, were sampled away, or are older than what the store keeps. A program sends a span when it has ended,
        often some seconds later.
      </p>
      <div class="choices">
        <button type="button" onClick={retry}>Look again</button>
        <a class="button" href={`/ledger?trace=${id}`}>Where did it go?</a>
        <a class="button" href="/search">Search</a>
        <a class="button" href="/live">Watch live</a>
      </div>
    </div>
  );
}

function Facts({ model, reload, next }: { model: TraceModel; reload: () => void; next: () => void }): JSX.Element {
  const { outline } = model;
  const failed = outline.errorCount;
  return (
    <header class="trace-head">
      <div class="trace-title">
        <IconButton icon="left" label="Back" keys="Esc" onClick={() => goBack('/search')} />
        <h1>
          <span class="service"><ServiceDot name={outline.rootService} /><span>{outline.rootService}</span></span>
          <span class="name">{outline.rootName || '(no name)'}</span>
        </h1>
        <span class="trace-id"><code>{model.traceId}</code><CopyButton text={() => model.traceId} label="Copy trace id" /></span>
        <span class="grow" />
        <IconButton icon="reload" label="Load again" keys="r" onClick={reload} />
        <a class="icon-button" href={`/api/pugmark/traces/${model.traceId}`} target="_blank" rel="noreferrer" title="The trace as JSON">JSON</a>
      </div>
      <dl class="facts">
        <div><dt>Start</dt><dd title={formatFull(model.start)}>{formatFull(model.start, 3)}</dd></div>
        <div><dt>Duration</dt><dd title={formatExact(model.duration)}><strong>{formatDuration(model.duration)}</strong></dd></div>
        <div><dt>Spans</dt><dd>{group(model.spans)}</dd></div>
        <div><dt>Services</dt><dd>{group(model.services.length)}</dd></div>
        <div><dt>Depth</dt><dd>{group(model.depth)}</dd></div>
        <div>
          <dt>Errors</dt>
          <dd>
            {failed === 0 ? <span class="muted">none</span> : (
              <button type="button" class="error-link" onClick={next} title="Go to the next failed span (e)">
                <Icon name="error" />{group(failed)}
              </button>
            )}
          </dd>
        </div>
      </dl>
    </header>
  );
}

function Notice({ model, next }: { model: TraceModel; next: () => void }): JSX.Element | null {
  const { orphanCount: n, missingParents: missing } = model.outline;
  if (n === 0) return null;
  return (
    <div class="notice" role="note">
      <Icon name="error" />
      <span>
        <strong>Incomplete:</strong> {missing === 1 ? 'one parent span is' : `${group(missing)} parent spans are`} not here (not sent yet,
        dropped, or not sampled), so {n === 1 ? 'one span stands on its own' : `${group(n)} spans stand on their own`} below.
      </span>
      <button type="button" class="textual" onClick={next}>Show {n === 1 ? 'it' : 'the next'}</button>
    </div>
  );
}

/** What is known of the clocks, and the switch between times as they were recorded and as they must have been. */
function Clocks({ model, adjusted }: { model: TraceModel; adjusted: boolean }): JSX.Element | null {
  const clocks = model.outline.clocks ?? [];
  const name = (i: number | undefined): string => model.services[i ?? -1]?.name ?? 'another service';
  const wrong = clocks.filter((c) => Number(c.aheadNano) !== 0);
  const unclear = clocks.filter((c) => Number(c.aheadNano) === 0 && c.contradicted);
  if (wrong.length === 0 && unclear.length === 0) return null;
  const said = wrong.slice(0, 3).map((c) => {
    const ahead = Number(c.aheadNano);
    const half = c.highNano !== undefined && c.lowNano !== undefined ? (Number(c.highNano) - Number(c.lowNano)) / 2 : null;
    return (
      <span key={c.service} title={`From ${group(c.calls ?? 0)} ${c.calls === 1 ? 'call' : 'calls'} between ${name(c.relativeTo)} and ${name(c.service)}: what is called cannot begin before the call, nor end after its answer`}>
        <strong>{name(c.service)}</strong> is {formatDuration(Math.abs(ahead))} {ahead > 0 ? 'ahead' : 'behind'}
        {half !== null ? ` (± ${formatDuration(half)})` : ' or more'}
      </span>
    );
  });
  return (
    <div class="notice clocks" role="note">
      <Icon name="clock" />
      <span>
        {wrong.length > 0 && <>Clocks differ: {said.map((s, i) => [i > 0 && ', ', s])}{wrong.length > 3 && `, and ${wrong.length - 3} more`}. </>}
        {unclear.length > 0 && <>The calls to {unclear.slice(0, 3).map((c) => name(c.service)).join(', ')} contradict each other: several machines under one name?</>}
      </span>
      {wrong.length > 0 && (
        <span class="switch" role="group" aria-label="Times">
          <button type="button" aria-pressed={!adjusted} onClick={() => setAdjusts(false)} title="Times as the programs sent them (a)">As recorded</button>
          <button type="button" aria-pressed={adjusted} onClick={() => setAdjusts(true)} title="Times with these differences taken away (a)">Adjusted</button>
        </span>
      )}
    </div>
  );
}

function View({ model, reload }: { model: TraceModel; reload: () => void }): JSX.Element {
  const { params } = route.value;
  const range = useMemo(() => rangeOf(model, params), [model, params.get('from'), params.get('to')]);
  const fold = useMemo(() => foldOf(params), [params.get('fold'), params.get('flip')]);
  const { windows } = model;
  const spanId = params.get('span') ?? '';
  const find = params.get('find') ?? '';
  const service = params.get('only') ?? '';
  const merges = mergesOf(model, params);
  const adjusted = adjustsOf(model, params);
  const [barWidth, setBarWidth] = useState(0);
  const [detailWidth, setDetailWidth] = useState(() => recallNumber('detailWidth', 440, 280, 1000));
  const findInput = useRef<HTMLInputElement>(null);
  const page = useRef<HTMLDivElement>(null);
  const focusRows = (): void => page.current?.querySelector<HTMLElement>('.rows')?.focus({ preventScroll: true });

  useEffect(() => {
    document.title = `${model.outline.rootService}: ${model.outline.rootName} · Pugmark`;
  }, [model]);

  // What is shown: the folds, and what is too short for this zoom.
  const shown: Shown = {};
  if (fold.depth !== Infinity) shown.fold = String(fold.depth);
  if (fold.flipped.size) shown.flip = [...fold.flipped].join('.');
  if (merges && barWidth > 0) shown.merge = String(mergeBelow(range, barWidth));
  const shownKey = JSON.stringify(shown);

  // What is looked for: asked a moment after the last key, and marked on the rows when it has been found.
  const [matches, setMatches] = useState<{ find: string; total: number; index: number } | null>(null);
  const [findError, setFindError] = useState<unknown>(null);
  useEffect(() => {
    setFindError(null);
    if (!find.trim()) return setMatches(null);
    const abort = new AbortController();
    const timer = setTimeout(() => {
      windows.search({ q: find }, undefined, undefined, abort.signal)
        .then((f) => !abort.signal.aborted && setMatches({ find, total: f.total, index: -1 }))
        .catch((e: unknown) => {
          if (abort.signal.aborted) return;
          setMatches(null);
          setFindError(e);
        });
    }, 180);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [model, find]);
  const found = matches !== null && matches.find === find;
  windows.show(shown, found ? { q: find } : {});

  // The selected span, whole, and its line. A deep link to a span inside a fold opens the fold.
  const [selected, setSelected] = useState<SpanAnswer | null>(null);
  const [spanError, setSpanError] = useState<unknown>(null);
  const [line, setLine] = useState(-1);
  useEffect(() => {
    setSpanError(null);
    if (!spanId) {
      setSelected(null);
      setLine(-1);
      return;
    }
    const abort = new AbortController();
    windows.span(spanId, abort.signal)
      .then((a) => {
        if (abort.signal.aborted) return;
        setSelected(a);
        setLine(a.line);
        if (a.hiddenBy.length) flip(fold, a.hiddenBy);
        else if (a.isMerged && windows.at(a.line)?.spanId !== spanId) setMerges(model, false);
      })
      .catch((e: unknown) => {
        if (abort.signal.aborted) return;
        setSelected(null);
        setSpanError(e);
      });
    return () => abort.abort();
  }, [model, spanId, shownKey]);

  const choose = (to: Line): void => {
    setLine(to.line);
    selectSpan(to.spanId);
  };
  const goLine = (at: number): void => {
    const to = Math.min(windows.total - 1, Math.max(0, at));
    const here = windows.at(to);
    if (here) choose(here);
    else void windows.ensure(to).then((l) => l && choose(l));
  };
  const step = (by: number): void => goLine(line < 0 ? (by > 0 ? by - 1 : windows.total + by) : line + by);
  /** The next of those that the server finds, after the selected row and around the end. */
  const cycling = useRef<Promise<void>>(Promise.resolve());
  const row = useRef<number | undefined>(undefined);
  row.current = (line >= 0 ? windows.at(line)?.row : undefined) ?? (spanId ? selected?.row : undefined);
  const cycle = (what: Params, by: number): void => {
    cycling.current = cycling.current
      .then(() => windows.search(what, by > 0 ? 'next' : 'previous', row.current))
      .then((f: Found) => {
        if (what.q) setMatches({ find, total: f.total, index: f.index ?? -1 });
        if (f.spanId === undefined || f.line === undefined) return;
        row.current = f.row; // the next key may come before this is drawn
        if (!f.hiddenBy?.length && !f.isMerged) setLine(f.line);
        selectSpan(f.spanId);
      })
      .catch((e: unknown) => setFindError(e));
  };
  void windows.version.value; // drawn again when lines have come
  // Enter may come before the details have.
  const reading = useRef(false);
  const focusDetail = (): void => {
    const here = selected !== null && selected.spanId === route.peek().params.get('span'); // not those of the span before
    const body = reading.current && here && page.current?.querySelector<HTMLElement>('.detail-body');
    if (!body) return;
    reading.current = false;
    body.focus();
  };
  useEffect(focusDetail, [selected, spanId]);
  useEffect(() => {
    if (!spanId) reading.current = false;
  }, [spanId]);
  const current = line >= 0 ? windows.at(line) : undefined;
  const pageRows = (): number => Math.max(1, Math.floor((page.current?.querySelector('.rows')?.clientHeight ?? 480) / 24) - 2);
  const deepest = Math.min(fold.depth, model.depth - 1);

  useShortcuts('Trace', [
    { keys: ['j', 'ArrowDown'], does: 'Next span', run: () => step(1) },
    { keys: ['k', 'ArrowUp'], does: 'Previous span', run: () => step(-1) },
    {
      keys: ['ArrowRight', 'l'], does: 'Unfold, or go to the first child', run: () => {
        if (!spanId) return step(1);
        if (current?.folded) flip(fold, [spanId]);
        else if (current?.data.children) step(1);
      },
    },
    {
      keys: ['ArrowLeft', 'h'], does: 'Fold, or go to the parent', run: () => {
        if (!current) return;
        if (current.data.children && !current.folded) flip(fold, [spanId]);
        else if (current.data.parentLine !== undefined) goLine(current.data.parentLine);
      },
    },
    {
      keys: ['Enter'], does: 'Read the details', run: () => {
        if (!spanId) step(1);
        reading.current = true;
        if (spanId) requestAnimationFrame(focusDetail);
      },
    },
    { keys: ['Home', 'g g'], shown: 'Home', does: 'First span', run: () => goLine(0) },
    { keys: ['End', 'G'], shown: 'End', does: 'Last span', run: () => goLine(windows.total - 1) },
    { keys: ['PageDown'], does: 'A page down', run: () => (document.activeElement?.closest('.detail') ? false : step(pageRows())) },
    { keys: ['PageUp'], does: 'A page up', run: () => (document.activeElement?.closest('.detail') ? false : step(-pageRows())) },
    { keys: ['e'], does: 'Next failed span', run: () => cycle({ what: 'error' }, 1) },
    { keys: ['E'], does: 'Previous failed span', run: () => cycle({ what: 'error' }, -1) },
    { keys: ['z'], does: 'Zoom to the span', run: () => current && zoomTo(model, current.start + (adjusted ? (model.shifts[current.data.service] ?? 0) : 0), current.duration) },
    { keys: ['+', '='], shown: '+', does: 'Zoom in', run: () => zoomAt(model, range, (range.from + range.to) / 2, 0.5) },
    { keys: ['-'], does: 'Zoom out', run: () => zoomAt(model, range, (range.from + range.to) / 2, 2) },
    { keys: ['0'], does: 'The whole trace', run: () => setRange(model, { from: 0, to: model.duration }) },
    { keys: ['['], does: 'Fold a level more', run: () => foldAt(Math.max(0, deepest - 1)) },
    { keys: [']'], does: 'Fold a level less', run: () => foldAt(fold.depth + 1 >= model.depth ? Infinity : fold.depth + 1) },
    { keys: ['m'], does: 'Short spans in one line, or each in its own', run: () => setMerges(model, !merges) },
    { keys: ['a'], does: 'Times as recorded, or with adjusted clocks', run: () => setAdjusts(!adjusted) },
    { keys: ['c'], does: 'Copy the span id', run: () => spanId && void copy(spanId, 'span id') },
    { keys: ['/'], does: 'Find in the trace', run: () => findInput.current?.focus() },
    { keys: ['n'], does: 'Next match', run: () => find.trim() && cycle({ q: find }, 1) },
    { keys: ['N'], does: 'Previous match', run: () => find.trim() && cycle({ q: find }, -1) },
    { keys: ['i'], does: 'Logs', run: () => togglePanel('logs') },
    { keys: ['o'], does: 'Time by operation', run: () => togglePanel('operations') },
    { keys: ['b'], does: 'Links to this trace', run: () => togglePanel('links') },
    { keys: ['r'], does: 'Load again', run: reload },
    {
      keys: ['Escape'], does: 'From the details to the rows, then close, then back', run: () => {
        if (document.activeElement?.closest('.detail')) return focusRows();
        if (spanId) return selectSpan(null);
        goBack('/search');
      },
    },
  ]);

  const findSaid = findError !== null ? (findError as Error).message : !found ? '…'
    : matches.total === 0 ? 'none' : `${matches.index >= 0 ? `${group(matches.index + 1)} of ` : ''}${group(matches.total)}`;
  const failed = windows.failed.value;
  return (
    <div class={`page trace${spanId ? ' with-detail' : ''}`} ref={page}>
      <Facts model={model} reload={reload} next={() => cycle({ what: 'error' }, 1)} />
      <Notice model={model} next={() => cycle({ what: 'orphan' }, 1)} />
      <Clocks model={model} adjusted={adjusted} />
      <div class="trace-tools">
        <ul class="legend" aria-label="Services">
          {[...model.services].sort((a, b) => b.spans - a.spans || (a.name < b.name ? -1 : 1)).slice(0, 30).map((s) => (
            <li key={s.name}>
              <button type="button" class={`chip svc-${s.color}`} aria-pressed={service === s.name}
                title={`${s.name}: ${group(s.spans)} spans${s.errors ? `, ${group(s.errors)} failed` : ''}`}
                onClick={() => setParams({ only: service === s.name ? null : s.name }, { replace: true })}>
                <span class="dot" aria-hidden="true" />
                <span class="chip-name">{s.name}</span>
                <span class="muted">{group(s.spans)}</span>
                {s.errors > 0 && <span class="error-text chip-errors"><Icon name="error" />{group(s.errors)}</span>}
              </button>
            </li>
          ))}
          {model.services.length > 30 && <li class="muted">and {model.services.length - 30} more</li>}
        </ul>
        <span class="grow" />
        <div class="find">
          <Icon name="find" />
          <input ref={findInput} type="search" placeholder="Find text or { TraceQL }" aria-label="Find in this trace" value={find}
            onInput={(e) => setParams({ find: e.currentTarget.value }, { replace: true })}
            onKeyDown={(e) => {
              if (e.key !== 'Enter') return;
              e.preventDefault();
              find.trim() && cycle({ q: find }, e.shiftKey ? -1 : 1);
            }} />
          {find.trim() && (
            <span class={findError !== null ? 'error-text' : 'muted'} role="status">{findSaid}</span>
          )}
        </div>
        <IconButton icon="merge" label="Short spans in one line" keys="m" pressed={merges} onClick={() => setMerges(model, !merges)} />
        <IconButton icon="fold" label="Fold a level more" keys="[" onClick={() => foldAt(Math.max(0, deepest - 1))} />
        <IconButton icon="unfold" label="Unfold all" onClick={() => foldAt(Infinity)} disabled={fold.depth === Infinity && fold.flipped.size === 0} />
        <IconButton icon="zoom" label="The whole trace" keys="0" disabled={isWhole(model, range)}
          onClick={() => setRange(model, { from: 0, to: model.duration })} />
      </div>
      <div class="trace-body">
        <div class="trace-main">
          <Minimap model={model} shown={shownKey} range={range} adjusted={adjusted} />
          {failed !== null && <Problem error={failed} retry={reload} />}
          <Waterfall model={model} range={range} fold={fold} spanId={spanId} line={line} adjusted={adjusted} find={found} service={service}
            onSelect={choose} onWidth={setBarWidth} />
          <Drawer model={model} panel={panelOf(params)} spanId={spanId} />
        </div>
        {spanId && (
          <>
            <Splitter label="Width of the details" value={detailWidth} min={280} max={1000} reverse
              onChange={(w) => {
                setDetailWidth(w);
                remember('detailWidth', String(w));
              }} />
            <div class="detail-frame" style={{ width: `${detailWidth}px` }}>
              {selected ? (
                <Detail key={selected.row} model={model} answer={selected} onClose={() => {
                  selectSpan(null);
                  focusRows();
                }} />
              ) : spanError !== null ? <Problem error={spanError} /> : <p class="trace-waiting">Loading the span…</p>}
            </div>
          </>
        )}
      </div>
      <div class="off-screen" aria-live="polite">
        {current && spanId ? `${current.name}, ${formatDuration(current.duration)}, started ${formatClock(model.start + BigInt(Math.round(current.start)), 3)}` : ''}
      </div>
    </div>
  );
}
