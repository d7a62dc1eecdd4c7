import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { makeLogger, type Program, startApi } from "../src/compose.ts";
import { freePort } from "../src/db/embedded.ts";
import { setSetting } from "../src/db/settings.ts";
import { UNLIMITED } from "../src/domain/app.ts";
import { ratesOf } from "../src/domain/request.ts";
import { makeMetrics } from "../src/metrics.ts";
import { makeLocalStorage } from "../src/storage/local.ts";
import { chores } from "../src/workers/chores.ts";
import { makeApp } from "./rig/apps.ts";
import { darkroom } from "./rig/compiled.ts";
import { type Answer, type Spine, startSpine } from "./rig/spine.ts";

const free = { ...UNLIMITED, dailyAllowance: 5, maxSide: 1_024, rates: { request: { max: 10, seconds: 60 } } };
const gold = { ...UNLIMITED, dailyAllowance: 50, rates: { request: { max: 100, seconds: 60 } } };
const limited = makeApp({
  id: "limited",
  signupGrant: 1_000,
  plans: { FREE: free, GOLD: gold },
  defaultPlan: "FREE",
  addressRate: { max: 20, seconds: 60 },
});

const LOG = makeLogger({ LOG_LEVEL: "silent" }, "test");
let spine: Spine;
const more: Program[] = [];
beforeAll(async () => {
  const apps = [limited];
  spine = await startSpine({ apps });
  for (let count = 0; count < 2; count++)
    more.push(await startApi({ ...spine.config, PORT: await freePort() }, LOG, apps));
});
afterAll(async () => {
  await Promise.all(more.map((api) => api.stop()));
  await spine?.stop();
});
afterEach(async () => {
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const wish = (user: string, address?: string) => ({
  kind: "generation",
  user,
  input: { prompt: "a lighthouse" },
  ...(address ? { address } : {}),
});

/** What a busy machine answers for a moment is asked again, with the same key, as callers do. */
const MOMENTARY = ["unavailable", "too_many_waiting"];

async function send(body: unknown, { key = crypto.randomUUID() as string, url = spine.api.url } = {}): Promise<Answer> {
  for (let tries = 1; ; tries++) {
    const response = await fetch(`${url}/api/jobs`, {
      method: "POST",
      headers: { authorization: `Bearer ${spine.key}`, "content-type": "application/json", "idempotency-key": key },
      body: JSON.stringify(body),
    });
    const answer: Answer = { status: response.status, headers: response.headers, body: await response.json() };
    if (tries === 20 || !MOMENTARY.includes(answer.body.code)) return answer;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

async function allEnded(): Promise<void> {
  const jobs = await spine.sql`select id from jobs where ended_at is null`;
  for (const { id } of jobs) await spine.ended(id, 60_000);
}

/** So that a test does not begin in one window and end in the next. */
async function roomInWindow(seconds: number): Promise<void> {
  const left = 60 - ((Date.now() / 1_000) % 60);
  if (left < seconds) await new Promise((resolve) => setTimeout(resolve, (left + 0.1) * 1_000));
}

test("a user is put on a plan, sees its limits and what is left of them; a larger allowance counts at once, once", async () => {
  expect((await spine.call("GET", "/api/users/ann")).status).toBe(404);
  const put = (plan: string) => spine.call("PUT", "/api/users/ann", { body: { plan } });
  expect(await put("GOLD")).toMatchObject({
    status: 200,
    body: { user: "ann", plan: "GOLD", available: 1_050, balance: 1_000, allowance: 50 },
  });
  expect((await put("FREE")).body).toMatchObject({ plan: "FREE", allowance: 50 });
  expect((await put("GOLD")).body).toMatchObject({ plan: "GOLD", allowance: 50 });
  expect(await put("PLATINUM")).toMatchObject({
    status: 422,
    body: { errors: [{ pointer: "/plan", detail: expect.stringMatching(/FREE, GOLD/) }] },
  });
  const { body } = await spine.call("GET", "/api/users/ann");
  expect(body).toMatchObject({
    plan: "GOLD",
    available: 1_050,
    overLimit: "refuse",
    limits: { dailyAllowance: 50, maxSide: 4_096, maxModels: 1_000 },
    rates: [{ action: "request", max: 100, seconds: 60, left: 100 }],
  });
  const job = await send(wish("ann"));
  expect(job.body).toMatchObject({ plan: "GOLD" });
  expect((await spine.call("GET", "/api/users/ann")).body.rates[0].left).toBe(99);
  await spine.ended(job.body.id, 60_000);
});

test("the eleventh request in a minute is refused, with the standard headers, and a replay is not counted", async () => {
  await roomInWindow(20);
  const answers: Answer[] = [];
  for (let number = 1; number <= 10; number++) answers.push(await send(wish("bea"), { key: `bea-${number}` }));
  expect(answers.map(({ status }) => status)).toEqual(Array(10).fill(202));
  expect(answers[0]?.headers.get("ratelimit-policy")).toBe('"request";q=10;w=60');
  expect(answers[3]?.headers.get("ratelimit")).toMatch(/^"request";r=6;t=\d+$/);
  expect(answers[9]?.headers.get("ratelimit")).toMatch(/^"request";r=0;t=\d+$/);

  const replay = await send(wish("bea"), { key: "bea-1" });
  expect(replay).toMatchObject({ status: 202, body: { id: answers[0]?.body.id } });
  const eleventh = await send(wish("bea"));
  expect(eleventh).toMatchObject({ status: 429, body: { code: "rate_limited", retryable: true } });
  const wait = Number(eleventh.headers.get("retry-after"));
  expect(wait).toBeGreaterThan(0);
  expect(wait).toBeLessThanOrEqual(120);
  const told = Number(/^"request";r=0;t=(\d+)$/.exec(eleventh.headers.get("ratelimit") ?? "")?.[1]);
  expect(Math.abs(told - wait)).toBeLessThanOrEqual(1);
  expect(eleventh.headers.get("ratelimit-policy")).toBe('"request";q=10;w=60');
  const [row] = await spine.sql`select refused::int, refused_at from rate_limits where subject = 'user:bea'`;
  expect(row).toMatchObject({ refused: 1, refused_at: expect.any(Date) });
  const metrics = await spine.call("GET", "/metrics");
  expect(metrics.body).toContain('rate_limited_total{app="limited",limit="request"} 1');
  // Another plan, another limit.
  await spine.call("PUT", "/api/users/bea", { body: { plan: "GOLD" } });
  const twelfth = await send(wish("bea"));
  expect(twelfth.status).toBe(202);
  for (const { body } of [...answers, twelfth]) await spine.ended(body.id, 60_000);
}, 120_000);

test("the twenty-first from one address is refused, whoever the users are", async () => {
  await roomInWindow(20);
  const statuses: number[] = [];
  for (let number = 1; number <= 21; number++) {
    const answer = await send(wish(`cid-${number}`, "203.0.113.7"));
    statuses.push(answer.status);
    if (number === 1) expect(answer.headers.get("ratelimit-policy")).toBe('"request";q=10;w=60, "address";q=20;w=60');
  }
  expect(statuses).toEqual([...Array(20).fill(202), 429]);
  expect((await send(wish("cid-22", "203.0.113.8"))).status).toBe(202);
  await allEnded();
}, 120_000);

test("thirty at once over three API processes: exactly ten, of a user and, with new addresses, of each address", async () => {
  await roomInWindow(30);
  const urls = [spine.api.url, ...more.map((api) => api.url)];
  const answers = await Promise.all(
    Array.from({ length: 30 }, (_, index) => send(wish("dan"), { url: urls[index % 3] ?? "" })),
  );
  expect(answers.filter(({ status }) => status === 202)).toHaveLength(10);
  expect(answers.filter(({ status }) => status === 429)).toHaveLength(20);
  // Users and addresses in each other's way: nobody waits for ever.
  const mixed = await Promise.all(
    Array.from({ length: 90 }, (_, index) =>
      send(wish(`eve-${index % 45}`, `198.51.100.${index % 3}`), { url: urls[index % 3] ?? "" }),
    ),
  );
  expect(mixed.filter(({ status }) => status === 202)).toHaveLength(60);
  expect(mixed.filter(({ status }) => status === 429)).toHaveLength(30);
  await allEnded();
}, 180_000);

test("an app that is switched off accepts nothing from the next statement on; what was accepted is answered and goes on", async () => {
  const before = await send(wish("fay"), { key: "fay" });
  await setSetting(spine.db, "limited", "app_enabled", false);
  const refused = await send(wish("fay"));
  expect(refused).toMatchObject({ status: 503, body: { code: "app_disabled", retryable: true } });
  expect(refused.headers.get("retry-after")).not.toBeNull();
  expect(await send(wish("fay"), { key: "fay" })).toMatchObject({ status: 202, body: { id: before.body.id } });
  await setSetting(spine.db, "limited", "app_enabled", true);
  expect((await send(wish("fay"))).status).toBe(202);
  await setSetting(spine.db, "*", "app_enabled", false);
  expect((await send(wish("fay"))).status).toBe(503);
  await setSetting(spine.db, "*", "app_enabled", true);
  expect(await spine.ended(before.body.id, 60_000)).toMatchObject({ status: "completed" });
  await allEnded();
}, 120_000);

test("an operator turns the switch from the command line", async () => {
  const run = (...args: string[]) => darkroom(["settings", ...args], { DATABASE_URL: spine.config.DATABASE_URL });
  expect(await run("set", "app_enabled", "false")).toMatchObject({ code: 0 });
  expect((await send(wish("hal"))).status).toBe(503);
  expect((await run("list")).out).toContain("*\tapp_enabled\tfalse");
  expect(await run("set", "app_enabled", "true")).toMatchObject({ code: 0 });
  expect((await send(wish("hal"))).status).toBe(202);
  expect(await run("set", "app_enabled", "maybe")).toMatchObject({ code: 1 });
  expect((await run("set", "colour", "true")).err).toMatch(/app_enabled/);
  await allEnded();
}, 180_000);

test("a batch that is over a limit is answered as far as it goes, and goes on with its key", async () => {
  await roomInWindow(20);
  const headers = { "idempotency-key": "batch-of-ida" };
  const body = { jobs: Array.from({ length: 12 }, () => wish("ida")) };
  const refused = await spine.call("POST", "/api/batches", { body, headers });
  expect(refused).toMatchObject({ status: 429, body: { code: "rate_limited", retryable: true } });
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(refused.body.detail).toMatch(/10 of the 12 jobs/);
  await spine.sql`update rate_limits set window_start = 'epoch' where subject = 'user:ida'`;
  const done = await spine.call("POST", "/api/batches", { body, headers });
  expect(done).toMatchObject({ status: 202, body: { accepted: 12, refused: 0 } });
  await allEnded();
}, 120_000);

test("addresses of one IPv6 network count as one, and IPv4 stays what it is, however it is written", () => {
  const subjects = (address: string) =>
    ratesOf(limited, gold, { kind: "generation", user: "x", address })
      .map(({ subject }) => subject)
      .filter((subject) => subject.startsWith("address:"));
  for (const [address, counted] of [
    ["203.0.113.7", "203.0.113.7"],
    ["::ffff:203.0.113.7", "203.0.113.7"],
    ["2001:DB8:0:12::1", "2001:db8:0:12::/64"],
    ["2001:db8::12:ffff:1:2:3", "2001:db8:0:12::/64"],
    ["2001:db8:0:12:ffff:ffff:ffff:ffff", "2001:db8:0:12::/64"],
    ["::1", "0:0:0:0::/64"],
  ] as const)
    expect(subjects(address), address).toEqual([`address:${counted}`]);
});

test("now and then one worker deletes what no longer counts, and concludes trainings that nobody did", async () => {
  const { id: ended } = await spine.submit(wish("joe"));
  await spine.ended(ended, 60_000);
  await spine.sql`
    insert into trained_models (id, app_id, user_id, name, status, family, trigger_word, task, resolution, steps, photos, quality)
    select id, app_id, user_id, 'x', 'training', 'flux', 'X', 'face', 512, 100, 4, 50 from jobs where id = ${ended}`;
  await spine.sql`update jobs set status = 'failed', failure_code = 'lost', kind = 'training' where id = ${ended}`;
  await spine.sql`
    insert into webhook_inbox (provider, delivery_id, run_id, provider_run_id, status, received_at)
    select 'sandbox', 'old', id, provider_run_id, 'succeeded', now() - interval '31 days' from runs where job_id = ${ended}`;
  await spine.sql`update rate_limits set window_start = now() - interval '1 hour' where subject = 'user:bea'`;
  const wanted = { kind: "generation", user: "gus", input: { prompt: "x" } };
  const old = await spine.call("POST", "/api/quotes", { body: wanted });
  const fresh = await spine.call("POST", "/api/quotes", { body: wanted });
  await spine.sql`update quotes set expires_at = now() - interval '2 days' where id = ${old.body.id}`;
  await spine.sql`update chores set next_at = now()`;
  const lines: unknown[] = [];
  const logger = Object.assign(Object.create(LOG), { info: (line: unknown) => lines.push(line) });
  const { STORAGE_DIR: directory, SIGNING_SECRET: secret } = spine.config;
  const storage = makeLocalStorage({ directory, publicUrl: spine.api.url, secret });
  const loops = [1, 2, 3].map(() =>
    chores({ db: spine.db, logger, storage, metrics: makeMetrics(), reach: async () => {} }, 50),
  );
  await expect
    .poll(async () => (await spine.sql`select 1 from quotes where id = ${old.body.id}`).length, { timeout: 10_000 })
    .toBe(0);
  await expect.poll(() => lines.length, { timeout: 5_000 }).toBe(4);
  await new Promise((resolve) => setTimeout(resolve, 200));
  await Promise.all(loops.map((loop) => loop.stop()));
  expect(lines).toContainEqual(expect.objectContaining({ chore: "clean", quotes: 1, news: 1 }));
  expect(lines).toContainEqual(expect.objectContaining({ chore: "conclude", models: 1 }));
  expect(lines).toHaveLength(4);
  expect([...(await spine.sql`select status from trained_models where id = ${ended}`)]).toEqual([{ status: "failed" }]);
  expect((await spine.sql`select 1 from webhook_inbox`).length).toBe(0);
  expect(await spine.sql`select 1 from rate_limits where subject = 'user:bea'`).toHaveLength(0);
  expect(await spine.sql`select 1 from quotes where id = ${fresh.body.id}`).toHaveLength(1);
});
