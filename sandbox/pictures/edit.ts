import sharp from "sharp";
import { sha256 } from "../id.ts";
import { furnishing } from "./furnishing.ts";
import { randomFrom } from "./random.ts";
import { rect } from "./svg.ts";

/** A photo as plain pixels: red, green, blue. */
export interface Pixels {
  readonly data: Buffer;
  readonly width: number;
  readonly height: number;
}

/** What the words ask for: furniture, none of it, or anything else. */
export type Edit = "furnish" | "empty" | "tint";

export function editFor(prompt: string): Edit {
  if (/^\s*furnish/i.test(prompt)) return "furnish";
  return /^\s*(remove|empty)/i.test(prompt) ? "empty" : "tint";
}

/** What is laid over the photo, as SVG. */
export function overlayFor(
  edit: Edit,
  { width, height }: Pixels,
  about: { model: string; prompt: string; seed: number },
) {
  const { model, prompt, seed } = about;
  switch (edit) {
    case "furnish":
      return furnishing(width, height, prompt, randomFrom(`${model}\n${prompt}\n${seed}`));
    case "empty":
      return "";
    case "tint": {
      const hue = Number.parseInt(sha256(`${prompt}\n${seed}`).slice(0, 4), 16) % 360;
      return rect(0, 0, width, height, `hsl(${hue},80%,45%)`, `fill-opacity="0.26"`);
    }
  }
}

const FURNITURE_FROM = 0.42; // of the height: above hang pictures, below stands what is to go
const FADE = 0.1; // of the height, so that no edge shows
const COARSE = 9; // blocks across the width that the smooth part is made of

/** The photo with its lower part smoothed, as if nothing stood there. */
export async function emptied({ data, width, height }: Pixels): Promise<Pixels> {
  const raw = { width, height, channels: 3 } as const;
  const tiny = { width: COARSE, height: Math.max(1, Math.round((COARSE * height) / width)) };
  // Small and large again is a wide blur that costs the same for every size.
  const small = await sharp(data, { raw })
    .resize({ ...tiny, fit: "fill" })
    .raw()
    .toBuffer();
  const smooth = await sharp(small, { raw: { ...tiny, channels: 3 } })
    .resize({ width, height, fit: "fill", kernel: "cubic" })
    .raw()
    .toBuffer();
  const mixed = Buffer.from(data);
  for (let y = Math.floor(height * FURNITURE_FROM); y < height; y += 1) {
    const share = Math.min(1, (y / height - FURNITURE_FROM) / FADE);
    for (let at = y * width * 3; at < (y + 1) * width * 3; at += 1) {
      const here = data[at] ?? 0;
      mixed[at] = here + ((smooth[at] ?? 0) - here) * share;
    }
  }
  return { data: mixed, width, height };
}

/** The photo where the mask is dark, the paint where it is light; no pixel is anything between. */
export function masked(photo: Pixels, paint: Buffer, mask: Buffer): Buffer {
  const mixed = Buffer.from(photo.data);
  for (let pixel = 0; pixel < mask.length; pixel += 1) {
    if ((mask[pixel] ?? 0) < 128) continue;
    paint.copy(mixed, pixel * 3, pixel * 3, pixel * 3 + 3);
  }
  return mixed;
}
