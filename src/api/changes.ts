import type { Logger } from "pino";
import type { Db } from "../db/client.ts";
import { versionsOf } from "../db/job-views.ts";

const EVERY_MS = 400;
const MOST_WATCHED = 2_000;

/** Tells those who wait for a job that it moved. One query for all of them every 400 ms, none when nobody waits. */
export interface Changes {
  /** Resolves when the job has moved past `mark`, or after `ms`. Null: too many wait already. */
  next(jobId: string, mark: string | null, ms: number): Promise<string> | null;
  close(): void;
}

interface Waiter {
  readonly jobId: string;
  readonly mark: string | null;
  resolve(mark: string): void;
}

export function watchChanges(db: Db, logger: Logger): Changes {
  const waiters = new Set<Waiter>();
  let timer: NodeJS.Timeout | null = null;
  let closed = false;

  const look = async () => {
    timer = null;
    try {
      const marks = await versionsOf(db, [...new Set([...waiters].map((waiter) => waiter.jobId))]);
      for (const waiter of [...waiters]) {
        const mark = marks.get(waiter.jobId);
        if (mark !== undefined && mark !== waiter.mark) waiter.resolve(mark);
      }
    } catch (error) {
      logger.warn({ err: error }, "could not look for changes");
    }
    schedule();
  };
  const schedule = () => {
    if (!timer && !closed && waiters.size > 0) timer = setTimeout(() => void look(), EVERY_MS);
  };

  return {
    next(jobId, mark, ms) {
      if (closed || waiters.size >= MOST_WATCHED) return null;
      return new Promise((resolve) => {
        const end = (now: string) => {
          clearTimeout(late);
          waiters.delete(waiter);
          resolve(now);
        };
        const waiter: Waiter = { jobId, mark, resolve: end };
        const late = setTimeout(() => end(mark ?? ""), ms);
        waiters.add(waiter);
        schedule();
      });
    },
    close() {
      closed = true;
      if (timer) clearTimeout(timer);
      for (const waiter of [...waiters]) waiter.resolve(waiter.mark ?? "");
    },
  };
}
