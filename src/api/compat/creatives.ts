import { z } from "zod";
import { findModel } from "../../domain/catalogue.ts";
import type { ApiServices, Routes } from "../app.ts";
import { appOf, fitSubmission as fitted } from "../ordering.ts";
import {
  inTheirWords,
  KEYS_NOTE,
  type LegacyWish,
  legacyHeaders,
  legacyJob,
  refusals,
  submitLegacy,
  toSubmission,
} from "./legacy.ts";

/** What AI Freedom Studios calls: pictures and films for the campaigns of its tenants. */

const quality = z.looseObject({
  width: z.int().nullish(),
  height: z.int().nullish(),
  negativePrompt: z.string().nullish(),
  numInferenceSteps: z.int().nullish(),
  guidanceScale: z.number().nullish(),
  durationSeconds: z.int().nullish(),
});
const creativeBody = z.looseObject({
  tenantId: z
    .string()
    .min(1)
    .max(90)
    .regex(/^[^/]+$/, "may not hold a slash")
    .describe("Whose credits are charged."),
  userId: z.string().min(1).max(100).nullish().describe("Of the tenant; with it, the user's own credits are charged."),
  campaignId: z.string().max(200).nullish().describe("Echoed, also in the callback."),
  model: z
    .string()
    .max(100)
    .nullish()
    .describe(
      "A model of GET /api/models. Any other is a model for texts, such as gpt-4o: it makes no media, and is echoed.",
    ),
  prompt: z.string(),
  generateActual: z.boolean().default(false).describe("false: only the price is told."),
  quality: quality.nullish(),
});
type CreativeBody = z.output<typeof creativeBody>;

/** The product's length of a film, in seconds. */
const FILM_SECONDS = 15;

const creative = z.object({
  success: z.literal(true),
  tenantId: z.string(),
  campaignId: z.string().nullable(),
  type: z.enum(["image", "video"]),
  prompt: z.string(),
  textModel: z.string().nullable(),
  generated: z.boolean().describe("Whether there is a job for it."),
  price: z.object({ credits: z.int(), lines: z.array(z.object({ label: z.string(), credits: z.int() })) }),
  job_id: z.uuid().nullable(),
  status: z.enum(["draft", "pending", "processing", "completed", "failed"]),
  assets: z.object({ imageUrls: z.array(z.url()), videoUrl: z.url().nullable() }),
  message: z.string(),
  job: legacyJob.nullable(),
});

export const creativeRoutes: Routes = (app, services) => {
  for (const type of ["image", "video"] as const)
    app.route({
      method: "POST",
      url: `/api/creatives/generate/${type}`,
      schema: {
        tags: ["compat"],
        summary: `AI Freedom Studios: ${type === "image" ? "a picture" : "a film of 15 s"} for a campaign`,
        description: `The account is the tenant's, tenant:<tenantId>, or with userId tenant:<tenantId>/<userId>. Answers at once; ask GET /api/jobs/{job_id}, or send Prefer: wait=60. Fields that are not named here are kept as the job's metadata. ${KEYS_NOTE}`,
        headers: legacyHeaders,
        body: creativeBody,
        response: { 200: creative, ...refusals },
      },
      handler: async (request, reply) => {
        const { body } = request;
        const wish = toWish(type, body);
        const same = {
          success: true as const,
          tenantId: body.tenantId,
          campaignId: body.campaignId ?? null,
          type,
          prompt: body.prompt,
          textModel: wish.model ? null : (body.model ?? null),
        };
        if (!body.generateActual) {
          const { appId } = await services.authenticate(request);
          return {
            ...same,
            generated: false,
            price: await priceOf(services, appId, wish),
            job_id: null,
            status: "draft" as const,
            assets: { imageUrls: [], videoUrl: null },
            message: "Nothing was generated or charged: this is the price. Send generateActual: true.",
            job: null,
          };
        }
        const { job, legacy } = await submitLegacy(services, request, reply, wish);
        const [url = null] = legacy.resultUrls;
        return {
          ...same,
          generated: true,
          price: job.price,
          job_id: job.id,
          status: legacy.status,
          assets: { imageUrls: type === "image" ? legacy.resultUrls : [], videoUrl: type === "video" ? url : null },
          message: MESSAGES[legacy.status],
          job: legacy,
        };
      },
    });
};

const MESSAGES = {
  pending: "Generation started. Use job_id to ask for its status.",
  processing: "Generation is under way. Use job_id to ask for its status.",
  completed: "Generated.",
  failed: "Generation failed, and everything was refunded.",
} as const;

function toWish(type: "image" | "video", body: CreativeBody): LegacyWish {
  const { tenantId, userId, campaignId, model, prompt, generateActual: _, quality: given, ...rest } = body;
  const kind = type === "image" ? "generation" : "video";
  const media = model && findModel(kind, model) ? model : undefined;
  const { width, height, negativePrompt, numInferenceSteps, guidanceScale, durationSeconds, ...more } = given ?? {};
  const input =
    type === "image"
      ? { prompt, negativePrompt, width, height, steps: numInferenceSteps, guidance: guidanceScale }
      : { prompt, negativePrompt, seconds: durationSeconds ?? FILM_SECONDS };
  return {
    kind,
    // With a prefix, and no slash in the tenant: no two accounts can have one name.
    user: userId ? `tenant:${tenantId}/${userId}` : `tenant:${tenantId}`,
    model: media,
    input,
    metadata: {
      ...more,
      ...rest,
      tenantId,
      campaignId: campaignId ?? null,
      ...(media ? {} : { textModel: model ?? null }),
    },
    names: {
      "/user": "/tenantId",
      "/input/prompt": "/prompt",
      "/input/steps": "/quality/numInferenceSteps",
      "/input/guidance": "/quality/guidanceScale",
      "/input/seconds": "/quality/durationSeconds",
      "/input/": "/quality/",
    },
  };
}

async function priceOf(services: ApiServices, appId: string, wish: LegacyWish) {
  try {
    const { price } = await fitted(services, appOf(services, appId), toSubmission(wish));
    return { credits: price.credits, lines: [...price.lines] };
  } catch (error) {
    throw inTheirWords(error, wish.names);
  }
}
