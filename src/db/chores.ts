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

const archiveChore = (storageKey: string) => `archive ${storageKey}`;

/**
 * The right to make one archive, for so many seconds: a chore that exists while it is done. Whoever has it prolongs it;
 * one that died has it no longer than that. False: another one has it.
 */
export async function claimArchive(db: Db, storageKey: string, seconds: number): Promise<boolean> {
  const { rowCount } = await db.execute(sql`
    insert into chores (name, next_at) values (${archiveChore(storageKey)}, now() + make_interval(secs => ${seconds}))
    on conflict (name) do update set next_at = excluded.next_at where chores.next_at <= now()`);
  return (rowCount ?? 0) > 0;
}

export async function prolongArchive(db: Db, storageKey: string, seconds: number): Promise<void> {
  await db.execute(sql`
    update chores set next_at = now() + make_interval(secs => ${seconds}) where name = ${archiveChore(storageKey)}`);
}

/** Repeating is harmless. */
export async function releaseArchive(db: Db, storageKey: string): Promise<void> {
  await db.execute(sql`delete from chores where name = ${archiveChore(storageKey)}`);
}
