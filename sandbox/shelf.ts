import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export type Shelf = Awaited<ReturnType<typeof makeShelf>>;

/** Files on disk, for as long as the sandbox lives; above `maxBytes` the oldest go first. */
export async function makeShelf(maxBytes: number) {
  const folder = await mkdtemp(join(tmpdir(), "sandbox-"));
  const sizes = new Map<string, number>(); // in order of arrival
  let total = 0;

  async function remove(name: string): Promise<void> {
    const size = sizes.get(name);
    if (size === undefined) return;
    sizes.delete(name);
    total -= size;
    await rm(join(folder, name), { force: true });
  }

  return {
    /** `name` is one of ours: letters and digits only. */
    async put(name: string, bytes: Buffer): Promise<void> {
      sizes.set(name, bytes.length);
      total += bytes.length;
      await writeFile(join(folder, name), bytes);
      for (const oldest of sizes.keys()) {
        if (total <= maxBytes || oldest === name) break;
        await remove(oldest);
      }
    },

    async get(name: string): Promise<Buffer | null> {
      return sizes.has(name) ? readFile(join(folder, name)).catch(() => null) : null;
    },

    remove,

    async close(): Promise<void> {
      await rm(folder, { recursive: true, force: true });
    },
  };
}
