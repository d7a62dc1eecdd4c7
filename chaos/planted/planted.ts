import { rm } from "node:fs/promises";
import { join } from "node:path";
import { PROJECT } from "../cluster.ts";
import type { CheckName } from "../finding.ts";
import type { Bug } from "./bug.ts";
import { type Build, buildBase, plant } from "./build.ts";
import type { Stage } from "./deployment.ts";
import { type Ground, layGround } from "./ground.ts";
import { play } from "./play.ts";
import { SCENARIOS, type ScenarioName } from "./scenarios.ts";

/** Most of the time is spent waiting for leases and looks: more at once than there are cores. */
const LANES = 4;

/** What became of one bug, or of one scenario without a bug. */
export interface Trial {
  readonly name: string;
  readonly scenario: ScenarioName;
  /** From the start of its programs to the verdict. */
  readonly seconds: number;
  /** Which checks found something, each once. */
  readonly found: readonly CheckName[];
  /** Why there is no verdict; null when there is one. */
  readonly problem: string | null;
}

export interface PlantedResult {
  readonly bugs: number;
  readonly caught: number;
  readonly falseAlarms: number;
  readonly medianSeconds: number;
  /** Of the whole. */
  readonly seconds: number;
  readonly clean: readonly Trial[];
  readonly planted: readonly (Trial & { readonly says: string; readonly isCaught: boolean })[];
}

export interface PlantedOptions {
  readonly bugs: readonly Bug[];
  /** The project that is copied; this one. */
  readonly root?: string;
  /** Empty, and the caller's to remove. */
  readonly folder: string;
  readonly halted: AbortSignal;
  print(line: string): void;
}

/**
 * Proves that the harness can fail: each bug is planted into a copy of the project of its own, a scenario that is aimed
 * at it is played, and the same offline check as ever looks at what is left. Each scenario is also played on a copy
 * without a bug: what is found there is a false alarm, and whatever else it finds then proves nothing.
 */
export async function runPlanted({
  bugs,
  root = PROJECT,
  folder,
  halted,
  print,
}: PlantedOptions): Promise<PlantedResult> {
  const stops: (() => Promise<unknown>)[] = [];
  const from = performance.now();
  try {
    const base = await buildBase(root, PROJECT, join(folder, "base"));
    const ground = await layGround(base.main, folder, (stop) => stops.push(stop));
    const scenarios = [...new Set(bugs.map(({ scenario }) => scenario))];
    const clean = new Map<ScenarioName, Trial>();
    const planted: Trial[] = [];
    const works = scenarios.flatMap((scenario) => [
      async () => {
        const stage = { main: base.main, folder: join(folder, "runs", scenario), fresh: false, halted };
        const trial = await tryOut(ground, { name: scenario, scenario }, stage);
        clean.set(scenario, trial);
        print(line(trial, isClean(trial)));
      },
      ...bugs
        .filter((bug) => bug.scenario === scenario)
        .map((bug) => async () => {
          const trial = await tryBug(ground, bug, base, folder, halted);
          planted.push(trial);
          print(line(trial, isCaught(trial, bug)));
        }),
    ]);
    await inLanes(works, LANES);

    const seconds = planted.map((trial) => trial.seconds).sort((a, b) => a - b);
    const verdicts = planted.map((trial) => {
      const bug = bugs.find(({ name }) => name === trial.name) as Bug;
      const scene = clean.get(trial.scenario);
      return { ...trial, says: bug.says, isCaught: isCaught(trial, bug) && scene !== undefined && isClean(scene) };
    });
    return {
      bugs: bugs.length,
      caught: verdicts.filter((each) => each.isCaught).length,
      falseAlarms: [...clean.values()].filter((trial) => !isClean(trial)).length,
      seconds: Math.round((performance.now() - from) / 1_000),
      medianSeconds: seconds[Math.floor(seconds.length / 2)] ?? 0,
      clean: [...clean.values()],
      planted: verdicts,
    };
  } finally {
    for (const stop of stops.reverse()) await stop().catch((error: unknown) => console.error(error));
  }
}

async function tryBug(ground: Ground, bug: Bug, base: Build, folder: string, halted: AbortSignal): Promise<Trial> {
  const build = await plant(bug.patches, base, join(folder, "builds", bug.name));
  const fresh = bug.patches.some(({ file }) => file.startsWith("migrations/"));
  const stage = { main: build.main, folder: join(folder, "runs", bug.name), fresh, halted };
  const trial = await tryOut(ground, bug, stage);
  await rm(build.folder, { recursive: true });
  return trial;
}

async function tryOut(
  ground: Ground,
  { name, scenario }: Pick<Trial, "name" | "scenario">,
  stage: Stage,
): Promise<Trial> {
  const from = performance.now();
  const done = await play(ground, SCENARIOS[scenario], stage).then(
    (findings) => ({ found: [...new Set(findings.map((finding) => finding.check))], problem: null }),
    (error: unknown) => ({ found: [], problem: error instanceof Error ? error.message : String(error) }),
  );
  stage.halted.throwIfAborted();
  return { name, scenario, seconds: Math.round((performance.now() - from) / 100) / 10, ...done };
}

/** All bugs are caught, and nothing else is. */
export function isProof({ bugs, caught, falseAlarms }: PlantedResult): boolean {
  return caught === bugs && falseAlarms === 0;
}

export function plantedLine({ bugs, caught, falseAlarms, medianSeconds, seconds }: PlantedResult): string {
  const took = `median ${medianSeconds} s, ${seconds} s in all`;
  return `planted bugs ${caught}/${bugs} caught, false alarms ${falseAlarms}, ${took}`;
}

/** For programs; the names of the figures are those of the scorecard. */
export function plantedCard({ bugs, caught, planted, ...rest }: PlantedResult) {
  const ok = isProof({ bugs, caught, planted, ...rest });
  return { ok, plantedBugs: bugs, plantedCaught: caught, ...rest, planted };
}

const isClean = ({ found, problem }: Trial) => found.length === 0 && problem === null;
const isCaught = ({ found }: Trial, { caughtBy }: Bug) => found.some((name) => caughtBy.includes(name));

function line({ name, scenario, seconds, found, problem }: Trial, isRight: boolean): string {
  const what = problem ?? (found.length > 0 ? found.join(", ") : "nothing found");
  const whose = name === scenario ? `${name}, without a bug` : name;
  return `  ${isRight ? "✔" : "✖"} ${whose.padEnd(42)} ${seconds.toFixed(1).padStart(5)} s  ${what}`;
}

async function inLanes(works: readonly (() => Promise<void>)[], lanes: number): Promise<void> {
  const left = works.values();
  const lane = async () => {
    for (const work of left) await work();
  };
  // Nobody is left behind when one of them is halted: what they started is ended before what it stands on.
  const ends = await Promise.allSettled(Array.from({ length: lanes }, lane));
  for (const end of ends) if (end.status === "rejected") throw end.reason;
}
