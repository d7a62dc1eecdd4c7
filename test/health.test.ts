import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { readProviderHealth } from "../src/api/provider-health.ts";
import { makeLogger } from "../src/compose.ts";
import { saveCalls } from "../src/db/provider-logs.ts";
import { noteAnswer, resumeProvider } from "../src/db/provider-states.ts";
import type { CallTrouble, CallVerb } from "../src/domain/call.ts";
import { failure } from "../src/domain/failure.ts";
import type { Account, Providers } from "../src/domain/routing.ts";
import { makeMetrics } from "../src/metrics.ts";
import { balances } from "../src/workers/balances.ts";
import { loads } from "../src/workers/loads.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

vi.setConfig({ testTimeout: 60_000 });

const ADMIN = { authorization: `Basic ${Buffer.from("admin:admin of the tests").toString("base64")}` };
const wish = (prompt: string) => ({ kind: "generation", user: "ann", input: { prompt } });

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ env: { AI_PROVIDER: "sandbox,sandbox:wavespeed" } });
});
afterAll(async () => {
  await spine?.stop();
});

/** Some account, of which nothing but its name is asked. */
const account = { name: "acme", api: "acme", statusPage: "https://status.acme.test" } as Account;
const logger = makeLogger({ LOG_LEVEL: "silent" }, "test");
/** As any API process would say it that has remembered nothing. */
const health = async () => {
  const providers: Providers = [account];
  const [acme] = await readProviderHealth({ db: spine.db, providers, logger })("admin");
  if (!acme) throw new Error("it is not there");
  return acme;
};
/** Calls that were over so many seconds ago. */
const heard = (secondsAgo: number, error: CallTrouble | null, calls = 1, verb: CallVerb = "look", bucket = 20) => {
  const lastAt = new Date(Date.now() - secondsAgo * 1_000);
  const minute = new Date(Math.floor(lastAt.getTime() / 60_000) * 60_000);
  return saveCalls(spine.db, [], [{ minute, provider: "acme", verb, error, bucket, calls, lastAt }]);
};

test("everybody sees whether the accounts answer, callers how fast, and the operator alone the money", async () => {
  const job = await spine.ended((await spine.submit(wish("a fox"))).id);
  // The calls are written every two seconds, and what is left is asked by the worker.
  const sums = async () =>
    (await spine.sql`select 1 from provider_calls where verb in ('submit', 'look', 'balance') group by verb`).length;
  await expect.poll(sums, { timeout: 15_000 }).toBe(3);
  await expect.poll(async () => (await spine.sql`select 1 from provider_balances`).length, { timeout: 15_000 }).toBe(1);

  const { body } = await spine.call("GET", "/api/health", { key: null });
  expect(body).toMatchObject({ status: "ok" });
  expect(body.providers[0]).toEqual({
    name: "sandbox",
    api: "replicate",
    reachable: true,
    breaker: "closed",
    paused: null,
    statusPage: null,
    lastHour: null,
    money: null,
  });

  const [mine] = (await spine.call("GET", "/api/health")).body.providers;
  expect(mine).toMatchObject({
    lastHour: { submit: { calls: 1, p50Ms: expect.any(Number) }, errors: {} },
    money: null,
  });
  expect(mine.lastHour.look.calls).toBeGreaterThan(0);

  const { providers } = (await spine.call("GET", "/api/health", { key: null, headers: ADMIN })).body;
  const cost = Math.round((job.runs[0]?.costUsd ?? 0) * 1_000_000);
  expect(cost).toBeGreaterThan(0);
  expect(providers[0].money).toEqual({ balanceMicroUsd: null, balanceAt: null, costTodayMicroUsd: cost });
  expect(providers[1]).toMatchObject({ name: "sandbox_wavespeed", reachable: true });
  expect(providers[1].money).toMatchObject({ balanceMicroUsd: 1_000_000_000, costTodayMicroUsd: 0 });

  const wrong = { authorization: `Basic ${Buffer.from("admin:guess").toString("base64")}` };
  expect((await spine.call("GET", "/api/health", { key: null, headers: wrong })).status).toBe(401);
  expect((await spine.call("GET", "/api/health", { key: "dk_nobody" })).status).toBe(401);

  const metrics = await (await fetch(`${spine.workers[0]?.url}/metrics`)).text();
  expect(metrics).toMatch(/provider_calls_total\{provider="sandbox",verb="submit",outcome="ok"\} 1/);
  expect(metrics).toMatch(/provider_call_seconds_count\{provider="sandbox",verb="submit"\} 1/);
  expect(metrics).toMatch(/provider_cost_dollars_total\{provider="sandbox"\} 0\.\d/);
  expect(metrics).toMatch(/provider_balance_dollars\{provider="sandbox_wavespeed"\} 1000/);
});

describe("an account", () => {
  beforeEach(async () => {
    await spine.sql`delete from provider_calls where provider = 'acme'`;
  });

  test("that nobody has asked for a while may be well", async () => {
    expect(await health()).toMatchObject({ reachable: null, breaker: "closed", paused: null });
    await heard(700, null);
    expect(await health()).toMatchObject({ reachable: null, statusPage: "https://status.acme.test" });
  });

  test("is reachable by any answer, and not because of one call that failed", async () => {
    await heard(40, "throttled");
    await heard(2, "unanswered");
    expect(await health()).toMatchObject({ reachable: true });
  });

  test("is not reachable when all calls have failed for a minute", async () => {
    await heard(90, null);
    await heard(2, "unreachable");
    await heard(2, "broken", 3);
    expect(await health()).toMatchObject({
      reachable: false,
      lastHour: { errors: { unreachable: 1, broken: 3 }, look: { calls: 5 } },
    });
    await heard(1, null);
    expect(await health()).toMatchObject({ reachable: true });
  });

  test("tells its times by what was asked, without the calls that nobody answered", async () => {
    await heard(10, null, 90, "submit", 30);
    await heard(10, null, 10, "submit", 52);
    await heard(10, "unanswered", 50, "submit", 60);
    const { lastHour } = await health();
    expect(lastHour?.submit).toEqual({ calls: 150, p50Ms: 197, p95Ms: 8_933 });
    expect(lastHour?.look).toEqual({ calls: 0, p50Ms: null, p95Ms: null });
  });
});

test("a worker's metrics show whether an account answers, and what today cost", async () => {
  await spine.sql`delete from provider_calls where provider = 'acme'`;
  const job = await spine.ended((await spine.submit(wish("a dear fox"))).id);
  expect(job.runs[0]?.costUsd).toBeGreaterThan(0);
  const metrics = makeMetrics();
  const providers: Providers = [account, { ...account, name: "sandbox" }];
  const loops = [loads, balances].map((show) => show({ db: spine.db, providers, logger, metrics }, 50));
  const shown = () => metrics.registry.metrics();
  const soon = { timeout: 10_000 };
  await expect.poll(shown, soon).toMatch(/provider_cost_today_dollars\{provider="sandbox"\} 0\.\d/);
  await expect.poll(shown, soon).toContain('provider_cost_today_dollars{provider="acme"} 0\n');
  expect(await shown()).not.toContain('provider_reachable{provider="acme"}');
  await heard(2, "unreachable");
  await expect.poll(shown, soon).toContain('provider_reachable{provider="acme"} 0');
  await heard(1, null);
  await expect.poll(shown, soon).toContain('provider_reachable{provider="acme"} 1');
  await Promise.all(loops.map((loop) => loop.stop()));
});

test("an account that refuses us makes the service degraded, until it is over", async () => {
  const status = async () => {
    const { body } = await spine.call("GET", "/api/health", { key: null });
    return [body.status, body.providers[1].paused?.reason ?? null];
  };
  await noteAnswer(spine.db, "sandbox_wavespeed", crypto.randomUUID(), {
    outcome: "declined",
    failure: failure("provider_no_credit", "pay"),
  });
  // What it knows is at most ten seconds old.
  await expect.poll(status, { timeout: 20_000 }).toEqual(["degraded", "provider_no_credit"]);
  await resumeProvider(spine.db, "sandbox_wavespeed");
  await expect.poll(status, { timeout: 20_000 }).toEqual(["ok", null]);
});

describe("asking the provider now", () => {
  /** Out, and not to be looked at for an hour. */
  async function asleep(body: Record<string, unknown>) {
    const { id } = await spine.submit(body);
    const job = await spine.until(
      id,
      ({ runs }) => runs.length > 0 && runs.every(({ status }) => status === "running"),
    );
    // A look that is under way may set the time of the next one once more.
    const putOff = () =>
      spine.sql`update runs set next_look_at = now() + interval '1 hour' where job_id = ${id} and status = 'running'`;
    await expect
      .poll(async () => [await putOff(), await isOver(job.runs)][1], { timeout: 20_000, interval: 100 })
      .toBe(true);
    await putOff();
    return spine.until(id, () => true);
  }
  /** At the provider, whatever we know of it. */
  async function isOver(runs: readonly { providerRunId: string | null }[]): Promise<boolean> {
    const words = await Promise.all(
      runs.map(async ({ providerRunId }) => {
        const reply = await fetch(`${spine.sandbox.url}/v1/predictions/${providerRunId}`, {
          headers: { authorization: "Bearer r8_sandbox" },
        });
        return reply.text();
      }),
    );
    return words.every((word) => word.includes('"status":"succeeded"'));
  }

  test("looks at every run that is out, and answers with what that taught", async () => {
    const { id } = await asleep({
      ...wish(""),
      input: { prompt: "[sandbox: slow=10] two of them", images: 2 },
    });
    const before = await spine.sql`select looks from runs where job_id = ${id} order by id`;
    const answer = await spine.call("POST", `/api/jobs/${id}/sync`);
    expect(answer.status).toBe(202);
    expect(answer.body.runs.some(({ status }: { status: string }) => status !== "running")).toBe(true);
    const job = await spine.ended(id);
    expect(job.status).toBe("completed");
    const after = await spine.sql`select looks from runs where job_id = ${id} order by id`;
    expect(after.every(({ looks }, index) => looks > (before[index]?.["looks"] ?? 0))).toBe(true);
  });

  test("can be done by the provider's own id of the run, at that provider's accounts only", async () => {
    const job = await asleep(wish("[sandbox: slow=10] by its id"));
    const theirs = job.runs[0]?.providerRunId ?? "";
    const ask = (provider: string, key?: string) =>
      spine.call("GET", `/api/providers/${provider}/status/${theirs}`, key === undefined ? {} : { key });
    const { status, body } = await ask("replicate");
    expect(status).toBe(200);
    expect(body).toMatchObject({ id: theirs, jobId: job.id, predictions: [{ id: theirs }] });
    await spine.ended(job.id);
    expect((await ask("sandbox")).body).toMatchObject({ status: "succeeded", output: [expect.any(String)] });
    expect((await ask("sandbox_wavespeed")).status).toBe(404);
    expect((await ask("midjourney")).body).toMatchObject({
      status: 404,
      detail: expect.stringContaining("/api/health"),
    });
    expect((await ask("replicate", await spine.keyFor("pro-headshots"))).status).toBe(404);
  });
});
