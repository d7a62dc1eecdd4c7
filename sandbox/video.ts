import type { Fields, Values } from "./field.ts";
import type { Reel } from "./film.ts";

/** The inputs of the video models, and what film they ask for. */
export const SEEDANCE: Fields = {
  prompt: { type: "string", required: true, description: "Text prompt for video generation" },
  image: { type: "string", format: "uri", description: "Input image for image-to-video generation" },
  duration: { type: "integer", default: 5, minimum: 2, maximum: 12, description: "Video duration in seconds" },
  resolution: { type: "string", enum: ["480p", "720p", "1080p"], default: "720p" },
  aspect_ratio: { type: "string", enum: ["16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "9:21"], default: "16:9" },
  fps: { type: "integer", default: 24, minimum: 24, maximum: 24, description: "Frame rate: 24" },
  camera_fixed: { type: "boolean", default: false },
  seed: { type: "integer" },
};

export const WAN_FAST: Fields = {
  image: { type: "string", format: "uri", required: true, description: "Input image to generate video from" },
  prompt: { type: "string", required: true, description: "Prompt for video generation" },
  last_image: { type: "string", format: "uri" },
  num_frames: { type: "integer", default: 81, minimum: 81, maximum: 121 },
  resolution: { type: "string", enum: ["480p", "720p"], default: "480p" },
  frames_per_second: { type: "integer", default: 16, minimum: 5, maximum: 30 },
  go_fast: { type: "boolean", default: true },
  sample_shift: { type: "number", default: 12, minimum: 1, maximum: 20 },
  seed: { type: "integer" },
  disable_safety_checker: { type: "boolean", default: false },
};

export const ZEROSCOPE: Fields = {
  prompt: { type: "string", default: "An astronaut riding a horse" },
  negative_prompt: { type: "string" },
  num_frames: { type: "integer", default: 24, minimum: 1, maximum: 400 },
  num_inference_steps: { type: "integer", default: 50, minimum: 1, maximum: 500 },
  width: { type: "integer", default: 576, minimum: 256, maximum: 2048 },
  height: { type: "integer", default: 320, minimum: 256, maximum: 2048 },
  guidance_scale: { type: "number", default: 7.5, minimum: 1, maximum: 100 },
  fps: { type: "integer", default: 8, minimum: 1, maximum: 30 },
  model: { type: "string", enum: ["xl", "576w", "potat1", "animov-512x"], default: "xl" },
  remove_watermark: { type: "boolean", default: false },
  seed: { type: "integer" },
};

export function seedanceReel(values: Values): Reel {
  const [across = 16, down = 9] = String(values["aspect_ratio"]).split(":").map(Number);
  return {
    ...sized(across / down, values["resolution"]),
    seconds: numberOf(values["duration"], 5),
    fps: numberOf(values["fps"], 24),
  };
}

export function wanReel(values: Values): Reel {
  const fps = numberOf(values["frames_per_second"], 16);
  return { ...sized(16 / 9, values["resolution"]), seconds: numberOf(values["num_frames"], 81) / fps, fps };
}

export function zeroscopeReel(values: Values): Reel {
  const fps = numberOf(values["fps"], 8);
  return {
    width: numberOf(values["width"], 576),
    height: numberOf(values["height"], 320),
    seconds: numberOf(values["num_frames"], 24) / fps,
    fps,
  };
}

/** Drawn smaller than asked, and still the larger the more was asked. */
const LONG_SIDES: Readonly<Record<string, number>> = { "480p": 384, "720p": 448, "1080p": 512 };

function sized(ratio: number, resolution: unknown): { width: number; height: number } {
  const long = LONG_SIDES[String(resolution)] ?? 384;
  return ratio >= 1 ? { width: long, height: long / ratio } : { width: long * ratio, height: long };
}

function numberOf(value: unknown, otherwise: number): number {
  return typeof value === "number" ? value : otherwise;
}
