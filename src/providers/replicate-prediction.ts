import { isDeepStrictEqual } from "node:util";
import type { Status } from "replicate";
import { z } from "zod";
import { isOwn } from "../domain/catalogue.ts";
import { type FailureCode, failure } from "../domain/failure.ts";
import type { Look, Order } from "../domain/provider.ts";
import { isCalled, type Place } from "./replicate-place.ts";
import { progressOf } from "./tqdm.ts";

/** Only what is read, and only `id` and `status` are insisted on: an ornament of an odd type must not hide a run. */
export const Prediction = z.object({
  id: z.string(),
  status: z.string(),
  output: z.unknown().optional(),
  error: z.unknown().optional(),
  logs: z.string().catch(""),
  data_removed: z.boolean().catch(false),
  metrics: z.object({ predict_time: z.number().nullable().catch(null) }).catch({ predict_time: null }),
  deadline: z.string().nullable().catch(null),
  completed_at: z.string().nullable().catch(null),
});
export type Prediction = z.infer<typeof Prediction>;

export const ListedPrediction = z.object({
  id: z.string().min(1).max(200),
  model: z.string().nullable().catch(null),
  version: z.string().nullable().catch(null),
  deployment: z.string().min(1).nullable().catch(null),
  created_at: z.string(),
  input: z.record(z.string(), z.unknown()).nullable().catch(null),
  webhook: z.string().min(1).nullable().catch(null),
  data_removed: z.boolean().catch(false),
});
export type ListedPrediction = z.infer<typeof ListedPrediction>;

/** A run that ends at its deadline may be stamped a moment before it. */
const DEADLINE_SLACK_MS = 1_000;

export function lookOf(prediction: Prediction, now: Date, onStrange: (what: string) => void): Look {
  const status = prediction.status as Status;
  // What failed or was canceled ran until then, and is billed for it.
  const seconds = prediction.metrics.predict_time;
  switch (status) {
    case "starting":
    case "processing":
      return { status: "running", progress: progressOf(prediction.logs) };
    case "succeeded":
      return succeeded(prediction);
    case "failed": {
      const text = errorText(prediction.error);
      return failed(failureOf(text), text, seconds);
    }
    case "canceled":
      if (!isPastDeadline(prediction, now)) return { status: "canceled", seconds, costMicroUsd: null };
      return failed("timeout", `stopped at its deadline, ${prediction.deadline}`, seconds);
    case "aborted":
      return failed("aborted", errorText(prediction.error), seconds);
    default:
      // A new word is more likely a new way to be busy than a new way to end; the run's own deadline bounds the wait.
      onStrange(`prediction ${prediction.id} has the unknown status "${status satisfies never}"`);
      return { status: "running", progress: progressOf(prediction.logs) };
  }
}

function succeeded({ output, data_removed, metrics }: Prediction): Look {
  if (data_removed || output === null || output === undefined)
    return failed(
      "output_unavailable",
      "the provider has removed the output; it keeps it for about an hour",
      metrics.predict_time,
    );
  const outputs = typeof output === "string" ? [output] : output;
  if (Array.isArray(outputs) && outputs.length > 0 && outputs.every(isUrl))
    return { status: "succeeded", outputs, seconds: metrics.predict_time, costMicroUsd: null, trainedVersion: null };
  return failed("provider_failed", `no output URLs, but ${JSON.stringify(output).slice(0, 500)}`, metrics.predict_time);
}

const Trained = z.object({
  version: z
    .string()
    .regex(/^[\w.-]+\/[\w.-]+:[\w.-]+$/)
    .nullable()
    .catch(null),
  weights: z
    .string()
    .regex(/^https?:\/\//)
    .nullable()
    .catch(null),
});

/** A training ends like a prediction, with a version and its weights; some trainers keep the weights to themselves. */
export function lookOfTraining(training: Prediction, now: Date, onStrange: (what: string) => void): Look {
  if (training.status !== "succeeded") return lookOf(training, now, onStrange);
  const { output, data_removed, metrics } = training;
  if (data_removed || output === null || output === undefined)
    return failed(
      "output_unavailable",
      "the provider has removed the output; it keeps it for about an hour",
      metrics.predict_time,
    );
  const { version = null, weights = null } = Trained.safeParse(output).data ?? {};
  if (version === null && weights === null)
    return failed(
      "provider_failed",
      `neither version nor weights, but ${JSON.stringify(output).slice(0, 500)}`,
      metrics.predict_time,
    );
  const outputs = weights === null ? [] : [weights];
  return { status: "succeeded", outputs, seconds: metrics.predict_time, costMicroUsd: null, trainedVersion: version };
}

function isUrl(value: unknown): value is string {
  return typeof value === "string" && /^(https?:\/\/|data:)/.test(value);
}

function failed(code: FailureCode, detail: string, seconds: number | null): Look {
  return { status: "failed", failure: failure(code, detail), seconds, costMicroUsd: null };
}

/** Free text; the order matters: a refused `safety_tolerance` is no matter of safety. */
function failureOf(text: string): FailureCode {
  if (/Prediction input failed validation/i.test(text)) return "input_refused";
  if (/Prediction interrupted; please retry/i.test(text)) return "interrupted";
  if (/Director: unexpected error handling prediction \(E\d+\)/i.test(text)) return "interrupted";
  if (/\b(E1000|E6716)\b/.test(text)) return "interrupted";
  if (/nsfw|(?<!case[- ])\bsensitive\b|\bsafety\b/i.test(text)) return "content_refused";
  return "provider_failed";
}

function errorText(error: unknown): string {
  if (typeof error === "string") return error;
  return error === null || error === undefined ? "the provider gave no reason" : JSON.stringify(error);
}

function isPastDeadline({ deadline, completed_at }: Prediction, now: Date): boolean {
  if (deadline === null) return false;
  const endedAt = completed_at === null ? now.getTime() : Date.parse(completed_at);
  return endedAt >= Date.parse(deadline) - DEADLINE_SLACK_MS;
}

/**
 * Whether a listed prediction is what an order became. The webhook URL is ours alone, so it decides where it was sent.
 * "doubtful": it may be ours, but what would tell is missing; then nobody may conclude that ours does not exist.
 * `place`: where the order goes as things are now; null: its deployment is not configured any more.
 */
export function likeness(listed: ListedPrediction, order: Order, place: Place | null): "same" | "other" | "doubtful" {
  // The run's id in it is enough: our address or its secret may have changed since the order was sent.
  if (listed.webhook !== null)
    return listed.webhook === order.webhookUrl || listed.webhook.includes(`/${order.runId}/`) ? "same" : "other";
  const model = order.model.split(":")[0]?.toLowerCase();
  // Of a run of a deployment the model below it is listed, which the order does not name.
  if (!isOwn(order.model) && listed.model !== null && listed.model.toLowerCase() !== model) return "other";
  if (order.version !== null && listed.version !== null && listed.version !== order.version) return "other";
  const isPurged = listed.data_removed || listed.input === null;
  if (!isPurged && !hasInput(listed.input ?? {}, order)) return "other";
  // Only ours has it in its input: a training's photos are named with it.
  if (!isPurged && JSON.stringify(order.input).includes(order.runId)) return "same";
  // A name that differs proves nothing: the order may have gone to the deployment that was configured then.
  const isThere = isOwn(order.model)
    ? place !== null && isCalled(listed.deployment, place)
    : listed.model !== null && listed.deployment === null;
  // Sent with a webhook and listed without one: either not ours, or this list does not tell webhooks.
  const isClear = !isPurged && isThere && order.webhookUrl === null;
  return isClear ? "same" : "doubtful";
}

function hasInput(echo: Readonly<Record<string, unknown>>, order: Order): boolean {
  // As it was after its way over the wire. The echo may have more: defaults that the provider filled in.
  const sent: Record<string, unknown> = JSON.parse(JSON.stringify(order.input));
  return Object.entries(sent).every(([key, value]) => isDeepStrictEqual(echo[key], value));
}
