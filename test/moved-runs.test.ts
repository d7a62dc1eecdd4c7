import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { makeLogger, makeParts } from "../src/compose.ts";
import { hasUnanswered, noteWebhook } from "../src/db/looks.ts";
import { failure } from "../src/domain/failure.ts";
import { type Event, type Job, next } from "../src/domain/job.ts";
import { NOTHING_KNOWN } from "../src/domain/run.ts";
import { makeMetrics } from "../src/metrics.ts";
import { loads } from "../src/workers/loads.ts";
import { makeApp } from "./rig/apps.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

const models = { generation: { default: "flux-dev", allowed: ["flux-dev"] } };
/** Has two accounts, and no third. */
const pair = makeApp({
  id: "pair",
  signupGrant: 100_000,
  models,
  routing: { generation: { by: "order", order: ["fal", "replicate"], others: false } },
});
const generation = (prompt: string) => ({
  kind: "generation",
  user: "ann",
  input: { prompt, width: 512, height: 512 },
});

let spine: Spine;
const start = (workers: number) => async () => {
  spine = await startSpine({ workers, apps: [pair], env: { AI_PROVIDER: "sandbox,sandbox:fal" } });
};
const sound = async () => {
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
};

describe("an account that has lost the model, while the other one takes no orders for a moment,", () => {
  beforeAll(start(1));
  afterAll(() => spine?.stop());
  afterEach(sound);

  test("fails nothing: the order waits for the other", async () => {
    spine.sandbox.faults.add({ fault: "vanished", match: { face: "fal" } });
    await spine.sql`
      insert into provider_states (provider, not_before) values ('sandbox', now() + interval '6 seconds')
      on conflict (provider) do update set not_before = excluded.not_before`;
    const job = await spine.ended((await spine.submit(generation("a detour"))).id, 25_000);
    expect(job).toMatchObject({ status: "completed", runs: [{ attempt: 1, provider: "sandbox", status: "stored" }] });
    expect(spine.sandbox.bill().lines.map(({ face }) => face)).toEqual(["replicate"]);
  });
});

describe("a word of an account that a run has just left", () => {
  beforeAll(start(0));
  afterAll(() => spine?.stop());
  afterEach(sound);

  test("does not become the run's name at the one that it goes to", async () => {
    const { id: jobId } = await spine.submit(generation("on the move"));
    const runId = crypto.randomUUID();
    await spine.sql`
      insert into runs (id, job_id, variant, attempt, status, provider, model, input, expires_at)
      values (${runId}, ${jobId}, 0, 1, 'submitting', 'sandbox_fal', 'fal-ai/flux/dev', '{}', now() + interval '1 hour')`;
    const news = { deliveryId: "late", runId, providerRunId: "of-fal", status: "OK", ended: true };
    const waits = async () =>
      (
        await spine.sql`select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%for update of jobs%'`
      ).length > 0;
    const note = await spine.sql.begin(async (tx) => {
      await tx`select 1 from jobs where id = ${jobId} for update`;
      const noted = noteWebhook(spine.db, { provider: "sandbox_fal", ...news });
      await expect.poll(waits).toBe(true);
      await tx`update runs set provider = 'sandbox', send_before = now() + interval '10 seconds' where id = ${runId}`;
      await tx`update jobs set version = version + 1 where id = ${jobId}`;
      return { noted };
    });
    await note.noted;
    const [run] = await spine.sql`select provider, provider_run_id, next_look_at from runs where id = ${runId}`;
    expect(run).toEqual({ provider: "sandbox", provider_run_id: null, next_look_at: null });
    await spine.sql`delete from webhook_inbox`;
    await spine.sql`delete from runs where id = ${runId}`;
  });
});

describe("what was bought in the place of a lost run", () => {
  beforeAll(start(0));
  afterAll(() => spine?.stop());
  afterEach(sound);

  test("can be taken for it while it is out, but not while it is put off", async () => {
    const { id: jobId } = await spine.submit(generation("a twin"));
    await spine.sql`
      insert into runs (id, job_id, variant, attempt, status, provider, model, input, send_before, expires_at)
      values (${crypto.randomUUID()}, ${jobId}, 0, 2, 'submitting', 'sandbox', 'm', '{}', now(), now() + interval '1 hour')`;
    expect(await hasUnanswered(spine.db, jobId)).toBe(true);
    await spine.sql`update runs set send_before = null where job_id = ${jobId}`;
    expect(await hasUnanswered(spine.db, jobId)).toBe(false);
    await spine.sql`update runs set status = 'unknown' where job_id = ${jobId}`;
    expect(await hasUnanswered(spine.db, jobId)).toBe(true);
    await spine.sql`delete from runs where job_id = ${jobId}`;
  });
});

describe("runs at an account that was taken from the deployment", () => {
  beforeAll(start(0));
  afterAll(() => spine?.stop());
  afterEach(sound);

  test("are named in the log, and end with a reason and a refund when nothing is left to fetch", async () => {
    const { id: jobId } = await spine.submit(generation("an orphanage"));
    await spine.sql`
      insert into runs (id, job_id, variant, attempt, status, provider, model, input, provider_run_id, sent_at, expires_at, next_look_at)
      values (${crypto.randomUUID()}, ${jobId}, 0, 1, 'running', 'gone_2', 'm', '{}', 'theirs', now() - interval '2 hours',
        now() - interval '61 minutes', now())`;
    const lines: unknown[] = [];
    const silent = makeLogger({ LOG_LEVEL: "silent" }, "test");
    const logger = Object.assign(Object.create(silent), { error: (line: unknown) => lines.push(line) });
    const parts = makeParts(spine.config, silent, "test");
    const [provider] = parts.providers;
    const watching = loads({ db: spine.db, providers: [provider], logger, metrics: makeMetrics() }, 20);
    await expect
      .poll(() => lines)
      .toEqual([{ provider: "gone_2", runs: 1, remedy: expect.stringContaining("Give the account gone_2 back") }]);
    await watching.stop();
    await parts.close();
    await spine.startWorker();
    const job = await spine.ended(jobId, 25_000);
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "timeout", detail: expect.stringContaining("no provider gone_2 any more") },
      settlement: { kept: 0, refunded: job.settlement?.charged },
    });
  });
});

describe("a job", () => {
  const now = new Date("2026-11-21T10:00:00Z");
  const later = (seconds: number) => new Date(now.getTime() + seconds * 1_000);
  const job: Job = {
    id: "job",
    status: "processing",
    variants: 1,
    minSuccess: 1,
    maxAttempts: 3,
    maxRebuys: 1,
    deadlineAt: later(60),
    cancelRequestedAt: null,
    expiredAt: null,
    setAsideAt: null,
    runs: [],
    failure: null,
    startedAt: now,
    endedAt: null,
  };
  const intended = (at: Date): Event => ({
    type: "intended",
    at,
    run: {
      id: "run",
      variant: 0,
      provider: "p",
      model: "m",
      version: null,
      input: {},
      destination: null,
      sendBefore: later(70),
      quietFrom: later(86),
      expiresAt: later(400),
    },
  });

  test("buys nothing after its deadline, however long the order was in the making", () => {
    expect(next(job, intended(later(59))).runs).toHaveLength(1);
    expect(next(job, intended(later(60)))).toBe(job);
  });

  test("does not give up as unconfirmed what a webhook has told of in the same moment", () => {
    const lost = next(next(job, intended(now)), { type: "lost", at: later(1), runId: "run", detail: "cut" });
    const unconfirmed: Event = {
      type: "failed",
      at: later(400),
      runId: "run",
      failure: failure("unconfirmed", "no word"),
      ...NOTHING_KNOWN,
    };
    expect(next(lost, unconfirmed)).toMatchObject({ status: "failed", runs: [{ status: "failed" }] });
    // What noteWebhook does.
    const told = { ...lost, runs: lost.runs.map((run) => ({ ...run, providerRunId: "theirs" })) };
    expect(next(told, unconfirmed)).toBe(told);
    // Its sender stood still, and says that it was never taken: it is ordered anew.
    const abandoned = next(next(job, intended(now)), { type: "abandoned", at: later(1), runId: "run" });
    const why = failure("provider_unavailable", "the time to send it had passed");
    const putOff = next(abandoned, { type: "postponed", at: later(2), runId: "run", until: later(3), failure: why });
    expect(next(putOff, unconfirmed)).toBe(putOff);
  });
});
