import { z } from "zod";
import { kindOf } from "../domain/kinds/all.ts";
import { KINDS, type KindName } from "../domain/kinds/kind.ts";

const MOST_METADATA_BYTES = 8_192;

export const userSchema = z
  .string()
  .trim()
  .min(1)
  .max(200)
  .describe("Your id of the end user whose credits are charged; the account is made when it is first named.");
export const metadataSchema = z
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

export const callbackUrlSchema = z
  .url({ protocol: /^https?$/ })
  .max(2_048)
  .optional()
  .describe(
    "Where the end is told, signed, instead of the app's own address: https to a public host, or an origin of CALLBACK_ORIGINS.",
  );

const optional = {
  model: z
    .string()
    .min(1)
    .max(100)
    .optional()
    .describe("A model of GET /api/models; by default the app's for the kind."),
  quote: z
    .uuid()
    .optional()
    .describe("Of POST /api/quotes for this very request: nothing more than quoted is charged."),
  experiment: z.string().min(1).max(100).optional().describe("One of the app's experiments: the user is given an arm."),
  reuse: z
    .strictObject({ seconds: z.int().min(0).max(2_592_000) })
    .optional()
    .describe(
      "Takes the result of an equal request of this user that is under way, or completed no longer ago than so many seconds; nothing is charged then. Both have to say so, and the job keeps the metadata and the callback of the one that made it. Equal is what comes to the same output: without a seed, any will do.",
    ),
  address: z
    .union([z.ipv4(), z.ipv6()])
    .optional()
    .describe("The end user's IP address, if the app limits requests by address."),
  callbackUrl: callbackUrlSchema,
};

/** For everything that is kept as it was sent: a check of its schema. */
export function checkStorable(ctx: z.core.ParsePayload<unknown>): void {
  const path = unstorable(ctx.value);
  if (path)
    ctx.issues.push({
      code: "custom",
      path: [...path],
      message: `cannot be kept: it holds U+0000, half of a surrogate pair, or is nested deeper than ${MOST_DEPTH}`,
      input: undefined,
    });
}

function submissionOf(name: KindName) {
  return z
    .strictObject({
      kind: z.literal(name),
      user: userSchema,
      input: kindOf(name).input,
      metadata: metadataSchema,
      ...optional,
    })
    .meta({ id: `${name[0]?.toUpperCase()}${name.slice(1)}Submission` });
}

/** What POST /api/jobs takes: one shape for each kind. */
export const submissionSchema = z
  .discriminatedUnion("kind", [submissionOf(KINDS[0]), ...KINDS.slice(1).map(submissionOf)])
  .check(checkStorable);
export type Submission = z.output<typeof submissionSchema>;
