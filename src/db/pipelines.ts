import { and, asc, desc, eq, inArray, lt, sql } from "drizzle-orm";
import { allStorable } from "../domain/failure.ts";
import { type PipelineStatus, stepKey, type Turn, takeTurn } from "../domain/pipeline.ts";
import type { RateCheck } from "../domain/request.ts";
import { type AcceptAnswer, type AcceptRequest, toAnswer, toRow } from "./accept.ts";
import type { Db, Queryable } from "./client.ts";
import type { JobRow, SettlementRow } from "./job-views.ts";
import { callbacks, jobs, pipelineSteps, pipelines, settlements } from "./schema.ts";

export type PipelineRow = typeof pipelines.$inferSelect;

/** What is kept of a step's request: a row as accept_jobs reads it. */
export interface StepRequest {
  readonly kind: JobRow["kind"];
  readonly model: string;
  readonly input: unknown;
  readonly credits: number;
  readonly price_lines: JobRow["priceLines"];
  readonly rates: readonly RateCheck[];
  readonly max_models: number | null;
  readonly idempotency_key: string;
  readonly [column: string]: unknown;
}

export type StepRow = Omit<typeof pipelineSteps.$inferSelect, "request"> & { readonly request: StepRequest };
export type StepJob = Pick<JobRow, "id" | "status" | "failureCode" | "failureDetail" | "credits"> & {
  readonly settlement: Pick<SettlementRow, "charged" | "kept" | "refunded"> | null;
};

/** A pipeline with its steps in their order, and each step's job of this attempt, if it was accepted. */
export interface PipelineView {
  readonly pipeline: PipelineRow;
  readonly steps: readonly { readonly step: StepRow; readonly job: StepJob | null }[];
  /** Of all its jobs, those of earlier attempts included. */
  readonly credits: { readonly charged: number; readonly kept: number; readonly refunded: number };
}

export interface NewStep {
  readonly name: string;
  readonly after: readonly string[];
  readonly request: AcceptRequest;
}

/** Writes a pipeline with its steps. False: its key stands for another one already, and nothing was written. */
export async function createPipeline(
  db: Db,
  pipeline: Pick<
    PipelineRow,
    "id" | "appId" | "userId" | "name" | "metadata" | "callbackUrl" | "idempotencyKey" | "fingerprint"
  >,
  steps: readonly NewStep[],
): Promise<boolean> {
  return db.transaction(async (tx) => {
    const { rowCount } = await tx
      .insert(pipelines)
      .values(pipeline)
      .onConflictDoNothing({ target: [pipelines.appId, pipelines.idempotencyKey] });
    if (!rowCount) return false;
    await tx.insert(pipelineSteps).values(
      steps.map(({ name, after, request }, ord) => ({
        pipelineId: pipeline.id,
        ord,
        name,
        after: [...after],
        jobId: request.id,
        request: toRow(request, 0),
      })),
    );
    return true;
  });
}

export async function findPipelineByKey(db: Db, appId: string, key: string): Promise<PipelineRow | null> {
  const [row] = await db
    .select()
    .from(pipelines)
    .where(and(eq(pipelines.appId, appId), eq(pipelines.idempotencyKey, key)));
  return row ?? null;
}

/** Null when the app has no such pipeline. */
export async function viewPipeline(db: Db, appId: string, id: string): Promise<PipelineView | null> {
  const rows = await db
    .select()
    .from(pipelines)
    .where(and(eq(pipelines.id, id), eq(pipelines.appId, appId)));
  return (await withSteps(db, rows))[0] ?? null;
}

export interface PipelineFilter {
  readonly appId: string;
  readonly userId?: string | undefined;
  readonly status?: PipelineStatus | undefined;
  /** Those made before the one with this id. */
  readonly before?: string | undefined;
  /** 1..100. */
  readonly limit: number;
}

/** Newest first. */
export async function listPipelines(db: Db, filter: PipelineFilter): Promise<PipelineView[]> {
  const rows = await db
    .select()
    .from(pipelines)
    .where(
      and(
        eq(pipelines.appId, filter.appId),
        filter.userId === undefined ? undefined : eq(pipelines.userId, filter.userId),
        filter.status === undefined ? undefined : eq(pipelines.status, filter.status),
        filter.before === undefined ? undefined : lt(pipelines.id, filter.before),
      ),
    )
    .orderBy(desc(pipelines.id))
    .limit(filter.limit);
  return withSteps(db, rows);
}

async function withSteps(db: Queryable, rows: readonly PipelineRow[]): Promise<PipelineView[]> {
  if (rows.length === 0) return [];
  const ids = rows.map(({ id }) => id);
  // One after the other: inside a transaction there is one connection.
  const stepRows = await db
    .select()
    .from(pipelineSteps)
    .where(inArray(pipelineSteps.pipelineId, ids))
    .orderBy(asc(pipelineSteps.ord));
  const jobRows = await db
    .select({
      id: jobs.id,
      pipelineId: jobs.pipelineId,
      status: jobs.status,
      failureCode: jobs.failureCode,
      failureDetail: jobs.failureDetail,
      credits: jobs.credits,
      settlement: { charged: settlements.charged, kept: settlements.kept, refunded: settlements.refunded },
    })
    .from(jobs)
    .leftJoin(settlements, eq(settlements.jobId, jobs.id))
    .where(inArray(jobs.pipelineId, ids));
  return rows.map((pipeline) => {
    const own = jobRows.filter((job) => job.pipelineId === pipeline.id);
    const sum = (amount: (job: (typeof own)[number]) => number) => own.reduce((total, job) => total + amount(job), 0);
    return {
      pipeline,
      steps: stepRows
        .filter((step) => step.pipelineId === pipeline.id)
        .map((step) => ({
          step: { ...step, request: step.request as StepRequest },
          job: own.find((job) => job.id === step.jobId) ?? null,
        })),
      credits: {
        charged: sum((job) => job.credits),
        kept: sum((job) => job.settlement?.kept ?? 0),
        refunded: sum((job) => job.settlement?.refunded ?? 0),
      },
    };
  });
}

/** A pipeline that nobody looked at for so long is looked at again, whatever its jobs say: a claim lapses so, too. */
const LOOK_AGAIN_SECONDS = 30;

/** Claims pipelines at which something may have changed, in one statement. The end of a job makes its pipeline due. */
export async function claimPipelines(db: Db, limit: number): Promise<string[]> {
  const { rows } = await db.execute<{ id: string }>(sql`
    update pipelines set due_at = now() + make_interval(secs => ${LOOK_AGAIN_SECONDS})
    where id in (
      select id from pipelines where due_at <= now() order by due_at limit ${limit} for update skip locked)
    returning id`);
  return rows.map(({ id }) => id);
}

/** Has a pipeline looked at in so many seconds, or sooner. */
export async function lookAtPipeline(db: Db, id: string, inSeconds: number): Promise<void> {
  await db.execute(sql`
    update pipelines set due_at = least(due_at, now() + make_interval(secs => ${inSeconds}))
    where id = ${id} and due_at is not null`);
}

export interface Turned extends Turn {
  readonly view: PipelineView;
}

/**
 * Writes what a pipeline has come to: its steps' statuses and, if nothing more can be done, its end with the callback.
 * What is to be started or stopped then is the caller's. Null: it has ended before.
 */
export async function turnPipeline(db: Db, id: string): Promise<Turned | null> {
  return db.transaction(async (tx) => {
    const [pipeline] = await tx.select().from(pipelines).where(eq(pipelines.id, id)).for("no key update");
    if (pipeline?.status !== "running") return null;
    const [view] = await withSteps(tx, [pipeline]);
    if (!view) throw new Error(`pipeline ${id} has no view`);
    const states = view.steps.map(({ step, job }) => ({
      name: step.name,
      after: step.after,
      status: step.status,
      job: job?.status ?? null,
    }));
    const turn = takeTurn(states, pipeline.cancelRequestedAt !== null);
    for (const [index, { step }] of view.steps.entries()) {
      const status = turn.statuses[index];
      if (status && status !== step.status)
        await tx
          .update(pipelineSteps)
          .set({ status })
          .where(and(eq(pipelineSteps.pipelineId, id), eq(pipelineSteps.ord, step.ord)));
    }
    if (turn.end) {
      await tx
        .update(pipelines)
        .set({ status: turn.end, endedAt: sql`now()`, dueAt: null })
        .where(eq(pipelines.id, id));
      if (pipeline.callbackUrl) await tellEnd(tx, pipeline, turn.end, pipeline.callbackUrl);
    }
    return { ...turn, view };
  });
}

/** A pipeline that was resumed and fails again has something new to tell: the same row under a new id. */
async function tellEnd(tx: Queryable, { id, appId }: PipelineRow, end: PipelineStatus, url: string): Promise<void> {
  const type = `pipeline.${end}`;
  const { rowCount } = await tx
    .update(callbacks)
    .set({
      id: sql`gen_random_uuid()`,
      nextAt: sql`now()`,
      attempts: 0,
      deliveredAt: null,
      gaveUpAt: null,
      lastStatus: null,
      lastError: null,
      createdAt: sql`now()`,
    })
    .where(and(eq(callbacks.pipelineId, id), eq(callbacks.type, type)));
  if (!rowCount) await tx.insert(callbacks).values({ appId, type, pipelineId: id, url });
}

/** Accepts the job of a step, charge and status together, if it is still to be started: null when it is not. */
export async function startStep(
  db: Db,
  { pipelineId, ord, attempt }: Pick<StepRow, "pipelineId" | "ord" | "attempt">,
): Promise<AcceptAnswer | null> {
  const {
    rows: [row],
  } = await db.$client.query({
    name: "start_pipeline_step",
    text: `select outcome, job_id, balance + allowance as available, retry_after, detail
           from start_pipeline_step($1::uuid, $2::int, $3::int)`,
    values: [pipelineId, ord, attempt],
  });
  if (!row) throw new Error(`start_pipeline_step gave no answer to step ${ord} of ${pipelineId}`);
  return row["outcome"] === "stopped" ? null : toAnswer(row);
}

/** Keeps why a step could not be started. With `status` failed it is not tried again until somebody resumes it. */
export async function refuseStep(
  db: Db,
  { pipelineId, ord, attempt }: Pick<StepRow, "pipelineId" | "ord" | "attempt">,
  status: "waiting" | "failed",
  problem: Record<string, unknown>,
): Promise<void> {
  await db
    .update(pipelineSteps)
    .set({ status, problem: allStorable(problem) })
    .where(
      and(
        eq(pipelineSteps.pipelineId, pipelineId),
        eq(pipelineSteps.ord, ord),
        eq(pipelineSteps.attempt, attempt),
        eq(pipelineSteps.status, "waiting"),
      ),
    );
}

/** Notes that no more is to be started; false when it is not running. Repeating is harmless. */
export async function cancelPipeline(db: Db, id: string): Promise<boolean> {
  const { rowCount } = await db
    .update(pipelines)
    .set({ cancelRequestedAt: sql`coalesce(cancel_requested_at, now())`, dueAt: sql`now()` })
    .where(and(eq(pipelines.id, id), eq(pipelines.status, "running")));
  return (rowCount ?? 0) > 0;
}

/**
 * Lets a failed pipeline go on: the steps that did not complete and are not merely waiting are tried again, each as a
 * new job, and what names a new training's model names the new one. False, and nothing is written, when it has not failed.
 * `newId` gives a job's id, `limitsOf` what the user's plan allows by now.
 */
export async function resumePipeline(
  db: Db,
  id: string,
  newId: () => string,
  limitsOf: (step: StepRequest) => Pick<StepRequest, "rates" | "max_models">,
): Promise<boolean> {
  return db.transaction(async (tx) => {
    const [pipeline] = await tx.select().from(pipelines).where(eq(pipelines.id, id)).for("no key update");
    if (pipeline?.status !== "failed") return false;
    const rows = await tx.select().from(pipelineSteps).where(eq(pipelineSteps.pipelineId, id));
    const again = rows.filter(({ status }) => status === "failed" || status === "canceled");
    const ids = new Map(again.map(({ jobId }) => [jobId, newId()]));
    for (const row of rows) {
      if (row.status === "completed") continue;
      const request = row.request as StepRequest;
      const isAgain = again.includes(row);
      const jobId = ids.get(row.jobId) ?? row.jobId;
      const attempt = row.attempt + (isAgain ? 1 : 0);
      const key = stepKey(id, row.name, attempt);
      await tx
        .update(pipelineSteps)
        .set({
          status: "waiting",
          attempt,
          jobId,
          problem: null,
          request: {
            ...request,
            ...limitsOf(request),
            id: jobId,
            idempotency_key: key,
            input: withModel(request.input, ids),
          },
        })
        .where(and(eq(pipelineSteps.pipelineId, id), eq(pipelineSteps.ord, row.ord)));
    }
    await tx.update(pipelines).set({ status: "running", endedAt: null, dueAt: sql`now()` }).where(eq(pipelines.id, id));
    return true;
  });
}

function withModel(input: unknown, ids: ReadonlyMap<string, string>): unknown {
  if (typeof input !== "object" || input === null || !("trainedModel" in input)) return input;
  const model = typeof input.trainedModel === "string" ? ids.get(input.trainedModel) : undefined;
  return model ? { ...input, trainedModel: model } : input;
}
