import type { Price, Program } from "./catalogue.ts";
import { type Clock, timestamp } from "./clock.ts";
import type { FaceName } from "./face.ts";
import type { OwnFault } from "./faults.ts";
import type { Input, Values } from "./field.ts";
import type { Reel } from "./film.ts";
import type { Lora } from "./lora.ts";

export const WEBHOOK_EVENTS = ["start", "output", "logs", "completed"] as const;
export type WebhookEvent = (typeof WEBHOOK_EVENTS)[number];

export type Status = "starting" | "processing" | "succeeded" | "failed" | "canceled" | "aborted";

/** A prediction or a training: what was ordered, and what became of it. */
export interface Run {
  /** Through whose HTTP contract it was ordered. */
  readonly face: FaceName;
  readonly id: string;
  readonly kind: "prediction" | "training";
  /** Grows by one a run; the order of lists. */
  readonly number: number;
  /** "owner/name". */
  readonly model: string;
  /** 64 hex digits, or "hidden" for official models. */
  readonly version: string;
  readonly program: Program;
  readonly price: Price;
  /** Pictures or films. */
  readonly outputCount: number;
  /** What film it makes, if it makes films. */
  readonly reel: Reel | null;
  readonly totalSteps: number;
  readonly seed: number;
  /** All words of the input, directives included. */
  readonly text: string;
  /** As sent; emptied when the data is removed. */
  input: Input;
  readonly inputBytes: number;
  /** With the model's defaults. */
  values: Values;
  /** A training's "owner/name" to be. */
  readonly destination: string | null;
  /** The name of the deployment that runs it. */
  readonly deployment: string | null;
  readonly webhook: string | null;
  readonly events: readonly WebhookEvent[] | null;
  /** "http://127.0.0.1:1234", as the caller addressed us; URLs in answers begin with it. */
  readonly origin: string;
  readonly createdBy: string;
  readonly own: OwnFault[];
  /** Names the folder that the outputs are served from. */
  readonly folder: string;
  readonly createdAt: number;
  readonly deadline: number | null;
  /** When lists begin to show it. */
  readonly listedAt: number;
  readonly runMs: number;
  status: Status;
  /** Read when the run begins. */
  lora: Lora | null;
  startedAt: number | null;
  completedAt: number | null;
  output: string | readonly string[] | { readonly version: string; readonly weights: string | null } | null;
  error: string | null;
}

export function isOver(run: Run): boolean {
  return run.status !== "starting" && run.status !== "processing";
}

/** Data of a run is kept for a while after its end, then removed, as the real service does after an hour. */
export function isRemoved(run: Run, now: number, keptMs: number): boolean {
  return run.completedAt !== null && now - run.completedAt >= keptMs;
}

/** The JSON of a prediction or training, as GET and webhooks carry it. */
export function portrait(run: Run, clock: Clock, keptMs: number, door: "predictions" | "trainings") {
  const now = clock.now();
  const removed = isRemoved(run, now, keptMs);
  const digits = run.kind === "training" ? 9 : 6;
  const url = `${run.origin}/v1/${door}/${run.id}`;
  return {
    id: run.id,
    model: run.model,
    version: run.version,
    ...(run.deployment === null ? {} : { deployment: run.deployment }),
    input: removed ? {} : run.input,
    logs: removed ? "" : logs(run, now),
    output: removed ? null : run.output,
    data_removed: removed,
    error: run.error,
    source: "api",
    status: run.status,
    created_at: timestamp(run.createdAt, digits),
    ...(run.startedAt === null ? {} : { started_at: timestamp(run.startedAt, digits) }),
    ...(run.completedAt === null ? {} : { completed_at: timestamp(run.completedAt, digits) }),
    ...(run.startedAt === null || run.completedAt === null ? {} : { metrics: metrics(run) }),
    ...(run.deadline === null ? {} : { deadline: timestamp(run.deadline) }),
    ...(run.webhook === null ? {} : { webhook: run.webhook }),
    ...(run.events === null ? {} : { webhook_events_filter: run.events }),
    urls: { cancel: `${url}/cancel`, get: url, web: `${run.origin}/p/${run.id}` },
  };
}

function metrics(run: Run) {
  const { createdAt, startedAt, completedAt, price, status, outputCount } = run;
  if (startedAt === null || completedAt === null) return {};
  const counted = price.per === "image" && status === "succeeded" ? { image_count: outputCount } : {};
  return { ...counted, predict_time: seconds(completedAt - startedAt), total_time: seconds(completedAt - createdAt) };
}

const seconds = (ms: number) => Math.round(ms * 1_000) / 1_000_000;

const MAX_LINES = 20; // progress lines, however many steps

/** Written from the clock, not kept: as far as the run has come, in the bars of tqdm. */
function logs(run: Run, now: number): string {
  if (run.startedAt === null) return "";
  const ranMs = Math.max(0, (run.completedAt ?? now) - run.startedAt);
  const share = run.status === "succeeded" || run.output !== null ? 1 : Math.min(0.99, ranMs / Math.max(1, run.runMs));
  const lines = [run.kind === "training" ? "Training started" : `Using seed: ${run.seed}`];
  const shown = Math.min(MAX_LINES, run.totalSteps);
  for (let line = 0; line <= shown; line += 1) {
    const step = Math.round((line / shown) * run.totalSteps);
    if (step > share * run.totalSteps) break;
    lines.push(bar(step, run.totalSteps, (ranMs / 1_000) * (step / run.totalSteps / Math.max(share, 0.001))));
  }
  if (run.status === "failed" && run.error) lines.push(`Error: ${run.error}`);
  return `${lines.join("\n")}\n`;
}

function bar(step: number, total: number, spentSeconds: number): string {
  const percent = Math.floor((step / total) * 100);
  const drawn = "#".repeat(Math.floor(percent / 10)).padEnd(10);
  const rate = spentSeconds > 0 ? (step / spentSeconds).toFixed(2) : "?";
  const left = step > 0 ? (spentSeconds / step) * (total - step) : 0;
  return `${String(percent).padStart(3)}%|${drawn}| ${step}/${total} [${minutes(spentSeconds)}<${minutes(left)}, ${rate}it/s]`;
}

function minutes(seconds: number): string {
  const whole = Math.floor(seconds);
  return `${String(Math.floor(whole / 60)).padStart(2, "0")}:${String(whole % 60).padStart(2, "0")}`;
}
