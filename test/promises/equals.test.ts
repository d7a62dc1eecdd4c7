import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis as Client } from "ioredis";
import { describe, expect, type TestContext, test } from "vitest";
import { startRedis } from "../../chaos/redis.ts";
import { freePort } from "../../src/db/embedded.ts";
import type { JobJson } from "../../src/job-json.ts";
import { findRedis } from "../rig/programs.ts";
import { type Spine, type SpineOptions, startSpine } from "../rig/spine.ts";

/** Three ways lead to the end of a job; here each of them is alone. */
async function startAlone({ onTestFinished }: TestContext, options: SpineOptions): Promise<Spine> {
  const spine = await startSpine(options);
  onTestFinished(async () => {
    const found = await spine.audit().catch(String);
    await spine.stop();
    expect(found).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  });
  return spine;
}

const generation = (prompt: string) => ({
  kind: "generation",
  user: "ann",
  input: { prompt, width: 512, height: 512 },
});
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function submitMany(spine: Spine, prompts: readonly string[]): Promise<JobJson[]> {
  return Promise.all(prompts.map((prompt) => spine.submit(generation(prompt))));
}

/** All of them completed, bought once and charged once. */
async function expectWhole(spine: Spine, jobs: readonly JobJson[], ms: number): Promise<JobJson[]> {
  const open = async () => (await spine.sql`select id from jobs where ended_at is null`).map((row) => row["id"]);
  await expect.poll(open, { timeout: ms, interval: 100 }).toEqual([]);
  const ended = await Promise.all(jobs.map(({ id }) => spine.ended(id)));
  for (const job of ended) {
    const bought = spine.sandbox.bill().lines.filter((line) => line.id === job.runs[0]?.providerRunId);
    expect(job).toMatchObject({ status: "completed", settlement: { charged: 1, kept: 1, refunded: 0 } });
    expect([job.runs.length, job.resultUrls.length, bought.map((line) => line.status)]).toEqual([1, 1, ["succeeded"]]);
  }
  expect(spine.sandbox.bill().lines).toHaveLength(jobs.length);
  return ended;
}

const inboxOf = async (spine: Spine) => (await spine.sql`select status from webhook_inbox`).map((row) => row["status"]);

const PROMPTS = Array.from({ length: 6 }, (_, index) => `[sandbox: slow=${1 + (index % 3)}] number ${index}`);

describe("asking alone finishes every job", () => {
  test("when no webhooks are configured", async (context) => {
    const spine = await startAlone(context, { webhooks: false });
    await expectWhole(spine, await submitMany(spine, PROMPTS), 20_000);
    expect(await inboxOf(spine)).toEqual([]);
  }, 40_000);

  test("when webhooks are configured and none of them ever comes", async (context) => {
    const spine = await startAlone(context, { webhooks: true });
    spine.sandbox.faults.add({ fault: "webhook_drop" });
    await expectWhole(spine, await submitMany(spine, PROMPTS), 30_000);
    expect(await inboxOf(spine)).toEqual([]);
  }, 50_000);
});

test("being called back alone finishes every job: nobody asks by himself", async (context) => {
  const spine = await startAlone(context, { webhooks: true });
  const jobs = await submitMany(spine, PROMPTS);
  // Hours away, for as long as nothing else brings it forward.
  const away = () =>
    spine.sql`update runs set next_look_at = now() + interval '3 hours'
      where status = 'running' and next_look_at > now() + interval '3 seconds' and next_look_at < now() + interval '1 hour'`;
  const averting = setInterval(() => void away().catch(() => {}), 100);
  context.onTestFinished(() => clearInterval(averting));
  // Well before the first look that is made without a webhook, 15 s after the order.
  await expectWhole(spine, jobs, 12_000);
  expect((await inboxOf(spine)).filter((status) => status === "succeeded")).toHaveLength(jobs.length);
}, 40_000);

describe("the sweep alone wakes every job", () => {
  const PAUSE_MS = 50;

  /** Loses what the queue holds, again and again, for as long as the test runs. */
  function keepEmpty({ onTestFinished }: TestContext, empty: () => Promise<unknown>): void {
    let over = false;
    const emptying = (async () => {
      for (; !over; await sleep(PAUSE_MS)) await empty().catch(() => {});
    })();
    onTestFinished(() => {
      over = true;
      return emptying;
    });
  }

  async function expectSwept(spine: Spine, jobs: readonly JobJson[]): Promise<void> {
    await spine.startWorker();
    await expectWhole(spine, jobs, 50_000);
    const metrics = await (await fetch(`${spine.workers[0]?.url}/metrics`)).text();
    expect(Number(/^\w*jobs_swept_total (\d+)/m.exec(metrics)?.[1])).toBeGreaterThanOrEqual(jobs.length);
  }

  test("when the queue in Postgres loses the first wake of every turn, whoever sent it", async (context) => {
    const spine = await startAlone(context, { workers: 0 });
    await spine.sql.unsafe(`
      create table bullmq.lost (id text primary key);
      create function bullmq.lose() returns trigger language plpgsql as $$ begin
        insert into bullmq.lost values (new.id) on conflict do nothing;
        if found then delete from bullmq.job where id = new.id; end if;
        return null;
      end $$;
      create trigger lose after insert on bullmq.job for each row execute function bullmq.lose()`);
    const jobs = await submitMany(spine, PROMPTS);
    await expectSwept(spine, jobs);
    // That of the acceptance, and that of the run's end.
    const lost = await spine.sql`select 1 from bullmq.lost`;
    expect(lost.length).toBeGreaterThanOrEqual(2 * jobs.length);
  }, 80_000);

  const redis = findRedis();
  if (redis === null) process.stderr.write("\n!!! No Redis: SKIPPING the sweep on a Redis that loses everything.\n\n");
  test.skipIf(redis === null)(
    "when the queue in Redis loses every entry every 50 ms",
    async (context) => {
      const folder = await mkdtemp(join(tmpdir(), "darkroom-equals-"));
      const own = redis && "program" in redis ? await startRedis(redis.program, join(folder, "redis")) : null;
      const url = own ? `redis://127.0.0.1:${own.port}` : redis && "url" in redis ? redis.url : "";
      const prefix = `equals_${crypto.randomUUID().slice(0, 8)}`;
      const client = new Client(url, { maxRetriesPerRequest: 1 });
      context.onTestFinished(async () => {
        client.disconnect();
        await own?.stop();
        await rm(folder, { recursive: true, force: true });
      });
      const spine = await startAlone(context, { workers: 0, env: { REDIS_URL: url, QUEUE_PREFIX: prefix } });
      const empty = async () => {
        const keys = await client.keys(`${prefix}:*`);
        if (keys.length > 0) await client.unlink(keys);
      };
      // With nobody there to read them, all the wakes of the API are lost.
      const jobs = await submitMany(spine, PROMPTS);
      await empty();
      keepEmpty(context, empty);
      await expectSwept(spine, jobs);
    },
    80_000,
  );
});

describe("a route for webhooks that is out of order costs time only", () => {
  test("when it comes back before the provider stops trying", async (context) => {
    const spine = await startAlone(context, { webhooks: true });
    spine.sandbox.setWebhookRelay(`http://127.0.0.1:${await freePort()}`);
    const jobs = await submitMany(spine, PROMPTS);
    await sleep(4_000);
    spine.sandbox.setWebhookRelay(spine.api.url);
    // Still before the first look that is made without a webhook.
    await expectWhole(spine, jobs, 10_000);
    expect((await inboxOf(spine)).filter((status) => status === "succeeded").length).toBeGreaterThan(0);
  }, 40_000);

  test("when it comes back after the provider has fallen silent", async (context) => {
    // Faster, so that the provider gives up in time: its last try is 60 s after the end, divided by this.
    const spine = await startAlone(context, { webhooks: true, speed: 40 });
    spine.sandbox.setWebhookRelay(`http://127.0.0.1:${await freePort()}`);
    const jobs = await submitMany(spine, PROMPTS);
    await sleep(6_000);
    spine.sandbox.setWebhookRelay(spine.api.url);
    await expectWhole(spine, jobs, 30_000);
    expect(await inboxOf(spine)).toEqual([]);
  }, 50_000);
});
