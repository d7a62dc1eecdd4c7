import { and, desc, eq, lt, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { accounts, creditLedger } from "./schema.ts";

export type LedgerEntry = typeof creditLedger.$inferSelect;

export interface Balance {
  readonly balance: number;
  readonly allowance: number;
}

/** What a user can spend; null for a user that the app never mentioned. */
export async function balanceOf(db: Db, appId: string, userId: string): Promise<Balance | null> {
  const [row] = await db
    .select({
      balance: accounts.balance,
      // A day's allowance is put in place by the first charge or grant of the day; it is there before.
      allowance: sql<number>`(case when allowance_on = (now() at time zone 'utc')::date then allowance
        else daily_allowance_of(${accounts.appId}, ${accounts.plan}) end)::float8`,
    })
    .from(accounts)
    .where(and(eq(accounts.appId, appId), eq(accounts.userId, userId)));
  return row ?? null;
}

/** Newest first, at most `limit`, older than the entry numbered `beforeSeq`. */
export async function entriesOf(
  db: Db,
  appId: string,
  userId: string,
  limit: number,
  beforeSeq?: number,
): Promise<LedgerEntry[]> {
  return db
    .select()
    .from(creditLedger)
    .where(
      and(
        eq(creditLedger.appId, appId),
        eq(creditLedger.userId, userId),
        beforeSeq === undefined ? undefined : lt(creditLedger.seq, beforeSeq),
      ),
    )
    .orderBy(desc(creditLedger.seq))
    .limit(limit);
}

/** The entries of one job, oldest first. */
export async function entriesOfJob(db: Db, jobId: string): Promise<LedgerEntry[]> {
  return db.select().from(creditLedger).where(eq(creditLedger.jobId, jobId)).orderBy(creditLedger.seq);
}

export interface Grant {
  readonly appId: string;
  readonly userId: string;
  readonly credits: number;
  readonly description: string;
  /** Decided by the caller: the same grant is never made twice. */
  readonly key: string;
}

/** Gives credits to a user, creating the account for a new one. `granted` false: this key had been granted before. */
export async function grant(
  db: Db,
  { appId, userId, credits, description, key }: Grant,
): Promise<Balance & { granted: boolean; amount: number }> {
  return db.transaction(async (tx) => {
    await tx.execute(sql`select lock_account(${appId}, ${userId})`);
    const {
      rows: [known],
    } = await tx.execute<{ amount: string }>(sql`
      select amount from credit_ledger where app_id = ${appId} and user_id = ${userId} and key = ${key}`);
    if (!known)
      await tx.execute(sql`
        select post_entry(${appId}, ${userId}, 'grant', 'balance', ${credits}, null, ${key}, ${description}, '{}')`);
    const [row] = await tx
      .select({ balance: accounts.balance, allowance: accounts.allowance })
      .from(accounts)
      .where(and(eq(accounts.appId, appId), eq(accounts.userId, userId)));
    if (!row) throw new Error(`account ${appId}/${userId} vanished while it was locked`);
    return { ...row, granted: !known, amount: known ? Number(known.amount) : credits };
  });
}

/** Accounts whose buckets are not the sum of their entries, and ended jobs without a settlement. Zero, always. */
export async function ledgerDrift(db: Db): Promise<{ accounts: number; credits: number; unsettledJobs: number }> {
  const {
    rows: [row],
  } = await db.execute<{ accounts: string; credits: string; unsettled: string }>(sql`
    select count(*) as accounts, coalesce(sum(abs(balance_drift) + abs(allowance_drift)), 0) as credits,
      (select count(*) from jobs left join settlements on settlements.job_id = jobs.id
       where (ended_at is not null) <> (settlements.job_id is not null)) as unsettled
    from ledger_drift`);
  return { accounts: Number(row?.accounts), credits: Number(row?.credits), unsettledJobs: Number(row?.unsettled) };
}
