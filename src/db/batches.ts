import { and, asc, eq, gt, isNull, sql } from "drizzle-orm";
import { allStorable } from "../domain/failure.ts";
import type { JobStatus } from "../domain/job.ts";
import type { KindName } from "../domain/kinds/kind.ts";
import { type AcceptAnswer, type AcceptRequest, toAnswer, toRow } from "./accept.ts";
import type { Db } from "./client.ts";
import { batches, batchItems, jobs } from "./schema.ts";

export type BatchRow = typeof batches.$inferSelect;

/** The batch that a key stands for: this one, or the one that was there before. */
export async function openBatch(
  db: Db,
  batch: Pick<BatchRow, "id" | "appId" | "idempotencyKey" | "fingerprint" | "metadata" | "size" | "callbackUrl">,
): Promise<BatchRow> {
  await db
    .insert(batches)
    .values(batch)
    .onConflictDoNothing({ target: [batches.appId, batches.idempotencyKey] });
  const [row] = await db
    .select()
    .from(batches)
    .where(and(eq(batches.appId, batch.appId), eq(batches.idempotencyKey, batch.idempotencyKey)));
  if (!row) throw new Error("a batch was neither inserted nor found");
  return row;
}

/** Null when the app has no such batch. */
export async function findBatch(db: Db, appId: string, id: string): Promise<BatchRow | null> {
  const [row] = await db
    .select()
    .from(batches)
    .where(and(eq(batches.id, id), eq(batches.appId, appId)));
  return row ?? null;
}

/** Notes that nothing more of it is to be accepted. Repeating is harmless. */
export async function cancelBatch(db: Db, id: string): Promise<void> {
  await db
    .update(batches)
    .set({ cancelRequestedAt: sql`coalesce(cancel_requested_at, now())` })
    .where(eq(batches.id, id));
}

/** Canceled so many seconds ago at least, and some of its items still have no answer; the oldest first. */
export async function canceledBatches(
  db: Db,
  seconds: number,
  limit: number,
): Promise<Pick<BatchRow, "id" | "size">[]> {
  return db
    .select({ id: batches.id, size: batches.size })
    .from(batches)
    .where(
      and(isNull(batches.acceptedAt), sql`${batches.cancelRequestedAt} < now() - make_interval(secs => ${seconds})`),
    )
    .orderBy(asc(batches.cancelRequestedAt))
    .limit(limit);
}

/** The positions of the items that have their answer. */
export async function answeredItems(db: Db, batchId: string): Promise<Set<number>> {
  const rows = await db.select({ ord: batchItems.ord }).from(batchItems).where(eq(batchItems.batchId, batchId));
  return new Set(rows.map(({ ord }) => ord));
}

export interface BatchRequest {
  /** 0-based, as sent. */
  readonly ord: number;
  readonly request: AcceptRequest;
}

/**
 * Accepts some items in one statement and commit, at most 100; what was accepted has its item with it. Answers by
 * position; those that had an answer before have none here. What is refused is left to `refuseItems`: until then it
 * has no answer, and would be asked again.
 */
export async function acceptPart(
  db: Db,
  batchId: string,
  part: readonly BatchRequest[],
): Promise<Map<number, AcceptAnswer>> {
  const { rows } = await db.$client.query({
    name: "accept_batch_part",
    text: `select ord, outcome, job_id, balance + allowance as available, retry_after, detail
           from accept_batch_part($1::uuid, $2::jsonb)`,
    values: [batchId, JSON.stringify(part.map(({ ord, request }) => toRow(request, ord)))],
  });
  return new Map(rows.map((row) => [Number(row["ord"]), toAnswer(row)]));
}

/** Keeps why items were refused; those that have an answer keep it. */
export async function refuseItems(
  db: Db,
  batchId: string,
  refused: readonly { readonly ord: number; readonly problem: Record<string, unknown> }[],
): Promise<void> {
  if (refused.length === 0) return;
  await db
    .insert(batchItems)
    .values(refused.map(({ ord, problem }) => ({ batchId, ord, problem: allStorable(problem) })))
    .onConflictDoNothing();
}

/** Called when every item should have its answer; repeating is harmless. */
export async function finishBatch(db: Db, batchId: string): Promise<void> {
  await db.execute(sql`select finish_batch(${batchId})`);
}

export interface BatchCounts {
  readonly accepted: number;
  readonly refused: number;
  /** Of the items' jobs; a job whose result serves several items counts for each. */
  readonly byStatus: Readonly<Partial<Record<JobStatus, number>>>;
  /** Credits of the jobs that this batch bought. */
  readonly charged: number;
  readonly kept: number;
  readonly refunded: number;
  /** When the first of them was begun. */
  readonly startedAt: Date | null;
}

export async function countBatch(db: Db, batchId: string): Promise<BatchCounts> {
  const [items, money] = await Promise.all([
    db.execute<{ status: JobStatus | null; count: number }>(sql`
      select j.status, count(*)::int as count
      from batch_items i left join jobs j on j.id = i.job_id
      where i.batch_id = ${batchId} group by j.status`),
    db.execute<{ charged: number; kept: number; refunded: number; started: number | null }>(sql`
      select coalesce(sum(j.credits), 0)::float8 as charged, coalesce(sum(s.kept), 0)::float8 as kept,
        coalesce(sum(s.refunded), 0)::float8 as refunded, (extract(epoch from min(j.started_at)) * 1000)::float8 as started
      from jobs j left join settlements s on s.job_id = j.id where j.batch_id = ${batchId}`),
  ]);
  const byStatus: Partial<Record<JobStatus, number>> = {};
  let refused = 0;
  for (const { status, count } of items.rows)
    if (status) byStatus[status] = count;
    else refused += count;
  const [sums] = money.rows;
  return {
    accepted: Object.values(byStatus).reduce((sum, count) => sum + count, 0),
    refused,
    byStatus,
    charged: sums?.charged ?? 0,
    kept: sums?.kept ?? 0,
    refunded: sums?.refunded ?? 0,
    startedAt: sums?.started == null ? null : new Date(sums.started),
  };
}

export interface BatchItem {
  readonly ord: number;
  readonly problem: Record<string, unknown> | null;
  readonly job: {
    readonly id: string;
    readonly kind: KindName;
    readonly userId: string;
    readonly status: JobStatus;
    readonly credits: number;
  } | null;
}

/** Items that have their answer, in their order, behind the one at `after`. `limit` 1..1,001. */
export async function listItems(db: Db, batchId: string, after: number, limit: number): Promise<BatchItem[]> {
  const rows = await db
    .select({
      ord: batchItems.ord,
      problem: batchItems.problem,
      job: { id: jobs.id, kind: jobs.kind, userId: jobs.userId, status: jobs.status, credits: jobs.credits },
    })
    .from(batchItems)
    .leftJoin(jobs, eq(jobs.id, batchItems.jobId))
    .where(and(eq(batchItems.batchId, batchId), gt(batchItems.ord, after)))
    .orderBy(asc(batchItems.ord))
    .limit(limit);
  return rows;
}

/** Jobs of the batch that have not ended and were not asked to stop; at most `limit`. */
export async function openJobsOf(db: Db, batchId: string, limit: number): Promise<string[]> {
  const { rows } = await db.execute<{ id: string }>(sql`
    select id from jobs where batch_id = ${batchId} and status in ('pending', 'processing')
      and cancel_requested_at is null order by id limit ${limit}`);
  return rows.map(({ id }) => id);
}
