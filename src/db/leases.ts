import { sql } from "drizzle-orm";
import { agenda, dueAt } from "../domain/agenda.ts";
import type { KindName } from "../domain/kinds/kind.ts";
import type { Db } from "./client.ts";
import { type JobRecord, loadJob } from "./jobs.ts";

/** The right to act on a job: who has it, how it passes on, and which jobs nobody has although something is due. */

/** How long a worker may be silent before another takes its job over. Renewed every 3 s. */
const LEASE_SECONDS = 10;

/** Of so many workers that vanished, one could have been chance: the job is suspected of killing them. */
const SUSPECT_AFTER = 2;

/**
 * Takes the right to act on a job. Null when it has ended or another worker has it; "suspect", and not taken, when it is
 * one and none is wanted. A lease that lapsed tells that its worker is dead or stands still: that is counted, and noted
 * with the worker's name. Should this one vanish too, the sweep comes as soon as its lease lapses.
 */
export async function claim(
  db: Db,
  jobId: string,
  worker: string,
  { suspects }: { suspects: boolean } = { suspects: true },
): Promise<JobRecord | "suspect" | null> {
  const { rows } = await db.execute<{ epoch: number | null; suspect: boolean | null }>(sql`
    with held as (
      -- One that takes up its own again was only cut off from the database for a while.
      select id, case when worker is distinct from ${worker} then lease_until end as lapsed, worker as gone,
        cardinality(vanished) + case when worker is distinct from ${worker} and lease_until is not null then 1 else 0 end
          >= ${SUSPECT_AFTER} as suspect
      from jobs
      where id = ${jobId} and status in ('pending', 'processing') and (lease_until is null or lease_until < now())
      for update),
    taken as (
      update jobs set epoch = epoch + 1, worker = ${worker},
        lease_until = now() + make_interval(secs => ${LEASE_SECONDS}),
        due_at = least(due_at, now() + make_interval(secs => ${LEASE_SECONDS})),
        version = version + case when held.lapsed is null then 0 else 1 end,
        vanished = case when held.lapsed is null then vanished else array_append(vanished, held.gone) end
      from held where jobs.id = held.id and (${suspects} or not held.suspect)
      returning jobs.id, jobs.epoch, jobs.version, held.lapsed, held.gone),
    noted as (
      insert into job_events (job_id, version, type, detail, at)
      select id, version, 'taken_over',
        jsonb_build_object('worker', gone, 'leaseUntil', lapsed, 'by', ${worker}::text), now()
      from taken where lapsed is not null)
    select (select epoch from taken) as epoch, (select suspect from held) as suspect`);
  const [row] = rows;
  if (row?.epoch == null) return row?.suspect && !suspects ? "suspect" : null;
  const record = await loadJob(db, jobId);
  // Slept in between, and another worker has taken over: its epoch is not ours.
  return record?.epoch === row.epoch ? record : null;
}

/**
 * Prolongs leases; returns the ids of those that were. A job whose row is locked is being written, perhaps by a fact that
 * waits for an account: it is passed over, so that it does not hold up all the others.
 */
export async function renew(db: Db, leases: readonly { jobId: string; epoch: number }[]): Promise<Set<string>> {
  const held = JSON.stringify(leases.map(({ jobId, epoch }) => ({ id: jobId, epoch })));
  const renewed = await db.execute<{ id: string }>(sql`
    update jobs set lease_until = now() + make_interval(secs => ${LEASE_SECONDS})
    where id in (
      select jobs.id from jobs join jsonb_to_recordset(${held}::text::jsonb) as held(id uuid, epoch int)
        on jobs.id = held.id and jobs.epoch = held.epoch
      where lease_until is not null for update of jobs skip locked)
    returning id`);
  return new Set(renewed.rows.map((row) => row.id));
}

/**
 * Gives the right back, if nothing was learned since `version`: false means that there is news to act on first, or
 * that the lease is gone.
 */
export async function release(
  db: Db,
  jobId: string,
  held: Pick<JobRecord, "epoch" | "version" | "job">,
): Promise<boolean> {
  const due = dueAt(held.job);
  const released = await db.execute(sql`
    update jobs set lease_until = null, worker = null, due_at = ${due?.toISOString() ?? null}::timestamptz
    where id = ${jobId} and epoch = ${held.epoch} and version = ${held.version} returning id`);
  return released.rowCount === 1;
}

/** A wish for patience that is longer than this would hold up what else the job has to do. */
const MOST_PATIENCE_MS = 60_000;

/**
 * Gives the right back with work left undone: the sweep wakes the job after `retryInMs` (a minute at most), or earlier
 * when something else is due that is not due yet.
 */
export async function giveUp(db: Db, jobId: string, epoch: number, retryInMs: number): Promise<void> {
  const record = await loadJob(db, jobId);
  if (!record) return;
  const { job, now } = record;
  const later = agenda(job).flatMap(({ at }) => (at > now ? [at.getTime()] : []));
  const due = new Date(Math.min(now.getTime() + Math.min(retryInMs, MOST_PATIENCE_MS), ...later));
  await db.execute(sql`
    update jobs set lease_until = null, worker = null, due_at = ${due.toISOString()}::timestamptz
    where id = ${jobId} and epoch = ${epoch} and status in ('pending', 'processing')`);
}

export interface DueJob {
  readonly id: string;
  readonly kind: KindName;
  readonly epoch: number;
}

export interface DueKinds {
  /** Of which kinds jobs are taken that nobody has begun yet. */
  readonly fresh: readonly KindName[];
  /** And of which those that somebody has. */
  readonly begun: readonly KindName[];
}

/**
 * The jobs that something is due for and nobody works on, what was begun first, at most `limit`; each claimed for 10 s
 * so that several sweeps do not wake the same ones. One statement: what is read here is never acted on without being
 * written.
 */
export async function claimDue(db: Db, limit: number, { fresh, begun }: DueKinds): Promise<DueJob[]> {
  // Parts of their own: Postgres locks no rows of a union.
  const parts = [
    sql`select id from jobs
      where status in ('pending', 'processing') and epoch > 0 and due_at <= now()
        and (lease_until is null or lease_until < now())
        and kind in (select jsonb_array_elements_text(${JSON.stringify(begun)}::text::jsonb))
      order by due_at limit ${limit} for update skip locked`,
    ...fresh.map(
      (kind) => sql`select id from jobs
        where status = 'pending' and epoch = 0 and kind = ${kind} and due_at <= now()
        order by due_at limit ${limit} for update skip locked`,
    ),
  ];
  const name = (part: number) => sql.identifier(`part_${part}`);
  const named = parts.map((part, index) => sql`${name(index)} as (${part})`);
  const ids = parts.map((_, index) => sql`select id from ${name(index)}`);
  const { rows } = await db.execute<DueJob & Record<string, unknown>>(sql`
    with ${sql.join(named, sql`, `)}, due as (${sql.join(ids, sql` union all `)} limit ${limit})
    update jobs set due_at = now() + interval '10 seconds' where id in (select id from due)
    returning id, kind, epoch`);
  return rows;
}

/** Gives claims of the sweep back: the jobs could not be woken. */
export async function unclaimDue(db: Db, ids: readonly string[]): Promise<void> {
  await db.execute(sql`
    update jobs set due_at = least(due_at, now() + interval '1 second')
    from jsonb_array_elements_text(${JSON.stringify(ids)}::text::jsonb) as mine
    where jobs.id = mine::uuid and status in ('pending', 'processing') and lease_until is null`);
}
