import { type Failure, failure } from "./failure.ts";

/**
 * The lifecycle of one purchase: what each fact makes of a run in each status. What that means for the job is job.ts.
 */

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

/** Whose figure a cost is: the provider's own, or ours, from seconds or units and the price of the day. */
export type CostSource = "reported" | "measured";

/** What a run took of us. */
export interface Spent {
  /** Billed seconds as the provider tells them; null when it does not. */
  readonly seconds: number | null;
  /** In millionths of a dollar; null: nobody can tell. */
  readonly costMicroUsd: number | null;
  /** Null: nobody's figure, or one from before sources were noted. */
  readonly costSource: CostSource | null;
}

/**
 * One paid execution at a provider. What was ordered never changes from the first byte on, unless the provider says that
 * it was not accepted.
 */
export interface Run extends Spent {
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
  /** Why it was ordered there and nowhere else; null: from before reasons were kept. */
  readonly routeWhy?: string | null;
  /** Of a training, the provider's model that it writes to; null: it is no training. */
  readonly destination: string | null;
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
  /** Of a training, what the provider made of it: owner/name:version. */
  readonly trainedVersion: string | null;
  readonly storeAttempts: number;
  readonly failure: Failure | null;
  /** When we asked the provider to stop; asked once. */
  readonly cancelSentAt: Date | null;
  readonly endedAt: Date | null;
}

/** What is committed before the first byte is written. */
export type IntendedRun = Pick<
  Run,
  "id" | "variant" | "provider" | "model" | "version" | "input" | "routeWhy" | "destination" | "expiresAt"
> & {
  readonly sendBefore: Date;
  /** From when on nothing of it is on its way, if its sender never says so. */
  readonly quietFrom: Date;
};

/** Facts about one run. Applying one twice, late or out of order changes nothing that was already known. */
export type RunEvent =
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
  | (Spent & {
      readonly type: "succeeded";
      readonly at: Date;
      readonly runId: string;
      readonly providerRunId: string;
      readonly outputs: readonly string[];
      readonly trainedVersion: string | null;
    })
  | { readonly type: "stored"; readonly at: Date; readonly runId: string }
  /** `until` null: given up, its output is lost to us. */
  | {
      readonly type: "store_failed";
      readonly at: Date;
      readonly runId: string;
      readonly until: Date | null;
      readonly failure: Failure;
    }
  | (Spent & { readonly type: "failed"; readonly at: Date; readonly runId: string; readonly failure: Failure })
  | (Spent & { readonly type: "canceled"; readonly at: Date; readonly runId: string })
  | { readonly type: "cancel_sent"; readonly at: Date; readonly runId: string };

export function moveRun(run: Run, event: RunEvent): Run {
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
            ...spent(event),
            trainedVersion: event.trainedVersion,
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
      // A webhook may have told its id while nobody else could tell of it.
      if (event.failure.code === "unconfirmed" && (run.status !== "unknown" || run.providerRunId)) return run;
      // The provider said "succeeded" before: a later word of it cannot take that back.
      return isLive(run) && run.status !== "storing"
        ? { ...endRun(run, "failed", event.at, event.failure), ...spent(event) }
        : run;
    case "canceled":
      return isLive(run) && run.status !== "storing"
        ? { ...endRun(run, "canceled", event.at, null), ...spent(event) }
        : run;
    case "cancel_sent":
      return run.status === "running" && !run.cancelSentAt ? { ...run, cancelSentAt: event.at } : run;
  }
}

function spent({ seconds, costMicroUsd, costSource }: Spent): Spent {
  return { seconds, costMicroUsd, costSource };
}

/** Spent on what was never accepted, or on what nobody can tell of. */
export const NOTHING_KNOWN: Spent = { seconds: null, costMicroUsd: null, costSource: null };

/** It was presumed lost, or never confirmed, and nothing is known yet of what it came to. */
export function isMissing(run: Pick<Run, "status" | "failure" | "costMicroUsd">): boolean {
  const code = run.failure?.code;
  return run.status === "failed" && (code === "lost" || code === "unconfirmed") && run.costMicroUsd === null;
}

/** A missing run that nobody wants any more: whose it is, that it was told to stop, and what it cost us. */
export function moveOrphan(run: Run, event: RunEvent): Run {
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
        ...booked(event),
      };
    case "failed":
    case "canceled":
      return { ...run, ...booked(event) };
    default:
      return run;
  }
}

/** With a figure in any case: without one it would be missing still. */
function booked(event: Spent): Spent {
  return { ...spent(event), costMicroUsd: event.costMicroUsd ?? 0 };
}

export function endRun(run: Run, status: "stored" | "failed" | "canceled", at: Date, why: Failure | null): Run {
  return { ...run, status, failure: why, sendBefore: null, notBefore: null, endedAt: at };
}

/** The order was definitely not accepted and waits to be sent again. */
export function isPostponed(run: Run): boolean {
  return run.status === "submitting" && !run.sendBefore && !run.providerRunId;
}

/** Somebody may be writing this order right now, and has not said what came of it. */
function isSending(run: Run): boolean {
  return (run.status === "submitting" || run.status === "unknown") && run.sendBefore !== null;
}

export function isLive(run: Pick<Run, "status">): boolean {
  return run.status !== "stored" && run.status !== "failed" && run.status !== "canceled";
}
