import { type SQL, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { firstIdAt } from "./ids.ts";

/** What jobs can be added up by. */
export type CostGroup = "user" | "kind" | "model" | "plan" | { readonly metadata: string };

export interface Cost {
  /** Null: the jobs that have no such note. */
  readonly value: string | null;
  readonly jobs: number;
  /** What users paid for those that have ended, and what is reserved for those that have not. */
  readonly credits: number;
  readonly reserved: number;
  /** What the providers take for all runs so far, in millionths of a dollar. */
  readonly microUsd: number;
}

/** Ids carry the clock of the API that made them: no further from the database's than this. */
const SKEW_MS = 3_600_000;

/** Of the jobs accepted from `from` on and before `to`, the most expensive first. */
export async function costsBy(
  db: Db,
  appId: string,
  by: CostGroup,
  { from, to, limit }: { readonly from: Date; readonly to: Date; readonly limit: number },
): Promise<Cost[]> {
  const { rows } = await db.execute<{ [Name in keyof Cost]: Cost[Name] }>(sql`
    with mine as materialized (
      select jobs.id, ${expression(by)} as value, jobs.credits, jobs.ended_at, settlements.kept
      from jobs left join settlements on settlements.job_id = jobs.id
      where jobs.app_id = ${appId} and jobs.created_at >= ${from.toISOString()} and jobs.created_at < ${to.toISOString()}
        and jobs.id >= ${firstIdAt(from.getTime() - SKEW_MS)} and jobs.id < ${firstIdAt(to.getTime() + SKEW_MS)}
    ), spent as (
      select mine.value, sum(cost_micro_usd) as micro_usd from mine join runs on runs.job_id = mine.id group by mine.value
    )
    select mine.value, count(*)::int as jobs, coalesce(sum(kept), 0)::float8 as credits,
      coalesce(sum(mine.credits) filter (where ended_at is null), 0)::float8 as reserved,
      coalesce(max(spent.micro_usd), 0)::float8 as "microUsd"
    from mine left join spent on spent.value is not distinct from mine.value
    group by mine.value order by credits desc, value limit ${limit}`);
  return rows;
}

function expression(by: CostGroup): SQL {
  if (typeof by === "object") return sql`jobs.metadata ->> ${by.metadata}`;
  return { user: sql`jobs.user_id`, kind: sql`jobs.kind`, model: sql`jobs.model`, plan: sql`jobs.plan` }[by];
}
