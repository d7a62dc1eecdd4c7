import { afterAll, beforeAll, expect, test } from "vitest";
import { createKey } from "../src/db/keys.ts";
import { UNLIMITED } from "../src/domain/app.ts";
import { makeApp } from "./rig/apps.ts";
import { photo } from "./rig/pictures.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

const portraits = makeApp({
  id: "portraits",
  signupGrant: 1_000,
  plans: { one: { ...UNLIMITED, maxModels: 1 } },
  defaultPlan: "one",
});

let spine: Spine;
let photos: string[];
beforeAll(async () => {
  spine = await startSpine({ apps: [portraits, makeApp({ id: "other" })], speed: 20 });
  photos = [];
  for (let index = 0; index < 4; index++) {
    const headers = { "content-type": "application/octet-stream" };
    const { body } = await spine.call("POST", "/api/uploads", { body: await photo(index), headers });
    photos.push(body.id);
  }
}, 60_000);
afterAll(async () => {
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  await spine?.stop();
});

const wish = (user: string) => ({
  kind: "training",
  user,
  input: { photos, triggerWord: "ZQX", steps: 500, name: "me", task: "face" },
});
const post = (body: unknown) =>
  spine.call("POST", "/api/jobs", { body, headers: { "idempotency-key": crypto.randomUUID() } });

test("a user's trained model is listed with what can use it, deleted, and its place in the plan is free again", async () => {
  const job = await spine.submit(wish("ann"));
  expect(job.trainedModel).toMatchObject({
    id: job.id,
    status: "training",
    name: "me",
    triggerWord: "ZQX",
    task: "face",
  });
  expect(job.inputs).toHaveProperty("photos/3");
  const path = `/api/trained-models/${job.id}?user=ann`;
  expect((await spine.call("GET", path)).body).toMatchObject({ status: "training", readyAt: null });
  expect(await spine.call("DELETE", path)).toMatchObject({
    status: 409,
    body: { code: "still_training", detail: expect.stringContaining(`/api/jobs/${job.id}/cancel`) },
  });
  await spine.ended(job.id, 60_000);

  const { body: model } = await spine.call("GET", path);
  expect(model).toMatchObject({
    id: job.id,
    job: job.id,
    name: "me",
    status: "ready",
    family: "flux",
    triggerWord: "ZQX",
    task: "face",
    steps: 500,
    photos: 4,
    models: ["flux-schnell-lora", "flux-dev-lora"],
  });
  expect(model.quality).toBeGreaterThan(0);
  expect(model.quality).toBeLessThanOrEqual(100);
  expect(model.readyAt).not.toBeNull();
  expect((await spine.call("GET", "/api/trained-models?user=ann")).body).toEqual({ trainedModels: [model] });
  expect((await spine.call("GET", `/api/jobs/${job.id}`)).body.trainedModel.status).toBe("ready");
  const listed = await spine.call("GET", "/api/jobs?kind=training");
  expect(listed.body.jobs[0].inputs).toEqual({});

  expect(await post(wish("ann"))).toMatchObject({ status: 403, body: { code: "too_many_models" } });
  expect((await spine.call("DELETE", path)).status).toBe(204);
  expect((await spine.call("DELETE", path)).status).toBe(404);
  expect((await spine.call("GET", path)).status).toBe(404);
  expect((await spine.call("GET", "/api/trained-models?user=ann")).body).toEqual({ trainedModels: [] });
  expect((await spine.call("GET", `/api/jobs/${job.id}`)).body.trainedModel.status).toBe("deleted");
  const use = { kind: "generation", user: "ann", input: { prompt: "ZQX", trainedModel: job.id } };
  expect(await post(use)).toMatchObject({ status: 422, body: { errors: [{ pointer: "/input/trainedModel" }] } });
  const next = await spine.submit(wish("ann"));
  expect(await spine.ended(next.id, 60_000)).toMatchObject({ status: "completed" });
}, 120_000);

test("nobody else's model can be seen or deleted, and the user has to be named", async () => {
  const { body } = await spine.call("GET", "/api/trained-models?user=ann");
  const id = body.trainedModels[0].id;
  const key = await createKey(spine.db, "other", "test");
  for (const method of ["GET", "DELETE"]) {
    expect((await spine.call(method, `/api/trained-models/${id}?user=bob`)).status).toBe(404);
    expect((await spine.call(method, `/api/trained-models/${id}?user=ann`, { key })).status).toBe(404);
    expect((await spine.call(method, `/api/trained-models/${id}`)).status).toBe(422);
  }
  expect((await spine.call("GET", "/api/trained-models?user=ann", { key })).body).toEqual({ trainedModels: [] });
});

test("with photos=check a quote says something of every photo, and the price of the whole", async () => {
  const { status, body } = await spine.call("POST", "/api/quotes?photos=check", { body: wish("bea") });
  expect(status).toBe(201);
  expect(body).toMatchObject({ credits: 6, sufficient: true });
  expect(body.photos.map((each: { verdict: string }) => each.verdict)).toEqual(["taken", "taken", "taken", "taken"]);
  const job = await spine.submit({ ...wish("bea"), quote: body.id });
  expect(job).toMatchObject({ quote: body.id, price: { credits: 6 } });
  await spine.call("POST", `/api/jobs/${job.id}/cancel`);
  await spine.ended(job.id, 60_000);
}, 90_000);
