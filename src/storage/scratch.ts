import { randomUUID } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * Gives a folder of its own on this machine's disk, for files that are too large to hold, and removes it with
 * everything in it. A process that dies leaves it to whoever empties the system's temporary folder.
 */
export async function withScratch<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = join(tmpdir(), `darkroom-${randomUUID()}`);
  await mkdir(folder, { mode: 0o700 });
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
