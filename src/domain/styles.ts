import type { KindName } from "./kinds/kind.ts";

/** A preset that an end user picks by its name; its part of the prompt stays here. */
export interface Style {
  readonly id: string;
  readonly kind: KindName;
  readonly title: string;
  /** Never sent to callers. */
  readonly prompt: string;
}

const style = (kind: KindName, id: string, title: string, prompt: string): Style => ({ id, kind, title, prompt });

export const STYLES: readonly Style[] = [
  style("staging", "modern", "Modern", "modern furniture with clean lines and a neutral palette"),
  style(
    "staging",
    "scandinavian",
    "Scandinavian",
    "scandinavian furniture in light wood, white textiles and a few plants",
  ),
  style("staging", "industrial", "Industrial", "industrial furniture in dark metal, leather and reclaimed wood"),
  style("staging", "classic", "Classic", "classic furniture in warm wood with elegant upholstery"),
  style(
    "staging",
    "mid_century",
    "Mid-century",
    "mid-century modern furniture with tapered legs, teak and muted colours",
  ),
  style("staging", "coastal", "Coastal", "coastal furniture in white, sand and pale blue, with linen and rattan"),
  style("staging", "farmhouse", "Farmhouse", "farmhouse furniture in distressed wood with cotton textiles"),
  style("staging", "luxury", "Luxury", "luxurious furniture with velvet, marble and brass, discreetly lit"),
  style("generation", "photo", "Photo", "a natural photograph, 50 mm lens, soft daylight"),
  style(
    "generation",
    "studio",
    "Studio portrait",
    "a studio portrait, softbox light, plain grey background, sharp eyes",
  ),
  style(
    "generation",
    "business",
    "Business headshot",
    "a professional business headshot, neutral office background, confident",
  ),
  style("generation", "cinematic", "Cinematic", "a cinematic still, anamorphic lens, dramatic light"),
  style("generation", "editorial", "Editorial", "an editorial fashion photograph, bold light, magazine quality"),
  style("generation", "watercolour", "Watercolour", "a watercolour painting on rough paper"),
  style("edit", "retouch", "Retouch", "retouched discreetly: even skin and light, the person unchanged"),
  style("edit", "black_and_white", "Black and white", "in black and white, with fine film grain"),
  style("edit", "golden_hour", "Golden hour", "in the warm light of the golden hour"),
  style("video", "cinematic", "Cinematic", "cinematic, slow dolly, shallow depth of field"),
  style("video", "documentary", "Documentary", "documentary, handheld camera, natural light"),
  style("video", "anime", "Anime", "anime, clean lines, vivid colours"),
  style("video", "commercial", "Commercial", "a product commercial, clean studio, smooth camera"),
  style("video", "timelapse", "Timelapse", "a timelapse, the light changing quickly"),
];

export function stylesOf(kind: KindName): readonly Style[] {
  return STYLES.filter((each) => each.kind === kind);
}

export function promptOf(kind: KindName, id: string | undefined): string {
  return stylesOf(kind).find((each) => each.id === id)?.prompt ?? "";
}
