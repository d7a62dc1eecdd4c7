import { createHash } from "node:crypto";
import { join } from "node:path";
import { v7 as uuidv7 } from "uuid";
import type { JobRecord, NewAsset } from "../db/jobs.ts";
import type { Run } from "../domain/run.ts";
import { ArchiveRefused } from "../storage/archive-refused.ts";
import { downloadWithRetry, fetchWithRetry } from "../storage/guarded-fetch.ts";
import { inspectImage, thumbnail } from "../storage/image.ts";
import { checkSafetensors } from "../storage/safetensors.ts";
import { withScratch } from "../storage/scratch.ts";
import { extractFromTar } from "../storage/tar.ts";
import { inspectVideo } from "../storage/video.ts";
import { readingInline } from "./inline.ts";
import type { Services } from "./services.ts";

/**
 * One output of a run, fetched, proven to be what the kind delivers, and put into our store under keys that contain the
 * run: doing it twice writes the same bytes to the same places.
 */

/** What a model may return is not bounded by what a user may send in. */
const MOST_PIXELS = 100_000_000;
const MOST_VIDEO_BYTES = 500_000_000;
/** Twice the longest that can be asked for. */
const MOST_VIDEO_SECONDS = 120;
/** Weights of rank 128 are about 1.4 GB. */
const MOST_WEIGHTS_BYTES = 3_000_000_000;

interface Place {
  /** Without an extension. */
  readonly key: string;
  readonly common: Pick<NewAsset, "appId" | "jobId" | "runId" | "position">;
}

export async function storeOutput(
  services: Services,
  record: JobRecord,
  run: Run,
  position: number,
  url: string,
): Promise<NewAsset[]> {
  const place: Place = {
    key: `${services.prefixOf(record.appId)}/jobs/${record.job.id}/${run.variant}-${run.id}-${position}`,
    common: { appId: record.appId, jobId: record.job.id, runId: run.id, position },
  };
  const reading = readingInline(services, run.id, position);
  switch (record.kind) {
    case "video":
      return storeVideo(reading, record, place, url);
    case "training":
      return storeWeights(reading, record, place, url);
    default:
      return storeImage(reading, record, place, url);
  }
}

async function storeImage(services: Services, record: JobRecord, { key, common }: Place, url: string) {
  const { storage, fetchFile, maxFileBytes } = services;
  const { bytes } = await fetchWithRetry(fetchFile, url, { maxBytes: maxFileBytes });
  await services.reach("store.fetched", record.job.id);
  const image = await inspectImage(bytes, { maxBytes: maxFileBytes, maxPixels: MOST_PIXELS, maxPages: 1 });
  const small = await thumbnail(bytes);
  const output: NewAsset = {
    ...common,
    id: uuidv7(),
    role: "output",
    storageKey: `${key}.${image.extension}`,
    sha256: Buffer.from(image.sha256, "hex"),
    bytes: bytes.length,
    contentType: image.contentType,
    width: image.width,
    height: image.height,
  };
  const thumb: NewAsset = {
    ...common,
    id: uuidv7(),
    role: "thumbnail",
    storageKey: `${key}-thumbnail.webp`,
    sha256: createHash("sha256").update(small.bytes).digest(),
    bytes: small.bytes.length,
    contentType: small.contentType,
    width: small.width,
    height: small.height,
  };
  await Promise.all([
    storage.put(output.storageKey, bytes, image.contentType),
    storage.put(thumb.storageKey, small.bytes, small.contentType),
  ]);
  return [output, thumb];
}

/** Without a thumbnail: nothing here decodes films. Players show their first frame. */
async function storeVideo(services: Services, record: JobRecord, { key, common }: Place, url: string) {
  return withScratch(async (folder) => {
    const path = join(folder, "video");
    const signal = services.stop;
    await downloadWithRetry(services.fetchToFile, url, path, { maxBytes: MOST_VIDEO_BYTES, signal });
    await services.reach("store.fetched", record.job.id);
    const video = await inspectVideo(path, {
      maxBytes: MOST_VIDEO_BYTES,
      maxSeconds: MOST_VIDEO_SECONDS,
      maxPixels: MOST_PIXELS,
    });
    const storageKey = `${key}.${video.extension}`;
    await services.storage.putFile(storageKey, path, video.contentType);
    const output: NewAsset = {
      ...common,
      id: uuidv7(),
      role: "output",
      storageKey,
      sha256: Buffer.from(video.sha256, "hex"),
      bytes: video.bytes,
      contentType: video.contentType,
      width: video.width,
      height: video.height,
      durationMs: Math.max(1, Math.round(video.seconds * 1_000)),
    };
    return [output];
  });
}

/** The trainer's whole TAR, and out of it the one file that other models load. */
async function storeWeights(services: Services, record: JobRecord, { key, common }: Place, url: string) {
  return withScratch(async (folder) => {
    const [tar, lora] = [join(folder, "weights"), join(folder, "lora")];
    const signal = services.stop;
    const whole = await downloadWithRetry(services.fetchToFile, url, tar, { maxBytes: MOST_WEIGHTS_BYTES, signal });
    await services.reach("store.fetched", record.job.id);
    const inner = await extractFromTar(tar, (name) => name.endsWith(".safetensors"), lora, {
      maxBytes: MOST_WEIGHTS_BYTES,
    });
    if (!inner) throw new ArchiveRefused("corrupt", "The trained weights hold no .safetensors file.");
    await checkSafetensors(lora);
    const weights: NewAsset = {
      ...common,
      id: uuidv7(),
      role: "weights",
      storageKey: `${key}.tar`,
      sha256: Buffer.from(whole.sha256, "hex"),
      bytes: whole.bytes,
      contentType: "application/x-tar",
    };
    const loaded: NewAsset = {
      ...common,
      id: uuidv7(),
      role: "lora",
      storageKey: `${key}.safetensors`,
      sha256: Buffer.from(inner.sha256, "hex"),
      bytes: inner.bytes,
      contentType: "application/octet-stream",
    };
    await services.storage.putFile(weights.storageKey, tar, weights.contentType);
    await services.storage.putFile(loaded.storageKey, lora, loaded.contentType);
    return [weights, loaded];
  });
}
