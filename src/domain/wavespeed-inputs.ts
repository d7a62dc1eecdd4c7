import type { Ask } from "./ask.ts";

/**
 * How an ask is written for each of WaveSpeed's models: flat, with sizes as "width*height". A field that is undefined
 * is not sent. Sources: the models' pages under wavespeed.ai/docs/docs-api, 2026-11.
 */
type Input = Readonly<Record<string, unknown>>;

/** Pixels of a side that its Flux models take. */
const FLUX_SIDE = { min: 512, max: 1_536 };

/** wavespeed-ai/flux-schnell, flux-schnell-lora. Neither steps nor guidance are to be chosen. */
export function waveSpeedSchnell(ask: Ask): Input {
  return defined({
    prompt: oneLine(ask.prompt),
    image: ask.image,
    size: fluxSize(ask.width ?? 1_024, ask.height ?? 1_024),
    num_images: 1,
    output_format: waveSpeedFormat(ask.format),
    loras: lorasOf(ask),
    seed: ask.seed,
  });
}

/** wavespeed-ai/flux-dev, flux-dev-lora. */
export function waveSpeedFlux(ask: Ask): Input {
  return defined({
    ...waveSpeedSchnell(ask),
    num_inference_steps: ask.steps,
    // Ours begins at 0, theirs at 1.
    guidance_scale: ask.guidance === undefined ? undefined : Math.max(1, ask.guidance),
    // Left out where it is on: so it is by default.
    enable_safety_checker: ask.safety ? undefined : false,
  });
}

/** wavespeed-ai/flux-kontext-pro. The result has the shape of the picture; the format is theirs to choose. */
export function waveSpeedKontext(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image: ask.image,
    // A text, "1" to "5". As strict as with the others, whatever the app wants: the picture is the caller's.
    safety_tolerance: "2",
    seed: ask.seed,
  });
}

/** bytedance/seedance-v1-lite-i2v-720p with a picture, bytedance/seedance-v1-lite-t2v-720p without one. */
export function waveSpeedSeedance(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image: ask.image,
    duration: ask.seconds,
    aspect_ratio: ask.image === undefined ? ask.aspectRatio : undefined,
    seed: ask.seed,
  });
}

const WAN_SECONDS = [5, 8] as const;

/** wavespeed-ai/wan-2.2/image-to-video, in 480p: five seconds or eight, never less than what was asked. */
export function waveSpeedWan(ask: Ask): Input {
  const { seconds = 5 } = ask;
  return defined({
    prompt: ask.prompt,
    negative_prompt: ask.negativePrompt,
    image: ask.image,
    size: "832*480",
    duration: WAN_SECONDS.find((each) => each >= seconds) ?? 8,
    seed: ask.seed,
  });
}

/** Weights are the URL of a .safetensors, or owner/name at Hugging Face. */
function lorasOf({ lora }: Ask): Input["loras"] {
  return lora && [{ path: lora.weights, scale: lora.scale }];
}

/** It makes no WebP: what was to be one comes without loss. */
function waveSpeedFormat(format: Ask["format"]): "jpeg" | "png" | undefined {
  if (format === undefined) return undefined;
  return format === "jpg" ? "jpeg" : "png";
}

/** The shape that was asked for, as near to its size as the model can come, in steps of 16 pixels. */
function fluxSize(width: number, height: number): string {
  const { min, max } = FLUX_SIDE;
  const grown = Math.max(1, min / Math.min(width, height));
  const factor = Math.min(grown, max / Math.max(width, height));
  const side = (pixels: number) => Math.min(max, Math.max(min, Math.round((pixels * factor) / 16) * 16));
  return `${side(width)}*${side(height)}`;
}

/** Line breaks have been seen to fail Flux elsewhere (E9828). */
function oneLine(prompt: string | undefined): string | undefined {
  return prompt?.replaceAll(/\s*[\r\n]+\s*/g, " ");
}

function defined(input: Readonly<Record<string, unknown>>): Input {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
}
