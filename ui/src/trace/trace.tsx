import { signal } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import * as api from '../api';
import { ApiError } from '../api';
import { colorsReady } from '../services';
import { useShortcuts } from '../keys';
import { copy, CopyButton, Icon, IconButton, Loading, Problem, ServiceDot } from '../parts';
import { goBack, route, setParams } from '../router';
import { recallNumber, remember } from '../settings';
import { formatClock, formatDuration, formatExact, formatFull, group } from '../time';
import { Detail, zoomTo } from './detail';
import { Minimap } from './minimap';
import { buildTrace, findNodes, isFolded, visibleNodes, type Node, type TraceModel } from './model';
import { flip, foldAt, foldOf, isWhole, rangeOf, selectSpan, setRange, zoomAt } from './view';
import { lowerBound, Splitter, Waterfall } from './waterfall';

/** The last trace, so that back and forward do not load it again. */
const loaded = signal<TraceModel | null>(null);

export function Trace({ id }: { id: string }): JSX.Element {
  const [error, setError] = useState<unknown>(null);
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    if (attempt === 0 && loaded.peek()?.traceId === id) return;
    const abort = new AbortController();
    setError(null);
    Promise.all([api.trace(id, abort.signal), colorsReady])
      .then(([t]) => {
        if (abort.signal.aborted) return;
        if (t.traceId !== id) throw new Error('The server answered with something else than this trace.');
        loaded.value = buildTrace(t);
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
        <a class="button" href="/search">Search</a>
        <a class="button" href="/live">Watch live</a>
      </div>
    </div>
  );
}

function Facts({ model, reload, next }: { model: TraceModel; reload: () => void; next: () => void }): JSX.Element {
  const root = model.nodes[0];
  const failed = model.errors.length;
  return (
    <header class="trace-head">
      <div class="trace-title">
        <IconButton icon="left" label="Back" keys="Esc" onClick={() => goBack('/search')} />
        <h1>
          {root && <span class="service"><ServiceDot name={root.service} /><span>{root.service}</span></span>}
          <span class="name">{root ? root.span.name || '(no name)' : 'Empty trace'}</span>
        </h1>
        <span class="trace-id"><code>{model.traceId}</code><CopyButton text={() => model.traceId} label="Copy trace id" /></span>
        <span class="grow" />
        <IconButton icon="reload" label="Load again" keys="r" onClick={reload} />
        <a class="icon-button" href={`/api/pugmark/traces/${model.traceId}`} target="_blank" rel="noreferrer" title="The trace as JSON">JSON</a>
      </div>
      <dl class="facts">
        <div><dt>Start</dt><dd title={formatFull(model.start)}>{formatFull(model.start, 3)}</dd></div>
        <div><dt>Duration</dt><dd title={formatExact(model.duration)}><strong>{formatDuration(model.duration)}</strong></dd></div>
        <div><dt>Spans</dt><dd>{group(model.nodes.length)}</dd></div>
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
  const n = model.orphans.length;
  if (n === 0) return null;
  const missing = new Set(model.orphans.map((o) => o.span.parentSpanId)).size;
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

function View({ model, reload }: { model: TraceModel; reload: () => void }): JSX.Element {
  const { params } = route.value;
  const text = params.toString();
  const range = useMemo(() => rangeOf(model, params), [model, params.get('from'), params.get('to')]);
  const fold = useMemo(() => foldOf(params), [params.get('fold'), params.get('flip')]);
  const visible = useMemo(() => visibleNodes(model, fold), [model, fold]);
  const selected = useMemo(() => model.byId.get(params.get('span') ?? '') ?? null, [model, params.get('span')]);
  const find = params.get('find') ?? '';
  const matches = useMemo(() => findNodes(model, find), [model, find]);
  const matchSet = useMemo(() => (find.trim() ? new Set(matches) : null), [matches, find]);
  const service = params.get('only') ?? '';
  const [detailWidth, setDetailWidth] = useState(() => recallNumber('detailWidth', 440, 280, 1000));
  const findInput = useRef<HTMLInputElement>(null);
  const page = useRef<HTMLDivElement>(null);
  const focusRows = (): void => page.current?.querySelector<HTMLElement>('.rows')?.focus({ preventScroll: true });

  useEffect(() => {
    const root = model.nodes[0];
    if (root) document.title = `${root.service}: ${root.span.name} · Pugmark`;
  }, [model]);

  // A deep link to a span inside a fold opens the fold.
  useEffect(() => {
    if (!selected) return;
    const folded: string[] = [];
    for (let a = selected.parent; a; a = a.parent) if (isFolded(a, fold)) folded.push(a.span.spanId);
    if (folded.length) flip(fold, folded);
  }, [selected, text]);

  const go = (node: Node | undefined): void => {
    if (node) selectSpan(node.span.spanId);
  };
  const step = (by: number): void => {
    if (!visible.length) return;
    const at = selected ? lowerBound(visible, selected.row) : by > 0 ? -1 : visible.length;
    go(visible[Math.min(visible.length - 1, Math.max(0, at + by))]);
  };
  /** The next of a list after the selected row, around the end. */
  const cycle = (list: Node[], by: number): void => {
    if (!list.length) return;
    const row = selected?.row ?? (by > 0 ? -1 : Infinity);
    go(by > 0 ? (list.find((n) => n.row > row) ?? list[0]) : (list.findLast((n) => n.row < row) ?? list[list.length - 1]));
  };
  const pageRows = (): number => Math.max(1, Math.floor((page.current?.querySelector('.rows')?.clientHeight ?? 480) / 24) - 2);
  const deepest = Math.min(fold.depth, model.depth - 1);

  useShortcuts('Trace', [
    { keys: ['j', 'ArrowDown'], does: 'Next span', run: () => step(1) },
    { keys: ['k', 'ArrowUp'], does: 'Previous span', run: () => step(-1) },
    {
      keys: ['ArrowRight', 'l'], does: 'Unfold, or go to the first child', run: () => {
        if (!selected) return step(1);
        if (isFolded(selected, fold)) flip(fold, [selected.span.spanId]);
        else if (selected.children) step(1);
      },
    },
    {
      keys: ['ArrowLeft', 'h'], does: 'Fold, or go to the parent', run: () => {
        if (!selected) return;
        if (selected.children && !isFolded(selected, fold)) flip(fold, [selected.span.spanId]);
        else if (selected.parent) go(selected.parent);
      },
    },
    {
      keys: ['Enter'], does: 'Read the details', run: () => {
        if (!selected) step(1);
        requestAnimationFrame(() => page.current?.querySelector<HTMLElement>('.detail-body')?.focus());
      },
    },
    { keys: ['Home', 'g g'], shown: 'Home', does: 'First span', run: () => go(visible[0]) },
    { keys: ['End', 'G'], shown: 'End', does: 'Last span', run: () => go(visible[visible.length - 1]) },
    { keys: ['PageDown'], does: 'A page down', run: () => (document.activeElement?.closest('.detail') ? false : step(pageRows())) },
    { keys: ['PageUp'], does: 'A page up', run: () => (document.activeElement?.closest('.detail') ? false : step(-pageRows())) },
    { keys: ['e'], does: 'Next failed span', run: () => cycle(model.errors, 1) },
    { keys: ['E'], does: 'Previous failed span', run: () => cycle(model.errors, -1) },
    { keys: ['z'], does: 'Zoom to the span', run: () => selected && zoomTo(model, selected) },
    { keys: ['+', '='], shown: '+', does: 'Zoom in', run: () => zoomAt(model, range, (range.from + range.to) / 2, 0.5) },
    { keys: ['-'], does: 'Zoom out', run: () => zoomAt(model, range, (range.from + range.to) / 2, 2) },
    { keys: ['0'], does: 'The whole trace', run: () => setRange(model, { from: 0, to: model.duration }) },
    { keys: ['['], does: 'Fold a level more', run: () => foldAt(Math.max(0, deepest - 1)) },
    { keys: [']'], does: 'Fold a level less', run: () => foldAt(fold.depth + 1 >= model.depth ? Infinity : fold.depth + 1) },
    { keys: ['c'], does: 'Copy the span id', run: () => selected && void copy(selected.span.spanId, 'span id') },
    { keys: ['/'], does: 'Find in the trace', run: () => findInput.current?.focus() },
    { keys: ['n'], does: 'Next match', run: () => cycle(matches, 1) },
    { keys: ['N'], does: 'Previous match', run: () => cycle(matches, -1) },
    { keys: ['r'], does: 'Load again', run: reload },
    {
      keys: ['Escape'], does: 'From the details to the rows, then close, then back', run: () => {
        if (document.activeElement?.closest('.detail')) return focusRows();
        if (selected) return selectSpan(null);
        goBack('/search');
      },
    },
  ]);

  const matchAt = selected ? matches.indexOf(selected) : -1;
  return (
    <div class={`page trace${selected ? ' with-detail' : ''}`} ref={page}>
      <Facts model={model} reload={reload} next={() => cycle(model.errors, 1)} />
      <Notice model={model} next={() => cycle(model.orphans, 1)} />
      <div class="trace-tools">
        <ul class="legend" aria-label="Services">
          {model.services.slice(0, 30).map((s) => (
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
          <input ref={findInput} type="search" placeholder="Find in this trace" aria-label="Find in this trace" value={find}
            onInput={(e) => setParams({ find: e.currentTarget.value }, { replace: true })}
            onKeyDown={(e) => {
              if (e.key !== 'Enter') return;
              e.preventDefault();
              cycle(matches, e.shiftKey ? -1 : 1);
            }} />
          {find.trim() && (
            <span class="muted" role="status">{matches.length === 0 ? 'none' : `${matchAt >= 0 ? `${matchAt + 1} of ` : ''}${group(matches.length)}`}</span>
          )}
        </div>
        <IconButton icon="fold" label="Fold a level more" keys="[" onClick={() => foldAt(Math.max(0, deepest - 1))} />
        <IconButton icon="unfold" label="Unfold all" onClick={() => foldAt(Infinity)} disabled={fold.depth === Infinity && fold.flipped.size === 0} />
        <IconButton icon="zoom" label="The whole trace" keys="0" disabled={isWhole(model, range)}
          onClick={() => setRange(model, { from: 0, to: model.duration })} />
      </div>
      <div class="trace-body">
        <div class="trace-main">
          <Minimap model={model} visible={visible} range={range} />
          <Waterfall model={model} visible={visible} range={range} fold={fold} selected={selected} matches={matchSet} service={service} />
        </div>
        {selected && (
          <>
            <Splitter label="Width of the details" value={detailWidth} min={280} max={1000} reverse
              onChange={(w) => {
                setDetailWidth(w);
                remember('detailWidth', String(w));
              }} />
            <div class="detail-frame" style={{ width: `${detailWidth}px` }}>
              <Detail key={selected.row} model={model} node={selected} onClose={() => {
                selectSpan(null);
                focusRows();
              }} />
            </div>
          </>
        )}
      </div>
      <div class="off-screen" aria-live="polite">
        {selected ? `${selected.span.name}, ${formatDuration(selected.duration)}, started ${formatClock(model.start + BigInt(Math.round(selected.start)), 3)}` : ''}
      </div>
    </div>
  );
}
