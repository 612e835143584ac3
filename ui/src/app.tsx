import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { partial } from './api';
import { Boundary } from './boundary';
import { Help } from './help';
import { helpOpen, useShortcuts } from './keys';
import { LedgerPage } from './ledger/ledger';
import { Live } from './live/live';
import { Icon, IconButton, Said, say } from './parts';
import { navigate, route, traceUrl } from './router';
import { Search } from './search/search';
import { freshSearch } from './search/state';
import { StorePage } from './store/store';
import { isDark, theme, toggleTheme } from './theme';
import { zone, zoneName } from './time';
import { Trace } from './trace/trace';

function Logo(): JSX.Element {
  return (
    <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true" focusable="false">
      <g fill="currentColor">
        <ellipse cx="6.2" cy="14.2" rx="3.3" ry="4.3" transform="rotate(-24 6.2 14.2)" />
        <ellipse cx="12.3" cy="7.4" rx="3.3" ry="4.8" transform="rotate(-8 12.3 7.4)" />
        <ellipse cx="19.9" cy="7.4" rx="3.3" ry="4.8" transform="rotate(8 19.9 7.4)" />
        <ellipse cx="25.9" cy="14.2" rx="3.3" ry="4.3" transform="rotate(24 25.9 14.2)" />
        <path d="M16 14.6c-3.4 0-4.4 2.4-6.4 4.4-1.7 1.6-3 3.1-3 5.3 0 2.5 1.9 4 4.3 4 2 0 3.2-.9 5.1-.9s3.1.9 5.1.9c2.4 0 4.3-1.5 4.3-4 0-2.2-1.3-3.7-3-5.3-2-2-3-4.4-6.4-4.4z" />
      </g>
    </svg>
  );
}

function GoToTrace(): JSX.Element {
  const [text, setText] = useState('');
  const id = text.trim().toLowerCase().replace(/^0x/, '').replace(/-/g, '');
  const good = /^[0-9a-f]{1,32}$/.test(id);
  return (
    <form class="go" role="search" aria-label="Trace by id" onSubmit={(e) => {
      e.preventDefault();
      if (!good) return say('A trace id is 32 hexadecimal digits');
      setText('');
      (document.activeElement as HTMLElement | null)?.blur();
      navigate(traceUrl(id.padStart(32, '0'))); // some systems cut leading zeros
    }}>
      <input type="text" id="go" placeholder="Trace id" aria-label="Trace id" autocomplete="off" spellcheck={false} value={text}
        aria-invalid={text !== '' && !good} onInput={(e) => setText(e.currentTarget.value)} />
    </form>
  );
}

export function App(): JSX.Element {
  const { page, id } = route.value;
  const search = (): void => {
    freshSearch();
    navigate('/search');
  };
  useShortcuts('Everywhere', [
    { keys: ['?'], does: 'These keys', run: () => void (helpOpen.value = true) },
    { keys: ['g s'], does: 'Search', run: search },
    { keys: ['g l'], does: 'Live', run: () => navigate('/live') },
    { keys: ['g e'], does: 'Ledger', run: () => navigate('/ledger') },
    { keys: ['g r'], does: 'Store', run: () => navigate('/store') },
    { keys: ['g t'], does: 'Go to a trace by its id', run: () => document.getElementById('go')?.focus() },
    { keys: ['t'], does: 'Light or dark', run: toggleTheme },
    { keys: ['u'], does: 'Local time or UTC', run: () => void (zone.value = zone.value === 'utc' ? 'local' : 'utc') },
  ]);
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => {
        e.preventDefault();
        document.getElementById('main')?.focus();
      }}>To the content</a>
      <header class="top">
        <a class="brand" href="/search" onClick={freshSearch}><Logo />Pugmark</a>
        <nav aria-label="Pages">
          <a href="/search" aria-current={page === 'search' ? 'page' : undefined} onClick={freshSearch}>Search</a>
          <a href="/live" aria-current={page === 'live' ? 'page' : undefined}>Live</a>
          <a href="/ledger" aria-current={page === 'ledger' ? 'page' : undefined}>Ledger</a>
          <a href="/store" aria-current={page === 'store' ? 'page' : undefined}>Store</a>
        </nav>
        <span class="grow" />
        <GoToTrace />
        <button type="button" class="icon-button zone" title={`Times are in ${zoneName()} (u)`}
          onClick={() => (zone.value = zone.value === 'utc' ? 'local' : 'utc')}>
          {zone.value === 'utc' ? 'UTC' : 'Local'}
        </button>
        <IconButton icon={isDark() ? 'sun' : 'moon'} keys="t" onClick={toggleTheme}
          label={`${isDark() ? 'Light' : 'Dark'} theme${theme.value === 'auto' ? ', now as the system says' : ''}`} />
        <IconButton icon="help" label="Keys" keys="?" onClick={() => (helpOpen.value = true)} />
      </header>
      {partial.value && (
        <div class="notice partial" role="status">
          <Icon name="error" />
          <span>A damaged part of the store could not be read, so something may be missing. <code>pugmark store verify</code> names the damage.</span>
        </div>
      )}
      <main id="main" tabIndex={-1}>
        <Boundary key={page + id}>
          {page === 'search' && <Search />}
          {page === 'live' && <Live />}
          {page === 'trace' && <Trace id={id} />}
          {page === 'ledger' && <LedgerPage />}
          {page === 'store' && <StorePage />}
        </Boundary>
        {page === 'missing' && (
          <div class="page nothing">
            <h2>There is no page here</h2>
            <div class="choices"><a class="button" href="/search">Search</a><a class="button" href="/live">Live</a></div>
          </div>
        )}
      </main>
      <Help />
      <Said />
    </>
  );
}
