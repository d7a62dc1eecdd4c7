/** One breach of a schema, worded as Replicate's validator words it. */
export interface Violation {
  readonly type: string;
  readonly field: string;
  readonly description: string;
}

/** An answer that is not a success. The body is what travels, byte for byte. */
export class Problem extends Error {
  override readonly name = "Problem";
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, body: Record<string, unknown>, headers: Record<string, string> = {}) {
    super(typeof body["detail"] === "string" ? body["detail"] : `status ${status}`);
    this.status = status;
    this.body = body;
    this.headers = headers;
  }
}

export function unauthenticated(given: boolean): Problem {
  const detail = given ? "You did not pass a valid authentication token" : "You did not pass an authentication token";
  return new Problem(401, { title: "Unauthenticated", detail, status: 401 });
}

export function insufficientCredit(): Problem {
  const detail =
    "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing to purchase " +
    "credit. Once you purchase credit, please wait a few minutes before trying again.";
  return new Problem(402, { title: "Insufficient credit", detail, status: 402 });
}

export function notFound(detail = "The requested resource could not be found."): Problem {
  return new Problem(404, { detail, status: 404 });
}

export function invalidVersion(): Problem {
  const detail = "The specified version does not exist (or perhaps you don't have permission to use it?)";
  return new Problem(422, { title: "Invalid version or not permitted", detail, status: 422 });
}

export function invalidInput(violations: readonly Violation[]): Problem {
  const lines = violations.map(({ field, description, type }) =>
    // A missing or surplus key of the body itself has no field in front: "- version is required".
    field === "" || (type === "required" && field === "(root)") ? `- ${description}\n` : `- ${field}: ${description}\n`,
  );
  return new Problem(422, {
    detail: lines.join(""),
    status: 422,
    title: "Input validation failed",
    invalid_fields: violations.map((violation) => ({ ...violation })),
  });
}

/** The three shapes in which the real service has been seen to throttle. */
export type ThrottleForm = "body" | "header" | "neither";

export function throttled(form: ThrottleForm, seconds: number): Problem {
  const wait = Math.max(1, Math.ceil(seconds));
  switch (form) {
    case "body":
      return new Problem(429, {
        detail: `Request was throttled. Your rate limit for creating predictions is reduced. Your rate limit resets in ~${wait}s.`,
        status: 429,
        retry_after: wait,
      });
    case "header":
      return new Problem(429, { detail: "Request was throttled.", status: 429 }, { "retry-after": String(wait) });
    case "neither":
      return new Problem(429, {
        detail: `Request was throttled. Expected available in ${wait} ${wait === 1 ? "second" : "seconds"}.`,
      });
  }
}

/** What a proxy in front of the service sends when the service is not well: HTML, whatever was asked for. */
export function errorPage(status: number): string {
  const title =
    status === 502 ? "502 Bad Gateway" : status === 503 ? "503 Service Unavailable" : "500 Internal Server Error";
  return `<!DOCTYPE html>\n<html><head><title>${title}</title></head>\n<body><center><h1>${title}</h1></center><hr><center>cloudflare</center></body></html>\n`;
}
