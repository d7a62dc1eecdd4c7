import { z } from "zod";
import { promptOf } from "../styles.ts";
import { file, fileProblem, fileRefs, minSuccess, safety, seed, seeds, styleOf, variantProblems } from "./fields.ts";
import type { Kind } from "./kind.ts";

const ROOMS = [
  "living_room",
  "bedroom",
  "kitchen",
  "dining_room",
  "home_office",
  "bathroom",
  "kids_room",
  "hallway",
  "terrace",
] as const;

/**
 * furnish    puts furniture into an empty room
 * empty      takes everything out
 * declutter  takes out what lies around, and leaves the furniture
 */
const MODES = ["furnish", "empty", "declutter"] as const;

const KEEP =
  "Keep the walls, windows, floor, ceiling and the camera's point of view exactly as they are; photorealistic, natural light.";

/** Two pictures of the caller's own room photo, each with another seed. */
export const stagingInput = z.strictObject({
  image: file("The room photo"),
  mode: z
    .enum(MODES)
    .default("furnish")
    .describe("Put furniture in, take everything out, or take out the clutter only."),
  room: z.enum(ROOMS).default("living_room"),
  style: styleOf("staging").default("modern"),
  prompt: z.string().trim().max(1_000).default("").describe("Anything to add, at most 1,000 characters."),
  minSuccess,
  seed,
  seeds,
  safety,
});
export type StagingInput = z.output<typeof stagingInput>;

const VARIANTS = 2;

export const staging: Kind<StagingInput> = {
  name: "staging",
  input: stagingInput,
  defaultModel: "flux-kontext-pro",
  maxAttempts: 3,
  maxRebuys: 1,
  fit: (input, { app, model }) => ({
    input: { ...input, minSuccess: input.minSuccess ?? Math.min(app.minSuccess.staging ?? VARIANTS, VARIANTS) },
    clamps: [],
    problems: [...variantProblems(input, VARIANTS), ...fileProblem("image", input.image, model, "staging")],
  }),
  variants: (input) => ({ count: VARIANTS, minSuccess: input.minSuccess ?? VARIANTS }),
  measure: () => ({ noun: "staged variant", variants: VARIANTS }),
  files: (input) => fileRefs({ image: input.image }),
  trainedModel: () => null,
  ask: (input, _model, { seed: ownSeed, fileUrls, safety: isSafe }) => ({
    seed: ownSeed,
    safety: isSafe,
    prompt: promptFor(input),
    image: fileUrls["image"],
    format: "png",
  }),
};

function promptFor({ mode, room, style, prompt }: StagingInput): string {
  const name = room.replaceAll("_", " ");
  const wish = prompt ? ` ${prompt}` : "";
  switch (mode) {
    case "furnish":
      return `Furnish this empty ${name} with ${promptOf("staging", style)}. ${KEEP}${wish}`;
    case "empty":
      return `Empty this ${name}: remove all furniture, decoration and loose objects. ${KEEP}${wish}`;
    case "declutter":
      return `Remove the clutter and loose objects from this ${name}, and leave the furniture where it is. ${KEEP}${wish}`;
  }
}
