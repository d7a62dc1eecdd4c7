import { randomBytes } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import { originOf, parse } from "../request.ts";
import { sendPage } from "../wire.ts";
import { refusal, success } from "./envelope.ts";

const MAX_BYTES = 100_000_000; // bytes of one file
const MAX_TICKETS = 10_000;

const wanted = z.object({
  filename: z.string().min(1).max(255),
  size: z.number().int().min(1).max(MAX_BYTES),
  content_type: z.string().max(255).default("application/octet-stream"),
});
const ticketPath = z.object({ ticket: z.string() });

interface Ticket {
  readonly filename: string;
  readonly contentType: string;
  readonly size: number;
  /** Of what was put; null until then. */
  upload: string | null;
}

/** Uploads in two steps: a ticket from the API, then the bytes to a storage that knows no API keys. */
export function mediaRoutes({ uploads, faults }: Cloud) {
  const tickets = new Map<string, Ticket>();

  async function api(api: FastifyInstance) {
    api.post("/media/uploads", async (request, reply) => {
      if (faults.strike("file_error", { face: "wavespeed", model: "", text: "", own: [] })) return sendPage(reply, 500);
      const { filename, size, content_type: contentType } = parse(wanted, request.body);
      const ticket = randomBytes(16).toString("hex");
      tickets.set(ticket, { filename, contentType, size, upload: null });
      const oldest = tickets.keys().next().value;
      if (tickets.size > MAX_TICKETS && oldest !== undefined) tickets.delete(oldest);
      const place = `${originOf(request)}/wavespeed/storage/${ticket}`;
      return success({
        download_url: place,
        upload: { url: `${place}?X-Amz-Signature=sandbox`, method: "PUT", headers: { "content-type": contentType } },
      });
    });
  }

  async function storage(storage: FastifyInstance) {
    storage.removeAllContentTypeParsers();
    storage.addContentTypeParser("*", { parseAs: "buffer" }, (_request, bytes, done) => done(null, bytes));

    storage.put("/storage/:ticket", { bodyLimit: MAX_BYTES }, async (request, reply) => {
      const ticket = tickets.get(parse(ticketPath, request.params).ticket);
      const { body } = request;
      if (!ticket) throw refusal(403, "AccessDenied");
      if (!Buffer.isBuffer(body) || body.length !== ticket.size) throw refusal(400, "EntityTooSmall");
      const { filename, contentType } = ticket;
      ticket.upload = (await uploads.add(body, { filename, contentType, metadata: {} })).id;
      return reply.code(200).send();
    });

    storage.get("/storage/:ticket", async (request, reply) => {
      const ticket = tickets.get(parse(ticketPath, request.params).ticket);
      const bytes = ticket?.upload ? await uploads.read(ticket.upload) : null;
      if (!ticket || !bytes) throw refusal(404, "NoSuchKey");
      return reply.type(ticket.contentType).send(bytes);
    });
  }

  return { api, storage };
}
