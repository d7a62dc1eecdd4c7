import { join } from "node:path";
import { z } from "zod";
import { findModel } from "../../domain/catalogue.ts";
import { MOST_PHOTOS } from "../../domain/kinds/training.ts";
import { ServiceError } from "../../errors.ts";
import { readArchive } from "../../storage/archive.ts";
import { ArchiveRefused } from "../../storage/archive-refused.ts";
import { FetchRefused } from "../../storage/guarded-fetch.ts";
import { withScratch } from "../../storage/scratch.ts";
import type { ApiServices, Routes } from "../app.ts";
import { judgeBytes } from "../photos.ts";
import {
  currentRuns,
  defined,
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

/** What ProHeadshots calls: createTuneReplicate and createPromptReplicate, and their status reads. */

/** 40 photos of 25 MB; and how long its host may take. */
const MOST_ARCHIVE_BYTES = 1_000_000_000;
const ARCHIVE_TIMEOUT_MS = 60_000;

const url = z.string().min(1).max(2_048);
const tuneBody = z.looseObject({
  user_id: z.string().describe("Whose credits are charged."),
  input_images: z
    .union([url.describe("The URL of a ZIP of the photos"), z.array(url).describe("URLs, or uploads' ids")])
    .describe("4 to 40 photos."),
  trigger_word: z.string(),
  name: z.string().nullish(),
  max_train_steps: z.int().nullish(),
  resolution: z.int().nullish(),
  seed: z.int().nullish(),
  model_type: z.enum(["sdxl-lora", "flux-lora"]).nullish().describe("By default sdxl-lora."),
});
const promptBody = z.looseObject({
  user_id: z.string().describe("Whose credits are charged."),
  prompt: z.string(),
  tune_id: z.string().nullish().describe("A trained model: the tune_id of its training."),
  model: z.string().max(100).nullish().describe("sdxl, sdxl-lightning, flux-dev or flux-schnell."),
  negative_prompt: z.string().nullish(),
  width: z.int().nullish(),
  height: z.int().nullish(),
  num_outputs: z.int().default(4).describe("Each is charged."),
  num_inference_steps: z.int().nullish(),
  guidance_scale: z.number().nullish(),
  seed: z.int().nullish(),
  lora_scale: z.number().nullish(),
});

const common = {
  ...legacyJob.omit({ jobId: true, status: true, resultUrls: true, replicateJobId: true }).shape,
  status: z.enum(PREDICTION_STATUSES),
  provider: z.string().describe("Who was bought from; replicate until that is known."),
  logs: z.string().describe("Always empty: the timeline of the job has what happened."),
};
const tune = z.object({
  ...common,
  tune_id: z.uuid(),
  training_id: z.string().describe("The provider's; the job's id before that is known. Both are taken by GET."),
  replicate_training_id: z.string().nullable(),
  model_type: z.string(),
  trigger_word: z.string(),
  quality: z.int().nullable().describe("0 to 100, of the photos."),
  output: z.object({ weights: z.url() }).nullable(),
  message: z.string(),
});
const prompt = z.object({
  ...common,
  prompt_id: z.uuid(),
  prediction_id: z.string().describe("The provider's, joined by commas; the job's id before they are known."),
  replicate_prediction_id: z.string().nullable(),
  model_type: z.string(),
  urls: z.array(z.url()),
  metrics: z.object({ predict_time: z.number().optional() }),
  message: z.string(),
});

export const headshotRoutes: Routes = (app, services) => {
  app.route({
    method: "POST",
    url: "/api/llm/tune",
    schema: {
      tags: ["compat"],
      summary: "ProHeadshots: train a model (createTuneReplicate)",
      description: `Every photo is judged before anything is charged. Fields that are not named here, such as learning_rate, are kept as the job's metadata. ${KEYS_NOTE}`,
      headers: legacyHeaders,
      body: tuneBody,
      response: { 200: tune, ...refusals },
    },
    handler: async (request, reply) => {
      const { appId } = await services.authenticate(request);
      const { user_id, input_images, trigger_word, name, max_train_steps, resolution, seed, model_type, ...metadata } =
        request.body;
      const photos = Array.isArray(input_images) ? input_images : await unpack(services, appId, input_images);
      const told = await submitLegacy(services, request, reply, {
        kind: "training",
        user: user_id,
        model: model_type ? `${model_type}-trainer` : undefined,
        input: { photos, triggerWord: trigger_word, name, steps: max_train_steps, resolution, seed },
        metadata,
        names: {
          "/user": "/user_id",
          "/model": "/model_type",
          "/input/photos": "/input_images",
          "/input/triggerWord": "/trigger_word",
          "/input/steps": "/max_train_steps",
          "/input/": "/",
        },
      });
      return toTune(told, "Training started successfully");
    },
  });

  app.route({
    method: "GET",
    url: "/api/llm/tune",
    schema: {
      tags: ["compat"],
      summary: "ProHeadshots: how a training stands",
      querystring: z.object({ training_id: z.string().max(200).optional(), tune_id: z.string().max(200).optional() }),
      response: { 200: tune, ...refusals },
    },
    handler: async (request) => {
      const { tune_id, training_id } = request.query;
      return toTune(await standing(services, request, "training", tune_id ?? training_id, "tune_id"), "");
    },
  });

  app.route({
    method: "POST",
    url: "/api/llm/prompt",
    schema: {
      tags: ["compat"],
      summary: "ProHeadshots: make images, also with a trained model (createPromptReplicate)",
      description: `Makes and charges four images unless num_outputs says otherwise. Fields that are not named here, such as scheduler, are kept as the job's metadata. ${KEYS_NOTE}`,
      headers: legacyHeaders,
      body: promptBody,
      response: { 200: prompt, ...refusals },
    },
    handler: async (request, reply) => {
      const {
        user_id,
        prompt: words,
        tune_id,
        model,
        negative_prompt,
        width,
        height,
        num_outputs,
        num_inference_steps,
        guidance_scale,
        seed,
        lora_scale,
        ...metadata
      } = request.body;
      const told = await submitLegacy(services, request, reply, {
        kind: "generation",
        user: user_id,
        model: model ? withLora(model, tune_id) : undefined,
        input: {
          prompt: words,
          negativePrompt: negative_prompt,
          width,
          height,
          images: num_outputs,
          steps: num_inference_steps,
          guidance: guidance_scale,
          seed,
          trainedModel: tune_id,
          loraScale: lora_scale,
        },
        metadata,
        names: {
          "/user": "/user_id",
          "/input/negativePrompt": "/negative_prompt",
          "/input/images": "/num_outputs",
          "/input/steps": "/num_inference_steps",
          "/input/guidance": "/guidance_scale",
          "/input/trainedModel": "/tune_id",
          "/input/loraScale": "/lora_scale",
          "/input/": "/",
        },
      });
      return toPrompt(told, "Generation started successfully");
    },
  });

  app.route({
    method: "GET",
    url: "/api/llm/prompt",
    schema: {
      tags: ["compat"],
      summary: "ProHeadshots: how a generation stands",
      querystring: z.object({
        prediction_id: z.string().max(1_000).optional(),
        prompt_id: z.string().max(200).optional(),
      }),
      response: { 200: prompt, ...refusals },
    },
    handler: async (request) => {
      const { prompt_id, prediction_id } = request.query;
      // Several predictions make one prompt: the first finds it.
      const id = prompt_id ?? prediction_id?.split(",")[0];
      return toPrompt(await standing(services, request, "generation", id, "prompt_id"), "");
    },
  });
};

/** FLUX loads trained models under another name. */
function withLora(model: string, tune: string | null | undefined): string {
  const lora = findModel("generation", `${model}-lora`);
  return tune && lora ? lora.alias : model;
}

/** The photos of a ZIP that the caller names, as uploads. What can be judged is judged again with the training. */
async function unpack(services: ApiServices, appId: string, address: string): Promise<string[]> {
  return withScratch(async (folder) => {
    const path = join(folder, "photos.zip");
    try {
      await services.fetchToFile(address, path, { maxBytes: MOST_ARCHIVE_BYTES, timeoutMs: ARCHIVE_TIMEOUT_MS });
      const ids: string[] = [];
      const limits = {
        maxEntries: MOST_PHOTOS,
        maxEntryBytes: services.limits.maxBytes,
        maxTotalBytes: MOST_ARCHIVE_BYTES,
      };
      for await (const entry of readArchive(path, limits)) {
        if ("refused" in entry) throw new ArchiveRefused(entry.refused.code, entry.refused.message);
        const { asset, verdict } = await judgeBytes(services, appId, entry.bytes);
        if (!asset)
          throw invalidField("/input_images", `${entry.name}: ${verdict.problems[0]?.detail ?? "cannot be read"}`);
        ids.push(asset.id);
      }
      return ids;
    } catch (error) {
      if (error instanceof ArchiveRefused || error instanceof FetchRefused)
        throw new ServiceError("file_refused", `body field /input_images: ${error.message} Nothing was charged.`, {
          fields: [{ pointer: "/input_images", detail: error.message }],
          facts: { reason: error.code },
        });
      throw error;
    }
  });
}

function toCommon({ job, legacy }: Told) {
  const { jobId: _id, status: _status, resultUrls: _urls, replicateJobId: _ids, ...same } = legacy;
  return {
    ...same,
    status: predictionStatus(job.status),
    provider: currentRuns(job)[0]?.provider ?? "replicate",
    logs: "",
  };
}

function toTune(told: Told, message: string): z.input<typeof tune> {
  const { job, legacy, view } = told;
  const input = view.job.input as { readonly triggerWord: string };
  const weights = legacy.resultUrls[0];
  return {
    ...toCommon(told),
    tune_id: job.id,
    training_id: legacy.replicateJobId ?? job.id,
    replicate_training_id: legacy.replicateJobId,
    model_type: findModel("training", job.model)?.limits.trains === "flux" ? "flux-lora" : "sdxl-lora",
    trigger_word: input.triggerWord,
    quality: job.trainedModel?.quality ?? null,
    output: weights ? { weights } : null,
    message,
  };
}

function toPrompt(told: Told, message: string): z.input<typeof prompt> {
  const { job, legacy } = told;
  const seconds = job.runs.flatMap((run) => run.seconds ?? []);
  return {
    ...toCommon(told),
    prompt_id: job.id,
    prediction_id: legacy.replicateJobId ?? job.id,
    replicate_prediction_id: legacy.replicateJobId,
    model_type: job.model,
    urls: legacy.resultUrls,
    metrics: defined({ predict_time: seconds.length > 0 ? Math.max(...seconds) : undefined }),
    message,
  };
}
