import { type Problem, throttled } from "./problem.ts";

export interface LimitRates {
  /** Requests per minute. */
  readonly creates: number;
  readonly others: number;
}

export const USUAL_RATES: LimitRates = { creates: 600, others: 3_000 };
const MAX_BUCKETS = 2_000; // two for each token

export interface Allowance {
  readonly remaining: number;
  readonly resetSeconds: number;
  readonly refusal: Problem | null;
}

/** A token bucket per API token, one for creates and one for everything else; a minute's worth may come at once. */
export function makeLimits(initial: LimitRates | null) {
  const buckets = new Map<string, { level: number; at: number }>();
  let rates = initial;

  return {
    rates: () => rates,
    set(next: LimitRates | null): void {
      rates = next;
      buckets.clear();
    },

    take(token: string, route: keyof LimitRates): Allowance {
      const perMinute = (rates ?? USUAL_RATES)[route];
      if (rates === null) return { remaining: perMinute, resetSeconds: 1, refusal: null };
      const key = `${route} ${token}`;
      const now = Date.now();
      const bucket = buckets.get(key) ?? { level: perMinute, at: now };
      bucket.level = Math.min(perMinute, bucket.level + ((now - bucket.at) / 60_000) * perMinute);
      bucket.at = now;
      buckets.set(key, bucket);
      const oldest = buckets.keys().next().value;
      if (buckets.size > MAX_BUCKETS && oldest !== undefined) buckets.delete(oldest);
      const waitSeconds = (Math.max(0, 1 - bucket.level) / perMinute) * 60;
      if (bucket.level < 1) {
        return { remaining: 0, resetSeconds: Math.ceil(waitSeconds), refusal: throttled("body", waitSeconds) };
      }
      bucket.level -= 1;
      return { remaining: Math.floor(bucket.level), resetSeconds: 1, refusal: null };
    },
  };
}
