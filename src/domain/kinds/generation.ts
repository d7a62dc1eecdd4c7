import { z } from "zod";
import { MEGAPIXEL } from "../pricing.ts";
import { promptOf } from "../styles.ts";
import {
  clampTo,
  file,
  fileProblem,
  fileRefs,
  minSuccess,
  safety,
  seed,
  seeds,
  styleOf,
  variantProblems,
} from "./fields.ts";
import type { Clamp, FieldProblem, Fit, Kind, Limits } from "./kind.ts";

/** Pixels of the three named sizes. */
const SIZES = {
  square: { width: 1024, height: 1024 },
  portrait: { width: 832, height: 1216 },
  landscape: { width: 1216, height: 832 },
} as const;

/** What the models with fixed shapes make at most on a side. */
const MOST_SHAPED_SIDE = 1_440;
const LEAST_SIDE = 256;

const side = z.int().min(LEAST_SIDE).max(4_096);

/** Text to image. Defaults are those of the model: 4 steps and WebP at quality 80 for the fast one. */
export const generationInput = z
  .strictObject({
    prompt: z.string().trim().min(1).max(2_000).describe("What the image shows, 1 to 2,000 characters."),
    negativePrompt: z.string().trim().max(1_000).optional().describe("What it must not show; SDXL models only."),
    style: styleOf("generation").optional(),
    images: z.int().min(1).max(4).default(1).describe("How many images, 1 to 4. Each is priced and settled by itself."),
    minSuccess,
    size: z.enum(["square", "portrait", "landscape"]).optional().describe("A named size; or give width and height."),
    width: side.optional().describe("Pixels, at least 256; together with height, instead of size."),
    height: side.optional().describe("Pixels, at least 256; together with width, instead of size."),
    steps: z.int().min(1).max(100).optional().describe("Inference steps; by default what the model is made for."),
    guidance: z.number().min(0).max(20).optional().describe("How closely the prompt is followed."),
    seed,
    seeds,
    image: file("The picture to start from").optional(),
    trainedModel: z.uuid().optional().describe("A trained model of this user, by its id."),
    loraScale: z.number().min(0).max(2).default(1).describe("How strongly the trained model counts."),
    format: z.enum(["webp", "jpg", "png"]).optional().describe("By default webp where the model makes it."),
    quality: z.int().min(1).max(100).default(80).describe("Of webp and jpg, 1 to 100."),
    goFast: z.boolean().default(true).describe("Use the model's faster arithmetic."),
    safety,
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
  maxAttempts: 3,
  maxRebuys: 1,
  fit,
  variants: (input) => ({ count: input.images, minSuccess: input.minSuccess ?? 1 }),
  measure(input, model) {
    const { width, height } = dimensions(input);
    return {
      noun: "image",
      variants: input.images,
      width,
      height,
      ...(input.steps === undefined ? {} : { steps: input.steps }),
      ...(model.limits.steps ? { defaultSteps: model.limits.steps.default } : {}),
    };
  },
  files: (input) => fileRefs({ image: input.image }),
  trainedModel: (input) => input.trainedModel ?? null,
  ask(input, model, { seed: ownSeed, fileUrls, trained, safety: isSafe }) {
    const { width, height } = dimensions(input);
    const isFlux = model.limits.aspectRatios !== undefined;
    return {
      seed: ownSeed,
      safety: isSafe,
      prompt: promptWith(input.prompt, promptOf("generation", input.style), trained?.triggerWord),
      negativePrompt: isFlux ? undefined : input.negativePrompt,
      width,
      height,
      steps: input.steps,
      guidance: input.guidance,
      ...(input.format ? { format: input.format } : {}),
      quality: input.quality,
      goFast: input.goFast,
      image: fileUrls["image"],
      lora: trained ? { weights: trained.weights, scale: input.loraScale } : undefined,
    };
  },
};

function fit(input: GenerationInput, { app, plan, model }: Limits): Fit<GenerationInput> {
  const { limits, alias } = model;
  const clamps: Clamp[] = [];
  const problems: FieldProblem[] = [
    ...variantProblems(input, input.images),
    ...fileProblem("image", input.image, model, "generation"),
  ];
  if (input.trainedModel && !limits.lora)
    problems.push({
      pointer: "/input/trainedModel",
      detail: `the model ${alias} cannot be used with trained models; take flux-dev-lora, flux-schnell-lora or sdxl`,
    });
  if (input.format && limits.formats && !limits.formats.includes(input.format))
    problems.push({ pointer: "/input/format", detail: `the model ${alias} makes ${limits.formats.join(" and ")}` });

  let { width, height } = dimensions(input);
  const most = limits.aspectRatios ? MOST_SHAPED_SIDE : (limits.maxSide ?? MOST_SHAPED_SIDE);
  for (const [name, pixels] of [
    ["width", width],
    ["height", height],
  ] as const)
    if (pixels > most) problems.push({ pointer: `/input/${name}`, detail: `the model ${alias} makes at most ${most}` });
  if (limits.aspectRatios && width * height > MEGAPIXEL)
    problems.push({
      pointer: "/input/width",
      detail: `width × height is at most ${MEGAPIXEL} pixels, 1024 × 1024 for instance: the model makes no more`,
    });
  else if (!limits.aspectRatios && (width % 8 !== 0 || height % 8 !== 0))
    problems.push({
      pointer: "/input/width",
      detail: `the model ${alias} makes sides that 8 divides: ${width - (width % 8)}×${height - (height % 8)}, say`,
    });
  for (const field of ["guidance", "loraScale"] as const) {
    const value = field === "loraScale" && !input.trainedModel ? undefined : input[field];
    const able = limits[field];
    if (value !== undefined && able && (value < able.min || value > able.max))
      problems.push({ pointer: `/input/${field}`, detail: `the model ${alias} takes ${able.min} to ${able.max}` });
  }
  const longest = Math.max(width, height);
  if (longest > plan.maxSide) {
    const scale = plan.maxSide / longest;
    const smaller = (pixels: number) => Math.max(LEAST_SIDE, Math.floor((pixels * scale) / 8) * 8);
    const to = { width: smaller(width), height: smaller(height) };
    // What nobody asked for is no warning to anybody.
    if (input.size || input.width !== undefined)
      clamps.push({
        pointer: input.size ? "/input/size" : "/input/width",
        from: { width, height },
        to,
        because: `the plan makes images of at most ${plan.maxSide} pixels a side`,
      });
    ({ width, height } = to);
  }

  const range = limits.steps;
  let steps = input.steps ?? range?.default;
  if (steps !== undefined && range && (steps < range.min || steps > range.max))
    problems.push({ pointer: "/input/steps", detail: `the model ${alias} takes ${range.min} to ${range.max} steps` });
  if (steps !== undefined && plan.maxSteps !== null) {
    const clamped = clampTo(steps, plan.maxSteps, "/input/steps", `the plan allows ${plan.maxSteps} steps`);
    steps = clamped.value;
    if (input.steps !== undefined) clamps.push(...clamped.clamps);
  }
  const { size: _, ...rest } = input;
  return {
    input: {
      ...rest,
      width,
      height,
      steps,
      format: input.format ?? limits.formats?.[0],
      minSuccess: input.minSuccess ?? Math.min(app.minSuccess.generation ?? 1, input.images),
    },
    clamps,
    problems,
  };
}

function dimensions(input: Pick<GenerationInput, "size" | "width" | "height">): {
  width: number;
  height: number;
} {
  if (input.width !== undefined && input.height !== undefined) return { width: input.width, height: input.height };
  return SIZES[input.size ?? "square"];
}

/** The trigger word has to be in it, or the trained model is not used. */
function promptWith(prompt: string, style: string, triggerWord: string | undefined): string {
  const named = triggerWord && !prompt.includes(triggerWord) ? `${triggerWord}, ${prompt}` : prompt;
  return style ? `${named}, ${style}` : named;
}
