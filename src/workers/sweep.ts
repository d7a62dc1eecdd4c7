import { claimDue, unclaimDue } from "../db/leases.ts";
import { KINDS, type KindName } from "../domain/kinds/kind.ts";
import { type Loop, repeat } from "./loop.ts";
import type { Services } from "./services.ts";

const EVERY_MS = 1_000;
const BATCH = 500;
/** A queue with fewer entries waiting than this is filled up with what Postgres knows. */
const SHORT = 200;
/** A longer one may have lost what is older than all it holds: every so many rounds the oldest jobs are woken anyway. */
const ALL_EVERY_ROUNDS = 30;

export interface SweepOptions {
  readonly kinds: readonly KindName[];
  /** How many more jobs this worker can act on now. */
  room(): number;
  act(jobId: string): void;
}

/**
 * Wakes what is due and what everybody forgot: Postgres knows it, whatever the queue has lost. The queue is a doorbell:
 * while it does not answer, or takes no entries, the sweep opens the door itself, for as many jobs as this worker can act on.
 */
export function sweep({ db, queues, logger, metrics, reach }: Services, { kinds, room, act }: SweepOptions): Loop {
  let rounds = 0;
  let away = false;
  return repeat("sweep", logger, EVERY_MS, async () => {
    const counts = await queues.counts().catch((error: unknown) => {
      if (!away) logger.warn({ err: error }, "the queue does not answer: what is due is swept until it does");
      return null;
    });
    away = counts === null;
    if (!counts) {
      const free = Math.min(room(), BATCH);
      const mine = free > 0 ? await claimDue(db, free, { fresh: kinds, begun: kinds }) : [];
      for (const { id } of mine) act(id);
      metrics.swept.inc(mine.length);
      return false;
    }
    const isShort = (kind: KindName) => rounds % ALL_EVERY_ROUNDS === 0 || counts[kind].waiting < SHORT;
    const due = await claimDue(db, BATCH, { fresh: KINDS.filter(isShort), begun: KINDS });
    rounds++;
    for (const { id } of due) await reach("sweep.claimed", id);
    if (due.length === 0) return false;
    const woken = await queues.wake(due).then(
      () => true,
      (error: unknown) => {
        // It answers, and takes nothing: full, or a replica. Each such round says so.
        logger.error({ err: error, jobs: due.length }, "the queue takes no entries: what is due is swept");
        return false;
      },
    );
    metrics.swept.inc(due.length);
    if (woken) return due.length >= BATCH;
    const mine = due.filter(({ kind }) => kinds.includes(kind)).slice(0, Math.max(0, room()));
    const left = due.filter((each) => !mine.includes(each)).map(({ id }) => id);
    await unclaimDue(db, left);
    for (const { id } of mine) act(id);
    return false;
  });
}
