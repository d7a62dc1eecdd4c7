import { v7 as uuidv7 } from "uuid";
import { findInput } from "../db/assets.ts";
import { type JobRecord, timeBy } from "../db/jobs.ts";
import { SEND_WINDOW_MS } from "../domain/absence.ts";
import { failure } from "../domain/failure.ts";
import type { Event } from "../domain/job.ts";
import { kindOf } from "../domain/kinds/all.ts";
import { lookDelayMs } from "../domain/pacing.ts";
import type { Answer, Declined, Order, Postponed, Provider } from "../domain/provider.ts";
import { choose, modelOfRun } from "../domain/routing.ts";
import type { Run } from "../domain/run.ts";
import { learn } from "../learn.ts";
import type { Services } from "./services.ts";

/** After the provider was told to stop: until then it may still report an end. */
const EXPIRY_SLACK_MS = 60_000;
/** Files are readable by the provider for longer than any job may wait. */
const FILE_URL_SECONDS = 24 * 3_600;

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
  const { logger } = services;
  const prepared = postponed ? await prepareAgain(services, postponed) : await prepare(services, record, variant);
  const { provider, refusal } = prepared;
  await services.reach("submit.prepared", record.job.id);
  const at = timeBy(record);
  const run = {
    ...prepared.run,
    variant,
    sendBefore: new Date(at.getTime() + SEND_WINDOW_MS),
    expiresAt: new Date(at.getTime() + prepared.timeoutSeconds * 1_000 + EXPIRY_SLACK_MS),
  };
  const intended: Event = { type: "intended", at, run };
  // What cannot be ordered at all is written down as an order that was declined, and nothing is sent.
  const events = refusal ? [intended, toEvent(refusal, run.id, at, record.createdAt)] : [intended];
  const committed = await learn(services, record.job.id, events, { epoch: record.epoch });
  if (!committed.changed || refusal) return;

  await services.reach("submit.intended", record.job.id);
  // The send window is the database's; this machine's clock may be another.
  const sendBefore = new Date(committed.readOn + run.sendBefore.getTime() - committed.now.getTime());
  const answer = await provider.submit(toOrder(services, run, sendBefore, prepared.timeoutSeconds));
  await services.reach("submit.answered", record.job.id);
  logger.info(
    { job_id: record.job.id, run_id: run.id, variant, provider: provider.name, outcome: answer.outcome },
    "submitted",
  );
  services.metrics.submissions.inc({ provider: provider.name, outcome: answer.outcome });

  const now = timeBy(committed);
  const model = modelOfRun(provider.api, run.model)?.model ?? null;
  const lookAt = new Date(now.getTime() + lookDelayMs(0, services.webhookUrl !== null, model));
  await learn(
    services,
    record.job.id,
    [toEvent(answer, run.id, now, record.createdAt)],
    answer.outcome === "submitted" ? { lookAt } : {},
  );
  await services.reach("submit.recorded", record.job.id);
}

interface Prepared {
  readonly provider: Provider;
  readonly run: Pick<Run, "id" | "provider" | "model" | "version" | "input">;
  readonly timeoutSeconds: number;
  readonly refusal: Declined | Postponed | null;
}

async function prepare(services: Services, record: JobRecord, variant: number): Promise<Prepared> {
  const choice = choose(services.providers, record.kind, record.model);
  const id = uuidv7();
  if (!choice) {
    const why = failure("model_not_found", `no provider of this deployment serves ${record.kind} with ${record.model}`);
    const run = { id, provider: services.providers[0].name, model: record.model, version: null, input: {} };
    return { provider: services.providers[0], run, timeoutSeconds: 0, refusal: { outcome: "declined", failure: why } };
  }
  const { provider, model, route } = choice;
  const kind = kindOf(record.kind);
  const resolved = await provider.resolve(route.model);
  const fileUrls = await offerFiles(services, provider, record);
  const input = kind.order(record.input, model, { variant, seed: seedOf(record.input, variant, id), fileUrls });
  const version = resolved.outcome === "resolved" ? resolved.version : null;
  return {
    provider,
    run: { id, provider: provider.name, model: route.model, version, input },
    timeoutSeconds: model.timeoutSeconds,
    refusal: resolved.outcome === "resolved" ? null : resolved,
  };
}

/** A postponed order is sent as it was committed the first time. */
async function prepareAgain(services: Services, run: Run): Promise<Prepared> {
  const provider = providerOf(services, run.provider);
  const known = modelOfRun(provider.api, run.model);
  const timeoutSeconds = known?.model.timeoutSeconds ?? 300;
  if (run.version !== null) return { provider, run, timeoutSeconds, refusal: null };
  // It may be without a version because the provider could not be asked for one.
  const resolved = await provider.resolve(run.model);
  if (resolved.outcome !== "resolved") return { provider, run, timeoutSeconds, refusal: resolved };
  return { provider, run: { ...run, version: resolved.version }, timeoutSeconds, refusal: null };
}

async function offerFiles(services: Services, provider: Provider, record: JobRecord): Promise<Record<string, string>> {
  const offered = Object.entries(record.files).map(async ([field, assetId]) => {
    const asset = await findInput(services.db, record.appId, assetId);
    if (!asset) throw new Error(`input ${assetId} of job ${record.job.id} is gone`);
    const url = await provider.offer({
      url: await services.storage.url(asset.storageKey, FILE_URL_SECONDS),
      filename: `${field}.${asset.storageKey.split(".").at(-1)}`,
      contentType: asset.contentType,
      read: async () => Buffer.concat(await (await services.storage.get(asset.storageKey)).body.toArray()),
    });
    return [field, url] as const;
  });
  return Object.fromEntries(await Promise.all(offered));
}

/** What goes over the wire; the same from the same run, so that a list can be searched for it later. */
export function toOrder(
  services: Pick<Services, "webhookUrl">,
  run: Pick<Run, "id" | "provider" | "model" | "version" | "input">,
  sendBefore: Date,
  cancelAfterSeconds: number,
): Order {
  return {
    runId: run.id,
    model: run.model,
    version: run.version,
    input: run.input,
    webhookUrl: services.webhookUrl?.(run.provider, run.id) ?? null,
    sendBefore,
    cancelAfterSeconds,
  };
}

/** The longer a job has been put off, the more patiently it is tried: a provider that is down is not hammered. */
const MOST_POSTPONE_MS = 60_000;

function toEvent(answer: Answer, runId: string, at: Date, createdAt: Date): Event {
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
        until: new Date(at.getTime() + Math.max(answer.retryAfterMs, patience(at, createdAt))),
        failure: answer.failure,
      };
    case "lost":
      return { type: "lost", at, runId, detail: answer.detail };
  }
}

function patience(at: Date, createdAt: Date): number {
  return Math.min(MOST_POSTPONE_MS, (at.getTime() - createdAt.getTime()) / 8);
}

/**
 * The caller's seed plus the variant, or 31 bits of the run's own id: random enough for the model, and a marker by
 * which the run can be found in the provider's list when its answer was lost.
 */
function seedOf(input: unknown, variant: number, runId: string): number {
  const wanted = typeof input === "object" && input !== null && "seed" in input ? input.seed : undefined;
  if (typeof wanted === "number") return wanted + variant;
  return Number.parseInt(runId.slice(-8), 16) & 0x7fff_ffff;
}

export function providerOf(services: Pick<Services, "providers">, name: string): Provider {
  const provider = services.providers.find((each) => each.name === name);
  if (!provider)
    throw new Error(`this deployment has no provider ${name} any more: configure it until its runs have ended`);
  return provider;
}
