import { type Random, seeded } from "./random.ts";

/** Which providers sell to the fleet: as many faces of one sandbox, each an account of its own. */
export const FACES = ["replicate", "fal", "wavespeed"] as const;
export type Face = (typeof FACES)[number];

/** Who can be asked for a list of what he was sent: an answer that he swallows can be looked for. */
const LISTABLE = ["replicate", "wavespeed"] as const satisfies readonly Face[];

/** Trouble of providers, decided before anything runs. */
export interface Front {
  /** Milliseconds after the weather begins. */
  readonly atMs: number;
  readonly forMs: number;
  readonly type: FrontType;
  /** Whom it strikes. */
  readonly faces: readonly Face[];
  /** Of `small_limits`: creates a minute for each token; all of them may come at once. */
  readonly creates: number;
}

/**
 * brown_out     seven in ten creates fail without an answer that proves anything, the others come late; from its half on
 *               nobody is there
 * empty         402
 * storm         429 for every create, a third of the time each in one of its three forms
 * small_limits  429 for what is beyond a few creates a minute
 */
export type FrontType = "brown_out" | "empty" | "storm" | "small_limits";

export interface Forecast {
  /** The first one is asked first. */
  readonly line: readonly [Face, ...Face[]];
  readonly fronts: readonly Front[];
}

/** So long a round lasts in which each of them comes once; a shorter weather is one round that is as much shorter. */
const ROUND_MS = 180_000;
const LASTS_MS = [30_000, 60_000] as const;
/** With nobody left to sell anything. */
const ALL_MS = 15_000;
const CREATES = [30, 90] as const;

interface Step {
  /** Share of the round at which it begins, and at which it is over at the latest. */
  readonly at: number;
  readonly by: number;
  readonly type: FrontType;
  readonly who: "first" | "second" | "all";
  readonly all?: true;
}

/**
 * The first in line takes all orders while he can, so the second is struck while the first is. A brown-out strikes those
 * only who have a list, and never while the two others are struck as well: whose answer was lost is bought again once, and
 * no more, so a job that meets a second one must end in a refund.
 */
const ROUND: readonly Step[] = [
  { at: 0.03, by: 0.4, type: "brown_out", who: "first" },
  { at: 0.12, by: 0.48, type: "empty", who: "second" },
  { at: 0.5, by: 0.59, type: "storm", who: "all", all: true },
  { at: 0.52, by: 0.86, type: "storm", who: "first" },
  { at: 0.68, by: 0.87, type: "small_limits", who: "all" },
  { at: 0.88, by: 0.97, type: "empty", who: "all", all: true },
];

/** The same weather for the same seed. */
export function forecast(seed: number, seconds: number): Forecast {
  const random = seeded(seed, "weather");
  const first = random.pick(LISTABLE);
  const line = [first, ...random.shuffled(FACES.filter((face) => face !== first))] as const;
  const rounds = Math.max(1, Math.floor((seconds * 1_000) / ROUND_MS));
  const roundMs = (seconds * 1_000) / rounds;
  const fronts = Array.from({ length: rounds }, (_, round) =>
    ROUND.map((step) => front(step, round * roundMs, roundMs, line, random)),
  );
  return { line, fronts: fronts.flat() };
}

function front(step: Step, fromMs: number, roundMs: number, line: Forecast["line"], random: Random): Front {
  const { at, by, type, who } = step;
  const usual = step.all ? ALL_MS : random.whole(...LASTS_MS);
  const forMs = Math.round(Math.min(usual * Math.min(1, roundMs / ROUND_MS), (by - at) * roundMs));
  const [first, second = first] = line;
  return {
    atMs: Math.round(fromMs + at * roundMs),
    forMs,
    type,
    faces: who === "all" ? line : [who === "first" ? first : second],
    creates: type === "small_limits" ? random.whole(...CREATES) : 0,
  };
}
