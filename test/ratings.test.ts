import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { createKey } from "../src/db/keys.ts";
import { intervalOf } from "../src/domain/interval.ts";
import { makeApp } from "./rig/apps.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

const rated = makeApp({
  id: "rated",
  signupGrant: 1_000,
  experiments: {
    wording: {
      kind: "generation",
      arms: [
        { name: "plain", weight: 1 },
        { name: "golden", weight: 1, promptSuffix: "in golden light", set: { goFast: false } },
      ],
    },
  },
});

vi.setConfig({ testTimeout: 90_000 });

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ apps: [rated, makeApp({ id: "other", signupGrant: 10 })] });
});
afterAll(() => spine?.stop());
afterEach(async () => {
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const wish = (user: string, more: Record<string, unknown> = {}) => ({
  kind: "generation",
  user,
  input: { prompt: "a lighthouse" },
  ...more,
});
const rate = (id: string, variant: number | string, body: unknown) =>
  spine.call("PUT", `/api/jobs/${id}/ratings/${variant}`, { body });

test("a delivered result is rated, the last word counts, and the job shows it", async () => {
  const job = await spine.submit({ ...wish("ann"), input: { prompt: "two foxes", images: 2 } });
  expect(await rate(job.id, 0, { score: 5 })).toMatchObject({ status: 404, body: { code: "not_found" } });
  await spine.ended(job.id, 60_000);
  expect(await rate(job.id, 1, { score: 2, comment: " too dark " })).toMatchObject({
    status: 200,
    body: { job: job.id, variant: 1, score: 2, comment: "too dark" },
  });
  await rate(job.id, 1, { score: 4 });
  await rate(job.id, 1, { score: 4 });
  const { body } = await spine.call("GET", `/api/jobs/${job.id}`);
  expect(body.results.map((each: { rating: unknown }) => each.rating)).toEqual([
    null,
    { score: 4, comment: "", at: expect.any(String) },
  ]);
});

test("what was not delivered, is another app's, or is no rating is refused", async () => {
  const job = await spine.submit(wish("bob"));
  await spine.ended(job.id, 60_000);
  expect((await rate(job.id, 1, { score: 5 })).body.detail).toMatch(/delivered no result 1/);
  expect((await rate(crypto.randomUUID(), 0, { score: 5 })).status).toBe(404);
  for (const body of [{ score: 0 }, { score: 6 }, { score: 2.5 }, {}, { score: 3, comment: "x".repeat(1_001) }])
    expect((await rate(job.id, 0, body)).status).toBe(422);
  const key = await createKey(spine.db, "other", "test");
  const other = await spine.call("PUT", `/api/jobs/${job.id}/ratings/0`, { body: { score: 1 }, key });
  expect(other.status).toBe(404);
});

test("each user of an experiment stays with his arm, and the arms are compared by their ratings", async () => {
  const users = Array.from({ length: 12 }, (_, index) => `user-${index}`);
  const jobs = await Promise.all(users.map((user) => spine.submit(wish(user, { experiment: "wording" }))));
  const again = await spine.submit(wish("user-0", { experiment: "wording" }));
  expect(again.arm).toBe(jobs[0]?.arm);
  for (const job of [...jobs, again]) {
    expect(job.experiment).toBe("wording");
    expect(job.input).toMatchObject(
      job.arm === "golden" ? { prompt: "a lighthouse", goFast: false } : { prompt: "a lighthouse" },
    );
    const ended = await spine.ended(job.id, 60_000);
    // The words of an arm are the app's own: users do not read them, the provider does.
    expect(JSON.stringify([job, ended])).not.toContain("golden light");
    const [run] = await spine.sql`select input ->> 'prompt' as prompt from runs where job_id = ${job.id}`;
    expect(run?.["prompt"]).toBe(job.arm === "golden" ? "a lighthouse in golden light" : "a lighthouse");
  }
  const plain = jobs.filter(({ arm }) => arm === "plain");
  const golden = jobs.filter(({ arm }) => arm === "golden");
  expect(Math.min(plain.length, golden.length)).toBeGreaterThan(1);
  for (const [index, { id }] of plain.entries()) await rate(id, 0, { score: index % 2 === 0 ? 2 : 3 });
  for (const { id } of golden) await rate(id, 0, { score: 5 });

  const { status, body } = await spine.call("GET", "/api/experiments/wording");
  expect(status).toBe(200);
  const [first, second] = body.arms;
  expect(first).toMatchObject({ arm: "plain", weight: 1, failed: 0, ratings: { count: plain.length } });
  expect(first.ratings.interval.low).toBeLessThan(first.ratings.mean);
  expect(first.ratings.interval.high).toBeGreaterThan(first.ratings.mean);
  expect(second).toMatchObject({
    arm: "golden",
    ratings: { count: golden.length, mean: 5, interval: { low: 5, high: 5 } },
  });
  expect(first.jobs + second.jobs).toBe(13);
  expect(first.completed + second.completed).toBe(13);
  expect(first.meanSeconds).toBeGreaterThan(0);
  expect((await spine.call("GET", "/api/experiments/nothing")).body).toMatchObject({
    code: "not_found",
    detail: expect.stringContaining("wording"),
  });
  const key = await createKey(spine.db, "other", "test");
  expect((await spine.call("GET", "/api/experiments/wording", { key })).status).toBe(404);
});

test("the 95 % interval of a mean is Student's", () => {
  const wide = { low: -100, high: 100 };
  expect(intervalOf(1, 3, 1, wide)).toBeNull();
  // Tables: 12.706 with 1 degree of freedom, 2.776 with 4, 2.262 with 9, 1.984 with 99.
  for (const [count, quantile] of [
    [2, 12.706],
    [5, 2.776],
    [10, 2.262],
    [100, 1.984],
  ] as const)
    expect(intervalOf(count, 0, Math.sqrt(count), wide)?.high).toBeCloseTo(quantile, 1);
  expect(intervalOf(2, 4.5, 0.7, { low: 1, high: 5 })).toEqual({ low: 1, high: 5 });
});

test("jobs are found by experiment and by what was noted on them, and what they cost is added up by it", async () => {
  const noted = (campaign: unknown, more: Record<string, unknown> = {}) =>
    spine.submit(wish("cid", { metadata: { campaign, ...more } }));
  const spring = [await noted("spring"), await noted("spring", { vip: true }), await noted("autumn")];
  const seven = await noted(7);
  await Promise.all([...spring, seven].map(({ id }) => spine.ended(id, 60_000)));
  const find = async (query: string) => {
    const { body } = await spine.call("GET", `/api/jobs?${query}`);
    return (body.jobs as { id: string }[]).map(({ id }) => id);
  };
  expect(await find("metadata.campaign=spring")).toEqual([spring[1]?.id, spring[0]?.id]);
  expect(await find("metadata.campaign=spring&metadata.vip=true")).toEqual([spring[1]?.id]);
  expect(await find("metadata.campaign=7")).toEqual([seven.id]);
  expect(await find("metadata.campaign=spring&user=nobody")).toEqual([]);
  expect(await find("experiment=wording&limit=100")).toHaveLength(13);
  const page = await spine.call("GET", "/api/jobs?metadata.campaign=spring&limit=1");
  expect(page.headers.get("link")).toContain("metadata.campaign=spring");
  expect(await spine.call("GET", "/api/jobs?campaign=spring")).toMatchObject({
    status: 422,
    body: { errors: [{ pointer: expect.stringMatching(/campaign/) }] },
  });
  expect((await spine.call("GET", "/api/jobs?metadata.a%00=x")).status).toBe(422);

  const { body } = await spine.call("GET", "/api/costs?by=metadata.campaign");
  expect(body).toMatchObject({ by: "metadata.campaign", more: false });
  const costs = Object.fromEntries(body.costs.map((each: { value: string | null }) => [each.value, each]));
  expect(costs["spring"]).toMatchObject({ jobs: 2, credits: 2, reserved: 0, providerUsd: 0.006 });
  expect(costs["autumn"]).toMatchObject({ jobs: 1, credits: 1, providerUsd: 0.003 });
  expect(costs["7"]).toMatchObject({ jobs: 1 });
  expect(costs["null"].jobs).toBeGreaterThan(13);
  const byKind = await spine.call("GET", "/api/costs?by=kind");
  expect(byKind.body.costs).toHaveLength(1);
  const before = await spine.call("GET", "/api/costs?by=user&from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z");
  expect(before.body.costs).toEqual([]);
  for (const query of ["by=secret", "by=metadata.", "by=user&from=2025-01-01T00:00:00Z&to=2026-01-01T00:00:00Z"])
    expect((await spine.call("GET", `/api/costs?${query}`)).status).toBe(422);
});

test("a job shows the caller's own file, unaltered, beside what was made of it", async () => {
  const sharp = (await import("sharp")).default;
  const room = await sharp({ create: { width: 640, height: 480, channels: 3, background: "#998877" } })
    .jpeg()
    .toBuffer();
  const upload = await spine.call("POST", "/api/uploads", { body: room, headers: { "content-type": "image/jpeg" } });
  const job = await spine.submit({ kind: "staging", user: "dan", input: { image: upload.body.id } });
  expect(job.inputs["image"]).toMatchObject({ width: 640, height: 480, sha256: upload.body.sha256 });
  const ended = await spine.ended(job.id, 60_000);
  expect(ended.results).toHaveLength(2);
  const kept = await fetch(ended.inputs["image"]?.url ?? "");
  expect(Buffer.from(await kept.arrayBuffer()).equals(room)).toBe(true);
  const listed = await spine.call("GET", "/api/jobs?kind=staging");
  expect(listed.body.jobs[0].inputs.image.sha256).toBe(upload.body.sha256);
});
