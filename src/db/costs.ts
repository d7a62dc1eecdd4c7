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
  /** The part of it that went into runs that delivered nothing. */
  readonly wastedMicroUsd: number;
}

/** Jobs accepted from `from` on and before `to`. */
interface Span {
  readonly from: Date;
  readonly to: Date;
  readonly limit: number;
}

/** Ids carry the clock of the API that made them: no further from the database's than this. */
const SKEW_MS = 3_600_000;

const acceptedIn = (appId: string, { from, to }: Span) => sql`
  jobs.app_id = ${appId} and jobs.created_at >= ${from.toISOString()} and jobs.created_at < ${to.toISOString()}
    and jobs.id >= ${firstIdAt(from.getTime() - SKEW_MS)} and jobs.id < ${firstIdAt(to.getTime() + SKEW_MS)}`;

const WASTED = sql`runs.status in ('failed', 'canceled')`;

/** Of the jobs accepted from `from` on and before `to`, the most expensive first. */
export async function costsBy(db: Db, appId: string, by: CostGroup, span: Span): Promise<Cost[]> {
  const { rows } = await db.execute<{ [Name in keyof Cost]: Cost[Name] }>(sql`
    with mine as materialized (
      select jobs.id, ${expression(by)} as value, jobs.credits, jobs.ended_at, settlements.kept
      from jobs left join settlements on settlements.job_id = jobs.id
      where ${acceptedIn(appId, span)}
    ), spent as (
      select mine.value, sum(cost_micro_usd) as micro_usd, sum(cost_micro_usd) filter (where ${WASTED}) as wasted
      from mine join runs on runs.job_id = mine.id group by mine.value
    )
    select mine.value, count(*)::int as jobs, coalesce(sum(kept), 0)::float8 as credits,
      coalesce(sum(mine.credits) filter (where ended_at is null), 0)::float8 as reserved,
      coalesce(max(spent.micro_usd), 0)::float8 as "microUsd", coalesce(max(spent.wasted), 0)::float8 as "wastedMicroUsd"
    from mine left join spent on spent.value is not distinct from mine.value
    group by mine.value order by credits desc, value limit ${span.limit}`);
  return rows;
}

/** What one account of a provider did with one of its models on one day. */
export interface Spending {
  /** YYYY-MM-DD, UTC: when the runs ended, of those that have not when they were sent. */
  readonly day: string;
  readonly provider: string;
  readonly model: string;
  readonly runs: number;
  readonly delivered: number;
  readonly failed: number;
  readonly canceled: number;
  /** Presumed lost or never confirmed, and there after all: we paid for them. */
  readonly orphaned: number;
  /** Ended, and nobody can tell what they cost: only the invoice does. */
  readonly unpriced: number;
  readonly microUsd: number;
  readonly wastedMicroUsd: number;
}

/** Of the jobs accepted in that time, by provider, model and day; the latest day first, and in it the most expensive. */
export async function spendingOf(db: Db, appId: string, span: Span): Promise<Spending[]> {
  const { rows } = await db.execute<{ [Name in keyof Spending]: Spending[Name] }>(sql`
    with mine as materialized (select jobs.id from jobs where ${acceptedIn(appId, span)})
    select to_char(coalesce(runs.ended_at, runs.sent_at, runs.created_at) at time zone 'utc', 'YYYY-MM-DD') as day,
      runs.provider, runs.model, count(*)::int as runs,
      (count(*) filter (where runs.status = 'stored'))::int as delivered,
      (count(*) filter (where runs.status = 'failed'))::int as failed,
      (count(*) filter (where runs.status = 'canceled'))::int as canceled,
      (count(*) filter (where runs.status = 'failed' and runs.failure_code in ('lost', 'unconfirmed')
        and runs.cost_micro_usd > 0))::int as orphaned,
      (count(*) filter (where ${WASTED} and runs.cost_micro_usd is null
        and (runs.provider_run_id is not null or runs.failure_code = 'unconfirmed')))::int as unpriced,
      coalesce(sum(runs.cost_micro_usd), 0)::float8 as "microUsd",
      coalesce(sum(runs.cost_micro_usd) filter (where ${WASTED}), 0)::float8 as "wastedMicroUsd"
    from mine join runs on runs.job_id = mine.id
    group by 1, 2, 3 order by 1 desc, "microUsd" desc, 2, 3 limit ${span.limit}`);
  return rows;
}

function expression(by: CostGroup): SQL {
  if (typeof by === "object") return sql`jobs.metadata ->> ${by.metadata}`;
  return { user: sql`jobs.user_id`, kind: sql`jobs.kind`, model: sql`jobs.model`, plan: sql`jobs.plan` }[by];
}
