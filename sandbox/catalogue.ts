import type { Fields, Values } from "./field.ts";
import type { Reel } from "./film.ts";
import { sha256 } from "./id.ts";
import { FAST_FLUX_TRAINING, FLUX_TRAINING, SDXL_TRAINING } from "./training.ts";
import { SEEDANCE, seedanceReel, WAN_FAST, wanReel, ZEROSCOPE, zeroscopeReel } from "./video.ts";

/** "second" is a second of running, "output second" one of the film. */
export type Price = { readonly per: "image" | "video" | "output second" | "second"; readonly usd: number };

/** What a version does when it is run. */
export interface Program {
  readonly input: Fields;
  /** "array": a list of URLs; "single": one URL. */
  readonly output: "array" | "single";
  /** "scene" paints from words; "furnish" changes the caller's photo; "fill" repaints the part of it that a mask shows. */
  readonly art: "scene" | "furnish" | "fill";
  /** The input that holds the caller's photo. Without it, pictures among the inputs are not looked at. */
  readonly photo?: string;
  /** Films instead of pictures. */
  readonly reel?: (values: Values) => Reel;
  readonly price: Price;
  readonly runMs: number;
  readonly training?: { readonly input: Fields; readonly price: Price; readonly runMs: number };
}

export interface CatalogueEntry extends Program {
  readonly owner: string;
  readonly name: string;
  readonly description: string;
  /** Official models run by name and hide their version; all others run by version only. */
  readonly official: boolean;
  readonly versions: readonly [string, ...string[]];
}

/** USD per second, as on the pricing page. */
export const HARDWARE = [
  { name: "CPU", sku: "cpu", usd: 0.0001 },
  { name: "Nvidia T4 GPU", sku: "gpu-t4", usd: 0.000225 },
  { name: "Nvidia L40S GPU", sku: "gpu-l40s", usd: 0.000975 },
  { name: "2x Nvidia L40S GPU", sku: "gpu-l40s-2x", usd: 0.00195 },
  { name: "Nvidia A100 (80GB) GPU", sku: "gpu-a100-large", usd: 0.0014 },
  { name: "Nvidia H100 GPU", sku: "gpu-h100", usd: 0.001525 },
  { name: "8x Nvidia H100 GPU", sku: "gpu-h100-8x", usd: 0.0122 },
] as const;
const A100_SECOND: Price = { per: "second", usd: 0.0014 };
const L40S_SECOND: Price = { per: "second", usd: 0.000975 };
export const H100_SECOND: Price = { per: "second", usd: 0.001525 };
const H100_8X_SECOND: Price = { per: "second", usd: 0.0122 };

const RATIOS = ["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"] as const;

const SCHNELL: Fields = {
  prompt: { type: "string", required: true, description: "Prompt for generated image" },
  aspect_ratio: { type: "string", enum: RATIOS, default: "1:1", description: "Aspect ratio for the generated image" },
  num_outputs: { type: "integer", default: 1, minimum: 1, maximum: 4, description: "Number of outputs to generate" },
  num_inference_steps: { type: "integer", default: 4, minimum: 1, maximum: 4 },
  seed: { type: "integer", description: "Random seed. Set for reproducible generation" },
  output_format: { type: "string", enum: ["webp", "jpg", "png"], default: "webp" },
  output_quality: { type: "integer", default: 80, minimum: 0, maximum: 100 },
  disable_safety_checker: { type: "boolean", default: false },
  go_fast: { type: "boolean", default: true },
  megapixels: { type: "string", enum: ["1", "0.25"], default: "1" },
};

const DEV: Fields = {
  ...SCHNELL,
  num_inference_steps: { type: "integer", default: 28, minimum: 1, maximum: 50 },
  image: { type: "string", format: "uri", description: "Input image for image to image mode" },
  prompt_strength: { type: "number", default: 0.8, minimum: 0, maximum: 1 },
  guidance: { type: "number", default: 3, minimum: 0, maximum: 10 },
};

const DEV_LORA: Fields = {
  ...DEV,
  lora_weights: { type: "string", description: "Load LoRA weights" },
  lora_scale: { type: "number", default: 1, minimum: -1, maximum: 3 },
};

const SCHNELL_LORA: Fields = {
  ...SCHNELL,
  lora_weights: { type: "string", description: "Load LoRA weights" },
  lora_scale: { type: "number", default: 1, minimum: -1, maximum: 3 },
};

/** What a model made by one of the Flux trainers takes. */
const TRAINED_FLUX: Fields = {
  ...SCHNELL,
  aspect_ratio: { type: "string", enum: [...RATIOS, "custom"], default: "1:1" },
  width: { type: "integer", minimum: 256, maximum: 1440 },
  height: { type: "integer", minimum: 256, maximum: 1440 },
  image: { type: "string", format: "uri" },
  mask: { type: "string", format: "uri" },
  model: { type: "string", enum: ["dev", "schnell"], default: "dev" },
  num_inference_steps: { type: "integer", default: 28, minimum: 1, maximum: 50 },
  guidance_scale: { type: "number", default: 3, minimum: 0, maximum: 10 },
  prompt_strength: { type: "number", default: 0.8, minimum: 0, maximum: 1 },
  lora_scale: { type: "number", default: 1, minimum: -1, maximum: 3 },
  extra_lora: { type: "string" },
  extra_lora_scale: { type: "number", default: 1, minimum: -1, maximum: 3 },
  replicate_weights: { type: "string" },
};

const KONTEXT: Fields = {
  prompt: { type: "string", required: true, description: "What to change in the picture" },
  input_image: { type: "string", format: "uri", description: "Image to use as reference: jpeg, png, gif, or webp" },
  aspect_ratio: { type: "string", enum: ["match_input_image", ...RATIOS, "2:1", "1:2"], default: "match_input_image" },
  output_format: { type: "string", enum: ["jpg", "png"], default: "png" },
  seed: { type: "integer" },
  safety_tolerance: { type: "integer", default: 2, minimum: 0, maximum: 6 },
  prompt_upsampling: { type: "boolean", default: false },
};

const FILL: Fields = {
  prompt: { type: "string", required: true, description: "Text prompt for image generation" },
  image: {
    type: "string",
    format: "uri",
    required: true,
    description: "The image to inpaint: jpeg, png, gif, or webp",
  },
  mask: { type: "string", format: "uri", description: "Black areas are preserved, white areas are inpainted" },
  steps: { type: "integer", default: 50, minimum: 15, maximum: 50 },
  guidance: { type: "number", default: 60, minimum: 1.5, maximum: 100 },
  output_format: { type: "string", enum: ["jpg", "png"], default: "jpg" },
  seed: { type: "integer" },
  safety_tolerance: { type: "integer", default: 2, minimum: 1, maximum: 6 },
  prompt_upsampling: { type: "boolean", default: false },
};

const SCHEDULERS = ["DDIM", "DPMSolverMultistep", "HeunDiscrete", "KarrasDPM", "K_EULER_ANCESTRAL", "K_EULER", "PNDM"];

const SDXL: Fields = {
  prompt: { type: "string", default: "An astronaut riding a rainbow unicorn" },
  negative_prompt: { type: "string", default: "" },
  image: { type: "string", format: "uri" },
  mask: { type: "string", format: "uri" },
  width: { type: "integer", default: 1024, minimum: 64, maximum: 2048 },
  height: { type: "integer", default: 1024, minimum: 64, maximum: 2048 },
  num_outputs: { type: "integer", default: 1, minimum: 1, maximum: 4 },
  scheduler: { type: "string", enum: SCHEDULERS, default: "K_EULER" },
  num_inference_steps: { type: "integer", default: 50, minimum: 1, maximum: 500 },
  guidance_scale: { type: "number", default: 7.5, minimum: 1, maximum: 50 },
  prompt_strength: { type: "number", default: 0.8, minimum: 0, maximum: 1 },
  seed: { type: "integer" },
  refine: {
    type: "string",
    enum: ["no_refiner", "expert_ensemble_refiner", "base_image_refiner"],
    default: "no_refiner",
  },
  high_noise_frac: { type: "number", default: 0.8, minimum: 0, maximum: 1 },
  refine_steps: { type: "integer" },
  apply_watermark: { type: "boolean", default: true },
  lora_scale: { type: "number", default: 0.6, minimum: 0, maximum: 1 },
  replicate_weights: { type: "string" },
  disable_safety_checker: { type: "boolean", default: false },
};

const LIGHTNING: Fields = {
  prompt: { type: "string", default: "self-portrait of a woman, lightning in the background" },
  negative_prompt: { type: "string", default: "worst quality, low quality" },
  width: { type: "integer", default: 1024, minimum: 256, maximum: 1280 },
  height: { type: "integer", default: 1024, minimum: 256, maximum: 1280 },
  num_outputs: { type: "integer", default: 1, minimum: 1, maximum: 4 },
  scheduler: { type: "string", enum: [...SCHEDULERS, "DPM++2MSDE"], default: "K_EULER" },
  num_inference_steps: { type: "integer", default: 4, minimum: 1, maximum: 10 },
  guidance_scale: { type: "number", default: 0, minimum: 0, maximum: 50 },
  seed: { type: "integer", default: 0 },
  disable_safety_checker: { type: "boolean", default: false },
};

const official = (owner: string, name: string) =>
  ({ owner, name, official: true, versions: [sha256(`${owner}/${name}`)] }) as const;

export const CATALOGUE: readonly CatalogueEntry[] = [
  {
    ...official("black-forest-labs", "flux-schnell"),
    description: "The fastest image generation model tailored for local development and personal use",
    input: SCHNELL,
    output: "array",
    art: "scene",
    price: { per: "image", usd: 0.003 },
    runMs: 1_000,
  },
  {
    ...official("black-forest-labs", "flux-dev"),
    description:
      "A 12 billion parameter rectified flow transformer capable of generating images from text descriptions",
    input: DEV,
    output: "array",
    art: "scene",
    price: { per: "image", usd: 0.025 },
    runMs: 2_000,
  },
  {
    ...official("black-forest-labs", "flux-dev-lora"),
    description: "A version of flux-dev that supports fast fine-tuned lora inference",
    input: DEV_LORA,
    output: "array",
    art: "scene",
    price: { per: "image", usd: 0.032 },
    runMs: 2_000,
  },
  {
    ...official("black-forest-labs", "flux-schnell-lora"),
    description: "The fastest image generation model tailored for fine-tuned use",
    input: SCHNELL_LORA,
    output: "array",
    art: "scene",
    price: { per: "image", usd: 0.02 },
    runMs: 1_000,
  },
  {
    ...official("black-forest-labs", "flux-kontext-pro"),
    description: "A state-of-the-art text-based image editing model",
    input: KONTEXT,
    output: "single",
    art: "furnish",
    photo: "input_image",
    price: { per: "image", usd: 0.04 },
    runMs: 2_500,
  },
  {
    ...official("black-forest-labs", "flux-fill-pro"),
    description: "Professional inpainting and outpainting model with state-of-the-art performance",
    input: FILL,
    output: "single",
    art: "fill",
    photo: "image",
    price: { per: "image", usd: 0.05 },
    runMs: 2_500,
  },
  {
    ...official("bytedance", "seedance-1-lite"),
    description: "A video generation model that offers text-to-video and image-to-video support",
    input: SEEDANCE,
    output: "single",
    art: "scene",
    photo: "image",
    reel: seedanceReel,
    price: { per: "output second", usd: 0.036 },
    runMs: 4_000,
  },
  {
    ...official("wan-video", "wan-2.2-i2v-fast"),
    description: "A very fast and cheap image-to-video model",
    input: WAN_FAST,
    output: "single",
    art: "scene",
    photo: "image",
    reel: wanReel,
    price: { per: "video", usd: 0.05 },
    runMs: 4_000,
  },
  {
    owner: "anotherjesse",
    name: "zeroscope-v2-xl",
    official: false,
    description: "Zeroscope V2 XL & 576w",
    versions: ["9f747673945c62801b13b84701c783929c0ee784e4748ec062204894dda1a351"],
    input: ZEROSCOPE,
    output: "array",
    art: "scene",
    reel: zeroscopeReel,
    price: L40S_SECOND,
    runMs: 5_000,
  },
  {
    owner: "stability-ai",
    name: "sdxl",
    official: false,
    description: "A text-to-image generative AI model that creates beautiful images",
    versions: ["7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc"],
    input: SDXL,
    output: "array",
    art: "scene",
    price: L40S_SECOND,
    runMs: 2_500,
    training: { input: SDXL_TRAINING, price: A100_SECOND, runMs: 6_000 },
  },
  {
    owner: "bytedance",
    name: "sdxl-lightning-4step",
    official: false,
    description: "SDXL-Lightning: a fast text-to-image model that makes high-quality images in 4 steps",
    versions: ["5599ed30703defd1d160a25a63321b4dec97101d98b4674bcc56e41f62f35637"],
    input: LIGHTNING,
    output: "array",
    art: "scene",
    price: A100_SECOND,
    runMs: 1_000,
  },
  {
    owner: "ostris",
    name: "flux-dev-lora-trainer",
    official: false,
    description: "Fine-tune FLUX.1-dev using ai-toolkit",
    versions: ["e440909d3512c31646ee2e0c7d6f6f4923224863a6a10c494606e79fb5844497"],
    input: TRAINED_FLUX,
    output: "array",
    art: "scene",
    price: H100_SECOND,
    runMs: 2_000,
    training: { input: FLUX_TRAINING, price: H100_SECOND, runMs: 6_000 },
  },
  {
    owner: "replicate",
    name: "fast-flux-trainer",
    official: false,
    description: "Train subjects or styles faster than ever",
    versions: [
      "8b10794665aed907bb98a1a5324cd1d3a8bea0e9b31e65210967fb9c9e2e08ed",
      "f463fbfc97389e10a2f443a8a84b6953b1058eafbf0c9af4d84457ff07cb04db",
      "56cb4a6447e586e40c6834a7a48b649336ade35325479817ada41cd3d8dcc175",
    ],
    input: TRAINED_FLUX,
    output: "array",
    art: "scene",
    price: H100_SECOND,
    runMs: 2_000,
    training: { input: FAST_FLUX_TRAINING, price: H100_8X_SECOND, runMs: 6_000 },
  },
];

/** What runs under a version that a training made here. */
export const TRAINED: Program = {
  input: TRAINED_FLUX,
  output: "array",
  art: "scene",
  price: H100_SECOND,
  runMs: 2_000,
};
