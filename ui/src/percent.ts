/** A part of a whole, to two digits: "0.4 %", "12 %". */
export function percent(part: number): string {
  const p = part * 100;
  if (!(p > 0)) return '0 %';
  return p < 0.1 ? '< 0.1 %' : `${p.toFixed(p < 9.95 ? 1 : 0)} %`;
}
