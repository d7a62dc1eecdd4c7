import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import { Redis as Client } from "ioredis";
import type { Db } from "../src/db/client.ts";
import { freePort, GUARDED } from "../src/db/embedded.ts";
import type { Redis } from "../test/rig/programs.ts";

const READY_MS = 10_000;
const STOP_MS = 5_000;

/** Where BullMQ keeps its entries, and how all of them are lost at once. */
export interface QueueStore {
  readonly name: "redis" | "postgres";
  /** What the programs are told. */
  readonly env: Readonly<Record<string, string>>;
  /** Returns what it emptied, in words. */
  empty(): Promise<string>;
  stop(): Promise<void>;
}

/** Every entry of BullMQ's own tables; the db is that of the jobs. */
export function postgresQueue(db: Db): QueueStore {
  return {
    name: "postgres",
    env: {},
    async empty() {
      const { rowCount } = await db.execute(sql`delete from bullmq.job`);
      return `bullmq.job (${rowCount} entries)`;
    },
    stop: async () => {},
  };
}

/** A Redis of our own is flushed; of one that was given only what begins with our prefix is removed. */
export async function redisQueue(redis: Redis, prefix: string): Promise<QueueStore> {
  const server = "url" in redis ? { url: redis.url, stop: async () => {} } : await startRedis(redis.program);
  const client = new Client(server.url, { maxRetriesPerRequest: 3 });
  client.on("error", () => {});
  return {
    name: "redis",
    env: { REDIS_URL: server.url, QUEUE_PREFIX: prefix },
    async empty() {
      if ("url" in redis) return `${await removeKeys(client, prefix)} keys of Redis`;
      const keys = await client.dbsize();
      await client.flushall();
      return `Redis (${keys} keys)`;
    },
    async stop() {
      if ("url" in redis) await removeKeys(client, prefix).catch(() => {}); // It is left as it was found, or is gone.
      client.disconnect();
      await server.stop();
    },
  };
}

async function removeKeys(client: Client, prefix: string): Promise<number> {
  let removed = 0;
  for await (const keys of client.scanStream({ match: `${prefix}:*`, count: 1_000 }))
    if (keys.length > 0) removed += await client.unlink(keys);
  return removed;
}

/** Keeps nothing on disk and evicts nothing; ends with this process, however that ends. */
async function startRedis(program: string): Promise<{ url: string; stop(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "darkroom-chaos-redis-"));
  const port = await freePort();
  const settings = ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--dir", folder];
  const args = [program, "--port", `${port}`, "--bind", "127.0.0.1", ...settings];
  // Once told that we are gone, the watcher removes the folder too.
  const server = spawn("/bin/sh", ["-c", GUARDED, folder, ...args], {
    detached: true,
    stdio: ["ignore", "ignore", "ignore", "pipe"],
  });
  const exited = once(server, "exit");
  const stop = async () => {
    server.kill("SIGTERM");
    await Promise.race([exited, sleep(STOP_MS, undefined, { ref: false })]);
    server.stdio[3]?.destroy();
  };
  const url = `redis://127.0.0.1:${port}`;
  const client = new Client(url, { maxRetriesPerRequest: 1, retryStrategy: () => 100 });
  client.on("error", () => {});
  try {
    const deadline = Date.now() + READY_MS;
    while ((await client.ping().catch(() => null)) === null) {
      if (Date.now() > deadline) throw new Error(`Redis did not answer within ${READY_MS / 1_000} s`);
      await sleep(50);
    }
    return { url, stop };
  } catch (error) {
    await stop();
    throw error;
  } finally {
    client.disconnect();
  }
}
