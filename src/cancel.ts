import type { Logger } from "pino";
import type { Db } from "./db/client.ts";
import { stepsDue } from "./domain/agenda.ts";
import type { Reach } from "./fault-points.ts";
import { learn } from "./learn.ts";
import type { Metrics } from "./metrics.ts";
import type { Queues } from "./queue/queue.ts";

interface Services {
  readonly db: Db;
  readonly queues: Queues;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly reach: Reach;
}

/** Asks a job to stop, and wakes it if there is something to stop. Repeating is harmless, as with one that has ended. */
export async function cancelJob(services: Services, jobId: string): Promise<void> {
  const { job, kind, epoch, now } = await learn(services, jobId, [{ type: "cancel_requested", at: new Date() }]);
  if (stepsDue(job, now).length === 0) return;
  await services.queues
    .wake([{ id: jobId, kind, epoch }])
    .catch((error: unknown) => services.logger.warn({ err: error, job_id: jobId }, "could not wake: the sweep will"));
}
