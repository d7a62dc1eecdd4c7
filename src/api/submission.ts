import { z } from "zod";
import { modelsOf } from "../domain/catalogue.ts";
import { kindOf } from "../domain/kinds/all.ts";
import { KINDS, type KindName } from "../domain/kinds/kind.ts";

const MOST_METADATA_BYTES = 8_192;

const user = z
  .string()
  .trim()
  .min(1)
  .max(200)
  .describe("Your id of the end user whose credits are charged; the account is made when it is first named.");
const metadata = z
  .record(z.string(), z.unknown())
  .default({})
  .refine((value) => sizeOf(value) <= MOST_METADATA_BYTES, `at most ${MOST_METADATA_BYTES} bytes as JSON`)
  .describe("Anything of yours, echoed back: a campaign, an order. At most 8 KB.");

/** Infinity for what is nested too deeply to be written at all. */
function sizeOf(value: unknown): number {
  try {
    return Buffer.byteLength(JSON.stringify(value));
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** Postgres keeps neither U+0000 nor half a surrogate pair. */
export const isStorable = (text: string) => text.isWellFormed() && !text.includes("\u0000");

/** What is nested deeper than this is nobody's note, and would overflow the stack of whoever reads it. */
const MOST_DEPTH = 50;

/** Where in a request there is something that cannot be kept; null when it all can. */
function unstorable(value: unknown, path: readonly PropertyKey[] = []): readonly PropertyKey[] | null {
  if (path.length > MOST_DEPTH) return path.slice(0, 1);
  if (typeof value === "string") return isStorable(value) ? null : path;
  if (typeof value !== "object" || value === null) return null;
  for (const [name, member] of Object.entries(value)) {
    const found = isStorable(name) ? unstorable(member, [...path, name]) : path;
    if (found) return found;
  }
  return null;
}

function submissionOf(name: KindName) {
  const kind = kindOf(name);
  const aliases = modelsOf(name).map((model) => model.alias);
  return z
    .strictObject({
      kind: z.literal(name),
      user,
      model: z
        .enum(aliases as [string, ...string[]])
        .default(kind.defaultModel)
        .describe("A model of the catalogue."),
      input: kind.input,
      metadata,
    })
    .meta({ id: `${name[0]?.toUpperCase()}${name.slice(1)}Submission` });
}

/** What POST /api/jobs takes: one shape for each kind. */
export const submissionSchema = z
  .discriminatedUnion("kind", [submissionOf(KINDS[0]), ...KINDS.slice(1).map(submissionOf)])
  .check((ctx) => {
    const path = unstorable(ctx.value);
    if (path)
      ctx.issues.push({
        code: "custom",
        path: [...path],
        message: `cannot be kept: it holds U+0000, half of a surrogate pair, or is nested deeper than ${MOST_DEPTH}`,
        input: undefined,
      });
  });
export type Submission = z.output<typeof submissionSchema>;
