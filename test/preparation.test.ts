import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { deleteTrainedModel } from "../src/db/trained-models.ts";
import { makeApp } from "./rig/apps.ts";
import { photo } from "./rig/pictures.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ speed: 20 });
});
afterAll(async () => {
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  await spine?.stop();
});

async function upload(number: number, at = spine): Promise<string> {
  const headers = { "content-type": "application/octet-stream" };
  return (await at.call("POST", "/api/uploads", { body: await photo(number), headers })).body.id;
}
const uploads = (from: number, count: number, at = spine) =>
  Promise.all(Array.from({ length: count }, (_, index) => upload(from + index, at)));
const edit = (image: string, at = spine) =>
  at.submit({ kind: "edit", user: "ann", input: { image, instruction: "make it night" } });
const training = (photos: readonly string[], at = spine) =>
  at.submit({ kind: "training", user: "tom", input: { photos, triggerWord: "ZQX", steps: 500 } });

/** Where the file lies on this machine's disk. */
async function fileOf(where: string, at = spine): Promise<string> {
  const [row] = await at.sql`select storage_key from assets where id::text = ${where} or role = ${where}`;
  return join(at.config.STORAGE_DIR, "files", row?.["storage_key"]);
}

describe("what can never be ordered ends at once, bought by nobody and given back:", () => {
  test("an input whose file is gone from the store", async () => {
    const image = await upload(1);
    await rm(await fileOf(image));
    const job = await spine.ended((await edit(image)).id);
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "input_missing" },
      runs: [{ attempt: 1, providerRunId: null }],
      settlement: { kept: 0 },
    });
    expect(job.settlement?.refunded).toBe(job.settlement?.charged);
    expect(spine.sandbox.bill().lines).toEqual([]);
  });

  describe("while nobody worked,", () => {
    let idle: Spine;
    beforeAll(async () => {
      idle = await startSpine({ workers: 0 });
    });
    afterAll(() => idle?.stop());

    test("a photo of a training went away; a file is larger than what the provider takes where it cannot read our store", async () => {
      const photos = await uploads(10, 4, idle);
      const unlucky = await training(photos, idle);
      await rm(await fileOf(photos[2] ?? "", idle));
      const large = await upload(2, idle);
      await idle.sql`update assets set bytes = 100000001, upright = null where id = ${large}`;
      const heavy = await edit(large, idle);
      // This machine, but not by a name that says so: as far as the adapter can tell it is far away.
      await idle.startWorker({ SANDBOX_URL: idle.sandbox.url.replace("127.0.0.1", "0.0.0.0") });

      for (const [{ id }, code, detail] of [
        [unlucky, "input_missing", /There is no file/],
        [heavy, "input_too_large", /100000001 bytes.*STORAGE_PROVIDER=s3/],
      ] as const) {
        const job = await idle.ended(id);
        expect(job).toMatchObject({ status: "failed", failure: { code }, settlement: { kept: 0 } });
        const [run] = await idle.sql`select failure_detail from runs where job_id = ${id}`;
        expect(run?.["failure_detail"]).toMatch(detail);
      }
      const [model] = await idle.sql`select status from trained_models where id = ${unlucky.id}`;
      expect(model?.["status"]).toBe("failed");
      expect(idle.sandbox.bill().lines).toEqual([]);
      expect(await idle.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
    }, 60_000);
  });
});

test("a photo whose file is gone is named before a training is charged", async () => {
  const photos = await uploads(30, 4);
  await rm(await fileOf(photos[1] ?? ""));
  const headers = { "idempotency-key": crypto.randomUUID() };
  const body = { kind: "training", user: "una", input: { photos, triggerWord: "ZQX", steps: 500 } };
  const answer = await spine.call("POST", "/api/jobs", { body, headers });
  expect(answer).toMatchObject({ status: 422, body: { errors: [{ pointer: "/input/photos/1" }] } });
  expect(answer.body.detail).toMatch(/upload is gone.*Nothing was charged/);
  // The same bytes are the same upload, and its file is there again.
  expect(await upload(31)).toBe(photos[1]);
  expect((await stat(await fileOf(photos[1] ?? ""))).isFile()).toBe(true);
});

test("a file that one account cannot be given goes to another one, and the run says why", async () => {
  const far = await startSpine({
    workers: 0,
    apps: [
      makeApp({
        id: "far",
        signupGrant: 100,
        models: { generation: { default: "flux-dev", allowed: ["flux-dev"] } },
        routing: { generation: { by: "order", order: ["runpod", "replicate"] } },
      }),
    ],
    env: { AI_PROVIDER: "sandbox,sandbox:runpod", RUNPOD_ENDPOINTS: "own/flux-dev@A40=own-flux-a40" },
  });
  try {
    await far.startWorker({ SANDBOX_URL: far.sandbox.url.replace("127.0.0.1", "0.0.0.0") });
    const input = { prompt: "the same at night", image: await upload(5, far) };
    const { id } = await far.submit({ kind: "generation", user: "ann", input });
    await far.until(id, (job) => job.runs.some(({ status }) => status !== "submitting"));
    const [run] = await far.sql`select provider, input from runs where job_id = ${id}`;
    expect(run).toMatchObject({ provider: "sandbox", input: { image: expect.stringMatching(/\/files\//) } });
    const [{ routeWhy } = {}] = (await far.ended(id)).runs;
    expect(routeWhy).toMatch(/^sandbox: number 2 in line; sandbox_runpod_a40 cannot be given the file/);
    expect(far.sandbox.bill().lines.map(({ face }) => face)).toEqual(["replicate"]);
    expect(await far.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  } finally {
    await far.stop();
  }
}, 60_000);

describe("an order that was put off", () => {
  const postponed = async (id: string) => {
    const held = () =>
      spine.sql`select input from runs where job_id = ${id} and status = 'submitting' and not_before > now()`;
    await expect.poll(async () => (await held()).length, { timeout: 10_000 }).toBe(1);
    return (await held())[0]?.["input"];
  };
  /** The provider is in order again, and what waits is due. */
  const goOn = async () => {
    spine.sandbox.faults.clear();
    await spine.sql`delete from provider_states`;
    await spine.sql`update runs set not_before = now() where status = 'submitting'`;
    await spine.sql`update jobs set due_at = now() where ended_at is null and lease_until is null`;
  };
  const sent = async (id: string) => (await spine.sql`select input from runs where job_id = ${id}`)[0]?.["input"];

  test("keeps the addresses that its files were given, and gets new ones when it has waited for half a day", async () => {
    const put = async (number: number) => {
      await goOn();
      spine.sandbox.faults.add({ fault: "rate_limited" });
      const { id } = await edit(await upload(number));
      return { id, before: await postponed(id) };
    };
    const young = await put(3);
    const old = await put(4);
    // Addresses tell their end in whole seconds.
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    await spine.sql`update jobs set created_at = created_at - interval '13 hours' where id = ${old.id}`;
    await goOn();
    for (const { id } of [young, old]) expect((await spine.ended(id, 60_000)).status).toBe("completed");
    expect(await sent(young.id)).toEqual(young.before);
    const after = await sent(old.id);
    expect(after).not.toEqual(old.before);
    // Nothing else has changed: neither the seed, by which it can be found, nor the file itself.
    const plain = (input: unknown) => JSON.stringify(input).replaceAll(/\?expires=[^"]*/g, "");
    expect(plain(after)).toBe(plain(old.before));
  }, 90_000);

  test("is tried again when its turn is promised, however long it has waited already", async () => {
    await goOn();
    spine.sandbox.faults.add({ fault: "rate_limited" });
    const { id } = await edit(await upload(5));
    await postponed(id);
    spine.sandbox.faults.clear();
    await spine.sql`update jobs set created_at = created_at - interval '1 hour' where id = ${id}`;
    // One order in five seconds, and none is free now.
    await spine.sql`
      update provider_states set pace = 0.2, paced_at = now(), throttles = 1, not_before = null, promised_at = null,
        level = 0, refilled_at = now()
      where provider = 'sandbox'`;
    await spine.sql`update runs set not_before = now() where job_id = ${id}`;
    await spine.sql`update jobs set due_at = now() where id = ${id} and lease_until is null`;
    expect((await spine.ended(id, 60_000)).status).toBe("completed");
    const waits = await spine.sql`
      select (extract(epoch from (detail->>'until')::timestamptz - at) * 1000)::float8 as ms, detail->'failure'->>'detail' as why
      from job_events where job_id = ${id} and type = 'postponed' order by version`;
    expect(waits).toHaveLength(2);
    const wait = waits[1];
    const promisedMs = Number(/promised in (\d+) ms/.exec(wait?.["why"])?.[1]);
    expect(promisedMs).toBeGreaterThan(1_000);
    expect(wait?.["ms"]).toBe(promisedMs);
    await goOn();
  }, 90_000);

  test("is not bought when its user's trained model was deleted meanwhile", async () => {
    const { id: model } = await training(await uploads(20, 4));
    expect((await spine.ended(model, 60_000)).status).toBe("completed");
    const bought = spine.sandbox.bill().lines.length;
    spine.sandbox.faults.add({ fault: "rate_limited" });
    const { id } = await spine.submit({
      kind: "generation",
      user: "tom",
      input: { prompt: "ZQX", trainedModel: model },
    });
    await postponed(id);
    await deleteTrainedModel(spine.db, "demo", "tom", model);
    await goOn();
    const job = await spine.ended(id, 60_000);
    expect(job).toMatchObject({ status: "failed", failure: { code: "model_not_found" }, settlement: { kept: 0 } });
    expect(spine.sandbox.bill().lines).toHaveLength(bought);
  }, 120_000);
});

test("an archive whose file is gone from the store is made again, at the same place", async () => {
  const photos = await uploads(20, 4);
  const archive = await fileOf("archive");
  const before = await stat(archive);
  await rm(archive);
  expect((await spine.ended((await training(photos)).id, 60_000)).status).toBe("completed");
  expect((await stat(archive)).size).toBe(before.size);
  expect(await spine.sql`select 1 from assets where role = 'archive'`).toHaveLength(1);
}, 120_000);
