import { randomUUID } from "node:crypto";
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PREFIX = "darkroom-scratch-";
/** Nothing is worked on for so long. */
const STALE_MS = 2 * 3_600_000;

/**
 * Gives a folder of its own on this machine's disk, for files that are too large to hold, and removes it with
 * everything in it. What a process that dies leaves there is removed by `clearScratch`.
 */
export async function withScratch<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = join(tmpdir(), `${PREFIX}${randomUUID()}`);
  await mkdir(folder, { mode: 0o700 });
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Removes what dead processes left behind; for the start of a program. Returns how many folders. */
export async function clearScratch(folder = tmpdir(), now = Date.now()): Promise<number> {
  const names = (await readdir(folder)).filter((name) => name.startsWith(PREFIX));
  let cleared = 0;
  for (const name of names) {
    const found = await stat(join(folder, name)).catch(() => null);
    if (!found || now - found.mtimeMs < STALE_MS) continue;
    await rm(join(folder, name), { recursive: true, force: true });
    cleared++;
  }
  return cleared;
}
