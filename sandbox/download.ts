import { createWriteStream } from "node:fs";
import { writeFile } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { Agent, interceptors, request } from "undici";
import type { Uploads } from "./uploads.ts";

const CONNECT_MS = 10_000;
const MAX_REDIRECTS = 3;

/** A model's own failure, in the words that it would leave in `error`. */
export class RunFailure extends Error {
  override readonly name = "RunFailure";
}

/** How much is read, and for how long. */
export interface Bound {
  /** Begins the sentence that refuses too much: "Input image". */
  readonly what: string;
  readonly megabytes: number;
  readonly ms: number;
}

const MEGABYTE = 1024 * 1024; // bytes

export type Downloads = ReturnType<typeof makeDownloads>;

/** Reads what an input points at, the way a model does: an URL, a data URI, or a file uploaded here. */
export function makeDownloads(uploads: Uploads) {
  const agent = new Agent({ connections: 16, connect: { timeout: CONNECT_MS } });
  const dispatcher = agent.compose(interceptors.redirect({ maxRedirections: MAX_REDIRECTS }));

  return {
    /** Throws RunFailure. */
    async bytes(location: string, bound: Bound, signal: AbortSignal): Promise<Buffer> {
      const found = await nearby(location, bound);
      if (Buffer.isBuffer(found)) return found;
      const chunks: Buffer[] = [];
      for await (const chunk of body(found, bound, signal)) chunks.push(chunk);
      return Buffer.concat(chunks);
    },

    /** The same into a file, for what does not belong in memory. */
    async file(location: string, path: string, bound: Bound, signal: AbortSignal): Promise<void> {
      const found = await nearby(location, bound);
      if (Buffer.isBuffer(found)) await writeFile(path, found);
      else await pipeline(body(found, bound, signal), createWriteStream(path));
    },

    close: () => agent.destroy(),
  };

  /** The bytes where no download is needed, otherwise the URL. */
  async function nearby(location: string, bound: Bound): Promise<Buffer | URL> {
    if (location.startsWith("data:")) return decode(location, bound);
    const url = URL.canParse(location) ? new URL(location) : null;
    if (!url || !/^https?:$/.test(url.protocol)) throw new RunFailure(`Invalid URL: ${location.slice(0, 200)}`);
    const id = /^\/v1\/files\/([^/]+)/.exec(url.pathname)?.[1];
    return (id === undefined ? null : await uploads.read(id)) ?? url;
  }

  async function* body(url: URL, bound: Bound, signal: AbortSignal): AsyncGenerator<Buffer> {
    try {
      const limited = AbortSignal.any([signal, AbortSignal.timeout(bound.ms)]);
      const answer = await request(url, { dispatcher, signal: limited });
      if (answer.statusCode !== 200) {
        await answer.body.dump({ limit: 64 * 1024 });
        throw failed(url, `HTTP Error ${answer.statusCode}`);
      }
      let size = 0;
      for await (const chunk of answer.body) {
        const bytes = Buffer.from(chunk);
        size += bytes.length;
        if (size > bound.megabytes * MEGABYTE) throw tooLarge(bound);
        yield bytes;
      }
    } catch (error) {
      if (error instanceof RunFailure) throw error;
      const late = error instanceof Error && error.name === "TimeoutError";
      throw failed(url, late ? "Read timed out" : "Connection error");
    }
  }
}

function failed(url: URL, reason: string): RunFailure {
  return new RunFailure(`Failed to download input: ${url.origin}${url.pathname} (${reason})`);
}

function tooLarge({ what, megabytes }: Bound): RunFailure {
  return new RunFailure(`${what} is too large: at most ${megabytes} MB are accepted`);
}

function decode(location: string, bound: Bound): Buffer {
  const comma = location.indexOf(",");
  const base64 = location.slice(0, comma).endsWith(";base64");
  if (comma < 0) throw new RunFailure("Invalid data URI");
  const text = location.slice(comma + 1);
  const bytes = base64 ? Buffer.from(text, "base64") : Buffer.from(unescaped(text));
  if (bytes.length > bound.megabytes * MEGABYTE) throw tooLarge(bound);
  return bytes;
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new RunFailure("Invalid data URI");
  }
}
