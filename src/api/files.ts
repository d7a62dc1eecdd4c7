import { z } from "zod";
import { ServiceError } from "../errors.ts";
import type { LocalStorage } from "../storage/local.ts";
import { FileNotFound } from "../storage/storage.ts";
import type { ApiApp } from "./app.ts";
import { problemSchema } from "./problem.ts";

/** Serves the files of local storage to whoever has a signed address. A bucket does this by itself. */
export function fileRoutes(app: ApiApp, storage: LocalStorage): void {
  app.route({
    method: "GET",
    url: "/files/*",
    schema: {
      tags: ["files"],
      summary: "A file, by its signed address",
      params: z.object({ "*": z.string() }),
      querystring: z.object({ expires: z.string(), signature: z.string() }),
      response: { 200: z.unknown().describe("The file"), 403: problemSchema, 404: problemSchema },
    },
    handler: async (request, reply) => {
      const { expires, signature } = request.query;
      const file = await storage.open(request.params["*"], expires, signature).catch((error: unknown) => {
        if (error instanceof FileNotFound) throw new ServiceError("not_found", "The file is no longer there.");
        throw error;
      });
      if (!file)
        throw new ServiceError(
          "forbidden",
          "This address has expired or was altered. Get the job again for a fresh one.",
        );
      return reply
        .type(file.contentType)
        .header("content-length", file.bytes)
        .header("cache-control", "private, max-age=3600")
        .header("content-security-policy", "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; sandbox")
        .header("cross-origin-resource-policy", "cross-origin")
        .serializer((payload: unknown) => payload as string)
        .send(file.body);
    },
  });
}
