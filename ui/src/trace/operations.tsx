// Where the time of the trace went, by service and operation: the time that spans have for themselves, without what
// their children cover.

import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import type { TraceOperations } from '../api';
import { Icon, Loading, Problem } from '../parts';
import { setParams } from '../router';
import { formatDuration, formatExact, group } from '../time';
import { percent } from '../percent';
import { selectSpan } from './view';
import type { TraceModel } from './windows';

export function Operations({ model, spanId }: { model: TraceModel; spanId: string }): JSX.Element {
  const [answer, setAnswer] = useState<TraceOperations | null>(null);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    const abort = new AbortController();
    setError(null);
    model.windows.operations(abort.signal)
      .then((a) => !abort.signal.aborted && setAnswer(a))
      .catch((e: unknown) => !abort.signal.aborted && setError(e));
    return () => abort.abort();
  }, [model]);
  if (error !== null) return <Problem error={error} />;
  if (!answer) return <Loading what="Adding up the time…" />;
  const whole = Math.max(1, Number(answer.selfNano));
  const most = Number(answer.operations[0]?.selfNano ?? 0) || 1;
  return (
    <>
      <table class="list operations">
        <thead>
          <tr>
            <th scope="col">Operation</th>
            <th scope="col" class="c-number" title="Without the time that children cover">Own time</th>
            <td aria-hidden="true" />
            <th scope="col" class="c-number">Part</th>
            <th scope="col" class="c-number">Spans</th>
            <th scope="col" class="c-number">Errors</th>
            <th scope="col" class="c-number">Mean</th>
            <th scope="col" class="c-number">Longest</th>
          </tr>
        </thead>
        <tbody>
          {answer.operations.map((o) => {
            const service = model.services[o.service];
            const own = Number(o.selfNano);
            return (
              <tr key={`${o.service} ${o.name}`} class={`svc-${service?.color ?? 0}${o.longestSpanId === spanId ? ' chosen' : ''}`}>
                <td class="c-operation">
                  <button type="button" title="Find these spans in the waterfall"
                    onClick={() => setParams({ find: findText(service?.name ?? '', o.name) }, { replace: true })}>
                    <span class="dot" aria-hidden="true" /><span class="muted">{service?.name}</span> <span>{o.name || '(no name)'}</span>
                  </button>
                </td>
                <td class="c-number" title={formatExact(o.selfNano)}>{formatDuration(own)}</td>
                <td class="c-bar" aria-hidden="true"><span style={{ width: `${(own / most) * 100}%` }} /></td>
                <td class="c-number">{percent(own / whole)}</td>
                <td class="c-number">{group(o.spanCount)}</td>
                <td class="c-number">{o.errorCount > 0 && <span class="error-count"><Icon name="error" />{group(o.errorCount)}</span>}</td>
                <td class="c-number">{formatDuration(Number(o.durationNano) / Math.max(1, o.spanCount))}</td>
                <td class="c-number">
                  <button type="button" class="textual" title="Show the longest of them" onClick={() => selectSpan(o.longestSpanId)}>
                    {formatDuration(Number(o.longestNano))}
                  </button>
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {answer.total > answer.operations.length && <p class="muted drawer-more">and {group(answer.total - answer.operations.length)} more operations with less time</p>}
    </>
  );
}

const findText = (service: string, name: string): string =>
  `{ resource.service.name = ${JSON.stringify(service)} && name = ${JSON.stringify(name)} }`;
