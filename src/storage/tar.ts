import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { ArchiveRefused } from "./archive-refused.ts";

export interface ExtractedFile {
  /** Its whole path in the archive. */
  readonly name: string;
  readonly bytes: number;
  /** In hex. */
  readonly sha256: string;
}

export interface TarLimits {
  /** Of the file that is taken out. */
  readonly maxBytes: number;
}

const BLOCK = 512;
/** Headers that are looked at before the search ends; a trained model has a handful. */
const MAX_HEADERS = 10_000;
/** A long name, or the extended header that holds one. */
const MAX_NAME_BYTES = 64 * 1024;

/**
 * Takes the first regular file whose name `matches` out of a tar (POSIX ustar and pax, GNU) that is not compressed, and
 * writes it to `toPath`, over what is there, on the disk when it returns. Null, and no file, when none matches. Other
 * entries are stepped over unread; memory holds a block. The name is only told, never used as a path. Throws
 * ArchiveRefused ("not_a_tar", "corrupt", "entry_too_large", "too_many_entries"), or what the disk throws; then there is
 * no file at `toPath`.
 */
export async function extractFromTar(
  tarPath: string,
  matches: (name: string) => boolean,
  toPath: string,
  limits: TarLimits,
): Promise<ExtractedFile | null> {
  const tar = await open(tarPath);
  try {
    const { size } = await tar.stat();
    for await (const { name, start, bytes } of regularFiles(tar, size)) {
      if (!matches(name)) continue;
      if (bytes > limits.maxBytes) {
        const message = `${JSON.stringify(name.slice(0, 80))} in the archive has ${bytes} bytes; at most ${limits.maxBytes} are taken.`;
        throw new ArchiveRefused("entry_too_large", message);
      }
      return { name, bytes, sha256: await copyOut(tar, start, bytes, toPath) };
    }
    return null;
  } finally {
    await tar.close();
  }
}

interface Place {
  readonly name: string;
  /** Of its first byte in the tar. */
  readonly start: number;
  readonly bytes: number;
}

async function* regularFiles(tar: FileHandle, size: number): AsyncGenerator<Place, void, undefined> {
  /** What a header before it says about the next file. */
  let next: { name?: string; bytes?: number } = {};
  let at = 0;
  for (let headers = 0; at + BLOCK <= size; headers++) {
    if (headers >= MAX_HEADERS)
      throw new ArchiveRefused("too_many_entries", `The tar has over ${MAX_HEADERS} entries.`);
    const header = await readAt(tar, at, BLOCK);
    // Blocks of zeros end the archive.
    if (header.every((byte) => byte === 0)) return;
    if (!isHeader(header)) throw at === 0 ? notATar() : corrupt();
    const type = String.fromCharCode(header[156] ?? 0);
    const start = at + BLOCK;
    const bytes = "xgLK".includes(type) ? numberAt(header, 124, 12) : (next.bytes ?? numberAt(header, 124, 12));
    if (!Number.isSafeInteger(bytes) || start + bytes > size) throw corrupt();
    at = start + Math.ceil(bytes / BLOCK) * BLOCK;

    if (type === "x" || type === "L") {
      if (bytes > MAX_NAME_BYTES) throw corrupt();
      const text = await readAt(tar, start, bytes);
      next = { ...next, ...(type === "L" ? { name: textAt(text, 0, bytes) } : paxOf(text)) };
    } else if (type !== "g" && type !== "K") {
      const prefix = textAt(header, 257, 5) === "ustar" && header[262] === 0 ? textAt(header, 345, 155) : "";
      const name = next.name ?? (prefix === "" ? "" : `${prefix}/`) + textAt(header, 0, 100);
      next = {};
      // Before POSIX a folder was a file whose name ends in a slash. "7" is a file of one piece.
      if ((type === "0" || type === "\0" || type === "7") && !name.endsWith("/")) yield { name, start, bytes };
    }
  }
  if (at === 0) throw notATar();
}

/** The checksum counts its own eight bytes as spaces; some old writers summed signed bytes. */
function isHeader(header: Buffer): boolean {
  let [unsigned, signed] = [0, 0];
  header.forEach((byte, index) => {
    const value = index >= 148 && index < 156 ? 0x20 : byte;
    unsigned += value;
    signed += value > 127 ? value - 256 : value;
  });
  const sum = numberAt(header, 148, 8);
  return sum === unsigned || sum === signed;
}

/** Octal digits, or, from 8 GiB on, GNU's big-endian binary behind a set first bit. NaN for anything else. */
function numberAt(header: Buffer, offset: number, length: number): number {
  const first = header[offset] ?? 0;
  if (first === 0x80) return Number(header.readBigUInt64BE(offset + length - 8));
  const digits = textAt(header, offset, length).trim();
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : Number.NaN;
}

function textAt(bytes: Buffer, offset: number, length: number): string {
  const field = bytes.subarray(offset, offset + length);
  const end = field.indexOf(0);
  return field.subarray(0, end === -1 ? field.length : end).toString("utf8");
}

/** Records of "length key=value\n", where the length counts itself. */
function paxOf(text: Buffer): { name?: string; bytes?: number } {
  const found: { name?: string; bytes?: number } = {};
  for (let at = 0; at < text.length && text[at] !== 0; ) {
    const space = text.indexOf(0x20, at);
    const length = space === -1 ? Number.NaN : Number(text.toString("latin1", at, space));
    if (!Number.isSafeInteger(length) || length < space - at + 3 || at + length > text.length) throw corrupt();
    const record = text.toString("utf8", space + 1, at + length - 1);
    const equals = record.indexOf("=");
    const [key, value] = [record.slice(0, equals), record.slice(equals + 1)];
    if (key === "path") found.name = value;
    if (key === "size") found.bytes = Number(value);
    at += length;
  }
  return found;
}

async function copyOut(tar: FileHandle, start: number, bytes: number, toPath: string): Promise<string> {
  const hash = createHash("sha256");
  let copied = 0;
  const source = async function* () {
    while (copied < bytes) {
      const piece = await readAt(tar, start + copied, Math.min(bytes - copied, 256 * 1024));
      hash.update(piece);
      copied += piece.length;
      yield piece;
    }
  };
  try {
    await pipeline(source, createWriteStream(toPath, { flush: true }));
  } catch (error) {
    await rm(toPath, { force: true });
    throw error;
  }
  return hash.digest("hex");
}

async function readAt(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, at);
  if (bytesRead < length) throw corrupt();
  return buffer;
}

function notATar(): ArchiveRefused {
  return new ArchiveRefused(
    "not_a_tar",
    "The file is not a tar archive that is not compressed. Send it as plain .tar.",
  );
}

function corrupt(): ArchiveRefused {
  return new ArchiveRefused("corrupt", "The tar is damaged or incomplete. Send the whole file.");
}
