import type { PoolClient } from "pg";
import type { AcceptAnswer, AcceptRequest } from "../src/db/accept.ts";
import type { Db } from "../src/db/client.ts";

const INSERT_JOB = `
  insert into jobs (id, app_id, user_id, kind, model, input, files, metadata, variants, min_success, max_attempts,
                    max_rebuys, credits, price_lines, idempotency_key, fingerprint, deadline_at, due_at, plan, price_book)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, decode($16, 'hex'), $17, $18, $19, $20)
  on conflict on constraint jobs_app_id_idempotency_key_key do nothing returning id`;
const TAKE_CREDITS = `
  update accounts set balance = balance - $1, entries = entries + 1
  where app_id = $2 and user_id = $3 and balance >= $1 returning balance, entries`;
const INSERT_ENTRY = `
  insert into credit_ledger (app_id, user_id, seq, type, bucket, amount, balance_after, job_id, description)
  values ($1, $2, $3, 'charge', 'balance', $4, $5, $6, $7)`;

/**
 * What accept_jobs does, as a service would write it without a function: five round trips, BEGIN and COMMIT included.
 * Written as kindly as it can be: the insert is the look at the idempotency key, the update the check of the balance,
 * and every statement is planned once per connection.
 */
export async function acceptInTransaction(db: Db, request: AcceptRequest): Promise<AcceptAnswer> {
  const client = await db.$client.connect();
  try {
    await client.query("begin");
    const answer = await accept(client, request);
    await client.query("commit");
    return answer;
  } catch (error) {
    await client.query("rollback");
    throw error;
  } finally {
    client.release();
  }
}

async function accept(client: PoolClient, request: AcceptRequest): Promise<AcceptAnswer> {
  const { appId, userId, credits } = request;
  const job = await client.query({
    name: "insert_job",
    text: INSERT_JOB,
    values: [
      request.id,
      appId,
      userId,
      request.kind,
      request.model,
      JSON.stringify(request.input),
      JSON.stringify(request.files),
      JSON.stringify(request.metadata),
      request.variants,
      request.minSuccess,
      request.maxAttempts,
      request.maxRebuys,
      credits,
      JSON.stringify(request.priceLines),
      request.idempotencyKey,
      request.fingerprint,
      new Date(Date.now() + request.deadlineSeconds * 1_000),
      new Date(Date.now() + 3_000),
      request.plan,
      request.priceBook,
    ],
  });
  if (job.rowCount !== 1)
    throw new Error(`the key ${request.idempotencyKey} was used before: the bench never does that`);
  const {
    rows: [account],
  } = await client.query({ name: "take_credits", text: TAKE_CREDITS, values: [credits, appId, userId] });
  if (!account) throw new Error(`user ${userId} has no ${credits} credits: the bench gave everybody enough`);
  await client.query({
    name: "insert_entry",
    text: INSERT_ENTRY,
    values: [appId, userId, account.entries, -credits, account.balance, request.id, request.kind],
  });
  return { outcome: "accepted", jobId: request.id, available: Number(account.balance), retryAfter: null, detail: null };
}
