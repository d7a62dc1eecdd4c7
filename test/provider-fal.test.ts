import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { createFalClient } from "@fal-ai/client";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";
import { type Look, type Order, type Provider, ProviderUnreachable, type RunRef } from "../src/domain/provider.ts";
import type { AdapterOptions } from "../src/providers/adapter.ts";
import { fal } from "../src/providers/fal.ts";

const TOKEN = "sandbox-key";
const SCHNELL = "fal-ai/flux/schnell";
const DEV = "fal-ai/flux/dev";
const KONTEXT = "fal-ai/flux-pro/kontext";
const T2V = "fal-ai/bytedance/seedance/v1/lite/text-to-video";

/** The adapter against the sandbox's own fal. */
let sandbox: Sandbox;
let provider: Provider;
const strange: string[] = [];

beforeAll(async () => {
  sandbox = await startSandbox({ speed: 20 });
  provider = made({ baseUrl: `${sandbox.url}/fal` });
});
afterAll(() => sandbox.close());
beforeEach(() => {
  sandbox.faults.clear();
  sandbox.resetBill();
  strange.length = 0;
});

function made(options: Partial<AdapterOptions> & Pick<AdapterOptions, "baseUrl">): Provider {
  return fal.make({ name: "fal", token: TOKEN, totalMs: 4_000, onStrange: (what) => strange.push(what), ...options });
}

let orders = 0;
/** `directive` is a fault of the sandbox, asked for in the prompt. */
function order(directive: string | null = null, rest: Partial<Order> = {}): Order {
  orders++;
  return {
    runId: `run-${orders}`,
    model: SCHNELL,
    version: null,
    input: { prompt: `chair ${orders}${directive === null ? "" : ` [sandbox:${directive}]`}`, num_images: 2, seed: 7 },
    destination: null,
    webhookUrl: `https://app.example.test/hooks/fal/run-${orders}/t0ken`,
    sendBefore: new Date(Date.now() + 5_000),
    cancelAfterSeconds: 300,
    ...rest,
  };
}

const ref = (providerRunId: string, model = SCHNELL): RunRef => ({ providerRunId, model, isTraining: false });

async function submitted(it: Order): Promise<string> {
  const answer = await provider.submit(it);
  if (answer.outcome !== "submitted") throw new Error(JSON.stringify(answer));
  return answer.providerRunId;
}

async function verdict(it: RunRef): Promise<Look> {
  for (let i = 0; i < 400; i++) {
    const look = await provider.look(it);
    if (look.status !== "running") return look;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error("still running after 10 s");
}

const bought = () => sandbox.bill().lines.length;

describe("a run is bought, watched to its end, and its outputs are there", () => {
  test("of pictures, by the megapixel, in the size and the number that were asked for", async () => {
    expect(await provider.resolve(SCHNELL)).toEqual({ outcome: "resolved", version: null });
    const input = { prompt: "a red chair", num_images: 2, seed: 7, image_size: { width: 512, height: 768 } };
    const id = await submitted(order(null, { input }));
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-/);
    const look = await verdict(ref(id));
    expect(look).toMatchObject({ status: "succeeded", seconds: expect.any(Number), trainedVersion: null });
    if (look.status !== "succeeded") return;
    expect(look.outputs).toHaveLength(2);
    for (const url of look.outputs) {
      const answer = await fetch(url);
      expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "image/jpeg"]);
    }
    expect(sandbox.bill().lines).toMatchObject([{ face: "fal", model: SCHNELL, cost_usd: 0.006 }]);
  });

  test("of one film, by its seconds", async () => {
    const input = { prompt: "waves", duration: "3", resolution: "720p", aspect_ratio: "9:16", seed: 1 };
    const look = await verdict(ref(await submitted(order(null, { model: T2V, input })), T2V));
    expect(look).toMatchObject({ status: "succeeded", outputs: [expect.stringMatching(/\.webm$/)] });
    expect(sandbox.bill().lines[0]?.cost_usd).toBeCloseTo(0.108);
  });

  test("of a photo of the caller's, which is read", async () => {
    const photo = await verdict(ref(await submitted(order())));
    if (photo.status !== "succeeded") throw new Error(JSON.stringify(photo));
    for (const [model, more] of [
      [KONTEXT, { safety_tolerance: "2", output_format: "png" }],
      ["fal-ai/flux/dev/image-to-image", { strength: 0.8 }],
      ["fal-ai/wan-i2v", { num_frames: 81, resolution: "480p" }],
      ["fal-ai/wan/v2.2-a14b/image-to-video/turbo", {}],
      ["fal-ai/flux-pro/v1/fill", { mask_url: photo.outputs[0] }],
    ] as const) {
      const input = { prompt: "furnish it", image_url: photo.outputs[0], seed: 3, ...more };
      const look = await verdict(ref(await submitted(order(null, { model, input })), model));
      expect(look, model).toMatchObject({ status: "succeeded", outputs: [expect.any(String)] });
    }
  });

  test("asked for where its application is, not where its path was", async () => {
    const id = await submitted(order(null, { model: DEV }));
    const at = (path: string) =>
      fetch(`${sandbox.url}/fal/queue/${path}/requests/${id}/status`, { headers: { authorization: `Key ${TOKEN}` } });
    expect((await at(DEV)).status).toBe(404);
    expect((await at("fal-ai/flux")).status).toBeLessThan(300);
    expect((await at("fal-ai/flux-lora")).status).toBe(404);
    expect(await verdict(ref(id, DEV))).toMatchObject({ status: "succeeded" });
  });

  test("and tells how far it is while it works", async () => {
    const id = await submitted(order("slow=2"));
    const heard: number[] = [];
    for (;;) {
      const look = await provider.look(ref(id));
      if (look.status !== "running") break;
      if (look.progress !== null) heard.push(look.progress);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    expect(heard.length).toBeGreaterThan(1);
    expect(heard).toEqual(heard.toSorted((a, b) => a - b));
  });
});

describe("a create whose answer is lost", () => {
  test.each(["cut", "cut_half", "server_error_after_accept", "garbage_after_accept", "slow_create=3000"])(
    "by %s was bought once, is never sent again, and no list can tell of it",
    async (fault) => {
      const it = order(fault);
      const sentAt = new Date();
      const impatient = made({ baseUrl: `${sandbox.url}/fal`, totalMs: 1_500 });
      expect(await impatient.submit(it)).toMatchObject({ outcome: "lost" });
      expect(bought()).toBe(1);
      expect(await provider.find(it, sentAt, async () => false)).toEqual({ outcome: "unlistable" });
    },
    15_000,
  );
});

describe("nothing is bought", () => {
  test.each([
    ["no_credit", { outcome: "declined", failure: { code: "provider_no_credit" } }],
    ["unauthorized", { outcome: "declined", failure: { code: "provider_auth" } }],
    ["rate_limited=body", { outcome: "postponed", failure: { code: "rate_limited" }, retryAfterMs: 2_000 }],
    ["rate_limited=header", { outcome: "postponed", failure: { code: "rate_limited" }, retryAfterMs: 2_000 }],
    ["rate_limited=neither", { outcome: "postponed", failure: { code: "rate_limited" }, retryAfterMs: 5_000 }],
    ["server_error", { outcome: "lost" }],
    ["refuse_before", { outcome: "lost" }],
  ])("by a create that meets %s", async (fault, expected) => {
    expect(await provider.submit(order(fault))).toMatchObject(expected);
    expect(bought()).toBe(0);
  });

  test.each<[string, Record<string, unknown>]>([
    ["num_images", { prompt: "a", num_images: 9 }],
    ["prompt: Field required", { seed: 1 }],
    ["image_size", { prompt: "a", image_size: { width: 9, height: 9 } }],
    ["seed", { prompt: "a", seed: "seven" }],
    ["output_format", { prompt: "a", output_format: "webp" }],
    ["unknown fault", { prompt: "a [sandbox:nonsense]" }],
  ])("by an input that the model refuses: %s", async (named, input) => {
    expect(await provider.submit(order(null, { input }))).toMatchObject({
      outcome: "declined",
      failure: { code: "input_refused", detail: expect.stringContaining(named) },
    });
    expect(bought()).toBe(0);
  });

  test.each(["fal-ai/nothing", "fal-ai/flux/nothing", "../account", "fal-ai", "fal-ai/flux/../x", "a/b?c=d"])(
    "of %s, which is no model",
    async (model) => {
      expect(await provider.submit(order(null, { model }))).toMatchObject({
        outcome: "declined",
        failure: { code: "model_not_found" },
      });
      expect(bought()).toBe(0);
    },
  );

  test("of a model that has vanished, without a name, as a training, or with a webhook in the open", async () => {
    sandbox.faults.add({ fault: "vanished", match: { face: "fal", model: SCHNELL } });
    const vanished = await provider.submit(order());
    expect(vanished).toMatchObject({ failure: { code: "model_not_found", detail: expect.stringContaining(SCHNELL) } });
    expect(await provider.resolve("nobody")).toMatchObject({ outcome: "declined" });
    expect(await provider.destination("mine")).toMatchObject({ outcome: "declined" });
    expect(await provider.submit(order(null, { destination: "a/b" }))).toMatchObject({ outcome: "declined" });
    expect(await provider.submit(order(null, { webhookUrl: "http://localhost/h" }))).toMatchObject({
      outcome: "declined",
      failure: { code: "input_refused" },
    });
    expect(bought()).toBe(0);
  });

  test("without a token, and with one that is not known", async () => {
    const strict = await startSandbox({ speed: 20, tokens: [TOKEN] });
    const stranger = made({ baseUrl: `${strict.url}/fal`, token: "other" });
    expect(await stranger.submit(order())).toMatchObject({ failure: { code: "provider_auth" } });
    expect((await fetch(`${strict.url}/fal/queue/fal-ai/flux/requests/a/status`)).status).toBe(401);
    expect(await made({ baseUrl: `${strict.url}/fal` }).submit(order())).toMatchObject({ outcome: "submitted" });
    await strict.close();
  });

  test("while the service is down, or nobody is there: the one is unknown, the other is not", async () => {
    sandbox.faults.add({ fault: "down", match: { face: "fal" } });
    expect(await provider.submit(order())).toMatchObject({ outcome: "lost" });
    await expect(provider.look(ref("a"))).rejects.toThrow(ProviderUnreachable);
    expect(await made({ baseUrl: "http://127.0.0.1:1/fal" }).submit(order())).toMatchObject({
      outcome: "postponed",
      failure: { code: "provider_unavailable", detail: expect.stringContaining("ECONNREFUSED") },
    });
    expect(await provider.submit(order(null, { sendBefore: new Date(Date.now() - 1) }))).toMatchObject({
      outcome: "postponed",
    });
    expect(bought()).toBe(0);
  });
});

describe("the end of a run, which always reads COMPLETED", () => {
  test.each([
    ["interrupted", SCHNELL, "interrupted"],
    ["aborted", SCHNELL, "aborted"],
    ["oom", SCHNELL, "provider_failed"],
    ["fail", SCHNELL, "provider_failed"],
    ["nsfw", SCHNELL, "content_refused"],
    ["nsfw", T2V, "content_refused"],
  ])("%s of %s is told as %s", async (fault, model, code) => {
    const prompt = `a [sandbox:${fault}]`;
    const id = await submitted(order(null, { model, input: { prompt } }));
    const status = await fetch(
      `${sandbox.url}/fal/queue/${model.split("/").slice(0, 2).join("/")}/requests/${id}/status`,
      {
        headers: { authorization: `Key ${TOKEN}` },
      },
    );
    expect([200, 202]).toContain(status.status);
    expect(await verdict(ref(id, model))).toMatchObject({ status: "failed", failure: { code } });
  });

  test("names the photo that could not be read", async () => {
    const input = { prompt: "furnish", image_url: `${sandbox.url}/nothing.png` };
    const id = await submitted(order(null, { model: KONTEXT, input }));
    expect(await verdict(ref(id, KONTEXT))).toMatchObject({
      status: "failed",
      failure: { code: "input_refused", detail: expect.stringMatching(/image_url.*file_download_error/) },
    });
  });

  test("names the weights that could not be loaded", async () => {
    const model = "fal-ai/flux-lora";
    const input = { prompt: "TOK", loras: [{ path: `${sandbox.url}/nothing.safetensors`, scale: 1 }] };
    const look = await verdict(ref(await submitted(order(null, { model, input })), model));
    expect(look).toMatchObject({ failure: { code: "input_refused", detail: expect.stringContaining("loras") } });
  });

  test("is no news when its output has expired, and the run is unknown when it never was", async () => {
    const id = await submitted(order());
    await verdict(ref(id));
    sandbox.advanceClock(2 * 3_600_000);
    expect(await provider.look(ref(id))).toMatchObject({ status: "failed", failure: { code: "output_unavailable" } });
    expect(await provider.look(ref("nobody"))).toEqual({ status: "gone" });
    expect(await provider.look(ref(id, "fal-ai/other/x"))).toEqual({ status: "gone" });
  });

  test("survives errors, a page of HTML and a false 404 on the way", async () => {
    expect(await verdict(ref(await submitted(order("get_error=2"))))).toMatchObject({ status: "succeeded" });
    const missing = await submitted(order("get_missing=1"));
    expect(await provider.look(ref(missing))).toEqual({ status: "gone" });
    expect(await verdict(ref(missing))).toMatchObject({ status: "succeeded" });
    const garbled = await submitted(order("get_garbage=1"));
    await expect(provider.look(ref(garbled))).rejects.toThrow(ProviderUnreachable);
    expect(await verdict(ref(garbled))).toMatchObject({ status: "succeeded" });
  });
});

describe("cancel", () => {
  test("in the queue, at work, when over, and of what is not known", async () => {
    const slow = await startSandbox({ speed: 1 });
    const patient = made({ baseUrl: `${slow.url}/fal` });
    const answer = await patient.submit(order());
    if (answer.outcome !== "submitted") throw new Error(JSON.stringify(answer));
    const queued = ref(answer.providerRunId);
    await patient.cancel(queued);
    await expect.poll(() => patient.look(queued)).toEqual({ status: "canceled", seconds: null, costMicroUsd: null });
    await slow.close();

    const working = ref(await submitted(order("slow=600")));
    await expect.poll(async () => (await provider.look(working)).status === "running").toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await provider.cancel(working);
    expect(await verdict(working)).toMatchObject({ status: "canceled", seconds: expect.any(Number) });
    await provider.cancel(working);
    await provider.cancel(ref("nobody"));

    const done = ref(await submitted(order()));
    await verdict(done);
    await provider.cancel(done);
    expect(await verdict(done)).toMatchObject({ status: "succeeded" });
  });
});

describe("deliveries", () => {
  interface Delivered {
    readonly headers: IncomingHttpHeaders;
    readonly body: string;
  }
  /** The first `count` deliveries of one run, as they arrive at our side of the relay. */
  async function deliveriesOf(it: Order, count = 1): Promise<{ id: string | null; all: Delivered[] }> {
    const all: Delivered[] = [];
    let over: () => void = () => {};
    const end = new Promise<void>((resolve) => {
      over = resolve;
    });
    const hook = createServer((request, response) => {
      let body = "";
      request.setEncoding("utf8").on("data", (text: string) => {
        body += text;
      });
      request.on("end", () => {
        response.end();
        if (request.url !== new URL(it.webhookUrl ?? "").pathname) return;
        if (all.push({ headers: request.headers, body }) >= count) over();
      });
    });
    await new Promise<void>((resolve) => hook.listen(0, "127.0.0.1", resolve));
    sandbox.setWebhookRelay(`http://127.0.0.1:${(hook.address() as AddressInfo).port}`);
    const sent = await provider.submit(it);
    await end;
    hook.closeAllConnections();
    hook.close();
    sandbox.setWebhookRelay(null);
    return { id: sent.outcome === "submitted" ? sent.providerRunId : null, all };
  }
  const verify = ({ headers, body }: Delivered) =>
    provider.verifyWebhook(headers as Record<string, string | undefined>, body);

  test("are taken, once for a run, and tell that it is over", async () => {
    const { id, all } = await deliveriesOf(order());
    expect(await Promise.all(all.map(verify))).toEqual([
      { deliveryId: id, providerRunId: id, status: "OK", ended: true },
    ]);
    const failed = await deliveriesOf(order("oom"));
    expect(await Promise.all(failed.all.map(verify))).toMatchObject([{ status: "ERROR", providerRunId: failed.id }]);
  });

  test("have one id, however often they are repeated", async () => {
    const { all } = await deliveriesOf(order("webhook_duplicate"), 2);
    const taken = await Promise.all(all.map(verify));
    expect(new Set(taken.map(({ deliveryId }) => deliveryId)).size).toBe(1);
    expect(taken).toHaveLength(2);
  });

  test("are taken when they are the only word of a run whose answer was lost", async () => {
    const { id, all } = await deliveriesOf(order("cut"));
    expect(id).toBeNull();
    expect(await Promise.all(all.map(verify))).toMatchObject([{ providerRunId: sandbox.bill().lines[0]?.id }]);
  });

  test("are taken before the create was answered, and under the key that replaces another", async () => {
    expect(await Promise.all((await deliveriesOf(order("webhook_early"))).all.map(verify))).toHaveLength(1);
    expect(await Promise.all((await deliveriesOf(order("webhook_rotated"))).all.map(verify))).toHaveLength(1);
  });

  test.each([
    ["webhook_bad_signature", /^forged/],
    ["webhook_stale", /^stale: signed 36\d\d s in the past.*NTP/],
  ])("are refused with %s", async (fault, why) => {
    for (const delivered of (await deliveriesOf(order(fault))).all)
      await expect(verify(delivered)).rejects.toThrow(why);
  });
});

/** A stand-in for what the sandbox does not say: each path answers in turn, the last answer for ever. */
type Reply = readonly [status: number, body: unknown, headers?: Record<string, string>];
let routes: Record<string, Reply[]> = {};
const seen: { method: string; path: string; headers: IncomingHttpHeaders; body: string }[] = [];
let server: Server | null = null;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  server = null;
  routes = {};
  seen.length = 0;
});

async function standIn(host = "127.0.0.1"): Promise<string> {
  server?.close();
  server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => {
      body += text;
    });
    request.on("end", () => {
      const { method = "", url: path = "", headers } = request;
      seen.push({ method, path, headers, body });
      const answers = routes[`${method} ${path.split("?")[0]}`] ?? [[404, { detail: "Request not found" }]];
      const [status, content, more] = (answers.length > 1 ? answers.shift() : answers[0]) ?? [500, ""];
      response.writeHead(status, { "content-type": "application/json", ...more });
      response.end(typeof content === "string" ? content : JSON.stringify(content));
    });
  });
  const listening = server;
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  return `http://${host}:${(listening.address() as AddressInfo).port}`;
}

describe("on the wire", () => {
  const SUBMIT = `POST /queue/${DEV}`;

  test("the input is the body, the webhook is in the address, and fal is told not to try again by itself", async () => {
    const url = await standIn();
    routes[SUBMIT] = [[200, { request_id: "r-1", status: "IN_QUEUE", surprise: { new: "field" } }]];
    const it = order(null, { model: DEV, cancelAfterSeconds: 59.2 });
    expect(await made({ baseUrl: url }).submit(it)).toEqual({ outcome: "submitted", providerRunId: "r-1" });
    expect(seen).toHaveLength(1);
    expect(JSON.parse(seen[0]?.body ?? "")).toEqual(it.input);
    expect(seen[0]?.path).toBe(`/queue/${DEV}?fal_webhook=${encodeURIComponent(it.webhookUrl ?? "")}`);
    expect(seen[0]?.headers).toMatchObject({
      authorization: `Key ${TOKEN}`,
      "content-type": "application/json",
      "x-fal-no-retry": "1",
      "x-fal-request-timeout": "60",
    });
  });

  test.each<[string, Reply]>([
    ["500 in fal's own words", [500, { detail: "Internal error", error_type: "internal_error" }]],
    ["503 about a runner", [503, { detail: "No runner", error_type: "runner_scheduling_failure" }]],
    ["504 that names a time", [504, { detail: "Timed out", error_type: "request_timeout" }]],
    ["502 of a proxy", [502, "<html>"]],
    ["200 without an id", [200, { status: "IN_QUEUE" }]],
    ["200 with HTML", [200, "<html>"]],
    ["a redirect", [307, "", { location: "/" }]],
    ["404 of a proxy", [404, "<html>nginx</html>"]],
    ["408", [408, { detail: "Request timeout" }]],
    ["499 about our connection", [499, { detail: "Client disconnected", error_type: "client_disconnected" }]],
  ])("a create is lost after %s, and not sent again", async (_name, answer) => {
    const url = await standIn();
    routes[SUBMIT] = [answer];
    expect(await made({ baseUrl: url }).submit(order(null, { model: DEV }))).toMatchObject({ outcome: "lost" });
    expect(seen).toHaveLength(1);
  });

  const wrong = (type: string) => [{ loc: ["body", "prompt"], msg: "no", type, input: "https://our/secret" }];
  test.each<[number, unknown, string]>([
    [403, { detail: "User is locked. Reason: TOP_UP." }, "provider_no_credit"],
    [403, { detail: "User is locked. Reason: Admin lock. Please contact support@fal.ai" }, "provider_auth"],
    [403, { detail: "You have no access to this model" }, "model_not_found"],
    [402, { detail: "Payment required" }, "provider_no_credit"],
    [401, { detail: "No balance, and no key either" }, "provider_auth"],
    [404, { detail: "Application not found" }, "model_not_found"],
    [413, { detail: "Payload too large" }, "input_too_large"],
    [422, { detail: wrong("content_policy_violation") }, "content_refused"],
    [422, { detail: wrong("image_too_large") }, "input_too_large"],
    [422, { detail: wrong("missing") }, "input_refused"],
    [400, { detail: "Bad request", error_type: "bad_request" }, "input_refused"],
  ])("a create is declined after %i %j as %s", async (status, body, code) => {
    const url = await standIn();
    routes[SUBMIT] = [[status, body]];
    const answer = await made({ baseUrl: url }).submit(order(null, { model: DEV }));
    expect(answer).toMatchObject({ outcome: "declined", failure: { code } });
    expect(JSON.stringify(answer)).not.toContain("our/secret");
  });

  test("neither the key nor the webhook's address is repeated in what is reported", async () => {
    const url = await standIn();
    const it = order(null, { model: DEV });
    routes[SUBMIT] = [
      [422, { detail: `key ${TOKEN}, hook ${it.webhookUrl}` }],
      [500, `key ${TOKEN}, hook ${it.webhookUrl}`],
      [502, `key ${TOKEN}, hook ${encodeURIComponent(it.webhookUrl ?? "")}`],
    ];
    for (let i = 0; i < 3; i++)
      expect(JSON.stringify(await made({ baseUrl: url }).submit(it))).toContain("key [hidden], hook [hidden]");
  });

  const RUN = "/queue/fal-ai/flux/requests/r-1";
  async function looked(result: Reply, status: object = {}): Promise<Look> {
    const url = await standIn();
    routes[`GET ${RUN}/status`] = [[200, { status: "COMPLETED", metrics: { inference_time: 1.5 }, ...status }]];
    routes[`GET ${RUN}`] = [result];
    return made({ baseUrl: url }).look(ref("r-1", DEV));
  }

  test.each<[Reply, string]>([
    [[422, { detail: wrong("content_policy_violation") }], "content_refused"],
    [[422, { detail: [...wrong("missing"), ...wrong("content_policy_violation")] }], "content_refused"],
    [[422, { detail: wrong("file_download_error") }], "input_refused"],
    [[422, { detail: wrong("no_media_generated") }], "provider_failed"],
    [[500, { detail: wrong("internal_server_error") }], "provider_failed"],
    [[400, { detail: "no", error_type: "bad_request" }], "input_refused"],
    [[413, { detail: "no" }], "input_too_large"],
    [[404, { detail: "Path /nothing not found" }], "model_not_found"],
    [[404, { detail: "Request not found" }], "output_unavailable"],
    [[504, { detail: "no", error_type: "startup_timeout" }], "interrupted"],
    [[503, { detail: "no", error_type: "runner_scheduling_failure" }], "interrupted"],
    [[503, { detail: "no", error_type: "runner_connection_error" }], "interrupted"],
    [[502, { detail: "no", error_type: "runner_incomplete_response" }], "interrupted"],
    [[499, { detail: "no", error_type: "client_disconnected" }], "interrupted"],
    [[500, { detail: "no", error_type: "runner_server_error" }], "interrupted"],
    [[500, { detail: "no", error_type: "runner_server_error" }, { "x-fal-retryable": "false" }], "provider_failed"],
    [[504, { detail: "no", error_type: "request_timeout" }], "timeout"],
    [[504, { detail: "no", error_type: "request_timeout" }, { "x-fal-request-timeout-type": "user" }], "aborted"],
  ])("a result of %j is a run that failed: %s", async (result, code) => {
    expect(await looked(result)).toMatchObject({ status: "failed", failure: { code }, seconds: 1.5 });
    expect(strange).toEqual([]);
  });

  test("an error type that nobody knows yet is told of, and is a failure", async () => {
    const look = await looked([503, { detail: "no", error_type: "runner_melted" }]);
    expect(look).toMatchObject({ status: "failed", failure: { code: "provider_failed" } });
    expect(strange).toEqual([expect.stringContaining("runner_melted")]);
  });

  test("an internal error is the run's only where its status says so: else it may be a success that was paid", async () => {
    const internal: Reply = [500, { detail: "Internal error", error_type: "internal_error" }];
    await expect(looked(internal)).rejects.toThrow(ProviderUnreachable);
    expect(await looked(internal, { error_type: "internal_error" })).toMatchObject({
      failure: { code: "interrupted" },
    });
  });

  test.each<[string, Reply]>([
    ["5xx of somebody in front", [502, "<html>"]],
    ["5xx without a type", [500, { detail: "oops" }]],
    ["HTML", [200, "<html>"]],
    ["a list", [200, []]],
    ["401", [401, { detail: "no" }]],
    ["a lock", [403, { detail: "User is locked. Reason: Exhausted balance." }]],
    ["a redirect", [302, ""]],
  ])("%s in place of the result is no verdict", async (_name, result) => {
    await expect(looked(result)).rejects.toThrow(ProviderUnreachable);
  });

  test.each([{}, { error_type: "bad_request" }])(
    "a result that is not there yet is a run that still works, also with %j",
    async (type) => {
      expect(await looked([400, { detail: "Request is still in progress", ...type }])).toEqual({
        status: "running",
        progress: null,
      });
    },
  );

  test("the type of an error may stand in the header alone", async () => {
    const look = await looked([503, { detail: "gone" }, { "x-fal-error-type": "runner_disconnected" }]);
    expect(look).toMatchObject({ status: "failed", failure: { code: "interrupted" } });
  });

  const A = "https://v3.fal.media/files/a.png";
  const B = "https://v3.fal.media/files/b.png";
  test.each<[unknown, string[]]>([
    [{ images: [{ url: A }, { url: B, width: 1 }] }, [A, B]],
    [{ images: [A] }, [A]],
    [{ image: { url: A } }, [A]],
    [{ video: { url: A, content_type: "video/mp4" }, seed: 1 }, [A]],
    [{ video: A }, [A]],
    [{ audio: { url: A }, timings: {} }, [A]],
    [{ images: [{ url: "data:image/png;base64,AA" }] }, ["data:image/png;base64,AA"]],
    [{ images: [{ url: A }, { url: B }], has_nsfw_concepts: [true, false] }, [B]],
    [{ images: [{ url: A }], has_nsfw_concepts: [false] }, [A]],
    [{ images: [{ url: A }], has_nsfw_concepts: null }, [A]],
  ])("files are found in %j", async (result, outputs) => {
    expect(await looked([200, result])).toEqual({
      status: "succeeded",
      outputs,
      seconds: 1.5,
      costMicroUsd: null,
      trainedVersion: null,
    });
  });

  test("what was held back is refused, and what is no file is a failure that shows what it was", async () => {
    const held = { images: [{ url: A }, { url: B }], has_nsfw_concepts: [true, true] };
    expect(await looked([200, held])).toMatchObject({ status: "failed", failure: { code: "content_refused" } });
    expect(await looked([200, { text: "a chair", images: [] }])).toMatchObject({
      status: "failed",
      failure: { code: "provider_failed", detail: expect.stringContaining("a chair") },
    });
  });

  test("a status that nobody knows yet is told of, and is a run that still works", async () => {
    expect(await looked([200, {}], { status: "PAUSED" })).toEqual({ status: "running", progress: null });
    expect(strange).toEqual([expect.stringContaining("PAUSED")]);
  });

  test("an id cannot lead elsewhere", async () => {
    const url = await standIn();
    await made({ baseUrl: url }).look(ref("../x?y=", DEV));
    expect(seen[0]?.path).toBe("/queue/fal-ai/flux/requests/..%2Fx%3Fy%3D/status?logs=1");
  });

  test.each<[number, unknown, boolean]>([
    [200, { status: "CANCELLATION_REQUESTED" }, true],
    [202, { status: "CANCELLATION_REQUESTED" }, true],
    [400, { status: "ALREADY_COMPLETED" }, true],
    [404, { status: "NOT_FOUND" }, true],
    [401, { detail: "no" }, false],
    [500, "", false],
  ])("a cancel that is answered %i %j is done: %s", async (status, body, isDone) => {
    const url = await standIn();
    routes[`PUT ${RUN}/cancel`] = [[status, body]];
    const canceled = made({ baseUrl: url }).cancel(ref("r-1", DEV));
    if (isDone) await canceled;
    else await expect(canceled).rejects.toThrow(ProviderUnreachable);
  });
});

describe("offer", () => {
  const file = (url: string, bytes = 9) => ({
    url,
    filename: "room 1.jpg",
    contentType: "image/jpeg",
    bytes,
    read: async () => Buffer.from("JPEGBYTES"),
  });

  test("passes on what can be reached", async () => {
    const url = "https://bucket.example.test/room.jpg?signature=abc";
    expect(await made({ baseUrl: fal.baseUrl }).offer(file(url))).toBe(url);
    expect(await provider.offer(file("http://127.0.0.1:3000/files/a"))).toBe("http://127.0.0.1:3000/files/a");
  });

  test("uploads what only this machine can reach, and it is there", async () => {
    // 0.0.0.0 is this machine, but not by a name that says so.
    const remote = made({ baseUrl: `${sandbox.url.replace("127.0.0.1", "0.0.0.0")}/fal` });
    const url = await remote.offer(file("http://localhost:3000/a"));
    const there = await fetch(url);
    expect([there.headers.get("content-type"), await there.text()]).toEqual(["image/jpeg", "JPEGBYTES"]);
  });

  test("takes the key to the provider only, and says why it did not work", async () => {
    const url = await standIn("0.0.0.0");
    const place = { upload_url: `${url}/store/1`, file_url: "https://v3.fal.media/1" };
    routes["POST /rest/storage/upload/initiate"] = [
      [502, ""],
      [200, place],
      [200, place],
      [422, { detail: "too odd" }],
    ];
    routes["PUT /store/1"] = [
      [200, ""],
      [403, "denied"],
    ];
    const remote = made({ baseUrl: url });
    expect(await remote.offer(file("http://localhost:3000/a"))).toBe("https://v3.fal.media/1");
    expect(seen[1]?.headers["authorization"]).toBe(`Key ${TOKEN}`);
    expect(JSON.parse(seen[1]?.body ?? "")).toEqual({ content_type: "image/jpeg", file_name: "room 1.jpg" });
    expect(seen[2]?.headers["authorization"]).toBeUndefined();
    await expect(remote.offer(file("http://localhost:3000/a"))).rejects.toThrow(/store answered 403: denied/);
    await expect(remote.offer(file("http://localhost:3000/a"))).rejects.toThrow(/422: too odd/);
    await expect(remote.offer(file("http://localhost:3000/a", 90_000_001))).rejects.toThrow(/STORAGE_PROVIDER=s3/);
  });
});

describe("a signature", () => {
  // providers.md section 10: computed elsewhere. The key is the bytes 0 to 31.
  const BODY = '{"id":"p1","status":"succeeded"}';
  const SIGNED_AT = 1_763_683_200;
  const X = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";
  const VECTOR =
    "4b7f1d158ae2156687377f88c6de57bcf3c8887589b32313a260f100076c2808431d9bf4fb0e21c37a065f376506b1e44ff28ec6704357d7c20475a4f839870f";
  const HEADERS = {
    "x-fal-webhook-request-id": "req-1",
    "x-fal-webhook-user-id": "user-1",
    "x-fal-webhook-timestamp": String(SIGNED_AT),
    "x-fal-webhook-signature": VECTOR,
  };
  const OK = '{"request_id":"req-1","status":"OK","payload":{}}';
  const wrap = Buffer.from("302e020100300506032b657004220420", "hex");
  const keyOf = (byte: number): KeyObject =>
    createPrivateKey({ key: Buffer.concat([wrap, Buffer.alloc(32, byte)]), format: "der", type: "pkcs8" });
  const [OLD, NEW] = [keyOf(3), keyOf(4)];
  const jwkOf = (key: KeyObject) => ({ ...createPublicKey(key).export({ format: "jwk" }), kid: "k" });
  const signed = (body: string, key: KeyObject, seconds = SIGNED_AT) => {
    const digest = createHash("sha256").update(body).digest("hex");
    const message = Buffer.from(["req-1", "user-1", String(seconds), digest].join("\n"));
    const signature = sign(null, message, key).toString("hex");
    return { ...HEADERS, "x-fal-webhook-timestamp": String(seconds), "x-fal-webhook-signature": signature };
  };
  const JWKS = "GET /rest/.well-known/jwks.json";

  async function receiver(...answers: Reply[]) {
    const baseUrl = await standIn();
    routes[JWKS] = answers;
    const now = { seconds: SIGNED_AT + 1 };
    return { it: made({ baseUrl, clock: () => new Date(now.seconds * 1_000) }), now };
  }
  const published = (...keys: object[]): Reply => [200, { keys }];

  test("of the published vector is genuine, though that body names no request", async () => {
    const { it } = await receiver(
      published({ kty: "RSA", n: "x" }, { kty: "OKP", crv: "Ed25519", x: X }, { kty: "OKP" }),
    );
    await expect(it.verifyWebhook(HEADERS, BODY)).rejects.toThrow(/^malformed/);
    await expect(it.verifyWebhook({ ...HEADERS, "x-fal-webhook-user-id": "user-2" }, BODY)).rejects.toThrow(/^forged/);
  });

  test("is over the very bytes of the body, the id, the user and the time", async () => {
    const { it } = await receiver(published(jwkOf(OLD)));
    const odd = '{ "status":"ERROR",\t"request_id" : "req-1", "error": "\\u00e9 é" }\n';
    expect(await it.verifyWebhook(signed(odd, OLD), odd)).toEqual({
      deliveryId: "req-1",
      providerRunId: "req-1",
      status: "ERROR",
      ended: true,
    });
    const printedAgain = JSON.stringify(JSON.parse(odd));
    const [id, time] = [{ "x-fal-webhook-request-id": "req-2" }, { "x-fal-webhook-timestamp": String(SIGNED_AT + 1) }];
    const cut = { "x-fal-webhook-signature": VECTOR.slice(0, 64) };
    await expect(it.verifyWebhook(signed(odd, OLD), printedAgain)).rejects.toThrow(/^forged/);
    for (const other of [id, time, cut, { "x-fal-webhook-signature": `${VECTOR}zz` }])
      await expect(it.verifyWebhook({ ...signed(odd, OLD), ...other }, odd)).rejects.toThrow(/^forged/);
  });

  test.each(Object.keys(HEADERS))("is missing without %s", async (name) => {
    const { it } = await receiver(published(jwkOf(OLD)));
    await expect(it.verifyWebhook({ ...HEADERS, [name]: undefined }, OK)).rejects.toThrow(/^unsigned: .*proxy/);
    expect(seen).toEqual([]);
  });

  test("is good for five minutes, both ways, and what is stale asks for no key", async () => {
    const { it, now } = await receiver(published(jwkOf(OLD)));
    for (const [after, why] of [
      [301, /^stale: signed 301 s in the past/],
      [-301, /^stale: signed 301 s in the future/],
    ] as const) {
      now.seconds = SIGNED_AT + after;
      await expect(it.verifyWebhook(signed(OK, OLD), OK)).rejects.toThrow(why);
    }
    expect(seen).toEqual([]);
    for (const after of [300, -300]) {
      now.seconds = SIGNED_AT + after;
      expect(await it.verifyWebhook(signed(OK, OLD), OK)).toMatchObject({ providerRunId: "req-1" });
    }
  });

  test("needs keys that are asked for once, and anew after a day", async () => {
    const { it, now } = await receiver(published(jwkOf(OLD)), published(jwkOf(NEW)));
    await Promise.all(Array.from({ length: 20 }, () => it.verifyWebhook(signed(OK, OLD), OK)));
    expect(seen).toHaveLength(1);
    expect(seen[0]?.headers["authorization"]).toBeUndefined();
    now.seconds += 24 * 3_600;
    await expect(it.verifyWebhook(signed(OK, OLD, now.seconds), OK)).rejects.toThrow(/^forged/);
    expect(seen).toHaveLength(2);
  });

  test("needs keys that are asked for anew when the clock was ahead, and is set right", async () => {
    const { it, now } = await receiver([404, {}], published(jwkOf(OLD)), published(jwkOf(NEW)));
    now.seconds += 48 * 3_600;
    await expect(it.verifyWebhook(signed(OK, OLD, now.seconds), OK)).rejects.toThrow(/^unverifiable/);
    now.seconds -= 48 * 3_600;
    expect(await it.verifyWebhook(signed(OK, OLD), OK)).toMatchObject({ providerRunId: "req-1" });
    now.seconds -= 48 * 3_600;
    expect(await it.verifyWebhook(signed(OK, NEW, now.seconds), OK)).toMatchObject({ providerRunId: "req-1" });
  });

  test("of a key that is new is taken, and then the old one is worth nothing", async () => {
    const { it, now } = await receiver(published(jwkOf(OLD)), published(jwkOf(NEW)));
    await it.verifyWebhook(signed(OK, OLD), OK);
    now.seconds += 61;
    expect(await it.verifyWebhook(signed(OK, NEW, now.seconds), OK)).toBeDefined();
    await expect(it.verifyWebhook(signed(OK, OLD, now.seconds), OK)).rejects.toThrow(/^forged/);
    expect(seen).toHaveLength(2);
  });

  test("that is forged makes us ask at most once a minute, whatever strangers send", async () => {
    const { it, now } = await receiver(published(jwkOf(OLD)));
    for (let i = 0; i < 10; i++) await expect(it.verifyWebhook(signed(OK, NEW), OK)).rejects.toThrow(/^forged/);
    expect(seen).toHaveLength(1);
    now.seconds += 60;
    for (let i = 0; i < 10; i++) await expect(it.verifyWebhook(signed(OK, NEW), OK)).rejects.toThrow(/^forged/);
    expect(seen).toHaveLength(2);
  });

  test("cannot be checked while no key is told, and that is said", async () => {
    const { it, now } = await receiver([404, { detail: "no" }], [200, { keys: [] }], published(jwkOf(OLD)));
    await expect(it.verifyWebhook(signed(OK, OLD), OK)).rejects.toThrow(/^unverifiable/);
    now.seconds += 5;
    await expect(it.verifyWebhook(signed(OK, OLD), OK)).rejects.toThrow(/^unverifiable/);
    now.seconds += 5;
    expect(await it.verifyWebhook(signed(OK, OLD), OK)).toBeDefined();
    expect(strange).toHaveLength(2);
  });
});

test("the official client does its work here: it uploads, submits, waits, and reads the result and the refusal", async () => {
  const client = createFalClient({
    credentials: TOKEN,
    fetch: (url, init) =>
      fetch(
        String(url)
          .replace("https://queue.fal.run/", `${sandbox.url}/fal/queue/`)
          .replace(/^https:\/\/rest\.(alpha\.)?fal\.ai\//, `${sandbox.url}/fal/rest/`),
        init,
      ),
  });
  const updates: string[] = [];
  const painted = await client.subscribe(DEV, {
    input: { prompt: "a red chair", image_size: "square", seed: 5 },
    logs: true,
    pollInterval: 20,
    onQueueUpdate: ({ status }) => updates.push(status),
  });
  expect(updates.at(-1)).toBe("COMPLETED");
  expect(painted.data).toMatchObject({ seed: 5, prompt: "a red chair", has_nsfw_concepts: [false] });
  expect(painted.data.images).toMatchObject([{ width: 512, height: 512, content_type: "image/jpeg" }]);

  const photo = await (await fetch(painted.data.images[0]?.url ?? "")).blob();
  const staged = await client.subscribe(KONTEXT, { input: { prompt: "furnish", image_url: photo }, pollInterval: 20 });
  expect(staged.data.images).toHaveLength(1);

  const refusal = client.subscribe(KONTEXT, {
    input: { prompt: "a [sandbox:nsfw]", image_url: photo },
    pollInterval: 20,
  });
  await expect(refusal).rejects.toMatchObject({
    status: 422,
    body: { detail: [{ loc: ["body", "prompt"], type: "content_policy_violation" }] },
  });
  const { request_id: requestId } = await client.queue.submit(DEV, { input: { prompt: "a [sandbox:slow=600]" } });
  await client.queue.cancel(DEV, { requestId });
  await expect.poll(async () => (await client.queue.status(DEV, { requestId })).status).toBe("COMPLETED");
  await expect(client.queue.result(DEV, { requestId })).rejects.toMatchObject({ status: 499 });
});
