import sharp from "sharp";
import { asRefusal, DECODE_SECONDS, type ImageFacts, ImageRefused, takeTurn } from "./image.ts";

export interface Upright {
  readonly bytes: Buffer;
  readonly contentType: string;
  /** Without the dot. */
  readonly extension: string;
}

/**
 * The picture as a person sees it, for models that read pixels only: turned as the camera noted, in sRGB, same size,
 * without metadata. Null when the file is that already. A JPEG stays one (quality 95, full colour resolution), anything
 * else becomes a PNG, which loses nothing. The same bytes give the same bytes. Throws ImageRefused.
 */
export function uprightOf(bytes: Buffer, image: ImageFacts, maxPixels: number): Promise<Upright | null> {
  return takeTurn(async () => {
    try {
      const open = () =>
        sharp(bytes, { failOn: "error", limitInputPixels: maxPixels }).timeout({ seconds: DECODE_SECONDS });
      const { orientation = 1, space, icc } = await open().metadata();
      if ((orientation === 1 && space !== "cmyk" && isOfSrgb(icc)) || image.pages > 1) return null;
      const turned = open().autoOrient().toColourspace("srgb");
      if (image.contentType === "image/jpeg")
        return {
          bytes: await turned.jpeg({ quality: 95, chromaSubsampling: "4:4:4" }).toBuffer(),
          contentType: "image/jpeg",
          extension: "jpg",
        };
      return { bytes: await turned.png().toBuffer(), contentType: "image/png", extension: "png" };
    } catch (error) {
      throw error instanceof ImageRefused ? error : asRefusal(error, maxPixels);
    }
  });
}

/** Where a profile says its own name, in one or two bytes a letter. */
const PROFILE_HEAD = 1_024;

/** No profile means sRGB. One that does not say so may be it all the same: then turning into it changes nothing. */
function isOfSrgb(profile: Buffer | undefined): boolean {
  return profile?.subarray(0, PROFILE_HEAD).toString("latin1").replaceAll("\0", "").includes("sRGB") ?? true;
}
