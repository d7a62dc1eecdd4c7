import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { demo } from "../apps/demo.ts";
import { readCatalogue } from "../src/api/catalogue-state.ts";
import { makeLogger } from "../src/compose.ts";
import { connect, type Db, disconnect } from "../src/db/client.ts";
import {
  claimChanges,
  noteAnswer,
  type ProviderState,
  readProviderStates,
  resumeProvider,
  returnTurn,
  saveLoads,
  type Turn,
  takeTurn,
} from "../src/db/provider-states.ts";
import { findModel } from "../src/domain/catalogue.ts";
import { type FailureCode, failure } from "../src/domain/failure.ts";
import type { Answer, Load, Provider } from "../src/domain/provider.ts";
import { bucketOf, rateOf } from "../src/domain/turns.ts";
import { makeMetrics } from "../src/metrics.ts";
import { ADAPTERS } from "../src/providers/adapters.ts";
import { makeReplicate } from "../src/providers/replicate.ts";
import { loads } from "../src/workers/loads.ts";
import { freshDatabase } from "./rig/database.ts";

let database: Awaited<ReturnType<typeof freshDatabase>>;
/** Two processes of the fleet. */
let one: Db;
let other: Db;
let sql: postgres.Sql;
beforeAll(async () => {
  database = await freshDatabase();
  one = connect(database.url, { max: 6, name: "one" });
  other = connect(database.url, { max: 6, name: "other" });
  sql = postgres(database.url, { max: 2, onnotice: () => {} });
});
afterAll(async () => {
  await sql?.end({ timeout: 5 });
  for (const db of [one, other]) if (db) await disconnect(db);
  await database?.drop();
});

const LOG = makeLogger({ LOG_LEVEL: "silent" }, "test");
const run = () => crypto.randomUUID();
const submitted: Answer = { outcome: "submitted", providerRunId: "p1" };
const lost: Answer = { outcome: "lost", detail: "socket hang up" };
const declined = (code: FailureCode): Answer => ({ outcome: "declined", failure: failure(code, "no") });
const postponed = (code: FailureCode, retryAfterMs = 2_000): Answer => ({
  outcome: "postponed",
  failure: failure(code, "later"),
  retryAfterMs,
});
const unreachable = postponed("provider_unavailable");

/** An account without a limit of its own, unless the test gives one. */
const turn = (provider: string, more: Partial<Turn> = {}): Turn => ({ provider, api: "fal", runId: run(), ...more });
/** Many at once, from both processes; the runs that may go. */
async function takeMany(count: number, provider: string, more: Partial<Turn> = {}) {
  const turns = Array.from({ length: count }, () => turn(provider, more));
  const answers = await Promise.all(turns.map((each, index) => takeTurn(index % 2 ? one : other, each)));
  return {
    gone: turns.flatMap(({ runId }, index) => (answers[index]?.go ? [runId] : [])),
    waits: answers.flatMap((answer) => (answer.go ? [] : [answer])),
  };
}
async function stateOf(provider: string): Promise<ProviderState | undefined> {
  return (await readProviderStates(one)).find((each) => each.provider === provider);
}
/** As if so much time had passed for the account. */
async function passed(provider: string, interval: string): Promise<void> {
  await sql`
    update provider_states set refilled_at = refilled_at - ${interval}::interval,
      paced_at = paced_at - ${interval}::interval,
      not_before = not_before - ${interval}::interval, promised_at = promised_at - ${interval}::interval,
      silent_at = silent_at - ${interval}::interval, opened_at = opened_at - ${interval}::interval,
      open_until = open_until - ${interval}::interval, paused_since = paused_since - ${interval}::interval,
      probe_at = probe_at - ${interval}::interval, canary_until = canary_until - ${interval}::interval
    where provider = ${provider}`;
}
async function open(provider: string): Promise<void> {
  for (let orders = 0; orders < 5; orders++) await noteAnswer(one, provider, run(), lost);
}
async function tryOnce(provider: string): Promise<string> {
  const { gone } = await takeMany(1, provider);
  const [canary] = gone;
  if (!canary) throw new Error(`nobody may try ${provider}`);
  return canary;
}

// The bucket

test("a bucket that two processes share gives its burst, and then no more than is refilled", async () => {
  // A burst of 10, and 90 more in the rest of the time.
  const rate = { max: 100, seconds: 9e7 };
  const first = await takeMany(120, "burst", { rate });
  expect(first.gone).toHaveLength(10);
  expect(new Set(first.waits.map(({ failure: { code } }) => code))).toEqual(new Set(["rate_limited"]));
  await passed("burst", "3500000 seconds");
  expect((await takeMany(30, "burst", { rate })).gone).toHaveLength(3);
  await passed("burst", "900000000 seconds");
  expect((await takeMany(60, "burst", { rate })).gone).toHaveLength(10);
});

test("in no window does an account see more than its provider allows, and the published limits are kept", () => {
  for (const api of ["replicate", "runpod", "poe"]) {
    const rate = rateOf(api, api);
    if (!rate) throw new Error(`${api} has no rate`);
    const { burst, perSecond } = bucketOf(rate);
    expect(burst + perSecond * rate.seconds).toBeLessThanOrEqual(rate.max);
  }
  for (const api of ["fal", "wavespeed", "huggingface", "something_else"]) expect(rateOf(api, api)).toBeNull();
  expect(rateOf("replicate_2", "replicate")).toEqual({ max: 600, seconds: 60 });
  expect(rateOf("sandbox", "replicate")).toBeNull();
});

test("whoever is put off is promised a turn of his own, and nobody waits longer than a minute for the next try", async () => {
  // One every 11 s.
  const rate = { max: 10, seconds: 100 };
  const { gone, waits } = await takeMany(12, "promises", { rate });
  expect(gone).toHaveLength(1);
  const seconds = waits.map(({ retryAfterMs }) => retryAfterMs / 1_000).sort((a, b) => a - b);
  for (const turns of [1, 2, 3, 4, 5]) expect(Math.abs((seconds[turns - 1] ?? 0) - (turns * 100) / 9)).toBeLessThan(4);
  expect(seconds.at(-1)).toBeLessThanOrEqual(60);
});

test("a clock that was set back costs what would have been refilled, and blocks nobody", async () => {
  const rate = { max: 10, seconds: 10 };
  expect((await takeMany(1, "clock", { rate })).gone).toHaveLength(1);
  await sql`update provider_states set refilled_at = now() + interval '1 day', level = 0 where provider = 'clock'`;
  expect((await takeMany(1, "clock", { rate })).gone).toHaveLength(0);
  await passed("clock", "10 seconds");
  expect((await takeMany(1, "clock", { rate })).gone).toHaveLength(1);
});

test("an account without a limit is not written to while all is well", async () => {
  expect((await takeMany(1, "free")).gone).toHaveLength(1);
  const [before] = await sql`select xmin::text, updated_at from provider_states where provider = 'free'`;
  expect((await takeMany(40, "free")).gone).toHaveLength(40);
  await noteAnswer(one, "free", run(), submitted);
  await noteAnswer(one, "free", run(), declined("input_refused"));
  const [after] = await sql`select xmin::text, updated_at from provider_states where provider = 'free'`;
  expect(after).toEqual(before);
});

// 429

test("no order is sent before the Retry-After of a 429, and afterwards one by one", async () => {
  expect((await takeMany(5, "throttled")).gone).toHaveLength(5);
  await noteAnswer(one, "throttled", run(), postponed("rate_limited", 300_000));
  const { gone, waits } = await takeMany(20, "throttled");
  expect(gone).toEqual([]);
  for (const { retryAfterMs } of waits) expect(retryAfterMs).toBeGreaterThan(290_000);
  expect((await stateOf("throttled"))?.retryAt?.getTime()).toBeGreaterThan(Date.now() + 280_000);
  // A shorter wish does not shorten it.
  await noteAnswer(one, "throttled", run(), postponed("rate_limited", 1_000));
  await passed("throttled", "200 seconds");
  expect((await takeMany(5, "throttled")).gone).toEqual([]);
  await sql`update provider_states set pace = 0.001 where provider = 'throttled'`;
  await passed("throttled", "101 seconds");
  expect((await takeMany(20, "throttled")).gone).toHaveLength(1);
});

const paceOf = async (provider: string): Promise<number> =>
  (await sql`select pace from provider_states where provider = ${provider}`)[0]?.["pace"];

test("a 429 takes three tenths of the pace once, however many were under way; time and orders that are accepted bring it back", async () => {
  const rate = { max: 600, seconds: 60 };
  const asked = async () => {
    await takeMany(1, "pace", { rate });
    return paceOf("pace");
  };
  await takeMany(3, "pace", { rate });
  for (let late = 0; late < 3; late++) await noteAnswer(one, "pace", run(), postponed("rate_limited", 10_000));
  expect(await paceOf("pace")).toBeCloseTo(6.3, 9);
  // Nothing has been accepted yet: nobody knows whether this is slow enough.
  await passed("pace", "11 seconds");
  expect(await asked()).toBeCloseTo(6.3, 9);
  await noteAnswer(one, "pace", run(), submitted);
  expect(await paceOf("pace")).toBeCloseTo(6.3 * 1.05, 2);
  await noteAnswer(one, "pace", run(), postponed("rate_limited", 1_000));
  expect(await paceOf("pace")).toBeCloseTo(6.3 * 1.05 * 0.7, 1);
  await noteAnswer(one, "pace", run(), submitted);
  await passed("pace", "15 seconds");
  expect(await asked()).toBeCloseTo(6.3 * 1.05 * 0.7 * 1.05 * Math.SQRT2, 1);
  await passed("pace", "30 seconds");
  expect(await asked()).toBeNull();
});

test("where one order in nine is refused whatever the pace, it does not shrink", async () => {
  await noteAnswer(one, "moody", run(), postponed("rate_limited", 1_000));
  for (let orders = 0; orders < 90; orders++) {
    await passed("moody", "2 seconds");
    await sql`update provider_states set paced_at = now() where provider = 'moody' and pace is not null`;
    await noteAnswer(one, "moody", run(), orders % 9 === 0 ? postponed("rate_limited", 1_000) : submitted);
  }
  const pace = await paceOf("moody");
  expect(pace === null || pace > 5, `${pace}`).toBe(true);
});

test("the pace is never below one order in ten seconds, and from there the usual one is back in three and a half minutes", async () => {
  for (let storm = 0; storm < 20; storm++) {
    await noteAnswer(one, "slow", run(), postponed("rate_limited", 1_000));
    await passed("slow", "2 seconds");
    await noteAnswer(one, "slow", run(), submitted);
  }
  expect(await paceOf("slow")).toBeCloseTo(0.105, 3);
  for (let halfMinutes = 1; halfMinutes <= 6; halfMinutes++) {
    await passed("slow", "30 seconds");
    await takeMany(1, "slow");
    // By the database's clock, which goes on meanwhile.
    const share = (await paceOf("slow")) / (0.105 * 2 ** halfMinutes);
    expect(share, `after ${halfMinutes / 2} min`).toBeGreaterThan(0.99);
    expect(share, `after ${halfMinutes / 2} min`).toBeLessThan(1.2);
  }
  await passed("slow", "30 seconds");
  await takeMany(1, "slow");
  expect(await paceOf("slow")).toBeNull();
});

test("who publishes less than was guessed before it was known is never sent more, and learns again from the next 429", async () => {
  const rate = { max: 6, seconds: 60 };
  await noteAnswer(one, "small", run(), postponed("rate_limited", 500));
  expect(await paceOf("small")).toBeCloseTo(5.6, 9);
  await passed("small", "1 second");
  expect((await takeMany(20, "small", { rate })).gone).toHaveLength(1);
  await passed("small", "2 seconds");
  expect((await takeMany(20, "small", { rate })).gone).toHaveLength(0);
  await noteAnswer(one, "small", run(), submitted);
  const throttles = async () => (await sql`select throttles from provider_states where provider = 'small'`)[0];
  expect(await throttles()).toEqual({ throttles: 0 });
});

test("429 after 429 with nothing accepted in between is no matter of pace: it is asked ever more rarely, at least once a minute", async () => {
  const told = async () => {
    await noteAnswer(one, "refusing", run(), postponed("rate_limited", 2_000));
    // Of others that were under way.
    await noteAnswer(one, "refusing", run(), postponed("rate_limited", 2_000));
    const [row] = await sql`
      select round(extract(epoch from not_before - updated_at))::int as seconds, pace from provider_states where provider = 'refusing'`;
    await passed("refusing", "61 seconds");
    return [row?.["seconds"], row?.["pace"]];
  };
  const seen = [];
  for (let storm = 0; storm < 8; storm++) seen.push(await told());
  expect(seen).toEqual([2, 2, 4, 8, 16, 32, 60, 60].map((seconds) => [seconds, 5.6]));
  // One that is accepted ends the series, and all go on at the pace of before.
  await noteAnswer(one, "refusing", run(), submitted);
  const [seconds, pace] = await told();
  expect(seconds).toBe(2);
  expect(pace).toBeCloseTo(5.6 * 1.05 * 0.7, 1);
});

test("a 429 is no failure: neither does it open the breaker nor pause the account", async () => {
  for (let storm = 0; storm < 10; storm++) await noteAnswer(one, "storm", run(), postponed("rate_limited", 500));
  expect(await stateOf("storm")).toMatchObject({ breaker: "closed", paused: null });
});

test("a provider that is busy has answered: its account is neither left alone nor slowed down", async () => {
  const rate = { max: 600, seconds: 60 };
  await takeMany(3, "busy", { rate });
  for (let orders = 0; orders < 10; orders++) await noteAnswer(one, "busy", run(), postponed("provider_busy", 20_000));
  expect(await stateOf("busy")).toMatchObject({ breaker: "closed", retryAt: null, paused: null });
  expect((await sql`select pace from provider_states where provider = 'busy'`)[0]?.["pace"]).toBeNull();
  expect((await takeMany(3, "busy", { rate })).gone).toHaveLength(3);
});

// The breaker

test("five orders without an answer open the breaker; an answer in between, whatever it says, takes one of them back", async () => {
  for (const silence of [lost, unreachable, lost, unreachable]) await noteAnswer(one, "breaker", run(), silence);
  for (const answer of [declined("input_refused"), submitted]) await noteAnswer(one, "breaker", run(), answer);
  for (const silence of [lost, unreachable]) await noteAnswer(one, "breaker", run(), silence);
  expect(await stateOf("breaker")).toMatchObject({ breaker: "closed", retryAt: null });
  expect((await takeMany(3, "breaker")).gone).toHaveLength(3);
  await noteAnswer(one, "breaker", run(), lost);
  expect(await stateOf("breaker")).toMatchObject({ breaker: "open", paused: null });
  const { gone, waits } = await takeMany(50, "breaker");
  expect(gone).toEqual([]);
  for (const { retryAfterMs, failure: why } of waits) {
    expect(why.code).toBe("provider_unavailable");
    expect(retryAfterMs).toBeGreaterThan(1_000);
    expect(retryAfterMs).toBeLessThanOrEqual(15_000);
  }
});

test("where seven orders in ten have no answer, eleven are enough to see it; where one in three has none, nothing is seen", async () => {
  const course = [lost, lost, submitted, lost, submitted, lost, lost, submitted, lost, lost];
  for (const [index, answer] of course.entries()) {
    expect(await stateOf("brown_out"), `${index} orders`).not.toMatchObject({ breaker: "open" });
    await noteAnswer(one, "brown_out", run(), answer);
  }
  await noteAnswer(one, "brown_out", run(), lost);
  expect(await stateOf("brown_out")).toMatchObject({ breaker: "open" });
  for (let orders = 0; orders < 30; orders++) await noteAnswer(one, "fair", run(), orders % 3 === 0 ? lost : submitted);
  expect(await stateOf("fair")).toMatchObject({ breaker: "closed", retryAt: null });
});

test("silences that lie more than a minute apart open nothing", async () => {
  for (let orders = 0; orders < 8; orders++) {
    await noteAnswer(one, "seldom", run(), lost);
    await passed("seldom", "61 seconds");
  }
  expect(await stateOf("seldom")).toMatchObject({ breaker: "closed" });
});

test("a half-open breaker lets exactly one of fifty try, and its success lets everybody go", async () => {
  await open("half");
  await passed("half", "11 seconds");
  expect(await stateOf("half")).toMatchObject({ breaker: "half_open", retryAt: null });
  const { gone, waits } = await takeMany(50, "half");
  expect(gone).toHaveLength(1);
  expect(waits).toHaveLength(49);
  // What was sent before it opened is old news, good or bad.
  await noteAnswer(one, "half", run(), submitted);
  await noteAnswer(one, "half", run(), lost);
  expect(await stateOf("half")).toMatchObject({ breaker: "half_open" });
  expect((await takeMany(10, "half")).gone).toEqual([]);
  await noteAnswer(other, "half", gone[0] ?? "", submitted);
  expect(await stateOf("half")).toMatchObject({ breaker: "closed", retryAt: null });
  expect((await takeMany(50, "half")).gone).toHaveLength(50);
});

test("each canary that fails opens it for twice as long, up to five minutes", async () => {
  await open("longer");
  const openFor = async () => {
    const [row] = await sql`
      select round(extract(epoch from open_until - updated_at))::int as seconds from provider_states where provider = 'longer'`;
    return row?.["seconds"];
  };
  const seen = [await openFor()];
  for (let tries = 0; tries < 6; tries++) {
    await passed("longer", "301 seconds");
    await noteAnswer(one, "longer", await tryOnce("longer"), tries % 2 ? lost : unreachable);
    expect(await stateOf("longer")).toMatchObject({ breaker: "open" });
    seen.push(await openFor());
  }
  expect(seen).toEqual([10, 20, 40, 80, 160, 300, 300]);
  // Closed once, it begins anew.
  await passed("longer", "301 seconds");
  await noteAnswer(one, "longer", await tryOnce("longer"), declined("content_refused"));
  await open("longer");
  expect(await openFor()).toBe(10);
});

test("a canary that died holds nobody up, and what it says from its grave is not heard", async () => {
  await open("dead");
  await passed("dead", "11 seconds");
  const { gone } = await takeMany(10, "dead", { submitMs: 60_000 });
  await passed("dead", "60 seconds");
  expect((await takeMany(10, "dead")).gone).toEqual([]);
  await passed("dead", "16 seconds");
  const next = await takeMany(10, "dead");
  expect(next.gone).toHaveLength(1);
  await noteAnswer(one, "dead", gone[0] ?? "", submitted);
  expect(await stateOf("dead")).toMatchObject({ breaker: "half_open" });
  await noteAnswer(one, "dead", next.gone[0] ?? "", submitted);
  expect(await stateOf("dead")).toMatchObject({ breaker: "closed" });
});

test("a canary that meets a 429 has met somebody: the breaker closes, and the Retry-After holds", async () => {
  await open("busy");
  await passed("busy", "11 seconds");
  await noteAnswer(one, "busy", await tryOnce("busy"), postponed("rate_limited", 30_000));
  expect(await stateOf("busy")).toMatchObject({ breaker: "closed" });
  expect((await takeMany(10, "busy")).gone).toEqual([]);
});

test("told twice it is the same: silences, openings, canaries, pauses", async () => {
  const runs = Array.from({ length: 5 }, run);
  for (const runId of runs.slice(0, 4)) {
    await noteAnswer(one, "twice", runId, lost);
    await noteAnswer(other, "twice", runId, lost);
  }
  expect(await stateOf("twice")).toMatchObject({ breaker: "closed" });
  for (const db of [one, other]) await noteAnswer(db, "twice", runs[4] ?? "", lost);
  const openings = async () => (await sql`select openings from provider_states where provider = 'twice'`)[0];
  expect(await openings()).toEqual({ openings: 1 });
  await passed("twice", "11 seconds");
  const canary = turn("twice");
  for (const db of [one, other]) expect(await takeTurn(db, canary)).toEqual({ go: true });
  expect((await takeMany(5, "twice")).gone).toEqual([]);
  for (const db of [one, other]) await noteAnswer(db, "twice", canary.runId, lost);
  expect(await openings()).toEqual({ openings: 2 });

  const refused = run();
  await noteAnswer(one, "twice_paused", refused, declined("provider_no_credit"));
  const first = await stateOf("twice_paused");
  await noteAnswer(other, "twice_paused", refused, declined("provider_no_credit"));
  expect(await stateOf("twice_paused")).toEqual(first);
});

// Pauses

test.each([
  ["provider_no_credit", "402"],
  ["provider_auth", "401"],
] as const)(
  "%s (%s) pauses the account; one order a minute tries, and the first that is accepted ends it",
  async (reason, _status) => {
    const name = `paused_${reason}`;
    await noteAnswer(one, name, run(), declined(reason));
    expect(await stateOf(name)).toMatchObject({ breaker: "closed", paused: { reason, untried: false } });
    const { gone, waits } = await takeMany(50, name);
    expect(gone).toEqual([]);
    for (const { failure: why, retryAfterMs } of waits) {
      expect(why.code).toBe(reason);
      expect(retryAfterMs).toBeGreaterThan(45_000);
      expect(retryAfterMs).toBeLessThanOrEqual(65_000);
    }
    await passed(name, "61 seconds");
    const tries = await takeMany(50, name);
    expect(tries.gone).toHaveLength(1);
    // What had been accepted before is no sign that it is over.
    await noteAnswer(one, name, run(), submitted);
    expect((await stateOf(name))?.paused).not.toBeNull();
    await noteAnswer(one, name, tries.gone[0] ?? "", declined(reason));
    expect((await takeMany(20, name)).gone).toEqual([]);

    await passed(name, "61 seconds");
    const canary = await tryOnce(name);
    expect((await takeMany(20, name)).gone).toEqual([]);
    await noteAnswer(other, name, canary, submitted);
    expect(await stateOf(name)).toMatchObject({ paused: null, retryAt: null });
    expect((await takeMany(20, name)).gone).toHaveLength(20);
  },
);

test("a canary that is refused for itself tells nothing about the account: the next one tries at once", async () => {
  await noteAnswer(one, "itself", run(), declined("provider_no_credit"));
  await passed("itself", "61 seconds");
  await noteAnswer(one, "itself", await tryOnce("itself"), declined("input_refused"));
  expect((await stateOf("itself"))?.paused).not.toBeNull();
  const next = await tryOnce("itself");
  // With another reason it stays paused, and says so.
  await noteAnswer(one, "itself", next, declined("provider_auth"));
  expect((await stateOf("itself"))?.paused).toMatchObject({ reason: "provider_auth" });
});

test("a canary that was not sent after all gives its turn back, and the next one tries at once", async () => {
  await open("returned");
  await passed("returned", "11 seconds");
  const first = await tryOnce("returned");
  // Of a call that is a whole run it would be waited for ten minutes.
  await returnTurn(other, "returned", run());
  expect(await takeTurn(one, turn("returned"))).toMatchObject({ go: false });
  for (const db of [one, other]) await returnTurn(db, "returned", first);
  const second = await tryOnce("returned");
  expect((await stateOf("returned"))?.breaker).toBe("half_open");
  await returnTurn(one, "returned", first);
  expect(await takeTurn(one, turn("returned"))).toMatchObject({ go: false });
  await noteAnswer(one, "returned", second, submitted);
  expect(await stateOf("returned")).toMatchObject({ breaker: "closed", retryAt: null });

  await noteAnswer(one, "returned", run(), declined("provider_auth"));
  await passed("returned", "61 seconds");
  await returnTurn(one, "returned", await tryOnce("returned"));
  await noteAnswer(one, "returned", await tryOnce("returned"), submitted);
  expect(await stateOf("returned")).toMatchObject({ paused: null, retryAt: null });
});

test("a canary of a pause that dies is followed by another a minute later, not sooner", async () => {
  await noteAnswer(one, "grave", run(), declined("provider_no_credit"));
  await passed("grave", "61 seconds");
  await tryOnce("grave");
  await passed("grave", "50 seconds");
  expect((await takeMany(10, "grave")).gone).toEqual([]);
  await passed("grave", "11 seconds");
  expect((await takeMany(10, "grave")).gone).toHaveLength(1);
});

test("who is refused before his turn has tried for the others", async () => {
  await noteAnswer(one, "before", run(), declined("provider_auth"));
  await passed("before", "95 seconds");
  expect((await stateOf("before"))?.paused).toMatchObject({ untried: true });
  await noteAnswer(one, "before", run(), declined("provider_auth"));
  expect((await stateOf("before"))?.paused).toMatchObject({ untried: false });
  expect((await takeMany(10, "before")).gone).toEqual([]);
});

test("the operator ends a pause and a breaker at once, and is told when there is nothing to end", async () => {
  await noteAnswer(one, "resumed", run(), declined("provider_auth"));
  await open("resumed");
  expect((await takeMany(5, "resumed")).gone).toEqual([]);
  expect(await resumeProvider(one, "resumed")).toBe(true);
  expect((await takeMany(5, "resumed")).gone).toHaveLength(5);
  expect(await stateOf("resumed")).toMatchObject({ breaker: "closed", paused: null, retryAt: null });
  expect(await resumeProvider(one, "resumed")).toBe(false);
  expect(await resumeProvider(one, "never heard of")).toBe(false);
});

test("only the database's clock counts", async () => {
  await open("time");
  await noteAnswer(one, "time_paused", run(), declined("provider_no_credit"));
  vi.useFakeTimers({ toFake: ["Date"], now: new Date("2001-01-01") });
  try {
    expect((await takeMany(10, "time")).gone).toEqual([]);
    vi.setSystemTime(new Date("2099-01-01"));
    expect((await takeMany(10, "time")).gone).toEqual([]);
    expect((await takeMany(10, "time_paused")).gone).toEqual([]);
    expect(await stateOf("time")).toMatchObject({ breaker: "open" });
    expect((await stateOf("time_paused"))?.paused).toMatchObject({ untried: false });
  } finally {
    vi.useRealTimers();
  }
});

// What is told

test("each change is told to one process only, and only when somebody asks", async () => {
  await sql`update provider_states set told = coalesce(paused_reason, case when openings > 0 then 'open' else 'closed' end)`;
  await open("told");
  await noteAnswer(one, "told_paused", run(), declined("provider_no_credit"));
  const claims = await Promise.all(Array.from({ length: 10 }, (_, index) => claimChanges(index % 2 ? one : other)));
  expect(claims.flat().sort((a, b) => a.provider.localeCompare(b.provider))).toEqual([
    { provider: "told", from: "closed", to: "open" },
    { provider: "told_paused", from: "closed", to: "provider_no_credit" },
  ]);
  await resumeProvider(one, "told_paused");
  expect(await claimChanges(one)).toEqual([{ provider: "told_paused", from: "provider_no_credit", to: "closed" }]);
  expect(await claimChanges(one)).toEqual([]);
});

const idle: Load = { queued: 0, running: 0, workers: { idle: 2, running: 0, throttled: 0, initializing: 0 } };

test("how busy models are is kept with its time, model by model, until nobody tells it any more", async () => {
  await saveLoads(one, "loaded", { a: idle, b: idle });
  await saveLoads(one, "loaded", { a: { ...idle, queued: 7 } });
  const told = async () =>
    Object.fromEntries(((await stateOf("loaded"))?.load ?? []).map((each) => [each.model, each]));
  expect(await told()).toMatchObject({ a: { queued: 7, workers: { idle: 2 } }, b: { queued: 0 } });
  expect((await told())["a"]?.at).toBeInstanceOf(Date);
  await sql`
    update provider_states set load = jsonb_set(load, '{b,at}', to_jsonb((load #>> '{b,at}')::float8 - 600001))
    where provider = 'loaded'`;
  await saveLoads(one, "loaded", {});
  expect(Object.keys(await told())).toEqual(["a"]);
});

test("three workers ask how busy an account is as one, log a pause once, and all show it", async () => {
  const bare = makeReplicate({ name: "watched", token: "r8_x", baseUrl: "http://127.0.0.1:9/v1" });
  let asked = 0;
  const load = async (model: string): Promise<Load> => {
    if (model === "stability-ai/sdxl") asked += 1;
    return { ...idle, queued: model.length };
  };
  const provider: Provider = { ...bare, load };
  const lines: unknown[] = [];
  const logger = Object.assign(Object.create(LOG), { error: (line: unknown) => lines.push(line) });
  await noteAnswer(one, "watched", run(), declined("provider_no_credit"));
  const fleet = [1, 2, 3].map(() => makeMetrics());
  const loops = fleet.map((metrics) => loads({ db: one, providers: [provider], logger, metrics }, 50));
  const shown = async () => {
    const texts = await Promise.all(fleet.map(({ registry }) => registry.metrics()));
    return texts.filter(
      (text) =>
        text.includes('provider_paused{provider="watched",reason="provider_no_credit"} 1') &&
        text.includes('provider_breaker{provider="watched",state="closed"} 1') &&
        text.includes('provider_load{provider="watched",model="stability-ai/sdxl",what="queued"} 17') &&
        text.includes('what="workers_idle"} 2'),
    ).length;
  };
  await expect.poll(shown, { timeout: 10_000 }).toBe(3);
  await Promise.all(loops.map((loop) => loop.stop()));
  expect(asked).toBe(1);
  expect(lines.filter((line) => JSON.stringify(line).includes('"watched"'))).toEqual([
    { provider: "watched", reason: "provider_no_credit", remedy: expect.stringContaining("Top it up") },
  ]);
});

test("a submission is refused only when every account that could serve its model is paused", async () => {
  const account = (name: string) => makeReplicate({ name, token: "r8_x", baseUrl: "http://127.0.0.1:9/v1" });
  const model = findModel("generation", "flux-dev");
  if (!model) throw new Error("the catalogue has no flux-dev");
  const catalogue = () => readCatalogue(one, [account("first"), account("second")]);
  const check = (app = demo) => catalogue().checkOpen(app, { ...ORDER, model, plan: app.defaultPlan });
  await noteAnswer(one, "first", run(), declined("provider_no_credit"));
  await check();
  const routing = { generation: { by: "order", order: ["first"], others: false } } as const;
  await expect(check({ ...demo, routing })).rejects.toMatchObject({ code: "provider_paused" });
  // Who only does not answer is waited for.
  await open("second");
  await check();
  await noteAnswer(one, "second", run(), declined("provider_auth"));
  await expect(check()).rejects.toMatchObject({
    code: "provider_paused",
    message: expect.stringMatching(
      /first has been without credit since 20.*second has refused our token.*Nothing was charged/,
    ),
    facts: { retryAfter: 60, paused: [{ provider: "first" }, { provider: "second" }] },
  });
  // Nobody is in line who could try: the next submissions are let in for it.
  await passed("first", "91 seconds");
  await check();
  await tryOnce("first");
  await expect(check()).rejects.toMatchObject({ code: "provider_paused" });
});

/** A picture from words alone, and looked at by a safety checker. */
const ORDER = { kind: "generation", files: {}, input: { prompt: "a fox" }, trainedModel: null } as const;

describe("a submission is refused when all who could serve it are paused, although others have the model", () => {
  const at = (api: string, name = api) => {
    const adapter = ADAPTERS.find((each) => each.api === api);
    if (!adapter) throw new Error(`no adapter for ${api}`);
    return adapter.make({ name, token: "t", baseUrl: "http://127.0.0.1:9" });
  };
  const checkOf = (alias: string, accounts: [Provider, ...Provider[]], order = {}) => {
    const model = findModel("generation", alias);
    if (!model) throw new Error(`the catalogue has no ${alias}`);
    return readCatalogue(one, accounts).checkOpen(demo, { ...ORDER, model, plan: demo.defaultPlan, ...order });
  };
  const refused = (...names: string[]) => ({
    code: "provider_paused",
    facts: { paused: names.map((provider) => ({ provider })) },
  });
  beforeAll(() => noteAnswer(one, "empty", run(), declined("provider_no_credit")));

  test("in another form only", async () => {
    const accounts: [Provider, Provider] = [at("replicate", "empty"), at("huggingface", "unchecked")];
    await expect(checkOf("flux-schnell", accounts)).rejects.toMatchObject(refused("empty"));
    await checkOf("flux-schnell", accounts, { input: { prompt: "a fox", safety: false } });
    const words: [Provider, Provider] = [at("replicate", "empty"), at("poe", "words")];
    await checkOf("flux-dev", words);
    const files = { image: { url: "https://photos.example/1.jpg" } };
    await expect(checkOf("flux-dev", words, { files })).rejects.toMatchObject(refused("empty"));
  });

  test("but it is gone there", async () => {
    const accounts: [Provider, Provider] = [at("replicate", "empty"), at("replicate", "bare")];
    await checkOf("sdxl", accounts);
    await sql`insert into catalogue_state (provider, model, status) values ('bare', 'stability-ai/sdxl', 'gone')`;
    await expect(checkOf("sdxl", accounts)).rejects.toMatchObject(refused("empty"));
  });

  test("but cannot load the trained weights, which one account keeps to itself", async () => {
    const accounts: [Provider, Provider] = [at("replicate", "empty"), at("replicate", "other")];
    const trained = async (provider: string) => {
      const id = run();
      await sql.begin(async (tx) => {
        // Of the training that made it, only what it left behind is of interest here.
        await tx`set local session_replication_role = replica`;
        await tx`insert into trained_models (id, app_id, user_id, name, status, family, trigger_word, task, resolution,
          steps, photos, quality, provider, provider_version) values (${id}, 'demo', 'ann', 'ann', 'ready', 'flux',
          'TOK', 'face', 1024, 1000, 10, 90, ${provider}, 'me/ann:1')`;
      });
      return { trainedModel: id };
    };
    await expect(checkOf("flux-dev-lora", accounts, await trained("empty"))).rejects.toMatchObject(refused("empty"));
    await checkOf("flux-dev-lora", accounts, await trained("other"));
    await expect(checkOf("flux-dev-lora", accounts, await trained("elsewhere"))).rejects.toMatchObject({
      code: "model_gone",
      message: expect.stringContaining("its trained weights are with elsewhere"),
    });
  });
});

test("the table is the service's alone", async () => {
  expect([...(await sql`select relrowsecurity as on from pg_class where relname = 'provider_states'`)]).toEqual([
    { on: true },
  ]);
  expect([...(await sql`select 1 from pg_policies where tablename = 'provider_states'`)]).toEqual([]);
});
