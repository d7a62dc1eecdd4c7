import {
  createPostgresBackend,
  type JobType,
  type PgPool,
  Queue,
  runMigrations,
  Worker,
  type WorkerOptions,
} from "bullmq";
import { Redis } from "ioredis";
import pg from "pg";
import type { KindName } from "../domain/kinds/kind.ts";

/** What an entry carries: which job to look at, and nothing that could be wrong tomorrow. */
export interface WakeEntry {
  readonly id: string;
}
export type EntryReader = (entry: { data: WakeEntry }) => Promise<void>;
/** What is used of a BullMQ queue and worker, whatever they are backed by. */
export interface EntryQueue {
  addBulk(entries: { name: string; data: WakeEntry; opts: { jobId: string; priority?: number } }[]): Promise<unknown>;
  getJobCounts(...types: JobType[]): Promise<Record<string, number>>;
  on(event: "error", listener: (error: Error) => void): unknown;
  close(): Promise<void>;
}
export interface EntryWorker {
  on(event: "error", listener: (error: Error) => void): unknown;
  close(): Promise<void>;
}

/** Where BullMQ keeps its entries. The two differ only in how connections are made; nothing else here knows which it is. */
export interface Backend {
  readonly name: "postgres" | "redis";
  /** False while it is known to be out of reach. */
  connected(): boolean;
  queue(kind: KindName): EntryQueue;
  worker(kind: KindName, read: EntryReader, options: Pick<WorkerOptions, "concurrency">): EntryWorker;
  /** Throws when the backend cannot be used; the message says why. */
  check(): Promise<void>;
  close(): Promise<void>;
}

/** Nothing is kept: a finished entry would swallow a later one with the same id. */
const QUEUE_OPTIONS = {
  defaultJobOptions: { removeOnComplete: true, removeOnFail: true, attempts: 1 },
  // Not 0: that would switch trimming off.
  streams: { events: { maxLen: 100 } },
} as const;

/**
 * A claim that BullMQ believes in for 8 s; whether it still is one is decided by the job's lease in Postgres. A worker that
 * dies between the two blocks its entry, and every wake under the same id with it, for at most 12 s.
 */
const WORKER_OPTIONS = { lockDuration: 8_000, stalledInterval: 4_000, maxStalledCount: 5, autorun: true } as const;

/** BullMQ's planner choices are wrong on stale statistics: without these it sorts the whole backlog for each claim. */
const PLANNER = "-c enable_sort=off -c enable_seqscan=off -c enable_bitmapscan=off";

/** The embedded default. One worker process is enough for it: more are slower. */
export function postgresBackend(databaseUrl: string): Backend {
  const pools: pg.Pool[] = [];
  const open = (max: number) => {
    const pool = new pg.Pool({
      connectionString: databaseUrl,
      max,
      keepAlive: true,
      connectionTimeoutMillis: 5_000,
      statement_timeout: 10_000,
      application_name: "darkroom queue",
      options: `${PLANNER} -c search_path=bullmq,public`,
    });
    pool.on("error", () => {}); // An idle connection was cut; the next query opens another.
    // One that dies while BullMQ has it says so by its query, and once more as an event that nobody else listens to.
    pool.on("connect", (client) => client.on("error", () => {}));
    pools.push(pool);
    return pool;
  };
  const pool = open(4);
  // The same thing by BullMQ's own name for it.
  const connection = pool as unknown as PgPool;
  return {
    name: "postgres",
    connected: () => true,
    queue: (kind) => new Queue(kind, { connection, ...QUEUE_OPTIONS }, createPostgresBackend),
    worker: (kind, read, options) =>
      new Worker(
        kind,
        read,
        {
          // One to listen and one to claim: concurrent claims on due entries deadlock and fail finished work.
          connection: open(2) as unknown as PgPool,
          ...WORKER_OPTIONS,
          ...options,
        },
        createPostgresBackend,
      ),
    async check() {
      await pool.query("select 1");
    },
    async close() {
      await Promise.all(pools.map((each) => each.end()));
    },
  };
}

/** BullMQ's longest blocking command takes 10 s; a server that answers nothing for so long is dialled again. */
const SILENCE_MS = 20_000;

/** The production backend, and what more than one host needs. `prefix` keeps deployments that share a Redis apart. */
export function redisBackend(redisUrl: string, prefix: string): Backend {
  // BullMQ's first commands wait for the connection, however long that takes; that wakes fail fast is seen to in queue.ts.
  const dialling = { maxRetriesPerRequest: null, connectTimeout: 5_000, socketTimeout: SILENCE_MS };
  const producer = new Redis(redisUrl, dialling);
  producer.on("error", () => {}); // Said by the call that failed, and by readiness.
  const consumers: Redis[] = [];
  return {
    name: "redis",
    connected: () => producer.status === "ready",
    queue: (kind) => new Queue(kind, { connection: producer, prefix, ...QUEUE_OPTIONS }),
    worker(kind, read, options) {
      const connection = new Redis(redisUrl, dialling);
      connection.on("error", () => {});
      consumers.push(connection);
      return new Worker(kind, read, { connection, prefix, ...WORKER_OPTIONS, ...options });
    },
    async check() {
      await producer.ping();
      const policy = await producer.config("GET", "maxmemory-policy").catch(() => null); // Hosted Redis may forbid CONFIG.
      const value = Array.isArray(policy) ? policy[1] : null;
      if (value && value !== "noeviction")
        throw new Error(
          `Redis evicts keys (maxmemory-policy ${value}): set it to noeviction, or queue entries get lost`,
        );
    },
    async close() {
      producer.disconnect();
      for (const consumer of consumers) consumer.disconnect();
    },
  };
}

/** Brings BullMQ's own schema up to date; repeating is harmless. The role needs CREATE on the database. */
export async function migrateQueue(databaseUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    await runMigrations(client);
  } finally {
    await client.end();
  }
}
