import { z } from "zod";
import { type BatchCounts, type BatchItem, type BatchRow, countBatch, listItems } from "./db/batches.ts";
import type { Db } from "./db/client.ts";
import { JOB_STATUSES, type JobStatus } from "./domain/job.ts";
import { KINDS } from "./domain/kinds/kind.ts";

const time = z.iso.datetime({ offset: true });
const count = z.int().min(0);

export const batchSchema = z
  .object({
    id: z.uuid(),
    metadata: z.record(z.string(), z.unknown()),
    size: z.int().describe("Jobs that were sent."),
    accepted: count,
    refused: count.describe("Charged nothing; each says why."),
    counts: z
      .object(Object.fromEntries(JOB_STATUSES.map((status) => [status, count])) as Record<JobStatus, typeof count>)
      .describe("Accepted items by the status of their jobs."),
    credits: z.object({
      charged: count.describe("For all jobs that the batch bought."),
      kept: count.describe("Of the jobs that have ended."),
      refunded: count.describe("Of the jobs that have ended."),
    }),
    createdAt: time,
    acceptedAt: time.nullable().describe("When every item had its answer; null: send the batch again with its key."),
    startedAt: time.nullable().describe("When the first job was begun."),
    endedAt: time.nullable().describe("When the last job had ended."),
    items: z.array(
      z.object({
        index: z.int().min(0).describe("As sent, from 0."),
        job: z
          .object({
            id: z.uuid(),
            kind: z.enum(KINDS),
            user: z.string(),
            status: z.enum(JOB_STATUSES),
            credits: count,
          })
          .nullable()
          .describe("Get it at /api/jobs/{id}."),
        problem: z
          .record(z.string(), z.unknown())
          .nullable()
          .describe("Why it was refused: the problem document that it would have had alone."),
      }),
    ),
    nextCursor: z
      .string()
      .nullable()
      .describe("Give it as cursor to get the items that follow; null: there are no more."),
    links: z.object({ self: z.string(), cancel: z.string() }),
  })
  .meta({ id: "Batch" });
export type BatchJson = z.input<typeof batchSchema>;

export interface ItemPage {
  /** The items behind the one at this position; -1: from the first on. */
  readonly after: number;
  /** 1..1,000. */
  readonly limit: number;
}

/** A batch as callers see it, with one page of its items. */
export async function batchJson(db: Db, batch: BatchRow, { after, limit }: ItemPage): Promise<BatchJson> {
  const [counts, items] = await Promise.all([countBatch(db, batch.id), listItems(db, batch.id, after, limit + 1)]);
  return toBatchJson(batch, counts, items, limit);
}

function toBatchJson(batch: BatchRow, counts: BatchCounts, items: readonly BatchItem[], limit: number): BatchJson {
  const self = `/api/batches/${batch.id}`;
  const page = items.slice(0, limit);
  return {
    id: batch.id,
    metadata: batch.metadata,
    size: batch.size,
    accepted: counts.accepted,
    refused: counts.refused,
    counts: Object.fromEntries(JOB_STATUSES.map((status) => [status, counts.byStatus[status] ?? 0])) as Record<
      JobStatus,
      number
    >,
    credits: { charged: counts.charged, kept: counts.kept, refunded: counts.refunded },
    createdAt: batch.createdAt.toISOString(),
    acceptedAt: batch.acceptedAt?.toISOString() ?? null,
    startedAt: counts.startedAt?.toISOString() ?? null,
    endedAt: batch.endedAt?.toISOString() ?? null,
    items: page.map(({ ord, job, problem }) => ({
      index: ord,
      job: job && { id: job.id, kind: job.kind, user: job.userId, status: job.status, credits: job.credits },
      problem,
    })),
    nextCursor: items.length > limit ? String(page.at(-1)?.ord) : null,
    links: { self, cancel: `${self}/cancel` },
  };
}
