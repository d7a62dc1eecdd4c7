import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import type { Run } from "../run.ts";
import { statusOf } from "./job.ts";

const count = z.number().int().min(0).max(1_000_000);
/** What a test says of an endpoint; what it does not say is derived from the runs that are out. */
export const loadWanted = z.strictObject({
  inQueue: count.optional(),
  idle: count.optional(),
  running: count.optional(),
  throttled: count.optional(),
  initializing: count.optional(),
});

const WORKERS = 3; // that an endpoint has when nobody says otherwise
const LONGEST_MS = 8 * 24 * 3_600_000; // a ttl is a week at most

/** Queue and workers of each endpoint, as /health tells them. */
export function makeWorkers({ runs, course }: Pick<Cloud, "runs" | "course">) {
  const wanted = new Map<string, z.output<typeof loadWanted>>();
  const ended = new Map<string, { completed: number; failed: number }>();

  return {
    /** Replaces what was said before. */
    set(endpoint: string, load: z.output<typeof loadWanted>): void {
      wanted.set(endpoint, load);
    },

    async follow(run: Run): Promise<void> {
      await course.over(run, LONGEST_MS);
      const counts = ended.get(run.model) ?? { completed: 0, failed: 0 };
      const status = statusOf(run);
      if (status === "COMPLETED") counts.completed += 1;
      if (status === "FAILED" || status === "TIMED_OUT") counts.failed += 1;
      ended.set(run.model, counts);
    },

    health(endpoint: string) {
      const said = wanted.get(endpoint) ?? {};
      const out = runs.out().filter((run) => run.face === "runpod" && run.model === endpoint);
      const inProgress = out.filter((run) => run.status === "processing").length;
      const running = said.running ?? Math.min(WORKERS, inProgress);
      const idle = said.idle ?? Math.max(0, WORKERS - running);
      return {
        jobs: {
          ...(ended.get(endpoint) ?? { completed: 0, failed: 0 }),
          inProgress,
          inQueue: said.inQueue ?? out.length - inProgress,
          retried: 0,
        },
        workers: {
          idle,
          initializing: said.initializing ?? 0,
          ready: idle,
          running,
          throttled: said.throttled ?? 0,
        },
      };
    },
  };
}
