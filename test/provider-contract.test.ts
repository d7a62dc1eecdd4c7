import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { ADAPTERS } from "../src/providers/adapters.ts";
import type { Traits } from "./contract/bench.ts";
import { FEWEST_CASES, keepContract, waysOf } from "./contract/contract.ts";
import { PLANTED } from "./contract/planted.ts";

/** As the providers are: an adapter that reads its provider otherwise is not asked easier questions for it. */
const later = { ends: "later", lists: false, stops: true, tellsLoad: false } as const;
const inTheCall = { ends: "in the call", webhooks: "none", lists: false, stops: false, tellsLoad: false } as const;
const NATURES: Readonly<Record<string, Traits>> = {
  "black-forest-labs/flux-schnell": { ...later, webhooks: "signed", lists: true },
  "own/flux-dev": { ...later, webhooks: "signed", lists: true },
  "black-forest-labs-flux-1-schnell": { ...later, webhooks: "unsigned", tellsLoad: true },
  "own/flux": { ...later, webhooks: "unsigned", tellsLoad: true },
  "fal-ai/flux/schnell": { ...later, webhooks: "signed" },
  "wavespeed-ai/flux-schnell": { ...later, webhooks: "signed", lists: true },
  "hf-inference/black-forest-labs/FLUX.1-schnell": inTheCall,
  "fal-ai/black-forest-labs/FLUX.1-schnell": { ...later, webhooks: "none", stops: false },
  "FLUX-schnell": inTheCall,
};

const ways = ADAPTERS.flatMap((adapter) => waysOf(adapter).map((sample) => ({ api: adapter.api, adapter, sample })));

// Together: they wait more than they work.
describe.concurrent("every provider keeps the contract", () => {
  test.each(ways)(
    "$api, $sample.model",
    async ({ adapter, sample }) => {
      const { traits, verdicts } = await keepContract(adapter, sample);
      expect(verdicts.filter(({ fault }) => fault !== null)).toEqual([]);
      expect(verdicts.length).toBeGreaterThanOrEqual(FEWEST_CASES);
      expect(traits).toEqual(NATURES[sample.model]);
      // A sentence counts once.
      expect(new Set(verdicts.map(({ says }) => says)).size).toBe(verdicts.length);
    },
    180_000,
  );
});

describe.concurrent("the contract finds an adapter in which", () => {
  test.each(PLANTED)(
    "$bug",
    async ({ adapter, foundBy }) => {
      const { verdicts } = await keepContract(adapter, adapter.sample, { only: foundBy });
      expect(verdicts.length).toBeGreaterThan(0);
      expect(verdicts.filter(({ fault }) => fault === null)).toEqual([]);
    },
    60_000,
  );
});

describe("a path that is no adapter is answered with what to give", () => {
  test.each([
    [[], /Which adapter\?/],
    [["src/providers/nobody.ts"], /there is no file src\/providers\/nobody\.ts/],
    [["src/domain/failure.ts"], /exports no Adapter/],
  ] as const)("%j", async (args, says) => {
    const run = promisify(execFile)(process.execPath, ["--import", "tsx", "test/contract/main.ts", ...args]);
    await expect(run).rejects.toMatchObject({ code: 2, stdout: expect.stringMatching(says) });
  });
});
