import type { Logger } from "pino";
import type { Db } from "../db/client.ts";
import { renew } from "../db/jobs.ts";

/** A third of the lease: two renewals may fail before another worker takes over. */
const RENEW_EVERY_MS = 3_000;

/** The jobs that this process works on right now, kept ours by one statement every 3 s however many they are. */
export interface Leases {
  hold(jobId: string, epoch: number): void;
  drop(jobId: string, epoch: number): void;
  readonly size: number;
  stop(): void;
}

export function keepLeases(db: Db, logger: Logger): Leases {
  const held = new Map<string, number>();
  const timer = setInterval(async () => {
    if (held.size === 0) return;
    const leases = [...held].map(([jobId, epoch]) => ({ jobId, epoch }));
    try {
      await renew(db, leases);
    } catch (error) {
      // Not fatal: whoever acts on a lost lease is refused by the database.
      logger.warn({ err: error, leases: leases.length }, "leases could not be renewed");
    }
  }, RENEW_EVERY_MS);
  return {
    hold: (jobId, epoch) => void held.set(jobId, epoch),
    drop: (jobId, epoch) => void (held.get(jobId) === epoch && held.delete(jobId)),
    get size() {
      return held.size;
    },
    stop: () => clearInterval(timer),
  };
}
