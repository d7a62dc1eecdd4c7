import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";
import { poeEdit, poeFilm, poePicture } from "../src/domain/poe-inputs.ts";
import { type Answer, type Order, type Provider, WebhookRefused } from "../src/domain/provider.ts";
import { poe } from "../src/providers/poe.ts";
import { photo } from "./rig/pictures.ts";

const TOKEN = "sandbox-key";
const ask = { seed: 7, safety: true } as const;
let sandbox: Sandbox;
let provider: Provider;

beforeAll(async () => {
  sandbox = await startSandbox({ speed: 40 });
  provider = poe.make({ name: "poe", token: TOKEN, baseUrl: `${sandbox.url}/poe`, totalMs: 4_000 });
});
afterAll(() => sandbox.close());
beforeEach(() => {
  sandbox.faults.clear();
  sandbox.resetBill();
});

let orders = 0;
/** `directive` is a fault of the sandbox, asked for in the prompt. */
function order(directive: string | null = null, rest: Partial<Order> = {}): Order {
  orders++;
  const prompt = `chair ${orders}${directive === null ? "" : ` [sandbox:${directive}]`}`;
  return {
    runId: `run-${orders}`,
    model: "FLUX-schnell",
    version: null,
    input: poePicture({ ...ask, prompt, width: 1_024, height: 576 }),
    destination: null,
    webhookUrl: null,
    sendBefore: new Date(Date.now() + 5_000),
    cancelAfterSeconds: 30,
    ...rest,
  };
}
const bought = () => sandbox.bill().lines.filter(({ face }) => face === "poe");

function outputOf(answer: Answer): string {
  if (answer.outcome !== "completed" || answer.end.status !== "succeeded") throw new Error(JSON.stringify(answer));
  const [output = ""] = answer.end.outputs;
  return output;
}

describe("against the sandbox", () => {
  test("one call is the whole run: the answer has the picture's link, and the bill has one line of that name", async () => {
    const answer = await provider.submit(order());
    expect(answer).toMatchObject({
      outcome: "completed",
      providerRunId: expect.stringMatching(/^chatcmpl-/),
      end: { status: "succeeded", seconds: null, costMicroUsd: null, trainedVersion: null },
    });
    const picture = await fetch(outputOf(answer));
    expect(picture.headers.get("content-type")).toMatch(/^image\//);
    expect(bought()).toMatchObject([
      { id: answer.outcome === "completed" && answer.providerRunId, status: "succeeded" },
    ]);
  });

  test("a picture is changed as the message says, and a film begins with a picture", async () => {
    const image = `data:image/jpeg;base64,${(await photo(1)).toString("base64")}`;
    const edit = order(null, { model: "FLUX-Kontext-Pro", input: poeEdit({ ...ask, prompt: "a blue sofa", image }) });
    expect((await fetch(outputOf(await provider.submit(edit)))).headers.get("content-type")).toMatch(/^image\//);
    const input = poeFilm({ ...ask, prompt: "slowly", image, seconds: 2 });
    const film = order(null, { model: "Seedance-1.0-Lite", input });
    expect((await fetch(outputOf(await provider.submit(film)))).headers.get("content-type")).toMatch(/^video\//);
  });

  test.each([
    ["unauthorized", "provider_auth", "Invalid API key provided"],
    ["no_credit", "provider_no_credit", "You've used up your points! Visit https://poe.com/api/keys to get more."],
  ])("%s is declined as %s, in Poe's words, and nothing is bought", async (fault, code, detail) => {
    expect(await provider.submit(order(fault))).toEqual({ outcome: "declined", failure: { code, detail } });
    expect(bought()).toEqual([]);
  });

  test.each([
    ["body", 2_000],
    ["header", 2_000],
    ["neither", 5_000],
  ])("a throttled message is postponed for as long as told (%s)", async (form, retryAfterMs) => {
    const answer = await provider.submit(order(`rate_limited=${form}`));
    expect(answer).toMatchObject({ outcome: "postponed", failure: { code: "rate_limited" }, retryAfterMs });
    expect(bought()).toEqual([]);
  });

  test("an unknown bot and a wrong parameter are declined by name", async () => {
    expect(await provider.submit(order(null, { model: "No-Such-Bot" }))).toMatchObject({
      outcome: "declined",
      failure: { code: "model_not_found", detail: expect.stringContaining("No-Such-Bot") },
    });
    const input = { ...order().input, aspect_ratio: "7:5" };
    expect(await provider.submit(order(null, { input }))).toMatchObject({
      outcome: "declined",
      failure: { code: "input_refused", detail: expect.stringContaining("aspect_ratio") },
    });
    expect(bought()).toEqual([]);
  });

  test.each(["cut", "cut_half", "garbage_after_accept", "server_error_after_accept"])(
    "after %s it is lost: bought once, and not sent again",
    async (fault) => {
      expect(await provider.submit(order(fault))).toMatchObject({ outcome: "lost" });
      expect(bought()).toHaveLength(1);
    },
  );

  test.each(["server_error", "refuse_before", "down"])(
    "after %s it is lost, though nothing was bought",
    async (fault) => {
      sandbox.faults.add({ fault, match: { face: "poe" }, times: 1 });
      expect(await provider.submit(order())).toMatchObject({ outcome: "lost" });
      expect(bought()).toEqual([]);
    },
  );

  test("what the safety filter holds back comes as words with 200, and is a failure", async () => {
    expect(await provider.submit(order("nsfw"))).toMatchObject({
      outcome: "completed",
      providerRunId: expect.stringMatching(/^chatcmpl-/),
      end: { status: "failed", failure: { code: "content_refused", detail: expect.stringContaining("NSFW") } },
    });
    expect(bought()).toMatchObject([{ status: "failed" }]);
  });

  test.each([
    ["fail", "provider_failed"],
    ["oom", "provider_failed"],
    ["interrupted", "interrupted"],
  ])("%s ends the run as %s, under our own id for it", async (fault, code) => {
    const it = order(fault);
    expect(await provider.submit(it)).toMatchObject({
      outcome: "completed",
      providerRunId: it.runId,
      end: { status: "failed", failure: { code }, costMicroUsd: null },
    });
  });

  test("a run that is slower than its own limit is lost, and spent all the same", async () => {
    const answer = await provider.submit(order("slow=2", { cancelAfterSeconds: 0.3 }));
    expect(answer).toMatchObject({ outcome: "lost", detail: expect.stringContaining("300 ms") });
    expect(bought()).toHaveLength(1);
  });

  test("a bot of the list is resolved by its name, in whatever case, and another is not", async () => {
    expect(await provider.resolve("FLUX-schnell")).toEqual({ outcome: "resolved", version: null });
    expect(await provider.resolve("flux-SCHNELL")).toEqual({ outcome: "resolved", version: null });
    expect(await provider.resolve("No-Such-Bot")).toMatchObject({ failure: { code: "model_not_found" } });
  });

  test("the list is kept for an hour, and asked for anew when a fresh answer is wanted", async () => {
    let now = new Date();
    const other = poe.make({ name: "poe", token: TOKEN, baseUrl: `${sandbox.url}/poe`, clock: () => now });
    expect(await other.resolve("FLUX-dev")).toMatchObject({ outcome: "resolved" });
    sandbox.faults.add({ fault: "vanished", match: { face: "poe", model: "poe/FLUX-dev" } });
    expect(await other.resolve("FLUX-dev")).toMatchObject({ outcome: "resolved" });
    expect(await other.resolve("FLUX-dev", { fresh: true })).toMatchObject({ outcome: "declined" });
    sandbox.faults.clear();
    now = new Date(now.getTime() + 61 * 60_000);
    expect(await other.resolve("FLUX-dev")).toMatchObject({ outcome: "resolved" });
  });

  test("a list that cannot be read postpones, and a wrong key is told", async () => {
    const closed = poe.make({ name: "poe", token: TOKEN, baseUrl: "http://127.0.0.1:1/poe", totalMs: 500 });
    expect(await closed.resolve("FLUX-dev")).toMatchObject({
      outcome: "postponed",
      failure: { code: "provider_unavailable" },
    });
    const strict = await startSandbox({ tokens: ["the-right-one"] });
    const wrong = poe.make({ name: "poe", token: TOKEN, baseUrl: `${strict.url}/poe` });
    expect(await wrong.resolve("FLUX-dev")).toMatchObject({ outcome: "declined", failure: { code: "provider_auth" } });
    expect(await wrong.submit(order())).toMatchObject({ outcome: "declined", failure: { code: "provider_auth" } });
    await strict.close();
  });

  test("a plain client of the API gets a chat completion", async () => {
    const response = await fetch(`${sandbox.url}/poe/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" },
      body: JSON.stringify({
        model: "Video-Generator-PRO",
        messages: [{ role: "user", content: "waves" }],
        stream: false,
        duration: 2,
      }),
    });
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({
      object: "chat.completion",
      model: "Video-Generator-PRO",
      choices: [{ index: 0, message: { role: "assistant", content: expect.stringMatching(/^http\S+$/) } }],
    });
  });
});

describe("what only the real one says", () => {
  let server: Server;
  let stand: Provider;
  let status: number;
  let body: unknown;
  let headers: Record<string, string>;
  const strange: string[] = [];

  beforeEach(async () => {
    [status, headers, strange.length] = [200, {}, 0];
    server = createServer((_request, response) => {
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(typeof body === "string" ? body : JSON.stringify(body));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address() as AddressInfo;
    const onStrange = (what: string) => strange.push(what);
    stand = poe.make({ name: "poe", token: "p-secret", baseUrl: `http://127.0.0.1:${address.port}`, onStrange });
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  const says = (content: unknown, finish_reason: string | null = "stop") => {
    return { id: "chatcmpl-1", choices: [{ index: 0, message: { role: "assistant", content }, finish_reason }] };
  };
  const CDN = "https://pfst.cf2.poecdn.net/base";

  test.each<[string, string, string]>([
    ["a film's bare link", `${CDN}/video/${"a".repeat(64)}`, `${CDN}/video/${"a".repeat(64)}`],
    [
      "a picture in Markdown with its link below",
      `![a cat (orange)](${CDN}/image/b7?w=1024&h=768)\n\n\n${CDN}/image/b7?w=1024&h=768`,
      `${CDN}/image/b7?w=1024&h=768`,
    ],
    [
      "the last of several",
      `Generating (3s elapsed)\n${CDN}/image/a1\nand better:\n${CDN}/image/b2.`,
      `${CDN}/image/b2`,
    ],
  ])("%s is the output, once", async (_name, content, url) => {
    body = says(content);
    const answer = await stand.submit(order());
    expect(answer).toMatchObject({ providerRunId: "chatcmpl-1", end: { status: "succeeded", outputs: [url] } });
  });

  test.each<[string, unknown, string | null, string]>([
    ["a refusal", "I can't help with creating that image.", "stop", "content_refused"],
    ["a filter's finish", "", "content_filter", "content_refused"],
    ["no text at all", null, "stop", "provider_failed"],
    ["a link to somewhere else", "See https://example.com/cat.png", "stop", "provider_failed"],
    ["a link without TLS", "http://pfst.cf2.poecdn.net/base/image/a1", "stop", "provider_failed"],
    ["a host that only looks alike", "https://evilpoecdn.net/a", "stop", "provider_failed"],
  ])("%s is never a success", async (_name, content, finish, code) => {
    body = says(content, finish);
    expect(await stand.submit(order())).toMatchObject({
      outcome: "completed",
      end: { status: "failed", failure: { code } },
    });
  });

  test.each<[number, unknown, string, string]>([
    [403, { error: { message: "Blocked", type: "moderation_refusal", code: 403 } }, "completed", "content_refused"],
    [403, { error: { message: "Not yours", type: "permission_error", code: null } }, "declined", "provider_auth"],
    [403, { error: { message: "No access to this bot", type: "permission_error" } }, "declined", "model_not_found"],
    [404, { error: { message: "No such bot", type: "not_found_error", code: 404 } }, "declined", "model_not_found"],
    [413, { error: { message: "Too large", type: "request_too_large" } }, "declined", "input_too_large"],
    [529, { error: { message: "Busy", type: "overloaded_error", code: 529 } }, "postponed", "provider_busy"],
    [500, { error: { message: "Internal error", type: "server_error" } }, "completed", "provider_failed"],
  ])("%i %j comes to %s: %s", async (code, problem, outcome, failed) => {
    [status, body] = [code, problem];
    const answer = await stand.submit(order());
    expect(answer.outcome).toBe(outcome);
    expect(JSON.stringify(answer)).toContain(`"code":"${failed}"`);
  });

  test.each<[number, unknown]>([
    [200, { id: "chatcmpl-1", choices: [] }],
    [200, "half an ans"],
    [408, { error: { message: "The bot did not start", type: "timeout_error", code: 408 } }],
    [502, { error: { message: "Upstream", type: "upstream_error", code: 502 } }],
    [503, { error: { message: "Unavailable", type: "server_error", code: 503 } }],
    [404, "<html>nginx</html>"],
    [307, ""],
  ])("%i %j is lost, and reported as strange", async (code, what) => {
    [status, body] = [code, what];
    expect(await stand.submit(order())).toMatchObject({ outcome: "lost" });
    expect(strange).toHaveLength(1);
  });

  test("a minute's allowance that is used up is waited for", async () => {
    [status, body, headers] = [429, { error: { message: "Slow down" } }, { "x-ratelimit-reset-requests": "17" }];
    expect(await stand.submit(order())).toMatchObject({ outcome: "postponed", retryAfterMs: 17_000 });
  });

  test("the key is in no report", async () => {
    [status, body] = [400, { error: { message: "key p-secret is not allowed", type: "x" } }];
    expect(JSON.stringify(await stand.submit(order()))).toContain("key [hidden] is not allowed");
    [status, body] = [200, says("your key is p-secret")];
    expect(JSON.stringify(await stand.submit(order()))).not.toContain("p-secret");
  });
});

describe("without a call", () => {
  const real = poe.make({ name: "poe", token: TOKEN, baseUrl: poe.baseUrl });
  const file = (url: string, bytes = 3) => {
    return { url, filename: "a.png", contentType: "image/png", bytes, read: async () => Buffer.from("abc") };
  };

  test("nothing is sent when its time has passed or it cannot be written, or a training is wanted", async () => {
    const late = order(null, { sendBefore: new Date(Date.now() - 1) });
    expect(await provider.submit(late)).toMatchObject({ outcome: "postponed" });
    const cyclic: Record<string, unknown> = {};
    cyclic["self"] = cyclic;
    expect(await provider.submit(order(null, { input: cyclic }))).toMatchObject({ outcome: "declined" });
    expect(await provider.submit(order(null, { destination: "a/b" }))).toMatchObject({ outcome: "declined" });
    expect(bought()).toEqual([]);
  });

  test("is postponed when nobody was there to hear it", async () => {
    const closed = poe.make({ name: "poe", token: TOKEN, baseUrl: "http://127.0.0.1:1" });
    expect(await closed.submit(order())).toMatchObject({
      outcome: "postponed",
      failure: { code: "provider_unavailable" },
    });
  });

  test("a run is never out: there is nothing to look at, to stop, to find or to be told of", async () => {
    const ref = { providerRunId: "chatcmpl-1", model: "FLUX-schnell", isTraining: false };
    expect(await real.look(ref)).toEqual({ status: "gone" });
    await real.cancel(ref);
    expect(await real.find(order(), new Date(), async () => false)).toEqual({ outcome: "unlistable" });
    expect(await real.destination("mine")).toMatchObject({ outcome: "declined" });
    await expect(real.verifyWebhook({}, "{}")).rejects.toThrow(WebhookRefused);
    expect(real).toMatchObject({ api: "poe", submitMs: 600_000 });
  });

  test("a file is offered by its URL where that is reachable, and inside of the message where it is small", async () => {
    expect(await real.offer(file("https://files.example.test/a.png"))).toBe("https://files.example.test/a.png");
    expect(await provider.offer(file("http://127.0.0.1:9/a.png"))).toBe("http://127.0.0.1:9/a.png");
    expect(await real.offer(file("http://127.0.0.1:9/a.png"))).toBe("data:image/png;base64,YWJj");
    await expect(real.offer(file("http://127.0.0.1:9/a.png", 9_000_000))).rejects.toThrow("STORAGE_PROVIDER=s3");
  });

  test("an ask becomes one message, with the bot's parameters beside it", () => {
    expect(poePicture({ ...ask, prompt: "a cat", width: 576, height: 1_024 })).toEqual({
      messages: [{ role: "user", content: "a cat" }],
      aspect_ratio: "9:16",
    });
    expect(poeFilm({ ...ask, prompt: "waves", seconds: 5, aspectRatio: "16:9" })).toEqual({
      messages: [{ role: "user", content: "waves" }],
      duration: 5,
      aspect_ratio: "16:9",
    });
    expect(poeFilm({ ...ask, prompt: "it moves", image: "https://x.test/a.png", aspectRatio: "16:9" })).toEqual({
      messages: [
        {
          role: "user",
          content: [
            { type: "text", text: "it moves" },
            { type: "image_url", image_url: { url: "https://x.test/a.png" } },
          ],
        },
      ],
    });
  });
});
