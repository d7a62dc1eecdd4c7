import { v7 as uuidv7 } from "uuid";
import { type Asset, findInput, saveInput } from "../db/assets.ts";
import type { Db } from "../db/client.ts";
import type { FileRef } from "../domain/kinds/kind.ts";
import { ServiceError } from "../errors.ts";
import { type FetchFile, FetchRefused } from "../storage/guarded-fetch.ts";
import { ImageRefused, inspectImage } from "../storage/image.ts";
import { readAll, type Storage } from "../storage/storage.ts";
import { uprightOf } from "../storage/upright.ts";

const FETCH_TIMEOUT_MS = 15_000;

export interface InputLimits {
  readonly maxBytes: number;
  readonly maxPixels: number;
}

interface Stores {
  readonly db: Db;
  readonly storage: Storage;
  readonly fetchFile: FetchFile;
  readonly limits: InputLimits;
  /** What the keys of an app's files begin with. */
  readonly prefixOf: (appId: string) => string;
}

/** Checks an image by its bytes, keeps it by its hash and returns the asset. `pointer` names the field at fault. */
export async function keepImage(
  { db, storage, limits, prefixOf }: Stores,
  appId: string,
  bytes: Buffer,
  pointer: string,
): Promise<Asset> {
  try {
    const image = await inspectImage(bytes, limits);
    const storageKey = `${prefixOf(appId)}/inputs/${image.sha256.slice(0, 2)}/${image.sha256}.${image.extension}`;
    await storage.put(storageKey, bytes, image.contentType);
    const { contentType, width, height } = image;
    const upright = await uprightOf(bytes, image, limits.maxPixels);
    const uprightKey = `${storageKey.slice(0, -image.extension.length - 1)}-upright.${upright?.extension}`;
    if (upright) await storage.put(uprightKey, upright.bytes, upright.contentType);
    return await saveInput(db, {
      id: uuidv7(),
      appId,
      role: "input",
      storageKey,
      sha256: Buffer.from(image.sha256, "hex"),
      bytes: bytes.length,
      contentType,
      width,
      height,
      upright: upright && { storageKey: uprightKey, contentType: upright.contentType, bytes: upright.bytes.length },
    });
  } catch (error) {
    if (error instanceof ImageRefused) throw refused(pointer, error.message, error.code);
    throw error;
  }
}

/** The caller's files of a job, checked and in our store, by input field. Nothing is charged before this is done. */
export async function prepareFiles(
  stores: Stores,
  appId: string,
  files: Readonly<Record<string, FileRef>>,
): Promise<Record<string, Asset>> {
  const prepared: Record<string, Asset> = {};
  for (const [field, ref] of Object.entries(files)) {
    const pointer = `/input/${field}`;
    const asset =
      "assetId" in ref
        ? await findInput(stores.db, appId, ref.assetId)
        : await fetchImage(stores, appId, ref.url, pointer);
    if (!asset)
      throw refused(
        pointer,
        "there is no upload with this id: POST the image to /api/uploads first and use the id of the answer",
        "unknown_upload",
      );
    prepared[field] = asset;
  }
  return prepared;
}

async function fetchImage(stores: Stores, appId: string, url: string, pointer: string): Promise<Asset> {
  try {
    const { bytes } = await stores.fetchFile(url, { maxBytes: stores.limits.maxBytes, timeoutMs: FETCH_TIMEOUT_MS });
    return await keepImage(stores, appId, bytes, pointer);
  } catch (error) {
    if (error instanceof FetchRefused) throw refused(pointer, error.message, error.code);
    throw error;
  }
}

function refused(pointer: string, detail: string, reason: string): ServiceError {
  return new ServiceError("file_refused", pointer ? `body field ${pointer}: ${detail}` : detail, {
    fields: [{ pointer, detail }],
    facts: { reason },
  });
}

/** A file that a caller names, before anybody has looked into it. */
export type NamedFile =
  /** `asset` null: it is not in our store yet. */
  { readonly asset: Asset | null; read(): Promise<Buffer> } | { readonly refused: string; readonly code: string };

/** Never throws for what the caller can mend. */
export async function readFile(stores: Stores, appId: string, ref: FileRef): Promise<NamedFile> {
  if ("assetId" in ref) {
    const asset = await findInput(stores.db, appId, ref.assetId);
    if (!asset)
      return {
        refused: "There is no upload with this id: POST the image to /api/uploads first and use the id of the answer.",
        code: "unknown_upload",
      };
    if (!(await stores.storage.exists(asset.storageKey)))
      return {
        refused: "The file of this upload is gone from our store: POST the image to /api/uploads again.",
        code: "unknown_upload",
      };
    return { asset, read: () => readAll(stores.storage, asset.storageKey) };
  }
  try {
    const { bytes } = await stores.fetchFile(ref.url, {
      maxBytes: stores.limits.maxBytes,
      timeoutMs: FETCH_TIMEOUT_MS,
    });
    return { asset: null, read: async () => bytes };
  } catch (error) {
    if (error instanceof FetchRefused) return { refused: error.message, code: error.code };
    throw error;
  }
}
