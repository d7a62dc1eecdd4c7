import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { createKey } from "../src/db/keys.ts";
import type { App } from "../src/domain/app.ts";
import { UNLIMITED } from "../src/domain/app.ts";
import { makeApp } from "./rig/apps.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

const small = { ...UNLIMITED, maxSide: 512, maxSteps: 10 };
const quoting = makeApp({
  id: "quoting",
  signupGrant: 50,
  overLimit: "clamp",
  plans: { free: small, paid: UNLIMITED },
  defaultPlan: "free",
});
const dearer: App["prices"][0] = {
  version: "2027-01-01",
  rules: { ...quoting.prices[0].rules, generation: { per: "variant", credits: 9 } },
  examples: [],
};

const apps: App[] = [quoting, makeApp({ id: "other", signupGrant: 50 })];
vi.setConfig({ testTimeout: 90_000 });

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ apps });
});
afterAll(() => spine?.stop());
afterEach(async () => {
  apps[0] = quoting;
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const wish = (user: string, input: Record<string, unknown> = {}) => ({
  kind: "generation",
  user,
  model: "flux-dev",
  input: { prompt: "a lighthouse", images: 2, ...input },
});
const quoteFor = (body: unknown, path = "/api/quotes") => spine.call("POST", path, { body });
const send = (body: unknown, key: string = crypto.randomUUID()) =>
  spine.call("POST", "/api/jobs", { body, headers: { "idempotency-key": key } });

test("a quote says the price line by line, what the plan takes down, and whether the credits suffice; it charges nothing", async () => {
  const { status, body } = await quoteFor(wish("ann", { steps: 28, size: "landscape" }));
  expect(status).toBe(201);
  expect(body).toMatchObject({
    credits: 2,
    lines: [{ credits: 1 }, { credits: 1 }],
    model: "flux-dev",
    plan: "free",
    priceBook: "2026-11-01",
    available: 50,
    sufficient: true,
    photos: null,
    input: { steps: 10, width: 512 },
  });
  expect(body.clamps.map((each: { pointer: string }) => each.pointer)).toEqual(["/input/size", "/input/steps"]);
  const minutes = (Date.parse(body.expiresAt) - Date.now()) / 60_000;
  expect(minutes).toBeGreaterThan(14);
  expect(minutes).toBeLessThan(16);
  expect((await spine.call("GET", "/api/credits/ann")).status).toBe(404);
  const many = await quoteFor({ kind: "video", user: "poor", input: { prompt: "x", seconds: 5, variants: 4 } });
  expect(many.body).toMatchObject({ credits: 80, available: 50, sufficient: false });
});

test("a quoted price holds although the book and the plan have changed, for every key, and the job names its quote", async () => {
  const body = wish("bea", { steps: 28 });
  const { body: quote } = await quoteFor(body);
  apps[0] = { ...quoting, prices: [dearer, ...quoting.prices] };
  await spine.call("PUT", "/api/users/bea", { body: { plan: "paid" } });
  expect((await quoteFor(body)).body).toMatchObject({ credits: 18, priceBook: "2027-01-01", plan: "paid", clamps: [] });

  const first = await send({
    ...body,
    quote: quote.id,
    metadata: { order: 7 },
    callbackUrl: "https://app.example/hook",
  });
  expect(first.status).toBe(202);
  expect(first.body).toMatchObject({
    price: { credits: 2 },
    priceBook: "2026-11-01",
    plan: "free",
    quote: quote.id,
    input: { steps: 10 },
  });
  expect(first.body.clamps).toEqual(quote.clamps);
  const second = await send({ ...body, quote: quote.id });
  expect(second.body).toMatchObject({ price: { credits: 2 } });
  expect(second.body.id).not.toBe(first.body.id);
  expect(await spine.ended(second.body.id, 60_000)).toMatchObject({
    status: "completed",
    settlement: { charged: 2, kept: 2 },
  });
  await spine.ended(first.body.id, 60_000);
});

test("a job that is under way keeps its price when the book changes", async () => {
  const job = await spine.submit(wish("cid"));
  apps[0] = { ...quoting, prices: [dearer, ...quoting.prices] };
  expect(await spine.ended(job.id, 60_000)).toMatchObject({
    price: { credits: 2 },
    priceBook: "2026-11-01",
    settlement: { charged: 2, kept: 2, refunded: 0 },
  });
});

test("a quote that has expired, or is for another request, user or app, is refused with what to do, and charges nothing", async () => {
  const body = wish("dan");
  const { body: quote } = await quoteFor(body);
  const other = await send({ ...body, input: { ...body.input, prompt: "another" }, quote: quote.id });
  expect(other).toMatchObject({ status: 422, body: { code: "invalid_input", errors: [{ pointer: "/quote" }] } });
  expect(other.body.detail).toMatch(/another request.*POST \/api\/quotes.*Nothing was charged/);
  expect(await send({ ...wish("eve"), quote: quote.id })).toMatchObject({
    status: 422,
    body: { code: "invalid_input" },
  });
  const key = await createKey(spine.db, "other", "test");
  const elsewhere = await spine.call("POST", "/api/jobs", {
    body: { ...body, quote: quote.id },
    headers: { "idempotency-key": "elsewhere" },
    key,
  });
  expect(elsewhere).toMatchObject({ status: 422, body: { errors: [{ pointer: "/quote" }] } });

  const used = await send({ ...body, quote: quote.id }, "in-time");
  expect(used.status).toBe(202);
  await spine.sql`update quotes set expires_at = now() - interval '1 second' where id = ${quote.id}`;
  const late = await send({ ...body, quote: quote.id });
  expect(late).toMatchObject({ status: 409, body: { code: "quote_expired", retryable: false } });
  expect(late.body.detail).toMatch(/POST \/api\/quotes.*Nothing was charged/);
  // What was answered in time is answered again.
  const again = await send({ ...body, quote: quote.id }, "in-time");
  expect(again.body.id).toBe(used.body.id);
  expect(again.headers.get("idempotency-replayed")).toBe("true");
  const [charges] =
    await spine.sql`select count(*)::int as n from credit_ledger where user_id = 'dan' and type = 'charge'`;
  expect(charges).toEqual({ n: 1 });
  await spine.ended(used.body.id, 60_000);
});

test("a quote for what would be refused is refused the same way, and a quote is not quoted", async () => {
  expect(await quoteFor(wish("fay", { steps: 99 }))).toMatchObject({
    status: 422,
    body: { errors: [{ pointer: "/input/steps" }] },
  });
  expect(await quoteFor(wish("fay", { trainedModel: crypto.randomUUID() }))).toMatchObject({ status: 422 });
  expect(await quoteFor({ ...wish("fay"), quote: crypto.randomUUID() })).toMatchObject({
    status: 422,
    body: { errors: [{ pointer: "/quote" }] },
  });
  expect(await quoteFor(wish("fay"), "/api/quotes?photos=check")).toMatchObject({
    status: 422,
    body: { errors: [{ pointer: "/kind" }] },
  });
});

test("a training is quoted by its formula without its photos being fetched; with photos=check each one is judged", async () => {
  const body = {
    kind: "training",
    user: "gus",
    input: {
      photos: [1, 2, 3, 4].map((each) => `https://photos.example.invalid/${each}.jpg`),
      steps: 2_000,
      resolution: 512,
    },
  };
  expect((await quoteFor(body)).body).toMatchObject({ credits: 7, model: "flux-lora-trainer" });
  const judged = await quoteFor(body, "/api/quotes?photos=check");
  expect(judged).toMatchObject({ status: 422, body: { code: "file_refused" } });
  expect(judged.body.photos).toHaveLength(4);
  expect(judged.body.photos[0]).toMatchObject({ photo: 0, verdict: "refused" });
}, 60_000);
