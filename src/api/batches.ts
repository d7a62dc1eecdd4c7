import { setTimeout as sleep } from "node:timers/promises";
import { v7 as uuidv7 } from "uuid";
import { z } from "zod";
import { canceledItem, itemKey } from "../batch-items.ts";
import { batchJson, batchSchema, type ItemPage } from "../batch-json.ts";
import { cancelJob } from "../cancel.ts";
import type { AcceptAnswer, AcceptRequest } from "../db/accept.ts";
import {
  acceptPart,
  answeredItems,
  type BatchRequest,
  type BatchRow,
  cancelBatch,
  findBatch,
  finishBatch,
  openBatch,
  openJobsOf,
  refuseItems,
} from "../db/batches.ts";
import type { App } from "../domain/app.ts";
import { ERRORS, ServiceError } from "../errors.ts";
import { inLanes } from "../lanes.ts";
import { type ProblemDocument, problemOf } from "../problem.ts";
import { chargeOf, refusalOf } from "../refusal.ts";
import { wakeAccepted } from "./accepting.ts";
import type { ApiServices, Routes } from "./app.ts";
import { idempotencyKey, sentFingerprint } from "./idempotency.ts";
import { appOf, checkCallbackUrl, keyReused, order } from "./ordering.ts";
import { parseSubmission } from "./parsing.ts";
import { problemSchema } from "./problem.ts";
import { callbackUrlSchema, checkStorable, metadataSchema } from "./submission.ts";

const MOST_JOBS = 1_000;
const MOST_BODY_BYTES = 5_000_000;
/** Items in one statement. */
const PART = 100;
/** Items whose files are fetched and judged at the same time; each may hold one in memory. */
const LANES = 4;
/** A hot account may keep a statement waiting; then it is tried again. */
const LOCKED_TRIES = 5;
const LOCKED_PAUSE_MS = 300;

/** Each item is read by itself; what is nested deeper than this would overflow the stack of whoever looks at them all. */
const MOST_DEPTH = 60;

function isShallow(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return true;
  return levels > 0 && Object.values(value).every((member) => isShallow(member, levels - 1));
}

const params = z.object({ id: z.uuid("is not a batch's id") });

export const batchRoutes: Routes = (app, services) => {
  const { db, authenticate } = services;

  app.route({
    method: "POST",
    url: "/api/batches",
    bodyLimit: MOST_BODY_BYTES,
    schema: {
      tags: ["batches"],
      summary: `Submit up to ${MOST_JOBS} jobs under one key`,
      description:
        "Each job is accepted and charged, or refused and charged nothing, by itself; the answer has both, in their order. Sent again with the same Idempotency-Key it goes on where it broke off and answers the same: also after 429 or 503, when a limit let no more through. At most 5 MB: send pictures to POST /api/uploads first.",
      headers: z.object({
        "idempotency-key": z.string().optional().describe("Required: your own name for this batch."),
      }),
      body: z
        .strictObject({
          jobs: z
            .array(z.unknown())
            .min(1)
            .max(MOST_JOBS)
            .refine((jobs) => isShallow(jobs, MOST_DEPTH), `is nested deeper than ${MOST_DEPTH}: no job is`)
            .describe(`1 to ${MOST_JOBS}, each as POST /api/jobs takes it, but for reuse: kind, user, input …`),
          metadata: metadataSchema,
          callbackUrl: callbackUrlSchema,
        })
        .check((ctx) => checkStorable({ ...ctx, value: { ...ctx.value, jobs: null } })),
      response: {
        202: batchSchema,
        400: problemSchema,
        401: problemSchema,
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
      const definition = appOf(services, appId);
      const { jobs, metadata, callbackUrl } = request.body;
      checkCallbackUrl(services, callbackUrl);
      const mark = sentFingerprint(request.body);
      const batch = await openBatch(db, {
        id: uuidv7(),
        appId,
        idempotencyKey: key,
        fingerprint: Buffer.from(mark, "hex"),
        metadata,
        size: jobs.length,
        callbackUrl: callbackUrl ?? definition.callbackUrl,
      });
      if (batch.fingerprint.toString("hex") !== mark) throw keyReused(null);
      if (batch.acceptedAt) reply.header("idempotency-replayed", "true");
      else {
        const isWanted = () => !request.raw.socket.destroyed && !services.draining();
        await acceptAll(services, definition, batch, jobs, isWanted);
      }
      reply.header("location", `/api/batches/${batch.id}`);
      return reply.code(202).send(await report(services, appId, batch.id, { after: -1, limit: MOST_JOBS }));
    },
  });

  app.route({
    method: "GET",
    url: "/api/batches/:id",
    schema: {
      tags: ["batches"],
      summary: "What became of a batch, with its items",
      params,
      querystring: z.strictObject({
        limit: z.coerce.number().int().min(1).max(MOST_JOBS).default(100),
        cursor: z.coerce
          .number("is not a cursor of ours: take nextCursor from the page before")
          .int()
          .min(0)
          .max(MOST_JOBS)
          .optional(),
      }),
      response: { 200: batchSchema, 401: problemSchema, 404: problemSchema, 422: problemSchema },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      const { limit, cursor } = request.query;
      return report(services, appId, request.params.id, { after: cursor ?? -1, limit });
    },
  });

  app.route({
    method: "POST",
    url: "/api/batches/:id/cancel",
    schema: {
      tags: ["batches"],
      summary: "Cancel all jobs of a batch that have not ended",
      description:
        "As POST /api/jobs/{id}/cancel for each of them, and nothing more of it is accepted: what was not delivered is refunded when the provider's verdict is known. Repeating it is harmless.",
      params,
      response: { 202: batchSchema, 401: problemSchema, 404: problemSchema },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const batch = await mustFind(services, appId, request.params.id);
      // First, so that whoever accepts it at this moment stops, or sees it after what he accepts now.
      await cancelBatch(db, batch.id);
      await cancelOpen(services, batch.id);
      return reply.code(202).send(await report(services, appId, batch.id, { after: -1, limit: PART }));
    },
  });
};

async function mustFind({ db }: ApiServices, appId: string, id: string): Promise<BatchRow> {
  const batch = await findBatch(db, appId, id);
  if (!batch) throw new ServiceError("not_found", `There is no batch ${id} for this API key.`);
  return batch;
}

async function cancelOpen(services: ApiServices, batchId: string): Promise<void> {
  for (let canceled = 0; canceled < MOST_JOBS; canceled += PART) {
    const open = await openJobsOf(services.db, batchId, PART);
    if (open.length === 0) break;
    await inLanes(LANES, open, (id) => cancelJob(services, id));
  }
}

async function report(services: ApiServices, appId: string, id: string, page: ItemPage) {
  return batchJson(services.db, await mustFind(services, appId, id), page);
}

/** Gives every item its answer that has none yet, part by part. Whoever breaks off leaves what can be gone on with. */
async function acceptAll(
  services: ApiServices,
  app: App,
  batch: BatchRow,
  jobs: readonly unknown[],
  isWanted: () => boolean,
): Promise<void> {
  const { db, reach } = services;
  const answered = await answeredItems(db, batch.id);
  const open = [...jobs.keys()].filter((ord) => !answered.has(ord));
  const isCanceled = async () => (await mustFind(services, app.id, batch.id)).cancelRequestedAt !== null;
  for (let from = 0; from < open.length && !(await isCanceled()); from += PART) {
    if (!isWanted())
      throw new ServiceError(
        "unavailable",
        "The batch was interrupted. Send it again with the same Idempotency-Key: it goes on where it broke off.",
      );
    const prepared = await inLanes(LANES, open.slice(from, from + PART), (ord) =>
      prepare(services, app, batch, ord, jobs[ord]),
    );
    const requests = prepared.filter((each) => "request" in each);
    const refused = prepared.filter((each) => "problem" in each);
    const { final, passing } = await accept(services, batch, requests);
    await refuseItems(db, batch.id, [...refused, ...final]);
    await reach("batch.part", batch.id);
    if (passing && !(await isCanceled())) throw await stopped(services, batch, passing);
  }
  if (await isCanceled()) {
    await refuseItems(
      db,
      batch.id,
      open.map((ord) => canceledItem(batch.id, ord)),
    );
    // Also what was accepted while somebody canceled the others.
    await cancelOpen(services, batch.id);
  }
  await finishBatch(db, batch.id);
}

interface Refused {
  readonly ord: number;
  readonly problem: ProblemDocument;
}

interface Refusals {
  /** Of those that were refused for good. */
  readonly final: readonly Refused[];
  /** Why others have no answer for now: a limit, or the switch. */
  readonly passing: ServiceError | null;
}

/** What a later attempt could answer otherwise is no answer to an item, but the end of this attempt at the batch. */
async function prepare(
  services: ApiServices,
  app: App,
  batch: BatchRow,
  ord: number,
  job: unknown,
): Promise<BatchRequest | Refused> {
  try {
    const submission = parseSubmission(job);
    if (submission.reuse) throw reuseRefused();
    const placement = { batchId: batch.id };
    return { ord, request: await order(services, app, itemKey(batch.id, ord), submission, placement) };
  } catch (error) {
    if (!(error instanceof ServiceError) || (ERRORS[error.code].retryable && !isOfItem(error))) throw error;
    return { ord, problem: problemOf(error, itemKey(batch.id, ord)) };
  }
}

/** A pause may last for hours, and concerns only the jobs that nobody else can serve: the others need not wait. */
const isOfItem = ({ code }: ServiceError) => code === "provider_paused";

/** A batch ends with the jobs that it bought: another's could go on for longer, and nobody would be told. */
function reuseRefused(): ServiceError {
  const detail =
    "is not for the jobs of a batch, which ends with its own: leave it out, or send this one to POST /api/jobs";
  const fields = [{ pointer: "/reuse", detail }];
  return new ServiceError("invalid_input", `body field /reuse ${detail}. Nothing was charged.`, { fields });
}

/** Accepts a part, wakes its jobs, and returns what was refused. */
async function accept(services: ApiServices, batch: BatchRow, part: readonly BatchRequest[]): Promise<Refusals> {
  if (part.length === 0) return { final: [], passing: null };
  let answers: ReadonlyMap<number, AcceptAnswer>;
  try {
    answers = await acceptUnlocked(services, batch, part);
  } catch (error) {
    // One bad row fails the statement: its neighbours are taken one by one and do not notice.
    if (!isOfARow(error)) throw error;
    const [only] = part;
    if (part.length === 1 && only) {
      services.logger.error({ err: error, batch_id: batch.id, item: only.ord }, "an item cannot be written");
      const internal = new ServiceError("internal", "An unexpected error with this item. Nothing was charged.");
      return { final: [{ ord: only.ord, problem: problemOf(internal, itemKey(batch.id, only.ord)) }], passing: null };
    }
    const each: Refusals[] = [];
    for (const one of part) each.push(await accept(services, batch, [one]));
    return { final: each.flatMap(({ final }) => final), passing: each.find(({ passing }) => passing)?.passing ?? null };
  }
  const answered = part.flatMap(({ ord, request }): { ord: number; request: AcceptRequest; answer: AcceptAnswer }[] => {
    const answer = answers.get(ord);
    return answer ? [{ ord, request, answer }] : [];
  });
  await wakeAccepted(services, answered);
  const refused = answered.flatMap(({ ord, request, answer }) => {
    const refusal = refusalOf(answer, chargeOf(request));
    return refusal ? [{ ord, refusal }] : [];
  });
  const isPassing = ({ refusal }: { refusal: ServiceError }) => ERRORS[refusal.code].retryable;
  return {
    final: refused
      .filter((each) => !isPassing(each))
      .map(({ ord, refusal }) => ({ ord, problem: problemOf(refusal, itemKey(batch.id, ord)) })),
    passing: refused.find(isPassing)?.refusal ?? null,
  };
}

/** The end of an attempt at a batch: said with what the refusal says, but for what it cannot know. */
async function stopped({ db }: ApiServices, batch: BatchRow, { code, message, facts }: ServiceError) {
  const { size } = batch;
  const done = (await answeredItems(db, batch.id)).size;
  const why = message.replace(" Nothing was charged.", "");
  const advice = `${done} of the ${size} jobs of the batch ${batch.id} have their answer, and keep it`;
  return new ServiceError(
    code,
    `${why} ${advice}. Send the batch again then, with its Idempotency-Key: it goes on there.`,
    { facts },
  );
}

async function acceptUnlocked({ db }: ApiServices, batch: BatchRow, part: readonly BatchRequest[]) {
  for (let tries = 1; ; tries++) {
    try {
      return await acceptPart(db, batch.id, part);
    } catch (error) {
      if (tries === LOCKED_TRIES || !LOCKED.has(codeOf(error))) throw error;
      await sleep(LOCKED_PAUSE_MS * tries);
    }
  }
}

/** lock_not_available and deadlock_detected: nothing was written. */
const LOCKED = new Set(["55P03", "40P01"]);

const codeOf = (error: unknown) =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";

/** Data exceptions and broken constraints. */
const isOfARow = (error: unknown) => /^2[23]/.test(codeOf(error));
