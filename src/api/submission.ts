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
  .refine(
    (value) => JSON.stringify(value).length <= MOST_METADATA_BYTES,
    `at most ${MOST_METADATA_BYTES} bytes as JSON`,
  )
  // Postgres keeps no U+0000 in JSON.
  .refine((value) => !JSON.stringify(value).includes("\\u0000"), "must not contain the character U+0000")
  .describe("Anything of yours, echoed back: a campaign, an order. At most 8 KB.");

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
export const submissionSchema = z.discriminatedUnion("kind", [
  submissionOf(KINDS[0]),
  ...KINDS.slice(1).map(submissionOf),
]);
export type Submission = z.output<typeof submissionSchema>;
