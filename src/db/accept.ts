import type { KindName } from "../domain/kinds/kind.ts";
import type { PriceLine } from "../domain/pricing.ts";
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
}

export interface AcceptAnswer {
  readonly outcome: "accepted" | "replayed" | "key_reused" | "insufficient_credits";
  /** Of the new job, or of the one that the key already stands for. */
  readonly jobId: string | null;
  /** What the user can spend after this: the balance and what is left of today's allowance. */
  readonly available: number;
}

/**
 * One statement, one commit, an answer for each request in their order. Throws as a whole only when the database
 * does, and then nothing of it was written; the caller may try the same requests again, one by one.
 */
export async function acceptJobs(db: Db, requests: readonly AcceptRequest[]): Promise<AcceptAnswer[]> {
  const rows = JSON.stringify(
    requests.map((request, ord) => ({
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
    })),
  );
  const { rows: answers } = await db.$client.query({
    // Named: planned once per connection.
    name: "accept_jobs",
    text: "select ord, outcome, job_id, balance + allowance as available from accept_jobs($1::jsonb)",
    values: [rows],
  });
  const byOrd = new Map(answers.map((row) => [Number(row["ord"]), row]));
  return requests.map((_, ord) => {
    const row = byOrd.get(ord);
    if (!row) throw new Error(`accept_jobs gave no answer to request ${ord} of ${requests.length}`);
    return { outcome: row["outcome"], jobId: row["job_id"], available: Number(row["available"]) };
  });
}

/** What a key already stands for, so that a replay need not prepare its files again. */
export async function findByKey(
  db: Db,
  appId: string,
  key: string,
): Promise<{ jobId: string; fingerprint: string } | null> {
  const {
    rows: [row],
  } = await db.$client.query(
    "select id, encode(fingerprint, 'hex') as fingerprint from jobs where app_id = $1 and idempotency_key = $2",
    [appId, key],
  );
  return row ? { jobId: row["id"], fingerprint: row["fingerprint"] } : null;
}
