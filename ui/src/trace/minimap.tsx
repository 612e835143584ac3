// The whole trace in a strip. Drag to look at a part of it; the edges of the part can be moved, and the
// part itself.

import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Overview } from '../api';
import { currentPaint } from '../paint';
import { isDark } from '../theme';
import { formatDuration, tickLabel, ticks } from '../time';
import { isWhole, setRange, type Range } from './view';
import type { TraceModel } from './windows';

const height = 60;
const labels = 15; // above the picture
const lanesMax = 44;

function draw(canvas: HTMLCanvasElement, model: TraceModel, picture: Overview, width: number): void {
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const c = canvas.getContext('2d');
  if (!c) return;
  const paint = currentPaint();
  const top = labels * scale;
  const lane = (canvas.height - top - 3 * scale) / Math.max(1, picture.lanes);
  const thick = Math.max(scale, Math.min(4 * scale, lane * 0.8));
  const cell = canvas.width / picture.width;
  const errors: [number, number, number][] = [];
  const { runs } = picture;
  for (let i = 0; i + 4 < runs.length; i += 5) {
    const x = runs[i + 1]! * cell;
    const y = top + runs[i]! * lane;
    const w = Math.max(scale, runs[i + 2]! * cell);
    c.fillStyle = paint.services[model.services[runs[i + 3]!]?.color ?? 0]!;
    c.fillRect(x, y, w, thick);
    if (runs[i + 4]) errors.push([x, y, w]);
  }
  c.fillStyle = paint.error;
  for (const [x, y, w] of errors) c.fillRect(x, y, Math.max(w, 3 * scale), Math.max(thick, 2 * scale));
}

type Drag = { kind: 'new' | 'from' | 'to' | 'pan'; at: number; range: Range };

export function Minimap({ model, shown, range, adjusted }: {
  model: TraceModel;
  shown: string; // how the lines are folded
  adjusted: boolean; // clocks
  range: Range;
}): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [draft, setDraft] = useState<Range | null>(null);
  const drag = useRef<Drag | null>(null);
  const dark = isDark();

  useEffect(() => {
    const observer = new ResizeObserver(() => setWidth(box.current?.clientWidth ?? 0));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  const [picture, setPicture] = useState<Overview | null>(null);
  useEffect(() => {
    if (width === 0) return;
    const abort = new AbortController();
    const cells = Math.min(2000, Math.max(1, Math.round(width)));
    model.windows.overview(cells, lanesMax, adjusted, abort.signal).then(setPicture).catch(() => {}); // what the rows ask for says what is wrong
    return () => abort.abort();
  }, [width, model, shown, adjusted]);
  useEffect(() => {
    if (width > 0 && picture && canvas.current) draw(canvas.current, model, picture, width);
  }, [width, model, picture, dark]);

  const whole = Math.max(1, model.duration);
  const timeAt = (clientX: number): number => {
    const r = box.current!.getBoundingClientRect();
    return Math.min(1, Math.max(0, (clientX - r.left) / r.width)) * whole;
  };
  const part = draft ?? range;
  const zoomed = draft !== null || !isWhole(model, range);
  const left = (part.from / whole) * 100;
  const right = (1 - part.to / whole) * 100;
  const marks = ticks(0, whole, Math.max(2, Math.floor(width / 140)));
  const step = (marks[1] ?? whole) - (marks[0] ?? 0);

  return (
    <div class="minimap" ref={box} aria-hidden="true" title=""
      onPointerDown={(e) => {
        if (e.button !== 0) return;
        const at = timeAt(e.clientX);
        const near = (whole / Math.max(1, width)) * 7;
        let kind: Drag['kind'] = 'new';
        if (!isWhole(model, range)) {
          if (Math.abs(at - range.from) < near) kind = 'from';
          else if (Math.abs(at - range.to) < near) kind = 'to';
          else if (at > range.from && at < range.to) kind = 'pan';
        }
        drag.current = { kind, at, range };
        e.currentTarget.setPointerCapture(e.pointerId);
        e.preventDefault();
      }}
      onPointerMove={(e) => {
        const d = drag.current;
        if (!d) return;
        const at = timeAt(e.clientX);
        if (d.kind === 'new') {
          if (Math.abs(at - d.at) > (whole / Math.max(1, width)) * 3) setDraft({ from: Math.min(at, d.at), to: Math.max(at, d.at) });
        } else if (d.kind === 'from') setDraft({ from: Math.min(at, d.range.to - 1), to: d.range.to });
        else if (d.kind === 'to') setDraft({ from: d.range.from, to: Math.max(at, d.range.from + 1) });
        else {
          const length = d.range.to - d.range.from;
          const from = Math.min(Math.max(0, d.range.from + at - d.at), whole - length);
          setDraft({ from, to: from + length });
        }
      }}
      onPointerUp={() => {
        drag.current = null;
        if (draft) setRange(model, draft);
        setDraft(null);
      }}
      onPointerCancel={() => {
        drag.current = null;
        setDraft(null);
      }}
      onDblClick={() => setRange(model, { from: 0, to: whole })}>
      <canvas ref={canvas} class="minimap-canvas" />
      {marks.map((t) => t > 0 && t < whole * 0.97 && (
        <span key={t} class="minimap-tick" style={{ left: `${(t / whole) * 100}%` }}>{tickLabel(t, whole, step)}</span>
      ))}
      {zoomed && (
        <>
          <span class="minimap-outside" style={{ left: 0, width: `${left}%` }} />
          <span class="minimap-outside" style={{ right: 0, width: `${right}%` }} />
          <span class="minimap-window" style={{ left: `${left}%`, right: `${right}%` }}>
            <span class="minimap-length">{formatDuration(part.to - part.from)}</span>
          </span>
        </>
      )}
    </div>
  );
}
