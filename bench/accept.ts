import { randomUUID } from "node:crypto";
import { cpus, loadavg, totalmem } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import { Redis } from "ioredis";
import { demo } from "../apps/demo.ts";
import { acceptJobs } from "../src/db/accept.ts";
import { connect, type Db, disconnect } from "../src/db/client.ts";
import { startEmbeddedPostgres } from "../src/db/embedded.ts";
import { createKey } from "../src/db/keys.ts";
import { prepareDatabase } from "../src/dev.ts";
import { cpuOf, cpuOfFamily, cpuOfThisProcess } from "./cpu.ts";
import { drive } from "./load.ts";
import { bodyOf, requestOf } from "./order.ts";
import { type Measurement, type PhaseName, type Report, ROWS, type RowId } from "./rows.ts";
import { environment, type Server, startRealApi, startRedis, startServing } from "./server.ts";
import { acceptInTransaction } from "./transaction.ts";

export interface AcceptOptions {
  readonly seconds: number;
  readonly rounds: number;
  readonly clients: number;
  readonly users: number;
  readonly only?: readonly RowId[];
  /** False: the tables keep the statistics of an empty database, as in the first minute of a new deployment. */
  readonly analyze: boolean;
}

/** Until V8 has compiled what is hot: a cold API costs twice as much a job. */
const WARM_UP_SECONDS = 8;
/** Nobody runs out. */
const CREDITS_EACH = 1_000_000_000;
/** As in src/api/accepting.ts. */
const GROUP = { size: 64, underWay: 2 };
const TRANSACTION_CONNECTIONS = 8;
/** How long the queue may take to hear of the last jobs. */
const WAKES_MS = 5_000;

/** What a row accepted in its time, before CPU is looked at. */
type Run = Pick<Measurement, "accepted" | "seconds" | "p50Ms" | "p99Ms">;
type NextUser = () => string;

interface Row {
  readonly id: RowId;
  /** The process that stands for the API; null: this one. */
  readonly server: Server | null;
  /** Its entries are waited for, and counted. */
  readonly wakes: boolean;
  run(seconds: number, user: NextUser): Promise<Run>;
}

/** Everything that runs for the bench and is stopped with it. */
interface Bench {
  readonly db: Db;
  readonly rows: readonly Row[];
  readonly postgresPid: number;
  readonly redis: { readonly pid: number; readonly client: Redis } | null;
  readonly problems: string[];
  unwoken: number;
}

/** Rows take turns, and who begins changes, so that a noisy minute of the machine is everybody's. */
export async function benchAccept(options: AcceptOptions, say: (line: string) => void): Promise<Report> {
  const stops: (() => Promise<void>)[] = [];
  const stopAll = async () => {
    for (const stop of stops.splice(0).reverse()) await stop().catch((error: unknown) => say(`not stopped: ${error}`));
  };
  const interrupted = () => void stopAll().finally(() => process.exit(130));
  process.once("SIGINT", interrupted).once("SIGTERM", interrupted);
  try {
    const { bench, machine } = await startBench(options, stops, say);
    const before = await count(bench.db);
    let answered202 = 0;
    const phases: Report["phases"][number][] = [];
    const crowd: NextUser = () => `user-${1 + Math.floor(Math.random() * options.users)}`;
    const phaseUsers: [PhaseName, NextUser][] = [
      ["many users", crowd],
      ["one hot user", () => "hot"],
    ];
    for (const [name, user] of phaseUsers) {
      const found = new Map<RowId, Measurement[]>(bench.rows.map((row) => [row.id, []]));
      for (let round = 0; round <= options.rounds; round++) {
        const shift = round % bench.rows.length;
        for (const row of [...bench.rows.slice(shift), ...bench.rows.slice(0, shift)]) {
          const warmUp = round === 0;
          const measured = await measure(bench, row, warmUp ? WARM_UP_SECONDS : options.seconds, user);
          answered202 += measured.accepted;
          if (!warmUp) found.get(row.id)?.push(measured);
          const rate = Math.round(measured.accepted / measured.seconds);
          // What autovacuum would have done a minute later.
          if (warmUp && options.analyze) await bench.db.execute(sql`analyze`);
          say(`${name}, ${warmUp ? "warm-up" : `round ${round} of ${options.rounds}`}, ${row.id}: ${rate} jobs/s`);
        }
      }
      phases.push({ name, rows: [...found].map(([id, measurements]) => ({ id, measurements })) });
    }
    const after = await count(bench.db);
    const counted = {
      answered202,
      jobs: after.jobs - before.jobs,
      charges: after.charges - before.charges,
      drift: after.drift,
      unwoken: bench.unwoken,
    };
    if (counted.drift > 0) bench.problems.push(`${counted.drift} accounts are not the sum of their entries`);
    return {
      options: { ...options },
      machine: { ...machine, "load after": loads() },
      phases,
      counted,
      problems: bench.problems,
    };
  } finally {
    process.off("SIGINT", interrupted).off("SIGTERM", interrupted);
    await stopAll();
  }
}

async function startBench(
  options: AcceptOptions,
  stops: (() => Promise<void>)[],
  say: (line: string) => void,
): Promise<{ bench: Bench; machine: Record<string, string> }> {
  const wanted = ROWS.map((row) => row.id).filter((id) => options.only?.includes(id) ?? true);
  const postgres = await startEmbeddedPostgres({ quiet: true });
  stops.push(() => postgres.stop());
  await prepareDatabase(postgres.url);
  const db = connect(postgres.url, { max: TRANSACTION_CONNECTIONS, name: "bench" });
  stops.push(() => disconnect(db));
  // The signup grant is what gives everybody credits, so that the ledger adds up from the first entry on.
  await db.execute(sql`update apps set signup_grant = ${CREDITS_EACH} where id = ${demo.id}`);
  await db.execute(sql`insert into accounts (app_id, user_id) values (${demo.id}, 'hot')`);
  await db.execute(sql`
    insert into accounts (app_id, user_id) select ${demo.id}, 'user-' || n from generate_series(1, ${options.users}) n`);
  await db.execute(sql`analyze`);
  const key = await createKey(db, demo.id, "bench");

  const running = wanted.includes("1r") ? await startRedis() : null;
  if (running) stops.push(running.stop);
  else if (wanted.includes("1r")) say("redis-server is not installed: row 1r is left out");
  const redis = running && { pid: running.pid, client: new Redis(running.url) };
  if (redis) stops.push(async () => redis.client.disconnect());

  const problems: string[] = [];
  const overHttp = (server: Server) => async (seconds: number, user: NextUser) => {
    const { refused, firstRefusal, ...run } = await drive({
      origin: server.origin,
      headers: { authorization: `Bearer ${key}` },
      clients: options.clients,
      seconds,
      body: () => bodyOf(user()),
      idempotencyKey: randomUUID,
    });
    if (refused > 0) problems.push(`${refused} requests were refused, the first with ${firstRefusal}`);
    return run;
  };
  const makers: Record<RowId, () => Promise<Row | null>> = {
    "1": async () => {
      const server = await startRealApi(environment(postgres.url));
      return { id: "1", server, wakes: true, run: overHttp(server) };
    },
    "1r": async () => {
      if (!running) return null;
      const server = await startRealApi(environment(postgres.url, running.url));
      return { id: "1r", server, wakes: true, run: overHttp(server) };
    },
    "1q": async () => {
      const server = await startServing("without-wakes", environment(postgres.url));
      return { id: "1q", server, wakes: false, run: overHttp(server) };
    },
    "1s": async () => {
      const server = await startServing("one-by-one", environment(postgres.url));
      return { id: "1s", server, wakes: false, run: overHttp(server) };
    },
    "2": async () => ({ id: "2", server: null, wakes: false, run: (seconds, user) => runGroups(db, seconds, user) }),
    "3": async () => ({
      id: "3",
      server: null,
      wakes: false,
      run: (seconds, user) => runTransactions(db, seconds, user),
    }),
    "4": async () => {
      const server = await startServing("bare", environment(postgres.url));
      return { id: "4", server, wakes: false, run: overHttp(server) };
    },
  };
  const rows: Row[] = [];
  for (const id of wanted) {
    const row = await makers[id]();
    if (!row) continue;
    rows.push(row);
    if (row.server) stops.push(row.server.stop);
  }

  const {
    rows: [version],
  } = await db.execute(sql`select current_setting('server_version') as postgres,
    current_setting('fsync') as fsync, current_setting('synchronous_commit') as synchronous_commit`);
  const machine = {
    processor: `${cpus().length} × ${cpus()[0]?.model.trim() ?? "unknown"}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GB`,
    system: `${process.platform} ${process.arch}`,
    node: process.version,
    postgres: String(version?.["postgres"]),
    fsync: String(version?.["fsync"]),
    synchronous_commit: String(version?.["synchronous_commit"]),
    "load before": loads(),
  };
  return { bench: { db, rows, postgresPid: postgres.pid, redis, problems, unwoken: 0 }, machine };
}

async function measure(bench: Bench, row: Row, seconds: number, user: NextUser): Promise<Measurement> {
  // A worker would have taken them; here nobody reads the queue.
  await bench.db.execute(sql`truncate bullmq.job cascade`);
  await bench.redis?.client.flushall();
  const before = { ...(await count(bench.db)), group: await groups(row), ...readCpu(bench, row) };
  const run = await row.run(seconds, user);
  const loadCpu = cpuOfThisProcess();
  // The wakes belong to the jobs: their CPU is paid when the last one is in the queue.
  if (row.wakes) bench.unwoken += run.accepted - (await entriesIn(row, run.accepted));
  const cpu = readCpu(bench, row);
  const group = await groups(row);
  const after = await count(bench.db);

  const [jobs, charges] = [after.jobs - before.jobs, after.charges - before.charges];
  if (jobs !== run.accepted || charges !== run.accepted)
    bench.problems.push(`row ${row.id}: ${run.accepted} answers of 202, ${jobs} jobs, ${charges} charges`);
  if (after.owed - before.owed !== after.paid - before.paid)
    bench.problems.push(`row ${row.id}: ${after.owed - before.owed} credits owed, ${after.paid - before.paid} charged`);

  const { accepted, p50Ms, p99Ms } = run;
  const ownCpu = loadCpu - before.load;
  return {
    accepted,
    seconds: run.seconds,
    p50Ms,
    p99Ms,
    apiCpu: row.server ? difference(cpu.api, before.api) : ownCpu,
    postgresCpu: difference(cpu.postgres, before.postgres),
    redisCpu: row.id === "1r" ? difference(cpu.redis, before.redis) : null,
    loadCpu: row.server ? ownCpu : null,
    groupSize: group && before.group && (group.sum - before.group.sum) / (group.count - before.group.count),
  };
}

function readCpu(bench: Bench, row: Row) {
  return {
    api: row.server && cpuOf(row.server.pid),
    postgres: cpuOfFamily(bench.postgresPid),
    redis: bench.redis && cpuOf(bench.redis.pid),
    load: cpuOfThisProcess(),
  };
}

function difference(after: number | null, before: number | null): number | null {
  return after === null || before === null ? null : after - before;
}

async function runGroups(db: Db, seconds: number, user: NextUser): Promise<Run> {
  let accepted = 0;
  const run = await inParallel(GROUP.underWay, seconds, async () => {
    const answers = await acceptJobs(
      db,
      Array.from({ length: GROUP.size }, () => requestOf(user())),
    );
    accepted += answers.filter((answer) => answer.outcome === "accepted").length;
  });
  return { accepted, seconds: run.seconds, p50Ms: null, p99Ms: null };
}

async function runTransactions(db: Db, seconds: number, user: NextUser): Promise<Run> {
  const { latencies, ...run } = await inParallel(TRANSACTION_CONNECTIONS, seconds, async () => {
    await acceptInTransaction(db, requestOf(user()));
  });
  latencies.sort((a, b) => a - b);
  const at = (share: number) => latencies[Math.floor(latencies.length * share)] ?? null;
  return { accepted: latencies.length, seconds: run.seconds, p50Ms: at(0.5), p99Ms: at(0.99) };
}

async function inParallel(
  lanes: number,
  seconds: number,
  step: () => Promise<void>,
): Promise<{ latencies: number[]; seconds: number }> {
  const latencies: number[] = [];
  const from = performance.now();
  const until = from + seconds * 1_000;
  const lane = async () => {
    for (let sent = performance.now(); sent < until; sent = performance.now()) {
      await step();
      latencies.push(performance.now() - sent);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return { latencies, seconds: (performance.now() - from) / 1_000 };
}

async function count(db: Db) {
  const {
    rows: [row],
  } = await db.execute(sql`
    select (select count(*) from jobs) as jobs, (select coalesce(sum(credits), 0) from jobs) as owed,
           (select count(*) from credit_ledger where type = 'charge') as charges,
           (select coalesce(-sum(amount), 0) from credit_ledger where type = 'charge') as paid,
           (select count(*) from ledger_drift) as drift`);
  const of = (name: string) => Number(row?.[name]);
  return { jobs: of("jobs"), owed: of("owed"), charges: of("charges"), paid: of("paid"), drift: of("drift") };
}

/** Requests and statements so far, by the API's own metrics. */
async function groups({ server }: Row): Promise<{ sum: number; count: number } | null> {
  if (!server) return null;
  const text = await (await fetch(`${server.origin}/metrics`)).text();
  const of = (name: string) => Number(new RegExp(`^accept_group_size_${name} (\\S+)$`, "m").exec(text)?.[1]);
  const [sum, statements] = [of("sum"), of("count")];
  return sum > 0 ? { sum, count: statements } : null;
}

/** How many of the expected entries the queue holds, once it holds all or time is up. */
async function entriesIn({ server }: Row, expected: number): Promise<number> {
  const deadline = Date.now() + WAKES_MS;
  for (;;) {
    const health = (await (await fetch(`${server?.origin}/api/health`)).json()) as {
      queues: Record<string, { waiting: number }> | null;
    };
    const waiting = health.queues?.["generation"]?.waiting ?? 0;
    if (waiting >= expected || Date.now() > deadline) return Math.min(waiting, expected);
    await sleep(100);
  }
}

function loads(): string {
  return loadavg()
    .map((each) => each.toFixed(1))
    .join(" ");
}
