import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import sharp from "sharp";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";
import type { Ask } from "../src/domain/ask.ts";
import type { Look, Order, Provider, RunRef } from "../src/domain/provider.ts";
import {
  waveSpeedFlux,
  waveSpeedKontext,
  waveSpeedSchnell,
  waveSpeedSeedance,
  waveSpeedWan,
} from "../src/domain/wavespeed-inputs.ts";
import type { AdapterOptions } from "../src/providers/adapter.ts";
import { waveSpeed } from "../src/providers/wavespeed.ts";

const notTaken = async () => false;
const KEY = "sandbox-key";
const DEV = "wavespeed-ai/flux-dev";
const strange: string[] = [];

let orders = 0;
/** `directive` is a fault of the sandbox, asked for in the prompt. */
function order(directive: string | null = null, rest: Partial<Order> = {}): Order {
  orders++;
  return {
    runId: `run-${orders}`,
    model: DEV,
    version: null,
    input: { prompt: `chair ${orders}${directive === null ? "" : ` [sandbox:${directive}]`}`, num_images: 2, seed: 7 },
    destination: null,
    webhookUrl: `https://app.example.test/hooks/wavespeed/run-${orders}/s3cret`,
    sendBefore: new Date(Date.now() + 5_000),
    cancelAfterSeconds: 300,
    ...rest,
  };
}
const ref = (providerRunId: string): RunRef => ({ providerRunId, model: DEV, isTraining: false });

describe("against the sandbox", () => {
  let sandbox: Sandbox;
  let provider: Provider;
  const make = (options: Partial<AdapterOptions> = {}) =>
    waveSpeed.make({
      name: "wavespeed",
      token: KEY,
      baseUrl: `${sandbox.url}/wavespeed`,
      webhookSecret: sandbox.webhookSecret,
      totalMs: 4_000,
      onStrange: (what) => strange.push(what),
      ...options,
    });

  beforeAll(async () => {
    sandbox = await startSandbox({ speed: 20 });
    provider = make();
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

  async function verdict(providerRunId: string): Promise<Look> {
    for (let i = 0; i < 400; i++) {
      const look = await provider.look(ref(providerRunId));
      if (look.status !== "running") return look;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    throw new Error("still running after 10 s");
  }

  test("a run is bought by the model's path, watched to its end, and its pictures have the size that was asked for", async () => {
    expect(await provider.resolve(DEV)).toEqual({ outcome: "resolved", version: null });
    const input = { ...order().input, size: "1280*720", output_format: "jpeg" };
    const look = await verdict(await submitted(order(null, { input })));
    if (look.status !== "succeeded") throw new Error(JSON.stringify(look));
    expect(look).toMatchObject({ seconds: expect.any(Number), costMicroUsd: null, trainedVersion: null });
    expect(look.outputs).toHaveLength(2);
    for (const url of look.outputs) {
      const picture = await sharp(Buffer.from(await (await fetch(url)).arrayBuffer())).metadata();
      expect(picture).toMatchObject({ format: "jpeg", width: 1_280, height: 720 });
    }
    expect(sandbox.bill().lines).toMatchObject([{ face: "wavespeed", model: DEV, cost_usd: 0.024 }]);
  });

  describe("a create is bought once, and found again", () => {
    test.each(["cut", "cut_half", "server_error_after_accept", "garbage_after_accept", "slow_create=5000"])(
      "when its answer is lost by %s",
      async (fault) => {
        const it = order(fault);
        const sentAt = new Date();
        expect(await provider.submit(it)).toMatchObject({ outcome: "lost" });
        const { lines } = sandbox.bill();
        expect(lines).toHaveLength(1);
        expect(await provider.find(it, sentAt, notTaken)).toEqual({ outcome: "found", providerRunId: lines[0]?.id });
      },
      15_000,
    );

    test("not before the list shows it", async () => {
      const it = order("cut,list_lag=400");
      const sentAt = new Date();
      expect(await provider.submit(it)).toMatchObject({ outcome: "lost" });
      expect(await provider.find(it, sentAt, notTaken)).toEqual({ outcome: "absent" });
      await expect
        .poll(() => provider.find(it, sentAt, notTaken), { timeout: 5_000 })
        .toMatchObject({
          outcome: "found",
        });
    });

    test("on a later page, among more than a hundred others", async () => {
      const sentAt = new Date();
      const it = order("cut");
      expect(await provider.submit(it)).toMatchObject({ outcome: "lost" });
      const wanted = sandbox.bill().lines[0]?.id;
      for (let i = 0; i < 120; i += 20) await Promise.all(Array.from({ length: 20 }, () => submitted(order())));
      expect(await provider.find(it, sentAt, notTaken)).toEqual({ outcome: "found", providerRunId: wanted });
    }, 30_000);

    test("and not in an equal run that stands for another order", async () => {
      const sentAt = new Date();
      const it = order();
      const twin = await submitted({ ...order(), input: it.input });
      expect(await provider.find(it, sentAt, async (id) => id === twin)).toEqual({ outcome: "absent" });
      expect(await provider.find(it, sentAt, notTaken)).toEqual({ outcome: "found", providerRunId: twin });
    });
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
      const it = order(fault);
      const sentAt = new Date();
      expect(await provider.submit(it)).toMatchObject(expected);
      expect(sandbox.bill().lines).toEqual([]);
      expect(await provider.find(it, sentAt, notTaken)).toEqual({ outcome: "absent" });
    });

    test.each<[string, Record<string, unknown>, RegExp]>([
      ["too many pictures", { prompt: "a", num_images: 9 }, /num_images/],
      ["a size that is none", { prompt: "a", size: "big" }, /size: must be width\*height/],
      ["no prompt", { size: "1024*1024" }, /prompt is required/],
      ["loras without a path", { prompt: "a", loras: [{ scale: 1 }] }, /loras/],
    ])("by an input with %s, and the field is named", async (_name, input, detail) => {
      expect(await provider.submit(order(null, { input }))).toMatchObject({
        outcome: "declined",
        failure: { code: "input_refused", detail: expect.stringMatching(detail) },
      });
      expect(sandbox.bill().lines).toEqual([]);
    });

    test("by a model that is not sold", async () => {
      const it = order(null, { model: "wavespeed-ai/flux-none" });
      expect(await provider.submit(it)).toMatchObject({ outcome: "declined", failure: { code: "model_not_found" } });
      expect(await provider.resolve(it.model)).toMatchObject({ failure: { code: "model_not_found" } });
    });
  });

  describe("the end of a run", () => {
    test.each([
      ["interrupted", "interrupted"],
      ["aborted", "interrupted"],
      ["nsfw", "content_refused"],
      ["oom", "provider_failed"],
    ])("%s is told as %s, and costs nothing", async (fault, code) => {
      expect(await verdict(await submitted(order(fault)))).toMatchObject({ status: "failed", failure: { code } });
      expect(sandbox.bill().total).toMatchObject({ predictions: 1, usd: 0 });
    });

    test("is a refused input when the picture cannot be read", async () => {
      const input = { prompt: "a sofa", image: `${sandbox.url}/nothing.png` };
      const id = await submitted(order(null, { model: "wavespeed-ai/flux-kontext-pro", input }));
      expect(await verdict(id)).toMatchObject({ status: "failed", failure: { code: "input_refused" } });
    });

    test("is canceled when we asked for it, and asking again does no harm", async () => {
      const id = await submitted(order("slow=600"));
      await provider.cancel(ref(id));
      expect(await verdict(id)).toMatchObject({ status: "canceled" });
      await provider.cancel(ref(id));
      await provider.cancel(ref("nobody"));
    });

    test("is not undone by a cancel that comes too late: what it made is still there", async () => {
      const id = await submitted(order());
      await verdict(id);
      await provider.cancel(ref(id));
      expect(await provider.look(ref(id))).toMatchObject({ status: "succeeded" });
    });

    test("is gone for an id that is not known, and after the records are deleted", async () => {
      expect(await provider.look(ref("nobody"))).toEqual({ status: "gone" });
      const forgetful = await startSandbox({ speed: 20, outputTtlMs: 200 });
      const there = make({ baseUrl: `${forgetful.url}/wavespeed` });
      const answer = await there.submit(order());
      if (answer.outcome !== "submitted") throw new Error(JSON.stringify(answer));
      const look = () => there.look(ref(answer.providerRunId));
      await expect.poll(look, { timeout: 5_000 }).toEqual({ status: "gone" });
      expect(forgetful.bill().total.succeeded).toBe(1);
      await forgetful.close();
    });

    test("survives an error, a page of HTML and a false 404 on the way", async () => {
      expect(await verdict(await submitted(order("get_error=2")))).toMatchObject({ status: "succeeded" });
      const missing = await submitted(order("get_missing=1"));
      expect(await provider.look(ref(missing))).toEqual({ status: "gone" });
      expect(await verdict(missing)).toMatchObject({ status: "succeeded" });
      const garbled = await submitted(order("get_garbage=1"));
      await expect(provider.look(ref(garbled))).rejects.toMatchObject({ name: "ProviderUnreachable" });
      expect(await verdict(garbled)).toMatchObject({ status: "succeeded" });
    });

    test("cannot be learned while the provider is down", async () => {
      const id = await submitted(order());
      sandbox.faults.add({ fault: "down", match: { face: "wavespeed" } });
      await expect(provider.look(ref(id))).rejects.toMatchObject({ name: "ProviderUnreachable" });
      expect(await provider.find(order(), new Date(), notTaken)).toEqual({ outcome: "unread" });
      expect(await provider.resolve(DEV, { fresh: true })).toMatchObject({ outcome: "postponed" });
    });
  });

  describe("deliveries", () => {
    interface Delivered {
      readonly headers: IncomingHttpHeaders;
      readonly body: string;
    }
    /** Everything that is delivered of one run until there are so many, or until it stays quiet for half a second. */
    async function deliveriesOf(it: Order, count: number, meanwhile = async (_id: string) => {}): Promise<Delivered[]> {
      const all: Delivered[] = [];
      const hook = createServer((request, response) => {
        let body = "";
        request.setEncoding("utf8").on("data", (text: string) => {
          body += text;
        });
        request.on("end", () => {
          response.end();
          // Runs of other tests may still be calling back.
          if (request.url === new URL(it.webhookUrl ?? "").pathname) all.push({ headers: request.headers, body });
        });
      });
      await new Promise<void>((resolve) => hook.listen(0, "127.0.0.1", resolve));
      sandbox.setWebhookRelay(`http://127.0.0.1:${(hook.address() as AddressInfo).port}`);
      const id = await submitted(it);
      await meanwhile(id);
      await verdict(id);
      await expect.poll(() => all.length, { timeout: 5_000 }).toBeGreaterThanOrEqual(count);
      if (count === 0) await new Promise((resolve) => setTimeout(resolve, 300));
      hook.closeAllConnections();
      hook.close();
      sandbox.setWebhookRelay(null);
      return all;
    }
    const verify = ({ headers, body }: Delivered, by = provider) =>
      by.verifyWebhook(headers as Record<string, string | undefined>, body);

    test("tell of the end, once, and name the run", async () => {
      const [only, ...more] = await deliveriesOf(order(), 1);
      if (!only) throw new Error("nothing was delivered");
      expect(more).toEqual([]);
      const id = sandbox.bill().lines[0]?.id;
      expect(await verify(only)).toEqual({
        deliveryId: `${id}.completed`,
        providerRunId: id,
        status: "completed",
        ended: true,
      });
      expect(JSON.parse(only.body)).toMatchObject({ input: { num_images: 2, seed: 7 }, error: "" });
    });

    test("are the same delivery when they are repeated", async () => {
      const twice = await deliveriesOf(order("webhook_duplicate"), 2);
      const [first, second] = await Promise.all(twice.map((it) => verify(it)));
      expect(second?.deliveryId).toBe(first?.deliveryId);
    });

    test("are taken with two signatures", async () => {
      for (const delivered of await deliveriesOf(order("webhook_rotated"), 1)) await verify(delivered);
    });

    test.each([
      ["webhook_bad_signature", /^forged/],
      ["webhook_stale", /^stale/],
    ])("are refused with %s", async (fault, why) => {
      for (const delivered of await deliveriesOf(order(fault), 1)) await expect(verify(delivered)).rejects.toThrow(why);
    });

    test("are taken under the secret that the account itself tells", async () => {
      const unconfigured = waveSpeed.make({ name: "w", token: KEY, baseUrl: `${sandbox.url}/wavespeed` });
      const [first] = await deliveriesOf(order(), 1);
      if (!first) throw new Error("nothing was delivered");
      expect(await verify(first, unconfigured)).toMatchObject({ ended: true });
    });

    test("do not tell of what was canceled", async () => {
      expect(await deliveriesOf(order("slow=600"), 0, (id) => provider.cancel(ref(id)))).toEqual([]);
    });
  });

  test("a file that only this machine can reach is uploaded, without our key, and can be read from there", async () => {
    const bytes = await sharp({ create: { width: 8, height: 8, channels: 3, background: "red" } })
      .png()
      .toBuffer();
    const file = {
      url: "http://127.0.0.1:1/files/a.png",
      filename: "a.png",
      contentType: "image/png",
      bytes: bytes.length,
      read: async () => bytes,
    };
    expect(await provider.offer(file)).toBe(file.url);
    // Not loopback by its name: as the real one, it cannot reach us.
    const calls: { method: string; url: string }[] = [];
    const far = make({
      baseUrl: `${sandbox.url.replace("127.0.0.1", "0.0.0.0")}/wavespeed`,
      onCall: ({ method, url }) => calls.push({ method, url }),
    });
    expect(await far.offer({ ...file, url: "https://files.example.test/a.png" })).toBe(
      "https://files.example.test/a.png",
    );
    const place = await far.offer(file);
    expect(Buffer.from(await (await fetch(place)).arrayBuffer()).equals(bytes)).toBe(true);
    expect(calls.map(({ method }) => method)).toEqual(["POST", "PUT"]);
    await expect(far.offer({ ...file, bytes: 100_000_001 })).rejects.toThrow(/STORAGE_PROVIDER=s3/);
  });

  test("every input that we write is one that its model takes", async () => {
    const photo = await sharp({ create: { width: 64, height: 48, channels: 3, background: "teal" } })
      .png()
      .toBuffer();
    const image = `data:image/png;base64,${photo.toString("base64")}`;
    const wish: Ask = {
      seed: 3,
      safety: true,
      prompt: "a room\nby the sea",
      width: 1_344,
      height: 768,
      format: "webp",
    };
    const lora = { weights: "https://huggingface.co/x/y/resolve/main/lora.safetensors", scale: 0.9 };
    const asks: [string, Readonly<Record<string, unknown>>][] = [
      ["wavespeed-ai/flux-schnell", waveSpeedSchnell(wish)],
      ["wavespeed-ai/flux-dev", waveSpeedFlux({ ...wish, safety: false, steps: 20, guidance: 0 })],
      ["wavespeed-ai/flux-schnell-lora", waveSpeedSchnell({ ...wish, lora })],
      ["wavespeed-ai/flux-dev-lora", waveSpeedFlux({ ...wish, lora })],
      ["wavespeed-ai/flux-kontext-pro", waveSpeedKontext({ ...wish, image })],
      ["bytedance/seedance-v1-lite-t2v-720p", waveSpeedSeedance({ ...wish, seconds: 3, aspectRatio: "16:9" })],
      ["bytedance/seedance-v1-lite-i2v-720p", waveSpeedSeedance({ ...wish, seconds: 3, image, aspectRatio: "9:16" })],
      ["wavespeed-ai/wan-2.2/image-to-video", waveSpeedWan({ ...wish, seconds: 6, image })],
    ];
    for (const [model, input] of asks) {
      expect(await provider.resolve(model)).toEqual({ outcome: "resolved", version: null });
      const id = await submitted(order(null, { model, input, webhookUrl: null }));
      const look = await verdict(id);
      expect(look, model).toMatchObject({ status: "succeeded" });
      if (look.status === "succeeded") expect((await fetch(look.outputs[0] ?? "")).status).toBe(200);
    }
    expect(sandbox.bill().lines.map(({ cost_usd }) => cost_usd)).toEqual([
      0.003, 0.012, 0.005, 0.015, 0.04, 0.096, 0.096, 0.24,
    ]);
  }, 60_000);
});

test("sizes are what was asked for, as near as the model can come, and a film is never shorter", () => {
  const at = (width: number, height: number) => waveSpeedSchnell({ seed: 1, safety: true, width, height })["size"];
  expect([at(1_024, 1_024), at(1_344, 768), at(256, 256), at(2_048, 1_024), at(512, 2_048)]).toEqual([
    "1024*1024",
    "1344*768",
    "512*512",
    "1536*768",
    "512*1536",
  ]);
  const seconds = (asked: number) => waveSpeedWan({ seed: 1, safety: true, seconds: asked })["duration"];
  expect([1, 5, 6, 8, 9].map(seconds)).toEqual([5, 5, 8, 8, 8]);
});

/** A stand-in for what the sandbox does not say: what each path answers, in turn, the last answer for ever. */
describe("against odd answers", () => {
  type Answer = readonly [status: number, body: unknown, headers?: Record<string, string>];
  interface Seen {
    readonly method: string;
    readonly url: URL;
    readonly headers: IncomingHttpHeaders;
    readonly body: string;
  }
  const seen: Seen[] = [];
  let routes: Record<string, Answer[]>;
  let server: Server;
  let baseUrl: string;

  beforeEach(async () => {
    seen.length = 0;
    strange.length = 0;
    routes = {};
    server = createServer((request, response) => {
      let body = "";
      request.setEncoding("utf8").on("data", (text: string) => {
        body += text;
      });
      request.on("end", () => {
        const url = new URL(request.url ?? "", baseUrl);
        const { method = "", headers } = request;
        seen.push({ method, url, headers, body });
        const answers = routes[`${method} ${url.pathname.replace(/^\/api\/v3/, "")}`] ?? [];
        const [status, answer, more] = (answers.length > 1 ? answers.shift() : answers[0]) ?? [404, { code: 404 }];
        response.writeHead(status, { "content-type": "application/json", ...more });
        response.end(typeof answer === "string" ? answer : JSON.stringify(answer));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  const make = (options: Partial<AdapterOptions> = {}) =>
    waveSpeed.make({
      name: "wavespeed",
      token: KEY,
      baseUrl,
      totalMs: 2_000,
      onStrange: (what) => strange.push(what),
      ...options,
    });
  const CREATE = `POST /${DEV}`;
  // providers.md 13.8.
  const DATA = {
    id: "e6832d4abffb4d79bfbca19783fca133",
    model: DEV,
    outputs: [],
    urls: { get: "https://api.wavespeed.ai/api/v3/predictions/e6832d4abffb4d79bfbca19783fca133/result" },
    has_nsfw_contents: [],
    status: "created",
    created_at: "2026-11-21T10:00:00.123Z",
    error: "",
    timings: { inference: 0 },
  };
  const ok = (data: unknown): Answer => [200, { code: 200, message: "success", data }];

  test("a create is one POST with flat parameters, the key, and our address in the query", async () => {
    routes[CREATE] = [ok(DATA)];
    const it = order();
    expect(await make().submit(it)).toEqual({ outcome: "submitted", providerRunId: DATA.id });
    expect(await make().submit({ ...it, webhookUrl: null })).toMatchObject({ outcome: "submitted" });
    expect(seen.map(({ url }) => url.searchParams.get("webhook"))).toEqual([it.webhookUrl, null]);
    expect(seen[0]?.headers.authorization).toBe(`Bearer ${KEY}`);
    expect(JSON.parse(seen[0]?.body ?? "")).toEqual(it.input);
  });

  test.each<[string, Answer, string]>([
    ["401", [401, { code: 401, message: "no" }], "provider_auth"],
    ["402", [402, { code: 402, message: "no" }], "provider_no_credit"],
    ["403", [403, { code: 403, message: "this key may not" }], "provider_auth"],
    ["403 of one model", [403, { code: 403, message: "this model is not for you" }], "model_not_found"],
    ["403 for want of money", [403, { code: 403, message: "Insufficient credits" }], "provider_no_credit"],
    ["400 for want of money", [400, { code: 400, message: "insufficient balance" }], "provider_no_credit"],
    ["404", [404, { code: 404, message: "no" }], "model_not_found"],
    ["413", [413, { code: 413, message: "no" }], "input_too_large"],
    ["400", [400, { code: 400, message: "no" }], "input_refused"],
    ["400 about the content", [400, { code: 1200, message: "sensitive information" }], "content_refused"],
    ["200 with code 400", [200, { code: 400, message: "no" }], "input_refused"],
    ["200 with code 401", [200, { code: 401, message: "no" }], "provider_auth"],
    ["200 with code 402", [200, { code: 402, message: "no" }], "provider_no_credit"],
    ["200 with code 404", [200, { code: 404, message: "no" }], "model_not_found"],
    ["200 with code 1200", [200, { code: 1200, message: "no", data: null }], "content_refused"],
    ["200 with code 1401", [200, { code: 1401, message: "no" }], "input_refused"],
  ])("a create is declined by %s, in the provider's words", async (_name, answer, code) => {
    routes[CREATE] = [answer];
    const { message } = answer[1] as { message: string };
    expect(await make().submit(order())).toEqual({ outcome: "declined", failure: { code, detail: message } });
    expect(seen).toHaveLength(1);
  });

  test.each<[string, Answer, number]>([
    ["in the header", [429, { code: 429, message: "slow down" }, { "retry-after": "3" }], 3_000],
    ["in the text", [429, { code: 429, message: "try again in 7 seconds" }], 7_000],
    ["inside of a 200", [200, { code: 429, message: "slow down" }, { "retry-after": "9" }], 9_000],
    ["nowhere", [429, "<html>slow down</html>"], 5_000],
  ])("a create is postponed when throttled, for as long as told %s", async (_name, answer, retryAfterMs) => {
    routes[CREATE] = [answer];
    expect(await make().submit(order())).toMatchObject({
      outcome: "postponed",
      failure: { code: "rate_limited" },
      retryAfterMs,
    });
    expect(seen).toHaveLength(1);
  });

  test.each<[string, Answer]>([
    ["500 with JSON", [500, { code: 500, message: "no" }]],
    ["502 with HTML", [502, "<html>Bad gateway</html>"]],
    ["200 with HTML", [200, "<html>welcome</html>"]],
    ["200 without an id", ok({ status: "created" })],
    ["200 with code 5000", [200, { code: 5000, message: "internal" }]],
    ["200 with code 5003", [200, { code: 5003, message: "unavailable" }]],
    ["200 cut to half a JSON", [200, '{"code":200,"data":{"id":"e68']],
    ["a redirect", [307, "", { location: "/api/v3/x" }]],
    ["404 of somebody in between", [404, "<html>nginx</html>"]],
    ["408, which is about time", [408, { code: 408, message: "timeout" }]],
  ])("a create is lost after %s, and not sent again", async (_name, answer) => {
    routes[CREATE] = [answer];
    expect(await make().submit(order())).toMatchObject({ outcome: "lost" });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(seen).toHaveLength(1);
  });

  test("what has an id was bought, whatever else is said of it", async () => {
    routes[CREATE] = [[200, { code: 5004, message: "Sync mode timed out", data: { ...DATA, status: "processing" } }]];
    expect(await make().submit(order())).toEqual({ outcome: "submitted", providerRunId: DATA.id });
  });

  test("nothing is sent with a webhook that is not https, a name that is none, a training, or an input without JSON", async () => {
    const cyclic: Record<string, unknown> = {};
    cyclic["self"] = cyclic;
    const provider = make();
    for (const [rest, code] of [
      [{ webhookUrl: "http://localhost/hooks" }, "input_refused"],
      [{ model: "flux" }, "model_not_found"],
      [{ model: "../../account" }, "model_not_found"],
      [{ model: "predictions/delete" }, "model_not_found"],
      [{ destination: "us/model" }, "model_not_found"],
      [{ input: cyclic }, "input_refused"],
    ] as const)
      expect(await provider.submit(order(null, rest))).toMatchObject({ outcome: "declined", failure: { code } });
    expect(await provider.destination("mine")).toMatchObject({ outcome: "declined" });
    expect(seen).toEqual([]);
  });

  test("neither the key nor the webhook's secret is repeated in what is reported", async () => {
    const it = order();
    const leak = `key ${KEY}, webhook ${it.webhookUrl}, in the query ${encodeURIComponent(it.webhookUrl ?? "")}`;
    routes[CREATE] = [
      [400, { code: 400, message: leak }],
      [500, leak],
    ];
    const provider = make();
    for (const answer of [await provider.submit(it), await provider.submit(it)]) {
      expect(JSON.stringify(answer)).toContain("key [hidden], webhook [hidden], in the query [hidden]");
      expect(JSON.stringify(answer)).not.toContain("s3cret");
    }
  });

  test("a create that nobody heard is postponed", async () => {
    expect(await make({ baseUrl: "http://127.0.0.1:1" }).submit(order())).toMatchObject({
      outcome: "postponed",
      failure: { code: "provider_unavailable" },
    });
  });

  const RESULT = `GET /predictions/${DATA.id}/result`;
  const URLS = ["https://cdn.example.test/1.png", "https://cdn.example.test/2.png"];
  test.each<[string, object, object]>([
    ["created", {}, { status: "running", progress: null }],
    ["processing", { code: 5004, error: "Sync mode timed out" }, { status: "running" }],
    [
      "completed",
      { outputs: URLS, timings: { inference: 2_500 } },
      { status: "succeeded", outputs: URLS, seconds: 2.5 },
    ],
    ["completed", { outputs: URLS, executionTime: 1_500 }, { status: "succeeded", seconds: 1.5 }],
    ["completed", { outputs: URLS, timings: null }, { status: "succeeded", seconds: null }],
    ["completed", { outputs: URLS, has_nsfw_contents: [true, true] }, { failure: { code: "content_refused" } }],
    ["completed", { outputs: URLS, has_nsfw_contents: [true, false] }, { status: "succeeded", outputs: URLS }],
    ["completed", { outputs: [] }, { failure: { code: "provider_failed" } }],
    ["completed", { outputs: [{ text: "hello" }] }, { failure: { code: "provider_failed" } }],
    [
      "failed",
      { code: 1200, error: "" },
      { failure: { code: "content_refused", detail: "the provider gave no reason" } },
    ],
    ["failed", { code: 1400, error: "no" }, { failure: { code: "input_refused", detail: "no" } }],
    ["failed", { code: 1402, error: "no" }, { failure: { code: "input_refused" } }],
    ["failed", { code: 1403, error: "no" }, { failure: { code: "provider_failed" } }],
    ["failed", { code: 1405, error: "NSFW content detected" }, { failure: { code: "content_refused" } }],
    ["failed", { code: 5000, error: "no" }, { failure: { code: "interrupted" } }],
    ["failed", { code: 5003, error: "no" }, { failure: { code: "interrupted" } }],
    ["failed", { code: 5004, error: "no" }, { failure: { code: "timeout" } }],
    ["failed", { error: "no", timings: { inference: 700 } }, { failure: { code: "provider_failed" }, seconds: 0.7 }],
    ["timeout", {}, { failure: { code: "timeout" } }],
    ["cancelled", {}, { status: "canceled" }],
    ["deleted", {}, { status: "canceled" }],
  ])("a run that is %s with %j is looked at as %j", async (status, rest, expected) => {
    routes[RESULT] = [ok({ ...DATA, status, ...rest })];
    expect(await make().look(ref(DATA.id))).toMatchObject(expected);
    expect(strange).toEqual([]);
  });

  test("a status that nobody knows is running, and somebody hears of it", async () => {
    routes[RESULT] = [ok({ ...DATA, status: "dreaming" })];
    expect(await make().look(ref(DATA.id))).toEqual({ status: "running", progress: null });
    expect(strange).toEqual([expect.stringContaining('"dreaming"')]);
  });

  test("a run is gone by the provider's own word only", async () => {
    routes[RESULT] = [
      [404, "<html>nginx</html>"],
      [200, { code: 500, message: "internal" }],
      [401, { code: 401, message: "no" }],
      [200, { code: 404, message: "no such prediction" }],
    ];
    for (let i = 0; i < 3; i++)
      await expect(make().look(ref(DATA.id))).rejects.toMatchObject({ name: "ProviderUnreachable" });
    expect(await make().look(ref(DATA.id))).toEqual({ status: "gone" });
  });

  test("a throttled look says when to ask again", async () => {
    routes[RESULT] = [[200, { code: 429, message: "slow down" }, { "retry-after": "30" }]];
    await expect(make().look(ref(DATA.id))).rejects.toMatchObject({ retryAfterMs: 30_000 });
  });

  const LIST = "POST /predictions";
  const sentAt = new Date("2026-11-21T10:00:00Z");
  const clock = () => new Date("2026-11-21T10:05:00Z");
  const it = { ...order(), input: { prompt: "a red chair", seed: 7, size: "1024*1024" } };
  const item = (rest: object) => ({ ...DATA, ...rest });
  const pages = (...items: object[][]) => [
    ...items.map((each, i) => ok({ page: i + 1, items: each })),
    ok({ items: [] }),
  ];

  test("the list is asked for the time around the order, with inputs, by nothing else", async () => {
    routes[LIST] = pages([]);
    expect(await make({ clock }).find(it, sentAt, notTaken)).toEqual({ outcome: "absent" });
    expect(JSON.parse(seen[0]?.body ?? "")).toEqual({
      page: 1,
      page_size: 100,
      created_after: "2026-11-21T09:59:00.000Z",
      created_before: "2026-11-21T10:06:00.000Z",
      include_inputs: true,
    });
  });

  test.each<[string, string, object]>([
    ["the same input", "found", { inputs: it.input }],
    ["the same input and defaults", "found", { inputs: { ...it.input, strength: 0.8 } }],
    ["the same input under its other name", "found", { input: it.input }],
    ["another prompt", "absent", { inputs: { ...it.input, prompt: "a blue chair" } }],
    ["another seed", "absent", { inputs: { ...it.input, seed: 8 } }],
    ["another model", "absent", { model: "wavespeed-ai/flux-schnell", inputs: it.input }],
    ["an input that is shown otherwise", "unread", { inputs: { ...it.input, size: "1024x1024" } }],
    ["an input that is not shown", "unread", {}],
    ["an empty input", "unread", { inputs: {} }],
  ])("a list that shows a run with %s leaves our order %s", async (_name, outcome, rest) => {
    routes[LIST] = pages([item(rest)]);
    expect(await make({ clock }).find(it, sentAt, notTaken)).toMatchObject({ outcome });
  });

  test("a short page is not the end of the list, and what is older than the order is", async () => {
    routes[LIST] = pages([item({ model: "a/b" })], [item({ inputs: it.input })]);
    expect(await make({ clock }).find(it, sentAt, notTaken)).toMatchObject({ outcome: "found" });
    routes[LIST] = [ok({ items: [item({ inputs: it.input, created_at: "2026-11-21T09:00:00Z" })] })];
    expect(await make({ clock }).find(it, sentAt, notTaken)).toEqual({ outcome: "absent" });
  });

  test("a list that cannot be read, has no end, or is kept no longer says nothing", async () => {
    routes[LIST] = [[200, { code: 5003, message: "unavailable" }]];
    expect(await make({ clock }).find(it, sentAt, notTaken)).toEqual({ outcome: "unread" });
    routes[LIST] = [ok({ items: [item({ model: "a/b" })] })];
    seen.length = 0;
    expect(await make({ clock }).find(it, sentAt, notTaken)).toEqual({ outcome: "unread" });
    expect(seen).toHaveLength(20);
    seen.length = 0;
    const late = make({ clock: () => new Date("2026-11-28T10:05:00Z") });
    expect(await late.find(it, sentAt, notTaken)).toEqual({ outcome: "unread" });
    expect(seen).toEqual([]);
  });

  test("the list of models is read once an hour, and again for a name that it did not have", async () => {
    routes["GET /models"] = [ok([{ model_id: DEV }]), ok([{ model_id: DEV }, { model_id: "new/model" }])];
    let now = Date.now();
    const provider = make({ clock: () => new Date(now) });
    const all = await Promise.all([provider.resolve(DEV), provider.resolve(DEV), provider.resolve("new/model")]);
    expect(all.map(({ outcome }) => outcome)).toEqual(["resolved", "resolved", "declined"]);
    expect(await provider.resolve("new/model")).toMatchObject({ failure: { code: "model_not_found" } });
    expect(seen).toHaveLength(1);
    now += 61_000;
    expect(await provider.resolve("new/model")).toEqual({ outcome: "resolved", version: null });
    expect(await provider.resolve(DEV, { fresh: true })).toMatchObject({ outcome: "resolved" });
    expect(seen).toHaveLength(3);
  });

  test("a key that is refused is told as such, and a list that cannot be read is asked for again later", async () => {
    routes["GET /models"] = [
      [401, { code: 401, message: "no" }],
      [200, { code: 500, message: "internal" }],
    ];
    expect(await make().resolve(DEV)).toMatchObject({ outcome: "declined", failure: { code: "provider_auth" } });
    expect(await make().resolve(DEV)).toMatchObject({ outcome: "postponed" });
    expect(await make().resolve("flux")).toMatchObject({ outcome: "declined", failure: { code: "model_not_found" } });
  });

  describe("a signature", () => {
    // providers.md section 10, computed there from the documented rule.
    const SECRET = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcY";
    const BODY = '{"id":"p1","status":"succeeded"}';
    const SIGNED_AT = 1_763_683_200;
    const HEADERS = {
      "webhook-id": "msg_local_0001",
      "webhook-timestamp": String(SIGNED_AT),
      "webhook-signature": "v3,e999d9d03fa502c3829bb425b5d8a8125dc77b0fdbb3d9205676444e136dd5c1",
    };
    const at = (seconds: number) => () => new Date((SIGNED_AT + seconds) * 1_000);
    const receiver = (webhookSecret: string | readonly string[] = SECRET, when = at(1)) =>
      make({ webhookSecret, clock: when });

    test("of the published vector is taken, as far as five minutes from its time", async () => {
      for (const seconds of [-300, 0, 300])
        expect(await receiver(SECRET, at(seconds)).verifyWebhook(HEADERS, BODY)).toEqual({
          deliveryId: "p1.succeeded",
          providerRunId: "p1",
          status: "succeeded",
          ended: false,
        });
      for (const seconds of [-301, 301])
        await expect(receiver(SECRET, at(seconds)).verifyWebhook(HEADERS, BODY)).rejects.toThrow(/^stale.*NTP/);
    });

    test("is tried against each of our secrets", async () => {
      const both = receiver(["whsec_another-secret-of-ours", SECRET]);
      expect(await both.verifyWebhook(HEADERS, BODY)).toMatchObject({ providerRunId: "p1" });
      expect(() => receiver("whsec_")).toThrow(/at least 16 characters/);
    });

    test.each<[string, Record<string, string | undefined>, string, RegExp]>([
      ["a changed body", HEADERS, BODY.replace("p1", "p9"), /^forged/],
      ["a changed id", { ...HEADERS, "webhook-id": "msg_2" }, BODY, /^forged/],
      ["a changed time", { ...HEADERS, "webhook-timestamp": String(SIGNED_AT + 1) }, BODY, /^forged/],
      [
        "another scheme",
        { ...HEADERS, "webhook-signature": HEADERS["webhook-signature"].replace("v3", "v1") },
        BODY,
        /^forged/,
      ],
      [
        "half of its digits",
        { ...HEADERS, "webhook-signature": "v3,e999d9d03fa502c3829bb425b5d8a812" },
        BODY,
        /^forged/,
      ],
      ["no id", { ...HEADERS, "webhook-id": undefined }, BODY, /^unsigned/],
      ["no signature", { ...HEADERS, "webhook-signature": undefined }, BODY, /^unsigned/],
      ["a time in words", { ...HEADERS, "webhook-timestamp": "yesterday" }, BODY, /^unsigned/],
    ])("with %s is refused", async (_name, headers, body, why) => {
      await expect(receiver().verifyWebhook(headers, body)).rejects.toThrow(why);
    });

    test("is asked for its secret once, and what cannot be verified is refused aloud", async () => {
      routes["GET /webhook/secret"] = [ok({ secret: SECRET })];
      const told = make({ clock: at(1) });
      await Promise.all(Array.from({ length: 5 }, () => told.verifyWebhook(HEADERS, BODY)));
      expect(seen).toHaveLength(1);
      routes["GET /webhook/secret"] = [[403, { code: 403, message: "no" }]];
      await expect(make({ clock: at(1) }).verifyWebhook(HEADERS, BODY)).rejects.toThrow(/^unverifiable: .*Configure/);
    });
  });
});
