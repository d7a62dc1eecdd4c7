import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { type AcceptRequest, findByKey } from "../db/accept.ts";
import { balanceOf } from "../db/credits.ts";
import { type JobFilter, type JobView, listJobs, versionsOf, viewJob } from "../db/job-views.ts";
import { loadJob } from "../db/jobs.ts";
import { lookNow } from "../db/looks.ts";
import { stepsDue } from "../domain/agenda.ts";
import type { App } from "../domain/app.ts";
import { isEnded, JOB_STATUSES } from "../domain/job.ts";
import { kindOf } from "../domain/kinds/all.ts";
import { KINDS } from "../domain/kinds/kind.ts";
import { ServiceError } from "../errors.ts";
import { jobSchema, toJson } from "../job-json.ts";
import { learn } from "../learn.ts";
import { TooManyWaiting } from "./accepting.ts";
import type { ApiServices, Routes } from "./app.ts";
import { idempotencyKey, sentFingerprint } from "./idempotency.ts";
import { appOf, checkAnswer, keyReused, order } from "./ordering.ts";
import { type PhotoAnswer, photoAnswer } from "./photos.ts";
import { problemSchema } from "./problem.ts";
import { tellRates } from "./rate-headers.ts";
import { isStorable, type Submission, submissionSchema } from "./submission.ts";

const idParams = z.object({ id: z.uuid("is not a job's id") });
const submitted = jobSchema.extend({
  balance: z.object({ available: z.int().describe("What the user can spend after this.") }),
  photos: z
    .array(photoAnswer)
    .optional()
    .describe("Of a training when it is first accepted: what is said of each photo."),
});
const problems = { 401: problemSchema, 404: problemSchema };

/** What a caller noted on a job, as a field of the query. */
const NOTE = "metadata.";
const MOST_NOTES = 5;
const KNOWN = new Set(["user", "status", "kind", "batch", "pipeline", "experiment", "limit", "cursor"]);

function checkNotes(ctx: z.core.ParsePayload<Record<string, unknown>>): void {
  const others = Object.keys(ctx.value).filter((name) => !KNOWN.has(name));
  const strange = others.filter((name) => !name.startsWith(NOTE) || name.length === NOTE.length);
  if (strange.length > 0)
    ctx.issues.push({ code: "unrecognized_keys", keys: strange, path: [], message: "unknown field", input: ctx.value });
  const said = others.flatMap((name) => [name, String(ctx.value[name])]);
  if (others.length > MOST_NOTES || !said.every(isStorable))
    ctx.issues.push({
      code: "custom",
      path: [others[0] ?? NOTE],
      message: `at most ${MOST_NOTES} fields of metadata, and no U+0000 in them`,
      input: undefined,
    });
}

/** Prefer: wait=… is cut to this. */
const MOST_WAIT_SECONDS = 60;

export const jobRoutes: Routes = (app, services) => {
  const { db, storage, authenticate } = services;

  app.route({
    method: "POST",
    url: "/api/jobs",
    schema: {
      tags: ["jobs"],
      summary: "Submit a job",
      description:
        "Charges the user's credits and accepts the job in one commit, or refuses both. Repeat it with the same Idempotency-Key as often as you like: the answer is the same job, charged once. `Prefer: wait=30` waits up to so many seconds for the end.",
      headers: z.object({
        "idempotency-key": z
          .string()
          .optional()
          .describe(
            "Required: your own name for this request, such as an order number; 1 to 255 visible ASCII characters.",
          ),
        prefer: z
          .string()
          .optional()
          .describe("wait=30: answer when the job has ended, after 30 s at the latest; at most 60."),
      }),
      body: submissionSchema,
      response: {
        200: submitted.describe("With Prefer: wait, the ended job"),
        202: submitted,
        400: problemSchema,
        401: problemSchema,
        402: problemSchema,
        413: problemSchema,
        415: problemSchema,
        422: problemSchema,
        429: problemSchema,
        503: problemSchema,
      },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const key = idempotencyKey(request.headers["idempotency-key"]);
      const { view, available, replayed, reused, photos } = await accept(services, appId, key, request.body, reply);
      const waited = await waitForEnd(services, request, reply, appId, view);
      reply.header("location", `/api/jobs/${waited.job.id}`);
      if (replayed) reply.header("idempotency-replayed", "true");
      if (reused) reply.header("result-reused", "true");
      const body = {
        ...(await toJson(waited, storage)),
        balance: { available },
        ...(photos && { photos: [...photos] }),
      };
      // Made here field by field and typed: parsing it once more costs a tenth of the whole request.
      reply.type("application/json; charset=utf-8").serializer(JSON.stringify);
      return reply.code(isEnded(waited.job) && (waited !== view || reused) ? 200 : 202).send(body);
    },
  });

  app.route({
    method: "GET",
    url: "/api/jobs/:id",
    schema: {
      tags: ["jobs"],
      summary: "A job with its progress and results",
      params: idParams,
      response: { 200: jobSchema, ...problems },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      return toJson(await mustView(services, appId, request.params.id), storage);
    },
  });

  app.route({
    method: "GET",
    url: "/api/jobs",
    schema: {
      tags: ["jobs"],
      summary: "Jobs, newest first",
      description:
        "What you noted on jobs finds them too: metadata.campaign=spring, at the top level of the metadata, up to 5 such fields.",
      querystring: z
        .object({
          user: z.string().max(200).refine(isStorable, "holds a character that cannot be kept").optional(),
          status: z.enum(JOB_STATUSES).optional(),
          kind: z.enum(KINDS).optional(),
          batch: z.uuid().optional(),
          pipeline: z.uuid().optional(),
          experiment: z.string().max(100).refine(isStorable, "holds a character that cannot be kept").optional(),
          limit: z.coerce.number().int().min(1).max(100).default(20),
          cursor: z.uuid("is not a cursor of ours: take nextCursor from the page before").optional(),
        })
        .catchall(z.string().max(500))
        .check(checkNotes),
      response: {
        200: z.object({ jobs: z.array(jobSchema), nextCursor: z.string().nullable() }),
        401: problemSchema,
        422: problemSchema,
      },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const { user, status, kind, batch, pipeline, experiment, limit, cursor, ...notes } = request.query;
      const filter: JobFilter = {
        appId,
        userId: user,
        status,
        kind,
        batchId: batch,
        pipelineId: pipeline,
        experiment,
        metadata: Object.fromEntries(Object.entries(notes).map(([name, value]) => [name.slice(NOTE.length), value])),
        before: cursor,
        limit: limit + 1,
      };
      const views = await listJobs(db, filter);
      const page = views.slice(0, limit);
      const nextCursor = views.length > limit ? (page.at(-1)?.job.id ?? null) : null;
      if (nextCursor) {
        const next = new URLSearchParams();
        for (const [name, value] of Object.entries({ ...request.query, cursor: nextCursor }))
          next.set(name, String(value));
        reply.header("link", `</api/jobs?${next}>; rel="next"`);
      }
      return { jobs: await Promise.all(page.map((view) => toJson(view, storage, true))), nextCursor };
    },
  });

  app.route({
    method: "POST",
    url: "/api/jobs/:id/cancel",
    schema: {
      tags: ["jobs"],
      summary: "Cancel a job",
      description:
        "Nothing more is bought; what runs at the provider is asked to stop. The job ends when the provider's verdict is known, and what was not delivered is refunded then. Repeating it is harmless.",
      params: idParams,
      response: { 202: jobSchema, 409: problemSchema, ...problems },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const { job } = await mustView(services, appId, request.params.id);
      if (isEnded(job) && job.status !== "canceled")
        throw new ServiceError("already_ended", `The job is ${job.status} already; there is nothing to cancel.`, {
          facts: { jobStatus: job.status },
        });
      const after = await learn(services, job.id, [{ type: "cancel_requested", at: new Date() }]);
      if (stepsDue(after.job, after.now).length > 0) await wakeSoon(services, job.id, after);
      return reply.code(202).send(await toJson(await mustView(services, appId, job.id), storage));
    },
  });

  app.route({
    method: "POST",
    url: "/api/jobs/:id/sync",
    schema: {
      tags: ["jobs"],
      summary: "Ask the provider now",
      description:
        "Has all its runs that are out looked at now, and answers with what that has taught: at once when the job moves, after 2.5 s at the latest. Repeating it is harmless.",
      params: idParams,
      response: { 202: jobSchema, ...problems },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const view = await mustView(services, appId, request.params.id);
      return reply.code(202).send(await toJson(await refresh(services, appId, view), storage));
    },
  });
};

/** The queue is only a doorbell: when it does not answer, the sweep wakes the job. */
async function wakeSoon(
  { queues, logger }: ApiServices,
  id: string,
  { kind, epoch }: { kind: (typeof KINDS)[number]; epoch: number },
): Promise<void> {
  await queues
    .wake([{ id, kind, epoch }])
    .catch((error: unknown) => logger.warn({ err: error, job_id: id }, "could not wake: the sweep will"));
}

/** How long a status is waited for that was asked to be fresh. */
const REFRESH_MS = 2_500;

/** Asks the providers now for all that is out, and waits a moment for what that teaches. */
export async function refresh(services: ApiServices, appId: string, view: JobView): Promise<JobView> {
  const { id } = view.job;
  if (isEnded(view.job)) return view;
  const before = (await versionsOf(services.db, [id])).get(id) ?? null;
  const out = await lookNow(services.db, id);
  const record = await loadJob(services.db, id);
  if (record) await wakeSoon(services, id, record);
  if (out > 0) await services.changes.next(id, before, REFRESH_MS);
  return mustView(services, appId, id);
}

export async function mustView({ db }: Pick<ApiServices, "db">, appId: string, jobId: string): Promise<JobView> {
  const view = await viewJob(db, appId, jobId);
  if (!view) throw new ServiceError("not_found", `There is no job ${jobId} for this API key.`);
  return view;
}

interface Accepted {
  readonly view: JobView;
  readonly available: number;
  readonly replayed: boolean;
  /** The result of another job serves. */
  readonly reused: boolean;
  readonly photos: readonly PhotoAnswer[] | null;
}

export async function accept(
  services: ApiServices,
  appId: string,
  key: string,
  body: Submission,
  reply?: FastifyReply,
): Promise<Accepted> {
  const app = appOf(services, appId);
  const replay = isCostly(body) ? await replayOf(services, app, key, body) : null;
  if (replay) return replay;
  const request = await order(services, app, key, body).catch(asError);
  if (request instanceof Error) {
    // What would be refused by now, because the plan or the catalogue has changed, was perhaps answered before.
    const answered = request instanceof ServiceError ? await replayOf(services, app, key, body) : null;
    if (answered) return answered;
    throw request;
  }
  const answer = await services.accept(request).catch(tooManyWaiting);
  if (reply) await tellRates(services, reply, appId, request.rates);
  checkAnswer(answer, request);
  const { outcome, available, jobId } = answer;
  const isPlain = outcome === "accepted" && Object.keys(request.files).length === 0;
  const view = isPlain ? newView(request) : await mustView(services, appId, jobId ?? "");
  const photos = outcome === "accepted" ? request.photos : null;
  return { view, available, replayed: outcome === "replayed", reused: outcome === "reused", photos };
}

/** Preparing it again would cost, or could fail by now: its files may be gone, its quote expired. */
const isCostly = ({ kind, input, quote }: Submission) =>
  quote !== undefined || Object.keys(kindOf(kind).files(input)).length > 0;

/** The job that the key already stands for; null: accept_jobs will tell. */
async function replayOf(services: ApiServices, app: App, key: string, body: Submission): Promise<Accepted | null> {
  const known = await findByKey(services.db, app.id, key);
  if (!known) return null;
  if (known.fingerprint !== sentFingerprint(body)) throw keyReused(known.jobId);
  const view = await mustView(services, app.id, known.jobId);
  const balance = await balanceOf(services.db, app.id, view.job.userId);
  const available = balance ? balance.balance + balance.allowance : 0;
  return { view, available, replayed: !known.reused, reused: known.reused, photos: null };
}

const asError = (thrown: unknown) => (thrown instanceof Error ? thrown : new Error(String(thrown)));

function tooManyWaiting(error: unknown): never {
  if (error instanceof TooManyWaiting)
    throw new ServiceError(
      "too_many_waiting",
      "The database is behind. Try again in a few seconds, with the same Idempotency-Key.",
    );
  throw error;
}

/** A job that was accepted this instant looks like this; reading it back would cost a query on the hot path. */
function newView(request: AcceptRequest): JobView {
  const job: JobView["job"] = {
    id: request.id,
    appId: request.appId,
    userId: request.userId,
    kind: request.kind,
    model: request.model,
    input: request.input,
    files: request.files,
    metadata: request.metadata,
    variants: request.variants,
    minSuccess: request.minSuccess,
    maxAttempts: request.maxAttempts,
    maxRebuys: request.maxRebuys,
    credits: request.credits,
    priceLines: request.priceLines,
    idempotencyKey: request.idempotencyKey,
    fingerprint: Buffer.from(request.fingerprint, "hex"),
    plan: request.plan,
    priceBook: request.priceBook,
    clamps: request.clamps,
    quoteId: request.quoteId,
    batchId: request.batchId,
    pipelineId: request.pipelineId,
    experiment: request.experiment,
    arm: request.arm,
    reuseHash: request.reuse && Buffer.from(request.reuse.hash, "hex"),
    callbackUrl: request.callbackUrl,
    deadlineAt: new Date(Date.now() + request.deadlineSeconds * 1_000),
    status: "pending",
    failureCode: null,
    failureDetail: null,
    cancelRequestedAt: null,
    setAsideAt: null,
    worker: null,
    vanished: [],
    expiredAt: null,
    version: 0,
    epoch: 0,
    leaseUntil: null,
    dueAt: null,
    createdAt: new Date(),
    startedAt: null,
    endedAt: null,
  };
  return { job, runs: [], assets: [], settlement: null, ratings: [], trainedModel: null, inputs: [] };
}

export async function waitForEnd(
  services: ApiServices,
  request: FastifyRequest,
  reply: FastifyReply,
  appId: string,
  view: JobView,
): Promise<JobView> {
  const wanted = /(?:^|,)\s*wait=(\d{1,4})/.exec(String(request.headers["prefer"] ?? ""))?.[1];
  if (wanted === undefined) return view;
  const seconds = Math.min(Number(wanted), MOST_WAIT_SECONDS);
  const until = Date.now() + seconds * 1_000;
  reply.header("preference-applied", `wait=${seconds}`);
  let current = view;
  let mark: string | null = null;
  while (!isEnded(current.job) && Date.now() < until && !request.raw.socket.destroyed) {
    const moved = services.changes.next(current.job.id, mark, until - Date.now());
    if (!moved)
      throw new ServiceError(
        "too_many_waiting",
        `The job ${view.job.id} was accepted, but too many requests wait already. Ask for it at /api/jobs/${view.job.id}.`,
      );
    mark = await moved;
    current = await mustView(services, appId, view.job.id);
  }
  return current;
}
