import { asc, eq, sql } from "drizzle-orm";
import { dueAt } from "../domain/agenda.ts";
import { failure, storable } from "../domain/failure.ts";
import { type Event, isEnded, type Job, next } from "../domain/job.ts";
import type { KindName } from "../domain/kinds/kind.ts";
import { settlement } from "../domain/pricing.ts";
import { isMissing, type Run } from "../domain/run.ts";
import type { Db, Queryable } from "./client.ts";
import { assets, jobEvents, jobs, runs } from "./schema.ts";

/** A job as its row says, with what surrounds its lifecycle. */
export interface JobRecord {
  readonly job: Job;
  readonly appId: string;
  readonly userId: string;
  readonly kind: KindName;
  readonly model: string;
  readonly input: unknown;
  /** Input field → asset id. */
  readonly files: Readonly<Record<string, string>>;
  readonly credits: number;
  readonly createdAt: Date;
  readonly version: number;
  readonly epoch: number;
  /** The workers whose leases lapsed while they acted on it, since something was last learned. */
  readonly vanished: readonly string[];
  /** The database's clock when the record was read: what is due is judged by it, on every host alike. */
  readonly now: Date;
  /** This process's monotonic clock at that moment, milliseconds. */
  readonly readAt: number;
  /** And its wall clock, which alone goes on while the machine sleeps. */
  readonly readOn: number;
}

/** The database's clock now, as told by a record that was read a while ago. */
export function timeBy({ now, readAt }: Pick<JobRecord, "now" | "readAt">): Date {
  return new Date(now.getTime() + performance.now() - readAt);
}

export interface Applied extends JobRecord {
  /** False: the events taught nothing new, and nothing was written. */
  readonly changed: boolean;
  /** These very events ended it. */
  readonly ended: boolean;
}

export type NewAsset = typeof assets.$inferInsert;

export interface ApplyOptions {
  /** For decisions (not facts): the caller must still hold this lease. */
  readonly epoch?: number;
  /** When a run that is now out is to be looked at first. */
  readonly lookAt?: Date;
  /** Written together with the events, if these changed anything. */
  readonly assets?: readonly NewAsset[];
  /** Called when everything is written and nothing committed. */
  readonly beforeCommit?: () => Promise<void>;
}

/** The caller's lease has passed to another worker; it must stop, and nothing was written. */
export class LeaseLost extends Error {
  override readonly name = "LeaseLost";
}

/** How long a worker may be silent before another takes its job over. Renewed every 3 s. */
const LEASE_SECONDS = 10;

/**
 * The wake of something that is due at once is left to whoever made it due; the sweep steps in after this. Entries
 * that already wait in the queue make the repetition a no-op.
 */
const SWEEP_GRACE_MS = 5_000;

/** A run that is out is looked at after this unless the caller says otherwise. */
const FIRST_LOOK_MS = 1_000;
/** A run that was presumed lost is looked for again after this, and then ever more rarely. */
const MISSING_LOOK_MS = 30_000;

export async function loadJob(db: Queryable, jobId: string, lock = false): Promise<JobRecord | null> {
  // Before it is asked: a wait for the lock counts as time that has passed.
  const readAt = performance.now();
  const readOn = Date.now();
  const query = db
    .select({ row: jobs, now: sql<number>`(extract(epoch from clock_timestamp()) * 1000)::float8` })
    .from(jobs)
    .where(eq(jobs.id, jobId));
  const [found] = await (lock ? query.for("update") : query);
  if (!found) return null;
  const runRows = await db
    .select()
    .from(runs)
    .where(eq(runs.jobId, jobId))
    .orderBy(asc(runs.variant), asc(runs.attempt));
  return { ...toRecord(found.row, runRows, new Date(found.now)), readAt, readOn };
}

/**
 * Applies what was learned: one transaction that locks the job, asks `next`, writes what changed with the events that
 * changed it, and settles the job if it ended. Applying the same events again changes nothing.
 */
export async function apply(
  db: Db,
  jobId: string,
  events: readonly Event[],
  options: ApplyOptions = {},
): Promise<Applied> {
  return db.transaction(async (tx) => {
    const before = await loadJob(tx, jobId, true);
    if (!before) throw new Error(`there is no job ${jobId}`);
    if (options.epoch !== undefined && options.epoch !== before.epoch)
      throw new LeaseLost(`the lease on job ${jobId} has passed on`);

    let job = before.job;
    let version = before.version;
    for (const event of events) {
      const after = next(job, event);
      if (after === job) continue;
      job = after;
      version += 1;
      await tx.insert(jobEvents).values({ jobId, version, ...toEventRow(event) });
    }
    if (job === before.job) return { ...before, changed: false, ended: false };

    for (const run of job.runs) {
      const old = before.job.runs.find((each) => each.id === run.id);
      if (old !== run)
        await writeRun(tx, before, run, options.lookAt ?? new Date(before.now.getTime() + FIRST_LOOK_MS));
    }
    await writeJob(tx, job, version, before.now);
    if (options.assets?.length)
      await tx
        .insert(assets)
        .values([...options.assets])
        .onConflictDoNothing();
    const ended = isEnded(job) && !isEnded(before.job);
    if (ended) await tx.execute(sql`select settle_job(${jobId}, ${settlement(job, before.credits).kept})`);
    await options.beforeCommit?.();
    return { ...before, job, version, vanished: [], changed: true, ended };
  });
}

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

/** Prolongs leases; returns the ids of those that are still ours. */
export async function renew(db: Db, leases: readonly { jobId: string; epoch: number }[]): Promise<Set<string>> {
  const held = JSON.stringify(leases.map(({ jobId, epoch }) => ({ id: jobId, epoch })));
  const renewed = await db.execute<{ id: string }>(sql`
    update jobs set lease_until = now() + make_interval(secs => ${LEASE_SECONDS})
    from jsonb_to_recordset(${held}::text::jsonb) as held(id uuid, epoch int)
    where jobs.id = held.id and jobs.epoch = held.epoch and lease_until is not null
    returning jobs.id`);
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
    update jobs set lease_until = null, due_at = ${due?.toISOString() ?? null}::timestamptz
    where id = ${jobId} and epoch = ${held.epoch} and version = ${held.version} returning id`);
  return released.rowCount === 1;
}

/** Gives the right back with work left undone: the sweep wakes the job after `retryInMs`, or when something else is due. */
export async function giveUp(db: Db, jobId: string, epoch: number, retryInMs: number): Promise<void> {
  await db.execute(sql`
    update jobs set lease_until = null, due_at = least(greatest(due_at, now() + interval '1 second'),
                                                   now() + make_interval(secs => ${retryInMs} / 1000.0))
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

async function writeJob(tx: Queryable, job: Job, version: number, now: Date): Promise<void> {
  const next = dueAt(job);
  const due = next && next <= now ? new Date(now.getTime() + SWEEP_GRACE_MS) : next;
  await tx
    .update(jobs)
    .set({
      status: job.status,
      version,
      // While somebody holds the lease: no later than its lapse, which means that the holder has vanished.
      dueAt: isEnded(job) ? null : sql`least(${due?.toISOString() ?? null}::timestamptz, lease_until)`,
      cancelRequestedAt: job.cancelRequestedAt,
      expiredAt: job.expiredAt,
      setAsideAt: job.setAsideAt,
      vanished: [],
      startedAt: job.startedAt,
      endedAt: job.endedAt,
      failureCode: job.failure?.code ?? null,
      failureDetail: job.failure?.detail ?? null,
    })
    .where(eq(jobs.id, job.id));
}

/** When a run that changed is to be looked at; undefined: as before. */
function nextLook(run: Run, old: Run | undefined, lookAt: Date, now: Date): Date | null | undefined {
  if (isMissing(run)) {
    if (run.providerRunId && run.providerRunId !== old?.providerRunId) return now;
    return old && isMissing(old) ? undefined : new Date(now.getTime() + MISSING_LOOK_MS);
  }
  if (old?.status === run.status && !isMissing(old)) return undefined;
  return run.status === "running" || run.status === "unknown" ? lookAt : null;
}

async function writeRun(tx: Queryable, before: JobRecord, run: Run, lookAt: Date): Promise<void> {
  const { id: jobId } = before.job;
  const old = before.job.runs.find((each) => each.id === run.id);
  const look = nextLook(run, old, lookAt, before.now);
  const columns = {
    status: run.status,
    version: run.version,
    providerRunId: run.providerRunId,
    sendBefore: run.sendBefore,
    sentAt: run.sentAt,
    quietFrom: run.quietFrom,
    // What a list did not show says nothing about a later sending.
    ...(old?.sentAt?.getTime() === run.sentAt?.getTime() ? {} : { readings: 0 }),
    expiresAt: run.expiresAt,
    notBefore: run.notBefore,
    outputs: run.outputs.map(storable),
    storeAttempts: run.storeAttempts,
    failureCode: run.failure?.code ?? null,
    failureDetail: run.failure?.detail ?? null,
    cancelSentAt: run.cancelSentAt,
    endedAt: run.endedAt,
    seconds: run.seconds,
    costMicroUsd: run.costMicroUsd,
    ...(look === undefined ? {} : { nextLookAt: look }),
  };
  if (old) await tx.update(runs).set(columns).where(eq(runs.id, run.id));
  else
    await tx.insert(runs).values({
      ...columns,
      id: run.id,
      jobId,
      variant: run.variant,
      attempt: run.attempt,
      provider: run.provider,
      model: run.model,
      input: run.input,
    });
}

/** What the explanation keeps of an event; the run's row has the rest. */
function toEventRow(event: Event): { type: string; runId: string | null; detail: Record<string, unknown>; at: Date } {
  const { type, at, ...rest } = event;
  const detail = JSON.parse(JSON.stringify(rest), (_, value) => (typeof value === "string" ? storable(value) : value));
  if (event.type === "intended") {
    const { provider, model, version, variant } = event.run;
    return { type, at, runId: event.run.id, detail: { variant, provider, model, version } };
  }
  delete detail["runId"];
  return { type, at, runId: "runId" in event ? event.runId : null, detail };
}

function toRecord(
  row: typeof jobs.$inferSelect,
  runRows: readonly (typeof runs.$inferSelect)[],
  now: Date,
): Omit<JobRecord, "readAt" | "readOn"> {
  const job: Job = {
    id: row.id,
    status: row.status,
    variants: row.variants,
    minSuccess: row.minSuccess,
    maxAttempts: row.maxAttempts,
    maxRebuys: row.maxRebuys,
    deadlineAt: row.deadlineAt,
    cancelRequestedAt: row.cancelRequestedAt,
    expiredAt: row.expiredAt,
    setAsideAt: row.setAsideAt,
    runs: runRows.map(toRun),
    failure: row.failureCode ? failure(row.failureCode, row.failureDetail ?? "") : null,
    startedAt: row.startedAt,
    endedAt: row.endedAt,
  };
  const { appId, userId, kind, model, input, files, credits, createdAt, version, epoch, vanished } = row;
  return {
    job,
    appId,
    userId,
    kind,
    model,
    input,
    files,
    credits,
    createdAt,
    version,
    epoch,
    vanished,
    now,
  };
}

function toRun(row: typeof runs.$inferSelect): Run {
  const {
    failureCode,
    failureDetail,
    jobId: _,
    createdAt: __,
    nextLookAt: ___,
    looks: ____,
    readings: _____,
    progress: ______,
    ...same
  } = row;
  return { ...same, failure: failureCode ? failure(failureCode, failureDetail ?? "") : null };
}
