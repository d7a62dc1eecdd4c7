import { isDoomed, isEnded, type Job, lastRun, variantState } from "./job.ts";
import { isPostponed, type Run } from "./run.ts";

/** What is to be done for a job in the state it is in, and when; pure, like the lifecycle itself. */

/** One thing a worker can do for a job. Looking at runs that are out is not here: that is the watch's work. */
export type Step =
  | { readonly type: "claim" }
  | { readonly type: "expire" }
  | { readonly type: "submit"; readonly variant: number; readonly run: Run | null }
  | { readonly type: "abandon"; readonly run: Run }
  | { readonly type: "cancel"; readonly run: Run }
  | { readonly type: "store"; readonly run: Run };

export interface Due {
  readonly at: Date;
  readonly step: Step;
}

const NOW = new Date(0);

/** The pause before a variant is bought a second time; doubled for each further time. */
const REBUY_PAUSE_MS = 1_000;

/** Everything that is to be done, each with the instant from which on it is due. Empty: there is nothing but waiting. */
export function agenda(job: Job): Due[] {
  if (isEnded(job)) return [];
  const dues: Due[] = [];
  if (job.status === "pending") dues.push({ at: NOW, step: { type: "claim" } });
  if (!job.expiredAt) dues.push({ at: job.deadlineAt, step: { type: "expire" } });
  const doomed = isDoomed(job);
  for (let variant = 0; variant < job.variants; variant++) {
    const run = lastRun(job, variant);
    const state = variantState(job, variant);
    if (state === "open") dues.push(toBuy(variant, run));
    if (state !== "live" || !run) continue;
    // Whoever holds the lease and finds an order being sent has not sent it: the sender has lost its lease. The
    // search for the run begins at once; that it does not exist is concluded much later (absence.ts).
    if (run.status === "submitting" && run.sendBefore) dues.push({ at: NOW, step: { type: "abandon", run } });
    else if (run.status === "storing") dues.push({ at: run.notBefore ?? NOW, step: { type: "store", run } });
    else if (run.status === "running" && doomed && !run.cancelSentAt)
      dues.push({ at: NOW, step: { type: "cancel", run } });
  }
  return dues;
}

function toBuy(variant: number, last: Run | undefined): Due {
  if (last && isPostponed(last)) return { at: last.notBefore ?? NOW, step: { type: "submit", variant, run: last } };
  const pauseMs = last ? REBUY_PAUSE_MS * 2 ** (last.attempt - 1) : 0;
  const at = last?.endedAt ? new Date(last.endedAt.getTime() + pauseMs) : NOW;
  return { at, step: { type: "submit", variant, run: null } };
}

/** What is due at `now`. */
export function stepsDue(job: Job, now: Date): Step[] {
  // Alone: what is bought in the same turn would be bought after the deadline.
  if (!isEnded(job) && !job.expiredAt && job.deadlineAt <= now) return [{ type: "expire" }];
  return agenda(job)
    .filter((due) => due.at <= now)
    .map((due) => due.step);
}

/** The next instant at which something is due; null when only the provider or nobody can move the job. */
export function dueAt(job: Job): Date | null {
  const times = agenda(job).map((due) => due.at.getTime());
  return times.length > 0 ? new Date(Math.min(...times)) : null;
}
