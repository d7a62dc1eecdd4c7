import { z } from "zod";
import { type FailureCode, failure } from "../domain/failure.ts";
import type { Failed, Look } from "../domain/provider.ts";
import { parseJson, type Reply } from "./http.ts";

/** What fal's queue says in the end: the HTTP answer to the question for the result is the verdict on the run. */

/** A model's own error: which part of the input, and a word that may be programmed against. */
const ModelError = z.object({
  loc: z.array(z.union([z.string(), z.number()])).catch([]),
  msg: z.string().catch(""),
  type: z.string().catch(""),
});
type ModelError = z.infer<typeof ModelError>;

/** The platform's errors have a text and a type, a model's a list; some of either have the text alone. */
const Problem = z.object({
  detail: z.union([z.string(), z.array(ModelError).min(1)]),
  error_type: z.string().nullish().catch(null),
});
export type Problem = z.infer<typeof Problem>;

/** What fal says when it refuses; null when the body is somebody else's. */
export function problemIn(body: string): Problem | null {
  return Problem.safeParse(parseJson(body)).data ?? null;
}

/** Without what a model repeats of the input: there are signed addresses of ours in it. */
export function wordsOf({ detail }: Problem): string {
  if (typeof detail === "string") return detail;
  return detail.map(({ loc, msg, type }) => `${loc.join(".")}: ${msg} (${type})`).join("; ");
}

/**
 * Whether an answer of 500 and above is the run's verdict rather than trouble in front of it. `told`: the error that
 * its status names. An internal error may be the queue's own: without the status saying so, the run may be a success
 * that was paid for, and must not be bought anew.
 */
export function isVerdict(reply: Reply, told: string | null): boolean {
  const problem = problemIn(reply.body);
  if (problem === null) return false;
  if (typeof problem.detail !== "string") return true;
  const type = problem.error_type ?? reply.headers["x-fal-error-type"];
  return Boolean(type) && (type !== "internal_error" || told !== null);
}

/** What the platform, not the model, says of a run that it could not carry through. */
const PLATFORM: Readonly<Record<string, FailureCode>> = {
  startup_timeout: "interrupted",
  runner_scheduling_failure: "interrupted",
  runner_connection_timeout: "interrupted",
  runner_connection_refused: "interrupted",
  runner_connection_error: "interrupted",
  runner_disconnected: "interrupted",
  runner_incomplete_response: "interrupted",
  client_disconnected: "interrupted",
  internal_error: "interrupted",
  bad_request: "input_refused",
};

const MODEL: Readonly<Record<string, FailureCode>> = {
  content_policy_violation: "content_refused",
  image_too_large: "input_too_large",
  file_too_large: "input_too_large",
  no_media_generated: "provider_failed",
  generation_timeout: "provider_failed",
  internal_server_error: "provider_failed",
  downstream_service_error: "provider_failed",
  downstream_service_unavailable: "interrupted",
};

/** Of several errors, the word that decides: a refused content is that, whatever else is wrong. */
export function modelFailure(errors: readonly ModelError[], status: number): FailureCode {
  const codes = errors.map(({ type }) => MODEL[type] ?? null);
  if (codes.includes("content_refused")) return "content_refused";
  return codes.find((code) => code !== null) ?? (status < 500 ? "input_refused" : "provider_failed");
}

/** Null: this answer says nothing of the run. `seconds`: its billed run time, null where it never ran. */
export function verdictOf(reply: Reply, seconds: number | null, onStrange: (what: string) => void): Look | null {
  const { status, body, headers } = reply;
  if (status >= 200 && status < 300) return succeeded(parseJson(body), seconds);
  const problem = problemIn(body);
  // 401 and 403 are about our key, 402 and 429 about our account.
  if (problem === null || status < 400 || [401, 402, 403, 408, 429].includes(status)) return null;

  // The platform calls that a bad request.
  if (status === 400 && /still in progress/i.test(wordsOf(problem))) return { status: "running", progress: null };
  const words = `${status}: ${wordsOf(problem)}`;
  const failed = (code: FailureCode): Failed => failedAs(code, words, seconds);
  const type = problem.error_type ?? headers["x-fal-error-type"] ?? null;
  if (typeof problem.detail !== "string") return failed(modelFailure(problem.detail, status));
  if (type === "client_cancelled") return { status: "canceled", seconds, costMicroUsd: null };
  if (type === "request_timeout") {
    // Ours is the time until it starts; the model's own is the time that it works.
    const neverStarted = headers["x-fal-request-timeout-type"] === "user" || seconds === null;
    return failed(neverStarted ? "aborted" : "timeout");
  }
  if (type === "runner_server_error")
    return failed(headers["x-fal-retryable"] === "false" ? "provider_failed" : "interrupted");
  const known = type === null ? undefined : PLATFORM[type];
  if (known !== undefined) return failed(known);
  if (type !== null) onStrange(`a run ended with the unknown error type "${type}": ${words}`);

  // The queue takes an order for any path of an application; that there is none is told by the application.
  const isModel = /\b(app|application|model|path)\b/i.test(problem.detail);
  if (status === 404) return failed(isModel ? "model_not_found" : "output_unavailable");
  if (status === 413) return failed("input_too_large");
  if (status >= 500) return failed(headers["x-fal-retryable"] === "true" ? "interrupted" : "provider_failed");
  return failed("input_refused");
}

function failedAs(code: FailureCode, detail: string, seconds: number | null): Failed {
  return { status: "failed", failure: failure(code, detail), seconds, costMicroUsd: null };
}

/** Each model has its own answer; these are the names under which they put files. */
const PLACES = ["images", "image", "videos", "video", "audio", "files", "file", "output"] as const;

const Place = z.object({ url: z.string() }).transform(({ url }) => url);
const File = z.union([z.string(), Place]).refine((url) => /^(https?:\/\/|data:)/.test(url));
const Files = z.union([z.array(File).min(1), File.transform((url) => [url])]);
const Result = z.record(z.string(), z.unknown());
const Flags = z.object({ has_nsfw_concepts: z.array(z.boolean()) });

function succeeded(result: unknown, seconds: number | null): Look | null {
  const { data: answer } = Result.safeParse(result);
  if (!answer) return null;
  const outputs = PLACES.flatMap((place) => Files.safeParse(answer[place]).data ?? []);
  if (outputs.length === 0)
    return failedAs("provider_failed", `no output URLs, but ${JSON.stringify(answer).slice(0, 500)}`, seconds);
  // What the checker held back is a black picture in its place.
  const held = Flags.safeParse(answer).data?.has_nsfw_concepts ?? [];
  const shown = held.length === outputs.length ? outputs.filter((_, index) => !held[index]) : outputs;
  if (shown.length === 0)
    return failedAs("content_refused", "the model's safety checker marked every output (has_nsfw_concepts)", seconds);
  return { status: "succeeded", outputs: shown, seconds, costMicroUsd: null, trainedVersion: null };
}
