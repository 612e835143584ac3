// Logs that were written inside the trace, and the way from one to its span.

import { signal } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import * as api from '../api';
import type { Log, LogsAnswer } from '../api';
import { CopyButton, IconButton, Loading, Problem, ServiceDot } from '../parts';
import { formatClock, formatDuration, formatFull, group, parseNs } from '../time';
import { Attributes, Value, valueText } from '../values';
import { selectSpan } from './view';
import type { TraceModel } from './windows';

const asked = '1000';
const shownMax = 5000; // in the document

interface Kept {
  model: TraceModel | null;
  logs: Log[];
  cursor: string | null; // of what comes next
  done: boolean; // asked once
  error: unknown;
}

/** Those of the trace that is shown. */
const none: Kept = { model: null, logs: [], cursor: null, done: false, error: null };
const kept = signal<Kept>(none);

async function load(model: TraceModel, cursor: string | null): Promise<void> {
  try {
    const a = await api.tracePart<LogsAnswer>(model.traceId, 'logs', { limit: asked, cursor: cursor ?? undefined });
    if (kept.peek().model !== model) return;
    if (!Array.isArray(a.logs)) throw new Error('The server answered with something else than logs.');
    kept.value = {
      model, logs: cursor === null ? a.logs : [...kept.peek().logs, ...a.logs], cursor: a.more ? (a.cursor ?? null) : null, done: true, error: null,
    };
  } catch (error) {
    if (kept.peek().model === model) kept.value = { ...kept.peek(), done: true, error };
  }
}

/** Asked for a moment after the trace is shown, once. */
export function useLogs(model: TraceModel): Kept {
  useEffect(() => {
    if (kept.peek().model === model) return;
    kept.value = { ...none, model };
    const timer = setTimeout(() => void load(model, null), 50);
    return () => {
      clearTimeout(timer);
      if (kept.peek().model === model && !kept.peek().done) kept.value = none;
    };
  }, [model]);
  return kept.value.model === model ? kept.value : none;
}

const levels: [number, string, string][] = [[21, 'fatal', 'FATAL'], [17, 'error', 'ERROR'], [13, 'warn', 'WARN'], [9, 'info', 'INFO'], [5, 'debug', 'DEBUG'], [1, 'trace', 'TRACE']];
const levelOf = (severity: number): [number, string, string] => levels.find(([least]) => severity >= least) ?? [0, 'none', '–'];

function LogLine({ model, log, chosen, inDetail }: { model: TraceModel; log: Log; chosen: boolean; inDetail: boolean }): JSX.Element {
  const [open, setOpen] = useState(false);
  const at = parseNs(log.timeUnixNano);
  const offset = Number(at - model.start);
  const [, level, name] = levelOf(log.severity);
  const body = valueText(log.body) || log.eventName || '(empty)';
  return (
    <li class={`log ${level}${chosen ? ' chosen' : ''}${open ? ' open' : ''}`}>
      <div class="log-line">
        <span class="log-level" title={`severity ${log.severity}`}>{log.severityText || name}</span>
        <span class="number log-time" title={formatFull(at)}>{offset >= 0 ? '+' : ''}{formatDuration(offset)}</span>
        {!inDetail && <span class="log-service muted"><ServiceDot name={log.service} /><span>{log.service}</span></span>}
        <button type="button" class="log-body" aria-expanded={open} onClick={() => setOpen(!open)}>{body.slice(0, 600)}</button>
        {!inDetail && log.spanId && (
          <IconButton icon="zoom" label={`Show the span of this log: ${body.slice(0, 60)}`} onClick={() => selectSpan(log.spanId)} />
        )}
      </div>
      {open && (
        <div class="log-more">
          <p class="log-when muted">{formatClock(at, 9)} {log.eventName && <>· event {log.eventName}</>} <CopyButton text={() => JSON.stringify(log, null, 2)} label="Copy log as JSON" /></p>
          <div class="log-whole"><Value value={log.body} /></div>
          {log.attributes.length > 0 && <Attributes list={log.attributes} label="Attributes of the log" />}
        </div>
      )}
    </li>
  );
}

/** The list below the waterfall. */
export function Logs({ model, spanId }: { model: TraceModel; spanId: string }): JSX.Element {
  const { logs, cursor, done, error } = useLogs(model);
  const [least, setLeast] = useState(0);
  const [text, setText] = useState('');
  const [only, setOnly] = useState(false);
  const [loading, setLoading] = useState(false);
  if (error !== null) return <Problem error={error} retry={() => void load(model, null)} />;
  if (!done) return <Loading what="Loading the logs…" />;
  if (logs.length === 0)
    return <p class="muted drawer-none">No log was written inside this trace. Logs come over OTLP, with the trace's id on them.</p>;
  const needle = text.trim().toLowerCase();
  const shown = logs.filter((l) => l.severity >= least && (!only || !spanId || l.spanId === spanId) &&
    (!needle || `${l.service} ${valueText(l.body)} ${l.attributes.map((a) => `${a.key}=${valueText(a.value)}`).join(' ')}`.toLowerCase().includes(needle)));
  return (
    <>
      <div class="logs-tools">
        <input type="search" placeholder="Narrow" aria-label="Narrow the logs" value={text} onInput={(e) => setText(e.currentTarget.value)} />
        <select aria-label="Least severity" value={String(least)} onChange={(e) => setLeast(Number(e.currentTarget.value))}>
          <option value="0">all severities</option>
          {[...levels].reverse().slice(1).map(([n, , name]) => <option key={n} value={String(n)}>{name} and above</option>)}
        </select>
        <label class="check"><input type="checkbox" checked={only} disabled={!spanId} onChange={(e) => setOnly(e.currentTarget.checked)} /> of the chosen span</label>
        <span class="muted" role="status">{shown.length === logs.length ? group(logs.length) : `${group(shown.length)} of ${group(logs.length)}`}{cursor !== null && '+'}</span>
      </div>
      <ol class="logs" aria-label="Logs">
        {shown.slice(0, shownMax).map((l, i) => <LogLine key={`${l.timeUnixNano} ${i}`} model={model} log={l} chosen={spanId !== '' && l.spanId === spanId} inDetail={false} />)}
      </ol>
      {cursor !== null && (
        <p class="drawer-more">
          <button type="button" disabled={loading || logs.length >= shownMax} onClick={() => {
            setLoading(true);
            void load(model, cursor).finally(() => setLoading(false));
          }}>{logs.length >= shownMax ? `The first ${group(logs.length)} are shown` : loading ? 'Loading…' : 'More'}</button>
        </p>
      )}
    </>
  );
}

/** Those of one span, among its details; of the logs that are loaded. */
export function SpanLogs({ model, spanId, section }: {
  model: TraceModel;
  spanId: string;
  section: (count: number, children: JSX.Element) => JSX.Element;
}): JSX.Element | null {
  const { logs } = useLogs(model);
  const own = logs.filter((l) => l.spanId === spanId);
  if (own.length === 0) return null;
  return section(own.length, (
    <ol class="logs" aria-label="Logs of the span">
      {own.slice(0, 200).map((l, i) => <LogLine key={i} model={model} log={l} chosen={false} inDetail />)}
      {own.length > 200 && <li class="muted">and {group(own.length - 200)} more, in the panel below</li>}
    </ol>
  ));
}

export function logsCount(k: Kept): string {
  return k.done && k.error === null ? `${group(k.logs.length)}${k.cursor !== null ? '+' : ''}` : '';
}
