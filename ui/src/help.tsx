import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { helpOpen, shortcutGroups, type Shortcut } from './keys';
import { IconButton } from './parts';

const names: Record<string, string> = {
  ArrowDown: '↓', ArrowUp: '↑', ArrowLeft: '←', ArrowRight: '→', Escape: 'Esc', ' ': 'Space', PageDown: 'PgDn', PageUp: 'PgUp',
};

const Keys = ({ s }: { s: Shortcut }): JSX.Element => (
  <>
    {(s.shown ? [s.shown] : s.keys).map((k, i) => (
      <span key={k}>
        {i > 0 && <span class="muted"> or </span>}
        {k === ' ' ? <kbd>Space</kbd> : k.split(' ').map((part) => <kbd key={part}>{names[part] ?? part}</kbd>)}
      </span>
    ))}
  </>
);

export function Help(): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const open = helpOpen.value;
  useEffect(() => {
    if (open && !dialog.current?.open) dialog.current?.showModal();
    if (!open && dialog.current?.open) dialog.current.close();
  }, [open]);
  return (
    <dialog ref={dialog} class="help" aria-labelledby="help-title" onClose={() => (helpOpen.value = false)}
      onClick={(e) => e.target === dialog.current && (helpOpen.value = false)}
      onKeyDown={(e) => e.key === '?' && (helpOpen.value = false)}>
      {open && (
        <div class="help-inside">
          <header>
            <h2 id="help-title">Keys</h2>
            <IconButton icon="close" label="Close" onClick={() => (helpOpen.value = false)} />
          </header>
          <div class="help-groups">
            {shortcutGroups().map((g) => (
              <section key={g.title}>
                <h3>{g.title}</h3>
                <dl>
                  {g.shortcuts.map((s) => (
                    <div key={s.does}>
                      <dt><Keys s={s} /></dt>
                      <dd>{s.does}</dd>
                    </div>
                  ))}
                </dl>
                {g.title === 'Trace' && (
                  <p class="muted">Drag over the bars to zoom; double-click a bar to zoom to it; Ctrl and the wheel zoom, Shift and the wheel move.</p>
                )}
              </section>
            ))}
          </div>
        </div>
      )}
    </dialog>
  );
}
