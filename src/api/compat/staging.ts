import { z } from "zod";
import type { Routes } from "../app.ts";
import { refresh } from "../jobs.ts";
import { providerStatus, tellStatus } from "../provider-status.ts";
import {
  findLegacy,
  invalidField,
  KEYS_NOTE,
  legacyHeaders,
  legacyJob,
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
      response: { 200: providerStatus, ...refusals },
    },
    handler: async (request) => tellStatus(services, request, request.params.id, services.providers),
  });
};

function toStaged({ legacy }: Told): z.input<typeof staged> {
  return { ...legacy, stagedUrls: legacy.resultUrls };
}
