import { and, asc, desc, eq, inArray, lt, sql } from "drizzle-orm";
import type { JobStatus } from "../domain/job.ts";
import type { KindName } from "../domain/kinds/kind.ts";
import type { Asset } from "./assets.ts";
import type { Db } from "./client.ts";
import { assets, jobEvents, jobs, runs, settlements } from "./schema.ts";

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
        filter.before === undefined ? undefined : lt(jobs.id, filter.before),
      ),
    )
    .orderBy(desc(jobs.id))
    .limit(filter.limit);
  return withParts(db, rows);
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
  const [runRows, assetRows, settlementRows] = await Promise.all([
    db.select().from(runs).where(inArray(runs.jobId, ids)).orderBy(asc(runs.variant), asc(runs.attempt)),
    db.select().from(assets).where(inArray(assets.jobId, ids)).orderBy(asc(assets.position)),
    db.select().from(settlements).where(inArray(settlements.jobId, ids)),
  ]);
  return rows.map((job) => ({
    job,
    runs: runRows.filter((run) => run.jobId === job.id),
    assets: assetRows.filter((asset) => asset.jobId === job.id),
    settlement: settlementRows.find((each) => each.jobId === job.id) ?? null,
  }));
}
