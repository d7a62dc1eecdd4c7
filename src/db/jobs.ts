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
  /** The user's plan when it was accepted; null: from before plans were kept. */
  readonly plan: string | null;
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
    // With its trained model, callback, batch and pipeline.
    if (ended) {
      await tx.execute(sql`select settle_job(${jobId}, ${settlement(job, before.credits).kept})`);
    }
    await options.beforeCommit?.();
    return { ...before, job, version, vanished: [], changed: true, ended };
  });
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
  // Only what was never accepted is ordered anew; the input is not written again with each fact.
  const isReordered = old !== undefined && old.input !== run.input;
  const columns = {
    status: run.status,
    version: run.version,
    routeWhy: run.routeWhy ?? null,
    ...(isReordered ? { provider: run.provider, model: run.model, input: run.input } : {}),
    destination: run.destination,
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
    costSource: run.costSource,
    trainedVersion: run.trainedVersion,
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
    const { provider, model, version, variant, routeWhy: why = null } = event.run;
    return { type, at, runId: event.run.id, detail: { variant, provider, model, version, why } };
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
  const { appId, userId, kind, model, plan, input, files, credits, createdAt, version, epoch, vanished } = row;
  return {
    job,
    appId,
    userId,
    kind,
    model,
    plan,
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
    goneAt: _______,
    ...same
  } = row;
  return { ...same, failure: failureCode ? failure(failureCode, failureDetail ?? "") : null };
}
