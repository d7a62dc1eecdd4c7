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
