// The list of traces. A row is a link over its whole width; j and k move the focus from link to link,
// so that Enter, a middle click and a screen reader do what they do everywhere.

import { memo } from 'preact/compat';
import type { JSX } from 'preact';
import type { TraceSummary } from '../api';
import { serviceColor } from '../color';
import { traceUrl } from '../router';
import { ServiceDot, Icon } from '../parts';
import { formatAgo, formatClock, formatDay, formatDuration, formatFull, group, parseNs, zone } from '../time';
import { lastOpened, selected } from './state';

export type Sort = 'newest' | 'longest' | 'spans' | 'errors';
export const sorts: Sort[] = ['newest', 'longest', 'spans', 'errors'];

export function sortTraces(traces: TraceSummary[], sort: Sort): TraceSummary[] {
  if (sort === 'newest') return traces;
  const by: Record<Exclude<Sort, 'newest'>, (t: TraceSummary) => number> = {
    longest: (t) => Number(t.durationNano), spans: (t) => t.spanCount, errors: (t) => t.errorCount,
  };
  const key = by[sort];
  return [...traces].sort((a, b) => key(b) - key(a));
}

function Services({ t }: { t: TraceSummary }): JSX.Element {
  const services = [...t.services].sort((a, b) => b.spanCount - a.spanCount);
  const text = services.map((s) => `${s.name}: ${s.spanCount} spans${s.errorCount ? `, ${s.errorCount} failed` : ''}`).join('\n');
  return (
    <span class="breakdown" title={text}>
      <span class="stack" aria-hidden="true">
        {services.slice(0, 24).map((s) => (
          <span key={s.name} class={`part svc-${serviceColor(s.name)}${s.errorCount ? ' failed' : ''}`} style={{ flexGrow: s.spanCount }} />
        ))}
      </span>
      <span class="stack-text">
        {services.slice(0, 3).map((s) => s.name).join(', ')}
        {services.length > 3 && ` +${services.length - 3}`}
      </span>
    </span>
  );
}

const Row = memo(function Row({ t, longest, hot, nowMs, filtered }: {
  t: TraceSummary;
  longest: number;
  hot: boolean;
  nowMs: number;
  filtered: boolean;
  zone: string; // drawn again when it changes
}): JSX.Element {
  const start = parseNs(t.startUnixNano);
  const duration = Number(t.durationNano);
  const today = formatDay(start) === formatDay(BigInt(nowMs) * 1_000_000n);
  return (
    <div class={`result${hot ? ' hot' : ''}${t.errorCount ? ' failed' : ''}`} role="row" data-trace={t.traceId}
      onPointerEnter={() => (selected.value = t.traceId)} onPointerLeave={() => (selected.value = '')}>
      <span role="cell" class="c-name">
        <ServiceDot name={t.rootService} />
        <a href={traceUrl(t.traceId)} onFocus={() => (selected.value = t.traceId)}
          onClick={() => (lastOpened.value = t.traceId)}>
          <span class="service">{t.rootService || 'unknown'}</span>
          <span class="name">{t.rootName || <em>no root span yet</em>}</span>
        </a>
        {t.orphanCount > 0 && <span class="badge warn" title={`${t.orphanCount} spans name a parent that is not there`}>incomplete</span>}
      </span>
      <span role="cell" class="c-services"><Services t={t} /></span>
      <span role="cell" class="c-number">
        {group(t.spanCount)}
        {filtered && t.matched < t.spanCount && <span class="muted" title={`${t.matched} spans fulfil the query`}> ({group(t.matched)})</span>}
      </span>
      <span role="cell" class="c-number c-errors">
        {t.errorCount > 0 && <span class="error-count"><Icon name="error" />{group(t.errorCount)}</span>}
      </span>
      <span role="cell" class="c-duration">
        <span class="duration-bar" aria-hidden="true"><span style={{ width: `${Math.max(0.5, (duration / longest) * 100)}%` }} /></span>
        <span class="number">{formatDuration(duration)}</span>
      </span>
      <span role="cell" class="c-start" title={formatFull(start)}>
        <span class="muted">{today ? formatAgo(start, nowMs) : formatDay(start)}</span>
        <span class="number">{formatClock(start)}</span>
      </span>
    </div>
  );
});

export function Results({ traces, sort, onSort, nowMs, filtered }: {
  traces: TraceSummary[];
  sort: Sort;
  onSort: (s: Sort) => void;
  nowMs: number;
  filtered: boolean;
}): JSX.Element {
  const longest = traces.reduce((m, t) => Math.max(m, Number(t.durationNano)), 1);
  const head = (name: Sort, text: string, c: string): JSX.Element => (
    <span role="columnheader" class={c} aria-sort={sort === name ? 'descending' : 'none'}>
      <button type="button" onClick={() => onSort(name)} aria-pressed={sort === name}>
        {text}
        {sort === name && <Icon name="down" />}
      </button>
    </span>
  );
  return (
    <div class="results" role="table" aria-label="Traces" aria-rowcount={traces.length}>
      <div class="result head" role="row">
        <span role="columnheader" class="c-name">Root span</span>
        <span role="columnheader" class="c-services">Services</span>
        {head('spans', 'Spans', 'c-number')}
        {head('errors', 'Errors', 'c-number c-errors')}
        {head('longest', 'Duration', 'c-duration')}
        {head('newest', 'Start', 'c-start')}
      </div>
      {traces.map((t) => (
        <Row key={t.traceId} t={t} longest={longest} hot={selected.value === t.traceId} nowMs={nowMs} filtered={filtered} zone={zone.value} />
      ))}
    </div>
  );
}
