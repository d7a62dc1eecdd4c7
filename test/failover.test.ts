import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { JobJson } from "../src/job-json.ts";
import { makeApp } from "./rig/apps.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

vi.setConfig({ testTimeout: 90_000 });

const model = (alias: string) => ({
  generation: { default: alias, allowed: ["flux-schnell", "flux-dev", "flux-dev-lora"] },
});
const shop = makeApp({ id: "shop", signupGrant: 100_000, models: model("flux-dev") });
const mixed = makeApp({
  id: "mixed",
  signupGrant: 100_000,
  models: model("flux-dev"),
  routing: { generation: { by: "weight", weights: { fal: 70, replicate: 30 } } },
});
/** Has two accounts, and no third. */
const pair = makeApp({
  id: "pair",
  signupGrant: 100_000,
  models: model("flux-dev"),
  routing: { generation: { by: "order", order: ["replicate", "fal"], others: false } },
});
const ACCOUNTS = {
  AI_PROVIDER: "sandbox,sandbox:fal,sandbox:runpod",
  RUNPOD_ENDPOINTS: "own/flux-dev@A40=own-flux-a40,own/flux-dev@4090=own-flux-4090",
};
/** The cheapest that meets the deadline. */
const thrifty = makeApp({
  id: "thrifty",
  signupGrant: 100_000,
  models: model("flux-dev"),
  routing: { generation: { by: "cost" } },
  deadlineSeconds: { generation: 120 },
});

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ apps: [shop, mixed, pair, thrifty], env: ACCOUNTS });
});
afterAll(async () => {
  await spine?.stop();
});
/** What the worker knows of the accounts is at most a second old. */
const FORGOTTEN_MS = 1_100;
const forgotten = () => new Promise((resolve) => setTimeout(resolve, FORGOTTEN_MS));
beforeEach(async () => {
  spine.sandbox.faults.clear();
  await spine.sql`delete from provider_states`;
  await forgotten();
});
afterEach(async () => {
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const generation = (prompt: string) => ({
  kind: "generation",
  user: "ann",
  input: { prompt, width: 512, height: 512 },
});
const submit = (prompt: string) => spine.submit(generation(prompt));
/** For another app than the first. */
async function send(app: string, body: unknown) {
  const key = await spine.keyFor(app);
  return spine.call("POST", "/api/jobs", { body, key, headers: { "idempotency-key": crypto.randomUUID() } });
}
const endedAll = async (app: string) => {
  const open = () => spine.sql`select id from jobs where app_id = ${app} and ended_at is null`;
  await expect.poll(async () => (await open()).length, { timeout: 60_000 }).toBe(0);
};
const strike = (fault: string, face: "replicate" | "fal", more: { promptContains?: string; times?: number } = {}) =>
  spine.sandbox.faults.add({
    fault,
    ...(more.times === undefined ? {} : { times: more.times }),
    match: { face, ...(more.promptContains === undefined ? {} : { promptContains: more.promptContains }) },
  });
/** Who was paid for it. */
const bought = (job: JobJson) =>
  spine.sandbox
    .bill()
    .lines.filter((line) => job.runs.some((run) => run.providerRunId === line.id))
    .map(({ face }) => face);
const intents = async (id: string) =>
  (
    await spine.sql`select detail ->> 'provider' as provider from job_events where job_id = ${id} and type = 'intended' order by version`
  ).map((row) => row["provider"]);

test("goes to the first in line, and the run says why", async () => {
  const job = await spine.ended((await submit("calm")).id);
  expect(job).toMatchObject({
    status: "completed",
    runs: [{ provider: "sandbox", model: "black-forest-labs/flux-dev", routeWhy: "sandbox: first in line" }],
  });
  expect(bought(job)).toEqual(["replicate"]);
});

describe("what one account did not accept is had from the other, as the same run, paid once:", () => {
  test("it is out of credit, and nobody else is sent there", async () => {
    strike("no_credit", "replicate");
    const job = await spine.ended((await submit("a pauper")).id);
    expect(job).toMatchObject({ status: "completed", runs: [{ attempt: 1, provider: "sandbox_fal" }] });
    expect(job.runs[0]?.routeWhy).toMatch(
      /^sandbox_fal: number 2 in line; sandbox (is paused, its account is out of credit|has said)/,
    );
    expect(await intents(job.id)).toEqual(["sandbox", "sandbox_fal"]);
    expect(bought(job)).toEqual(["fal"]);

    await forgotten();
    const next = await spine.ended((await submit("another pauper")).id);
    expect(await intents(next.id)).toEqual(["sandbox_fal"]);
    const listed = async () => {
      const { body } = await spine.call("GET", "/api/models?kind=generation");
      return body.models.find(({ alias }: { alias: string }) => alias === "flux-dev");
    };
    await expect
      .poll(async () => (await listed()).chosen, { timeout: 10_000 })
      .toEqual({
        provider: "sandbox_fal",
        why: "sandbox_fal: number 2 in line; sandbox is paused, its account is out of credit",
      });
    const { routes } = await listed();
    expect(routes.find(({ provider }: { provider: string }) => provider === "sandbox")).toMatchObject({
      trouble: "is paused, its account is out of credit",
      costUsd: 0.025,
    });
  });

  test("it refuses our key", async () => {
    strike("unauthorized", "replicate", { promptContains: "stranger" });
    const job = await spine.ended((await submit("a stranger")).id);
    expect(job).toMatchObject({ status: "completed", runs: [{ attempt: 1, provider: "sandbox_fal" }] });
    expect(bought(job)).toEqual(["fal"]);
  });

  test("it throttles us", async () => {
    strike("rate_limited", "replicate");
    const jobs = await Promise.all(["one", "two", "three"].map((word) => submit(`a crowd of ${word}`)));
    for (const { id } of jobs) {
      const job = await spine.ended(id);
      expect(job).toMatchObject({ status: "completed", runs: [{ attempt: 1, provider: "sandbox_fal" }] });
      expect(bought(job)).toEqual(["fal"]);
    }
  });
});

test("a lost answer is looked for where it was lost, and bought elsewhere only when it cannot exist", async () => {
  strike("refuse_before", "replicate", { promptContains: "a letter", times: 1 });
  const job = await spine.ended((await submit("a letter")).id, 60_000);
  expect(job.runs).toMatchObject([
    { attempt: 1, provider: "sandbox", status: "failed", failure: { code: "lost" } },
    { attempt: 2, provider: "sandbox_fal", status: "stored" },
  ]);
  expect(bought(job)).toEqual(["fal"]);

  strike("cut", "replicate", { promptContains: "a parcel", times: 1 });
  const other = await spine.ended((await submit("a parcel")).id, 60_000);
  expect(other).toMatchObject({ status: "completed", runs: [{ attempt: 1, provider: "sandbox" }] });
  expect(bought(other)).toEqual(["replicate"]);
});

test("what one account interrupts is bought again from another", async () => {
  strike("interrupted", "replicate", { promptContains: "a phoenix" });
  const job = await spine.ended((await submit("a phoenix")).id);
  expect(job.runs.map(({ attempt, provider, status }) => [attempt, provider, status])).toEqual([
    [1, "sandbox", "failed"],
    [2, "sandbox_fal", "stored"],
  ]);
  expect(job.runs[1]?.routeWhy).toMatch(/^sandbox_fal: number 2 in line/);
});

test("an order that is at fault itself is refused, and asked of nobody else", async () => {
  strike("nsfw", "replicate", { promptContains: "a mistake" });
  const job = await spine.ended((await submit("a mistake")).id);
  expect(job).toMatchObject({ status: "failed", settlement: { refunded: 1 }, runs: [{ provider: "sandbox" }] });
});

test("when nobody is left jobs wait, unfailed, new ones are refused, and all is well when an account is in order again", async () => {
  for (const face of ["replicate", "fal"] as const) strike("no_credit", face);
  const { body } = await send("pair", generation("a beggar"));
  const runs = () => spine.sql`select provider, status, failure_code from runs where job_id = ${body.id}`;
  await expect
    .poll(async () => (await spine.sql`select 1 from provider_states where paused_reason is not null`).length, {
      timeout: 20_000,
    })
    .toBe(2);
  const late = async () => (await send("pair", generation("late"))).status;
  await expect.poll(late, { timeout: 20_000, interval: 500 }).toBe(503);
  expect(await runs()).toEqual([expect.objectContaining({ status: "submitting", failure_code: "provider_no_credit" })]);
  spine.sandbox.faults.clear();
  await spine.sql`delete from provider_states`;
  // A minute later.
  await spine.sql`update runs set not_before = now() where status = 'submitting'`;
  await spine.sql`update jobs set due_at = now() where ended_at is null and lease_until is null`;
  await endedAll("pair");
  const [job] = await spine.sql`
    select j.status, kept, refunded from jobs j join settlements s on s.job_id = j.id where j.id = ${body.id}`;
  expect(job).toMatchObject({ status: "completed", kept: "1", refunded: "0" });
  expect(await runs()).toEqual([expect.objectContaining({ status: "stored" })]);
});

test("weights share the runs out", async () => {
  const { input, ...rest } = generation("a lottery");
  const answers = await Promise.all(
    Array.from({ length: 10 }, () => send("mixed", { ...rest, input: { ...input, images: 4 } })),
  );
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 202));
  await endedAll("mixed");
  const rows = await spine.sql`
    select provider, count(*)::int as n, min(route_why) as why from runs join jobs on jobs.id = job_id
    where app_id = 'mixed' group by provider order by provider`;
  expect(rows).toEqual([
    { provider: "sandbox", n: expect.any(Number), why: "sandbox: by weight, 30 of 100" },
    { provider: "sandbox_fal", n: expect.any(Number), why: "sandbox_fal: by weight, 70 of 100" },
  ]);
  // 28 of 40 on average, and fewer than 12 once in ten million times.
  expect(rows[1]?.["n"]).toBeGreaterThan(11);
});

describe("by cost, of GPUs of our own,", () => {
  const ask = async (prompt: string) => {
    const { body } = await send("thrifty", generation(prompt));
    await endedAll("thrifty");
    const [run] = await spine.sql`select provider, route_why, status from runs where job_id = ${body.id}`;
    return run;
  };

  test("the cheapest is taken", async () => {
    expect(await ask("a bargain")).toMatchObject({
      provider: "sandbox_runpod_4090",
      status: "stored",
      route_why: expect.stringMatching(/^sandbox_runpod_4090: the cheapest that meets the deadline, \$0\.0004 /),
    });
  });

  test("and a dearer one when its queue is longer than the deadline allows", async () => {
    await fetch(`${spine.sandbox.url}/runpod/_load/own-flux-4090`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ inQueue: 1_000, running: 1, idle: 0 }),
    });
    const seen = () => spine.sql`
      select 1 from provider_states
      where provider = 'sandbox_runpod_4090' and load -> 'own/flux-dev' ->> 'queued' = '1000'`;
    await expect.poll(async () => (await seen()).length, { timeout: 40_000 }).toBe(1);
    await forgotten();
    expect(await ask("a rush")).toMatchObject({ provider: "sandbox_runpod_a40", status: "stored" });
  });
});

test("a model that one account does not have any more is had from the other", async () => {
  strike("vanished", "replicate");
  const job = await spine.ended((await submit("a phantom")).id);
  expect(job).toMatchObject({ status: "completed", runs: [{ attempt: 1, provider: "sandbox_fal" }] });
  expect(bought(job)).toEqual(["fal"]);
});

test("an order that none of three accounts takes goes around once, and then waits", async ({ onTestFinished }) => {
  const own = await startSpine({ env: { AI_PROVIDER: "sandbox:wavespeed,sandbox:fal,sandbox:runpod" } });
  onTestFinished(() => own.stop());
  // What is to be known of the model is known, so that nothing is asked before an order.
  for (const face of ["wavespeed", "fal"] as const) {
    await own.ended((await own.submit(generation(`before ${face} is busy`))).id);
    own.sandbox.faults.add({ fault: "rate_limited", times: 1, match: { face } });
  }
  await own.ended((await own.submit(generation("both are busy"))).id);
  await own.sql`delete from provider_states`;
  await own.sandbox.close();
  const { id } = await own.submit(generation("a hot potato"));
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  const sent = await own.sql`
    select detail ->> 'provider' as to from job_events where job_id = ${id} and type = 'intended' order by version`;
  expect(sent.slice(0, 3).map(({ to }) => to)).toEqual(["sandbox_wavespeed", "sandbox_fal", "sandbox_runpod"]);
  expect(sent.length).toBeLessThan(10);
});

test("an account that cannot be reached before anything was sent is passed over", async ({ onTestFinished }) => {
  const own = await startSpine({ workers: 0, env: { AI_PROVIDER: "sandbox,sandbox:fal" } });
  onTestFinished(() => own.stop());
  own.sandbox.faults.add({ fault: "down", match: { face: "replicate" } });
  // It has not asked for the model yet, and cannot.
  await own.startWorker();
  const job = await own.ended((await own.submit({ ...generation("a brown-out"), model: "flux-dev" })).id);
  expect(job).toMatchObject({ status: "completed", runs: [{ attempt: 1, provider: "sandbox_fal" }] });
  expect(job.runs[0]?.routeWhy).toBe("sandbox_fal: number 2 in line; sandbox cannot be reached");
  const events = await own.sql`select type from job_events where job_id = ${job.id} and type = 'intended'`;
  expect(events).toHaveLength(1);
  expect(own.sandbox.bill().lines.map(({ face }) => face)).toEqual(["fal"]);
});

test("one slow account takes half of the slots, and what finds no place there goes to the other", async ({
  onTestFinished,
}) => {
  const env = { AI_PROVIDER: "sandbox,sandbox:fal", WORKER_KINDS: "generation", WORKER_CONCURRENCY: "4" };
  const own = await startSpine({ env });
  onTestFinished(() => own.stop());
  own.sandbox.faults.add({ fault: "slow_create", ms: 4_000, match: { face: "replicate" } });
  const jobs = await Promise.all(
    [1, 2, 3, 4, 5, 6].map((number) => own.submit({ ...generation(`a queue of ${number}`), model: "flux-dev" })),
  );
  const ended = await Promise.all(jobs.map(({ id }) => own.ended(id, 60_000)));
  const runs = ended.flatMap((job) => job.runs);
  expect(ended.map(({ status }) => status)).toEqual(jobs.map(() => "completed"));
  const elsewhere = runs.filter(({ provider }) => provider === "sandbox_fal");
  expect([runs.length, elsewhere.length > 1, elsewhere.length < 6]).toEqual([6, true, true]);
  expect(elsewhere[0]?.routeWhy).toBe(
    "sandbox_fal: number 2 in line; sandbox answers slowly, and has orders enough to answer",
  );
  expect(own.sandbox.bill().lines).toHaveLength(6);
});
