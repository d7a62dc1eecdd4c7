import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import sharp from "sharp";
import { Webhook } from "standardwebhooks";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FAULT_NAMES } from "../sandbox/fault.ts";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";

// biome-ignore lint/suspicious/noExplicitAny: a test reads whatever travels, and fails when it is not there
type Body = any;

const SCHNELL = "black-forest-labs/flux-schnell";
const HEADERS = { authorization: "Bearer r8_sandbox", "content-type": "application/json" };
const PA = "Prediction interrupted; please retry (code: PA)";

let sandbox: Sandbox;
let server: ReturnType<typeof createServer>;
let heard: { headers: Record<string, string>; body: string; status: string; at: number }[];

beforeEach(async () => {
  sandbox = await startSandbox({ speed: 20 });
  heard = [];
  server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += String(chunk);
    const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
    heard.push({ headers, body, status: JSON.parse(body).status, at: Date.now() });
    response.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  sandbox.setWebhookRelay(typeof address === "object" && address ? `http://127.0.0.1:${address.port}` : null);
});

afterEach(async () => {
  server.close();
  server.closeAllConnections();
  await sandbox.close();
});

function create(prompt: string, more: Record<string, unknown> = {}, headers: Record<string, string> = {}) {
  const body = JSON.stringify({ input: { prompt, megapixels: "0.25" }, ...more });
  const path = `/v1/models/${SCHNELL}/predictions`;
  return fetch(`${sandbox.url}${path}`, { method: "POST", headers: { ...HEADERS, ...headers }, body });
}

async function read(answer: Response | Promise<Response>): Promise<Body> {
  return (await answer).json();
}

const ran = (prompt: string) => read(create(prompt, {}, { prefer: "wait=20" }));
const get = (path: string) => fetch(`${sandbox.url}${path}`, { headers: HEADERS });
const accepted = () => sandbox.bill().lines.length;

describe("at create", () => {
  test.each([
    ["no_credit", 402, { title: "Insufficient credit", status: 402 }],
    ["unauthorized", 401, { detail: "You did not pass a valid authentication token" }],
    ["rate_limited", 429, { retry_after: 2, status: 429 }],
    ["rate_limited=neither", 429, { detail: "Request was throttled. Expected available in 2 seconds." }],
  ])("%s refuses with %i and accepts nothing", async (fault, status, body) => {
    const answer = await create(`x [sandbox: ${fault}]`);
    expect(answer.status).toBe(status);
    expect(await answer.json()).toMatchObject(body);
    expect(accepted()).toBe(0);
  });

  test("rate_limited=header says when only in the header", async () => {
    const answer = await create("x [sandbox: rate_limited=header]");
    expect(answer.headers.get("retry-after")).toBe("2");
    expect(await answer.json()).not.toHaveProperty("retry_after");
  });

  test.each([
    ["server_error", 500, 0],
    ["server_error_after_accept", 502, 1],
    ["garbage_after_accept", 200, 1],
  ])("%s answers %i with a page of HTML and %i line on the bill", async (fault, status, lines) => {
    const answer = await create(`x [sandbox: ${fault}]`);
    expect(answer.status).toBe(status);
    expect(answer.headers.get("content-type")).toContain("text/html");
    expect(await answer.text()).toContain("<html>");
    expect(accepted()).toBe(lines);
  });

  test("refuse_before and cut both end the connection; only cut was bought", async () => {
    await expect(create("x [sandbox: refuse_before]")).rejects.toThrow();
    expect(accepted()).toBe(0);
    await expect(create("x [sandbox: cut]")).rejects.toThrow();
    expect(accepted()).toBe(1);
  });

  test("cut_half announces the whole answer and sends half of it", async () => {
    const answer = await create("x [sandbox: cut_half]");
    expect(answer.status).toBe(201);
    await expect(answer.text()).rejects.toThrow();
    expect(accepted()).toBe(1);
  });

  test("slow_create accepts at once and answers late; late_accept does neither until later", async () => {
    const slow = create("x [sandbox: slow_create=300]");
    await expect.poll(accepted, { interval: 10 }).toBe(1);
    const late = create("x [sandbox: late_accept=300]", { webhook: "https://a.test/late" });
    await pause(150);
    expect(accepted()).toBe(1);
    expect((await Promise.all([slow, late])).map(({ status }) => status)).toEqual([201, 201]);
    expect(accepted()).toBe(2);
  });

  test("late_accept buys even for a caller who has hung up", async () => {
    const body = JSON.stringify({ input: { prompt: "x [sandbox: late_accept=200]" } });
    const signal = AbortSignal.timeout(50);
    const path = `${sandbox.url}/v1/models/${SCHNELL}/predictions`;
    await expect(fetch(path, { method: "POST", headers: HEADERS, body, signal })).rejects.toThrow();
    expect(accepted()).toBe(0);
    await expect.poll(accepted).toBe(1);
  });
});

describe("while it runs", () => {
  test.each([
    ["fail", "failed", "(E1000)"],
    ["oom", "failed", "(E1001)"],
    ["nsfw", "failed", "NSFW content detected"],
  ])("%s ends it as %s, after it ran", async (fault, status, error) => {
    const run = await ran(`x [sandbox: ${fault}]`);
    expect(run).toMatchObject({ status, error: expect.stringContaining(error), output: null });
    expect(run.metrics.predict_time).toBeGreaterThan(0);
  });

  test.each([
    ["interrupted", "failed", PA],
    ["aborted", "aborted", null],
  ])("%s ends it before it started", async (fault, status, error) => {
    const run = await ran(`x [sandbox: ${fault}]`);
    expect(run).toMatchObject({ status, error, output: null, logs: "" });
    expect(run).not.toHaveProperty("started_at");
    expect(run).not.toHaveProperty("metrics");
    expect(sandbox.bill().total.usd).toBe(0);
  });

  test("fail_first=2 interrupts two runs of one prompt and lets the third through", async () => {
    const statuses = [];
    for (let round = 0; round < 3; round += 1) statuses.push((await ran("again [sandbox: fail_first=2]")).status);
    expect(statuses).toEqual(["failed", "failed", "succeeded"]);
    expect((await ran("another [sandbox: fail_first=2]")).error).toBe(PA);
  });

  test("slow takes its seconds, whatever the speed", async () => {
    expect((await ran("x [sandbox: slow=0.6]")).metrics.predict_time).toBeGreaterThan(0.59);
  });
});

describe("when asked about", () => {
  test("get_error, get_garbage and get_missing strike as often as said, then pass", async () => {
    const { id } = await read(create("x [sandbox: get_error=2, get_garbage, get_missing]"));
    const answers = [];
    for (let look = 0; look < 5; look += 1) {
      const answer = await get(`/v1/predictions/${id}`);
      answers.push(`${answer.status} ${answer.headers.get("content-type")?.split(";")[0]}`);
    }
    const json = "application/json";
    expect(answers).toEqual(["500 text/html", "500 text/html", "200 text/html", `404 ${json}`, `200 ${json}`]);
  });

  test("list_lag hides a run from lists, not from those who know its id", async () => {
    const { id } = await read(create("x [sandbox: list_lag=400]"));
    const listed = async () => (await read(get("/v1/predictions"))).results.length;
    expect(await listed()).toBe(0);
    expect((await get(`/v1/predictions/${id}`)).status).toBe(200);
    await expect.poll(listed).toBe(1);
  });
});

describe("webhooks", () => {
  const hooked = (directives: string, events = ["completed"]) =>
    create(`x [sandbox: ${directives}]`, { webhook: "https://app.test/hook", webhook_events_filter: events });
  const valid = ({ body, headers }: { body: string; headers: Record<string, string> }) => {
    try {
      return Boolean(new Webhook(sandbox.webhookSecret).verify(body, headers));
    } catch (error) {
      return String(error);
    }
  };

  test("webhook_drop says nothing of the event named, or of any", async () => {
    await hooked("webhook_drop", ["start", "completed"]);
    await hooked("webhook_drop=start", ["start", "completed"]);
    await expect.poll(() => sandbox.bill().total.succeeded).toBe(2);
    await pause(100);
    expect(heard.map(({ status }) => status)).toEqual(["succeeded"]);
  });

  test("webhook_duplicate says it twice under one id", async () => {
    await hooked("webhook_duplicate");
    await expect.poll(() => heard.length).toBe(2);
    expect(heard[0]?.headers["webhook-id"]).toBe(heard[1]?.headers["webhook-id"]);
  });

  test("webhook_early is heard before the answer to the create", async () => {
    const answer = await hooked("webhook_early");
    expect(heard.map(({ status }) => status)).toEqual(["succeeded"]);
    expect(await answer.json()).toMatchObject({ status: "starting", id: JSON.parse(heard[0]?.body ?? "{}").id });
  });

  test("webhook_late comes after its time, and what was before comes after it", async () => {
    await hooked("webhook_late=400", ["start", "completed"]);
    await expect.poll(() => sandbox.bill().total.succeeded).toBe(1);
    expect(heard).toEqual([]);
    await expect.poll(() => heard.length).toBe(2);
    expect(heard.map(({ status }) => status)).toEqual(["succeeded", "processing"]);
  });

  test("webhook_bad_signature, webhook_stale and webhook_rotated differ in what a verifier says", async () => {
    for (const fault of ["webhook_bad_signature", "webhook_stale", "webhook_rotated"]) {
      await hooked(fault);
      const count = heard.length;
      await expect.poll(() => heard.length).toBe(count + 1);
    }
    const verdicts = heard.map(valid);
    expect(verdicts[0]).toContain("No matching signature");
    expect(verdicts[1]).toContain("too old");
    expect(verdicts[2]).toBe(true);
    expect(heard[2]?.headers["webhook-signature"]?.split(" ")).toHaveLength(2);
  });
});

describe("outputs", () => {
  const output = async (directives: string) => (await ran(`a lake [sandbox: ${directives}]`)).output[0];

  test("output_404 and output_html give no picture, as often as said", async () => {
    const missing = await output("output_404=1");
    expect((await fetch(missing)).status).toBe(404);
    expect((await fetch(missing)).status).toBe(200);
    const page = await fetch(await output("output_html"));
    expect(page.status).toBe(200);
    expect(page.headers.get("content-type")).toContain("text/html");
  });

  test("output_truncated breaks off half way", async () => {
    const answer = await fetch(await output("output_truncated"));
    expect(Number(answer.headers.get("content-length"))).toBeGreaterThan(1_000);
    await expect(answer.arrayBuffer()).rejects.toThrow();
  });

  test("output_huge goes on for megabytes without saying how many", async () => {
    const answer = await fetch(await output("output_huge=30"));
    expect(answer.headers.get("content-length")).toBeNull();
    expect((await answer.arrayBuffer()).byteLength).toBeGreaterThan(30 * 1024 * 1024);
  });

  test("output_slow trickles, and is whole in the end", async () => {
    const url = await output("output_slow=500");
    const began = Date.now();
    const bytes = await (await fetch(url)).arrayBuffer();
    expect(Date.now() - began).toBeGreaterThan(450);
    expect((await sharp(bytes).metadata()).width).toBe(512);
  });
});

describe("standing rules", () => {
  const admin = (method: string, path: string, body?: unknown) =>
    fetch(`${sandbox.url}/_sandbox${path}`, {
      method,
      ...(body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
    });

  test("strike what matches, as often as said, and can be listed and deleted", async () => {
    const rule = { fault: "no_credit", match: { model: SCHNELL, promptContains: "poor" }, times: 2 };
    const added = await admin("POST", "/faults", rule);
    expect(added.status).toBe(201);
    const statuses = [];
    for (const prompt of ["rich", "poor", "poor", "poor"]) statuses.push((await create(prompt)).status);
    expect(statuses).toEqual([201, 402, 402, 201]);
    expect(await read(admin("GET", "/faults"))).toMatchObject({ faults: [{ ...rule, left: 0, struck: 2 }] });
    expect((await admin("DELETE", `/faults/${(await read(added)).id}`)).status).toBe(204);
    sandbox.faults.add({ fault: "fail" });
    expect((await ran("x")).status).toBe("failed");
    expect((await admin("DELETE", "/faults")).status).toBe(204);
    expect((await ran("x")).status).toBe("succeeded");
  });

  test("strike a share of what they could, by chance", async () => {
    await admin("POST", "/faults", { fault: "server_error", share: 0.5 });
    const statuses = await Promise.all(Array.from({ length: 60 }, async () => (await create("x")).status));
    // Either way once in 10^8 times.
    for (const status of [201, 500])
      expect(statuses.filter((each) => each === status).length).toBeGreaterThanOrEqual(9);
    expect((await admin("POST", "/faults", { fault: "cut", share: 2 })).status).toBe(422);
  });

  test("leave their mark in the count of creates, which counts no other requests", async () => {
    for (const fault of ["no_credit", "cut", "down"]) {
      sandbox.faults.add({ fault, times: 1 });
      await create("x").catch(() => null);
    }
    await create("x");
    await get("/v1/predictions");
    const key = { authorization: "Key sandbox-key", "content-type": "application/json" };
    const body = JSON.stringify({ prompt: "x" });
    await fetch(`${sandbox.url}/fal/queue/fal-ai/flux/schnell`, { method: "POST", headers: key, body });
    const { faces } = await read(admin("GET", "/creates"));
    expect(faces.replicate).toEqual({ asked: 4, answers: { "201": 1, "402": 1, "503": 1 } });
    expect(faces.fal).toEqual({ asked: 1, answers: { "200": 1 } });
    const bought = async (face: string) => (await read(admin("GET", `/runs?face=${face}`))).results.length;
    expect([await bought("replicate"), await bought("fal"), await bought("poe")]).toEqual([2, 1, 0]);
    await admin("DELETE", "/bill");
    expect((await read(admin("GET", "/creates"))).faces.fal).toEqual({ asked: 0, answers: {} });
  });

  test("take their time from ms as well", async () => {
    await admin("POST", "/faults", { fault: "slow_create", ms: 300, times: 1 });
    const began = Date.now();
    await create("x");
    expect(Date.now() - began).toBeGreaterThan(290);
  });

  test("that are not known, or not well formed, are refused with the reason", async () => {
    const unknown = await admin("POST", "/faults", { fault: "fial" });
    expect(unknown.status).toBe(422);
    expect((await read(unknown)).detail).toContain('unknown fault "fial"');
    expect((await admin("POST", "/faults", { fault: "fail", time: 3 })).status).toBe(422);
    expect((await admin("POST", "/faults", { fault: "slow=9999" })).status).toBe(422);
    expect(() => sandbox.faults.add({ fault: "fail=3" })).toThrow("fail takes no value");
  });

  test("down takes the whole service away, and file_error the uploads", async () => {
    sandbox.faults.add({ fault: "down", times: 1 });
    expect((await get("/v1/account")).status).toBe(503);
    expect((await get("/v1/account")).status).toBe(200);
    sandbox.faults.add({ fault: "file_error", times: 1 });
    const upload = () => {
      const form = new FormData();
      form.append("content", new Blob(["x"]), "x.txt");
      const { authorization } = HEADERS;
      return fetch(`${sandbox.url}/v1/files`, { method: "POST", headers: { authorization }, body: form });
    };
    expect((await upload()).status).toBe(500);
    expect((await upload()).status).toBe(201);
  });

  test("weights_null leaves a training without its weights", async () => {
    const json = (path: string, body: unknown) =>
      fetch(`${sandbox.url}/v1${path}`, { method: "POST", headers: HEADERS, body: JSON.stringify(body) });
    await json("/models", { owner: "sandbox", name: "w", visibility: "private", hardware: "cpu" });
    const path = "/models/replicate/fast-flux-trainer/versions";
    const versions = await read(get(`/v1${path}`));
    const input = { input_images: "https://x.test/a.zip", trigger_word: "TOK [sandbox: weights_null]" };
    const training = await json(`${path}/${versions.results[0].id}/trainings`, { destination: "sandbox/w", input });
    const { id } = await read(training);
    await expect
      .poll(async () => (await read(get(`/v1/trainings/${id}`))).status, { timeout: 3_000 })
      .toBe("succeeded");
    const { output } = await read(get(`/v1/trainings/${id}`));
    expect(output).toEqual({ version: expect.stringMatching(/^sandbox\/w:[0-9a-f]{64}$/), weights: null });
  });

  test("are all told by health", async () => {
    expect((await read(admin("GET", "/health"))).known_faults).toEqual([...FAULT_NAMES]);
  });
});
