import sharp from "sharp";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { photo } from "../rig/pictures.ts";
import { type Spine, startSpine } from "../rig/spine.ts";
import { type Client, clientOf, download } from "./client.ts";

let spine: Spine;
let client: Client;
beforeAll(async () => {
  spine = await startSpine({ app: "image-studio" });
  client = clientOf(spine);
});
afterAll(() => spine?.stop());
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const isOver = ({ status }: { status: string }) => ["completed", "failed"].includes(status);
const polled = (requestId: string) =>
  client.poll(() => client.post("/api/poll-wavespeed", { requestId }), isOver, 60_000);
const form = (fields: Record<string, string | Buffer>) => {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields))
    if (typeof value === "string") data.append(name, value);
    else data.append(name, new Blob([new Uint8Array(value)], { type: "image/png" }), `${name}.png`);
  return data;
};
/** White where the picture is to change. */
const mask = (width: number, height: number) =>
  sharp({ create: { width, height, channels: 3, background: "#000000" } })
    .composite([
      {
        input: Buffer.from(
          `<svg width="${width}" height="${height}"><circle cx="50%" cy="50%" r="20%" fill="#fff"/></svg>`,
        ),
      },
    ])
    .png()
    .toBuffer();

describe("images", () => {
  test("cost 500 of the 3,000 credits of the signup, in portrait, square and landscape", async () => {
    const sizes = ["portrait", "square", "landscape"] as const;
    const answers = [];
    for (const size of sizes)
      answers.push(await client.post("/api/generate", { userId: "ann", prompt: "a fox", size }));
    expect(answers.map(({ body }) => [body.isAsync, body.creditsUsed, body.creditsRemaining])).toEqual([
      [true, 500, 2_500],
      [true, 500, 2_000],
      [true, 500, 1_500],
    ]);
    const shapes = [];
    for (const { body } of answers) {
      const { outputs, status } = await polled(body.requestId);
      expect([status, outputs.length]).toEqual(["completed", 1]);
      const { width = 0, height = 0 } = await sharp(await download(outputs[0])).metadata();
      shapes.push(Math.sign(width - height));
    }
    expect(shapes).toEqual([-1, 0, 1]);
  });

  test("are asked for as the product's page does, with a look of its own and an idempotency key in the body", async () => {
    const body = {
      userId: "bob",
      model: "realistic",
      prompt: "a fox",
      negative_prompt: "blurry",
      width: 832,
      height: 1_216,
      guidance_scale: 7,
      num_inference_steps: 28,
      idempotency_key: "page-1",
    };
    const [one, two] = [await client.post("/api/generate", body), await client.post("/api/generate", body)];
    expect(one.body.requestId).toBe(two.body.requestId);
    expect(one.body.metadata).toEqual({ model: "realistic" });
    expect(await client.available("bob")).toBe(2_500);
    const done = await client.post("/api/generate", body, { prefer: "wait=30" });
    expect(done.body).toMatchObject({
      status: "completed",
      images: [{ url: expect.any(String) }],
      creditsRemaining: 2_500,
    });
    const other = await client.post("/api/generate", { ...body, prompt: "a cat" });
    expect(other).toMatchObject({ status: 422, body: { code: "idempotency_key_reused" } });
  });

  test("of impossible dimensions are refused in words for the user, and cost nothing", async () => {
    const ask = (width: number, height: number) =>
      client.post("/api/generate", { userId: "cat", prompt: "a fox", width, height });
    for (const [width, height, field] of [
      [100, 1_024, "/width"],
      [1_024, 9_000, "/height"],
      [1_400, 1_400, "/width"],
    ] as const) {
      const refused = await ask(width, height);
      expect(refused).toMatchObject({ status: 422, body: { code: "invalid_input", success: false } });
      expect(refused.body.errors.map(({ pointer }: { pointer: string }) => pointer)).toContain(field);
      expect(refused.body.error).toMatch(/256|4096|1048576|pixels/);
      expect(refused.body.error).not.toMatch(/\/input/);
    }
    expect((await client.get("/api/credits/cat")).status).toBe(404);
  });

  test("that fail are given back", async () => {
    const { body } = await client.post("/api/generate", { userId: "dan", prompt: "[sandbox: nsfw]" });
    const done = await polled(body.requestId);
    expect(done).toMatchObject({ status: "failed", outputs: [], creditsUsed: 0, creditsRemaining: 3_000 });
    expect(done.error).toMatch(/safety filter/);
  });
});

describe("edits", () => {
  test("cost 1,000, by an instruction, with the picture in a form", async () => {
    const answer = await client.post(
      "/api/edit-image",
      form({ userId: "eve", prompt: "a red hat", image: await photo(1, { format: "png" }) }),
    );
    expect(answer).toMatchObject({
      status: 200,
      body: { creditsUsed: 1_000, creditsRemaining: 2_000, imageUrl: null },
    });
    const { outputs } = await polled(answer.body.requestId);
    expect(await sharp(await download(outputs[0])).metadata()).toMatchObject({ width: 640, height: 640 });
  });

  test("with a mask change what it marks and nothing else", async () => {
    const original = await photo(2, { format: "png" });
    const fields = { userId: "eve", prompt: "a red hat", image: original, mask: await mask(640, 640) };
    const { body } = await client.post("/api/edit-image", form(fields), { prefer: "wait=40" });
    expect(body).toMatchObject({ status: "completed", creditsUsed: 1_000, creditsRemaining: 1_000 });
    const [run] = await spine.sql`select model from runs where job_id = ${body.jobId}`;
    expect(run?.["model"]).toBe("black-forest-labs/flux-fill-pro");
    const corner = async (bytes: Buffer) =>
      sharp(bytes).extract({ left: 0, top: 0, width: 60, height: 60 }).removeAlpha().raw().toBuffer();
    expect(Buffer.compare(await corner(await download(body.imageUrl)), await corner(original))).toBe(0);
  });

  test("by JSON, with an upload's id; and a mask of another size is refused", async () => {
    const image = await client.upload(3);
    const small = await spine.call("POST", "/api/uploads", {
      body: await mask(320, 320),
      headers: { "content-type": "application/octet-stream" },
    });
    const wish = { userId: "flo", prompt: "a red hat", image };
    const refused = await client.post("/api/edit-image", { ...wish, mask: small.body.id });
    expect(refused).toMatchObject({ status: 422, body: { reason: "mask_size", errors: [{ pointer: "/mask" }] } });
    const { body } = await client.post("/api/edit-image", wish);
    expect((await polled(body.requestId)).status).toBe("completed");
    expect(await client.available("flo")).toBe(2_000);
  });

  test("without a picture, or with a file that is none, cost nothing", async () => {
    const none = await client.post("/api/edit-image", form({ userId: "gil", prompt: "a red hat" }));
    expect(none).toMatchObject({ status: 422, body: { errors: [{ pointer: "/image" }] } });
    const text = await client.post(
      "/api/edit-image",
      form({ userId: "gil", prompt: "x", image: Buffer.from("hello") }),
    );
    expect(text).toMatchObject({ status: 422, body: { code: "file_refused", errors: [{ pointer: "/image" }] } });
    expect((await client.get("/api/credits/gil")).status).toBe(404);
  });
});

describe("videos", () => {
  test("of 3 s cost 2,000, from a picture in a form, in any style", async () => {
    const answer = await client.post(
      "/api/generate-video",
      form({
        userId: "hal",
        prompt: "the fox runs",
        image: await photo(4, { format: "png" }),
        duration_seconds: "3",
        style: "express_hd",
        steps: "4",
        randomize_seed: "true",
        seed: "0",
      }),
    );
    expect(answer).toMatchObject({
      status: 200,
      body: { creditsUsed: 2_000, remainingCredits: 1_000, videoUrl: null },
    });
    expect(answer.body.metadata).toEqual({ style: "express_hd", steps: "4" });
    const { outputs, status } = await polled(answer.body.requestId);
    expect(status).toBe("completed");
    const job = (await client.get(`/api/jobs/${answer.body.jobId}`)).body;
    expect(job.results[0].file).toMatchObject({ contentType: expect.stringMatching(/^video\//) });
    expect(job.results[0].file.seconds).toBeCloseTo(3, 0);
    expect((await download(outputs[0])).length).toBeGreaterThan(1_000);
  }, 90_000);

  test("of 5 s cost 3,000, from words, and a style of ours is taken as one", async () => {
    const wish = { userId: "ida", prompt: "the fox runs", duration_seconds: 5, style: "cinematic" };
    const { body } = await client.post("/api/generate-video", wish);
    expect(body).toMatchObject({ creditsUsed: 3_000, creditsRemaining: 0 });
    expect((await polled(body.requestId)).status).toBe("completed");
    const [run] = await spine.sql`select input from runs where job_id = ${body.jobId}`;
    expect(run?.["input"]).toMatchObject({ duration: 5, prompt: expect.stringContaining("slow dolly") });
  }, 90_000);

  test("that are too long are refused with what is allowed", async () => {
    const refused = await client.post("/api/generate-video", { userId: "jon", prompt: "x", duration_seconds: 15 });
    expect(refused).toMatchObject({ status: 422, body: { errors: [{ pointer: "/duration_seconds" }] } });
    expect(refused.body.error).toMatch(/at most 5 s/);
  });
});

test("the unified path takes any of them, with its own key", async () => {
  const key = crypto.randomUUID();
  const video = { kind: "video3", idempotencyKey: key, payload: { userId: "kim", prompt: "the fox runs" } };
  const one = await client.post("/api/generate-unified", video);
  expect(one.body).toMatchObject({ creditsUsed: 2_000, creditsRemaining: 1_000 });
  expect((await client.post("/api/generate-unified", video)).body.requestId).toBe(one.body.requestId);
  const image = { kind: "image", idempotencyKey: crypto.randomUUID(), payload: { userId: "kim", prompt: "a fox" } };
  expect((await client.post("/api/generate-unified", image)).body.creditsRemaining).toBe(500);
  const wrong = await client.post("/api/generate-unified", { ...image, payload: { userId: "kim" } });
  expect(wrong).toMatchObject({ status: 422, body: { errors: [{ pointer: "/payload/prompt" }] } });
  expect((await polled(one.body.requestId)).status).toBe("completed");
}, 90_000);

describe("requests are limited in the database:", () => {
  const ask = (userId: string, address?: string) =>
    client.post("/api/generate", { userId, prompt: "a fox", address, idempotency_key: crypto.randomUUID() });

  test("the eleventh of a user within a minute is refused, and says when to come back", async () => {
    await client.grant("lea", 10_000);
    const answers = [];
    for (let index = 0; index < 11; index++) answers.push(await ask("lea"));
    expect(answers.map(({ status }) => status)).toEqual([...Array(10).fill(200), 429]);
    const refused = answers.at(-1);
    expect(refused?.body).toMatchObject({ code: "rate_limited", retryable: true });
    expect(Number(refused?.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(refused?.body.error).toMatch(/Too many requests/);
    expect(await client.available("lea")).toBe(13_000 - 10 * 500);
    await Promise.all(answers.slice(0, 10).map(({ body }) => polled(body.requestId)));
  }, 90_000);

  test("the twenty-first of an address is refused, whoever asks", async () => {
    const answers = [];
    for (let index = 0; index < 21; index++) answers.push(await ask(`guest-${index}`, "203.0.113.7"));
    expect(answers.map(({ status }) => status)).toEqual([...Array(20).fill(200), 429]);
    expect((await ask("guest-x", "203.0.113.8")).status).toBe(200);
    const { body } = await client.get("/api/jobs?limit=100");
    await Promise.all(body.jobs.map(({ id }: { id: string }) => spine.ended(id, 60_000)));
  }, 90_000);
});

test("who is not authorised is told so in plain words", async () => {
  const answer = await spine.call("POST", "/api/generate", { key: null, body: { userId: "ann", prompt: "x" } });
  expect(answer).toMatchObject({ status: 401, body: { code: "unauthenticated", success: false } });
  expect(answer.body.error).toMatch(/API key/);
});
