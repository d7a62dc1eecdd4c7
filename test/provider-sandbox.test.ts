import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";
import type { Look, Order, Provider, RunRef } from "../src/domain/provider.ts";
import { makeReplicate } from "../src/providers/replicate.ts";

const notTaken = async () => false;
/** The adapter against a cloud that speaks the whole contract, misbehaves on request, and keeps its own bill. */
const SCHNELL = "black-forest-labs/flux-schnell";
const LIGHTNING = "bytedance/sdxl-lightning-4step";
let sandbox: Sandbox;
let provider: Provider;

beforeAll(async () => {
  sandbox = await startSandbox({ speed: 20 });
  provider = makeReplicate({
    name: "sandbox",
    token: sandbox.token,
    baseUrl: `${sandbox.url}/v1`,
    webhookSecret: sandbox.webhookSecret,
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
function order(directive: string | null = null, rest: Partial<Order> = {}): Order {
  orders++;
  return {
    runId: `run-${orders}`,
    model: SCHNELL,
    version: null,
    input: { prompt: `chair ${orders}${directive === null ? "" : ` [sandbox:${directive}]`}`, num_outputs: 2, seed: 7 },
    destination: null,
    webhookUrl: `https://app.example.test/hooks/sandbox/run-${orders}/token`,
    sendBefore: new Date(Date.now() + 5_000),
    cancelAfterSeconds: 300,
    ...rest,
  };
}

const ref = (providerRunId: string): RunRef => ({ providerRunId, model: "owner/name", isTraining: false });

async function submitted(it: Order): Promise<string> {
  const answer = await provider.submit(it);
  if (answer.outcome !== "submitted") throw new Error(JSON.stringify(answer));
  return answer.providerRunId;
}

async function verdict(providerRunId: string): Promise<Look> {
  for (let i = 0; i < 200; i++) {
    const look = await provider.look(ref(providerRunId));
    if (look.status !== "running") return look;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error("still running after 5 s");
}

const bought = () => sandbox.bill().lines.length;

test("a run is bought by name, watched to its end, and its outputs are there", async () => {
  expect(await provider.resolve(SCHNELL)).toEqual({ outcome: "resolved", version: null });
  const look = await verdict(await submitted(order()));
  expect(look).toMatchObject({ status: "succeeded", seconds: expect.any(Number) });
  if (look.status !== "succeeded") return;
  expect(look.outputs).toHaveLength(2);
  for (const url of look.outputs) expect((await fetch(url)).status).toBe(200);
  expect(bought()).toBe(1);
});

test("a run of a deployment is listed under the model below it, is found there all the same, and costs its seconds", async () => {
  const own = makeReplicate({
    name: "sandbox_own",
    token: sandbox.token,
    baseUrl: `${sandbox.url}/v1`,
    endpoints: { "own/flux-dev": "acme/my-flux" },
  });
  expect(await own.resolve("own/flux-dev")).toEqual({ outcome: "resolved", version: null });
  const it = order("cut", { model: "own/flux-dev", webhookUrl: null });
  const sentAt = new Date();
  expect(await own.submit(it)).toMatchObject({ outcome: "lost" });
  const found = await own.find(it, sentAt, notTaken);
  const [line] = sandbox.bill().lines;
  expect(line).toMatchObject({ model: "black-forest-labs/flux-dev" });
  expect(found).toEqual({ outcome: "found", providerRunId: line?.id });
  expect(await verdict(line?.id ?? "")).toMatchObject({ status: "succeeded" });
  const { billed_seconds = 0, cost_usd } = sandbox.bill().lines[0] ?? {};
  expect(billed_seconds).toBeGreaterThan(0);
  expect(cost_usd).toBeCloseTo(billed_seconds * 0.001525, 5);
  expect(bought()).toBe(1);
});

test("a community model is bought by its current version", async () => {
  const resolved = await provider.resolve(LIGHTNING);
  if (resolved.outcome !== "resolved") throw new Error(JSON.stringify(resolved));
  expect(resolved.version).toMatch(/^[0-9a-f]{64}$/);
  const id = await submitted(order(null, { model: LIGHTNING, version: resolved.version, input: { prompt: "a" } }));
  expect(await verdict(id)).toMatchObject({ status: "succeeded" });
  // By name alone it would have been refused.
  expect(await provider.submit(order(null, { model: LIGHTNING }))).toMatchObject({
    outcome: "declined",
    failure: { code: "model_not_found" },
  });
});

describe("a create is bought once, and found again", () => {
  test.each(["cut", "cut_half", "server_error_after_accept", "garbage_after_accept", "slow_create=4000"])(
    "when its answer is lost by %s",
    async (fault) => {
      for (const webhookUrl of ["https://app.example.test/hooks/sandbox/one/token", null]) {
        sandbox.resetBill();
        const it = order(fault, { webhookUrl });
        const sentAt = new Date();
        expect(await provider.submit(it)).toMatchObject({ outcome: "lost" });
        const [line] = sandbox.bill().lines;
        expect(bought()).toBe(1);
        expect(await provider.find(it, sentAt, notTaken)).toEqual({ outcome: "found", providerRunId: line?.id });
      }
    },
    15_000,
  );

  test("not before the list shows it", async () => {
    const it = order("cut,list_lag=400");
    const sentAt = new Date();
    expect(await provider.submit(it)).toMatchObject({ outcome: "lost" });
    expect(await provider.find(it, sentAt, notTaken)).toEqual({ outcome: "absent" });
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(await provider.find(it, sentAt, notTaken)).toMatchObject({ outcome: "found" });
  });

  test("on a later page, among runs that are alike in all but the webhook", async () => {
    const sentAt = new Date();
    const it = order("cut");
    expect(await provider.submit(it)).toMatchObject({ outcome: "lost" });
    for (let i = 0; i < 120; i += 20)
      await Promise.all(
        Array.from({ length: 20 }, (_, j) =>
          submitted({
            ...it,
            input: { prompt: "a" },
            webhookUrl: `https://app.example.test/hooks/sandbox/twin-${i + j}/token`,
          }),
        ),
      );
    const found = await provider.find(it, sentAt, notTaken);
    expect(found).toMatchObject({
      outcome: "found",
      providerRunId: sandbox.bill().lines.find((line) => line.webhook === it.webhookUrl)?.id,
    });
  });
});

describe("nothing is bought", () => {
  test.each([
    ["no_credit", { outcome: "declined", failure: { code: "provider_no_credit" } }],
    ["unauthorized", { outcome: "declined", failure: { code: "provider_auth" } }],
    ["rate_limited=body", { outcome: "postponed", failure: { code: "rate_limited" } }],
    ["rate_limited=header", { outcome: "postponed", failure: { code: "rate_limited" } }],
    ["rate_limited=neither", { outcome: "postponed", failure: { code: "rate_limited" } }],
    ["server_error", { outcome: "lost" }],
    ["refuse_before", { outcome: "lost" }],
  ])("by a create that meets %s", async (fault, expected) => {
    const it = order(fault);
    const sentAt = new Date();
    expect(await provider.submit(it)).toMatchObject(expected);
    expect(bought()).toBe(0);
    expect(await provider.find(it, sentAt, notTaken)).toEqual({ outcome: "absent" });
  });

  test("by an input that the model refuses, and the field is named", async () => {
    expect(await provider.submit(order(null, { input: { prompt: "a", num_outputs: 9 } }))).toMatchObject({
      outcome: "declined",
      failure: { code: "input_refused", detail: expect.stringContaining("num_outputs") },
    });
    expect(bought()).toBe(0);
  });
});

describe("the end of a run", () => {
  test.each([
    ["interrupted", "interrupted"],
    ["nsfw", "content_refused"],
    ["oom", "provider_failed"],
    ["aborted", "aborted"],
  ])("%s is told as %s", async (fault, code) => {
    expect(await verdict(await submitted(order(fault)))).toMatchObject({ status: "failed", failure: { code } });
  });

  test("is canceled when we asked for it, and asking again does no harm", async () => {
    const providerRunId = await submitted(order("slow=600"));
    await provider.cancel(ref(providerRunId));
    expect(await verdict(providerRunId)).toMatchObject({ status: "canceled" });
    await provider.cancel(ref(providerRunId));
    await provider.cancel(ref("nobody"));
  });

  test("is a timeout when its deadline stopped it", async () => {
    const providerRunId = await submitted(order("slow=1200", { cancelAfterSeconds: 5 }));
    await new Promise((resolve) => setTimeout(resolve, 4_900));
    expect(await verdict(providerRunId)).toMatchObject({ status: "failed", failure: { code: "timeout" } });
  }, 15_000);

  test("survives an error, a page of HTML and a false 404 on the way", async () => {
    const id = await submitted(order("get_error=2"));
    expect(await verdict(id)).toMatchObject({ status: "succeeded" });
    const missing = await submitted(order("get_missing=1"));
    expect(await provider.look(ref(missing))).toEqual({ status: "gone" });
    expect(await verdict(missing)).toMatchObject({ status: "succeeded" });
    const garbled = await submitted(order("get_garbage=1"));
    await expect(provider.look(ref(garbled))).rejects.toMatchObject({ name: "ProviderUnreachable" });
    expect(await verdict(garbled)).toMatchObject({ status: "succeeded" });
  });
});

test("a run tells how far it is while it works", async () => {
  const providerRunId = await submitted(order("slow=2"));
  const heard: number[] = [];
  for (;;) {
    const look = await provider.look(ref(providerRunId));
    if (look.status !== "running") break;
    if (look.progress !== null) heard.push(look.progress);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  expect(heard.length).toBeGreaterThan(1);
  expect(heard).toEqual(heard.toSorted((a, b) => a - b));
});

describe("deliveries", () => {
  interface Delivered {
    readonly headers: IncomingHttpHeaders;
    readonly body: string;
  }
  /** The deliveries of one run until its `completed`, as they arrive at our side of the relay. */
  async function deliveriesOf(it: Order): Promise<Delivered[]> {
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
        // Runs of other tests may still be calling back.
        if (request.url !== new URL(it.webhookUrl ?? "").pathname) return;
        all.push({ headers: request.headers, body });
        if (/"status":\s*"(succeeded|failed)"/.test(body)) over();
      });
    });
    await new Promise<void>((resolve) => hook.listen(0, "127.0.0.1", resolve));
    sandbox.setWebhookRelay(`http://127.0.0.1:${(hook.address() as AddressInfo).port}`);
    await submitted(it);
    await end;
    hook.closeAllConnections();
    hook.close();
    sandbox.setWebhookRelay(null);
    return all;
  }
  const verify = ({ headers, body }: Delivered) =>
    provider.verifyWebhook(headers as Record<string, string | undefined>, body);

  test("are taken, from the start to the end, and name their run", async () => {
    const all = await deliveriesOf(order());
    const taken = await Promise.all(all.map(verify));
    expect(taken.at(-1)).toMatchObject({ status: "succeeded", providerRunId: sandbox.bill().lines[0]?.id });
    expect(new Set(taken.map((it) => it.deliveryId)).size).toBe(taken.length);
  });

  test("are taken with two signatures", async () => {
    for (const delivered of await deliveriesOf(order("webhook_rotated"))) await verify(delivered);
  });

  test.each([
    ["webhook_bad_signature", /^forged/],
    ["webhook_stale", /^stale/],
  ])("are refused with %s", async (fault, why) => {
    for (const delivered of await deliveriesOf(order(fault))) await expect(verify(delivered)).rejects.toThrow(why);
  });

  test("are taken under the secret that the account itself tells", async () => {
    const unconfigured = makeReplicate({ name: "sandbox", token: sandbox.token, baseUrl: `${sandbox.url}/v1` });
    const [first] = await deliveriesOf(order());
    if (!first) throw new Error("nothing was delivered");
    expect(await unconfigured.verifyWebhook(first.headers as Record<string, string>, first.body)).toBeDefined();
  });
});

test("outputs that were removed are told as such", async () => {
  const providerRunId = await submitted(order());
  await verdict(providerRunId);
  sandbox.advanceClock(2 * 3_600_000);
  expect(await provider.look(ref(providerRunId))).toMatchObject({
    status: "failed",
    failure: { code: "output_unavailable" },
  });
});
