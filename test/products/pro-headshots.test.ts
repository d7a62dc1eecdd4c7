import { createHmac } from "node:crypto";
import sharp from "sharp";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { ZipFile } from "yazl";
import { secretFrom } from "../../sandbox/webhook.ts";
import { photo } from "../rig/pictures.ts";
import { type Spine, startSpine } from "../rig/spine.ts";
import { type Client, clientOf, download } from "./client.ts";

let spine: Spine;
let client: Client;
/** The model that the first test trains. */
let tuneId: string;
beforeAll(async () => {
  spine = await startSpine({ app: "pro-headshots", speed: 20 });
  client = clientOf(spine);
  // As after buying a pack.
  await client.grant("ann", 300);
});
afterAll(() => spine?.stop());
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const isOver = ({ status }: { status: string }) => ["succeeded", "failed", "canceled"].includes(status);
const tuned = (id: string) => client.poll(() => client.get(`/api/llm/tune?tune_id=${id}`), isOver, 60_000);
const prompted = (id: string) => client.poll(() => client.get(`/api/llm/prompt?prompt_id=${id}`), isOver);
const uploads = (from: number, count: number) =>
  Promise.all(Array.from({ length: count }, (_, index) => client.upload(from + index)));

/** The product puts its ZIP into a store of its own and names it by URL; here the sandbox's host is that store. */
async function hosted(entries: Record<string, Buffer>): Promise<string> {
  const zip = new ZipFile();
  for (const [name, bytes] of Object.entries(entries)) zip.addBuffer(bytes, name);
  zip.end();
  const pieces: Buffer[] = [];
  for await (const piece of zip.outputStream) pieces.push(Buffer.from(piece));
  const bytes = Buffer.concat(pieces);
  const form = new FormData();
  form.append("content", new Blob([new Uint8Array(bytes)], { type: "application/zip" }), "photos.zip");
  const headers = { authorization: "Bearer r8_sandbox" };
  const kept = await fetch(`${spine.sandbox.url}/v1/files`, { method: "POST", headers, body: form });
  const { id } = (await kept.json()) as { id: string };
  const expiry = Math.floor(Date.now() / 1_000) + 3_600;
  const signature = createHmac("sha256", secretFrom("files of sandbox"))
    .update(`sandbox ${id} ${expiry}`)
    .digest("base64");
  const query = new URLSearchParams({ owner: "sandbox", expiry: String(expiry), signature });
  return `${spine.sandbox.url}/v1/files/${id}/download?${query}`;
}

test("a person's photos become a model: createTuneReplicate", async () => {
  const photos = await Promise.all([0, 1, 2, 3, 4].map((number) => photo(number)));
  const input_images = await hosted(Object.fromEntries(photos.map((bytes, index) => [`photos/${index}.jpg`, bytes])));
  const answer = await client.post("/api/llm/tune", {
    user_id: "ann",
    input_images,
    trigger_word: "OHWX",
    max_train_steps: 1_000,
    learning_rate: 1e-4,
    batch_size: 1,
    resolution: 1_024,
    webhook: null,
  });
  expect(answer).toMatchObject({
    status: 200,
    body: {
      success: true,
      status: "starting",
      creditsUsed: 100,
      newBalance: 200,
      provider: "replicate",
      model_type: "sdxl-lora",
      replicate_training_id: null,
      message: "Training started successfully",
    },
  });
  const { training_id, tune_id } = answer.body;
  const byTraining = await client.get(`/api/llm/tune?training_id=${training_id}`);
  expect(byTraining.body.tune_id).toBe(tune_id);

  const done = await tuned(tune_id);
  expect(done).toMatchObject({ status: "succeeded", error: null, trigger_word: "OHWX", progress: 100 });
  expect(done.replicate_training_id).toMatch(/^\w{20,}$/);
  expect(done.training_id).toBe(done.replicate_training_id);
  expect((await download(done.output.weights)).length).toBeGreaterThan(0);
  tuneId = tune_id;
}, 90_000);

describe("headshots with it: createPromptReplicate", () => {
  test("are four unless it says otherwise, made with SDXL and the model's weights", async () => {
    const answer = await client.post("/api/llm/prompt", {
      user_id: "ann",
      tune_id: tuneId,
      prompt: "professional headshot of OHWX, grey background",
      negative_prompt: "blurry",
      width: 1_024,
      height: 1_024,
      num_inference_steps: 25,
      guidance_scale: 7.5,
      scheduler: "K_EULER",
      lora_scale: 0.8,
    });
    expect(answer).toMatchObject({
      status: 200,
      body: {
        success: true,
        creditsUsed: 4,
        newBalance: 196,
        model_type: "sdxl",
        urls: [],
        metadata: { scheduler: "K_EULER" },
      },
    });
    const done = await prompted(answer.body.prompt_id);
    expect(done).toMatchObject({ status: "succeeded", creditsUsed: 4, error: null });
    expect(done.urls).toHaveLength(4);
    expect(done.metrics.predict_time).toBeGreaterThan(0);
    expect(await sharp(await download(done.urls[0])).metadata()).toMatchObject({ width: 1_024, height: 1_024 });
    expect(done.prediction_id.split(",")).toHaveLength(4);
    expect((await client.get(`/api/llm/prompt?prediction_id=${done.prediction_id}`)).body.prompt_id).toBe(
      done.prompt_id,
    );
    const [run] = await spine.sql`select model, input from runs where job_id = ${done.prompt_id} limit 1`;
    expect(run?.["model"]).toBe("stability-ai/sdxl");
    expect(run?.["input"]).toMatchObject({
      lora_scale: 0.8,
      num_inference_steps: 25,
      guidance_scale: 7.5,
      negative_prompt: "blurry",
    });
    expect(run?.["input"].replicate_weights).toEqual(expect.any(String));
  }, 60_000);

  test.each(["sdxl", "sdxl-lightning", "flux-dev", "flux-schnell"])(
    "are made by %s, too, without a model",
    async (model) => {
      const { body } = await client.post("/api/llm/prompt", {
        user_id: "ann",
        prompt: "a headshot",
        model,
        num_outputs: 1,
      });
      expect(body).toMatchObject({ creditsUsed: 1, model_type: model });
      expect((await prompted(body.prompt_id)).urls).toHaveLength(1);
    },
  );

  test("of a model for FLUX are made by FLUX", async () => {
    const trained = await client.post("/api/llm/tune", {
      user_id: "ann",
      input_images: await uploads(20, 4),
      trigger_word: "ZQX",
      model_type: "flux-lora",
    });
    expect(trained.body).toMatchObject({ model_type: "flux-lora", creditsUsed: 100 });
    expect((await tuned(trained.body.tune_id)).status).toBe("succeeded");
    const wish = { user_id: "ann", prompt: "a headshot of ZQX", tune_id: trained.body.tune_id, num_outputs: 1 };
    const { body } = await client.post("/api/llm/prompt", { ...wish, model: "flux-dev" });
    expect(body.model_type).toBe("flux-dev-lora");
    expect((await prompted(body.prompt_id)).status).toBe("succeeded");
    // And not by SDXL, which is said before anything is charged.
    const wrong = await client.post("/api/llm/prompt", { ...wish, model: "sdxl" });
    expect(wrong).toMatchObject({ status: 422, body: { errors: [{ pointer: "/tune_id" }] } });
  }, 90_000);

  test("that fail are given back", async () => {
    const before = await client.available("ann");
    const { body } = await client.post("/api/llm/prompt", {
      user_id: "ann",
      prompt: "[sandbox: nsfw]",
      num_outputs: 2,
    });
    expect(body.newBalance).toBe(before - 2);
    const done = await prompted(body.prompt_id);
    expect(done).toMatchObject({
      status: "failed",
      urls: [],
      creditsUsed: 0,
      newBalance: before,
      errorCode: "content_refused",
    });
  });
});

describe("what cannot work is told in the product's own words:", () => {
  test("fields that are missing", async () => {
    const refused = await client.post("/api/llm/tune", { trigger_word: "OHWX" });
    expect(refused.status).toBe(422);
    expect(refused.body.errors.map(({ pointer }: { pointer: string }) => pointer)).toEqual(
      expect.arrayContaining(["/user_id", "/input_images"]),
    );
    expect((await client.post("/api/llm/prompt", { user_id: "ann" })).body.errors).toMatchObject([
      { pointer: "/prompt" },
    ]);
    const outputs = await client.post("/api/llm/prompt", { user_id: "ann", prompt: "x", num_outputs: 9 });
    expect(outputs.body.errors).toMatchObject([{ pointer: "/num_outputs" }]);
  });

  test("a ZIP with something else in it, and an address inside our own network", async () => {
    const one = await photo(1);
    const bad = await hosted({ "a.jpg": one, "notes.txt": Buffer.from("hello") });
    const wish = { user_id: "bob", trigger_word: "OHWX" };
    const refused = await client.post("/api/llm/tune", { ...wish, input_images: bad });
    expect(refused).toMatchObject({ status: 422, body: { errors: [{ pointer: "/input_images" }] } });
    const inside = await client.post("/api/llm/tune", { ...wish, input_images: "http://169.254.169.254/photos.zip" });
    expect(inside).toMatchObject({
      status: 422,
      body: { code: "file_refused", errors: [{ pointer: "/input_images" }] },
    });
    expect((await client.get("/api/credits/bob")).status).toBe(404);
  });

  test("a model that is not ready", async () => {
    await client.grant("cat", 200);
    const photos = await uploads(40, 4);
    spine.sandbox.faults.add({ fault: "slow", ms: 20_000, times: 1, match: {} });
    const { body } = await client.post("/api/llm/tune", { user_id: "cat", input_images: photos, trigger_word: "OHWX" });
    const early = await client.post("/api/llm/prompt", { user_id: "cat", prompt: "x", tune_id: body.tune_id });
    expect(early).toMatchObject({ status: 422, body: { errors: [{ pointer: "/tune_id" }] } });
    expect(early.body.error).toMatch(/still being trained/);
    await spine.call("POST", `/api/jobs/${body.tune_id}/cancel`);
    expect(await tuned(body.tune_id)).toMatchObject({ status: "canceled", newBalance: 200 });
  }, 60_000);

  test("a status of nothing, of another kind, and of another app", async () => {
    expect(await client.get("/api/llm/tune")).toMatchObject({ status: 422 });
    expect(await client.get("/api/llm/tune?tune_id=nobody")).toMatchObject({ status: 404 });
    expect(await client.get(`/api/llm/prompt?prompt_id=${tuneId}`)).toMatchObject({ status: 404 });
    const key = await spine.keyFor("ensaio-fotos");
    expect(await spine.call("GET", `/api/llm/tune?tune_id=${tuneId}`, { key })).toMatchObject({ status: 404 });
  });
});
