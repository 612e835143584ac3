// What else there is to a trace, below its waterfall: a strip of names, and above it the one that is open. Which one
// is in the address (panel=).

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { Icon, IconButton, Loading, Problem } from '../parts';
import { route, setParams } from '../router';
import { recallNumber, remember } from '../settings';
import { TraceLedger, useLedger } from '../ledger/ledger';
import { BackLinks } from './backlinks';
import { Logs, logsCount, useLogs } from './logs';
import { Operations } from './operations';
import type { TraceModel } from './windows';

const panels = { logs: 'Logs', operations: 'Time by operation', links: 'Links to this trace', ledger: 'Ledger' } as const;
export type Panel = keyof typeof panels;

export function panelOf(p: URLSearchParams): Panel | null {
  const name = p.get('panel') ?? '';
  return Object.hasOwn(panels, name) ? (name as Panel) : null;
}

export const togglePanel = (panel: Panel | null): void =>
  setParams({ panel: panel === panelOf(route.peek().params) ? null : panel }, { replace: true });

/** The upper edge, which can be moved. */
function Edge({ height, onChange }: { height: number; onChange: (height: number) => void }): JSX.Element {
  const [from, setFrom] = useState<{ y: number; height: number } | null>(null);
  const clamp = (h: number): number => Math.round(Math.min(900, Math.max(90, h)));
  return (
    <div class="drawer-edge" role="separator" aria-orientation="horizontal" aria-label="Height of the panel" tabIndex={0}
      aria-valuenow={height} aria-valuemin={90} aria-valuemax={900}
      onPointerDown={(e) => {
        setFrom({ y: e.clientY, height });
        e.currentTarget.setPointerCapture(e.pointerId);
        e.preventDefault();
      }}
      onPointerMove={(e) => from && onChange(clamp(from.height + from.y - e.clientY))}
      onPointerUp={() => setFrom(null)}
      onPointerCancel={() => setFrom(null)}
      onKeyDown={(e) => {
        const step = e.key === 'ArrowUp' ? 24 : e.key === 'ArrowDown' ? -24 : 0;
        if (!step) return;
        e.preventDefault();
        e.stopPropagation();
        onChange(clamp(height + step));
      }} />
  );
}

function LedgerPanel({ traceId }: { traceId: string }): JSX.Element {
  const { answer, error, again } = useLedger(traceId);
  if (error !== null) return <Problem error={error} retry={again} />;
  return answer ? <TraceLedger traceId={traceId} answer={answer} links={false} /> : <Loading what="Looking…" />;
}

export function Drawer({ model, panel, spanId }: { model: TraceModel; panel: Panel | null; spanId: string }): JSX.Element {
  const logs = useLogs(model);
  const [height, setHeight] = useState(() => recallNumber('panelHeight', 260, 90, 900));
  return (
    <section class={`drawer${panel ? ' open' : ''}`} aria-label="More of this trace">
      {panel && (
        <>
          <Edge height={height} onChange={(h) => {
            setHeight(h);
            remember('panelHeight', String(h));
          }} />
          <div class="drawer-body" id="drawer-body" role="region" aria-label={panels[panel]} tabIndex={0} style={{ height: `${height}px` }}>
            {panel === 'logs' && <Logs model={model} spanId={spanId} />}
            {panel === 'links' && <BackLinks model={model} />}
            {panel === 'operations' && <Operations model={model} spanId={spanId} />}
            {panel === 'ledger' && <LedgerPanel traceId={model.traceId} />}
          </div>
        </>
      )}
      <div class="drawer-strip">
        {(Object.keys(panels) as Panel[]).map((name) => (
          <button key={name} type="button" aria-expanded={panel === name} aria-controls={panel === name ? 'drawer-body' : undefined}
            onClick={() => togglePanel(name)}>
            <Icon name={panel === name ? 'down' : 'right'} />{panels[name]}
            {name === 'logs' && logsCount(logs) !== '' && <span class="drawer-count">{logsCount(logs)}</span>}
          </button>
        ))}
        <span class="grow" />
        {panel && <IconButton icon="close" label="Close the panel" onClick={() => togglePanel(panel)} />}
      </div>
    </section>
  );
}
