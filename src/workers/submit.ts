import { setTimeout as wait } from "node:timers/promises";
import { type ApplyOptions, type JobRecord, timeBy } from "../db/jobs.ts";
import { findRunByProviderId } from "../db/looks.ts";
import { quietAfter, SEND_WINDOW_MS } from "../domain/absence.ts";
import type { Event } from "../domain/job.ts";
import { lookDelayMs } from "../domain/pacing.ts";
import type { Answer, Completed, Order } from "../domain/provider.ts";
import { type Account, modelOfRun } from "../domain/routing.ts";
import type { Run } from "../domain/run.ts";
import { learn } from "../learn.ts";
import { toEndEvents } from "./ends.ts";
import { noteOf, type Prepared, prepare, rerouted, unsentAt } from "./preparation.ts";
import type { Services } from "./services.ts";

/** After the provider was told to stop: until then it may still report an end. */
const EXPIRY_SLACK_MS = 60_000;

/**
 * Buys one variant: the order is committed as intent, sent exactly once, and the answer is recorded. Whoever finds the
 * intent committed by somebody else does not send. If this process dies in between, the intent stays as `submitting`
 * and becomes `unknown`, never a second send.
 */
export async function submit(
  services: Services,
  record: JobRecord,
  variant: number,
  postponed: Run | null,
): Promise<void> {
  const prepared = await prepare(services, record, variant, postponed);
  try {
    await send(services, record, variant, prepared);
  } finally {
    prepared.leave();
  }
}

async function send(services: Services, record: JobRecord, variant: number, prepared: Prepared): Promise<void> {
  const { logger } = services;
  const { provider, refusal } = prepared;
  await services.reach("submit.prepared", record.job.id);
  const at = timeBy(record);
  const sendBy = new Date(at.getTime() + SEND_WINDOW_MS);
  const run = {
    ...prepared.run,
    variant,
    sendBefore: sendBy,
    // A call that is the whole run is broken off when the run's own time is over.
    quietFrom: quietAfter(sendBy, Math.min(provider.submitMs, prepared.timeoutSeconds * 1_000)),
    expiresAt: new Date(at.getTime() + prepared.timeoutSeconds * 1_000 + EXPIRY_SLACK_MS),
  };
  const intended: Event = { type: "intended", at, run };
  // What cannot be ordered at all is written down as an order that was declined, and nothing is sent.
  const events = refusal ? [intended, toEvent(refusal, run.id, at)] : [intended];
  const committed = await learn(services, record.job.id, events, { epoch: record.epoch });
  if (refusal) return;
  if (!committed.changed) return unsentAt(services, provider.name, run.id);

  await services.reach("submit.intended", record.job.id);
  const began = performance.now();
  // The send window is the database's; this machine's clock may be another.
  const sendBefore = new Date(committed.readOn + run.sendBefore.getTime() - committed.now.getTime());
  const answer = await provider.submit(toOrder(services, run, sendBefore, prepared.timeoutSeconds));
  prepared.leave();
  await services.reach("submit.answered", record.job.id);
  logger.info(
    { job_id: record.job.id, run_id: run.id, variant, provider: provider.name, outcome: answer.outcome },
    "submitted",
  );
  services.metrics.submissions.inc({ provider: provider.name, outcome: answer.outcome });

  const tookMs = performance.now() - began;
  const asked = { provider, model: run.model, runId: run.id };
  const isTaken = answer.outcome === "submitted" || answer.outcome === "completed";
  // Others are about to be sent there too. What was taken is recorded first: its id must not be lost.
  if (!isTaken) await noteOf(services, record, asked, answer);
  const now = timeBy(committed);
  const sold = modelOfRun(provider, run);
  const lookAt = new Date(now.getTime() + lookDelayMs(0, services.webhookUrl !== null, sold?.model ?? null));
  // In one go: a crash in between would leave a run that nobody can be asked about.
  const facts =
    answer.outcome === "completed"
      ? await toEndEvents(
          services,
          { jobId: record.job.id, runId: run.id, input: run.input, route: sold?.route ?? null },
          now,
          tookMs,
          answer,
        )
      : [toEvent(rerouted(record, answer, prepared), run.id, now)];
  if (isTaken)
    await recordBought(services, record.job.id, run, facts, answer.outcome === "submitted" ? { lookAt } : {});
  else await learn(services, record.job.id, facts);
  await services.reach("submit.recorded", record.job.id);
  if (isTaken) await noteOf(services, record, asked, answer);
}

/** Between the attempts to write down what was bought; half a minute in all. */
const RECORD_PAUSES_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000];

/**
 * Told until it is written down: some providers never tell again what was bought, or for whom. That it may have been
 * written already does no harm, for what was bought is ordered no second time; an order that was put off may be, and is
 * told once.
 */
async function recordBought(
  services: Services,
  jobId: string,
  run: Pick<Run, "id" | "provider">,
  facts: readonly Event[],
  options: ApplyOptions,
): Promise<void> {
  for (const pauseMs of [...RECORD_PAUSES_MS, null]) {
    try {
      await learn(services, jobId, await underOwnName(services, run, facts), options);
      return;
    } catch (error) {
      if (pauseMs === null) throw error;
      services.logger.warn({ err: error, job_id: jobId, run_id: run.id }, "could not record what was bought");
      await wait(pauseMs);
    }
  }
}

/** The name of a call that is over is nothing to ask by. Where a proxy gave it to another one too, the run's id will do. */
async function underOwnName(
  { db }: Services,
  { id, provider }: Pick<Run, "id" | "provider">,
  facts: readonly Event[],
): Promise<readonly Event[]> {
  const [first] = facts;
  if (facts.length === 1 || first?.type !== "submitted") return facts;
  const owner = await findRunByProviderId(db, provider, first.providerRunId);
  if (owner === null || owner === id) return facts;
  return facts.map((fact) => ("providerRunId" in fact ? { ...fact, providerRunId: id } : fact));
}

/** What goes over the wire; the same from the same run, so that a list can be searched for it later. */
export function toOrder(
  services: Pick<Services, "webhookUrl">,
  run: Pick<Run, "id" | "provider" | "model" | "version" | "input" | "destination">,
  sendBefore: Date,
  cancelAfterSeconds: number,
): Order {
  return {
    runId: run.id,
    model: run.model,
    version: run.version,
    input: run.input,
    destination: run.destination,
    webhookUrl: services.webhookUrl?.(run.provider, run.id) ?? null,
    sendBefore,
    cancelAfterSeconds,
  };
}

function toEvent(answer: Exclude<Answer, Completed>, runId: string, at: Date): Event {
  switch (answer.outcome) {
    case "submitted":
      return { type: "submitted", at, runId, providerRunId: answer.providerRunId };
    case "declined":
      return { type: "declined", at, runId, failure: answer.failure };
    case "postponed":
      return {
        type: "postponed",
        at,
        runId,
        until: new Date(at.getTime() + answer.retryAfterMs),
        failure: answer.failure,
      };
    case "lost":
      return { type: "lost", at, runId, detail: answer.detail };
  }
}

export function providerOf(services: Pick<Services, "providers">, name: string): Account {
  const provider = services.providers.find((each) => each.name === name);
  if (!provider)
    throw new Error(`this deployment has no provider ${name} any more: configure it until its runs have ended`);
  return provider;
}
