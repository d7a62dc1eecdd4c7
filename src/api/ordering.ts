import { v7 as uuidv7 } from "uuid";
import type { AcceptAnswer, AcceptRequest } from "../db/accept.ts";
import type { Asset } from "../db/assets.ts";
import { planNameOf } from "../db/plans.ts";
import { findQuote } from "../db/quotes.ts";
import { findTrainedModel, type TrainedModel } from "../db/trained-models.ts";
import { type App, planOf } from "../domain/app.ts";
import { type Family, findModel } from "../domain/catalogue.ts";
import { kindOf } from "../domain/kinds/all.ts";
import type { FieldProblem } from "../domain/kinds/kind.ts";
import { type Fitted, fitWish, ratesOf } from "../domain/request.ts";
import { ServiceError } from "../errors.ts";
import { chargeOf, refusalOf } from "../refusal.ts";
import { targetProblem } from "../storage/guarded-post.ts";
import type { ApiServices } from "./app.ts";
import { fingerprint, sentFingerprint } from "./idempotency.ts";
import { prepareFiles } from "./inputs.ts";
import { judgePhotos, type PhotoAnswer, trainedBy } from "./photos.ts";
import type { Submission } from "./submission.ts";

/**
 * From what a caller sends to what accept_jobs takes, in one way for single jobs, batches, pipelines, quotes and the
 * paths of existing products: fitted to app, plan and model, priced, its files checked and in our store. Nothing is
 * charged here.
 */

export interface Placement {
  readonly id?: string;
  readonly batchId?: string;
  readonly pipelineId?: string;
  /** The trained model that it names is made by an earlier step of its pipeline, and will be of this family. */
  readonly family?: Family;
}

/** The app behind an API key. */
export function appOf({ apps }: Pick<ApiServices, "apps">, appId: string): App {
  const app = apps.find((each) => each.id === appId);
  if (!app)
    throw new ServiceError("forbidden", `The app ${appId} of this API key is not defined in this deployment (apps/).`);
  return app;
}

/**
 * Throws ServiceError with the fields at fault, or model_gone. With a quote: what was quoted, whatever plan and price
 * book say by now; only the limits on how often and how many are today's. `planned`: the family of a trained model that
 * will be made by an earlier step.
 */
export async function fitSubmission(
  services: ApiServices,
  app: App,
  body: Submission,
  planned?: Family,
): Promise<Fitted> {
  checkCallbackUrl(services, body.callbackUrl);
  const plan = Object.keys(app.plans).length > 1 ? await planNameOf(services.db, app.id, body.user) : null;
  const trained = planned ? ({ status: "ready", family: planned } as const) : await trainedOf(services, app, body);
  const fitted = body.quote
    ? await fitQuoted(services, app, body, body.quote, plan)
    : fitFresh(app, body, plan, trained?.family);
  await services.catalogue.checkThere(app, fitted);
  checkTrainedModel(body.user, fitted, trained);
  return fitted;
}

async function trainedOf({ db }: ApiServices, app: App, { kind, input, user }: Submission): Promise<Trained | null> {
  const id = kindOf(kind).trainedModel(input);
  return id === null ? null : findTrainedModel(db, app.id, user, id);
}

type Trained = Pick<TrainedModel, "status" | "family">;

function fitFresh(app: App, body: Submission, plan: string | null, family: Family | undefined): Fitted {
  const fitting = fitWish(app, plan, { ...body, family });
  if (!fitting.ok) throw refusal(fitting.problems);
  return fitting.fitted;
}

/** What a quote is for: the request without what changes neither the outcome nor the price. */
export function quotedFingerprint(body: Submission): string {
  const { quote: _, callbackUrl: __, metadata: ___, address: ____, ...rest } = body;
  return fingerprint(rest);
}

/** What a quote keeps of a fitted request; the rest follows from it. */
export type QuotedRequest = Omit<Fitted, "model" | "files" | "price" | "priceBook" | "rates" | "maxModels"> & {
  readonly model: string;
};

async function fitQuoted(
  { db }: ApiServices,
  app: App,
  body: Submission,
  id: string,
  planName: string | null,
): Promise<Fitted> {
  const again =
    "Ask for a new one with POST /api/quotes, or leave the field out to pay today's price. Nothing was charged.";
  const quote = await findQuote(db, app.id, body.user, id);
  if (!quote) throw refusal([{ pointer: "/quote", detail: `is no quote for this user, or one of long ago. ${again}` }]);
  if (!quote.fingerprint.equals(Buffer.from(quotedFingerprint(body), "hex")))
    throw refusal([
      {
        pointer: "/quote",
        detail: `was made for another request: send kind, user, model, input, experiment and reuse exactly as they were quoted. ${again}`,
      },
    ]);
  const quoted = quote.request as QuotedRequest;
  const model = findModel(quoted.kind, quoted.model);
  if (quote.isExpired || !model)
    throw new ServiceError(
      "quote_expired",
      model
        ? `The quote held until ${quote.expiresAt.toISOString()}. ${again}`
        : `Its model is no longer on offer. ${again}`,
      { fields: [{ pointer: "/quote", detail: "does not hold any more" }] },
    );
  const { plan } = planOf(app, planName);
  return {
    ...quoted,
    model,
    files: kindOf(quoted.kind).files(quoted.input),
    price: { credits: quote.credits, lines: quote.priceLines },
    priceBook: quote.priceBook,
    rates: ratesOf(app, plan, body),
    maxModels: plan.maxModels,
  };
}

export interface Ordered extends AcceptRequest {
  /** Of a training: what is said of each of its photos. */
  readonly photos: readonly PhotoAnswer[] | null;
}

export async function order(
  services: ApiServices,
  app: App,
  key: string,
  body: Submission,
  placement: Placement = {},
): Promise<Ordered> {
  const fitted = await fitSubmission(services, app, body, placement.family);
  await services.catalogue.checkOpen(app, fitted);
  if (fitted.kind === "training") {
    const { files, facts, photos } = await judgePhotos(services, app.id, fitted.files);
    const { input, model } = trainedBy(fitted, facts);
    const trained = { model, maxModels: fitted.maxModels };
    return { ...toRequest(services, app, key, body, { ...fitted, input }, files, placement), trained, photos };
  }
  const files = await prepareFiles(services, app.id, fitted.files);
  checkMask(files);
  return { ...toRequest(services, app, key, body, fitted, files, placement), photos: null };
}

/** A trained model has to be this user's, ready, and of the family that the model can load. */
function checkTrainedModel(user: string, fitted: Fitted, trained: Trained | null): void {
  if (fitted.trainedModel === null) return;
  const detail = !trained
    ? `is no trained model of this user: GET /api/trained-models?user=${encodeURIComponent(user)} lists them`
    : trained.status !== "ready"
      ? `is ${trained.status === "training" ? "still being trained: wait for its job to end" : `${trained.status}: train it again`}`
      : trained.family !== fitted.model.limits.lora
        ? `was trained for ${trained.family}, and the model ${fitted.model.alias} loads ${fitted.model.limits.lora}`
        : null;
  if (detail) throw refusal([{ pointer: "/input/trainedModel", detail }]);
}

export function toRequest(
  services: Pick<ApiServices, "jobDeadlineSeconds">,
  app: App,
  key: string,
  body: Submission,
  fitted: Fitted,
  files: Readonly<Record<string, Pick<Asset, "id">>>,
  placement: Placement = {},
): AcceptRequest {
  const ids = Object.fromEntries(Object.entries(files).map(([field, { id }]) => [field, id]));
  return {
    id: placement.id ?? uuidv7(),
    appId: app.id,
    userId: body.user,
    kind: fitted.kind,
    model: fitted.model.alias,
    input: fitted.input,
    files: ids,
    metadata: body.metadata,
    variants: fitted.variants,
    minSuccess: fitted.minSuccess,
    maxAttempts: fitted.maxAttempts,
    maxRebuys: fitted.maxRebuys,
    credits: fitted.price.credits,
    priceLines: fitted.price.lines,
    idempotencyKey: key,
    fingerprint: sentFingerprint(body),
    deadlineSeconds: fitted.deadlineSeconds ?? deadlineOf(fitted, services.jobDeadlineSeconds),
    plan: fitted.plan,
    priceBook: fitted.priceBook,
    clamps: fitted.clamps,
    quoteId: body.quote ?? null,
    batchId: placement.batchId ?? null,
    pipelineId: placement.pipelineId ?? null,
    experiment: fitted.experiment,
    arm: fitted.arm,
    reuse: body.reuse
      ? {
          hash: reuseHash(fitted, ids),
          seconds: body.reuse.seconds,
        }
      : null,
    callbackUrl: body.callbackUrl ?? app.callbackUrl,
    rates: fitted.rates,
    trained: null,
  };
}

/**
 * Everything that decides the outcome or how it counts, as it will be done: defaults filled in and taken down to the
 * plan, so that words which come to the same are the same. Files by their bytes: the same picture from another address
 * is the same picture. A seed only where it was given: who gave none takes any. `minSuccess`, because it decides what
 * is a completed job. The arm, so that an experiment is never credited with a result from outside. Not the price, the
 * notes, the callback: they change nothing about the picture.
 */
function reuseHash(fitted: Fitted, files: Readonly<Record<string, string>>): string {
  const { kind, model, experiment, arm } = fitted;
  return fingerprint({ kind, model: model.alias, input: withoutFiles(fitted), files, experiment, arm });
}

/** What is out at the deadline is stopped: a training needs more than an hour, and may have to wait for its turn. */
function deadlineOf({ model }: Fitted, usual: number): number {
  return model.limits.trains ? Math.max(usual, 2 * model.timeoutSeconds) : usual;
}

function withoutFiles({ input, files }: Fitted): unknown {
  if (typeof input !== "object" || input === null) return input;
  const fields = Object.keys(files).map((field) => field.split("/")[0] ?? field);
  return Object.fromEntries(Object.entries(input).filter(([field]) => !fields.includes(field)));
}

function refusal(fields: readonly FieldProblem[]): ServiceError {
  const words = fields.map(({ pointer, detail }) => `body field ${pointer} ${detail}`).join("; ");
  return new ServiceError("invalid_input", `${words}. Nothing was charged.`, { fields });
}

function checkMask({ image, mask }: Readonly<Record<string, Asset>>): void {
  if (!image || !mask || (image.width === mask.width && image.height === mask.height)) return;
  const detail = `is ${mask.width}×${mask.height} pixels, the image ${image.width}×${image.height}: draw the mask in exactly the size of the image`;
  throw new ServiceError("file_refused", `body field /input/mask ${detail}. Nothing was charged.`, {
    fields: [{ pointer: "/input/mask", detail }],
    facts: { reason: "mask_size" },
  });
}

/** Throws what an answer that is no acceptance means to the caller. */
export function checkAnswer(answer: AcceptAnswer, request: Pick<AcceptRequest, "credits" | "trained" | "appId">): void {
  const refused = refusalOf(answer, chargeOf(request));
  if (refused) throw refused;
}

export { keyReused } from "../refusal.ts";

/** Throws ServiceError when nothing could ever be told there. */
export function checkCallbackUrl({ callbackOrigins }: ApiServices, url: string | undefined): void {
  const problem = url === undefined ? null : targetProblem(url, { allowedOrigins: callbackOrigins });
  if (problem) throw refusal([{ pointer: "/callbackUrl", detail: problem }]);
}
