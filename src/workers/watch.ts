import { type Applied, timeBy } from "../db/jobs.ts";
import { claimLooks, type DueLook, findRunByProviderId, hasUnanswered, type Looked, noteLooks } from "../db/looks.ts";
import { provesAbsence } from "../domain/absence.ts";
import { stepsDue } from "../domain/agenda.ts";
import { costOf, type Route } from "../domain/catalogue.ts";
import { failure } from "../domain/failure.ts";
import type { Event } from "../domain/job.ts";
import { lookDelayMs } from "../domain/pacing.ts";
import { type Look, type Provider, ProviderUnreachable, type Succeeded } from "../domain/provider.ts";
import { modelOfRun } from "../domain/routing.ts";
import { isMissing } from "../domain/run.ts";
import { learn } from "../learn.ts";
import { type Loop, repeat } from "./loop.ts";
import type { Services } from "./services.ts";
import { providerOf, toOrder } from "./submit.ts";

const EVERY_MS = 250;
/** Looks claimed by one statement, and looks under way at the same time, over kept-alive connections. */
const BATCH = 100;
const MOST_UNDER_WAY = 200;
/** When the provider gave no usable answer and did not say when it will. */
const UNREACHABLE_MS = 5_000;
/** Between two readings of the provider's list for a run whose answer was lost. */
const FIND_EVERY_MS = 10_000;

/**
 * Asks the providers what became of the runs that are out, and wakes the jobs that have something to do. A provider
 * that answers slowly takes some of the room; it does not hold up the looks at the others.
 */
export function watch(services: Services): Loop {
  const underWay = new Set<Promise<void>>();
  let seen: Looked[] = [];
  const note = async () => {
    const noted = seen;
    seen = [];
    await noteLooks(services.db, noted);
  };
  const loop = repeat("watch", services.logger, EVERY_MS, async () => {
    await note();
    if (underWay.size >= MOST_UNDER_WAY) await Promise.race(underWay);
    const room = Math.min(BATCH, MOST_UNDER_WAY - underWay.size);
    const due = await claimLooks(services.db, room);
    for (const look of due) {
      const looking = lookAt(services, look)
        .then((looked) => void (looked && seen.push(looked)))
        .finally(() => underWay.delete(looking));
      underWay.add(looking);
    }
    return due.length === room;
  });
  return {
    async stop() {
      await loop.stop();
      await Promise.all(underWay);
      await note();
    },
  };
}

/**
 * Providers keep what a run made for an hour at most. A run of which nothing could be learned until then is given up:
 * whatever it was, there is nothing left to fetch.
 */
const GIVE_UP_AFTER_EXPIRY_MS = 3_600_000;
/** A provider may not show yet what it has just accepted. */
const NEWBORN_MS = 120_000;

/** A run that was presumed lost is looked for ever more rarely, until the provider must have stopped it. */
const MISSING_EVERY_MS = { first: 30_000, most: 600_000 };

/** What is to be noted of a look that changed nothing; null when an event was applied instead. */
async function lookAt(services: Services, due: DueLook): Promise<Looked | null> {
  const { runId } = due;
  try {
    await services.reach("watch.claimed", due.jobId);
    const provider = providerOf(services, due.provider);
    const sold = modelOfRun(provider.api, due);
    const isTraining = due.destination !== null;
    const nextInMs = lookDelayMs(due.looks, services.webhookUrl !== null, sold?.model ?? null);
    if (!due.providerRunId) return await find(services, provider, due);

    const look = await provider.look({ providerRunId: due.providerRunId, isTraining });
    await services.reach("watch.looked", due.jobId);
    services.metrics.looks.inc({ provider: provider.name, status: look.status });
    const event = toEvent(due, look, sold?.route ?? null);
    if (event?.type === "failed" && event.failure.code === "timeout")
      await provider.cancel({ providerRunId: due.providerRunId, isTraining });
    const known = event && (await learnOf(services, due, event));
    if (known && look.status === "running") await stopOrphan(services, provider, due, known);
    // "submitted" tells us that it is out: it is looked at again like any other.
    if (event && event.type !== "submitted") return null;
    return { runId, nextInMs, progress: look.status === "running" ? look.progress : null, answered: true };
  } catch (error) {
    const unreachable = error instanceof ProviderUnreachable;
    services.logger.warn({ err: error, run_id: runId, job_id: due.jobId }, "could not look at a run");
    services.metrics.looks.inc({ provider: due.provider, status: unreachable ? "unreachable" : "error" });
    const at = timeBy(due);
    if (at.getTime() > due.expiresAt.getTime() + GIVE_UP_AFTER_EXPIRY_MS) {
      const detail = `nothing could be learned of the run: ${error instanceof Error ? error.message : String(error)}`;
      await learnOf(services, due, { type: "failed", at, runId, failure: failure("timeout", detail) }).catch(() => {});
    }
    const nextInMs = (unreachable ? error.retryAfterMs : null) ?? UNREACHABLE_MS;
    return { runId, nextInMs, progress: null, answered: false };
  }
}

function toEvent(due: DueLook, look: Look, route: Route | null): Event | null {
  const { runId } = due;
  const at = timeBy(due);
  const providerRunId = due.providerRunId ?? "";
  switch (look.status) {
    case "running":
      if (at > due.expiresAt)
        return {
          type: "failed",
          at,
          runId,
          failure: failure("timeout", "still running after the time it was to be stopped"),
        };
      return due.status === "running" ? null : { type: "submitted", at, runId, providerRunId };
    case "succeeded":
      return {
        type: "succeeded",
        at,
        runId,
        providerRunId,
        outputs: look.outputs,
        seconds: look.seconds,
        costMicroUsd: route ? costOf(route, at, usedBy(due, look)) : 0,
        trainedVersion: look.trainedVersion,
      };
    case "failed":
      return { type: "failed", at, runId, failure: look.failure };
    case "canceled":
      return { type: "canceled", at, runId };
    case "gone":
      if (at.getTime() - due.sentAt.getTime() < NEWBORN_MS) return null;
      return {
        type: "failed",
        at,
        runId,
        failure: failure("output_unavailable", "the provider no longer knows the run"),
      };
  }
}

function usedBy({ input }: DueLook, { outputs, seconds }: Succeeded) {
  const film = input["duration"];
  return { outputs: outputs.length, seconds, filmSeconds: typeof film === "number" ? film : 0 };
}

/** What turned up although it was presumed lost, and is not wanted any more: it is stopped, and its cost is ours. */
async function stopOrphan(
  services: Services,
  provider: Provider,
  { runId, jobId, providerRunId, destination }: DueLook,
  { job, now }: Applied,
): Promise<void> {
  const run = job.runs.find((each) => each.id === runId);
  if (!run || !isMissing(run) || !providerRunId) return;
  await provider.cancel({ providerRunId, isTraining: destination !== null });
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
