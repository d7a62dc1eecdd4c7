import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { JobJson } from "../../src/job-json.ts";
import { makeProcesses, type Processes, type StartedProcess } from "../rig/processes.ts";
import { type Spine, startSpine } from "../rig/spine.ts";

/** Workers as real processes, struck while the provider keeps them waiting: in the middle of an order, and of a download. */
let spine: Spine;
let processes: Processes;
beforeAll(async () => {
  spine = await startSpine({ workers: 0 });
  processes = await makeProcesses(spine);
});
afterAll(async () => {
  await processes?.close();
  await spine?.stop();
});
afterEach(async () => {
  await processes.stopAll();
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
/** Longer than a socket may wait for the provider's answer. */
const ANSWER_MS = 8_000;
const OUTPUT_MS = 30_000;

interface Caught {
  readonly worker: StartedProcess;
  /** Its order has arrived at the provider, and no answer has come back. */
  readonly ordering: string;
  /** Its output is trickling in. */
  readonly storing: string;
}

/** A worker that is in the middle of both. Whoever comes after it is served at once. */
async function catchOne(name: string): Promise<Caught> {
  const { faults, bill } = spine.sandbox;
  const submit = (prompt: string) =>
    spine.submit({ kind: "generation", user: name, input: { prompt: `${name} ${prompt}`, width: 512, height: 512 } });
  const worker = await processes.start("worker");
  const slowOutput = faults.add({ fault: "output_slow", ms: OUTPUT_MS, times: 1, match: { promptContains: name } });
  const storing = await submit("while it stores");
  const struck = (rule: { id: number }) => faults.list().find((each) => each.id === rule.id)?.struck;
  await expect.poll(() => struck(slowOutput), { timeout: 20_000 }).toBe(1);
  const before = bill().lines.length;
  faults.add({ fault: "slow_create", ms: ANSWER_MS, times: 1, match: { promptContains: name } });
  const ordering = await submit("while it orders");
  await expect.poll(() => bill().lines.length, { timeout: 20_000 }).toBe(before + 1);
  const [run] = await spine.sql`select status from runs where job_id = ${ordering.id}`;
  expect(run?.["status"]).toBe("submitting");
  return { worker, ordering: ordering.id, storing: storing.id };
}

async function expectWhole(id: string): Promise<JobJson> {
  const job = await spine.ended(id, 60_000);
  expect(job).toMatchObject({ status: "completed", settlement: { charged: 1, kept: 1, refunded: 0 } });
  const bought = spine.sandbox.bill().lines.filter((line) => line.id === job.runs[0]?.providerRunId);
  expect([job.runs.length, bought.map((line) => line.status)]).toEqual([1, ["succeeded"]]);
  const file = await fetch(job.resultUrls[0] as string);
  expect((await file.arrayBuffer()).byteLength).toBe(job.results[0]?.file?.bytes);
  return job;
}

test("a worker that stood still while it ordered and stored, and wakes up after the end, changes nothing", async () => {
  const { worker, ordering, storing } = await catchOne("sleeper");
  process.kill(worker.pid, "SIGSTOP");
  const second = await processes.start("worker");
  await Promise.all([expectWhole(ordering), expectWhole(storing)]);
  const takers = await spine.sql`select worker from jobs where id in ${spine.sql([ordering, storing])}`;
  for (const taker of takers) expect(taker["worker"]).toContain(`:${second.pid}:`);

  const before = [await spine.story(ordering), await spine.story(storing)];
  const bill = spine.sandbox.bill();
  const account = (await spine.call("GET", "/api/credits/sleeper")).body;
  process.kill(worker.pid, "SIGCONT");
  // It finds the answer to its order in the socket, and the rest of its output; and that neither is its own any more.
  await sleep(4_000);
  expect(worker.isRunning()).toBe(true);
  expect([await spine.story(ordering), await spine.story(storing)]).toEqual(before);
  expect(spine.sandbox.bill()).toEqual(bill);
  expect((await spine.call("GET", "/api/credits/sleeper")).body).toEqual(account);

  // It is none the worse for it: what comes now it does like any other.
  await second.stop();
  const { id } = await spine.submit({ kind: "generation", user: "sleeper", input: { prompt: "awake again" } });
  await expectWhole(id);
}, 120_000);

test("the jobs of a worker that was killed while it ordered and stored move again within 15 s", async () => {
  const { worker, ordering, storing } = await catchOne("victim");
  const second = await processes.start("worker");
  process.kill(worker.pid, "SIGKILL");
  const killedAt = performance.now();
  const movedAfter = async (moved: () => Promise<boolean>) => {
    while (!(await moved()) && performance.now() - killedAt < 60_000) await sleep(50);
    return (performance.now() - killedAt) / 1_000;
  };
  const isAnothers = async () => {
    const [row] = await spine.sql`select worker from jobs where id = ${storing}`;
    return String(row?.["worker"]).includes(`:${second.pid}:`);
  };
  // The order whose answer was lost with the worker is found in the provider's list.
  const isFound = async () => {
    const [row] = await spine.sql`select provider_run_id from runs where job_id = ${ordering}`;
    return row?.["provider_run_id"] !== null;
  };
  const [stored, found] = await Promise.all([movedAfter(isAnothers), movedAfter(isFound)]);
  expect(stored, "seconds until the job that was stored was taken over").toBeLessThan(15);
  expect(found, "seconds until the order was found").toBeLessThan(15);
  await Promise.all([expectWhole(ordering), expectWhole(storing)]);
}, 120_000);
