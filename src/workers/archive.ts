import { createHash } from "node:crypto";
import { join } from "node:path";
import { v7 as uuidv7 } from "uuid";
import { type Asset, findArchive, findInput, saveArchive } from "../db/assets.ts";
import type { JobRecord } from "../db/jobs.ts";
import { photoField } from "../domain/kinds/training.ts";
import { writeArchive } from "../storage/archive.ts";
import { normalizePhoto } from "../storage/photo.ts";
import { withScratch } from "../storage/scratch.ts";
import { FileNotFound, makeReader } from "../storage/storage.ts";
import type { Services } from "./services.ts";

/** Trainers scale down to 1,536 at most. */
const MOST_SIDE = 2_048;
/** Part of the key: change it with whatever changes the bytes that are made of the same photos. */
const RECIPE = `upright sRGB JPEG 95, ${MOST_SIDE}`;

/**
 * The ZIP of a training's photos, in our store. Its key is the hash of its photos: the same set, in whatever order, is
 * made and uploaded once. Holds one photo in memory at a time. Throws FileNotFound when a photo is gone.
 */
export async function ensureArchive(services: Services, record: JobRecord): Promise<Asset> {
  const { db, storage } = services;
  const photos = await photosOf(services, record);
  const hash = createHash("sha256").update(RECIPE);
  for (const photo of photos) hash.update(photo.sha256);
  const storageKey = `${services.prefixOf(record.appId)}/archives/${hash.digest("hex")}.zip`;
  const known = await findArchive(db, storageKey);
  // A store's own rules may have removed the file; the same one is made again at the same place.
  if (known && (await storage.exists(storageKey))) return known;
  return withScratch(async (folder) => {
    const path = join(folder, "photos.zip");
    const read = makeReader(storage);
    const entries = photos.map((photo, index) => ({
      name: `photo-${String(index + 1).padStart(2, "0")}.jpg`,
      read: async () => normalizePhoto(await read(photo.storageKey), MOST_SIDE),
    }));
    const { bytes, sha256 } = await writeArchive(path, entries);
    await storage.putFile(storageKey, path, "application/zip");
    services.logger.info({ job_id: record.job.id, photos: photos.length, bytes }, "made the archive of a training");
    return saveArchive(db, {
      id: uuidv7(),
      appId: record.appId,
      role: "archive",
      storageKey,
      sha256: Buffer.from(sha256, "hex"),
      bytes,
      contentType: "application/zip",
    });
  });
}

async function photosOf({ db }: Services, { job, appId, files }: JobRecord): Promise<Asset[]> {
  const photos: Asset[] = [];
  for (let index = 0; files[photoField(index)] !== undefined; index++) {
    const id = files[photoField(index)] ?? "";
    const photo = await findInput(db, appId, id);
    if (!photo) throw new FileNotFound(`Photo ${index + 1} (${id}) of job ${job.id} is gone.`);
    photos.push(photo);
  }
  return photos.sort((a, b) => Buffer.compare(a.sha256, b.sha256));
}
