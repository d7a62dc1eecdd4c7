import { randomInt } from "node:crypto";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { BadOption } from "../demo/options.ts";
import { findRedis, type Redis } from "../test/rig/programs.ts";
import type { Bug } from "./planted/bug.ts";
import { BUGS } from "./planted/bugs.ts";

export const USAGE = `
npm run chaos [-- --seed N] [--jobs N] [--minutes N | --seconds N] [--queue redis|postgres] [--json FILE]
npm run chaos -- --weather providers [the same]
npm run chaos -- --planted [NAME] [--json FILE]

  --seed N        decides what is ordered and what breaks when; a random one without it
  --jobs N        how many jobs are submitted, 1 to 20000; 60
  --minutes N     how long things are broken, 1 to 240
  --seconds N     the same more finely, 5 to 14400; 30
  --queue NAME    where the queue is kept; redis where there is one, otherwise postgres
  --weather NAME  processes (the default): they are killed and cut off; providers: three of them have brown-outs, empty
                  accounts and 429s, and nothing of ours is struck
  --planted NAME  plants that bug into a copy of the project, or all of them without a name, and says whether the
                  check finds it; together with --jobs, --minutes or --seconds after the ordinary run. With
                  --minutes all of them are planted (five minutes more) unless it says --planted none
  --json FILE     also write the scorecard, for programs
`;

export interface Options {
  readonly seed: number;
  readonly jobs: number;
  readonly seconds: number;
  /** Null: the queue is kept in Postgres. */
  readonly redis: Redis | null;
  readonly weather: WeatherName;
  /** Which bugs are planted and looked for. */
  readonly planted: readonly Bug[];
  /** False: that is all. */
  readonly runs: boolean;
  readonly json: string | null;
}

export const WEATHERS = ["processes", "providers"] as const;
export type WeatherName = (typeof WEATHERS)[number];

/** Null: help was asked for. Throws BadOption before anything is started. */
export function readOptions(args: string[], env: Readonly<Record<string, string | undefined>>): Options | null {
  const given = parse(args);
  if (given.help) return null;
  const redis = findRedis();
  const minutes = whole("--minutes", given.minutes, 1, 240);
  const seconds = whole("--seconds", given.seconds, 5, 14_400);
  if (minutes !== null && seconds !== null) throw new BadOption("Give --minutes or --seconds, not both.");
  const weather = WEATHERS.find((name) => name === (given.weather ?? "processes"));
  if (!weather) throw new BadOption(`--weather is ${WEATHERS.join(" or ")}, not "${given.weather}".`);
  const queue = given.queue ?? (redis ? "redis" : "postgres");
  if (queue !== "redis" && queue !== "postgres")
    throw new BadOption(`--queue is redis or postgres, not "${queue}". Leave it out for whichever there is.`);
  if (queue === "redis" && !redis)
    throw new BadOption("--queue redis needs redis-server on the PATH, or REDIS_URL. Or say --queue postgres.");
  return {
    seed: whole("--seed", given.seed, 0, 2 ** 32 - 1) ?? randomInt(2 ** 32),
    jobs: whole("--jobs", given.jobs, 1, 20_000) ?? 60,
    seconds: seconds ?? (minutes === null ? 30 : minutes * 60),
    redis: queue === "redis" ? redis : null,
    weather,
    planted: bugsOf(given.planted ?? (minutes === null || weather === "providers" ? NONE : ALL)),
    runs:
      (given.planted ?? NONE) === NONE || [given.jobs, given.minutes, given.seconds].some((each) => each !== undefined),
    // npm runs scripts in the project's folder; paths are meant from where they were typed.
    json: given.json === undefined ? null : resolve(env["INIT_CWD"] || process.cwd(), given.json),
  };
}

const ALL = "all";
const NONE = "none";

function bugsOf(name: string): readonly Bug[] {
  if (name === NONE) return [];
  const bugs = BUGS.filter((bug) => name === ALL || bug.name === name);
  if (bugs.length > 0) return bugs;
  throw new BadOption(`There is no bug "${name}" to plant, only: ${BUGS.map((bug) => bug.name).join(", ")}.`);
}

/** The name may be left out, which parseArgs does not know. */
function named(args: readonly string[]): string[] {
  return args.flatMap((arg, index) =>
    arg === "--planted" && (args[index + 1] ?? "-").startsWith("-") ? [arg, ALL] : [arg],
  );
}

function parse(args: string[]) {
  try {
    const text = { type: "string" } as const;
    const options = {
      seed: text,
      jobs: text,
      minutes: text,
      seconds: text,
      queue: text,
      weather: text,
      planted: text,
      json: text,
      help: { type: "boolean" },
    } as const;
    return parseArgs({ args: named(args), options }).values;
  } catch (error) {
    const [what = ""] = (error instanceof Error ? error.message : String(error)).split(". ");
    throw new BadOption(`${what}. See: npm run chaos -- --help`);
  }
}

function whole(option: string, text: string | undefined, from: number, to: number): number | null {
  if (text === undefined) return null;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= from && value <= to) return value;
  throw new BadOption(`${option} is a whole number from ${from} to ${to}, not "${text}".`);
}
