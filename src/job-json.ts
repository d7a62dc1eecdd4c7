import { z } from "zod";
import type { Asset } from "./db/assets.ts";
import type { JobView, RunRow } from "./db/job-views.ts";
import { FAILURES, type FailureCode } from "./domain/failure.ts";
import { JOB_STATUSES } from "./domain/job.ts";
import { KINDS } from "./domain/kinds/kind.ts";
import { variantProgress, variantStatus } from "./domain/progress.ts";
import { RUN_STATUSES } from "./domain/run.ts";
import { asSeen } from "./domain/suffix.ts";
import type { Storage } from "./storage/storage.ts";

/** Signed addresses in an answer live this long; ask for the job again to get fresh ones. */
const FILE_URL_SECONDS = 3_600;

const time = z.iso.datetime({ offset: true });
const failureSchema = z
  .object({
    code: z.enum(Object.keys(FAILURES) as [FailureCode, ...FailureCode[]]).describe("Stable; program against this."),
    message: z.string().describe("May be shown to the end user."),
    remedy: z.string().describe("For the operator."),
    detail: z.string().describe("The evidence, in the provider's words. Not for end users."),
  })
  .meta({ id: "Failure" });

const fileSchema = z.object({
  url: z.url().describe("Signed; expires after an hour. Get the job again for a fresh one."),
  contentType: z.string(),
  bytes: z.int(),
  width: z.int().nullable().describe("Pixels, of pictures and films."),
  height: z.int().nullable(),
  seconds: z.number().nullable().describe("Of films."),
  sha256: z.string().describe("Of the stored bytes, hexadecimal."),
});

const ratingSchema = z
  .object({ score: z.int().min(1).max(5), comment: z.string(), at: time.describe("When it was last given.") })
  .meta({ id: "Rating" });

const resultSchema = z
  .object({
    variant: z.int().min(0),
    status: z.enum(["pending", "processing", "completed", "failed", "canceled"]),
    progress: z.number().min(0).max(1),
    seed: z.int().nullable(),
    file: fileSchema.nullable(),
    thumbnail: fileSchema.nullable(),
    rating: ratingSchema.nullable().describe("What the end user thought of it."),
    failure: failureSchema.nullable(),
  })
  .meta({ id: "Result" });

const runSchema = z
  .object({
    id: z.uuid(),
    variant: z.int(),
    attempt: z.int(),
    status: z.enum(RUN_STATUSES),
    provider: z.string(),
    model: z.string(),
    version: z.string().nullable().describe("The resolved version; null for a model that is addressed by name."),
    routeWhy: z.string().nullable().describe("Why it was ordered from this account and from no other."),
    providerRunId: z.string().nullable(),
    sentAt: time.nullable(),
    endedAt: time.nullable(),
    looks: z.int().describe("How often the provider was asked about it."),
    seconds: z.number().nullable().describe("Billed run time."),
    costUsd: z.number().nullable().describe("What it cost us."),
    failure: failureSchema.nullable(),
  })
  .meta({ id: "Run" });

export const jobSchema = z
  .object({
    id: z.uuid(),
    kind: z.enum(KINDS),
    model: z.string(),
    user: z.string(),
    status: z.enum(JOB_STATUSES).describe("pending → processing → completed | failed | canceled"),
    progress: z.number().min(0).max(1),
    input: z.unknown().describe("As it is done: defaults filled in, taken down to what the plan allows."),
    inputs: z
      .record(z.string(), fileSchema)
      .describe("The caller's own files, kept unaltered, by input field; in lists not those of trainings."),
    metadata: z.record(z.string(), z.unknown()),
    plan: z.string().nullable().describe("The user's plan when the job was accepted."),
    clamps: z
      .array(z.object({ pointer: z.string(), from: z.unknown(), to: z.unknown(), because: z.string() }))
      .describe("What was asked for and is beyond the plan: done as `to`, and priced so."),
    price: z.object({
      credits: z.int(),
      lines: z.array(z.object({ label: z.string(), credits: z.int() })),
    }),
    priceBook: z.string().nullable().describe("The version of the app's price book that it was priced with."),
    quote: z.uuid().nullable().describe("The quote that promised this price."),
    batch: z.uuid().nullable(),
    pipeline: z.uuid().nullable(),
    experiment: z.string().nullable(),
    arm: z.string().nullable().describe("Of the experiment, the one that the user was given."),
    callbackUrl: z.string().nullable().describe("Where the end is told."),
    trainedModel: z
      .object({
        id: z.uuid(),
        status: z.enum(["training", "ready", "failed", "deleted"]),
        name: z.string(),
        triggerWord: z.string(),
        task: z.enum(["face", "object", "style"]),
        quality: z.int().min(0).max(100).describe("Of its photos; GET /api/trained-models says how it is computed."),
      })
      .nullable()
      .describe("What a training makes; null for every other kind."),
    settlement: z
      .object({ charged: z.int(), kept: z.int(), refunded: z.int() })
      .nullable()
      .describe("What became of the credits; null until the job has ended."),
    results: z.array(resultSchema).describe("One for each variant that was paid for."),
    resultUrls: z.array(z.url()).describe("The files of the delivered variants, in their order."),
    failure: failureSchema.nullable(),
    runs: z.array(runSchema).describe("Every purchase at a provider."),
    createdAt: time,
    startedAt: time.nullable(),
    endedAt: time.nullable(),
    deadlineAt: time,
    links: z.object({
      self: z.string(),
      events: z.string(),
      timeline: z.string(),
      cancel: z.string(),
      sync: z.string(),
    }),
  })
  .meta({ id: "Job" });
export type JobJson = z.input<typeof jobSchema>;

/** A job as callers see it. In a list the photos of trainings are left out: signing 40 addresses a job takes its time. */
export async function toJson(view: JobView, storage: Storage, isListed = false): Promise<JobJson> {
  const { job, runs, settlement } = view;
  const results = await Promise.all(
    Array.from({ length: job.variants }, (_, variant) => toResult(view, variant, storage)),
  );
  const self = `/api/jobs/${job.id}`;
  return {
    id: job.id,
    kind: job.kind,
    model: job.model,
    user: job.userId,
    status: job.status,
    progress: round(results.reduce((sum, result) => sum + result.progress, 0) / job.variants),
    input: asSeen(job.input),
    inputs: isListed && job.kind === "training" ? {} : await toInputs(view, storage),
    metadata: job.metadata,
    plan: job.plan,
    clamps: [...job.clamps],
    price: { credits: job.credits, lines: [...job.priceLines] },
    priceBook: job.priceBook,
    quote: job.quoteId,
    batch: job.batchId,
    pipeline: job.pipelineId,
    experiment: job.experiment,
    arm: job.arm,
    callbackUrl: job.callbackUrl,
    trainedModel: toTrained(view),
    settlement: settlement && { charged: settlement.charged, kept: settlement.kept, refunded: settlement.refunded },
    results,
    resultUrls: results.flatMap((result) => (result.file ? [result.file.url] : [])),
    failure: toFailure(job.failureCode, job.failureDetail),
    runs: runs.map(toRunJson),
    createdAt: job.createdAt.toISOString(),
    startedAt: job.startedAt?.toISOString() ?? null,
    endedAt: job.endedAt?.toISOString() ?? null,
    deadlineAt: job.deadlineAt.toISOString(),
    links: {
      self,
      events: `${self}/events`,
      timeline: `${self}/timeline`,
      cancel: `${self}/cancel`,
      sync: `${self}/sync`,
    },
  };
}

async function toResult(view: JobView, variant: number, storage: Storage): Promise<JobJson["results"][number]> {
  const run = view.runs.filter((each) => each.variant === variant).at(-1);
  const status = variantStatus(run, view.job.status);
  const seed = run?.input["seed"];
  const ended = status === "failed" || status === "canceled";
  return {
    variant,
    status,
    progress: ended ? 1 : round(variantProgress(run)),
    seed: typeof seed === "number" ? seed : null,
    file: await toFile(view, run, "output", storage),
    thumbnail: await toFile(view, run, "thumbnail", storage),
    rating: toRating(view, variant),
    failure: status === "failed" ? toFailure(run?.failureCode ?? null, run?.failureDetail ?? null) : null,
  };
}

async function toFile(
  view: JobView,
  run: RunRow | undefined,
  role: "output" | "thumbnail",
  storage: Storage,
): Promise<z.input<typeof fileSchema> | null> {
  // What was delivered of a job that failed or was canceled went back with its credits.
  if (view.job.status === "failed" || view.job.status === "canceled") return null;
  // What a training delivers are its weights.
  const wanted = role === "output" && view.job.kind === "training" ? "weights" : role;
  const asset = view.assets.find((each) => each.runId === run?.id && each.role === wanted && run?.status === "stored");
  return asset ? signed(asset, storage) : null;
}

async function signed(asset: Asset, storage: Storage): Promise<z.input<typeof fileSchema>> {
  return {
    url: await storage.url(asset.storageKey, FILE_URL_SECONDS),
    contentType: asset.contentType,
    bytes: asset.bytes,
    width: asset.width,
    height: asset.height,
    seconds: asset.durationMs === null ? null : asset.durationMs / 1_000,
    sha256: asset.sha256.toString("hex"),
  };
}

async function toInputs({ job, inputs }: JobView, storage: Storage): Promise<JobJson["inputs"]> {
  const files = Object.entries(job.files).map(async ([field, id]) => {
    const asset = inputs.find((each) => each.id === id);
    return asset ? [[field, await signed(asset, storage)] as const] : [];
  });
  return Object.fromEntries((await Promise.all(files)).flat());
}

function toRating({ ratings }: JobView, variant: number): z.input<typeof ratingSchema> | null {
  const rating = ratings.find((each) => each.variant === variant);
  return rating ? { score: rating.score, comment: rating.comment, at: rating.updatedAt.toISOString() } : null;
}

function toTrained({ trainedModel }: JobView): JobJson["trainedModel"] {
  if (!trainedModel) return null;
  const { id, status, name, triggerWord, task, quality } = trainedModel;
  return { id, status, name, triggerWord, task, quality };
}

function toRunJson(run: RunRow): JobJson["runs"][number] {
  return {
    id: run.id,
    variant: run.variant,
    attempt: run.attempt,
    status: run.status,
    provider: run.provider,
    model: run.model,
    version: run.version,
    routeWhy: run.routeWhy,
    providerRunId: run.providerRunId,
    sentAt: run.sentAt?.toISOString() ?? null,
    endedAt: run.endedAt?.toISOString() ?? null,
    looks: run.looks,
    seconds: run.seconds,
    costUsd: run.costMicroUsd === null ? null : run.costMicroUsd / 1_000_000,
    failure: toFailure(run.failureCode, run.failureDetail),
  };
}

function toFailure(code: FailureCode | null, detail: string | null): z.input<typeof failureSchema> | null {
  if (!code) return null;
  const { says, remedy } = FAILURES[code];
  return { code, message: says, remedy, detail: detail ?? "" };
}

function round(progress: number): number {
  return Math.round(progress * 1_000) / 1_000;
}
