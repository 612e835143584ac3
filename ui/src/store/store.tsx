// What is kept, and how long: rules in force, the disk budget, pins, and where the room goes by age.

import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import * as api from '../api';
import type { Retention, Segment, Status } from '../api';
import { formatBytes } from '../bytes';
import { useShortcuts } from '../keys';
import { IconButton, Loading, Problem } from '../parts';
import { percent } from '../percent';
import { traceUrl } from '../router';
import { formatAgo, formatDuration, formatFull, group, parseNs } from '../time';

interface Kept {
  status: Status;
  retention: Retention;
  segments: Segment[];
  pins: string[];
  atMs: number;
}

const shownFirst = 50;

/** Round times are told as rules are written: "7 days", not "7d 00h". */
function keepText(ns: string | null): string {
  if (ns === null) return 'for ever';
  const n = Number(ns);
  for (const [size, name] of [[86400e9, 'day'], [3600e9, 'hour'], [60e9, 'minute']] as const)
    if (n % size === 0) return `${group(n / size)} ${name}${n === size ? '' : 's'}`;
  return formatDuration(n);
}

function Rules({ retention }: { retention: Retention }): JSX.Element {
  return (
    <table class="list" aria-label="Rules of retention">
      <thead><tr><th scope="col" class="c-rest">Spans</th><th scope="col">Kept</th><th scope="col" class="c-number">Dropped so far</th></tr></thead>
      <tbody>
        {retention.rules.map((r, i) => (
          <tr key={i}>
            <td class="c-rest">{r.match === null ? (retention.rules.length > 1 ? 'all others' : 'all') : <code>{r.match}</code>}</td>
            <td>{keepText(r.keepNano)}</td>
            <td class="c-number">{group(r.spansDropped)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const ages: [string, number][] = [['under an hour', 3600e3], ['under a day', 86400e3], ['under a week', 7 * 86400e3], ['under 30 days', 30 * 86400e3], ['older', Infinity]];

/** Segments by the age of their newest spans. */
function byAge(segments: Segment[], nowMs: number): { name: string; segments: number; spans: number; bytes: number }[] {
  const out = ages.map(([name]) => ({ name, segments: 0, spans: 0, bytes: 0 }));
  for (const s of segments) {
    const age = nowMs - Number(parseNs(s.startMax) / 1_000_000n);
    const group = out[ages.findIndex(([, most]) => age <= most)]!;
    group.segments++;
    group.spans += Number(s.spans);
    group.bytes += Number(s.bytes);
  }
  return out;
}

function Ages({ segments, nowMs }: { segments: Segment[]; nowMs: number }): JSX.Element {
  const list = byAge(segments, nowMs);
  const most = Math.max(1, ...list.map((a) => a.bytes));
  return (
    <table class="list ages" aria-label="Sealed spans by age">
      <thead><tr><th scope="col">Newest span is</th><th scope="col" class="c-number">Size</th><td aria-hidden="true" /><th scope="col" class="c-number">Spans</th><th scope="col" class="c-number">Files</th></tr></thead>
      <tbody>
        {list.map((a) => (
          <tr key={a.name} class={a.segments ? '' : 'muted'}>
            <td>{a.name}</td>
            <td class="c-number">{formatBytes(a.bytes)}</td>
            <td class="c-bar" aria-hidden="true"><span style={{ width: `${(a.bytes / most) * 100}%` }} /></td>
            <td class="c-number">{group(a.spans)}</td>
            <td class="c-number">{group(a.segments)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Segments({ segments, nowMs }: { segments: Segment[]; nowMs: number }): JSX.Element {
  const [all, setAll] = useState(false);
  const shown = all ? segments : segments.slice(0, shownFirst);
  return (
    <>
      <table class="list" aria-label="Files of sealed spans">
        <thead>
          <tr>
            <th scope="col">File</th><th scope="col">Newest span</th><th scope="col">Over</th><th scope="col" class="c-number">Spans</th>
            <th scope="col" class="c-number">Size</th><th scope="col" class="c-number">A span</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((s) => {
            const newest = parseNs(s.startMax);
            return (
              <tr key={s.name}>
                <td><code>{s.name}</code>{s.damaged && <> <span class="badge warn" title="pugmark store verify says what is wrong">damaged</span></>}</td>
                <td title={formatFull(newest)}>{formatAgo(newest, nowMs)}</td>
                <td>{formatDuration(Number(newest - parseNs(s.startMin)))}</td>
                <td class="c-number">{group(s.spans)}</td>
                <td class="c-number">{formatBytes(Number(s.bytes))}</td>
                <td class="c-number">{(Number(s.bytes) / Math.max(1, Number(s.spans))).toFixed(1)} B</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {shown.length < segments.length && (
        <p class="drawer-more"><button type="button" class="textual" onClick={() => setAll(true)}>{group(segments.length - shown.length)} more</button></p>
      )}
    </>
  );
}

const Fact = ({ label, children }: { label: string; children: JSX.Element | string }): JSX.Element => (
  <div class="big-fact"><dt>{label}</dt><dd>{children}</dd></div>
);

function View({ kept }: { kept: Kept }): JSX.Element {
  const { status: { store }, retention, segments, pins, atMs } = kept;
  const disk = Number(retention.diskBytes);
  const most = retention.diskBytesMax === null ? null : Number(retention.diskBytesMax);
  const oldest = retention.oldestUnixNano === null ? null : parseNs(retention.oldestUnixNano);
  return (
    <>
      <dl class="big-facts panel">
        <Fact label="Spans">{group(store.spans)}</Fact>
        <Fact label="On disk">{formatBytes(disk)}</Fact>
        <Fact label="Disk budget">{most === null ? 'none' : <>{formatBytes(most)} <span class="muted">{percent(disk / Math.max(1, most))} used</span></>}</Fact>
        <Fact label="Oldest span">{oldest === null ? '–' : <span title={formatFull(oldest)}>{formatAgo(oldest, atMs)}</span>}</Fact>
        <Fact label="Next to go">{retention.nextUnixNano === null ? 'nothing, by age' : <span title="When the next file of spans is due for a rule">{formatFull(parseNs(retention.nextUnixNano), 0)}</span>}</Fact>
        <Fact label="Pinned traces">{group(retention.pinnedTraces)}</Fact>
      </dl>
      {most !== null && (
        <div class={`gauge${disk > most * 0.9 ? ' full' : ''}`} role="meter" aria-label="Disk budget used" aria-valuemin={0} aria-valuemax={most} aria-valuenow={Math.min(disk, most)}>
          <span style={{ width: `${Math.min(100, (disk / most) * 100)}%` }} />
        </div>
      )}
      <div class="store-halves">
        <section class="panel">
          <h2>Retention in force</h2>
          <Rules retention={retention} />
          <p class="muted">
            The first rule whose filter a span fulfils is about it. Gone so far: {group(retention.spansDropped.age)} by age, {group(retention.spansDropped.disk)} for
            the disk budget, {group(retention.spansDropped.deleted)} deleted; {group(retention.spansRedacted)} redacted. <a href="/ledger">Ledger</a>
          </p>
        </section>
        <section class="panel">
          <h2>Where the room goes</h2>
          <Ages segments={segments} nowMs={atMs} />
          <p class="muted">
            Beside sealed files: {group(store.memtableSpans)} spans in memory ({formatBytes(Number(store.memtableBytes))}), and a log of {formatBytes(Number(store.logBytes))} that has them too.
          </p>
        </section>
      </div>
      {pins.length > 0 && (
        <section class="panel">
          <h2>Pinned traces</h2>
          <ul class="pins">{pins.slice(0, 200).map((id) => <li key={id}><a href={traceUrl(id)}><code>{id}</code></a></li>)}</ul>
          {pins.length > 200 && <p class="muted">and {group(pins.length - 200)} more</p>}
        </section>
      )}
      <section class="panel">
        <h2>Files of sealed spans</h2>
        {segments.length === 0 ? <p class="muted">None yet: spans are in memory and in the log until there are more, or they waited long enough.</p>
          : <Segments segments={segments} nowMs={atMs} />}
      </section>
    </>
  );
}

export function StorePage(): JSX.Element {
  const [kept, setKept] = useState<Kept | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    document.title = 'Store · Pugmark';
  }, []);
  useEffect(() => {
    const abort = new AbortController();
    Promise.all([
      api.status(abort.signal), api.get<Retention>('retention', {}, abort.signal),
      api.get<{ segments: Segment[] }>('segments', {}, abort.signal), api.get<{ pins: string[] }>('pins', {}, abort.signal),
    ]).then(([status, retention, { segments }, { pins }]) => {
      if (abort.signal.aborted) return;
      setError(null);
      setKept({ status, retention, segments, pins, atMs: Date.now() });
    }).catch((e: unknown) => !abort.signal.aborted && setError(e));
    return () => abort.abort();
  }, [attempt]);
  const again = (): void => setAttempt((n) => n + 1);
  useShortcuts('Store', [{ keys: ['r'], does: 'Load again', run: again }]);
  return (
    <div class="page store">
      <header class="page-head">
        <h1>What is kept, and how long</h1>
        <span class="grow" />
        <IconButton icon="reload" label="Load again" keys="r" onClick={again} />
      </header>
      {error !== null && <Problem error={error} retry={again} />}
      {!kept && error === null && <Loading what="Loading…" />}
      {kept && <View kept={kept} />}
    </div>
  );
}
