import sharp from "sharp";
import { Webhook } from "standardwebhooks";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Spine, startSpine } from "../rig/spine.ts";
import { type Client, clientOf, download } from "./client.ts";

let spine: Spine;
let client: Client;
/** What the product keeps of the model that the first test trains. */
let modelId: string;
beforeAll(async () => {
  spine = await startSpine({ app: "ensaio-fotos", speed: 20 });
  client = clientOf(spine);
});
afterAll(() => spine?.stop());
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const isOver = ({ data }: { data: { status: string } }) => ["succeeded", "failed", "canceled"].includes(data.status);
const uploads = (from: number, count: number) =>
  Promise.all(Array.from({ length: count }, (_, index) => client.upload(from + index)));
const plan = async (user: string, name: string) =>
  expect(await spine.call("PUT", `/api/users/${user}`, { body: { plan: name } })).toMatchObject({ status: 200 });
const generate = (userId: string, more: Record<string, unknown> = {}) =>
  client.post("/api/ai/generate", { userId, prompt: "na praia, luz dourada", ...more });
const generated = (id: string) => client.poll(() => client.get(`/api/ai/generate?generationId=${id}`), isOver);

describe("a user of the FREE plan", () => {
  test("trains a model of his photos for 6 of his 10 credits a day, and is told its quality", async () => {
    const answer = await client.post("/api/ai/train", {
      userId: "ana",
      modelId: "cmf1v1gk40003",
      name: "Ana",
      imageUrls: await uploads(0, 6),
      triggerWord: "ohwx",
      classWord: "woman",
      trainingParams: { steps: 1_000, resolution: "512,768,1024", loraRank: 48, seed: 7 },
    });
    expect(answer).toMatchObject({
      status: 200,
      body: { success: true, data: { status: "starting", cost: 6, newBalance: 4 } },
    });
    const { data } = answer.body;
    expect(data.clamps).toMatchObject([{ from: 1_024, to: 512 }]);
    expect(data.metadata).toEqual({ modelId: "cmf1v1gk40003", classWord: "woman", loraRank: 48 });

    const done = await client.poll(() => client.get(`/api/ai/train?trainingId=${data.trainingId}`), isOver, 60_000);
    expect(done.data).toMatchObject({ status: "succeeded", progress: 100, triggerWord: "ohwx", cost: 6, error: null });
    expect(done.data.qualityScore).toBeGreaterThan(0);
    expect((await download(done.data.model.url)).length).toBeGreaterThan(0);
    modelId = done.data.modelId;
    // By the provider's own id of the training, too.
    expect((await client.get(`/api/ai/train?trainingId=${done.data.trainingId}`)).body.data.modelId).toBe(modelId);
    const job = (await client.get(`/api/jobs/${modelId}`)).body;
    expect(job).toMatchObject({
      plan: "FREE",
      model: "flux-lora-trainer",
      input: { task: "face", steps: 1_000, seed: 7 },
    });
  });

  test("makes images with it at once, of 512 pixels at most, 4 steps, WebP, and no webhook is needed", async () => {
    const answer = await generate("ana", {
      modelId,
      generationParams: {
        width: 1_024,
        height: 1_024,
        steps: 20,
        guidance_scale: 3.5,
        scheduler: "DPM",
        safety_checker: false,
      },
      aspectRatio: "1:1",
      style: "default",
    });
    expect(answer).toMatchObject({ status: 200, body: { data: { cost: 1, newBalance: 3 } } });
    expect(answer.body.data.clamps).toMatchObject([{ to: { width: 512, height: 512 } }]);
    expect(answer.body.data.metadata).toEqual({ steps: 20, scheduler: "DPM", style: "default" });

    const { data } = await generated(answer.body.data.generationId);
    expect(data).toMatchObject({ status: "succeeded", prompt: "na praia, luz dourada" });
    expect(data.urls).toHaveLength(1);
    const bytes = await download(data.urls[0]);
    expect(await sharp(bytes).metadata()).toMatchObject({ format: "webp", width: 512, height: 512 });

    const [run] = await spine.sql`select model, input from runs where job_id = ${data.generationId}`;
    expect(run?.["model"]).toBe("black-forest-labs/flux-schnell-lora");
    expect(run?.["input"]).toMatchObject({
      prompt: "ohwx, na praia, luz dourada",
      num_inference_steps: 4,
      output_format: "webp",
      output_quality: 80,
      go_fast: true,
      disable_safety_checker: true,
    });
  });

  test("is refused a second model, whatever he could pay", async () => {
    await client.grant("ana", 100);
    const body = { userId: "ana", imageUrls: await uploads(0, 5), triggerWord: "ohwx" };
    const refused = await client.post("/api/ai/train", body);
    expect(refused).toMatchObject({ status: 403, body: { success: false, code: "too_many_models", maxModels: 1 } });
    expect(refused.body.error).toMatch(/keeps 1 trained models/);
    expect(await client.available("ana")).toBe(103);
  });

  test("gets back what failed, by itself", async () => {
    const answer = await generate("bia", { prompt: "[sandbox: nsfw] proibido" });
    expect(answer.body.data).toMatchObject({ cost: 1, newBalance: 9 });
    const { data } = await generated(answer.body.data.generationId);
    expect(data).toMatchObject({ status: "failed", cost: 0, newBalance: 10, errorCode: "content_refused", urls: [] });
    expect(data.error).toMatch(/safety filter/);
  });

  test("asks for ten generations an hour, and is told when he may go on", async () => {
    await client.grant("caio", 100);
    const answers = await Promise.all(Array.from({ length: 11 }, () => generate("caio")));
    const accepted = answers.filter(({ status }) => status === 200);
    const [refused] = answers.filter(({ status }) => status === 429);
    expect(accepted).toHaveLength(10);
    expect(refused?.body).toMatchObject({ code: "rate_limited", success: false, retryable: true });
    expect(Number(refused?.headers.get("retry-after"))).toBeGreaterThan(0);
    await Promise.all(accepted.map(({ body }) => generated(body.data.generationId)));
  }, 60_000);

  test("has ten credits a day, and no more", async () => {
    const first = await generate("davi", { variations: 4 });
    const second = await generate("davi", { variations: 4 });
    expect(second.body.data).toMatchObject({ cost: 4, newBalance: 2 });
    const third = await generate("davi", { variations: 4 });
    expect(third).toMatchObject({ status: 402, body: { code: "insufficient_credits", required: 4, available: 2 } });
    await Promise.all([first, second].map(({ body }) => generated(body.data.generationId)));
  });
});

test("a user of the PREMIUM plan has 100 credits, images of 1024 pixels and a second model", async () => {
  await plan("eva", "PREMIUM");
  const wide = await generate("eva", { aspectRatio: "3:2" });
  expect(wide.body.data).toMatchObject({ cost: 1, newBalance: 99 });
  const trainings = [];
  for (const from of [20, 40]) {
    const body = {
      userId: "eva",
      imageUrls: await uploads(from, 4),
      triggerWord: "ohwx",
      trainingParams: { resolution: 1_024 },
    };
    trainings.push(await client.post("/api/ai/train", body));
  }
  expect(trainings.map(({ body }) => body.data.cost)).toEqual([7, 7]);
  for (const { body } of trainings)
    await client.poll(() => client.get(`/api/ai/train?trainingId=${body.data.trainingId}`), isOver, 60_000);
  const { data } = await generated(wide.body.data.generationId);
  const { width = 0, height = 0 } = await sharp(await download(data.urls[0])).metadata();
  expect(width / height).toBeGreaterThan(1.4);
}, 90_000);

describe("the provider's news at the paths that the product gave it", () => {
  /** As Replicate sends it: the body is what it answers when it is asked, signed with the account's secret. */
  async function deliver(path: string, kind: "predictions" | "trainings", id: string) {
    const theirs = await fetch(`${spine.sandbox.url}/v1/${kind}/${id}`, {
      headers: { authorization: "Bearer r8_sandbox" },
    });
    const raw = await theirs.text();
    const [message, at] = [`msg_${crypto.randomUUID()}`, new Date()];
    const headers = {
      "content-type": "application/json",
      "webhook-id": message,
      "webhook-timestamp": String(Math.floor(at.getTime() / 1_000)),
      "webhook-signature": new Webhook(spine.sandbox.webhookSecret).sign(message, at, raw),
    };
    return {
      genuine: () => spine.call("POST", path, { body: raw, headers, key: null }),
      forged: () => spine.call("POST", path, { body: raw.replace("{", "{ "), headers, key: null }),
    };
  }

  /** Until the provider is done; nobody here looks by himself any more. */
  async function endedThere(jobId: string): Promise<string> {
    const running = () => spine.sql`
      update runs set next_look_at = now() + interval '1 hour' where job_id = ${jobId} and status = 'running'
      returning provider_run_id as id`;
    let id = "";
    const found = async () => {
      id = (await running())[0]?.["id"] ?? "";
      return id;
    };
    await expect.poll(found, { timeout: 10_000, interval: 20 }).not.toBe("");
    const bill = () => spine.sandbox.bill().lines.find((line) => line.id === id)?.status;
    await expect.poll(bill, { timeout: 20_000 }).toBe("succeeded");
    expect((await spine.call("GET", `/api/jobs/${jobId}`)).body.status).toBe("processing");
    return id;
  }

  test("/api/webhooks/training ends a training at once, and a forged one changes nothing", async () => {
    await plan("gil", "PREMIUM");
    spine.sandbox.faults.add({ fault: "slow=3", times: 1 });
    const body = { userId: "gil", imageUrls: await uploads(80, 4), triggerWord: "ohwx" };
    const { data } = (await client.post("/api/ai/train", body)).body;
    const id = await endedThere(data.trainingId);
    const news = await deliver("/api/webhooks/training", "trainings", id);
    expect(await news.forged()).toMatchObject({ status: 401 });
    expect((await spine.call("GET", `/api/jobs/${data.trainingId}`)).body.status).toBe("processing");
    expect(await news.genuine()).toMatchObject({ status: 200, body: { received: true } });
    const done = await client.poll(() => client.get(`/api/ai/train?trainingId=${data.trainingId}`), isOver, 30_000);
    expect(done.data).toMatchObject({ status: "succeeded", progress: 100 });
    // A repeated delivery of the same event is taken, and changes nothing.
    expect(await news.genuine()).toMatchObject({ status: 200 });
  }, 60_000);

  test("/api/webhooks/generation ends a generation at once", async () => {
    const answer = await generate("hugo", { prompt: "na serra [sandbox: slow=3]" });
    const { generationId } = answer.body.data;
    const id = await endedThere(generationId);
    const news = await deliver("/api/webhooks/generation", "predictions", id);
    expect(await news.genuine()).toMatchObject({ status: 200, body: { received: true } });
    const { data } = await generated(generationId);
    expect(data).toMatchObject({ status: "succeeded", cost: 1, newBalance: 9 });
    expect(data.urls).toHaveLength(1);
  }, 60_000);
});

describe("what cannot work is told before anything is charged:", () => {
  test("photos, one by one, by the product's own names", async () => {
    const headers = { "content-type": "application/octet-stream" };
    const grey = await sharp({ create: { width: 600, height: 600, channels: 3, background: "#777777" } })
      .png()
      .toBuffer();
    const blank = (await spine.call("POST", "/api/uploads", { body: grey, headers })).body.id;
    const photos = await uploads(60, 4);
    const refused = await client.post("/api/ai/train", { userId: "fia", imageUrls: [...photos, blank] });
    expect(refused).toMatchObject({
      status: 422,
      body: { code: "file_refused", errors: [{ pointer: "/imageUrls/4" }] },
    });
    expect(refused.body.photos).toHaveLength(5);
    const few = await client.post("/api/ai/train", { userId: "fia", imageUrls: photos.slice(0, 3) });
    expect(few).toMatchObject({ status: 422, body: { errors: [{ pointer: "/imageUrls" }] } });
    expect(few.body.error).toMatch(/at least 4 photos/);
    expect((await client.get("/api/credits/fia")).status).toBe(404);
  });

  test("a model of somebody else, or one that does not exist", async () => {
    for (const [userId, id] of [
      ["bia", modelId],
      ["ana", crypto.randomUUID()],
    ])
      expect(await generate(String(userId), { modelId: id })).toMatchObject({
        status: 422,
        body: { errors: [{ pointer: "/modelId" }] },
      });
    const notOurs = await generate("ana", { modelId: "cmf1v1gk40003" });
    expect(notOurs).toMatchObject({ status: 422, body: { errors: [{ pointer: "/modelId" }] } });
  });

  test("a status of nothing, and of another kind", async () => {
    expect(await client.get("/api/ai/train?trainingId=nobody")).toMatchObject({ status: 404 });
    expect(await client.get("/api/ai/generate")).toMatchObject({ status: 422 });
    expect(await client.get(`/api/ai/generate?generationId=${modelId}`)).toMatchObject({ status: 404 });
  });
});
