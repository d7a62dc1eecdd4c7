import sharp, { type Sharp } from "sharp";
import type { Values } from "../field.ts";
import type { Lora } from "../lora.ts";
import { editFor, emptied, masked, overlayFor, type Pixels } from "./edit.ts";
import { label } from "./label.ts";
import { loraMark } from "./lora.ts";
import { scene } from "./scene.ts";

sharp.cache(false); // every picture is drawn once; what is kept is kept by the gallery

export interface Sketch {
  readonly model: string;
  /** Without directives. */
  readonly prompt: string;
  readonly seed: number;
  readonly values: Values;
  /** The caller's own picture, for models that edit one. */
  readonly photo: Buffer | null;
  /** Paints into the photo instead of over it: where this is light, or where the photo is transparent. */
  readonly fill: { readonly mask: Buffer | null } | null;
  readonly lora: Lora | null;
}

interface Size {
  readonly width: number;
  readonly height: number;
}

/** What Flux makes of an aspect ratio at one megapixel. */
const SIZES: Readonly<Record<string, Size>> = {
  "1:1": { width: 1024, height: 1024 },
  "16:9": { width: 1344, height: 768 },
  "21:9": { width: 1536, height: 640 },
  "3:2": { width: 1216, height: 832 },
  "2:3": { width: 832, height: 1216 },
  "4:5": { width: 896, height: 1088 },
  "5:4": { width: 1088, height: 896 },
  "3:4": { width: 896, height: 1152 },
  "4:3": { width: 1152, height: 896 },
  "9:16": { width: 768, height: 1344 },
  "9:21": { width: 640, height: 1536 },
  "2:1": { width: 1408, height: 704 },
  "1:2": { width: 704, height: 1408 },
};
const SQUARE: Size = { width: 1024, height: 1024 };
const MAX_SIDE = 4_096; // pixels; a larger photo is made smaller first
const MAX_PIXELS = 64_000_000; // pixels of a photo

/** The finished picture. The same sketch gives the same bytes. */
export function draw(sketch: Sketch): Promise<Buffer> {
  const { photo, fill } = sketch;
  if (!photo) return painted(sketch);
  return fill ? filled(sketch, photo, fill.mask) : edited(sketch, photo);
}

function painted(sketch: Sketch): Promise<Buffer> {
  const { model, prompt, seed } = sketch;
  const { width, height } = sizeOf(sketch.values);
  const svg = framed(
    width,
    height,
    scene(model, prompt, seed, width, height) +
      loraMark(width, height, sketch.lora) +
      label(width, height, model, seed, prompt),
  );
  return encoded(sharp(svg).flatten({ background: "#101218" }), sketch.values);
}

/** The caller's photo, upright and as large as it was, changed as the words ask. */
async function edited(sketch: Sketch, photo: Buffer): Promise<Buffer> {
  const { model, prompt, seed, values } = sketch;
  const wanted = SIZES[String(values["aspect_ratio"])];
  const upright = sharp(photo, { limitInputPixels: MAX_PIXELS }).rotate().flatten({ background: "#ffffff" });
  const fitted = wanted
    ? upright.resize({ ...wanted, fit: "cover" })
    : upright.resize({ width: MAX_SIDE, height: MAX_SIDE, fit: "inside", withoutEnlargement: true });
  const edit = editFor(prompt);
  const found = await pixelsOf(fitted);
  const { data, width, height } = edit === "empty" ? await emptied(found) : found;
  const overlay = overlayFor(edit, found, { model, prompt, seed }) + label(width, height, model, seed, prompt);
  const room = sharp(data, { raw: { width, height, channels: 3 } });
  return encoded(room.composite([{ input: framed(width, height, overlay) }]), values);
}

/** The caller's photo with a scene where the mask is light; every other pixel is the caller's. */
async function filled(sketch: Sketch, photo: Buffer, mask: Buffer | null): Promise<Buffer> {
  const { model, prompt, seed, values } = sketch;
  const bounds = { width: MAX_SIDE, height: MAX_SIDE, fit: "inside", withoutEnlargement: true } as const;
  const upright = (bytes: Buffer) => sharp(bytes, { limitInputPixels: MAX_PIXELS }).rotate().resize(bounds);
  const found = await pixelsOf(upright(photo));
  const { width, height } = found;
  const content = scene(model, prompt, seed, width, height) + label(width, height, model, seed, prompt);
  const paint = await pixelsOf(sharp(framed(width, height, content)).flatten({ background: "#101218" }));
  const light = mask
    ? upright(mask).flatten({ background: "#000000" }).greyscale().extractChannel(0)
    : upright(photo).ensureAlpha().extractChannel(3).negate();
  const mixed = masked(found, paint.data, await light.toColourspace("b-w").raw().toBuffer());
  return encoded(sharp(mixed, { raw: { width, height, channels: 3 } }), values);
}

async function pixelsOf(image: Sharp): Promise<Pixels> {
  const { data, info } = await image.removeAlpha().toColourspace("srgb").raw().toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

function sizeOf(values: Values): Size {
  const { width, height } = values as { width?: unknown; height?: unknown };
  const ratio = values["aspect_ratio"];
  if (typeof width === "number" && typeof height === "number" && (ratio === undefined || ratio === "custom")) {
    return { width: sixteenths(width), height: sixteenths(height) };
  }
  const full = SIZES[String(ratio)] ?? SQUARE;
  return values["megapixels"] === "0.25" ? { width: full.width / 2, height: full.height / 2 } : full;
}

/** Models round sizes to multiples of 16. */
function sixteenths(side: number): number {
  return Math.max(64, Math.round(side / 16) * 16);
}

/** SVG of this size around its content. */
export function framed(width: number, height: number, content: string): Buffer {
  return Buffer.from(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">${content}</svg>`,
  );
}

function encoded(image: Sharp, values: Values): Promise<Buffer> {
  const asked = values["output_quality"];
  const quality = Math.max(1, typeof asked === "number" ? asked : 80);
  switch (values["output_format"]) {
    case "webp":
      return image.webp({ quality, effort: 2 }).toBuffer();
    case "jpg":
      return image.jpeg({ quality }).toBuffer();
    default:
      return image.png({ compressionLevel: 4 }).toBuffer();
  }
}
