/** The last progress bar that tqdm drew: " 50%|#####     | 2/4 [00:00<00:00,  9.1it/s]". 0..1, or null. */
export function progressOf(logs: string): number | null {
  // Logs grow to megabytes; the newest bar is near the end.
  const lines = logs.slice(-8_000).split(/[\r\n]+/);
  for (const line of lines.reverse()) {
    const bar = /^\s*(\d{1,3})%\|[^|]*\|\s*(\d+)\/(\d+)/.exec(line);
    if (!bar) continue;
    const [percent, done, of] = bar.slice(1).map(Number) as [number, number, number];
    return Math.min(1, of > 0 ? done / of : percent / 100);
  }
  return null;
}
