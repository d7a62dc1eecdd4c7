import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { OfferRefused, type Order, type Provider, ProviderUnreachable } from "../src/domain/provider.ts";
import type { AdapterOptions } from "../src/providers/adapter.ts";
import { makeReplicate } from "../src/providers/replicate.ts";

const notTaken = async () => false;
const TOKEN = "r8_do_not_tell";
const VERSION = "5599ed30703defd1d160a25a63321b4dec97101d98b4674bcc56e41f62f35637";

interface Seen {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}
type Answer = readonly [status: number, body: unknown, headers?: Record<string, string>];

/** A stand-in for the API: what each path answers, in turn, the last answer for ever. */
const seen: Seen[] = [];
let routes: Record<string, Answer[]>;
let server: Server;
let baseUrl: string;
const strange: string[] = [];

beforeEach(async () => {
  seen.length = 0;
  strange.length = 0;
  routes = {};
  server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const path = (request.url ?? "").slice("/v1".length);
      const method = request.method ?? "";
      seen.push({ method, path, headers: request.headers, body: Buffer.concat(chunks).toString("latin1") });
      const answers = routes[`${method} ${path.split("?")[0]}`] ?? [
        [404, { detail: "The requested resource could not be found.", status: 404 }],
      ];
      const [status, body, headers] = (answers.length > 1 ? answers.shift() : answers[0]) ?? [500, ""];
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(typeof body === "string" ? body : `${JSON.stringify(body)}\n`);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
});

afterEach(() => {
  server.closeAllConnections();
  server.close();
});

function replicate(options: Partial<AdapterOptions> = {}): Provider {
  return makeReplicate({
    name: "replicate",
    token: TOKEN,
    baseUrl,
    totalMs: 2_000,
    onStrange: (what) => strange.push(what),
    ...options,
  });
}

const order = (rest: Partial<Order> = {}): Order => ({
  runId: "run-1",
  model: "black-forest-labs/flux-schnell",
  version: null,
  input: { prompt: "a red chair\nby the window", num_outputs: 2, seed: 7 },
  destination: null,
  webhookUrl: "https://app.example.test/hooks/replicate/run-1/s3cret",
  sendBefore: new Date(Date.now() + 5_000),
  cancelAfterSeconds: 300,
  ...rest,
});
const SCHNELL = "POST /models/black-forest-labs/flux-schnell/predictions";

// providers.md 13.1, as captured in shape.
const CREATED = {
  id: "k3v9q1xw2nrm60cz8tq7e5h4da",
  model: "black-forest-labs/flux-schnell",
  version: "hidden",
  input: { prompt: "a red chair", num_outputs: 2 },
  logs: "",
  output: null,
  data_removed: false,
  error: null,
  source: "api",
  status: "starting",
  created_at: "2026-11-21T10:00:00.123456Z",
  urls: { get: "https://api.replicate.com/v1/predictions/k3v9q1xw2nrm60cz8tq7e5h4da" },
};
const SUCCEEDED = {
  ...CREATED,
  status: "succeeded",
  logs: "Using seed: 4711\n 50%|#####     | 2/4 [00:00<00:00,  9.1it/s]\n100%|##########| 4/4 [00:00<00:00,  9.3it/s]\n",
  output: ["https://replicate.delivery/xezq/AbC123/out-0.webp", "https://replicate.delivery/xezq/AbC124/out-1.webp"],
  started_at: "2026-11-21T10:00:00.130001Z",
  completed_at: "2026-11-21T10:00:00.990002Z",
  metrics: { image_count: 2, predict_time: 0.860001, total_time: 0.866546 },
};

describe("submit", () => {
  test("sends an official model by name, the input as committed, the webhook, the events and the deadline", async () => {
    routes[SCHNELL] = [[201, CREATED]];
    expect(await replicate().submit(order())).toEqual({ outcome: "submitted", providerRunId: CREATED.id });
    expect(seen).toHaveLength(1);
    expect(seen[0]?.headers).toMatchObject({ authorization: `Bearer ${TOKEN}`, "cancel-after": "300s" });
    expect(seen[0]?.headers["prefer"]).toBeUndefined();
    expect(JSON.parse(seen[0]?.body ?? "")).toEqual({
      input: { prompt: "a red chair\nby the window", num_outputs: 2, seed: 7 },
      webhook: "https://app.example.test/hooks/replicate/run-1/s3cret",
      webhook_events_filter: ["start", "output", "logs", "completed"],
    });
  });

  test("sends any other model by version", async () => {
    routes["POST /predictions"] = [[201, CREATED]];
    const community = order({ model: "bytedance/sdxl-lightning-4step", version: VERSION, webhookUrl: null });
    expect(await replicate().submit(community)).toMatchObject({ outcome: "submitted" });
    expect(JSON.parse(seen[0]?.body ?? "")).toEqual({ version: VERSION, input: community.input });
  });

  test("sends what goes to a deployment of ours there, without a version, and refuses one that it does not have", async () => {
    const own = order({ model: "own/flux-dev", version: VERSION });
    const provider = replicate({ name: "replicate_own", endpoints: { "own/flux-dev": "acme/my-flux" } });
    routes["POST /deployments/acme/my-flux/predictions"] = [[201, { ...CREATED, deployment: "my-flux" }]];
    expect(await provider.submit(own)).toEqual({ outcome: "submitted", providerRunId: CREATED.id });
    expect(seen[0]?.headers).toMatchObject({ "cancel-after": "300s" });
    expect(Object.keys(JSON.parse(seen[0]?.body ?? ""))).toEqual(["input", "webhook", "webhook_events_filter"]);

    const detail = expect.stringMatching(/"own\/flux-dev" in the account "replicate".*REPLICATE_DEPLOYMENTS/);
    for (const answer of [await replicate().submit(own), await replicate().resolve(own.model)])
      expect(answer).toMatchObject({ outcome: "declined", failure: { code: "model_not_found", detail } });
    expect(await provider.submit({ ...own, destination: "acme/lora" })).toMatchObject({ outcome: "declined" });
    expect(seen).toHaveLength(1);
  });

  test("never asks for less than the five seconds that the provider insists on", async () => {
    routes[SCHNELL] = [[201, CREATED]];
    await replicate().submit(order({ cancelAfterSeconds: 1 }));
    await replicate().submit(order({ cancelAfterSeconds: 59.2 }));
    expect(seen.map((it) => it.headers["cancel-after"])).toEqual(["5s", "60s"]);
  });

  test.each([201, 202, 200])("takes %i with an id, in whatever status the run already is", async (status) => {
    routes[SCHNELL] = [[status, { ...CREATED, status: "processing", surprise: { new: "field" } }]];
    expect(await replicate().submit(order())).toMatchObject({ outcome: "submitted" });
  });

  // Bodies as captured: providers.md 1.11 and 13.4.
  const INSUFFICIENT =
    "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing to purchase credit.";
  const INVALID_VERSION = "The specified version does not exist (or perhaps you don't have permission to use it?)";
  test.each<[string, number, unknown, string, string]>([
    [
      "no token",
      401,
      { title: "Unauthenticated", detail: "You did not pass an authentication token", status: 401 },
      "provider_auth",
      "You did not pass an authentication token",
    ],
    [
      "no credit",
      402,
      { title: "Insufficient credit", detail: INSUFFICIENT, status: 402 },
      "provider_no_credit",
      INSUFFICIENT,
    ],
    [
      "an unknown model",
      404,
      { detail: "The requested resource could not be found.", status: 404 },
      "model_not_found",
      "The requested resource could not be found.",
    ],
    [
      "an invalid version",
      422,
      { title: "Invalid version or not permitted", detail: INVALID_VERSION, status: 422 },
      "model_not_found",
      INVALID_VERSION,
    ],
    [
      "too large an input",
      413,
      { detail: "Files must be less than 100MB in size" },
      "input_too_large",
      "Files must be less than 100MB in size",
    ],
    [
      "a refused input",
      422,
      {
        detail: "- input: prompt is required\n- input.num_inference_steps: Must be less than or equal to 4\n",
        status: 422,
        title: "Input validation failed",
        invalid_fields: [{ type: "required", field: "input", description: "prompt is required" }],
      },
      "input_refused",
      "- input: prompt is required\n- input.num_inference_steps: Must be less than or equal to 4\n",
    ],
    [
      "an extra property",
      422,
      { title: "Input validation failed", detail: "- Additional property X is not allowed\n" },
      "input_refused",
      "- Additional property X is not allowed\n",
    ],
    ["a refusal of another kind", 400, { detail: "Bad request" }, "input_refused", "Bad request"],
    [
      "a refusal whose detail is a list",
      422,
      { detail: [{ msg: "no" }] },
      "input_refused",
      '{"detail":[{"msg":"no"}]}\n',
    ],
    ["a refusal with a title only", 403, { title: "Forbidden" }, "input_refused", "Forbidden"],
  ])("is declined for %s, in the provider's words", async (_name, status, body, code, detail) => {
    routes[SCHNELL] = [[status, body]];
    expect(await replicate().submit(order())).toEqual({ outcome: "declined", failure: { code, detail } });
    expect(seen).toHaveLength(1);
  });

  const LOW_CREDIT = {
    detail:
      "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute with a burst of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~7s.",
    status: 429,
  };
  test.each<[string, Answer, number]>([
    ["in the body", [429, { ...LOW_CREDIT, retry_after: 9 }, { "retry-after": "3" }], 9_000],
    ["in the header", [429, LOW_CREDIT, { "retry-after": "3" }], 3_000],
    ["in the text", [429, LOW_CREDIT], 7_000],
    ["nowhere", [429, "<html>slow down</html>"], 5_000],
  ])("is postponed when throttled, for as long as told %s", async (_name, answer, retryAfterMs) => {
    routes[SCHNELL] = [answer];
    expect(await replicate().submit(order())).toMatchObject({
      outcome: "postponed",
      failure: { code: "rate_limited" },
      retryAfterMs,
    });
    expect(seen).toHaveLength(1);
  });

  test.each<[string, Answer]>([
    ["500 with JSON", [500, { detail: "Internal server error", status: 500 }]],
    ["502 with HTML", [502, "<html><h1>Bad gateway</h1></html>", { "content-type": "text/html" }]],
    ["503 that names a time", [503, "", { "retry-after": "1" }]],
    ["504 with nothing", [504, ""]],
    ["200 with HTML", [200, "<html>welcome</html>"]],
    ["201 without an id", [201, { status: "starting" }]],
    ["201 with an empty id", [201, { id: "" }]],
    ["201 cut to half a JSON", [201, '{"id":"k3v9q1xw2nrm60']],
    ["204", [204, ""]],
    ["a redirect", [307, "", { location: "/v1/predictions" }]],
    ["404 of somebody in between", [404, "<html>nginx</html>"]],
    ["408, which is about time", [408, { detail: "Request timeout" }]],
  ])("is lost after %s, and not sent again", async (_name, answer) => {
    routes[SCHNELL] = [answer];
    routes["POST /predictions"] = [[201, CREATED]];
    expect(await replicate().submit(order())).toMatchObject({ outcome: "lost" });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(seen).toHaveLength(1);
  });

  test.each<[string, string]>([
    ["reset", ""],
    ["answered by half", 'HTTP/1.1 201 Created\r\nContent-Length: 900\r\n\r\n{"id":"k3v9'],
  ])("is lost when the connection is %s after the create arrived: one create on the wire", async (_name, reply) => {
    let creates = 0;
    const tcp = createTcpServer((socket) => {
      socket.on("error", () => {});
      socket.on("data", (bytes) => {
        creates += bytes.toString().split("POST /").length - 1;
        socket.write(reply, () => socket.resetAndDestroy());
      });
    });
    await new Promise<void>((resolve) => tcp.listen(0, "127.0.0.1", resolve));
    const provider = replicate({ baseUrl: `http://127.0.0.1:${(tcp.address() as AddressInfo).port}/v1` });
    expect(await provider.submit(order())).toMatchObject({ outcome: "lost" });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(creates).toBe(1);
    tcp.close();
  });

  test("is postponed for two seconds when nobody was there to hear it", async () => {
    const provider = replicate({ baseUrl: "http://127.0.0.1:1/v1" });
    expect(await provider.submit(order())).toMatchObject({
      outcome: "postponed",
      failure: { code: "provider_unavailable", detail: expect.stringContaining("ECONNREFUSED") },
      retryAfterMs: 2_000,
    });
  });

  test("is postponed, unsent, when its time has passed", async () => {
    routes[SCHNELL] = [[201, CREATED]];
    expect(await replicate().submit(order({ sendBefore: new Date(Date.now() - 1) }))).toMatchObject({
      outcome: "postponed",
      failure: { code: "provider_unavailable" },
    });
    expect(seen).toEqual([]);
  });

  test("is declined, unsent, with a webhook that is not https, a name that is none, or an input that cannot be written", async () => {
    const provider = replicate();
    const cyclic: Record<string, unknown> = {};
    cyclic["self"] = cyclic;
    expect(await provider.submit(order({ webhookUrl: "http://localhost:3000/hooks" }))).toMatchObject({
      outcome: "declined",
      failure: { code: "input_refused" },
    });
    expect(await provider.submit(order({ model: "../account" }))).toMatchObject({
      outcome: "declined",
      failure: { code: "model_not_found" },
    });
    expect(await provider.submit(order({ input: cyclic }))).toMatchObject({ outcome: "declined" });
    expect(seen).toEqual([]);
  });

  test("repeats neither the token nor the webhook's secret in what it reports", async () => {
    const leak = `token ${TOKEN}, webhook ${order().webhookUrl}`;
    routes[SCHNELL] = [
      [422, { detail: leak }],
      [500, leak],
    ];
    const provider = replicate();
    for (const answer of [await provider.submit(order()), await provider.submit(order())]) {
      expect(JSON.stringify(answer)).toContain("token [hidden], webhook [hidden]");
      expect(JSON.stringify(answer)).not.toContain(TOKEN);
      expect(JSON.stringify(answer)).not.toContain("s3cret");
    }
  });
});

describe("resolve", () => {
  const model = "bytedance/sdxl-lightning-4step";
  const ROUTE = `GET /models/${model}`;

  test("an official model needs its name only", async () => {
    routes[ROUTE] = [[200, { is_official: true, latest_version: { id: VERSION } }]];
    expect(await replicate().resolve(model)).toEqual({ outcome: "resolved", version: null });
  });

  test("any other model gets its current version, asked for once an hour", async () => {
    routes[ROUTE] = [
      [200, { is_official: false, latest_version: { id: VERSION } }],
      [200, { latest_version: { id: "b".repeat(64) } }],
    ];
    let now = Date.now();
    const provider = replicate({ clock: () => new Date(now) });
    expect(await provider.resolve(model)).toEqual({ outcome: "resolved", version: VERSION });
    now += 3_599_000;
    expect(await provider.resolve(model)).toEqual({ outcome: "resolved", version: VERSION });
    expect(seen).toHaveLength(1);
    now += 2_000;
    expect(await provider.resolve(model)).toEqual({ outcome: "resolved", version: "b".repeat(64) });
  });

  test("a deployment is asked for as one, and needs its name only", async () => {
    const provider = replicate({ endpoints: { "own/flux-dev": "acme/my-flux", "own/lost": "acme/lost" } });
    routes["GET /deployments/acme/my-flux"] = [[200, { owner: "acme", name: "my-flux" }]];
    expect(await provider.resolve("own/flux-dev")).toEqual({ outcome: "resolved", version: null });
    expect(await provider.resolve("own/flux-dev")).toEqual({ outcome: "resolved", version: null });
    expect(seen).toHaveLength(1);
    expect(await provider.resolve("own/lost")).toMatchObject({
      outcome: "declined",
      failure: { code: "model_not_found", detail: expect.stringContaining("the deployment acme/lost") },
    });
  });

  test("a version that was deleted meanwhile is forgotten when the provider says so", async () => {
    routes[ROUTE] = [
      [200, { latest_version: { id: VERSION } }],
      [200, { latest_version: { id: "b".repeat(64) } }],
    ];
    routes["POST /predictions"] = [[422, { title: "Invalid version or not permitted", detail: "gone" }]];
    const provider = replicate();
    await provider.resolve(model);
    await provider.submit(order({ model, version: VERSION }));
    expect(await provider.resolve(model)).toEqual({ outcome: "resolved", version: "b".repeat(64) });
  });

  test("a pinned version is used as it is, without a question", async () => {
    expect(await replicate().resolve(`${model}:${VERSION}`)).toEqual({ outcome: "resolved", version: VERSION });
    expect(seen).toEqual([]);
  });

  test.each<[string, string, Answer, string]>([
    ["nobody knows", model, [404, { detail: "The requested resource could not be found." }], "model_not_found"],
    ["has no version", model, [200, { is_official: false, latest_version: null }], "model_not_found"],
    ["is no name", "flux", [200, {}], "model_not_found"],
    [
      "is asked for with a bad token",
      model,
      [401, { detail: "You did not pass a valid authentication token" }],
      "provider_auth",
    ],
  ])("a model that %s is declined", async (_name, asked, answer, code) => {
    routes[ROUTE] = [answer];
    expect(await replicate().resolve(asked)).toMatchObject({ outcome: "declined", failure: { code } });
  });

  test.each<[string, Answer, number, string?]>([
    ["is down", [503, ""], 2_000],
    ["throttles", [429, { retry_after: 20 }], 20_000, "rate_limited"],
    ["answers with HTML", [200, "<html>"], 2_000],
    ["is hidden by somebody's 404", [404, "<html>"], 2_000],
  ])("is postponed while the provider %s", async (_name, answer, retryAfterMs, code = "provider_unavailable") => {
    routes[ROUTE] = [answer];
    expect(await replicate().resolve(model)).toMatchObject({
      outcome: "postponed",
      failure: { code },
      retryAfterMs,
    });
  });
});

describe("offer", () => {
  const file = (url: string) => ({
    url,
    filename: "room.jpg",
    contentType: "image/jpeg",
    bytes: 9,
    read: async () => Buffer.from("JPEGBYTES"),
  });

  test("passes a public URL through", async () => {
    const url = "https://bucket.example.test/room.jpg?signature=abc";
    expect(await replicate({ baseUrl: "https://api.replicate.com/v1" }).offer(file(url))).toBe(url);
  });

  test("passes any URL through to a provider on this machine", async () => {
    expect(await replicate().offer(file("http://127.0.0.1:3000/files/a"))).toBe("http://127.0.0.1:3000/files/a");
    expect(seen).toEqual([]);
  });

  test("uploads what only this machine can reach, again after a failure, and returns where it is", async () => {
    // 0.0.0.0 is this machine, but not by a name that says so.
    const remote = replicate({ baseUrl: baseUrl.replace("127.0.0.1", "0.0.0.0") });
    routes["POST /files"] = [
      [502, "<html>"],
      [201, { id: "f1", urls: { get: "https://api.replicate.com/v1/files/f1" } }],
    ];
    expect(await remote.offer(file("http://localhost:3000/a"))).toBe("https://api.replicate.com/v1/files/f1");
    expect(seen).toHaveLength(2);
    const upload = seen[1];
    expect(upload?.headers["content-type"]).toMatch(/^multipart\/form-data; boundary=/);
    expect(upload?.headers["authorization"]).toBe(`Bearer ${TOKEN}`);
    for (const part of [
      'name="content"; filename="room.jpg"\r\nContent-Type: image/jpeg\r\n\r\nJPEGBYTES',
      'name="filename"\r\n\r\nroom.jpg',
      'name="type"\r\n\r\nimage/jpeg',
    ])
      expect(upload?.body).toContain(part);
  });

  test("says in the provider's words why it did not work", async () => {
    const remote = replicate({ baseUrl: baseUrl.replace("127.0.0.1", "0.0.0.0") });
    routes["POST /files"] = [[413, { detail: "Files must be less than 100MB in size" }]];
    const refused = await remote.offer(file("http://localhost:3000/a")).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(OfferRefused);
    expect(refused).toMatchObject({
      code: "input_too_large",
      message: expect.stringMatching(/413.*less than 100MB/),
    });
  });
});

describe("look", () => {
  const look = async (body: unknown, options: Partial<AdapterOptions> = {}) => {
    routes["GET /predictions/p1"] = [[200, body]];
    return replicate(options).look({ providerRunId: "p1", model: "owner/name", isTraining: false });
  };
  const told = (seconds: number | null) => ({ seconds, costMicroUsd: null, trainedVersion: null });
  const failedWith = (error: unknown) => look({ ...CREATED, status: "failed", error });

  test("a run that waits or works is running, as far as its last progress bar", async () => {
    expect(await look(CREATED)).toEqual({ status: "running", progress: null });
    expect(await look({ ...CREATED, status: "processing", logs: null })).toEqual({ status: "running", progress: null });
    const logs =
      "Using seed: 1\n 25%|##        | 1/4 [00:00]\r 50%|#####     | 2/4 [00:00<00:00,  9.1it/s]\nalmost 99% there\n";
    expect(await look({ ...CREATED, status: "processing", logs })).toEqual({ status: "running", progress: 0.5 });
    const long = `${"  0%|          | 0/4 [00:00<?]\n".repeat(20_000)} 75%|████▌   | 3/4 [00:01]\n`;
    expect(await look({ ...CREATED, status: "processing", logs: long })).toEqual({ status: "running", progress: 0.75 });
  });

  test("a run that succeeded has its outputs and its billed seconds", async () => {
    expect(await look(SUCCEEDED)).toEqual({ status: "succeeded", outputs: SUCCEEDED.output, ...told(0.860001) });
    const single = "https://replicate.delivery/pbxt/x/out.mp4";
    expect(await look({ ...SUCCEEDED, output: single, metrics: undefined })).toEqual({
      status: "succeeded",
      outputs: [single],
      ...told(null),
    });
  });

  test.each([[{ weights: "https://x" }], [[]], [["hello", " world"]], [[1]], [""], [42]])(
    "a run whose output is %j has failed for us: no output URLs",
    async (output) => {
      expect(await look({ ...SUCCEEDED, output })).toMatchObject({
        status: "failed",
        failure: { code: "provider_failed", detail: expect.stringContaining("no output URLs") },
      });
    },
  );

  test("a run whose output was removed is a loss that has its own name", async () => {
    const failure = { status: "failed", failure: { code: "output_unavailable" } };
    expect(await look({ ...SUCCEEDED, output: null, data_removed: true, logs: "" })).toMatchObject(failure);
    expect(await look({ ...SUCCEEDED, output: null })).toMatchObject(failure);
  });

  test.each([
    ["Prediction interrupted; please retry (code: PA)", "interrupted"],
    ["Director: unexpected error handling prediction (E9828)", "interrupted"],
    ["Director: unexpected error handling prediction (E6716)", "interrupted"],
    ["Something went wrong (E1000)", "interrupted"],
    ["Timeout while starting (E6716)", "interrupted"],
    ["CUDA out of memory (E1001)", "provider_failed"],
    ["NSFW content detected. Try running it again, or try a different prompt.", "content_refused"],
    ["The input or output was flagged as sensitive. Please try again with different inputs. (E005)", "content_refused"],
    ["Blocked by the safety filter", "content_refused"],
    [
      'Prediction input failed validation: {"detail":[{"loc":["body","input","safety_tolerance"],"msg":"too high"}]}',
      "input_refused",
    ],
    ["KeyError: 'safety_checker' is case-sensitive", "provider_failed"],
    ["list index out of range", "provider_failed"],
  ])("a run that failed with “%s” is %s", async (error, code) => {
    expect(await failedWith(error)).toMatchObject({ status: "failed", failure: { code, detail: error } });
  });

  test("a run that failed without a reason, or with an object for one, has failed all the same", async () => {
    expect(await failedWith(null)).toMatchObject({ failure: { code: "provider_failed" } });
    expect(await failedWith({ code: 7 })).toMatchObject({ failure: { detail: '{"code":7}' } });
  });

  test("a canceled run is canceled, unless it was its deadline that stopped it", async () => {
    const canceled = { ...CREATED, status: "canceled", completed_at: "2026-11-21T10:04:59.999999999Z" };
    expect(await look(canceled)).toMatchObject({ status: "canceled" });
    expect(await look({ ...canceled, deadline: "2026-11-21T10:09:00.000000Z" })).toMatchObject({ status: "canceled" });
    expect(await look({ ...canceled, deadline: "2026-11-21T10:05:00.123456789Z" })).toMatchObject({
      status: "failed",
      failure: { code: "timeout" },
    });
    const clock = () => new Date("2026-11-21T10:10:00Z");
    expect(await look({ ...canceled, completed_at: null, deadline: "2026-11-21T10:09:00Z" }, { clock })).toMatchObject({
      failure: { code: "timeout" },
    });
  });

  test("a run that was aborted never started", async () => {
    expect(await look({ ...CREATED, status: "aborted" })).toMatchObject({ failure: { code: "aborted" } });
  });

  test("a status nobody has heard of is running, and reported", async () => {
    expect(await look({ ...CREATED, status: "hibernating" })).toEqual({ status: "running", progress: null });
    expect(strange).toEqual([expect.stringContaining('"hibernating"')]);
  });

  test("odd ornaments do not hide a run", async () => {
    const odd = { ...SUCCEEDED, metrics: [], logs: 7, deadline: false, completed_at: {}, data_removed: null };
    expect(await look(odd)).toEqual({ status: "succeeded", outputs: SUCCEEDED.output, ...told(null) });
  });

  test("an answer that leaves out what does not apply is an answer", async () => {
    expect(await look({ id: "p1", status: "starting" })).toEqual({ status: "running", progress: null });
    expect(await look({ id: "p1", status: "failed" })).toMatchObject({ failure: { code: "provider_failed" } });
    expect(await look({ id: "p1", status: "succeeded" })).toMatchObject({ failure: { code: "output_unavailable" } });
  });

  test("an id that is not known there is gone", async () => {
    expect(await replicate().look({ providerRunId: "nobody", model: "owner/name", isTraining: false })).toEqual({
      status: "gone",
    });
  });

  test.each<[string, Answer]>([
    ["5xx", [500, "<html>"]],
    ["404 of somebody in between", [404, "<html>nginx</html>"]],
    ["HTML", [200, "<html>"]],
    ["a body without a status", [200, { id: "p1" }]],
    ["401", [401, { detail: "You did not pass a valid authentication token" }]],
    ["a redirect", [302, "", { location: "https://elsewhere.test" }]],
  ])("%s is no answer", async (_name, answer) => {
    routes["GET /predictions/p1"] = [answer];
    await expect(replicate().look({ providerRunId: "p1", model: "owner/name", isTraining: false })).rejects.toThrow(
      ProviderUnreachable,
    );
  });

  test("an id cannot lead elsewhere", async () => {
    await replicate().look({ providerRunId: "../account?x=", model: "owner/name", isTraining: false });
    expect(seen[0]?.path).toBe("/predictions/..%2Faccount%3Fx%3D");
  });
});

describe("cancel", () => {
  const cancel = (...answers: Answer[]) => {
    routes["POST /predictions/p1/cancel"] = answers;
    return replicate().cancel({ providerRunId: "p1", model: "owner/name", isTraining: false });
  };

  test("asks without a body, and again when there was no answer", async () => {
    await cancel([500, ""], [200, { ...CREATED, status: "processing" }]);
    expect(seen).toHaveLength(2);
    expect(seen[1]).toMatchObject({ body: "", headers: { "content-type": "application/json" } });
  });

  test.each([404, 409, 422, 400])("is content with %i: there is nothing left to be stopped", async (status) => {
    await cancel([status, { detail: "Prediction has already completed" }]);
  });

  test.each([500, 401])("says when it could not ask: %i", async (status) => {
    await expect(cancel([status, { detail: "no" }])).rejects.toThrow(ProviderUnreachable);
  });
});

describe("find", () => {
  const SENT_AT = new Date("2026-11-21T10:00:00Z");
  const lost = order();
  const listed = (rest: object) => ({
    id: "other",
    model: lost.model,
    version: "hidden",
    created_at: "2026-11-21T10:00:01.123456Z",
    input: lost.input,
    status: "starting",
    ...rest,
  });
  const find = (it: Order, ...pages: object[][]) => {
    routes["GET /predictions"] = pages.map((results, i) => [
      200,
      { previous: null, results, next: i < pages.length - 1 ? `${baseUrl}/predictions?cursor=c${i + 1}` : null },
    ]);
    return replicate().find(it, SENT_AT, notTaken);
  };

  test("by the webhook's exact URL, whatever else is equal, on any page", async () => {
    const twin = listed({ webhook: `${lost.webhookUrl?.replace("run-1", "run-10")}` });
    const moved = listed({ id: "moved", webhook: "https://new.example.test/hooks/replicate/run-1/other" });
    // Our own address or its secret has changed since: the run's id in it tells.
    expect(await find(lost, [twin, moved])).toEqual({ outcome: "found", providerRunId: "moved" });
    seen.splice(0);
    const ours = listed({ id: "ours", webhook: lost.webhookUrl, input: {}, data_removed: true });
    expect(await find(lost, [twin, twin], [twin], [twin, ours])).toEqual({ outcome: "found", providerRunId: "ours" });
    expect(seen.map((it) => it.path)).toEqual([
      "/predictions?created_after=2026-11-21T09%3A59%3A00.000Z",
      "/predictions?cursor=c1",
      "/predictions?cursor=c2",
    ]);
  });

  test("without a webhook by model, version and input, the latter as far as it was sent", async () => {
    const plain = order({
      webhookUrl: null,
      version: VERSION,
      input: { prompt: "a", seed: 7, lora: { scale: [1, 2] } },
    });
    const echo = { prompt: "a", seed: 7, lora: { scale: [1, 2] }, guidance: 3.5 };
    const others = [
      listed({ version: VERSION, input: { ...echo, seed: 8 } }),
      listed({ version: "b".repeat(64), input: echo }),
      listed({ version: VERSION, input: echo, model: "somebody/else" }),
      listed({ version: VERSION, input: { prompt: "a", seed: 7 } }),
      listed({ version: VERSION, input: echo, webhook: "https://app.example.test/hooks/of/somebody" }),
    ];
    expect(await find(plain, others)).toEqual({ outcome: "absent" });
    const ours = listed({ id: "ours", version: VERSION, input: echo, webhook: null });
    expect(await find(plain, [...others, ours])).toEqual({ outcome: "found", providerRunId: "ours" });
  });

  test("is absent once everything younger than the sending was read, and reads no further", async () => {
    const older = listed({ created_at: "2026-11-21T09:58:59.999999999Z", webhook: lost.webhookUrl });
    expect(await find(lost, [listed({ webhook: "https://x" }), older], [listed({})])).toEqual({ outcome: "absent" });
    expect(seen).toHaveLength(1);
    expect(await find(lost, [])).toEqual({ outcome: "absent" });
  });

  test("is never absent while something listed may be ours and does not tell", async () => {
    expect(await find(lost, [listed({})])).toEqual({ outcome: "unread" });
    const plain = order({ webhookUrl: null });
    expect(await find(plain, [listed({ input: {}, data_removed: true })])).toEqual({ outcome: "unread" });
    expect(await find(plain, [listed({ model: undefined })])).toEqual({ outcome: "unread" });
  });

  describe("of an order to a deployment, which the list shows under the model below it,", () => {
    const own = order({ model: "own/flux-dev", webhookUrl: null });
    const shown = (rest: object) =>
      listed({ id: "shown", model: "black-forest-labs/flux-dev", version: VERSION, ...rest });
    const OURS = { "own/flux-dev": "acme/my-flux" };
    const seek = (it: Order, one: object, endpoints: Readonly<Record<string, string>> = OURS) => {
      routes["GET /predictions"] = [[200, { previous: null, results: [one], next: null }]];
      return replicate({ endpoints }).find(it, SENT_AT, notTaken);
    };

    test.each(["my-flux", "acme/my-flux", "Acme/My-Flux"])("finds it by %s", async (deployment) => {
      expect(await seek(own, shown({ deployment }))).toEqual({ outcome: "found", providerRunId: "shown" });
    });

    test.each<[string, object]>([
      ["names no deployment", {}],
      // It may be the one that was configured when the order was sent.
      ["names another one", { deployment: "acme/my-flux-2" }],
      ["has lost its input", { deployment: "my-flux", input: {}, data_removed: true }],
    ])("is never absent while a run that may be it %s", async (_what, rest) => {
      expect(await seek(own, shown(rest))).toEqual({ outcome: "unread" });
    });

    test("is not absent either when the deployment is not configured any more", async () => {
      expect(await seek(own, shown({ deployment: "my-flux" }), {})).toEqual({ outcome: "unread" });
    });

    test("is absent where every run was sent with another input, or with somebody's webhook", async () => {
      for (const rest of [{ input: { prompt: "b" } }, { webhook: "https://app.example.test/hooks/of/somebody" }])
        expect(await seek(own, shown({ deployment: "my-flux", ...rest }))).toEqual({ outcome: "absent" });
    });

    test("and an order to the model itself does not take a deployment's run for its own", async () => {
      const plain = order({ model: "black-forest-labs/flux-dev", webhookUrl: null });
      expect(await seek(plain, shown({ deployment: "my-flux" }))).toEqual({ outcome: "unread" });
    });
  });

  test("is unread when a page fails, does not parse, or lies elsewhere", async () => {
    routes["GET /predictions"] = [
      [200, { results: [], next: `${baseUrl}/predictions?cursor=1` }],
      [500, ""],
    ];
    expect(await replicate().find(lost, SENT_AT, notTaken)).toEqual({ outcome: "unread" });
    routes["GET /predictions"] = [[200, "<html>"]];
    expect(await replicate().find(lost, SENT_AT, notTaken)).toEqual({ outcome: "unread" });
    routes["GET /predictions"] = [[401, { detail: "no" }]];
    expect(await replicate().find(lost, SENT_AT, notTaken)).toEqual({ outcome: "unread" });
    routes["GET /predictions"] = [[200, { results: [], next: "not a url" }]];
    expect(await replicate().find(lost, SENT_AT, notTaken)).toEqual({ outcome: "unread" });
  });

  test("takes the token to no other place, though the list points there", async () => {
    let visits = 0;
    const elsewhere = createServer((_request, response) => {
      visits++;
      response.end('{"results":[],"next":null}');
    });
    await new Promise<void>((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
    const next = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/v1/predictions?cursor=1`;
    routes["GET /predictions"] = [[200, { results: [], next }]];
    expect(await replicate().find(lost, SENT_AT, notTaken)).toEqual({ outcome: "unread" });
    expect(visits).toBe(0);
    elsewhere.close();
  });

  test("is unread when the list does not end within twenty pages", async () => {
    routes["GET /predictions"] = [[200, { results: [], next: `${baseUrl}/predictions?cursor=again` }]];
    expect(await replicate().find(lost, SENT_AT, notTaken)).toEqual({ outcome: "unread" });
    expect(seen).toHaveLength(20);
  });
});
