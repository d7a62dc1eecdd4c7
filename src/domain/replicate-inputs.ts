import type { Ask } from "./ask.ts";

/**
 * How an ask is written for each of Replicate's models. A field that is undefined is not sent. Sources: the models'
 * published schemas, 2026-11.
 */
type Input = Readonly<Record<string, unknown>>;

export const FLUX_RATIOS = ["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"] as const;
export const SEEDANCE_RATIOS = ["16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "9:21"] as const;

const QUARTER_MEGAPIXEL = 512 * 512;

export function flux(ask: Ask): Input {
  const { width = 1_024, height = 1_024 } = ask;
  return defined({
    // Line breaks have been seen to fail it (E9828).
    prompt: ask.prompt?.replaceAll(/\s*[\r\n]+\s*/g, " "),
    aspect_ratio: nearestAspectRatio(width, height, FLUX_RATIOS),
    // The two sizes that the model makes: never less than what was asked and paid for.
    megapixels: width * height <= QUARTER_MEGAPIXEL ? "0.25" : "1",
    num_outputs: 1,
    num_inference_steps: ask.steps,
    guidance: ask.guidance,
    output_format: ask.format,
    output_quality: ask.quality,
    go_fast: ask.goFast,
    image: ask.image,
    lora_weights: ask.lora?.weights,
    lora_scale: ask.lora?.scale,
    // Left out where it is on: so it is by default.
    disable_safety_checker: ask.safety ? undefined : true,
    seed: ask.seed,
  });
}

export function sdxl(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    negative_prompt: ask.negativePrompt,
    width: ask.width,
    height: ask.height,
    num_outputs: 1,
    num_inference_steps: ask.steps,
    guidance_scale: ask.guidance,
    image: ask.image,
    replicate_weights: ask.lora?.weights,
    lora_scale: ask.lora?.scale,
    disable_safety_checker: ask.safety ? undefined : true,
    seed: ask.seed,
  });
}

export function kontext(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    input_image: ask.image,
    aspect_ratio: "match_input_image",
    output_format: ask.format,
    // With a picture of the caller's, 2 is the most that the model takes, whatever the app wants.
    safety_tolerance: 2,
    seed: ask.seed,
  });
}

export function fluxFill(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image: ask.image,
    mask: ask.mask,
    output_format: ask.format,
    safety_tolerance: ask.safety ? 2 : 6,
    seed: ask.seed,
  });
}

export function seedance(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image: ask.image,
    duration: ask.seconds,
    resolution: "720p",
    aspect_ratio: ask.image === undefined ? ask.aspectRatio : undefined,
    seed: ask.seed,
  });
}

const WAN_FPS = 16;

export function wan(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image: ask.image,
    // 81 frames are 5 s.
    num_frames: Math.min(121, Math.max(81, (ask.seconds ?? 5) * WAN_FPS + 1)),
    frames_per_second: WAN_FPS,
    resolution: "480p",
    disable_safety_checker: ask.safety ? undefined : true,
    seed: ask.seed,
  });
}

const ZEROSCOPE_FPS = 24;
const ZEROSCOPE_SIZES: Readonly<Record<string, readonly [width: number, height: number]>> = {
  "16:9": [576, 320],
  "1:1": [448, 448],
  "9:16": [320, 576],
};

export function zeroscope(ask: Ask): Input {
  const [width, height] = ZEROSCOPE_SIZES[ask.aspectRatio ?? "16:9"] ?? [576, 320];
  return defined({
    prompt: ask.prompt,
    negative_prompt: ask.negativePrompt,
    // The variant for these sizes: the default one scales up, and has no memory for so many frames.
    model: "576w",
    num_frames: (ask.seconds ?? 1) * ZEROSCOPE_FPS,
    fps: ZEROSCOPE_FPS,
    width,
    height,
    seed: ask.seed,
  });
}

function defined(input: Readonly<Record<string, unknown>>): Input {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
}

/** The ratio closest to width : height, by the logarithm, so that 2:1 is as far from 1:1 as 1:2 is. */
export function nearestAspectRatio(width: number, height: number, ratios: readonly string[]): string {
  const wanted = Math.log(width / height);
  const distance = (ratio: string): number => {
    const [w = 1, h = 1] = ratio.split(":").map(Number);
    return Math.abs(Math.log(w / h) - wanted);
  };
  return ratios.reduce((best, ratio) => (distance(ratio) < distance(best) ? ratio : best), ratios[0] ?? "1:1");
}
