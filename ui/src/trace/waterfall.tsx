// The waterfall.
//
// 1. Rows are all of one height, and only those in sight (and a few around them) are in the document:
//    the cost of a frame does not depend on the length of the trace. A browser's element cannot be
//    taller than some 16 million pixels; past that the rows are found by share of the scroll bar.
// 2. It is an ARIA tree with one tab stop: the focus stays on the container and
//    aria-activedescendant names the row, which is always scrolled into sight first.
// 3. Bars are placed by percentages of the shown range, set through the CSSOM: the content security
//    policy has no room for style attributes.
// 4. What follows the pointer (the cursor line, the dragged range) is moved by hand, without a render.

import { memo } from 'preact/compat';
import type { JSX } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Icon } from '../parts';
import { recallNumber, remember } from '../settings';
import { formatDuration, group, parseNs, tickLabel, ticks } from '../time';
import { isFolded, type Fold, type Node, type TraceModel } from './model';
import { flip, isWhole, selectSpan, setRange, zoomAt, type Range } from './view';

export const rowHeight = 24;
const overscan = 8;
const indent = 14;
const bodyMax = 8_000_000; // pixels

const noMatches: ReadonlySet<Node> = new Set();

/** Where a label of about `px` pixels fits beside or inside a bar. */
function labelSide(from: number, to: number, barWidth: number, px: number): 'after' | 'before' | 'inside' {
  if ((1 - to) * barWidth > px) return 'after';
  if (from * barWidth > px) return 'before';
  return 'inside';
}

const percent = (x: number): string => `${(x * 100).toFixed(4)}%`;

interface RowProps {
  model: TraceModel;
  node: Node;
  top: number;
  selected: boolean;
  folded: boolean;
  dim: boolean;
  match: boolean;
  from: number;
  to: number;
  nameWidth: number;
  barWidth: number;
}

const Row = memo(function Row(p: RowProps): JSX.Element {
  const { node, from, to } = p;
  const { span } = node;
  const length = to - from;
  const a = (node.start - from) / length;
  const b = (node.start + node.duration - from) / length;
  const inSight = b >= 0 && a <= 1;
  const left = Math.min(Math.max(a, 0), 1);
  const right = Math.max(Math.min(b, 1), left);
  const text = formatDuration(node.duration);
  const side = labelSide(left, right, p.barWidth, text.length * 7 + 14);
  const deepest = Math.max(2, Math.floor((p.nameWidth * 0.55) / indent));
  const steps = Math.min(node.depth, deepest);
  const crossing = !node.parent || node.parent.service !== node.service;
  const name = span.name || '(no name)';
  const classes = ['row', `svc-${node.color}`];
  if (p.selected) classes.push('selected');
  if (node.error) classes.push('failed');
  if (p.dim) classes.push('dim');
  if (p.match) classes.push('match');
  const marks = inSight && span.events.length > 0 ? span.events.slice(0, 100) : [];
  return (
    <div id={`row-${node.row}`} class={classes.join(' ')} role="treeitem" data-row={node.row}
      aria-level={node.depth + 1} aria-selected={p.selected} aria-expanded={node.children ? !p.folded : undefined}
      style={{ transform: `translateY(${p.top}px)` }}>
      <div class="cell-name">
        <span class="indent" style={{ width: `${steps * indent}px` }} />
        {node.depth > deepest && <span class="level" title="Depth">{node.depth + 1}</span>}
        {node.children > 0 ? (
          <button type="button" class={`twist${p.folded ? ' folded' : ''}`} tabIndex={-1} aria-hidden="true" data-twist
            title={p.folded ? `Unfold ${node.size} spans` : 'Fold'}>
            <Icon name={p.folded ? 'right' : 'down'} />
          </button>
        ) : (
          <span class="twist none" />
        )}
        <span class="swatch" />
        {node.error && <span class="error-icon" title={span.status.message || 'failed'}><Icon name="error" /><span class="off-screen">failed</span></span>}
        {!node.error && p.folded && node.errorBelow && <span class="error-icon below" title="A folded span failed"><Icon name="error" /><span class="off-screen">has failed spans</span></span>}
        {(node.orphan || node.circular) && (
          <span class="badge warn" title={node.orphan ? 'Its parent is not in this trace' : 'Its parent is its own descendant'}>
            {node.orphan ? 'no parent' : 'circle'}
          </span>
        )}
        <span class="label" title={`${node.service}: ${name}`}>
          {crossing && <span class="service">{node.service}</span>}
          <span class="name">{name}</span>
        </span>
        {p.folded && <span class="folded-count">{group(node.size)}</span>}
      </div>
      <div class="cell-bar">
        {inSight ? (
          <>
            <span class={`bar${a < 0 ? ' cut-left' : ''}${b > 1 ? ' cut-right' : ''}`} style={{ left: percent(left), width: percent(right - left) }} />
            {marks.map((e, i) => {
              const at = (Number(parseNs(e.timeUnixNano) - p.model.start) - from) / length;
              if (at < 0 || at > 1) return null;
              return <span key={i} class={`event-mark${e.name === 'exception' ? ' failed' : ''}`} title={e.name} style={{ left: percent(at) }} />;
            })}
            <span class={`bar-text ${side}`}
              style={side === 'after' ? { left: percent(right) } : side === 'before' ? { right: percent(1 - left) } : { left: percent(left) }}>
              {text}
            </span>
          </>
        ) : (
          <span class={`elsewhere ${b < 0 ? 'before' : 'after'}`} title="Outside the part of time that is shown">
            {b < 0 ? '◂' : '▸'} {formatDuration(b < 0 ? from - (node.start + node.duration) : node.start - to)}
          </span>
        )}
      </div>
    </div>
  );
});

export function Waterfall({ model, visible, range, fold, selected, matches, service }: {
  model: TraceModel;
  visible: Node[];
  range: Range;
  fold: Fold;
  selected: Node | null;
  matches: ReadonlySet<Node> | null; // null: nothing is looked for
  service: string; // only this one is bright, when there is one
}): JSX.Element {
  const body = useRef<HTMLDivElement>(null);
  const cursor = useRef<HTMLDivElement>(null);
  const brush = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0, gutter: 0 });
  const [scroll, setScroll] = useState(0);
  const [nameWidth, setNameWidth] = useState(() => recallNumber('nameWidth', 380, 140, 1200));
  const drag = useRef<{ x: number; moved: boolean } | null>(null);
  const draggedAt = useRef(-1000);
  const names = Math.min(nameWidth, Math.max(140, size.width - 160));
  const barWidth = Math.max(1, size.width - names - 16);

  const total = visible.length * rowHeight;
  const bodyHeight = Math.min(total, bodyMax);
  const scrollMax = Math.max(0, bodyHeight - size.height);
  // Where the first row in sight is: the same as `scroll`, unless the trace is too tall for an element.
  const shift = total > bodyMax && scrollMax > 0 ? (scroll / scrollMax) * (total - size.height) : scroll;
  const first = Math.max(0, Math.floor(shift / rowHeight) - overscan);
  const last = Math.min(visible.length, Math.ceil((shift + size.height) / rowHeight) + overscan);

  useEffect(() => {
    const el = body.current!;
    const measure = (): void => setSize({ width: el.clientWidth, height: el.clientHeight, gutter: el.offsetWidth - el.clientWidth });
    const observer = new ResizeObserver(measure);
    observer.observe(el);
    measure();
    return () => observer.disconnect();
  }, []);

  // The selected row is in sight whenever the selection moves (also from outside: a deep link).
  const visibleAt = selected ? lowerBound(visible, selected.row) : -1;
  useLayoutEffect(() => {
    const el = body.current!;
    if (!selected || size.height === 0 || visible[visibleAt] !== selected) return;
    const top = visibleAt * rowHeight;
    if (top >= shift + rowHeight && top + 2 * rowHeight <= shift + size.height) return;
    let to = shift;
    if (top < shift + rowHeight) to = top - rowHeight;
    if (top + 2 * rowHeight > shift + size.height) to = top - size.height + 2 * rowHeight;
    if (Math.abs(to - shift) > size.height) to = top - size.height / 2;
    const pixels = total > bodyMax ? (to / (total - size.height)) * scrollMax : to;
    el.scrollTop = Math.max(0, pixels);
    setScroll(el.scrollTop);
  }, [selected, size.height, visible]);

  useEffect(() => {
    body.current!.focus({ preventScroll: true });
  }, []);

  const barsLeft = (): number => body.current!.getBoundingClientRect().left + names;
  const share = (clientX: number): number => Math.min(1, Math.max(0, (clientX - barsLeft()) / barWidth));
  const timeAt = (clientX: number): number => range.from + share(clientX) * (range.to - range.from);

  const moveCursor = (clientX: number | null): void => {
    const el = cursor.current!;
    const at = clientX === null ? -1 : (clientX - barsLeft()) / barWidth;
    el.hidden = at < 0 || at > 1;
    if (el.hidden || clientX === null) return;
    el.style.left = `${names + at * barWidth}px`;
    el.dataset.time = formatDuration(timeAt(clientX));
    el.classList.toggle('flip', at > 0.9);
  };

  const drawBrush = (x1: number, x2: number): void => {
    const el = brush.current!;
    const [a, b] = [share(Math.min(x1, x2)), share(Math.max(x1, x2))];
    el.hidden = false;
    el.style.left = `${names + a * barWidth}px`;
    el.style.width = `${(b - a) * barWidth}px`;
    el.dataset.time = formatDuration((b - a) * (range.to - range.from));
  };

  const nodeOf = (target: EventTarget | null): Node | null => {
    const row = target instanceof Element ? target.closest<HTMLElement>('[data-row]') : null;
    return row ? (model.nodes[Number(row.dataset.row)] ?? null) : null;
  };

  const overBars = (e: { clientX: number; target: EventTarget | null }): boolean => e.clientX >= barsLeft() && !(e.target instanceof Element && e.target.closest('[data-twist]'));

  // A wheel listener of our own, because it must be able to say preventDefault.
  const latest = useRef({ range, model, timeAt });
  latest.current = { range, model, timeAt };
  useEffect(() => {
    const el = body.current!;
    const onWheel = (e: WheelEvent): void => {
      const { range: r, model: m, timeAt: at } = latest.current;
      if (e.ctrlKey || e.metaKey) {
        e.preventDefault();
        zoomAt(m, r, at(e.clientX), Math.exp(Math.sign(e.deltaY) * Math.min(Math.abs(e.deltaY), 60) * 0.005), true);
      } else if ((e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) && !isWhole(m, r)) {
        e.preventDefault();
        const by = ((e.deltaX || e.deltaY) / el.clientWidth) * (r.to - r.from);
        setRange(m, { from: r.from + by, to: r.to + by }, true);
      }
    };
    el.addEventListener('wheel', onWheel, { passive: false });
    return () => el.removeEventListener('wheel', onWheel);
  }, []);

  const marks = ticks(range.from, range.to, Math.max(2, Math.floor(barWidth / 110)));
  const step = (marks[1] ?? range.to) - (marks[0] ?? range.from);
  const at = (t: number): number => (t - range.from) / (range.to - range.from);
  const rows: JSX.Element[] = [];
  for (let i = first; i < last; i++) {
    const node = visible[i]!;
    const match = (matches ?? noMatches).has(node);
    rows.push(
      <Row key={node.row} model={model} node={node} top={i * rowHeight - (shift - scroll)} selected={node === selected}
        folded={isFolded(node, fold)} match={match}
        dim={(matches !== null && !match) || (service !== '' && node.service !== service)}
        from={range.from} to={range.to} nameWidth={names} barWidth={barWidth} />,
    );
  }

  return (
    <div class="waterfall" style={{ '--names': `${names}px`, '--gutter': `${size.gutter}px` }}>
      <div class="ruler">
        <div class="ruler-names">
          <span>Service and operation</span>
        </div>
        <Splitter label="Width of the names" value={nameWidth} min={140} max={1200}
          onChange={(w) => {
            setNameWidth(w);
            remember('nameWidth', String(w));
          }} />
        <div class="ruler-ticks" aria-hidden="true">
          {marks.map((t) => {
            const x = at(t);
            return (
              <span key={t} class={`ruler-tick${x > 0.93 ? ' flip' : ''}`} style={{ left: percent(x) }}>
                {tickLabel(t, Math.max(range.to, 1), step)}
              </span>
            );
          })}
        </div>
      </div>
      <div class="rows" ref={body} tabIndex={0} role="tree" aria-label={`Spans of the trace, ${group(visible.length)} rows`}
        aria-activedescendant={selected && visibleAt >= first && visibleAt < last ? `row-${selected.row}` : undefined}
        onScroll={(e) => setScroll(e.currentTarget.scrollTop)}
        onPointerDown={(e) => {
          if (e.button !== 0 || !overBars(e)) return;
          if (e.clientX > barsLeft() + barWidth + 16) return; // the scroll bar
          drag.current = { x: e.clientX, moved: false };
        }}
        onPointerMove={(e) => {
          const d = drag.current;
          if (d && (d.moved || Math.abs(e.clientX - d.x) > 4)) {
            if (!d.moved) e.currentTarget.setPointerCapture(e.pointerId);
            d.moved = true;
            drawBrush(d.x, e.clientX);
          }
          moveCursor(e.clientX);
        }}
        onPointerUp={(e) => {
          const d = drag.current;
          drag.current = null;
          brush.current!.hidden = true;
          if (!d?.moved) return;
          const [a, b] = [timeAt(Math.min(d.x, e.clientX)), timeAt(Math.max(d.x, e.clientX))];
          if (b > a) setRange(model, { from: a, to: b });
          draggedAt.current = e.timeStamp;
        }}
        onPointerCancel={() => {
          drag.current = null;
          brush.current!.hidden = true;
        }}
        onPointerLeave={() => moveCursor(null)}
        onClick={(e) => {
          const node = nodeOf(e.target);
          if (!node || e.timeStamp - draggedAt.current < 100) return; // the end of a drag is no click
          if (e.target instanceof Element && e.target.closest('[data-twist]')) {
            // With Shift, all children of one parent together.
            flip(fold, e.shiftKey ? siblings(model, node).map((s) => s.span.spanId) : [node.span.spanId]);
          } else selectSpan(node.span.spanId);
        }}
        onDblClick={(e) => {
          const node = nodeOf(e.target);
          if (!node || !overBars(e)) return;
          const pad = Math.max(1, node.duration * 0.05);
          setRange(model, { from: node.start - pad, to: node.start + node.duration + pad });
        }}>
        <div class="rows-space" style={{ height: `${bodyHeight}px` }}>
          <div class="grid-lines" aria-hidden="true">
            {marks.map((t) => <span key={t} style={{ left: percent(at(t)) }} />)}
          </div>
          {rows}
        </div>
      </div>
      <div class="cursor" ref={cursor} hidden aria-hidden="true" />
      <div class="brush" ref={brush} hidden aria-hidden="true" />
    </div>
  );
}

function siblings(model: TraceModel, node: Node): Node[] {
  const p = node.parent;
  const out: Node[] = [];
  const end = p ? p.row + p.size : model.nodes.length - 1;
  for (let row = p ? p.row + 1 : 0; row <= end; row += 1 + model.nodes[row]!.size)
    if (model.nodes[row]!.children > 0) out.push(model.nodes[row]!);
  return out;
}

/** The place of a row among the visible ones, or where it would be. */
export function lowerBound(visible: Node[], row: number): number {
  let low = 0;
  let high = visible.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (visible[mid]!.row < row) low = mid + 1;
    else high = mid;
  }
  return low;
}

/** A bar between two parts; drag it, or move it with the arrow keys. */
export function Splitter({ label, value, min, max, onChange, reverse = false }: {
  label: string;
  value: number;
  min: number;
  max: number;
  onChange: (value: number) => void;
  reverse?: boolean; // it grows to the left
}): JSX.Element {
  const from = useRef<{ x: number; value: number } | null>(null);
  const sign = reverse ? -1 : 1;
  const clamp = (v: number): number => Math.round(Math.min(max, Math.max(min, v)));
  return (
    <div class="splitter" role="separator" aria-orientation="vertical" aria-label={label} tabIndex={0}
      aria-valuenow={value} aria-valuemin={min} aria-valuemax={max}
      onPointerDown={(e) => {
        from.current = { x: e.clientX, value };
        e.currentTarget.setPointerCapture(e.pointerId);
        e.preventDefault();
      }}
      onPointerMove={(e) => from.current && onChange(clamp(from.current.value + sign * (e.clientX - from.current.x)))}
      onPointerUp={() => (from.current = null)}
      onPointerCancel={() => (from.current = null)}
      onKeyDown={(e) => {
        const step = e.key === 'ArrowRight' ? 24 : e.key === 'ArrowLeft' ? -24 : 0;
        if (!step) return;
        e.preventDefault();
        e.stopPropagation();
        onChange(clamp(value + sign * step));
      }} />
  );
}
