import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { webhookPath } from "../src/api/webhooks.ts";
import type { JobJson } from "../src/job-json.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

/**
 * An order that arrives at the provider long after it was presumed lost. Here it is sent by the test itself: the same
 * bytes, to the same address, later than any list or socket should allow.
 */
async function arriveLate(spine: Spine, run: { id: string; model: string }): Promise<string> {
  const [row] = await spine.sql`select input from runs where id = ${run.id}`;
  const https = spine.config.PUBLIC_URL.startsWith("https:");
  const webhook = `${spine.config.PUBLIC_URL}${webhookPath(spine.config.SIGNING_SECRET, "sandbox", run.id)}`;
  const answer = await fetch(`${spine.sandbox.url}/v1/models/${run.model}/predictions`, {
    method: "POST",
    headers: { authorization: "Bearer r8_sandbox", "content-type": "application/json" },
    body: JSON.stringify({
      input: row?.["input"],
      ...(https ? { webhook, webhook_events_filter: ["start", "completed"] } : {}),
    }),
  });
  expect(answer.status).toBe(201);
  return ((await answer.json()) as { id: string }).id;
}

const generation = (prompt: string, images = 1) => ({ kind: "generation", user: "ann", input: { prompt, images } });
const paid = (spine: Spine, id: string) => spine.sandbox.bill().lines.find((line) => line.id === id);
const lookNow = (spine: Spine) => spine.sql`update runs set next_look_at = now() where next_look_at is not null`;

/** Until what was presumed lost is booked. */
async function booked(spine: Spine, job: JobJson, runId: string): Promise<JobJson["runs"][number]> {
  const isBooked = (each: JobJson) => each.runs.some((run) => run.id === runId && run.costUsd !== null);
  const after = await spine.until(job.id, isBooked, 25_000);
  // What the customer has and paid is as it was.
  expect({ ...after, runs: [] }).toMatchObject({ status: job.status, settlement: job.settlement });
  return after.runs.find((run) => run.id === runId) as JobJson["runs"][number];
}

describe.each([
  ["that calls back", true],
  ["whose list alone tells", false],
])("a run that turns up after it was presumed lost, at a provider %s", (_, webhooks) => {
  let spine: Spine;
  beforeAll(async () => {
    spine = await startSpine({ webhooks });
  });
  afterAll(() => spine?.stop());
  afterEach(async () => {
    spine.sandbox.faults.clear();
    expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  });

  test("and was bought again, is stopped, and its cost is ours", async () => {
    spine.sandbox.faults.add({ fault: "refuse_before", times: 1, match: { promptContains: "replaced" } });
    const { id } = await spine.submit(generation("replaced [sandbox: slow=15]"));
    const again = await spine.until(id, (job) => job.runs.length === 2 && job.runs[1]?.status === "running", 30_000);
    const lost = again.runs[0] as JobJson["runs"][number];
    expect(lost.failure?.code).toBe("lost");

    const theirs = await arriveLate(spine, lost);
    if (!webhooks) await lookNow(spine);
    const job = await spine.ended(id, 40_000);
    expect(job).toMatchObject({ status: "completed", settlement: { charged: 1, kept: 1, refunded: 0 } });
    const orphan = await booked(spine, job, lost.id);
    expect(orphan).toMatchObject({ status: "failed", providerRunId: theirs, costUsd: 0 });
    expect(paid(spine, theirs)?.status).toBe("canceled");
    const { body } = await spine.call("GET", `/api/jobs/${id}/timeline`);
    expect(JSON.stringify(body)).toContain("cancel_sent");
  }, 80_000);

  test("and whose job has ended, is stopped, and the customer keeps the refund", async () => {
    spine.sandbox.faults.add({ fault: "refuse_before", times: 1, match: { promptContains: "given up" } });
    const { id } = await spine.submit(generation("given up"));
    // As for a training: what is presumed lost, seconds from now, is not bought again.
    await spine.sql`update jobs set max_rebuys = 0 where id = ${id}`;
    const job = await spine.ended(id, 30_000);
    const lost = job.runs[0] as JobJson["runs"][number];
    expect(job).toMatchObject({ status: "failed", settlement: { charged: 1, kept: 0, refunded: 1 } });

    const theirs = await arriveLate(spine, lost);
    if (!webhooks) await lookNow(spine);
    const orphan = await booked(spine, job, lost.id);
    expect(orphan.providerRunId).toBe(theirs);
    // Stopped, or faster than we were: then it cost us what it cost.
    expect(orphan.costUsd).toBe(paid(spine, theirs)?.cost_usd);
  }, 80_000);

  test("and was not bought again, goes on as if it had never been missing", async () => {
    spine.sandbox.faults.add({ fault: "refuse_before", times: 1, match: { promptContains: "adopted" } });
    const { id } = await spine.submit(generation("adopted [sandbox: slow=12]", 2));
    await spine.sql`update jobs set max_rebuys = 0 where id = ${id}`;
    const half = await spine.until(id, (job) => job.runs.some((run) => run.failure?.code === "lost"), 30_000);
    expect(half.status).toBe("processing");
    const lost = half.runs.find((run) => run.failure?.code === "lost") as JobJson["runs"][number];

    const theirs = await arriveLate(spine, lost);
    if (!webhooks) await lookNow(spine);
    const job = await spine.ended(id, 50_000);
    expect(job).toMatchObject({ status: "completed", settlement: { charged: 2, kept: 2, refunded: 0 } });
    expect(job.runs).toHaveLength(2);
    expect(job.runs.find((run) => run.id === lost.id)).toMatchObject({ status: "stored", providerRunId: theirs });
  }, 80_000);
});
