import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { connect, type Db, disconnect } from "../src/db/client.ts";
import { freePort, startEmbeddedPostgres } from "../src/db/embedded.ts";
import { createKey } from "../src/db/keys.ts";
import { prepareDatabase } from "../src/dev.ts";
import type { Redis } from "../test/rig/programs.ts";
import { type Member, type MemberOptions, makeMember } from "./member.ts";
import { postgresQueue, type QueueStore, redisQueue } from "./queue.ts";

const WORKERS = 3;
const START_MS = 60_000;
/** A worker that was killed last needs its two seconds, on a machine that just starts three of them. */
const HEAL_MS = 60_000;
/** A real provider's list needs 90 s to show everything; the sandbox shows a run at once. */
const LOST_AFTER_SECONDS = 3;
/** Runs of 0.5 to 3 s: some are out at any moment, and sixty jobs end in time. */
const SANDBOX_SPEED = 2;
/** Our own connections have this name, and are left alone when all others are cut. */
const NAME = "chaos";
/** Of this process's environment only what says where things are. */
const INHERITED = ["PATH", "HOME", "TMPDIR", "LANG"];

export interface Cluster {
  readonly api: Member & { readonly url: string };
  readonly workers: readonly Member[];
  readonly sandbox: string;
  readonly queue: QueueStore;
  /** Our own connection, which no blow strikes. */
  readonly db: Db;
  readonly apiKey: string;
  /** Returns how many. */
  cutBackends(): Promise<number>;
  /** Lets go of everything that stands still, and waits until everything is up. Throws after 60 s. */
  heal(): Promise<void>;
  /** Ends that nobody ordered. */
  crashes(): string[];
  failedStarts(): number;
}

export interface ClusterOptions {
  readonly redis: Redis | null;
  /** Of logs and stored files. */
  readonly folder: string;
  readonly halted: AbortSignal;
  /** Whatever must be ended is announced as it begins, so that a start that fails half way leaves nothing. */
  onStop(stop: () => Promise<void>): void;
}

/** Postgres, the queue's store, the sandbox, one API and three workers: processes of their own, as on hosts of their own. */
export async function startCluster({ redis, folder, halted, onStop }: ClusterOptions): Promise<Cluster> {
  const postgres = startEmbeddedPostgres({ quiet: true });
  onStop(async () => (await postgres).stop());
  const { url: database } = await postgres;
  await prepareDatabase(database);
  const db = connect(database, { max: 2, name: NAME });
  onStop(() => disconnect(db));
  const prefix = `chaos-${randomBytes(4).toString("hex")}`;
  const queue = redis ? await redisQueue(redis, prefix) : postgresQueue(db);
  onStop(queue.stop);

  const members: Member[] = [];
  onStop(async () => void (await Promise.all(members.map((member) => member.end()))));
  const start = (options: Omit<MemberOptions, "logFile" | "folder">) => {
    halted.throwIfAborted();
    const logFile = (life: number) => join(folder, `${options.name}.${life}.log`);
    const member = makeMember({ ...options, logFile, folder: join(folder, "nothing") });
    members.push(member);
    return member;
  };
  const inherited = Object.fromEntries(
    INHERITED.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])),
  );
  const [sandboxUrl, apiUrl] = [await freeAddress(), await freeAddress()];
  start({
    name: "sandbox",
    args: ["sandbox/main.ts", "--port", new URL(sandboxUrl).port, "--speed", `${SANDBOX_SPEED}`],
    env: inherited,
    readyUrl: `${sandboxUrl}/_sandbox/health`,
  });
  const shared = {
    ...inherited,
    ...queue.env,
    NODE_ENV: "test",
    AI_PROVIDER: "sandbox",
    SANDBOX_URL: sandboxUrl,
    LOST_AFTER_SECONDS: `${LOST_AFTER_SECONDS}`,
    DATABASE_URL: database,
    SIGNING_SECRET: randomBytes(32).toString("hex"),
    STORAGE_PROVIDER: "local",
    STORAGE_DIR: join(folder, "files"),
    PUBLIC_URL: apiUrl,
    HOST: "127.0.0.1",
    PORT: new URL(apiUrl).port,
  };
  const api = start({ name: "api", args: ["src/main.ts", "api"], env: shared, readyUrl: `${apiUrl}/readyz` });
  const workers: Member[] = [];
  for (let number = 1; number <= WORKERS; number++) {
    const url = await freeAddress();
    const env = { ...shared, HEALTH_PORT: new URL(url).port };
    workers.push(start({ name: `worker-${number}`, args: ["src/main.ts", "worker"], env, readyUrl: `${url}/readyz` }));
  }
  await Promise.all(members.map((member) => member.up(START_MS)));

  return {
    api: { ...api, url: apiUrl },
    workers,
    sandbox: sandboxUrl,
    queue,
    db,
    apiKey: await createKey(db, "demo", NAME),
    async cutBackends() {
      const { rows } = await db.execute<{ cut: string }>(sql`
        select count(*) filter (where pg_terminate_backend(pid)) as cut from pg_stat_activity
        where backend_type = 'client backend' and application_name <> ${`darkroom ${NAME}`}`);
      return Number(rows[0]?.cut);
    },
    async heal() {
      for (const member of members) member.resume();
      await Promise.all(members.map((member) => member.up(HEAL_MS)));
    },
    crashes: () => members.flatMap((member) => member.crashes),
    failedStarts: () => members.reduce((sum, member) => sum + member.failedStarts(), 0),
  };
}

async function freeAddress(): Promise<string> {
  return `http://127.0.0.1:${await freePort()}`;
}
