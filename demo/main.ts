import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, disconnect } from "../src/db/client.ts";
import { ledgerDrift } from "../src/db/credits.ts";
import { createKey } from "../src/db/keys.ts";
import { type Client, type Job, makeClient, readBill } from "./client.ts";
import { type Addresses, type Cluster, makeCluster } from "./cluster.ts";
import { ACCOUNTS, playFailover } from "./failover.ts";
import { openFolder, saveFiles } from "./folder.ts";
import { BadOption, type Options, type Photo, readOptions, USAGE } from "./options.ts";
import { makeOrders, type Order, USER } from "./orders.ts";
import { findChromium, playFilms } from "./playing.ts";
import { visitProducts } from "./products.ts";
import { lastLines, ProgramFailed } from "./program.ts";
import { isEnded, type Progress, showProgress } from "./progress.ts";
import { type Check, type Ended, type Facts, makeChecks, printChecks, printReport, toJson } from "./report.ts";
import { paintRoom } from "./room.ts";
import { failoverChecks, failoverToJson, printMoment, printRoutes } from "./routes.ts";
import { makeTerminal } from "./terminal.ts";
import { printVisit, printVisitHead, visitChecks, visitsToJson } from "./visits.ts";

/** The whole demo. A real provider may have to start a machine first, and what was paid for should arrive. */
const LIMIT_SECONDS = { sandbox: 80, replicate: 300 } as const;
const ALL_LIMIT_SECONDS = 240;
const FAILOVER_LIMIT_SECONDS = 120;
const ASK_EVERY_MS = 250;
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

const terminal = makeTerminal(process.stdout, process.env);
const { print, paint } = terminal;

/** Ctrl-C, kill -TERM, a closed terminal. */
class Interrupted extends Error {
  readonly exitCode: number;
  constructor(signal: keyof typeof SIGNALS) {
    super(`stopped by ${signal}`);
    this.exitCode = SIGNALS[signal];
  }
}

class TimeIsUp extends Error {}

async function main(): Promise<number> {
  const startedAt = performance.now();
  const options = await readOptions(process.argv.slice(2), process.env);
  if (!options) {
    print(USAGE.trim());
    return 0;
  }
  await openFolder(options.out);
  // Now, so that a path that cannot be written to is told before anything runs, and no older result is taken for this one.
  await writeJson(options, { ok: false, problem: "not finished" }).catch((error: NodeJS.ErrnoException) => {
    throw new BadOption(`--json: ${options.json} cannot be written (${error.code}). Name another file.`);
  });
  const halt = new AbortController();
  // Every request listens to it.
  setMaxListeners(0, halt.signal);
  const ending = endFromOutside();
  const screen: { progress: Progress | null } = { progress: null };
  const cluster = makeCluster({
    ...options,
    ...(options.failover ? { accounts: ACCOUNTS } : {}),
    logs: options.out,
    onReady: ({ name, pid, where }) =>
      print(`  ${paint("green", "✔")} ${name.padEnd(10)} pid ${`${pid}`.padEnd(8)} ${where}`),
    onLoss: (what) => (screen.progress ?? { note: print }).note(paint("yellow", `  ! ${what}`)),
  });
  const limit = failAfter(limitOf(options), halt.signal);
  try {
    printHead(options);
    if (options.all || options.failover) {
      const show = options.all ? visitAll : failOver;
      const shown = show(options, cluster, halt.signal);
      const { ok, keep } = await Promise.race([shown, cluster.broken, ending, limit]);
      halt.abort();
      if (!ok) await printTroubles(options.out);
      if (options.keep) await stayUp(keep, Promise.race([ending, cluster.broken]));
      return ok ? 0 : 1;
    }
    const tour = takeTour(options, cluster, halt.signal, (shown) => {
      screen.progress = shown;
    });
    const outcome = await Promise.race([tour, cluster.broken, ending, limit]);
    halt.abort();
    const seconds = round((performance.now() - startedAt) / 1_000);
    const ok = outcome.checks.every((check) => check.ok);
    await writeJson(options, { ok, seconds, ...toJson(outcome.facts, outcome.checks), photo: outcome.photo });
    printReport(terminal, outcome.facts, outcome.checks);
    printEnd(options, outcome, seconds);
    if (!ok) await printTroubles(options.out);
    if (options.keep) await stayUp(outcome, Promise.race([ending, cluster.broken]));
    return ok ? 0 : 1;
  } catch (error) {
    halt.abort();
    screen.progress?.close();
    return await explain(error, options, screen.progress);
  } finally {
    await cluster.stop();
  }
}

function limitOf({ all, failover, provider }: Options): number {
  return all ? ALL_LIMIT_SECONDS : failover ? FAILOVER_LIMIT_SECONDS : LIMIT_SECONDS[provider.name];
}

interface Outcome {
  readonly facts: Facts;
  readonly checks: readonly Check[];
  readonly addresses: Addresses;
  readonly key: string;
  readonly photo: string;
}

/** What a backend does all day, once: upload, submit, follow, fetch; and then what an auditor does. */
async function takeTour(
  options: Options,
  cluster: Cluster,
  halted: AbortSignal,
  onProgress: (progress: Progress) => void,
): Promise<Outcome> {
  const [addresses, photo] = await Promise.all([cluster.start(), options.photo ?? drawRoom()]);
  const photoPath = join(options.out, `room.${photo.extension}`);
  await writeFile(photoPath, photo.bytes);
  const db = connect(addresses.database, { max: 1, name: "demo" });
  try {
    const key = await createKey(db, "demo", "demo");
    const client = makeClient(addresses.api, key, halted);
    const uploadId = await client.upload(photo.bytes, photo.contentType);
    const orders = makeOrders(options.prompt, uploadId, options.provider.name === "sandbox");

    print();
    for (const { name, about } of orders) print(`  ${name.padEnd(10)}  ${paint("dim", about)}`);
    print();
    const progress = showProgress(
      terminal,
      orders.map((order) => order.name),
    );
    onProgress(progress);
    const ended = await Promise.all(orders.map((order) => runOrder(client, order, progress, options.out, halted)));
    progress.close();
    print();

    const facts: Facts = {
      ended,
      credits: await client.credits(USER),
      ledger: await ledgerDrift(db),
      bill: addresses.sandbox ? await readBill(addresses.sandbox) : null,
    };
    return { facts, checks: makeChecks(facts), addresses, key, photo: photoPath };
  } finally {
    await disconnect(db);
  }
}

interface Shown {
  readonly ok: boolean;
  readonly keep: Pick<Outcome, "addresses" | "key">;
}

/** Every kind for every app: what was bought, what it cost, and whether each file opens. */
async function visitAll(options: Options, cluster: Cluster, halted: AbortSignal): Promise<Shown> {
  const startedAt = performance.now();
  const addresses = await cluster.start();
  print();
  printVisitHead(terminal);
  const found = await visitProducts(addresses, options.out, halted, (visit) => printVisit(terminal, visit));
  const chromium = await findChromium();
  const films = found.visits.flatMap(({ files }) =>
    files.filter(({ contentType }) => contentType.startsWith("video/")),
  );
  const paths = films.map(({ path }) => path);
  const played = chromium ? await playFilms(chromium, paths) : null;
  const checks = visitChecks(found, paths.length, played);
  return conclude(options, addresses, startedAt, visitsToJson(found), checks);
}

/** Accounts come and go; the jobs do not care. */
async function failOver(options: Options, cluster: Cluster, halted: AbortSignal): Promise<Shown> {
  const startedAt = performance.now();
  const addresses = await cluster.start();
  print();
  const played = await playFailover(addresses, options.out, halted, (moment) => printMoment(terminal, moment));
  printRoutes(terminal, played.routed);
  return conclude(options, addresses, startedAt, failoverToJson(played), failoverChecks(played));
}

async function conclude(
  options: Options,
  addresses: Addresses,
  startedAt: number,
  found: object,
  checks: readonly Check[],
): Promise<Shown> {
  const ok = checks.every((check) => check.ok);
  const seconds = round((performance.now() - startedAt) / 1_000);
  await writeJson(options, { ok, seconds, ...found, checks });
  printChecks(terminal, checks);
  print(
    paint("dim", `\n  ${seconds} s; everything that was made is in ${relative(process.cwd(), options.out) || "."}`),
  );
  const db = connect(addresses.database, { max: 1, name: "demo" });
  const key = await createKey(db, "demo", "demo").finally(() => disconnect(db));
  return { ok, keep: { addresses, key } };
}

async function drawRoom(): Promise<Photo> {
  return { bytes: await paintRoom(), contentType: "image/jpeg", extension: "jpg" };
}

async function runOrder(
  client: Client,
  order: Order,
  progress: Progress,
  folder: string,
  halted: AbortSignal,
): Promise<Ended> {
  const idempotencyKey = randomUUID();
  const { id } = await client.submit(order.body, idempotencyKey);
  // As a backend would that never got the answer.
  const repeated = (await client.submit(order.body, idempotencyKey)).id;
  let job: Job = await client.job(id);
  while (!isEnded(job.status)) {
    progress.update(order.name, job);
    await sleep(ASK_EVERY_MS, undefined, { signal: halted });
    job = await client.job(id);
  }
  progress.update(order.name, job);
  return { order, job, repeated, pictures: await saveFiles(client, job, order.name, folder) };
}

/** Rejects on a signal or a fault of our own; a second signal changes nothing, as npm passes each on once more. */
function endFromOutside(): Promise<never> {
  const ending = new Promise<never>((_, reject) => {
    for (const signal of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[])
      process.on(signal, () => reject(new Interrupted(signal)));
    process.on("uncaughtException", reject);
  });
  ending.catch(() => {}); // Heard where it is raced.
  return ending;
}

async function failAfter(seconds: number, halted: AbortSignal): Promise<never> {
  await sleep(seconds * 1_000, undefined, { signal: halted }).catch(() => new Promise(() => {}));
  throw new TimeIsUp(`time is up after ${seconds} s`);
}

/** Says what went wrong and returns the exit code. */
async function explain(error: unknown, options: Options, progress: Progress | null): Promise<number> {
  const hung = (progress?.unfinished() ?? []).map(
    ({ name, status, done }) => `${name} hung at ${status}, ${Math.round(done * 100)} %`,
  );
  const message = error instanceof Error ? error.message : String(error);
  const where = progress ? hung.join("; ") : "something did not start";
  const problem = error instanceof TimeIsUp ? `${message}: ${where}` : message;
  await writeJson(options, { ok: false, problem, hung }).catch(() => {});
  print();
  if (error instanceof Interrupted) {
    print(paint("yellow", `  ${problem}; everything is being stopped`));
    return error.exitCode;
  }
  print(paint("red", `  ✖ ${problem}`));
  if (error instanceof ProgramFailed) await printLog(error.logFile, await lastLines(error.logFile));
  else await printTroubles(options.out);
  return 1;
}

/** The last warnings and errors of every program. */
async function printTroubles(folder: string): Promise<void> {
  for (const name of ["sandbox", "api", "worker-1", "worker-2"]) {
    const file = join(folder, `${name}.log`);
    await printLog(file, await lastLines(file, { least: 40, most: 4 }));
  }
}

async function printLog(file: string, lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return;
  print(paint("dim", `  from ${file}:`));
  for (const line of lines) print(paint("dim", `    ${line}`));
}

async function writeJson(options: Options, content: object): Promise<void> {
  if (options.json === null) return;
  await mkdir(dirname(options.json), { recursive: true });
  const queue = options.redisUrl ? "redis" : "postgres";
  await writeFile(options.json, `${JSON.stringify({ ...content, provider: options.provider.name, queue }, null, 2)}\n`);
}

function printHead({ provider, redisUrl }: Options): void {
  print();
  const from =
    provider.name === "sandbox" ? "the sandbox, which draws instead of charging" : "Replicate, with your token";
  print(`  ${paint("bold", "Darkroom demo")}  jobs bought from ${from}`);
  print(paint("dim", `  every line below is a process of its own; the queue is on ${redisUrl ? "Redis" : "Postgres"}`));
  print();
}

function printEnd(options: Options, { facts, photo }: Outcome, seconds: number): void {
  const shown = (path: string) => {
    const near = relative(process.cwd(), path);
    return near.startsWith("..") ? path : near;
  };
  print();
  print(`  Pictures, and the logs of every process, in ${paint("bold", shown(options.out))}:`);
  for (const { path, size } of facts.ended.flatMap((each) => each.pictures))
    print(`    ${shown(path)}  ${paint("dim", size)}`);
  print(`    ${shown(photo)}  ${paint("dim", "the photo that was staged")}`);
  print();
  print(paint("dim", `  ${seconds} s in all.`));
}

/** Until Ctrl-C, or until something dies. */
async function stayUp(
  { addresses: { api, adminPassword }, key }: Pick<Outcome, "addresses" | "key">,
  over: Promise<never>,
): Promise<void> {
  print(`
  Everything stays up until Ctrl-C.
    docs    ${api}/docs
    queues  ${api}/queues  (admin / ${adminPassword})

curl ${api}/api/jobs \\
  -H 'authorization: Bearer ${key}' \\
  -H 'content-type: application/json' \\
  -H "idempotency-key: $(date +%s)" -H 'prefer: wait=30' \\
  -d '{"kind":"generation","user":"${USER}","input":{"prompt":"a fox in the snow"}}'
`);
  await over.catch((error: unknown) => {
    if (!(error instanceof Interrupted)) throw error;
  });
}

function round(seconds: number): number {
  return Math.round(seconds * 10) / 10;
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    console.error(error instanceof BadOption ? `demo: ${error.message}` : error);
    process.exit(error instanceof BadOption ? error.exitCode : 1);
  },
);
