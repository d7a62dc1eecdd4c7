import { v7 as uuidv7 } from "uuid";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { makeLogger, makeParts } from "../src/compose.ts";
import { learnSeconds } from "../src/db/catalogue-state.ts";
import { STYLES } from "../src/domain/styles.ts";
import { makeReplicate } from "../src/providers/replicate.ts";
import { catalogue, routesOf } from "../src/workers/catalogue.ts";
import type { Loop } from "../src/workers/loop.ts";
import { makeApp } from "./rig/apps.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

const shop = makeApp({
  id: "shop",
  signupGrant: 1_000,
  models: { generation: { default: "flux-dev", allowed: ["flux-dev", "flux-schnell", "sdxl"] } },
});
const LOG = makeLogger({ LOG_LEVEL: "silent" }, "test");

vi.setConfig({ testTimeout: 90_000 });

let spine: Spine;
let parts: ReturnType<typeof makeParts>;
const loops: Loop[] = [];
const errors: unknown[] = [];
beforeAll(async () => {
  spine = await startSpine({ apps: [shop] });
  parts = makeParts(spine.config, LOG, "test");
});
afterAll(async () => {
  await parts?.close();
  await spine?.stop();
});
afterEach(async () => {
  await Promise.all(loops.splice(0).map((loop) => loop.stop()));
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

function startLoop(routes = routesOf(parts)): void {
  const logger = Object.assign(Object.create(LOG), { error: (line: unknown) => errors.push(line) });
  loops.push(catalogue({ ...parts, logger }, { firstMs: 0, everyMs: 100, routes }));
}

const FLUX = "black-forest-labs/flux-dev";
const wish = (model?: string) => ({
  kind: "generation",
  user: "ann",
  input: { prompt: "a fox" },
  ...(model ? { model } : {}),
});
const send = (body: unknown, key: string = crypto.randomUUID()) =>
  spine.call("POST", "/api/jobs", { body, headers: { "idempotency-key": key } });
const stateOf = async (model: string) =>
  (await spine.sql`select * from catalogue_state where model = ${model} and not is_training`)[0];
const models = async (query = "") => (await spine.call("GET", `/api/models${query}`)).body.models;

test("the models of the app are listed with their limits and what they cost by its book", async () => {
  const listed = await models();
  const aliases = listed.map(({ alias }: { alias: string }) => alias);
  expect(aliases).toEqual(expect.arrayContaining(["flux-dev", "sdxl", "flux-kontext-pro", "flux-lora-trainer"]));
  expect(aliases).not.toContain("flux-dev-lora");
  const dev = listed.find(({ alias }: { alias: string }) => alias === "flux-dev");
  expect(dev).toMatchObject({
    kinds: ["generation"],
    defaultFor: ["generation"],
    limits: { steps: { min: 1, max: 50, default: 28 } },
    credits: [{ kind: "generation", credits: 1 }],
    expectedSeconds: { p50: 5, p95: 30, samples: 0 },
    status: "ok",
    routes: [{ provider: "sandbox", name: FLUX, status: "ok" }],
  });
  for (const { alias, credits } of listed) expect([alias, credits.length]).toEqual([alias, credits.length || 1]);
  const films = await models("?kind=video");
  expect(films.length).toBeGreaterThan(1);
  for (const film of films) expect(film.kinds).toContain("video");
  expect((await spine.call("GET", "/api/models?kind=poem")).status).toBe(422);
});

test("styles are listed without their part of the prompt, prices with rules, examples and plans", async () => {
  const styles = await spine.call("GET", "/api/styles?kind=staging");
  expect(styles.body.styles).toContainEqual({ id: "modern", kind: "staging", title: "Modern" });
  for (const { prompt } of STYLES) expect(JSON.stringify(styles.body)).not.toContain(prompt);
  expect((await spine.call("GET", "/api/styles")).body.styles).toHaveLength(STYLES.length);
  const { body } = await spine.call("GET", "/api/prices");
  expect(body.book).toMatchObject({ version: "2026-11-01" });
  expect(body.book.rules).toContainEqual({ kind: "staging", per: "variant", credits: 20 });
  expect(body.book.examples.length).toBeGreaterThan(2);
  expect(body.plans).toEqual([expect.objectContaining({ name: "default", isDefault: true, maxSteps: null })]);
});

test("every route is asked for once, however many workers there are", async () => {
  startLoop();
  startLoop();
  startLoop();
  const routes = routesOf(parts);
  const checked = async () => (await spine.sql`select 1 from catalogue_state where checked_at is not null`).length;
  await expect.poll(checked, { timeout: 20_000 }).toBe(routes.length);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(await spine.sql`select 1 from catalogue_state where status = 'ok'`).toHaveLength(routes.length);
  const checks = await parts.metrics.modelChecks.get();
  expect(checks.values.reduce((sum, { value }) => sum + value, 0)).toBe(routes.length);
  expect((await stateOf("stability-ai/sdxl"))?.["version"]).toMatch(/^[0-9a-f]{64}$/);
  // A day later at the earliest nine tenths of it.
  const [next] = await spine.sql`select min(check_at) > now() + interval '20 hours' as late from catalogue_state`;
  expect(next).toEqual({ late: true });
});

test("a model that has vanished is marked before users meet it: submissions are refused and name others, until it is back", async () => {
  const before = await send(wish(), "before");
  await spine.ended(before.body.id, 60_000);
  const rule = spine.sandbox.faults.add({ fault: "vanished", match: { model: FLUX } });
  startLoop();
  await spine.sql`update catalogue_state set check_at = now() where model = ${FLUX}`;
  await expect.poll(async () => (await stateOf(FLUX))?.["status"], { timeout: 15_000 }).toBe("gone");
  expect(errors).toContainEqual(expect.objectContaining({ provider: "sandbox", model: FLUX }));
  await expect.poll(async () => (await parts.metrics.modelsGone.get()).values[0]?.value, { timeout: 5_000 }).toBe(1);

  await expect
    .poll(async () => (await spine.call("POST", "/api/quotes", { body: wish() })).status, { timeout: 15_000 })
    .toBe(503);
  const refused = await send(wish());
  expect(refused).toMatchObject({
    status: 503,
    body: { code: "model_gone", retryable: false, models: ["flux-schnell", "sdxl"], errors: [{ pointer: "/model" }] },
  });
  expect(refused.body.detail).toMatch(/flux-schnell, sdxl.*Nothing was charged/);
  const [charges] = await spine.sql`select count(*)::int as n from credit_ledger where type = 'charge'`;
  expect(charges).toEqual({ n: 1 });
  // What was answered before is answered again.
  expect((await send(wish(), "before")).body.id).toBe(before.body.id);
  const other = await send(wish("flux-schnell"));
  expect(other.status).toBe(202);
  const listed = await models("?kind=generation");
  expect(listed.find(({ alias }: { alias: string }) => alias === "flux-dev").status).toBe("gone");
  // Asked for again soon, unlike those that are there.
  expect((await stateOf(FLUX))?.["check_at"].getTime()).toBeLessThan(Date.now() + 400_000);

  spine.sandbox.faults.remove(rule.id);
  await spine.sql`update catalogue_state set check_at = now() where model = ${FLUX}`;
  await expect.poll(async () => (await stateOf(FLUX))?.["status"], { timeout: 10_000 }).toBe("ok");
  await expect
    .poll(async () => (await spine.call("POST", "/api/quotes", { body: wish() })).status, { timeout: 15_000 })
    .toBe(201);
  await spine.ended(other.body.id, 60_000);
}, 90_000);

test("an order that does not find its model has it asked for at once; one answer alone is not believed", async () => {
  await spine.sql`update catalogue_state set checked_at = now() - interval '1 hour', check_at = now() + interval '1 hour'`;
  // Once for the order, once for the first question of the check; by the second one it is there.
  const model = "stability-ai/sdxl";
  await spine.sql`update catalogue_state set version = null where model = ${model} and not is_training`;
  spine.sandbox.faults.add({ fault: "vanished", match: { model }, times: 2 });
  const job = await send(wish("sdxl"));
  expect(await spine.ended(job.body.id, 60_000)).toMatchObject({
    status: "failed",
    failure: { code: "model_not_found" },
    settlement: { kept: 0 },
  });
  const suspected = await stateOf(model);
  expect(suspected?.["check_at"].getTime()).toBeLessThan(Date.now() + 1_000);
  startLoop();
  await expect.poll(async () => (await stateOf(model))?.["version"], { timeout: 10_000 }).toMatch(/^[0-9a-f]{64}$/);
  expect((await stateOf(model))?.["status"]).toBe("ok");
});

test("a provider that does not answer changes nothing of what is known", async () => {
  spine.sandbox.faults.add({ fault: "down" });
  startLoop();
  await spine.sql`update catalogue_state set check_at = now() where model = ${FLUX}`;
  await expect.poll(async () => (await stateOf(FLUX))?.["detail"] ?? "", { timeout: 30_000 }).not.toBe("");
  expect((await stateOf(FLUX))?.["status"]).toBe("ok");
}, 60_000);

test("a pin is asked for by its version when freshness is wanted", async () => {
  const provider = makeReplicate({ name: "sandbox", token: "r8_sandbox", baseUrl: `${spine.sandbox.url}/v1` });
  const found = await provider.resolve("stability-ai/sdxl");
  if (found.outcome !== "resolved") throw new Error("sdxl is not there");
  const pin = `stability-ai/sdxl:${found.version}`;
  expect(await provider.resolve(pin, { fresh: true })).toEqual({ outcome: "resolved", version: found.version });
  const lost = `stability-ai/sdxl:${"0".repeat(64)}`;
  expect(await provider.resolve(lost)).toMatchObject({ outcome: "resolved" });
  expect(await provider.resolve(lost, { fresh: true })).toMatchObject({
    outcome: "declined",
    failure: { code: "model_not_found" },
  });
});

test("the version of a pin is checked like any name: gone while the provider does not have it, and there again", async () => {
  const provider = makeReplicate({ name: "sandbox", token: "r8_sandbox", baseUrl: `${spine.sandbox.url}/v1` });
  const found = await provider.resolve("stability-ai/sdxl");
  if (found.outcome !== "resolved") throw new Error("sdxl is not there");
  const pins = [found.version, "0".repeat(64)].map((version) => `stability-ai/sdxl:${version}`);
  const [pin = "", deleted = ""] = pins;
  startLoop(pins.map((model) => ({ provider: "sandbox", model, isTraining: false })));
  // The model is there; the version that nobody has is gone before anything was ordered of it.
  const statusOf = async (model: string) => (await stateOf(model))?.["status"];
  await expect.poll(async () => (await stateOf(pin))?.["version"], { timeout: 10_000 }).toBe(found.version);
  await expect.poll(() => statusOf(deleted), { timeout: 10_000 }).toBe("gone");
  expect(await statusOf(pin)).toBe("ok");
  expect(errors).toContainEqual(expect.objectContaining({ provider: "sandbox", model: deleted }));

  // A day later.
  const rule = spine.sandbox.faults.add({ fault: "vanished", match: { model: "stability-ai/sdxl" } });
  const again = () => spine.sql`update catalogue_state set check_at = now() where model = ${pin}`;
  await again();
  await expect.poll(() => statusOf(pin), { timeout: 10_000 }).toBe("gone");
  spine.sandbox.faults.remove(rule.id);
  await again();
  await expect.poll(() => statusOf(pin), { timeout: 10_000 }).toBe("ok");
  await spine.sql`delete from catalogue_state where model = any(${pins})`;
});

test("how long a model takes is learned from its runs, once there are twenty", async () => {
  const job = await send(wish("flux-schnell"));
  await spine.ended(job.body.id, 60_000);
  const addRun = (attempt: number) => spine.sql`
    insert into runs (id, job_id, variant, attempt, status, provider, model, input, expires_at, sent_at, ended_at)
    select ${uuidv7()}, job_id, variant, ${attempt}, 'stored', provider, model, input, expires_at,
      now() - interval '1 minute', now() - interval '1 minute' + make_interval(secs => ${attempt})
    from runs where job_id = ${job.body.id} and attempt = 1`;
  for (let attempt = 2; attempt <= 15; attempt++) await addRun(attempt);
  expect(await learnSeconds(spine.db)).toBe(0);
  for (let attempt = 16; attempt <= 40; attempt++) await addRun(attempt);
  expect(await learnSeconds(spine.db)).toBe(1);
  const schnell = async () =>
    (await models()).find(({ alias }: { alias: string }) => alias === "flux-schnell").expectedSeconds;
  await expect.poll(async () => (await schnell()).samples, { timeout: 15_000 }).toBeGreaterThanOrEqual(39);
  expect((await schnell()).p50).toBeCloseTo(20, -1);
  expect((await schnell()).p95).toBeGreaterThan(35);
  await spine.sql`delete from runs where attempt > 1`;
}, 40_000);
