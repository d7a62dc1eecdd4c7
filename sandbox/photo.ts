import sharp from "sharp";
import { Agent, interceptors, request } from "undici";
import type { Uploads } from "./uploads.ts";

const LIMIT_MS = 10_000;
const MAX_BYTES = 40 * 1024 * 1024; // bytes of one input picture
const MAX_PIXELS = 64_000_000; // pixels; about the largest phone camera
const MAX_REDIRECTS = 3;

/** A model's own failure, in the words that it would leave in `error`. */
export class RunFailure extends Error {
  override readonly name = "RunFailure";
}

export type Photos = ReturnType<typeof makePhotos>;

/** Reads the caller's picture the way a model does: while it runs, and failing the run when it cannot. */
export function makePhotos(uploads: Uploads) {
  const agent = new Agent({ connections: 16, connect: { timeout: LIMIT_MS } });
  const dispatcher = agent.compose(interceptors.redirect({ maxRedirections: MAX_REDIRECTS }));

  return {
    /** The bytes of a picture that can be decoded; throws RunFailure. */
    async read(location: string): Promise<Buffer> {
      const bytes = await load(location);
      // A thumbnail decodes the whole stream cheaply, so that a torn picture fails here and not when it is drawn.
      await sharp(bytes, { failOn: "error", limitInputPixels: MAX_PIXELS })
        .resize(64, 64, { fit: "inside" })
        .toBuffer()
        .catch(() => {
          throw new RunFailure("cannot identify image file <_io.BytesIO object at 0x7f3a5c1e9a90>");
        });
      return bytes;
    },
    close: () => agent.destroy(),
  };

  async function load(location: string): Promise<Buffer> {
    if (location.startsWith("data:")) return decode(location);
    const url = URL.canParse(location) ? new URL(location) : null;
    if (!url || !/^https?:$/.test(url.protocol)) throw new RunFailure(`Invalid URL: ${location.slice(0, 200)}`);
    const id = /^\/v1\/files\/([^/]+)/.exec(url.pathname)?.[1];
    const own = id === undefined ? null : await uploads.read(id);
    return own ?? download(url);
  }

  async function download(url: URL): Promise<Buffer> {
    try {
      const answer = await request(url, { dispatcher, signal: AbortSignal.timeout(LIMIT_MS) });
      if (answer.statusCode !== 200) {
        await answer.body.dump({ limit: 64 * 1024 });
        throw new RunFailure(`HTTP Error ${answer.statusCode} while downloading input: ${url.origin}${url.pathname}`);
      }
      const chunks: Buffer[] = [];
      let size = 0;
      for await (const chunk of answer.body) {
        const bytes = Buffer.from(chunk);
        size += bytes.length;
        if (size > MAX_BYTES) throw new RunFailure("Input image is too large: at most 40 MB are accepted");
        chunks.push(bytes);
      }
      return Buffer.concat(chunks);
    } catch (error) {
      if (error instanceof RunFailure) throw error;
      const reason = error instanceof Error && error.name === "TimeoutError" ? "Read timed out" : "Connection error";
      throw new RunFailure(`Failed to download input: ${url.origin}${url.pathname} (${reason})`);
    }
  }
}

function decode(location: string): Buffer {
  const comma = location.indexOf(",");
  const base64 = location.slice(0, comma).endsWith(";base64");
  if (comma < 0) throw new RunFailure("Invalid data URI");
  const body = location.slice(comma + 1);
  const bytes = base64 ? Buffer.from(body, "base64") : Buffer.from(unescaped(body));
  if (bytes.length > MAX_BYTES) throw new RunFailure("Input image is too large: at most 40 MB are accepted");
  return bytes;
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new RunFailure("Invalid data URI");
  }
}
