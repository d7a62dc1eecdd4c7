import type { FastifyInstance } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import { randomId } from "../id.ts";
import { Problem } from "../problem.ts";
import { originOf, parse } from "../request.ts";
import { sendPage } from "../wire.ts";
import { jwks } from "./keys.ts";

const MAX_BYTES = 100_000_000; // bytes of one file
const MAX_PLACES = 10_000; // files that were begun
const initiation = z.object({ content_type: z.string().max(255), file_name: z.string().max(255) });
const place = z.object({ key: z.string() });

interface Place {
  readonly contentType: string;
  readonly filename: string;
  /** Of the uploaded bytes; null: not yet. */
  uploadId: string | null;
}

/** What the real service has on another host: the keys that webhooks are signed with, and uploads. */
export function restRoutes({ uploads, faults }: Cloud) {
  const places = new Map<string, Place>();

  return async (api: FastifyInstance) => {
    // Files come as they are, whatever they are.
    api.addContentTypeParser("*", { parseAs: "buffer" }, (_request, bytes, done) => done(null, bytes));

    api.get("/.well-known/jwks.json", async () => jwks());

    api.post("/storage/upload/initiate", async (request, reply) => {
      if (faults.strike("file_error", { face: "fal", model: "", text: "", own: [] })) return sendPage(reply, 500);
      const { content_type: contentType, file_name: filename } = parse(initiation, request.body);
      const key = randomId();
      places.set(key, { contentType, filename, uploadId: null });
      const oldest = places.keys().next().value;
      if (places.size > MAX_PLACES && oldest !== undefined) places.delete(oldest);
      const base = `${originOf(request)}/fal/rest`;
      const name = encodeURIComponent(filename);
      return { upload_url: `${base}/uploads/${key}/${name}`, file_url: `${base}/files/${key}/${name}` };
    });

    api.put("/uploads/:key/:name", { bodyLimit: MAX_BYTES }, async (request) => {
      const there = places.get(parse(place, request.params).key);
      if (!there || !Buffer.isBuffer(request.body)) throw new Problem(404, { detail: "Upload not found" });
      const { contentType, filename } = there;
      there.uploadId = (await uploads.add(request.body, { contentType, filename, metadata: {} })).id;
      return {};
    });

    api.get("/files/:key/:name", async (request, reply) => {
      const there = places.get(parse(place, request.params).key);
      const bytes = there?.uploadId ? await uploads.read(there.uploadId) : null;
      if (!there || !bytes) throw new Problem(404, { detail: "File not found" });
      return reply.type(there.contentType).send(bytes);
    });
  };
}
