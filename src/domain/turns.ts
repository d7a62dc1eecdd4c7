import type { Answer } from "./provider.ts";

/** How many orders an account may be sent: never more than `max` in any `seconds`. */
export interface Rate {
  readonly max: number;
  readonly seconds: number;
}

/**
 * What providers publish, by `api`; 2026-11. Who publishes nothing, or a figure for each tier (fal, WaveSpeed, Hugging
 * Face), has no bucket: the pace is learned from its 429s. RunPod's holds for each endpoint; we keep to it with all of an
 * account's together.
 */
const RATES: Readonly<Record<string, Rate>> = {
  replicate: { max: 600, seconds: 60 },
  runpod: { max: 1_000, seconds: 10 },
  poe: { max: 500, seconds: 60 },
};

/** Null: no bucket. The sandbox says 429 when it wants to; otherwise it is as fast as it is. */
export function rateOf(provider: string, api: string): Rate | null {
  return provider.startsWith("sandbox") ? null : (RATES[api] ?? null);
}

interface Bucket {
  readonly perSecond: number;
  readonly burst: number;
}

/** Of what may be sent at once: a tenth. The rest comes bit by bit, so that no window of `seconds` sees more than `max`. */
const BURST_SHARE = 0.1;

export function bucketOf({ max, seconds }: Rate): Bucket {
  const burst = Math.max(1, Math.floor(max * BURST_SHARE));
  // Of a limit of one, the window after the first is as good.
  return { burst, perSecond: Math.max(1, max - burst) / seconds };
}

/** Why an account is paused. */
export type PauseReason = "provider_no_credit" | "provider_auth";

/**
 * What an answer to an order says about the account. `answered`: somebody is there, and refused what was asked for, or
 * cannot take it yet.
 * `silent`: nobody knows what became of it, or nobody could be reached.
 */
type AccountWord = "accepted" | "answered" | "throttled" | "silent" | PauseReason;

export function accountWord(answer: Answer): AccountWord {
  switch (answer.outcome) {
    case "submitted":
    case "completed":
      return "accepted";
    case "lost":
      return "silent";
    case "declined":
    case "postponed": {
      const { code } = answer.failure;
      if (isAccountTrouble(code)) return code;
      if (code === "rate_limited") return "throttled";
      return code === "provider_unavailable" ? "silent" : "answered";
    }
  }
}

/** The account's trouble, not the order's: the same order will do once the account is in order again. */
export function isAccountTrouble(code: string): code is PauseReason {
  return code === "provider_no_credit" || code === "provider_auth";
}
