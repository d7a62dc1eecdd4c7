import { FAILURES, type Failure, failure } from "./failure.ts";
import {
  endRun,
  type IntendedRun,
  isLive,
  isMissing,
  isPostponed,
  moveOrphan,
  moveRun,
  NOTHING_KNOWN,
  type Run,
  type RunEvent,
} from "./run.ts";

/**
 * The lifecycle. `next(job, event)` is the only code that knows which state follows which. It is pure: time comes in
 * with the event. What is to be done in a state is agenda.ts. The diagram is docs/lifecycle.svg;
 * test/domain-job.test.ts walks every state and every event.
 */

export const JOB_STATUSES = ["pending", "processing", "completed", "failed", "canceled"] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];

export interface Job {
  readonly id: string;
  readonly status: JobStatus;
  /** How many outputs were asked for and paid, 1..16. */
  readonly variants: number;
  /** Fewer delivered variants than this is a failed job. */
  readonly minSuccess: number;
  /** How often one variant may be bought when the provider itself ended the run and says to try again. */
  readonly maxAttempts: number;
  /** How often, in the whole job, something may be bought again because it was presumed lost: 1, trainings 0. */
  readonly maxRebuys: number;
  /** Nothing is bought after this instant. */
  readonly deadlineAt: Date;
  readonly cancelRequestedAt: Date | null;
  readonly expiredAt: Date | null;
  /** When it was set aside because it kills its workers: nothing of it is bought or stored any more. */
  readonly setAsideAt: Date | null;
  readonly runs: readonly Run[];
  /** Why the job failed; null otherwise. */
  readonly failure: Failure | null;
  readonly startedAt: Date | null;
  readonly endedAt: Date | null;
}

/** Facts, in the past tense. Applying one twice, late or out of order changes nothing that was already known. */
export type Event =
  | { readonly type: "claimed"; readonly at: Date }
  | { readonly type: "intended"; readonly at: Date; readonly run: IntendedRun }
  | { readonly type: "cancel_requested"; readonly at: Date }
  | { readonly type: "expired"; readonly at: Date }
  | { readonly type: "set_aside"; readonly at: Date; readonly deaths: number }
  | RunEvent;

/** Returns the very same object when the event teaches nothing new. */
export function next(job: Job, event: Event): Job {
  const moved = move(job, event);
  return moved === job || isEnded(job) ? moved : conclude(moved, event.at);
}

function move(job: Job, event: Event): Job {
  // What ended stays as it is; only what a missing run came to and cost is still noted on the run.
  if (isEnded(job)) return "runId" in event ? withRun(job, event.runId, (run) => moveOrphan(run, event)) : job;
  switch (event.type) {
    case "claimed":
      return job.status === "pending" ? { ...job, status: "processing", startedAt: event.at } : job;
    case "cancel_requested":
      return job.cancelRequestedAt ? job : { ...job, cancelRequestedAt: event.at };
    case "expired":
      return job.expiredAt ? job : { ...job, expiredAt: event.at };
    case "set_aside":
      return job.setAsideAt ? job : setAside({ ...job, setAsideAt: event.at }, event.at);
    case "intended":
      return intend(job, event.run, event.at);
    default: {
      const moved = withRun(job, event.runId, (run) => {
        if (!isMissing(run)) return moveRun(run, event);
        // Nothing was bought in its place: it goes on as if it had never been missing.
        if (lastRun(job, run.variant) === run && TURNED_UP.has(event.type))
          return moveRun({ ...run, status: "unknown", endedAt: null }, event);
        return moveOrphan(run, event);
      });
      return job.setAsideAt && moved !== job ? setAside(moved, event.at) : moved;
    }
  }
}

/** What a provider can only say of a run that exists. */
const TURNED_UP = new Set<Event["type"]>(["submitted", "succeeded", "failed", "canceled"]);

/** The output of a job that kills its workers is not touched again. */
function setAside(job: Job, at: Date): Job {
  return {
    ...job,
    runs: job.runs.map((run) => (run.status === "storing" ? endRun(run, "failed", at, SET_ASIDE) : run)),
  };
}

const SET_ASIDE = failure(
  "set_aside",
  "the workers that acted on it ended one after the other; the timeline names them",
);

/** A new purchase, or a postponed one that is armed again. Anything else would be a second purchase. */
function intend(job: Job, intended: IntendedRun, sentAt: Date): Job {
  const last = lastRun(job, intended.variant);
  if (variantState(job, intended.variant) !== "open") return job;
  // It was prepared for long enough to be too late.
  if (sentAt >= job.deadlineAt) return job;
  if (last && isPostponed(last)) {
    if (last.id !== intended.id) return job;
    // A training that was prepared for an account goes to no other.
    if (last.destination !== null && last.provider !== intended.provider) return job;
    return withRun(job, last.id, (run) => ({
      ...run,
      // What was never accepted may be ordered from somebody else, and in the version that is known by now.
      provider: intended.provider,
      model: intended.model,
      version: intended.version,
      input: intended.input,
      destination: intended.destination,
      routeWhy: intended.routeWhy ?? null,
      sendBefore: intended.sendBefore,
      sentAt,
      quietFrom: intended.quietFrom,
      notBefore: null,
      expiresAt: intended.expiresAt,
    }));
  }
  // An intent that is told again after its run has ended is no second purchase.
  if (job.runs.some((run) => run.id === intended.id)) return job;
  const run: Run = {
    ...intended,
    sentAt,
    attempt: (last?.attempt ?? 0) + 1,
    status: "submitting",
    providerRunId: null,
    notBefore: null,
    outputs: [],
    trainedVersion: null,
    ...NOTHING_KNOWN,
    storeAttempts: 0,
    failure: null,
    cancelSentAt: null,
    endedAt: null,
  };
  return { ...job, runs: [...job.runs, run] };
}

function withRun(job: Job, runId: string, change: (run: Run) => Run): Job {
  const index = job.runs.findIndex((run) => run.id === runId);
  const run = job.runs[index];
  if (!run) return job;
  const changed = change(run);
  return changed === run ? job : { ...job, runs: job.runs.with(index, changed) };
}

/** Ends the job once nothing is under way and nothing more will be bought. */
function conclude(job: Job, at: Date): Job {
  const started: Job =
    job.status === "pending" && job.runs.length > 0 ? { ...job, status: "processing", startedAt: at } : job;
  const states = variantStates(started);
  if (states.some((state) => state === "live" || state === "open")) return started;
  return end(started, states, at);
}

function end(job: Job, states: readonly VariantState[], at: Date): Job {
  // Orders that were definitely not accepted and now never will be sent are closed with the job.
  const runs = job.runs.map((run) => (isLive(run) ? endRun(run, "canceled", at, run.failure) : run));
  const ended: Job = { ...job, runs, endedAt: at, failure: null };
  const delivered = states.filter((state) => state === "delivered").length;
  if (delivered >= job.minSuccess) return { ...ended, status: "completed" };
  if (job.cancelRequestedAt) return { ...ended, status: "canceled" };
  return { ...ended, status: "failed", failure: verdict(job) };
}

/** Why the job failed: the last word on the first variant that was given up. */
function verdict(job: Job): Failure {
  if (job.setAsideAt) return SET_ASIDE;
  for (let variant = 0; variant < job.variants; variant++) {
    const run = lastRun(job, variant);
    if (run?.status === "failed" && run.failure) return run.failure;
  }
  if (job.expiredAt)
    return failure("deadline_exceeded", `nothing could be bought before ${job.deadlineAt.toISOString()}`);
  return failure("provider_canceled", "the provider canceled the run");
}

/**
 * delivered  in our store
 * live       a run is under way, or nobody knows
 * open       to be bought (again)
 * dead       will not be delivered
 */
export type VariantState = "delivered" | "live" | "open" | "dead";

export function variantState(job: Job, variant: number): VariantState {
  return variantStates(job)[variant] ?? "dead";
}

function variantStates(job: Job): VariantState[] {
  const states = Array.from({ length: job.variants }, (_, variant) => ownState(job, variant));
  const reachable = states.filter((state) => state !== "dead").length;
  // Too few can still be delivered: what is not bought yet never will be.
  if (reachable < job.minSuccess) return states.map((state) => (state === "open" ? "dead" : state));
  return states;
}

function ownState(job: Job, variant: number): VariantState {
  const run = lastRun(job, variant);
  if (!run) return mayBuy(job) ? "open" : "dead";
  if (run.status === "stored") return "delivered";
  // A postponed order was definitely not accepted: it is still to be bought, or not any more.
  if (isPostponed(run)) return mayBuy(job) ? "open" : "dead";
  if (isLive(run)) return "live";
  return mayBuy(job) && run.failure && mayBuyAgain(job, run, run.failure) ? "open" : "dead";
}

function mayBuy(job: Job): boolean {
  return !isEnded(job) && !job.cancelRequestedAt && !job.expiredAt && !job.setAsideAt;
}

function mayBuyAgain(job: Job, run: Run, why: Failure): boolean {
  if (!FAILURES[why.code].retryable || run.attempt >= job.maxAttempts) return false;
  return why.code !== "lost" || rebuysOf(job).includes(run);
}

/** The lost runs in whose place another one was bought, or may be: those that were, and then the first of the others. */
function rebuysOf(job: Job): Run[] {
  const lost = job.runs.filter((each) => each.status === "failed" && each.failure?.code === "lost");
  const isReplaced = (run: Run) => lastRun(job, run.variant) !== run;
  return [...lost.filter(isReplaced), ...lost.filter((run) => !isReplaced(run))].slice(0, job.maxRebuys);
}

/** The job can no longer succeed, or nobody wants it any more: what still runs is to be stopped. */
export function isDoomed(job: Job): boolean {
  if (job.cancelRequestedAt || job.expiredAt || job.setAsideAt) return true;
  return variantStates(job).filter((state) => state !== "dead").length < job.minSuccess;
}

export function isEnded(job: Pick<Job, "status">): boolean {
  return job.status === "completed" || job.status === "failed" || job.status === "canceled";
}

export function lastRun(job: Job, variant: number): Run | undefined {
  return job.runs.findLast((run) => run.variant === variant);
}

export function deliveredVariants(job: Job): number {
  return variantStates(job).filter((state) => state === "delivered").length;
}
