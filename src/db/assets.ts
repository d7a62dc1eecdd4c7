import { and, eq, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { assets } from "./schema.ts";

export type Asset = typeof assets.$inferSelect;

/** Notes an input file; the same bytes of one app are kept once, and the first asset is the one that stays. */
export async function saveInput(db: Db, asset: typeof assets.$inferInsert): Promise<Asset> {
  const [row] = await db
    .insert(assets)
    .values(asset)
    // Touching the row makes `returning` answer for the one that was there.
    .onConflictDoUpdate({
      target: [assets.appId, assets.sha256],
      targetWhere: sql`role = 'input'`,
      set: { role: "input" },
    })
    .returning();
  if (!row) throw new Error("an input asset was neither inserted nor found");
  return row;
}

export async function findInput(db: Db, appId: string, id: string): Promise<Asset | null> {
  const [row] = await db
    .select()
    .from(assets)
    .where(and(eq(assets.id, id), eq(assets.appId, appId), eq(assets.role, "input")));
  return row ?? null;
}
