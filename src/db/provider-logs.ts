import { sql } from "drizzle-orm";
import type { CallTrouble, CallVerb } from "../domain/call.ts";
import type { Db } from "./client.ts";

/** The last calls of each account, and how many there were: migrations/0016_provider_logs.sql. */

/** One call, with its secrets masked and every text storable. */
export interface LoggedCall {
  readonly provider: string;
  readonly verb: CallVerb;
  readonly method: string;
  readonly path: string;
  readonly status: number | null;
  readonly ms: number;
  readonly error: CallTrouble | null;
  readonly detail: string | null;
  /** Ours, where the caller knew it; otherwise it is found by the provider's. */
  readonly runId: string | null;
  readonly providerRunId: string | null;
  readonly request: string | null;
  readonly response: string | null;
  readonly at: Date;
}

/** Calls that have all of this in common. */
export interface CallCount {
  readonly minute: Date;
  readonly provider: string;
  readonly verb: CallVerb;
  readonly error: CallTrouble | null;
  readonly bucket: number;
  readonly calls: number;
  readonly lastAt: Date;
}

/** Adds them in two statements. Not to be repeated: what was added counts twice then. Nothing waits for the disk. */
export async function saveCalls(db: Db, calls: readonly LoggedCall[], counts: readonly CallCount[]): Promise<void> {
  await db.transaction(async (tx) => {
    await tx.execute(sql`set local synchronous_commit = off`);
    if (calls.length > 0)
      await tx.execute(sql`
        insert into provider_logs
          (provider, verb, method, path, status, ms, error, detail, run_id, job_id, request, response, at)
        select call.provider, verb, method, path, call.status, ms, error, detail,
          coalesce(own.id, theirs.id), coalesce(own.job_id, theirs.job_id), request, response, at
        from rows from (jsonb_to_recordset(${JSON.stringify(calls)}::text::jsonb) as (provider text, verb text,
          method text, path text, status int, ms int, error text, detail text, "runId" uuid, "providerRunId" text,
          request text, response text, at timestamptz)) with ordinality as call
        left join runs own on own.id = call."runId"
        left join runs theirs on call."runId" is null and theirs.provider = call.provider
          and theirs.provider_run_id = call."providerRunId"
        order by ordinality`);
    if (counts.length > 0)
      // In one order, so that no two processes wait for each other.
      await tx.execute(sql`
        insert into provider_calls as known (minute, provider, verb, error, bucket, calls, last_at)
        select minute, provider, verb, coalesce(error, ''), bucket, calls, "lastAt"
        from jsonb_to_recordset(${JSON.stringify(counts)}::text::jsonb) as heard(minute timestamptz, provider text,
          verb text, error text, bucket smallint, calls int, "lastAt" timestamptz)
        order by 1, 2, 3, 4, 5
        on conflict (minute, provider, verb, error, bucket) do update
          set calls = known.calls + excluded.calls, last_at = greatest(known.last_at, excluded.last_at)`);
  });
}

export interface LogLine extends Omit<LoggedCall, "provider" | "providerRunId" | "at"> {
  readonly jobId: string | null;
  /** ISO 8601. */
  readonly at: string;
}

/** The last calls of one account, the newest first. */
export async function readLogs(db: Db, provider: string, limit: number): Promise<LogLine[]> {
  const { rows } = await db.execute<{ [Name in keyof LogLine]: LogLine[Name] }>(sql`
    select verb, method, path, status, ms, error, detail, run_id as "runId", job_id as "jobId", request, response,
      to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at
    from provider_logs where provider = ${provider} order by provider_logs.at desc, id desc limit ${limit}`);
  return rows;
}

/** Of each account. */
const KEPT_CALLS = 1_000;

/** Takes away what is beyond the last 1,000 calls of an account, or older than 7 days. At most `limit`; returns how many. */
export async function trimLogs(db: Db, limit: number): Promise<number> {
  const { rowCount } = await db.execute(sql`
    delete from provider_logs where id in (
      (select beyond.id from (select distinct provider from provider_logs) account
       cross join lateral (select id from provider_logs where provider = account.provider
                           order by at desc, id desc offset ${KEPT_CALLS}) beyond limit ${limit})
      union all
      (select id from provider_logs where at < now() - interval '7 days' order by id limit ${limit}))`);
  return rowCount ?? 0;
}

export async function deleteOldCounts(db: Db, limit: number): Promise<number> {
  const { rowCount } = await db.execute(sql`
    delete from provider_calls where (minute, provider, verb, error, bucket) in (
      select minute, provider, verb, error, bucket from provider_calls
      where minute < now() - interval '2 hours' order by minute limit ${limit})`);
  return rowCount ?? 0;
}

export interface CallSum {
  readonly provider: string;
  readonly verb: CallVerb;
  readonly error: CallTrouble | null;
  readonly bucket: number;
  readonly calls: number;
  /** How long ago the last of them was over, by the database's clock. */
  readonly agoMs: number;
}

/** For each account 12 verbs, 9 ways to end and some 20 buckets, and hardly ever all of them. */
const MOST_SUMS = 5_000;

/** All calls of the last hour, of the whole fleet. */
export async function sumCalls(db: Db): Promise<CallSum[]> {
  const { rows } = await db.execute<{ [Name in keyof CallSum]: CallSum[Name] }>(sql`
    select provider, verb, nullif(error, '') as error, bucket, sum(calls)::float8 as calls,
      (extract(epoch from now() - max(last_at)) * 1000)::float8 as "agoMs"
    from provider_calls where minute >= now() - interval '1 hour'
    group by provider, verb, error, bucket order by max(last_at) desc limit ${MOST_SUMS}`);
  return rows;
}

export interface Balance {
  readonly provider: string;
  readonly microUsd: number;
  readonly at: Date;
}

export async function saveBalance(db: Db, provider: string, microUsd: number): Promise<void> {
  await db.execute(sql`
    insert into provider_balances (provider, micro_usd) values (${provider}, ${Math.round(microUsd)})
    on conflict (provider) do update set micro_usd = excluded.micro_usd, at = now()`);
}

/** Accounts that are no longer configured stay; there are never many. */
const MOST_ACCOUNTS = 200;

export async function readBalances(db: Db): Promise<Balance[]> {
  const { rows } = await db.execute<{ provider: string; microUsd: number; at: number }>(sql`
    select provider, micro_usd::float8 as "microUsd", (extract(epoch from at) * 1000)::float8 as at
    from provider_balances limit ${MOST_ACCOUNTS}`);
  return rows.map(({ provider, microUsd, at }) => ({ provider, microUsd, at: new Date(at) }));
}

/** In millionths of a dollar, by account: what the runs that were sent since midnight (UTC) have cost so far. */
export async function costsToday(db: Db, providers: readonly string[]): Promise<ReadonlyMap<string, number>> {
  const { rows } = await db.execute<{ provider: string; cost: number }>(sql`
    select provider, coalesce(sum(cost_micro_usd), 0)::float8 as cost from runs
    where provider in (${sql.join(
      providers.map((name) => sql`${name}`),
      sql`, `,
    )}) and sent_at >= date_trunc('day', now(), 'UTC') group by provider`);
  return new Map(rows.map(({ provider, cost }) => [provider, cost]));
}
