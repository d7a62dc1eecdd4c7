import multipart from "@fastify/multipart";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import { timestamp } from "../clock.ts";
import type { Cloud } from "../cloud.ts";
import { invalidInput, Problem } from "../problem.ts";
import { originOf, parse } from "../request.ts";
import type { Upload } from "../uploads.ts";
import { sendPage } from "../wire.ts";

const MAX_BYTES = 100_000_000; // bytes of one file
const idPath = z.object({ id: z.string() });
const metadataJson = z.record(z.string(), z.unknown());
const downloadQuery = z.object({
  owner: z.string(),
  expiry: z.coerce.number(),
  signature: z.string(),
});

export function fileRoutes({ uploads, faults }: Cloud) {
  return async (api: FastifyInstance) => {
    await api.register(multipart, { limits: { fileSize: MAX_BYTES, parts: 10, fieldSize: 64 * 1024 } });

    api.post("/files", async (request, reply) => {
      if (faults.strike("file_error", { face: "replicate", model: "", text: "", own: [] })) return sendPage(reply, 500);
      const upload = await uploads.add(...(await readForm(request)));
      return reply.code(201).send(portrait(upload, originOf(request)));
    });

    api.get("/files", async (request) => {
      const results = uploads.list().map((upload) => portrait(upload, originOf(request)));
      return { previous: null, next: null, results };
    });

    api.get("/files/:id", async (request) => {
      const upload = uploads.get(parse(idPath, request.params).id);
      if (!upload) throw missing();
      return portrait(upload, originOf(request));
    });

    api.delete("/files/:id", async (request, reply) => {
      if (!(await uploads.remove(parse(idPath, request.params).id))) throw missing();
      return reply.code(204).send();
    });

    api.get("/files/:id/download", async (request, reply) => {
      const { id } = parse(idPath, request.params);
      const { owner, expiry, signature } = parse(downloadQuery, request.query);
      if (!uploads.opens(id, owner, expiry, signature))
        throw new Problem(403, { detail: "Invalid signature", status: 403 });
      const bytes = await uploads.read(id);
      const upload = uploads.get(id);
      if (!bytes || !upload) throw missing();
      return reply.type(upload.contentType).send(bytes);
    });
  };
}

async function readForm(request: FastifyRequest): Promise<Parameters<Cloud["uploads"]["add"]>> {
  let bytes: Buffer | null = null;
  let filename = "";
  let contentType = "application/octet-stream";
  let metadata: Record<string, unknown> = {};
  if (!request.isMultipart()) throw invalidInput([{ type: "required", field: "", description: "content is required" }]);
  for await (const part of request.parts()) {
    if (part.type === "file" && part.fieldname === "content") {
      bytes = await part.toBuffer().catch((error) => {
        throw part.file.truncated ? tooLarge() : error;
      });
      filename ||= part.filename;
      contentType = part.mimetype;
    } else if (part.fieldname === "metadata") {
      // The official client sends the metadata as a file part typed application/json, others as a plain field.
      metadata = readMetadata(part.type === "file" ? (await part.toBuffer()).toString("utf8") : part.value);
    } else if (part.type === "file") {
      part.file.resume();
    } else if (part.fieldname === "filename") {
      filename = String(part.value).slice(0, 255);
    } else if (part.fieldname === "type") {
      contentType = String(part.value).slice(0, 255);
    }
  }
  if (bytes === null) throw invalidInput([{ type: "required", field: "", description: "content is required" }]);
  return [bytes, { filename, contentType, metadata }];
}

function readMetadata(value: unknown): Record<string, unknown> {
  try {
    return metadataJson.parse(JSON.parse(String(value)));
  } catch {
    throw invalidInput([{ type: "invalid_type", field: "metadata", description: "Expected: object" }]);
  }
}

function portrait(upload: Upload, origin: string) {
  return {
    id: upload.id,
    name: upload.filename,
    content_type: upload.contentType,
    size: upload.size,
    checksums: { sha256: upload.sha256 },
    metadata: upload.metadata,
    created_at: timestamp(upload.createdAt),
    expires_at: timestamp(upload.expiresAt),
    urls: { get: `${origin}/v1/files/${upload.id}` },
  };
}

const PROBLEM_JSON = { "content-type": "application/problem+json" };

function missing(): Problem {
  return new Problem(404, { detail: "File not found" }, PROBLEM_JSON);
}

function tooLarge(): Problem {
  return new Problem(413, { detail: "Files must be less than 100MB in size" }, PROBLEM_JSON);
}
