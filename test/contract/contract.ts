import assert from "node:assert/strict";
import type { Adapter, Sample } from "../../src/providers/adapter.ts";
import { type Bench, startBench, type Traits } from "./bench.ts";
import { type Case, type Cases, it } from "./case.ts";
import { ends } from "./cases/ends.ts";
import { finds } from "./cases/finds.ts";
import { looks, retention } from "./cases/looks.ts";
import { lost } from "./cases/lost.ts";
import { names } from "./cases/names.ts";
import { orders } from "./cases/orders.ts";
import { refusals } from "./cases/refusals.ts";
import { webhooks } from "./cases/webhooks.ts";
import { recordedCases } from "./recorded.ts";

/** Fewer would be no contract. */
export const FEWEST_CASES = 40;
/** Of one case; those that wait for a bound need some seconds. */
const CASE_MS = 30_000;

/** Of everything that was answered in all cases before it. */
const never: Cases = () => [
  it("in all of this the token was in no answer and no error, and no order was sent twice", async (bench) => {
    assert.deepEqual(bench.breaches, []);
  }),
];

const GROUPS: readonly Cases[] = [names, orders, ends, refusals, lost, looks, finds, webhooks];

export interface Verdict {
  readonly says: string;
  readonly ms: number;
  /** Null: it is so. */
  readonly fault: string | null;
}

export interface Report {
  readonly sample: Sample;
  readonly traits: Traits;
  readonly verdicts: readonly Verdict[];
}

/** Each way in which an adapter buys keeps the contract for itself. */
export const waysOf = ({ sample, otherSamples = [] }: Adapter): readonly Sample[] => [sample, ...otherSamples];

/** Runs the contract over one way of an adapter. `only`: the sentences that it fits, which is no contract. */
export async function keepContract(
  adapter: Adapter,
  sample: Sample,
  { only = /(?:)/ }: { readonly only?: RegExp } = {},
): Promise<Report> {
  const bench = await startBench(adapter, sample);
  try {
    const { traits } = bench;
    const cases = [
      ...GROUPS.flatMap((group) => group(traits)),
      // What was recorded answers the first way only.
      ...(sample === adapter.sample ? await recordedCases(adapter.api) : []),
      ...retention(traits),
      ...never(traits),
    ].filter(({ says }) => only.test(says));
    const verdicts: Verdict[] = [];
    // One after the other: each has the wire and the bill for itself.
    for (const one of cases) {
      verdicts.push(await judge(one, bench));
    }
    return { sample, traits, verdicts };
  } finally {
    await bench.close();
  }
}

async function judge({ says, passes }: Case, bench: Bench): Promise<Verdict> {
  bench.calm();
  const began = performance.now();
  const limit = new AbortController();
  const fault = await Promise.race([
    passes(bench).then(
      () => null,
      (error: unknown) =>
        error instanceof Error
          ? `${error.name === "AssertionError" ? "" : `${error.name}: `}${error.message}`
          : String(error),
    ),
    tooLate(limit.signal),
  ]);
  limit.abort();
  return { says, ms: Math.round(performance.now() - began), fault };
}

function tooLate(signal: AbortSignal): Promise<string> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(`not over within ${CASE_MS / 1_000} s`), CASE_MS);
    signal.addEventListener("abort", () => clearTimeout(timer));
  });
}

/** A provider's nature in words. */
export function describe({ ends, webhooks, lists, stops }: Traits): string {
  const told = { signed: "signed webhooks", unsigned: "unsigned webhooks", none: "no webhooks" }[webhooks];
  const when = ends === "later" ? "takes the order and runs it later" : "runs the order in the call";
  return [when, told, lists ? "a list" : "no list", stops ? "can be stopped" : "cannot be stopped"].join(", ");
}
