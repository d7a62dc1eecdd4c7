import { timestamp } from "../clock.ts";
import type { Input } from "../field.ts";
import { isOver, type Run, type WebhookEvent } from "../run.ts";

/** What of a task is WaveSpeed's alone. */
interface Particulars {
  /** As sent; the run itself has it in the painters' words. */
  readonly input: Input;
  /** The events that are told of; emptied by who deletes it: only what completed or failed is told. */
  readonly told: WebhookEvent[];
  deleted: "no" | "while running" | "forgotten";
}

const particulars = new WeakMap<Run, Particulars>();

export function note(run: Run, input: Input, told: WebhookEvent[]): void {
  particulars.set(run, { input, told, deleted: "no" });
}

/** What has ended is forgotten with its outputs; what runs is stopped, and known as deleted. True: it is to be stopped. */
export function noteDeleted(run: Run): boolean {
  const known = particulars.get(run);
  const runs = !isOver(run);
  if (!known) return runs;
  known.deleted = runs ? "while running" : "forgotten";
  known.told.length = 0;
  return runs;
}

export const isForgotten = (run: Run): boolean => particulars.get(run)?.deleted === "forgotten";

export const inputOf = (run: Run): Input => particulars.get(run)?.input ?? {};

/** The data of every answer about a task, and of its webhook. */
export function portrait(run: Run) {
  const { output } = run;
  const isList = typeof output === "object" && output !== null && !("version" in output);
  const outputs = run.status === "succeeded" && isList ? output : [];
  const ranMs = run.startedAt !== null && run.completedAt !== null ? run.completedAt - run.startedAt : 0;
  const failed = trouble(run);
  return {
    id: run.id,
    model: run.model,
    outputs,
    urls: { get: `${run.origin}/wavespeed/api/v3/predictions/${run.id}/result` },
    has_nsfw_contents: failed?.code === CONTENT_MODERATION ? [true] : outputs.map(() => false),
    status: statusOf(run),
    created_at: timestamp(run.createdAt, 9),
    error: failed?.error ?? "",
    ...(failed && { code: failed.code }),
    executionTime: run.completedAt === null ? 0 : run.completedAt - run.createdAt,
    timings: { inference: ranMs },
  };
}

function statusOf(run: Run): string {
  switch (run.status) {
    case "starting":
      return "created";
    case "processing":
      return "processing";
    case "succeeded":
      return "completed";
    case "failed":
    case "aborted":
      return "failed";
    case "canceled":
      return particulars.get(run)?.deleted === "while running" ? "deleted" : "cancelled";
  }
}

const CONTENT_MODERATION = 1200;
const MEDIA_ACCESS = 1402;
const TASK_EXECUTION = 1403;
const INTERNAL = 5000;
const UNAVAILABLE = 5003;

/** Its table of codes, applied to how runs fail here. */
function trouble({ status, error }: Run): { code: number; error: string } | null {
  if (status === "aborted") return { code: UNAVAILABLE, error: "The service is temporarily unavailable." };
  if (status !== "failed") return null;
  const text = error ?? "";
  if (/nsfw/i.test(text)) return { code: CONTENT_MODERATION, error: "The content contains sensitive information." };
  if (/interrupted/i.test(text))
    return { code: INTERNAL, error: "An internal error occurred. Please try again later." };
  if (/^(Failed to download input|Invalid URL)/.test(text)) return { code: MEDIA_ACCESS, error: text };
  return { code: TASK_EXECUTION, error: text };
}
