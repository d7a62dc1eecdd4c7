import type { AcceptAnswer, AcceptRequest } from "../src/db/accept.ts";
import type { Db } from "../src/db/client.ts";

/**
 * What accept_jobs does, as a service would write it without a function: five round trips, BEGIN and COMMIT included.
 * Written as kindly as it can be: the insert is the look at the idempotency key, the update the check of the balance.
 */
export async function acceptInTransaction(db: Db, request: AcceptRequest): Promise<AcceptAnswer> {
  const { appId, userId, credits } = request;
  return db.$client.begin(async (tx) => {
    const [job] = await tx`
      insert into jobs (id, app_id, user_id, kind, model, input, files, metadata, variants, min_success, max_attempts,
                        max_rebuys, credits, price_lines, idempotency_key, fingerprint, deadline_at, due_at)
      values (${request.id}, ${appId}, ${userId}, ${request.kind}, ${request.model},
              ${JSON.stringify(request.input)}::text::jsonb, ${JSON.stringify(request.files)}::text::jsonb,
              ${JSON.stringify(request.metadata)}::text::jsonb, ${request.variants}, ${request.minSuccess},
              ${request.maxAttempts}, ${request.maxRebuys}, ${credits},
              ${JSON.stringify(request.priceLines)}::text::jsonb, ${request.idempotencyKey},
              decode(${request.fingerprint}, 'hex'), ${request.deadlineAt.toISOString()},
              ${new Date(Date.now() + 3_000).toISOString()})
      on conflict on constraint jobs_app_id_idempotency_key_key do nothing returning id`;
    if (!job) throw new Error(`the key ${request.idempotencyKey} was used before: the bench never does that`);
    const [account] = await tx`
      update accounts set balance = balance - ${credits}, entries = entries + 1
      where app_id = ${appId} and user_id = ${userId} and balance >= ${credits} returning balance, entries`;
    if (!account) throw new Error(`user ${userId} has no ${credits} credits: the bench gave everybody enough`);
    await tx`
      insert into credit_ledger (app_id, user_id, seq, type, bucket, amount, balance_after, job_id, description)
      values (${appId}, ${userId}, ${account["entries"]}, 'charge', 'balance', ${-credits}, ${account["balance"]},
              ${request.id}, ${request.kind})`;
    return { outcome: "accepted", jobId: request.id, available: Number(account["balance"]) };
  });
}
