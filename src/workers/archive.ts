import { createHash } from "node:crypto";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { v7 as uuidv7 } from "uuid";
import { type Asset, findArchive, findInput, saveArchive } from "../db/assets.ts";
import { claimArchive, prolongArchive, releaseArchive } from "../db/chores.ts";
import type { JobRecord } from "../db/jobs.ts";
import { photoField } from "../domain/kinds/training.ts";
import { type WrittenArchive, writeArchive } from "../storage/archive.ts";
import { normalizePhoto } from "../storage/photo.ts";
import { withScratch } from "../storage/scratch.ts";
import { FileNotFound, makeReader } from "../storage/storage.ts";
import type { Services } from "./services.ts";

/** Trainers scale down to 1,536 at most. */
const MOST_SIDE = 2_048;
/** Part of the key: change it with whatever changes the bytes that are made of the same photos. */
const RECIPE = `upright sRGB JPEG 95, ${MOST_SIDE}`;

/** Longer than Postgres is away in an ordinary restart; renewed three times as often. */
const CLAIM_SECONDS = 30;
const POLL_MS = 300;
/** A job that waited in vain is put off, and waits again. */
const MOST_WAIT_MS = 60_000;

type Makers = Pick<Services, "db" | "storage" | "prefixOf" | "logger" | "stop">;

/**
 * The ZIP of a training's photos, in our store. Its key is the hash of its photos: the same set, in whatever order and
 * by however many trainings at once, is made and uploaded once. Holds one photo in memory at a time. Throws FileNotFound
 * when a photo is gone, and Error when another worker makes it for longer than a minute.
 */
export async function ensureArchive(services: Makers, record: JobRecord): Promise<Asset> {
  const { db, logger } = services;
  const photos = await photosOf(services, record);
  const hash = createHash("sha256").update(RECIPE);
  for (const photo of photos) hash.update(photo.sha256);
  const storageKey = `${services.prefixOf(record.appId)}/archives/${hash.digest("hex")}.zip`;
  const until = Date.now() + MOST_WAIT_MS;
  for (;;) {
    const known = await findWhole(services, storageKey);
    if (known) return known;
    if (await claimArchive(db, storageKey, CLAIM_SECONDS)) break;
    if (Date.now() > until) throw new Error(`another worker has been making ${storageKey} for a minute`);
    await wait(POLL_MS, undefined, { signal: services.stop });
  }
  const prolong = () =>
    void prolongArchive(db, storageKey, CLAIM_SECONDS).catch((error: unknown) =>
      logger.warn({ err: error, key: storageKey }, "could not prolong the claim of an archive: it may be made twice"),
    );
  const renewal = setInterval(prolong, (CLAIM_SECONDS * 1_000) / 3);
  try {
    // Somebody may have finished it between the look and the claim.
    return (await findWhole(services, storageKey)) ?? (await makeArchive(services, record, photos, storageKey));
  } finally {
    clearInterval(renewal);
    // What is not given back runs out.
    await releaseArchive(db, storageKey).catch(() => {});
  }
}

/** A store's own rules may have removed the file; the same one is made again at the same place. */
async function findWhole({ db, storage }: Makers, storageKey: string): Promise<Asset | null> {
  const known = await findArchive(db, storageKey);
  return known && (await storage.exists(storageKey)) ? known : null;
}

async function makeArchive(
  services: Makers,
  record: JobRecord,
  photos: readonly Asset[],
  storageKey: string,
): Promise<Asset> {
  const { db, storage, logger } = services;
  const note = ({ bytes, sha256 }: WrittenArchive) =>
    saveArchive(db, {
      id: uuidv7(),
      appId: record.appId,
      role: "archive",
      storageKey,
      sha256: Buffer.from(sha256, "hex"),
      bytes,
      contentType: "application/zip",
    });
  // Whoever put it there died before the row was written. Files are put whole or not at all.
  if (await storage.exists(storageKey)) return note(await digestOf(storage, storageKey));
  return withScratch(async (folder) => {
    const path = join(folder, "photos.zip");
    const read = makeReader(storage);
    const entries = photos.map((photo, index) => ({
      name: `photo-${String(index + 1).padStart(2, "0")}.jpg`,
      read: async () => normalizePhoto(await read(photo.storageKey), MOST_SIDE),
    }));
    const written = await writeArchive(path, entries);
    await storage.putFile(storageKey, path, "application/zip");
    logger.info({ job_id: record.job.id, photos: photos.length, bytes: written.bytes }, "made a training's archive");
    return note(written);
  });
}

async function digestOf(storage: Makers["storage"], storageKey: string): Promise<WrittenArchive> {
  const { body } = await storage.get(storageKey);
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const piece of body as AsyncIterable<Buffer>) {
    hash.update(piece);
    bytes += piece.length;
  }
  return { bytes, sha256: hash.digest("hex") };
}

async function photosOf({ db }: Pick<Services, "db">, { job, appId, files }: JobRecord): Promise<Asset[]> {
  const photos: Asset[] = [];
  for (let index = 0; files[photoField(index)] !== undefined; index++) {
    const id = files[photoField(index)] ?? "";
    const photo = await findInput(db, appId, id);
    if (!photo) throw new FileNotFound(`Photo ${index + 1} (${id}) of job ${job.id} is gone.`);
    photos.push(photo);
  }
  return photos.sort((a, b) => Buffer.compare(a.sha256, b.sha256));
}
