import { Readable } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import type { FastifyInstance, FastifyReply } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import { escaped } from "../pictures/svg.ts";
import { parse } from "../request.ts";
import { isRemoved, portrait, type Run } from "../run.ts";
import { weightsOf } from "../weights.ts";
import { sendPage } from "../wire.ts";

const path = z.object({ folder: z.string(), name: z.string() });
const page = z.object({ id: z.string() });
const MEGABYTE = 1024 * 1024;
const TRICKLES = 20; // pieces of a slow output
const TYPES: Readonly<Record<string, string>> = {
  webp: "image/webp",
  png: "image/png",
  jpg: "image/jpeg",
  webm: "video/webm", // real models answer mp4; see film.ts
  tar: "application/x-tar",
};

/** Outputs, served without a token from an unguessable folder, as replicate.delivery does. */
export function deliveryRoutes({ runs, faults, gallery, clock, options }: Cloud) {
  return async (app: FastifyInstance) => {
    app.get("/delivery/:folder/:name", async (request, reply) => {
      const { folder, name } = parse(path, request.params);
      const run = runs.inFolder(folder);
      if (!run || isRemoved(run, clock.now(), options.outputTtlMs) || !offers(run, name)) return nothing(reply);
      if (faults.strike("output_404", run)) return nothing(reply);
      if (faults.strike("output_html", run)) return sendPage(reply, 200);

      const bytes = await contentOf(run, name);
      if (!bytes) return nothing(reply);
      reply.type(TYPES[name.split(".").at(-1) ?? ""] ?? "application/octet-stream");
      reply.header("cache-control", "public, max-age=3600");
      const huge = faults.strike("output_huge", run);
      if (huge) return reply.send(Readable.from(swell(bytes, huge.amount)));
      const slow = faults.strike("output_slow", run);
      if (slow) {
        reply.header("content-length", bytes.length);
        return reply.send(Readable.from(trickle(bytes, slow.amount)));
      }
      if (faults.strike("output_truncated", run)) return truncate(reply, bytes);
      return reply.send(bytes);
    });

    // Where `urls.web` points: the run as a person would look at it.
    app.get("/p/:id", async (request, reply) => {
      const run = runs.get(parse(page, request.params).id);
      if (!run) return nothing(reply);
      const about = portrait(run, clock, options.outputTtlMs, "predictions");
      const urls = [about.output].flat().filter((url) => typeof url === "string");
      const shown = urls.map((url) => shownAs(run, escaped(url))).join("\n");
      const html = `<!DOCTYPE html><meta charset="utf-8"><title>${run.id}</title><h1>${escaped(run.model)}: ${run.status}</h1>
${shown}<pre>${escaped(JSON.stringify(about, null, 2))}</pre>\n`;
      return reply.type("text/html; charset=utf-8").send(html);
    });
  };

  async function contentOf(run: Run, name: string): Promise<Buffer | null> {
    if (name === "trained_model.tar") return weightsOf(run);
    return gallery.picture(run, Number(/^out-(\d+)/.exec(name)?.[1] ?? 0));
  }
}

function shownAs(run: Run, url: string): string {
  return run.reel
    ? `<video src="${url}" width="480" autoplay loop muted controls></video>`
    : `<img src="${url}" width="480" alt="output">`;
}

/** Only what the run's output names can be fetched. */
function offers(run: Run, name: string): boolean {
  const { output } = run;
  if (output === null) return false;
  const urls = typeof output === "string" ? [output] : "weights" in output ? [output.weights] : output;
  return urls.some((url) => url?.endsWith(`/${run.folder}/${name}`));
}

function nothing(reply: FastifyReply) {
  return reply.code(404).type("text/plain").send("Not Found\n");
}

/** A picture that begins well and does not end; no length is announced. */
async function* swell(bytes: Buffer, megabytes: number) {
  yield bytes;
  const block = Buffer.alloc(MEGABYTE);
  for (let sent = 0; sent < megabytes; sent += 1) yield block;
}

async function* trickle(bytes: Buffer, ms: number) {
  const size = Math.ceil(bytes.length / TRICKLES);
  for (let at = 0; at < bytes.length; at += size) {
    yield bytes.subarray(at, at + size);
    await pause(ms / TRICKLES);
  }
}

/** The announced length is the whole; what comes is half, then the connection closes. */
function truncate(reply: FastifyReply, bytes: Buffer): FastifyReply {
  reply.hijack();
  const headers = { "content-type": String(reply.getHeader("content-type")), "content-length": bytes.length };
  reply.raw.writeHead(200, headers);
  reply.raw.write(bytes.subarray(0, bytes.length >> 1), () => setTimeout(() => reply.raw.destroy(), 20));
  return reply;
}
