import type { Price, Program } from "../catalogue.ts";
import type { Fields, Input, Values } from "../field.ts";
import type { Reel } from "../film.ts";
import { seedanceReel, wanReel } from "../video.ts";

/** A model in fal's own words, and what is painted when they are read. */
export interface FalModel {
  /** owner/alias, with a path behind it where the application has several. */
  readonly name: string;
  /** What it takes, in fal's names; sizes and weights, which are no plain values, are checked by their own reader. */
  readonly input: Fields;
  /** The size that it makes when none is named; null: it takes none. */
  readonly size: SizeName | null;
  readonly loras: boolean;
  readonly makes: "images" | "video";
  /** "flags": black pictures, marked as such; "error": the run fails. */
  readonly heldBack: "flags" | "error";
  readonly art: Program["art"];
  /** Which of the gallery's values holds the caller's photo. */
  readonly photo?: string;
  readonly reel?: (values: Values) => Reel;
  readonly runMs: number;
  /** Of one output of so many started megapixels. */
  price(input: Input, megapixels: number): Price;
}

/** Width and height in pixels. */
export const SIZES = {
  square_hd: [1024, 1024],
  square: [512, 512],
  portrait_4_3: [768, 1024],
  portrait_16_9: [576, 1024],
  landscape_4_3: [1024, 768],
  landscape_16_9: [1024, 576],
} as const;
type SizeName = keyof typeof SIZES;

/** What the gallery reads, whatever the provider calls it. */
export const PAINTED: Fields = {
  prompt: { type: "string" },
  seed: { type: "integer" },
  num_outputs: { type: "integer", default: 1 },
  num_inference_steps: { type: "integer" },
  width: { type: "integer" },
  height: { type: "integer" },
  aspect_ratio: { type: "string" },
  output_format: { type: "string", default: "jpg" },
  lora_weights: { type: "string" },
  lora_scale: { type: "number", default: 1 },
  image: { type: "string" },
  mask: { type: "string" },
  resolution: { type: "string" },
  duration: { type: "number" },
  num_frames: { type: "integer", default: 81 },
  frames_per_second: { type: "integer", default: 16 },
};

const PHOTO = { type: "string", format: "uri", required: true } as const;
const PROMPT = { type: "string", required: true } as const;
const SEED = { type: "integer" } as const;
const SAFETY = { type: "boolean", default: true } as const;

const PICTURES: Fields = {
  prompt: PROMPT,
  num_images: { type: "integer", default: 1, minimum: 1, maximum: 4 },
  num_inference_steps: { type: "integer", default: 28, minimum: 1, maximum: 50 },
  guidance_scale: { type: "number", default: 3.5, minimum: 1, maximum: 20 },
  seed: SEED,
  output_format: { type: "string", enum: ["jpeg", "png"], default: "jpeg" },
  enable_safety_checker: SAFETY,
  acceleration: { type: "string", enum: ["none", "regular", "high"], default: "none" },
  sync_mode: { type: "boolean", default: false },
};
const CHANGED: Fields = { ...PICTURES, image_url: PHOTO, strength: { type: "number", minimum: 0, maximum: 1 } };

const TOLERANCE = { type: "string", enum: ["1", "2", "3", "4", "5", "6"], default: "2" } as const;
const PRO: Fields = {
  prompt: PROMPT,
  image_url: PHOTO,
  num_images: { type: "integer", default: 1, minimum: 1, maximum: 4 },
  seed: SEED,
  output_format: { type: "string", enum: ["jpeg", "png"], default: "jpeg" },
  safety_tolerance: TOLERANCE,
  sync_mode: { type: "boolean", default: false },
};
const KONTEXT: Fields = {
  ...PRO,
  guidance_scale: { type: "number", default: 3.5, minimum: 1, maximum: 20 },
  aspect_ratio: { type: "string", enum: ["21:9", "16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "9:21"] },
};

const SECONDS = ["2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];
const SEEDANCE: Fields = {
  prompt: PROMPT,
  aspect_ratio: { type: "string", enum: ["21:9", "16:9", "4:3", "1:1", "3:4", "9:16", "9:21", "auto"] },
  resolution: { type: "string", enum: ["480p", "720p", "1080p"], default: "720p" },
  duration: { type: "string", enum: SECONDS, default: "5" },
  camera_fixed: { type: "boolean", default: false },
  seed: SEED,
  enable_safety_checker: SAFETY,
};
const WAN: Fields = {
  prompt: PROMPT,
  negative_prompt: { type: "string" },
  image_url: PHOTO,
  num_frames: { type: "integer", default: 81, minimum: 81, maximum: 100 },
  frames_per_second: { type: "integer", default: 16, minimum: 5, maximum: 24 },
  resolution: { type: "string", enum: ["480p", "720p"], default: "720p" },
  aspect_ratio: { type: "string", enum: ["auto", "16:9", "9:16", "1:1"], default: "auto" },
  num_inference_steps: { type: "integer", default: 30, minimum: 2, maximum: 40 },
  seed: SEED,
  enable_safety_checker: SAFETY,
};
/** Always 81 frames, of which 16 make a second. */
const WAN_TURBO: Fields = {
  prompt: PROMPT,
  image_url: PHOTO,
  resolution: { type: "string", enum: ["480p", "580p", "720p"], default: "720p" },
  aspect_ratio: { type: "string", enum: ["auto", "16:9", "9:16", "1:1"], default: "auto" },
  seed: SEED,
  enable_safety_checker: SAFETY,
};

const SCENE = { art: "scene", size: null, loras: false, makes: "images", heldBack: "flags", runMs: 2_000 } as const;
const FILM = { ...SCENE, makes: "video", heldBack: "error", runMs: 4_000 } as const;
const LANDSCAPE = "landscape_4_3";

const perMegapixel = (usd: number) => (_: Input, megapixels: number) =>
  ({ per: "image", usd: usd * megapixels }) as const;
const perImage = (usd: number) => () => ({ per: "image", usd }) as const;
const seedancePrice = ({ resolution }: Input): Price => ({
  per: "output second",
  // 1.8 USD for a million tokens of 1,024 pixels: 24 frames a second of 864x480, 1248x704 or 1920x1088.
  usd: resolution === "480p" ? 0.0175 : resolution === "1080p" ? 0.088 : 0.036,
});

/** Prices and fields: the models' pages and the client's types, 2026-11. */
export const MODELS: readonly FalModel[] = [
  {
    ...SCENE,
    name: "fal-ai/flux/schnell",
    input: { ...PICTURES, num_inference_steps: { type: "integer", default: 4, minimum: 1, maximum: 12 } },
    size: LANDSCAPE,
    runMs: 1_000,
    price: perMegapixel(0.003),
  },
  { ...SCENE, name: "fal-ai/flux/dev", input: PICTURES, size: LANDSCAPE, price: perMegapixel(0.025) },
  {
    ...SCENE,
    name: "fal-ai/flux/dev/image-to-image",
    input: CHANGED,
    photo: "image",
    art: "furnish",
    price: perMegapixel(0.03),
  },
  { ...SCENE, name: "fal-ai/flux-lora", input: PICTURES, size: LANDSCAPE, loras: true, price: perMegapixel(0.035) },
  {
    ...SCENE,
    name: "fal-ai/flux-lora/image-to-image",
    input: CHANGED,
    photo: "image",
    art: "furnish",
    loras: true,
    price: perMegapixel(0.035),
  },
  {
    ...SCENE,
    name: "fal-ai/flux-pro/kontext",
    input: KONTEXT,
    photo: "image",
    art: "furnish",
    heldBack: "error",
    runMs: 2_500,
    price: perImage(0.04),
  },
  {
    ...SCENE,
    name: "fal-ai/flux-pro/v1/fill",
    input: { ...PRO, mask_url: PHOTO },
    photo: "image",
    art: "fill",
    heldBack: "error",
    runMs: 2_500,
    price: perImage(0.05),
  },
  {
    ...FILM,
    name: "fal-ai/bytedance/seedance/v1/lite/text-to-video",
    input: SEEDANCE,
    reel: seedanceReel,
    price: seedancePrice,
  },
  {
    ...FILM,
    name: "fal-ai/bytedance/seedance/v1/lite/image-to-video",
    input: { ...SEEDANCE, image_url: PHOTO },
    photo: "image",
    reel: seedanceReel,
    price: seedancePrice,
  },
  {
    ...FILM,
    name: "fal-ai/wan-i2v",
    input: WAN,
    photo: "image",
    reel: wanReel,
    price: ({ resolution, num_frames: frames }) => ({
      per: "video",
      usd: (resolution === "480p" ? 0.2 : 0.4) * (typeof frames === "number" && frames > 81 ? 1.25 : 1),
    }),
  },
  {
    ...FILM,
    name: "fal-ai/wan/v2.2-a14b/image-to-video/turbo",
    input: WAN_TURBO,
    photo: "image",
    reel: wanReel,
    price: ({ resolution }) => ({
      per: "video",
      usd: resolution === "480p" ? 0.05 : resolution === "580p" ? 0.075 : 0.1,
    }),
  },
];
