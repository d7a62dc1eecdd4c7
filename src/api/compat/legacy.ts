import type { FastifyReply, FastifyRequest } from "fastify";
import { v7 as uuidv7 } from "uuid";
import { z } from "zod";
import { balanceOf } from "../../db/credits.ts";
import { type JobView, viewJob } from "../../db/job-views.ts";
import { jobOfRun } from "../../db/run-job.ts";
import { findModel } from "../../domain/catalogue.ts";
import type { JobStatus } from "../../domain/job.ts";
import type { FieldProblem, KindName } from "../../domain/kinds/kind.ts";
import type { Account } from "../../domain/routing.ts";
import { ServiceError } from "../../errors.ts";
import { type JobJson, toJson } from "../../job-json.ts";
import type { ApiServices } from "../app.ts";
import { fingerprint, idempotencyKey } from "../idempotency.ts";
import { accept, mustView, refresh, waitForEnd } from "../jobs.ts";
import { problemSchema } from "../problem.ts";
import { type Submission, submissionSchema } from "../submission.ts";

/**
 * What the paths of the existing products have in common. They are thin: a body in the product's words becomes a
 * submission like any other, and the job is told in the product's words.
 */

/** A request in an old product's words, said in ours. */
export interface LegacyWish {
  readonly kind: KindName;
  readonly user: string;
  readonly model?: string | undefined;
  readonly input: Readonly<Record<string, unknown>>;
  /** What the product sent and we have no use for; echoed by the job. */
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly address?: string | undefined;
  /** An idempotency key, where the product has one in its body. */
  readonly key?: string | undefined;
  /** Our field → the product's, as JSON pointers, for refusals: {"/input/image": "/imageUrl"}. */
  readonly names: Readonly<Record<string, string>>;
}

/** A job in the words that the products have in common. */
export const legacyJob = z.object({
  success: z.literal(true),
  jobId: z.uuid(),
  status: z
    .enum(["pending", "processing", "completed", "failed"])
    .describe("pending → processing → completed | failed. A canceled job is failed here."),
  progress: z.int().min(0).max(100).describe("Per cent."),
  resultUrls: z.array(z.url()).describe("Of a completed job; signed, for an hour."),
  creditsUsed: z.int().describe("What was charged; after the end, what was kept of it. 0: all was refunded."),
  newBalance: z.int().describe("What the user can spend now."),
  replicateJobId: z
    .string()
    .nullable()
    .describe("The provider's ids of the current runs, joined by commas; null before any is known."),
  estimatedTime: z.int().describe("Seconds that a run of the model normally takes."),
  error: z.string().nullable().describe("Why it failed, for the end user."),
  errorCode: z.string().nullable().describe("Stable; program against this."),
  remedy: z.string().nullable().describe("For the operator."),
  metadata: z.record(z.string(), z.unknown()),
});
type LegacyJob = z.input<typeof legacyJob>;

/** A job in both words. */
export interface Told {
  readonly view: JobView;
  readonly job: JobJson;
  readonly legacy: LegacyJob;
}

export const refusals = {
  400: problemSchema,
  401: problemSchema,
  402: problemSchema,
  403: problemSchema,
  404: problemSchema,
  422: problemSchema,
  429: problemSchema,
  503: problemSchema,
};

export const legacyHeaders = z.object({
  "idempotency-key": z.string().optional().describe("Your own name for this request: sent again, it is charged once."),
  prefer: z
    .string()
    .optional()
    .describe("wait=30: answer when the job has ended, after so many seconds at the latest."),
});

/** For the documentation of each path that charges. */
export const KEYS_NOTE =
  "Without an Idempotency-Key the key is derived from X-Request-Id and the body, so that a repetition of the very request is answered with the same job; without either, every call is a new job and is charged. The API key authenticates the product's backend: that a user is who he says is settled there.";

/** Accepts what is wished, or throws a refusal in the product's words. */
export async function submitLegacy(
  services: ApiServices,
  request: FastifyRequest,
  reply: FastifyReply,
  wish: LegacyWish,
): Promise<Told> {
  const { appId } = await services.authenticate(request);
  const submission = toSubmission(wish);
  const key = keyOf(request, submission, wish.key);
  try {
    const { view, replayed } = await accept(services, appId, key, submission);
    if (replayed) reply.header("idempotency-replayed", "true");
    return await tell(services, await waitForEnd(services, request, reply, appId, view));
  } catch (error) {
    throw inTheirWords(error, wish.names);
  }
}

export function toSubmission({ kind, user, model, input, metadata, address, names }: LegacyWish): Submission {
  const parsed = submissionSchema.safeParse({ kind, user, model, input: defined(input), metadata, address });
  if (parsed.success) return parsed.data;
  throw inTheirWords(invalid(parsed.error), names);
}

export function invalid(error: z.ZodError): ServiceError {
  const fields = error.issues.map(({ path, message }) => ({ pointer: `/${path.join("/")}`, detail: message }));
  const words = fields.map(({ pointer, detail }) => `body field ${pointer} ${detail}`).join("; ");
  return new ServiceError("invalid_input", `${words}. Nothing was charged.`, { fields });
}

export function invalidField(pointer: string, detail: string): ServiceError {
  return new ServiceError("invalid_input", `body field ${pointer} ${detail}. Nothing was charged.`, {
    fields: [{ pointer, detail }],
  });
}

/** Old clients are never refused for want of a key. */
function keyOf(request: FastifyRequest, submission: Submission, own: string | undefined): string {
  const given = request.headers["idempotency-key"] ?? own;
  if (given !== undefined && given.length > 0) return idempotencyKey(given);
  const id = request.headers["x-request-id"];
  // With the body: some backends give one id to everything that one page view leads to.
  if (typeof id === "string" && id !== "") return `request:${fingerprint({ url: request.url, id, submission })}`;
  return `once:${uuidv7()}`;
}

/** The same refusal, with the product's names of the fields. */
export function inTheirWords(error: unknown, names: Readonly<Record<string, string>>): unknown {
  if (!(error instanceof ServiceError)) return error;
  const longestFirst = Object.entries(names).sort(([a], [b]) => b.length - a.length);
  const rename = (text: string) => longestFirst.reduce((said, [ours, theirs]) => said.replaceAll(ours, theirs), text);
  const fields = error.fields.map(
    ({ pointer, detail }): FieldProblem => ({ pointer: rename(pointer), detail: rename(detail) }),
  );
  return new ServiceError(error.code, rename(error.message), { fields, facts: { ...error.facts }, cause: error });
}

/**
 * By the job's id, by a run's, or by the provider's id of a run; what is another app's does not exist. `accounts`: at
 * which a run may be out that is named by the provider's id.
 */
export async function findLegacy(
  services: ApiServices,
  appId: string,
  id: string,
  accounts: readonly Pick<Account, "name">[] = services.providers,
): Promise<JobView> {
  const { db } = services;
  const own = z.uuid().safeParse(id).success ? await viewJob(db, appId, id) : null;
  if (own) return own;
  const jobId = await jobOfRun(
    db,
    appId,
    id,
    accounts.map(({ name }) => name),
  );
  if (jobId) return mustView(services, appId, jobId);
  throw new ServiceError(
    "not_found",
    `There is no job, prediction or training ${id.slice(0, 100)} for this API key: the id is wrong, or it is another app's. If it should exist, submit the request again.`,
  );
}

/** How a job of that kind stands at this moment, by any of its ids. `parameter`: where the id should have been. */
export async function standing(
  services: ApiServices,
  request: FastifyRequest,
  kind: KindName,
  id: string | undefined,
  parameter: string,
): Promise<Told> {
  const { appId } = await services.authenticate(request);
  if (!id) throw new ServiceError("invalid_input", `querystring field /${parameter} is missing: say which one.`);
  const view = await findLegacy(services, appId, id);
  const { kind: found, id: jobId } = view.job;
  if (found !== kind)
    throw new ServiceError("not_found", `${id.slice(0, 100)} is a ${found}: read it at /api/jobs/${jobId}.`);
  return tell(services, await refresh(services, appId, view));
}

export async function tell({ db, storage }: ApiServices, view: JobView): Promise<Told> {
  const { job: row } = view;
  const job = await toJson(view, storage);
  const balance = await balanceOf(db, row.appId, row.userId);
  const { failure } = job;
  const ids = currentRuns(job).flatMap(({ providerRunId }) => providerRunId ?? []);
  const canceled = row.status === "canceled" ? "The job was canceled." : null;
  const legacy: LegacyJob = {
    success: true,
    jobId: row.id,
    status: row.status === "canceled" ? "failed" : row.status,
    progress: Math.round(job.progress * 100),
    // A failed job was refunded: what it made besides is not given away.
    resultUrls: row.status === "completed" ? job.resultUrls : [],
    creditsUsed: job.settlement?.kept ?? row.credits,
    newBalance: balance ? balance.balance + balance.allowance : 0,
    replicateJobId: ids.length > 0 ? ids.join(",") : null,
    estimatedTime: Math.ceil(findModel(row.kind, row.model)?.expectedSeconds.p50 ?? 0),
    error: failure?.message ?? canceled,
    errorCode: failure?.code ?? null,
    remedy: failure?.remedy ?? null,
    metadata: row.metadata as Record<string, unknown>,
  };
  return { view, job, legacy };
}

/** The latest run of each variant, in their order. */
export function currentRuns(job: JobJson): JobJson["runs"] {
  const latest = new Map(job.runs.map((run) => [run.variant, run]));
  return [...latest].sort(([a], [b]) => a - b).map(([, run]) => run);
}

export const PREDICTION_STATUSES = ["starting", "processing", "succeeded", "failed", "canceled"] as const;

/** A job's status in Replicate's words. */
export function predictionStatus(status: JobStatus): (typeof PREDICTION_STATUSES)[number] {
  if (status === "pending") return "starting";
  return status === "completed" ? "succeeded" : status;
}

/** Without what is undefined or null: old clients write null for "not given". */
export function defined(values: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined && value !== null));
}
