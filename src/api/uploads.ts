import multipart from "@fastify/multipart";
import type { FastifyRequest } from "fastify";
import { z } from "zod";
import { ServiceError } from "../errors.ts";
import type { Routes } from "./app.ts";
import { keepImage } from "./inputs.ts";
import { problemSchema } from "./problem.ts";

const uploaded = z
  .object({
    id: z.uuid().describe("Name it in a job's input."),
    contentType: z.string(),
    bytes: z.int(),
    width: z.int(),
    height: z.int(),
    sha256: z.string(),
  })
  .meta({ id: "Upload" });

const IMAGE_TYPES = ["image/jpeg", "image/png", "image/webp", "image/gif", "application/octet-stream"];

/** Images that jobs name by id. What they are is told by their bytes, whatever the request calls them. */
export const uploadRoutes: Routes = (app, services) => {
  const { authenticate, limits } = services;
  app.register(async (scope) => {
    await scope.register(multipart, { limits: { files: 1, fileSize: limits.maxBytes, fields: 5 } });
    scope.addContentTypeParser(IMAGE_TYPES, { parseAs: "buffer", bodyLimit: limits.maxBytes }, (_request, body, done) =>
      done(null, body),
    );
    scope.route({
      method: "POST",
      url: "/api/uploads",
      schema: {
        tags: ["uploads"],
        summary: "Upload an image",
        description:
          "As multipart/form-data with one file, or the bare bytes as image/jpeg, image/png or image/webp. The same bytes give the same id.",
        consumes: ["multipart/form-data", ...IMAGE_TYPES],
        response: { 201: uploaded, 401: problemSchema, 413: problemSchema, 415: problemSchema, 422: problemSchema },
      },
      handler: async (request, reply) => {
        const { appId } = await authenticate(request);
        const bytes = await readBytes(request);
        const asset = await keepImage(services, appId, bytes, "");
        const { id, contentType, width, height } = asset;
        return reply
          .code(201)
          .send({ id, contentType, bytes: asset.bytes, width, height, sha256: asset.sha256.toString("hex") });
      },
    });
  });
};

async function readBytes(request: FastifyRequest): Promise<Buffer> {
  if (Buffer.isBuffer(request.body)) return request.body;
  if (!request.isMultipart())
    throw new ServiceError(
      "unsupported_media_type",
      "Send the image as multipart/form-data with one file, or its bare bytes as image/jpeg, image/png or image/webp.",
    );
  const part = await request.file();
  if (!part)
    throw new ServiceError(
      "malformed_request",
      "The form has no file. Add one part with a filename, such as: curl -F file=@room.jpg",
    );
  return part.toBuffer();
}
