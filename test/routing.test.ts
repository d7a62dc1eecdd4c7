import { describe, expect, test } from "vitest";
import { apps } from "../apps/all.ts";
import { proHeadshots } from "../apps/pro-headshots.ts";
import { readAccounts } from "../src/accounts.ts";
import { makeLogger, startApi } from "../src/compose.ts";
import { ConfigError, readConfig } from "../src/config.ts";
import { type App, type Plan, routingOf } from "../src/domain/app.ts";
import { appProblems } from "../src/domain/app-check.ts";
import { CATALOGUE } from "../src/domain/catalogue.ts";
import { failure } from "../src/domain/failure.ts";
import { type Event, type Job, next } from "../src/domain/job.ts";
import type { KindName } from "../src/domain/kinds/kind.ts";
import {
  type Account,
  type AccountState,
  type Circumstances,
  choose,
  modelOfRun,
  type Providers,
  type Routing,
  reroute,
  type Wanted,
  whyOf,
} from "../src/domain/routing.ts";
import type { IntendedRun } from "../src/domain/run.ts";
import { ADAPTERS } from "../src/providers/adapters.ts";
import { readRoutingNotes } from "../src/routing-notes.ts";
import { makeBulkheads, roomOf } from "../src/workers/bulkheads.ts";
import { makeApp } from "./rig/apps.ts";

const NOW = new Date("2026-11-21T12:00:00Z");
const later = (seconds: number) => new Date(NOW.getTime() + seconds * 1_000);

function account(name: string, more: Pick<Account, "models" | "secondMicroUsd"> = {}): Account {
  const adapter = ADAPTERS.find(({ api }) => name === api || name.startsWith(`${api}_`));
  if (!adapter) throw new Error(`no adapter for ${name}`);
  return { ...adapter.make({ name, token: "t", baseUrl: "http://127.0.0.1:1" }), ...more };
}
const gpu = (name: string, usdPerHour: number) =>
  account(name, { models: ["own/flux-dev"], secondMicroUsd: (usdPerHour * 1_000_000) / 3_600 });

const fine = (provider: string): AccountState => ({
  provider,
  breaker: "closed",
  retryAt: null,
  paused: null,
  load: [],
});
const paused = (provider: string, retryAt = later(60)): AccountState => ({
  ...fine(provider),
  retryAt,
  paused: { reason: "provider_no_credit", since: NOW },
});
const queue = (provider: string, queued: number, workers: number): AccountState => ({
  ...fine(provider),
  load: [
    {
      model: "own/flux-dev",
      queued,
      running: workers,
      workers: { idle: 0, running: workers, throttled: 0, initializing: 0 },
      at: NOW,
    },
  ],
});

const wanted = (over: Partial<Wanted> = {}): Wanted => ({
  kind: "generation",
  alias: "flux-dev",
  routing: { by: "cost" },
  runId: "run",
  deadlineAt: later(3_600),
  hasImage: false,
  isTrained: false,
  isSafe: false,
  filmSeconds: 0,
  ...over,
});

function line(names: readonly (string | Account)[], over: Partial<Wanted> = {}, known: Partial<Circumstances> = {}) {
  const providers = names.map((each) => (typeof each === "string" ? account(each) : each)) as unknown as Providers;
  const choices = choose({ providers, states: [], routes: [], now: NOW, ...known }, wanted(over));
  const [first] = choices.line;
  return {
    ...choices,
    names: choices.line.map(({ provider }) => provider.name),
    why: first ? whyOf(choices, first) : null,
  };
}

const gone = (provider: string, model: string) =>
  ({ provider, model, isTraining: false, status: "gone", p50: null, p95: null }) as const;

describe("who is asked first", () => {
  test("is the cheapest when nobody is preferred", () => {
    const { names, why } = line(["replicate", "fal", "wavespeed", "runpod"], { alias: "flux-dev" });
    expect(names.slice(0, 2)).toEqual(["wavespeed", "runpod"]);
    // Both take $0.025: the run decides.
    expect(names.slice(2).toSorted()).toEqual(["fal", "replicate"]);
    expect(why).toBe("wavespeed: the cheapest that meets the deadline, $0.0120 in about 5 s of 3600");
  });

  test("is who is paid by the pixel for a small picture, and by the picture for a large one", () => {
    const first = (megapixels: number) => line(["replicate", "fal"], { megapixels }).names[0];
    expect([first(0.26), first(1.5)]).toEqual(["fal", "replicate"]);
    const film = (filmSeconds: number) =>
      line(["replicate", "wavespeed"], { kind: "video", alias: "wan-2.2-i2v-fast", hasImage: true, filmSeconds })
        .names[0];
    expect(film(5)).toBe("replicate");
  });

  test("is the first in line, then the next, and who is not named comes last", () => {
    const routing = { by: "order", order: ["replicate", "fal"] } as const;
    expect(line(["wavespeed", "fal", "replicate"], { routing })).toMatchObject({
      names: ["replicate", "fal", "wavespeed"],
      why: "replicate: first in line",
    });
  });

  test("is nobody else where the routing wants no others", () => {
    const routing = { by: "order", order: ["poe"], others: false } as const;
    expect(line(["replicate", "poe"], { routing })).toMatchObject({
      names: ["poe"],
      barred: [{ provider: "replicate", because: "is not in the app's routing" }],
    });
    expect(line(["replicate"], { routing }).names).toEqual([]);
  });

  test("is shared by weight, by the run, in these shares and always in the same way", () => {
    const routing = { by: "weight", weights: { replicate: 70, fal: 30, wavespeed: 0 } } as const;
    const firsts = Array.from({ length: 1_000 }, (_, index) =>
      line(["replicate", "fal", "wavespeed"], { routing, runId: `run ${index}` }),
    );
    const share = firsts.filter(({ names }) => names[0] === "replicate").length;
    expect(share).toBeGreaterThan(650);
    expect(share).toBeLessThan(750);
    for (const { names } of firsts) expect(names[2]).toBe("wavespeed");
    const again = line(["replicate", "fal", "wavespeed"], { routing, runId: "run 7" });
    expect(again.why).toBe(firsts[7]?.why);
    expect(again.why).toMatch(/^(replicate: by weight, 70|fal: by weight, 30) of 100$/);
  });

  test("is spread over the accounts of one provider", () => {
    const routing = { by: "order", order: ["replicate"] } as const;
    const firsts = Array.from(
      { length: 300 },
      (_, index) => line(["replicate", "replicate_2", "replicate_3"], { routing, runId: `run ${index}` }).names[0],
    );
    for (const name of ["replicate", "replicate_2", "replicate_3"])
      expect(firsts.filter((each) => each === name).length).toBeGreaterThan(60);
  });

  test("is another than the one where the attempt before failed", () => {
    const routing = { by: "order", order: ["replicate", "fal"] } as const;
    expect(line(["replicate", "fal"], { routing, failedAt: ["replicate"] })).toMatchObject({
      names: ["fal", "replicate"],
      why: "fal: number 2 in line; replicate failed it before",
    });
    expect(line(["replicate"], { routing, failedAt: ["replicate"] }).names).toEqual(["replicate"]);
  });

  test("is only who can load the user's weights, or was sent the training", () => {
    const only = { provider: "replicate", because: "cannot load the user's trained weights" };
    expect(line(["fal", "replicate"], { alias: "flux-dev-lora", isTrained: true, only })).toMatchObject({
      names: ["replicate"],
      why: "replicate: the only one with this model; fal cannot load the user's trained weights",
    });
    expect(line(["huggingface", "replicate"], { alias: "sdxl", isTrained: true }).names).toEqual(["replicate"]);
  });

  test("what a safety checker has to look at is not sold by who has none", () => {
    expect(line(["huggingface", "replicate"], { alias: "flux-schnell" }).names).toEqual(["huggingface", "replicate"]);
    expect(line(["huggingface", "replicate"], { alias: "flux-schnell", isSafe: true }).names).toEqual(["replicate"]);
  });

  test("is who has a route for what starts from a picture", () => {
    const names = (hasImage: boolean) => line(["runpod", "fal"], { hasImage }).line.map(({ route }) => route.model);
    expect(names(true)).toEqual(["fal-ai/flux/dev/image-to-image"]);
    expect(names(false)).toEqual(["black-forest-labs-flux-1-dev", "fal-ai/flux/dev"]);
  });
});

describe("in trouble, an account stands behind those that are ready:", () => {
  const routing = { by: "order", order: ["replicate", "fal"] } as const;

  test.each([
    ["out of credit", paused("replicate"), "fal: number 2 in line; replicate is paused, its account is out of credit"],
    [
      "silent",
      { ...fine("replicate"), breaker: "open", retryAt: later(9) },
      "fal: number 2 in line; replicate gives no answers",
    ],
    [
      "throttled",
      { ...fine("replicate"), retryAt: later(9) },
      "fal: number 2 in line; replicate takes no orders for a while",
    ],
  ] as const)("%s", (_, state, why) => {
    expect(line(["replicate", "fal"], { routing }, { states: [state] })).toMatchObject({
      names: ["fal", "replicate"],
      why,
    });
  });

  test("until it is worth another try", () => {
    for (const state of [
      paused("replicate", NOW),
      { ...fine("replicate"), breaker: "half_open", retryAt: NOW } as const,
    ])
      expect(line(["replicate", "fal"], { routing }, { states: [state] }).names).toEqual(["replicate", "fal"]);
  });

  test("or all of them are, and are asked in their order", () => {
    const states = [paused("replicate"), paused("fal")];
    expect(line(["replicate", "fal"], { routing }, { states }).names).toEqual(["replicate", "fal"]);
  });

  test("who did not take the very order comes after the others", () => {
    const refusedBy = { provider: "replicate", code: "provider_unavailable" } as const;
    expect(line(["replicate", "fal"], { routing, refusedBy })).toMatchObject({
      names: ["fal", "replicate"],
      why: "fal: number 2 in line; replicate did not take it",
    });
  });

  test("of three, who comes behind whoever did not take it is next, so that it goes around and passes nobody over", () => {
    const three = { by: "order", order: ["replicate", "fal", "wavespeed"] } as const;
    const names = (provider: string, code: "provider_busy" | "rate_limited" = "provider_busy") =>
      line(["replicate", "fal", "wavespeed"], { alias: "flux-schnell", routing: three, refusedBy: { provider, code } })
        .names;
    expect(names("replicate")).toEqual(["fal", "wavespeed", "replicate"]);
    expect(names("fal")).toEqual(["wavespeed", "replicate", "fal"]);
    expect(names("wavespeed")).toEqual(["replicate", "fal", "wavespeed"]);
    // It only waits for its turn there.
    expect(names("fal", "rate_limited")).toEqual(["replicate", "fal", "wavespeed"]);
  });

  test("a model that is gone at one is had from the other; gone everywhere, it is asked for all the same", () => {
    const routes = [gone("replicate", "black-forest-labs/flux-dev")];
    expect(line(["replicate", "fal"], { routing }, { routes })).toMatchObject({
      names: ["fal"],
      why: "fal: number 2 in line; replicate does not have the model",
    });
    routes.push(gone("fal", "fal-ai/flux/dev"));
    expect(line(["replicate", "fal"], { routing }, { routes }).names).toEqual(["replicate", "fal"]);
  });
});

describe("of GPUs with queues", () => {
  const gpus = [gpu("runpod_a40", 0.4), gpu("runpod_4090", 0.3), gpu("runpod_a100", 1.2)];
  // flux-dev takes 5 s there, 30 at most.
  const pick = (states: readonly AccountState[], seconds: number) =>
    line(gpus, { deadlineAt: later(seconds) }, { states });

  test("the cheapest is chosen while it meets the deadline", () => {
    expect(pick([], 60).names).toEqual(["runpod_4090", "runpod_a40", "runpod_a100"]);
    expect(pick([queue("runpod_4090", 10, 2)], 60).names[0]).toBe("runpod_4090");
    expect(pick([], 60).why).toBe("runpod_4090: the cheapest that meets the deadline, $0.0004 in about 5 s of 60");
  });

  test("a dearer one when the cheap one's queue is too long for it", () => {
    expect(pick([queue("runpod_4090", 40, 2)], 60).names).toEqual(["runpod_a40", "runpod_a100", "runpod_4090"]);
    expect(pick([queue("runpod_4090", 40, 2), queue("runpod_a40", 40, 2)], 60).names[0]).toBe("runpod_a100");
    expect(pick([queue("runpod_4090", 40, 2)], 3_600).names[0]).toBe("runpod_4090");
  });

  test("the soonest when none meets it, and one without workers last", () => {
    const states = [queue("runpod_4090", 40, 2), queue("runpod_a40", 20, 2), queue("runpod_a100", 1, 0)];
    expect(pick(states, 40)).toMatchObject({
      names: ["runpod_a40", "runpod_4090", "runpod_a100"],
      why: "runpod_a40: the soonest, none meets the deadline",
    });
  });

  test("a queue that was seen a minute ago says nothing", () => {
    const [old] = queue("runpod_4090", 400, 1).load;
    const states = old ? [{ ...fine("runpod_4090"), load: [{ ...old, at: later(-61) }] }] : [];
    expect(pick(states, 60).names[0]).toBe("runpod_4090");
  });

  test("a second costs what that GPU costs, wherever the run is looked up", () => {
    const [a40] = gpus;
    const run = { model: "own/flux-dev", destination: null };
    expect(a40 && modelOfRun(a40, run)?.route.costs[0].microUsd).toBeCloseTo(111.1, 1);
    expect(
      modelOfRun(account("runpod"), { model: "black-forest-labs-flux-1-dev", destination: null })?.model.alias,
    ).toBe("flux-dev");
  });

  test("what is of our own is asked for nowhere else", () => {
    expect(line(["runpod", ...gpus]).line.filter(({ provider }) => provider.name === "runpod")).toHaveLength(1);
    expect(line(gpus, { alias: "flux-schnell" }).names).toEqual([]);
  });
});

describe("what an account refuses for its own sake", () => {
  const declined = (code: "provider_no_credit" | "provider_auth" | "model_not_found" | "input_refused") =>
    ({ outcome: "declined", failure: failure(code, "no") }) as const;

  test("waits, or goes to another; what is the order's own fault is refused", () => {
    for (const code of ["provider_no_credit", "provider_auth"] as const) {
      expect(reroute(declined(code), true)).toMatchObject({ outcome: "postponed", retryAfterMs: 0 });
      expect(reroute(declined(code), false)).toMatchObject({ outcome: "postponed", retryAfterMs: 5_000 });
    }
    expect(reroute(declined("model_not_found"), true)).toMatchObject({ outcome: "postponed", retryAfterMs: 0 });
    expect(reroute(declined("model_not_found"), false)).toEqual(declined("model_not_found"));
    expect(reroute(declined("input_refused"), true)).toEqual(declined("input_refused"));
    const putOff = {
      outcome: "postponed",
      failure: failure("rate_limited", "slow down"),
      retryAfterMs: 2_000,
    } as const;
    expect([reroute(putOff, true), reroute(putOff, false)]).toEqual([{ ...putOff, retryAfterMs: 0 }, putOff]);
    const lost = { outcome: "lost", detail: "cut" } as const;
    expect(reroute(lost, true)).toBe(lost);
  });

  const job: Job = {
    id: "job",
    status: "processing",
    variants: 1,
    minSuccess: 1,
    maxAttempts: 3,
    maxRebuys: 1,
    deadlineAt: later(3_600),
    cancelRequestedAt: null,
    expiredAt: null,
    setAsideAt: null,
    runs: [],
    failure: null,
    startedAt: NOW,
    endedAt: null,
  };
  const intent = (provider: string, over: Partial<IntendedRun> = {}): Event => ({
    type: "intended",
    at: NOW,
    run: {
      id: "run",
      variant: 0,
      provider,
      model: `model of ${provider}`,
      version: null,
      input: { at: provider },
      destination: null,
      routeWhy: `${provider}: first in line`,
      expiresAt: later(300),
      sendBefore: later(10),
      quietFrom: later(26),
      ...over,
    },
  });
  const putOff: Event = {
    type: "postponed",
    at: NOW,
    runId: "run",
    until: NOW,
    failure: failure("provider_no_credit", "empty"),
  };

  test("is the same run when it is ordered elsewhere, and the same attempt", () => {
    const moved = [intent("replicate"), putOff, intent("fal")].reduce(next, job);
    expect(moved.runs).toEqual([
      expect.objectContaining({
        id: "run",
        attempt: 1,
        status: "submitting",
        provider: "fal",
        model: "model of fal",
        input: { at: "fal" },
        routeWhy: "fal: first in line",
      }),
    ]);
  });

  test("is not ordered elsewhere while anybody may be sending it, nor once its answer was lost", () => {
    const sending = next(job, intent("replicate"));
    expect(next(sending, intent("fal"))).toBe(sending);
    const lost = next(sending, { type: "lost", at: NOW, runId: "run", detail: "cut" });
    expect(next(lost, intent("fal"))).toBe(lost);
  });

  test("stays where it is when it is a training", () => {
    const put = [intent("replicate", { destination: "me/model" }), putOff].reduce(next, job);
    expect(next(put, intent("replicate_2", { destination: "me/model" }))).toBe(put);
    expect(next(put, intent("replicate", { destination: "me/model" })).runs[0]?.notBefore).toBeNull();
  });
});

describe("a bulkhead", () => {
  test("lets so many in for each account, and gives a place back once", () => {
    const bulkheads = makeBulkheads(2);
    const [first, second] = [bulkheads.enter("a"), bulkheads.enter("a")];
    expect([typeof first, typeof second, bulkheads.enter("a"), typeof bulkheads.enter("b")]).toEqual([
      "function",
      "function",
      null,
      "function",
    ]);
    first?.();
    first?.();
    expect([typeof bulkheads.enter("a"), bulkheads.enter("a")]).toEqual(["function", null]);
  });

  test("is half of all slots, and nothing where there is nobody to keep slots for", () => {
    expect([roomOf(40, 2), roomOf(1, 2), roomOf(7, 3), roomOf(40, 1)]).toEqual([20, 1, 4, Number.POSITIVE_INFINITY]);
  });
});

const BASE = {
  DATABASE_URL: "postgres://u:p@localhost/db",
  SIGNING_SECRET: "0123456789abcdef0123456789abcdef",
};
const read = (env: Record<string, string>) => readAccounts(readConfig({ ...BASE, ...env }));
const names = (env: Record<string, string>) => read(env).accounts.map(({ name }) => name);
function problems(env: Record<string, string>): readonly string[] {
  try {
    readConfig({ ...BASE, ...env });
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}
const REPLICATE = { AI_PROVIDER: "replicate", REPLICATE_API_TOKEN: "r8_x" };
const SANDBOX = { AI_PROVIDER: "sandbox", SANDBOX_URL: "http://127.0.0.1:1" };

describe("the accounts of the environment", () => {
  test("are one for each key, and keep their numbers when one is taken away", () => {
    expect(
      names({ ...REPLICATE, REPLICATE_API_TOKEN_3: "r8_y", FAL_API_KEY: "id:secret", HUGGINGFACE_TOKEN_2: "hf_x" }),
    ).toEqual(["replicate", "replicate_3", "fal", "huggingface_2"]);
  });

  test("are read back from what was read", () => {
    const config = readConfig({ ...BASE, ...REPLICATE, REPLICATE_API_TOKEN_3: "r8_y" });
    const text = (value: unknown) => (Array.isArray(value) ? value.join(",") : String(value));
    const env = Object.fromEntries(
      Object.entries(config).flatMap(([name, value]) => (value === undefined ? [] : [[name, text(value)]])),
    );
    expect(readAccounts(readConfig(env)).accounts).toEqual(readAccounts(config).accounts);
  });

  test("have their own webhook secrets", () => {
    const { accounts } = read({ ...REPLICATE, REPLICATE_API_TOKEN_2: "r8_y", REPLICATE_WEBHOOK_SECRET_2: "whsec_2" });
    expect(accounts.map(({ webhookSecret }) => webhookSecret)).toEqual([null, "whsec_2"]);
  });

  test("of our own GPUs have their endpoints and their price", () => {
    const { accounts } = read({
      AI_PROVIDER: "runpod",
      RUNPOD_API_KEY: "rpa_x",
      RUNPOD_ENDPOINTS: "own/flux-dev@A40=abc,own/sdxl@a40=def,own/flux-dev@H100=ghi:3.6",
    });
    expect(accounts.map(({ name, endpoints, secondMicroUsd }) => [name, endpoints, secondMicroUsd])).toEqual([
      ["runpod", null, undefined],
      ["runpod_a40", { "own/flux-dev": "abc", "own/sdxl": "def" }, expect.closeTo(111.1, 1)],
      ["runpod_h100", { "own/flux-dev": "ghi" }, expect.closeTo(1_000, 1)],
    ]);
  });

  test("are asked in the order of the variables, each for what it can", () => {
    const { preference } = read({
      ...REPLICATE,
      FAL_KEY: "x",
      WAVESPEED_API_KEY: "x",
      AI_SECONDARY_PROVIDER: "fal",
      IMAGE_PROVIDER: "wavespeed",
    });
    expect(preference.generation).toEqual({ by: "order", order: ["wavespeed", "replicate", "fal"] });
    expect(preference.video).toEqual({ by: "order", order: ["replicate", "fal"] });
    // fal trains nothing for us.
    expect(preference.training).toEqual({ by: "order", order: ["replicate"] });
  });

  test("are the sandbox's faces when these are named, and never mixed with what costs money", () => {
    const { accounts, notes } = read({ ...SANDBOX, AI_PROVIDER: "sandbox,sandbox:fal", REPLICATE_API_TOKEN: "r8_x" });
    expect(accounts.map(({ name, api, baseUrl }) => [name, api, baseUrl])).toEqual([
      ["sandbox", "replicate", "http://127.0.0.1:1/v1"],
      ["sandbox_fal", "fal", "http://127.0.0.1:1/fal"],
    ]);
    expect(notes).toEqual([]);
    expect(problems({ ...SANDBOX, VIDEO_PROVIDER: "fal", FAL_KEY: "x" })).toEqual([
      expect.stringMatching(/^VIDEO_PROVIDER is fal, and another provider is the sandbox/),
    ]);
    expect(
      problems({ ...SANDBOX, AI_PROVIDER: "sandbox:poe", NODE_ENV: "production", PUBLIC_URL: "https://x.example" }),
    ).toEqual([expect.stringMatching(/sandbox, and that is refused/)]);
  });

  test("without a key: what is named is refused, what is not named is said with what it is missed for", () => {
    expect(problems({ AI_PROVIDER: "replicate" })).toEqual([
      expect.stringMatching(/^REPLICATE_API_TOKEN is missing: AI_PROVIDER is replicate/),
    ]);
    expect(problems({ ...REPLICATE, AI_SECONDARY_PROVIDER: "fal_2", FAL_KEY: "x" })).toEqual([
      expect.stringMatching(/^FAL_KEY_2 is missing: AI_SECONDARY_PROVIDER is fal_2/),
    ]);
    expect(problems({ AI_PROVIDER: "runpod_a40", RUNPOD_API_KEY: "x" })).toEqual([
      expect.stringMatching(/RUNPOD_ENDPOINTS names no endpoint on A40/),
    ]);
    const { notes } = read({ AI_PROVIDER: "fal", FAL_KEY: "x" });
    const replicate = notes.find((note) => note.startsWith("REPLICATE_API_TOKEN"));
    expect(replicate).toMatch(
      /is not set: without it nobody serves .*flux-lora-trainer.*; still served: generation, .*edit.* by fal$/,
    );
    expect(read(REPLICATE).notes).toContainEqual(
      expect.stringMatching(
        /^FAL_KEY is not set: all its models are served without it.*; still served: .* by replicate$/,
      ),
    );
  });

  test("that are chosen for what they cannot do are refused, with who can", () => {
    const can = CATALOGUE.filter(({ kinds }) => kinds.includes("video")).flatMap(({ routes }) =>
      routes.map(({ api }) => api),
    );
    expect(can).toContain("poe");
    expect(
      problems({
        ...REPLICATE,
        RUNPOD_API_KEY: "x",
        RUNPOD_ENDPOINTS: "own/flux-dev@A40=abc",
        VIDEO_PROVIDER: "runpod_a40",
      }),
    ).toEqual([
      expect.stringMatching(
        /^VIDEO_PROVIDER is runpod_a40, and runpod_a40 has no route to any model of video\. These have: .*replicate/,
      ),
    ]);
    expect(problems({ ...REPLICATE, RUNPOD_API_KEY: "x", RUNPOD_ENDPOINTS: "own/nothing@H100=abc" })).toEqual([
      expect.stringMatching(/^RUNPOD_ENDPOINTS names own\/nothing, .* own\/flux-dev/),
      expect.stringMatching(/does not say what an hour on H100 costs: write own\/nothing@H100=abc:2\.99/),
    ]);
    // One of two would never be asked, and what an hour costs would be anybody's guess.
    expect(
      problems({
        ...REPLICATE,
        RUNPOD_API_KEY: "x",
        RUNPOD_ENDPOINTS: "own/flux-dev@A40=abc:0.5,own/flux-dev@a40=def,own/sdxl@A40=ghi:0.6",
      }),
    ).toEqual([
      expect.stringMatching(/^RUNPOD_ENDPOINTS names own\/flux-dev on A40 twice: abc and def/),
      expect.stringMatching(/^RUNPOD_ENDPOINTS says of an hour on A40 that it costs \$0\.5 and \$0\.6/),
    ]);
  });
});

describe("an app's routing", () => {
  const app = (routing: NonNullable<Parameters<typeof makeApp>[0]["routing"]>) =>
    appProblems(makeApp({ id: "shop", routing }));

  test("of the apps that are here is fine", () => {
    expect(apps.flatMap(appProblems)).toEqual([]);
  });

  test("names only who can, gives weights that are weights, and is about what is on offer", () => {
    expect(app({ generation: { by: "weight", weights: { replicate: 1, fal_2: 3 } } })).toEqual([]);
    expect(app({ training: { by: "order", order: ["fal"] } })).toEqual([
      "routing of training: fal has no route to any of its models; these have: replicate",
    ]);
    expect(app({ video: { by: "order", order: ["midjourney"] } })[0]).toMatch(/midjourney has no route/);
    expect(app({ video: { by: "order", order: ["fal", "fal"] } })).toEqual(["routing of video: fal is named twice"]);
    expect(app({ video: { by: "weight", weights: { fal: 0, replicate: -1 } } })).toEqual([
      "routing of video: the weight of replicate is -1, not a number from 0 on",
    ]);
  });

  test("of a plan comes before that of its app, and without either the deployment's counts", () => {
    const byCost = { video: { by: "cost" }, edit: { by: "cost" } } as const;
    const poe = { by: "order", order: ["poe"] } as const;
    const shop = makeApp({ id: "shop", routing: byCost }, { routing: { video: poe } });
    expect(appProblems(shop)).toEqual([]);
    const of = (plan: string | null, kind: KindName) => routingOf(shop, plan, kind, "any");
    expect([of(null, "video"), of("default", "edit")]).toEqual([poe, { by: "cost" }]);
    expect(of(null, "generation")).toBeNull();
  });

  test("of a model comes before that of its kind, the plan's before the app's in both", () => {
    const first = (name: string) => ({ by: "order", order: [name] }) as const;
    const shop = (plan: Partial<Plan>) =>
      makeApp(
        {
          id: "shop",
          routing: { generation: first("replicate") },
          modelRouting: { "flux-dev": first("fal"), "flux-schnell": first("poe") },
        },
        plan,
      );
    const own = shop({ routing: { generation: first("runpod") }, modelRouting: { "flux-dev": first("wavespeed") } });
    expect(appProblems(own)).toEqual([]);
    const of = (app: App, alias: string) => routingOf(app, null, "generation", alias);
    expect(["flux-dev", "flux-schnell", "sdxl"].map((alias) => of(own, alias))).toEqual(
      ["wavespeed", "poe", "runpod"].map(first),
    );
    expect(["flux-dev", "sdxl"].map((alias) => of(shop({}), alias))).toEqual(["fal", "replicate"].map(first));
  });

  test("of a model is about one that the app has, and names only who can", () => {
    const models = { generation: { default: "flux-schnell", allowed: ["flux-schnell", "sdxl"] } };
    const problemsOf = (alias: string, name: string) =>
      appProblems(makeApp({ id: "shop", models, modelRouting: { [alias]: { by: "order", order: [name] } } }));
    expect(problemsOf("flux-schnell", "fal")).toEqual([]);
    expect(problemsOf("sdxl", "fal")).toEqual([
      "modelRouting of sdxl: fal has no route to any of its models; these have: replicate, runpod, huggingface",
    ]);
    expect(problemsOf("flux-dev", "fal")).toEqual([
      expect.stringMatching(/^modelRouting of flux-dev: is no model of this app; there are flux-schnell, sdxl, /),
    ]);
  });

  test("that names nobody leaves generations to AI_PRIMARY_PROVIDER", () => {
    const first = (primary: string, secondary: string) => {
      const { accounts, preference } = read({
        AI_PRIMARY_PROVIDER: primary,
        AI_SECONDARY_PROVIDER: secondary,
        REPLICATE_API_TOKEN: "r8_x",
        RUNPOD_API_KEY: "rpa_x",
        RUNPOD_ENDPOINTS: "own/sdxl@A40=abc,own/sdxl@4090=def",
      });
      const routing = routingOf(proHeadshots, null, "generation", "sdxl") ?? preference.generation;
      const able = accounts.map(({ name, models, secondMicroUsd }) =>
        account(name, { ...(models && { models }), ...(secondMicroUsd !== undefined && { secondMicroUsd }) }),
      );
      return line(able, { alias: "sdxl", routing, isSafe: true }).names;
    };
    expect(first("replicate", "runpod")).toEqual(["replicate", "runpod_4090", "runpod_a40"]);
    expect(first("runpod", "replicate")).toEqual(["runpod_4090", "runpod_a40", "replicate"]);
  });
});

describe("an account that an app's routing names, and that there is not,", () => {
  const accountsOf = (env: Record<string, string>) => read(env).accounts;
  const films = (routing: Routing, more: Partial<Plan> = {}) =>
    makeApp({ id: "shop", routing: { video: routing } }, more);

  test("is said with the variable that would give it, and with who serves it meanwhile", () => {
    const poe = { modelRouting: { "flux-dev": { by: "weight", weights: { poe_2: 1, fal: 2, runpod: 0 } } } } as const;
    const shop = films({ by: "order", order: ["wavespeed", "replicate"] }, poe);
    expect(readRoutingNotes([shop], accountsOf({ ...REPLICATE, FAL_KEY: "x" }))).toEqual({
      notes: [
        {
          app: "shop",
          kind: "video",
          account: "wavespeed",
          text: "app shop: routing of video names wavespeed, which is no account here (WAVESPEED_API_KEY): served by replicate, fal",
        },
        {
          app: "shop",
          model: "flux-dev",
          account: "poe_2",
          text: "app shop: plan default: modelRouting of flux-dev names poe_2, which is no account here (POE_API_KEY_2): served by replicate, fal",
        },
      ],
      problems: [],
    });
  });

  test("is a problem when it leaves nobody, with what to set; sandboxes stand for all", async () => {
    const shop = films({ by: "order", order: ["poe", "wavespeed_2"], others: false });
    const problem =
      "app shop: routing of video lets only poe, wavespeed_2 serve it, and none of them can here. Set POE_API_KEY or WAVESPEED_API_KEY_2, or name somebody else, or take `others: false` away.";
    expect(readRoutingNotes([shop], accountsOf(REPLICATE))).toEqual({ notes: [], problems: [problem] });
    expect(readRoutingNotes([shop], accountsOf({ ...REPLICATE, POE_API_KEY: "x" })).problems).toEqual([]);
    expect(readRoutingNotes([shop], accountsOf(SANDBOX))).toEqual({ notes: [], problems: [] });
    const config = readConfig({ ...BASE, ...REPLICATE });
    await expect(startApi(config, makeLogger({ LOG_LEVEL: "silent" }, "test"), [shop])).rejects.toThrow(problem);
  });
});
