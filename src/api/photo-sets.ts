import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import multipart from "@fastify/multipart";
import type { FastifyRequest } from "fastify";
import { z } from "zod";
import { fileRef } from "../domain/kinds/fields.ts";
import { MOST_PHOTOS, photoField } from "../domain/kinds/training.ts";
import { ServiceError } from "../errors.ts";
import { type EntryRefusal, readArchive } from "../storage/archive.ts";
import { ArchiveRefused } from "../storage/archive-refused.ts";
import { detectTask, setQuality } from "../storage/photo-set.ts";
import { withScratch } from "../storage/scratch.ts";
import type { ApiServices, Routes } from "./app.ts";
import { expectBody, MOST_ARRIVAL_MS } from "./arrival.ts";
import { type Judged, judgeBytes, judgeRefs, type PhotoSet, photoAnswer, verdictsOf } from "./photos.ts";
import { problemSchema } from "./problem.ts";

/** 40 photos of 25 MB. */
const MOST_ARCHIVE_BYTES = 1_000_000_000;
/** While forty photos are judged no byte moves, and the connection is kept all the same. */
const JUDGING_MS = 600_000;

const photoSet = z
  .object({
    usable: z.boolean().describe("Whether a training would take all of them."),
    photos: z.array(
      photoAnswer.extend({
        photo: z.int().describe("0-based, as sent, or in the order of the archive."),
        name: z.string().nullable().describe("In the archive."),
      }),
    ),
    quality: z.int().min(0).max(100).describe("Of the set: number, size, sharpness and variety of the photos."),
    task: z.object({ task: z.enum(["face", "object", "style"]), confidence: z.number(), because: z.string() }),
  })
  .meta({ id: "PhotoSet" });

/** What a training would say of these photos, before anything is charged; a ZIP of them becomes uploads. */
export const photoSetRoutes: Routes = (app, services) => {
  app.register(async (scope) => {
    await scope.register(multipart, { limits: { files: 1, fileSize: MOST_ARCHIVE_BYTES, fields: 5 } });
    scope.addContentTypeParser("application/zip", { bodyLimit: MOST_ARCHIVE_BYTES }, (_request, body, done) =>
      done(null, body),
    );
    scope.route({
      method: "POST",
      url: "/api/photo-sets",
      // Of JSON; a ZIP is written to disk as it comes.
      bodyLimit: MOST_ARCHIVE_BYTES,
      schema: {
        tags: ["uploads"],
        summary: "Judge the photos of a training",
        description:
          'Either a ZIP of at most 40 photos (application/zip, or multipart/form-data with one file), which become uploads, or JSON {"photos": [ids or URLs]}. Answers a verdict for each; nothing is charged. At most 1 GB, which has half an hour to arrive: photos that are larger, or a line that is slower, go one by one to POST /api/uploads.',
        consumes: ["application/zip", "multipart/form-data", "application/json"],
        response: { 200: photoSet, 401: problemSchema, 413: problemSchema, 415: problemSchema, 422: problemSchema },
      },
      handler: async (request) => {
        const { appId } = await services.authenticate(request);
        // Only now: nobody unknown holds a connection for so long.
        expectBody(request.raw, MOST_ARRIVAL_MS);
        request.raw.setTimeout(JUDGING_MS);
        const stream = await archiveStream(request);
        if (stream) return toAnswer(...(await judgeArchive(services, appId, stream)));
        const photos = photosOf(request.body);
        const refs = Object.fromEntries(photos.map((photo, index) => [photoField(index), fileRef(photo)]));
        return toAnswer(verdictsOf(await judgeRefs(services, appId, refs)), []);
      },
    });
  });
};

/** Null when the body is JSON. */
async function archiveStream(request: FastifyRequest): Promise<Readable | null> {
  if (request.body instanceof Readable) return request.body;
  if (!request.isMultipart()) return null;
  const part = await request.file();
  if (part) return part.file;
  throw new ServiceError("malformed_request", "The form has no file. Add one: curl -F file=@photos.zip");
}

const listed = z.strictObject({ photos: z.array(z.string().min(1).max(2_048)).min(1).max(MOST_PHOTOS) });

function photosOf(body: unknown): string[] {
  const parsed = listed.safeParse(body);
  if (parsed.success) return parsed.data.photos;
  const detail = `give 1 to ${MOST_PHOTOS} uploads' ids or URLs, or send a ZIP as application/zip`;
  throw new ServiceError("invalid_input", `body field /photos: ${detail}.`, {
    fields: [{ pointer: "/photos", detail }],
  });
}

async function judgeArchive(
  services: ApiServices,
  appId: string,
  stream: Readable,
): Promise<[set: PhotoSet, names: string[]]> {
  return withScratch(async (folder) => {
    const path = join(folder, "photos.zip");
    const names: string[] = [];
    const judged: Judged[] = [];
    try {
      await pipeline(stream, bounded, createWriteStream(path));
      const limits = {
        maxEntries: MOST_PHOTOS,
        maxEntryBytes: services.limits.maxBytes,
        maxTotalBytes: MOST_ARCHIVE_BYTES,
      };
      for await (const entry of readArchive(path, limits)) {
        names.push(entry.name);
        judged.push("refused" in entry ? unpackable(entry.refused) : await judgeBytes(services, appId, entry.bytes));
      }
      return [verdictsOf(judged), names];
    } catch (error) {
      if (error instanceof ArchiveRefused)
        throw new ServiceError("file_refused", `${error.message} ${keptOf(judged)}Nothing was charged.`, {
          facts: { reason: error.code },
        });
      throw error;
    }
  });
}

/** As a photo that could not be kept; its siblings are judged all the same. */
function unpackable({ code, message }: EntryRefusal): Judged {
  const problem = { code: code === "corrupt" ? code : ("too_many_bytes" as const), detail: message };
  return { asset: null, verdict: { ok: false, problems: [problem], notes: [], facts: null } };
}

/** Some refusals come up only when their entry is unpacked, after others were taken. */
function keptOf(judged: readonly Judged[]): string {
  const kept = judged.filter(({ asset }) => asset !== null).length;
  return kept === 0 ? "Nothing was kept. " : `Photos before it were kept as uploads: ${kept}. `;
}

async function* bounded(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let bytes = 0;
  for await (const piece of pieces) {
    bytes += piece.length;
    if (bytes > MOST_ARCHIVE_BYTES)
      throw new ServiceError(
        "payload_too_large",
        `The archive is larger than ${MOST_ARCHIVE_BYTES} bytes. Send smaller photos, or upload them one by one.`,
      );
    yield piece;
  }
}

function toAnswer({ photos, facts }: PhotoSet, names: readonly string[]): z.input<typeof photoSet> {
  return {
    usable: photos.every(({ verdict }) => verdict !== "refused"),
    photos: photos.map((each) => ({ ...each, name: names[each.photo] ?? null })),
    quality: setQuality(facts),
    task: detectTask(facts),
  };
}
