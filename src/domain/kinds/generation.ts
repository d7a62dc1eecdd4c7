import { z } from "zod";
import type { Kind } from "./kind.ts";

/** Pixels of the three named sizes. */
const SIZES = {
  square: { width: 1024, height: 1024 },
  portrait: { width: 832, height: 1216 },
  landscape: { width: 1216, height: 832 },
} as const;

/** 1,048,576 pixels: 1024 × 1024 is exactly one. */
const MEGAPIXEL = 1024 * 1024;

const side = z.int().min(256).max(1440);

/** Text to image. Defaults are those of the fast model: 4 steps, WebP at quality 80. */
export const generationInput = z
  .strictObject({
    prompt: z.string().trim().min(1).max(2_000).describe("What the image shows, 1 to 2,000 characters."),
    images: z.int().min(1).max(4).default(1).describe("How many images, 1 to 4. Each is priced and settled by itself."),
    size: z.enum(["square", "portrait", "landscape"]).optional().describe("A named size; or give width and height."),
    width: side.optional().describe("Pixels, 256 to 1440; together with height, instead of size."),
    height: side.optional().describe("Pixels, 256 to 1440; together with width, instead of size."),
    steps: z.int().min(1).max(4).default(4).describe("Inference steps, 1 to 4."),
    seed: z
      .int()
      .min(0)
      .max(2_147_483_000)
      .optional()
      .describe("The same seed and prompt give the same images; image n uses seed + n."),
    format: z.enum(["webp", "jpg", "png"]).default("webp"),
    quality: z.int().min(1).max(100).default(80).describe("Of webp and jpg, 1 to 100."),
    goFast: z.boolean().default(true).describe("Use the model's faster arithmetic."),
  })
  .check((ctx) => {
    const { size, width, height } = ctx.value;
    const missing = width === undefined ? "width" : height === undefined ? "height" : null;
    if (missing && (width !== undefined || height !== undefined))
      ctx.issues.push({
        code: "custom",
        path: [missing],
        message: `give ${missing} too, or use size`,
        input: undefined,
      });
    if (width !== undefined && height !== undefined && width * height > MEGAPIXEL)
      ctx.issues.push({
        code: "custom",
        path: ["width"],
        message: `width × height is at most ${MEGAPIXEL} pixels, 1024 × 1024 for instance: the model makes no more`,
        input: width,
      });
    if (size && width !== undefined)
      ctx.issues.push({
        code: "custom",
        path: ["size"],
        message: "give either size, or width and height",
        input: size,
      });
  });
export type GenerationInput = z.output<typeof generationInput>;

export const generation: Kind<GenerationInput> = {
  name: "generation",
  input: generationInput,
  defaultModel: "flux-schnell",
  variants: (input) => ({ count: input.images, minSuccess: 1 }),
  price(input, app) {
    const { width, height } = dimensions(input);
    const megapixels = Math.ceil((width * height) / MEGAPIXEL);
    return Array.from({ length: input.images }, (_, index) => ({
      label: `image ${index + 1}, ${width}×${height}, ${megapixels} MP`,
      credits: megapixels * app.prices.generation.perMegapixel,
    }));
  },
  files: () => ({}),
  order(input, model, { seed }) {
    const { width, height } = dimensions(input);
    return {
      prompt: input.prompt,
      aspect_ratio: nearestAspectRatio(width, height, model.aspectRatios),
      // The two sizes that the model makes: never less than what was asked and paid for.
      megapixels: width * height <= MEGAPIXEL / 4 ? "0.25" : "1",
      num_outputs: 1,
      num_inference_steps: input.steps,
      output_format: input.format,
      output_quality: input.quality,
      go_fast: input.goFast,
      seed,
    };
  },
};

function dimensions(input: Pick<GenerationInput, "size" | "width" | "height">): {
  width: number;
  height: number;
} {
  if (input.width !== undefined && input.height !== undefined) return { width: input.width, height: input.height };
  return SIZES[input.size ?? "square"];
}

/** The model's ratio closest to width : height, by the logarithm, so that 2:1 is as far from 1:1 as 1:2 is. */
export function nearestAspectRatio(width: number, height: number, ratios: readonly string[]): string {
  const wanted = Math.log(width / height);
  const distance = (ratio: string): number => {
    const [w = 1, h = 1] = ratio.split(":").map(Number);
    return Math.abs(Math.log(w / h) - wanted);
  };
  return ratios.reduce((best, ratio) => (distance(ratio) < distance(best) ? ratio : best), ratios[0] ?? "1:1");
}
