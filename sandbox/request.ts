import type { FastifyRequest } from "fastify";
import type { z } from "zod";
import { invalidInput, type Violation } from "./problem.ts";

/** From `Authorization: Bearer r8_…` or the older `Token r8_…`. */
export function tokenOf(request: FastifyRequest): string | null {
  return /^(?:Bearer|Token)\s+(\S+)\s*$/i.exec(request.headers.authorization ?? "")?.[1] ?? null;
}

/** The origin that the caller used to reach us; URLs in answers begin with it. */
export function originOf(request: FastifyRequest): string {
  return `http://${request.headers.host ?? "127.0.0.1"}`;
}

/** Reads a body or query against its schema; throws the 422 in the words of Replicate's validator. */
export function parse<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const read = schema.safeParse(value ?? {}, { reportInput: true });
  if (read.success) return read.data;
  throw invalidInput(read.error.issues.flatMap(violationsOf));
}

function violationsOf(issue: z.core.$ZodIssue): Violation[] {
  const field = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => {
      return {
        type: "additional_property_not_allowed",
        field: "",
        description: `Additional property ${key} is not allowed`,
      };
    });
  }
  if (issue.code === "invalid_type" && issue.input === undefined) {
    return [{ type: "required", field: "", description: `${field} is required` }];
  }
  if (issue.code === "invalid_value") {
    const allowed = issue.values.map((value) => `"${String(value)}"`).join(", ");
    return [{ type: "enum", field, description: `${field} must be one of the following: ${allowed}` }];
  }
  return [{ type: issue.code, field, description: issue.message }];
}
