import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { type FailureCode, failure } from "../domain/failure.ts";
import type { Look, Order } from "../domain/provider.ts";

/** Only what is read, and only `id` and `status` are insisted on: an ornament of an odd type must not hide a run. */
export const Prediction = z.object({
  id: z.string(),
  status: z.string(),
  outputs: z.array(z.unknown()).nullable().catch(null),
  has_nsfw_contents: z.array(z.unknown()).catch([]),
  /** Empty when all is well. Not the envelope's `code`: 0 is well here. */
  error: z.unknown().optional(),
  code: z.number().catch(0),
  /** Milliseconds. */
  timings: z.object({ inference: z.number().catch(0) }).catch({ inference: 0 }),
  executionTime: z.number().catch(0),
});
export type Prediction = z.infer<typeof Prediction>;

const Shown = z.record(z.string(), z.unknown()).nullable().catch(null);
export const ListedPrediction = z.object({
  id: z.string().min(1).max(200),
  model: z.string(),
  created_at: z.string(),
  /** Only shown when asked for, and under either name. */
  inputs: Shown,
  input: Shown,
});
export type ListedPrediction = z.infer<typeof ListedPrediction>;

const CANCELED = new Set(["cancelled", "canceled", "deleted"]);
const ENDED = new Set(["completed", "failed", "timeout", ...CANCELED]);
const RUNNING = new Set(["created", "pending", "processing"]);

export const isEnded = (status: string): boolean => ENDED.has(status);

export function lookOf(prediction: Prediction, onStrange: (what: string) => void): Look {
  const { status } = prediction;
  const seconds = secondsOf(prediction);
  if (status === "completed") return completed(prediction, seconds);
  if (status === "failed") {
    const text = errorText(prediction.error);
    return failed(failureOf(prediction.code, text), text, seconds);
  }
  if (status === "timeout") return failed("timeout", errorText(prediction.error), seconds);
  if (CANCELED.has(status)) return { status: "canceled", seconds, costMicroUsd: null };
  // A new word is more likely a new way to be busy than a new way to end; the run's own deadline bounds the wait.
  if (!RUNNING.has(status)) onStrange(`prediction ${prediction.id} has the unknown status "${status}"`);
  return { status: "running", progress: null };
}

function completed({ outputs, has_nsfw_contents: nsfw }: Prediction, seconds: number | null): Look {
  if (nsfw.length > 0 && nsfw.every((it) => it === true))
    return failed("content_refused", "has_nsfw_contents: every output is marked", seconds);
  if (outputs && outputs.length > 0 && outputs.every(isUrl))
    return { status: "succeeded", outputs, seconds, costMicroUsd: null, trainedVersion: null };
  return failed("provider_failed", `no output URLs, but ${JSON.stringify(outputs).slice(0, 500)}`, seconds);
}

function isUrl(value: unknown): value is string {
  return typeof value === "string" && /^(https?:\/\/|data:)/.test(value);
}

/** Null where it says 0: so it does of what has not run, and of what it did not measure. */
function secondsOf({ timings, executionTime }: Prediction): number | null {
  const ms = timings.inference > 0 ? timings.inference : executionTime;
  return ms > 0 ? ms / 1_000 : null;
}

function failed(code: FailureCode, detail: string, seconds: number | null): Look {
  return { status: "failed", failure: failure(code, detail), seconds, costMicroUsd: null };
}

const BLAMES_CONTENT = /nsfw|(?<!case[- ])\bsensitive\b|\bsafety\b|\bmoderat(ion|ed)\b|content policy/i;

/** By the provider's table of codes, which tell more than its words; 1403, 1405 and none tell nothing. */
export function failureOf(code: number, text: string): FailureCode {
  if (code === 1200) return "content_refused";
  if (code >= 1400 && code <= 1402) return "input_refused";
  if (code === 5004) return "timeout";
  if (code >= 5000 && code < 6000) return "interrupted";
  return BLAMES_CONTENT.test(text) ? "content_refused" : "provider_failed";
}

function errorText(error: unknown): string {
  if (typeof error === "string" && error !== "") return error;
  return error === null || error === undefined || error === "" ? "the provider gave no reason" : JSON.stringify(error);
}

/**
 * Whether a listed prediction is what an order became. The list never shows where webhooks go, so the input decides:
 * two orders with one and the same input may stand for each other. What it shows of an input is not documented, hence
 * "other" only where it differs in what tells runs apart. "doubtful": it may be ours; then nobody may conclude that
 * ours does not exist.
 */
export function likeness(listed: ListedPrediction, order: Order): "same" | "other" | "doubtful" {
  if (listed.model.toLowerCase() !== order.model.toLowerCase()) return "other";
  const shown = listed.inputs ?? listed.input;
  if (shown === null || Object.keys(shown).length === 0) return "doubtful";
  // As it was after its way over the wire. What is shown may have more: defaults that the provider filled in.
  const sent: Record<string, unknown> = JSON.parse(JSON.stringify(order.input));
  if (Object.entries(sent).every(([key, value]) => isDeepStrictEqual(shown[key], value))) return "same";
  const differs = (key: string) => key in sent && key in shown && !isDeepStrictEqual(shown[key], sent[key]);
  return differs("prompt") || differs("seed") ? "other" : "doubtful";
}
