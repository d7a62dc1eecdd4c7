import { and, desc, eq, inArray, sql } from "drizzle-orm";
import type { Asset } from "./assets.ts";
import type { Db } from "./client.ts";
import { assets, trainedModels } from "./schema.ts";

export type TrainedModel = typeof trainedModels.$inferSelect;

/** Null when this user of the app has no such model, or deleted it. */
export async function findTrainedModel(
  db: Db,
  appId: string,
  userId: string,
  id: string,
): Promise<TrainedModel | null> {
  const [row] = await db
    .select()
    .from(trainedModels)
    .where(
      and(
        eq(trainedModels.id, id),
        eq(trainedModels.appId, appId),
        eq(trainedModels.userId, userId),
        inArray(trainedModels.status, ["training", "ready", "failed"]),
      ),
    );
  return row ?? null;
}

/** The user's models, newest first; at most 1,000. */
export async function listTrainedModels(db: Db, appId: string, userId: string): Promise<TrainedModel[]> {
  return db
    .select()
    .from(trainedModels)
    .where(
      and(
        eq(trainedModels.appId, appId),
        eq(trainedModels.userId, userId),
        inArray(trainedModels.status, ["training", "ready", "failed"]),
      ),
    )
    .orderBy(desc(trainedModels.id))
    .limit(1_000);
}

/** Makes room for another one. Its weights stay as long as the job does. False: there is no such model. */
export async function deleteTrainedModel(db: Db, appId: string, userId: string, id: string): Promise<boolean> {
  const { rowCount } = await db
    .update(trainedModels)
    .set({ status: "deleted", deletedAt: sql`now()` })
    .where(
      and(
        eq(trainedModels.id, id),
        eq(trainedModels.appId, appId),
        eq(trainedModels.userId, userId),
        inArray(trainedModels.status, ["ready", "failed"]),
      ),
    );
  return (rowCount ?? 0) > 0;
}

/** Concludes trainings that ended while a worker knew no trained models; at most 100. Returns how many. */
export async function concludeTrained(db: Db): Promise<number> {
  const { rowCount } = await db.execute(sql`
    select conclude_job(m.id) from trained_models m join jobs j on j.id = m.id
    where m.status = 'training' and j.ended_at is not null limit 100`);
  return rowCount ?? 0;
}

/**
 * The one account that can load a trained model, as the provider kept the weights to itself; null: they are in our store,
 * or there are none.
 */
export async function keeperOf(db: Db, id: string): Promise<string | null> {
  const [row] = await db
    .select({ provider: trainedModels.provider, version: trainedModels.providerVersion })
    .from(trainedModels)
    .where(and(eq(trainedModels.id, id), eq(trainedModels.status, "ready"), eq(trainedModels.family, "flux")));
  if (!row?.version) return null;
  return (await weightsOf(db, id, "lora")) === null ? row.provider : null;
}

/**
 * The weights of a trained model: `lora` is the one file that FLUX models load, `weights` the trainer's whole TAR, which
 * SDXL needs for its trigger word. Null where the provider kept them to itself.
 */
export async function weightsOf(db: Db, trainedModelId: string, role: "lora" | "weights"): Promise<Asset | null> {
  const [row] = await db
    .select()
    .from(assets)
    .where(and(eq(assets.jobId, trainedModelId), eq(assets.role, role)));
  return row ?? null;
}
