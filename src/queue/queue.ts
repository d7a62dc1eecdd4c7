import { KINDS, type KindName } from "../domain/kinds/kind.ts";
import type { Backend, EntryQueue } from "./backend.ts";

/** "Look at this job now." It carries no truth: losing all of them loses nothing. */
export interface Wake {
  readonly id: string;
  readonly kind: KindName;
  /**
   * The job's epoch when the wake was made; 0: nobody has worked on it yet. What was begun is finished before anything
   * new is begun: an output that is paid for must not wait behind a backlog until the provider deletes it.
   */
  readonly epoch: number;
}

/** One BullMQ queue per kind of job. */
export interface Queues {
  /**
   * Adds an entry for each wake. An entry's id is the job and its epoch: while one waits, a second is a no-op; once a
   * worker has claimed the job, the epoch has moved on and a new wake is not swallowed by the old entry. Throws when
   * the backend does not answer within 3 s; the sweep will do it then.
   */
  wake(wakes: readonly Wake[]): Promise<void>;
  /** How many entries wait and are active, by kind. */
  counts(): Promise<Record<KindName, { waiting: number; active: number }>>;
  /** For the board. */
  readonly queues: readonly EntryQueue[];
  check(): Promise<void>;
  close(): Promise<void>;
}

/** 1 is the most urgent; there is room on both sides. */
const PRIORITY_NEW = 10;
const WAKE_TIMEOUT_MS = 3_000;
/** Wakes that were given up may still wait in a socket; more of them than this are refused until it answers. */
const MOST_UNANSWERED = 100;

export function openQueues(backend: Backend): Queues {
  const byKind = new Map(KINDS.map((kind) => [kind, backend.queue(kind)]));
  for (const queue of byKind.values()) queue.on("error", () => {}); // Said by the call that failed.
  let unanswered = 0;
  const queueOf = (kind: KindName) => {
    const queue = byKind.get(kind);
    if (!queue) throw new Error(`there is no queue for kind ${kind}`);
    return queue;
  };
  return {
    queues: [...byKind.values()],
    async wake(wakes) {
      if (!backend.connected()) throw new Error(`the queue (${backend.name}) is not connected`);
      if (unanswered >= MOST_UNANSWERED) throw new Error(`the queue (${backend.name}) does not answer`);
      const adds = KINDS.map((kind) => {
        const mine = wakes.filter((wake) => wake.kind === kind);
        const entries = mine.map(({ id, epoch }) => ({
          name: kind,
          data: { id },
          // BullMQ takes those without a priority first.
          opts: { jobId: `${id}-${epoch}`, ...(epoch > 0 ? {} : { priority: PRIORITY_NEW }) },
        }));
        return entries.length > 0 ? queueOf(kind).addBulk(entries) : null;
      });
      unanswered++;
      const added = Promise.all(adds).finally(() => unanswered--);
      await within(WAKE_TIMEOUT_MS, added);
    },
    async counts() {
      if (!backend.connected()) throw new Error(`the queue (${backend.name}) is not connected`);
      const counting = Promise.all(
        KINDS.map(async (kind) => {
          const counts = await queueOf(kind).getJobCounts("waiting", "active", "prioritized");
          return [
            kind,
            { waiting: (counts["waiting"] ?? 0) + (counts["prioritized"] ?? 0), active: counts["active"] ?? 0 },
          ];
        }),
      );
      return Object.fromEntries(await within(WAKE_TIMEOUT_MS, counting));
    },
    check: () => within(WAKE_TIMEOUT_MS, backend.check()),
    async close() {
      await atMost(CLOSE_MS, Promise.all([...byKind.values()].map((queue) => queue.close())));
    },
  };
}

/** A backend that does not answer does not keep a program from ending: what is open is disconnected after this. */
const CLOSE_MS = 3_000;

export interface Consumer {
  /** Takes no new entries and waits for those at work, 3 s at most. */
  close(): Promise<void>;
}

/** Reads the queues of some kinds, `concurrency` entries of each at a time; `onWake` must not throw. */
export function consume(
  backend: Backend,
  kinds: readonly KindName[],
  concurrency: number,
  onWake: (jobId: string) => Promise<void>,
  onError: (error: Error) => void,
): Consumer {
  const workers = kinds.map((kind) => {
    const worker = backend.worker(kind, (entry) => onWake(entry.data.id), { concurrency });
    worker.on("error", onError);
    return worker;
  });
  return {
    async close() {
      await atMost(CLOSE_MS, Promise.all(workers.map((worker) => worker.close())));
    },
  };
}

async function atMost(ms: number, closing: Promise<unknown>): Promise<void> {
  closing.catch(() => {}); // Heard too late.
  await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, ms).unref())]);
}

function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the queue did not answer within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
