// Which other traces link to this one. Links are kept with the spans that have them, so this is a search, which looks at
// whole traces: of a time, when it is asked for.

import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import * as api from '../api';
import type { SearchAnswer } from '../api';
import { Icon, Loading, Problem, ServiceDot } from '../parts';
import { setParams } from '../router';
import { formatAgo, formatDuration, formatFull, group, parseNs } from '../time';
import type { TraceModel } from './windows';

const hour = 3_600_000_000_000n;
const times: [string, string, bigint | null][] = [['1h', 'within an hour', hour], ['1d', 'within a day', 24n * hour], ['all', 'at any time', null]];
const limit = 100;

const linksTo = (traceId: string): string => `{ link:traceID = "${traceId}" }`;

export function BackLinks({ model }: { model: TraceModel }): JSX.Element {
  const [time, setTime] = useState('1h');
  const [answer, setAnswer] = useState<SearchAnswer | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    const around = times.find(([name]) => name === time)![2];
    const abort = new AbortController();
    setAnswer(null);
    setError(null);
    const start = around === null || model.start < around ? 0n : model.start - around;
    const end = around === null ? undefined : String(model.start + BigInt(Math.round(model.duration)) + around);
    api.search({ q: linksTo(model.traceId), start: String(start), end, limit: String(limit) }, abort.signal)
      .then((a) => !abort.signal.aborted && setAnswer(a))
      .catch((e: unknown) => !abort.signal.aborted && setError(e));
    return () => abort.abort();
  }, [model, time, attempt]);
  const others = answer?.traces.filter((t) => t.traceId !== model.traceId) ?? [];
  const own = answer?.traces.find((t) => t.traceId === model.traceId);
  const nowMs = Date.now();
  return (
    <>
      <div class="logs-tools">
        <select aria-label="Where to look for links" value={time} onChange={(e) => setTime(e.currentTarget.value)}>
          {times.map(([name, text]) => <option key={name} value={name}>{text} of this trace</option>)}
        </select>
        {answer && (
          <span class="muted" role="status">
            {group(others.length)}{answer.more && '+'} {others.length === 1 ? 'trace links' : 'traces link'} here
            {own && `, and ${group(own.matched)} ${own.matched === 1 ? 'span' : 'spans'} of its own`}
          </span>
        )}
        <span class="grow" />
        <button type="button" class="textual" onClick={() => setParams({ find: '{ link:traceID =~ ".+" }' }, { replace: true })}>Find the spans here that link elsewhere</button>
      </div>
      {error !== null && <Problem error={error} retry={() => setAttempt(attempt + 1)} />}
      {!answer && error === null && <Loading what="Looking for links to this trace…" />}
      {others.length > 0 && (
        <table class="list" aria-label="Traces that link to this one">
          <thead>
            <tr><th scope="col" class="c-rest">Trace</th><th scope="col" class="c-number">Links</th><th scope="col" class="c-number">Spans</th><th scope="col" class="c-number">Errors</th><th scope="col" class="c-number">Duration</th><th scope="col">Start</th></tr>
          </thead>
          <tbody>
            {others.map((t) => {
              const start = parseNs(t.startUnixNano);
              return (
                <tr key={t.traceId}>
                  <td class="c-rest">
                    <a class="c-link" href={`/trace/${t.traceId}?find=${encodeURIComponent(linksTo(model.traceId))}`}>
                      <ServiceDot name={t.rootService} /> <span class="muted">{t.rootService}</span> {t.rootName || '(no root yet)'}
                    </a>
                  </td>
                  <td class="c-number" title="Spans of it with such a link">{group(t.matched)}</td>
                  <td class="c-number">{group(t.spanCount)}</td>
                  <td class="c-number">{t.errorCount > 0 && <span class="error-count"><Icon name="error" />{group(t.errorCount)}</span>}</td>
                  <td class="c-number">{formatDuration(Number(t.durationNano))}</td>
                  <td title={formatFull(start)}>{formatAgo(start, nowMs)}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
      {answer && others.length === 0 && <p class="muted drawer-none">No span of another trace, {times.find(([name]) => name === time)![1]} of this one, links to it.</p>}
    </>
  );
}
