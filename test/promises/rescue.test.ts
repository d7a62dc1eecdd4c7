import { createHash } from "node:crypto";
import sharp from "sharp";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { JobJson } from "../../src/job-json.ts";
import { makeProcesses, type Processes } from "../rig/processes.ts";
import { type Spine, startSpine } from "../rig/spine.ts";

/** The provider keeps what a run made for an hour after its end. Our workers are away for most of it, or for longer. */
let spine: Spine;
let processes: Processes;
beforeEach(async () => {
  spine = await startSpine({ workers: 0 });
  processes = await makeProcesses(spine);
});
afterEach(async () => {
  const found = await spine.audit();
  await processes.close();
  await spine.stop();
  expect(found).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const generation = (prompt: string) => ({
  kind: "generation",
  user: "ann",
  input: { prompt, images: 2, width: 512, height: 512 },
});

/**
 * So many minutes pass: the provider's clock moves on, and everything that our records say moves as far into the past.
 * The clock of Postgres itself cannot be moved; to a worker that comes afterwards the two are the same.
 */
async function pass(minutes: number): Promise<void> {
  spine.sandbox.advanceClock(minutes * 60_000);
  await spine.sql.unsafe(`
    update jobs set created_at = created_at - interval '${minutes} minutes',
      deadline_at = deadline_at - interval '${minutes} minutes', due_at = due_at - interval '${minutes} minutes',
      started_at = started_at - interval '${minutes} minutes', lease_until = lease_until - interval '${minutes} minutes';
    update runs set created_at = created_at - interval '${minutes} minutes',
      sent_at = sent_at - interval '${minutes} minutes', send_before = send_before - interval '${minutes} minutes',
      expires_at = expires_at - interval '${minutes} minutes', not_before = not_before - interval '${minutes} minutes',
      next_look_at = next_look_at - interval '${minutes} minutes'`);
}

const finishedThere = () =>
  expect
    .poll(() => spine.sandbox.bill().lines.map((line) => line.status), { timeout: 20_000 })
    .toEqual(["succeeded", "succeeded"]);

/** Both runs are out, the worker goes, and they end at the provider while nobody looks. */
async function leftOut(): Promise<string> {
  const worker = await spine.startWorker();
  const { id } = await spine.submit(generation("[sandbox: slow=3] left alone"));
  await spine.until(id, (job) => job.runs.filter((run) => run.status === "running").length === 2);
  await worker.stop();
  await finishedThere();
  expect((await spine.call("GET", `/api/jobs/${id}`)).body.runs[0].status).toBe("running");
  return id;
}

/** Both have ended, we know it, and the worker dies before it has fetched anything. */
async function leftUnfetched(): Promise<string> {
  spine.sandbox.faults.add({ fault: "output_slow", ms: 60_000 });
  const { id } = await spine.submit(generation("left unfetched"));
  const worker = await processes.start("worker");
  await spine.until(id, (job) => job.runs.filter((run) => run.status === "storing").length === 2, 40_000);
  process.kill(worker.pid, "SIGKILL");
  await worker.ended;
  spine.sandbox.faults.clear();
  return id;
}

async function expectDelivered(job: JobJson): Promise<void> {
  expect(job).toMatchObject({ status: "completed", settlement: { charged: 2, kept: 2, refunded: 0 } });
  for (const { file } of job.results) {
    const bytes = Buffer.from(await (await fetch(file?.url as string)).arrayBuffer());
    const { data, info } = await sharp(bytes, { failOn: "error" }).raw().toBuffer({ resolveWithObject: true });
    expect([data.length, info.width]).toEqual([info.width * info.height * info.channels, file?.width]);
    expect([bytes.length, createHash("sha256").update(bytes).digest("hex")]).toEqual([file?.bytes, file?.sha256]);
  }
}

async function expectRefunded(job: JobJson): Promise<void> {
  expect(job).toMatchObject({
    status: "failed",
    failure: { code: "output_unavailable" },
    settlement: { charged: 2, kept: 0, refunded: 2 },
  });
  expect((await spine.call("GET", "/api/credits/ann")).body.available).toBe(200);
  // Nobody is stuck with anything: no run is looked at any more, and nothing was bought again for it.
  expect(job.runs.map((run) => run.status)).toEqual(["failed", "failed"]);
  const waiting = await spine.sql`select id from runs where next_look_at is not null`;
  expect([waiting.length, spine.sandbox.bill().lines.length]).toEqual([0, 2]);
}

const WAYS = [
  ["that nobody knows to have ended", leftOut],
  ["that are known to have ended", leftUnfetched],
] as const;

describe.each(WAYS)("outputs of runs %s", (_, leave) => {
  test("are delivered whole by a worker that comes back after 50 minutes", async () => {
    const id = await leave();
    await pass(50);
    await spine.startWorker();
    await expectDelivered(await spine.ended(id, 40_000));
  }, 90_000);

  test("are gone after 61 minutes, and all credits are given back", async () => {
    const id = await leave();
    await pass(61);
    await spine.startWorker();
    await expectRefunded(await spine.ended(id, 40_000));
  }, 90_000);
});
