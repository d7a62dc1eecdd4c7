import { z } from "zod";
import { type FailureCode, failure } from "../domain/failure.ts";
import type { Failed, Look, Used } from "../domain/provider.ts";
import { parseJson } from "./http.ts";
import { mediaIn } from "./runpod-media.ts";

/** Only what is read, and only `status` is insisted on: an ornament of an odd type must not hide a run. */
export const Job = z.object({
  status: z.string(),
  output: z.unknown().optional(),
  error: z.unknown().optional(),
  /** Milliseconds that the handler ran: what we are billed for. */
  executionTime: z.number().nonnegative().nullable().catch(null),
});
export type Job = z.infer<typeof Job>;

export const ENDED: ReadonlySet<string> = new Set(["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]);

/** Of a public endpoint, what it took for the run, in dollars. */
const Priced = z.object({ cost: z.number().nonnegative() });
const Troubled = z.object({ error: z.unknown().optional(), errors: z.unknown().optional() });
const Thrown = z.object({
  error_type: z.string().catch(""),
  error_message: z.string(),
  error_traceback: z.string().catch(""),
  traceback: z.string().catch(""),
});

export function lookOf(job: Job, onStrange: (what: string) => void): Look {
  const used = usedBy(job);
  switch (job.status) {
    case "IN_QUEUE":
      return { status: "running", progress: null };
    case "IN_PROGRESS":
    case "RUNNING":
      return { status: "running", progress: progressOf(job.output) };
    case "COMPLETED":
      return completed(job, used);
    case "FAILED":
      return failed(job.error ?? Troubled.safeParse(job.output).data?.error, used);
    case "CANCELLED":
      return { status: "canceled", ...used };
    case "TIMED_OUT": {
      const { detail } = troubleIn(job.error ?? "the provider stopped it at its time limit");
      return { status: "failed", failure: failure("timeout", detail), ...used };
    }
    default:
      // A new word is more likely a new way to be busy than a new way to end; the run's own deadline bounds the wait.
      onStrange(`a job has the unknown status "${job.status}"`);
      return { status: "running", progress: null };
  }
}

function usedBy({ executionTime, output }: Job): Used {
  const cost = Priced.safeParse(output).data?.cost;
  return {
    seconds: executionTime === null ? null : executionTime / 1_000,
    costMicroUsd: cost === undefined ? null : Math.round(cost * 1_000_000),
  };
}

/** "COMPLETED" says that the handler returned; what it returned may be an error. Errors beside outputs are warnings. */
function completed({ output }: Job, used: Used): Look {
  const outputs = mediaIn(output);
  if (outputs.length > 0) return { status: "succeeded", outputs, trainedVersion: null, ...used };
  const { error, errors } = Troubled.safeParse(output).data ?? {};
  const trouble = error ?? (Array.isArray(errors) && errors.length > 0 ? errors : undefined);
  if (trouble !== undefined && trouble !== null) return failed(trouble, used);
  const shown = JSON.stringify(output ?? null).slice(0, 500);
  return { status: "failed", failure: failure("provider_failed", `no outputs, but ${shown}`), ...used };
}

function failed(error: unknown, used: Used): Failed {
  const { words, detail } = troubleIn(error);
  return { status: "failed", failure: failure(failureOf(words), detail), ...used };
}

const TRACEBACK_CHARACTERS = 1_000;

/** An exception comes as JSON inside a string; what a handler returned as its error comes as it is. */
function troubleIn(error: unknown): { readonly words: string; readonly detail: string } {
  if (error === null || error === undefined || error === "") return same("the provider gave no reason");
  const value = typeof error === "string" && error.trimStart().startsWith("{") ? (parseJson(error) ?? error) : error;
  const thrown = Thrown.safeParse(value).data;
  if (thrown) {
    const type = /^<class '(.*)'>$/.exec(thrown.error_type)?.[1] ?? thrown.error_type;
    const words = type === "" ? thrown.error_message : `${type}: ${thrown.error_message}`;
    const traceback = thrown.error_traceback || thrown.traceback;
    // Its end tells where it happened.
    return { words, detail: traceback === "" ? words : `${words}\n${traceback.slice(-TRACEBACK_CHARACTERS)}` };
  }
  if (Array.isArray(value)) return same(value.map((each) => troubleIn(each).words).join("; "));
  return same(typeof value === "string" ? value : JSON.stringify(value));
}

const same = (words: string) => ({ words, detail: words });

/** The words of the error, without its traceback, which names files of any name. The order matters. */
export function failureOf(words: string): FailureCode {
  // Our own handler: the order came too late to be begun. Nothing was painted.
  if (/^intent refused \(late\)/.test(words)) return "aborted";
  if (/out of memory|OutOfMemory/i.test(words)) return "provider_failed";
  if (/is not a valid input|is a required input|does not meet the constraints/i.test(words)) return "input_refused";
  if (/invalid (parameter|input|image url)|input validation|missing '\w+' parameter/i.test(words))
    return "input_refused";
  if (/nsfw|(?<!case[- ])\bsensitive\b|\bsafety\b/i.test(words)) return "content_refused";
  // The worker fell silent, was tried so many times more, and RunPod gave up: nothing is wrong with the order.
  if (/^job timed out after \d+ retr/i.test(words)) return "interrupted";
  if (/\bworker (died|exited|crashed|stopped|was (killed|terminated|preempted))/i.test(words)) return "interrupted";
  // What a handler itself waited for in vain is its own failure, not the job's time limit.
  if (/^job timed out|execution ?time ?out (exceeded|reached)/i.test(words)) return "timeout";
  return "provider_failed";
}

const Told = z.object({ progress: z.union([z.number(), z.string()]) });

/** 0.5, "50%", 50, "step 2/4", or {progress} with one of them; up to 1 it is a share, above it a percentage. */
function progressOf(output: unknown): number | null {
  const value = Told.safeParse(output).data?.progress ?? output;
  if (typeof value === "number") return share(value > 1 ? value / 100 : value);
  if (typeof value !== "string") return null;
  const percent = /(\d+(?:\.\d+)?)\s*%/.exec(value)?.[1];
  if (percent !== undefined) return share(Number(percent) / 100);
  const [, done, of] = /(\d+)\s*\/\s*(\d+)/.exec(value) ?? [];
  return Number(of) > 0 ? share(Number(done) / Number(of)) : null;
}

function share(value: number): number | null {
  return value >= 0 ? Math.min(1, value) : null;
}
