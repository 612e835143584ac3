// The waterfall.
//
// 1. Rows are all of one height, and only those in sight (and a few around them) are in the document:
//    the cost of a frame does not depend on the length of the trace. A browser's element cannot be
//    taller than some 16 million pixels; past that the rows are found by share of the scroll bar.
// 2. It is an ARIA tree with one tab stop: the focus stays on the container and
//    aria-activedescendant names the row, which is always scrolled into sight first.
// 3. Bars are placed by percentages of the shown range, set through the CSSOM: the content security
//    policy has no room for style attributes.
//    A row that has not come yet from the server is an empty one of the same height.
// 4. What follows the pointer (the cursor line, the dragged range) is moved by hand, without a render.

import { memo } from 'preact/compat';
import type { JSX } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Icon } from '../parts';
import { recallNumber, remember } from '../settings';
import { formatDuration, group, tickLabel, ticks } from '../time';
import { flip, isWhole, setRange, zoomAt, type Fold, type Range } from './view';
import type { Line, Mark, TraceModel } from './windows';

export const rowHeight = 24;
const overscan = 8;
const indent = 14;
const bodyMax = 8_000_000; // pixels

/** Where a label of about `px` pixels fits beside or inside a bar. */
function labelSide(from: number, to: number, barWidth: number, px: number): 'after' | 'before' | 'inside' {
  if ((1 - to) * barWidth > px) return 'after';
  if (from * barWidth > px) return 'before';
  return 'inside';
}

const percent = (x: number): string => `${(x * 100).toFixed(4)}%`;

interface RowProps {
  line: Line;
  shift: number; // of its service's clock
  marks: Mark[] | undefined;
  top: number;
  selected: boolean;
  dim: boolean;
  from: number;
  to: number;
  nameWidth: number;
  barWidth: number;
}

const Row = memo(function Row(p: RowProps): JSX.Element {
  const { line, from, to } = p;
  const { data, service, name } = line;
  const start = line.start + p.shift;
  const length = to - from;
  const a = (start - from) / length;
  const b = (start + line.duration - from) / length;
  const inSight = b >= 0 && a <= 1;
  const left = Math.min(Math.max(a, 0), 1);
  const right = Math.max(Math.min(b, 1), left);
  const text = formatDuration(line.duration);
  const side = labelSide(left, right, p.barWidth, text.length * 7 + 14);
  const deepest = Math.max(2, Math.floor((p.nameWidth * 0.55) / indent));
  const steps = Math.min(line.depth, deepest);
  const classes = ['row', `svc-${service.color}`];
  if (p.selected) classes.push('selected');
  if (data.error) classes.push('failed');
  if (p.dim) classes.push('dim');
  if (data.match) classes.push('match');
  if (line.merged) classes.push('merged');
  if (data.critical && !line.merged) classes.push('critical');
  const marks = inSight && !line.merged ? (p.marks ?? []) : [];
  return (
    <div id={`row-${line.row}`} class={classes.join(' ')} role="treeitem" data-row={line.row} data-line={line.line}
      aria-level={line.depth + 1} aria-selected={p.selected} aria-expanded={data.children ? !line.folded : undefined}
      style={{ transform: `translateY(${p.top}px)` }}>
      <div class="cell-name">
        <span class="indent" style={{ width: `${steps * indent}px` }} />
        {line.depth > deepest && <span class="level" title="Depth">{line.depth + 1}</span>}
        {data.children ? (
          <button type="button" class={`twist${line.folded ? ' folded' : ''}`} tabIndex={-1} aria-hidden="true" data-twist
            title={line.folded ? `Unfold ${line.below} spans` : 'Fold'}>
            <Icon name={line.folded ? 'right' : 'down'} />
          </button>
        ) : (
          <span class="twist none" />
        )}
        <span class="swatch" />
        {data.error && <span class="error-icon" title="failed"><Icon name="error" /><span class="off-screen">failed</span></span>}
        {!data.error && line.folded && data.errorBelow && <span class="error-icon below" title="A folded span failed"><Icon name="error" /><span class="off-screen">has failed spans</span></span>}
        {(data.orphan || data.circular) && (
          <span class="badge warn" title={data.orphan ? 'Its parent is not in this trace' : 'Its parent is its own descendant'}>
            {data.orphan ? 'no parent' : 'circle'}
          </span>
        )}
        <span class="label" title={line.merged ? `${line.data.spans} spans, each shorter than can be seen at this zoom` : `${service.name}: ${name}`}>
          {line.merged ? <span class="name">{group(line.merged)} short {line.data.spans! > line.merged ? `with ${group(line.data.spans! - line.merged)} below` : 'spans'}</span> : (
            <>
              {!data.sameService && <span class="service">{service.name}</span>}
              <span class="name">{name}</span>
            </>
          )}
        </span>
        {line.folded && <span class="folded-count">{group(line.below)}</span>}
      </div>
      <div class="cell-bar">
        {inSight ? (
          <>
            <span class={`bar${a < 0 ? ' cut-left' : ''}${b > 1 ? ' cut-right' : ''}`} style={{ left: percent(left), width: percent(right - left) }} />
            {marks.map((e, i) => {
              const at = (e.at + p.shift - from) / length;
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
            {b < 0 ? '◂' : '▸'} {formatDuration(b < 0 ? from - (start + line.duration) : start - to)}
          </span>
        )}
      </div>
    </div>
  );
});

const Waiting = ({ top }: { top: number }): JSX.Element => (
  <div class="row loading" role="presentation" style={{ transform: `translateY(${top}px)` }}><span class="bar-wait" /></div>
);

export function Waterfall({ model, range, fold, spanId, line: selectedLine, adjusted, find, service, onSelect, onWidth }: {
  model: TraceModel;
  range: Range;
  fold: Fold;
  spanId: string;
  line: number; // of the selected span; -1: not known, or none
  adjusted: boolean; // clocks
  find: boolean; // something is looked for: what does not match is dim
  service: string; // only this one is bright, when there is one
  onSelect: (line: Line) => void;
  onWidth: (pixels: number) => void; // of the bars
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

  const { windows } = model;
  void windows.version.value; // drawn again when lines have come
  const lines = windows.total;
  const total = lines * rowHeight;
  const bodyHeight = Math.min(total, bodyMax);
  const scrollMax = Math.max(0, bodyHeight - size.height);
  // Where the first row in sight is: the same as `scroll`, unless the trace is too tall for an element.
  const shift = total > bodyMax && scrollMax > 0 ? (scroll / scrollMax) * (total - size.height) : scroll;
  const first = Math.max(0, Math.floor(shift / rowHeight) - overscan);
  const last = Math.min(lines, Math.ceil((shift + size.height) / rowHeight) + overscan);

  useEffect(() => {
    const el = body.current!;
    const measure = (): void => setSize({ width: el.clientWidth, height: el.clientHeight, gutter: el.offsetWidth - el.clientWidth });
    const observer = new ResizeObserver(measure);
    observer.observe(el);
    measure();
    return () => observer.disconnect();
  }, []);

  useEffect(() => onWidth(barWidth), [barWidth]);

  // What is in sight, and a screen above and below it.
  const inSight = Math.ceil(size.height / rowHeight);
  if (size.height > 0) windows.need(first - inSight, Math.min(lines, last + inSight));
  useEffect(() => {
    const timer = setTimeout(() => void windows.loadMarks(first, last), 120);
    return () => clearTimeout(timer);
  }, [windows, windows.version.value, first, last]);

  // The selected row is in sight whenever the selection moves (also from outside: a deep link).
  useLayoutEffect(() => {
    const el = body.current!;
    if (selectedLine < 0 || size.height === 0) return;
    const top = selectedLine * rowHeight;
    if (top >= shift + rowHeight && top + 2 * rowHeight <= shift + size.height) return;
    let to = shift;
    if (top < shift + rowHeight) to = top - rowHeight;
    if (top + 2 * rowHeight > shift + size.height) to = top - size.height + 2 * rowHeight;
    if (Math.abs(to - shift) > size.height) to = top - size.height / 2;
    const pixels = total > bodyMax ? (to / (total - size.height)) * scrollMax : to;
    el.scrollTop = Math.max(0, pixels);
    setScroll(el.scrollTop);
  }, [spanId, selectedLine, size.height, lines]);

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

  const shiftOf = (line: Line): number => (adjusted ? (model.shifts[line.data.service] ?? 0) : 0);
  const lineOf = (target: EventTarget | null): Line | null => {
    const row = target instanceof Element ? target.closest<HTMLElement>('[data-line]') : null;
    return row ? (windows.at(Number(row.dataset.line)) ?? null) : null;
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
  let selectedRow = '';
  for (let i = first; i < last; i++) {
    const line = windows.at(i);
    const top = i * rowHeight - (shift - scroll);
    if (!line) {
      rows.push(<Waiting key={`wait-${i}`} top={top} />);
      continue;
    }
    const selected = line.spanId === spanId && (selectedLine < 0 || selectedLine === i);
    if (selected) selectedRow = `row-${line.row}`;
    rows.push(
      <Row key={line.row} line={line} shift={shiftOf(line)} marks={windows.marksOf(line.row)} top={top} selected={selected}
        dim={(find && !line.data.match) || (service !== '' && line.service.name !== service)}
        from={range.from} to={range.to} nameWidth={names} barWidth={barWidth} />,
    );
  }

  /** Of those that are loaded: what is far away is not worth asking for. */
  const siblings = (line: Line): string[] => {
    const ids: string[] = [];
    for (let i = Math.max(0, line.line - 2000); i < Math.min(lines, line.line + 2000) && ids.length < 200; i++) {
      const other = windows.at(i);
      if (other?.data.children && other.depth === line.depth && other.data.parentSpanId === line.data.parentSpanId) ids.push(other.spanId);
    }
    return ids;
  };

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
      <div class="rows" ref={body} tabIndex={0} role="tree" aria-label={`Spans of the trace, ${group(lines)} rows`}
        aria-activedescendant={selectedRow || undefined}
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
          const line = lineOf(e.target);
          if (!line || e.timeStamp - draggedAt.current < 100) return; // the end of a drag is no click
          if (e.target instanceof Element && e.target.closest('[data-twist]')) {
            // With Shift, all children of one parent that are near.
            flip(fold, e.shiftKey ? siblings(line) : [line.spanId]);
          } else onSelect(line);
        }}
        onDblClick={(e) => {
          const line = lineOf(e.target);
          if (!line || (!line.merged && !overBars(e))) return;
          const pad = Math.max(1, line.duration * 0.05);
          const start = line.start + shiftOf(line);
          setRange(model, { from: start - pad, to: start + line.duration + pad });
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
