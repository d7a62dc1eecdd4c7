import { createHash } from "node:crypto";
import { availableParallelism } from "node:os";
import { fileTypeFromBuffer } from "file-type";
import sharp, { type Metadata } from "sharp";
import { isWholeGif } from "./gif.ts";

/** What the first bytes of a file say that it is; the only opinion about a type that is trusted here. */
export interface Sniffed {
  readonly contentType: string;
  /** Without the dot. */
  readonly extension: string;
}

export interface ImageLimits {
  readonly maxBytes: number;
  /** Width × height × frames. */
  readonly maxPixels: number;
  readonly minSide?: number;
  readonly maxSide?: number;
  /** 1: animated pictures are refused. */
  readonly maxPages?: number;
}

export interface ImageFacts extends Sniffed {
  /** As seen, after the camera's orientation is applied. */
  readonly width: number;
  readonly height: number;
  readonly pages: number;
  /** Of the file as it is, in hex. */
  readonly sha256: string;
  readonly bytes: number;
}

export interface Thumbnail {
  readonly bytes: Buffer;
  readonly width: number;
  readonly height: number;
  readonly contentType: "image/webp";
}

export type ImageRefusal = "not_an_image" | "too_many_bytes" | "too_many_pixels" | "too_small" | "corrupt" | "animated";

/** The message is for whoever sent the picture: the limit, and what to do. */
export class ImageRefused extends Error {
  override readonly name = "ImageRefused";
  readonly code: ImageRefusal;
  constructor(code: ImageRefusal, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.code = code;
  }
}

/** What may be stored and served. SVG and HTML are never on it: they run in the reader's browser. */
const EXTENSIONS: ReadonlyMap<string, string> = new Map([
  ["image/jpeg", "jpg"],
  ["image/png", "png"],
  ["image/webp", "webp"],
  ["image/gif", "gif"],
  ["video/mp4", "mp4"],
  ["video/webm", "webm"],
  ["application/zip", "zip"],
]);

const THUMBNAIL_SIDE = 320;
/** No smaller than what a caller lets `inspectImage` pass: an upscaler's output must not be stored without its thumbnail. */
const THUMBNAIL_MAX_PIXELS = 100_000_000;
/** 100 million pixels take seconds; what takes this long was made to. */
export const DECODE_SECONDS = 30;

/**
 * One core per picture, and no cache: pictures here are seen once. Decoding happens on Node's four shared threads; one
 * of them is left to name lookups and files, so that pictures cannot stop everything else.
 */
sharp.concurrency(1);
sharp.cache(false);
/** Everything that decodes goes through here. Never within another turn: that would wait for itself. */
export const takeTurn = makeTurns(Math.min(availableParallelism(), 3));

/** Null for everything that is not on the allow list, whatever it is called. */
export async function sniff(bytes: Buffer): Promise<Sniffed | null> {
  // A file that breaks the sniffer is not on the list either.
  const found = await fileTypeFromBuffer(bytes).catch(() => undefined);
  const extension = found && EXTENSIONS.get(found.mime);
  return extension ? { contentType: found.mime, extension } : null;
}

/** Proves that the bytes are one whole picture within the limits, cheapest question first. Throws ImageRefused. */
export async function inspectImage(bytes: Buffer, limits: ImageLimits): Promise<ImageFacts> {
  if (bytes.length > limits.maxBytes) {
    throw new ImageRefused(
      "too_many_bytes",
      `The picture has ${bytes.length} bytes; at most ${limits.maxBytes} are taken. Send it smaller or more compressed.`,
    );
  }
  const sniffed = await sniff(bytes);
  if (!sniffed?.contentType.startsWith("image/")) throw notAnImage();

  return takeTurn(async () => {
    const header = await readHeader(bytes);
    // `autoOrient` is the size as seen, `width` and `height` are as stored.
    const { width, height } = header.autoOrient;
    const pages = header.pages ?? 1;
    checkSize(width, height, pages, limits);
    if (header.format === "gif" && !isWholeGif(bytes)) throw corrupt();
    await decode(bytes, header, pages, limits.maxPixels);
    return {
      ...sniffed,
      width,
      height,
      pages,
      sha256: createHash("sha256").update(bytes).digest("hex"),
      bytes: bytes.length,
    };
  });
}

/** A small WebP of the first frame: upright, in sRGB, without any of the original's metadata. Throws ImageRefused. */
export async function thumbnail(bytes: Buffer): Promise<Thumbnail> {
  const sniffed = await sniff(bytes);
  if (!sniffed?.contentType.startsWith("image/")) throw notAnImage();
  return takeTurn(async () => {
    try {
      const { data, info } = await sharp(bytes, { failOn: "error", limitInputPixels: THUMBNAIL_MAX_PIXELS })
        .timeout({ seconds: DECODE_SECONDS })
        .autoOrient()
        .resize(THUMBNAIL_SIDE, THUMBNAIL_SIDE, { fit: "inside", withoutEnlargement: true })
        .webp({ quality: 80 })
        .toBuffer({ resolveWithObject: true });
      return { bytes: data, width: info.width, height: info.height, contentType: "image/webp" };
    } catch (error) {
      throw asRefusal(error, THUMBNAIL_MAX_PIXELS);
    }
  });
}

/** Reads the header only; nothing is decoded, so the size may be anything yet. */
async function readHeader(bytes: Buffer): Promise<Metadata> {
  try {
    return await sharp(bytes, { failOn: "error", limitInputPixels: false }).metadata();
  } catch (error) {
    throw corrupt(error);
  }
}

function checkSize(width: number, height: number, pages: number, limits: ImageLimits): void {
  const { maxPixels, minSide = 1, maxSide = Number.POSITIVE_INFINITY, maxPages = 1 } = limits;
  const size = `The picture is ${width} × ${height} pixels`;
  if (pages > maxPages) {
    throw new ImageRefused(
      "animated",
      `The picture has ${pages} frames; at most ${maxPages} is taken. Send a single frame.`,
    );
  }
  if (width * height * pages > maxPixels) {
    throw new ImageRefused(
      "too_many_pixels",
      `${size}${pages > 1 ? ` × ${pages} frames` : ""}; at most ${maxPixels} in all are taken. Send it scaled down.`,
    );
  }
  if (Math.max(width, height) > maxSide) {
    throw new ImageRefused("too_many_pixels", `${size}; a side may have at most ${maxSide}. Send it scaled down.`);
  }
  if (Math.min(width, height) < minSide) {
    throw new ImageRefused("too_small", `${size}; each side needs at least ${minSide}. Send a larger picture.`);
  }
}

/**
 * Decodes every row by asking for the last one (of each frame): files are read from the top, and one row is kept.
 * (Shrinking instead never looks at the last rows of a JPEG.) "error" refuses what is cut off, in every format; the
 * stricter "warning" also refuses the harmless oddities of real cameras and editors.
 */
async function decode(bytes: Buffer, header: Metadata, pages: number, maxPixels: number): Promise<void> {
  try {
    await sharp(bytes, { failOn: "error", limitInputPixels: maxPixels, sequentialRead: true, pages })
      .timeout({ seconds: DECODE_SECONDS })
      .extract({ left: 0, top: header.height - 1, width: header.width, height: 1 })
      .raw()
      .toBuffer();
  } catch (error) {
    throw asRefusal(error, maxPixels);
  }
}

/** What sharp threw, as the ImageRefused that it means; other errors as they are. */
export function asRefusal(error: unknown, maxPixels: number): unknown {
  const words = error instanceof Error ? error.message : "";
  // Says something about this machine's load, not about the file.
  if (words.startsWith("timeout")) return error;
  if (!words.includes("pixel limit")) return corrupt(error);
  return new ImageRefused("too_many_pixels", `The picture has more than ${maxPixels} pixels. Send it scaled down.`, {
    cause: error,
  });
}

function notAnImage(): ImageRefused {
  return new ImageRefused("not_an_image", "The file is not a JPEG, PNG, WebP or GIF picture. Save it as one of these.");
}

function corrupt(cause?: unknown): ImageRefused {
  return new ImageRefused("corrupt", "The picture is damaged or incomplete. Save it anew, and send the whole file.", {
    cause,
  });
}

/** At most `slots` at the same time, the others in the order they came. Who waits already holds its bytes: no new memory. */
function makeTurns(slots: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let free = slots;
  return async (work) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else free += 1;
    }
  };
}
