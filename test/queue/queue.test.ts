import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { redisPrefix, redisUrl } from "../rig/redis.ts";
import { type Spine, startSpine } from "../rig/spine.ts";

const onRedis = process.env["QUEUE_BACKEND"] === "redis";
const generation = (prompt: string, input: Record<string, unknown> = {}) => ({
  kind: "generation",
  user: "ann",
  input: { prompt, ...input },
});

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ workers: 0 });
});
afterAll(() => spine?.stop());
afterEach(async () => {
  await Promise.all(spine.workers.splice(0).map((worker) => worker.stop()));
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

/** Everything that the queue knows is gone, as after FLUSHALL. */
async function loseTheQueue(): Promise<void> {
  if (!onRedis) {
    await spine.sql`truncate bullmq.job cascade`;
    return;
  }
  const redis = new Redis(redisUrl() ?? "");
  const keys = await redis.keys(`${redisPrefix()}:*`);
  if (keys.length > 0) await redis.del(keys);
  await redis.quit();
}

describe("the queue is only a doorbell", () => {
  test("what it lost before any worker came is woken from Postgres", async () => {
    const jobs = await Promise.all(Array.from({ length: 20 }, (_, index) => spine.submit(generation(`lost ${index}`))));
    await loseTheQueue();
    await spine.startWorker();
    for (const { id } of jobs) expect((await spine.ended(id, 30_000)).status).toBe("completed");
  }, 60_000);

  test("what it loses while jobs run changes nothing", async () => {
    await spine.startWorker();
    const jobs = await Promise.all(
      Array.from({ length: 10 }, (_, index) => spine.submit(generation(`[sandbox: slow=2] running ${index}`))),
    );
    for (let times = 0; times < 5; times++) {
      await loseTheQueue();
      await new Promise((resolve) => setTimeout(resolve, 400));
    }
    for (const { id } of jobs) expect((await spine.ended(id, 40_000)).status).toBe("completed");
  }, 60_000);

  test("an entry is added once however often a job is woken, and never swallowed by an older one", async () => {
    const { id } = await spine.submit(generation("woken often"));
    for (let times = 0; times < 10; times++) await spine.call("POST", `/api/jobs/${id}/sync`);
    expect((await spine.call("GET", "/api/health")).body.queues.generation.waiting).toBe(1);
    // A worker claimed the job and died: the epoch has moved on, so that the next wake is a new entry.
    await spine.sql`update jobs set epoch = epoch + 1 where id = ${id}`;
    await spine.call("POST", `/api/jobs/${id}/sync`);
    expect((await spine.call("GET", "/api/health")).body.queues.generation.waiting).toBe(2);
    await spine.startWorker();
    const job = await spine.ended(id);
    expect(job).toMatchObject({ status: "completed" });
    expect(job.runs).toHaveLength(1);
  });

  test("brings what was begun before what is new, however long that has waited", async () => {
    const jobs = [];
    for (let number = 0; number < 12; number++) jobs.push(await spine.submit(generation(`in line ${number}`)));
    const last = jobs.at(-1)?.id as string;
    // Somebody has worked on the youngest one, and an entry says that there is more to do.
    await loseTheQueue();
    await spine.sql`update jobs set epoch = 1 where id = ${last}`;
    for (const { id } of jobs) await spine.call("POST", `/api/jobs/${id}/sync`);
    await spine.startWorker({ WORKER_CONCURRENCY: "1" });
    for (const { id } of jobs) await spine.ended(id, 30_000);
    const [first] = await spine.sql`select job_id from job_events where type = 'claimed' and job_id in ${spine.sql(
      jobs.map((job) => job.id),
    )} order by at limit 1`;
    expect(first?.["job_id"]).toBe(last);
  }, 60_000);

  test("carries ids and nothing else", async () => {
    const { id } = await spine.submit(generation("a secret wish", { seed: 1 }));
    // The entry is added after the answer.
    await expect
      .poll(async () => (await spine.call("GET", "/api/health")).body.queues.generation.waiting)
      .toBeGreaterThan(0);
    if (onRedis) {
      const redis = new Redis(redisUrl() ?? "");
      const keys = await redis.keys(`${redisPrefix()}:*${id}*`);
      expect(keys.length).toBeGreaterThan(0);
      for (const key of keys)
        expect(JSON.stringify(await redis.hgetall(key).catch(() => ({})))).not.toContain("secret wish");
      await redis.quit();
    } else {
      const rows = await spine.sql`select to_jsonb(job) as entry from bullmq.job`;
      expect(JSON.stringify(rows)).toContain(id);
      expect(JSON.stringify(rows)).not.toContain("secret wish");
    }
    await spine.startWorker();
    await spine.ended(id);
  });
});

describe("workers", () => {
  test("share the jobs, each of which is bought once", async () => {
    await Promise.all([spine.startWorker(), spine.startWorker(), spine.startWorker()]);
    const jobs = await Promise.all(
      Array.from({ length: 30 }, (_, index) => spine.submit(generation(`shared ${index}`))),
    );
    for (const { id } of jobs) {
      const job = await spine.ended(id, 30_000);
      expect(job.status).toBe("completed");
      expect(job.runs).toHaveLength(1);
    }
  }, 60_000);

  test("let go of a job that waits for its provider: one slot serves many", async () => {
    await spine.startWorker({ WORKER_CONCURRENCY: "1" });
    const jobs = await Promise.all(
      Array.from({ length: 8 }, (_, index) => spine.submit(generation(`[sandbox: slow=3] waiting ${index}`))),
    );
    // All eight are out at the provider together, through one slot, and nothing holds a lease or a queue entry.
    for (const { id } of jobs)
      await spine.until(id, (job) => job.runs[0]?.status === "running" || job.endedAt !== null);
    const [held] =
      await spine.sql`select count(*)::int as n from jobs where status = 'processing' and lease_until > now()`;
    expect(held?.["n"]).toBeLessThanOrEqual(1);
    for (const { id } of jobs) expect((await spine.ended(id)).status).toBe("completed");
  }, 60_000);

  test("serve only the kinds they are told to", async () => {
    const worker = await spine.startWorker({ WORKER_KINDS: "staging" });
    const { id } = await spine.submit(generation("not mine"));
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect((await spine.call("GET", `/api/jobs/${id}`)).body.status).toBe("pending");
    await worker.stop();
    await spine.startWorker({ WORKER_KINDS: "generation" });
    expect((await spine.ended(id)).status).toBe("completed");
  });

  test("drain in seconds, whatever the providers are doing, and leave nothing behind", async () => {
    const worker = await spine.startWorker();
    const { id } = await spine.submit(generation("[sandbox: slow=5] outlives its worker"));
    await spine.until(id, (job) => job.runs[0]?.status === "running");
    const started = Date.now();
    await worker.stop();
    expect(Date.now() - started).toBeLessThan(5_000);
    const [row] = await spine.sql`select lease_until from jobs where id = ${id}`;
    expect(row?.["lease_until"]).toBeNull();
    await spine.startWorker();
    expect((await spine.ended(id)).status).toBe("completed");
  });

  test("say on a port of their own that they are alive, ready and what they do", async () => {
    const worker = await spine.startWorker();
    expect((await fetch(`${worker.url}/livez`)).status).toBe(200);
    expect((await fetch(`${worker.url}/readyz`)).status).toBe(200);
    expect(await (await fetch(`${worker.url}/metrics`)).text()).toMatch(/provider_submissions_total/);
  });

  test("give a job up at its deadline, with everything back", async () => {
    const { id } = await spine.submit(generation("nobody comes"));
    await spine.sql`update jobs set deadline_at = now(), due_at = now() where id = ${id}`;
    await spine.startWorker({ WORKER_KINDS: "generation" });
    const job = await spine.ended(id);
    // Claimed and out of time in the same breath: nothing was bought.
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "deadline_exceeded" },
      settlement: { kept: 0, refunded: 1 },
    });
    expect(job.runs.filter((run) => run.providerRunId !== null)).toEqual([]);
  });
});

describe("a caller who waits", () => {
  test("gets the ended job with Prefer: wait", async () => {
    await spine.startWorker();
    const answer = await spine.call("POST", "/api/jobs", {
      body: generation("at once"),
      headers: { "idempotency-key": crypto.randomUUID(), prefer: "wait=20" },
    });
    expect(answer).toMatchObject({ status: 200, body: { status: "completed" } });
    expect(answer.headers.get("preference-applied")).toBe("wait=20");
  });

  test("gets the job as it is when the time is up", async () => {
    const answer = await spine.call("POST", "/api/jobs", {
      body: generation("not at once"),
      headers: { "idempotency-key": crypto.randomUUID(), prefer: "wait=1" },
    });
    expect(answer).toMatchObject({ status: 202, body: { status: "pending" } });
    await spine.startWorker();
    await spine.ended(answer.body.id);
  });

  test("sees the job move as server-sent events, and the stream end with it", async () => {
    await spine.startWorker();
    const { id } = await spine.submit(generation("[sandbox: slow=2] watched"));
    const response = await fetch(`${spine.api.url}/api/jobs/${id}/events`, {
      headers: { authorization: `Bearer ${spine.key}` },
    });
    expect(response.headers.get("content-type")).toMatch("text/event-stream");
    const text = await response.text();
    const statuses = [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => JSON.parse(data as string).status);
    expect(statuses.at(-1)).toBe("completed");
    expect(statuses.length).toBeGreaterThan(2);
  });

  test("reads in the timeline what became of every credit", async () => {
    await spine.startWorker();
    const { id } = await spine.submit(generation("[sandbox: nsfw] explained"));
    await spine.ended(id);
    const { body } = await spine.call("GET", `/api/jobs/${id}/timeline`);
    expect(body.facts.map((fact: { type: string }) => fact.type)).toEqual([
      "accepted",
      "claimed",
      "intended",
      "submitted",
      "failed",
    ]);
    expect(body.entries.map((entry: { type: string; amount: number }) => [entry.type, entry.amount])).toEqual([
      ["charge", -1],
      ["refund", 1],
    ]);
  });
});
