import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { type Sniffed, sniff } from "./image.ts";

export interface VideoLimits {
  readonly maxBytes: number;
  readonly maxSeconds: number;
  /** Width × height of a frame. */
  readonly maxPixels: number;
  /** For the look at the tracks; 20 s. A good file takes a fraction of one. */
  readonly timeoutMs?: number;
}

export interface VideoFacts extends Sniffed {
  readonly contentType: "video/mp4" | "video/webm";
  readonly extension: "mp4" | "webm";
  /** Pixels, as seen: after rotation, with square pixels. */
  readonly width: number;
  readonly height: number;
  /** From the first frame to the end of the last, of the track that ends last. */
  readonly seconds: number;
  /** "avc", "hevc", "vp8", "vp9", "av1"; null where it is none that is known. */
  readonly codec: string | null;
  readonly hasAudio: boolean;
  readonly bytes: number;
  /** Of the file as it is, in hex. */
  readonly sha256: string;
}

export type VideoRefusal = "not_a_video" | "corrupt" | "too_long" | "too_many_bytes" | "too_many_pixels" | "empty";

/** The message is for whoever sent the video: the limit, and what to do. */
export class VideoRefused extends Error {
  override readonly name = "VideoRefused";
  readonly code: VideoRefusal;
  constructor(code: VideoRefusal, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.code = code;
  }
}

/** As much as tells an MP4 or WebM from everything else. */
const HEAD_BYTES = 4_100;
const PIECE_BYTES = 256 * 1024;
/** What the demuxer may keep of a file. */
const CACHE_BYTES = 8 * 1024 * 1024;
/** Boxes of an MP4, or elements of a WebM, on the top; fragments of an hour are a few thousand. */
const MAX_PARTS = 100_000;

/** A video of an hour is looked through with some hundred reads, most of it not at all. */
const MAX_READS = 100_000;
const READ_TIMES = 4;
const TIMEOUT_MS = 20_000;
const MAX_HEAP_MB = 256;

const SEGMENT = 0x18538067;
const CLUSTER = 0x1f43b675;

/**
 * Proves that a file, or the bytes of one, is a whole MP4 or WebM within the limits, cheapest question first: its parts
 * end where the file ends, it has a video track, and the last packet of every track can be read. Frames are not decoded,
 * so a picture inside may still be broken. From a path it reads with bounded memory; bytes are copied once. Throws
 * VideoRefused, what the disk throws, or an Error where the look at the tracks takes longer than `timeoutMs`: made to, or
 * on a machine in trouble.
 */
export async function inspectVideo(from: string | Buffer, limits: VideoLimits): Promise<VideoFacts> {
  if (typeof from !== "string") {
    return inspect(from, async (at, length) => from.subarray(at, at + length), from.length, limits);
  }
  const file = await open(from);
  try {
    const { size } = await file.stat();
    return await inspect(from, readerOf(file), size, limits);
  } finally {
    await file.close();
  }
}

/** Up to `length` bytes; fewer at the end of the file. */
type ReadAt = (at: number, length: number) => Promise<Buffer>;

function readerOf(file: FileHandle): ReadAt {
  return async (at, length) => {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, at);
    return buffer.subarray(0, bytesRead);
  };
}

async function inspect(from: string | Buffer, read: ReadAt, bytes: number, limits: VideoLimits): Promise<VideoFacts> {
  const { maxBytes, maxSeconds, maxPixels, timeoutMs = TIMEOUT_MS } = limits;
  if (bytes > maxBytes) {
    const message = `The video has ${bytes} bytes; at most ${maxBytes} are taken. Send it smaller.`;
    throw refused("too_many_bytes", message);
  }
  const sniffed = await sniff(await read(0, HEAD_BYTES));
  if (!isVideo(sniffed)) throw refused("not_a_video", "The file is not an MP4 or WebM video. Save it as one of these.");
  const endOf = sniffed.extension === "mp4" ? endsWithItsBoxes : endsWithItsElements;
  if (!(await endOf(read, bytes))) throw corrupt();

  const found = await examine(from, bytes, timeoutMs);
  if (found === null)
    throw refused("empty", "The file has no moving picture: no video track, or no frame. Send another.");
  const { width, height, seconds } = found;
  if (!(width > 0 && height > 0 && seconds > 0 && Number.isFinite(seconds))) throw corrupt();
  if (width * height > maxPixels) {
    const message = `The video is ${width} × ${height} pixels; at most ${maxPixels} in all are taken. Send it scaled down.`;
    throw refused("too_many_pixels", message);
  }
  if (seconds > maxSeconds) {
    const message = `The video is ${seconds.toFixed(1)} s long; at most ${maxSeconds} s are taken. Send a shorter one.`;
    throw refused("too_long", message);
  }
  return { ...sniffed, ...found, bytes, sha256: await hashOf(read, bytes) };
}

type Found = Pick<VideoFacts, "width" | "height" | "seconds" | "codec" | "hasAudio">;
type Answer = { readonly found: Found | null } | { readonly error: string };

/**
 * What a thread of its own does; plain JavaScript, for a thread can load nothing else everywhere. A file can keep the
 * demuxer busy for ever without a pause in which a timer could stop it: where a WebM element has an id but no length it
 * finds that element again and again, and where an MP4 claims billions of samples in a chunk it adds them up. Here that
 * stops nobody else, and ends with the thread. Reads are counted besides, so that the first kind ends at once; should the
 * internal method go by another name one day, every video fails instead.
 *
 * The length is asked of the packets, not of the header, which may claim anything.
 */
const EXAMINE = `
const { parentPort, workerData } = require("node:worker_threads");
const { library, from, cacheBytes, maxReads, maxReadBytes } = workerData;
const { BufferSource, EncodedPacketSink, FilePathSource, Input, Logging, LogLevel, MP4, WEBM } = require(library);
Logging.level = LogLevel.Silent;

const source = typeof from === "string" ? new FilePathSource(from, { maxCacheSize: cacheBytes }) : new BufferSource(from);
const read = source._read.bind(source);
let [reads, bytes] = [0, 0];
source._read = (start, end, ...more) => {
  reads += 1;
  bytes += end - start;
  if (reads > maxReads || bytes > maxReadBytes) throw new Error("reads in circles");
  return read(start, end, ...more);
};

async function examine() {
  const input = new Input({ source, formats: [MP4, WEBM] });
  const tracks = await input.getTracks();
  const video = await input.getPrimaryVideoTrack();
  if (!video) return null;
  const start = await video.getFirstTimestamp();
  let end = start;
  for (const track of tracks) {
    if (!track.isVideoTrack() && !track.isAudioTrack()) continue;
    const last = await new EncodedPacketSink(track).getPacket(Infinity);
    if (!last && track === video) return null;
    if (!last) continue;
    if (last.data.length === 0 || last.data.length !== last.byteLength) throw new Error("the last packet is cut off");
    end = Math.max(end, last.timestamp + last.duration);
  }
  return {
    width: await video.getDisplayWidth(),
    height: await video.getDisplayHeight(),
    seconds: Math.round((end - start) * 1000) / 1000,
    codec: await video.getCodec(),
    hasAudio: tracks.some((track) => track.isAudioTrack()),
  };
}

examine().then(
  (found) => parentPort.postMessage({ found }),
  (error) => parentPort.postMessage({ error: String(error) }),
);
`;

/** Null for a file without moving pictures. */
async function examine(from: string | Buffer, fileBytes: number, timeoutMs: number): Promise<Found | null> {
  const worker = new Worker(EXAMINE, {
    eval: true,
    execArgv: [],
    env: {},
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
    workerData: {
      library: createRequire(import.meta.url).resolve("mediabunny"),
      from,
      cacheBytes: CACHE_BYTES,
      maxReads: MAX_READS,
      maxReadBytes: READ_TIMES * (fileBytes + CACHE_BYTES),
    },
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    const answer = await new Promise<Answer>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`The video was not examined within ${timeoutMs} ms`)), timeoutMs);
      worker.once("message", resolve);
      // Also where it needs more memory than it may have.
      worker.once("error", (error) => resolve({ error: String(error) }));
      worker.once("exit", (code) => resolve({ error: `the thread ended with ${code}` }));
    });
    if ("error" in answer) throw corrupt(answer.error);
    return answer.found;
  } finally {
    clearTimeout(timer);
    await worker.terminate();
  }
}

/** An MP4 is a row of boxes, each of which begins with its length: what was cut off ends within one. */
async function endsWithItsBoxes(read: ReadAt, size: number): Promise<boolean> {
  let at = 0;
  for (let parts = 0; at < size && parts < MAX_PARTS; parts++) {
    const head = await read(at, 16);
    if (head.length < 8) return false;
    let length = head.readUInt32BE(0);
    // Until the end of the file: only the last box may say so.
    if (length === 0) return true;
    if (length === 1) {
      if (head.length < 16) return false;
      length = Number(head.readBigUInt64BE(8));
      if (length < 16) return false;
    } else if (length < 8) return false;
    at += length;
  }
  return at === size;
}

/**
 * A WebM is a header and a segment; each element begins with its id and length. A recorder that could not go back left
 * the length of segment and clusters open; then the elements within are walked.
 */
async function endsWithItsElements(read: ReadAt, size: number): Promise<boolean> {
  let at = 0;
  for (let parts = 0; at < size && parts < MAX_PARTS; parts++) {
    const head = await read(at, 12);
    const id = vint(head, 0, 4, true);
    const length = id && vint(head, id.bytes, 8, false);
    if (!length) return false;
    at += id.bytes + length.bytes;
    if (length.value !== null) at += length.value;
    else if (id.value !== SEGMENT && id.value !== CLUSTER) return false;
  }
  return at === size;
}

/** A number whose leading zero bits tell how long it is. Null value: "not known", all ones. Null: not a number. */
function vint(
  head: Buffer,
  at: number,
  longest: number,
  keepMarker: boolean,
): { value: number | null; bytes: number } | null {
  const first = head[at] ?? 0;
  const bytes = Math.clz32(first) - 23;
  if (bytes > longest || at + bytes > head.length) return null;
  let value = keepMarker ? first : first & ((1 << (8 - bytes)) - 1);
  let unknown = !keepMarker && value === (1 << (8 - bytes)) - 1;
  for (const byte of head.subarray(at + 1, at + bytes)) {
    value = value * 256 + byte;
    unknown &&= byte === 0xff;
  }
  return { value: unknown ? null : value, bytes };
}

async function hashOf(read: ReadAt, size: number): Promise<string> {
  const hash = createHash("sha256");
  for (let at = 0; at < size; at += PIECE_BYTES) hash.update(await read(at, Math.min(PIECE_BYTES, size - at)));
  return hash.digest("hex");
}

function isVideo(sniffed: Sniffed | null): sniffed is Pick<VideoFacts, "contentType" | "extension"> {
  return sniffed?.contentType === "video/mp4" || sniffed?.contentType === "video/webm";
}

function refused(code: VideoRefusal, message: string): VideoRefused {
  return new VideoRefused(code, message);
}

function corrupt(cause?: unknown): VideoRefused {
  return new VideoRefused("corrupt", "The video is damaged or incomplete. Save it anew, and send the whole file.", {
    cause,
  });
}
