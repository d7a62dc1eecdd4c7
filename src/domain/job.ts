import { quietAfter } from "./absence.ts";
import { FAILURES, type Failure, failure } from "./failure.ts";

/**
 * The lifecycle. `next(job, event)` is the only code that knows which state follows which. It is pure: time comes in
 * with the event. What is to be done in a state is agenda.ts. The diagram is docs/lifecycle.svg;
 * test/domain-job.test.ts walks every state and every event.
 */

export const JOB_STATUSES = ["pending", "processing", "completed", "failed", "canceled"] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];

/**
 * submitting  we intend to buy; the order is committed. `sendBefore` set: a sender may be writing it right now.
 * unknown     the answer was lost; the run may exist. Nothing is bought until evidence says that it does not.
 *             `sendBefore` set: its sender vanished, and may still write until then if it only stood still.
 * running     the provider has it and told us its id.
 * storing     the provider is done; its outputs are on their way to our store.
 * stored      every output of the run is in our store. Failed, canceled and stored are final, but for one case: a run
 *             that is `failed` because it was presumed lost may still turn up. If nothing was bought in its place it
 *             goes on as if it had never been missing; otherwise it is an orphan, to be stopped, and its cost is ours.
 */
export const RUN_STATUSES = ["submitting", "unknown", "running", "storing", "stored", "failed", "canceled"] as const;
export type RunStatus = (typeof RUN_STATUSES)[number];

/** One paid execution at a provider. What was ordered never changes after the run was intended. */
export interface Run {
  readonly id: string;
  /** Which of the job's outputs this run is to deliver, 0-based. */
  readonly variant: number;
  /** 1 for the first purchase of this variant. */
  readonly attempt: number;
  readonly status: RunStatus;
  readonly provider: string;
  readonly model: string;
  readonly version: string | null;
  readonly input: Readonly<Record<string, unknown>>;
  readonly providerRunId: string | null;
  /** While submitting or unknown: no byte may be written after this instant. Null: nobody is sending. */
  readonly sendBefore: Date | null;
  /** When its sender set out; no earlier than the commit of the intent. Listings are read from here on. */
  readonly sentAt: Date | null;
  /** From here on nobody writes it any more, and nothing of it is on its way: see absence.ts. */
  readonly quietFrom: Date | null;
  /** After this instant the provider cannot still be running it: it was told to stop before. */
  readonly expiresAt: Date;
  /** While submitting: not to be sent before. While storing: not to be tried again before. */
  readonly notBefore: Date | null;
  readonly outputs: readonly string[];
  /** Billed seconds as the provider tells them; null when it does not. */
  readonly seconds: number | null;
  /** What the run cost us, in millionths of a dollar; null until it succeeded, or until an orphan's end. */
  readonly costMicroUsd: number | null;
  readonly storeAttempts: number;
  readonly failure: Failure | null;
  /** When we asked the provider to stop; asked once. */
  readonly cancelSentAt: Date | null;
  readonly endedAt: Date | null;
}

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

/** What is committed before the first byte is written. */
export type IntendedRun = Pick<Run, "id" | "variant" | "provider" | "model" | "version" | "input" | "expiresAt"> & {
  readonly sendBefore: Date;
};

/** Facts, in the past tense. Applying one twice, late or out of order changes nothing that was already known. */
export type Event =
  | { readonly type: "claimed"; readonly at: Date }
  | { readonly type: "intended"; readonly at: Date; readonly run: IntendedRun }
  | { readonly type: "submitted"; readonly at: Date; readonly runId: string; readonly providerRunId: string }
  | {
      readonly type: "postponed";
      readonly at: Date;
      readonly runId: string;
      readonly until: Date;
      readonly failure: Failure;
    }
  | { readonly type: "declined"; readonly at: Date; readonly runId: string; readonly failure: Failure }
  /** Its sender says so, and writes no more. */
  | { readonly type: "lost"; readonly at: Date; readonly runId: string; readonly detail: string }
  /** Its sender has lost the right to act without saying what became of it; it may be dead, or only stand still. */
  | { readonly type: "abandoned"; readonly at: Date; readonly runId: string }
  /** `sentAt` names the sending that was searched for: the order may have been armed again since. */
  | {
      readonly type: "absent";
      readonly at: Date;
      readonly runId: string;
      readonly sentAt: Date;
      readonly detail: string;
    }
  | {
      readonly type: "succeeded";
      readonly at: Date;
      readonly runId: string;
      readonly providerRunId: string;
      readonly outputs: readonly string[];
      readonly seconds: number | null;
      readonly costMicroUsd: number;
    }
  | { readonly type: "stored"; readonly at: Date; readonly runId: string }
  /** `until` null: given up, its output is lost to us. */
  | {
      readonly type: "store_failed";
      readonly at: Date;
      readonly runId: string;
      readonly until: Date | null;
      readonly failure: Failure;
    }
  | { readonly type: "failed"; readonly at: Date; readonly runId: string; readonly failure: Failure }
  | { readonly type: "canceled"; readonly at: Date; readonly runId: string }
  | { readonly type: "cancel_requested"; readonly at: Date }
  | { readonly type: "cancel_sent"; readonly at: Date; readonly runId: string }
  | { readonly type: "expired"; readonly at: Date }
  | { readonly type: "set_aside"; readonly at: Date; readonly deaths: number };

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

/** It was presumed lost, and nothing is known yet of what it came to. */
export function isMissing(run: Pick<Run, "status" | "failure" | "costMicroUsd">): boolean {
  return run.status === "failed" && run.failure?.code === "lost" && run.costMicroUsd === null;
}

/** A missing run that nobody wants any more: whose it is, that it was told to stop, and what it cost us. */
function moveOrphan(run: Run, event: RunEvent | Extract<Event, { type: "intended" }>): Run {
  if (!isMissing(run)) return run;
  switch (event.type) {
    case "submitted":
      return run.providerRunId ? run : { ...run, providerRunId: event.providerRunId };
    case "cancel_sent":
      return run.cancelSentAt ? run : { ...run, cancelSentAt: event.at };
    case "succeeded":
      return {
        ...run,
        providerRunId: event.providerRunId,
        seconds: event.seconds,
        costMicroUsd: event.costMicroUsd,
      };
    case "failed":
    case "canceled":
      return { ...run, costMicroUsd: 0 };
    default:
      return run;
  }
}

type RunEvent = Extract<Event, { runId: string }>;

function moveRun(run: Run, event: RunEvent): Run {
  switch (event.type) {
    case "submitted":
      if (run.status === "submitting" || run.status === "unknown")
        return {
          ...run,
          status: "running",
          providerRunId: event.providerRunId,
          sendBefore: null,
          notBefore: null,
          failure: null,
        };
      return run;
    case "postponed":
      return isSending(run) && !run.providerRunId
        ? {
            ...run,
            status: "submitting",
            sendBefore: null,
            sentAt: null,
            quietFrom: null,
            notBefore: event.until,
            failure: event.failure,
          }
        : run;
    case "declined":
      return isSending(run) && !run.providerRunId ? endRun(run, "failed", event.at, event.failure) : run;
    case "lost":
      if (!isSending(run)) return run;
      // A webhook may have told us the id before the answer was lost; then nothing is unknown.
      if (run.providerRunId) return { ...run, status: "running", sendBefore: null };
      return {
        ...run,
        status: "unknown",
        sendBefore: null,
        quietFrom: event.at,
        failure: failure("lost", event.detail),
      };
    case "abandoned":
      if (run.status !== "submitting" || !run.sendBefore) return run;
      if (run.providerRunId) return { ...run, status: "running", sendBefore: null };
      return { ...run, status: "unknown", failure: failure("lost", "its sender never said what became of it") };
    case "absent":
      // A webhook may have told its id while the list was read, or another sending may be out by now.
      if (run.status !== "unknown" || run.providerRunId || run.sentAt?.getTime() !== event.sentAt.getTime()) return run;
      return endRun(run, "failed", event.at, failure("lost", event.detail));
    case "succeeded":
      return isLive(run) && run.status !== "storing"
        ? {
            ...run,
            status: "storing",
            providerRunId: event.providerRunId,
            outputs: event.outputs,
            seconds: event.seconds,
            costMicroUsd: event.costMicroUsd,
            sendBefore: null,
            notBefore: null,
            failure: null,
          }
        : run;
    case "stored":
      return run.status === "storing" ? endRun(run, "stored", event.at, null) : run;
    case "store_failed":
      if (run.status !== "storing") return run;
      if (!event.until) return endRun(run, "failed", event.at, event.failure);
      return { ...run, storeAttempts: run.storeAttempts + 1, notBefore: event.until, failure: event.failure };
    case "failed":
      // The provider said "succeeded" before: a later word of it cannot take that back.
      return isLive(run) && run.status !== "storing" ? endRun(run, "failed", event.at, event.failure) : run;
    case "canceled":
      return isLive(run) && run.status !== "storing" ? endRun(run, "canceled", event.at, null) : run;
    case "cancel_sent":
      return run.status === "running" && !run.cancelSentAt ? { ...run, cancelSentAt: event.at } : run;
  }
}

/** A new purchase, or a postponed one that is armed again. Anything else would be a second purchase. */
function intend(job: Job, intended: IntendedRun, sentAt: Date): Job {
  const last = lastRun(job, intended.variant);
  if (variantState(job, intended.variant) !== "open") return job;
  if (last && isPostponed(last)) {
    if (last.id !== intended.id) return job;
    return withRun(job, last.id, (run) => ({
      ...run,
      // What was never accepted may be ordered in the version that is known by now.
      version: intended.version,
      sendBefore: intended.sendBefore,
      sentAt,
      quietFrom: quietAfter(intended.sendBefore),
      notBefore: null,
      expiresAt: intended.expiresAt,
    }));
  }
  // An intent that is told again after its run has ended is no second purchase.
  if (job.runs.some((run) => run.id === intended.id)) return job;
  const run: Run = {
    ...intended,
    sentAt,
    quietFrom: quietAfter(intended.sendBefore),
    attempt: (last?.attempt ?? 0) + 1,
    status: "submitting",
    providerRunId: null,
    notBefore: null,
    outputs: [],
    seconds: null,
    costMicroUsd: null,
    storeAttempts: 0,
    failure: null,
    cancelSentAt: null,
    endedAt: null,
  };
  return { ...job, runs: [...job.runs, run] };
}

function endRun(run: Run, status: "stored" | "failed" | "canceled", at: Date, why: Failure | null): Run {
  return { ...run, status, failure: why, sendBefore: null, notBefore: null, endedAt: at };
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

/** The order was definitely not accepted and waits to be sent again. */
export function isPostponed(run: Run): boolean {
  return run.status === "submitting" && !run.sendBefore && !run.providerRunId;
}

/** Somebody may be writing this order right now, and has not said what came of it. */
function isSending(run: Run): boolean {
  return (run.status === "submitting" || run.status === "unknown") && run.sendBefore !== null;
}

function mayBuy(job: Job): boolean {
  return !isEnded(job) && !job.cancelRequestedAt && !job.expiredAt && !job.setAsideAt;
}

function mayBuyAgain(job: Job, run: Run, why: Failure): boolean {
  if (!FAILURES[why.code].retryable || run.attempt >= job.maxAttempts) return false;
  if (why.code !== "lost") return true;
  return job.runs.filter((each) => each.status === "failed" && each.failure?.code === "lost").length <= job.maxRebuys;
}

/** The job can no longer succeed, or nobody wants it any more: what still runs is to be stopped. */
export function isDoomed(job: Job): boolean {
  if (job.cancelRequestedAt || job.expiredAt || job.setAsideAt) return true;
  return variantStates(job).filter((state) => state !== "dead").length < job.minSuccess;
}

export function isEnded(job: Pick<Job, "status">): boolean {
  return job.status === "completed" || job.status === "failed" || job.status === "canceled";
}

export function isLive(run: Pick<Run, "status">): boolean {
  return run.status !== "stored" && run.status !== "failed" && run.status !== "canceled";
}

export function lastRun(job: Job, variant: number): Run | undefined {
  return job.runs.findLast((run) => run.variant === variant);
}

export function deliveredVariants(job: Job): number {
  return variantStates(job).filter((state) => state === "delivered").length;
}
