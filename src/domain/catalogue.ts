import type { Ask } from "./ask.ts";
import type { KindName } from "./kinds/kind.ts";
import {
  FLUX_RATIOS,
  flux,
  fluxFill,
  kontext,
  SEEDANCE_RATIOS,
  sdxl,
  seedance,
  wan,
  zeroscope,
} from "./replicate-inputs.ts";

/** What a provider takes for it, valid from a day on (UTC). The newest that has begun counts. */
export interface Cost {
  /** YYYY-MM-DD. */
  readonly from: string;
  /** An output, a second that the run was billed for, or a second of film. */
  readonly per: "output" | "second" | "film_second";
  /** In millionths of a dollar. */
  readonly microUsd: number;
}

/** Who can serve a model, under what name there, and in what words. */
export interface Route {
  /** Whose names and inputs: an adapter's `api`. */
  readonly api: string;
  /** `owner/name`, resolved when it is used; `owner/name:<64 hex>` only as an override. */
  readonly model: string;
  /** The provider's input for what is asked. Pure: the same ask gives the same input. */
  input(ask: Ask): Readonly<Record<string, unknown>>;
  readonly costs: readonly [Cost, ...Cost[]];
}

/** Which trained models fit which models. */
export const FAMILIES = ["flux", "sdxl"] as const;
export type Family = (typeof FAMILIES)[number];

export interface Range {
  readonly min: number;
  readonly max: number;
}

/** What a model takes. Absent: it has no such thing. */
export interface ModelLimits {
  readonly steps?: { readonly min: number; readonly max: number; readonly default: number };
  /** How closely the prompt is followed. */
  readonly guidance?: Range;
  readonly loraScale?: Range;
  /** It makes these shapes only, of about a megapixel; without them it makes any width and height up to maxSide. */
  readonly aspectRatios?: readonly string[];
  /** Pixels of the longest side. */
  readonly maxSide?: number;
  /** Seconds of film. */
  readonly seconds?: Range;
  readonly image?: "optional" | "required";
  readonly mask?: "optional" | "required";
  readonly formats?: readonly ("webp" | "jpg" | "png")[];
  /** It can be used with trained models of this family. */
  readonly lora?: Family;
  /** It trains models of this family, at these resolutions. */
  readonly trains?: Family;
  readonly resolutions?: readonly number[];
}

export interface Model {
  /** What callers write. */
  readonly alias: string;
  /** What a person reads. */
  readonly title: string;
  readonly kinds: readonly KindName[];
  readonly routes: readonly [Route, ...Route[]];
  readonly limits: ModelLimits;
  /** How long a run normally takes, p50 and p95, until our own runs tell; paces our looks and what callers are told. */
  readonly expectedSeconds: { readonly p50: number; readonly p95: number };
  /** The provider is told to stop a run after this, queue time included. */
  readonly timeoutSeconds: number;
}

const FROM = "2026-11-01";
const each = (microUsd: number): readonly [Cost] => [{ from: FROM, per: "output", microUsd }];
const perSecond = (microUsd: number): readonly [Cost] => [{ from: FROM, per: "second", microUsd }];
const perFilmSecond = (microUsd: number): readonly [Cost] => [{ from: FROM, per: "film_second", microUsd }];

const IMAGE_FORMATS = ["webp", "jpg", "png"] as const;
const TRAINING_RESOLUTIONS = [512, 768, 1024, 1536] as const;

/** To add a model, add an entry. Prices and limits: the provider's model pages, 2026-11. */
export const CATALOGUE: readonly Model[] = [
  {
    alias: "flux-schnell",
    title: "FLUX.1 schnell: fast and cheap",
    kinds: ["generation"],
    routes: [{ api: "replicate", model: "black-forest-labs/flux-schnell", input: flux, costs: each(3_000) }],
    limits: { steps: { min: 1, max: 4, default: 4 }, aspectRatios: FLUX_RATIOS, formats: IMAGE_FORMATS },
    expectedSeconds: { p50: 2, p95: 15 },
    timeoutSeconds: 300,
  },
  {
    alias: "flux-dev",
    title: "FLUX.1 dev: finer",
    kinds: ["generation"],
    routes: [{ api: "replicate", model: "black-forest-labs/flux-dev", input: flux, costs: each(25_000) }],
    limits: {
      steps: { min: 1, max: 50, default: 28 },
      guidance: { min: 0, max: 10 },
      aspectRatios: FLUX_RATIOS,
      image: "optional",
      formats: IMAGE_FORMATS,
    },
    expectedSeconds: { p50: 5, p95: 30 },
    timeoutSeconds: 300,
  },
  {
    alias: "flux-schnell-lora",
    title: "FLUX.1 schnell with a trained model",
    kinds: ["generation"],
    routes: [{ api: "replicate", model: "black-forest-labs/flux-schnell-lora", input: flux, costs: each(20_000) }],
    limits: {
      steps: { min: 1, max: 4, default: 4 },
      aspectRatios: FLUX_RATIOS,
      formats: IMAGE_FORMATS,
      lora: "flux",
      loraScale: { min: 0, max: 2 },
    },
    expectedSeconds: { p50: 5, p95: 30 },
    timeoutSeconds: 300,
  },
  {
    alias: "flux-dev-lora",
    title: "FLUX.1 dev with a trained model",
    kinds: ["generation"],
    routes: [{ api: "replicate", model: "black-forest-labs/flux-dev-lora", input: flux, costs: each(32_000) }],
    limits: {
      steps: { min: 1, max: 50, default: 28 },
      guidance: { min: 0, max: 10 },
      aspectRatios: FLUX_RATIOS,
      image: "optional",
      formats: IMAGE_FORMATS,
      lora: "flux",
      loraScale: { min: 0, max: 2 },
    },
    expectedSeconds: { p50: 8, p95: 40 },
    timeoutSeconds: 300,
  },
  {
    alias: "sdxl",
    title: "Stable Diffusion XL, also with a trained model",
    kinds: ["generation"],
    routes: [{ api: "replicate", model: "stability-ai/sdxl", input: sdxl, costs: perSecond(975) }],
    limits: {
      steps: { min: 1, max: 100, default: 50 },
      guidance: { min: 1, max: 50 },
      maxSide: 2_048,
      image: "optional",
      formats: ["png"],
      lora: "sdxl",
      loraScale: { min: 0, max: 1 },
    },
    expectedSeconds: { p50: 6, p95: 40 },
    timeoutSeconds: 300,
  },
  {
    alias: "sdxl-lightning",
    title: "SDXL-Lightning: four steps, two to three times as fast",
    kinds: ["generation"],
    routes: [{ api: "replicate", model: "bytedance/sdxl-lightning-4step", input: sdxl, costs: perSecond(1_400) }],
    limits: {
      steps: { min: 1, max: 10, default: 4 },
      guidance: { min: 0, max: 50 },
      maxSide: 1_280,
      formats: ["png"],
    },
    expectedSeconds: { p50: 2, p95: 20 },
    timeoutSeconds: 300,
  },
  {
    alias: "flux-kontext-pro",
    title: "FLUX.1 Kontext pro: changes a photo as it is told",
    kinds: ["staging", "edit"],
    routes: [{ api: "replicate", model: "black-forest-labs/flux-kontext-pro", input: kontext, costs: each(40_000) }],
    limits: { image: "required", formats: ["png", "jpg"] },
    expectedSeconds: { p50: 12, p95: 90 },
    timeoutSeconds: 600,
  },
  {
    alias: "flux-fill-pro",
    title: "FLUX.1 Fill pro: repaints what a mask marks",
    kinds: ["edit"],
    routes: [{ api: "replicate", model: "black-forest-labs/flux-fill-pro", input: fluxFill, costs: each(50_000) }],
    limits: { image: "required", mask: "required", formats: ["png", "jpg"] },
    expectedSeconds: { p50: 12, p95: 60 },
    timeoutSeconds: 600,
  },
  {
    alias: "seedance-1-lite",
    title: "Seedance 1 lite: films of 2 to 12 s from words or a picture",
    kinds: ["video"],
    routes: [{ api: "replicate", model: "bytedance/seedance-1-lite", input: seedance, costs: perFilmSecond(36_000) }],
    limits: { seconds: { min: 2, max: 12 }, image: "optional", aspectRatios: SEEDANCE_RATIOS },
    expectedSeconds: { p50: 45, p95: 180 },
    timeoutSeconds: 900,
  },
  {
    alias: "wan-2.2-i2v-fast",
    title: "Wan 2.2: five seconds from a picture, cheap",
    kinds: ["video"],
    routes: [{ api: "replicate", model: "wan-video/wan-2.2-i2v-fast", input: wan, costs: each(50_000) }],
    limits: { seconds: { min: 5, max: 7 }, image: "required" },
    expectedSeconds: { p50: 40, p95: 150 },
    timeoutSeconds: 900,
  },
  {
    alias: "zeroscope-v2-xl",
    title: "Zeroscope v2 XL: up to 15 s from words",
    kinds: ["video"],
    routes: [{ api: "replicate", model: "anotherjesse/zeroscope-v2-xl", input: zeroscope, costs: perSecond(975) }],
    limits: { seconds: { min: 1, max: 15 }, aspectRatios: ["16:9", "1:1", "9:16"] },
    expectedSeconds: { p50: 90, p95: 300 },
    timeoutSeconds: 900,
  },
  {
    alias: "flux-lora-trainer",
    title: "LoRA training for FLUX.1",
    kinds: ["training"],
    routes: [
      {
        api: "replicate",
        model: "ostris/flux-dev-lora-trainer",
        input: (ask) => ({
          input_images: ask.archive,
          trigger_word: ask.triggerWord,
          steps: ask.steps,
          resolution: TRAINING_RESOLUTIONS.filter((side) => side <= (ask.resolution ?? 1_024)).join(","),
          // What has no subject has no name that captions could leave out.
          autocaption: ask.task !== "style",
        }),
        costs: perSecond(1_525),
      },
    ],
    limits: {
      steps: { min: 100, max: 6_000, default: 1_000 },
      trains: "flux",
      resolutions: TRAINING_RESOLUTIONS,
    },
    expectedSeconds: { p50: 1_500, p95: 3_600 },
    timeoutSeconds: 7_200,
  },
  {
    alias: "sdxl-lora-trainer",
    title: "LoRA training for Stable Diffusion XL",
    kinds: ["training"],
    routes: [
      {
        api: "replicate",
        model: "stability-ai/sdxl",
        input: (ask) => ({
          input_images: ask.archive,
          input_images_filetype: "zip",
          token_string: ask.triggerWord,
          caption_prefix:
            ask.task === "style" ? `in the style of ${ask.triggerWord}, ` : `a photo of ${ask.triggerWord}, `,
          max_train_steps: ask.steps,
          resolution: ask.resolution,
          use_face_detection_instead: ask.task === "face",
          seed: ask.seed,
          is_lora: true,
        }),
        costs: perSecond(1_400),
      },
    ],
    limits: { steps: { min: 100, max: 6_000, default: 1_000 }, trains: "sdxl", resolutions: [512, 768, 1_024] },
    expectedSeconds: { p50: 900, p95: 2_400 },
    timeoutSeconds: 7_200,
  },
];

export function modelsOf(kind: KindName): readonly Model[] {
  return CATALOGUE.filter((model) => model.kinds.includes(kind));
}

export function findModel(kind: KindName, alias: string): Model | undefined {
  return modelsOf(kind).find((model) => model.alias === alias);
}

export function routeOf(model: Model, api: string): Route | undefined {
  return model.routes.find((route) => route.api === api);
}

/** What the provider takes at that time, in millionths of a dollar. `seconds` null: not told, and counted as none. */
export function costOf(
  route: Route,
  at: Date,
  used: { readonly outputs: number; readonly seconds: number | null; readonly filmSeconds: number },
): number {
  const day = at.toISOString().slice(0, 10);
  const newestFirst = [...route.costs].sort((a, b) => (a.from < b.from ? 1 : -1));
  const cost = newestFirst.find(({ from }) => from <= day) ?? newestFirst.at(-1) ?? route.costs[0];
  const units = cost.per === "output" ? used.outputs : cost.per === "second" ? (used.seconds ?? 0) : used.filmSeconds;
  return Math.round(cost.microUsd * units);
}
