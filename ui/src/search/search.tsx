import { signal } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import * as api from '../api';
import type { Operation, TraceSummary } from '../api';
import { ApiError } from '../api';
import { useShortcuts } from '../keys';
import { QueryBox } from '../query/box';
import { QueryError, queryErrorAt } from '../query_error';
import { Combobox, Field, Icon, IconButton, Loading, Problem, type Suggestion } from '../parts';
import { navigate, route, setParams, traceUrl } from '../router';
import { loadServices, services } from '../services';
import { formatFull, fromInputTime, group, formatDuration, parseNs, toInputTime, zoneName } from '../time';
import { AttributeBreakdown } from './attributes';
import { SeriesView } from '../series/view';
import { FirstSpan } from './first';
import { formFromParams, limits, lookbacks, paramsFromForm, problems, type Form } from './form';
import { Results, sorts, sortTraces, type Sort } from './results';
import { Scatter } from './scatter';
import { found, lastOpened, loadOlder, refresh, runSearch, searchError, searching, selected } from './state';

const operations = signal<Operation[]>([]);

function Form({ form, setForm, submit, wrong }: {
  form: Form;
  setForm: (f: Form) => void;
  submit: (f: Form) => void;
  wrong: Partial<Record<keyof Form, string>>;
}): JSX.Element {
  const set = (change: Partial<Form>): void => setForm({ ...form, ...change });
  const error = searchError.value;
  const searched = route.value.params.get('q') ?? '';
  const at = queryErrorAt(error, searched);
  // Of a text that has changed since, the box itself says what is wrong.
  const refused = at !== undefined && form.q.trim() === searched.trim();
  const serviceList: Suggestion[] = (services.value ?? []).map((s) => ({ value: s, dot: s }));
  const operationList: Suggestion[] = useMemo(() => {
    const seen = new Map<string, Suggestion>();
    for (const o of operations.value)
      if (!seen.has(o.name)) seen.set(o.name, { value: o.name, hint: `${o.kind.toLowerCase()} · ${group(o.spanCount)}` });
    return [...seen.values()];
  }, [operations.value]);
  useEffect(() => {
    const abort = new AbortController();
    api.operations(form.service, abort.signal).then((list) => (operations.value = list)).catch(() => {});
    return () => abort.abort();
  }, [services.value?.includes(form.service) ? form.service : '']);

  const duration = (name: 'minDuration' | 'maxDuration', label: string, placeholder: string): JSX.Element => (
    <Field label={label} id={name} class="narrow">
      <input id={name} type="text" autocomplete="off" spellcheck={false} placeholder={placeholder} value={form[name]}
        aria-invalid={Boolean(wrong[name])} title={wrong[name]} onInput={(e) => set({ [name]: e.currentTarget.value })} />
    </Field>
  );
  const time = (name: 'start' | 'end', label: string): JSX.Element => (
    <Field label={label} id={name} class="moment">
      <input id={name} type="datetime-local" step="1" value={form[name] ? toInputTime(parseNs(form[name])) : ''}
        aria-invalid={Boolean(wrong[name])} title={wrong[name] ?? `Time zone: ${zoneName()}`}
        onChange={(e) => set({ [name]: String(fromInputTime(e.currentTarget.value) ?? '') })} />
    </Field>
  );
  return (
    <form class="search-form" role="search" aria-label="Traces" onSubmit={(e) => {
      e.preventDefault();
      submit(form);
    }}>
      <div class="search-line">
        <div class="field grow traceql">
          <label for="q">TraceQL</label>
          <QueryBox id="q" value={form.q} placeholder="{ span.http.response.status_code >= 500 && duration > 200ms }"
            {...(refused ? { error: 'q-error' } : {})} onChange={(q) => set({ q })} />
        </div>
        <button type="submit" class="primary"><Icon name="search" />Search</button>
      </div>
      {refused && <QueryError id="q-error" q={searched} at={at} message={(error as ApiError).message} />}
      <div class="search-line">
        <Combobox label="Service" value={form.service} placeholder="any" suggestions={serviceList}
          onChange={(service) => set({ service, operation: service === form.service ? form.operation : '' })}
          onCommit={(service) => submit({ ...form, service, operation: '' })} onFocus={() => void loadServices()} />
        <Combobox label="Operation" value={form.operation} placeholder="any" suggestions={operationList}
          onChange={(operation) => set({ operation })} onCommit={(operation) => submit({ ...form, operation })} />
        <Field label="Attributes" id="tags" class="wide">
          <input id="tags" type="text" autocomplete="off" spellcheck={false} placeholder={'http.route=/login user="a b"'} value={form.tags}
            aria-invalid={Boolean(wrong.tags)} title={wrong.tags} onInput={(e) => set({ tags: e.currentTarget.value })} />
        </Field>
        {duration('minDuration', 'Shortest', '0 ms')}
        {duration('maxDuration', 'Longest', '∞')}
        <Field label="Time" id="lookback">
          <select id="lookback" value={form.lookback} onChange={(e) => {
            const lookback = e.currentTarget.value;
            if (lookback !== 'custom') return submit({ ...form, lookback, start: '', end: '' });
            const now = BigInt(Date.now()) * 1_000_000n;
            set({ lookback, start: String(now - 3_600_000_000_000n), end: String(now) });
          }}>
            {lookbacks.map(([value, text]) => <option key={value} value={value}>{text}</option>)}
            <option value="custom">From … to …</option>
          </select>
        </Field>
        {form.lookback === 'custom' && time('start', 'From')}
        {form.lookback === 'custom' && time('end', 'To')}
        <Field label="Limit" id="limit" class="tiny">
          <select id="limit" value={form.limit} onChange={(e) => submit({ ...form, limit: e.currentTarget.value })}>
            {(limits.includes(form.limit) ? limits : [form.limit, ...limits]).map((l) => <option key={l} value={l}>{l}</option>)}
          </select>
        </Field>
      </div>
      {Object.values(wrong)[0] && <p class="form-problem" role="alert">{Object.values(wrong)[0]}</p>}
    </form>
  );
}

function Nothing({ form, submit }: { form: Form; submit: (f: Form) => void }): JSX.Element {
  const wider = form.lookback !== '30d';
  const filters: [string, Partial<Form>][] = [];
  if (form.q) filters.push(['without the TraceQL', { q: '' }]);
  if (form.tags) filters.push(['with any attributes', { tags: '' }]);
  if (form.minDuration || form.maxDuration) filters.push(['of any duration', { minDuration: '', maxDuration: '' }]);
  if (form.operation) filters.push(['of any operation', { operation: '' }]);
  if (form.service) filters.push(['of any service', { service: '', operation: '' }]);
  return (
    <div class="nothing">
      <h2>No trace fulfils this</h2>
      <p class="muted">Spans are here, but none of them in this time with these conditions. Look</p>
      <div class="choices">
        {wider && <button type="button" onClick={() => submit({ ...form, lookback: '1d', start: '', end: '' })}>in the last day</button>}
        {wider && <button type="button" onClick={() => submit({ ...form, lookback: '30d', start: '', end: '' })}>in the last 30 days</button>}
        {filters.map(([text, change]) => <button key={text} type="button" onClick={() => submit({ ...form, ...change })}>{text}</button>)}
      </div>
    </div>
  );
}

export function Search(): JSX.Element {
  const { params } = route.value;
  const fromAddress = useMemo(() => formFromParams(params), [params.toString()]);
  const [form, setForm] = useState(fromAddress);
  useEffect(() => setForm(fromAddress), [fromAddress]);
  const [wrong, setWrong] = useState<Partial<Record<keyof Form, string>>>({});
  const page = useRef<HTMLDivElement>(null);
  const wanted = params.get('sort');
  const sort: Sort = sorts.find((s) => s === wanted) ?? 'newest';
  const view = params.get('view') === 'attributes' ? 'attributes' : 'traces';
  const setView = (v: 'attributes' | 'traces'): void => setParams({ view: v === 'traces' ? null : v }, { replace: true });
  const answer = found.value;
  const traces = useMemo(() => (answer ? sortTraces(answer.traces, sort) : []), [answer, sort]);

  const submit = (next: Form): void => {
    setForm(next);
    const bad = problems(next);
    setWrong(bad);
    if (Object.keys(bad).length) return;
    const p = paramsFromForm(next);
    if (sort !== 'newest') p.set('sort', sort);
    if (view !== 'traces') p.set('view', view);
    if (params.get('step')) p.set('step', params.get('step')!);
    const text = p.toString();
    const to = `/search${text ? `?${text}` : ''}`;
    if (to === location.pathname + location.search || (!text && !location.search)) refresh();
    else navigate(to);
  };

  useEffect(() => {
    document.title = 'Search · Pugmark';
    if (services.peek()) void loadServices(); // they may have changed since the page was opened
  }, []);

  // Back from a trace: where we were.
  useEffect(() => {
    if (!lastOpened.peek()) return;
    const a = page.current?.querySelector<HTMLElement>(`[data-trace="${CSS.escape(lastOpened.peek())}"] a`);
    a?.focus();
    a?.scrollIntoView({ block: 'center' });
  }, []);

  // No span at all yet: watch for the first one.
  const empty = services.value?.length === 0 && !searching.value && traces.length === 0 && !answer?.series;
  useEffect(() => {
    if (!empty) return;
    const timer = setInterval(() => {
      if (!document.hidden) void loadServices().then(() => services.value?.length && refresh());
    }, 1500);
    return () => clearInterval(timer);
  }, [empty]);

  const links = (): HTMLElement[] => [...(page.current?.querySelectorAll<HTMLElement>('.result a') ?? [])];
  const move = (step: number): void => {
    const all = links();
    if (!all.length) return;
    const now = all.indexOf(document.activeElement as HTMLElement);
    const hot = now >= 0 ? now : all.findIndex((a) => a.closest('.result')?.getAttribute('data-trace') === selected.peek());
    const next = hot < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, hot + step));
    all[next]!.focus();
    all[next]!.scrollIntoView({ block: 'nearest' });
  };
  const pick = (t: TraceSummary): void => {
    const a = page.current?.querySelector<HTMLElement>(`[data-trace="${CSS.escape(t.traceId)}"] a`);
    a?.focus({ preventScroll: true });
    a?.closest('.result')?.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  };
  const open = (t: TraceSummary): void => {
    lastOpened.value = t.traceId;
    navigate(traceUrl(t.traceId));
  };
  useShortcuts('Search', [
    { keys: ['/'], does: 'Write a query', run: () => document.getElementById('q')?.focus() },
    { keys: ['j', 'ArrowDown'], does: 'Next trace', run: () => move(1) },
    { keys: ['k', 'ArrowUp'], does: 'Previous trace', run: () => move(-1) },
    {
      keys: ['Enter', 'o'], does: 'Open the trace', run: () => {
        const t = traces.find((x) => x.traceId === selected.peek());
        if (!t) return false;
        open(t);
      },
    },
    { keys: ['r'], does: 'Search again', run: refresh },
    { keys: ['b'], does: 'The traces, or how their attributes differ', run: () => setView(view === 'traces' ? 'attributes' : 'traces') },
  ]);

  const filtered = Boolean(answer && (answer.form.q || answer.form.tags || answer.form.minDuration || answer.form.maxDuration || answer.form.operation));
  const failed = traces.filter((t) => t.errorCount > 0).length;
  const s = answer?.scanned;
  return (
    <div class="page search" ref={page}>
      <h1 class="off-screen">Search traces</h1>
      <Form form={form} setForm={setForm} submit={submit} wrong={wrong} />
      <div class={`progress${searching.value ? ' shown' : ''}`} aria-hidden="true" />
      {searchError.value !== null && queryErrorAt(searchError.value, params.get('q') ?? '') === undefined && <Problem error={searchError.value} retry={() => void runSearch(params)} />}
      {!answer && searching.value && <Loading what="Searching…" />}
      {empty && searchError.value === null && <FirstSpan />}
      {answer?.series && (
        <SeriesView answer={answer.series} form={answer.form} step={params.get('step') ?? ''} onQuery={(q) => submit({ ...form, q })}
          onRange={(start, end) => submit({ ...form, lookback: 'custom', start: String(start), end: String(end) })} />
      )}
      {answer && !answer.series && traces.length === 0 && !empty && !searching.value && <Nothing form={answer.form} submit={submit} />}
      {answer && traces.length > 0 && (
        <>
          <div class="panel scatter-panel">
            <Scatter traces={answer.traces} onPick={pick} onOpen={open}
              onRange={(start, end) => submit({ ...form, lookback: 'custom', start: String(start), end: String(end) })} />
          </div>
          <div class="summary" aria-live="polite">
            <strong>{group(traces.length)}{answer.more ? '+' : ''}</strong> {traces.length === 1 ? 'trace' : 'traces'}
            {failed > 0 && <span class="error-text"> · {group(failed)} failed</span>}
            {sort !== 'newest' && answer.more && <span class="muted"> · sorted among those shown</span>}
            <span class="grow" />
            <span class="switch" role="group" aria-label="What is shown">
              <button type="button" aria-pressed={view === 'traces'} onClick={() => setView('traces')} title="The traces (b)">Traces</button>
              <button type="button" aria-pressed={view === 'attributes'} onClick={() => setView('attributes')}
                title="Which attributes tell what was found from everything else (b)">Attributes</button>
            </span>
            {s && (
              <span class="muted scanned" title={`From ${formatFull(parseNs(s.start), 3)}\nto ${formatFull(parseNs(s.end), 3)}\n${s.parts} parts, ${s.partsPruned} of them skipped; ${s.groups} row groups, ${s.groupsPruned} of them skipped`}>
                {group(s.rows)} rows read in {formatDuration(Number(s.micros) * 1000)}
              </span>
            )}
            <IconButton icon="reload" label="Search again" keys="r" onClick={refresh} />
          </div>
          {view === 'attributes' && (
            <AttributeBreakdown form={answer.form} atMs={answer.atMs} onQuery={(q) => submit({ ...form, q })} />
          )}
          {view === 'traces' && <div class="panel">
            <Results traces={traces} sort={sort} nowMs={answer.atMs} filtered={filtered}
              onSort={(next) => setParams({ sort: next === 'newest' ? null : next }, { replace: true })} />
          </div>}
          {view === 'traces' && answer.more && (
            <div class="more">
              <button type="button" disabled={searching.value} onClick={() => void loadOlder()}>
                {searching.value ? 'Loading…' : 'Older traces'}
              </button>
            </div>
          )}
        </>
      )}
    </div>
  );
}

