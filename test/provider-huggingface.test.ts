import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { InferenceClient } from "@huggingface/inference";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";
import { hfFal, hfFalKontext, hfFalWan, hfInference, hfTogether } from "../src/domain/huggingface-inputs.ts";
import {
  type Answer,
  type Look,
  type Order,
  type Provider,
  ProviderUnreachable,
  WebhookRefused,
} from "../src/domain/provider.ts";
import { huggingFace } from "../src/providers/huggingface.ts";
import { photo } from "./rig/pictures.ts";

const TOKEN = "sandbox-key";
const SCHNELL = "black-forest-labs/FLUX.1-schnell";
const WHOLE = `hf-inference/${SCHNELL}`;
const QUEUE = `fal-ai/${SCHNELL}`;
const TOGETHER = `together/${SCHNELL}`;
const ask = { seed: 7, safety: true } as const;
let sandbox: Sandbox;
let provider: Provider;

beforeAll(async () => {
  sandbox = await startSandbox({ speed: 40 });
  provider = huggingFace.make({
    name: "huggingface",
    token: TOKEN,
    baseUrl: `${sandbox.url}/huggingface`,
    totalMs: 4_000,
  });
});
afterAll(() => sandbox.close());
beforeEach(() => {
  sandbox.faults.clear();
  sandbox.resetBill();
});

let orders = 0;
/** `directive` is a fault of the sandbox, asked for in the prompt. */
function order(model: string, directive: string | null = null, rest: Partial<Order> = {}): Order {
  orders++;
  const prompt = `chair ${orders}${directive === null ? "" : ` [sandbox:${directive}]`}`;
  const asked = { ...ask, prompt, width: 512, height: 256, steps: 4 };
  const input = model === WHOLE ? hfInference(asked) : model === TOGETHER ? hfTogether(asked) : hfFal(asked);
  return {
    runId: `run-${orders}`,
    model,
    version: model === QUEUE ? "fal-ai/flux/schnell" : SCHNELL,
    input,
    destination: null,
    webhookUrl: null,
    sendBefore: new Date(Date.now() + 5_000),
    cancelAfterSeconds: 30,
    ...rest,
  };
}
const bought = () => sandbox.bill().lines.filter(({ face }) => face === "huggingface");

function outputsOf(answer: Answer): readonly string[] {
  if (answer.outcome !== "completed" || answer.end.status !== "succeeded") throw new Error(JSON.stringify(answer));
  return answer.end.outputs;
}

async function queued(it: Order): Promise<string> {
  const answer = await provider.submit(it);
  if (answer.outcome !== "submitted") throw new Error(JSON.stringify(answer));
  return answer.providerRunId;
}

const lookAt = (providerRunId: string, model = QUEUE) => provider.look({ providerRunId, model, isTraining: false });

async function verdict(providerRunId: string, model = QUEUE): Promise<Look> {
  for (let i = 0; i < 200; i++) {
    const look = await lookAt(providerRunId, model);
    if (look.status !== "running") return look;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error("still running after 5 s");
}

describe("hf-inference and together: the call is the whole run", () => {
  test("the answer is the picture itself, and the bill has one line under the request's id", async () => {
    const answer = await provider.submit(order(WHOLE));
    expect(outputsOf(answer)).toEqual([expect.stringMatching(/^data:image\/jpeg;base64,\/9j\//)]);
    expect(answer).toMatchObject({ end: { seconds: null, costMicroUsd: null, trainedVersion: null } });
    expect(bought()).toMatchObject([
      { id: answer.outcome === "completed" && answer.providerRunId, status: "succeeded", model: SCHNELL },
    ]);
  });

  test("together answers with the picture in base64", async () => {
    expect(outputsOf(await provider.submit(order(TOGETHER)))).toEqual([
      expect.stringMatching(/^data:image\/jpeg;base64,\/9j\//),
    ]);
    expect(bought()).toHaveLength(1);
  });

  test.each([
    ["unauthorized", "provider_auth", "Invalid username or password."],
    [
      "no_credit",
      "provider_no_credit",
      "You have depleted your monthly included credits. Purchase pre-paid credits to continue using Inference Providers.",
    ],
  ])("%s is declined as %s, in Hugging Face's words, and nothing is bought", async (fault, code, detail) => {
    for (const model of [WHOLE, TOGETHER, QUEUE])
      expect(await provider.submit(order(model, fault))).toEqual({ outcome: "declined", failure: { code, detail } });
    expect(bought()).toEqual([]);
  });

  test.each([
    ["body", 2_000],
    ["header", 2_000],
    ["neither", 5_000],
  ])("a throttled call is postponed for as long as told (%s)", async (form, retryAfterMs) => {
    const answer = await provider.submit(order(WHOLE, `rate_limited=${form}`));
    expect(answer).toMatchObject({ outcome: "postponed", failure: { code: "rate_limited" }, retryAfterMs });
    expect(bought()).toEqual([]);
  });

  test("a model that must be loaded first is postponed for as long as that takes, and nothing is bought", async () => {
    sandbox.faults.add({ fault: "aborted", match: { face: "huggingface" }, times: 1 });
    const it = order(WHOLE);
    expect(await provider.submit(it)).toMatchObject({
      outcome: "postponed",
      failure: { code: "provider_busy", detail: expect.stringContaining("currently loading") },
      retryAfterMs: 500,
    });
    expect(bought()).toEqual([]);
    expect(await provider.submit(it)).toMatchObject({ outcome: "completed", end: { status: "succeeded" } });
  });

  test("what the model does not take, and what is not served, are declined", async () => {
    const input = hfInference({ ...ask, prompt: "wide", width: 9_000, height: 64 });
    expect(await provider.submit(order(WHOLE, null, { input }))).toMatchObject({
      outcome: "declined",
      failure: { code: "input_refused", detail: expect.stringContaining("width") },
    });
    expect(await provider.submit(order("hf-inference/some/thing", null, { version: null }))).toMatchObject({
      outcome: "declined",
      failure: { code: "model_not_found" },
    });
    expect(bought()).toEqual([]);
  });

  test.each(["cut", "cut_half", "garbage_after_accept", "server_error_after_accept"])(
    "after %s it is lost: bought once, and not sent again",
    async (fault) => {
      for (const model of [WHOLE, TOGETHER, QUEUE])
        expect(await provider.submit(order(model, fault))).toMatchObject({ outcome: "lost" });
      expect(bought()).toHaveLength(3);
    },
  );

  test.each(["server_error", "refuse_before", "down"])(
    "after %s it is lost, though nothing was bought",
    async (fault) => {
      sandbox.faults.add({ fault, match: { face: "huggingface" }, times: 1 });
      expect(await provider.submit(order(WHOLE))).toMatchObject({ outcome: "lost" });
      expect(bought()).toEqual([]);
    },
  );

  test.each([
    ["nsfw", "content_refused"],
    ["fail", "provider_failed"],
    ["oom", "provider_failed"],
    ["interrupted", "interrupted"],
  ])("%s ends the run as %s, under the id on the bill", async (fault, code) => {
    for (const model of [WHOLE, TOGETHER]) {
      sandbox.resetBill();
      const answer = await provider.submit(order(model, fault));
      expect(answer).toMatchObject({ outcome: "completed", end: { status: "failed", failure: { code } } });
      expect(bought()).toMatchObject([
        { id: answer.outcome === "completed" && answer.providerRunId, status: "failed" },
      ]);
    }
  });

  test("a run that is slower than its own limit is lost, and spent all the same", async () => {
    const answer = await provider.submit(order(WHOLE, "slow=2", { cancelAfterSeconds: 0.3 }));
    expect(answer).toMatchObject({ outcome: "lost", detail: expect.stringContaining("300 ms") });
    expect(bought()).toHaveLength(1);
  });

  test("such a run is never out: there is nothing to look at", async () => {
    expect(await lookAt("run-1", WHOLE)).toEqual({ status: "gone" });
    expect(await lookAt("run-1", QUEUE)).toEqual({ status: "gone" });
  });
});

describe("fal-ai: the call takes the order", () => {
  test("a run is known by its place in the queue, and ends with the picture's link and its seconds", async () => {
    const id = await queued(order(QUEUE));
    expect(id).toMatch(/^fal-ai\/flux\/requests\/[0-9a-f-]{36}$/);
    const look = await verdict(id);
    expect(look).toMatchObject({ status: "succeeded", seconds: expect.any(Number), costMicroUsd: null });
    if (look.status !== "succeeded") return;
    expect(look.outputs).toHaveLength(1);
    expect((await fetch(look.outputs[0] ?? "")).headers.get("content-type")).toBe("image/jpeg");
    expect(bought()).toMatchObject([{ id: id.split("/").at(-1), status: "succeeded" }]);
  });

  test("a picture is changed, and a film is made from one", async () => {
    const image = `data:image/jpeg;base64,${(await photo(1)).toString("base64")}`;
    const kontext = "fal-ai/black-forest-labs/FLUX.1-Kontext-dev";
    const edit = await queued(
      order(kontext, null, {
        version: "fal-ai/flux-kontext/dev",
        input: hfFalKontext({ ...ask, prompt: "a blue sofa", image, format: "png" }),
      }),
    );
    expect(await verdict(edit, kontext)).toMatchObject({ status: "succeeded", outputs: [expect.any(String)] });
    const wan = "fal-ai/Wan-AI/Wan2.2-I2V-A14B";
    const film = await queued(
      order(wan, null, {
        version: "fal-ai/wan/v2.2-a14b/image-to-video",
        input: hfFalWan({ ...ask, prompt: "slowly", image, seconds: 2 }),
      }),
    );
    expect(film).toMatch(/^fal-ai\/wan\/requests\//);
    expect(await verdict(film, wan)).toMatchObject({ status: "succeeded", outputs: [expect.stringMatching(/webm$/)] });
  });

  test.each([
    ["nsfw", "content_refused"],
    ["fail", "provider_failed"],
    ["interrupted", "interrupted"],
    ["aborted", "interrupted"],
  ])("%s reads COMPLETED too, and ends as %s", async (fault, code) => {
    expect(await verdict(await queued(order(QUEUE, fault)))).toMatchObject({ status: "failed", failure: { code } });
  });

  test("while it runs it is running, and nothing is told of how far it is", async () => {
    const id = await queued(order(QUEUE, "slow=1"));
    expect(await lookAt(id)).toEqual({ status: "running", progress: null });
    await provider.cancel({ providerRunId: id, model: QUEUE, isTraining: false });
    expect(await verdict(id)).toMatchObject({ status: "succeeded" });
  });

  test("an error page is no verdict, and a run that nobody knows is gone", async () => {
    const id = await queued(order(QUEUE, "get_garbage=9"));
    await expect(lookAt(id)).rejects.toThrow(ProviderUnreachable);
    expect(await lookAt("fal-ai/flux/requests/00000000-0000-0000-0000-000000000000")).toEqual({ status: "gone" });
  });

  test("without its name at fal-ai a model cannot be ordered there", async () => {
    expect(await provider.submit(order(QUEUE, null, { version: null }))).toMatchObject({
      outcome: "declined",
      failure: { code: "model_not_found" },
    });
  });
});

describe("resolve", () => {
  test.each([
    [WHOLE, SCHNELL],
    [TOGETHER, SCHNELL],
    [QUEUE, "fal-ai/flux/schnell"],
  ])("%s is called %s there", async (model, version) => {
    expect(await provider.resolve(model)).toEqual({ outcome: "resolved", version });
  });

  test.each([
    ["black-forest-labs/FLUX.1-schnell", "is not upstream/owner/name"],
    ["novita/black-forest-labs/FLUX.1-schnell", "is not upstream/owner/name"],
    ["hf-inference/../etc", "is not upstream/owner/name"],
    ["hf-inference/some/thing", "Repository not found"],
    ["together/stabilityai/stable-diffusion-xl-base-1.0", "is not served by together"],
    ["together/black-forest-labs/FLUX.1-dev", "is staging at together"],
  ])("%s is not to be had", async (model, detail) => {
    expect(await provider.resolve(model)).toMatchObject({
      outcome: "declined",
      failure: { code: "model_not_found", detail: expect.stringContaining(detail) },
    });
  });

  test("what is known is asked for again after an hour, or when a fresh answer is wanted", async () => {
    let now = new Date();
    const other = huggingFace.make({
      name: "huggingface",
      token: TOKEN,
      baseUrl: `${sandbox.url}/huggingface`,
      clock: () => now,
    });
    expect(await other.resolve(WHOLE)).toMatchObject({ outcome: "resolved" });
    sandbox.faults.add({ fault: "vanished", match: { face: "huggingface", model: SCHNELL } });
    expect(await other.resolve(WHOLE)).toMatchObject({ outcome: "resolved" });
    now = new Date(now.getTime() + 61 * 60_000);
    expect(await other.resolve(WHOLE)).toMatchObject({ outcome: "declined" });
    sandbox.faults.clear();
    expect(await other.resolve(WHOLE, { fresh: true })).toMatchObject({ outcome: "resolved" });
  });

  test("a hub that cannot be reached postpones, and a wrong token is told", async () => {
    const closed = huggingFace.make({ name: "huggingface", token: TOKEN, baseUrl: "http://127.0.0.1:1", totalMs: 500 });
    expect(await closed.resolve(WHOLE)).toMatchObject({
      outcome: "postponed",
      failure: { code: "provider_unavailable" },
    });
    expect(await closed.submit(order(WHOLE))).toMatchObject({ outcome: "postponed" });
    const strict = await startSandbox({ tokens: ["the-right-one"] });
    const wrong = huggingFace.make({ name: "huggingface", token: TOKEN, baseUrl: `${strict.url}/huggingface` });
    expect(await wrong.resolve(WHOLE)).toMatchObject({ outcome: "declined", failure: { code: "provider_auth" } });
    await strict.close();
  });
});

describe("the official client against the sandbox", () => {
  /** It knows two hosts and no option for them: its `fetch` is turned to the sandbox instead. */
  const turned: typeof fetch = (input, init) =>
    fetch(
      String(input)
        .replace("https://router.huggingface.co", `${sandbox.url}/huggingface`)
        .replace("https://huggingface.co", `${sandbox.url}/huggingface/hub`),
      init,
    );

  test.each(["hf-inference", "together"] as const)("gets a picture from %s", async (upstream) => {
    const client = new InferenceClient("hf_sandbox", { fetch: turned, retry_on_error: false });
    const inputs = "a lighthouse at dawn";
    const picture = await client.textToImage(
      { provider: upstream, model: SCHNELL, inputs, parameters: { width: 256, height: 256 } },
      { outputType: "blob" },
    );
    expect(picture.type).toBe("image/jpeg");
    expect(Buffer.from(await picture.arrayBuffer()).subarray(0, 3)).toEqual(Buffer.from([0xff, 0xd8, 0xff]));
    expect(bought()).toHaveLength(1);
  });

  test("hears in Hugging Face's words that the credit is used up", async () => {
    const client = new InferenceClient("hf_sandbox", { fetch: turned, retry_on_error: false });
    const inputs = "a lighthouse [sandbox:no_credit]";
    await expect(client.textToImage({ provider: "hf-inference", model: SCHNELL, inputs })).rejects.toThrow(
      "You have depleted your monthly included credits",
    );
  });
});

describe("what only the real one says", () => {
  let server: Server;
  let stand: Provider;
  let answers: Record<string, readonly [status: number, body: unknown, headers?: Record<string, string>]>;
  const strange: string[] = [];

  beforeEach(async () => {
    answers = {};
    strange.length = 0;
    server = createServer((request, response) => {
      const path = (request.url ?? "").split("?")[0] ?? "";
      const [status, body, headers] = answers[path] ?? answers["*"] ?? [404, "<html>nginx</html>"];
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address() as AddressInfo;
    stand = huggingFace.make({
      name: "huggingface",
      token: "hf_secret",
      baseUrl: `http://127.0.0.1:${address.port}`,
      totalMs: 1_000,
      onStrange: (what) => strange.push(what),
    });
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  test.each<[string, number, unknown, string, string]>([
    ["a list of errors", 400, { error: ["inputs is required", "seed is no number"] }, "declined", "input_refused"],
    [
      "a model that is not served",
      400,
      { error: "Model x not supported by provider y" },
      "declined",
      "model_not_found",
    ],
    ["a token without the permission", 403, { error: "No sufficient permissions" }, "declined", "provider_auth"],
    ["a gated model", 403, { error: "Access to model x/y is restricted" }, "declined", "model_not_found"],
    ["a file too large", 413, { error: "Payload too large" }, "declined", "input_too_large"],
    ["an upstream's refusal", 422, { error: { message: "steps", type: "invalid" } }, "declined", "input_refused"],
    ["a content policy", 422, { error: { message: "Violates content policy" } }, "completed", "content_refused"],
    ["a crash", 500, { error: "CUDA out of memory" }, "completed", "provider_failed"],
    ["a model that loads", 503, { error: "loading", estimated_time: 42.5 }, "postponed", "provider_busy"],
  ])("%s (%i)", async (_name, status, body, outcome, code) => {
    answers["*"] = [status, body];
    const answer = await stand.submit(order(WHOLE));
    expect(answer.outcome).toBe(outcome);
    expect(JSON.stringify(answer)).toContain(`"code":"${code}"`);
    if (answer.outcome === "postponed") expect(answer.retryAfterMs).toBe(42_500);
  });

  test.each<[string, number, unknown, Record<string, string>?]>([
    ["a picture without a byte", 200, "", { "content-type": "image/png" }],
    ["a page", 200, "<html>", { "content-type": "text/html" }],
    ["a list without pictures", 200, { data: [] }],
    ["a 503 that names no time", 503, { error: "Service Unavailable" }],
    ["a 504 of the router", 504, { error: "Gateway timeout" }],
    ["a 408", 408, { error: "Timeout" }],
    ["a redirect", 307, ""],
    ["a 404 of somebody in between", 404, "<html>nginx</html>"],
  ])("%s is lost, and reported as strange", async (_name, status, body, headers = {}) => {
    answers["*"] = [status, body, headers];
    expect(await stand.submit(order(WHOLE))).toMatchObject({ outcome: "lost" });
    expect(strange).toHaveLength(1);
  });

  test("a picture's type is told by its header, in base64 by how it begins, and a link is taken as it is", async () => {
    answers["*"] = [200, Buffer.from("abc"), { "content-type": "image/webp; charset=binary" }];
    const it = order(WHOLE);
    const answer = await stand.submit(it);
    expect(outputsOf(answer)).toEqual(["data:image/webp;base64,YWJj"]);
    expect(answer).toMatchObject({ providerRunId: it.runId });
    answers["*"] = [200, { data: [{ b64_json: "iVBORw0KGgo=" }, { url: "https://x.test/a.jpg" }] }];
    expect(outputsOf(await stand.submit(order(TOGETHER)))).toEqual([
      "data:image/png;base64,iVBORw0KGgo=",
      "https://x.test/a.jpg",
    ]);
  });

  test("the model's mapping may be a list, too", async () => {
    const entry = { provider: "fal-ai", providerId: "fal-ai/flux/schnell", status: "live", task: "text-to-image" };
    answers[`/hub/api/models/${SCHNELL}`] = [200, { inferenceProviderMapping: [{ provider: "x" }, entry] }];
    expect(await stand.resolve(QUEUE)).toEqual({ outcome: "resolved", version: "fal-ai/flux/schnell" });
    answers[`/hub/api/models/${SCHNELL}`] = [200, { inferenceProviderMapping: [{ ...entry, providerId: "../me" }] }];
    expect(await stand.resolve(QUEUE, { fresh: true })).toMatchObject({ outcome: "declined" });
  });

  test("a place in the queue that is not told is known from the model's name", async () => {
    answers["/fal-ai/fal-ai/flux/schnell"] = [200, { request_id: "req-1" }];
    expect(await stand.submit(order(QUEUE))).toEqual({
      outcome: "submitted",
      providerRunId: "fal-ai/flux/requests/req-1",
    });
  });

  const COMPLETED = { status: "COMPLETED", metrics: { inference_time: 1.5 } };
  const HELD_BACK = { status: "failed", failure: { code: "content_refused" } };
  test.each<[string, number, unknown, object]>([
    ["pictures", 200, { images: [{ url: "https://v3.fal.media/a.png" }] }, { outputs: ["https://v3.fal.media/a.png"] }],
    ["a film", 200, { video: { url: "https://v3.fal.media/a.mp4" } }, { outputs: ["https://v3.fal.media/a.mp4"] }],
    ["nothing", 200, { images: [] }, { failure: { code: "provider_failed" } }],
    ["a field", 422, { detail: [{ loc: ["body"], msg: "no", type: "x" }] }, { failure: { code: "input_refused" } }],
    ["a black picture", 200, { images: [{ url: "https://v3.fal.media/a.png" }], has_nsfw_concepts: [true] }, HELD_BACK],
    ["a crash", 500, { detail: [{ loc: [], msg: "x", type: "y" }] }, { failure: { code: "provider_failed" } }],
    ["a lost runner", 503, { detail: "x", error_type: "runner_disconnected" }, { failure: { code: "interrupted" } }],
    ["a cancel", 499, { detail: "x", error_type: "client_cancelled" }, { status: "canceled" }],
    ["a result that is gone", 404, { detail: "x" }, { failure: { code: "output_unavailable" } }],
  ])("a run that is COMPLETED with %s (%i) has ended so", async (_name, status, body, end) => {
    answers["/fal-ai/fal-ai/flux/requests/r1/status"] = [200, COMPLETED];
    answers["/fal-ai/fal-ai/flux/requests/r1"] = [status, body];
    const look = await stand.look({ providerRunId: "fal-ai/flux/requests/r1", model: QUEUE, isTraining: false });
    expect(look).toMatchObject({ seconds: 1.5, ...end });
  });

  test.each<[number, unknown]>([
    [502, "<html>"],
    [500, { error: "Internal Server Error" }],
    [503, { error: "Service Unavailable" }],
    [500, { detail: "Internal error", error_type: "internal_error" }],
    [404, { error: "Not Found" }],
    [401, { error: "Invalid token" }],
    [200, "half"],
  ])("a result that is %i %j is no verdict", async (status, body) => {
    answers["/fal-ai/fal-ai/flux/requests/r1/status"] = [200, COMPLETED];
    answers["/fal-ai/fal-ai/flux/requests/r1"] = [status, body];
    const ref = { providerRunId: "fal-ai/flux/requests/r1", model: QUEUE, isTraining: false };
    await expect(stand.look(ref)).rejects.toThrow(ProviderUnreachable);
  });

  test("a new status is taken for running, and reported as strange", async () => {
    answers["/fal-ai/fal-ai/flux/requests/r1/status"] = [200, { status: "WARMING" }];
    const look = await stand.look({ providerRunId: "fal-ai/flux/requests/r1", model: QUEUE, isTraining: false });
    expect(look).toEqual({ status: "running", progress: null });
    expect(strange).toEqual([expect.stringContaining("WARMING")]);
  });

  test("the token is in no report", async () => {
    answers["*"] = [400, { error: "token hf_secret is not allowed" }];
    expect(JSON.stringify(await stand.submit(order(WHOLE)))).toContain("token [hidden] is not allowed");
  });
});

describe("without a call", () => {
  const real = huggingFace.make({ name: "huggingface", token: TOKEN, baseUrl: huggingFace.baseUrl });
  const file = (url: string, bytes = 3) => {
    return { url, filename: "a.png", contentType: "image/png", bytes, read: async () => Buffer.from("abc") };
  };

  test("nothing is sent when its time has passed, it cannot be written, has no such name, or is a training", async () => {
    const late = order(WHOLE, null, { sendBefore: new Date(Date.now() - 1) });
    expect(await provider.submit(late)).toMatchObject({ outcome: "postponed" });
    const cyclic: Record<string, unknown> = {};
    cyclic["self"] = cyclic;
    for (const rest of [{ input: cyclic }, { model: "novita/a/b" }, { destination: "a/b" }])
      expect(await provider.submit(order(WHOLE, null, rest))).toMatchObject({ outcome: "declined" });
    expect(bought()).toEqual([]);
  });

  test("there is no list to find a run in, nothing to stop, to train or to be told of", async () => {
    await real.cancel({ providerRunId: "x", model: WHOLE, isTraining: false });
    expect(await real.find(order(WHOLE), new Date(), async () => false)).toEqual({ outcome: "unlistable" });
    expect(await real.destination("mine")).toMatchObject({ outcome: "declined" });
    await expect(real.verifyWebhook({}, "{}")).rejects.toThrow(WebhookRefused);
    expect(real).toMatchObject({ api: "huggingface", submitMs: 120_000 });
  });

  test("a file is offered by its URL where that is reachable, and inside of the input where it is small", async () => {
    expect(await real.offer(file("https://files.example.test/a.png"))).toBe("https://files.example.test/a.png");
    expect(await provider.offer(file("http://127.0.0.1:9/a.png"))).toBe("http://127.0.0.1:9/a.png");
    expect(await real.offer(file("http://127.0.0.1:9/a.png"))).toBe("data:image/png;base64,YWJj");
    await expect(real.offer(file("http://127.0.0.1:9/a.png", 9_000_000))).rejects.toThrow("STORAGE_PROVIDER=s3");
  });

  test("an ask is written in each upstream's own words", () => {
    const asked = {
      ...ask,
      prompt: "a cat",
      width: 512,
      height: 768,
      steps: 4,
      format: "webp",
      safety: false,
    } as const;
    expect(hfInference(asked)).toEqual({
      inputs: "a cat",
      parameters: { width: 512, height: 768, num_inference_steps: 4, seed: 7 },
    });
    expect(hfFal(asked)).toEqual({
      prompt: "a cat",
      image_size: { width: 512, height: 768 },
      num_images: 1,
      num_inference_steps: 4,
      output_format: "jpeg",
      enable_safety_checker: false,
      seed: 7,
    });
    expect(hfTogether(asked)).toMatchObject({ steps: 4, n: 1, response_format: "base64" });
    expect(hfFalWan({ ...ask, prompt: "it moves", image: "https://x.test/a.png", seconds: 5 })).toMatchObject({
      image_url: "https://x.test/a.png",
      num_frames: 81,
      frames_per_second: 16,
    });
  });
});
