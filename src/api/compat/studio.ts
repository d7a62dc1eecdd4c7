import multipart from "@fastify/multipart";
import type { FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { findModel } from "../../domain/catalogue.ts";
import type { KindName } from "../../domain/kinds/kind.ts";
import { STYLES } from "../../domain/styles.ts";
import type { ApiApp, ApiServices, Routes } from "../app.ts";
import { keepImage } from "../inputs.ts";
import { refresh } from "../jobs.ts";
import {
  defined,
  findLegacy,
  invalid,
  invalidField,
  KEYS_NOTE,
  type LegacyWish,
  legacyHeaders,
  legacyJob,
  refusals,
  submitLegacy,
  type Told,
  tell,
} from "./legacy.ts";

/** What the image, edit and video app calls: JSON, and forms with the picture in them. */

/** A form's fields are texts. */
const whole = z.coerce.number().int();
const picture = z.string().min(1).max(2_048).describe("An HTTPS URL, or an upload's id; in a form, the file itself.");
const account = {
  userId: z.string().describe("Whose credits are charged."),
  address: z.string().nullish().describe("The end user's IP address: 20 requests a minute for each."),
  idempotency_key: z.string().nullish().describe("As the header Idempotency-Key."),
};
const look = z.string().max(100).nullish().describe("A model of GET /api/models; any other name is kept as metadata.");

const imageBody = z.looseObject({
  ...account,
  prompt: z.string(),
  model: look,
  negative_prompt: z.string().nullish(),
  size: z.enum(["portrait", "square", "landscape"]).nullish(),
  width: z.int().nullish(),
  height: z.int().nullish(),
  guidance_scale: z.number().nullish(),
  num_inference_steps: z.int().nullish(),
});
const editBody = z.looseObject({
  ...account,
  prompt: z.string().describe("What to change."),
  image: picture,
  mask: picture.optional().describe("White where the picture is to change; of exactly its size."),
  model: look,
});
const videoBody = z.looseObject({
  ...account,
  prompt: z.string(),
  image: picture.optional(),
  model: look,
  duration_seconds: whole.default(5),
  style: z.string().max(100).nullish().describe("A style of GET /api/styles; any other word is kept as metadata."),
  seed: whole.nullish(),
  randomize_seed: z.union([z.boolean(), z.enum(["true", "false"])]).nullish(),
});
const unifiedBody = z.looseObject({
  kind: z.enum(["image", "edit", "video3", "video5"]),
  idempotencyKey: z.string(),
  payload: z.looseObject({ userId: z.string() }).describe("The body of the path of that kind."),
});

const made = legacyJob.extend({
  isAsync: z.literal(true),
  requestId: z.uuid().describe("For POST /api/poll-wavespeed; the job's id."),
  message: z.string(),
  images: z.array(z.object({ url: z.url() })),
  imageUrl: z.url().nullable(),
  videoUrl: z.url().nullable(),
  creditsRemaining: z.int(),
  remainingCredits: z.int(),
});

export const studioRoutes: Routes = (app, services) => {
  app.register(async (instance) => {
    const scope = instance.withTypeProvider<ZodTypeProvider>() as unknown as ApiApp;
    await scope.register(multipart, { limits: { files: 2, fileSize: services.limits.maxBytes, fields: 20 } });
    const route = <T>(
      path: string,
      about: { readonly summary: string; readonly description: string },
      schema: z.ZodType<T>,
      toWish: (body: T) => LegacyWish,
    ) =>
      scope.route({
        method: "POST",
        url: path,
        schema: {
          tags: ["compat"],
          ...about,
          description: `${about.description} Answers at once; ask POST /api/poll-wavespeed or GET /api/jobs/{requestId}, or send Prefer: wait=60. ${KEYS_NOTE}`,
          headers: legacyHeaders,
          response: { 200: made, ...refusals },
        },
        handler: async (request, reply) => {
          const { appId } = await services.authenticate(request);
          const parsed = schema.safeParse(await bodyOf(services, appId, request));
          if (!parsed.success) throw invalid(parsed.error);
          return toMade(await submitLegacy(services, request, reply, toWish(parsed.data)));
        },
      });

    route(
      "/api/generate",
      {
        summary: "Image Studio: an image",
        description: "JSON: userId, prompt, and size (portrait, square, landscape) or width and height.",
      },
      imageBody,
      toImage,
    );
    route(
      "/api/edit-image",
      {
        summary: "Image Studio: an edited image",
        description: "JSON or multipart/form-data: userId, image, prompt, and a mask to change only what it marks.",
      },
      editBody,
      toEdit,
    );
    route(
      "/api/generate-video",
      {
        summary: "Image Studio: a video",
        description: "JSON or multipart/form-data: userId, prompt, duration_seconds (3 or 5), image, style.",
      },
      videoBody,
      toVideo,
    );
    route(
      "/api/generate-unified",
      {
        summary: "Image Studio: any of the three",
        description:
          "JSON: kind (image, edit, video3, video5), idempotencyKey, and the payload of the path of that kind.",
      },
      unifiedBody,
      toUnified,
    );

    scope.route({
      method: "POST",
      url: "/api/poll-wavespeed",
      schema: {
        tags: ["compat"],
        summary: "Image Studio: how a request stands",
        body: z.looseObject({ requestId: z.string().min(1).max(200) }),
        response: {
          200: z.object({
            status: z.enum(["created", "processing", "completed", "failed"]),
            outputs: z.array(z.url()),
            error: z.string().nullable(),
            progress: z.int(),
            creditsUsed: z.int(),
            creditsRemaining: z.int(),
          }),
          ...refusals,
        },
      },
      handler: async (request) => {
        const { appId } = await services.authenticate(request);
        const view = await findLegacy(services, appId, request.body.requestId);
        const { legacy } = await tell(services, await refresh(services, appId, view));
        const { status, resultUrls, error, progress, creditsUsed, newBalance } = legacy;
        return {
          status: status === "pending" ? ("created" as const) : status,
          outputs: resultUrls,
          error,
          progress,
          creditsUsed,
          creditsRemaining: newBalance,
        };
      },
    });
  });
};

/** A form as an object; its files are kept as uploads and named by their ids. */
async function bodyOf(services: ApiServices, appId: string, request: FastifyRequest): Promise<unknown> {
  if (!request.isMultipart()) return request.body ?? {};
  const body: Record<string, unknown> = {};
  for await (const part of request.parts()) {
    if (part.type === "file") {
      const bytes = await part.toBuffer();
      body[part.fieldname] = (await keepImage(services, appId, bytes, `/${part.fieldname}`)).id;
    } else body[part.fieldname] = part.value;
  }
  return body;
}

const NAMES = {
  "/user": "/userId",
  "/input/negativePrompt": "/negative_prompt",
  "/input/steps": "/num_inference_steps",
  "/input/guidance": "/guidance_scale",
  "/input/instruction": "/prompt",
  "/input/seconds": "/duration_seconds",
  "/input/": "/",
} as const;

/** What is a model of the catalogue; the product's own looks are not. */
function modelOf(kind: KindName, name: string | null | undefined): string | undefined {
  return name && findModel(kind, name) ? name : undefined;
}

interface Account {
  readonly userId: string;
  readonly address?: string | null | undefined;
  readonly idempotency_key?: string | null | undefined;
}

function toWish(
  kind: KindName,
  { userId, address, idempotency_key }: Account,
  model: string | undefined,
  input: Readonly<Record<string, unknown>>,
  metadata: Readonly<Record<string, unknown>>,
): LegacyWish {
  return {
    kind,
    user: userId,
    model,
    input,
    metadata: defined(metadata),
    address: address ?? undefined,
    key: idempotency_key ?? undefined,
    names: NAMES,
  };
}

function toImage(body: z.output<typeof imageBody>): LegacyWish {
  const { userId, address, idempotency_key, prompt, model, negative_prompt, ...given } = body;
  const { size, width, height, guidance_scale, num_inference_steps, ...rest } = given;
  const known = modelOf("generation", model);
  return toWish(
    "generation",
    { userId, address, idempotency_key },
    known,
    {
      prompt,
      negativePrompt: negative_prompt,
      size,
      width,
      height,
      guidance: guidance_scale,
      // Made for the models of the product's own looks: the model's own count unless it is named.
      steps: known ? num_inference_steps : undefined,
    },
    { ...rest, model: known ? undefined : model },
  );
}

function toEdit(body: z.output<typeof editBody>): LegacyWish {
  const { userId, address, idempotency_key, prompt, image, mask, model, ...rest } = body;
  const known = modelOf("edit", model);
  return toWish(
    "edit",
    { userId, address, idempotency_key },
    // What a mask marks is repainted by another model than what an instruction changes.
    known ?? (mask ? "flux-fill-pro" : undefined),
    { image, mask, instruction: prompt },
    { ...rest, model: known ? undefined : model },
  );
}

function toVideo(body: z.output<typeof videoBody>): LegacyWish {
  const { userId, address, idempotency_key, prompt, image, model, duration_seconds, style, ...given } = body;
  const { seed, randomize_seed, ...rest } = given;
  const known = modelOf("video", model);
  const styled = STYLES.some((each) => each.kind === "video" && each.id === style);
  return toWish(
    "video",
    { userId, address, idempotency_key },
    known,
    {
      prompt,
      image,
      seconds: duration_seconds,
      style: styled ? style : undefined,
      seed: String(randomize_seed) === "true" ? undefined : seed,
    },
    { ...rest, model: known ? undefined : model, style: styled ? undefined : style },
  );
}

function toUnified({ kind, idempotencyKey, payload }: z.output<typeof unifiedBody>): LegacyWish {
  const seconds = kind === "video3" ? { duration_seconds: 3 } : kind === "video5" ? { duration_seconds: 5 } : {};
  const body = { ...payload, ...seconds, idempotency_key: idempotencyKey };
  switch (kind) {
    case "image":
      return toImage(within(imageBody, body));
    case "edit":
      return toEdit(within(editBody, body));
    default:
      return toVideo(within(videoBody, body));
  }
}

function within<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw invalidField(`/payload/${issue?.path.join("/") ?? ""}`, issue?.message ?? "is not valid");
}

function toMade({ legacy, job }: Told): z.input<typeof made> {
  const [url = null] = legacy.resultUrls;
  const isVideo = job.kind === "video";
  return {
    ...legacy,
    isAsync: true,
    requestId: job.id,
    message: legacy.status === "completed" ? "Generated." : "Generation started. Poll for results.",
    images: isVideo ? [] : legacy.resultUrls.map((each) => ({ url: each })),
    imageUrl: isVideo ? null : url,
    videoUrl: isVideo ? url : null,
    creditsRemaining: legacy.newBalance,
    remainingCredits: legacy.newBalance,
  };
}
