import { v7 as uuidv7 } from "uuid";
import { z } from "zod";
import { balanceOf } from "../db/credits.ts";
import {
  cancelPipeline,
  createPipeline,
  findPipelineByKey,
  listPipelines,
  type NewStep,
  type PipelineRow,
  type PipelineView,
  resumePipeline,
  type StepRequest,
  viewPipeline,
} from "../db/pipelines.ts";
import { planNameOf } from "../db/plans.ts";
import { type App, planOf } from "../domain/app.ts";
import type { Family } from "../domain/catalogue.ts";
import { KINDS } from "../domain/kinds/kind.ts";
import { arrange, modelPointer, PIPELINE_STATUSES, stepKey } from "../domain/pipeline.ts";
import { ratesOf } from "../domain/request.ts";
import { ServiceError } from "../errors.ts";
import { inLanes } from "../lanes.ts";
import { pipelineJson, pipelineSchema } from "../pipeline-json.ts";
import type { ApiServices, Routes } from "./app.ts";
import { idempotencyKey, sentFingerprint } from "./idempotency.ts";
import { appOf, checkCallbackUrl, fitSubmission, keyReused, order } from "./ordering.ts";
import { parseSubmission } from "./parsing.ts";
import { problemSchema } from "./problem.ts";
import {
  callbackUrlSchema,
  checkStorable,
  isStorable,
  metadataSchema,
  type Submission,
  userSchema,
} from "./submission.ts";

const MOST_STEPS = 50;
/** Steps whose files are fetched and judged at the same time. */
const LANES = 2;

const stepSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z][a-z0-9_-]{0,39}$/, "1 to 40 lower-case letters, digits, _ and -, beginning with a letter")
    .describe("Yours, for other steps to name."),
  kind: z.enum(KINDS),
  model: z.string().min(1).max(100).optional().describe("By default the app's for the kind."),
  input: z
    .record(z.string(), z.unknown())
    .describe('As POST /api/jobs takes it; trainedModel may be {"step": "<name of a training>"}.'),
  after: z
    .array(z.string())
    .max(MOST_STEPS)
    .optional()
    .describe("Steps that have to complete before, by name; those whose trained model it uses always do."),
});
const newPipeline = z
  .strictObject({
    user: userSchema,
    name: z.string().trim().max(100).default("").describe("For people."),
    steps: z.array(stepSchema).min(1).max(MOST_STEPS),
    metadata: metadataSchema,
    callbackUrl: callbackUrlSchema,
  })
  .check(checkStorable);
type NewPipeline = z.output<typeof newPipeline>;

const created = pipelineSchema.extend({
  balance: z.object({
    available: z.int().describe("What the user can spend now."),
    covers: z.boolean().describe("Whether that is enough for all steps that are still to be started."),
  }),
});
const params = z.object({ id: z.uuid("is not a pipeline's id") });
const problems = { 401: problemSchema, 404: problemSchema };

export const pipelineRoutes: Routes = (app, services) => {
  const { db, authenticate } = services;

  app.route({
    method: "POST",
    url: "/api/pipelines",
    schema: {
      tags: ["pipelines"],
      summary: "Submit steps that follow each other",
      description:
        "Every step is checked and priced now, and its files are kept; it is charged when it begins, as a job of its own. What a training makes can be used by later steps. Repeat it with the same Idempotency-Key as often as you like.",
      headers: z.object({
        "idempotency-key": z.string().optional().describe("Required: your own name for this pipeline."),
      }),
      body: newPipeline,
      response: {
        202: created,
        400: problemSchema,
        401: problemSchema,
        413: problemSchema,
        415: problemSchema,
        422: problemSchema,
        503: problemSchema,
      },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const key = idempotencyKey(request.headers["idempotency-key"]);
      const { row, isNew } = await open(services, appOf(services, appId), key, request.body);
      reply.header("location", `/api/pipelines/${row.id}`);
      if (!isNew) reply.header("idempotency-replayed", "true");
      return reply.code(202).send(await withBalance(services, await mustView(services, appId, row.id)));
    },
  });

  app.route({
    method: "GET",
    url: "/api/pipelines/:id",
    schema: {
      tags: ["pipelines"],
      summary: "A pipeline with its steps",
      params,
      response: { 200: pipelineSchema, ...problems },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      return pipelineJson(await mustView(services, appId, request.params.id));
    },
  });

  app.route({
    method: "GET",
    url: "/api/pipelines",
    schema: {
      tags: ["pipelines"],
      summary: "Pipelines, newest first",
      querystring: z.strictObject({
        user: z.string().max(200).refine(isStorable, "holds a character that cannot be kept").optional(),
        status: z.enum(PIPELINE_STATUSES).optional(),
        limit: z.coerce.number().int().min(1).max(100).default(20),
        cursor: z.uuid("is not a cursor of ours: take nextCursor from the page before").optional(),
      }),
      response: {
        200: z.object({ pipelines: z.array(pipelineSchema), nextCursor: z.string().nullable() }),
        401: problemSchema,
        422: problemSchema,
      },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      const { user, status, limit, cursor } = request.query;
      const views = await listPipelines(db, { appId, userId: user, status, before: cursor, limit: limit + 1 });
      const page = views.slice(0, limit);
      return {
        pipelines: page.map(pipelineJson),
        nextCursor: views.length > limit ? (page.at(-1)?.pipeline.id ?? null) : null,
      };
    },
  });

  app.route({
    method: "POST",
    url: "/api/pipelines/:id/resume",
    schema: {
      tags: ["pipelines"],
      summary: "Let a failed pipeline go on",
      description:
        "The steps that failed, or whose jobs were canceled, are tried again as new jobs, for the price of before and within the limits of the user's plan of today; then what waits for them. What has completed is not bought again. Repeating it while it runs changes nothing.",
      params,
      response: { 202: created, 409: problemSchema, ...problems },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const { id } = request.params;
      const { pipeline } = await mustView(services, appId, id);
      const { userId: user } = pipeline;
      const definition = appOf(services, appId);
      const { plan } = planOf(definition, await planNameOf(db, appId, user));
      const limitsOf = ({ kind, max_models }: StepRequest) => ({
        rates: ratesOf(definition, plan, { kind, user }),
        max_models: max_models === null ? null : plan.maxModels,
      });
      if (!(await resumePipeline(db, id, uuidv7, limitsOf)) && pipeline.status !== "running")
        await mustRun(services, appId, id, "Only a failed one can be resumed; submit a new one.");
      return reply.code(202).send(await withBalance(services, await mustView(services, appId, id)));
    },
  });

  app.route({
    method: "POST",
    url: "/api/pipelines/:id/cancel",
    schema: {
      tags: ["pipelines"],
      summary: "Cancel a pipeline",
      description:
        "Nothing more is started, and what runs is canceled as by POST /api/jobs/{id}/cancel. It ends when the last job has. Repeating it is harmless.",
      params,
      response: { 202: pipelineSchema, 409: problemSchema, ...problems },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const { id } = request.params;
      await mustView(services, appId, id);
      if (!(await cancelPipeline(db, id))) await mustRun(services, appId, id, "There is nothing to cancel.");
      return reply.code(202).send(pipelineJson(await mustView(services, appId, id)));
    },
  });
};

async function mustView({ db }: ApiServices, appId: string, id: string): Promise<PipelineView> {
  const view = await viewPipeline(db, appId, id);
  if (!view) throw new ServiceError("not_found", `There is no pipeline ${id} for this API key.`);
  return view;
}

/** What was asked for again after it had been done is no fault. */
async function mustRun(services: ApiServices, appId: string, id: string, advice: string): Promise<void> {
  const { status, cancelRequestedAt } = (await mustView(services, appId, id)).pipeline;
  if (status === "running" || (status === "canceled" && cancelRequestedAt && advice.includes("cancel"))) return;
  throw new ServiceError("already_ended", `The pipeline is ${status} already. ${advice}`, {
    facts: { pipelineStatus: status },
  });
}

async function withBalance(services: ApiServices, view: PipelineView) {
  const { appId, userId } = view.pipeline;
  const account = await balanceOf(services.db, appId, userId);
  const definition = appOf(services, appId);
  // The account of a new user is made by the first charge, with what the app gives to everybody.
  const available = account
    ? account.balance + account.allowance
    : definition.signupGrant + planOf(definition, null).plan.dailyAllowance;
  const body = pipelineJson(view);
  return { ...body, balance: { available, covers: available >= body.credits.open } };
}

async function open(
  services: ApiServices,
  app: App,
  key: string,
  body: NewPipeline,
): Promise<{ row: PipelineRow; isNew: boolean }> {
  const mark = sentFingerprint(body);
  const replay = async () => {
    const row = await findPipelineByKey(services.db, app.id, key);
    if (row && row.fingerprint.toString("hex") !== mark) throw keyReused(null);
    return row;
  };
  // Looked for first: preparing it again would cost, and its files may be gone by now.
  const known = await replay();
  if (known) return { row: known, isNew: false };
  checkCallbackUrl(services, body.callbackUrl);
  const id = uuidv7();
  const isNew = await createPipeline(
    services.db,
    {
      id,
      appId: app.id,
      userId: body.user,
      name: body.name,
      metadata: body.metadata,
      callbackUrl: body.callbackUrl ?? app.callbackUrl,
      idempotencyKey: key,
      fingerprint: Buffer.from(mark, "hex"),
    },
    await prepare(services, app, id, body),
  );
  const row = await replay();
  if (!row) throw new Error("a pipeline was neither inserted nor found");
  return { row, isNew };
}

/** Fits and prices every step, and keeps its files; what is wrong is said with the step's own field. */
async function prepare(services: ApiServices, app: App, id: string, body: NewPipeline): Promise<NewStep[]> {
  const uses = body.steps.map(({ input }, index) => reference(input["trainedModel"], index));
  const plan = body.steps.map(({ name, kind, after }, index) => ({ name, kind, after, uses: uses[index] ?? null }));
  const arranged = arrange(plan);
  if (!arranged.ok) throw invalid(arranged.problems);

  // Decided now, so that a step can name the model that an earlier one will make.
  const ids = new Map(body.steps.map(({ name }) => [name, uuidv7()]));
  const steps = body.steps.map((step, index) => {
    const used = uses[index];
    const submission = within(index, step.name, () =>
      parseSubmission({
        kind: step.kind,
        user: body.user,
        ...(step.model === undefined ? {} : { model: step.model }),
        input: used ? { ...step.input, trainedModel: ids.get(used) } : step.input,
        metadata: body.metadata,
      }),
    );
    return { index, name: step.name, used, submission };
  });

  // What costs nothing comes first: no photo is fetched for a pipeline that cannot be.
  const families = new Map<string, Family>();
  const fitOne = ({ index, name, used, submission }: (typeof steps)[number]) =>
    withinAsync(index, name, async () => {
      const family = used ? families.get(used) : undefined;
      const fitted = await fitSubmission(services, app, submission, family);
      const { trains } = fitted.model.limits;
      if (trains) families.set(name, trains);
    });
  for (const each of steps.filter(({ submission }) => isTraining(submission))) await fitOne(each);
  for (const each of steps.filter(({ submission }) => !isTraining(submission))) await fitOne(each);

  return inLanes(LANES, steps, ({ index, name, used, submission }) =>
    withinAsync(index, name, async () => {
      const family = used ? families.get(used) : undefined;
      const jobId = ids.get(name);
      const placement = { pipelineId: id, ...(jobId ? { id: jobId } : {}), ...(family ? { family } : {}) };
      const request = await order(services, app, stepKey(id, name, 1), submission, placement);
      return { name, after: arranged.after[index] ?? [], request };
    }),
  );
}

const isTraining = ({ kind }: Submission) => kind === "training";

/** The step whose model is wanted; null where a model is named by id, or none. */
function reference(value: unknown, index: number): string | null {
  if (typeof value !== "object" || value === null) return null;
  const parsed = z.strictObject({ step: z.string() }).safeParse(value);
  if (parsed.success) return parsed.data.step;
  throw invalid([{ pointer: modelPointer(index), detail: 'is a trained model\'s id, or {"step": "<name>"}' }]);
}

function invalid(fields: readonly { pointer: string; detail: string }[]): ServiceError {
  const words = fields.map(({ pointer, detail }) => `body field ${pointer} ${detail}`).join("; ");
  return new ServiceError("invalid_input", `${words}. Nothing was charged.`, { fields });
}

/** What is wrong with a step's submission is wrong with the step. */
function within<T>(index: number, name: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw ofStep(index, name, error);
  }
}

async function withinAsync<T>(index: number, name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw ofStep(index, name, error);
  }
}

function ofStep(index: number, name: string, error: unknown): unknown {
  if (!(error instanceof ServiceError)) return error;
  const fields = error.fields.map(({ pointer, detail }) => ({ pointer: `/steps/${index}${pointer}`, detail }));
  return new ServiceError(error.code, `Step "${name}": ${error.message}`, {
    fields,
    facts: { ...error.facts, step: name },
    cause: error,
  });
}
