// Series over time: lines with a legend, or a heat map for a histogram. Pointing shows the values of a moment, so do the
// arrow keys; a drag searches that stretch of time; the diamonds are spans to open.

import type { JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Series, SeriesAnswer } from '../api';
import { colors, serviceColor } from '../color';
import { traceUrl } from '../router';
import { formatClock, formatDay, formatDuration, group, parseNs, sinceMidnight, ticks } from '../time';
import { useWidth } from '../width';
import { formatSample, heatOf, seriesName, summaryOf, valueTicks, type Heat, type Unit } from './model';

const height = 280;
const margin = { left: 68, right: 16, top: 12, bottom: 24 };
const drawnMax = 40; // lines, those that reach highest

interface Drawn {
  series: Series;
  name: string;
  color: number;
  dash: number; // 0: a whole line
  last: number | null;
  mean: number | null;
  max: number | null;
}

function drawnOf(answer: SeriesAnswer): Drawn[] {
  const all = answer.series.map((series) => ({ series, name: seriesName(series), ...summaryOf(series.samples) }));
  all.sort((a, b) => (b.max ?? -Infinity) - (a.max ?? -Infinity));
  return all.slice(0, drawnMax).map((s, i) => {
    const label = s.series.labels.length === 1 ? s.series.labels[0]! : null;
    const service = label?.key === 'resource.service.name' ? label.value.stringValue : undefined;
    return { ...s, color: service === undefined ? (i * 7) % colors : serviceColor(service), dash: service === undefined ? Math.floor(i / colors) : 0 };
  });
}

interface Frame {
  width: number;
  start: bigint;
  stepNs: number;
  steps: number;
}

const plotWidth = (f: Frame): number => Math.max(10, f.width - margin.left - margin.right);
const plotHeight = height - margin.top - margin.bottom;

/** The x of the middle of a step. */
const stepX = (f: Frame, i: number): number => margin.left + ((i + 0.5) / f.steps) * plotWidth(f);
const stepAt = (f: Frame, px: number): number => Math.min(f.steps - 1, Math.max(0, Math.floor(((px - margin.left) / plotWidth(f)) * f.steps)));
const timeOf = (f: Frame, i: number): bigint => f.start + BigInt(Math.round(i * f.stepNs));

function timeText(f: Frame, at: bigint, full = false): string {
  const long = f.stepNs * f.steps > 36 * 3600e9;
  const clock = formatClock(at, f.stepNs < 1e9 ? 3 : 0);
  return long ? `${formatDay(at)} ${f.stepNs % 60e9 === 0 && !full ? clock.slice(0, 5) : clock}` : clock;
}

function TimeAxis({ frame }: { frame: Frame }): JSX.Element {
  const span = frame.stepNs * frame.steps;
  const midnight = Number(sinceMidnight(frame.start));
  const marks = ticks(midnight, midnight + span, Math.max(2, Math.floor(plotWidth(frame) / 130)), true).map((t) => t - midnight);
  return (
    <g aria-hidden="true">
      {marks.map((t) => {
        const px = margin.left + (t / span) * plotWidth(frame);
        if (px < margin.left + 20 || px > frame.width - margin.right - 20) return null;
        return (
          <g key={t}>
            <line class="grid" x1={px} x2={px} y1={margin.top} y2={margin.top + plotHeight} />
            <text class="tick" x={px} y={height - 7} text-anchor="middle">{timeText(frame, frame.start + BigInt(Math.round(t)))}</text>
          </g>
        );
      })}
      <line class="axis" x1={margin.left} x2={frame.width - margin.right} y1={margin.top + plotHeight} y2={margin.top + plotHeight} />
    </g>
  );
}

function ValueAxis({ frame, at, y, text }: { frame: Frame; at: number[]; y: (v: number) => number; text: (v: number) => string }): JSX.Element {
  return (
    <g aria-hidden="true">
      {at.map((v) => (
        <g key={v}>
          <line class="grid" x1={margin.left} x2={frame.width - margin.right} y1={y(v)} y2={y(v)} />
          <text class="tick" x={margin.left - 8} y={y(v) + 4} text-anchor="end">{text(v)}</text>
        </g>
      ))}
    </g>
  );
}

/** A path with gaps where there is no sample; a sample between two gaps is a dot. */
function pathOf(samples: (number | null)[], x: (i: number) => number, y: (v: number) => number): { path: string; dots: [number, number][] } {
  let path = '';
  const dots: [number, number][] = [];
  let open = false;
  samples.forEach((v, i) => {
    if (v === null) return void (open = false);
    const before = i > 0 && samples[i - 1] !== null;
    const after = i + 1 < samples.length && samples[i + 1] !== null;
    if (!before && !after) dots.push([x(i), y(v)]);
    path += `${open ? 'L' : 'M'}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
    open = true;
  });
  return { path, dots };
}

function Lines({ frame, drawn, hidden, hot, unit, y }: {
  frame: Frame;
  drawn: Drawn[];
  hidden: ReadonlySet<string>;
  hot: string;
  unit: Unit;
  y: (v: number) => number;
}): JSX.Element {
  return (
    <g>
      {drawn.filter((d) => !hidden.has(d.name)).map((d) => {
        const { path, dots } = pathOf(d.series.samples, (i) => stepX(frame, i), y);
        return (
          <g key={d.name} class={`line svc-${d.color}${hot && hot !== d.name ? ' dim' : ''}${hot === d.name ? ' hot' : ''}`}>
            <path d={path} stroke-dasharray={d.dash ? `${6 / d.dash} ${3 * d.dash}` : undefined} />
            {dots.map(([cx, cy]) => <circle key={cx} cx={cx} cy={cy} r="2.5" />)}
          </g>
        );
      })}
      {drawn.filter((d) => !hidden.has(d.name)).flatMap((d) => (d.series.exemplars ?? []).slice(0, 40).map((e) => {
        const px = margin.left + (Number(parseNs(e.startUnixNano) - frame.start) / (frame.stepNs * frame.steps)) * plotWidth(frame);
        const py = Math.min(margin.top + plotHeight, Math.max(margin.top, y(e.value)));
        if (!Number.isFinite(py)) return null;
        return (
          <a key={`${d.name} ${e.traceId} ${e.spanId}`} href={traceUrl(e.traceId, e.spanId)} class={`exemplar svc-${d.color}`}
            aria-label={`A span: ${e.service} ${e.name}, ${formatDuration(Number(e.durationNano))}`}>
            <title>{`${e.service} ${e.name}, ${formatDuration(Number(e.durationNano))}: ${formatSample(e.value, unit)}`}</title>
            <path d={`M${px} ${py - 4}L${px + 4} ${py}L${px} ${py + 4}L${px - 4} ${py}Z`} />
          </a>
        );
      }))}
    </g>
  );
}

function Cells({ frame, heat }: { frame: Frame; heat: Heat }): JSX.Element {
  const h = plotHeight / heat.buckets.length;
  const w = plotWidth(frame) / frame.steps;
  return (
    <g class="cells">
      {heat.buckets.flatMap((b, k) => b.counts.map((n, i) => n > 0 && (
        <rect key={`${k} ${i}`} x={margin.left + i * w} y={margin.top + plotHeight - (k + 1) * h} width={Math.max(1, w - 0.5)} height={Math.max(1, h - 0.5)}
          fill-opacity={0.12 + 0.88 * Math.sqrt(n / heat.most)} />
      )))}
    </g>
  );
}

/** Below the picture: what each line is, with its values; those of the moment that is pointed at, when one is. */
function Legend({ drawn, total, at, time, unit, hidden, hot, onHide, onHot }: {
  drawn: Drawn[];
  total: number;
  at: number | null;
  time: string;
  unit: Unit;
  hidden: ReadonlySet<string>;
  hot: string;
  onHide: (name: string, alone: boolean) => void;
  onHot: (name: string) => void;
}): JSX.Element {
  return (
    <div class="panel legend-panel">
      <table class="list" aria-label="Series">
        <thead>
          <tr>
            <th scope="col" class="c-rest">{total > drawn.length ? `${drawn.length} of ${group(total)} series, those that reach highest` : `${group(total)} series`}</th>
            <th scope="col" class="c-number c-at">{at === null ? 'Last' : time}</th><th scope="col" class="c-number">Mean</th><th scope="col" class="c-number">Highest</th>
          </tr>
        </thead>
        <tbody>
          {drawn.map((d) => (
            <tr key={d.name} class={`svc-${d.color}${hidden.has(d.name) ? ' is-hidden' : ''}${hot === d.name ? ' chosen' : ''}`}
              onPointerEnter={() => onHot(d.name)} onPointerLeave={() => onHot('')}>
              <td class="c-rest">
                <button type="button" class="series-name" aria-pressed={!hidden.has(d.name)} title="Hide or show; with Shift, this one alone"
                  onClick={(e) => onHide(d.name, e.shiftKey)} onFocus={() => onHot(d.name)} onBlur={() => onHot('')}>
                  <span class={`line-key${d.dash ? ' dashed' : ''}`} aria-hidden="true" />{d.name || '(empty)'}
                </button>
              </td>
              <td class="c-number c-at">{formatSample(at === null ? d.last : d.series.samples[at], unit)}</td>
              <td class="c-number">{formatSample(d.mean, unit)}</td>
              <td class="c-number">{formatSample(d.max, unit)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Chart({ answer, unit, isDuration, onRange }: {
  answer: SeriesAnswer;
  unit: Unit;
  isDuration: boolean; // of what a histogram's buckets are
  onRange: (start: bigint, end: bigint) => void;
}): JSX.Element {
  const [ref, width] = useWidth();
  const [at, setAt] = useState<number | null>(null);
  const [row, setRow] = useState(0); // of the heat map
  const [drag, setDrag] = useState<{ from: number; to: number } | null>(null);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const [hot, setHot] = useState('');
  const pressed = useRef<number | null>(null);
  const heat = useMemo(() => heatOf(answer), [answer]);
  const drawn = useMemo(() => (heat ? [] : drawnOf(answer)), [answer]);
  useEffect(() => {
    setHidden(new Set());
    setAt(null);
  }, [answer]);
  const frame: Frame = { width, start: parseNs(answer.startUnixNano), stepNs: Number(answer.stepNano), steps: Math.max(1, answer.steps) };
  const shown = drawn.filter((d) => !hidden.has(d.name));
  const high = shown.reduce((m, d) => Math.max(m, d.max ?? 0), 0);
  const low = shown.reduce((m, d) => d.series.samples.reduce<number>((l, v) => Math.min(l, v ?? 0), m), 0);
  const top = high > low ? high + (high - low) * 0.04 : low + 1;
  const y = (v: number): number => margin.top + plotHeight * (1 - (v - low) / (top - low));
  const bucketText = (v: number): string => (isDuration ? formatDuration(v * 1e9) : formatSample(v, 'number'));
  const bucketY = (k: number): number => margin.top + plotHeight * (1 - k / (heat?.buckets.length ?? 1));
  const every = Math.max(1, Math.ceil((heat?.buckets.length ?? 1) / 8));
  const place = (e: PointerEvent): { px: number; py: number } => {
    const box = ref.current!.getBoundingClientRect();
    return { px: e.clientX - box.left, py: e.clientY - box.top };
  };
  const point = (e: PointerEvent): void => {
    const { px, py } = place(e);
    setAt(stepAt(frame, px));
    if (heat) setRow(Math.min(heat.buckets.length - 1, Math.max(0, Math.floor((1 - (py - margin.top) / plotHeight) * heat.buckets.length))));
    if (pressed.current !== null && Math.abs(px - pressed.current) > 4) setDrag({ from: pressed.current, to: px });
  };
  const stepText = at === null ? '' : timeText(frame, timeOf(frame, at), true);
  const bucket = heat?.buckets[row];
  return (
    <>
      <div class="panel scatter-panel">
        <div class="scatter chart" ref={ref} tabIndex={0} role="group" aria-label="Series over time; arrow keys move over its steps"
          onKeyDown={(e) => {
            const by = e.key === 'ArrowRight' ? 1 : e.key === 'ArrowLeft' ? -1 : 0;
            if (by) setAt(Math.min(frame.steps - 1, Math.max(0, at === null ? (by > 0 ? 0 : frame.steps - 1) : at + by)));
            else if (heat && (e.key === 'ArrowUp' || e.key === 'ArrowDown')) setRow(Math.min(heat.buckets.length - 1, Math.max(0, row + (e.key === 'ArrowUp' ? 1 : -1))));
            else return;
            e.preventDefault();
            e.stopPropagation();
          }}
          onBlur={() => setAt(null)}
          onPointerDown={(e) => {
            if (e.button === 0 && !(e.target as Element).closest('a')) pressed.current = place(e).px;
          }}
          onPointerMove={point}
          onPointerUp={() => {
            const was = drag;
            pressed.current = null;
            setDrag(null);
            if (!was) return;
            const [a, b] = [stepAt(frame, Math.min(was.from, was.to)), stepAt(frame, Math.max(was.from, was.to))];
            onRange(timeOf(frame, a), timeOf(frame, b + 1));
          }}
          onPointerCancel={() => {
            pressed.current = null;
            setDrag(null);
          }}
          onPointerLeave={() => {
            setAt(null);
            pressed.current = null;
            setDrag(null);
          }}>
          {width > 0 && (
            <svg width={width} height={height}>
              {heat ? (
                <ValueAxis frame={frame} at={heat.buckets.map((_, k) => k + 1).filter((k) => k % every === 0)} y={bucketY} text={(k) => bucketText(heat.buckets[k - 1]!.top)} />
              ) : <ValueAxis frame={frame} at={valueTicks(low, top)} y={y} text={(v) => formatSample(v, unit)} />}
              <TimeAxis frame={frame} />
              {heat ? <Cells frame={frame} heat={heat} /> : <Lines frame={frame} drawn={drawn} hidden={hidden} hot={hot} unit={unit} y={y} />}
              {at !== null && !drag && <line class="at" x1={stepX(frame, at)} x2={stepX(frame, at)} y1={margin.top} y2={margin.top + plotHeight} />}
              {at !== null && !drag && !heat && shown.map((d) => {
                const v = d.series.samples[at];
                return typeof v === 'number' && <circle key={d.name} class={`at-dot svc-${d.color}`} cx={stepX(frame, at)} cy={y(v)} r="3.5" />;
              })}
              {drag && <rect class="brush" x={Math.min(drag.from, drag.to)} y={margin.top} width={Math.abs(drag.to - drag.from)} height={plotHeight} />}
            </svg>
          )}
          {heat && at !== null && bucket && (
            <div class="tip at-top" role="status">
              {stepText} · up to {bucketText(bucket.top)}: <strong>{group(bucket.counts[at] ?? 0)}</strong> spans
            </div>
          )}
        </div>
      </div>
      {!heat && (
        <Legend drawn={drawn} total={answer.series.length} at={at} time={stepText} unit={unit} hidden={hidden} hot={hot} onHot={setHot}
          onHide={(name, alone) => {
            const next = new Set(alone ? drawn.map((d) => d.name).filter((n) => n !== name) : hidden);
            if (!alone && !next.delete(name)) next.add(name);
            setHidden(next);
          }} />
      )}
    </>
  );
}

