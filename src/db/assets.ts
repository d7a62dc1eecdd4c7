import { and, eq, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { assets } from "./schema.ts";

export type Asset = typeof assets.$inferSelect;

/** Notes an input file; the same bytes of one app are kept once, and the first asset is the one that stays. */
export async function saveInput(db: Db, asset: typeof assets.$inferInsert): Promise<Asset> {
  const [row] = await db
    .insert(assets)
    .values(asset)
    // Touching the row makes `returning` answer for the one that was there, which may be older than its upright file.
    .onConflictDoUpdate({
      target: [assets.appId, assets.sha256],
      targetWhere: sql`role = 'input'`,
      set: { upright: sql`excluded.upright` },
    })
    .returning();
  if (!row) throw new Error("an input asset was neither inserted nor found");
  return row;
}

/** The file that a provider is to be given for an input: upright and in sRGB. */
export function presentable(asset: Asset): Pick<Asset, "storageKey" | "contentType" | "bytes"> {
  return asset.upright ?? asset;
}

export async function findInput(db: Db, appId: string, id: string): Promise<Asset | null> {
  const [row] = await db
    .select()
    .from(assets)
    .where(and(eq(assets.id, id), eq(assets.appId, appId), eq(assets.role, "input")));
  return row ?? null;
}

/** A ZIP of photos, content-addressed by its key; null when it has not been made yet. */
export async function findArchive(db: Db, storageKey: string): Promise<Asset | null> {
  const [row] = await db.select().from(assets).where(eq(assets.storageKey, storageKey));
  return row ?? null;
}

/** Notes a ZIP that is in the store; made again, or by two at the same time, it is noted once, as it is now. */
export async function saveArchive(db: Db, asset: typeof assets.$inferInsert): Promise<Asset> {
  const { bytes, sha256 } = asset;
  const [saved] = await db
    .insert(assets)
    .values(asset)
    .onConflictDoUpdate({ target: assets.storageKey, set: { bytes, sha256 } })
    .returning();
  if (!saved) throw new Error("an archive was neither inserted nor found");
  return saved;
}

/** What was measured of a photo before, as `savePhotoFacts` kept it; null when it was not. The same bytes are judged once. */
export function photoFacts<T>(asset: Pick<Asset, "facts">): T | null {
  return (asset.facts as T | null) ?? null;
}

export async function savePhotoFacts(db: Db, assetId: string, facts: unknown): Promise<void> {
  await db.update(assets).set({ facts }).where(eq(assets.id, assetId));
}
