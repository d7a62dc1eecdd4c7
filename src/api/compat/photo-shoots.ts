import { z } from "zod";
import { nearestAspectRatio } from "../../domain/replicate-inputs.ts";
import { STYLES } from "../../domain/styles.ts";
import type { Routes } from "../app.ts";
import {
  invalidField,
  KEYS_NOTE,
  legacyHeaders,
  legacyJob,
  PREDICTION_STATUSES,
  predictionStatus,
  refusals,
  standing,
  submitLegacy,
  type Told,
} from "./legacy.ts";

/** What Ensaio Fotos calls: train, generate, and their status reads. Its answers lie in `data`. */

const url = z.string().min(1).max(2_048);
const params = z.looseObject({
  steps: z.int().nullish(),
  resolution: z
    .union([z.int(), z.string().max(40)])
    .nullish()
    .describe('Pixels, or a list such as "512,768,1024": the largest counts.'),
  seed: z.int().nullish(),
});
const trainBody = z.looseObject({
  userId: z.string().describe("Whose credits are charged."),
  imageUrls: z.array(url).describe("4 to 40 photos: HTTPS URLs, or uploads' ids."),
  name: z.string().nullish(),
  triggerWord: z.string().nullish(),
  classWord: z.string().nullish().describe("What is on the photos: person, man, woman, style, or a thing."),
  trainingParams: params.nullish(),
  params: params.nullish().describe("The same, by its other name."),
});
const generateBody = z.looseObject({
  userId: z.string().describe("Whose credits are charged."),
  modelId: z.string().nullish().describe("A trained model: the modelId of its training. Without it: the base model."),
  prompt: z.string(),
  negativePrompt: z.string().nullish(),
  generationParams: z
    .looseObject({
      width: z.int().nullish(),
      height: z.int().nullish(),
      guidance_scale: z.number().nullish(),
      seed: z.int().nullish(),
      safety_checker: z.boolean().nullish(),
    })
    .nullish()
    .describe("steps and scheduler were made for other models: the model's own are taken, 4 steps for the fast one."),
  aspectRatio: z
    .string()
    .regex(/^\d{1,2}:\d{1,2}$/, "is two numbers, such as 3:4")
    .nullish(),
  style: z.string().nullish().describe("A style of GET /api/styles; any other word is kept as metadata."),
  variations: z.int().default(1).describe("1 to 4. Each is charged."),
});

const data = {
  status: z.enum(PREDICTION_STATUSES),
  estimatedTime: z.int().describe("Seconds."),
  cost: z.int().describe("Credits; after the end, what was kept of them."),
  ...legacyJob.pick({ jobId: true, progress: true, newBalance: true, error: true, errorCode: true }).shape,
  clamps: z
    .array(z.object({ pointer: z.string(), from: z.unknown(), to: z.unknown(), because: z.string() }))
    .describe("What was beyond the plan and was taken down to it, by our names of the fields."),
  metadata: z.record(z.string(), z.unknown()),
};
const trained = z.object({
  success: z.literal(true),
  data: z.object({
    ...data,
    trainingId: z.string().describe("The provider's; the job's id before that is known. Both are taken by GET."),
    modelId: z.uuid().describe("For generate, once the status is succeeded."),
    triggerWord: z.string(),
    qualityScore: z.int().nullable().describe("0 to 100, of the photos."),
    model: z.object({ url: z.url() }).nullable().describe("The weights, when there are any."),
  }),
});
const generated = z.object({
  success: z.literal(true),
  data: z.object({ ...data, generationId: z.uuid(), prompt: z.string(), urls: z.array(z.url()) }),
});

export const photoShootRoutes: Routes = (app, services) => {
  app.route({
    method: "POST",
    url: "/api/ai/train",
    schema: {
      tags: ["compat"],
      summary: "Ensaio Fotos: train a model",
      description: `Every photo is judged before anything is charged. Fields that are not named here are kept as the job's metadata. ${KEYS_NOTE}`,
      headers: legacyHeaders,
      body: trainBody,
      response: { 200: trained, ...refusals },
    },
    handler: async (request, reply) => {
      const { userId, imageUrls, name, triggerWord, classWord, trainingParams, params: same, ...rest } = request.body;
      const given = trainingParams ?? same;
      const within = trainingParams ? "trainingParams" : "params";
      const { steps, resolution, seed, ...more } = given ?? {};
      const told = await submitLegacy(services, request, reply, {
        kind: "training",
        user: userId,
        input: {
          photos: imageUrls,
          name,
          triggerWord,
          task: taskOf(classWord),
          steps,
          resolution: largest(resolution),
          seed,
        },
        metadata: { ...rest, ...(classWord ? { classWord } : {}), ...more },
        names: {
          "/user": "/userId",
          "/input/photos": "/imageUrls",
          "/input/name": "/name",
          "/input/triggerWord": "/triggerWord",
          "/input/": `/${within}/`,
        },
      });
      return toTrained(told);
    },
  });

  app.route({
    method: "GET",
    url: "/api/ai/train",
    schema: {
      tags: ["compat"],
      summary: "Ensaio Fotos: how a training stands",
      querystring: z.object({ trainingId: z.string().min(1).max(200) }),
      response: { 200: trained, ...refusals },
    },
    handler: async (request) => {
      return toTrained(await standing(services, request, "training", request.query.trainingId, "trainingId"));
    },
  });

  app.route({
    method: "POST",
    url: "/api/ai/generate",
    schema: {
      tags: ["compat"],
      summary: "Ensaio Fotos: make images, also with a trained model",
      description: `Fields that are not named here are kept as the job's metadata. ${KEYS_NOTE}`,
      headers: legacyHeaders,
      body: generateBody,
      response: { 200: generated, ...refusals },
    },
    handler: async (request, reply) => {
      const { userId, modelId, prompt, negativePrompt, generationParams, aspectRatio, style, variations, ...rest } =
        request.body;
      const { width, height, guidance_scale, seed, safety_checker, ...more } = generationParams ?? {};
      const known = STYLES.some((each) => each.kind === "generation" && each.id === style);
      const told = await submitLegacy(services, request, reply, {
        kind: "generation",
        user: userId,
        input: {
          prompt,
          negativePrompt,
          ...(width || height ? { width, height } : { size: sizeOf(aspectRatio) }),
          guidance: guidance_scale,
          seed,
          safety: safety_checker,
          trainedModel: modelId,
          style: known ? style : undefined,
          images: variations,
        },
        metadata: { ...rest, ...more, ...(style && !known ? { style } : {}) },
        names: {
          "/user": "/userId",
          "/input/trainedModel": "/modelId",
          "/input/images": "/variations",
          "/input/size": "/aspectRatio",
          "/input/width": "/generationParams/width",
          "/input/height": "/generationParams/height",
          "/input/guidance": "/generationParams/guidance_scale",
          "/input/seed": "/generationParams/seed",
          "/input/safety": "/generationParams/safety_checker",
          "/input/": "/",
        },
      });
      return toGenerated(told);
    },
  });

  app.route({
    method: "GET",
    url: "/api/ai/generate",
    schema: {
      tags: ["compat"],
      summary: "Ensaio Fotos: how a generation stands",
      querystring: z.object({ generationId: z.string().max(200).optional(), jobId: z.string().max(200).optional() }),
      response: { 200: generated, ...refusals },
    },
    handler: async (request) => {
      const id = request.query.generationId ?? request.query.jobId;
      return toGenerated(await standing(services, request, "generation", id, "generationId"));
    },
  });
};

/** Absent: detected from the photos. */
function taskOf(word: string | null | undefined): "face" | "style" | "object" | undefined {
  if (!word) return undefined;
  if (/^(person|man|woman|boy|girl|face|homem|mulher|pessoa)$/i.test(word)) return "face";
  return /^(style|estilo)$/i.test(word) ? "style" : "object";
}

function largest(resolution: number | string | null | undefined): number | undefined {
  if (typeof resolution !== "string") return resolution ?? undefined;
  const sides = resolution.split(",").map(Number);
  if (sides.some((side) => !Number.isInteger(side)))
    throw invalidField("/trainingParams/resolution", "is pixels of a side, or a list of them such as 512,768,1024");
  return Math.max(...sides);
}

const SIZES = { "1:1": "square", "2:3": "portrait", "3:2": "landscape" } as const;

function sizeOf(ratio: string | null | undefined): string | undefined {
  if (!ratio) return undefined;
  const [width = 1, height = 1] = ratio.split(":").map(Number);
  if (width === 0 || height === 0) throw invalidField("/aspectRatio", "is two numbers from 1 on, such as 3:4");
  return SIZES[nearestAspectRatio(width, height, Object.keys(SIZES)) as keyof typeof SIZES];
}

function toData({ job, legacy }: Told) {
  const { jobId, progress, newBalance, error, errorCode, creditsUsed: cost, estimatedTime, metadata } = legacy;
  const status = predictionStatus(job.status);
  return { jobId, status, progress, cost, newBalance, estimatedTime, error, errorCode, clamps: job.clamps, metadata };
}

function toTrained(told: Told): z.input<typeof trained> {
  const { job, legacy, view } = told;
  const input = view.job.input as { readonly triggerWord: string };
  const weights = legacy.resultUrls[0];
  return {
    success: true,
    data: {
      ...toData(told),
      trainingId: legacy.replicateJobId ?? job.id,
      modelId: job.id,
      triggerWord: input.triggerWord,
      qualityScore: job.trainedModel?.quality ?? null,
      model: weights ? { url: weights } : null,
    },
  };
}

function toGenerated(told: Told): z.input<typeof generated> {
  const { job, legacy, view } = told;
  const input = view.job.input as { readonly prompt: string };
  return {
    success: true,
    data: { ...toData(told), generationId: job.id, prompt: input.prompt, urls: legacy.resultUrls },
  };
}
