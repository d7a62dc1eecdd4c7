import type { Struck } from "./nemesis.ts";

/** A worker's lease lapsed while it held a job, and another one went on. */
export interface Takeover {
  readonly jobId: string;
  /** host:pid:start, of the one that vanished. */
  readonly worker: string;
  /** Milliseconds. */
  readonly at: number;
}

export interface Recovery {
  /** From the kill -9 of a worker until a job that it held was taken over. */
  readonly ms: number;
  /** Postgres and the queue could be reached all the time: nothing but the kill stood in the way. */
  readonly clear: boolean;
}

/** What nobody can go on without, or cannot be told to go on. */
const OUTAGES = new Set<Struck["type"]>([
  "crash_postgres",
  "refuse_postgres",
  "freeze_postgres",
  "kill_redis",
  "stop_redis",
  "refuse_redis",
  "freeze_redis",
]);
/** To start again, or to dial again. */
const BACK_MS = 3_000;

/** Sorted, the shortest first. */
export function recoveriesOf(takeovers: readonly Takeover[], struck: readonly Struck[]): Recovery[] {
  const dealt = struck.filter(({ what }) => what !== null);
  const kills = dealt.filter(({ type }) => type === "kill_worker");
  const outages = dealt.filter(({ type }) => OUTAGES.has(type));
  return takeovers
    .flatMap(({ worker, at }): Recovery[] => {
      // Pids are used again: the latest of its kills is meant.
      const kill = kills.findLast((each) => each.pid === pidOf(worker) && each.at <= at);
      if (!kill) return [];
      const clear = !outages.some((each) => each.at < at && each.at + each.forMs + BACK_MS > kill.at);
      return [{ ms: at - kill.at, clear }];
    })
    .sort((a, b) => a.ms - b.ms);
}

/** By nearest rank; null of nothing. */
export function percentile(sorted: readonly number[], share: number): number | null {
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? null;
}

export function pidOf(worker: string): number {
  return Number(worker.split(":").at(-2));
}
