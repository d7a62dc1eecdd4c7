import { z } from "zod";
import type { FileRef, Kind } from "./kind.ts";

const ROOMS = ["living_room", "bedroom", "kitchen", "dining_room", "home_office", "bathroom"] as const;

/** Each style's hidden part of the prompt. */
const STYLES = {
  modern: "modern furniture with clean lines and a neutral palette",
  scandinavian: "scandinavian furniture in light wood, white textiles and a few plants",
  industrial: "industrial furniture in dark metal, leather and reclaimed wood",
  classic: "classic furniture in warm wood with elegant upholstery",
} as const;

/** Two furnished pictures of the caller's own room photo, both or nothing. */
export const stagingInput = z.strictObject({
  image: z
    .string()
    .min(1)
    .max(2_048)
    .describe("The room photo: an HTTPS URL, or the id that POST /api/uploads answered."),
  room: z.enum(ROOMS).default("living_room"),
  style: z.enum(Object.keys(STYLES) as [keyof typeof STYLES, ...(keyof typeof STYLES)[]]).default("modern"),
  prompt: z.string().trim().max(1_000).default("").describe("Anything to add, at most 1,000 characters."),
  seed: z.int().min(0).max(2_147_483_000).optional(),
});
export type StagingInput = z.output<typeof stagingInput>;

const VARIANTS = 2;

export const staging: Kind<StagingInput> = {
  name: "staging",
  input: stagingInput,
  defaultModel: "flux-kontext-pro",
  variants: () => ({ count: VARIANTS, minSuccess: VARIANTS }),
  price: (_input, app) =>
    Array.from({ length: VARIANTS }, (_, index) => ({
      label: `staged variant ${index + 1}`,
      credits: app.prices.staging.perVariant,
    })),
  files: (input) => ({ image: fileRef(input.image) }),
  order(input, _model, { seed, fileUrls }) {
    const room = input.room.replace("_", " ");
    const wish = input.prompt ? ` ${input.prompt}` : "";
    return {
      prompt:
        `Furnish this empty ${room} with ${STYLES[input.style]}. Keep the walls, windows, floor, ceiling and the ` +
        `camera's point of view exactly as they are; photorealistic, natural light.${wish}`,
      input_image: fileUrls["image"],
      aspect_ratio: "match_input_image",
      output_format: "png",
      safety_tolerance: 2,
      seed,
    };
  },
};

/** An upload's id is a UUID; everything else has to be an address. */
function fileRef(text: string): FileRef {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text) ? { assetId: text.toLowerCase() } : { url: text };
}
