import sharp, { type Sharp } from "sharp";
import {
  asRefusal,
  DECODE_SECONDS,
  type ImageFacts,
  type ImageRefusal,
  ImageRefused,
  inspectImage,
  takeTurn,
} from "./image.ts";

export interface PhotoLimits {
  readonly maxBytes: number;
  /** Width × height. */
  readonly maxPixels: number;
  /** The shorter side must have at least this many pixels; 256. */
  readonly minSide?: number;
}

/** Why a photo cannot train anything. */
export type PhotoProblem = ImageRefusal | "blurred" | "blank";
/** What `normalizePhoto` repairs, or what is merely worth knowing. */
export type PhotoNote = "cmyk" | "rotated" | "alpha" | "small";

export interface Remark<Code extends string> {
  readonly code: Code;
  /** For whoever sent the photo: what is the matter, with numbers, and what to do or what is done. */
  readonly detail: string;
}

export interface PhotoFacts {
  /** Of the file as it is, in hex. */
  readonly sha256: string;
  readonly contentType: string;
  /** Without the dot. */
  readonly extension: string;
  /** Pixels, as seen: after the camera's orientation. */
  readonly width: number;
  readonly height: number;
  readonly bytes: number;
  /** Variance of the Laplacian in the sharpest part of the grey picture at 512 pixels: 0 flat, below 12 blurred, from 300 on crisp. */
  readonly sharpness: number;
  /** Difference hash, 16 hex digits: 64 bits, each whether one of 8 × 9 fields of the grey picture is brighter than the next. */
  readonly dhash: string;
  /** 0..1: pixels of the middle (half the width, half the height) that have the colour of skin. See `skinOf`. */
  readonly skin: number;
}

export interface PhotoVerdict {
  /** No problems. */
  readonly ok: boolean;
  readonly problems: readonly Remark<PhotoProblem>[];
  readonly notes: readonly Remark<PhotoNote>[];
  /** Null where the file could not be read as one whole, still picture within the limits. */
  readonly facts: PhotoFacts | null;
}

const MIN_SIDE = 256;
/** Trainings work on 512 or 1024 pixels; below, they have to invent. */
const SMALL_SIDE = 512;
/** The size that is measured: large enough to tell blurred from sharp, small enough that noise of the camera is gone. */
const MEASURED_SIDE = 512;

/**
 * Calibrated with drawn scenes of 1024 pixels, see the test: sharp ones reach 15 to 400, blurred with a sigma of 4 all
 * stay under 9. A blur counts by its share of the picture: sigma 4 in 4000 pixels is not seen at the size of a training.
 */
const BLURRED_BELOW = 12;

/** Fields along each side in which sharpness is looked for. */
const FIELDS = 4;

/** Standard deviation of every colour channel, of 255: under this there is nothing to see, only noise. */
const BLANK_BELOW = 3;

/** More than any photo that `judgePhoto` lets pass with sensible limits. */
const NORMALIZE_MAX_PIXELS = 100_000_000;

/**
 * Says what a training photo is worth: whether it can be taken, what will be repaired, and what was measured. A bad file
 * is a verdict, never an error; it throws only where this machine is in trouble (decoding that takes longer than 30 s).
 * Blurred and too small are found together; what cannot be decoded has one problem and no facts.
 */
export async function judgePhoto(bytes: Buffer, limits: PhotoLimits): Promise<PhotoVerdict> {
  const { maxBytes, maxPixels, minSide = MIN_SIDE } = limits;
  try {
    const image = await inspectImage(bytes, { maxBytes, maxPixels, maxPages: 1 });
    return await takeTurn(() => judge(bytes, image, maxPixels, minSide));
  } catch (error) {
    if (!(error instanceof ImageRefused)) throw error;
    return { ok: false, problems: [{ code: error.code, detail: error.message }], notes: [], facts: null };
  }
}

/**
 * The photo as trainings get it: upright, sRGB, see-through parts on white, without any metadata, as a JPEG of quality 95
 * with full colour resolution, its longest side at most `maxSide` pixels (never enlarged). The same bytes give the same
 * bytes. Throws ImageRefused for what `judgePhoto` would not take either.
 */
export function normalizePhoto(bytes: Buffer, maxSide: number): Promise<Buffer> {
  return takeTurn(async () => {
    try {
      return await upright(bytes, NORMALIZE_MAX_PIXELS)
        .resize(maxSide, maxSide, { fit: "inside", withoutEnlargement: true })
        .jpeg({ quality: 95, chromaSubsampling: "4:4:4" })
        .toBuffer();
    } catch (error) {
      throw asRefusal(error, NORMALIZE_MAX_PIXELS);
    }
  });
}

async function judge(bytes: Buffer, image: ImageFacts, maxPixels: number, minSide: number): Promise<PhotoVerdict> {
  const header = await sharp(bytes, { limitInputPixels: maxPixels }).metadata();
  const picture = await measured(bytes, maxPixels);
  const grey = greyOf(picture);
  const { pages: _one, ...facts } = image;
  const sharpness = Math.round(sharpnessOf(grey, picture.width, picture.height) * 10) / 10;
  const dhash = await differenceHash(grey, picture.width, picture.height);

  const problems: Remark<PhotoProblem>[] = [];
  const notes: Remark<PhotoNote>[] = [];
  const side = Math.min(image.width, image.height);
  const size = `The photo is ${image.width} × ${image.height} pixels`;
  if (side < minSide) {
    problems.push({ code: "too_small", detail: `${size}; each side needs at least ${minSide}. Send a larger one.` });
  } else if (side < SMALL_SIDE) {
    notes.push({ code: "small", detail: `${size}; from ${SMALL_SIDE} on each side a training sees more.` });
  }
  if (isBlank(picture)) {
    problems.push({ code: "blank", detail: "The photo is almost one colour. Send one that shows something." });
  } else if (sharpness < BLURRED_BELOW) {
    problems.push({
      code: "blurred",
      detail: `The photo is blurred: its sharpness is ${sharpness}, at least ${BLURRED_BELOW} is needed. Send a sharp one.`,
    });
  }
  if (header.space === "cmyk") notes.push({ code: "cmyk", detail: "The photo is in CMYK and is converted to sRGB." });
  if ((header.orientation ?? 1) > 1) {
    notes.push({ code: "rotated", detail: "The camera noted that the photo lies on its side; it is turned upright." });
  }
  if (header.hasAlpha) notes.push({ code: "alpha", detail: "See-through parts of the photo are put on white." });

  return { ok: problems.length === 0, problems, notes, facts: { ...facts, sharpness, dhash, skin: skinOf(picture) } };
}

interface Picture {
  /** Red, green, blue, row by row. */
  readonly rgb: Buffer;
  readonly width: number;
  readonly height: number;
}

/** What everything is measured on: upright, sRGB, on white, at most 512 pixels. */
async function measured(bytes: Buffer, maxPixels: number): Promise<Picture> {
  try {
    const { data, info } = await upright(bytes, maxPixels)
      .resize(MEASURED_SIDE, MEASURED_SIDE, { fit: "inside", withoutEnlargement: true })
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    return { rgb: data, width: info.width, height: info.height };
  } catch (error) {
    throw asRefusal(error, maxPixels);
  }
}

/** Three channels of sRGB, whatever came in. Metadata is left behind as long as nobody asks for it. */
function upright(bytes: Buffer, maxPixels: number): Sharp {
  return sharp(bytes, { failOn: "error", limitInputPixels: maxPixels })
    .timeout({ seconds: DECODE_SECONDS })
    .autoOrient()
    .flatten({ background: "#fff" })
    .toColourspace("srgb");
}

/** Rec. 601, 0..255. */
function greyOf({ rgb }: Picture): Uint8Array {
  const grey = new Uint8Array(rgb.length / 3);
  for (let at = 0; at < grey.length; at++) {
    const [red = 0, green = 0, blue = 0] = [rgb[3 * at], rgb[3 * at + 1], rgb[3 * at + 2]];
    grey[at] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
  }
  return grey;
}

/**
 * The variance of the Laplacian, kernel [0 1 0, 1 −4 1, 0 1 0], in the sharpest of 4 × 4 fields: blurring takes away just
 * what it answers to, and a portrait before a soft background is sharp where it counts.
 */
function sharpnessOf(grey: Uint8Array, width: number, height: number): number {
  const at = (index: number) => grey[index] ?? 0;
  let best = 0;
  for (let field = 0; field < FIELDS * FIELDS; field++) {
    const [column, row] = [field % FIELDS, Math.floor(field / FIELDS)];
    const [left, right] = [column, column + 1].map((edge) => Math.round((edge * width) / FIELDS)) as [number, number];
    const [top, bottom] = [row, row + 1].map((edge) => Math.round((edge * height) / FIELDS)) as [number, number];
    let [sum, squares, count] = [0, 0, 0];
    for (let y = Math.max(top, 1); y < Math.min(bottom, height - 1); y++) {
      for (let x = Math.max(left, 1); x < Math.min(right, width - 1); x++) {
        const here = y * width + x;
        const value = at(here - width) + at(here + width) + at(here - 1) + at(here + 1) - 4 * at(here);
        sum += value;
        squares += value * value;
        count += 1;
      }
    }
    if (count > 0) best = Math.max(best, squares / count - (sum / count) ** 2);
  }
  return best;
}

async function differenceHash(grey: Uint8Array, width: number, height: number): Promise<string> {
  const small = await sharp(grey, { raw: { width, height, channels: 1 } })
    .resize(9, 8, { fit: "fill" })
    .toColourspace("b-w")
    .raw()
    .toBuffer();
  let bits = 0n;
  for (let row = 0; row < 8; row++) {
    for (let column = 0; column < 8; column++) {
      const at = row * 9 + column;
      bits = (bits << 1n) | ((small[at] ?? 0) > (small[at + 1] ?? 0) ? 1n : 0n);
    }
  }
  return bits.toString(16).padStart(16, "0");
}

/**
 * Skin of all tones differs in brightness far more than in colour: in YCbCr (JPEG's, 0..255) it lies at Cb 77..127 and
 * Cr 133..173 (Chai and Ngan, 1999). Wood, sand and warm light lie there too.
 */
function skinOf({ rgb, width, height }: Picture): number {
  const [left, top] = [Math.floor(width / 4), Math.floor(height / 4)];
  let [skin, count] = [0, 0];
  for (let y = top; y < height - top; y++) {
    for (let x = left; x < width - left; x++) {
      const at = 3 * (y * width + x);
      const [red = 0, green = 0, blue = 0] = [rgb[at], rgb[at + 1], rgb[at + 2]];
      const cb = 128 - 0.168736 * red - 0.331264 * green + 0.5 * blue;
      const cr = 128 + 0.5 * red - 0.418688 * green - 0.081312 * blue;
      if (cb >= 77 && cb <= 127 && cr >= 133 && cr <= 173) skin += 1;
      count += 1;
    }
  }
  return count === 0 ? 0 : Math.round((skin / count) * 1000) / 1000;
}

function isBlank({ rgb }: Picture): boolean {
  const count = rgb.length / 3;
  return [0, 1, 2].every((channel) => {
    let [sum, squares] = [0, 0];
    for (let at = channel; at < rgb.length; at += 3) {
      const value = rgb[at] ?? 0;
      sum += value;
      squares += value * value;
    }
    return squares / count - (sum / count) ** 2 < BLANK_BELOW ** 2;
  });
}
