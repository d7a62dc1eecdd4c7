import { Problem } from "../problem.ts";
import type { Refusals } from "../wire.ts";

/** Hugging Face's errors: one sentence, or a list of them, under `error`. fal's own stand under `detail`. */
export function problem(status: number, error: string | readonly string[], rest: Record<string, unknown> = {}) {
  return new Problem(status, { error, ...rest });
}

export const unauthorized = () => problem(401, "Invalid username or password.");

export const REFUSALS: Refusals = {
  unauthorized,
  noCredit: () =>
    problem(
      402,
      "You have depleted your monthly included credits. Purchase pre-paid credits to continue using Inference Providers.",
    ),
  throttled(form, seconds) {
    const wait = Math.max(1, Math.ceil(seconds));
    const text = "Rate limit reached. You reached the rate limit of your plan";
    if (form === "header") return new Problem(429, { error: text }, { "retry-after": String(wait) });
    return problem(429, form === "body" ? `${text}. Try again in ${wait} s` : text);
  },
};

/** What is shared by all faces speaks Replicate's words; here they are Hugging Face's, or fal's behind its door. */
export function translated({ status, body, headers }: Problem, isFal: boolean): Problem {
  if ("error" in body) return new Problem(status, { ...body }, { ...headers });
  const fields = violationsIn(body);
  if (isFal) {
    const told = fields.map(({ field, description, type }) => {
      return { loc: ["body", field.replace(/^input\.?/, "")], msg: description, type };
    });
    const { detail = "Bad request", error_type } = body;
    return new Problem(status, { detail: told.length > 0 ? told : detail, error_type }, { ...headers });
  }
  if (fields.length > 0)
    return problem(
      status,
      fields.map(({ field, description }) => (field === "" ? description : `${field}: ${description}`)),
    );
  return problem(status, typeof body["detail"] === "string" ? body["detail"].trim() : "Bad request");
}

interface Told {
  readonly field: string;
  readonly description: string;
  readonly type: string;
}

function violationsIn(body: Problem["body"]): readonly Told[] {
  const fields = body["invalid_fields"];
  if (!Array.isArray(fields)) return [];
  return fields.map(({ field, description, type }: Record<string, unknown>) => {
    return { field: String(field), description: String(description), type: String(type) };
  });
}
