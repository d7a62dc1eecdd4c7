import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import type { ratings } from "./schema.ts";

export type Rating = typeof ratings.$inferSelect;

interface NewRating {
  readonly jobId: string;
  /** 0-based. */
  readonly variant: number;
  /** 1..5. */
  readonly score: number;
  readonly comment: string;
}

/** The last word counts; saying it again changes nothing. False: the variant was not delivered, and nothing was kept. */
export async function saveRating(db: Db, { jobId, variant, score, comment }: NewRating): Promise<boolean> {
  const { rowCount } = await db.execute(sql`
    insert into ratings (job_id, variant, score, comment)
    select ${jobId}::uuid, ${variant}::int, ${score}::int, ${comment}::text
    where exists (select 1 from runs where job_id = ${jobId} and variant = ${variant} and status = 'stored')
    on conflict (job_id, variant) do update set score = excluded.score, comment = excluded.comment, updated_at = now()`);
  return (rowCount ?? 0) > 0;
}

/** What became of the jobs of one arm. */
export interface ArmOutcome {
  readonly arm: string;
  readonly jobs: number;
  readonly completed: number;
  readonly failed: number;
  readonly canceled: number;
  /** From acceptance to completion; null while nothing has completed. */
  readonly meanSeconds: number | null;
  readonly ratings: number;
  readonly meanRating: number | null;
  /** Of the sample; null for fewer than two ratings. */
  readonly ratingDeviation: number | null;
}

/** One row for each arm that has a job; at most 100. */
export async function armOutcomes(db: Db, appId: string, experiment: string): Promise<ArmOutcome[]> {
  const { rows } = await db.execute<Record<keyof ArmOutcome, string | number | null>>(sql`
    with mine as materialized (
      select id, arm, status, created_at, ended_at from jobs where experiment = ${experiment} and app_id = ${appId}
    ), rated as (
      select mine.arm, count(*)::int as n, avg(score)::float8 as mean, stddev_samp(score)::float8 as deviation
      from mine join ratings on ratings.job_id = mine.id group by mine.arm
    ), counted as (
      select arm, count(*)::int as jobs, count(*) filter (where status = 'completed')::int as completed,
        count(*) filter (where status = 'failed')::int as failed, count(*) filter (where status = 'canceled')::int as canceled,
        avg(extract(epoch from ended_at - created_at)) filter (where status = 'completed')::float8 as mean_seconds
      from mine group by arm
    )
    select counted.arm, jobs, completed, failed, canceled, mean_seconds as "meanSeconds", coalesce(n, 0) as ratings,
      mean as "meanRating", deviation as "ratingDeviation"
    from counted left join rated using (arm) order by arm limit 100`);
  return rows as unknown as ArmOutcome[];
}
