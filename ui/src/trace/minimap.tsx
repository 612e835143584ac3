// The whole trace in a strip. Drag to look at a part of it; the edges of the part can be moved, and the
// part itself.

import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { currentPaint } from '../paint';
import { isDark } from '../theme';
import { formatDuration, tickLabel, ticks } from '../time';
import type { Node, TraceModel } from './model';
import { isWhole, setRange, type Range } from './view';

const height = 60;

function draw(canvas: HTMLCanvasElement, model: TraceModel, visible: Node[], width: number): void {
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const c = canvas.getContext('2d');
  if (!c) return;
  const paint = currentPaint();
  const whole = Math.max(1, model.duration);
  const top = 4 * scale;
  const usable = canvas.height - 2 * top;
  const n = visible.length;
  const lane = usable / n;
  const thick = Math.max(scale, Math.min(4 * scale, lane * 0.8));
  // More spans than pixels: what would be drawn over itself is left out, errors never.
  const seen = n > 4000 ? new Uint8Array(canvas.width * Math.ceil(usable + 1)) : null;
  const errors: [number, number, number][] = [];
  for (let i = 0; i < n; i++) {
    const node = visible[i]!;
    const x = (node.start / whole) * canvas.width;
    const w = Math.max(scale, (node.duration / whole) * canvas.width);
    const y = top + i * lane;
    if (node.error) errors.push([x, y, w]);
    if (seen && w < 3 * scale) {
      const cell = Math.floor(y - top) * canvas.width + Math.min(canvas.width - 1, Math.floor(x));
      if (seen[cell]) continue;
      seen[cell] = 1;
    }
    c.fillStyle = paint.services[node.color]!;
    c.fillRect(x, y, w, thick);
  }
  c.fillStyle = paint.error;
  for (const [x, y, w] of errors) c.fillRect(x, y, Math.max(w, 3 * scale), Math.max(thick, 2 * scale));
}

type Drag = { kind: 'new' | 'from' | 'to' | 'pan'; at: number; range: Range };

export function Minimap({ model, visible, range }: {
  model: TraceModel;
  visible: Node[];
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
  useEffect(() => {
    if (width > 0 && canvas.current) draw(canvas.current, model, visible, width);
  }, [width, model, visible, dark]);

  const whole = Math.max(1, model.duration);
  const timeAt = (clientX: number): number => {
    const r = box.current!.getBoundingClientRect();
    return Math.min(1, Math.max(0, (clientX - r.left) / r.width)) * whole;
  };
  const shown = draft ?? range;
  const zoomed = draft !== null || !isWhole(model, range);
  const left = (shown.from / whole) * 100;
  const right = (1 - shown.to / whole) * 100;
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
            <span class="minimap-length">{formatDuration(shown.to - shown.from)}</span>
          </span>
        </>
      )}
    </div>
  );
}
