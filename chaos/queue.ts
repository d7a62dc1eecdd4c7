import { sql } from "drizzle-orm";
import { Redis as Client } from "ioredis";
import type { Db } from "../src/db/client.ts";
import type { Redis } from "../test/rig/programs.ts";
import { startProxy, type TcpProxy } from "./proxy.ts";
import { type RedisServer, startRedis } from "./redis.ts";

/** What a Redis that stands still or is down is given to answer. */
const ANSWER_MS = 1_000;

/** Where BullMQ keeps its entries, and how all of them are lost at once. */
export interface QueueStore {
  readonly name: "redis" | "postgres";
  /** What the programs are told. */
  readonly env: Readonly<Record<string, string>>;
  /** Null where there is none, or where it is somebody else's. */
  readonly server: RedisServer | null;
  /** Between the programs and Redis. */
  readonly proxy: TcpProxy | null;
  /** Returns what it emptied, in words; null when that is not to be reached. */
  empty(): Promise<string | null>;
  stop(): Promise<void>;
}

/** Every entry of BullMQ's own tables; the db is that of the jobs. */
export function postgresQueue(db: Db): QueueStore {
  return {
    name: "postgres",
    // Said aloud, or the developer's own .env would be heard.
    env: { REDIS_URL: "" },
    server: null,
    proxy: null,
    async empty() {
      const deleted = await db.execute(sql`delete from bullmq.job`).catch(() => null);
      return deleted && `bullmq.job (${deleted.rowCount} entries)`;
    },
    stop: async () => {},
  };
}

/** A Redis of our own is flushed; of one that was given only what begins with our prefix is removed. */
export async function redisQueue(redis: Redis, prefix: string, folder: string): Promise<QueueStore> {
  const server = "url" in redis ? null : await startRedis(redis.program, folder);
  const proxy = server && (await startProxy([server.port]));
  const direct = "url" in redis ? redis.url : `redis://127.0.0.1:${server?.port}`;
  const client = new Client(direct, {
    maxRetriesPerRequest: 1,
    commandTimeout: ANSWER_MS,
    retryStrategy: () => 200,
  });
  client.on("error", () => {});
  return {
    name: "redis",
    env: { REDIS_URL: proxy ? `redis://127.0.0.1:${proxy.port}` : direct, QUEUE_PREFIX: prefix },
    server,
    proxy,
    async empty() {
      try {
        if (!server) return `${await removeKeys(client, prefix)} keys of Redis`;
        const keys = await client.dbsize();
        await client.flushall();
        return `Redis (${keys} keys)`;
      } catch {
        return null;
      }
    },
    async stop() {
      if (!server) await removeKeys(client, prefix).catch(() => {}); // It is left as it was found, or is gone.
      client.disconnect();
      proxy?.close();
      await server?.stop();
    },
  };
}

async function removeKeys(client: Client, prefix: string): Promise<number> {
  let removed = 0;
  for await (const keys of client.scanStream({ match: `${prefix}:*`, count: 1_000 }))
    if (keys.length > 0) removed += await client.unlink(keys);
  return removed;
}
