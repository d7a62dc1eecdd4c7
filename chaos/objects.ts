import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";

/** How s3rver names the file of an object. */
const SUFFIX = "._S3rver_object";

export interface StoredObject {
  readonly key: string;
  readonly sha256: string;
  readonly bytes: number;
}

/** What the object store holds, as its own files say: nobody is asked. */
export async function readObjects(bucketFolder: string): Promise<StoredObject[]> {
  const entries = await readdir(bucketFolder, { recursive: true, withFileTypes: true }).catch(() => []);
  const objects: StoredObject[] = [];
  for (const entry of entries) {
    if (!entry.isFile() || !entry.name.endsWith(SUFFIX)) continue;
    const path = join(entry.parentPath, entry.name);
    const bytes = await readFile(path);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    objects.push({ key: relative(bucketFolder, path).slice(0, -SUFFIX.length), sha256, bytes: bytes.length });
  }
  return objects;
}
