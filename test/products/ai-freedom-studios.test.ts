import sharp from "sharp";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { aiFreedomStudios } from "../../apps/ai-freedom-studios.ts";
import { resumeProvider } from "../../src/db/provider-states.ts";
import { type Backend, startBackend } from "../rig/backend.ts";
import { type Spine, startSpine } from "../rig/spine.ts";
import { type Client, clientOf, download } from "./client.ts";

let backend: Backend;
let spine: Spine;
let client: Client;
beforeAll(async () => {
  // The product's own server, where it attaches what was made to its campaign.
  backend = await startBackend();
  spine = await startSpine({
    apps: [{ ...aiFreedomStudios, callbackUrl: `${backend.origin}/hooks/attach` }],
    env: { CALLBACK_ORIGINS: backend.origin },
  });
  client = clientOf(spine);
});
afterAll(async () => {
  await spine?.stop();
  await backend?.close();
});
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

/** The body of the product's guide. */
const body = (tenantId: string, more: Record<string, unknown> = {}) => ({
  tenantId,
  campaignId: "campaign-7",
  model: "gpt-4o",
  prompt: "A serene mountain landscape at sunset",
  generateActual: true,
  ...more,
});
const image = (given: unknown, headers?: Record<string, string>) =>
  client.post("/api/creatives/generate/image", given, headers);
const video = (given: unknown, headers?: Record<string, string>) =>
  client.post("/api/creatives/generate/video", given, headers);

test("a picture of 1024 × 1024 for a campaign, which is echoed to the end", async () => {
  const answer = await image(body("acme", { platforms: ["Instagram"] }));
  expect(answer).toMatchObject({
    status: 200,
    body: {
      success: true,
      tenantId: "acme",
      campaignId: "campaign-7",
      type: "image",
      textModel: "gpt-4o",
      generated: true,
      status: "pending",
      price: { credits: 3 },
      job: { newBalance: 497, creditsUsed: 3 },
    },
  });
  const job = await spine.ended(answer.body.job_id);
  expect(job).toMatchObject({ status: "completed", model: "flux-schnell", user: "tenant:acme" });
  expect(job.metadata).toEqual({
    tenantId: "acme",
    campaignId: "campaign-7",
    textModel: "gpt-4o",
    platforms: ["Instagram"],
  });
  expect(await sharp(await download(job.resultUrls[0] ?? "")).metadata()).toMatchObject({
    width: 1_024,
    height: 1_024,
  });
});

test("a film of 15 s from words, which can be waited for", async () => {
  const answer = await video(body("acme"), { prefer: "wait=60" });
  expect(answer).toMatchObject({
    status: 200,
    body: { type: "video", generated: true, status: "completed", price: { credits: 50 }, campaignId: "campaign-7" },
  });
  const job = (await client.get(`/api/jobs/${answer.body.job_id}`)).body;
  expect(job).toMatchObject({ model: "campaign-film", input: { seconds: 15 } });
  expect(job.results[0].file.contentType).toMatch(/^video\//);
  expect(job.results[0].file.seconds).toBeCloseTo(15, 0);
  expect((await download(answer.body.assets.videoUrl)).length).toBeGreaterThan(1_000);
  const [run] = await spine.sql`select input from runs where job_id = ${job.id}`;
  expect(run?.["input"]).toMatchObject({ fps: 24, num_frames: 360 });
}, 90_000);

describe("the end is told to the product's hook, which attaches it to the campaign", () => {
  const told = async (jobId: string) => {
    const find = () => backend.genuine(spine, "ai-freedom-studios").filter(({ data }) => data.id === jobId);
    await expect.poll(() => find().length, { timeout: 20_000 }).toBe(1);
    return find()[0];
  };

  test("with the files, which can be fetched, and what the product needs to know where they belong", async () => {
    const { body: answer } = await image(body("attach", { campaignId: "campaign-9", creativeId: "creative-4" }));
    const callback = await told(answer.job_id);
    expect(callback).toMatchObject({
      type: "job.completed",
      data: {
        status: "completed",
        user: "tenant:attach",
        metadata: { tenantId: "attach", campaignId: "campaign-9", creativeId: "creative-4" },
        settlement: { charged: 3, kept: 3, refunded: 0 },
      },
    });
    expect(backend.received.map(({ path }) => path)).toContain("/hooks/attach");
    expect((await download(callback?.data.resultUrls[0])).length).toBeGreaterThan(0);
  });

  test("and that there is nothing to attach, when it failed", async () => {
    const { body: answer } = await image(body("attach", { prompt: "[sandbox: nsfw] refused" }));
    expect(await told(answer.job_id)).toMatchObject({
      type: "job.failed",
      data: {
        metadata: { campaignId: "campaign-7" },
        resultUrls: [],
        failure: { code: "content_refused" },
        settlement: { charged: 3, kept: 0, refunded: 3 },
      },
    });
  });
});

test("without generateActual only the price is told: no job, no charge, no account", async () => {
  for (const [ask, credits] of [
    [image, 3],
    [video, 50],
  ] as const) {
    const answer = await ask(body("curious", { generateActual: false }));
    expect(answer).toMatchObject({
      status: 200,
      body: { generated: false, job_id: null, job: null, status: "draft", price: { credits } },
    });
  }
  expect(await client.get("/api/credits/tenant%3Acurious")).toMatchObject({ status: 404 });
  expect((await client.get("/api/jobs?user=tenant:curious")).body.jobs).toEqual([]);
});

test("a model for media is taken, and its quality with it", async () => {
  const quality = {
    width: 768,
    height: 1_024,
    numInferenceSteps: 30,
    guidanceScale: 7,
    negativePrompt: "text",
    scheduler: "DDIM",
  };
  const { body: answer } = await image(body("acme", { model: "sdxl", quality }));
  expect(answer.textModel).toBeNull();
  const job = await spine.ended(answer.job_id);
  expect(job).toMatchObject({ status: "completed", model: "sdxl", metadata: { scheduler: "DDIM" } });
  const [run] = await spine.sql`select input from runs where job_id = ${job.id}`;
  expect(run?.["input"]).toMatchObject({ width: 768, height: 1_024, num_inference_steps: 30, negative_prompt: "text" });
  const short = await video(body("acme", { quality: { durationSeconds: 5 } }));
  expect(short.body.price.credits).toBe(20);
  await spine.ended(short.body.job_id, 60_000);
}, 90_000);

describe("tenants", () => {
  test("pay for themselves, and their users, where these are named", async () => {
    const [tenant, user, other] = [
      await image(body("globex")),
      await image(body("globex", { userId: "ann" })),
      await image(body("initech", { userId: "ann" })),
    ];
    for (const { body: answer } of [tenant, user, other]) {
      expect(answer.job.newBalance).toBe(497);
      await spine.ended(answer.job_id);
    }
    const accounts =
      await spine.sql`select user_id from accounts where user_id like 'tenant:globex%' or user_id like 'tenant:initech%' order by 1`;
    expect(accounts.map((row) => row["user_id"])).toEqual(["tenant:globex", "tenant:globex/ann", "tenant:initech/ann"]);
  });

  test("cannot take another's name", async () => {
    const refused = await image(body("globex/ann"));
    expect(refused).toMatchObject({ status: 422, body: { success: false, errors: [{ pointer: "/tenantId" }] } });
    const { tenantId: _, ...without } = body("globex");
    expect(await image(without)).toMatchObject({ status: 422, body: { errors: [{ pointer: "/tenantId" }] } });
  });

  test("without credits are told so, and what is missing", async () => {
    // 497 credits are nine films.
    const answers = [];
    for (let index = 0; index < 10; index++)
      answers.push(await video(body("initrode", { prompt: "[sandbox: slow=60]" })));
    expect(answers.every(({ status }) => status === 200)).toBe(true);
    const refused = await video(body("initrode"));
    expect(refused).toMatchObject({ status: 402, body: { code: "insufficient_credits", required: 50, available: 0 } });
    for (const { body: answer } of answers) await client.post(`/api/jobs/${answer.job_id}/cancel`, {});
    await Promise.all(answers.map(({ body: answer }) => spine.ended(answer.job_id, 60_000)));
    expect(await client.available("tenant:initrode")).toBe(500);
  }, 90_000);
});

describe("what goes wrong is told for the user and for the operator:", () => {
  test("the provider's account is empty: it waits, and costs nothing when nobody waits with it", async () => {
    spine.sandbox.faults.add({ fault: "no_credit", times: 1, match: {} });
    const { body: answer } = await image(body("hooli"));
    const waiting = await spine.until(answer.job_id, ({ runs }) => runs[0]?.failure?.code === "provider_no_credit");
    expect(waiting.status).toBe("processing");
    expect(waiting.runs[0]?.failure?.message).toMatch(/out of capacity/);
    expect(waiting.runs[0]?.failure?.remedy).toMatch(/Top it up at the provider's billing page/);
    await client.post(`/api/jobs/${answer.job_id}/cancel`, {});
    expect((await spine.ended(answer.job_id)).settlement).toMatchObject({ kept: 0, refunded: 3 });
    expect(await client.available("tenant:hooli")).toBe(500);
    await resumeProvider(spine.db, "sandbox");
  });

  test("a prediction that nobody knows", async () => {
    const { status, body: problem } = await client.get("/api/replicate/status/gone123");
    expect([status, problem.code]).toEqual([404, "not_found"]);
    expect(problem.error).toMatch(/submit the request again/);
  });

  test("a prompt that is missing, and a film that is too long", async () => {
    const none = await image({ tenantId: "acme", generateActual: true });
    expect(none).toMatchObject({ status: 422, body: { errors: [{ pointer: "/prompt" }] } });
    const long = await video(body("acme", { quality: { durationSeconds: 40 } }));
    expect(long).toMatchObject({ status: 422, body: { errors: [{ pointer: "/quality/durationSeconds" }] } });
    expect(long.body.error).toMatch(/15 s/);
  });
});

test("VIDEO_PROVIDER says who makes the films, and a call that is the whole run delivers like any other", async () => {
  const poe = await startSpine({
    app: "ai-freedom-studios",
    env: { AI_PROVIDER: "sandbox,sandbox:poe", VIDEO_PROVIDER: "sandbox:poe" },
  });
  try {
    const input = { prompt: "a summer sale", seconds: 15 };
    const { id } = await poe.submit({ kind: "video", user: "tenant:acme", input });
    const job = await poe.ended(id, 60_000);
    expect(job).toMatchObject({ status: "completed", model: "campaign-film" });
    expect(job.results[0]?.file?.seconds).toBeCloseTo(15, 0);
    const runs = await poe.sql`select provider, model from runs where job_id = ${id}`;
    expect(runs).toEqual([{ provider: "sandbox_poe", model: "Video-Generator-PRO" }]);
    expect(await poe.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  } finally {
    await poe.stop();
  }
}, 90_000);
