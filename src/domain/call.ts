/** What is told of calls to providers: what they were for, what was wrong with them, and how long they took. */

/** By the port's words; `webhook`: what it takes to check one. */
export type CallVerb =
  | "submit"
  | "look"
  | "cancel"
  | "find"
  | "resolve"
  | "offer"
  | "destination"
  | "load"
  | "account"
  | "balance"
  | "webhook"
  | "other";

/**
 * What was wrong, as far as HTTP tells.
 * unreachable  not a byte was written: no connection
 * unanswered   something was written, and no complete answer came
 * broken       500 and above, or a redirect: an answer of nobody who knows
 * The others are answers of the provider's: 401 and 403, 402, 404 and 410, 429, and the rest of 4xx.
 */
export type CallTrouble =
  | "unreachable"
  | "unanswered"
  | "broken"
  | "unauthorized"
  | "no_credit"
  | "not_found"
  | "throttled"
  | "refused";

/** Null: it went well. */
export function troubleOf(call: {
  readonly status: number | null;
  readonly sent: "answered" | "no" | "unknown";
}): CallTrouble | null {
  const { status, sent } = call;
  if (status === null) return sent === "no" ? "unreachable" : "unanswered";
  if (status >= 200 && status < 300) return null;
  if (status < 400 || status >= 500) return "broken";
  if (status === 401 || status === 403) return "unauthorized";
  if (status === 402) return "no_credit";
  if (status === 404 || status === 410) return "not_found";
  return status === 429 ? "throttled" : "refused";
}

/** Whether somebody was there who knew what to say. */
export function isAnswered(trouble: CallTrouble | null): boolean {
  return trouble !== "unreachable" && trouble !== "unanswered" && trouble !== "broken";
}

/** Who has been silent for longer may be well: nobody asked. */
const UNASKED_MS = 600_000;
/** One call of many that fails says nothing yet. */
const JUST_NOW_MS = 60_000;

/** Whether an account has answered lately, by its calls of the last hour; null: nobody has asked it for ten minutes. */
export function isReachable(
  calls: readonly { readonly error: CallTrouble | null; readonly agoMs: number }[],
): boolean | null {
  const latest = (answered: boolean) =>
    Math.min(...calls.filter(({ error }) => isAnswered(error) === answered).map(({ agoMs }) => agoMs));
  const [answered, failed] = [latest(true), latest(false)];
  if (Math.min(answered, failed) > UNASKED_MS) return null;
  return answered <= JUST_NOW_MS || answered <= failed;
}

/** Four to each doubling: a time is known to a fifth. The last one begins at 2^20 ms, a quarter of an hour. */
const MOST_BUCKET = 80;

export function latencyBucketOf(ms: number): number {
  return Math.min(MOST_BUCKET, Math.floor(4 * Math.log2(Math.max(1, ms))));
}

export interface Bucket {
  readonly bucket: number;
  readonly calls: number;
}

/** The time in ms within which a share of the calls was over, to a fifth; null when there were none. `share` 0..1. */
export function quantile(buckets: readonly Bucket[], share: number): number | null {
  const sorted = buckets.toSorted((a, b) => a.bucket - b.bucket);
  const all = sorted.reduce((sum, { calls }) => sum + calls, 0);
  let passed = 0;
  for (const { bucket, calls } of sorted) {
    passed += calls;
    if (passed >= all * share) return Math.round(2 ** ((bucket + 0.5) / 4));
  }
  return null;
}
