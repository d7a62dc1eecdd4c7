import type { Ask } from "./ask.ts";

/**
 * How an ask is written for each of fal's models. A field that is undefined is not sent. fal has one path for each task:
 * what starts from a picture is another model than what starts from words alone. Sources: the types of @fal-ai/client
 * 1.10.1 and the models' pages, 2026-11.
 */
type Input = Readonly<Record<string, unknown>>;

/** fal-ai/flux/schnell and fal-ai/flux/dev: words only. */
export function flux(ask: Ask): Input {
  const { width = 1_024, height = 1_024 } = ask;
  return defined({ ...painting(ask), image_size: { width, height } });
}

/** fal-ai/flux/dev/image-to-image: as large as the picture. */
export function fluxFromImage(ask: Ask): Input {
  return defined({ ...painting(ask), image_url: ask.image });
}

/** fal-ai/flux-lora. The weights are the address of a safetensors file. */
export function fluxLora(ask: Ask): Input {
  return defined({ ...flux(ask), loras: lorasOf(ask) });
}

/** fal-ai/flux-lora/image-to-image. */
export function fluxLoraFromImage(ask: Ask): Input {
  return defined({ ...fluxFromImage(ask), loras: lorasOf(ask) });
}

/** fal-ai/flux-pro/kontext. Without an aspect ratio it keeps the picture's. */
export function kontext(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image_url: ask.image,
    num_images: 1,
    output_format: formatOf(ask),
    // As strict as elsewhere with a picture of the caller's, whatever the app wants.
    safety_tolerance: "2",
    seed: ask.seed,
  });
}

/** fal-ai/flux-pro/v1/fill. */
export function fluxFill(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image_url: ask.image,
    mask_url: ask.mask,
    num_images: 1,
    output_format: formatOf(ask),
    safety_tolerance: ask.safety ? "2" : "6",
    seed: ask.seed,
  });
}

/**
 * fal-ai/bytedance/seedance/v1/lite/text-to-video, of the same shapes as Replicate's, and …/image-to-video, whose shape
 * is the picture's.
 */
export function seedance(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image_url: ask.image,
    // A choice of texts, "2" to "12".
    duration: ask.seconds === undefined ? undefined : String(ask.seconds),
    resolution: "720p",
    aspect_ratio: ask.image === undefined ? ask.aspectRatio : undefined,
    enable_safety_checker: ask.safety,
    seed: ask.seed,
  });
}

/** fal-ai/wan/v2.2-a14b/image-to-video/turbo: always 81 frames, which are five seconds. */
export function wanTurbo(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image_url: ask.image,
    resolution: "480p",
    enable_safety_checker: ask.safety,
    seed: ask.seed,
  });
}

const WAN_FPS = 16;
const WAN_FRAMES = { least: 81, most: 100 } as const;
const WAN_LEAST_FPS = 5;

/** fal-ai/wan-i2v: what does not fit into 100 frames is made of fewer a second. */
export function wan(ask: Ask): Input {
  const { seconds = 5 } = ask;
  const frames = Math.min(WAN_FRAMES.most, Math.max(WAN_FRAMES.least, seconds * WAN_FPS + 1));
  return defined({
    prompt: ask.prompt,
    negative_prompt: ask.negativePrompt,
    image_url: ask.image,
    num_frames: frames,
    frames_per_second: Math.max(WAN_LEAST_FPS, Math.min(WAN_FPS, Math.floor((frames - 1) / seconds))),
    resolution: "480p",
    enable_safety_checker: ask.safety,
    seed: ask.seed,
  });
}

/** Less is refused. */
const LEAST_GUIDANCE = 1;

function painting(ask: Ask): Input {
  return {
    prompt: ask.prompt,
    num_images: 1,
    num_inference_steps: ask.steps,
    guidance_scale: ask.guidance === undefined ? undefined : Math.max(LEAST_GUIDANCE, ask.guidance),
    output_format: formatOf(ask),
    acceleration: ask.goFast === undefined ? undefined : ask.goFast ? "regular" : "none",
    enable_safety_checker: ask.safety,
    seed: ask.seed,
  };
}

/** It makes two formats: what was to be WebP comes as PNG, which loses nothing. */
function formatOf({ format }: Ask): "jpeg" | "png" | undefined {
  if (format === undefined) return undefined;
  return format === "jpg" ? "jpeg" : "png";
}

function lorasOf({ lora }: Ask): readonly Input[] | undefined {
  return lora && [{ path: lora.weights, scale: lora.scale }];
}

function defined(input: Input): Input {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
}
