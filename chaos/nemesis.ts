import { setTimeout as sleep } from "node:timers/promises";
import type { Cluster } from "./cluster.ts";
import { seeded } from "./random.ts";

/** Something that will be broken, decided before anything runs. */
export interface Blow {
  /** Milliseconds after the nemesis begins. */
  readonly atMs: number;
  readonly type: "kill_worker" | "stop_worker" | "kill_api" | "flush_queue" | "cut_backends";
  /** Where the search for a worker that is up begins. */
  readonly target: number;
  /** How long a stopped worker stands still. */
  readonly forMs: number;
}

const KINDS = [
  { type: "kill_worker", weight: 4 },
  { type: "stop_worker", weight: 3 },
  { type: "flush_queue", weight: 2 },
  { type: "cut_backends", weight: 2 },
  { type: "kill_api", weight: 1 },
] as const satisfies readonly { type: Blow["type"]; weight: number }[];

/** A worker needs two seconds to start: faster blows would only find nobody to strike. */
const PAUSE_MS = { from: 600, to: 1_800 };
/** Around the 10 s of a lease: some are taken over while they stand still, some are not. */
const STOP_MS = { from: 3_000, to: 12_000 };

/** The same blows for the same seed: each kind once, in any order, then by weight. */
export function planBlows(seed: number, seconds: number): Blow[] {
  const random = seeded(seed, "nemesis");
  const first = random.shuffled(KINDS);
  const blows: Blow[] = [];
  let atMs = random.whole(PAUSE_MS.from, PAUSE_MS.to);
  while (atMs < seconds * 1_000) {
    const { type } = first.shift() ?? random.weighted(KINDS);
    blows.push({ atMs, type, target: random.whole(0, 2), forMs: random.whole(STOP_MS.from, STOP_MS.to) });
    atMs += random.whole(PAUSE_MS.from, PAUSE_MS.to);
  }
  return blows;
}

export interface Struck {
  /** Since the nemesis began. */
  readonly atMs: number;
  readonly type: Blow["type"];
  /** What was done to whom; null when nobody was there to be struck. */
  readonly what: string | null;
}

/** Deals the blows, each at its time, and notes what became of it. Resolves `seconds` after it began. */
export async function strike(
  cluster: Cluster,
  blows: readonly Blow[],
  seconds: number,
  struck: Struck[],
  halted: AbortSignal,
): Promise<void> {
  const startedAt = performance.now();
  const until = (atMs: number) =>
    sleep(Math.max(0, startedAt + atMs - performance.now()), undefined, { signal: halted });
  for (const blow of blows) {
    await until(blow.atMs);
    const what = await deal(cluster, blow).catch((error: unknown) => {
      throw new Error(`the nemesis could not ${blow.type}: ${error instanceof Error ? error.message : error}`);
    });
    struck.push({ atMs: Math.round(performance.now() - startedAt), type: blow.type, what });
  }
  await until(seconds * 1_000);
}

async function deal(cluster: Cluster, { type, target, forMs }: Blow): Promise<string | null> {
  const { workers, api } = cluster;
  const worker = [...workers.slice(target), ...workers.slice(0, target)].find((each) => each.isUp());
  switch (type) {
    case "kill_worker":
      return worker ? `kill -9 ${worker.name} (pid ${worker.kill()})` : null;
    case "stop_worker":
      return worker ? `SIGSTOP ${worker.name} (pid ${worker.stop(forMs)}) for ${forMs} ms` : null;
    case "kill_api":
      return api.isUp() ? `kill -9 api (pid ${api.kill()})` : null;
    case "flush_queue":
      return `${await cluster.queue.empty()} emptied`;
    case "cut_backends":
      return `${await cluster.cutBackends()} connections to Postgres cut`;
  }
}
