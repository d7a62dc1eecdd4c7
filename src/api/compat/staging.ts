import { z } from "zod";
import type { Routes } from "../app.ts";
import {
  currentRuns,
  findLegacy,
  invalidField,
  KEYS_NOTE,
  legacyHeaders,
  legacyJob,
  PREDICTION_STATUSES,
  predictionStatus,
  refresh,
  refusals,
  submitLegacy,
  type Told,
  tell,
} from "./legacy.ts";

/** What Virtual Staging calls: stage, sync, and the status in the provider's words. GET /api/jobs/{id} is everybody's. */

const stageBody = z.looseObject({
  userId: z.string().describe("Whose credits are charged."),
  originalImageUrl: z.string().max(2_048).optional().describe("The room photo: an HTTPS URL, or an upload's id."),
  imageUrl: z.string().max(2_048).optional().describe("The same, by its other name."),
  style: z.string().max(40).optional(),
  roomType: z.string().max(40).optional(),
  mode: z.enum(["furnish", "empty", "declutter"]).optional(),
  prompt: z.string().nullish(),
  seed: z.int().nullish(),
  seeds: z.array(z.int()).max(16).nullish(),
});

const staged = legacyJob.extend({ stagedUrls: z.array(z.url()).describe("As resultUrls: two, or none.") });

/** The product's names of rooms that are called otherwise here. */
const ROOMS: Readonly<Record<string, string>> = {
  office: "home_office",
  study: "home_office",
  family_room: "living_room",
  den: "living_room",
};

const prediction = z.object({
  id: z.string().nullable().describe("The provider's; null before it is known."),
  status: z.enum(PREDICTION_STATUSES),
  output: z.url().nullable().describe("Ours, signed: in our store, not at the provider."),
  error: z.string().nullable(),
});

export const stagingRoutes: Routes = (app, services) => {
  app.route({
    method: "POST",
    url: "/api/stage",
    schema: {
      tags: ["compat"],
      summary: "Virtual Staging: stage a room, two variants",
      description: `Charges both variants, and gives everything back unless both succeed. Fields that are not named here are kept as the job's metadata. ${KEYS_NOTE}`,
      headers: legacyHeaders,
      body: stageBody,
      response: { 200: staged, ...refusals },
    },
    handler: async (request, reply) => {
      const { userId, originalImageUrl, imageUrl, style, roomType, mode, prompt, seed, seeds, ...metadata } =
        request.body;
      const image = originalImageUrl ?? imageUrl;
      if (!image) throw invalidField("/originalImageUrl", "is missing: give the photo's URL, or an upload's id");
      const room = roomType?.toLowerCase().replaceAll(/[ -]/g, "_");
      const told = await submitLegacy(services, request, reply, {
        kind: "staging",
        user: userId,
        input: { image, style: style?.toLowerCase(), room: room && (ROOMS[room] ?? room), mode, prompt, seed, seeds },
        metadata,
        names: {
          "/user": "/userId",
          "/input/image": originalImageUrl ? "/originalImageUrl" : "/imageUrl",
          "/input/room": "/roomType",
          "/input/": "/",
        },
      });
      return toStaged(told);
    },
  });

  app.route({
    method: "POST",
    url: "/api/sync-staging",
    schema: {
      tags: ["compat"],
      summary: "Virtual Staging: ask the provider now",
      description: "Looks at the job's runs at once and answers after at most 3 s. Repeating it is harmless.",
      body: z.looseObject({ jobId: z.string().min(1).max(200) }),
      response: { 200: staged, ...refusals },
    },
    handler: async (request) => {
      const { appId } = await services.authenticate(request);
      const view = await findLegacy(services, appId, request.body.jobId);
      return toStaged(await tell(services, await refresh(services, appId, view)));
    },
  });

  app.route({
    method: "GET",
    url: "/api/replicate/status/:id",
    schema: {
      tags: ["compat"],
      summary: "Virtual Staging: the provider's status, now",
      description:
        "By the id of the job, of a run of ours, or of a prediction or training at the provider; of the API key's own app only.",
      params: z.object({ id: z.string().min(1).max(200) }),
      response: {
        200: z.object({
          id: z.string(),
          jobId: z.uuid(),
          status: z.enum(PREDICTION_STATUSES),
          output: z.array(z.url()).nullable(),
          error: z.string().nullable(),
          progress: z.int(),
          predictions: z.array(prediction).describe("The current run of each variant."),
        }),
        ...refusals,
      },
    },
    handler: async (request) => {
      const { appId } = await services.authenticate(request);
      const { id } = request.params;
      const view = await refresh(services, appId, await findLegacy(services, appId, id));
      const { job, legacy } = await tell(services, view);
      const runs = currentRuns(job);
      const predictions = runs.map(
        (run): z.input<typeof prediction> => ({
          id: run.providerRunId,
          status: RUN_STATUS[run.status],
          // A failed job was refunded: what it made besides is not given away.
          output: job.status === "failed" ? null : (job.results[run.variant]?.file?.url ?? null),
          error: run.failure?.message ?? null,
        }),
      );
      const one = predictions.find((each) => each.id === id) ?? predictions[runs.findIndex((run) => run.id === id)];
      const status = one?.status ?? predictionStatus(job.status);
      const urls = one ? (one.output ? [one.output] : []) : legacy.resultUrls;
      const error = one ? one.error : legacy.error;
      const output = status === "succeeded" ? urls : null;
      return { id, jobId: job.id, status, output, error, progress: legacy.progress, predictions };
    },
  });
};

/** `storing` is not over yet: the result is not ours. */
const RUN_STATUS = {
  submitting: "starting",
  unknown: "starting",
  running: "processing",
  storing: "processing",
  stored: "succeeded",
  failed: "failed",
  canceled: "canceled",
} as const;

function toStaged({ legacy }: Told): z.input<typeof staged> {
  return { ...legacy, stagedUrls: legacy.resultUrls };
}
