import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";
import type { Look, Order, Provider, RunRef } from "../src/domain/provider.ts";
import { makeReplicate } from "../src/providers/replicate.ts";

/** Trainings by the adapter, against the cloud of the sandbox. Zips under .test count as read there, unseen. */
const TRAINER = "ostris/flux-dev-lora-trainer";
const notTaken = async () => false;
let sandbox: Sandbox;
let provider: Provider;
let version: string;

function makeProvider(): Provider {
  return makeReplicate({
    name: "sandbox",
    token: sandbox.token,
    baseUrl: `${sandbox.url}/v1`,
    webhookSecret: sandbox.webhookSecret,
    totalMs: 4_000,
  });
}

beforeAll(async () => {
  sandbox = await startSandbox({ speed: 40 });
  provider = makeProvider();
  const resolved = await provider.resolve(TRAINER);
  if (resolved.outcome !== "resolved" || resolved.version === null) throw new Error(JSON.stringify(resolved));
  version = resolved.version;
});
afterAll(() => sandbox.close());
beforeEach(() => {
  sandbox.faults.clear();
  sandbox.resetBill();
});

async function destination(name: string, by = provider): Promise<string> {
  const found = await by.destination(name);
  if (found.outcome !== "destination") throw new Error(JSON.stringify(found));
  return found.model;
}

let orders = 0;
/** `directive` is a fault of the sandbox, asked for in the trigger word. All orders are for the same photos. */
async function order(directive: string | null = null, rest: Partial<Order> = {}): Promise<Order> {
  const runId = `run-${++orders}`;
  return {
    runId,
    model: TRAINER,
    version,
    input: {
      input_images: `https://photos.example.test/archive.zip#${runId}`,
      trigger_word: directive === null ? "TOK" : `TOK [sandbox:${directive}]`,
      steps: 1_000,
    },
    destination: await destination("ann"),
    webhookUrl: `https://app.example.test/hooks/sandbox/${runId}/token`,
    sendBefore: new Date(Date.now() + 5_000),
    cancelAfterSeconds: 7_200,
    ...rest,
  };
}

const training = (providerRunId: string): RunRef => ({ providerRunId, model: "owner/name", isTraining: true });

async function submitted(it: Order): Promise<RunRef> {
  const answer = await provider.submit(it);
  if (answer.outcome !== "submitted") throw new Error(JSON.stringify(answer));
  return training(answer.providerRunId);
}

async function verdict(ref: RunRef): Promise<Look> {
  for (let i = 0; i < 400; i++) {
    const look = await provider.look(ref);
    if (look.status !== "running") return look;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error("still running after 10 s");
}

async function ask(method: string, path: string): Promise<Response> {
  return fetch(`${sandbox.url}/v1${path}`, { method, headers: { authorization: `Bearer ${sandbox.token}` } });
}
const ownModels = async () => {
  const { results } = (await (await ask("GET", "/models")).json()) as { results: { owner: string; name: string }[] };
  return results.filter(({ owner }) => owner === sandbox.account).map(({ name }) => name);
};
const bought = () => sandbox.bill().lines;

describe("a destination", () => {
  test("is made once, private, and found again by whoever asks", async () => {
    expect(await destination("once")).toBe(`${sandbox.account}/once`);
    expect(await destination("once")).toBe(`${sandbox.account}/once`);
    expect(await destination("once", makeProvider())).toBe(`${sandbox.account}/once`);
    expect((await ownModels()).filter((name) => name === "once")).toHaveLength(1);
    expect(await (await ask("GET", `/models/${sandbox.account}/once`)).json()).toMatchObject({ visibility: "private" });
  });

  test("that two make at the same time is one", async () => {
    const both = await Promise.all([0, 1, 2, 3].map(() => destination("both", makeProvider())));
    expect(new Set(both)).toEqual(new Set([`${sandbox.account}/both`]));
    expect((await ownModels()).filter((name) => name === "both")).toHaveLength(1);
  });

  test("is put off while the provider does not answer, and refused for a token that it does not take", async () => {
    const nowhere = makeReplicate({ name: "x", token: "r8_x", baseUrl: "http://127.0.0.1:9/v1", totalMs: 200 });
    expect(await nowhere.destination("any")).toMatchObject({
      outcome: "postponed",
      failure: { code: "provider_unavailable" },
    });
    const stranger = makeReplicate({ name: "x", token: "wrong", baseUrl: `${sandbox.url}/v1`, totalMs: 2_000 });
    expect(await stranger.destination("any")).toMatchObject({
      outcome: "declined",
      failure: { code: "provider_auth" },
    });
  });
});

describe("a training", () => {
  test("is bought by the trainer's version into its destination, watched to its end, and leaves version and weights", async () => {
    const it = await order();
    const look = await verdict(await submitted(it));
    expect(look).toMatchObject({
      status: "succeeded",
      seconds: expect.any(Number),
      outputs: [expect.stringMatching(/\.tar$/)],
      trainedVersion: expect.stringMatching(new RegExp(`^${it.destination}:[0-9a-f]{64}$`)),
    });
    if (look.status !== "succeeded") return;
    expect((await fetch(look.outputs[0] ?? "")).status).toBe(200);
    expect(bought()).toEqual([expect.objectContaining({ kind: "training", webhook: it.webhookUrl })]);
    // What was made can be resolved by the destination's name.
    const [, hash] = look.trainedVersion?.split(":") ?? [];
    expect(await makeProvider().resolve(it.destination ?? "")).toEqual({ outcome: "resolved", version: hash });
  });

  test("tells how far it is while it works", async () => {
    const ref = await submitted(await order("slow=1"));
    const heard: number[] = [];
    for (let look = await provider.look(ref); look.status === "running"; look = await provider.look(ref)) {
      if (look.progress !== null) heard.push(look.progress);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    expect(heard.length).toBeGreaterThan(1);
    expect(heard).toEqual(heard.toSorted((a, b) => a - b));
  });

  test("whose trainer keeps the weights to itself has a version and no outputs", async () => {
    const it = await order("weights_null");
    expect(await verdict(await submitted(it))).toMatchObject({
      status: "succeeded",
      outputs: [],
      trainedVersion: expect.stringContaining(`${it.destination}:`),
    });
  });

  test("is canceled when we asked for it, and asking again does no harm", async () => {
    const ref = await submitted(await order("slow=600"));
    await provider.cancel(ref);
    expect(await verdict(ref)).toMatchObject({ status: "canceled" });
    await provider.cancel(ref);
    await provider.cancel(training("nobody"));
  });

  test("that failed or was interrupted there is told as such, and one that is not known there is gone", async () => {
    expect(await verdict(await submitted(await order("oom")))).toMatchObject({
      status: "failed",
      failure: { code: "provider_failed" },
    });
    expect(await verdict(await submitted(await order("interrupted")))).toMatchObject({
      failure: { code: "interrupted" },
    });
    expect(await provider.look(training("nobody"))).toEqual({ status: "gone" });
  });

  test("whose output was removed is told as such", async () => {
    const ref = await submitted(await order());
    await verdict(ref);
    sandbox.advanceClock(2 * 3_600_000);
    expect(await provider.look(ref)).toMatchObject({ status: "failed", failure: { code: "output_unavailable" } });
  });
});

describe("a training whose answer was lost", () => {
  test.each(["cut", "cut_half", "server_error_after_accept", "garbage_after_accept"])(
    "by %s is found by its webhook, or by the run in its photos' address",
    async (fault) => {
      for (const withWebhook of [true, false]) {
        sandbox.resetBill();
        const over = withWebhook ? {} : { webhookUrl: null };
        const [before, it, after] = [await order(null, over), await order(fault, over), await order(null, over)];
        const sentAt = new Date();
        // Others of the same user, for the same photos, around it.
        await submitted(before);
        expect(await provider.submit(it)).toMatchObject({ outcome: "lost" });
        const ours = bought().at(-1)?.id;
        await submitted(after);
        expect(bought()).toHaveLength(3);
        expect(await provider.find(it, sentAt, notTaken)).toEqual({ outcome: "found", providerRunId: ours });
      }
    },
  );

  test("is not taken for one that has the same photos and another run", async () => {
    const sentAt = new Date();
    await submitted(await order(null, { webhookUrl: null }));
    const never = await order(null, { webhookUrl: null });
    expect(await provider.find(never, sentAt, notTaken)).toEqual({ outcome: "absent" });
  });

  test("is not looked for among predictions, nor a prediction among trainings", async () => {
    const sentAt = new Date();
    const it = await order(null, { webhookUrl: null });
    const ref = await submitted(it);
    expect(await provider.find({ ...it, destination: null }, sentAt, notTaken)).toEqual({ outcome: "absent" });
    expect(await provider.find(it, sentAt, async (id) => id === ref.providerRunId)).toEqual({ outcome: "absent" });
  });
});

describe("nothing is bought", () => {
  test("into a destination that vanished", async () => {
    const it = await order(null, { destination: await destination("gone") });
    expect((await ask("DELETE", `/models/${sandbox.account}/gone`)).status).toBeLessThan(300);
    expect(await provider.submit(it)).toMatchObject({ outcome: "declined", failure: { code: "model_not_found" } });
    expect(bought()).toEqual([]);
  });

  test("without a version, or from a version that cannot be trained", async () => {
    expect(await provider.submit(await order(null, { version: null }))).toMatchObject({
      outcome: "declined",
      failure: { code: "model_not_found" },
    });
    const lightning = await provider.resolve("bytedance/sdxl-lightning-4step");
    if (lightning.outcome !== "resolved") throw new Error(JSON.stringify(lightning));
    const it = await order(null, { model: "bytedance/sdxl-lightning-4step", version: lightning.version });
    expect(await provider.submit(it)).toMatchObject({ outcome: "declined" });
    expect(bought()).toEqual([]);
  });

  test("with an input that the trainer refuses, and the field is named", async () => {
    const it = await order();
    expect(await provider.submit({ ...it, input: { ...it.input, steps: 9_000_000 } })).toMatchObject({
      outcome: "declined",
      failure: { code: "input_refused", detail: expect.stringContaining("steps") },
    });
    expect(bought()).toEqual([]);
  });
});
