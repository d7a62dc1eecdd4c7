import sharp from "sharp";
import { type Bound, type Downloads, RunFailure } from "./download.ts";

const PHOTO: Bound = { what: "Input image", megabytes: 40, ms: 10_000 };
const MAX_PIXELS = 64_000_000; // pixels; about the largest phone camera

export type Photos = ReturnType<typeof makePhotos>;

/** Reads the caller's picture the way a model does: while it runs, and failing the run when it cannot. */
export function makePhotos(downloads: Downloads) {
  return {
    /** The bytes of a picture that can be decoded; throws RunFailure. */
    async read(location: string, signal: AbortSignal): Promise<Buffer> {
      const bytes = await downloads.bytes(location, PHOTO, signal);
      // A thumbnail decodes the whole stream cheaply, so that a torn picture fails here and not when it is drawn.
      await sharp(bytes, { failOn: "error", limitInputPixels: MAX_PIXELS })
        .resize(64, 64, { fit: "inside" })
        .toBuffer()
        .catch(() => {
          throw new RunFailure("cannot identify image file <_io.BytesIO object at 0x7f3a5c1e9a90>");
        });
      return bytes;
    },
  };
}
