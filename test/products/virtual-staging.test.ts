import sharp from "sharp";
import { Webhook } from "standardwebhooks";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { CATALOGUE } from "../../src/domain/catalogue.ts";
import { type Spine, startSpine } from "../rig/spine.ts";
import { type Client, clientOf, download } from "./client.ts";

let spine: Spine;
let client: Client;
beforeAll(async () => {
  spine = await startSpine({ app: "virtual-staging" });
  client = clientOf(spine);
});
afterAll(() => spine?.stop());
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const isOver = (body: { status: string }) => ["completed", "failed"].includes(body.status);

/** As the product's front end does: stage, then ask our job every moment until it is over. */
async function stage(userId: string, more: Record<string, unknown> = {}) {
  const image = await client.upload(1, 900, 600);
  const body = { userId, originalImageUrl: image, style: "scandinavian", roomType: "living_room", ...more };
  return client.post("/api/stage", body);
}
const ended = (jobId: string) => client.poll(() => client.get(`/api/jobs/${jobId}`), isOver);
const synced = async (jobId: string) => (await client.post("/api/sync-staging", { jobId })).body;

test("a room is staged in two variants, for 40 credits, and the new balance is told", async () => {
  const answer = await stage("ann", { sessionId: "s-1", generationNumber: 1 });
  expect(answer).toMatchObject({
    status: 200,
    body: {
      success: true,
      status: "pending",
      progress: 0,
      resultUrls: [],
      creditsUsed: 40,
      newBalance: 80,
      error: null,
    },
  });
  expect(answer.body.metadata).toEqual({ sessionId: "s-1", generationNumber: 1 });

  const job = await ended(answer.body.jobId);
  expect(job).toMatchObject({ status: "completed", progress: 1 });
  expect(job.resultUrls).toHaveLength(2);
  const [one, two] = await Promise.all(job.resultUrls.map(download));
  expect(Buffer.compare(one as Buffer, two as Buffer)).not.toBe(0);
  expect(await sharp(one as Buffer).metadata()).toMatchObject({ width: 900, height: 600 });
  expect(new Set(job.results.map(({ seed }: { seed: number }) => seed)).size).toBe(2);

  const old = await synced(answer.body.jobId);
  expect(old).toMatchObject({ status: "completed", progress: 100, creditsUsed: 40, newBalance: 80 });
  expect(old.stagedUrls).toHaveLength(2);
  const ids = job.runs.map(({ providerRunId }: { providerRunId: string }) => providerRunId);
  expect(old.replicateJobId).toBe(ids.join(","));
});

test("its own words for rooms and fields are taken, and what is wrong is told in them", async () => {
  const image = await client.upload(2);
  const { body } = await client.post("/api/stage", {
    userId: "bea",
    imageUrl: image,
    style: "Modern",
    roomType: "office",
  });
  expect((await ended(body.jobId)).input).toMatchObject({ room: "home_office", style: "modern" });

  const wrong = await client.post("/api/stage", { userId: "bea", imageUrl: image, style: "baroque" });
  expect(wrong).toMatchObject({
    status: 422,
    body: { success: false, code: "invalid_input", errors: [{ pointer: "/style" }] },
  });
  expect(wrong.body.error).toMatch(/scandinavian/);
  expect(wrong.body.error).toBe(wrong.body.detail);
  const room = await client.post("/api/stage", { userId: "bea", imageUrl: image, roomType: "garage" });
  expect(room.body.errors).toMatchObject([{ pointer: "/roomType" }]);
  const none = await client.post("/api/stage", { userId: "bea", style: "modern" });
  expect(none).toMatchObject({ status: 422, body: { errors: [{ pointer: "/originalImageUrl" }] } });
  const nobody = await client.post("/api/stage", { imageUrl: image });
  expect(nobody).toMatchObject({ status: 422, body: { errors: [{ pointer: "/userId" }] } });
  const missing = await client.post("/api/stage", { userId: "bea", imageUrl: crypto.randomUUID() });
  expect(missing).toMatchObject({ status: 422, body: { code: "file_refused", errors: [{ pointer: "/imageUrl" }] } });
  expect(await client.available("bea")).toBe(80);
});

test("who cannot pay is told what is missing, and nothing is bought", async () => {
  for (let room = 0; room < 3; room++) await ended((await stage("cas")).body.jobId);
  const before = spine.sandbox.bill().lines.length;
  const refused = await stage("cas");
  expect(refused).toMatchObject({ status: 402, body: { code: "insufficient_credits", required: 40, available: 0 } });
  expect(spine.sandbox.bill().lines).toHaveLength(before);
});

describe("asked about by every id that the product may hold", () => {
  test("answers in the provider's words", async () => {
    const { body } = await stage("dan", { prompt: "[sandbox: slow=3]" });
    const running = await client.poll(
      () => client.get(`/api/replicate/status/${body.jobId}`),
      (each) => each.predictions.length === 2 && each.predictions.every(({ id }: { id: string | null }) => id),
    );
    expect(running).toMatchObject({ id: body.jobId, jobId: body.jobId, output: null, error: null });
    const [first] = running.predictions;
    expect(first.status).toMatch(/starting|processing/);
    const one = await client.poll(
      () => client.get(`/api/replicate/status/${first.id}`),
      ({ status }) => status === "succeeded",
    );
    expect(one).toMatchObject({ id: first.id, jobId: body.jobId });
    expect(one.output).toHaveLength(1);
    const job = await ended(body.jobId);
    const byRun = await client.get(`/api/replicate/status/${job.runs[1].id}`);
    expect(byRun.body).toMatchObject({ jobId: body.jobId, status: "succeeded" });
    expect((await client.get(`/api/replicate/status/${body.jobId}`)).body.output).toHaveLength(2);
  });

  test("does not know what is another app's, or nobody's", async () => {
    const { body } = await stage("eve");
    const job = await ended(body.jobId);
    const key = await spine.keyFor("image-studio");
    for (const id of [body.jobId, job.runs[0].id, job.runs[0].providerRunId])
      expect(await spine.call("GET", `/api/replicate/status/${id}`, { key })).toMatchObject({ status: 404 });
    expect(await spine.call("POST", "/api/sync-staging", { key, body: { jobId: body.jobId } })).toMatchObject({
      status: 404,
    });
    for (const id of ["nothing", crypto.randomUUID(), "a,b"])
      expect(await client.get(`/api/replicate/status/${id}`)).toMatchObject({
        status: 404,
        body: { code: "not_found" },
      });
    expect(await spine.call("GET", `/api/replicate/status/${body.jobId}`, { key: null })).toMatchObject({
      status: 401,
    });
  });
});

describe("a client without an Idempotency-Key is never refused for it", () => {
  const body = async () => ({ userId: "flo", originalImageUrl: await client.upload(3), style: "modern" });

  test("and with one, or with X-Request-Id, is charged once", async () => {
    const same = await body();
    const keyed = { "idempotency-key": "order-1" };
    const traced = { "x-request-id": "trace-1" };
    const [one, two] = [await client.post("/api/stage", same, keyed), await client.post("/api/stage", same, keyed)];
    expect(two.body.jobId).toBe(one.body.jobId);
    expect(two.headers.get("idempotency-replayed")).toBe("true");
    const [three, four] = [
      await client.post("/api/stage", same, traced),
      await client.post("/api/stage", same, traced),
    ];
    expect(four.body.jobId).toBe(three.body.jobId);
    expect(three.body.jobId).not.toBe(one.body.jobId);
    // One id for everything that a page view leads to: another body is another job.
    const other = await client.post("/api/stage", { ...same, style: "luxury" }, traced);
    expect(other.status).toBe(200);
    expect(other.body.jobId).not.toBe(three.body.jobId);
    expect(await client.available("flo")).toBe(0);
    await Promise.all([one, three, other].map((each) => ended(each.body.jobId)));
  });

  test("every call is a job of its own", async () => {
    const same = { ...(await body()), userId: "gil" };
    const jobs = [await client.post("/api/stage", same), await client.post("/api/stage", same)];
    expect(new Set(jobs.map((each) => each.body.jobId)).size).toBe(2);
    expect(await client.available("gil")).toBe(40);
    await Promise.all(jobs.map((each) => ended(each.body.jobId)));
  });
});

describe("the five pitfalls of the product's guide do not exist:", () => {
  test("hardcoded versions. Models are bought by their name, and the catalogue pins none", async () => {
    const pinned = CATALOGUE.flatMap(({ routes }) => routes.filter(({ model }) => model.includes(":")));
    expect(pinned).toEqual([]);
    const job = await ended((await stage("hal")).body.jobId);
    expect(job.runs.map(({ model }: { model: string }) => model)).toEqual(
      Array(2).fill("black-forest-labs/flux-kontext-pro"),
    );
  });

  test("webhooks that do not come in development. The provider is asked, and nobody needs to call back", async () => {
    const { body } = await stage("ida");
    expect((await ended(body.jobId)).status).toBe("completed");
    expect(await spine.sql`select 1 from webhook_inbox`).toHaveLength(0);
  });

  test("the second variant forgotten. One that is done is no job that is done", async () => {
    const seen: string[] = [];
    spine.sandbox.faults.add({ fault: "slow", times: 1, ms: 3_000, match: {} });
    const { body } = await stage("jon");
    const done = await client.poll(async () => {
      const answer = await client.get(`/api/jobs/${body.jobId}`);
      seen.push(`${answer.body.status} ${answer.body.results.filter((each: { file: unknown }) => each.file).length}`);
      return answer;
    }, isOver);
    expect(done.resultUrls).toHaveLength(2);
    expect(seen).not.toContain("completed 1");
    expect(seen.at(-1)).toBe("completed 2");
  });

  test("errors that nobody wrote down. The failure, its remedy and every step can be read", async () => {
    const { body } = await stage("kim", { prompt: "[sandbox: nsfw]" });
    const job = await ended(body.jobId);
    expect(job.failure).toMatchObject({
      code: "content_refused",
      remedy: expect.any(String),
      detail: expect.any(String),
    });
    const old = await synced(body.jobId);
    expect(old).toMatchObject({ status: "failed", errorCode: "content_refused", remedy: job.failure.remedy });
    expect(old.error).toBe(job.failure.message);
    const timeline = await client.get(`/api/jobs/${body.jobId}/timeline`);
    expect(JSON.stringify(timeline.body)).toMatch(/submitted[\s\S]*failed/);
  });

  test("refunds forgotten. Both or nothing: one variant failing gives all 40 back", async () => {
    spine.sandbox.faults.add({ fault: "nsfw", times: 1, match: {} });
    const { body } = await stage("lea");
    expect(body.newBalance).toBe(80);
    const job = await ended(body.jobId);
    expect(job).toMatchObject({ status: "failed", settlement: { charged: 40, kept: 0, refunded: 40 } });
    const old = await synced(body.jobId);
    expect(old).toMatchObject({ status: "failed", resultUrls: [], stagedUrls: [], creditsUsed: 0, newBalance: 120 });
    const direct = await client.get(`/api/replicate/status/${body.jobId}`);
    expect(direct.body).toMatchObject({ status: "failed", output: null });
    expect(direct.body.predictions.map(({ output }: { output: unknown }) => output)).toEqual([null, null]);
  });
});

describe("the paths where its provider called back before", () => {
  const deliver = (path: string, id: string, secret = spine.sandbox.webhookSecret) => {
    const raw = JSON.stringify({ id, status: "succeeded", output: ["https://evil.example/x.png"] });
    const [message, at] = [`msg_${crypto.randomUUID()}`, new Date()];
    return spine.call("POST", path, {
      body: raw,
      key: null,
      headers: {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": String(Math.floor(at.getTime() / 1_000)),
        "webhook-signature": new Webhook(secret).sign(message, at, raw),
      },
    });
  };

  test.each(["replicate", "training", "generation"])(
    "/api/webhooks/%s takes signed news of our runs only",
    async (name) => {
      const { body } = await stage(`mia-${name}`, { prompt: "[sandbox: slow=30]" });
      const job = await spine.until(
        body.jobId,
        (each) => each.runs.length === 2 && each.runs.every((run) => run.providerRunId),
      );
      const id = job.runs[0]?.providerRunId ?? "";
      expect(await deliver(`/api/webhooks/${name}`, id, "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0")).toMatchObject({
        status: 401,
      });
      expect(await deliver(`/api/webhooks/${name}`, "nobody")).toMatchObject({ status: 404 });
      expect(await deliver(`/api/webhooks/${name}?type=training`, id)).toMatchObject({ status: 200 });
      // It is not believed: the provider is asked.
      await new Promise((resolve) => setTimeout(resolve, 700));
      expect((await client.get(`/api/jobs/${body.jobId}`)).body.status).toBe("processing");
      await spine.call("POST", `/api/jobs/${body.jobId}/cancel`);
      expect(await client.poll(() => client.post("/api/sync-staging", { jobId: body.jobId }), isOver)).toMatchObject({
        status: "failed",
        error: "The job was canceled.",
        creditsUsed: 0,
        newBalance: 120,
      });
    },
  );
});
