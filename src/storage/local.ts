import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { constants } from "node:fs";
import {
  chmod,
  copyFile,
  type FileHandle,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { checkKey, checkTtl } from "./key.ts";
import { FileNotFound, type Storage, type StoredFile } from "./storage.ts";

export interface LocalStorageOptions {
  /** Made when it is missing. `files/` holds the files under their keys, `types/` their content types. */
  readonly directory: string;
  /** Where the API is reached; URLs point to `/files/…` below it. */
  readonly publicUrl: string;
  /** Signs URLs; at least 16 characters. Changing it ends all URLs that are out. */
  readonly secret: string;
  /** Milliseconds since 1970. */
  readonly clock?: () => number;
}

export interface LocalStorage extends Storage {
  readonly name: "local";
  /** Whether `url` made this URL and it has not expired. For the route that serves `/files/<key>`; never throws. */
  verifyUrl(key: string, expires: string, signature: string): boolean;
  /** The file behind a signed URL, null when `verifyUrl` says no. Throws FileNotFound. */
  open(key: string, expires: string, signature: string): Promise<StoredFile | null>;
}

/** Temporary files older than this were left behind by a crash: no write takes so long. */
const STALE_MS = 3_600_000;

/** Files on the disk of this machine: for development, and for a deployment on one host. */
export function makeLocalStorage(options: LocalStorageOptions): LocalStorage {
  const { directory, secret, clock = Date.now } = options;
  if (secret.length < 16) throw new Error("The secret that signs file URLs must have at least 16 characters.");
  const publicUrl = options.publicUrl.replace(/\/+$/, "");

  const fileOf = (key: string) => join(directory, "files", checkKey(key));
  const typeOf = (key: string) => join(directory, "types", checkKey(key));
  const temporary = join(directory, "tmp");

  /** The label keeps a signature from meaning anything where the same secret signs something else. */
  const sign = (key: string, expires: string) =>
    createHmac("sha256", secret).update(`file url\n${key}\n${expires}`).digest("base64url");

  /** `write` makes the body in a new file, synced; only then does it get its name. */
  async function keep(key: string, contentType: string, write: (aside: string) => Promise<void>): Promise<void> {
    const [file, type] = [fileOf(key), typeOf(key)];
    const aside = join(temporary, randomUUID());
    await mkdir(temporary, { recursive: true });
    try {
      await writeFile(`${aside}.type`, contentType, { flag: "wx", flush: true });
      await write(aside);
      // The body's rename is what makes the file exist, so its type is there first.
      await moveInto(`${aside}.type`, type);
      await moveInto(aside, file);
    } finally {
      await rm(`${aside}.type`, { force: true });
      await rm(aside, { force: true });
    }
  }

  const storage: LocalStorage = {
    name: "local",

    async put(key, body, contentType) {
      await keep(key, contentType, (aside) => writeFile(aside, body, { flag: "wx", flush: true }));
    },

    async putFile(key, path, contentType) {
      await keep(key, contentType, async (aside) => {
        // Where the file system can, the copy shares the bytes.
        await copyFile(path, aside, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
        // A copy takes on the rights of its original; the one that serves it must be able to read it.
        await chmod(aside, 0o644);
        await sync(aside);
      });
    },

    async get(key) {
      const file = fileOf(key);
      let handle: FileHandle | undefined;
      try {
        const contentType = await readFile(typeOf(key), "utf8");
        handle = await open(file);
        const found = await handle.stat();
        if (found.isFile()) return { body: handle.createReadStream(), bytes: found.size, contentType };
      } catch (error) {
        await handle?.close();
        if (isMissing(error)) throw new FileNotFound(`There is no file ${key}.`);
        throw error;
      }
      await handle.close();
      throw new FileNotFound(`There is no file ${key}.`);
    },

    async exists(key) {
      try {
        const [file] = await Promise.all([stat(fileOf(key)), stat(typeOf(key))]);
        return file.isFile();
      } catch (error) {
        if (isMissing(error)) return false;
        throw error;
      }
    },

    async delete(key) {
      await rm(fileOf(key), { force: true });
      await rm(typeOf(key), { force: true });
    },

    async url(key, ttlSeconds) {
      checkKey(key);
      checkTtl(ttlSeconds);
      const expires = String(Math.floor(clock() / 1000) + ttlSeconds);
      return `${publicUrl}/files/${key}?expires=${expires}&signature=${sign(key, expires)}`;
    },

    verifyUrl(key, expires, signature) {
      if (!/^\d{1,12}$/.test(expires)) return false;
      // Texts are compared, not decoded bytes: base64url has several spellings of the same bytes.
      const expected = Buffer.from(sign(key, expires));
      const given = Buffer.from(signature);
      if (given.length !== expected.length || !timingSafeEqual(given, expected)) return false;
      return Number(expires) * 1000 > clock();
    },

    async open(key, expires, signature) {
      return storage.verifyUrl(key, expires, signature) ? storage.get(key) : null;
    },

    async check() {
      const key = `check/${randomUUID()}.txt`;
      try {
        await storage.put(key, Buffer.from(key), "text/plain");
        const written = await readFile(fileOf(key), "utf8");
        if (written !== key) throw new Error("what was read back is not what was written");
        await storage.delete(key);
        await removeStale(temporary, clock() - STALE_MS);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        throw new Error(
          `Files cannot be kept in ${directory}: ${reason}. Make the directory writable for this user, or free space.`,
          { cause: error },
        );
      }
    },
  };
  return storage;
}

/** Within one file system a rename replaces the file whole or not at all. */
async function moveInto(from: string, to: string): Promise<void> {
  const folder = dirname(to);
  await mkdir(folder, { recursive: true });
  await rename(from, to);
  // The new name, too, must survive a power cut: a job that says "stored" is never stored again.
  await sync(folder);
}

async function sync(path: string): Promise<void> {
  const handle = await open(path);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function removeStale(temporary: string, before: number): Promise<void> {
  for (const name of await readdir(temporary)) {
    const path = join(temporary, name);
    const found = await stat(path).catch(() => null);
    if (found && found.mtimeMs < before) await rm(path, { force: true });
  }
}

function isMissing(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR";
}
