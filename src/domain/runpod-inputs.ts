import type { Ask } from "./ask.ts";

/**
 * How an ask is written for RunPod's public endpoints and for our own handler there (examples/runpod-handler). A field
 * that is undefined is not sent. Source: runpod/docs, public-endpoints/models, 2026-08.
 */
type Input = Readonly<Record<string, unknown>>;

/** Sides that the public FLUX endpoints take, in pixels. */
const SIDE = { step: 64, min: 256, max: 1_536 } as const;

/** black-forest-labs-flux-1-schnell and -dev: words only, no picture to start from, and no switch for their safety. */
export function runpodFlux(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    negative_prompt: ask.negativePrompt,
    width: side(ask.width),
    height: side(ask.height),
    num_inference_steps: ask.steps,
    guidance: ask.guidance,
    seed: ask.seed,
    // There is no webp; what was to be smaller than a png is still without loss.
    image_format: ask.format === "jpg" ? "jpeg" : "png",
  });
}

/** wan-2-2-i2v-720, from a picture. Its films have 5, 8, 10 or 15 s. */
export function runpodWan(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    negative_prompt: ask.negativePrompt,
    image: ask.image,
    duration: nextOf([5, 8, 10, 15], ask.seconds),
    size: isUpright(ask.aspectRatio) ? "720*1280" : "1280*720",
    enable_safety_checker: ask.safety,
    seed: ask.seed,
  });
}

/** kling-v2-1-i2v-pro, from a picture. Its films have 5 or 10 s, and no seed. */
export function runpodKling(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    negative_prompt: ask.negativePrompt,
    image: ask.image,
    duration: nextOf([5, 10], ask.seconds),
    enable_safety_checker: ask.safety,
  });
}

/** "own/flux-dev": our handler with FLUX.1 dev, which follows no negative prompt. */
export function ownFlux(ask: Ask): Input {
  return own({ ...ask, negativePrompt: undefined });
}

/** "own/sdxl": our handler with Stable Diffusion XL. */
export function ownSdxl(ask: Ask): Input {
  return own(ask);
}

function own(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    negative_prompt: ask.negativePrompt,
    width: ask.width,
    height: ask.height,
    steps: ask.steps,
    guidance: ask.guidance,
    image: ask.image,
    lora_weights: ask.lora?.weights,
    lora_scale: ask.lora?.scale,
    format: ask.format,
    quality: ask.quality,
    safety: ask.safety,
    seed: ask.seed,
  });
}

function side(pixels = 1_024): number {
  return Math.min(SIDE.max, Math.max(SIDE.min, Math.round(pixels / SIDE.step) * SIDE.step));
}

/** The shortest that is no shorter than what was asked and paid for, or the longest that there is. */
function nextOf(lengths: readonly number[], seconds = 5): number {
  return lengths.find((length) => length >= seconds) ?? Math.max(...lengths);
}

function isUpright(ratio = "16:9"): boolean {
  const [w = 1, h = 1] = ratio.split(":").map(Number);
  return h > w;
}

function defined(input: Readonly<Record<string, unknown>>): Input {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
}
