import { z } from "zod";
import { type FailureCode, failure } from "../domain/failure.ts";
import { type Look, ProviderUnreachable } from "../domain/provider.ts";
import { parseJson, type Reply } from "./http.ts";

/** What the router and those behind it answer, and what it means. Only what is read is insisted on. */

const Texts = z.union([z.string(), z.array(z.unknown()), z.looseObject({})]);

/** An error in somebody's own words: Hugging Face's `error`, fal's `detail`, an upstream's `message`. */
export const Problem = z
  .object({
    error: Texts.optional(),
    detail: Texts.optional(),
    message: z.string().optional(),
    error_type: z.string().optional().catch(undefined),
    /** Seconds until a model is loaded. */
    estimated_time: z.number().positive().optional().catch(undefined),
  })
  .refine(({ error, detail, message }) => (error ?? detail ?? message) !== undefined);

/** fal-ai's three words; a run that failed has the status COMPLETED too. */
export const QueueStatus = z.object({
  status: z.string(),
  metrics: z
    .object({ inference_time: z.number().nonnegative().nullable().catch(null) })
    .catch({ inference_time: null }),
});

const Pictures = z.object({
  data: z
    .array(z.object({ b64_json: z.string().min(1).optional(), url: z.url().optional() }))
    .min(1)
    .max(16),
});

const File = z.object({ url: z.string().regex(/^(https?:\/\/|data:)/) });
const Result = z.object({
  images: z.array(File).min(1).max(16).optional(),
  image: File.optional(),
  video: File.optional(),
});

/** The outputs inside of an answer: a picture's bytes as they are, or a list of them in base64 or as URLs. */
export function picturesIn({ headers, bytes, body }: Reply): string[] {
  const type = headers["content-type"]?.split(";")[0]?.trim().toLowerCase() ?? "";
  if (/^(image|video)\/[\w.+-]+$/.test(type) && bytes.length > 0)
    return [`data:${type};base64,${bytes.toString("base64")}`];
  const { data = [] } = Pictures.safeParse(parseJson(body)).data ?? {};
  return data.flatMap(({ b64_json, url }) =>
    b64_json === undefined ? (url ?? []) : `data:${typeOfBase64(b64_json)};base64,${b64_json}`,
  );
}

/** Told by how it begins: nobody says what it is. */
function typeOfBase64(text: string): string {
  if (text.startsWith("iVBOR")) return "image/png";
  return text.startsWith("UklGR") ? "image/webp" : "image/jpeg";
}

/**
 * Where fal-ai keeps a run, below the router: owner/alias/requests/id. What comes behind the alias when it is ordered is
 * no part of it, so its own word goes first.
 */
export function pathOfRun(queued: { readonly request_id: string; readonly response_url: string }, id: string): string {
  const told = URL.canParse(queued.response_url) ? new URL(queued.response_url).pathname : "";
  const path = /^\/([\w.-]+(?:\/[\w.-]+)+\/requests\/[\w-]+)\/?$/.exec(told)?.[1];
  return path ?? `${id.split("/").slice(0, 2).join("/")}/requests/${queued.request_id}`;
}

/** fal-ai's result of a run that is over: outputs, or the error itself with its HTTP status. */
export function endOf(reply: Reply, seconds: number | null, words: (body: string) => string): Look {
  const failed = (code: FailureCode, detail: string): Look => {
    return { status: "failed", failure: failure(code, detail), seconds, costMicroUsd: null };
  };
  const parsed = parseJson(reply.body);
  if (reply.status < 300 && parsed !== undefined) {
    const { images = [], image, video } = Result.safeParse(parsed).data ?? {};
    const outputs = [...images, image ?? [], video ?? []].flat().map(({ url }) => url);
    if (outputs.length > 0) return { status: "succeeded", outputs, seconds, costMicroUsd: null, trainedVersion: null };
    return failed("provider_failed", `no output URLs, but ${reply.body.slice(0, 500)}`);
  }
  const problem = Problem.safeParse(parsed).data;
  const isAboutUs = [401, 402, 403, 408, 429].includes(reply.status);
  if (!problem || isAboutUs)
    throw new ProviderUnreachable(`result: no usable answer (${reply.status}): ${words(reply.body)}`);
  if (reply.status === 404) return failed("output_unavailable", words(reply.body));
  const type = problem.error_type ?? "";
  if (type === "client_cancelled") return { status: "canceled", seconds, costMicroUsd: null };
  // The machine went away, not the model: the same run may well succeed on another.
  if (/^runner_|^startup_timeout$/.test(type)) return failed("interrupted", words(reply.body));
  const code = failureOf(words(reply.body));
  return failed(code === "provider_failed" && reply.status === 422 ? "input_refused" : code, words(reply.body));
}

/** Free text, of whoever ran it. */
export function failureOf(text: string): FailureCode {
  if (/interrupted; please retry/i.test(text)) return "interrupted";
  if (/nsfw|content[_ ]policy|\bmoderation\b|\bsafety (filter|checker|system)/i.test(text)) return "content_refused";
  return "provider_failed";
}

/** The sentences of an error; the beginning of the body where it is none. */
export function wordsIn(body: string): string {
  const problem = Problem.safeParse(parseJson(body)).data;
  if (!problem) return body.slice(0, 500);
  const { error, detail, message, error_type } = problem;
  const said = error ?? detail ?? message;
  const text = typeof said === "string" ? said : JSON.stringify(said);
  return error_type === undefined ? text : `${error_type}: ${text}`;
}
