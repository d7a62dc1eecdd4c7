import { readFile } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { FAULT_POINTS, type FaultPoint } from "../src/fault-points.ts";
import type { JobJson } from "../src/job-json.ts";
import { makeProcesses, type Processes, type StartedProcess } from "./rig/processes.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

/**
 * Every named point of the way of a job and of its money: a process is killed exactly there, or stands still there
 * while another one takes over and then wakes up. Afterwards four records must agree: the job, the ledger, the
 * provider's bill, and the files.
 */
let spine: Spine;
let processes: Processes;
beforeAll(async () => {
  // Without workers of its own: the one that shall be struck must be the one that acts.
  spine = await startSpine({ workers: 0, webhooks: true });
  processes = await makeProcesses(spine);
});
afterAll(async () => {
  await processes?.close();
  await spine?.stop();
});

// None of one test acts in the next.
afterEach(() => processes.stopAll());

const STRUCK_MS = 90_000;
/** What leads to the points that an ordinary job does not pass. */
const PROMPTS: Partial<Record<FaultPoint, string>> = {
  // A callback would tell its id before anybody needs the list.
  "find.read": "[sandbox: cut, webhook_drop]",
  "cancel.sent": "[sandbox: slow=60]",
};
const AT_THE_API: readonly FaultPoint[] = ["accept.asked", "accept.committed", "webhook.verified", "webhook.noted"];
/** Not on the way of an ordinary job: test/batches, test/pipelines, test/callbacks and test/completed strike there. */
const ELSEWHERE: readonly FaultPoint[] = [
  "batch.part",
  "pipeline.claimed",
  "pipeline.started",
  "deliver.sent",
  "inline.kept",
];
const AT_A_WORKER = (Object.keys(FAULT_POINTS) as FaultPoint[]).filter(
  (point) => !AT_THE_API.includes(point) && !ELSEWHERE.includes(point),
);
/** Standing still differs from dying where the sleeper still holds an answer, or a transaction. */
const WORTH_STOPPING: readonly FaultPoint[] = [
  "apply.written",
  "submit.prepared",
  "submit.intended",
  "submit.answered",
  "watch.looked",
  "store.kept",
];

const body = (point: FaultPoint, action: string) => ({
  kind: "generation",
  user: `${action}-${point}`,
  input: { prompt: `${action} at ${point} ${PROMPTS[point] ?? ""}`, width: 512, height: 512 },
});

/** Resolves when the worker was struck: it is dead, or it stands still. */
async function struck(point: FaultPoint, program: StartedProcess, action: "kill" | "stop"): Promise<void> {
  const late = new Promise<string>((resolve) => setTimeout(resolve, STRUCK_MS, "nothing struck it").unref());
  if (action === "kill") return expect(await Promise.race([program.ended, late]), point).toBe("SIGKILL");
  await expect
    .poll(async () => /^State:\s+(\w)/m.exec(await readFile(`/proc/${program.pid}/status`, "utf8"))?.[1], {
      timeout: STRUCK_MS,
      interval: 100,
      message: point,
    })
    .toBe("T");
}

/** It acts on one job at a time: whoever is struck must not take another point's job with him, or that one is lost twice. */
const ALONE = { DATABASE_POOL: "2", WORKER_CONCURRENCY: "1" };

/** A job whose worker was struck at that point. */
async function strike(point: FaultPoint, action: "kill" | "stop"): Promise<{ id: string; program: StartedProcess }> {
  const { id } = await spine.submit(body(point, action));
  // Its entry is added after the answer: once it is gone, only the sweep can wake the job.
  if (point === "sweep.claimed")
    await expect
      .poll(async () => (await spine.sql`delete from bullmq.job where id = ${`${id}-0`} returning id`).length)
      .toBe(1);
  if (point === "abandon.recorded") {
    const first = await processes.start("worker", { FAULT: `submit.intended@${id}=kill`, ...ALONE });
    await struck("submit.intended", first, "kill");
  }
  const program = await processes.start("worker", { FAULT: `${point}@${id}=${action}`, ...ALONE });
  if (point === "cancel.sent") {
    await spine.until(id, (job) => job.runs[0]?.status === "running", STRUCK_MS);
    await spine.call("POST", `/api/jobs/${id}/cancel`);
  }
  await struck(point, program, action);
  return { id, program };
}

async function expectWhole(point: FaultPoint, id: string): Promise<JobJson> {
  const job = await spine.ended(id, 90_000);
  const bought = spine.sandbox.bill().lines.filter((line) => job.runs.some((run) => run.providerRunId === line.id));
  if (point === "cancel.sent") {
    expect(job, point).toMatchObject({ status: "canceled", settlement: { kept: 0, refunded: 1 } });
    expect(
      bought.map((line) => line.status),
      point,
    ).toEqual(["canceled"]);
    return job;
  }
  expect({ ...job, point }, `${point}: ${JSON.stringify(job.failure)}`).toMatchObject({
    status: "completed",
    settlement: { charged: 1, kept: 1, refunded: 0 },
  });
  expect(
    bought.map((line) => line.status),
    point,
  ).toEqual(["succeeded"]);
  const [file] = job.results;
  const bytes = Buffer.from(await (await fetch(localOf(file?.file?.url as string))).arrayBuffer());
  expect(bytes.length, point).toBe(file?.file?.bytes);
  return job;
}

/** The public address of this deployment is https, and ends at the API behind it. */
const localOf = (url: string) => url.replace(spine.config.PUBLIC_URL, spine.api.url);

describe("a worker", () => {
  test("killed at any point leaves a job that another one finishes: bought once, charged once, delivered whole", async () => {
    const jobs: { point: FaultPoint; id: string }[] = [];
    for (const point of AT_A_WORKER) jobs.push({ point, id: (await strike(point, "kill")).id });
    await Promise.all([processes.start("worker"), processes.start("worker")]);
    for (const { point, id } of jobs) await expectWhole(point, id);
    expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  }, 300_000);

  test("that stands still at any point and wakes up when another one has finished changes nothing", async () => {
    const sleepers: { point: FaultPoint; id: string; program: StartedProcess }[] = [];
    for (const point of WORTH_STOPPING) sleepers.push({ point, ...(await strike(point, "stop")) });
    await processes.start("worker");
    const before = new Map<string, unknown>();
    for (const { point, id } of sleepers) {
      await expectWhole(point, id);
      before.set(id, await spine.story(id));
    }
    const billed = spine.sandbox.bill().lines.length;
    for (const { program } of sleepers) process.kill(program.pid, "SIGCONT");
    // They finish what they were at, and find out that it is no longer theirs.
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    for (const { point, id } of sleepers) expect(await spine.story(id), point).toEqual(before.get(id));
    expect(spine.sandbox.bill().lines).toHaveLength(billed);
    for (const { program } of sleepers) expect(program.isRunning()).toBe(true);
  }, 300_000);
});

test.each(AT_THE_API)(
  "an API killed at %s leaves nothing half done: the same key gives one job, charged once",
  async (point) => {
    const worker = await spine.startWorker();
    const first = await processes.start("api", { FAULT: `${point}=kill` });
    const request = {
      method: "POST",
      headers: {
        authorization: `Bearer ${spine.key}`,
        "content-type": "application/json",
        "idempotency-key": `key-${point}`,
      },
      body: JSON.stringify(body(point, "kill")),
    };
    // Its callbacks go to the API that dies of them.
    if (point.startsWith("webhook.")) spine.sandbox.setWebhookRelay(first.url);
    const answer = await fetch(`${first.url}/api/jobs`, request).catch(() => null);
    expect(answer?.status ?? "no answer").toBe(point.startsWith("accept.") ? "no answer" : 202);
    await struck(point, first, "kill");
    spine.sandbox.setWebhookRelay(spine.api.url);
    const again = await fetch(`${spine.api.url}/api/jobs`, request);
    expect(again.status).toBe(202);
    const { id } = (await again.json()) as { id: string };
    await expectWhole(point, id);
    const entries = await spine.sql`select type from credit_ledger where user_id = ${`kill-${point}`} order by seq`;
    expect(entries.map((entry) => entry["type"])).toEqual(["grant", "charge"]);
    await worker.stop();
  },
  120_000,
);
