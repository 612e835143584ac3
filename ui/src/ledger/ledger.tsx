// Where did my span go? What is stored of a trace, what happened to its spans on their way, and where all spans went,
// in numbers that add up.

import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import * as api from '../api';
import type { Ledger, Retention, Status } from '../api';
import { Icon, Loading, Problem, say } from '../parts';
import { percent } from '../percent';
import { navigate, route, setParams, traceUrl } from '../router';
import { formatClock, formatDay, formatDuration, formatFull, group, parseNs } from '../time';

const fates: Record<string, string> = {
  refused: 'Not stored',
  cut: 'Stored, with a value that was cut',
  'left-out': 'Stored, without some attributes',
  redacted: 'Stored, as the rules of redaction left it',
};
const isLoss = (fate: string): boolean => fate === 'refused';

/** The story of one trace. */
export function TraceLedger({ traceId, answer, links }: { traceId: string; answer: Ledger; links: boolean }): JSX.Element {
  const { stored, horizon } = answer;
  const lost = answer.fates.filter((f) => isLoss(f.fate)).reduce((n, f) => n + Number(f.spans), 0);
  return (
    <div class="ledger-trace">
      <p class="ledger-said">
        {stored ? (
          <><Icon name="done" /> <strong>{group(stored.spanCount)}</strong> {stored.spanCount === 1 ? 'span is' : 'spans are'} stored
            {stored.orphanCount > 0 && <>, of which {group(stored.orphanCount)} name a parent that is not</>}.{' '}
            {links && <a href={traceUrl(traceId)}>Open the trace</a>}</>
        ) : <><Icon name="error" /> Nothing of this trace is stored now.</>}
        {lost > 0 && <span class="error-text"> {group(lost)} {lost === 1 ? 'span was' : 'spans were'} refused.</span>}
        {answer.partial && <span class="warn-text"> A damaged part of the store may hold more.</span>}
      </p>
      {answer.fates.length > 0 && (
        <table class="list" aria-label="What happened to spans of this trace">
          <thead><tr><th scope="col" class="c-number">Spans</th><th scope="col">What happened</th><th scope="col" class="c-rest">Why</th></tr></thead>
          <tbody>
            {answer.fates.map((f) => (
              <tr key={`${f.fate} ${f.reason}`}>
                <td class="c-number">{group(f.spans)}</td>
                <td class={isLoss(f.fate) ? 'error-text' : ''}>{fates[f.fate] ?? f.fate}</td>
                <td class="c-rest">{f.reason}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {answer.entries.length > 0 && (
        <details class="section">
          <summary><Icon name="right" /><h2>One by one</h2><span class="count">{group(answer.entries.length)}{answer.more && '+'}</span></summary>
          <table class="list" aria-label="What happened, one by one">
            <thead><tr><th scope="col">When</th><th scope="col" class="c-number">Spans</th><th scope="col">What happened</th><th scope="col" class="c-rest">Why</th></tr></thead>
            <tbody>
              {answer.entries.map((e, i) => {
                const at = parseNs(e.unixNano);
                return (
                  <tr key={i}>
                    <td title={formatFull(at)}><span class="muted">{formatDay(at)}</span> {formatClock(at)}</td>
                    <td class="c-number">{group(e.spans)}</td>
                    <td class={isLoss(e.fate) ? 'error-text' : ''}>{fates[e.fate] ?? e.fate}</td>
                    <td class="c-rest">{e.reason}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </details>
      )}
      {answer.fates.length === 0 && (
        <p class="muted">
          {stored ? 'Nothing was refused, cut or left out of what came for it.' : 'Nothing that came named it and was refused either: it was not sent to this server, or it is too long ago.'}
        </p>
      )}
      <p class="muted ledger-horizon">
        {horizon.sinceUnixNano === null ? 'Remembered is everything since the server started' : `Remembered is what happened since ${formatFull(parseNs(horizon.sinceUnixNano), 0)}`}
        {' '}({group(horizon.entries)} of at most {group(horizon.entriesMax)} entries). Only counted, by no trace:
      </p>
      <ul class="ledger-not-named muted">{horizon.notNamed.map((text) => <li key={text}>{text}</li>)}</ul>
    </div>
  );
}

export function useLedger(traceId: string): { answer: Ledger | null; error: unknown; again: () => void } {
  const [answer, setAnswer] = useState<Ledger | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    if (!traceId) return;
    const abort = new AbortController();
    setAnswer(null);
    setError(null);
    api.get<Ledger>('ledger', { trace: traceId }, abort.signal)
      .then((a) => !abort.signal.aborted && setAnswer(a))
      .catch((e: unknown) => !abort.signal.aborted && setError(e));
    return () => abort.abort();
  }, [traceId, attempt]);
  return { answer, error, again: () => setAttempt(attempt + 1) };
}

function Flow({ label, n, of, bad = false, children }: { label: string; n: bigint; of: bigint; bad?: boolean; children?: ComponentChildren }): JSX.Element {
  const part = of > 0n ? Number(n) / Number(of) : 0;
  return (
    <div class={`flow${bad && n > 0n ? ' bad' : ''}`}>
      <dt>{label}{children}</dt>
      <dd class="c-number">{group(n)}</dd>
      <dd class="flow-bar" aria-hidden="true"><span style={{ width: `${part * 100}%` }} /></dd>
      <dd class="c-number muted">{of > 0n && n > 0n ? percent(part) : ''}</dd>
    </div>
  );
}

/** All spans: received = stored + refused + on their way. */
function Totals({ status, retention }: { status: Status; retention: Retention }): JSX.Element {
  const { ingest, store } = status;
  const received = parseNs(ingest.spansReceived);
  const stored = parseNs(ingest.spansStored);
  const refused = ingest.spansRefused.filter((r) => r.count !== '0');
  const under = ingest.spansRefused.reduce((n, r) => n - parseNs(r.count), received - stored);
  const held = parseNs(store.spans);
  const dropped = retention.spansDropped;
  const gone = parseNs(dropped.age) + parseNs(dropped.disk) + parseNs(dropped.deleted);
  return (
    <div class="ledger-totals">
      <section class="panel">
        <h2>Since the server started, {formatDuration(status.uptimeSeconds * 1e9)} ago</h2>
        <dl class="flows">
          <Flow label="Received" n={received} of={received} />
          <Flow label="Stored" n={stored} of={received} />
          {refused.map((r) => <Flow key={r.reason} label={`Refused: ${r.reason}`} n={parseNs(r.count)} of={received} bad />)}
          {refused.length === 0 && <Flow label="Refused" n={0n} of={received} />}
          <Flow label="On their way" n={under} of={received} />
        </dl>
        <p class="muted">Received = stored + refused + on their way, in {group(ingest.requests)} requests.</p>
      </section>
      <section class="panel">
        <h2>Since the store was made</h2>
        <dl class="flows">
          <Flow label="Here now" n={held} of={held + gone} />
          <Flow label="Gone by age" n={parseNs(dropped.age)} of={held + gone} />
          <Flow label="Gone for the disk budget" n={parseNs(dropped.disk)} of={held + gone} />
          <Flow label="Deleted by somebody" n={parseNs(dropped.deleted)} of={held + gone} />
          <Flow label="Redacted, still here" n={parseNs(retention.spansRedacted)} of={held + gone} />
        </dl>
        <p class="muted"><a href="/store">What is kept, and how long</a></p>
      </section>
    </div>
  );
}

export function LedgerPage(): JSX.Element {
  const asked = (route.value.params.get('trace') ?? '').trim().toLowerCase().replace(/^0x/, '').replace(/-/g, '');
  const [text, setText] = useState(asked);
  useEffect(() => setText(asked), [asked]);
  const { answer, error, again } = useLedger(asked);
  const [totals, setTotals] = useState<{ status: Status; retention: Retention } | null>(null);
  const [failed, setFailed] = useState<unknown>(null);
  useEffect(() => {
    document.title = 'Ledger · Pugmark';
    const abort = new AbortController();
    const load = (): void => {
      if (document.hidden) return;
      Promise.all([api.status(abort.signal), api.get<Retention>('retention', {}, abort.signal)])
        .then(([status, retention]) => {
          if (abort.signal.aborted) return;
          setTotals({ status, retention });
          setFailed(null);
        })
        .catch((e: unknown) => !abort.signal.aborted && setFailed(e));
    };
    load();
    const timer = setInterval(load, 5000);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
  }, []);
  return (
    <div class="page ledger">
      <h1>Where did my span go?</h1>
      <form class="ledger-form" aria-label="Ledger of a trace" onSubmit={(e) => {
        e.preventDefault();
        const id = text.trim().toLowerCase().replace(/^0x/, '').replace(/-/g, '');
        if (id && !/^[0-9a-f]{1,32}$/.test(id)) return say('A trace id is 32 hexadecimal digits');
        if (id && id === asked) again();
        else if (id) navigate(`/ledger?trace=${id}`);
        else setParams({ trace: null });
      }}>
        <div class="field grow">
          <label for="ledger-trace">Trace id</label>
          <input type="text" id="ledger-trace" placeholder="32 hexadecimal digits" autocomplete="off" spellcheck={false} value={text}
            onInput={(e) => setText(e.currentTarget.value)} />
        </div>
        <button type="submit" class="primary"><Icon name="search" />Look</button>
      </form>
      {error !== null && <Problem error={error} retry={again} />}
      {asked && !answer && error === null && <Loading what="Looking…" />}
      {answer && <section class="panel" aria-label="This trace"><TraceLedger traceId={answer.traceId} answer={answer} links /></section>}
      {failed !== null && <Problem error={failed} />}
      {totals && <Totals {...totals} />}
    </div>
  );
}
