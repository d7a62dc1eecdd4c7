import type { Readable } from "node:stream";

/**
 * Where files live. Keys are `/`-separated, made by us, never by callers: `[A-Za-z0-9._/-]`, no `..`, at most 512 bytes.
 * Pictures are bounded (config MAX_FILE_BYTES) and come as a Buffer; archives, models and videos come as a file.
 */
export interface Storage {
  readonly name: "local" | "s3";
  /** Writes the whole file or nothing. Writing the same key again replaces it; keys contain their run or hash, so the bytes are the same. */
  put(key: string, body: Buffer, contentType: string): Promise<void>;
  /**
   * The same for a file on this machine's disk, with bounded memory; up to 5 GB. The file must be whole and stay as it is
   * meanwhile; it is left where it was. Tries again by itself what may work a moment later.
   */
  putFile(key: string, path: string, contentType: string): Promise<void>;
  /** Throws FileNotFound. */
  get(key: string): Promise<StoredFile>;
  /** False only when the store itself says so; throws when it cannot be asked. */
  exists(key: string): Promise<boolean>;
  /** Repeating is harmless. */
  delete(key: string): Promise<void>;
  /** A URL that lets anyone read the file until it expires. `ttlSeconds` 1..604800. */
  url(key: string, ttlSeconds: number): Promise<string>;
  /** Throws when a file cannot be written and read back; the message says what to do. */
  check(): Promise<void>;
}

export interface StoredFile {
  readonly body: Readable;
  readonly bytes: number;
  readonly contentType: string;
}

export class FileNotFound extends Error {
  override readonly name = "FileNotFound";
}

/** For pictures, and what is as small. */
export async function readAll(storage: Pick<Storage, "get">, key: string): Promise<Buffer> {
  return Buffer.concat(await (await storage.get(key)).body.toArray());
}

/**
 * Reads files one after the other into the same memory: what was read holds until the next one is asked for. Buffers of
 * their own would wait for the collector by the dozen.
 */
export function makeReader(storage: Pick<Storage, "get">): (key: string) => Promise<Buffer> {
  let room = Buffer.alloc(0);
  return async (key) => {
    const { body, bytes } = await storage.get(key);
    if (room.length < bytes) room = Buffer.allocUnsafeSlow(bytes);
    let filled = 0;
    for await (const piece of body as AsyncIterable<Buffer>) {
      if (filled + piece.length > bytes) throw new Error(`${key} is longer than the ${bytes} bytes that were declared`);
      filled += piece.copy(room, filled);
    }
    if (filled !== bytes) throw new Error(`${key} has ${filled} bytes, not the ${bytes} that were declared`);
    return room.subarray(0, bytes);
  };
}
