import { quietAfter, SEND_WINDOW_MS } from "../../src/domain/absence.ts";
import { type Step, stepsDue } from "../../src/domain/agenda.ts";
import { type FailureCode, failure } from "../../src/domain/failure.ts";
import { type Event, type Job, next } from "../../src/domain/job.ts";
import { isMissing, type Run, type Spent } from "../../src/domain/run.ts";

/**
 * The jobs of the model, moved by the real `next` and `stepsDue`. Time stands still at NOW and the past moves away
 * from it, so that two jobs that differ only in when it all began are one; what is longer ago than any rule of the
 * protocol looks back is as long ago as that.
 */

export const TICK_MS = 5_000;
const SPENT: Spent = { seconds: 1, costMicroUsd: 1, costSource: "measured" };
export const NOW = new Date("2026-11-21T10:00:00Z");
const LATER = new Date(NOW.getTime() + 86_400_000);

/** One per search: jobs by number, and what becomes of them, each asked for once. */
export interface Lifecycle {
  job(number: number): Job;
  steps(number: number): readonly Step[];
  /** The same number when the event teaches nothing, null when the database refuses it. */
  learn(number: number, type: Told, runId: string, theirId?: string): number | null;
  tick(number: number): number;
  /** The deadline is now. */
  passDeadline(number: number): number;
  /** What noteWebhook does: the id is kept if the run has none yet and nobody else has it. */
  keepId(number: number, runId: string, theirId: string): number;
}

export type Told = Exclude<Event["type"], "store_failed" | "set_aside"> | "absent before" | "interrupted" | "refused";

export function makeLifecycle(first: Job, lostAfterMs: number): Lifecycle & { readonly first: number } {
  const longAgoMs = lostAfterMs + TICK_MS;
  const jobs: Job[] = [];
  const numbers = new Map<string, number>();
  const known = new Map<string, number | null>();
  const due: (readonly Step[] | undefined)[] = [];

  const numberOf = (job: Job): number => {
    const plain = normal(job, longAgoMs);
    const key = JSON.stringify(plain);
    const number = numbers.get(key) ?? jobs.push(plain) - 1;
    numbers.set(key, number);
    return number;
  };
  const job = (number: number): Job => {
    const found = jobs[number];
    if (!found) throw new Error(`there is no job ${number}`);
    return found;
  };
  const once = <T extends number | null>(key: string, make: () => T): T => {
    const before = known.get(key);
    if (before !== undefined) return before as T;
    const made = make();
    known.set(key, made);
    return made;
  };

  return {
    first: numberOf(first),
    job,
    steps(number) {
      const steps = due[number] ?? stepsDue(job(number), NOW);
      due[number] = steps;
      return steps;
    },
    learn: (number, type, runId, theirId = "") =>
      once(`${number} ${type} ${runId} ${theirId}`, () => {
        const before = job(number);
        const after = next(before, eventOf(type, runId, theirId));
        if (after === before) return number;
        const ids = after.runs.flatMap((run) => run.providerRunId ?? []);
        // The unique index over the provider's ids.
        return new Set(ids).size < ids.length ? null : numberOf(after);
      }),
    tick: (number) => once(`${number} tick`, () => numberOf(older(job(number), TICK_MS))),
    passDeadline: (number) => once(`${number} deadline`, () => numberOf({ ...job(number), deadlineAt: NOW })),
    keepId: (number, runId, theirId) =>
      once(`${number} keep ${runId} ${theirId}`, () => {
        const before = job(number);
        if (before.runs.some((run) => run.providerRunId === theirId)) return number;
        const open = (run: Run) => ["submitting", "unknown", "running"].includes(run.status) || isMissing(run);
        const runs = before.runs.map((run) =>
          run.id === runId && open(run) && run.providerRunId === null ? { ...run, providerRunId: theirId } : run,
        );
        return numberOf({ ...before, runs });
      }),
  };
}

export function newJob(maxRebuys: number, maxAttempts: number): Job {
  return {
    id: "job",
    status: "pending",
    variants: 1,
    minSuccess: 1,
    maxAttempts,
    maxRebuys,
    deadlineAt: LATER,
    cancelRequestedAt: null,
    expiredAt: null,
    setAsideAt: null,
    runs: [],
    failure: null,
    startedAt: null,
    endedAt: null,
  };
}

function eventOf(type: Told, runId: string, providerRunId: string): Event {
  const why = (code: FailureCode) => failure(code, "");
  const at = NOW;
  switch (type) {
    case "claimed":
    case "cancel_requested":
    case "expired":
      return { type, at };
    case "intended": {
      const sendBefore = new Date(NOW.getTime() + SEND_WINDOW_MS);
      const order = { id: runId, variant: 0, provider: "p", model: "m", version: null, input: {}, destination: null };
      return { type, at, run: { ...order, sendBefore, quietFrom: quietAfter(sendBefore), expiresAt: LATER } };
    }
    case "submitted":
      return { type, at, runId, providerRunId };
    case "postponed":
      // At once: what comes later only gives the others more time.
      return { type, at, runId, until: NOW, failure: why("provider_unavailable") };
    case "declined":
      return { type, at, runId, failure: why("input_refused") };
    // What a lost answer must not be taken for: declined, but worth another try.
    case "refused":
      return { type: "declined", at, runId, failure: why("provider_unavailable") };
    case "lost":
      return { type, at, runId, detail: "" };
    case "absent":
      return { type, at, runId, sentAt: NOW, detail: "" };
    // A list was read for a sending before this one.
    case "absent before":
      return { type: "absent", at, runId, sentAt: new Date(NOW.getTime() - TICK_MS), detail: "" };
    case "succeeded":
      return { type, at, runId, providerRunId, outputs: ["o"], trainedVersion: null, ...SPENT };
    case "failed":
      return { type, at, runId, failure: why("provider_failed"), ...SPENT };
    case "interrupted":
      return { type: "failed", at, runId, failure: why("interrupted"), ...SPENT };
    case "canceled":
      return { type, at, runId, ...SPENT };
    case "abandoned":
    case "stored":
    case "cancel_sent":
      return { type, at, runId };
  }
}

function older(job: Job, ms: number): Job {
  const back = (date: Date | null) => date && new Date(date.getTime() - ms);
  const runs = job.runs.map((run) => ({
    ...run,
    quietFrom: back(run.quietFrom),
    endedAt: back(run.endedAt),
  }));
  return { ...job, runs };
}

/** Instants that nothing asks for any more are NOW, whenever they were. */
function normal(job: Job, longAgoMs: number): Job {
  const noted = (date: Date | null) => date && NOW;
  const since = (date: Date | null, mostMs: number) =>
    date && new Date(Math.max(date.getTime(), NOW.getTime() - mostMs));
  const isOut = (run: Run) => run.status === "submitting" || run.status === "unknown";
  const runs = job.runs.map((run, index) => ({
    ...run,
    sentAt: noted(run.sentAt),
    sendBefore: noted(run.sendBefore),
    quietFrom: isOut(run) ? since(run.quietFrom, longAgoMs) : noted(run.quietFrom),
    // Only the pause before the next purchase counts from here, and it is over within a tick.
    endedAt: index === job.runs.length - 1 ? since(run.endedAt, TICK_MS) : noted(run.endedAt),
    cancelSentAt: noted(run.cancelSentAt),
  }));
  return {
    ...job,
    startedAt: noted(job.startedAt),
    endedAt: noted(job.endedAt),
    cancelRequestedAt: noted(job.cancelRequestedAt),
    expiredAt: noted(job.expiredAt),
    runs,
  };
}
