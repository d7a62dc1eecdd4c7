import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis as Client } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type RedisServer, startRedis } from "../../chaos/redis.ts";
import type { JobJson } from "../../src/job-json.ts";
import { findRedis } from "../rig/programs.ts";
import { type Spine, startSpine } from "../rig/spine.ts";

/** What is struck must be ours: a Redis that was only named by its address is left alone. */
const redis = findRedis();
const program = redis !== null && "program" in redis ? redis.program : null;
if (program === null && process.env["CI"] === "true")
  throw new Error("redis-server is missing, and CI skips nothing. Install it: `apt-get install redis-server`");
if (program === null)
  process.stderr.write("\n!!! No redis-server of our own: SKIPPING its outages. `apt-get install redis-server`\n\n");

/** How long it is away where it is away for long; `OUTAGE_SECONDS=600` tries ten minutes. */
const LONG_MS = Number(process.env["OUTAGE_SECONDS"] ?? 40) * 1_000;

/** Said by the promise: an API that cannot reach the queue waits for it 3 s at most. */
const ACCEPT_MS = 4_000;

describe.skipIf(program === null)("with a Redis that goes away, and programs that are never restarted,", () => {
  let folder: string;
  let server: RedisServer;
  let client: Client;
  let spine: Spine;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "darkroom-outage-"));
    server = await startRedis(program as string, join(folder, "redis"));
    client = new Client(server.port, "127.0.0.1", { maxRetriesPerRequest: 1, commandTimeout: 1_000 });
    client.on("error", () => {});
    const REDIS_URL = `redis://127.0.0.1:${server.port}`;
    spine = await startSpine({ env: { REDIS_URL, QUEUE_PREFIX: "outage" } });
  });
  afterAll(async () => {
    await server?.heal();
    await spine?.stop();
    client?.disconnect();
    await server?.stop();
    await rm(folder, { recursive: true, force: true });
  });
  afterEach(async () => {
    expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  });

  const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  const generation = (index: number) => ({
    kind: "generation",
    user: `user-${index % 4}`,
    input: { prompt: `${index % 3 ? "" : "[sandbox: slow=2] "}number ${index}`, width: 512, height: 512 },
  });
  const submitMany = (count: number) =>
    Promise.all(Array.from({ length: count }, (_, index) => spine.submit(generation(index))));

  /** One after the other, while it is away. Returns the jobs, and how long the slowest acceptance took. */
  async function acceptMany(count: number): Promise<{ jobs: JobJson[]; slowestMs: number }> {
    const jobs: JobJson[] = [];
    let slowestMs = 0;
    for (let index = 0; index < count; index++) {
      const from = performance.now();
      jobs.push(await spine.submit(generation(index)));
      slowestMs = Math.max(slowestMs, performance.now() - from);
    }
    return { jobs, slowestMs };
  }

  async function expectWhole(jobs: readonly JobJson[], ms: number): Promise<void> {
    const open = async () => (await spine.sql`select id from jobs where ended_at is null`).map((row) => row["id"]);
    await expect.poll(open, { timeout: ms, interval: 200 }).toEqual([]);
    for (const { id } of jobs) {
      const job: JobJson = (await spine.call("GET", `/api/jobs/${id}`)).body;
      expect(job).toMatchObject({ status: "completed", settlement: { charged: 1, kept: 1, refunded: 0 } });
      expect(job.runs).toHaveLength(1);
    }
  }

  test("everything in it may be lost five times a second: all jobs end", async () => {
    let over = false;
    const flushing = (async () => {
      for (; !over; await sleep(200)) await client.flushall().catch(() => {});
    })();
    onTestFinished(() => {
      over = true;
      return flushing;
    });
    await expectWhole(await submitMany(20), 60_000);
  }, 90_000);

  test("it may stand still for 8 s: jobs are accepted meanwhile, and end when it goes on", async () => {
    const running = await submitMany(5);
    expect(server.freeze(8_000)).not.toBeNull();
    const until = performance.now() + 8_000;
    const { jobs, slowestMs } = await acceptMany(10);
    expect(slowestMs).toBeLessThan(ACCEPT_MS);
    // They were accepted without it.
    expect(performance.now()).toBeLessThan(until);
    await sleep(until - performance.now());
    await expectWhole([...running, ...jobs], 30_000);
  }, 60_000);

  test("it may die and come back empty after 16 s: jobs are accepted meanwhile, and end within seconds of its return", async () => {
    const running = await submitMany(5);
    expect(server.kill(16_000)).not.toBeNull();
    const until = performance.now() + 16_000;
    const { jobs, slowestMs } = await acceptMany(10);
    expect(slowestMs).toBeLessThan(ACCEPT_MS);
    await sleep(until - performance.now() - 2_000);
    const late = await acceptMany(5);
    expect(late.slowestMs).toBeLessThan(ACCEPT_MS);
    expect(performance.now()).toBeLessThan(until);
    await sleep(until - performance.now());
    await expectWhole([...running, ...jobs, ...late.jobs], 15_000);
    // What is submitted now is woken at once again, not by the sweep.
    const swept = await sweptSoFar();
    await expectWhole(await submitMany(3), 15_000);
    expect(await sweptSoFar()).toBe(swept);
  }, 60_000);

  test(
    "it may be away for long: what is accepted meanwhile is worked on and ends, by the sweep alone",
    async () => {
      expect(server.kill(LONG_MS)).not.toBeNull();
      const until = performance.now() + LONG_MS;
      const { jobs } = await acceptMany(6);
      await expectWhole(jobs, 35_000);
      // And still, minutes later, just before it comes back.
      if (LONG_MS > 100_000) {
        await sleep(until - performance.now() - 40_000);
        await expectWhole((await acceptMany(2)).jobs, 35_000);
      }
      expect(performance.now()).toBeLessThan(until);
      await server.heal();
    },
    LONG_MS + 30_000,
  );

  test("it may be full, and answer but take nothing: what is accepted is worked on and ends", async () => {
    // It was away a moment ago, and this connection dials again when it likes.
    await expect.poll(() => client.ping().catch(() => null), { timeout: 15_000 }).toBe("PONG");
    await client.config("SET", "maxmemory", "1000000");
    try {
      const { jobs } = await acceptMany(4);
      await expectWhole(jobs, 30_000);
    } finally {
      await client.config("SET", "maxmemory", "0");
    }
  }, 60_000);

  test("it may stand still while a worker is told to stop: that one ends before it is killed for it", async () => {
    const worker = await spine.startWorker();
    expect(server.freeze(20_000)).not.toBeNull();
    const from = performance.now();
    await worker.stop();
    expect(performance.now() - from).toBeLessThan(9_000);
    await server.heal();
  }, 60_000);

  async function sweptSoFar(): Promise<number> {
    const metrics = await (await fetch(`${spine.workers[0]?.url}/metrics`)).text();
    return Number(/^\w*jobs_swept_total (\d+)/m.exec(metrics)?.[1]);
  }
});
