/** "512 B", "3.4 KiB", "1.25 GiB". */
export function formatBytes(n: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let at = 0;
  let size = n;
  while (size >= 1023.5 && at < names.length - 1) {
    size /= 1024;
    at++;
  }
  return `${at === 0 ? String(Math.round(size)) : size.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0)} ${names[at]}`;
}
