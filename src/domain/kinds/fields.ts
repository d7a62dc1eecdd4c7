import { z } from "zod";
import { type Model, type ModelLimits, modelsOf } from "../catalogue.ts";
import { STYLES, stylesOf } from "../styles.ts";
import type { Clamp, FieldProblem, FileRef, KindName } from "./kind.ts";

/** Input fields that several kinds have, and what they make of them. */

/** Room for one seed per variant below 2^31. */
const MOST_SEED = 2_147_483_000;

export const seed = z
  .int()
  .min(0)
  .max(MOST_SEED)
  .optional()
  .describe("The same seed and input give the same output; variant n uses seed + n.");
export const seeds = z
  .array(z.int().min(0).max(MOST_SEED))
  .min(1)
  .max(16)
  .optional()
  .describe("Instead of seed: one for each variant, in their order.");
export const minSuccess = z
  .int()
  .min(1)
  .max(16)
  .optional()
  .describe("Fewer delivered variants than this is a failed job, with everything refunded.");
export const safety = z
  .boolean()
  .optional()
  .describe("false turns the model's safety checker off, where the app leaves that to its callers.");
export const file = (about: string) =>
  z.string().min(1).max(2_048).describe(`${about}: an HTTPS URL, or the id that POST /api/uploads answered.`);

/** A preset of the kind, by its id; the problem names those there are, and whose style it was. */
export function styleOf(kind: KindName) {
  const ids = stylesOf(kind).map(({ id }) => id);
  return z
    .string()
    .max(40)
    .refine((id) => ids.includes(id), {
      error: ({ input }) => {
        const others = STYLES.filter(({ id }) => id === input).map((each) => each.kind);
        const whose =
          others.length > 0 ? `${String(input)} is a style of ${others.join(" and ")}, not of ${kind}; ` : "";
        return `${whose}one of: ${ids.join(", ")}`;
      },
    })
    .meta({ enum: ids })
    .describe("A preset; GET /api/styles lists them.");
}

/** An upload's id is a UUID; everything else has to be an address. */
export function fileRef(text: string): FileRef {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text) ? { assetId: text.toLowerCase() } : { url: text };
}

export function fileRefs(files: Readonly<Record<string, string | undefined>>): Record<string, FileRef> {
  return Object.fromEntries(
    Object.entries(files).flatMap(([field, text]) => (text === undefined ? [] : [[field, fileRef(text)]])),
  );
}

/** What does not fit together in the fields above; `count` is the field that says how many variants there are. */
export function variantProblems(
  input: {
    readonly seed?: number | undefined;
    readonly seeds?: readonly number[] | undefined;
    readonly minSuccess?: number | undefined;
  },
  count: number,
): FieldProblem[] {
  const problems: FieldProblem[] = [];
  if (input.seeds && input.seeds.length !== count)
    problems.push({
      pointer: "/input/seeds",
      detail: `has ${input.seeds.length} seeds for ${count} variants: give one for each`,
    });
  if (input.seeds && input.seed !== undefined)
    problems.push({ pointer: "/input/seed", detail: "give either seed or seeds" });
  if (input.minSuccess !== undefined && input.minSuccess > count)
    problems.push({ pointer: "/input/minSuccess", detail: `is more than the ${count} variants that are asked for` });
  return problems;
}

/** What a model can do with a file; the problem names the models of the kind that can do what is wanted. */
export function fileProblem(
  field: "image" | "mask",
  given: string | undefined,
  { limits, alias }: Model,
  kind: KindName,
): FieldProblem[] {
  const pointer = `/input/${field}`;
  const others = (able: (limits: ModelLimits) => boolean, one: string, many: string): string => {
    const aliases = modelsOf(kind).flatMap((model) => (able(model.limits) ? [model.alias] : []));
    return aliases.length === 0 ? "" : `; ${aliases.join(", ")} ${aliases.length > 1 ? many : one}`;
  };
  if (given !== undefined && !limits[field]) {
    const able = others((each) => each[field] !== undefined, "does", "do");
    return [{ pointer, detail: `the model ${alias} takes no ${field}${able}` }];
  }
  if (given === undefined && limits[field] === "required") {
    const able = others((each) => each[field] !== "required", "works without", "work without");
    return [{ pointer, detail: `the model ${alias} needs one${able}` }];
  }
  return [];
}

/** At most `most`, and the note about it. */
export function clampTo(
  value: number,
  most: number,
  pointer: string,
  because: string,
): { value: number; clamps: Clamp[] } {
  if (value <= most) return { value, clamps: [] };
  return { value: most, clamps: [{ pointer, from: value, to: most, because }] };
}
