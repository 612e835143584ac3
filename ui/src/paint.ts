// Colours for a canvas, which knows nothing of custom properties.

import { colors } from './color';
import { isDark } from './theme';

export interface Paint {
  services: string[];
  error: string;
  text: string;
  muted: string;
  line: string;
}

let paint: Paint | null = null;
let paintDark = false;

/** The colours as a canvas wants them, for the theme now shown. */
export function currentPaint(): Paint {
  if (paint && paintDark === isDark()) return paint;
  const probe = document.createElement('span');
  probe.hidden = true;
  document.body.append(probe);
  const resolve = (name: string): string => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  paintDark = isDark();
  paint = {
    services: Array.from({ length: colors }, (_, i) => resolve(`--svc-${i}`)),
    error: resolve('--error'), text: resolve('--text'), muted: resolve('--muted'), line: resolve('--line'),
  };
  probe.remove();
  return paint;
}
