import { z } from "zod";
import { clampTo, file, fileRef } from "./fields.ts";
import type { FieldProblem, Fit, Kind, Limits } from "./kind.ts";

const LEAST_PHOTOS = 4;
export const MOST_PHOTOS = 40;

const DEFAULT_STEPS = 1_000;
const DEFAULT_RESOLUTION = 1_024;

/** A model of one face, thing or style, made from photos; the user's own generations can use it afterwards. */
export const trainingInput = z
  .strictObject({
    photos: z
      .array(file("A photo"))
      .min(LEAST_PHOTOS, `at least ${LEAST_PHOTOS} photos are needed`)
      .max(MOST_PHOTOS, `at most ${MOST_PHOTOS} photos are taken`)
      .describe(
        `${LEAST_PHOTOS} to ${MOST_PHOTOS} photos: HTTPS URLs, or ids that POST /api/uploads or POST /api/photo-sets (which takes a ZIP) answered.`,
      ),
    name: z.string().trim().min(1).max(100).default("model").describe("What the user calls it."),
    triggerWord: z
      .string()
      .regex(/^[A-Za-z][A-Za-z0-9_]{1,29}$/, "2 to 30 letters, digits and _, beginning with a letter")
      .default("TOK")
      .describe("The word that stands for it in prompts; one that means nothing else."),
    task: z
      .enum(["face", "object", "style"])
      .optional()
      .describe("What is learned; detected from the photos when absent."),
    steps: z.int().min(100).max(6_000).default(DEFAULT_STEPS).describe("Training steps."),
    resolution: z
      .literal([512, 768, 1_024, 1_536])
      .optional()
      .describe("Pixels of a side that it works at; by default 1024, or what the plan allows."),
    seed: z.int().min(0).max(2_147_483_000).optional().describe("For reproducibility, where the trainer takes one."),
  })
  .check((ctx) => {
    const { photos } = ctx.value;
    for (const [index, photo] of photos.entries())
      if (photos.indexOf(photo) < index)
        ctx.issues.push({
          code: "custom",
          path: ["photos", index],
          message: `is the same as photo ${photos.indexOf(photo) + 1}: each photo counts once`,
          input: photo,
        });
  });
export type TrainingInput = z.output<typeof trainingInput>;

export const training: Kind<TrainingInput> = {
  name: "training",
  input: trainingInput,
  defaultModel: "flux-lora-trainer",
  // A training costs dollars and takes an hour: what ended badly is refunded, and nothing is bought on our own account.
  maxAttempts: 1,
  maxRebuys: 0,
  fit,
  variants: () => ({ count: 1, minSuccess: 1 }),
  measure: (input) => ({
    noun: "training",
    variants: 1,
    steps: input.steps,
    resolution: input.resolution ?? DEFAULT_RESOLUTION,
  }),
  files: (input) => Object.fromEntries(input.photos.map((photo, index) => [photoField(index), fileRef(photo)])),
  trainedModel: () => null,
  ask: (input, _model, { seed, fileUrls, safety }) => ({
    seed,
    safety,
    archive: fileUrls[ARCHIVE_FIELD],
    triggerWord: input.triggerWord,
    task: input.task ?? "object",
    steps: input.steps,
    resolution: input.resolution ?? DEFAULT_RESOLUTION,
  }),
};

/** Under this name the worker puts the ZIP of all photos into `fileUrls`. */
export const ARCHIVE_FIELD = "archive";

/** The name of a photo among the files of a job: "photos/0". */
export const photoField = (index: number) => `photos/${index}`;

function fit(input: TrainingInput, { plan, model }: Limits): Fit<TrainingInput> {
  const { limits, alias } = model;
  const problems: FieldProblem[] = [];
  const resolutions = limits.resolutions ?? [];
  if (input.resolution !== undefined && !resolutions.includes(input.resolution))
    problems.push({ pointer: "/input/resolution", detail: `the model ${alias} trains at ${resolutions.join(", ")}` });
  const wanted = input.resolution ?? DEFAULT_RESOLUTION;
  const allowed = resolutions.filter((each) => each <= plan.maxTrainingResolution);
  const most = Math.max(...allowed, 0);
  if (plan.maxModels === 0)
    problems.push({ pointer: "/kind", detail: "the user's plan has no trained models: a training needs another plan" });
  else if (most === 0)
    problems.push({
      pointer: "/input/resolution",
      detail: `the plan trains at ${plan.maxTrainingResolution} pixels at most, the model ${alias} at ${resolutions.join(", ")}`,
    });
  const { value, clamps } = clampTo(
    wanted,
    most,
    "/input/resolution",
    `the plan trains at ${plan.maxTrainingResolution} pixels at most`,
  );
  const range = limits.steps;
  if (range && (input.steps < range.min || input.steps > range.max))
    problems.push({ pointer: "/input/steps", detail: `the model ${alias} takes ${range.min} to ${range.max} steps` });
  return {
    input: { ...input, resolution: value as TrainingInput["resolution"] },
    // What nobody asked for is no warning to anybody, and what the model cannot do is said already.
    clamps: input.resolution !== undefined && most > 0 && resolutions.includes(input.resolution) ? clamps : [],
    problems,
  };
}
