import { setMaxListeners } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import sharp from "sharp";
import { makeClient } from "../demo/client.ts";
import { BadOption } from "../demo/options.ts";
import { lastLines, ProgramFailed } from "../demo/program.ts";
import { paintRoom } from "../demo/room.ts";
import { check } from "./check.ts";
import { makeClients } from "./clients.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import { keepEvidence } from "./evidence.ts";
import { planBlows, type Struck, strike } from "./nemesis.ts";
import { type Options, readOptions, USAGE } from "./options.ts";
import { planOrders } from "./orders.ts";
import { readRecords } from "./records.ts";
import { makeScorecard, printScorecard, type Scorecard } from "./scorecard.ts";

/** After the nemesis. The slowest way back is known: 36 s until a dead sender is given up, and then the search. */
const CALM_MS = 120_000;
const ASK_EVERY_MS = 250;
/** Start, healing and check together, beside nemesis and calm. */
const REST_MS = 240_000;
/** What is not stopped by then ends with this process: every part watches for that. */
const STOP_MS = 15_000;
/** Of the nemesis, when something is off. */
const ACTIONS_SHOWN = 50;
const PHOTO_SIDE = 384; // pixels
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

const print = (line = "") => void process.stdout.write(`${line}\n`);

class Interrupted extends Error {
  readonly exitCode: number;
  constructor(signal: keyof typeof SIGNALS) {
    super(`stopped by ${signal}`);
    this.exitCode = SIGNALS[signal];
  }
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2), process.env);
  if (!options) {
    print(USAGE.trim());
    return 0;
  }
  // Now, so that an older result is not taken for this one.
  await writeJson(options, { seed: options.seed, ok: false, problem: "not finished" });
  const folder = await mkdtemp(join(tmpdir(), "darkroom-chaos-"));
  const halt = new AbortController();
  setMaxListeners(0, halt.signal); // Every client waits with it.
  const stops: (() => Promise<void>)[] = [];
  const struck: Struck[] = [];
  let keep = true;
  try {
    const run = runChaos(options, folder, struck, halt.signal, (stop) => stops.push(stop));
    run.catch(() => {}); // Heard below, unless something else ends first.
    const card = await Promise.race([run, endFromOutside(), timeIsUp(options, halt.signal)]);
    keep = !card.ok;
    await writeJson(options, card);
    printScorecard(card, print);
    if (keep) printStruck(options, struck);
    return card.ok ? 0 : 1;
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    await writeJson(options, { seed: options.seed, ok: false, problem }).catch(() => {});
    print(`\n✖ ${problem}`);
    keep = !(error instanceof Interrupted);
    if (error instanceof Interrupted) return error.exitCode;
    printStruck(options, struck);
    if (error instanceof ProgramFailed) print((await lastLines(error.logFile)).join("\n"));
    return 1;
  } finally {
    halt.abort();
    await Promise.race([stopAll(stops), sleep(STOP_MS, undefined, { ref: false })]);
    if (keep) print(`  logs and evidence: ${folder}`);
    else await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

async function runChaos(
  options: Options,
  folder: string,
  struck: Struck[],
  halted: AbortSignal,
  onStop: (stop: () => Promise<void>) => void,
): Promise<Scorecard> {
  const { seed, jobs, seconds, redis } = options;
  const cluster = await startCluster({ redis, folder, halted, onStop });
  print(`seed ${seed}: ${jobs} orders, ${seconds} s of nemesis, the queue on ${cluster.queue.name}; logs in ${folder}`);
  const photo = await sharp(await paintRoom())
    .resize(PHOTO_SIDE)
    .jpeg()
    .toBuffer();
  const photoId = await makeClient(cluster.api.url, cluster.apiKey, halted).upload(photo, "image/jpeg");
  const orders = planOrders(seed, jobs, seconds, photoId);
  const clients = makeClients(cluster, halted);

  const submitting = clients.submitAll(orders);
  submitting.catch(() => {}); // Awaited below.
  await strike(cluster, planBlows(seed, seconds), seconds, struck, halted);

  const calmFrom = performance.now();
  await cluster.heal();
  print(`calm after ${struck.length} blows; waiting until every accepted job has ended`);
  const left = await untilEnded(cluster, submitting, calmFrom + CALM_MS, halted);
  const recoverySeconds = Math.round((performance.now() - calmFrom) / 100) / 10;
  if (left !== null) print(`✖ not over after ${CALM_MS / 1_000} s of calm: ${left}`);

  const records = await readRecords(cluster, orders, clients.sendings, halted);
  const findings = check(records);
  if (findings.length > 0) {
    for (const { check: name, jobId, detail } of findings) print(`✖ ${name} ${jobId ?? ""} ${detail}`);
    print(`  their stories: ${await keepEvidence(cluster, folder, records, findings, struck)}`);
  }
  const course = { seed, seconds, queue: cluster.queue.name, struck, recoverySeconds };
  return makeScorecard({ ...course, failedStarts: cluster.failedStarts() }, records, findings);
}

/** Null when all orders have their answer and all jobs their end; otherwise what is left when the time is up. */
async function untilEnded(
  { db }: Cluster,
  submitting: Promise<void>,
  deadline: number,
  halted: AbortSignal,
): Promise<string | null> {
  const answered = await Promise.race([
    submitting.then(() => true),
    sleep(Math.max(0, deadline - performance.now()), false, { signal: halted }),
  ]);
  if (!answered) return "orders without a definite answer";
  for (;;) {
    const { rows } = await db.execute<{ open: string }>(sql`select count(*) as open from jobs where ended_at is null`);
    const open = Number(rows[0]?.open);
    if (open === 0) return null;
    if (performance.now() > deadline) return `${open} jobs`;
    await sleep(ASK_EVERY_MS, undefined, { signal: halted });
  }
}

/** Rejects on a signal; a second one changes nothing, as npm passes each on once more. */
function endFromOutside(): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[])
      process.on(signal, () => reject(new Interrupted(signal)));
  });
}

async function timeIsUp({ seconds }: Options, halted: AbortSignal): Promise<never> {
  const limitMs = seconds * 1_000 + CALM_MS + REST_MS;
  await sleep(limitMs, undefined, { signal: halted }).catch(() => new Promise(() => {}));
  throw new Error(`not finished after ${limitMs / 1_000} s`);
}

/** The programs before what they talk to. */
async function stopAll(stops: (() => Promise<void>)[]): Promise<void> {
  for (const stop of stops.reverse()) await stop().catch((error: unknown) => console.error(error));
}

function printStruck({ seed }: Options, struck: readonly Struck[]): void {
  print(`\n  seed ${seed}; the last of ${struck.length} blows:`);
  for (const { atMs, type, what } of struck.slice(-ACTIONS_SHOWN))
    print(`  ${(atMs / 1_000).toFixed(1).padStart(6)} s  ${what ?? `${type}: nobody was up`}`);
}

async function writeJson({ json }: Options, content: object): Promise<void> {
  if (json === null) return;
  await mkdir(dirname(json), { recursive: true });
  await writeFile(json, `${JSON.stringify(content, null, 2)}\n`);
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    console.error(error instanceof BadOption ? `chaos: ${error.message}` : error);
    process.exit(error instanceof BadOption ? error.exitCode : 1);
  },
);
