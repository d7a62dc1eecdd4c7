import { Webhook } from "standardwebhooks";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { webhookPath } from "../../src/api/webhooks.ts";
import type { JobJson } from "../../src/job-json.ts";
import { type Answer, type Spine, startSpine } from "../rig/spine.ts";

/**
 * Here the test itself is the provider's messenger: the sandbox sends nothing unless it is told to, and nobody looks at
 * a run unless a delivery says so. What ends a job is therefore what was delivered.
 */
let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ webhooks: true, speed: 20 });
});
afterAll(() => spine?.stop());
beforeEach(() => void spine.sandbox.faults.add({ fault: "webhook_drop" }));
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const EVENTS = ["start", "output", "completed"] as const;
type EventName = (typeof EVENTS)[number];
interface Delivery {
  readonly id: string;
  readonly body: string;
}
type Deliveries = Readonly<Record<EventName, Delivery>>;

/** All orders of the given events, each only once: 90 of three events twice. */
function ordersOf(events: readonly EventName[]): EventName[][] {
  if (events.length === 0) return [[]];
  return [...new Set(events)].flatMap((first) => {
    const rest = events.toSpliced(events.indexOf(first), 1);
    return ordersOf(rest).map((order) => [first, ...order]);
  });
}

const generation = (prompt: string) => ({
  kind: "generation",
  user: "ann",
  input: { prompt, width: 512, height: 512 },
});
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const billOf = (theirs: string | null | undefined) => spine.sandbox.bill().lines.filter((line) => line.id === theirs);

/** Nobody looks at it by himself any more. */
const lookAway = (runId: string) =>
  spine.sql`update runs set next_look_at = now() + interval '1 hour' where id = ${runId} and status = 'running'`;

/** The three events of a run that has ended, each with the body that the provider would have sent. */
async function eventsOf(theirs: string): Promise<Deliveries> {
  await expect.poll(() => billOf(theirs)[0]?.status, { timeout: 10_000 }).toBe("succeeded");
  const answer = await fetch(`${spine.sandbox.url}/v1/predictions/${theirs}`, {
    headers: { authorization: "Bearer r8_sandbox" },
  });
  const last = (await answer.json()) as Record<string, unknown>;
  const make = (body: Record<string, unknown>) => ({ id: `msg_${crypto.randomUUID()}`, body: JSON.stringify(body) });
  return {
    start: make({ ...last, status: "processing", output: null, completed_at: null, metrics: {} }),
    output: make({ ...last, status: "processing", completed_at: null, metrics: {} }),
    completed: make(last),
  };
}

async function deliver(runId: string, { id, body }: Delivery): Promise<Answer> {
  const at = new Date();
  return spine.call("POST", webhookPath(spine.config.SIGNING_SECRET, "sandbox", runId), {
    body,
    key: null,
    headers: {
      "content-type": "application/json",
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(at.getTime() / 1_000)),
      "webhook-signature": new Webhook(spine.sandbox.webhookSecret).sign(id, at, body),
    },
  });
}

/** A job whose only run is out at the provider, or has ended there, and nobody here knows. */
async function out(prompt: string): Promise<{ job: JobJson; runId: string; deliveries: Deliveries }> {
  const { id } = await spine.submit(generation(prompt));
  const job = await spine.until(id, (each) => each.runs[0]?.status === "running");
  const [run] = job.runs;
  await lookAway(run?.id as string);
  return { job, runId: run?.id as string, deliveries: await eventsOf(run?.providerRunId as string) };
}

/** What must not depend on the order of the news. */
async function outcome(id: string) {
  const job = await spine.ended(id);
  const [run] = job.runs;
  const entries = await spine.sql`select type, bucket, amount from credit_ledger where job_id = ${id} order by seq`;
  const settlements = await spine.sql`select charged, kept, refunded from settlements where job_id = ${id}`;
  const assets = await spine.sql`select role from assets where job_id = ${id} order by role`;
  const inbox = await spine.sql`
    select status, count(*)::int as times from webhook_inbox where run_id = ${run?.id ?? null} group by 1 order by 1`;
  return {
    status: job.status,
    settlement: job.settlement,
    runs: job.runs.map(({ status, attempt, costUsd }) => ({ status, attempt, costUsd })),
    outputs: job.resultUrls.length,
    entries: entries.map((entry) => `${entry["type"]} ${entry["bucket"]} ${entry["amount"]}`),
    settlements: settlements.map((each) => ({ ...each })),
    assets: assets.map((asset) => asset["role"] as string),
    noted: inbox.map((each) => `${each["status"]} ${each["times"]}`),
    bill: billOf(run?.providerRunId).map((line) => line.status),
  };
}

/** The story of a job, and what the provider billed for it. */
async function everythingOf(id: string): Promise<unknown> {
  const story = await spine.story(id);
  return { ...story, bill: billOf((story.json as JobJson).runs[0]?.providerRunId) };
}

describe("three events, each delivered twice", () => {
  const BATCH = 45;
  /** Between two deliveries: so that some arrive all at once, and some long after the job has ended. */
  const PAUSES_MS = [0, 60, 250];

  test("come to the same job, the same money and the same bill in each of the 90 orders", async () => {
    const orders = ordersOf([...EVENTS, ...EVENTS]);
    expect(orders).toHaveLength(90);
    const seen = new Map<string, unknown>();
    for (let from = 0; from < orders.length; from += BATCH)
      await Promise.all(
        orders.slice(from, from + BATCH).map(async (order, index) => {
          const { job, runId, deliveries } = await out(`in the order ${order.join(" ")}`);
          for (const event of order) {
            expect((await deliver(runId, deliveries[event])).status).toBe(200);
            await sleep(PAUSES_MS[index % PAUSES_MS.length] as number);
          }
          seen.set(order.join(" "), await outcome(job.id));
        }),
      );

    expect(seen.size).toBe(90);
    for (const [order, what] of seen)
      expect(what, order).toEqual({
        status: "completed",
        settlement: { charged: 1, kept: 1, refunded: 0 },
        runs: [{ status: "stored", attempt: 1, costUsd: 0.003 }],
        outputs: 1,
        entries: ["charge balance -1"],
        settlements: [{ charged: "1", kept: "1", refunded: "0" }],
        assets: ["output", "thumbnail"],
        noted: ["processing 2", "succeeded 1"],
        bill: ["succeeded"],
      });
    expect((await spine.call("GET", "/api/credits/ann")).body.balance).toBe(200 - 90);
    expect(spine.sandbox.bill().lines).toHaveLength(90);
  }, 90_000);
});

describe("news that comes after the end", () => {
  test("of the start, of the output and of the end, fresh or repeated, changes nothing", async () => {
    const { job, runId, deliveries } = await out("told again and again");
    await deliver(runId, deliveries.completed);
    expect((await spine.ended(job.id)).status).toBe("completed");
    const before = await everythingOf(job.id);

    expect((await deliver(runId, deliveries.start)).status).toBe(200);
    expect((await deliver(runId, deliveries.output)).status).toBe(200);
    for (let times = 0; times < 5; times++)
      for (const event of EVENTS) {
        expect((await deliver(runId, deliveries[event])).status).toBe(200);
        // Under an id of its own it is news, not a copy.
        const fresh = { ...deliveries[event], id: `msg_${crypto.randomUUID()}` };
        expect((await deliver(runId, fresh)).status).toBe(200);
      }
    // Longer than progress is left alone: somebody would have looked by now.
    await sleep(2_500);
    expect(await everythingOf(job.id)).toEqual(before);
  });

  test("of a failure does not take back what was delivered", async () => {
    const { job, runId, deliveries } = await out("said to have failed");
    await deliver(runId, deliveries.completed);
    expect((await spine.ended(job.id)).status).toBe("completed");
    const before = await everythingOf(job.id);
    for (const status of ["failed", "canceled", "aborted"]) {
      const body = JSON.stringify({ ...JSON.parse(deliveries.completed.body), status, output: null, error: "no" });
      expect((await deliver(runId, { id: `msg_${crypto.randomUUID()}`, body })).status).toBe(200);
    }
    await sleep(1_000);
    expect(await everythingOf(job.id)).toEqual(before);
  });
});

describe("news that comes before the create's answer", () => {
  const ANSWER_MS = 2_000;

  test("finds its run in whatever order it comes, and nothing is bought twice", async () => {
    const orders = ["start", "completed", "completed start output", "start output completed"];
    spine.sandbox.faults.add({ fault: "slow_create", ms: ANSWER_MS, match: { promptContains: "answered late" } });
    await Promise.all(
      orders.map(async (order) => {
        const { id } = await spine.submit(generation(`answered late: ${order}`));
        const sending = await spine.until(id, (job) => job.runs.length === 1);
        const runId = sending.runs[0]?.id as string;
        const ordered = () => spine.sandbox.bill().lines.find((line) => line.webhook?.includes(runId));
        await expect.poll(ordered, { timeout: 10_000 }).toBeDefined();
        const theirs = ordered()?.id as string;
        const deliveries = await eventsOf(theirs);

        for (const event of order.split(" ") as EventName[])
          expect((await deliver(runId, deliveries[event])).status).toBe(200);
        // The provider has not answered yet: what is known of the run was told by its callback.
        const [submitted] = await spine.sql`select 1 from job_events where job_id = ${id} and type = 'submitted'`;
        const early = (await spine.call("GET", `/api/jobs/${id}`)).body as JobJson;
        expect([submitted, early.runs[0]?.providerRunId], order).toEqual([undefined, theirs]);
        expect(await outcome(id), order).toMatchObject({
          status: "completed",
          settlement: { charged: 1, kept: 1, refunded: 0 },
          entries: ["charge balance -1"],
          runs: [{ status: "stored", attempt: 1 }],
          bill: ["succeeded"],
        });
        // The create's answer comes into a finished job.
        const before = await everythingOf(id);
        await sleep(ANSWER_MS);
        for (const event of EVENTS) await deliver(runId, deliveries[event]);
        await sleep(300);
        expect(await everythingOf(id), order).toEqual(before);
      }),
    );
  });

  test("sent by the provider itself is believed about the id, and the job goes on", async () => {
    spine.sandbox.faults.clear();
    const { id } = await spine.submit(generation("[sandbox: webhook_early] early"));
    expect(await outcome(id)).toMatchObject({
      status: "completed",
      settlement: { charged: 1, kept: 1, refunded: 0 },
      runs: [{ status: "stored", attempt: 1 }],
      bill: ["succeeded"],
    });
    const [first] = await spine.sql`
      select min(received_at) < (select min(at) from job_events where job_id = ${id} and type = 'submitted') as early
      from webhook_inbox where run_id = (select id from runs where job_id = ${id})`;
    expect(first?.["early"]).toBe(true);
  });
});
