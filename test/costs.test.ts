import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { CATALOGUE, type Route } from "../src/domain/catalogue.ts";
import { type End, spentOn } from "../src/domain/cost.ts";
import { failure } from "../src/domain/failure.ts";
import type { JobJson } from "../src/job-json.ts";
import { makeApp } from "./rig/apps.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

const CREDIT_MICRO_USD = 10_000;
const priced = makeApp({ id: "priced", signupGrant: 1_000, creditMicroUsd: CREDIT_MICRO_USD });
const worthless = makeApp({ id: "worthless", signupGrant: 1_000 });

/** Paid by the second, and so also when it fails or is canceled. */
const SECONDS = "sdxl";
/** Paid by the picture. */
const PICTURES = "flux-schnell";

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ apps: [priced, worthless] });
});
afterAll(() => spine?.stop());
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const generation = (model: string, prompt: string) => ({ kind: "generation", model, user: "ann", input: { prompt } });
const lineOf = (run: { providerRunId: string | null } | undefined) =>
  spine.sandbox.bill().lines.find((line) => line.id === run?.providerRunId);
const lookNow = () => spine.sql`update runs set next_look_at = now() where next_look_at is not null`;

/** What we wrote down of every run, and what the provider's bill says. */
async function sums(): Promise<{ ours: number; theirs: number }> {
  const [row] = await spine.sql`select coalesce(sum(cost_micro_usd), 0)::float8 as ours from runs`;
  return { ours: row?.["ours"] as number, theirs: Math.round(spine.sandbox.bill().total.usd * 1_000_000) };
}

/** Until it has run for a moment: what is stopped before it began costs nothing. */
async function begun(id: string): Promise<void> {
  await spine.until(id, (job) => job.runs[0]?.status === "running");
  await new Promise((resolve) => setTimeout(resolve, 300));
}

describe("what runs cost is what the provider's bill says", () => {
  test("of those that succeed, fail, are refused and are canceled", async () => {
    const good = await spine.ended((await spine.submit(generation(SECONDS, "good"))).id);
    const bad = await spine.ended((await spine.submit(generation(SECONDS, "[sandbox: oom] bad"))).id);
    const free = await spine.ended((await spine.submit(generation(PICTURES, "[sandbox: nsfw] free"))).id);
    const { id } = await spine.submit(generation(SECONDS, "[sandbox: slow=60] stopped"));
    await begun(id);
    await spine.call("POST", `/api/jobs/${id}/cancel`);
    const stopped = await spine.ended(id);

    expect([good, bad, free, stopped].map((job) => job.status)).toEqual(["completed", "failed", "failed", "canceled"]);
    for (const job of [good, bad, free, stopped]) {
      const line = lineOf(job.runs[0]);
      expect(job.runs[0]?.costUsd, job.id).toBe(line?.cost_usd);
      if (job !== free) expect(line?.cost_usd).toBeGreaterThan(0);
    }
    expect(free.runs[0]?.costUsd).toBe(0);
    const rows =
      await spine.sql`select distinct cost_source from runs where job_id in ${spine.sql([good.id, bad.id, stopped.id])}`;
    expect(rows.map((row) => row["cost_source"])).toEqual(["measured"]);
    const { ours, theirs } = await sums();
    expect(ours).toBe(theirs);
  }, 60_000);

  test("of one that the provider interrupts again and again, each of its purchases", async () => {
    spine.sandbox.faults.add({ fault: "fail", times: 1, match: { promptContains: "stumbling" } });
    const job = await spine.ended((await spine.submit(generation(SECONDS, "stumbling"))).id, 30_000);
    expect(job.runs.map((run) => run.status)).toEqual(["failed", "stored"]);
    expect(job.runs[0]?.costUsd).toBe(lineOf(job.runs[0])?.cost_usd);
    expect(job.runs[0]?.costUsd).toBeGreaterThan(0);
    const { ours, theirs } = await sums();
    expect(ours).toBe(theirs);
  }, 60_000);

  test("of one that turned up after it was presumed lost and bought again", async () => {
    spine.sandbox.faults.add({ fault: "refuse_before", times: 1, match: { promptContains: "doubled" } });
    const { id } = await spine.submit(generation(SECONDS, "doubled [sandbox: slow=12]"));
    const again = await spine.until(id, (job) => job.runs[1]?.status === "running", 30_000);
    const lost = again.runs[0] as JobJson["runs"][number];
    const [row] = await spine.sql`select input, version from runs where id = ${lost.id}`;
    const late = await fetch(`${spine.sandbox.url}/v1/predictions`, {
      method: "POST",
      headers: { authorization: "Bearer r8_sandbox", "content-type": "application/json" },
      body: JSON.stringify({ version: row?.["version"], input: row?.["input"] }),
    });
    expect(late.status).toBe(201);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await lookNow();
    const isBooked = (job: JobJson) => job.endedAt !== null && job.runs[0]?.costUsd !== null;
    const job = await spine.until(id, isBooked, 45_000);
    expect(job).toMatchObject({ status: "completed", settlement: { kept: 1 } });
    expect(job.runs[0]).toMatchObject({ status: "failed", costUsd: lineOf(job.runs[0])?.cost_usd });
    expect(job.runs[0]?.costUsd).toBeGreaterThan(0);
    const { ours, theirs } = await sums();
    expect(ours).toBe(theirs);
  }, 90_000);

  test("of one whose time was over: it is told to stop first, and fails with what it took until then", async () => {
    const { id } = await spine.submit(generation(SECONDS, "[sandbox: slow=60] endless"));
    await begun(id);
    await spine.sql`update runs set expires_at = now() - interval '1 second' where job_id = ${id}`;
    await lookNow();
    const job = await spine.ended(id, 30_000);
    expect(job).toMatchObject({ status: "failed", failure: { code: "timeout" }, settlement: { refunded: 1 } });
    expect(lineOf(job.runs[0])?.status).toBe("canceled");
    expect(job.runs[0]?.costUsd).toBe(lineOf(job.runs[0])?.cost_usd);
    const { ours, theirs } = await sums();
    expect(ours).toBe(theirs);
  }, 60_000);
});

describe("a run that its provider does not know", () => {
  const aged = (id: string) => spine.sql`update runs set sent_at = now() - interval '5 minutes' where job_id = ${id}`;
  const goneSince = async (id: string) =>
    (await spine.sql`select gone_at from runs where job_id = ${id}`)[0]?.["gone_at"] as Date | null;

  test("is not given up for one 404, and goes on when it shows again", async () => {
    spine.sandbox.faults.add({ fault: "get_missing", times: 1, match: { promptContains: "blink" } });
    const { id } = await spine.submit(generation(PICTURES, "[sandbox: slow=8] blink"));
    await aged(id);
    await spine.until(id, (job) => job.runs[0]?.status === "running");
    await aged(id);
    await expect.poll(() => goneSince(id), { timeout: 10_000 }).not.toBeNull();
    await lookNow();
    await expect.poll(() => goneSince(id), { timeout: 10_000 }).toBeNull();
    expect(await spine.ended(id, 30_000)).toMatchObject({ status: "completed" });
  }, 60_000);

  test("is told to stop and given up after the second, half a minute later", async () => {
    spine.sandbox.faults.add({ fault: "get_missing", match: { promptContains: "vanish" } });
    const { id } = await spine.submit(generation(PICTURES, "[sandbox: slow=60] vanish"));
    await spine.until(id, (job) => job.runs[0]?.status === "running");
    await aged(id);
    await lookNow();
    await expect.poll(() => goneSince(id), { timeout: 10_000 }).not.toBeNull();
    // Brought forward, the second comes too early.
    await lookNow();
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect((await spine.call("GET", `/api/jobs/${id}`)).body.status).toBe("processing");
    await spine.sql`update runs set gone_at = now() - interval '31 seconds', next_look_at = now() where job_id = ${id}`;
    const job = await spine.ended(id, 15_000);
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "output_unavailable" },
      settlement: { refunded: 1 },
    });
    expect(job.runs[0]?.costUsd).toBeNull();
    await expect.poll(() => lineOf(job.runs[0])?.status).toBe("canceled");
    const { body } = await spine.call("GET", `/api/jobs/${id}/timeline`);
    expect(JSON.stringify(body)).toContain("cancel_sent");
  }, 60_000);
});

describe("what is left of a price", () => {
  test("is told for a job, with each of its runs", async () => {
    const { id } = await spine.submit(generation(PICTURES, "a margin"));
    const before = await spine.call("GET", `/api/jobs/${id}/costs`);
    expect(before.status).toBe(200);
    const job = await spine.ended(id);
    const { body } = await spine.call("GET", `/api/jobs/${id}/costs`);
    expect(body).toEqual({
      credits: { charged: 1, kept: 1, refunded: 0 },
      providerUsd: 0.003,
      wastedUsd: 0,
      marginUsd: 0.007,
      runs: [
        {
          id: job.runs[0]?.id,
          provider: "sandbox",
          model: "black-forest-labs/flux-schnell",
          status: "stored",
          seconds: expect.any(Number),
          costUsd: 0.003,
          source: "measured",
        },
      ],
    });
    expect((await spine.call("GET", `/api/jobs/${crypto.randomUUID()}/costs`)).status).toBe(404);
  });

  test("is not told where nobody says what a credit brings in", async () => {
    const key = await spine.keyFor("worthless");
    const answer = await spine.call("POST", "/api/jobs", {
      body: generation(PICTURES, "no margin"),
      headers: { "idempotency-key": crypto.randomUUID() },
      key,
    });
    const { id } = answer.body;
    await expect
      .poll(async () => (await spine.call("GET", `/api/jobs/${id}/costs`, { key })).body, { timeout: 20_000 })
      .toMatchObject({ credits: { kept: 1 }, providerUsd: 0.003, marginUsd: null });
    const { body } = await spine.call("GET", "/api/costs?by=model", { key });
    expect(body.costs).toEqual([
      expect.objectContaining({ value: PICTURES, jobs: 1, providerUsd: 0.003, wastedUsd: 0, marginUsd: null }),
    ]);
  });

  test("is added up, and what was bought from whom is listed by day, what failed included", async () => {
    const { body } = await spine.call("GET", "/api/costs?by=model");
    const of = (model: string) => body.costs.find((each: { value: string }) => each.value === model);
    for (const model of [SECONDS, PICTURES]) {
      const { credits, providerUsd, marginUsd } = of(model);
      expect(marginUsd).toBeCloseTo((credits * CREDIT_MICRO_USD) / 1_000_000 - providerUsd, 6);
    }
    expect(of(SECONDS).wastedUsd).toBeGreaterThan(0);
    expect(of(PICTURES).wastedUsd).toBe(0);

    const { body: bought } = await spine.call("GET", "/api/costs/providers");
    const lines = bought.spending as { day: string; model: string; providerUsd: number; [name: string]: unknown }[];
    expect(new Set(lines.map((line) => line.day)).size).toBeLessThanOrEqual(2);
    expect(lines.every((line) => line["provider"] === "sandbox")).toBe(true);
    const sum = (name: string, model: string) =>
      lines.filter((line) => line.model.includes(model)).reduce((total, line) => total + Number(line[name]), 0);
    expect(sum("providerUsd", "sdxl")).toBeCloseTo(of(SECONDS).providerUsd, 6);
    expect(sum("canceled", "sdxl")).toBe(1);
    expect(sum("orphaned", "sdxl")).toBe(1);
    expect(sum("failed", "sdxl")).toBeGreaterThanOrEqual(3);
    // The one that its provider did not know any more.
    expect(sum("unpriced", "flux")).toBe(1);
    for (const query of ["from=2025-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "by=user"])
      expect((await spine.call("GET", `/api/costs/providers?${query}`)).status).toBe(422);
  });
});

describe("a cost", () => {
  const AT = new Date("2026-12-01");
  const route = (per: Route["costs"][0]["per"], microUsd: number): Route => ({
    api: "x",
    model: "a/b",
    input: () => ({}),
    costs: [{ from: "2026-11-01", per, microUsd }],
  });
  const succeeded = (seconds: number | null, costMicroUsd: number | null = null): End => ({
    status: "succeeded",
    outputs: ["https://x/0", "https://x/1"],
    seconds,
    costMicroUsd,
    trainedVersion: null,
  });
  const failed: End = { status: "failed", failure: failure("provider_failed", "x"), seconds: 4, costMicroUsd: null };

  test("is what the provider reports, whatever we would have measured", () => {
    expect(spentOn(route("output", 100), AT, {}, succeeded(2, 77.4))).toEqual({
      seconds: 2,
      costMicroUsd: 77,
      costSource: "reported",
    });
    expect(spentOn(null, AT, {}, succeeded(2, 0))).toMatchObject({ costMicroUsd: 0, costSource: "reported" });
  });

  test("is otherwise measured by outputs, pixels, seconds or seconds of film", () => {
    const cost = (per: Route["costs"][0]["per"], input = {}) =>
      spentOn(route(per, 100), AT, input, succeeded(3)).costMicroUsd;
    expect([cost("output"), cost("second")]).toEqual([200, 300]);
    expect([cost("film_second", { duration: 5 }), cost("film_second", { duration: "10" })]).toEqual([1_000, 2_000]);
    expect(cost("megapixel")).toBe(200);
    for (const size of [
      { width: 500, height: 1_000 },
      { image_size: { width: 500, height: 1_000 } },
      { size: "500*1000" },
    ])
      expect(cost("megapixel", size)).toBe(100);
  });

  test("of what failed or was canceled is its seconds where seconds are paid, and nothing where outputs are", () => {
    expect(spentOn(route("second", 100), AT, {}, failed)).toMatchObject({ costMicroUsd: 400, costSource: "measured" });
    expect(spentOn(route("output", 100), AT, {}, failed).costMicroUsd).toBe(0);
    const canceled: End = { status: "canceled", seconds: null, costMicroUsd: null };
    expect(spentOn(route("second", 100), AT, {}, canceled).costMicroUsd).toBe(0);
  });

  test("of a model that has left the catalogue is nobody's to tell", () => {
    expect(spentOn(null, AT, {}, succeeded(3))).toEqual({ seconds: 3, costMicroUsd: null, costSource: null });
    expect(CATALOGUE.every((model) => model.routes.every(({ costs }) => costs.length > 0))).toBe(true);
  });
});
