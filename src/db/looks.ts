import { sql } from "drizzle-orm";
import { SENDER_GRACE_MS } from "../domain/absence.ts";
import type { Db } from "./client.ts";

/** A run that is out at a provider and is to be asked about now. */
export interface DueLook {
  readonly runId: string;
  readonly jobId: string;
  /** `failed`: it was presumed lost, and may turn up. */
  readonly status: "submitting" | "unknown" | "running" | "failed";
  readonly provider: string;
  readonly model: string;
  readonly version: string | null;
  readonly input: Readonly<Record<string, unknown>>;
  /** Null: it is no training. */
  readonly destination: string | null;
  readonly providerRunId: string | null;
  readonly sentAt: Date;
  /** From when on nobody writes it any more. */
  readonly quietFrom: Date;
  readonly expiresAt: Date;
  /** When we asked the provider to stop it. */
  readonly cancelSentAt: Date | null;
  /** Since when the provider says that it does not know it. */
  readonly goneAt: Date | null;
  /** How often it was looked at before. */
  readonly looks: number;
  /** How often the provider's list was read to its end before, and did not show it. */
  readonly readings: number;
  /** The database's clock when it was claimed, and this process's monotonic clock at that moment; see `timeBy`. */
  readonly now: Date;
  readonly readAt: number;
}

/**
 * Claims due looks in one statement, so that no two watches ask about the same run. A claim lapses after 12 s, so that
 * the looks of a dead worker are taken up again; one that takes longer is done twice, which is harmless. `except`: the
 * accounts whose looks are left to others, or for later.
 */
export async function claimLooks(db: Db, limit: number, except: readonly string[] = []): Promise<DueLook[]> {
  const names = except.map((name) => sql`${name}`);
  const others = names.length > 0 ? sql`and provider not in (${sql.join(names, sql`, `)})` : sql``;
  const { rows } = await db.execute<Record<string, unknown>>(sql`
    update runs set next_look_at = now() + interval '12 seconds', looks = looks + 1
    where id in (
      select id from runs where next_look_at <= now() ${others}
      order by next_look_at limit ${limit} for update skip locked)
    returning id, job_id, status, provider, model, version, input, destination, provider_run_id, looks, readings,
      (extract(epoch from coalesce(sent_at, created_at)) * 1000)::float8 as sent,
      (extract(epoch from coalesce(quiet_from, send_before + make_interval(secs => ${SENDER_GRACE_MS / 1_000}), sent_at, created_at)) * 1000)::float8 as quiet,
      (extract(epoch from expires_at) * 1000)::float8 as expires,
      (extract(epoch from cancel_sent_at) * 1000)::float8 as stopped, (extract(epoch from gone_at) * 1000)::float8 as gone,
      (extract(epoch from now()) * 1000)::float8 as now`);
  return rows.map((row) => ({
    runId: row["id"] as string,
    jobId: row["job_id"] as string,
    status: row["status"] as DueLook["status"],
    provider: row["provider"] as string,
    model: row["model"] as string,
    version: row["version"] as string | null,
    input: row["input"] as Record<string, unknown>,
    destination: row["destination"] as string | null,
    providerRunId: row["provider_run_id"] as string | null,
    looks: (row["looks"] as number) - 1,
    readings: row["readings"] as number,
    sentAt: new Date(row["sent"] as number),
    quietFrom: new Date(row["quiet"] as number),
    expiresAt: new Date(row["expires"] as number),
    cancelSentAt: toTime(row["stopped"]),
    goneAt: toTime(row["gone"]),
    now: new Date(row["now"] as number),
    readAt: performance.now(),
  }));
}

const toTime = (ms: unknown) => (typeof ms === "number" ? new Date(ms) : null);

export interface Looked {
  readonly runId: string;
  /** Milliseconds from now until the next look; null: it is not looked for any more, unless it has turned up meanwhile. */
  readonly nextInMs: number | null;
  readonly progress: number | null;
  /** False when the provider gave no usable answer: the look does not count, and progress stays. */
  readonly answered: boolean;
  /** The provider's list was read to its end, and does not show it. */
  readonly unlisted?: boolean;
  /** The provider says that it does not know the run. */
  readonly gone?: boolean;
}

/**
 * Notes what the looks that changed nothing have shown, many in one statement. A look that was brought forward by a
 * webhook in the meantime stays brought forward.
 */
export async function noteLooks(db: Db, looked: readonly Looked[]): Promise<void> {
  if (looked.length === 0) return;
  const rows = JSON.stringify(
    looked.map(({ runId, nextInMs, progress, answered, unlisted = false, gone = false }) => ({
      id: runId,
      next: nextInMs,
      progress,
      answered,
      unlisted,
      gone,
    })),
  );
  await db.execute(sql`
    update runs set
      looks = looks - case when seen.answered then 0 else 1 end,
      readings = readings + case when seen.unlisted then 1 else 0 end,
      gone_at = case when seen.gone then coalesce(gone_at, now()) when seen.answered then null else gone_at end,
      progress = coalesce(greatest(seen.progress, runs.progress), runs.progress),
      next_look_at = case when next_look_at <= now() or (seen.next is null and status <> 'failed') then next_look_at
                          else now() + make_interval(secs => seen.next / 1000.0) end
    from jsonb_to_recordset(${rows}::text::jsonb) as seen(id uuid, next float8, progress real, answered boolean, unlisted boolean,
      gone boolean)
    where runs.id = seen.id and runs.next_look_at is not null`);
}

export interface InboxEntry {
  readonly provider: string;
  readonly deliveryId: string;
  readonly runId: string;
  readonly providerRunId: string;
  readonly status: string;
  readonly ended: boolean;
}

/** News of mere progress comes up to twice a second: it is looked at no more often than this. */
const PROGRESS_PAUSE_SECONDS = 2;

/**
 * Notes a webhook and brings the look at its run forward; what it says about the run is asked for, not
 * believed. Its id is kept if the run has none yet: so an answer that was lost on its way back is found again.
 * A repeated delivery changes nothing. False: there is no such run.
 */
export async function noteWebhook(db: Db, entry: InboxEntry): Promise<boolean> {
  return db.transaction(async (tx) => {
    // The job's lock is the one under which runs are written: what is noted here is not overwritten by older knowledge.
    const known = await tx.execute(sql`
      select 1 from runs join jobs on jobs.id = runs.job_id
      where runs.id = ${entry.runId} and runs.provider = ${entry.provider} for update of jobs`);
    if (known.rowCount === 0) return false;
    const fresh = await tx.execute(sql`
      insert into webhook_inbox (provider, delivery_id, run_id, provider_run_id, status)
      values (${entry.provider}, ${entry.deliveryId}, ${entry.runId}, ${entry.providerRunId}, ${entry.status})
      on conflict (provider, delivery_id) do nothing returning id`);
    if (fresh.rowCount === 0) return true;
    await tx.execute(sql`
      update runs set provider_run_id = coalesce(provider_run_id, ${entry.providerRunId}),
        next_look_at = case when ${entry.ended} or status <> 'running' then now()
                            else least(next_look_at, now() + make_interval(secs => ${PROGRESS_PAUSE_SECONDS})) end
      -- Asked again: while the lock was waited for, the run may have gone to another account, where this name means nothing.
      where id = ${entry.runId} and provider = ${entry.provider} and (status in ('submitting', 'unknown', 'running')
          -- Presumed lost, and there after all: the look decides whether it goes on or is stopped.
          or (status = 'failed' and failure_code in ('lost', 'unconfirmed') and cost_micro_usd is null))
        and (provider_run_id = ${entry.providerRunId} or (provider_run_id is null and not exists (
          select 1 from runs other where other.provider = ${entry.provider} and other.provider_run_id = ${entry.providerRunId})))`);
    return true;
  });
}

/** News is kept for a month, long after the provider has forgotten the run. Deletes at most `limit`; returns how many. */
export async function deleteOldNews(db: Db, limit: number): Promise<number> {
  const { rowCount } = await db.execute(sql`
    delete from webhook_inbox where id in (
      select id from webhook_inbox where received_at < now() - interval '30 days' order by id limit ${limit})`);
  return rowCount ?? 0;
}

/** Brings the looks at a job's runs forward to now. Returns how many runs are out. */
export async function lookNow(db: Db, jobId: string): Promise<number> {
  const { rowCount } = await db.execute(sql`
    update runs set next_look_at = now() where job_id = ${jobId} and next_look_at is not null returning id`);
  return rowCount ?? 0;
}

/** How many runs are out at each account. */
export async function outAt(db: Pick<Db, "execute">): Promise<{ provider: string; runs: number }[]> {
  const { rows } = await db.execute<{ provider: string; runs: number }>(sql`
    select provider, count(*)::int as runs from runs where next_look_at is not null group by provider order by provider`);
  return rows;
}

/** Whether an order of this job may be out whose id nobody has told us yet. One that was put off is out nowhere. */
export async function hasUnanswered(db: Db, jobId: string): Promise<boolean> {
  const { rowCount } = await db.execute(sql`
    select 1 from runs where job_id = ${jobId} and provider_run_id is null
      and (status = 'unknown' or (status = 'submitting' and send_before is not null)) limit 1`);
  return (rowCount ?? 0) > 0;
}

/** The run that a provider knows under this id; null when it is none of ours. */
export async function findRunByProviderId(db: Db, provider: string, providerRunId: string): Promise<string | null> {
  const { rows } = await db.execute<{ id: string }>(sql`
    select id from runs where provider = ${provider} and provider_run_id = ${providerRunId}`);
  return rows[0]?.id ?? null;
}
