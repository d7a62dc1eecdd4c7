import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import runpodSdk from "runpod-sdk";
import sharp from "sharp";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";
import type { Look, Order, Provider } from "../src/domain/provider.ts";
import { ProviderUnreachable, WebhookRefused } from "../src/domain/provider.ts";
import { ownFlux, ownSdxl, runpodFlux, runpodKling, runpodWan } from "../src/domain/runpod-inputs.ts";
import type { AdapterOptions } from "../src/providers/adapter.ts";
import { runpod } from "../src/providers/runpod.ts";

const KEY = "sandbox-key";
const SCHNELL = "black-forest-labs-flux-1-schnell";
const WAN = "wan-2-2-i2v-720";
const OWN = "own/flux-dev";
const ENDPOINTS = { [OWN]: "own-flux-a40", "own/sdxl": "own-sdxl-4090" };
type Body = { readonly id: string; readonly status: string };
const notTaken = async () => false;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

let orders = 0;
/** `directive` is a fault of the sandbox, asked for in the prompt. */
function order(directive: string | null = null, rest: Partial<Order> = {}): Order {
  orders++;
  return {
    runId: `run-${orders}`,
    model: SCHNELL,
    version: null,
    input: { prompt: `chair ${orders}${directive === null ? "" : ` [sandbox:${directive}]`}`, seed: 7 },
    destination: null,
    webhookUrl: null,
    sendBefore: new Date(Date.now() + 5_000),
    cancelAfterSeconds: 300,
    ...rest,
  };
}

function make(baseUrl: string, rest: Partial<AdapterOptions> = {}): Provider {
  return runpod.make({ name: "runpod", token: KEY, baseUrl, endpoints: ENDPOINTS, totalMs: 4_000, ...rest });
}

describe("against the sandbox", () => {
  let sandbox: Sandbox;
  let provider: Provider;
  const at = (path: string) => `${sandbox.url}/runpod/${path}`;
  const headers = { authorization: `Bearer ${KEY}`, "content-type": "application/json" };
  const post = async (path: string, body: unknown) => {
    const response = await fetch(at(path), { method: "POST", headers, body: JSON.stringify(body) });
    return { status: response.status, body: (await response.json()) as Body };
  };
  const get = async (path: string) => (await (await fetch(at(path), { headers })).json()) as Body;

  beforeAll(async () => {
    sandbox = await startSandbox({ speed: 20 });
    provider = make(`${sandbox.url}/runpod`);
  });
  afterAll(() => sandbox.close());
  beforeEach(() => {
    sandbox.faults.clear();
    sandbox.resetBill();
  });

  async function submitted(it: Order): Promise<string> {
    const answer = await provider.submit(it);
    if (answer.outcome !== "submitted") throw new Error(JSON.stringify(answer));
    return answer.providerRunId;
  }

  async function verdict(providerRunId: string, model = SCHNELL): Promise<Look> {
    for (let i = 0; i < 400; i++) {
      const look = await provider.look({ providerRunId, model, isTraining: false });
      if (look.status !== "running") return look;
      await pause(25);
    }
    throw new Error("still running after 10 s");
  }
  const ended = async (it: Order) => verdict(await submitted(it), it.model);
  const bought = () => sandbox.bill().lines.length;
  const photo = async () => {
    const png = await sharp({ create: { width: 160, height: 90, channels: 3, background: "#884422" } })
      .png()
      .toBuffer();
    return `data:image/png;base64,${png.toString("base64")}`;
  };

  test("a public endpoint is bought by its id, and tells its URL and its price, which is what the bill says", async () => {
    expect(await provider.resolve(SCHNELL)).toEqual({ outcome: "resolved", version: null });
    const look = await ended(order());
    expect(look).toMatchObject({ status: "succeeded", seconds: expect.any(Number), costMicroUsd: 2_517 });
    if (look.status !== "succeeded") return;
    expect(look.outputs).toHaveLength(1);
    const picture = await fetch(look.outputs[0] ?? "");
    expect(picture.headers.get("content-type")).toBe("image/jpeg");
    expect(bought()).toBe(1);
    expect(sandbox.bill().lines[0]).toMatchObject({ face: "runpod", model: SCHNELL, cost_usd: 0.002517 });
  });

  test("a film costs by its seconds", async () => {
    const input = { prompt: "a slow pan", image: await photo(), duration: 5 };
    const look = await ended(order(null, { model: WAN, input }));
    expect(look).toMatchObject({ status: "succeeded", costMicroUsd: 300_000 });
    if (look.status !== "succeeded") return;
    expect((await fetch(look.outputs[0] ?? "")).headers.get("content-type")).toBe("video/webm");
  });

  test.each([
    ["png", "image/png"],
    ["jpg", "image/jpeg"],
    ["webp", "image/webp"],
  ])("an endpoint of ours answers the bytes of a %s, which become a data URL", async (format, type) => {
    const input = { prompt: "a chair", width: 512, height: 256, format, intent: "overwritten" };
    const look = await ended(order(null, { model: OWN, input }));
    expect(look).toMatchObject({ status: "succeeded", costMicroUsd: null, seconds: expect.any(Number) });
    if (look.status !== "succeeded") return;
    const [url = ""] = look.outputs;
    expect(url.startsWith(`data:${type};base64,`)).toBe(true);
    expect(await sharp(Buffer.from(url.split(",")[1] ?? "", "base64")).metadata()).toMatchObject({
      width: 512,
      height: 256,
    });
    const [line] = sandbox.bill().lines;
    expect(line?.cost_usd).toBeCloseTo((line?.billed_seconds ?? 0) * 0.00034, 6);
  });

  test("a handler's progress is told while it runs", async () => {
    const model = OWN;
    const providerRunId = await submitted(order("slow=2", { model }));
    let seen: number | null = null;
    for (let i = 0; i < 100 && seen === null; i++) {
      await pause(20);
      const look = await provider.look({ providerRunId, model, isTraining: false });
      if (look.status === "running") seen = look.progress;
    }
    expect(seen).toBeGreaterThanOrEqual(0);
    expect(seen).toBeLessThan(1);
    await provider.cancel({ providerRunId, model, isTraining: false });
  });

  test.each<[string, string, number]>([
    ["no_credit", "provider_no_credit", 0],
    ["unauthorized", "provider_auth", 0],
  ])("%s is a refusal: %s", async (directive, code, lines) => {
    expect(await provider.submit(order(directive))).toMatchObject({ outcome: "declined", failure: { code } });
    expect(bought()).toBe(lines);
  });

  test.each([
    ["body", 2_000],
    ["header", 2_000],
    ["neither", 5_000],
  ])("a 429 with its time in %s is no purchase, and asked again then", async (form, retryAfterMs) => {
    const answer = await provider.submit(order(`rate_limited=${form}`));
    expect(answer).toMatchObject({ outcome: "postponed", failure: { code: "rate_limited" }, retryAfterMs });
    expect(bought()).toBe(0);
  });

  test.each([
    ["refuse_before", 0],
    ["server_error", 0],
    ["cut", 1],
    ["cut_half", 1],
    ["server_error_after_accept", 1],
    ["garbage_after_accept", 1],
  ])("after %s nobody knows, and nothing is sent again: %i bought", async (directive, lines) => {
    expect(await provider.submit(order(directive))).toMatchObject({ outcome: "lost" });
    await pause(100);
    expect(bought()).toBe(lines);
  });

  test.each([
    ["fail", "provider_failed", "RuntimeError: CUDA error: an illegal memory access"],
    ["oom", "provider_failed", "torch.OutOfMemoryError: CUDA out of memory"],
    ["nsfw", "content_refused", "ValueError: NSFW content detected"],
    ["interrupted", "interrupted", "job timed out after 1 retries"],
    ["aborted", "timeout", "time limit"],
  ])("a run that ends by %s failed: %s", async (directive, code, words) => {
    const model = OWN;
    const look = await ended(order(directive, { model }));
    expect(look).toMatchObject({ status: "failed", failure: { code, detail: expect.stringContaining(words) } });
  });

  test("what failed after it had run tells its seconds, for they are billed", async () => {
    const look = await ended(order("fail", { model: OWN }));
    if (look.status !== "failed") throw new Error(look.status);
    expect(look.seconds).toBeGreaterThan(0);
    expect(sandbox.bill().total.usd).toBeGreaterThan(0);
  });

  test("a public endpoint refuses an input before anything is bought, in its own words", async () => {
    const wide = order(null, { input: { prompt: "a chair", width: 1_000 } });
    expect(await provider.submit(wide)).toEqual({
      outcome: "declined",
      failure: { code: "input_refused", detail: "Invalid parameter: width must be divisible by 64" },
    });
    expect(await provider.submit(order(null, { input: { seed: 1 } }))).toMatchObject({ outcome: "declined" });
    expect(bought()).toBe(0);
  });

  test("an endpoint of ours takes any input, and the handler refuses it", async () => {
    expect(await ended(order(null, { model: OWN, input: { steps: 7 } }))).toMatchObject({
      status: "failed",
      failure: { code: "input_refused", detail: expect.stringContaining("prompt is required") },
    });
  });

  test("a second order of one intent is refused by the handler, and costs nothing to speak of", async () => {
    const first = order("slow=1", { model: OWN });
    const id = await submitted(first);
    expect(await ended(first)).toMatchObject({
      status: "failed",
      failure: { code: "provider_failed", detail: expect.stringContaining(`job ${id} began it`) },
    });
    expect(await verdict(id, OWN)).toMatchObject({ status: "succeeded" });
    const [costs, nothing] = sandbox.bill().lines.map((line) => line.billed_seconds);
    expect(costs).toBeGreaterThanOrEqual(1);
    expect(nothing).toBeLessThan(0.2);
  });

  test("an order that surfaces after its time does not begin", async () => {
    const past = order(null, { model: OWN, cancelAfterSeconds: 0, sendBefore: new Date(Date.now() + 150) });
    const hasty = make(`${sandbox.url}/runpod`, { totalMs: 150 });
    sandbox.faults.add({ fault: "late_accept", match: { face: "runpod" }, ms: 600, times: 1 });
    expect(await hasty.submit(past)).toMatchObject({ outcome: "lost" });
    let id: string | undefined;
    for (let i = 0; i < 100 && id === undefined; i++) {
      await pause(20);
      id = sandbox.bill().lines[0]?.id;
    }
    expect(await verdict(id ?? "", OWN)).toMatchObject({
      status: "failed",
      failure: { code: "aborted", detail: expect.stringContaining("intent refused (late)") },
    });
  });

  test("a run is canceled in the queue and while it runs, and stays completed when it is", async () => {
    const ref = (providerRunId: string) => ({ providerRunId, model: SCHNELL, isTraining: false });
    const queued = await submitted(order("slow=20"));
    await provider.cancel(ref(queued));
    expect(await verdict(queued)).toMatchObject({ status: "canceled" });
    const running = await submitted(order("slow=20"));
    for (let i = 0; i < 100 && (await get(`${SCHNELL}/status/${running}`)).status !== "IN_PROGRESS"; i++)
      await pause(10);
    await provider.cancel(ref(running));
    expect(await verdict(running)).toMatchObject({ status: "canceled", seconds: expect.any(Number) });
    const done = await submitted(order());
    await verdict(done);
    await provider.cancel(ref(done));
    expect(await verdict(done)).toMatchObject({ status: "succeeded" });
    await provider.cancel(ref("nobody"));
  });

  test("a run is known below its own endpoint only", async () => {
    const providerRunId = await submitted(order());
    const elsewhere = { providerRunId, model: OWN, isTraining: false };
    expect(await provider.look(elsewhere)).toEqual({ status: "gone" });
  });

  test("a run that outlives its execution timeout is stopped, and billed until then", async () => {
    const { body } = await post("own-flux-a100/run", {
      input: { prompt: "a chair [sandbox:slow=60]" },
      policy: { executionTimeout: 5_000, ttl: 60_000 },
    });
    const slow = make(`${sandbox.url}/runpod`, { endpoints: { "own/slow": "own-flux-a100" } });
    const ref = { providerRunId: body.id, model: "own/slow", isTraining: false };
    let look = await slow.look(ref);
    for (let i = 0; i < 80 && look.status === "running"; i++) {
      await pause(100);
      look = await slow.look(ref);
    }
    expect(look).toMatchObject({ status: "failed", failure: { code: "timeout" } });
    expect(sandbox.bill().lines[0]?.billed_seconds).toBeCloseTo(5, 0);
  });

  test("a result is gone half an hour after the end, of /runsync after a minute, and a job when its ttl is over", async () => {
    const kept = await submitted(order(null, { cancelAfterSeconds: 7_200 }));
    await verdict(kept);
    const sync = await post(`${SCHNELL}/runsync`, { input: { prompt: "a chair" } });
    expect(sync.body).toMatchObject({ status: "COMPLETED", output: { cost: 0.002517 } });
    const short = await submitted(order("slow=20", { cancelAfterSeconds: 1 }));

    sandbox.advanceClock(10_000);
    expect(await verdict(short)).toEqual({ status: "gone" });
    expect(await verdict(sync.body.id)).toMatchObject({ status: "succeeded" });
    sandbox.advanceClock(50_000);
    expect(await verdict(sync.body.id)).toEqual({ status: "gone" });
    expect(await verdict(kept)).toMatchObject({ status: "succeeded" });
    sandbox.advanceClock(29 * 60_000);
    expect(await verdict(kept)).toEqual({ status: "gone" });
  });

  test("no usable answer to a look is no verdict", async () => {
    const providerRunId = await submitted(order("get_garbage=1"));
    const ref = { providerRunId, model: SCHNELL, isTraining: false };
    await expect(provider.look(ref)).rejects.toThrow(ProviderUnreachable);
    expect(await verdict(providerRunId)).toMatchObject({ status: "succeeded" });
    expect(await ended(order("get_error=1"))).toMatchObject({ status: "succeeded" });
    expect(await ended(order("get_missing=1"))).toEqual({ status: "gone" });
  });

  test("an endpoint is asked for once an hour, afresh when told, and forgotten when it is gone", async () => {
    let now = Date.now();
    const calls: string[] = [];
    const it = make(`${sandbox.url}/runpod`, { clock: () => new Date(now), onCall: ({ url }) => calls.push(url) });
    await it.resolve(OWN);
    now += 3_599_000;
    await it.resolve(OWN);
    expect(calls).toEqual([at("own-flux-a40/health")]);
    await it.resolve(OWN, { fresh: true });
    expect(calls).toHaveLength(2);
    sandbox.faults.add({ fault: "vanished", match: { face: "runpod", model: "own-flux-a40" } });
    now += 3_601_000;
    expect(await it.resolve(OWN)).toMatchObject({ outcome: "declined", failure: { code: "model_not_found" } });
    expect(await it.submit(order(null, { model: OWN, sendBefore: new Date(now + 5_000) }))).toMatchObject({
      outcome: "declined",
      failure: { code: "model_not_found" },
    });
  });

  test("a key that is not let in, and a service that is down, are told apart", async () => {
    const stranger = make(`${sandbox.url}/runpod`, { token: "" });
    expect(await stranger.resolve(SCHNELL)).toMatchObject({ outcome: "declined", failure: { code: "provider_auth" } });
    expect(await stranger.submit(order())).toMatchObject({ outcome: "declined", failure: { code: "provider_auth" } });
    sandbox.faults.add({ fault: "down", match: { face: "runpod" } });
    expect(await provider.resolve("kling-v2-1-i2v-pro")).toMatchObject({
      outcome: "postponed",
      failure: { code: "provider_unavailable" },
    });
    expect(await provider.submit(order())).toMatchObject({ outcome: "lost" });
  });

  test("the queue and the workers of an endpoint are told", async () => {
    const load = () => provider.load?.("own/sdxl");
    expect(await load()).toEqual({
      queued: 0,
      running: 0,
      workers: { idle: 3, running: 0, throttled: 0, initializing: 0 },
    });
    const body = JSON.stringify({ inQueue: 40, running: 5, idle: 0, throttled: 2, initializing: 1 });
    const told = { "content-type": "application/json" };
    await fetch(at("_load/own-sdxl-4090"), { method: "PUT", headers: told, body });
    expect(await load()).toEqual({
      queued: 40,
      running: 0,
      workers: { idle: 0, running: 5, throttled: 2, initializing: 1 },
    });
    sandbox.faults.add({ fault: "down", match: { face: "runpod" } });
    await expect(load()).rejects.toThrow(ProviderUnreachable);
  });

  test("the other doors do what they are documented to do", async () => {
    // Slow enough for a look at its queue.
    const slow = await startSandbox({ speed: 0.2 });
    const base = `${slow.url}/runpod/own-flux-4090`;
    const ask = async (path: string, method = "GET", body?: unknown) => {
      const response = await fetch(`${base}/${path}`, { method, headers, body: body ? JSON.stringify(body) : null });
      return { status: response.status, body: (await response.json()) as Body };
    };
    const { body } = await ask("run", "POST", { input: { prompt: "a chair" } });
    expect(body).toEqual({ id: expect.stringMatching(/-u1$/), status: "IN_QUEUE" });
    expect((await ask("health")).body).toMatchObject({ jobs: { inQueue: 1 }, workers: { ready: 3 } });
    expect((await ask("purge-queue", "POST", {})).body).toEqual({ removed: 1, status: "completed" });
    expect((await ask(`status-sync/${body.id}?wait=5000`)).body).toMatchObject({ status: "CANCELLED" });
    expect((await ask("run", "POST", { prompt: "no input" })).status).toBe(400);
    expect((await ask("run", "POST", { input: {}, policy: { ttl: 1 } })).status).toBe(400);
    expect((await fetch(`${base}/health`, { headers: { authorization: KEY } })).status).toBe(200);
    await slow.close();
  });

  test("RunPod's own client completes a job", async () => {
    const endpoint = runpodSdk(KEY, { baseUrl: `${sandbox.url}/runpod` }).endpoint("own-flux-a40");
    if (!endpoint) throw new Error("no endpoint");
    const { id } = await endpoint.run({ input: { prompt: "a chair", width: 256, height: 256 } });
    const done = await endpoint.statusSync(id, 5_000);
    expect(done).toMatchObject({ id, status: "COMPLETED", completed: true, succeeded: true });
    const sync = await endpoint.runSync({ input: { prompt: "a table", width: 256, height: 256 } }, 5_000);
    expect(sync.output.images[0]).toMatchObject({ type: "base64", filename: expect.stringMatching(/\.png$/) });
    const streamed: unknown[] = [];
    for await (const part of endpoint.stream(id)) streamed.push(part);
    expect(streamed).toHaveLength(1);
    expect(await endpoint.health()).toMatchObject({ workers: { ready: 3 } });
  });

  describe("and what it tells of its runs", () => {
    let receiver: Server;
    let answers: number[];
    const received: { body: string; at: number; headers: object }[] = [];

    beforeAll(async () => {
      receiver = createServer((request, response) => {
        const chunks: Buffer[] = [];
        request.on("data", (chunk) => chunks.push(chunk));
        request.on("end", () => {
          received.push({ body: Buffer.concat(chunks).toString(), at: Date.now(), headers: request.headers });
          response.statusCode = answers.shift() ?? 200;
          response.end();
        });
      });
      await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
      sandbox.setWebhookRelay(`http://127.0.0.1:${(receiver.address() as AddressInfo).port}`);
    });
    afterAll(() => receiver.close());
    beforeEach(() => {
      received.length = 0;
      answers = [];
    });
    const told = async (count: number) => {
      for (let i = 0; i < 200 && received.length < count; i++) await pause(25);
      return received;
    };

    test("is one unsigned event at its end, which an adapter reads", async () => {
      const id = await submitted(order(null, { webhookUrl: "https://app.example.test/hooks/run/s3cret" }));
      const [event] = await told(1);
      expect(Object.keys(event?.headers ?? {}).filter((name) => /signature|webhook/.test(name))).toEqual([]);
      expect(await provider.verifyWebhook({}, event?.body ?? "")).toEqual({
        deliveryId: `${id} COMPLETED`,
        providerRunId: id,
        status: "COMPLETED",
        ended: true,
      });
      expect(JSON.parse(event?.body ?? "")).toEqual(await get(`${SCHNELL}/status/${id}`));
    });

    test("is told three times to somebody who never answers 200, and then no more", async () => {
      answers = [204, 302, 500, 200];
      await submitted(order(null, { webhookUrl: "https://app.example.test/hooks/run/s3cret" }));
      await told(3);
      await pause(700);
      expect(received).toHaveLength(3);
      expect(new Set(received.map(({ body }) => body)).size).toBe(1);
    });
  });
});

describe("what is sent, and what is made of answers", () => {
  let server: Server;
  let reply: { status: number; body: string; headers?: Record<string, string> };
  const seen: { method: string; url: string; body: string }[] = [];
  const strange: string[] = [];
  let provider: Provider;

  beforeEach(async () => {
    seen.length = 0;
    strange.length = 0;
    server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk) => chunks.push(chunk));
      request.on("end", () => {
        const body = Buffer.concat(chunks).toString();
        seen.push({ method: request.method ?? "", url: request.url ?? "", body });
        response.writeHead(reply.status, { "content-type": "application/json", ...reply.headers }).end(reply.body);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    provider = make(`http://127.0.0.1:${(server.address() as AddressInfo).port}/v2/`, {
      onStrange: (what) => strange.push(what),
    });
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });
  const answers = (status: number, body: unknown, headers?: Record<string, string>) => {
    const text = typeof body === "string" ? body : JSON.stringify(body);
    reply = { status, body: text, ...(headers && { headers }) };
  };
  const look = async (job: unknown) => {
    answers(200, job);
    return provider.look({ providerRunId: "j1", model: SCHNELL, isTraining: false });
  };
  const png = Buffer.from("\x89PNG\r\n\x1a\n and so on, and so on", "latin1").toString("base64");

  test("an order carries its input, its webhook, and both limits in milliseconds", async () => {
    answers(200, { id: "j1", status: "IN_QUEUE" });
    const webhookUrl = "https://app.example.test/hooks/run-1/s3cret";
    const it = order(null, { webhookUrl, cancelAfterSeconds: 90.5 });
    expect(await provider.submit(it)).toEqual({ outcome: "submitted", providerRunId: "j1" });
    expect(seen).toHaveLength(1);
    expect(seen[0]).toMatchObject({ method: "POST", url: `/v2/${SCHNELL}/run` });
    expect(JSON.parse(seen[0]?.body ?? "")).toEqual({
      input: it.input,
      webhook: webhookUrl,
      policy: { executionTimeout: 90_500, ttl: 90_500 },
    });
  });

  test.each([
    [1, 5_000, 10_000],
    [7, 7_000, 10_000],
    [10_000_000, 604_800_000, 604_800_000],
  ])("limits stay within what the provider takes: %i s", async (cancelAfterSeconds, executionTimeout, ttl) => {
    answers(200, { id: "j1" });
    await provider.submit(order(null, { cancelAfterSeconds }));
    expect(JSON.parse(seen[0]?.body ?? "")).toMatchObject({ policy: { executionTimeout, ttl } });
  });

  test("an order for an endpoint of ours carries the intent, and until when it may begin", async () => {
    answers(200, { id: "j1" });
    const sendBefore = new Date(Date.now() + 5_000);
    const it = order(null, { model: OWN, sendBefore, cancelAfterSeconds: 60 });
    await provider.submit(it);
    expect(seen[0]?.url).toBe("/v2/own-flux-a40/run");
    expect(JSON.parse(seen[0]?.body ?? "").input).toEqual({
      ...it.input,
      // The call may last 4 s here; then it may wait there for a minute.
      intent: { id: it.runId, not_after: new Date(sendBefore.getTime() + 64_000).toISOString() },
    });
  });

  test("nothing is sent for what cannot be ordered", async () => {
    const cyclic: Record<string, unknown> = {};
    cyclic["self"] = cyclic;
    const refusals: [Partial<Order>, string, string][] = [
      [{ model: "own/unheard" }, "model_not_found", 'no endpoint is configured for "own/unheard"'],
      [{ model: "own/toString" }, "model_not_found", "no endpoint is configured"],
      [{ model: "../account" }, "model_not_found", "is no id of an endpoint"],
      [{ destination: "ann/model" }, "model_not_found", "trains nothing"],
      [{ input: cyclic }, "input_refused", "JSON"],
      [{ input: { image: "x".repeat(10_000_001) } }, "input_too_large", "10000000"],
    ];
    for (const [rest, code, words] of refusals)
      expect(await provider.submit(order(null, rest))).toMatchObject({
        outcome: "declined",
        failure: { code, detail: expect.stringContaining(words) },
      });
    expect(await provider.resolve("own/unheard")).toMatchObject({ outcome: "declined" });
    await expect(provider.look({ providerRunId: "j", model: "own/unheard", isTraining: false })).rejects.toThrow(
      ProviderUnreachable,
    );
    expect(await provider.submit(order(null, { sendBefore: new Date(Date.now() - 1) }))).toMatchObject({
      outcome: "postponed",
    });
    expect(seen).toEqual([]);
  });

  test.each<[number, unknown, string]>([
    [401, "", "provider_auth"],
    [401, "<html>no</html>", "provider_auth"],
    [403, { error: "not yours" }, "provider_auth"],
    [402, { error: "no funds" }, "provider_no_credit"],
    [400, { error: "Insufficient balance" }, "provider_no_credit"],
    [404, "404 page not found", "model_not_found"],
    [413, { message: "too large" }, "input_too_large"],
    [400, { id: "sync-1", status: "FAILED", error: "Invalid image URL" }, "input_refused"],
    [400, { id: "sync-1", status: "FAILED", error: "NSFW prompt" }, "content_refused"],
  ])("a %i with %j is a refusal: %s", async (status, body, code) => {
    answers(status, body);
    expect(await provider.submit(order())).toMatchObject({ outcome: "declined", failure: { code } });
  });

  test.each<[number, unknown]>([
    [200, "<html>"],
    [200, { status: "IN_QUEUE" }],
    [200, { id: "" }],
    [400, "<html>bad gateway</html>"],
    [404, "<html>nginx</html>"],
    [408, { error: "timeout" }],
    [500, { error: "oops" }],
    [502, ""],
    [307, ""],
  ])("a %i with %j is lost: it may have been bought", async (status, body) => {
    answers(status, body);
    expect(await provider.submit(order())).toMatchObject({ outcome: "lost" });
    expect(seen).toHaveLength(1);
  });

  test("neither the key nor the webhook's secret is repeated in what is reported", async () => {
    const webhookUrl = "https://app.example.test/hooks/s3cret";
    answers(400, { error: `key ${KEY}, hook ${webhookUrl}` });
    expect(await provider.submit(order(null, { webhookUrl }))).toMatchObject({
      failure: { detail: "key [hidden], hook [hidden]" },
    });
  });

  const told = { seconds: 1.437, costMicroUsd: null };
  const completed = (output: unknown) => ({
    id: "j1",
    status: "COMPLETED",
    delayTime: 31_618,
    executionTime: 1_437,
    output,
  });
  const data = `data:image/png;base64,${png}`;
  test.each<[unknown, string[]]>([
    [{ image_url: "https://image.runpod.ai/a.png", cost: 0 }, ["https://image.runpod.ai/a.png"]],
    [{ video_url: "https://video.runpod.ai/a.mp4" }, ["https://video.runpod.ai/a.mp4"]],
    [{ images: [{ filename: "a.png", type: "base64", data: png }] }, [data]],
    [
      { images: [{ filename: "a.png", type: "s3_url", data: "https://b.test/a.png" }], errors: ["odd node"] },
      ["https://b.test/a.png"],
    ],
    [{ image: png }, [data]],
    [{ image: data }, [data]],
    [{ images: [png, png] }, [data, data]],
    [
      ["https://b.test/1.png", "https://b.test/2.png"],
      ["https://b.test/1.png", "https://b.test/2.png"],
    ],
    ["https://b.test/1.png", ["https://b.test/1.png"]],
    [[{ image: png }], [data]],
    [{ result: "https://b.test/a.mp4" }, ["https://b.test/a.mp4"]],
    [{ images: [{ type: "base64", data: "QUJDREVGRw==" }] }, ["data:application/octet-stream;base64,QUJDREVGRw=="]],
  ])("outputs in the shape %j are found", async (output, outputs) => {
    const found = await look(completed(output));
    expect(found).toMatchObject({ status: "succeeded", outputs, seconds: 1.437, trainedVersion: null });
  });

  test.each([
    ["\xff\xd8\xff\xe0........", "image/jpeg"],
    ["RIFF....WEBPVP8 ", "image/webp"],
    ["....ftypisom....", "video/mp4"],
    ["\x1a\x45\xdf\xa3............", "video/webm"],
    ["GIF89a..........", "image/gif"],
  ])("base64 that begins with %j has its own type", async (head, type) => {
    const base64 = Buffer.from(head, "latin1").toString("base64");
    expect(await look(completed({ image: base64 }))).toMatchObject({ outputs: [`data:${type};base64,${base64}`] });
  });

  test.each<[unknown]>([[null], [undefined], [[]], [{}], ["done"], [42], [{ images: [] }], [["https://a.test/1", 7]]])(
    "a completed job whose output is %j has failed for us",
    async (output) => {
      expect(await look(completed(output))).toMatchObject({
        status: "failed",
        failure: { code: "provider_failed", detail: expect.stringContaining("no outputs") },
        ...told,
      });
    },
  );

  test.each<[unknown, string, string]>([
    [{ error: "NSFW content detected" }, "content_refused", "NSFW content detected"],
    [{ errors: ["Node 3: bad", "Node 4: worse"] }, "provider_failed", "Node 3: bad; Node 4: worse"],
    [{ images: [], errors: [{ node: 3 }] }, "provider_failed", '{"node":3}'],
  ])("a completed job can carry an error: %j", async (output, code, detail) => {
    expect(await look(completed(output))).toMatchObject({ status: "failed", failure: { code, detail }, ...told });
  });

  test("what a public endpoint took is told in micro-dollars", async () => {
    expect(await look(completed({ image_url: "https://a.test/1", cost: 0.02097152 }))).toMatchObject({
      costMicroUsd: 20_972,
    });
  });

  test("an exception comes as JSON in a string, and ends with where it happened", async () => {
    const error = JSON.stringify({
      error_type: "<class 'RuntimeError'>",
      error_message: "CUDA out of memory",
      error_traceback: `${"x".repeat(5_000)}\n  File "/app/safety_checker.py", line 3`,
      worker_id: "abc",
    });
    const found = await look({ id: "j1", status: "FAILED", delayTime: 900, executionTime: 120, error });
    if (found.status !== "failed") throw new Error(found.status);
    expect(found).toMatchObject({ failure: { code: "provider_failed" }, seconds: 0.12 });
    expect(found.failure.detail).toMatch(/^RuntimeError: CUDA out of memory\nx+\n {2}File "\/app\/safety_checker.py"/);
    expect(found.failure.detail.length).toBeLessThan(1_100);
  });

  test.each<[unknown, string]>([
    ["job timed out after 1 retries", "interrupted"],
    ["Worker exited with code 137", "interrupted"],
    ["job timed out after 600000 ms", "timeout"],
    ["HTTPConnectionPool(host='127.0.0.1'): Read timed out.", "provider_failed"],
    ["Unhandled input. enable_safety_checker is not a valid input option.", "input_refused"],
    ["Missing 'workflow' parameter", "input_refused"],
    ["Blocked by the safety filter", "content_refused"],
    ["KeyError: names are case-sensitive", "provider_failed"],
    ["intent refused (late): it was not to begin after 2026-11-21T10:00:00Z", "aborted"],
    ["intent refused (taken): job j0 began it", "provider_failed"],
    ['{"error_message": 7', "provider_failed"],
    [{ error_type: "ValueError", error_message: "NSFW", traceback: "t" }, "content_refused"],
    [null, "provider_failed"],
  ])("a job that failed with %j is %s", async (error, code) => {
    expect(await look({ id: "j1", status: "FAILED", error })).toMatchObject({ status: "failed", failure: { code } });
  });

  test.each<[unknown, number | null]>([
    [0.5, 0.5],
    [50, 0.5],
    ["50%", 0.5],
    [{ progress: "step 3/4" }, 0.75],
    [{ progress: 1 }, 1],
    [{ progress: 250 }, 1],
    ["warming up", null],
    [undefined, null],
    [-3, null],
  ])("progress told as %j is %j", async (output, progress) => {
    expect(await look({ id: "j1", status: "IN_PROGRESS", output })).toEqual({ status: "running", progress });
    expect(await look({ id: "j1", status: "RUNNING", output })).toEqual({ status: "running", progress });
  });

  test("every other state has its meaning, and one nobody has heard of is running, and reported", async () => {
    expect(await look({ status: "IN_QUEUE" })).toEqual({ status: "running", progress: null });
    expect(await look({ status: "CANCELLED", executionTime: 500 })).toEqual({
      status: "canceled",
      seconds: 0.5,
      costMicroUsd: null,
    });
    expect(await look({ status: "TIMED_OUT" })).toMatchObject({ failure: { code: "timeout" } });
    expect(strange).toEqual([]);
    expect(await look({ status: "HIBERNATING" })).toEqual({ status: "running", progress: null });
    expect(strange).toEqual([expect.stringContaining('"HIBERNATING"')]);
  });

  test.each<[number, unknown]>([
    [404, "<html>nginx</html>"],
    [200, "<html>"],
    [200, { id: "j1" }],
    [401, ""],
    [500, ""],
  ])("a look answered with %i %j is no verdict", async (status, body) => {
    answers(status, body);
    const ref = { providerRunId: "../health?x=", model: SCHNELL, isTraining: false };
    await expect(provider.look(ref)).rejects.toThrow(ProviderUnreachable);
    expect(seen[0]?.url).toBe(`/v2/${SCHNELL}/status/..%2Fhealth%3Fx%3D`);
  });

  test("an answer of twenty megabytes is read", async () => {
    const big = Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), Buffer.alloc(15_000_000, 7)]);
    const found = await look(completed({ images: [{ type: "base64", data: big.toString("base64") }] }));
    if (found.status !== "succeeded") throw new Error(found.status);
    expect(found.outputs[0]?.length).toBeGreaterThan(20_000_000);
  });

  test("a webhook without an id and a status is refused", async () => {
    for (const body of ["", "null", "<html>", '{"id":"j1"}', '{"id":"","status":"COMPLETED"}'])
      await expect(provider.verifyWebhook({}, body)).rejects.toThrow(WebhookRefused);
    expect(await provider.verifyWebhook({}, '{"id":"j1","status":"IN_PROGRESS"}')).toMatchObject({ ended: false });
  });

  test("there is no list to find a lost order in, nothing is trained, and nothing is uploaded", async () => {
    expect(await provider.find(order(), new Date(), notTaken)).toEqual({ outcome: "unlistable" });
    expect(await provider.destination("ann")).toMatchObject({ outcome: "declined" });
    const file = { filename: "a.png", contentType: "image/png", bytes: 1, read: async () => Buffer.alloc(1) };
    expect(await provider.offer({ ...file, url: "http://localhost/a.png" })).toBe("http://localhost/a.png");
    const real = make(runpod.baseUrl);
    expect(await real.offer({ ...file, url: "https://b.test/a.png" })).toBe("https://b.test/a.png");
    await expect(real.offer({ ...file, url: "http://localhost/a.png" })).rejects.toThrow("STORAGE_PROVIDER=s3");
  });
});

describe("an ask in RunPod's words", () => {
  const ask = { seed: 7, safety: true, prompt: "a chair", width: 1_216, height: 832, format: "webp" } as const;

  test("FLUX makes sides of whole 64 pixels, and no webp", () => {
    expect(runpodFlux({ ...ask, steps: 4 })).toEqual({
      prompt: "a chair",
      width: 1_216,
      height: 832,
      num_inference_steps: 4,
      seed: 7,
      image_format: "png",
    });
    expect(runpodFlux({ ...ask, width: 2_000, height: 100, format: "jpg" })).toMatchObject({
      width: 1_536,
      height: 256,
      image_format: "jpeg",
    });
  });

  test("a film is never shorter than what was asked for", () => {
    const film = { seed: 7, safety: false, prompt: "a pan", image: "https://a.test/1.png" };
    expect(runpodWan({ ...film, seconds: 6, aspectRatio: "9:16" })).toMatchObject({
      duration: 8,
      size: "720*1280",
      enable_safety_checker: false,
      seed: 7,
    });
    expect(runpodWan({ ...film, seconds: 99 })).toMatchObject({ duration: 15, size: "1280*720" });
    expect(runpodKling({ ...film, seconds: 6 })).toMatchObject({ duration: 10 });
    expect(runpodKling(film)).not.toHaveProperty("seed");
  });

  test("our handler gets what is asked in our own words", () => {
    const lora = { weights: "https://a.test/l.safetensors", scale: 0.8 };
    const whole = { ...ask, negativePrompt: "blur", steps: 20, guidance: 3, lora };
    expect(ownSdxl(whole)).toEqual({
      prompt: "a chair",
      negative_prompt: "blur",
      width: 1_216,
      height: 832,
      steps: 20,
      guidance: 3,
      lora_weights: lora.weights,
      lora_scale: 0.8,
      format: "webp",
      safety: true,
      seed: 7,
    });
    expect(ownFlux(whole)).not.toHaveProperty("negative_prompt");
  });
});
