// One span, whole.

import type { ComponentChildren, JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { Event, Link, SpanAnswer } from '../api';
import { CopyButton, Icon, IconButton, ServiceDot } from '../parts';
import { traceUrl } from '../router';
import { formatClock, formatDuration, formatExact, formatFull, group, parseNs } from '../time';
import { Attributes, valueText } from '../values';
import { SpanLogs } from './logs';
import { selectSpan, setRange } from './view';
import type { TraceModel } from './windows';

const listMax = 200;

function Section({ title, count, dropped = 0, children, open = true }: {
  title: string;
  count?: number;
  dropped?: number;
  children: ComponentChildren;
  open?: boolean;
}): JSX.Element {
  return (
    <details class="section" open={open}>
      <summary>
        <Icon name="right" />
        <h3>{title}</h3>
        {count !== undefined && <span class="count">{group(count)}</span>}
        {dropped > 0 && <span class="badge warn" title="The program dropped these before it sent the span">{group(dropped)} dropped</span>}
      </summary>
      {children}
    </details>
  );
}

const shortId = (id: string): string => (id.length > 16 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id);

function Events({ model, start, duration, events }: { model: TraceModel; start: number; duration: number; events: Event[] }): JSX.Element {
  const [all, setAll] = useState(false);
  const shown = all ? events : events.slice(0, listMax);
  return (
    <ol class="events">
      {shown.map((e, i) => {
        const at = parseNs(e.timeUnixNano);
        const offset = Number(at - model.start) - start;
        const trace = e.attributes.find((a) => a.key === 'exception.stacktrace');
        const rest = e.attributes.filter((a) => a !== trace);
        const outside = offset < 0 || offset > duration;
        return (
          <li key={i} class={e.name === 'exception' ? 'failed' : ''}>
            <div class="event-head">
              <span class="number" title={formatFull(at)}>{offset >= 0 ? '+' : ''}{formatDuration(offset)}</span>
              <strong>{e.name || '(no name)'}</strong>
              {outside && <span class="badge warn" title="Its time is not within the span">outside</span>}
            </div>
            {rest.length > 0 && <Attributes list={rest} label={`Attributes of event ${e.name}`} />}
            {trace && <pre class="stack-trace" tabIndex={0} aria-label="Stack trace">{valueText(trace.value)}</pre>}
          </li>
        );
      })}
      {shown.length < events.length && (
        <li><button type="button" class="textual" onClick={() => setAll(true)}>{group(events.length - shown.length)} more events</button></li>
      )}
    </ol>
  );
}

function Links({ model, links }: { model: TraceModel; links: Link[] }): JSX.Element {
  const [all, setAll] = useState(false);
  const shown = all ? links : links.slice(0, listMax);
  return (
    <ul class="links">
      {shown.map((l, i) => {
        const here = l.traceId === model.traceId;
        return (
          <li key={i}>
            <a href={traceUrl(l.traceId, l.spanId)} title={`Trace ${l.traceId}, span ${l.spanId}`}>
              <Icon name="link" />
              {here ? 'this trace' : <>trace <code>{shortId(l.traceId)}</code></>} span <code>{l.spanId}</code>
            </a>
            {l.attributes.length > 0 && <Attributes list={l.attributes} label="Attributes of the link" />}
          </li>
        );
      })}
      {shown.length < links.length && (
        <li><button type="button" class="textual" onClick={() => setAll(true)}>{group(links.length - shown.length)} more links</button></li>
      )}
    </ul>
  );
}

const Fact = ({ label, children }: { label: string; children: ComponentChildren }): JSX.Element => (
  <div class="fact">
    <dt>{label}</dt>
    <dd>{children}</dd>
  </div>
);

export function Detail({ model, answer, onClose }: { model: TraceModel; answer: SpanAnswer; onClose: () => void }): JSX.Element {
  const { span, resource, scope, parent } = answer;
  const [filter, setFilter] = useState('');
  const service = model.services.find((s) => s.name === resource.service);
  const start = parseNs(span.startUnixNano);
  const offset = Number(answer.startOffsetNano);
  const duration = Math.max(0, Number(span.durationNano) || 0);
  const own = Number(answer.selfNano);
  const share = model.duration > 0 ? (duration / model.duration) * 100 : 100;
  const early = parent ? Math.max(0, Number(parent.startOffsetNano) - offset) : 0;
  const needle = filter.trim().toLowerCase();
  const attributes = needle
    ? span.attributes.filter((a) => a.key.toLowerCase().includes(needle) || valueText(a.value).toLowerCase().includes(needle))
    : span.attributes;
  const code = span.status?.code ?? 'UNSET';
  return (
    <aside class="detail" aria-label="Span">
      <header class={`detail-head svc-${service?.color ?? 0}`}>
        <div class="detail-title">
          <span class="service"><ServiceDot name={resource.service} />{resource.service}</span>
          <h2>{span.name || '(no name)'}</h2>
        </div>
        <IconButton icon="zoom" label="Zoom to this span" keys="z" onClick={() => zoomTo(model, offset, duration)} />
        <CopyButton text={() => spanJson(model, answer)} label="Copy span as JSON" />
        <IconButton icon="close" label="Close" keys="Esc" onClick={onClose} />
      </header>
      <div class="detail-body" tabIndex={0} role="region" aria-label="Details of the span">
        {code === 'ERROR' && (
          <div class="status-error" role="note">
            <Icon name="error" />
            <span>{span.status.message || 'The span ended with an error and no message.'}</span>
          </div>
        )}
        <dl class="facts-list">
          <Fact label="Duration">
            <strong>{formatDuration(duration)}</strong> <span class="muted">{formatExact(span.durationNano)}</span>
          </Fact>
          <Fact label="Of the trace">{share < 0.1 && share > 0 ? '< 0.1' : share.toFixed(1)} %</Fact>
          {answer.children > 0 && (
            <Fact label="Own time">
              {formatDuration(own)} <span class="muted">{duration > 0 ? ((own / duration) * 100).toFixed(0) : 0} % without its {group(answer.children)} {answer.children === 1 ? 'child' : 'children'}</span>
            </Fact>
          )}
          <Fact label="Start">
            <span title={formatFull(start)}>{formatClock(start, 9)}</span> <span class="muted">+{formatDuration(offset)}</span>
          </Fact>
          {answer.critical && <Fact label="Critical"><span title="The path from the end of the trace back: always the child that ended last">the trace waited for it</span></Fact>}
          <Fact label="Kind">{span.kind.toLowerCase()}</Fact>
          <Fact label="Status">{code === 'ERROR' ? <span class="error-text">error</span> : code.toLowerCase()}{code === 'OK' && span.status.message ? `: ${span.status.message}` : ''}</Fact>
          <Fact label="Span id"><code>{span.spanId}</code> <CopyButton text={() => span.spanId} label="Copy span id" /></Fact>
          {span.parentSpanId && (
            <Fact label="Parent">
              {parent ? (
                <button type="button" class="textual" onClick={() => selectSpan(parent.spanId)}>{parent.name || '(no name)'}</button>
              ) : (
                <><code>{span.parentSpanId}</code> <span class="badge warn">{answer.orphan ? 'not in this trace' : 'a circle'}</span></>
              )}
            </Fact>
          )}
          {early > 0 && <Fact label="Clock"><span class="warn-text">starts {formatDuration(early)} before its parent: the clocks may differ</span></Fact>}
          {span.traceState && <Fact label="Trace state"><code class="breaking">{span.traceState}</code></Fact>}
        </dl>

        <Section title="Attributes" count={span.attributes.length} dropped={span.droppedAttributes}>
          {span.attributes.length > 8 && (
            <input class="filter" type="search" placeholder="Narrow" aria-label="Narrow the attributes" value={filter}
              onInput={(e) => setFilter(e.currentTarget.value)} />
          )}
          {attributes.length > 0 ? <Attributes list={attributes} scope="span" label="Attributes" /> : <p class="muted none">{needle ? 'None like this' : 'None'}</p>}
        </Section>
        {(span.events.length > 0 || span.droppedEvents > 0) && (
          <Section title="Events" count={span.events.length} dropped={span.droppedEvents}>
            <Events model={model} start={offset} duration={duration} events={span.events} />
          </Section>
        )}
        <SpanLogs model={model} spanId={span.spanId} section={(count, children) => <Section title="Logs" count={count}>{children}</Section>} />
        {(span.links.length > 0 || span.droppedLinks > 0) && (
          <Section title="Links" count={span.links.length} dropped={span.droppedLinks}>
            <Links model={model} links={span.links} />
          </Section>
        )}
        {resource && (
          <Section title="Resource" count={resource.attributes.length}>
            <Attributes list={resource.attributes} scope="resource" label="Resource attributes" />
          </Section>
        )}
        {scope && (scope.name || scope.version || scope.attributes?.length) && (
          <Section title="Scope">
            <p class="scope">{scope.name || '(no name)'} <span class="muted">{scope.version}</span></p>
            {scope.attributes && scope.attributes.length > 0 && <Attributes list={scope.attributes} label="Scope attributes" />}
          </Section>
        )}
      </div>
    </aside>
  );
}

export function zoomTo(model: TraceModel, start: number, duration: number): void {
  const pad = Math.max(1, duration * 0.05);
  setRange(model, { from: start - pad, to: start + duration + pad });
}

const spanJson = (model: TraceModel, { span, resource, scope }: SpanAnswer): string =>
  JSON.stringify({ traceId: model.traceId, ...span, resource, scope }, null, 2);
