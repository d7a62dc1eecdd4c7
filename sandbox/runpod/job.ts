import type { OwnFault } from "../faults.ts";
import { isRemoved, type Run } from "../run.ts";
import { findEndpoint } from "./endpoints.ts";

/** A picture inside of an answer, as worker-comfyui gives it. */
export interface Picture {
  readonly filename: string;
  readonly type: "base64";
  readonly data: string;
}

/** Results of /run are kept for half an hour after the end, those of /runsync for a minute. */
const KEPT_MS = { run: 30 * 60_000, runsync: 60_000 } as const;

const isSync = (run: Pick<Run, "id">) => run.id.startsWith("sync-");

/** Nobody can ask for it any more: its result was kept long enough, or the ttl of its order is over. */
export function isForgotten(run: Run, now: number, outputTtlMs: number): boolean {
  const keptMs = Math.min(outputTtlMs, KEPT_MS[isSync(run) ? "runsync" : "run"]);
  return (run.deadline !== null && now >= run.deadline) || isRemoved(run, now, keptMs);
}

const TIME_LIMIT = "job timed out: execution timeout exceeded";

/** A run that will be stopped at its executionTimeout. */
export const timingOut = (): OwnFault => failing(TIME_LIMIT);

/** A run whose handler will answer {"error": words}. */
export function failing(words: string): OwnFault {
  return { fault: { name: "fail", amount: 0, word: words, times: 1 }, left: 1 };
}

export type JobStatus = "IN_QUEUE" | "IN_PROGRESS" | "COMPLETED" | "FAILED" | "CANCELLED" | "TIMED_OUT";

export function statusOf(run: Run): JobStatus {
  switch (run.status) {
    case "starting":
      return "IN_QUEUE";
    case "processing":
      return "IN_PROGRESS";
    case "succeeded":
      return "COMPLETED";
    case "failed":
      return run.startedAt !== null && wordsFor(run) === TIME_LIMIT ? "TIMED_OUT" : "FAILED";
    case "canceled":
      return "CANCELLED";
    case "aborted":
      return "TIMED_OUT";
  }
}

/** The JSON of a job, as /status and the webhook carry it. Without `pictures`, base64 outputs are left out. */
export function jobOf(run: Run, now: number, pictures: readonly Picture[] | null) {
  const status = statusOf(run);
  const { createdAt, startedAt, completedAt } = run;
  const output = outputOf(run, status, now, pictures);
  return {
    ...(startedAt !== null && { delayTime: Math.round(startedAt - createdAt) }),
    ...(startedAt !== null && completedAt !== null && { executionTime: Math.round(completedAt - startedAt) }),
    ...(status === "FAILED" && { error: errorOf(run) }),
    id: run.id,
    ...(output !== undefined && { output }),
    status,
    ...(startedAt !== null && { workerId: workerOf(run) }),
  };
}

function outputOf(run: Run, status: JobStatus, now: number, pictures: readonly Picture[] | null): unknown {
  const answers = findEndpoint(run.model)?.answers;
  // What a handler reports on its way is shown where its output will be.
  if (status === "IN_PROGRESS" && answers === "images" && run.startedAt !== null)
    return `${Math.floor(Math.min(0.99, (now - run.startedAt) / Math.max(1, run.runMs)) * 100)}%`;
  if (status !== "COMPLETED" || answers === undefined) return undefined;
  if (answers === "images") return pictures === null ? undefined : { images: pictures };
  return typeof run.output === "string" ? { cost: costOf(run), [answers]: run.output } : undefined;
}

/** As the bill has it. */
function costOf({ price, reel }: Run): number {
  const units = price.per === "output second" ? (reel?.seconds ?? 0) : 1;
  return Math.round(units * price.usd * 1_000_000) / 1_000_000;
}

function wordsFor({ own }: Run): string | null {
  const chosen = own.find(({ fault }) => fault.name === "fail" && fault.word !== "");
  return chosen?.fault.word ?? null;
}

const NSFW = "NSFW content detected. Try running it again, or try a different prompt.";

/** What a handler throws comes as JSON inside a string; what it returns as its error comes as it is. */
function errorOf(run: Run): string {
  const words = wordsFor(run);
  const error = run.error ?? "";
  if (run.startedAt === null) return "job timed out after 1 retries"; // its worker fell silent, and so did the next
  if (words !== null) return words;
  if (/out of memory/i.test(error))
    return thrown(run, "torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 MiB");
  if (/nsfw/i.test(error)) return thrown(run, "ValueError", NSFW);
  return thrown(run, "RuntimeError", error.replace(/^Error running prediction: /, "").replace(/ \(E\d+\)$/, ""));
}

function thrown(run: Run, type: string, message: string): string {
  return JSON.stringify({
    error_type: `<class '${type}'>`,
    error_message: message,
    error_traceback: `Traceback (most recent call last):\n  File "/app/safety/rp_job.py", line 182, in run_job\n${type}: ${message}\n`,
    hostname: `${workerOf(run)}-64410e3f`,
    worker_id: workerOf(run),
    runpod_version: "1.7.9",
  });
}

const workerOf = ({ folder }: Run) => folder.slice(0, 14);
