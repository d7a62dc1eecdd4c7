import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";

/**
 * learn: how long the models take. clean: what has expired is deleted. conclude: what an ended job left open. loads: how
 * busy the providers are. balances: what is left on their accounts. logs: what is too old of the calls to them is deleted.
 */
export type Chore = "learn" | "clean" | "conclude" | "loads" | "balances" | "logs";

/** True for one worker of the fleet, and not again before so many seconds. */
export async function claimChore(db: Db, name: Chore, everySeconds: number): Promise<boolean> {
  const { rowCount } = await db.execute(sql`
    update chores set next_at = now() + make_interval(secs => ${everySeconds}) where name = ${name} and next_at <= now()`);
  return (rowCount ?? 0) > 0;
}

/** Gives a chore that could not be done back, to be tried again after so many seconds. */
export async function putOffChore(db: Db, name: Chore, seconds: number): Promise<void> {
  await db.execute(sql`update chores set next_at = now() + make_interval(secs => ${seconds}) where name = ${name}`);
}
