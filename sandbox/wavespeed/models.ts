import { CATALOGUE, type Price, type Program } from "../catalogue.ts";
import { type Fields, type Input, violations } from "../field.ts";
import type { Violation } from "../problem.ts";
import { SEEDANCE, seedanceReel } from "../video.ts";

/** A model under WaveSpeed's name, with WaveSpeed's parameters. */
export interface SoldModel {
  readonly id: string;
  readonly type: "text-to-image" | "image-to-image" | "text-to-video" | "image-to-video";
  readonly description: string;
  readonly fields: Fields;
  /** What is drawn for it: the same painters as for Replicate's models. */
  readonly program: Program;
  /** Its parameters in the painters' words. Only called with what `breaches` found nothing in. */
  translate(input: Input): Input;
}

const SIZE = { type: "string", default: "1024*1024", description: "Pixels, width*height" } as const;
const SEED = { type: "integer", default: -1, minimum: -1, maximum: 2_147_483_647 } as const;
const SYNC = { type: "boolean", default: false, description: "Wait for the result before answering" } as const;
const MAX_LORAS = 5;
const MIN_SIDE = 256;
const MAX_SIDE = 1_536;

const SCHNELL: Fields = {
  prompt: { type: "string", required: true, description: "The prompt to generate an image from." },
  image: { type: "string", format: "uri" },
  mask_image: { type: "string", format: "uri" },
  strength: { type: "number", default: 0.8, minimum: 0, maximum: 1 },
  size: SIZE,
  seed: SEED,
  num_images: { type: "integer", default: 1, minimum: 1, maximum: 4 },
  output_format: { type: "string", enum: ["jpeg", "png"], default: "jpeg" },
  enable_base64_output: { type: "boolean", default: false },
  enable_sync_mode: SYNC,
};
const DEV: Fields = {
  ...SCHNELL,
  num_inference_steps: { type: "integer", default: 28, minimum: 1, maximum: 50 },
  guidance_scale: { type: "number", default: 3.5, minimum: 1, maximum: 20 },
  enable_safety_checker: { type: "boolean", default: true },
};
const KONTEXT: Fields = {
  prompt: { type: "string", required: true, description: "What to change in the image." },
  image: { type: "string", format: "uri", required: true },
  aspect_ratio: { type: "string" },
  guidance_scale: { type: "number", default: 3.5, minimum: 1, maximum: 10 },
  safety_tolerance: { type: "string", enum: ["1", "2", "3", "4", "5"], default: "2" },
  seed: SEED,
  enable_sync_mode: SYNC,
};
const SEEDANCE_TEXT: Fields = {
  prompt: { type: "string", required: true, description: "The positive prompt for the generation." },
  aspect_ratio: { type: "string", enum: ["21:9", "16:9", "4:3", "1:1", "3:4", "9:16"], default: "16:9" },
  duration: { type: "integer", default: 5, minimum: 2, maximum: 12 },
  camera_fixed: { type: "boolean", default: false },
  seed: SEED,
};
const SEEDANCE_IMAGE: Fields = {
  ...SEEDANCE_TEXT,
  prompt: { type: "string" },
  image: { type: "string", format: "uri", required: true },
  last_image: { type: "string", format: "uri" },
};
const WAN: Fields = {
  prompt: { type: "string", required: true },
  image: { type: "string", format: "uri", required: true },
  last_image: { type: "string", format: "uri" },
  negative_prompt: { type: "string" },
  size: { type: "string", enum: ["832*480", "480*832", "1280*720", "720*1280"], default: "832*480" },
  duration: { type: "integer", default: 5, minimum: 5, maximum: 8 },
  seed: SEED,
};

/** Its results are always lists, and cost what they cost here. */
function likeAt(owner: string, name: string, price: Price, more: Partial<Program> = {}): Program {
  const found = CATALOGUE.find((each) => each.owner === owner && each.name === name);
  if (!found) throw new Error(`there is no ${owner}/${name} to draw like`);
  const { input, art, photo, reel, runMs } = found;
  return { input, art, ...(photo && { photo }), ...(reel && { reel }), runMs, output: "array", price, ...more };
}

const perImage = (usd: number): Price => ({ per: "image", usd });
const perFilmSecond = (usd: number): Price => ({ per: "output second", usd });

function flux(name: string, usd: number): Program {
  const like = likeAt("black-forest-labs", name, perImage(usd));
  const side = { type: "integer", minimum: MIN_SIDE, maximum: MAX_SIDE } as const;
  const { aspect_ratio: _ratio, ...rest } = like.input;
  return { ...like, input: { ...rest, width: side, height: side } };
}

function fluxInput(input: Input): Input {
  const [width, height] = sizeOf(input["size"]) ?? [1_024, 1_024];
  const [lora] = lorasIn(input) ?? [];
  return {
    ...picked(input, ["prompt", "image", "num_inference_steps"]),
    ...seedOf(input),
    width,
    height,
    num_outputs: input["num_images"] ?? 1,
    output_format: input["output_format"] === "png" ? "png" : "jpg",
    ...(input["guidance_scale"] !== undefined && { guidance: Math.min(10, Number(input["guidance_scale"])) }),
    ...(lora && { lora_weights: lora.path, lora_scale: lora.scale }),
  };
}

const kontextInput = (input: Input): Input => ({
  ...picked(input, ["prompt", "aspect_ratio"]),
  ...seedOf(input),
  input_image: input["image"],
  output_format: "png",
});

const seedanceInput = (input: Input): Input => ({
  prompt: "",
  ...picked(input, ["prompt", "image", "duration", "aspect_ratio", "camera_fixed"]),
  ...seedOf(input),
  resolution: "720p",
});

function wanInput(input: Input): Input {
  const [width = 832, height = 480] = sizeOf(input["size"]) ?? [];
  return {
    ...picked(input, ["prompt", "image", "duration"]),
    ...seedOf(input),
    resolution: Math.min(width, height) <= 480 ? "480p" : "720p",
    aspect_ratio: width > height ? "16:9" : "9:16",
  };
}

const film = (usd: number) =>
  likeAt("bytedance", "seedance-1-lite", perFilmSecond(usd), { input: SEEDANCE, reel: seedanceReel });

const fluxModel = (name: string, fields: Fields, usd: number): SoldModel => ({
  id: `wavespeed-ai/${name}`,
  type: "text-to-image",
  description: `FLUX.1 as ${name}`,
  fields,
  program: flux(name, usd),
  translate: fluxInput,
});

/** Prices: the models' pages, 2026-11; of the two with LoRA, unverified. */
const SOLD: readonly SoldModel[] = [
  fluxModel("flux-schnell", SCHNELL, 0.003),
  fluxModel("flux-dev", DEV, 0.012),
  fluxModel("flux-schnell-lora", SCHNELL, 0.005),
  fluxModel("flux-dev-lora", DEV, 0.015),
  {
    id: "wavespeed-ai/flux-kontext-pro",
    type: "image-to-image",
    description: "FLUX.1 Kontext [pro]: edits a picture as it is told",
    fields: KONTEXT,
    program: likeAt("black-forest-labs", "flux-kontext-pro", perImage(0.04)),
    translate: kontextInput,
  },
  {
    id: "bytedance/seedance-v1-lite-t2v-720p",
    type: "text-to-video",
    description: "Seedance V1 Lite from words",
    fields: SEEDANCE_TEXT,
    program: film(0.032),
    translate: seedanceInput,
  },
  {
    id: "bytedance/seedance-v1-lite-i2v-720p",
    type: "image-to-video",
    description: "Seedance V1 Lite from a picture",
    fields: SEEDANCE_IMAGE,
    program: film(0.032),
    translate: seedanceInput,
  },
  {
    id: "wavespeed-ai/wan-2.2/image-to-video",
    type: "image-to-video",
    description: "Wan 2.2 from a picture",
    fields: WAN,
    program: film(0.03),
    translate: wanInput,
  },
];
export const SOLD_MODELS: ReadonlyMap<string, SoldModel> = new Map(SOLD.map((model) => [model.id, model]));

/** Without what is empty: its examples send "" for pictures that there are none of. */
export function withoutEmpty(input: Input): Input {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== "" && value !== null));
}

/** What is wrong with an input, in the order of the fields. */
export function breaches({ fields }: SoldModel, input: Input): Violation[] {
  const found = violations(fields, input);
  const wrong = (field: string, description: string) => found.push({ type: "invalid", field, description });
  const size = input["size"];
  if (typeof size === "string" && !sizeOf(size)) wrong("size", `must be width*height, each ${MIN_SIDE} to ${MAX_SIDE}`);
  if (!lorasIn(input)) wrong("loras", `must be a list of at most ${MAX_LORAS}, each with path and scale`);
  return found;
}

/** What one run with this input costs, in USD, as the pricing endpoint tells. */
export function priceOf({ program, translate }: SoldModel, input: Input): number {
  const wanted = translate(input);
  const { per, usd } = program.price;
  const units = Number(per === "output second" ? (wanted["duration"] ?? 5) : (wanted["num_outputs"] ?? 1));
  return Math.round(usd * units * 1_000_000) / 1_000_000;
}

function sizeOf(size: unknown): [width: number, height: number] | null {
  const match = /^(\d{1,5})\*(\d{1,5})$/.exec(typeof size === "string" ? size : "");
  const sides = match ? [Number(match[1]), Number(match[2])] : [];
  const [width, height] = sides.filter((side) => side >= MIN_SIDE && side <= MAX_SIDE);
  return width === undefined || height === undefined ? null : [width, height];
}

function lorasIn(input: Input): { path: string; scale: number }[] | null {
  const list = input["loras"] ?? [];
  if (!Array.isArray(list) || list.length > MAX_LORAS) return null;
  const loras = list.flatMap((each: unknown) => {
    if (typeof each !== "object" || each === null || !("path" in each) || typeof each.path !== "string") return [];
    const scale = "scale" in each && typeof each.scale === "number" ? each.scale : 1;
    // A repository of Hugging Face is named without its host here.
    const path = /^[\w.-]+\/[\w.-]+$/.test(each.path) ? `huggingface.co/${each.path}` : each.path;
    return [{ path, scale: Math.min(3, Math.max(-1, scale)) }];
  });
  return loras.length === list.length ? loras : null;
}

function seedOf(input: Input): Input {
  const seed = input["seed"];
  return typeof seed === "number" && seed >= 0 ? { seed } : {};
}

function picked(input: Input, names: readonly string[]): Input {
  return Object.fromEntries(names.filter((name) => input[name] !== undefined).map((name) => [name, input[name]]));
}
