import type { Logger } from "pino";
import type { Db } from "./db/client.ts";
import { type Applied, type ApplyOptions, apply, timeBy } from "./db/jobs.ts";
import type { Event } from "./domain/job.ts";
import type { Reach } from "./fault-points.ts";
import type { Metrics } from "./metrics.ts";

/** Applies facts to a job, and says in the log and in the metrics what that led to. */
export async function learn(
  {
    db,
    logger,
    metrics,
    reach,
  }: { readonly db: Db; readonly logger: Logger; readonly metrics: Metrics; readonly reach: Reach },
  jobId: string,
  events: readonly Event[],
  options: ApplyOptions = {},
): Promise<Applied> {
  const after = await apply(db, jobId, events, { ...options, beforeCommit: () => reach("apply.written", jobId) });
  if (!after.changed) return after;
  const { job, kind } = after;
  logger.info(
    { job_id: jobId, facts: events.map((event) => event.type), status: job.status, version: after.version },
    "learned",
  );
  for (const event of events) {
    if (!("costMicroUsd" in event) || event.costMicroUsd === null) continue;
    const run = job.runs.find(({ id }) => id === event.runId);
    if (run) metrics.providerCost.inc({ provider: run.provider }, event.costMicroUsd / 1_000_000);
  }
  if (after.ended) {
    const seconds = (timeBy(after).getTime() - after.createdAt.getTime()) / 1_000;
    metrics.ended.inc({ kind, status: job.status, failure: job.failure?.code ?? "none" });
    metrics.endToEnd.observe({ kind }, seconds);
  }
  return after;
}
