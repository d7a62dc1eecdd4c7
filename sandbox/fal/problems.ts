import type { Input } from "../field.ts";
import { Problem, type ThrottleForm, type Violation } from "../problem.ts";
import type { Refusals } from "../wire.ts";

/** One error of a model, as it travels. */
interface Detail {
  readonly loc: readonly (string | number)[];
  readonly msg: string;
  readonly type: string;
  readonly url: string;
  readonly input?: unknown;
}

/** An error of the platform: a text, and a type that is told in a header too. */
export function platform(status: number, errorType: string, detail: string, headers: Record<string, string> = {}) {
  return new Problem(status, { detail, error_type: errorType }, { "x-fal-error-type": errorType, ...headers });
}

/** An error of the model: a list of what is wrong with the input. */
export function refused(details: readonly Detail[]): Problem {
  return new Problem(422, { detail: details }, { "x-fal-retryable": "false" });
}

export function detail(type: string, msg: string, field: string | null, input?: unknown): Detail {
  const loc = field === null ? ["body"] : ["body", ...field.split(".")];
  return { loc, msg, type, url: `https://docs.fal.ai/errors#${type}`, ...(input === undefined ? {} : { input }) };
}

const TYPES: Readonly<Record<string, string>> = {
  enum: "literal_error",
  format: "url_parsing",
  number_gte: "greater_than_equal",
  number_lte: "less_than_equal",
};

/** What the check of a model's fields found, in fal's words. */
export function reworded(violation: Violation, input: Input): Detail {
  const { type, field, description } = violation;
  if (type === "required") return detail("missing", "Field required", description.replace(/ is required$/, ""));
  const name = field.replace(/^input\./, "");
  const given = input[name];
  if (type !== "invalid_type") return detail(TYPES[type] ?? "value_error", description, name, given);
  const expected = /Expected: (\w+)/.exec(description)?.[1] ?? "value";
  return detail(`${expected}_type`, `Input should be a valid ${expected}`, name, given);
}

export const unauthenticated = () =>
  new Problem(401, { detail: "Authentication is required to access this application." });

export const noSuchApplication = (name: string) => new Problem(404, { detail: `Application "${name}" not found` });
export const noSuchPath = (path: string) => new Problem(404, { detail: `Path /${path} not found` });
export const noSuchRequest = () => new Problem(404, { detail: "Request not found" });

export function throttled(form: ThrottleForm, seconds: number): Problem {
  const wait = Math.max(1, Math.ceil(seconds));
  const text = form === "body" ? `Rate limit exceeded. Try again in ${wait} seconds.` : "Rate limit exceeded.";
  return new Problem(429, { detail: text }, form === "header" ? { "retry-after": String(wait) } : {});
}

export const REFUSALS: Refusals = {
  unauthorized: () => new Problem(401, { detail: "Invalid API key." }),
  noCredit: () =>
    new Problem(403, {
      detail: "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing.",
    }),
  throttled,
};
