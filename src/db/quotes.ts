import { and, eq, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { quotes } from "./schema.ts";

export interface Quote extends Readonly<typeof quotes.$inferSelect> {
  /** By the database's clock, like its end. */
  readonly isExpired: boolean;
}

/** A quote stays to be recognised as expired for this long, and is deleted then. */
const KEPT_SECONDS = 24 * 3_600;

/** Promises a price for `seconds`; returns until when. */
export async function saveQuote(
  db: Db,
  quote: Omit<typeof quotes.$inferInsert, "createdAt" | "expiresAt">,
  seconds: number,
): Promise<Date> {
  const [row] = await db
    .insert(quotes)
    .values({ ...quote, expiresAt: sql`now() + make_interval(secs => ${seconds})` as unknown as Date })
    .returning({ expiresAt: quotes.expiresAt });
  if (!row) throw new Error("a quote was not inserted");
  return row.expiresAt;
}

/** Null when this user of the app was never quoted so, or long ago. */
export async function findQuote(db: Db, appId: string, userId: string, id: string): Promise<Quote | null> {
  const [row] = await db
    .select({ quote: quotes, isExpired: sql<boolean>`expires_at <= now()` })
    .from(quotes)
    .where(and(eq(quotes.id, id), eq(quotes.appId, appId), eq(quotes.userId, userId)));
  return row ? { ...row.quote, isExpired: row.isExpired } : null;
}

/** Deletes up to `limit` of those that nobody can use any more; returns how many. */
export async function deleteOldQuotes(db: Db, limit: number): Promise<number> {
  const { rowCount } = await db.execute(sql`
    delete from quotes where id in (
      select id from quotes where expires_at < now() - make_interval(secs => ${KEPT_SECONDS}) limit ${limit})`);
  return rowCount ?? 0;
}
