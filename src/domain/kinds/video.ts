import { z } from "zod";
import { type Model, modelsOf } from "../catalogue.ts";
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
import type { FieldProblem, Fit, Kind, Limits } from "./kind.ts";

/** A short film from words, from a picture, or from both. */
export const videoInput = z.strictObject({
  prompt: z.string().trim().min(1).max(2_000).describe("What happens, 1 to 2,000 characters."),
  negativePrompt: z.string().trim().max(1_000).optional(),
  image: file("The first picture").optional(),
  style: styleOf("video").optional(),
  seconds: z
    .int()
    .min(1)
    .max(60)
    .optional()
    .describe("Length; the products use 3, 5 and 15. By default 5, or what the plan allows."),
  aspectRatio: z.enum(["16:9", "9:16", "1:1", "4:3", "3:4"]).default("16:9").describe("Ignored with an image."),
  variants: z.int().min(1).max(4).default(1).describe("How many films, 1 to 4. Each is priced and settled by itself."),
  minSuccess,
  seed,
  seeds,
  safety,
});
export type VideoInput = z.output<typeof videoInput>;

const DEFAULT_SECONDS = 5;

export const video: Kind<VideoInput> = {
  name: "video",
  input: videoInput,
  defaultModel: "seedance-1-lite",
  maxAttempts: 3,
  maxRebuys: 1,
  fit,
  variants: (input) => ({ count: input.variants, minSuccess: input.minSuccess ?? 1 }),
  measure: (input) => ({ noun: "video", variants: input.variants, seconds: input.seconds ?? DEFAULT_SECONDS }),
  files: (input) => fileRefs({ image: input.image }),
  trainedModel: () => null,
  ask(input, _model, { seed: ownSeed, fileUrls, safety: isSafe }) {
    const style = promptOf("video", input.style);
    return {
      seed: ownSeed,
      safety: isSafe,
      prompt: style ? `${input.prompt}, ${style}` : input.prompt,
      negativePrompt: input.negativePrompt,
      image: fileUrls["image"],
      seconds: input.seconds ?? DEFAULT_SECONDS,
      aspectRatio: input.aspectRatio,
    };
  },
};

/** The models of the app that make a film of this length of what was sent, for a sentence that says who does not. */
function whoMakes({ image, aspectRatio }: VideoInput, seconds: number, app: Limits["app"]): string {
  const canMake = ({ alias, limits }: Model) =>
    (app.models.video?.allowed?.includes(alias) ?? true) &&
    limits.seconds !== undefined &&
    limits.seconds.min <= seconds &&
    seconds <= limits.seconds.max &&
    (image ? limits.image !== undefined : limits.image !== "required") &&
    (image !== undefined || (limits.aspectRatios?.includes(aspectRatio) ?? true));
  const able = modelsOf("video").filter(canMake);
  return able.length === 0
    ? ""
    : `; ${able.map(({ alias }) => alias).join(", ")} ${able.length > 1 ? "make" : "makes"} ${seconds} s`;
}

function fit(input: VideoInput, { app, plan, model }: Limits): Fit<VideoInput> {
  const { limits, alias } = model;
  const problems: FieldProblem[] = [
    ...variantProblems(input, input.variants),
    ...fileProblem("image", input.image, model, "video"),
  ];
  const { value: seconds, clamps } = clampTo(
    input.seconds ?? DEFAULT_SECONDS,
    plan.maxSeconds,
    "/input/seconds",
    `the plan makes videos of at most ${plan.maxSeconds} s`,
  );
  const range = limits.seconds;
  if (range && (seconds < range.min || seconds > range.max))
    problems.push({
      pointer: "/input/seconds",
      detail: `the model ${alias} makes videos of ${range.min} to ${range.max} s${whoMakes(input, seconds, app)}`,
    });
  if (limits.aspectRatios && !input.image && !limits.aspectRatios.includes(input.aspectRatio))
    problems.push({
      pointer: "/input/aspectRatio",
      detail: `the model ${alias} makes ${limits.aspectRatios.join(", ")}`,
    });
  const least = input.minSuccess ?? Math.min(app.minSuccess.video ?? 1, input.variants);
  return {
    input: { ...input, seconds, minSuccess: least },
    // What nobody asked for is no warning to anybody.
    clamps: input.seconds === undefined ? [] : clamps,
    problems,
  };
}
