import type { Model } from "./catalogue.ts";

/** Without webhooks: 1 s, growing by half, at most 5 s, or for what takes long a sixtieth of its usual time. */
const POLL_FIRST_MS = 1_000;
const POLL_MOST_MS = 5_000;
const POLL_SHARE = 60;
/**
 * With webhooks a look is only the net below them: at the model's p95, then doubling to a minute. What takes longer is
 * looked at every ten: providers keep an output for an hour, and the last webhook may have been lost.
 */
const NET_MOST_MS = 60_000;
const NET_LONG_MS = 600_000;

/** What is tried again and again is tried less often the longer that goes on. */
const PATIENCE_SHARE = 8;
const PATIENCE_MOST_MS = 60_000;

/** How long to wait at the least before an order is offered again to whoever put it off, by its job's age. */
export function patienceMs(ageMs: number): number {
  return Math.min(PATIENCE_MOST_MS, Math.max(ageMs, 0) / PATIENCE_SHARE);
}

/** How long to wait before the look that follows `looks` looks. `model` null: one that has left the catalogue. */
export function lookDelayMs(looks: number, webhooks: boolean, model: Model | null): number {
  const p50Ms = (model?.expectedSeconds.p50 ?? 0) * 1_000;
  if (!webhooks) return Math.min(POLL_FIRST_MS * 1.5 ** looks, Math.max(POLL_MOST_MS, p50Ms / POLL_SHARE));
  const netMs = Math.min((model?.expectedSeconds.p95 ?? 30) * 1_000, NET_LONG_MS);
  return Math.min(netMs * 2 ** looks, Math.max(NET_MOST_MS, netMs));
}
