// What tells the spans that a search finds from all spans of its time: attributes, those that differ most first,
// and of each the values with their shares. A click takes a value into the query, or out of what it finds.

import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import * as api from '../api';
import type { Breakdown, BreakdownField, BreakdownValue } from '../api';
import { Icon, Loading, Problem } from '../parts';
import { percent } from '../percent';
import { formatDuration, group } from '../time';
import { traceqlLiteral, valueText } from '../values';
import { fieldText } from '../query/complete';
import { withCondition } from './condition';
import { apiParams, type Form } from './form';

const shownFirst = 24; // attributes

const fieldOf = (f: BreakdownField): string => (f.scope === 'intrinsic' ? f.key : fieldText(f.scope, f.key));

/** The condition that a span has the value; null where the language cannot say it. */
export function conditionOf(f: BreakdownField, v: BreakdownValue): string | null {
  const isWord = f.scope === 'intrinsic' && (f.key === 'kind' || f.key === 'status');
  const literal = isWord ? valueText(v.value) : traceqlLiteral(v.value);
  return literal === null ? null : `${fieldOf(f)} = ${literal}`;
}

const share = (n: string, of: string): number => (Number(of) > 0 ? Number(n) / Number(of) : 0);

function ValueLine({ f, v, counted, onQuery }: {
  f: BreakdownField;
  v: BreakdownValue;
  counted: Breakdown['counted'];
  onQuery: (condition: string) => void;
}): JSX.Element {
  const found = share(v.found, counted.found);
  const all = share(v.all, counted.all);
  const condition = conditionOf(f, v);
  const text = valueText(v.value);
  const said = `${group(v.found)} of the ${group(counted.found)} found, ${group(v.all)} of all ${group(counted.all)}`;
  return (
    <li class={`share${v.difference > 0 ? ' over' : ''}`} title={`${text}\n${said}`}>
      {condition === null ? <span class="share-value">{text}</span> : (
        <button type="button" class="share-value" onClick={() => onQuery(condition)} aria-label={`Only with ${f.key} ${text}: ${said}`}>
          {text === '' ? <span class="v-empty">empty</span> : text}
        </button>
      )}
      <span class="share-bars" aria-hidden="true">
        <span class="of-found" style={{ width: `${found * 100}%` }} />
        <span class="of-all" style={{ width: `${all * 100}%` }} />
      </span>
      <span class="share-numbers number">
        <span>{percent(found)}</span> <span class="muted">{percent(all)}</span>
      </span>
      {condition !== null && (
        <button type="button" class="icon-button share-out" title={`Without ${f.key} ${text}`} aria-label={`Without ${f.key} ${text}`}
          onClick={() => onQuery(`!(${condition})`)}><Icon name="minus" /></button>
      )}
    </li>
  );
}

function FieldCard({ f, answer, onQuery }: { f: BreakdownField; answer: Breakdown; onQuery: (condition: string) => void }): JSX.Element {
  const left = Number(f.different) - f.values.length;
  return (
    <section class={`panel field-card${f.asked ? ' asked' : ''}`} aria-label={`Attribute ${f.key}`}>
      <header>
        <h2 title={fieldOf(f)}>{f.key}</h2>
        <span class="muted">{f.scope === 'intrinsic' ? '' : f.scope}</span>
        {f.asked && <span class="badge" title="The query says something of it, so that a difference is no news">asked for</span>}
        <span class="grow" />
        <span class="muted" title={`${group(f.found)} of the found spans have it, ${group(f.all)} of all`}>
          on {percent(share(f.found, answer.counted.found))}
        </span>
      </header>
      {f.values.length === 0 ? <p class="muted none">Lists, bytes or long texts: not told apart</p> : (
        <ul>{f.values.map((v, i) => <ValueLine key={i} f={f} v={v} counted={answer.counted} onQuery={onQuery} />)}</ul>
      )}
      {(left > 0 || f.more) && <p class="muted field-more">{left > 0 ? `${group(left)}${f.more ? '+' : ''} other values` : 'and others'}</p>}
    </section>
  );
}

export const FieldCards = ({ answer, fields, onQuery }: { answer: Breakdown; fields: BreakdownField[]; onQuery: (condition: string) => void }): JSX.Element => (
  <div class="field-cards">
    {fields.map((f) => <FieldCard key={`${f.scope} ${f.key}`} f={f} answer={answer} onQuery={onQuery} />)}
  </div>
);

export function AttributeBreakdown({ form, atMs, onQuery }: { form: Form; atMs: number; onQuery: (q: string) => void }): JSX.Element {
  const [answer, setAnswer] = useState<Breakdown | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [attempt, setAttempt] = useState(0);
  const [all, setAll] = useState(false);
  useEffect(() => {
    const abort = new AbortController();
    setAnswer(null);
    setError(null);
    setAll(false);
    const { limit: _, ...params } = apiParams(form, atMs);
    api.breakdown({ ...params, values: '6', fields: '200' }, abort.signal)
      .then((a) => {
        if (abort.signal.aborted) return;
        if (!Array.isArray(a.fields)) throw new Error('The server answered with something else than attributes.');
        setAnswer(a);
      })
      .catch((e: unknown) => !abort.signal.aborted && setError(e));
    return () => abort.abort();
  }, [form, atMs, attempt]);
  if (error !== null) return <Problem error={error} retry={() => setAttempt(attempt + 1)} />;
  if (!answer) return <Loading what="Counting attributes…" />;
  const { counted, spans } = answer;
  const everything = spans.found === spans.all;
  const sampled = counted.found !== spans.found || counted.all !== spans.all;
  const fields = all ? answer.fields : answer.fields.slice(0, shownFirst);
  return (
    <div class="attributes-view">
      <p class="attributes-said" role="status">
        {everything ? <>All <strong>{group(spans.all)}</strong> spans of this time; a query says what to compare with them. </> : (
          <>
            <span class="key of-found" aria-hidden="true" /><strong>{group(spans.found)}</strong> spans found, beside{' '}
            <span class="key of-all" aria-hidden="true" />all <strong>{group(spans.all)}</strong> of this time; what differs most comes first.{' '}
          </>
        )}
        {sampled && <span class="muted">Counted were {group(counted.found)} and {group(counted.all)} of them, spread over the time. </span>}
        {answer.wholeTraces && answer.more && <span class="muted">The query needs whole traces: the newest were looked at. </span>}
        {answer.scanned && <span class="muted">{formatDuration(Number(answer.scanned.micros) * 1000)}</span>}
      </p>
      <FieldCards answer={answer} fields={fields} onQuery={(condition) => onQuery(withCondition(form.q, condition))} />
      {fields.length < answer.fields.length && (
        <div class="more"><button type="button" onClick={() => setAll(true)}>{group(answer.fields.length - fields.length)} more attributes</button></div>
      )}
    </div>
  );
}
