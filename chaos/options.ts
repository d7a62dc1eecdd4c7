import { randomInt } from "node:crypto";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { BadOption } from "../demo/options.ts";
import { findRedis, type Redis } from "../test/rig/programs.ts";

export const USAGE = `
npm run chaos [-- --seed N] [--jobs N] [--seconds N] [--queue redis|postgres] [--json FILE]

  --seed N        decides what is ordered and what breaks when; a random one without it
  --jobs N        how many jobs are submitted, 1 to 2000; 60
  --seconds N     how long things are broken, 5 to 3600; 30
  --queue NAME    where the queue is kept; redis where there is one, otherwise postgres
  --json FILE     also write the scorecard, for programs
`;

export interface Options {
  readonly seed: number;
  readonly jobs: number;
  readonly seconds: number;
  /** Null: the queue is kept in Postgres. */
  readonly redis: Redis | null;
  readonly json: string | null;
}

/** Null: help was asked for. Throws BadOption before anything is started. */
export function readOptions(args: string[], env: Readonly<Record<string, string | undefined>>): Options | null {
  const given = parse(args);
  if (given.help) return null;
  const redis = findRedis();
  const queue = given.queue ?? (redis ? "redis" : "postgres");
  if (queue !== "redis" && queue !== "postgres")
    throw new BadOption(`--queue is redis or postgres, not "${queue}". Leave it out for whichever there is.`);
  if (queue === "redis" && !redis)
    throw new BadOption("--queue redis needs redis-server on the PATH, or REDIS_URL. Or say --queue postgres.");
  return {
    seed: whole("--seed", given.seed, 0, 2 ** 32 - 1) ?? randomInt(2 ** 32),
    jobs: whole("--jobs", given.jobs, 1, 2_000) ?? 60,
    seconds: whole("--seconds", given.seconds, 5, 3_600) ?? 30,
    redis: queue === "redis" ? redis : null,
    // npm runs scripts in the project's folder; paths are meant from where they were typed.
    json: given.json === undefined ? null : resolve(env["INIT_CWD"] || process.cwd(), given.json),
  };
}

function parse(args: string[]) {
  try {
    const text = { type: "string" } as const;
    const options = {
      seed: text,
      jobs: text,
      seconds: text,
      queue: text,
      json: text,
      help: { type: "boolean" },
    } as const;
    return parseArgs({ args, options }).values;
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
