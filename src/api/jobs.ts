import type { FastifyReply, FastifyRequest } from "fastify";
import { v7 as uuidv7 } from "uuid";
import { z } from "zod";
import { type AcceptRequest, findByKey } from "../db/accept.ts";
import { type JobFilter, type JobView, listJobs, viewJob } from "../db/job-views.ts";
import { loadJob } from "../db/jobs.ts";
import { lookNow } from "../db/looks.ts";
import { stepsDue } from "../domain/agenda.ts";
import type { App } from "../domain/app.ts";
import { isEnded, JOB_STATUSES } from "../domain/job.ts";
import { kindOf } from "../domain/kinds/all.ts";
import { KINDS } from "../domain/kinds/kind.ts";
import { price } from "../domain/pricing.ts";
import { ServiceError } from "../errors.ts";
import { learn } from "../learn.ts";
import { TooManyWaiting } from "./accepting.ts";
import type { ApiServices, Routes } from "./app.ts";
import { fingerprint, idempotencyKey } from "./idempotency.ts";
import { prepareFiles } from "./inputs.ts";
import { jobSchema, toJson } from "./job-json.ts";
import { problemSchema } from "./problem.ts";
import { isStorable, type Submission, submissionSchema } from "./submission.ts";

const idParams = z.object({ id: z.uuid("is not a job's id") });
const submitted = jobSchema.extend({
  balance: z.object({ available: z.int().describe("What the user can spend after this.") }),
});
const problems = { 401: problemSchema, 404: problemSchema };

/** How often a variant may be bought when the provider itself interrupts the run, and once more when one was lost. */
const MAX_ATTEMPTS = 3;
const MAX_REBUYS = 1;
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
        503: problemSchema,
      },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const key = idempotencyKey(request.headers["idempotency-key"]);
      const { view, available, replayed } = await accept(services, appId, key, request.body);
      const waited = await waitForEnd(services, request, reply, appId, view);
      reply.header("location", `/api/jobs/${waited.job.id}`);
      if (replayed) reply.header("idempotency-replayed", "true");
      const body = { ...(await toJson(waited, storage)), balance: { available } };
      // Made here field by field and typed: parsing it once more costs a tenth of the whole request.
      reply.type("application/json; charset=utf-8").serializer(JSON.stringify);
      return reply.code(isEnded(waited.job) && waited !== view ? 200 : 202).send(body);
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
      querystring: z.strictObject({
        user: z.string().max(200).refine(isStorable, "holds a character that cannot be kept").optional(),
        status: z.enum(JOB_STATUSES).optional(),
        kind: z.enum(KINDS).optional(),
        limit: z.coerce.number().int().min(1).max(100).default(20),
        cursor: z.uuid("is not a cursor of ours: take nextCursor from the page before").optional(),
      }),
      response: {
        200: z.object({ jobs: z.array(jobSchema), nextCursor: z.string().nullable() }),
        401: problemSchema,
        422: problemSchema,
      },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const { user, status, kind, limit, cursor } = request.query;
      const filter: JobFilter = { appId, userId: user, status, kind, before: cursor, limit: limit + 1 };
      const views = await listJobs(db, filter);
      const page = views.slice(0, limit);
      const nextCursor = views.length > limit ? (page.at(-1)?.job.id ?? null) : null;
      if (nextCursor) {
        const next = new URLSearchParams();
        for (const [name, value] of Object.entries({ ...request.query, cursor: nextCursor }))
          next.set(name, String(value));
        reply.header("link", `</api/jobs?${next}>; rel="next"`);
      }
      return { jobs: await Promise.all(page.map((view) => toJson(view, storage))), nextCursor };
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
        "Brings the next look at the job's runs forward to now and wakes the job. The answer is the job as known at this moment; read it again in a second.",
      params: idParams,
      response: { 202: jobSchema, ...problems },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const { job } = await mustView(services, appId, request.params.id);
      if (!isEnded(job)) {
        await lookNow(db, job.id);
        const record = await loadJob(db, job.id);
        if (record) await wakeSoon(services, job.id, record);
      }
      return reply.code(202).send(await toJson(await mustView(services, appId, job.id), storage));
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

export async function mustView({ db }: Pick<ApiServices, "db">, appId: string, jobId: string): Promise<JobView> {
  const view = await viewJob(db, appId, jobId);
  if (!view) throw new ServiceError("not_found", `There is no job ${jobId} for this API key.`);
  return view;
}

interface Accepted {
  readonly view: JobView;
  readonly available: number;
  readonly replayed: boolean;
}

async function accept(services: ApiServices, appId: string, key: string, body: Submission): Promise<Accepted> {
  const app = services.apps.find((each) => each.id === appId);
  if (!app)
    throw new ServiceError("forbidden", `The app ${appId} of this API key is not defined in this deployment (apps/).`);
  if (!app.kinds.includes(body.kind))
    throw new ServiceError(
      "forbidden",
      `The app ${appId} does not offer jobs of kind ${body.kind}, only ${app.kinds.join(", ")}.`,
    );
  const kind = kindOf(body.kind);
  const print = fingerprint(body);
  const files = kind.files(body.input);
  // A replay must not fetch its files again: they may be gone by now.
  const known = Object.keys(files).length > 0 ? await findByKey(services.db, appId, key) : null;
  const prepared = known ? {} : await prepareFiles(services, appId, files);
  const request = toRequest(services, app, key, print, body, prepared);
  const answer = await services.accept(request).catch((error: unknown) => {
    if (error instanceof TooManyWaiting)
      throw new ServiceError(
        "too_many_waiting",
        "The database is behind. Try again in a few seconds, with the same Idempotency-Key.",
      );
    throw error;
  });
  if (answer.outcome === "insufficient_credits")
    throw new ServiceError(
      "insufficient_credits",
      `This costs ${request.credits} credits and the user has ${answer.available}. Grant credits with POST /api/credits/{user}/grants, or ask for less. Nothing was charged.`,
      { facts: { required: request.credits, available: answer.available } },
    );
  if (answer.outcome === "key_reused" || !answer.jobId)
    throw new ServiceError(
      "idempotency_key_reused",
      "This Idempotency-Key already stands for a request with another body. Use a new key for a new request. Nothing was charged.",
      { facts: { jobId: answer.jobId } },
    );
  const replayed = answer.outcome === "replayed";
  const view = replayed ? await mustView(services, appId, answer.jobId) : newView(request);
  return { view, available: answer.available, replayed };
}

function toRequest(
  services: ApiServices,
  app: App,
  key: string,
  print: string,
  body: Submission,
  files: Record<string, string>,
): AcceptRequest {
  const kind = kindOf(body.kind);
  const { count, minSuccess } = kind.variants(body.input);
  const { credits, lines } = price(kind.price(body.input, app));
  return {
    id: uuidv7(),
    appId: app.id,
    userId: body.user,
    kind: body.kind,
    model: body.model,
    input: body.input,
    files,
    metadata: body.metadata,
    variants: count,
    minSuccess,
    maxAttempts: MAX_ATTEMPTS,
    maxRebuys: MAX_REBUYS,
    credits,
    priceLines: lines,
    idempotencyKey: key,
    fingerprint: print,
    deadlineSeconds: services.jobDeadlineSeconds,
  };
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
  return { job, runs: [], assets: [], settlement: null };
}

async function waitForEnd(
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
