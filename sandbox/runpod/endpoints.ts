import type { Price, Program } from "../catalogue.ts";
import type { Fields, Values } from "../field.ts";
import type { Reel } from "../film.ts";
import type { Chosen } from "../models.ts";

/** What is reached under one endpoint id. */
export interface Endpoint {
  readonly id: string;
  readonly program: Program;
  /** Where its outputs are found: a URL with a price beside it, or base64 in worker-comfyui's shape. */
  readonly answers: "image_url" | "video_url" | "images";
  /** Sides must be multiples of 64. */
  readonly isStrict: boolean;
  price(values: Values): Price;
}

const side = { type: "integer", default: 1_024, minimum: 256, maximum: 1_536 } as const;

const FLUX: Fields = {
  prompt: { type: "string", required: true },
  negative_prompt: { type: "string" },
  width: side,
  height: side,
  num_inference_steps: { type: "integer", default: 28, minimum: 1, maximum: 50 },
  guidance: { type: "number", default: 7.5, minimum: 0, maximum: 10 },
  seed: { type: "integer" },
  image_format: { type: "string", enum: ["png", "jpeg"], default: "jpeg" },
};

const FILM: Fields = {
  prompt: { type: "string", required: true },
  image: { type: "string", format: "uri", required: true },
  negative_prompt: { type: "string" },
  duration: { type: "integer", default: 5, minimum: 1, maximum: 15 },
  enable_safety_checker: { type: "boolean", default: true },
};

const WAN: Fields = {
  ...FILM,
  size: { type: "string", default: "1280*720" },
  num_inference_steps: { type: "integer", default: 30, minimum: 1, maximum: 50 },
  guidance: { type: "number", default: 5, minimum: 0, maximum: 10 },
  flow_shift: { type: "integer", default: 5 },
  seed: { type: "integer" },
  enable_prompt_optimization: { type: "boolean", default: false },
};

const KLING: Fields = { ...FILM, guidance_scale: { type: "number", default: 0.5, minimum: 0, maximum: 1 } };

/** What a handler of the caller's own is taken to read; the provider itself knows nothing of it. */
const OWN: Fields = {
  prompt: { type: "string", required: true },
  negative_prompt: { type: "string" },
  width: { ...side, maximum: 2_048 },
  height: { ...side, maximum: 2_048 },
  steps: { type: "integer", default: 28, minimum: 1, maximum: 100 },
  guidance: { type: "number", default: 3.5, minimum: 0, maximum: 50 },
  image: { type: "string", format: "uri" },
  lora_weights: { type: "string" },
  lora_scale: { type: "number", default: 1, minimum: 0, maximum: 2 },
  num_outputs: { type: "integer", default: 1, minimum: 1, maximum: 4 },
  format: { type: "string", enum: ["png", "jpg", "webp"], default: "png" },
  quality: { type: "integer", default: 80, minimum: 1, maximum: 100 },
  safety: { type: "boolean", default: true },
  seed: { type: "integer" },
};

/** Dollars a second of running. */
const GPUS = { a40: 0.00034, "4090": 0.00031, a100: 0.00076 } as const;

function publicFlux(id: string, usdPerMegapixel: number, runMs: number): Endpoint {
  const perMegapixel = { per: "image", usd: usdPerMegapixel } as const;
  return {
    id,
    program: { input: FLUX, output: "single", art: "scene", price: perMegapixel, runMs },
    answers: "image_url",
    isStrict: true,
    price: ({ width, height }) => ({
      per: "image",
      usd: (numberOf(width, 1_024) * numberOf(height, 1_024) * usdPerMegapixel) / 1_000_000,
    }),
  };
}

function publicFilm(id: string, input: Fields, usdPerSecond: number): Endpoint {
  const price = { per: "output second", usd: usdPerSecond } as const;
  return {
    id,
    program: { input, output: "single", art: "scene", photo: "image", reel: reelOf, price, runMs: 4_000 },
    answers: "video_url",
    isStrict: false,
    price: () => price,
  };
}

function own(model: "flux" | "sdxl", gpu: keyof typeof GPUS): Endpoint {
  const price = { per: "second", usd: GPUS[gpu] } as const;
  return {
    id: `own-${model}-${gpu}`,
    program: { input: OWN, output: "array", art: "scene", price, runMs: 2_000 },
    answers: "images",
    isStrict: false,
    price: () => price,
  };
}

const ENDPOINTS: readonly Endpoint[] = [
  publicFlux("black-forest-labs-flux-1-schnell", 0.0024, 1_000),
  publicFlux("black-forest-labs-flux-1-dev", 0.02, 2_000),
  publicFilm("wan-2-2-i2v-720", WAN, 0.06),
  publicFilm("kling-v2-1-i2v-pro", KLING, 0.09),
  own("flux", "a40"),
  own("flux", "4090"),
  own("flux", "a100"),
  own("sdxl", "a40"),
  own("sdxl", "4090"),
  own("sdxl", "a100"),
];
const BY_ID = new Map(ENDPOINTS.map((endpoint) => [endpoint.id, endpoint]));

export const findEndpoint = (id: string): Endpoint | undefined => BY_ID.get(id);

/** As what is shared with the other faces knows a model. */
export function chosenOf({ id, program }: Endpoint): Chosen {
  const model = {
    owner: "runpod",
    name: id,
    description: id,
    visibility: "public",
    hardware: "gpu",
    official: true,
    createdAt: 0,
    versions: [],
    runCount: 0,
  } as const;
  return { model: { ...model, versions: [] }, version: "hidden", program };
}

function reelOf({ size, duration }: Values): Reel {
  const [width = 1_280, height = 720] = String(size ?? "1280*720")
    .split("*")
    .map(Number);
  const long = 448 / Math.max(width, height);
  return { width: width * long, height: height * long, seconds: numberOf(duration, 5), fps: 16 };
}

function numberOf(value: unknown, otherwise: number): number {
  return typeof value === "number" ? value : otherwise;
}
