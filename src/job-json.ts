import { z } from "zod";
import type { JobView, RunRow } from "../db/job-views.ts";
import { FAILURES, type FailureCode } from "../domain/failure.ts";
import { JOB_STATUSES } from "../domain/job.ts";
import { KINDS } from "../domain/kinds/kind.ts";
import { variantProgress, variantStatus } from "../domain/progress.ts";
import { RUN_STATUSES } from "../domain/run.ts";
import type { Storage } from "../storage/storage.ts";

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
  width: z.int(),
  height: z.int(),
  sha256: z.string().describe("Of the stored bytes, hexadecimal."),
});

const resultSchema = z
  .object({
    variant: z.int().min(0),
    status: z.enum(["pending", "processing", "completed", "failed", "canceled"]),
    progress: z.number().min(0).max(1),
    seed: z.int().nullable(),
    file: fileSchema.nullable(),
    thumbnail: fileSchema.nullable(),
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
    input: z.unknown().describe("As parsed, with the defaults filled in."),
    metadata: z.record(z.string(), z.unknown()),
    price: z.object({
      credits: z.int(),
      lines: z.array(z.object({ label: z.string(), credits: z.int() })),
    }),
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

/** A job as callers see it. */
export async function toJson(view: JobView, storage: Storage): Promise<JobJson> {
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
    input: job.input,
    metadata: job.metadata,
    price: { credits: job.credits, lines: [...job.priceLines] },
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
    failure: status === "failed" ? toFailure(run?.failureCode ?? null, run?.failureDetail ?? null) : null,
  };
}

async function toFile(
  view: JobView,
  run: RunRow | undefined,
  role: "output" | "thumbnail",
  storage: Storage,
): Promise<z.input<typeof fileSchema> | null> {
  const asset = view.assets.find((each) => each.runId === run?.id && each.role === role && run?.status === "stored");
  if (!asset) return null;
  return {
    url: await storage.url(asset.storageKey, FILE_URL_SECONDS),
    contentType: asset.contentType,
    bytes: asset.bytes,
    width: asset.width,
    height: asset.height,
    sha256: asset.sha256.toString("hex"),
  };
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
