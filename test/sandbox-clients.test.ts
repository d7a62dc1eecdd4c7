import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createFalClient } from "@fal-ai/client";
import { InferenceClient } from "@huggingface/inference";
import Replicate from "replicate";
import runpodSdk from "runpod-sdk";
import sharp from "sharp";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Client as WaveSpeed } from "wavespeed";
import { z } from "zod";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";

/** The vendors' own packages, as their users hold them: what they complete here, they complete there. */
let sandbox: Sandbox;
beforeAll(async () => {
  sandbox = await startSandbox({ speed: 20 });
});
afterAll(() => sandbox.close());
afterEach(() => sandbox.resetBill());

const KEY = "sandbox-key";
const PROMPT = "a lighthouse at dawn";

/** Every pixel of it, so that a picture cut short is none. */
async function decoded(bytes: ArrayBuffer | Buffer): Promise<{ width: number; height: number; format: string }> {
  const image = sharp(Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes), { failOn: "error" });
  const { format } = await image.metadata();
  const { info } = await image.raw().toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, format };
}

async function fetched(url: unknown) {
  const answer = await fetch(z.url().parse(url));
  expect(answer.status).toBe(200);
  return decoded(await answer.arrayBuffer());
}

/** What the bill says of the one thing that was bought. */
function bought() {
  const { lines } = sandbox.bill();
  expect(lines).toHaveLength(1);
  return lines[0];
}

describe("replicate", () => {
  const client = () => new Replicate({ auth: sandbox.token, baseUrl: `${sandbox.url}/v1`, useFileOutput: false });
  const SCHNELL = "black-forest-labs/flux-schnell";

  test("runs a model and waits for it in the create", async () => {
    const output = await client().run(SCHNELL, { input: { prompt: PROMPT, output_format: "png" } });
    expect(await fetched(z.array(z.string()).parse(output)[0])).toMatchObject({ format: "png", width: 1_024 });
    expect(bought()).toMatchObject({ face: "replicate", status: "succeeded" });
  });

  test("creates a prediction and waits for its end", async () => {
    const replicate = client();
    const created = await replicate.predictions.create({ model: SCHNELL, input: { prompt: PROMPT } });
    const ended = await replicate.wait(created, { interval: 50 });
    expect(ended.status).toBe("succeeded");
    expect(await fetched(z.array(z.string()).parse(ended.output)[0])).toMatchObject({ format: "webp" });
  });
});

describe("wavespeed", () => {
  const client = () => new WaveSpeed(KEY, { baseUrl: `${sandbox.url}/wavespeed`, retryInterval: 0.05 });
  const DEV = "wavespeed-ai/flux-dev";
  const Outputs = z.object({ outputs: z.array(z.string()).min(1) });

  test("runs a model and asks for its result until it is there", async () => {
    const input = { prompt: PROMPT, size: "1280*720", output_format: "png" };
    const { outputs } = Outputs.parse(await client().run(DEV, input, { pollInterval: 0.05 }));
    expect(await fetched(outputs[0])).toEqual({ format: "png", width: 1_280, height: 720 });
    expect(bought()).toMatchObject({ face: "wavespeed", status: "succeeded", model: DEV, cost_usd: 0.012 });
  });

  test("runs a model in sync mode, and hears that one which takes too long goes on without it", async () => {
    const { outputs } = Outputs.parse(await client().run(DEV, { prompt: PROMPT }, { enableSyncMode: true }));
    expect(await fetched(outputs[0])).toMatchObject({ format: "jpeg" });
    const { detail } = await client().runNoThrow(
      DEV,
      { prompt: `${PROMPT} [sandbox:slow=60]` },
      { enableSyncMode: true },
    );
    expect(detail).toMatchObject({ status: "processing", resultUrl: expect.stringContaining(detail.taskId) });
  });

  test("uploads a picture and has it changed", async () => {
    const folder = await mkdtemp(join(tmpdir(), "client-"));
    const path = join(folder, "room.png");
    const room = { width: 320, height: 200, channels: 3, background: "#ccbbaa" } as const;
    await writeFile(path, await sharp({ create: room }).png().toBuffer());
    const image = await client().upload(path);
    await rm(folder, { recursive: true });
    const input = { prompt: "add a sofa", image };
    const ended = await client().run("wavespeed-ai/flux-kontext-pro", input, { pollInterval: 0.05 });
    expect(await fetched(Outputs.parse(ended).outputs[0])).toMatchObject({ width: 320, height: 200 });
  });

  test("throws what the provider says of a run that failed, and of one that was not taken", async () => {
    const failing = client().run(DEV, { prompt: `${PROMPT} [sandbox:nsfw]` }, { pollInterval: 0.05 });
    await expect(failing).rejects.toThrow(/sensitive/);
    await expect(client().run(DEV, { prompt: PROMPT, num_images: 9 })).rejects.toThrow(/HTTP 400.*num_images/);
  });
});

describe("runpod-sdk", () => {
  const endpoint = (id: string) => {
    const found = runpodSdk(KEY, { baseUrl: `${sandbox.url}/runpod` }).endpoint(id);
    if (!found) throw new Error("no endpoint");
    return found;
  };
  const Images = z.object({ images: z.array(z.object({ data: z.base64() })).min(1) });

  test("runs a job on an own endpoint and asks for its status until the pictures are in it", async () => {
    const own = endpoint("own-flux-a40");
    const { id } = await own.run({ input: { prompt: PROMPT, width: 512, height: 512 } });
    await expect.poll(async () => (await own.status(id)).status, { timeout: 10_000 }).toBe("COMPLETED");
    const [picture] = z.object({ output: Images }).parse(await own.status(id)).output.images;
    expect(await decoded(Buffer.from(picture?.data ?? "", "base64"))).toMatchObject({ format: "png", width: 512 });
    expect(bought()).toMatchObject({ face: "runpod", status: "succeeded" });
  });

  test("runs a job on a public endpoint and waits for it in the create", async () => {
    const { output } = await endpoint("black-forest-labs-flux-1-schnell").runSync({ input: { prompt: PROMPT } });
    const { image_url } = z.object({ image_url: z.string(), cost: z.number() }).parse(output);
    expect(await fetched(image_url)).toMatchObject({ format: "jpeg", width: 1_024 });
  });
});

describe("@fal-ai/client", () => {
  test("subscribes to a model until its result is there", async () => {
    // It knows its hosts by itself: its `fetch` is turned to the sandbox instead.
    const turned: typeof fetch = (input, init) =>
      fetch(String(input).replace("https://queue.fal.run", `${sandbox.url}/fal/queue`), init);
    const fal = createFalClient({ credentials: "key-id:key-secret", fetch: turned });
    const { data } = await fal.subscribe("fal-ai/flux/schnell", {
      input: { prompt: PROMPT, output_format: "png" },
      pollInterval: 50,
    });
    const [image] = z.object({ images: z.array(z.object({ url: z.string() })) }).parse(data).images;
    expect(await fetched(image?.url)).toMatchObject({ format: "png", width: 1_024, height: 768 });
    expect(bought()).toMatchObject({ face: "fal", status: "succeeded" });
  });
});

describe("@huggingface/inference", () => {
  afterEach(() => vi.unstubAllGlobals());

  test.each(["hf-inference", "fal-ai", "together"] as const)("gets a picture from %s", async (provider) => {
    // It has no option for the router's address, and asks for fal's results by whatever fetch there is.
    const real = fetch;
    vi.stubGlobal("fetch", (input: string | URL | Request, init?: RequestInit) =>
      real(
        String(input)
          .replace("https://router.huggingface.co", `${sandbox.url}/huggingface`)
          .replace("https://huggingface.co", `${sandbox.url}/huggingface/hub`),
        init,
      ),
    );
    const client = new InferenceClient("hf_sandbox", { retry_on_error: false });
    const picture = await client.textToImage(
      { provider, model: "black-forest-labs/FLUX.1-schnell", inputs: PROMPT, parameters: { width: 512, height: 256 } },
      { outputType: "blob" },
    );
    expect(await decoded(await picture.arrayBuffer())).toMatchObject({ width: 512, height: 256 });
    expect(bought()).toMatchObject({ face: "huggingface", status: "succeeded" });
  });
});
