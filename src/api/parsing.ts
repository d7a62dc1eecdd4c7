import type { z } from "zod";
import type { FieldProblem } from "../domain/kinds/kind.ts";
import { ServiceError } from "../errors.ts";
import { type Submission, submissionSchema } from "./submission.ts";

/** Reads one submission among others, as POST /api/jobs reads its body. Throws ServiceError invalid_input. */
export function parseSubmission(value: unknown): Submission {
  const parsed = submissionSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const fields = bounded(parsed.error.issues.flatMap(toFields));
  const words = fields.map(({ pointer, detail }) => `body field ${pointer || "/"}: ${detail}`).join("; ");
  throw new ServiceError("invalid_input", `${words}. Nothing was charged.`, { fields });
}

const MOST_FIELDS = 20;
const MOST_POINTER_CHARACTERS = 200;

/** At most 20 fields and a word about the others: a request of megabytes must not make an answer of megabytes. */
export function bounded(fields: readonly FieldProblem[]): FieldProblem[] {
  const shown = fields.slice(0, MOST_FIELDS).map(({ pointer, detail }) => ({ pointer: cut(pointer), detail }));
  const more = fields.length - shown.length;
  return more > 0 ? [...shown, { pointer: "", detail: `… and ${more} more` }] : shown;
}

const cut = (pointer: string) =>
  pointer.length > MOST_POINTER_CHARACTERS ? `${pointer.slice(0, MOST_POINTER_CHARACTERS).toWellFormed()}…` : pointer;

function toFields(issue: z.core.$ZodIssue): FieldProblem[] {
  const pointer = issue.path.map((part) => `/${String(part).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => ({
      pointer: `${pointer}/${key}`,
      detail: "unknown field: remove it, or check its spelling at /docs",
    }));
  return [{ pointer, detail: issue.message }];
}
