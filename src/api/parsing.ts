import type { z } from "zod";
import { type FieldProblem, ServiceError } from "../errors.ts";
import { type Submission, submissionSchema } from "./submission.ts";

/** Reads one submission among others, as POST /api/jobs reads its body. Throws ServiceError invalid_input. */
export function parseSubmission(value: unknown): Submission {
  const parsed = submissionSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.flatMap(toFields);
  const words = fields.map(({ pointer, detail }) => `body field ${pointer || "/"}: ${detail}`).join("; ");
  throw new ServiceError("invalid_input", `${words}. Nothing was charged.`, { fields });
}

function toFields(issue: z.core.$ZodIssue): FieldProblem[] {
  const pointer = issue.path.map((part) => `/${String(part).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => ({
      pointer: `${pointer}/${key}`,
      detail: "unknown field: remove it, or check its spelling at /docs",
    }));
  return [{ pointer, detail: issue.message }];
}
