import { setTimeout as sleep } from "node:timers/promises";
import type { ProviderSwitches, Rule } from "./provider.ts";
import type { Front } from "./weather.ts";

/** A front that has come. */
export interface Passed extends Front {
  /** Wall clock, milliseconds: from the first rule that stood to the last one that was taken away. */
  readonly from: number;
  readonly to: number;
  readonly what: string;
}

/** In a brown-out: of all creates, and of those that are accepted all the same. What was swallowed is found in the list. */
const FAILING_SHARE = 0.7;
const LATE_MS = 3_000;
const SWALLOWED_SHARE = 0.2;

/** Lets every front come and pass, each at its time. Resolves `seconds` after it began, when all have passed. */
export async function letPass(
  provider: Pick<ProviderSwitches, "stand" | "limit">,
  fronts: readonly Front[],
  seconds: number,
  onPassed: (passed: Passed) => void,
  halted: AbortSignal,
): Promise<void> {
  const signal = { signal: halted };
  const pass = async (front: Front) => {
    await sleep(front.atMs, undefined, signal);
    const from = Date.now();
    await come(provider, front, halted);
    onPassed({ ...front, from, to: Date.now(), what: wordsOf(front) });
  };
  await Promise.all([...fronts.map(pass), sleep(seconds * 1_000, undefined, signal)]);
}

async function come(
  { stand, limit }: Pick<ProviderSwitches, "stand" | "limit">,
  { type, faces, forMs, creates }: Front,
  halted: AbortSignal,
): Promise<void> {
  const all = (rule: Rule) => faces.map((face): Rule => ({ ...rule, match: { face } }));
  const under = async (rules: readonly Rule[], ms: number) => {
    const removals = await Promise.all(rules.map(stand));
    await sleep(ms, undefined, { signal: halted });
    await Promise.all(removals.map((remove) => remove()));
  };
  switch (type) {
    case "brown_out":
      await under(
        [
          ...all({ fault: "server_error", share: FAILING_SHARE }),
          ...all({ fault: "server_error_after_accept", share: SWALLOWED_SHARE }),
          ...all({ fault: "slow_create", ms: LATE_MS }),
        ],
        forMs / 2,
      );
      return under(all({ fault: "down" }), forMs / 2);
    case "empty":
      return under(all({ fault: "no_credit" }), forMs);
    case "storm":
      for (const form of ["body", "header", "neither"]) await under(all({ fault: `rate_limited=${form}` }), forMs / 3);
      return;
    case "small_limits":
      await limit(creates);
      await sleep(forMs, undefined, { signal: halted });
      return limit(null);
  }
}

function wordsOf({ type, faces, forMs, creates }: Front): string {
  const whom = faces.length === 1 ? faces[0] : "all of them";
  const lasting = `for ${Math.round(forMs / 1_000)} s`;
  switch (type) {
    case "brown_out":
      return `brown-out of ${whom} ${lasting}`;
    case "empty":
      return `402 from ${whom} ${lasting}`;
    case "storm":
      return `429 from ${whom} ${lasting}`;
    case "small_limits":
      return `no more than ${creates} creates a minute for each token ${lasting}`;
  }
}
