import { and, asc, desc, eq, inArray, lt, or, type SQL, sql } from "drizzle-orm";
import type { JobStatus } from "../domain/job.ts";
import type { KindName } from "../domain/kinds/kind.ts";
import type { Asset } from "./assets.ts";
import type { Db } from "./client.ts";
import type { Rating } from "./ratings.ts";
import { assets, jobEvents, jobs, ratings, runs, settlements, trainedModels } from "./schema.ts";
import type { TrainedModel } from "./trained-models.ts";

export type JobRow = typeof jobs.$inferSelect;
export type RunRow = typeof runs.$inferSelect;
export type EventRow = typeof jobEvents.$inferSelect;
export type SettlementRow = typeof settlements.$inferSelect;

/** A job with everything that a page about it shows. */
export interface JobView {
  readonly job: JobRow;
  readonly runs: readonly RunRow[];
  readonly assets: readonly Asset[];
  readonly settlement: SettlementRow | null;
  readonly ratings: readonly Rating[];
  /** What a training makes, whatever has become of it. */
  readonly trainedModel: TrainedModel | null;
  /** The caller's own files, by `job.files`. */
  readonly inputs: readonly Asset[];
}

/** Null when the app has no such job: another app's job does not exist for it. */
export async function viewJob(db: Db, appId: string, jobId: string): Promise<JobView | null> {
  const rows = await db
    .select()
    .from(jobs)
    .where(and(eq(jobs.id, jobId), eq(jobs.appId, appId)));
  return (await withParts(db, rows))[0] ?? null;
}

export interface JobFilter {
  readonly appId: string;
  readonly userId?: string | undefined;
  readonly status?: JobStatus | undefined;
  readonly kind?: KindName | undefined;
  readonly batchId?: string | undefined;
  readonly pipelineId?: string | undefined;
  readonly experiment?: string | undefined;
  /** What callers noted, at the top level; "7" also finds the number, "true" the boolean. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** Jobs accepted before the one with this id; ids sort by time. */
  readonly before?: string | undefined;
  /** 1..100. */
  readonly limit: number;
}

/** Newest first. */
export async function listJobs(db: Db, filter: JobFilter): Promise<JobView[]> {
  const rows = await db
    .select()
    .from(jobs)
    .where(
      and(
        eq(jobs.appId, filter.appId),
        filter.userId === undefined ? undefined : eq(jobs.userId, filter.userId),
        filter.status === undefined ? undefined : eq(jobs.status, filter.status),
        filter.kind === undefined ? undefined : eq(jobs.kind, filter.kind),
        filter.batchId === undefined ? undefined : eq(jobs.batchId, filter.batchId),
        filter.pipelineId === undefined ? undefined : eq(jobs.pipelineId, filter.pipelineId),
        filter.experiment === undefined ? undefined : eq(jobs.experiment, filter.experiment),
        ...Object.entries(filter.metadata ?? {}).map(([name, value]) => notes(name, value)),
        filter.before === undefined ? undefined : lt(jobs.id, filter.before),
      ),
    )
    .orderBy(desc(jobs.id))
    .limit(filter.limit);
  return withParts(db, rows);
}

function notes(name: string, value: string): SQL | undefined {
  const holds = (wanted: unknown) => sql`${jobs.metadata} @> ${JSON.stringify({ [name]: wanted })}::jsonb`;
  const isOther = /^(true|false|null|-?\d{1,15}(\.\d{1,15})?)$/.test(value);
  return isOther ? or(holds(value), holds(JSON.parse(value.replace(/^(-?)0+(?=\d)/, "$1")))) : holds(value);
}

/** The facts that moved a job, in order; the latest 1,000 of one that was postponed again and again. */
export async function eventsOf(db: Db, jobId: string): Promise<EventRow[]> {
  const latest = await db
    .select()
    .from(jobEvents)
    .where(eq(jobEvents.jobId, jobId))
    .orderBy(desc(jobEvents.version))
    .limit(1_000);
  return latest.reverse();
}

/**
 * A mark for each job that changes whenever something changes that a caller can see, its progress included. One
 * statement however many are asked for.
 */
export async function versionsOf(db: Db, jobIds: readonly string[]): Promise<Map<string, string>> {
  if (jobIds.length === 0) return new Map();
  const rows = await db
    .select({
      id: jobs.id,
      mark: sql<string>`jobs.version || '.' || (
        select coalesce(round(sum(progress) * 1000), 0)::int from runs where runs.job_id = jobs.id)`,
    })
    .from(jobs)
    .where(inArray(jobs.id, [...jobIds]));
  return new Map(rows.map(({ id, mark }) => [id, mark]));
}

async function withParts(db: Db, rows: readonly JobRow[]): Promise<JobView[]> {
  if (rows.length === 0) return [];
  const ids = rows.map((row) => row.id);
  const trainings = rows.filter((row) => row.kind === "training").map((row) => row.id);
  const inputIds = rows.flatMap((row) => Object.values(row.files));
  const [runRows, assetRows, settlementRows, ratingRows, trainedRows, inputRows] = await Promise.all([
    db.select().from(runs).where(inArray(runs.jobId, ids)).orderBy(asc(runs.variant), asc(runs.attempt)),
    db.select().from(assets).where(inArray(assets.jobId, ids)).orderBy(asc(assets.position)),
    db.select().from(settlements).where(inArray(settlements.jobId, ids)),
    db.select().from(ratings).where(inArray(ratings.jobId, ids)),
    trainings.length > 0 ? db.select().from(trainedModels).where(inArray(trainedModels.id, trainings)) : [],
    inputIds.length > 0
      ? db
          .select()
          .from(assets)
          .where(inArray(assets.id, [...new Set(inputIds)]))
      : [],
  ]);
  return rows.map((job) => ({
    job,
    runs: runRows.filter((run) => run.jobId === job.id),
    assets: assetRows.filter((asset) => asset.jobId === job.id),
    settlement: settlementRows.find((each) => each.jobId === job.id) ?? null,
    ratings: ratingRows.filter((each) => each.jobId === job.id),
    trainedModel: trainedRows.find((each) => each.id === job.id) ?? null,
    inputs: inputRows.filter((each) => Object.values(job.files).includes(each.id)),
  }));
}
