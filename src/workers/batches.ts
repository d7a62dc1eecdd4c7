import { canceledItem } from "../batch-items.ts";
import { answeredItems, canceledBatches, finishBatch, openJobsOf, refuseItems } from "../db/batches.ts";
import { learn } from "../learn.ts";
import type { Services } from "./services.ts";

/** Whoever still accepted it when it was canceled has stopped long before. */
const ABANDONED_SECONDS = 600;
/** Batches in one round. */
const MOST_BATCHES = 20;
/** Of one batch, at a time; no batch has more than ten times as many. */
const PART = 100;
const MOST_PARTS = 10;

/**
 * Ends batches that were canceled and whose API died midway: what has no answer is refused, what was accepted at that
 * moment is canceled, too. Every step may be repeated. Returns how many there were.
 */
export async function concludeBatches(
  services: Pick<Services, "db" | "logger" | "metrics" | "reach">,
): Promise<number> {
  const { db } = services;
  const abandoned = await canceledBatches(db, ABANDONED_SECONDS, MOST_BATCHES);
  for (const { id, size } of abandoned) {
    const answered = await answeredItems(db, id);
    const open = Array.from({ length: size }, (_, ord) => ord).filter((ord) => !answered.has(ord));
    await refuseItems(
      db,
      id,
      open.map((ord) => canceledItem(id, ord)),
    );
    for (let parts = 0; parts < MOST_PARTS; parts++) {
      const jobs = await openJobsOf(db, id, PART);
      // Nobody is woken: the sweep finds what is due.
      for (const job of jobs) await learn(services, job, [{ type: "cancel_requested", at: new Date() }]);
      if (jobs.length < PART) break;
    }
    await finishBatch(db, id);
  }
  return abandoned.length;
}
