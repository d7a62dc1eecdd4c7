import { z } from "zod";
import { promptOf } from "../styles.ts";
import { file, fileProblem, fileRefs, minSuccess, safety, seed, seeds, styleOf, variantProblems } from "./fields.ts";
import type { Kind } from "./kind.ts";

/** The caller's own picture, changed as the instruction says; with a mask, only where it is white. */
export const editInput = z.strictObject({
  image: file("The picture to change"),
  mask: file("White where the picture is to change, of exactly its size").optional(),
  instruction: z.string().trim().min(1).max(2_000).describe("What to change, 1 to 2,000 characters."),
  style: styleOf("edit").optional(),
  variants: z
    .int()
    .min(1)
    .max(4)
    .default(1)
    .describe("How many results, 1 to 4. Each is priced and settled by itself."),
  minSuccess,
  format: z.enum(["png", "jpg"]).default("png"),
  seed,
  seeds,
  safety,
});
export type EditInput = z.output<typeof editInput>;

export const edit: Kind<EditInput> = {
  name: "edit",
  input: editInput,
  defaultModel: "flux-kontext-pro",
  maxAttempts: 3,
  maxRebuys: 1,
  fit: (input, { app, model }) => ({
    input: { ...input, minSuccess: input.minSuccess ?? Math.min(app.minSuccess.edit ?? 1, input.variants) },
    clamps: [],
    problems: [
      ...variantProblems(input, input.variants),
      ...fileProblem("image", input.image, model, "edit"),
      ...fileProblem("mask", input.mask, model, "edit"),
    ],
  }),
  variants: (input) => ({ count: input.variants, minSuccess: input.minSuccess ?? 1 }),
  measure: (input) => ({ noun: "edited image", variants: input.variants }),
  files: (input) => fileRefs({ image: input.image, mask: input.mask }),
  trainedModel: () => null,
  ask(input, _model, { seed: ownSeed, fileUrls, safety: isSafe }) {
    const style = promptOf("edit", input.style);
    return {
      seed: ownSeed,
      safety: isSafe,
      prompt: style ? `${input.instruction}, ${style}` : input.instruction,
      image: fileUrls["image"],
      mask: fileUrls["mask"],
      format: input.format,
    };
  },
};
