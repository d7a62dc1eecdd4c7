import { randomBytes } from "node:crypto";
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sql } from "drizzle-orm";
import { launch, ProgramFailed } from "../demo/program.ts";
import { connect, type Db, disconnect } from "../src/db/client.ts";
import { freePorts } from "../src/db/embedded.ts";
import { createKey } from "../src/db/keys.ts";
import type { Redis } from "../test/rig/programs.ts";
import { buildMain } from "./build.ts";
import { type Member, type MemberOptions, makeMember } from "./member.ts";
import { type Postgres, startPostgres } from "./postgres.ts";
import { makeProviderSwitches, type ProviderSwitches } from "./provider.ts";
import { startProxy, type TcpProxy } from "./proxy.ts";
import { postgresQueue, type QueueStore, redisQueue } from "./queue.ts";

export const PROJECT = fileURLToPath(new URL("..", import.meta.url));
const START_MS = 60_000;
/** A worker that was killed last needs its two seconds, on a machine that just starts five programs. */
const HEAL_MS = 60_000;
const MIGRATE_MS = 60_000;
/**
 * A real provider's list needs 90 s to show everything; the sandbox shows a run at once. But on a machine whose cores are
 * taken by others it was seen to accept an order 23 s after it was sent, 8 s after its sender had given up.
 */
const LOST_AFTER_SECONDS = 10;
/** Runs of 0.5 to 3 s: some are out at any moment, and all of them end in time. */
const SANDBOX_SPEED = 2;
/** Our own connections have this name, and are left alone when all others are cut. */
const NAME = "chaos";
/** Of this process's environment only what says where things are. */
const INHERITED = ["PATH", "HOME", "TMPDIR", "LANG"];
/** Where providers are told to call back; the sandbox takes it to the ingress. */
const PUBLIC_URL = "https://darkroom.example";
const BUCKET = "darkroom";

export interface Cluster {
  /** One address for clients and providers, in front of all APIs. */
  readonly url: string;
  readonly apis: readonly Member[];
  readonly workers: readonly Member[];
  readonly sandbox: string;
  readonly provider: ProviderSwitches;
  readonly queue: QueueStore;
  readonly postgres: Postgres;
  readonly proxies: { readonly ingress: TcpProxy; readonly postgres: TcpProxy; readonly store: TcpProxy };
  /** Where the object store keeps its files. */
  readonly bucketFolder: string;
  /** Our own connection, past every proxy. */
  readonly db: Db;
  readonly apiKey: string;
  /** pg_terminate_backend; returns how many, null when Postgres is not to be reached. */
  endSessions(): Promise<number | null>;
  /** Lets go of everything that is broken or stands still, and waits until all is up. Throws after 60 s. */
  heal(): Promise<void>;
  /** Ends that nobody ordered. */
  crashes(): string[];
  failedStarts(): number;
}

export interface ClusterOptions {
  readonly redis: Redis | null;
  /** Of logs and stored files. */
  readonly folder: string;
  /** The project whose src/, apps/, sandbox/ and migrations/ are run. */
  readonly root: string;
  readonly apis: number;
  readonly workers: number;
  readonly webhooks: boolean;
  /** Of APIs and workers, instead of the usual. */
  readonly env?: Readonly<Record<string, string>>;
  readonly halted: AbortSignal;
  /** Whatever must be ended is announced as it begins, so that a start that fails half way leaves nothing. */
  onStop(stop: () => Promise<void>): void;
}

/** Two APIs, three workers and all that they need: processes of their own, as on hosts of their own. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const { redis, folder, root, webhooks, env = {}, halted, onStop } = options;
  await chmod(folder, 0o755); // Postgres does not run as root, and its data are in here.
  const starting = startPostgres(join(folder, "postgres"));
  onStop(async () => (await starting).stop());
  const postgres = await starting;
  const db = connect(postgres.url, { max: 2, name: NAME });
  onStop(() => disconnect(db));
  const prefix = `chaos-${randomBytes(4).toString("hex")}`;
  const queue = redis ? await redisQueue(redis, prefix, join(folder, "redis")) : postgresQueue(db);
  onStop(queue.stop);
  const proxyTo = async (...ports: number[]) => {
    const proxy = await startProxy(ports);
    onStop(async () => proxy.close());
    return proxy;
  };
  const [apiPorts, workerPorts] = [await freePorts(options.apis), await freePorts(options.workers)];
  const [sandboxPort = 0, storePort = 0] = await freePorts(2);
  const proxies = {
    ingress: await proxyTo(...apiPorts),
    postgres: await proxyTo(postgres.port),
    store: await proxyTo(storePort),
  };

  const inherited = Object.fromEntries(
    INHERITED.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])),
  );
  const through = new URL(postgres.url);
  through.port = `${proxies.postgres.port}`;
  const sandbox = `http://127.0.0.1:${sandboxPort}`;
  const ingress = `http://127.0.0.1:${proxies.ingress.port}`;
  const shared = {
    ...inherited,
    ...queue.env,
    NODE_ENV: "test",
    AI_PROVIDER: "sandbox",
    SANDBOX_URL: sandbox,
    LOST_AFTER_SECONDS: `${LOST_AFTER_SECONDS}`,
    DATABASE_URL: through.href,
    SIGNING_SECRET: randomBytes(32).toString("hex"),
    STORAGE_PROVIDER: "s3",
    S3_BUCKET: BUCKET,
    S3_ENDPOINT: `http://127.0.0.1:${proxies.store.port}`,
    S3_ACCESS_KEY_ID: "S3RVER",
    S3_SECRET_ACCESS_KEY: "S3RVER",
    S3_FORCE_PATH_STYLE: "true",
    PUBLIC_URL: webhooks ? PUBLIC_URL : ingress,
    HOST: "127.0.0.1",
    ...env,
  };
  const main = await buildMain(root, folder);
  await migrate(main, { ...shared, DATABASE_URL: postgres.url }, folder);

  const members: Member[] = [];
  onStop(async () => void (await Promise.all(members.map((member) => member.end()))));
  const start = (name: string, args: MemberOptions["args"], env: MemberOptions["env"], readyUrl: string) => {
    halted.throwIfAborted();
    const logFile = (life: number) => join(folder, `${name}.${life}.log`);
    const member = makeMember({ name, args, env, readyUrl, logFile, folder: join(folder, "nothing") });
    members.push(member);
    return member;
  };
  const files = join(folder, "files");
  await mkdir(files);
  const bucketProgram = fileURLToPath(new URL("./bucket.ts", import.meta.url));
  start("store", [bucketProgram, files, `${storePort}`], inherited, `http://127.0.0.1:${storePort}/health`);
  const sandboxArgs = ["--port", `${sandboxPort}`, "--speed", `${SANDBOX_SPEED}`, "--webhook-relay", ingress];
  start("sandbox", [join(root, "sandbox/main.ts"), ...sandboxArgs], inherited, `${sandbox}/_sandbox/health`);
  const apis = apiPorts.map((port, index) =>
    start(`api-${index + 1}`, [main, "api"], { ...shared, PORT: `${port}` }, `http://127.0.0.1:${port}/readyz`),
  );
  const workers = workerPorts.map((port, index) => {
    const own = { ...shared, HEALTH_PORT: `${port}` };
    return start(`worker-${index + 1}`, [main, "worker"], own, `http://127.0.0.1:${port}/readyz`);
  });
  await Promise.all(members.map((member) => member.up(START_MS)));
  const provider = makeProviderSwitches(sandbox, halted);

  return {
    url: ingress,
    apis,
    workers,
    sandbox,
    provider,
    queue,
    postgres,
    proxies,
    bucketFolder: join(files, BUCKET),
    db,
    apiKey: await createKey(db, "demo", NAME),
    async endSessions() {
      const ended = await db
        .execute<{ ended: string }>(sql`
          select count(*) filter (where pg_terminate_backend(pid)) as ended from pg_stat_activity
          where backend_type = 'client backend' and application_name <> ${`darkroom ${NAME}`}`)
        .catch(() => null);
      return ended && Number(ended.rows[0]?.ended);
    },
    async heal() {
      for (const proxy of [...Object.values(proxies), queue.proxy]) proxy?.heal();
      for (const member of members) member.resume();
      await Promise.all([postgres.up(), queue.server?.heal(), provider.heal()]);
      await Promise.all(members.map((member) => member.up(HEAL_MS)));
    },
    crashes: () => members.flatMap((member) => member.crashes),
    failedStarts: () => members.reduce((sum, member) => sum + member.failedStarts(), 0),
  };
}

/** As an operator does it, with the migrations of that project. */
async function migrate(main: string, env: Readonly<Record<string, string>>, folder: string): Promise<void> {
  const logFile = join(folder, "migrate.log");
  const args = [main, "migrate"];
  const program = launch({ name: "migrate", args, env, logFile, folder: join(folder, "nothing") });
  const late = setTimeout(() => void program.stop(), MIGRATE_MS);
  const how = await program.ended;
  clearTimeout(late);
  if (how !== "exit code 0") throw new ProgramFailed(`the migrations did not run: ${how}`, logFile);
}
