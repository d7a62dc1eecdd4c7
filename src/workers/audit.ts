import { auditRecent, auditState } from "../db/audit.ts";
import { type Loop, repeat } from "./loop.ts";
import type { Services } from "./services.ts";

const EVERY_MS = 60_000;

/**
 * Checks all the time that the money and the purchases add up: once a minute, by whichever worker comes first. What was
 * found is kept in the database, so that every worker shows the same figures and each finding is logged once.
 */
export function audit({ db, logger, metrics }: Pick<Services, "db" | "logger" | "metrics">, everyMs = EVERY_MS): Loop {
  const stopped = new AbortController();
  // Workers that were started together do not come together for ever.
  const ownMs = everyMs * (0.9 + Math.random() * 0.2);
  let first = true;
  const loop = repeat("audit", logger, ownMs, async () => {
    if (first) {
      // What a fleet that was down left lying is first taken up by its sweep.
      first = false;
      return false;
    }
    try {
      const round = await auditRecent(db, { pauseMs: everyMs * 0.8, stopped: stopped.signal });
      const { completedAt, counts } = await auditState(db);
      for (const [check, count] of Object.entries(counts)) metrics.auditFindings.set({ check }, count);
      metrics.auditCompleted.set((completedAt?.getTime() ?? 0) / 1_000);
      if (!round) return false;
      metrics.auditRounds.inc({ outcome: "completed" });
      for (const { name, never, count, sample } of round.fresh)
        logger.error({ check: name, count, fresh: sample }, `audit: there is ${never}`);
      return round.more;
    } catch (error) {
      if (stopped.signal.aborted) return false;
      metrics.auditRounds.inc({ outcome: "failed" });
      throw error;
    }
  });
  return {
    stop() {
      stopped.abort();
      return loop.stop();
    },
  };
}
