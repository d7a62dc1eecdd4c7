/** A path as it may be logged: without the secret of a run's webhook address, or the signature of a file's. */
export function maskPath(url: string): string {
  const path = url.split("?")[0] ?? "";
  return path.replace(/^(\/api\/webhooks\/[^/]+\/[^/]+)\/.+$/, "$1/…");
}
