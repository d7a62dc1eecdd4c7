import { setMaxListeners } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import sharp from "sharp";
import { makeClient } from "../demo/client.ts";
import { paintRoom } from "../demo/room.ts";
import type { Redis } from "../test/rig/programs.ts";
import { type Blow, planBlows } from "./blows.ts";
import { check } from "./check.ts";
import { makeClients } from "./clients.ts";
import { type Cluster, PROJECT, startCluster } from "./cluster.ts";
import { keepEvidence } from "./evidence.ts";
import type { Finding } from "./finding.ts";
import { openHistory } from "./history.ts";
import { type Struck, strike } from "./nemesis.ts";
import type { WeatherName } from "./options.ts";
import { PLAIN_RECIPES, planOrders, RECIPES, type Recipe } from "./orders.ts";
import { seeded } from "./random.ts";
import { readRecords } from "./records.ts";
import { makeScorecard, type Scorecard } from "./scorecard.ts";
import { letPass, type Passed } from "./storm.ts";
import { type Forecast, type Front, forecast } from "./weather.ts";

/**
 * Without a single job that ends, after the nemesis. The slowest way back is known: 36 s until a dead sender is given
 * up and then the search, 90 s until a staging whose webhook was lost is looked at, 60 s between two tries to store.
 */
const STILL_MS = 120_000;
/** Where clients are told to come again in a minute, and may be told so twice. */
const STILL_PAUSED_MS = 300_000;
const ASK_EVERY_MS = 250;
/** Of start, healing and check together; and what each job adds to calm and check. */
const REST_MS = 400_000;
const EACH_JOB_MS = 250;
/** What is not stopped by then ends with this process: every part watches for that. */
const STOP_MS = 15_000;
const PHOTO_SIDE = 256; // pixels
/** One run in four does without webhooks. */
const SHARE_WITHOUT_WEBHOOKS = 0.25;

export interface RunOptions {
  readonly seed: number;
  readonly jobs: number;
  /** How long things are broken. */
  readonly seconds: number;
  /** Null: the queue is kept in Postgres. */
  readonly redis: Redis | null;
  /** Empty, and the caller's to remove: logs, history.jsonl, blows.jsonl, the data, and the evidence of findings. */
  readonly folder: string;
  /** The project that is run; this one. */
  readonly root?: string;
  readonly apis?: number;
  readonly workers?: number;
  /** Whether the provider calls back; the seed decides. */
  readonly webhooks?: boolean;
  /** What is ordered, instead of everything that there is. */
  readonly recipes?: readonly Recipe[];
  /** With providers in trouble: who is, when, instead of the seed's plan. */
  readonly fronts?: readonly Front[];
  /** What is broken when, instead of the seed's plan. */
  readonly blows?: readonly Blow[];
  /** What is in trouble: our own processes and their connections, or the providers. */
  readonly weather?: WeatherName;
  readonly halted?: AbortSignal;
  print?(line: string): void;
  onStruck?(struck: Struck): void;
}

export interface Outcome {
  readonly card: Scorecard;
  readonly findings: readonly Finding[];
}

/** One whole run, from an empty folder to the verdict; leaves no process behind, however it ends. */
export async function runChaos(options: RunOptions): Promise<Outcome> {
  const halt = new AbortController();
  const halted = options.halted ? AbortSignal.any([options.halted, halt.signal]) : halt.signal;
  setMaxListeners(0, halted); // Every client waits with it.
  const stops: (() => Promise<void>)[] = [];
  try {
    const running = run(options, halted, (stop) => stops.push(stop));
    running.catch(() => {}); // Heard below, unless something else ends first.
    return await Promise.race([running, interruption(halted), timeIsUp(options, halted)]);
  } finally {
    halt.abort();
    await Promise.race([stopAll(stops), sleep(STOP_MS, undefined, { ref: false })]);
  }
}

async function run(
  options: RunOptions,
  halted: AbortSignal,
  onStop: (stop: () => Promise<void>) => void,
): Promise<Outcome> {
  const { seed, jobs, seconds, redis, folder, print = () => {} } = options;
  const webhooks = options.webhooks ?? !seeded(seed, "webhooks").chance(SHARE_WITHOUT_WEBHOOKS);
  const { root = PROJECT, apis = 2, workers = 3 } = options;
  print("compiling and starting Postgres, the queue, the store, the sandbox, the APIs and the workers");
  const trouble = options.weather === "providers" ? forecast(seed, seconds) : null;
  const env = trouble ? envOf(trouble) : {};
  const cluster = await startCluster({ redis, folder, root, apis, workers, webhooks, env, halted, onStop });
  const history = openHistory(join(folder, "history.jsonl"));
  const blowLog = openHistory(join(folder, "blows.jsonl"));
  onStop(async () => void (await Promise.all([history.close(), blowLog.close()])));
  const called = webhooks ? "the provider calls back" : "no webhooks";
  print(`seed ${seed}: ${jobs} orders, ${seconds} s of nemesis, the queue on ${cluster.queue.name}, ${called}`);
  if (trouble) print(`accounts, in the order in which they are asked: ${trouble.line.join(", ")}`);
  print(`logs in ${folder}`);
  const photo = await sharp(await paintRoom())
    .resize(PHOTO_SIDE)
    .jpeg()
    .toBuffer();
  const photoId = await makeClient(cluster.url, cluster.apiKey, halted).upload(photo, "image/jpeg");
  const recipes = options.recipes ?? (trouble ? PLAIN_RECIPES : RECIPES);
  const orders = planOrders(seed, jobs, seconds, photoId, recipes);
  const clients = makeClients(cluster, history, halted);
  const struck: Struck[] = [];
  const passed: Passed[] = [];

  const submitting = clients.submitAll(orders);
  submitting.catch(() => {}); // Awaited below.
  const blows = options.blows ?? planBlows(seed, seconds, cluster.queue.server !== null);
  const onStruck = (blow: Struck) => {
    struck.push(blow);
    blowLog.note(blow);
    options.onStruck?.(blow);
  };
  const onPassed = (front: Passed) => {
    passed.push(front);
    blowLog.note(front);
    print(`  ${(front.atMs / 1_000).toFixed(1).padStart(6)} s  ${front.what}`);
  };
  if (trouble) await letPass(cluster.provider, options.fronts ?? trouble.fronts, seconds, onPassed, halted);
  else await strike(cluster, blows, seconds, onStruck, halted);

  const calmFrom = performance.now();
  await cluster.heal();
  const open = await countOpen(cluster);
  print(
    `calm after ${trouble ? `${passed.length} fronts` : `${struck.length} blows`}; waiting until every accepted job has ended (${open} are open)`,
  );
  const stillMs = trouble ? STILL_PAUSED_MS : STILL_MS;
  const left = await untilEnded(cluster, submitting, stillMs, halted);
  const recoverySeconds = Math.round((performance.now() - calmFrom) / 100) / 10;
  if (left !== null) print(`✖ nothing ended for ${stillMs / 1_000} s of calm: ${left}`);

  const told = { orders, sendings: clients.sendings, struck, ...(trouble ? { passed } : {}) };
  const records = await readRecords(cluster, told, halted);
  const findings = check(records);
  for (const { check: name, jobId, detail } of findings) print(`✖ ${name} ${jobId ?? ""} ${detail}`);
  if (findings.length > 0) print(`  their stories: ${await keepEvidence(cluster, folder, records, findings)}`);
  const course = {
    seed,
    seconds,
    weather: options.weather ?? "processes",
    queue: cluster.queue.name,
    webhooks,
    recoverySeconds,
  };
  const counted = { failedStarts: cluster.failedStarts(), pgRestarts: cluster.postgres.restarts() };
  return { card: makeScorecard({ ...course, ...counted }, records, findings), findings };
}

/** With trouble all around, nothing may wait for longer than this. */
const DEADLINE_SECONDS = 600;

function envOf({ line }: Forecast): Record<string, string> {
  const accounts = line.map((face) => `sandbox:${face}`);
  return { AI_PROVIDER: accounts.join(","), JOB_DEADLINE_SECONDS: `${DEADLINE_SECONDS}` };
}

/** Null when all orders have their answer and all jobs their end; otherwise what is left when nothing moves any more. */
async function untilEnded(
  cluster: Cluster,
  submitting: Promise<void>,
  stillMs: number,
  halted: AbortSignal,
): Promise<string | null> {
  const state = { answered: false, trouble: null as unknown };
  submitting.then(
    () => {
      state.answered = true;
    },
    (error: unknown) => {
      state.trouble = error;
    },
  );
  let least = Number.POSITIVE_INFINITY;
  let deadline = 0;
  for (;;) {
    if (state.trouble !== null) throw state.trouble;
    const open = await countOpen(cluster);
    if (state.answered && open === 0) return null;
    if (open < least) deadline = performance.now() + stillMs;
    least = Math.min(least, open);
    if (performance.now() > deadline) return state.answered ? `${open} jobs` : "orders without a definite answer";
    await sleep(ASK_EVERY_MS, undefined, { signal: halted });
  }
}

async function countOpen({ db }: Cluster): Promise<number> {
  const { rows } = await db.execute<{ open: string }>(sql`select count(*) as open from jobs where ended_at is null`);
  return Number(rows[0]?.open);
}

function interruption(halted: AbortSignal): Promise<never> {
  return new Promise((_, reject) => halted.addEventListener("abort", () => reject(halted.reason), { once: true }));
}

async function timeIsUp({ seconds, jobs }: RunOptions, halted: AbortSignal): Promise<never> {
  const limitMs = seconds * 1_000 + REST_MS + jobs * EACH_JOB_MS;
  await sleep(limitMs, undefined, { signal: halted }).catch(() => new Promise(() => {}));
  throw new Error(`not finished after ${limitMs / 1_000} s`);
}

/** The programs before what they talk to. */
async function stopAll(stops: (() => Promise<void>)[]): Promise<void> {
  for (const stop of stops.reverse()) await stop().catch((error: unknown) => console.error(error));
}
