import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import type { Logger } from "pino";
import type { Db } from "../db/client.ts";
import { renew } from "../db/leases.ts";
import { notePresence } from "../db/workers.ts";

/** A third of the lease: two renewals may fail before another worker takes over. */
const RENEW_EVERY_MS = 3_000;
const PATIENCE_MS = 2_500;

/**
 * The jobs that this process works on right now, kept ours by one statement every 3 s however many they are; another
 * says that the process lives.
 */
export interface Leases {
  /** Of this process and no other, ever: a host may start one with the same pid again. */
  readonly worker: string;
  hold(jobId: string, epoch: number): void;
  drop(jobId: string, epoch: number): void;
  readonly size: number;
  stop(): void;
}

export function keepLeases(db: Db, logger: Logger): Leases {
  const held = new Map<string, number>();
  const worker = `${hostname()}:${process.pid}:${randomBytes(4).toString("hex")}`;
  let ticking = false;
  const tick = async () => {
    if (ticking) return;
    ticking = true;
    // One statement that hangs on a dead connection does not keep the next ones from going out on another.
    const late = setTimeout(() => (ticking = false), PATIENCE_MS);
    const leases = [...held].map(([jobId, epoch]) => ({ jobId, epoch }));
    const done = await Promise.allSettled([notePresence(db, worker), leases.length > 0 && renew(db, leases)]);
    // Not fatal: whoever acts on a lost lease is refused by the database.
    for (const each of done)
      if (each.status === "rejected")
        logger.warn({ err: each.reason, leases: leases.length }, "leases could not be renewed");
    clearTimeout(late);
    ticking = false;
  };
  const timer = setInterval(tick, RENEW_EVERY_MS);
  void tick();
  return {
    worker,
    hold: (jobId, epoch) => void held.set(jobId, epoch),
    drop: (jobId, epoch) => void (held.get(jobId) === epoch && held.delete(jobId)),
    get size() {
      return held.size;
    },
    stop: () => clearInterval(timer),
  };
}
