import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { rm } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { forgetInline, type InlineFile, leftInline, noteInline } from "../db/inline-outputs.ts";
import { FetchRefused } from "../storage/fetch-refused.ts";
import type { DownloadedFile, FetchedFile, FetchLimits } from "../storage/guarded-fetch.ts";
import { FileNotFound, readAll, type StoredFile } from "../storage/storage.ts";
import type { Services } from "./services.ts";

/**
 * Outputs that a provider put into its answer, as `data:` URLs. Postgres keeps no pictures: their bytes are put into our
 * own storage before anything is learned, under a key made of the run and the position, so that doing it twice writes
 * the same bytes to the same place. What is learned is an address that only we write and only we read.
 */

/** Of one output. */
const MOST_BYTES = 100_000_000;
/** In one answer; no model makes more. */
const MOST_OUTPUTS = 64;

const keyOf = (runId: string, position: number) => `inline/${runId}-${position}`;
const addressOf = (runId: string, position: number) => `stored:${keyOf(runId, position)}`;

/** What the provider put into its answer is no file that could be kept. The message is for our records. */
export class InlineRefused extends Error {
  override readonly name = "InlineRefused";
}

/** The same outputs with the `data:` URLs among them put away. Throws InlineRefused, and what the storage throws. */
export async function keepInline(
  { db, storage, reach }: Pick<Services, "db" | "storage" | "reach">,
  { runId, jobId }: { readonly runId: string; readonly jobId: string },
  outputs: readonly string[],
): Promise<readonly string[]> {
  if (outputs.length > MOST_OUTPUTS)
    throw new InlineRefused(`${outputs.length} outputs in one answer; at most ${MOST_OUTPUTS} are taken`);
  const kept: string[] = [];
  for (const [position, output] of outputs.entries()) {
    if (!output.startsWith("data:")) {
      kept.push(output);
      continue;
    }
    const { bytes, contentType } = decode(output);
    await noteInline(db, runId, position);
    await storage.put(keyOf(runId, position), bytes, contentType);
    kept.push(addressOf(runId, position));
  }
  if (outputs.some((output, position) => output !== kept[position])) await reach("inline.kept", jobId);
  return kept;
}

const noBytes = () => new InlineRefused("the output inside the answer is empty, or no data: URL");

function decode(url: string): { readonly bytes: Buffer; readonly contentType: string } {
  const comma = url.indexOf(",");
  if (comma < 0) throw noBytes();
  const parts = url.slice("data:".length, comma).split(";");
  const isBase64 = parts.at(-1)?.trim().toLowerCase() === "base64";
  // Judged before it is decoded; four letters are three bytes.
  const mostBytes = ((url.length - comma - 1) * (isBase64 ? 3 : 4)) / 4;
  if (mostBytes > MOST_BYTES + 3)
    throw new InlineRefused(`the output inside the answer has ${Math.floor(mostBytes)} bytes, at most ${MOST_BYTES}`);
  const text = url.slice(comma + 1);
  const bytes = isBase64 ? Buffer.from(text, "base64") : percentDecoded(text);
  if (bytes.length === 0) throw noBytes();
  const said = parts[0] ?? "";
  return { bytes, contentType: /^[\w.+-]+\/[\w.+-]+$/.test(said) ? said : "application/octet-stream" };
}

function percentDecoded(text: string): Buffer {
  const latin = text.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(latin, "latin1");
}

/** The same services, which read this one output from our own storage if that is where it waits. */
export function readingInline(services: Services, runId: string, position: number): Services {
  const { storage, fetchFile, fetchToFile } = services;
  const address = addressOf(runId, position);
  const open = async (maxBytes: number): Promise<StoredFile> => {
    const file = await storage.get(keyOf(runId, position)).catch((error: unknown) => {
      if (!(error instanceof FileNotFound)) throw error;
      throw new FetchRefused("http_status", "the output that was inside the answer is gone", {
        status: 404,
        cause: error,
      });
    });
    if (file.bytes <= maxBytes) return file;
    file.body.destroy();
    throw new FetchRefused("too_large", `the output inside the answer has ${file.bytes} bytes, at most ${maxBytes}`);
  };
  return {
    ...services,
    fetchFile: (url, limits) => (url === address ? read(open, limits, url) : fetchFile(url, limits)),
    fetchToFile: (url, path, limits) =>
      url === address ? write(open, path, limits, url) : fetchToFile(url, path, limits),
  };
}

type Open = (maxBytes: number) => Promise<StoredFile>;

async function read(open: Open, { maxBytes }: FetchLimits, finalUrl: string): Promise<FetchedFile> {
  const file = await open(maxBytes);
  const bytes = await readAll({ get: async () => file }, "");
  return { bytes, contentType: file.contentType, finalUrl };
}

async function write(
  open: Open,
  path: string,
  { maxBytes, signal }: FetchLimits,
  finalUrl: string,
): Promise<DownloadedFile> {
  const { body, bytes, contentType } = await open(maxBytes);
  const hash = createHash("sha256");
  const hashed = async function* (pieces: AsyncIterable<Buffer>) {
    for await (const piece of pieces) {
      hash.update(piece);
      yield piece;
    }
  };
  try {
    await pipeline(body, hashed, createWriteStream(path, { flush: true }), signal ? { signal } : {});
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
  return { bytes, contentType, sha256: hash.digest("hex"), finalUrl };
}

/** What is stored, or never will be, waits no longer. Repeating is harmless. */
export async function dropInline(
  services: Pick<Services, "db" | "storage">,
  run: { readonly id: string; readonly outputs: readonly string[] },
): Promise<void> {
  for (const [position, output] of run.outputs.entries())
    if (output === addressOf(run.id, position)) await remove(services, { runId: run.id, position });
}

/** Removes what was left by who died in between, at most `limit` files; returns how many. */
export async function sweepInline(services: Pick<Services, "db" | "storage">, limit: number): Promise<number> {
  const left = await leftInline(services.db, limit);
  for (const file of left) await remove(services, file);
  return left.length;
}

async function remove(
  { db, storage }: Pick<Services, "db" | "storage">,
  { runId, position }: InlineFile,
): Promise<void> {
  await storage.delete(keyOf(runId, position));
  await forgetInline(db, runId, position);
}
