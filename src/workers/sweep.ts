import { claimDue } from "../db/jobs.ts";
import { type Loop, repeat } from "./loop.ts";
import type { Services } from "./services.ts";

const EVERY_MS = 1_000;
const BATCH = 500;

/** Wakes what is due and what everybody forgot: Postgres knows it, whatever the queue has lost. */
export function sweep({ db, queues, logger, metrics, reach }: Services): Loop {
  return repeat("sweep", logger, EVERY_MS, async () => {
    const due = await claimDue(db, BATCH);
    for (const { id } of due) await reach("sweep.claimed", id);
    if (due.length > 0) await queues.wake(due);
    metrics.swept.inc(due.length);
    return due.length === BATCH;
  });
}
