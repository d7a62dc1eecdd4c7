import { createHash } from "node:crypto";
import { mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ImageRefused, inspectImage } from "../src/storage/image.ts";
import type { Client, Job } from "./client.ts";
import { BadOption } from "./options.ts";

/** In a folder with this file, what is named as below is the demo's own. */
const MARK = ".darkroom-demo";
const OWN = /^(room\.\w+|(generation|staging)-\d+\.\w+|(sandbox|api|worker-\d+)\.log)$/;
const LIMITS = { maxBytes: 40_000_000, maxPixels: 100_000_000 };

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

export interface SavedPicture {
  readonly path: string;
  readonly size: string;
  /** Null: whole, and what the API said it is. */
  readonly trouble: string | null;
}

/** Downloads a job's pictures as an app would, by their signed addresses, and looks at every byte. */
export async function savePictures(client: Client, job: Job, name: string, folder: string): Promise<SavedPicture[]> {
  const files = job.results.flatMap(({ file }, index) => (file ? [{ file, number: index + 1 }] : []));
  return Promise.all(
    files.map(async ({ file, number }) => {
      const bytes = await client.download(file.url);
      const path = join(folder, `${name}-${number}.${file.contentType.split("/")[1]?.replace("jpeg", "jpg")}`);
      await writeFile(path, bytes);
      return { path, size: `${file.width}×${file.height}`, trouble: await findTrouble(bytes, file) };
    }),
  );
}

type File = NonNullable<Job["results"][number]["file"]>;

async function findTrouble(bytes: Buffer, file: File): Promise<string | null> {
  if (createHash("sha256").update(bytes).digest("hex") !== file.sha256) return "not the SHA-256 that the API told";
  try {
    const { width, height } = await inspectImage(bytes, LIMITS);
    return width === file.width && height === file.height ? null : `${width}×${height}, not as the API told`;
  } catch (error) {
    if (error instanceof ImageRefused) return error.message;
    throw error;
  }
}
