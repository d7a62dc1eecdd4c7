import type { FieldProblem } from "./domain/kinds/kind.ts";
import { ERRORS, type ServiceError } from "./errors.ts";

/** RFC 9457, as answered to a caller and as kept for an item of a batch or a step of a pipeline. */
export interface ProblemDocument {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly instance: string;
  readonly retryable: boolean;
  readonly errors?: readonly FieldProblem[];
  readonly [fact: string]: unknown;
}

/** `instance`: what the log calls it, such as the id of the request. */
export function problemOf(error: ServiceError, instance: string): ProblemDocument {
  const { status, title, retryable } = ERRORS[error.code];
  return {
    // First, so that a fact can never take the place of a standard member.
    ...error.facts,
    type: `urn:darkroom:error:${error.code}`,
    title,
    status,
    code: error.code,
    detail: error.message,
    instance,
    retryable,
    ...(error.fields.length > 0 ? { errors: error.fields } : {}),
  };
}
