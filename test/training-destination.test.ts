import { afterAll, beforeAll, expect, test } from "vitest";
import { photo } from "./rig/pictures.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ speed: 20 });
});
afterAll(async () => {
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  await spine.stop();
});

async function upload(bytes: Buffer): Promise<string> {
  const headers = { "content-type": "application/octet-stream" };
  return (await spine.call("POST", "/api/uploads", { body: bytes, headers })).body.id;
}

test("a training that was put off before its destination was known is sent as a training all the same, once", async () => {
  const photos = await Promise.all([0, 1, 2, 3].map(async (index) => upload(await photo(index))));
  spine.sandbox.faults.add({ fault: "down" });
  const { id } = await spine.submit({ kind: "training", user: "ann", input: { photos, steps: 500 } });
  await expect
    .poll(async () => (await spine.sql`select destination from runs where job_id = ${id}`).length, { timeout: 40_000 })
    .toBe(1);
  const [before] = await spine.sql`select destination, version, not_before from runs where job_id = ${id}`;
  expect(before).toMatchObject({ destination: null, version: null, not_before: expect.any(Date) });
  spine.sandbox.faults.clear();

  expect((await spine.ended(id, 60_000)).status).toBe("completed");
  const runs = await spine.sql`select destination, version, input from runs where job_id = ${id}`;
  expect(runs).toEqual([
    {
      destination: expect.stringMatching(/^sandbox\/demo-\d+$/),
      version: expect.stringMatching(/^[0-9a-f]{64}$/),
      input: expect.objectContaining({ steps: 500, trigger_word: "TOK" }),
    },
  ]);
  expect(spine.sandbox.bill().lines).toEqual([expect.objectContaining({ kind: "training" })]);
}, 120_000);
