import type { Ask } from "./ask.ts";

/**
 * How an ask is written for those whom Hugging Face's router passes it on to; each has its own words. A field that is
 * undefined is not sent. Sources: docs/inference-providers and the client's own payloads, 2026-11.
 */
type Input = Readonly<Record<string, unknown>>;

/** hf-inference: words to a picture. It chooses the file format itself (jpeg or png). */
export function hfInference(ask: Ask): Input {
  return {
    inputs: ask.prompt,
    parameters: defined({
      negative_prompt: ask.negativePrompt,
      width: ask.width,
      height: ask.height,
      num_inference_steps: ask.steps,
      guidance_scale: ask.guidance,
      seed: ask.seed,
    }),
  };
}

/** fal-ai's text-to-image models. */
export function hfFal(ask: Ask): Input {
  const { width = 1_024, height = 1_024 } = ask;
  return defined({
    prompt: ask.prompt,
    negative_prompt: ask.negativePrompt,
    image_size: { width, height },
    num_images: 1,
    num_inference_steps: ask.steps,
    guidance_scale: ask.guidance,
    output_format: falFormat(ask),
    // Left out where it is on: so it is by default.
    enable_safety_checker: ask.safety ? undefined : false,
    seed: ask.seed,
  });
}

/** fal-ai's FLUX.1 Kontext: changes a picture as it is told. */
export function hfFalKontext(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image_url: ask.image,
    num_images: 1,
    output_format: falFormat(ask),
    enable_safety_checker: ask.safety ? undefined : false,
    seed: ask.seed,
  });
}

const WAN_FPS = 16;

/** fal-ai's Wan 2.2: a film from a picture. */
export function hfFalWan(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    image_url: ask.image,
    // 81 frames are 5 s.
    num_frames: Math.min(161, Math.max(17, (ask.seconds ?? 5) * WAN_FPS + 1)),
    frames_per_second: WAN_FPS,
    resolution: "480p",
    enable_safety_checker: ask.safety,
    seed: ask.seed,
  });
}

/** together: words to a picture, in the form of OpenAI's images. */
export function hfTogether(ask: Ask): Input {
  return defined({
    prompt: ask.prompt,
    negative_prompt: ask.negativePrompt,
    width: ask.width,
    height: ask.height,
    steps: ask.steps,
    guidance_scale: ask.guidance,
    n: 1,
    disable_safety_checker: ask.safety ? undefined : true,
    seed: ask.seed,
    response_format: "base64",
  });
}

/** fal makes no webp of its own accord; its jpeg is the smaller of what it makes. */
const falFormat = ({ format }: Ask) => (format === "png" ? "png" : "jpeg");

function defined(input: Readonly<Record<string, unknown>>): Input {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
}
