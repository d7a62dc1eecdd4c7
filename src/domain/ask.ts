/**
 * What is wanted from a model for one variant, in our own words; a route of the catalogue writes it in the provider's.
 * Pixels, seconds, and URLs that the provider can read. What a kind does not use is absent.
 */
export interface Ask {
  readonly seed: number;
  readonly safety: boolean;
  readonly prompt?: string;
  readonly negativePrompt?: string | undefined;
  readonly width?: number;
  readonly height?: number;
  readonly steps?: number | undefined;
  readonly guidance?: number | undefined;
  readonly format?: "webp" | "jpg" | "png";
  /** Of webp and jpg, 1..100. */
  readonly quality?: number;
  readonly goFast?: boolean;
  /** The picture to start from. */
  readonly image?: string | undefined;
  /** White where the picture is to change. */
  readonly mask?: string | undefined;
  readonly lora?: { readonly weights: string; readonly scale: number } | undefined;
  readonly seconds?: number;
  readonly aspectRatio?: string;
  /** A training's photos, as one ZIP. */
  readonly archive?: string | undefined;
  readonly triggerWord?: string;
  readonly task?: "face" | "object" | "style";
  /** Of a training, pixels of a side. */
  readonly resolution?: number;
}
