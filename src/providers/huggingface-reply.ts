import { z } from "zod";
import type { FailureCode } from "../domain/failure.ts";
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
  /** Of a run that failed, what kind of failure it was. */
  error_type: z.string().nullable().catch(null),
});

const Pictures = z.object({
  data: z
    .array(z.object({ b64_json: z.string().min(1).optional(), url: z.url().optional() }))
    .min(1)
    .max(16),
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
