import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import Replicate, { validateWebhook } from "replicate";
import sharp from "sharp";
import { Webhook } from "standardwebhooks";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Sandbox, type SandboxOptions, startSandbox } from "../sandbox/sandbox.ts";

const SCHNELL = "black-forest-labs/flux-schnell";
const KONTEXT = "black-forest-labs/flux-kontext-pro";
const LIGHTNING = "5599ed30703defd1d160a25a63321b4dec97101d98b4674bcc56e41f62f35637";
const TRAINER = "e440909d3512c31646ee2e0c7d6f6f4923224863a6a10c494606e79fb5844497";
const AUTH = { authorization: "Bearer r8_sandbox" };

let sandbox: Sandbox;
let replicate: Replicate;
const closing: (() => Promise<unknown>)[] = [];

async function open(options: SandboxOptions = {}): Promise<Sandbox> {
  const opened = await startSandbox({ speed: 20, ...options });
  closing.push(() => opened.close());
  return opened;
}

beforeEach(async () => {
  sandbox = await open();
  replicate = new Replicate({ auth: "r8_sandbox", baseUrl: `${sandbox.url}/v1`, useFileOutput: false });
});

afterEach(async () => {
  await Promise.all(closing.splice(0).map((close) => close()));
});

/** Posts without any client in between, so that one call is one request. */
function post(path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Response> {
  const text = body === undefined ? null : JSON.stringify(body);
  const all = { ...AUTH, "content-type": "application/json", ...headers };
  return fetch(`${sandbox.url}${path}`, { method: "POST", headers: all, body: text });
}

function draw(prompt: string, more: Record<string, unknown> = {}, headers: Record<string, string> = {}) {
  return post(`/v1/models/${SCHNELL}/predictions`, { input: { prompt, ...more } }, headers);
}

function get(path: string): Promise<Response> {
  return fetch(`${sandbox.url}${path}`, { headers: AUTH });
}

// biome-ignore lint/suspicious/noExplicitAny: a test reads whatever travels, and fails when it is not there
type Body = any;

async function read(answer: Response | Promise<Response>): Promise<Body> {
  return (await answer).json();
}

async function ended(id: string, door = "predictions"): Promise<Body> {
  for (let look = 0; look < 400; look += 1) {
    const run = await read(get(`/v1/${door}/${id}`));
    if (!["starting", "processing"].includes(run.status)) return run;
    await pause(20);
  }
  throw new Error(`${id} does not end`);
}

async function outputs(prompt: string, seed: number, more: Record<string, unknown> = {}): Promise<Buffer[]> {
  const answer = await draw(prompt, { seed, megapixels: "0.25", ...more }, { prefer: "wait" });
  const { output } = await read(answer);
  return Promise.all(output.map(async (url: string) => Buffer.from(await (await fetch(url)).arrayBuffer())));
}

/** Something that listens for webhooks and answers by a list of status codes, then 200. */
async function receiver(...answers: number[]) {
  const heard: { headers: Record<string, string>; body: string; url: string; at: number }[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
    heard.push({ headers, body: Buffer.concat(chunks).toString(), url: request.url ?? "", at: Date.now() });
    response.writeHead(answers[heard.length - 1] ?? 200, { location: "/elsewhere" }).end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  closing.push(async () => server.close());
  const address = server.address();
  const url = typeof address === "object" && address ? `http://127.0.0.1:${address.port}` : "";
  sandbox.setWebhookRelay(url);
  return { url, heard, status: (index: number) => JSON.parse(heard[index]?.body ?? "{}").status };
}

describe("the official client", () => {
  test("creates an official model's prediction by name, and gets it until it has pictures", async () => {
    const input = { prompt: "a lighthouse", num_outputs: 2 };
    const created = await replicate.predictions.create({ model: SCHNELL, input });
    expect(created).toMatchObject({ model: SCHNELL, version: "hidden", status: "starting", output: null, error: null });
    expect(created.id).toMatch(/^[a-z0-9]{26}$/);
    expect(created.created_at).toMatch(/\.\d{6}Z$/);
    const done = await replicate.wait(created, { interval: 20 });
    expect(done).toMatchObject({ status: "succeeded", metrics: { image_count: 2 }, input, data_removed: false });
    expect(done.output).toHaveLength(2);
    for (const url of done.output) {
      const answer = await fetch(url);
      expect(answer.headers.get("content-type")).toBe("image/webp");
      const { width, format } = await sharp(await answer.arrayBuffer()).metadata();
      expect({ width, format }).toEqual({ width: 1024, format: "webp" });
    }
  });

  test("creates a community model's prediction by version, and runs it to its output", async () => {
    const created = await replicate.predictions.create({ version: LIGHTNING, input: { prompt: "a city" } });
    expect(created).toMatchObject({ model: "bytedance/sdxl-lightning-4step", version: LIGHTNING });
    const run = await replicate.run(`bytedance/sdxl-lightning-4step:${LIGHTNING}`, { input: { prompt: "a city" } });
    expect(run).toEqual([expect.stringMatching(/\/out-0\.png$/)]);
  });

  test("cancels, though it sends a content type and no body", async () => {
    const created = await replicate.predictions.create({ model: SCHNELL, input: { prompt: "x [sandbox: slow=30]" } });
    await replicate.predictions.cancel(created.id);
    expect(await ended(created.id)).toMatchObject({ status: "canceled", output: null });
    const again = await replicate.predictions.cancel(created.id);
    expect(again.status).toBe("canceled");
  });

  test("pages through more than a hundred predictions, newest first, without gap or repetition", async () => {
    const ids: string[] = [];
    for (let round = 0; round < 230; round += 1) ids.push((await read(draw(`number ${round}`))).id);
    const pages: string[][] = [];
    for await (const page of replicate.paginate(replicate.predictions.list)) pages.push(page.map(({ id }) => id));
    expect(pages.map(({ length }) => length)).toEqual([100, 100, 30]);
    expect(pages.flat()).toEqual(ids.toReversed());
    const first = await read(get("/v1/predictions"));
    const second = await read(fetch(first.next, { headers: AUTH }));
    const back = await read(fetch(second.previous, { headers: AUTH }));
    expect(back.results.map(({ id }: { id: string }) => id)).toEqual(pages[0]);
  });

  test("uploads a picture and has it edited at its own size", async () => {
    const photo = await sharp({ create: { width: 600, height: 400, channels: 3, background: "#c8beb0" } })
      .jpeg()
      .toBuffer();
    const file = await replicate.files.create(new Blob([new Uint8Array(photo)], { type: "image/jpeg" }), {
      room: "17",
    });
    expect(file).toMatchObject({ content_type: "image/jpeg", size: photo.length, metadata: { room: "17" } });
    expect(file.urls.get).toBe(`${sandbox.url}/v1/files/${file.id}`);
    const input = { prompt: "Furnish this living room", input_image: file.urls.get, output_format: "jpg", seed: 5 };
    const done = await replicate.wait(await replicate.predictions.create({ model: KONTEXT, input }), { interval: 20 });
    expect(done.status).toBe("succeeded");
    const { width, height, format } = await sharp(await (await fetch(done.output)).arrayBuffer()).metadata();
    expect({ width, height, format }).toEqual({ width: 600, height: 400, format: "jpeg" });
    expect(await replicate.files.delete(file.id)).toBe(true);
    expect((await get(`/v1/files/${file.id}`)).status).toBe(404);
  });

  test("creates a model, trains it, and runs what was trained", async () => {
    const model = await replicate.models.create("sandbox", "lora-42", { visibility: "private", hardware: "gpu-h100" });
    expect(model).toMatchObject({ owner: "sandbox", name: "lora-42", is_official: false, latest_version: null });
    const training = await replicate.trainings.create("ostris", "flux-dev-lora-trainer", TRAINER, {
      destination: "sandbox/lora-42",
      input: { input_images: "https://bucket.example.test/u42.zip", trigger_word: "TOK42", steps: 300 },
    });
    const done = await ended(training.id, "trainings");
    expect(done).toMatchObject({ status: "succeeded", model: "ostris/flux-dev-lora-trainer", version: TRAINER });
    expect(done.created_at).toMatch(/\.\d{9}Z$/);
    expect(done.output.version).toMatch(/^sandbox\/lora-42:[0-9a-f]{64}$/);
    const weights = Buffer.from(await (await fetch(done.output.weights)).arrayBuffer());
    expect(weights.subarray(0, 26).toString()).toBe("flux-lora/lora.safetensors");
    const latest = await replicate.models.get("sandbox", "lora-42");
    expect(`sandbox/lora-42:${latest.latest_version?.id}`).toBe(done.output.version);
    const picture = await replicate.run(done.output.version, { input: { prompt: "portrait of TOK42" } });
    expect(picture).toHaveLength(1);
    expect(sandbox.bill().total).toMatchObject({ trainings: 1, predictions: 1, succeeded: 2 });
  });

  test("reads the account, the hardware, the models with their schemas, and the secret", async () => {
    expect(await replicate.accounts.current()).toMatchObject({ username: "sandbox", type: "organization" });
    expect(await replicate.hardware.list()).toContainEqual({ name: "CPU", sku: "cpu" });
    expect((await replicate.webhooks.default.secret.get()).key).toBe(sandbox.webhookSecret);
    const kontext = await replicate.models.get("black-forest-labs", "flux-kontext-pro");
    const schemas = (kontext.latest_version as unknown as { openapi_schema: { components: { schemas: never } } })
      .openapi_schema.components.schemas;
    expect(schemas).toMatchObject({
      Input: { required: ["prompt"], properties: { output_format: { default: "png", "x-order": 3 } } },
      output_format: { enum: ["jpg", "png"] },
      Output: { type: "string", format: "uri" },
    });
    const versions = await replicate.models.versions.list("replicate", "fast-flux-trainer");
    expect(versions.results).toHaveLength(3);
  });

  test("follows the progress in the logs", async () => {
    const created = await replicate.predictions.create({ model: SCHNELL, input: { prompt: "x [sandbox: slow=1]" } });
    const shares = new Set<number>();
    for (let look = 0; look < 60; look += 1) {
      const seen = await replicate.predictions.get(created.id);
      const { parseProgressFromLogs } = await import("replicate");
      shares.add(parseProgressFromLogs(seen)?.percentage ?? 0);
      if (seen.status === "succeeded") break;
      await pause(30);
    }
    expect([...shares]).toEqual([0, 0.25, 0.5, 0.75, 1]);
  });
});

describe("refusals in the real service's words", () => {
  test("no token and a wrong token", async () => {
    const without = await fetch(`${sandbox.url}/v1/account`);
    expect(without.status).toBe(401);
    expect(await without.json()).toEqual({
      title: "Unauthenticated",
      detail: "You did not pass an authentication token",
      status: 401,
    });
    const wrong = await fetch(`${sandbox.url}/v1/account`, { headers: { authorization: "Token sk_other" } });
    expect(await wrong.json()).toMatchObject({ detail: "You did not pass a valid authentication token", status: 401 });
    const old = await fetch(`${sandbox.url}/v1/account`, { headers: { authorization: "Token r8_any" } });
    expect(old.status).toBe(200);
  });

  test("an input that breaks the model's schema", async () => {
    const answer = await draw("", { prompt: undefined, num_inference_steps: 9, output_format: "gif" });
    expect(answer.status).toBe(422);
    const text = await answer.text();
    expect(text.endsWith("\n")).toBe(true);
    expect(JSON.parse(text)).toEqual({
      detail:
        "- input: prompt is required\n- input.num_inference_steps: Must be less than or equal to 4\n" +
        '- input.output_format: input.output_format must be one of the following: "webp", "jpg", "png"\n',
      status: 422,
      title: "Input validation failed",
      invalid_fields: [
        { type: "required", field: "input", description: "prompt is required" },
        { type: "number_lte", field: "input.num_inference_steps", description: "Must be less than or equal to 4" },
        {
          type: "enum",
          field: "input.output_format",
          description: 'input.output_format must be one of the following: "webp", "jpg", "png"',
        },
      ],
    });
    const webp = await post(`/v1/models/${KONTEXT}/predictions`, { input: { prompt: "x", output_format: "webp" } });
    expect(webp.status).toBe(422);
    const unknownKeys = await draw("x", { lora: 3 });
    expect(unknownKeys.status).toBe(201);
  });

  test("a key too many, no version, an http webhook, a directive with a typo", async () => {
    const surplus = await read(post("/v1/predictions", { input: {}, metadata: {} }));
    expect(surplus.invalid_fields.map(({ type }: { type: string }) => type)).toEqual([
      "required",
      "additional_property_not_allowed",
    ]);
    expect(surplus.detail).toBe("- version is required\n- Additional property metadata is not allowed\n");
    const webhook = "http://127.0.0.1/hook";
    expect((await post("/v1/predictions", { version: SCHNELL, input: { prompt: "x" }, webhook })).status).toBe(422);
    const typo = await draw("x [sandbox: fial]");
    expect(typo.status).toBe(422);
    expect((await read(typo)).detail).toContain('unknown fault "fial"');
    expect(sandbox.bill().lines).toEqual([]);
  });

  test("a community model by its bare name or through the official door, and a missing destination", async () => {
    const named = await post("/v1/predictions", { version: "stability-ai/sdxl", input: {} });
    expect(named.status).toBe(422);
    expect(await named.json()).toMatchObject({ title: "Invalid version or not permitted" });
    const door = await post("/v1/models/stability-ai/sdxl/predictions", { input: {} });
    expect(door.status).toBe(404);
    expect(await door.json()).toEqual({ detail: "The requested resource could not be found.", status: 404 });
    const path = `/v1/models/ostris/flux-dev-lora-trainer/versions/${TRAINER}/trainings`;
    const training = await post(path, { destination: "sandbox/none", input: { input_images: "https://x.test/a.zip" } });
    expect(training.status).toBe(404);
    expect(await training.json()).toEqual({
      detail: "The specified training destination does not exist",
      status: 404,
    });
  });

  test("a file above a hundred megabytes, as problem+json", async () => {
    const form = new FormData();
    form.append("content", new Blob([new Uint8Array(100_000_001)]), "large.bin");
    const answer = await fetch(`${sandbox.url}/v1/files`, { method: "POST", headers: AUTH, body: form });
    expect(answer.status).toBe(413);
    expect(answer.headers.get("content-type")).toBe("application/problem+json");
    expect(await answer.json()).toEqual({ detail: "Files must be less than 100MB in size" });
  });

  test("too many creates, when limits are on", async () => {
    sandbox = await open({ rateLimits: { creates: 2, others: 100 } });
    expect((await draw("one")).headers.get("ratelimit-remaining")).toBe("1");
    await draw("two");
    const third = await draw("three");
    expect(third.status).toBe(429);
    expect(await third.json()).toMatchObject({ status: 429, retry_after: expect.any(Number) });
    expect((await get("/v1/account")).status).toBe(200);
    expect(sandbox.bill().lines).toHaveLength(2);
  });
});

describe("pictures", () => {
  test("the same model, prompt and seed give the same bytes, whoever asks and whatever faults are named", async () => {
    const [first] = await outputs("a mountain at dawn", 7);
    sandbox = await open();
    const [again] = await outputs("a mountain at dawn [sandbox: webhook_drop]", 7);
    expect(again?.equals(first ?? Buffer.alloc(0))).toBe(true);
  });

  test("another seed looks different, and each output has a seed of its own", async () => {
    const pictures = await outputs("a city at night", 1, { num_outputs: 3, output_format: "png" });
    const [next] = await outputs("a city at night", 2, { output_format: "png" });
    expect(next?.equals(pictures[1] ?? Buffer.alloc(0))).toBe(true);
    const thumbs = await Promise.all(pictures.map((bytes) => sharp(bytes).resize(32, 32).raw().toBuffer()));
    const apart = (a = Buffer.alloc(0), b = Buffer.alloc(0)) =>
      a.reduce((sum, byte, index) => sum + Math.abs(byte - (b[index] ?? 0)), 0) / a.length;
    expect(apart(thumbs[0], thumbs[1])).toBeGreaterThan(8);
    expect(apart(thumbs[1], thumbs[2])).toBeGreaterThan(8);
  });

  test.each([
    ["16:9", "1", "jpg", 1344, 768, "jpeg"],
    ["9:16", "0.25", "png", 384, 672, "png"],
    ["3:2", "1", "webp", 1216, 832, "webp"],
  ])(
    "has the shape %s at %s megapixels as %s",
    async (aspect_ratio, megapixels, output_format, width, height, format) => {
      const [bytes] = await outputs("hope", 3, { aspect_ratio, megapixels, output_format });
      const found = await sharp(bytes).metadata();
      expect([found.width, found.height, found.format]).toEqual([width, height, format]);
    },
  );

  test("an input picture that cannot be fetched, or is none, fails the run in words", async () => {
    const edit = async (input_image: string) => {
      const answer = await post(`/v1/models/${KONTEXT}/predictions`, { input: { prompt: "x", input_image } });
      return ended((await read(answer)).id);
    };
    const [gone, text, sound] = await Promise.all([
      edit(`${sandbox.url}/nothing-here.jpg`),
      edit("data:image/png;base64,aGVsbG8="),
      edit(
        `data:image/png;base64,${(
          await sharp({ create: { width: 64, height: 64, channels: 3, background: "#fff" } })
            .png()
            .toBuffer()
        ).toString("base64")}`,
      ),
    ]);
    expect(gone).toMatchObject({ status: "failed", error: expect.stringContaining("HTTP Error 404") });
    expect(text).toMatchObject({ status: "failed", error: expect.stringContaining("cannot identify image file") });
    expect(sound.status).toBe("succeeded");
  });
});

describe("time", () => {
  test("Prefer: wait answers 201 with the output when it is over in time, and 202 as it is when not", async () => {
    const quick = await draw("quick", {}, { prefer: "wait=10" });
    expect(quick.status).toBe(201);
    expect(await read(quick)).toMatchObject({ status: "succeeded", output: [expect.any(String)] });
    const slow = await draw("slow [sandbox: slow=30]", {}, { prefer: "wait=1" });
    expect(slow.status).toBe(202);
    expect(await read(slow)).toMatchObject({ status: "processing", output: null });
  });

  test.concurrent("Cancel-After sets a deadline: aborted when it never started, canceled when it ran", async ({
    expect,
  }) => {
    const slowBoot = await startSandbox({ speed: 0.05 });
    const quickBoot = await startSandbox({ speed: 20 });
    const order = (at: Sandbox, after: string) =>
      fetch(`${at.url}/v1/models/${SCHNELL}/predictions`, {
        method: "POST",
        headers: { ...AUTH, "content-type": "application/json", "cancel-after": after, prefer: "wait=20" },
        body: JSON.stringify({ input: { prompt: "x [sandbox: slow=60]" } }),
      });
    try {
      const [tooShort, queued, running] = await Promise.all([
        order(quickBoot, "4s"),
        order(slowBoot, "5"),
        order(quickBoot, "0h0m5s"),
      ]);
      expect(tooShort.status).toBe(422);
      const aborted = await read(queued);
      expect(aborted).toMatchObject({ status: "aborted", output: null, deadline: expect.any(String) });
      expect(aborted).not.toHaveProperty("started_at");
      expect(await read(running)).toMatchObject({ status: "canceled", metrics: { predict_time: expect.any(Number) } });
      expect(slowBoot.bill().total).toMatchObject({ canceled: 1, usd: 0 });
    } finally {
      await Promise.all([slowBoot.close(), quickBoot.close()]);
    }
  });

  test("outputs, logs and input are gone an hour after the end; the verdict stays", async () => {
    const done = await read(draw("short-lived", {}, { prefer: "wait" }));
    expect((await fetch(done.output[0])).status).toBe(200);
    sandbox.advanceClock(59 * 60_000);
    expect((await fetch(done.output[0])).status).toBe(200);
    sandbox.advanceClock(2 * 60_000);
    expect((await fetch(done.output[0])).status).toBe(404);
    const later = await read(get(`/v1/predictions/${done.id}`));
    expect(later).toMatchObject({ status: "succeeded", output: null, data_removed: true, logs: "", input: {} });
  });

  test("lists by the time of creation", async () => {
    const old = await read(draw("old"));
    sandbox.advanceClock(60_000);
    const since = encodeURIComponent(new Date(Date.now() + 30_000).toISOString());
    const young = await read(draw("young"));
    const ids = async (query: string) =>
      (await read(get(`/v1/predictions?${query}`))).results.map(({ id }: Body) => id);
    expect(await ids(`created_after=${since}`)).toEqual([young.id]);
    expect(await ids(`created_before=${since}`)).toEqual([old.id]);
    expect((await get("/v1/predictions?created_after=yesterday")).status).toBe(422);
  });
});

describe("webhooks", () => {
  const hooked = (prompt: string, events: string[], path = "/hooks/replicate?ref=run_1&token=s3cret") =>
    replicate.predictions.create({
      model: SCHNELL,
      input: { prompt },
      webhook: `https://app.example.test${path}`,
      webhook_events_filter: events as ["completed"],
    });

  test("verify with both official packages, and carry what GET shows", async () => {
    const { heard } = await receiver();
    const created = await hooked("signed", ["completed"]);
    const done = await ended(created.id);
    await expect.poll(() => heard.length).toBe(1);
    const [delivery] = heard;
    expect(delivery?.url).toBe("/hooks/replicate?ref=run_1&token=s3cret");
    expect(delivery?.headers["x-forwarded-proto"]).toBe("https");
    const { body = "", headers = {} } = delivery ?? {};
    expect(JSON.parse(body)).toEqual(done);
    expect(await validateWebhook({ headers, body } as never, sandbox.webhookSecret)).toBe(true);
    expect(new Webhook(sandbox.webhookSecret).verify(body, headers)).toEqual(done);
    expect(() => new Webhook(sandbox.webhookSecret).verify(`${body} `, headers)).toThrow();
  });

  test("come for the events that were asked for, in their order", async () => {
    const { heard, status } = await receiver();
    const created = await hooked("told [sandbox: slow=1.2]", ["start", "output", "logs", "completed"]);
    await ended(created.id);
    await expect.poll(() => status(heard.length - 1)).toBe("succeeded");
    const statuses = heard.map((_, index) => status(index));
    expect(statuses.slice(0, -1).every((word) => word === "processing")).toBe(true);
    expect(statuses.length).toBeGreaterThanOrEqual(4);
    expect(heard.some(({ body }) => JSON.parse(body).status === "processing" && JSON.parse(body).output)).toBe(true);
  });

  test("repeat the terminal event with backoff under one id until it is taken, and no other", async () => {
    const { heard } = await receiver(500, 302, 404);
    await hooked("stubborn", ["completed"]);
    await expect.poll(() => heard.length, { timeout: 5_000 }).toBe(4);
    expect(new Set(heard.map(({ headers }) => headers["webhook-id"])).size).toBe(1);
    const pauses = heard.slice(1).map(({ at }, index) => at - (heard[index]?.at ?? 0));
    expect(pauses[1]).toBeGreaterThan((pauses[0] ?? 0) * 1.5);
    expect(pauses[2]).toBeGreaterThan((pauses[1] ?? 0) * 1.5);
    await pause(500);
    expect(heard).toHaveLength(4);
  });

  test("give up after five tries, and never repeat an intermediate event", async () => {
    sandbox = await open({ speed: 200 });
    replicate = new Replicate({ auth: "r8_sandbox", baseUrl: `${sandbox.url}/v1` });
    const { heard, status } = await receiver(...Array.from({ length: 20 }, () => 503));
    await hooked("nobody", ["start", "completed"]);
    await pause(1_200);
    expect(heard.map((_, index) => status(index))).toEqual([
      "processing",
      ...Array.from({ length: 5 }, () => "succeeded"),
    ]);
  });
});

describe("the bill", () => {
  test("has a line for a create whose answer was cut off, and the caller can find it by its webhook", async () => {
    const body = { input: { prompt: "lost [sandbox: cut]" }, webhook: "https://app.example.test/h?token=t1" };
    await expect(post(`/v1/models/${SCHNELL}/predictions`, body)).rejects.toThrow("fetch failed");
    const { lines } = sandbox.bill();
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({ kind: "prediction", model: SCHNELL, webhook: body.webhook, created_by: "dbox" });
    const listed = await read(get("/v1/predictions"));
    expect(listed.results[0]).toMatchObject({ id: lines[0]?.id, webhook: body.webhook, input: body.input });
  });

  test("shows what the client's own retries cost", async () => {
    await expect(
      replicate.predictions.create({ model: SCHNELL, input: { prompt: "x [sandbox: cut]" } }),
    ).rejects.toThrow();
    expect(sandbox.bill().total.predictions).toBe(6);
  });

  test("counts pictures of official models and seconds of all others, and can be read and reset", async () => {
    await read(draw("four", { num_outputs: 4 }, { prefer: "wait" }));
    await read(draw("none [sandbox: fail]", {}, { prefer: "wait" }));
    const timed = await read(post("/v1/predictions", { version: LIGHTNING, input: {} }, { prefer: "wait" }));
    const { lines, total } = await read(fetch(`${sandbox.url}/_sandbox/bill`));
    expect(lines.map(({ cost_usd }: Body) => cost_usd).slice(0, 2)).toEqual([0.012, 0]);
    expect(lines[2].billed_seconds).toBe(timed.metrics.predict_time);
    expect(lines[2].cost_usd).toBeCloseTo(timed.metrics.predict_time * 0.0014, 6);
    expect(total).toMatchObject({ predictions: 3, trainings: 0, succeeded: 2, failed: 1, canceled: 0 });
    expect(total.usd).toBeCloseTo(0.012 + lines[2].cost_usd, 6);
    await fetch(`${sandbox.url}/_sandbox/bill`, { method: "DELETE" });
    expect(sandbox.bill()).toMatchObject({ lines: [], total: { predictions: 0, usd: 0 } });
  });
});
