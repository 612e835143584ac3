// Duration over start time, a mark a trace: where the slow and the failed ones are, at a glance.
// A mark grows with the magnitude of its number of spans, its colour is the root's service, and a failed trace
// is a diamond with a red edge, so that it does not depend on seeing red. Dragging over a stretch of
// time searches there.

import type { JSX } from 'preact';
import { useMemo, useRef, useState } from 'preact/hooks';
import type { TraceSummary } from '../api';
import { serviceColor } from '../color';
import { formatClock, formatDay, formatDuration, parseNs, sinceMidnight, ticks } from '../time';
import { useWidth } from '../width';
import { selected } from './state';

const height = 148;
const margin = { left: 60, right: 14, top: 10, bottom: 22 };

interface Mark {
  trace: TraceSummary;
  x: number;
  y: number;
  r: number;
}

export function Scatter({ traces, onOpen, onPick, onRange }: {
  traces: TraceSummary[];
  onOpen: (t: TraceSummary) => void;
  onPick: (t: TraceSummary) => void;
  onRange: (start: bigint, end: bigint) => void;
}): JSX.Element {
  const [ref, width] = useWidth();
  const [drag, setDrag] = useState<{ from: number; to: number } | null>(null);
  const plot = { width: Math.max(10, width - margin.left - margin.right), height: height - margin.top - margin.bottom };

  const axes = useMemo(() => {
    const starts = traces.map((t) => parseNs(t.startUnixNano));
    let first = starts[0] ?? 0n;
    let last = first;
    for (const s of starts) {
      if (s < first) first = s;
      if (s > last) last = s;
    }
    const pad = BigInt(Math.ceil(Math.max(Number(last - first) * 0.02, 1e6)));
    const durations = traces.map((t) => Math.max(1, Number(t.durationNano)));
    let low = Math.min(...durations);
    let high = Math.max(...durations);
    // A decade at least, so that equal traces lie on a line and not in a corner.
    const logLow = Math.log10(low) - 0.15;
    let logHigh = Math.log10(high) + 0.15;
    if (logHigh - logLow < 1) logHigh = logLow + 1;
    low = 10 ** logLow;
    high = 10 ** logHigh;
    return { first: first - pad, span: Number(last - first + 2n * pad), logLow, logHigh };
  }, [traces]);

  const x = (ns: bigint): number => margin.left + (Number(ns - axes.first) / axes.span) * plot.width;
  const y = (duration: number): number =>
    margin.top + plot.height * (1 - (Math.log10(Math.max(1, duration)) - axes.logLow) / (axes.logHigh - axes.logLow));
  const timeAt = (px: number): bigint =>
    axes.first + BigInt(Math.round((Math.min(1, Math.max(0, (px - margin.left) / plot.width))) * axes.span));

  const marks: Mark[] = useMemo(() => {
    return traces
      .map((t) => ({
        trace: t, x: x(parseNs(t.startUnixNano)), y: y(Number(t.durationNano)),
        r: Math.min(9, 3 + 1.5 * Math.log10(Math.max(1, t.spanCount))),
      }))
      .sort((a, b) => (a.trace.errorCount > 0 ? 1 : 0) - (b.trace.errorCount > 0 ? 1 : 0) || b.r - a.r);
  }, [traces, width, axes]);

  const yTicks: number[] = [];
  const fewDecades = axes.logHigh - axes.logLow < 2.2;
  for (let p = Math.floor(axes.logLow); p <= axes.logHigh; p++)
    for (const m of fewDecades ? [1, 2, 5] : [1])
      if (Math.log10(m) + p >= axes.logLow && Math.log10(m) + p <= axes.logHigh) yTicks.push(m * 10 ** p);
  const yShown = yTicks.length > 6 ? yTicks.filter((_, i) => i % Math.ceil(yTicks.length / 6) === 0) : yTicks;
  // Round by the clock on the wall: steps are counted from the zone's midnight.
  const midnight = Number(sinceMidnight(axes.first));
  const xTicks = ticks(midnight, midnight + axes.span, Math.max(2, Math.floor(plot.width / 130)), true).map((t) => t - midnight);
  const fine = (xTicks[1] ?? 0) - (xTicks[0] ?? 0) < 1e9 ? 3 : 0;
  const long = axes.span > 36 * 3600e9;

  // The nearest mark within reach, so that one need not hit three pixels.
  const nearest = (e: PointerEvent): Mark | null => {
    const box = ref.current!.getBoundingClientRect();
    const px = e.clientX - box.left;
    const py = e.clientY - box.top;
    let best: Mark | null = null;
    let distance = 18;
    for (const m of marks) {
      const d = Math.max(0, Math.hypot(m.x - px, m.y - py) - m.r);
      if (d < distance) {
        distance = d;
        best = m;
      }
    }
    return best;
  };

  const hot = marks.find((m) => m.trace.traceId === selected.value);
  const start = useRef<{ x: number; id: number } | null>(null);
  const shape = (m: Mark, extra: number, c: string): JSX.Element => {
    const r = m.r + extra;
    return m.trace.errorCount > 0 ? (
      <path class={c} d={`M${m.x} ${m.y - r * 1.2}L${m.x + r * 1.2} ${m.y}L${m.x} ${m.y + r * 1.2}L${m.x - r * 1.2} ${m.y}Z`} />
    ) : (
      <circle class={c} cx={m.x} cy={m.y} r={r} />
    );
  };

  return (
    <div class="scatter" ref={ref}
      onPointerDown={(e) => {
        if (e.button !== 0) return;
        start.current = { x: e.clientX, id: e.pointerId };
      }}
      onPointerMove={(e) => {
        const box = e.currentTarget.getBoundingClientRect();
        if (start.current && Math.abs(e.clientX - start.current.x) > 4) {
          e.currentTarget.setPointerCapture(e.pointerId);
          setDrag({ from: start.current.x - box.left, to: e.clientX - box.left });
          return;
        }
        selected.value = nearest(e)?.trace.traceId ?? '';
      }}
      onPointerUp={(e) => {
        const was = drag;
        const pressed = start.current;
        start.current = null;
        setDrag(null);
        if (was) {
          const [a, b] = [timeAt(Math.min(was.from, was.to)), timeAt(Math.max(was.from, was.to))];
          if (b > a) onRange(a, b);
        } else if (pressed) {
          const m = nearest(e);
          if (m) (e.detail > 1 ? onOpen : onPick)(m.trace);
        }
      }}
      onPointerCancel={() => {
        start.current = null;
        setDrag(null);
      }}
      onDblClick={(e) => {
        const m = nearest(e as unknown as PointerEvent);
        if (m) onOpen(m.trace);
      }}
      onPointerLeave={() => !drag && (selected.value = '')}>
      {width > 0 && (
        <svg width={width} height={height} role="img"
          aria-label={`Durations of ${traces.length} traces over time; the table below has the same`}>
          {yShown.map((t) => (
            <g key={t}>
              <line class="grid" x1={margin.left} x2={width - margin.right} y1={y(t)} y2={y(t)} />
              <text class="tick" x={margin.left - 8} y={y(t) + 4} text-anchor="end">{formatDuration(t)}</text>
            </g>
          ))}
          {xTicks.map((t) => {
            const at = axes.first + BigInt(Math.round(t));
            const px = x(at);
            if (px < margin.left + 20 || px > width - margin.right - 20) return null;
            return (
              <g key={t}>
                <line class="grid" x1={px} x2={px} y1={margin.top} y2={margin.top + plot.height} />
                <text class="tick" x={px} y={height - 6} text-anchor="middle">
                  {long ? `${formatDay(at)} ${formatClock(at, 0).slice(0, 5)}` : formatClock(at, fine)}
                </text>
              </g>
            );
          })}
          <line class="axis" x1={margin.left} x2={width - margin.right} y1={margin.top + plot.height} y2={margin.top + plot.height} />
          {marks.map((m) => (
            <g key={m.trace.traceId} class={`mark svc-${serviceColor(m.trace.rootService)}${m.trace.errorCount ? ' failed' : ''}`}>
              {shape(m, 0, '')}
            </g>
          ))}
          {hot && <g class={`mark hot svc-${serviceColor(hot.trace.rootService)}`}>{shape(hot, 3.5, 'ring')}</g>}
          {drag && (
            <rect class="brush" x={Math.max(margin.left, Math.min(drag.from, drag.to))} y={margin.top}
              width={Math.max(0, Math.min(width - margin.right, Math.max(drag.from, drag.to)) - Math.max(margin.left, Math.min(drag.from, drag.to)))}
              height={plot.height} />
          )}
        </svg>
      )}
      {hot && !drag && (
        <div class="tip" style={{
          left: `${Math.min(Math.max(hot.x, 110), Math.max(110, width - 130))}px`,
          top: `${hot.y > 62 ? hot.y - hot.r - 8 : hot.y + hot.r + 10}px`,
          transform: hot.y > 62 ? 'translate(-50%, -100%)' : 'translate(-50%, 0)',
        }}>
          <strong>{hot.trace.rootName || '(no root yet)'}</strong> {formatDuration(Number(hot.trace.durationNano))}
          <br />
          <span class="muted">
            {hot.trace.rootService} · {hot.trace.spanCount} spans
            {hot.trace.errorCount > 0 && ` · ${hot.trace.errorCount} failed`} · {formatClock(parseNs(hot.trace.startUnixNano))}
          </span>
        </div>
      )}
      {drag && <div class="tip at-top">{formatClock(timeAt(Math.min(drag.from, drag.to)))} – {formatClock(timeAt(Math.max(drag.from, drag.to)))}</div>}
    </div>
  );
}
