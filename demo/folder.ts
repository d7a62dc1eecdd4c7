import { createHash } from "node:crypto";
import { mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ArchiveRefused } from "../src/storage/archive-refused.ts";
import { ImageRefused, inspectImage } from "../src/storage/image.ts";
import { checkSafetensors } from "../src/storage/safetensors.ts";
import { extractFromTar } from "../src/storage/tar.ts";
import { inspectVideo, VideoRefused } from "../src/storage/video.ts";
import type { Client, Job } from "./client.ts";
import { BadOption } from "./options.ts";

/** In a folder with this file, what is named as below is the demo's own. */
const MARK = ".darkroom-demo";
const OWN =
  /^(room\.\w+|[a-z0-9-]*(generation|staging|edit|video|training|own-model)-\d+\.\w+|(sandbox|api|worker-\d+)\.log)$/;
const LIMITS = { maxBytes: 40_000_000, maxPixels: 100_000_000, maxSeconds: 60 };

/** Makes the output folder and removes what an earlier demo left there, and nothing else. */
export async function openFolder(path: string): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (found && !found.isDirectory()) throw new BadOption(`--out: ${path} is not a folder. Name another one.`);
  try {
    await mkdir(path, { recursive: true });
    const names = await readdir(path);
    const own = names.filter((name) => OWN.test(name));
    if (own.length > 0 && !names.includes(MARK))
      throw new BadOption(
        `--out: ${path} has a ${own[0]} that is not the demo's, and it would be lost. Name another folder.`,
      );
    await writeFile(join(path, MARK), "Pictures and logs of `npm run demo`; the next one replaces them.\n");
    await Promise.all(own.map((name) => rm(join(path, name))));
  } catch (error) {
    if (error instanceof BadOption) throw error;
    const { code } = error as NodeJS.ErrnoException;
    throw new BadOption(`--out: ${path} cannot be written to (${code}). Make it writable, or name another folder.`);
  }
}

export interface SavedFile {
  readonly path: string;
  /** Pixels, of a film with its seconds. */
  readonly size: string;
  readonly contentType: string;
  /** Null: whole, and what the API said it is. */
  readonly trouble: string | null;
}

/** Downloads a job's files as an app would, by their signed addresses, and looks at every byte. */
export async function saveFiles(client: Client, job: Job, name: string, folder: string): Promise<SavedFile[]> {
  const files = job.results.flatMap(({ file }, index) => (file ? [{ file, number: index + 1 }] : []));
  return Promise.all(
    files.map(async ({ file, number }) => {
      const bytes = await client.download(file.url);
      const path = join(
        folder,
        `${name}-${number}.${file.contentType.split("/")[1]?.replace("jpeg", "jpg").replace("x-", "")}`,
      );
      await writeFile(path, bytes);
      const { contentType } = file;
      return { path, size: sizeOf(file), contentType, trouble: await findTrouble(bytes, path, file) };
    }),
  );
}

type File = NonNullable<Job["results"][number]["file"]>;

function sizeOf({ width, height, seconds, bytes }: File): string {
  if (width === null) return `${Math.ceil(bytes / 1_000)} kB`;
  return `${width}×${height}${seconds === null ? "" : `, ${seconds} s`}`;
}

async function findTrouble(bytes: Buffer, path: string, file: File): Promise<string | null> {
  if (createHash("sha256").update(bytes).digest("hex") !== file.sha256) return "not the SHA-256 that the API told";
  try {
    if (file.contentType === "application/x-tar") return await listWeights(path);
    const isFilm = file.contentType.startsWith("video/");
    const { width, height } = isFilm ? await inspectVideo(bytes, LIMITS) : await inspectImage(bytes, LIMITS);
    return width === file.width && height === file.height ? null : `${width}×${height}, not as the API told`;
  } catch (error) {
    const known = [ImageRefused, VideoRefused, ArchiveRefused].some((each) => error instanceof each);
    if (known && error instanceof Error) return error.message;
    throw error;
  }
}

/** Steps through the whole archive and takes out what other models load. */
async function listWeights(path: string): Promise<string | null> {
  const lora = `${path}.safetensors`;
  const found = await extractFromTar(path, (name) => name.endsWith(".safetensors"), lora, { maxBytes: 100_000_000 });
  if (!found) return "it holds no .safetensors";
  await checkSafetensors(lora);
  await rm(lora);
  return null;
}
