import type { Family } from "../domain/catalogue.ts";
import type { Clamp, KindName } from "../domain/kinds/kind.ts";
import type { PriceLine } from "../domain/pricing.ts";
import type { RateCheck } from "../domain/request.ts";
import type { Db } from "./client.ts";

/** A validated, priced request, ready to be charged. */
export interface AcceptRequest {
  /** UUIDv7, made by the caller; becomes the job's id if the request is accepted. */
  readonly id: string;
  readonly appId: string;
  readonly userId: string;
  readonly kind: KindName;
  readonly model: string;
  readonly input: unknown;
  readonly files: Record<string, string>;
  readonly metadata: Record<string, unknown>;
  readonly variants: number;
  readonly minSuccess: number;
  readonly maxAttempts: number;
  readonly maxRebuys: number;
  readonly credits: number;
  readonly priceLines: readonly PriceLine[];
  readonly idempotencyKey: string;
  /** SHA-256 of the canonical request, 64 hex digits. */
  readonly fingerprint: string;
  /** From acceptance on. */
  readonly deadlineSeconds: number;
  readonly plan: string;
  readonly priceBook: string;
  readonly clamps: readonly Clamp[];
  readonly quoteId: string | null;
  readonly batchId: string | null;
  readonly pipelineId: string | null;
  readonly experiment: string | null;
  readonly arm: string | null;
  /** A result of the same user and hash (64 hex digits) that is under way, or not older than so, is used again. */
  readonly reuse: { readonly hash: string; readonly seconds: number } | null;
  readonly callbackUrl: string | null;
  readonly rates: readonly RateCheck[];
  /** Of a training: what it will make, and how many models the user may keep. */
  readonly trained: { readonly model: NewTrainedModel; readonly maxModels: number } | null;
}

/** A trained model to be; it gets the id of its job. */
export interface NewTrainedModel {
  readonly name: string;
  readonly family: Family;
  readonly triggerWord: string;
  readonly task: "face" | "object" | "style";
  readonly resolution: number;
  readonly steps: number;
  readonly photos: number;
  /** 0 to 100. */
  readonly quality: number;
}

/**
 * reused           the result of another job of this user serves; nothing was charged
 * too_many_models  a training beyond the models that the user's plan keeps
 * disabled         an operator has switched the app off
 */
export type AcceptOutcome =
  | "accepted"
  | "replayed"
  | "key_reused"
  | "insufficient_credits"
  | "rate_limited"
  | "too_many_models"
  | "reused"
  | "disabled";

export interface AcceptAnswer {
  readonly outcome: AcceptOutcome;
  /** Of the new job, or of the one that the key already stands for or whose result is used again. */
  readonly jobId: string | null;
  /** What the user can spend after this: the balance and what is left of today's allowance. */
  readonly available: number;
  /** Seconds; of a rate limit. */
  readonly retryAfter: number | null;
  /** Which limit it was, in words. */
  readonly detail: string | null;
}

/**
 * One statement, one commit, an answer for each request in their order. Throws as a whole only when the database
 * does, and then nothing of it was written; the caller may try the same requests again, one by one.
 */
export async function acceptJobs(db: Db, requests: readonly AcceptRequest[]): Promise<AcceptAnswer[]> {
  const rows = JSON.stringify(requests.map(toRow));
  const { rows: answers } = await db.$client.query({
    // Named: planned once per connection.
    name: "accept_jobs",
    text: "select ord, outcome, job_id, balance + allowance as available, retry_after, detail from accept_jobs($1::jsonb)",
    values: [rows],
  });
  const byOrd = new Map(answers.map((row) => [Number(row["ord"]), row]));
  return requests.map((_, ord) => {
    const row = byOrd.get(ord);
    if (!row) throw new Error(`accept_jobs gave no answer to request ${ord} of ${requests.length}`);
    return toAnswer(row);
  });
}

/** A row that accept_jobs answers. */
export function toAnswer(row: Readonly<Record<string, unknown>>): AcceptAnswer {
  return {
    outcome: row["outcome"] as AcceptOutcome,
    jobId: row["job_id"] as string | null,
    available: Number(row["available"]),
    retryAfter: row["retry_after"] as number | null,
    detail: row["detail"] as string | null,
  };
}

/** A request as accept_jobs reads it; `ord` comes back with its answer. */
export function toRow(request: AcceptRequest, ord: number): Record<string, unknown> {
  const { trained } = request;
  return {
    ord,
    id: request.id,
    app_id: request.appId,
    user_id: request.userId,
    kind: request.kind,
    model: request.model,
    input: request.input,
    files: request.files,
    metadata: request.metadata,
    variants: request.variants,
    min_success: request.minSuccess,
    max_attempts: request.maxAttempts,
    max_rebuys: request.maxRebuys,
    credits: request.credits,
    price_lines: request.priceLines,
    idempotency_key: request.idempotencyKey,
    fingerprint: request.fingerprint,
    deadline_seconds: request.deadlineSeconds,
    plan: request.plan,
    price_book: request.priceBook,
    clamps: request.clamps,
    quote_id: request.quoteId,
    batch_id: request.batchId,
    pipeline_id: request.pipelineId,
    experiment: request.experiment,
    arm: request.arm,
    reuse_hash: request.reuse?.hash ?? null,
    reuse_seconds: request.reuse?.seconds ?? null,
    callback_url: request.callbackUrl,
    rates: request.rates,
    max_models: trained?.maxModels ?? null,
    trained: trained && {
      name: trained.model.name,
      family: trained.model.family,
      trigger_word: trained.model.triggerWord,
      task: trained.model.task,
      resolution: trained.model.resolution,
      steps: trained.model.steps,
      photos: trained.model.photos,
      quality: trained.model.quality,
    },
  };
}

/** What a key already stands for, so that a replay need not prepare its files again. */
export async function findByKey(
  db: Db,
  appId: string,
  key: string,
): Promise<{ readonly jobId: string; readonly fingerprint: string; readonly reused: boolean } | null> {
  const {
    rows: [row],
  } = await db.$client.query(
    // In the order of accept_jobs.
    `select id, encode(fingerprint, 'hex') as fingerprint, false as reused from jobs
     where app_id = $1 and idempotency_key = $2
     union all
     select job_id, encode(fingerprint, 'hex'), true from reused_keys where app_id = $1 and idempotency_key = $2
     order by reused desc limit 1`,
    [appId, key],
  );
  return row ? { jobId: row["id"], fingerprint: row["fingerprint"], reused: row["reused"] } : null;
}
