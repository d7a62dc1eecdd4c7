import type { Readable } from "node:stream";

/**
 * Where files live. Keys are `/`-separated, made by us, never by callers: `[A-Za-z0-9._/-]`, no `..`, at most 512 bytes.
 * Files are bounded (config MAX_FILE_BYTES), so a Buffer is enough here; archives will stream.
 */
export interface Storage {
  readonly name: "local" | "s3";
  /** Writes the whole file or nothing. Writing the same key again replaces it; keys contain their run or hash, so the bytes are the same. */
  put(key: string, body: Buffer, contentType: string): Promise<void>;
  /** Throws FileNotFound. */
  get(key: string): Promise<StoredFile>;
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
