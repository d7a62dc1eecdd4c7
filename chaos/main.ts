import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { BadOption } from "../demo/options.ts";
import { lastLines, ProgramFailed } from "../demo/program.ts";
import { PROJECT } from "./cluster.ts";
import type { Struck } from "./nemesis.ts";
import { type Options, readOptions, USAGE } from "./options.ts";
import { isProof, plantedCard, plantedLine, runPlanted } from "./planted/planted.ts";
import { runChaos } from "./run.ts";
import { printScorecard, scoreLine } from "./scorecard.ts";

/** Of the nemesis, when something is off. */
const ACTIONS_SHOWN = 200;
/** A run that was told to end needs no longer. */
const END_MS = 20_000;
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
  const { seed, jobs, seconds, redis, weather } = options;
  // Now, so that an older result is not taken for this one.
  await writeJson(options, { seed, ok: false, problem: "not finished" });
  const folder = await mkdtemp(join(tmpdir(), "darkroom-chaos-"));
  const halt = new AbortController();
  const struck: Struck[] = [];
  const onStruck = (blow: Struck) => void struck.push(blow);
  let keep = true;
  const outside = endFromOutside();
  outside.catch(() => {}); // Heard by whatever is under way.
  let work: Promise<unknown> = Promise.resolve();
  const finish = <T>(started: Promise<T>): Promise<T> => {
    work = started;
    return Promise.race([started, outside]);
  };
  try {
    const { planted: bugs, runs } = options;
    const inside = { folder: join(folder, "planted"), halted: halt.signal, print };
    const plant = async () => {
      const planted = await finish(runPlanted({ bugs, ...inside }));
      print(plantedLine(planted));
      return planted;
    };
    if (!runs) {
      const planted = await plant();
      keep = !isProof(planted);
      await writeJson(options, plantedCard(planted));
      return keep ? 1 : 0;
    }
    const run = {
      seed,
      jobs,
      seconds,
      redis,
      weather,
      folder: join(folder, "run"),
      halted: halt.signal,
      print,
      onStruck,
    };
    await mkdir(run.folder);
    const { card, findings } = await finish(runChaos(run));
    keep = !card.ok;
    await writeJson(options, card);
    if (findings.length > 0) await printStruck(options, struck);
    printScorecard(card, print);
    if (bugs.length === 0) return keep ? 1 : 0;

    // What found nothing must be able to find something.
    print(`\nplanting ${bugs.length} bugs, one at a time, to see whether they are found (--planted none: not)`);
    const planted = await plant();
    const { bugs: plantedBugs, caught: plantedCaught } = planted;
    const whole = { ...card, ok: card.ok && isProof(planted), plantedBugs, plantedCaught };
    keep = !whole.ok;
    await writeJson(options, whole);
    print(scoreLine(whole));
    return keep ? 1 : 0;
  } catch (error) {
    halt.abort();
    await Promise.race([work.catch(() => {}), sleep(END_MS, undefined, { ref: false })]);
    const problem = error instanceof Error ? error.message : String(error);
    await writeJson(options, { seed, ok: false, problem }).catch(() => {});
    print(`\n✖ ${problem}`);
    keep = !(error instanceof Interrupted);
    if (error instanceof Interrupted) return error.exitCode;
    await printStruck(options, struck);
    if (error instanceof ProgramFailed) print((await lastLines(error.logFile)).join("\n"));
    return 1;
  } finally {
    if (keep) print(`  logs and evidence: ${folder}`);
    else await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** Rejects on a signal; a second one changes nothing, as npm passes each on once more. */
function endFromOutside(): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[])
      process.on(signal, () => reject(new Interrupted(signal)));
  });
}

/** What is needed to see it again: the seed and the commit give the same plan. */
async function printStruck({ seed }: Options, struck: readonly Struck[]): Promise<void> {
  const commit = await promisify(execFile)("git", ["-C", PROJECT, "rev-parse", "HEAD"]).then(
    ({ stdout }) => stdout.trim(),
    () => "unknown",
  );
  print(`\n  seed ${seed}, commit ${commit}${struck.length > 0 ? `; the last of ${struck.length} blows:` : ""}`);
  for (const { atMs, at, type, what } of struck.slice(-ACTIONS_SHOWN)) {
    const clock = new Date(at).toISOString().slice(11, 23);
    print(`  ${(atMs / 1_000).toFixed(1).padStart(6)} s  ${clock}  ${what ?? `${type}: nobody was up`}`);
  }
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
