import { and, eq, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import type { Balance } from "./credits.ts";
import { accounts } from "./schema.ts";

/** The plan that a user was given; null: the app's default, also for a user that was never mentioned. */
export async function planNameOf(db: Db, appId: string, userId: string): Promise<string | null> {
  const [row] = await db
    .select({ plan: accounts.plan })
    .from(accounts)
    .where(and(eq(accounts.appId, appId), eq(accounts.userId, userId)));
  return row?.plan ?? null;
}

/** Moves a user to a plan of the app; a larger daily allowance counts at once. Repeating it changes nothing. */
export async function setPlan(db: Db, appId: string, userId: string, plan: string): Promise<Balance> {
  const { rows } = await db.execute<{ balance: string; allowance: string }>(
    sql`select balance, allowance from set_plan(${appId}, ${userId}, ${plan})`,
  );
  const row = rows[0];
  if (!row) throw new Error("set_plan answered nothing");
  return { balance: Number(row.balance), allowance: Number(row.allowance) };
}
