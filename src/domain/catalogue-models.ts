import type { Cost, Model, Route } from "./catalogue.ts";
import * as fal from "./fal-inputs.ts";
import { hfFal, hfFalWan, hfInference } from "./huggingface-inputs.ts";
import { poeEdit, poeFilm, poePicture } from "./poe-inputs.ts";
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
import { ownFlux, ownSdxl, runpodFlux, runpodWan } from "./runpod-inputs.ts";
import {
  waveSpeedFlux,
  waveSpeedKontext,
  waveSpeedSchnell,
  waveSpeedSeedance,
  waveSpeedWan,
} from "./wavespeed-inputs.ts";

const FROM = "2026-11-01";
const each = (microUsd: number): readonly [Cost] => [{ from: FROM, per: "output", microUsd }];
const perSecond = (microUsd: number): readonly [Cost] => [{ from: FROM, per: "second", microUsd }];
const perMegapixel = (microUsd: number): readonly [Cost] => [{ from: FROM, per: "megapixel", microUsd }];
const perFilmSecond = (microUsd: number): readonly [Cost] => [{ from: FROM, per: "film_second", microUsd }];

/** A route of one api: name, words, price, and what it does not take. */
const of =
  (api: string) =>
  (model: string, input: Route["input"], costs: Route["costs"], takes?: Route["takes"]): Route => ({
    api,
    model,
    input,
    costs,
    ...(takes && { takes }),
  });
const replicate = of("replicate");
const falAi = of("fal");
const waveSpeed = of("wavespeed");
const runpod = of("runpod");
const huggingFace = of("huggingface");
const poe = of("poe");
/** An hour on an A40; the account knows its own GPU and price. */
const OWN_GPU = perSecond(111);
/** A second on an H100; the account knows its deployment's price. */
const OWN_DEPLOYMENT = perSecond(1_525);
const WORDS = { image: false } as const;
const PICTURE = { image: true } as const;
/** Nobody says that there is a safety checker, or lets one be asked for. */
const UNCHECKED = { safety: false } as const;

const IMAGE_FORMATS = ["webp", "jpg", "png"] as const;
const TRAINING_RESOLUTIONS = [512, 768, 1024, 1536] as const;

/**
 * To add a model, add an entry; to have it from somebody else too, a route. Prices and limits: the providers' model pages,
 * 2026-11. Poe's are in points, and unverified.
 */
export const MODELS: readonly Model[] = [
  {
    alias: "flux-schnell",
    title: "FLUX.1 schnell: fast and cheap",
    kinds: ["generation"],
    routes: [
      replicate("black-forest-labs/flux-schnell", flux, each(3_000)),
      falAi("fal-ai/flux/schnell", fal.flux, perMegapixel(3_000)),
      waveSpeed("wavespeed-ai/flux-schnell", waveSpeedSchnell, each(3_000)),
      runpod("black-forest-labs-flux-1-schnell", runpodFlux, perMegapixel(2_400)),
      huggingFace("hf-inference/black-forest-labs/FLUX.1-schnell", hfInference, each(500), UNCHECKED),
      poe("FLUX-schnell", poePicture, each(3_000)),
    ],
    limits: { steps: { min: 1, max: 4, default: 4 }, aspectRatios: FLUX_RATIOS, formats: IMAGE_FORMATS },
    expectedSeconds: { p50: 2, p95: 15 },
    timeoutSeconds: 300,
  },
  {
    alias: "flux-dev",
    title: "FLUX.1 dev: finer",
    kinds: ["generation"],
    routes: [
      replicate("black-forest-labs/flux-dev", flux, each(25_000)),
      replicate("own/flux-dev", flux, OWN_DEPLOYMENT),
      falAi("fal-ai/flux/dev", fal.flux, perMegapixel(25_000), WORDS),
      falAi("fal-ai/flux/dev/image-to-image", fal.fluxFromImage, perMegapixel(30_000), PICTURE),
      waveSpeed("wavespeed-ai/flux-dev", waveSpeedFlux, each(12_000)),
      runpod("black-forest-labs-flux-1-dev", runpodFlux, perMegapixel(20_000), WORDS),
      runpod("own/flux-dev", ownFlux, OWN_GPU),
      huggingFace("hf-inference/black-forest-labs/FLUX.1-dev", hfInference, each(1_200), { ...WORDS, ...UNCHECKED }),
      poe("FLUX-dev", poePicture, each(25_000), WORDS),
    ],
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
    routes: [
      replicate("black-forest-labs/flux-schnell-lora", flux, each(20_000)),
      waveSpeed("wavespeed-ai/flux-schnell-lora", waveSpeedSchnell, each(5_000)),
    ],
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
    routes: [
      replicate("black-forest-labs/flux-dev-lora", flux, each(32_000)),
      falAi("fal-ai/flux-lora", fal.fluxLora, perMegapixel(35_000), WORDS),
      falAi("fal-ai/flux-lora/image-to-image", fal.fluxLoraFromImage, perMegapixel(35_000), PICTURE),
      waveSpeed("wavespeed-ai/flux-dev-lora", waveSpeedFlux, each(15_000)),
      runpod("own/flux-dev", ownFlux, OWN_GPU),
    ],
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
    routes: [
      replicate("stability-ai/sdxl", sdxl, perSecond(975)),
      // The trainer's archive is in a form of Replicate's own.
      runpod("own/sdxl", ownSdxl, OWN_GPU, { trained: false }),
      huggingFace("hf-inference/stabilityai/stable-diffusion-xl-base-1.0", hfInference, each(1_200), {
        ...WORDS,
        ...UNCHECKED,
        trained: false,
      }),
    ],
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
    routes: [
      replicate("bytedance/sdxl-lightning-4step", sdxl, perSecond(1_400)),
      huggingFace("fal-ai/ByteDance/SDXL-Lightning", hfFal, each(2_000)),
    ],
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
    routes: [
      replicate("black-forest-labs/flux-kontext-pro", kontext, each(40_000)),
      falAi("fal-ai/flux-pro/kontext", fal.kontext, each(40_000)),
      waveSpeed("wavespeed-ai/flux-kontext-pro", waveSpeedKontext, each(40_000)),
      poe("FLUX-Kontext-Pro", poeEdit, each(40_000)),
    ],
    limits: { image: "required", formats: ["png", "jpg"] },
    expectedSeconds: { p50: 12, p95: 90 },
    timeoutSeconds: 600,
  },
  {
    alias: "flux-fill-pro",
    title: "FLUX.1 Fill pro: repaints what a mask marks",
    kinds: ["edit"],
    routes: [
      replicate("black-forest-labs/flux-fill-pro", fluxFill, each(50_000)),
      falAi("fal-ai/flux-pro/v1/fill", fal.fluxFill, each(50_000)),
    ],
    limits: { image: "required", mask: "required", formats: ["png", "jpg"] },
    expectedSeconds: { p50: 12, p95: 60 },
    timeoutSeconds: 600,
  },
  {
    alias: "seedance-1-lite",
    title: "Seedance 1 lite: films of 2 to 12 s from words or a picture",
    kinds: ["video"],
    routes: [
      replicate("bytedance/seedance-1-lite", seedance, perFilmSecond(36_000)),
      falAi("fal-ai/bytedance/seedance/v1/lite/text-to-video", fal.seedance, perFilmSecond(36_000), WORDS),
      falAi("fal-ai/bytedance/seedance/v1/lite/image-to-video", fal.seedance, perFilmSecond(36_000), PICTURE),
      waveSpeed("bytedance/seedance-v1-lite-t2v-720p", waveSpeedSeedance, perFilmSecond(32_000), WORDS),
      waveSpeed("bytedance/seedance-v1-lite-i2v-720p", waveSpeedSeedance, perFilmSecond(32_000), PICTURE),
      poe("Seedance-1.0-Lite", poeFilm, perFilmSecond(36_000)),
    ],
    limits: { seconds: { min: 2, max: 12 }, image: "optional", aspectRatios: SEEDANCE_RATIOS },
    expectedSeconds: { p50: 45, p95: 180 },
    timeoutSeconds: 900,
  },
  {
    alias: "wan-2.2-i2v-fast",
    title: "Wan 2.2: five seconds from a picture, cheap",
    kinds: ["video"],
    routes: [
      replicate("wan-video/wan-2.2-i2v-fast", wan, each(50_000)),
      falAi("fal-ai/wan-i2v", fal.wan, each(200_000)),
      waveSpeed("wavespeed-ai/wan-2.2/image-to-video", waveSpeedWan, perFilmSecond(30_000)),
      runpod("wan-2-2-i2v-720", runpodWan, perFilmSecond(60_000)),
      huggingFace("fal-ai/Wan-AI/Wan2.2-I2V-A14B", hfFalWan, perFilmSecond(40_000)),
    ],
    limits: { seconds: { min: 5, max: 7 }, image: "required" },
    expectedSeconds: { p50: 40, p95: 150 },
    timeoutSeconds: 900,
  },
  {
    // Made from clips of 24 frames, and known to need 15 GB for 30 at its full size. Nobody states a most; S5's product
    // orders 360. What the real one has not the memory for fails, and is refunded.
    alias: "zeroscope-v2-xl",
    title: "Zeroscope v2 XL: up to 15 s from words",
    kinds: ["video"],
    routes: [replicate("anotherjesse/zeroscope-v2-xl", zeroscope, perSecond(975))],
    limits: { seconds: { min: 1, max: 15 }, aspectRatios: ["16:9", "1:1", "9:16"] },
    expectedSeconds: { p50: 90, p95: 300 },
    timeoutSeconds: 900,
  },
  {
    // Two models under one name, because S5's product chooses the provider and not the model.
    alias: "campaign-film",
    title: "A film of up to 15 s from words: Zeroscope v2 XL at Replicate, Video-Generator-PRO at Poe",
    kinds: ["video"],
    routes: [
      replicate("anotherjesse/zeroscope-v2-xl", zeroscope, perSecond(975)),
      poe("Video-Generator-PRO", poeFilm, perFilmSecond(36_000)),
    ],
    limits: { seconds: { min: 2, max: 15 }, aspectRatios: ["16:9", "1:1", "9:16"] },
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
