import { Problem, type ThrottleForm } from "../problem.ts";
import type { Refusals } from "../wire.ts";

/** Around everything that goes well. */
export function success(content: unknown) {
  return { code: 200, message: "success", data: content };
}

/** Around everything else; the code repeats the status. */
export function refusal(status: number, message: string, headers: Record<string, string> = {}): Problem {
  return new Problem(status, { code: status, message }, headers);
}

/** What was not worded here: shared code speaks as Replicate does. */
export function reworded({ status, body, headers }: Problem): Problem {
  if (typeof body["code"] === "number") return new Problem(status, body, headers);
  const text = typeof body["detail"] === "string" ? body["detail"].trim() : "request failed";
  const seconds = body["retry_after"];
  const wait = typeof seconds === "number" ? { "retry-after": String(seconds) } : {};
  // It knows no 422.
  return refusal(status === 422 ? 400 : status, text, { ...headers, ...wait });
}

/** How it throttles is not published: told in the header, in the words, or not at all. */
function throttled(form: ThrottleForm, seconds: number): Problem {
  const text = "Too many requests: the rate limit of your account level is exceeded.";
  switch (form) {
    case "body":
      return refusal(429, `${text} Try again in ${seconds} seconds.`);
    case "header":
      return refusal(429, text, { "retry-after": String(seconds) });
    case "neither":
      return refusal(429, text);
  }
}

export const WAVESPEED_REFUSALS: Refusals = {
  unauthorized: () => refusal(401, "Unauthorized: invalid API key"),
  noCredit: () => refusal(402, "Insufficient credits. Please top up your account."),
  throttled,
};
