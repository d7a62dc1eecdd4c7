import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { demo } from "../apps/demo.ts";
import { UNLIMITED } from "../src/domain/app.ts";
import { arrange, type StepState, takeTurn } from "../src/domain/pipeline.ts";
import type { PipelineJson } from "../src/pipeline-json.ts";
import { type Backend, startBackend } from "./rig/backend.ts";
import { makeProcesses } from "./rig/processes.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

describe("what is to be done next", () => {
  const step = (name: string, after: string[], more: Partial<StepState> = {}): StepState => ({
    name,
    after,
    status: "waiting",
    job: null,
    ...more,
  });

  test("is to start what waits for nothing, and then what it has been waiting for", () => {
    const pack = [step("train", []), step("one", ["train"]), step("two", ["train"])];
    expect(takeTurn(pack, false)).toMatchObject({ start: ["train"], end: null });
    const trained = [step("train", [], { status: "running", job: "completed" }), ...pack.slice(1)];
    expect(takeTurn(trained, false)).toEqual({
      statuses: ["completed", "waiting", "waiting"],
      start: ["one", "two"],
      stop: [],
      end: null,
    });
  });

  test("is believed of the job where somebody died before the step could say so", () => {
    expect(takeTurn([step("a", [], { job: "pending" })], false)).toMatchObject({ statuses: ["running"], start: [] });
    expect(takeTurn([step("a", [], { job: "completed" })], false)).toMatchObject({ end: "completed" });
  });

  test("is nothing but what does not wait for a failed step, and then to have failed", () => {
    const failed = step("a", [], { status: "failed", job: "failed" });
    const steps = [failed, step("b", ["a"]), step("c", [], { status: "running", job: "processing" })];
    expect(takeTurn(steps, false)).toMatchObject({ start: [], end: null });
    expect(takeTurn([failed, step("b", ["a"]), step("d", [])], false)).toMatchObject({ start: ["d"], end: null });
    const over = takeTurn([failed, step("b", ["a"]), step("c", [], { job: "completed" })], false);
    expect(over).toMatchObject({ statuses: ["failed", "waiting", "completed"], end: "failed" });
  });

  test("is to stop what runs of a canceled one, which is completed nevertheless if everything was", () => {
    const steps = [step("a", [], { status: "running", job: "processing" }), step("b", ["a"])];
    expect(takeTurn(steps, true)).toEqual({ statuses: ["running", "canceled"], start: [], stop: ["a"], end: null });
    expect(takeTurn([step("a", [], { job: "canceled" }), step("b", ["a"])], true)).toMatchObject({ end: "canceled" });
    expect(takeTurn([step("a", [], { job: "completed" })], true)).toMatchObject({ end: "completed" });
  });

  test("is found in the order of the steps' needs, and refused where they wait in a circle", () => {
    const plan = (name: string, after?: string[], uses: string | null = null) =>
      ({ name, kind: name.startsWith("t") ? "training" : "generation", after, uses }) as const;
    expect(arrange([plan("t"), plan("a", undefined, "t"), plan("b", ["a"], "t")])).toEqual({
      ok: true,
      after: [[], ["t"], ["a", "t"]],
    });
    const circle = arrange([plan("x", ["y"]), plan("y", ["z"]), plan("z", ["x"]), plan("last", ["z"]), plan("first")]);
    expect(circle.ok ? [] : circle.problems.map(({ pointer }) => pointer)).toEqual([
      "/steps/0/after",
      "/steps/1/after",
      "/steps/2/after",
    ]);
  });
});

let backend: Backend;
let spine: Spine;
beforeAll(async () => {
  backend = await startBackend();
  spine = await startSpine({ env: { CALLBACK_ORIGINS: backend.origin } });
}, 90_000);
afterAll(async () => {
  await spine?.stop();
  await backend?.close();
});

const post = (at: Spine, body: Record<string, unknown>, key: string = crypto.randomUUID()) =>
  at.call("POST", "/api/pipelines", { body, headers: { "idempotency-key": key } });
const ended = async (at: Spine, id: string, ms = 40_000): Promise<PipelineJson> => {
  const read = async () => (await at.call("GET", `/api/pipelines/${id}`)).body;
  await expect.poll(read, { timeout: ms, interval: 200 }).toMatchObject({ endedAt: expect.any(String) });
  return read();
};
const image = (name: string, more: Record<string, unknown> = {}, after?: string[]) => ({
  name,
  kind: "generation",
  input: { prompt: `step ${name}`, width: 256, height: 256, ...more },
  ...(after ? { after } : {}),
});
const statuses = (pipeline: PipelineJson) => pipeline.steps.map(({ status }) => status);
const available = async (at: Spine, user: string): Promise<number> =>
  (await at.call("GET", `/api/credits/${user}`)).body.available;
const whole = { drift: 0, unsettled: 0, unexplainedRuns: [] };

/** A picture of shapes, another one for each seed. */
async function photo(seed: number): Promise<Buffer> {
  let random = seed * 7_919 + 13;
  const next = (below: number) => {
    random = (random * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((random / 2_147_483_648) * below);
  };
  const shapes = Array.from(
    { length: 30 },
    () =>
      `<circle cx="${next(640)}" cy="${next(640)}" r="${10 + next(120)}" fill="rgb(${next(255)},${next(255)},${next(255)})"/>`,
  );
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="640" height="640"><rect width="640" height="640" fill="#789"/>${shapes.join("")}</svg>`;
  return sharp(Buffer.from(svg)).jpeg({ quality: 90 }).toBuffer();
}

async function photos(at: Spine): Promise<string[]> {
  const ids: string[] = [];
  for (let seed = 1; seed <= 4; seed++) {
    const headers = { "content-type": "image/jpeg" };
    const { body } = await at.call("POST", "/api/uploads", { body: await photo(seed), headers });
    ids.push(body.id);
  }
  return ids;
}

const pack = (ids: string[], user: string, more: Record<string, unknown> = {}) => ({
  user,
  name: "headshots",
  metadata: { order: 81 },
  steps: [
    { name: "train", kind: "training", input: { photos: ids, name: "me", triggerWord: "MEEE" } },
    {
      name: "office",
      kind: "generation",
      input: { prompt: "MEEE in an office", images: 2, trainedModel: { step: "train" } },
    },
    { name: "beach", kind: "generation", input: { prompt: "MEEE on a beach", trainedModel: { step: "train" } } },
  ],
  ...more,
});

describe("a headshot pack", () => {
  test("trains, makes what was asked for with the model, charges each step when it begins, and tells its end", async () => {
    const body = pack(await photos(spine), "ann", { callbackUrl: `${backend.origin}/pack` });
    const before = 200;
    const answer = await post(spine, body, "pack-of-ann");
    expect(answer.status).toBe(202);
    const { total } = answer.body.credits;
    expect(answer.body).toMatchObject({
      status: "running",
      name: "headshots",
      credits: { charged: 0, open: total },
      balance: { available: before, covers: true },
    });
    expect(total).toBe(answer.body.steps.reduce((sum: number, step: { credits: number }) => sum + step.credits, 0));
    expect(answer.body.steps.map((step: { after: string[] }) => step.after)).toEqual([[], ["train"], ["train"]]);

    const done = await ended(spine, answer.body.id);
    expect(statuses(done)).toEqual(["completed", "completed", "completed"]);
    expect(done).toMatchObject({ status: "completed", credits: { charged: total, kept: total, refunded: 0, open: 0 } });
    const [train, office] = done.steps;
    expect(office?.input).toMatchObject({ trainedModel: train?.job });
    const { body: job } = await spine.call("GET", `/api/jobs/${office?.job}`);
    expect(job).toMatchObject({ status: "completed", metadata: { order: 81 } });
    expect(job.resultUrls).toHaveLength(2);
    const [run] = await spine.sql`select input from runs where job_id = ${office?.job ?? ""} limit 1`;
    expect(JSON.stringify(run?.["input"])).toMatch(/lora_weights/);
    expect(await available(spine, "ann")).toBe(before - total);

    await expect.poll(() => backend.received.length, { timeout: 10_000 }).toBe(1);
    const [told] = backend.genuine(spine);
    expect(told).toMatchObject({
      type: "pipeline.completed",
      data: { id: done.id, status: "completed", metadata: { order: 81 }, credits: { kept: total } },
    });

    const again = await post(spine, body, "pack-of-ann");
    expect(again.headers.get("idempotency-replayed")).toBe("true");
    expect(again.body).toMatchObject({ id: done.id, status: "completed" });
    const other = await post(spine, { ...body, name: "other" }, "pack-of-ann");
    expect([other.status, other.body.code]).toEqual([422, "idempotency_key_reused"]);
    expect(await spine.audit()).toEqual(whole);
  }, 90_000);

  test("whose training fails is resumed with a new training, and its pictures are made with the new model", async () => {
    const ids = await photos(spine);
    spine.sandbox.faults.add({ fault: "fail", match: { model: "ostris/flux-dev-lora-trainer" }, times: 1 });
    const { body } = await post(spine, pack(ids, "bob"));
    const failed = await ended(spine, body.id);
    expect(failed.status).toBe("failed");
    expect(statuses(failed)).toEqual(["failed", "waiting", "waiting"]);
    expect(failed.steps[0]).toMatchObject({ failure: { code: "interrupted" }, settlement: { kept: 0 } });
    expect(await available(spine, "bob")).toBe(200);

    const resumed = await spine.call("POST", body.links.resume);
    expect(resumed).toMatchObject({ status: 202, body: { status: "running", endedAt: null } });
    // Sent twice, it is resumed once.
    expect((await spine.call("POST", body.links.resume)).status).toBe(202);
    const done = await ended(spine, body.id);
    expect(statuses(done)).toEqual(["completed", "completed", "completed"]);
    expect(done.steps.map(({ attempt }) => attempt)).toEqual([2, 1, 1]);
    expect(done.steps[0]?.job).not.toBe(failed.steps[0]?.job);
    for (const step of done.steps.slice(1)) expect(step.input).toMatchObject({ trainedModel: done.steps[0]?.job });
    expect(await available(spine, "bob")).toBe(200 - done.credits.total);
    expect(await spine.audit()).toEqual(whole);
  }, 90_000);
});

test("a failed step is bought again when it is resumed, and nothing that had completed or could go on without it", async () => {
  spine.sandbox.faults.add({ fault: "nsfw", match: { promptContains: "step brittle" }, times: 1 });
  const { body } = await post(spine, {
    user: "carl",
    callbackUrl: `${backend.origin}/carl`,
    steps: [
      image("first"),
      image("brittle", {}, ["first"]),
      image("beside", {}, ["first"]),
      image("last", {}, ["brittle"]),
    ],
  });
  const failed = await ended(spine, body.id);
  expect(failed.status).toBe("failed");
  expect(statuses(failed)).toEqual(["completed", "failed", "completed", "waiting"]);
  expect(failed.credits).toMatchObject({ total: 4, charged: 3, kept: 2, refunded: 1, open: 1 });
  expect((await spine.call("POST", body.links.resume)).status).toBe(202);
  const done = await ended(spine, body.id);
  expect(statuses(done)).toEqual(["completed", "completed", "completed", "completed"]);
  expect(done.credits).toMatchObject({ charged: 5, kept: 4, refunded: 1 });
  for (const index of [0, 2]) expect(done.steps[index]?.job).toBe(failed.steps[index]?.job);
  const [row] = await spine.sql`select count(*)::int as jobs from jobs where pipeline_id = ${body.id}`;
  expect(row?.["jobs"]).toBe(5);
  await expect.poll(() => backend.received.filter(({ path }) => path === "/carl").length, { timeout: 10_000 }).toBe(2);
  const told = backend.genuine(spine).filter(({ data }) => data.id === body.id);
  expect(told.map(({ type }) => type)).toEqual(["pipeline.failed", "pipeline.completed"]);

  for (const what of ["resume", "cancel"]) {
    const answer = await spine.call("POST", body.links[what]);
    expect([answer.status, answer.body.code]).toEqual([409, "already_ended"]);
  }
  expect(await spine.audit()).toEqual(whole);
}, 60_000);

test("one that fails a second time has a second end to tell", async () => {
  const { body } = await post(spine, {
    user: "carla",
    callbackUrl: `${backend.origin}/carla`,
    steps: [image("never", { prompt: "[sandbox: nsfw]" })],
  });
  for (let times = 1; times <= 2; times++) {
    expect((await ended(spine, body.id)).status).toBe("failed");
    await expect
      .poll(() => backend.received.filter(({ path }) => path === "/carla").length, { timeout: 10_000 })
      .toBe(times);
    if (times === 1) await spine.call("POST", body.links.resume);
  }
  const told = backend.received.filter(({ path }) => path === "/carla");
  expect(new Set(told.map(({ headers }) => headers["webhook-id"])).size).toBe(2);
}, 60_000);

test("a step that the user cannot pay fails there, says so, and goes on when credits have come and it is resumed", async () => {
  const { body } = await post(spine, {
    user: "dora",
    steps: [
      image("cheap"),
      { name: "film", kind: "video", input: { prompt: "x" }, after: ["cheap"] },
      image("never", {}, ["film"]),
    ],
  });
  expect(body.balance).toEqual({ available: 200, covers: true });
  await spine.sql`select post_entry('demo', 'dora', 'adjustment', 'balance', -190, null, null, 'spent elsewhere', '{}')
    from lock_account('demo', 'dora')`;
  const failed = await ended(spine, body.id);
  expect(statuses(failed)).toEqual(["completed", "failed", "waiting"]);
  expect(failed.steps[1]).toMatchObject({
    job: null,
    problem: { code: "insufficient_credits", status: 402, required: 20 },
  });
  const grant = { body: { credits: 100 }, headers: { "idempotency-key": "for-dora" } };
  await spine.call("POST", "/api/credits/dora/grants", grant);
  await spine.call("POST", body.links.resume);
  const done = await ended(spine, body.id);
  expect(statuses(done)).toEqual(["completed", "completed", "completed"]);
  expect(done.steps.map(({ problem }) => problem)).toEqual([null, null, null]);
  expect(await spine.audit()).toEqual(whole);
}, 60_000);

test("a canceled pipeline stops what runs, starts nothing more, gives back what was not delivered, and says so", async () => {
  const { body } = await post(spine, {
    user: "emil",
    callbackUrl: `${backend.origin}/emil`,
    steps: [image("slow", { prompt: "[sandbox: slow=60]" }), image("later", {}, ["slow"])],
  });
  await expect
    .poll(async () => (await spine.call("GET", body.links.self)).body.steps[0].status, { timeout: 10_000 })
    .toBe("running");
  expect((await spine.call("POST", body.links.cancel)).status).toBe(202);
  const done = await ended(spine, body.id);
  expect(done).toMatchObject({ status: "canceled", credits: { charged: 1, kept: 0, refunded: 1 } });
  expect(statuses(done)).toEqual(["canceled", "canceled"]);
  expect((await spine.call("POST", body.links.cancel)).status).toBe(202);
  await expect.poll(() => backend.received.some(({ path }) => path === "/emil"), { timeout: 10_000 }).toBe(true);
  expect(backend.genuine(spine).at(-1)).toMatchObject({ type: "pipeline.canceled", data: { id: body.id } });
  expect(await available(spine, "emil")).toBe(200);
  expect(await spine.audit()).toEqual(whole);
}, 60_000);

describe("a pipeline is refused, with the field", () => {
  const cases: [string, unknown[], string, RegExp][] = [
    ["of a circle", [image("a", {}, ["b"]), image("b", {}, ["a"])], "/steps/0/after", /waits for itself/],
    ["of two steps of one name", [image("a"), image("a")], "/steps/1/name", /earlier step/],
    ["of an unknown forerunner", [image("a", {}, ["b"])], "/steps/0/after/0", /names the step "b"/],
    ["of an unknown model", [image("a", { trainedModel: { step: "b" } })], "/steps/0/input/trainedModel", /only: a/],
    [
      "whose model is made by no training",
      [image("a"), image("b", { trainedModel: { step: "a" } })],
      "/steps/1/input/trainedModel",
      /only a training/,
    ],
    ["of a strange reference", [image("a", { trainedModel: { job: "b" } })], "/steps/0/input/trainedModel", /"step"/],
    ["of an input that is none", [image("a"), image("b", { prompt: "" })], "/steps/1/input/prompt", /./],
    ["of more steps than a model takes", [image("a", { steps: 99 })], "/steps/0/input/steps", /takes 1 to 4/],
    [
      "of a missing file",
      [{ name: "a", kind: "staging", input: { image: crypto.randomUUID() } }],
      "/steps/0/input/image",
      /upload/,
    ],
    ["of a bad name", [image("A b")], "/steps/0/name", /lower-case/],
  ];
  test.each(cases)("%s", async (_, steps, pointer, why) => {
    const { status, body } = await post(spine, { user: "nobody", steps });
    expect([status, body.errors?.[0]?.pointer]).toEqual([422, pointer]);
    expect(body.errors[0].detail).toMatch(why);
  });

  test("whose model is trained for another family", async () => {
    const steps = [
      { name: "train", kind: "training", model: "sdxl-lora-trainer", input: { photos: await photos(spine) } },
      { ...image("made", { trainedModel: { step: "train" } }), model: "flux-dev-lora" },
    ];
    const { status, body } = await post(spine, { user: "nobody", steps });
    expect([status, body.errors[0].pointer]).toEqual([422, "/steps/1/input/trainedModel"]);
    expect(body.detail).toMatch(/trained for sdxl, and the model flux-dev-lora loads flux/);
    // Without a model of its own it takes one that fits.
    const fitting = await post(spine, {
      user: "sdxl",
      steps: [steps[0], image("made", { trainedModel: { step: "train" } })],
    });
    expect(fitting.body.steps[1].model).toBe("sdxl");
    await spine.call("POST", fitting.body.links.cancel);
    await ended(spine, fitting.body.id);
  }, 60_000);

  test("and nothing of it is kept", async () => {
    expect(await available(spine, "nobody").catch(() => undefined)).toBeUndefined();
    const [row] = await spine.sql`select count(*)::int as kept from pipelines where user_id = 'nobody'`;
    expect(row?.["kept"]).toBe(0);
  });
});

test("the list of a user's pipelines has the newest first, page by page, and nobody else's", async () => {
  const ids: string[] = [];
  for (const name of ["one", "two", "three"])
    ids.unshift((await post(spine, { user: "lister", name, steps: [image("a")] })).body.id);
  const first = await spine.call("GET", "/api/pipelines?user=lister&limit=2");
  expect(first.body.pipelines.map(({ id }: { id: string }) => id)).toEqual(ids.slice(0, 2));
  const second = await spine.call("GET", `/api/pipelines?user=lister&limit=2&cursor=${first.body.nextCursor}`);
  expect(second.body).toMatchObject({ pipelines: [{ id: ids[2] }], nextCursor: null });
  const key = await spine.keyFor("virtual-staging");
  expect((await spine.call("GET", "/api/pipelines?user=lister", { key })).body.pipelines).toEqual([]);
  for (const [method, path] of [
    ["GET", ""],
    ["POST", "/cancel"],
    ["POST", "/resume"],
  ] as const)
    expect((await spine.call(method, `/api/pipelines/${ids[0]}${path}`, { key })).status).toBe(404);
  for (const id of ids) await ended(spine, id);
}, 60_000);

describe("whoever dies in the middle", () => {
  let own: Spine;
  beforeAll(async () => {
    const app = {
      ...demo,
      plans: { default: { ...UNLIMITED, rates: { video: { max: 1, seconds: 3 } } } },
    };
    own = await startSpine({ workers: 0, apps: [app] });
  }, 60_000);
  afterAll(async () => {
    await own?.stop();
  });
  const three = (user: string) => ({ user, steps: [image("a"), image("b", {}, ["a"]), image("c", {}, ["a"])] });

  test("between a step's acceptance and its note leaves a step that is bought once", async () => {
    const { body } = await post(own, three("halfway"));
    // As if the job were accepted, and the step did not know.
    await own.sql`
      select * from accept_jobs((select jsonb_agg(request) from pipeline_steps where pipeline_id = ${body.id} and ord = 0))`;
    expect((await own.call("GET", body.links.self)).body.steps[0].status).toBe("waiting");
    const worker = await own.startWorker();
    const done = await ended(own, body.id);
    expect(done).toMatchObject({ status: "completed", credits: { charged: 3, kept: 3 } });
    await worker.stop();
    expect(await own.audit()).toEqual(whole);
  }, 60_000);

  test("at any point of the way has it done again by another, once", async () => {
    const processes = await makeProcesses(own);
    try {
      for (const point of ["pipeline.claimed", "pipeline.started"]) {
        const { body } = await post(own, three(point));
        const doomed = await processes.start("worker", { FAULT: `${point}@${body.id}=kill` });
        expect(await doomed.ended, point).toBe("SIGKILL");
        const worker = await own.startWorker({ FAULT: `${point}@${body.id}=throw` });
        // Its claim lapses after 30 s; a test does not wait for that.
        await own.sql`update pipelines set due_at = now() where id = ${body.id}`;
        const done = await ended(own, body.id);
        expect(done, point).toMatchObject({ status: "completed", credits: { charged: 3, kept: 3 } });
        await worker.stop();
      }
      expect(await own.audit()).toEqual(whole);
    } finally {
      await processes.close();
    }
  }, 120_000);

  test("leaves two workers that never buy a step twice, however many pipelines there are", async () => {
    const bodies = await Promise.all(Array.from({ length: 8 }, (_, index) => post(own, three(`crowd-${index}`))));
    const workers = await Promise.all([own.startWorker(), own.startWorker()]);
    // Both look at the same ones again and again.
    const pushing = setInterval(
      () => void own.sql`update pipelines set due_at = now() where due_at is not null`.catch(() => {}),
      100,
    );
    for (const { body } of bodies)
      expect(await ended(own, body.id, 60_000)).toMatchObject({
        status: "completed",
        credits: { charged: 3, kept: 3 },
      });
    clearInterval(pushing);
    await Promise.all(workers.map((worker) => worker.stop()));
    expect(await own.audit()).toEqual(whole);
  }, 120_000);

  test("is no matter to a step that has to wait for its turn: it is started when the limit allows it", async () => {
    const film = (name: string) => ({ name, kind: "video", input: { prompt: `film ${name}` } });
    const { body } = await post(own, { user: "hasty", steps: [film("one"), film("two")] });
    const worker = await own.startWorker();
    await expect
      .poll(async () => (await own.call("GET", body.links.self)).body.steps, { timeout: 15_000, interval: 100 })
      .toContainEqual(
        expect.objectContaining({ status: "waiting", problem: expect.objectContaining({ code: "rate_limited" }) }),
      );
    const done = await ended(own, body.id);
    expect(statuses(done)).toEqual(["completed", "completed"]);
    expect(done.steps.map(({ problem }) => problem)).toEqual([null, null]);
    await worker.stop();
    expect(await own.audit()).toEqual(whole);
  }, 60_000);

  test("does not start a step of a pipeline that was canceled this instant", async () => {
    const { body } = await post(own, three("too late"));
    await own.call("POST", body.links.cancel);
    const [row] = await own.sql`select outcome from start_pipeline_step(${body.id}, 0, 1)`;
    expect(row?.["outcome"]).toBe("stopped");
    const worker = await own.startWorker();
    expect(await ended(own, body.id)).toMatchObject({ status: "canceled", credits: { charged: 0 } });
    await worker.stop();
  }, 60_000);
});

test("a pipeline that is resumed goes on within the limits of the plan that the user has by then", async () => {
  const { body } = await post(spine, { user: "moved", steps: [image("only", { prompt: "[sandbox: nsfw]" })] });
  expect((await ended(spine, body.id)).status).toBe("failed");
  await spine.sql`
    update pipeline_steps set request = request
      || '{"rates": [{"subject": "user:moved", "action": "request", "max": 1, "seconds": 60}], "max_models": 1}'
    where pipeline_id = ${body.id}`;
  await spine.call("POST", body.links.resume);
  const [step] = await spine.sql`select request from pipeline_steps where pipeline_id = ${body.id}`;
  expect(step?.["request"]).toMatchObject({ rates: [], max_models: UNLIMITED.maxModels });
  await ended(spine, body.id);
  expect(await spine.audit()).toEqual(whole);
}, 60_000);
