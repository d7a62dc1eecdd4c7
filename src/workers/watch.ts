import { type Applied, timeBy } from "../db/jobs.ts";
import { claimLooks, type DueLook, findRunByProviderId, hasUnanswered, type Looked, noteLooks } from "../db/looks.ts";
import { provesAbsence } from "../domain/absence.ts";
import { stepsDue } from "../domain/agenda.ts";
import type { Route } from "../domain/catalogue.ts";
import { type End, spentOn } from "../domain/cost.ts";
import { failure } from "../domain/failure.ts";
import type { Event } from "../domain/job.ts";
import { lookDelayMs } from "../domain/pacing.ts";
import { type Look, type Provider, ProviderUnreachable, type RunRef } from "../domain/provider.ts";
import { modelOfRun } from "../domain/routing.ts";
import { isMissing, NOTHING_KNOWN } from "../domain/run.ts";
import { learn } from "../learn.ts";
import { type Sold, toEndEvent } from "./ends.ts";
import { type Loop, repeat } from "./loop.ts";
import type { Services } from "./services.ts";
import { providerOf, toOrder } from "./submit.ts";

const EVERY_MS = 250;
/** Looks claimed by one statement, and looks under way at the same time, over kept-alive connections. */
const BATCH = 100;
const MOST_UNDER_WAY = 200;
/** For one account, where there are several: two that stand still together take no more than all. */
const MOST_OF_ONE = MOST_UNDER_WAY / 2;
/** An account with less room than this is as good as full: a claim is not worth its statement for fewer. */
const LEAST_ROOM = 10;
/** When the provider gave no usable answer and did not say when it will. */
const UNREACHABLE_MS = 5_000;
/** Between two readings of the provider's list for a run whose answer was lost. */
const FIND_EVERY_MS = 10_000;

/**
 * Asks the providers what became of the runs that are out, and wakes the jobs that have something to do. A provider
 * that answers slowly takes some of the room; it does not hold up the looks at the others.
 */
export function watch(services: Services): Loop {
  const underWay = new Map<Promise<void>, string>();
  let seen: Looked[] = [];
  const note = async () => {
    const noted = seen;
    seen = [];
    await noteLooks(services.db, noted);
  };
  const loop = repeat("watch", services.logger, EVERY_MS, async () => {
    await note();
    if (underWay.size >= MOST_UNDER_WAY) await Promise.race(underWay.keys());
    const { full, room } = services.providers.length > 1 ? roomIn([...underWay.values()]) : { full: [], room: BATCH };
    const places = Math.min(room, MOST_UNDER_WAY - underWay.size);
    const due = await claimLooks(services.db, places, full);
    for (const look of due) {
      const looking = lookAt(services, look)
        .then((looked) => void (looked && seen.push(looked)))
        .finally(() => underWay.delete(looking));
      underWay.set(looking, look.provider);
    }
    return due.length === places;
  });
  return {
    async stop() {
      await loop.stop();
      await Promise.all(underWay.keys());
      await note();
    },
  };
}

/** By the accounts that are being asked: those that are to be left out, and how many looks may be at any one other. */
function roomIn(asked: readonly string[]): { readonly full: string[]; readonly room: number } {
  const counts = new Map<string, number>();
  for (const account of asked) counts.set(account, (counts.get(account) ?? 0) + 1);
  const rooms = [...counts].map(([account, count]) => ({ account, room: MOST_OF_ONE - count }));
  const full = rooms.filter(({ room }) => room < LEAST_ROOM).map(({ account }) => account);
  const open = rooms.filter(({ room }) => room >= LEAST_ROOM);
  return { full, room: Math.min(BATCH, ...open.map(({ room }) => room)) };
}

/**
 * Providers keep what a run made for an hour at most. A run of which nothing could be learned until then is given up:
 * whatever it was, there is nothing left to fetch.
 */
const GIVE_UP_AFTER_EXPIRY_MS = 3_600_000;
/** A provider may not show yet what it has just accepted. */
const NEWBORN_MS = 120_000;
/** A provider that does not know a run is asked once more, no earlier than this. */
const GONE_AGAIN_MS = 30_000;
/** A run that was told to stop when its time was over: how long its provider may take to say how it ended, and how often it is asked. */
const VERDICT_MS = 60_000;
const VERDICT_EVERY_MS = 5_000;

/** A run that was presumed lost is looked for ever more rarely, until the provider must have stopped it. */
const MISSING_EVERY_MS = { first: 30_000, most: 600_000 };
/** One that no list could show waits for its webhook; that is looked up no more rarely than this. */
const UNLISTED_MOST_MS = 60_000;

/** What is to be noted of a look that changed nothing; null when an event was applied instead. */
async function lookAt(services: Services, due: DueLook): Promise<Looked | null> {
  const { runId, providerRunId, model } = due;
  const ref = providerRunId === null ? null : { providerRunId, model, isTraining: due.destination !== null };
  try {
    await services.reach("watch.claimed", due.jobId);
    const provider = providerOf(services, due.provider);
    if (!ref) return await find(services, provider, due);
    const sold = modelOfRun(provider, due);
    const nextInMs = lookDelayMs(due.looks, services.webhookUrl !== null, sold?.model ?? null);

    const look = await provider.look(ref);
    await services.reach("watch.looked", due.jobId);
    services.metrics.looks.inc({ provider: provider.name, status: look.status });
    const route = sold?.route ?? null;
    if (look.status === "gone") return await seeGone(services, provider, due, ref, nextInMs);
    if (look.status === "running") return await seeRunning(services, provider, due, { ref, route, look, nextInMs });
    await learnOf(
      services,
      due,
      await endOf(services, due, { jobId: due.jobId, runId, input: due.input, route, ...ref }, look),
    );
    return null;
  } catch (error) {
    const unreachable = error instanceof ProviderUnreachable;
    services.logger.warn({ err: error, run_id: runId, job_id: due.jobId }, "could not look at a run");
    services.metrics.looks.inc({ provider: due.provider, status: unreachable ? "unreachable" : "error" });
    const at = timeBy(due);
    if (at.getTime() > due.expiresAt.getTime() + GIVE_UP_AFTER_EXPIRY_MS) {
      // It may run on there all the same: nobody will ask for it any more.
      if (ref) await cancelIfPossible(services, due, ref);
      const detail = `nothing could be learned of the run: ${error instanceof Error ? error.message : String(error)}`;
      const why = failure("timeout", detail);
      await learnOf(services, due, { type: "failed", at, runId, failure: why, ...NOTHING_KNOWN }).catch(() => {});
    }
    const nextInMs = (unreachable ? error.retryAfterMs : null) ?? UNREACHABLE_MS;
    return { runId, nextInMs, progress: null, answered: false };
  }
}

async function cancelIfPossible(services: Services, due: DueLook, ref: RunRef): Promise<void> {
  const provider = services.providers.find(({ name }) => name === due.provider);
  await provider?.cancel(ref).catch(() => {});
}

/** The run is over. One that we had to stop because its time was over has failed by that. */
async function endOf(services: Services, due: DueLook, sold: Sold, look: End): Promise<Event> {
  const at = timeBy(due);
  const wasOverdue = due.cancelSentAt !== null && due.cancelSentAt >= due.expiresAt;
  if (look.status !== "canceled" || !wasOverdue) return toEndEvent(services, sold, at, look);
  const spent = spentOn(sold.route, at, due.input, look);
  return { type: "failed", at, runId: due.runId, failure: failure("timeout", OVERDUE), ...spent };
}

const OVERDUE = "still running when its time was over, and stopped";

interface Running {
  readonly ref: RunRef;
  readonly route: Route | null;
  readonly look: Extract<Look, { status: "running" }>;
  readonly nextInMs: number;
}

/** It is out. When its time is over it is told to stop, and given up only when that has led to nothing. */
async function seeRunning(
  services: Services,
  provider: Provider,
  due: DueLook,
  { ref, route, look, nextInMs }: Running,
): Promise<Looked | null> {
  const { runId, status, cancelSentAt, expiresAt } = due;
  const at = timeBy(due);
  if (status !== "running") {
    const { providerRunId } = ref;
    await stopOrphan(
      services,
      provider,
      due,
      await learnOf(services, due, { type: "submitted", at, runId, providerRunId }),
    );
  }
  const seen = { runId, progress: look.progress, answered: true };
  if (at <= expiresAt) return { ...seen, nextInMs };
  await provider.cancel(ref);
  const toldAt = Math.max(cancelSentAt?.getTime() ?? at.getTime(), expiresAt.getTime());
  if (at.getTime() - toldAt < VERDICT_MS) {
    if (!cancelSentAt) await learnOf(services, due, { type: "cancel_sent", at, runId });
    return { ...seen, nextInMs: VERDICT_EVERY_MS };
  }
  // Nobody says for how long it ran: no longer than it was out.
  const seconds = (at.getTime() - due.sentAt.getTime()) / 1_000;
  const spent = {
    ...spentOn(route, at, due.input, { status: "canceled", seconds, costMicroUsd: null }),
    seconds: null,
  };
  const why = failure("timeout", `${OVERDUE} in vain`);
  await learnOf(services, due, { type: "failed", at, runId, failure: why, ...spent });
  return null;
}

/** A provider may lose sight of a run for a moment. Twice, and told to stop all the same: then it is given up. */
async function seeGone(
  services: Services,
  provider: Provider,
  due: DueLook,
  ref: RunRef,
  nextInMs: number,
): Promise<Looked | null> {
  const { runId, goneAt } = due;
  const at = timeBy(due);
  const seen = { runId, progress: null, answered: true };
  if (at.getTime() - due.sentAt.getTime() < NEWBORN_MS) return { ...seen, nextInMs };
  if (!goneAt || at.getTime() - goneAt.getTime() < GONE_AGAIN_MS)
    return { ...seen, nextInMs: GONE_AGAIN_MS + 1_000, gone: true };
  await provider.cancel(ref);
  await learnOf(services, due, { type: "cancel_sent", at, runId });
  const why = failure("output_unavailable", `the provider no longer knows the run, since ${goneAt.toISOString()}`);
  await learnOf(services, due, { type: "failed", at, runId, failure: why, ...NOTHING_KNOWN });
  return null;
}

/** What turned up although it was presumed lost, and is not wanted any more: it is stopped, and its cost is ours. */
async function stopOrphan(
  services: Services,
  provider: Provider,
  { runId, jobId, providerRunId, model, destination }: DueLook,
  { job, now }: Applied,
): Promise<void> {
  const run = job.runs.find((each) => each.id === runId);
  if (!run || !isMissing(run) || !providerRunId) return;
  await provider.cancel({ providerRunId, model, isTraining: destination !== null });
  const { changed } = await learn(services, jobId, [{ type: "cancel_sent", at: now, runId }]);
  if (!changed) return;
  services.logger.warn({ run_id: runId, job_id: jobId }, "a run that was presumed lost turned up: canceled");
  services.metrics.orphans.inc({ provider: provider.name });
}

/**
 * Looks for a run whose answer was lost. Found: it is ours. Not there: presumed never to have existed only when time
 * and readings prove it (absence.ts), and looked for still, as long as the provider may run it.
 */
async function find(services: Services, provider: Provider, due: DueLook): Promise<Looked | null> {
  const { runId } = due;
  const at = timeBy(due);
  const cancelAfterSeconds = Math.ceil((due.expiresAt.getTime() - due.sentAt.getTime()) / 1_000);
  const order = toOrder(services, { id: runId, ...due }, due.sentAt, cancelAfterSeconds);
  const isTaken = async (providerRunId: string) =>
    (await findRunByProviderId(services.db, provider.name, providerRunId)) !== null;
  const found = await provider.find(order, due.sentAt, isTaken);
  await services.reach("find.read", due.jobId);
  services.logger.info(
    { run_id: runId, job_id: due.jobId, outcome: found.outcome },
    "looked for a run whose answer was lost",
  );
  services.metrics.looks.inc({ provider: provider.name, status: `find_${found.outcome}` });
  // What replaced a missing run may be equal to it, and be what the list shows: it must be known first.
  const mistakable = due.status === "failed" && (await hasUnanswered(services.db, due.jobId));
  if (found.outcome === "found" && !mistakable) {
    await learnOf(services, due, { type: "submitted", at, runId, providerRunId: found.providerRunId });
    return null;
  }
  if (due.status === "failed") {
    const { first, most } = MISSING_EVERY_MS;
    const missingMs = at.getTime() - due.quietFrom.getTime();
    const nextInMs = at > due.expiresAt ? null : Math.min(Math.max(first, missingMs / 2), most);
    return { runId, nextInMs, progress: null, answered: true };
  }
  if (found.outcome === "unlistable") return await awaitWord(services, due);
  if (found.outcome === "unread" && at.getTime() > due.expiresAt.getTime() + GIVE_UP_AFTER_EXPIRY_MS)
    throw new Error("the provider's list could not be read to its end");
  const search = { quietFrom: due.quietFrom, readings: due.readings + 1, readAt: at };
  if (found.outcome === "absent" && provesAbsence(search, services.lostAfterMs)) {
    const detail = `not in the provider's list ${Math.round((at.getTime() - due.sentAt.getTime()) / 1_000)} s after it was sent`;
    await learnOf(services, due, { type: "absent", at, runId, sentAt: due.sentAt, detail });
    return null;
  }
  const nextInMs = Math.min(FIND_EVERY_MS, Math.max(1_000, services.lostAfterMs / 3));
  const unlisted = found.outcome === "absent";
  return { runId, nextInMs, progress: null, answered: unlisted, unlisted };
}

/**
 * There is no list to look into. Only its webhook, or a sender that stood still, can tell of the run, until the provider
 * must have stopped it; then nobody can. It may have been done and billed: it is not bought again.
 */
async function awaitWord(services: Services, due: DueLook): Promise<Looked | null> {
  const { runId } = due;
  const at = timeBy(due);
  const leftMs = Math.max(due.expiresAt.getTime(), due.quietFrom.getTime()) - at.getTime();
  if (leftMs >= 0)
    return { runId, nextInMs: Math.min(leftMs + 1_000, UNLISTED_MOST_MS), progress: null, answered: true };
  const seconds = Math.round((at.getTime() - due.sentAt.getTime()) / 1_000);
  const detail = `no word of it ${seconds} s after it was sent, and the provider has no list to look into`;
  const why = failure("unconfirmed", detail);
  await learnOf(services, due, { type: "failed", at, runId, failure: why, ...NOTHING_KNOWN });
  return null;
}

async function learnOf(services: Services, due: DueLook, event: Event): Promise<Applied> {
  const after = await learn(services, due.jobId, [event]);
  await services.reach("watch.recorded", due.jobId);
  if (after.changed && stepsDue(after.job, after.now).length > 0)
    await services.queues
      .wake([{ id: due.jobId, kind: after.kind, epoch: after.epoch }])
      .catch((error: unknown) =>
        services.logger.warn({ err: error, job_id: due.jobId }, "could not wake: the sweep will"),
      );
  return after;
}
