import { type JobRecord, LeaseLost, loadJob, timeBy } from "../db/jobs.ts";
import { claim, giveUp, release } from "../db/leases.ts";
import { countDead } from "../db/workers.ts";
import { type Step, stepsDue } from "../domain/agenda.ts";
import { isEnded } from "../domain/job.ts";
import { ProviderUnreachable } from "../domain/provider.ts";
import { learn } from "../learn.ts";
import type { Leases } from "./leases.ts";
import type { Services } from "./services.ts";
import { store } from "./store.ts";
import { providerOf, submit } from "./submit.ts";

/** A job has at most 16 variants with 10 attempts of 4 steps each; this many turns without rest is a fault of ours. */
const MOST_TURNS = 1_000;
/** A job of which so many workers died in a row, without anything learned in between, is set aside. */
const MOST_DEATHS = 3;
/** Until it is certain whether the workers that vanished are dead. */
const CERTAINTY_PAUSE_MS = 4_000;
/** When something that is not the job's fault stands in the way: the database, the storage, the provider's API. */
const RETRY_MS = 5_000;

/**
 * Does what there is to do for a job, until it has to wait for somebody; then lets go. Nothing is held while a
 * provider works: what is awaited is a row. Never throws: what went wrong is logged, and the sweep comes back.
 * "suspect": nothing was done, because none is wanted here and now.
 */
export async function advance(
  services: Services,
  leases: Leases,
  jobId: string,
  options: { readonly suspects: boolean },
): Promise<"done" | "suspect"> {
  const { db, logger } = services;
  let epoch: number | null = null;
  try {
    const claimed = await claim(db, jobId, leases.worker, options);
    if (claimed === "suspect") return "suspect";
    if (!claimed) return "done";
    epoch = claimed.epoch;
    leases.hold(jobId, epoch);
    await services.reach("advance.claimed", jobId);
    const retryInMs = await work(services, leases, claimed);
    if (retryInMs !== null) await giveUp(db, jobId, epoch, retryInMs);
  } catch (error) {
    if (error instanceof LeaseLost) {
      logger.warn({ job_id: jobId }, "lease lost: another worker goes on");
      return "done";
    }
    const retryInMs = error instanceof ProviderUnreachable ? (error.retryAfterMs ?? RETRY_MS) : RETRY_MS;
    logger.error({ err: error, job_id: jobId, retry_in_ms: retryInMs }, "could not advance");
    if (epoch !== null) await giveUp(db, jobId, epoch, retryInMs).catch(() => {}); // The lease runs out by itself.
  } finally {
    if (epoch !== null) leases.drop(jobId, epoch);
  }
  return "done";
}

/** Null: it rests or has ended. Otherwise it is to be given up, and taken up again after so long. */
async function work(services: Services, leases: Leases, claimed: JobRecord): Promise<number | null> {
  const { db, logger } = services;
  const { epoch } = claimed;
  const { id: jobId } = claimed.job;
  let record: JobRecord | null = claimed;
  if (new Set(record.vanished).size >= MOST_DEATHS) {
    const { vanished, now: at } = record;
    const deaths = await countDead(db, leases.worker, vanished);
    if (deaths === null) return CERTAINTY_PAUSE_MS;
    if (deaths >= MOST_DEATHS) {
      logger.error({ job_id: jobId, workers: vanished }, "set aside: its workers died one after the other");
      record = await learn(services, jobId, [{ type: "set_aside", at, deaths }], { epoch });
      if (isEnded(record.job)) return null;
    }
  }
  for (let turn = 0; turn < MOST_TURNS; turn++) {
    const steps = stepsDue(record.job, record.now);
    if (steps.length === 0 && (await release(db, jobId, record))) return null;
    // Who drains buys no more: the call may take minutes, and another worker has them.
    if (services.stop.aborted && steps.some(({ type }) => type === "submit")) return 0;
    const current: JobRecord = record;
    const outcomes = await Promise.allSettled(steps.map((step) => take(services, current, step)));
    const troubles = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason as unknown] : []));
    if (troubles.length > 0) throw troubles.find((trouble) => trouble instanceof LeaseLost) ?? troubles[0];
    record = await loadJob(db, jobId);
    if (!record || record.epoch !== epoch || isEnded(record.job)) return null;
  }
  throw new Error(`job ${jobId} did not come to rest in ${MOST_TURNS} turns`);
}

async function take(services: Services, record: JobRecord, step: Step): Promise<void> {
  const { id } = record.job;
  const at = record.now;
  switch (step.type) {
    case "claim":
      await learn(services, id, [{ type: "claimed", at }]);
      return;
    case "expire":
      await learn(services, id, [{ type: "expired", at }]);
      return;
    case "submit":
      return submit(services, record, step.variant, step.run);
    case "abandon":
      // A decision, not a fact: who has lost the lease may be looking at another sending by now.
      await learn(services, id, [{ type: "abandoned", at, runId: step.run.id }], { epoch: record.epoch });
      await services.reach("abandon.recorded", id);
      return;
    case "cancel":
      if (!step.run.providerRunId) throw new Error(`run ${step.run.id} is running without a provider's id`);
      await providerOf(services, step.run.provider).cancel({
        providerRunId: step.run.providerRunId,
        model: step.run.model,
        isTraining: step.run.destination !== null,
      });
      await services.reach("cancel.sent", id);
      await learn(services, id, [{ type: "cancel_sent", at: timeBy(record), runId: step.run.id }]);
      return;
    case "store":
      return store(services, record, step.run);
  }
}
