// What a metrics query gives, in place of the list of traces.

import type { JSX } from 'preact';
import { useMemo } from 'preact/hooks';
import type { SeriesAnswer } from '../api';
import { setParams } from '../router';
import { FieldCards } from '../search/attributes';
import { withCondition } from '../search/condition';
import type { Form } from '../search/form';
import { formatDuration } from '../time';
import { Chart } from './chart';
import { breakdownOf, unitOf } from './model';

export const steps = ['', '1s', '5s', '15s', '1m', '5m', '15m', '1h', '6h', '1d'];

export function SeriesView({ answer, form, step, onQuery, onRange }: {
  answer: SeriesAnswer;
  form: Form;
  step: string;
  onQuery: (q: string) => void;
  onRange: (start: bigint, end: bigint) => void;
}): JSX.Element {
  const compared = useMemo(() => breakdownOf(answer), [answer]);
  const passedOver = form.service || form.operation || form.tags || form.minDuration || form.maxDuration;
  return (
    <div class="series-view">
      <div class="summary">
        {!compared && (
          <label class="step">Step{' '}
            <select value={step} onChange={(e) => setParams({ step: e.currentTarget.value || null })}>
              {(steps.includes(step) ? steps : [step, ...steps]).map((s) => <option key={s} value={s}>{s || `automatic: ${formatDuration(Number(answer.stepNano))}`}</option>)}
            </select>
          </label>
        )}
        {passedOver && <span class="warn-text">A metrics query asks only what is written in it: the fields below it do not narrow it.</span>}
        <span class="grow" />
        {answer.scanned && <span class="muted scanned">{formatDuration(Number(answer.scanned.micros) * 1000)}</span>}
      </div>
      {answer.series.length === 0 && <div class="nothing"><h2>No span fulfils this</h2><p class="muted">Nothing of this time is measured by the query.</p></div>}
      {answer.series.length > 0 && (compared
        ? <FieldCards answer={compared} fields={compared.fields} onQuery={(condition) => onQuery(withCondition('', condition))} />
        : <Chart answer={answer} unit={unitOf(form.q)} isDuration={/histogram_over_time\s*\(\s*(span:)?(duration|traceDuration)/.test(form.q)} onRange={onRange} />)}
    </div>
  );
}
