import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { open, rm } from "node:fs/promises";
import { Readable, Transform } from "node:stream";
import { finished, pipeline } from "node:stream/promises";
import { crc32, createInflateRaw } from "node:zlib";
import { type Entry, getFileNameLowLevel, type ZipFile as OpenZip, openPromise } from "yauzl";
import { ZipFile } from "yazl";
import { ArchiveRefused } from "./archive-refused.ts";

export interface ArchiveEntry {
  /** Relative, with `/` between folders. */
  readonly name: string;
  /** Called once, when it is this entry's turn. */
  read(): Promise<Buffer>;
}

export interface WrittenArchive {
  readonly bytes: number;
  /** In hex. */
  readonly sha256: string;
}

export interface ArchiveLimits {
  /** Files that count; of what is skipped there may be twice as many and a hundred more. */
  readonly maxEntries: number;
  /** Of one file, unpacked. */
  readonly maxEntryBytes: number;
  /** Of all files, unpacked. */
  readonly maxTotalBytes: number;
}

/** Why one entry is left out, in words for whoever sent the archive; the others are not touched by it. */
export interface EntryRefusal {
  readonly code: "entry_too_large" | "corrupt";
  readonly message: string;
}

/** `name`: as it stands in the archive; safe to join to a folder, but nothing here does. */
export type ReadEntry =
  | { readonly name: string; readonly bytes: Buffer }
  | { readonly name: string; readonly refused: EntryRefusal };

/** Unpacked by packed. Pictures and captions stay under 10; deflate itself ends at 1,032. */
const MAX_RATIO = 200;
const MAX_NAME_BYTES = 512;
/** Extra fields and comment of one entry; programs write less than a hundred bytes. */
const MAX_EXTRA_BYTES = 4_096;
/** Handed on in pieces, or each stream on the way would hold a whole photo. */
const PIECE_BYTES = 64 * 1024;

/**
 * Writes a ZIP file to `path`, over what is there, and on the disk when it returns. Entries are asked for one after the
 * other, so that memory holds one, and the last pieces of the one before. Equal names and bytes in equal order give
 * equal archives. Throws what an entry or the disk throws, or Error for a name that `readArchive` would refuse or that
 * comes twice; then there is no file at `path`.
 */
export async function writeArchive(
  path: string,
  entries: AsyncIterable<ArchiveEntry> | Iterable<ArchiveEntry>,
): Promise<WrittenArchive> {
  const zip = new ZipFile();
  // Stored, not deflated: JPEGs do not shrink. yazl writes local time, so this is one reading of the clock in every zone.
  const options = { compress: false, mtime: new Date(1980, 0, 1), mode: 0o100644, forceDosTimestamp: true };
  const hash = createHash("sha256");
  let bytes = 0;
  const meter = new Transform({
    transform(piece: Buffer, _encoding, done) {
      hash.update(piece);
      bytes += piece.length;
      done(null, piece);
    },
  });

  // Whatever breaks first stops both sides: entries that wait for the disk, and the file that waits for entries.
  const stop = new AbortController();
  let failure: { error: unknown } | null = null;
  const fail = (error: unknown) => {
    failure ??= { error };
    stop.abort();
  };
  zip.on("error", fail);

  const feed = async () => {
    const names = new Set<string>();
    for await (const { name, read } of entries) {
      const fault = faultOf(name) ?? (takeName(names, name) ? null : "it comes twice");
      if (fault) throw new Error(`The archive cannot have an entry ${JSON.stringify(name.slice(0, 80))}: ${fault}.`);
      // Not addBuffer, and given away only once: yazl keeps all that an entry refers to until the end.
      const given = { source: Readable.from(pieces(await read()), { objectMode: false }) as Readable | null };
      const done = finished(given.source as Readable, { signal: stop.signal });
      zip.addReadStreamLazy(name, options, (give) => {
        if (given.source) give(null, given.source);
        given.source = null;
      });
      await done;
    }
    zip.end();
  };
  const written = pipeline(zip.outputStream, meter, createWriteStream(path, { flush: true }), { signal: stop.signal });
  await Promise.all([feed().catch(fail), written.catch(fail)]);

  const broken = failure as { error: unknown } | null;
  if (broken === null) return { bytes, sha256: hash.digest("hex") };
  await rm(path, { force: true });
  throw broken.error;
}

/**
 * The files of a ZIP that somebody else packed, one after the other, in memory one at a time. What can be told from the
 * directory is refused before a byte is unpacked; sizes and checksums are then held against the real bytes. An entry that
 * is too large or damaged is refused by itself, in its place among the others; what is no honest archive, as a whole.
 * Folders, dotfiles, `__MACOSX/` and `Thumbs.db` are skipped. Throws ArchiveRefused, also after entries were handed on,
 * or what the disk throws.
 */
export async function* readArchive(path: string, limits: ArchiveLimits): AsyncGenerator<ReadEntry, void, undefined> {
  const zip = await openZip(path);
  try {
    for (const { name, entry, refused } of await readDirectory(zip, limits))
      yield refused ? { name, refused } : { name, ...(await readEntry(zip, name, entry)) };
  } finally {
    zip.close();
  }
}

async function openZip(path: string): Promise<OpenZip> {
  try {
    // Names and sizes are judged here, with codes of our own.
    return await openPromise(path, { autoClose: false, decodeStrings: false, validateEntrySizes: false });
  } catch (error) {
    if (isOfDisk(error)) throw error;
    const first = await firstBytes(path, 4);
    if (first.toString("latin1") === "PK\u0003\u0004") throw corrupt(error);
    throw refused("not_a_zip", "The file is not a ZIP archive. Pack the photos as .zip.", error);
  }
}

interface Listed {
  readonly name: string;
  readonly entry: Entry;
  /** By what the directory says; it is not unpacked. */
  readonly refused: EntryRefusal | null;
}

async function readDirectory(zip: OpenZip, limits: ArchiveLimits): Promise<Listed[]> {
  const { maxEntries, maxTotalBytes } = limits;
  const tooMany = () => refused("too_many_entries", `The archive has more than ${maxEntries} files. Pack fewer.`);
  if (zip.entryCount > 3 * maxEntries + 100) throw tooMany();
  const listed: Listed[] = [];
  const names = new Set<string>();
  let total = 0;
  for await (const entry of eachEntry(zip)) {
    if (entry.fileNameLength > MAX_NAME_BYTES) throw unsafe("…", `it is longer than ${MAX_NAME_BYTES} bytes`);
    if (entry.extraFieldLength + entry.fileCommentLength > MAX_EXTRA_BYTES) throw corrupt();
    const name = getFileNameLowLevel(entry.generalPurposeBitFlag, entry.fileNameRaw, entry.extraFields, true);
    // A folder's slash is no part of its name. What is skipped is held to the same rules: an attack tells on itself.
    const fault = faultOf(name.replace(/\/$/, ""));
    if (fault) throw unsafe(name, fault);
    checkType(name, entry);
    if (isSkipped(name)) continue;
    if (listed.length >= maxEntries) throw tooMany();
    const refusal = checkEntry(name, entry, limits.maxEntryBytes);
    if (!takeName(names, name)) throw refused("duplicate_name", `The archive has two files ${show(name)}. Rename one.`);
    if (!refusal) total += entry.uncompressedSize;
    if (total > maxTotalBytes) {
      throw refused("total_too_large", `The files have more than ${maxTotalBytes} bytes when unpacked. Pack fewer.`);
    }
    listed.push({ name, entry, refused: refusal });
  }
  checkOverlap(listed);
  return listed;
}

async function* eachEntry(zip: OpenZip): AsyncGenerator<Entry, void, undefined> {
  try {
    for await (const entry of zip.eachEntry()) yield entry;
  } catch (error) {
    if (isOfDisk(error) || error instanceof ArchiveRefused) throw error;
    const words = error instanceof Error ? error.message : "";
    throw words.includes("encryption") ? encrypted() : corrupt(error);
  }
}

/** Only plain files and folders: a link would read or write somewhere else. */
function checkType(name: string, entry: Entry): void {
  if (entry.isEncrypted()) throw encrypted();
  const mode = (entry.externalFileAttributes >>> 16) & 0o170000;
  if (mode !== 0 && mode !== 0o100000 && mode !== 0o040000) {
    throw refused("symlink", `${show(name)} in the archive is a link, not a file. Pack the file itself.`);
  }
}

/** What the directory claims: why the entry is left out, or null. Lies are found when the entry is read. */
function checkEntry(name: string, entry: Entry, maxEntryBytes: number): EntryRefusal | null {
  const { compressedSize, uncompressedSize, compressionMethod } = entry;
  if (isArchiveName(name)) throw nested(name);
  if (compressionMethod !== 0 && compressionMethod !== 8) {
    throw refused("unsupported", `${show(name)} is packed by an unusual method. Pack it as an ordinary ZIP.`);
  }
  if (uncompressedSize > compressedSize * MAX_RATIO) throw bomb(name);
  if (uncompressedSize > maxEntryBytes) {
    const message = `${show(name)} has ${uncompressedSize} bytes; at most ${maxEntryBytes} are taken. Send a smaller one.`;
    return { code: "entry_too_large", message };
  }
  return compressionMethod === 0 && uncompressedSize !== compressedSize ? damaged(name) : null;
}

/** Entries that share their bytes unpack to far more than the file holds. */
function checkOverlap(listed: readonly Listed[]): void {
  const inFile = listed.map(({ name, entry }) => ({ name, start: entry.relativeOffsetOfLocalHeader, entry }));
  inFile.sort((a, b) => a.start - b.start);
  inFile.forEach(({ start, entry }, index) => {
    const next = inFile[index + 1];
    if (next && start + 30 + entry.fileNameLength + entry.compressedSize > next.start) throw bomb(next.name);
  });
}

type Unpacked = { readonly bytes: Buffer } | { readonly refused: EntryRefusal };

async function readEntry(zip: OpenZip, name: string, entry: Entry): Promise<Unpacked> {
  // Bounded twice by the directory: the limit, and 200 × the packed bytes, which are in the file.
  const bytes = Buffer.allocUnsafe(entry.uncompressedSize);
  let filled = 0;
  /** Kept apart: what a pipeline reports may be the end of another stream in it. */
  let isLarger = false;
  const collect = async (source: AsyncIterable<Buffer>) => {
    for await (const piece of source) {
      if (filled + piece.length > bytes.length) {
        isLarger = true;
        throw new Error("larger than the directory says");
      }
      piece.copy(bytes, filled);
      filled += piece.length;
    }
  };
  try {
    const packed = await zip.openReadStreamPromise(entry, { decodeFileData: false });
    if (entry.compressionMethod === 8) await pipeline(packed, createInflateRaw(), collect);
    else await pipeline(packed, collect);
  } catch (error) {
    if (isLarger) {
      const message = `${show(name)} is larger than the archive says. Pack it anew.`;
      return { refused: { code: "entry_too_large", message } };
    }
    if (isOfDisk(error)) throw error;
    return { refused: damaged(name) };
  }
  if (filled !== bytes.length || crc32(bytes) !== entry.crc32) return { refused: damaged(name) };
  if (isArchive(bytes)) throw nested(name);
  return { bytes };
}

function damaged(name: string): EntryRefusal {
  return { code: "corrupt", message: `${show(name)} is damaged in the archive. Pack it anew, or leave it out.` };
}

/** Why a name is not that of a file below a folder, or null. */
function faultOf(name: string): string | null {
  if (name === "") return "it is empty";
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) return `it is longer than ${MAX_NAME_BYTES} bytes`;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(name)) return "it has control characters";
  if (name.includes("\\")) return "it has a backslash";
  if (name.startsWith("/") || /^[A-Za-z]:/.test(name)) return "it is absolute";
  if (name.split("/").some((part) => part === ".." || part === "." || part === ""))
    return "a part of it is empty or made of dots";
  return null;
}

/** Whether the name is new, for file systems too that do not tell capitals or accents apart. */
function takeName(names: Set<string>, name: string): boolean {
  const before = names.size;
  return names.add(name.normalize("NFC").toLowerCase()).size > before;
}

/** Folders, and what operating systems leave in them. */
function isSkipped(name: string): boolean {
  return name.split("/").some((part) => part === "" || part.startsWith(".") || /^(__MACOSX|Thumbs\.db)$/i.test(part));
}

function isArchiveName(name: string): boolean {
  return /\.(zip|tar|t?gz|tgz|t?bz2?|t?xz|zst|rar|7z)$/i.test(name);
}

/** By the first bytes, whatever it is called: ZIP (also empty), gzip, bzip2, xz, zstd, RAR, 7z, tar. */
function isArchive(start: Buffer): boolean {
  const starts = (...signatures: string[]) =>
    signatures.some((hex) => start.subarray(0, hex.length / 2).toString("hex") === hex);
  return (
    starts(
      "504b0304",
      "504b0506",
      "504b0708",
      "1f8b",
      "425a68",
      "fd377a585a00",
      "28b52ffd",
      "526172211a07",
      "377abcaf271c",
    ) || start.subarray(257, 262).toString("latin1") === "ustar"
  );
}

function* pieces(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield bytes.subarray(at, at + PIECE_BYTES);
}

async function firstBytes(path: string, count: number): Promise<Buffer> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(count), 0, count, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** Node's own errors from the file system; zlib's say Z_…, yauzl's have no code. */
function isOfDisk(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}

function refused(code: ArchiveRefused["code"], message: string, cause?: unknown): ArchiveRefused {
  return new ArchiveRefused(code, message, { cause });
}

function corrupt(cause?: unknown): ArchiveRefused {
  return refused("corrupt", "The archive is damaged or incomplete. Pack it anew, and send the whole file.", cause);
}

function encrypted(): ArchiveRefused {
  return refused("encrypted", "The archive is encrypted. Pack it without a password.");
}

function unsafe(name: string, fault: string): ArchiveRefused {
  return refused("unsafe_name", `The archive has a file ${show(name)}, whose name is refused: ${fault}. Rename it.`);
}

function nested(name: string): ArchiveRefused {
  return refused("nested_archive", `${show(name)} is an archive within the archive. Pack the files themselves.`);
}

function bomb(name: string): ArchiveRefused {
  return refused("bomb", `${show(name)} unpacks to more than ${MAX_RATIO} times its size. Pack ordinary files.`);
}

function show(name: string): string {
  return JSON.stringify(name.slice(0, 80));
}
