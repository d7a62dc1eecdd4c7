import { and, eq, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { callbacks } from "./schema.ts";

export type CallbackRow = typeof callbacks.$inferSelect;

/** Something that is to be told now. */
export interface DueCallback {
  /** The webhook-id. */
  readonly id: string;
  readonly appId: string;
  /** "job.completed", "batch.ended", "pipeline.failed" … */
  readonly type: string;
  readonly about: { readonly type: "job" | "batch" | "pipeline"; readonly id: string };
  readonly url: string;
  /** This one included. */
  readonly attempts: number;
  readonly createdAt: Date;
}

/**
 * Claims due callbacks in one statement, so that no two workers tell the same thing at the same time. A claim lapses
 * after 60 s and counts as an attempt: one that kills its worker is not tried for ever. `busyApps` are left waiting.
 */
export async function claimCallbacks(db: Db, limit: number, busyApps: readonly string[]): Promise<DueCallback[]> {
  const { rows } = await db.execute<Record<string, unknown>>(sql`
    update callbacks set next_at = now() + interval '60 seconds', attempts = attempts + 1
    where id in (
      select id from callbacks where next_at <= now()
        and app_id not in (select jsonb_array_elements_text(${JSON.stringify(busyApps)}::text::jsonb))
      order by next_at limit ${limit} for update skip locked)
    returning id, app_id, type, job_id, batch_id, pipeline_id, url, attempts,
      (extract(epoch from created_at) * 1000)::float8 as created`);
  return rows.map((row) => ({
    id: row["id"] as string,
    appId: row["app_id"] as string,
    type: row["type"] as string,
    about: row["job_id"]
      ? { type: "job", id: row["job_id"] as string }
      : row["batch_id"]
        ? { type: "batch", id: row["batch_id"] as string }
        : { type: "pipeline", id: row["pipeline_id"] as string },
    url: row["url"] as string,
    attempts: row["attempts"] as number,
    createdAt: new Date(row["created"] as number),
  }));
}

/**
 * Gives up what was tried `tries` times, the last time by a worker that vanished before it could note what came of it;
 * at most 100. Returns their ids.
 */
export async function giveUpVanished(db: Db, tries: number): Promise<string[]> {
  const { rows } = await db.execute<{ id: string }>(sql`
    update callbacks set next_at = null, gave_up_at = now(),
      last_error = 'the worker that told it for the last time vanished before it could note the answer'
    where id in (
      select id from callbacks where next_at <= now() and attempts >= ${tries} limit 100 for update skip locked)
    returning id`);
  return rows.map(({ id }) => id);
}

export interface Delivery {
  readonly outcome: "delivered" | "retried" | "given_up";
  /** Seconds from now; of `retried`. */
  readonly nextInSeconds: number | null;
  /** Null: there was no answer. */
  readonly status: number | null;
  readonly error: string | null;
}

/** Notes what came of an attempt; nothing if another one has been made since, or a repetition was asked for. */
export async function noteDelivery(
  db: Db,
  { id, attempts }: Pick<DueCallback, "id" | "attempts">,
  { outcome, nextInSeconds, status, error }: Delivery,
): Promise<void> {
  await db.execute(sql`
    update callbacks set
      next_at = now() + make_interval(secs => ${nextInSeconds}),
      delivered_at = case when ${outcome} = 'delivered' then now() end,
      gave_up_at = case when ${outcome} = 'given_up' then now() end,
      last_status = ${status}, last_error = ${error}
    where id = ${id} and attempts = ${attempts}`);
}

/** Has the end of a job told once more, under the same id, from now on. Null: there is nothing to tell, or nobody. */
export async function redeliver(db: Db, appId: string, jobId: string): Promise<CallbackRow | null> {
  const [row] = await db
    .update(callbacks)
    .set({ nextAt: sql`now()`, attempts: 0, deliveredAt: null, gaveUpAt: null })
    .where(and(eq(callbacks.appId, appId), eq(callbacks.jobId, jobId)))
    .returning();
  return row ?? null;
}
