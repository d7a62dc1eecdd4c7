import { createHash } from "node:crypto";
import { v7 as uuidv7 } from "uuid";
import { type Asset, findInput } from "../db/assets.ts";
import { suspectRoute } from "../db/catalogue-state.ts";
import { type JobRecord, timeBy } from "../db/jobs.ts";
import { findTrainedModel, weightsOf } from "../db/trained-models.ts";
import { SEND_WINDOW_MS } from "../domain/absence.ts";
import { failure } from "../domain/failure.ts";
import type { Event } from "../domain/job.ts";
import { kindOf } from "../domain/kinds/all.ts";
import type { TrainedRef } from "../domain/kinds/kind.ts";
import { ARCHIVE_FIELD } from "../domain/kinds/training.ts";
import { lookDelayMs } from "../domain/pacing.ts";
import type { Answer, Declined, Order, Postponed, Provider } from "../domain/provider.ts";
import { choose, modelOfRun } from "../domain/routing.ts";
import type { Run } from "../domain/run.ts";
import { learn } from "../learn.ts";
import { readAll } from "../storage/storage.ts";
import { ensureArchive } from "./archive.ts";
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
  const prepared = postponed
    ? await prepareAgain(services, record, postponed)
    : await prepare(services, record, variant);
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
  if (refusal) await suspect(services, record, run.model, prepared.provider, refusal);
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
  const model = modelOfRun(provider.api, run)?.model ?? null;
  const lookAt = new Date(now.getTime() + lookDelayMs(0, services.webhookUrl !== null, model));
  await learn(
    services,
    record.job.id,
    [toEvent(answer, run.id, now, record.createdAt)],
    answer.outcome === "submitted" ? { lookAt } : {},
  );
  await services.reach("submit.recorded", record.job.id);
  await suspect(services, record, run.model, provider, answer);
}

/** The catalogue asks soon whether the model is there at all. */
async function suspect(
  { db, logger }: Services,
  { kind }: JobRecord,
  model: string,
  { name: provider }: Provider,
  answer: Answer,
): Promise<void> {
  if (answer.outcome !== "declined" || answer.failure.code !== "model_not_found") return;
  await suspectRoute(db, { provider, model, isTraining: kind === "training" }).catch((error: unknown) =>
    logger.warn({ err: error, provider, model }, "could not suspect the model: it is checked once a day"),
  );
}

interface Prepared {
  readonly provider: Provider;
  readonly run: Pick<Run, "id" | "provider" | "model" | "version" | "input" | "destination">;
  readonly timeoutSeconds: number;
  readonly refusal: Declined | Postponed | null;
}

async function prepare(services: Services, record: JobRecord, variant: number): Promise<Prepared> {
  const choice = choose(services.providers, record.kind, record.model);
  const id = uuidv7();
  const refused = (provider: Provider, model: string, refusal: Declined | Postponed): Prepared => ({
    provider,
    run: { id, provider: provider.name, model, version: null, input: {}, destination: null },
    timeoutSeconds: 0,
    refusal,
  });
  if (!choice) {
    const detail = `no provider of this deployment serves ${record.kind} with ${record.model}`;
    const why = failure("model_not_found", detail);
    return refused(services.providers[0], record.model, { outcome: "declined", failure: why });
  }
  const { provider, model, route } = choice;
  const trained = await trainedFor(services, provider, record);
  if (trained && "outcome" in trained) return refused(provider, route.model, trained);
  const destination = model.limits.trains ? await provider.destination(destinationOf(record)) : null;
  if (destination?.outcome === "declined") return refused(provider, route.model, destination);
  const resolved = await provider.resolve(route.model);
  const fileUrls = await offerFiles(services, provider, record, id);
  const ask = kindOf(record.kind).ask(record.input, model, {
    variant,
    seed: seedOf(record.input, variant, id),
    fileUrls,
    trained,
    safety: isSafe(record.input),
  });
  const version = resolved.outcome === "resolved" ? resolved.version : null;
  return {
    provider,
    run: {
      id,
      provider: provider.name,
      model: route.model,
      version,
      input: route.input(ask),
      destination: destination?.outcome === "destination" ? destination.model : null,
    },
    timeoutSeconds: model.timeoutSeconds,
    // Postponed for whichever is not known yet: it is asked for again before the order is sent.
    refusal: destination?.outcome === "postponed" ? destination : resolved.outcome === "resolved" ? null : resolved,
  };
}

/** Users share them: an account may have 1,000 models, and each training is a version of its own. */
const DESTINATIONS_OF_AN_APP = 20;

function destinationOf({ appId, userId }: JobRecord): string {
  const place = createHash("sha256").update(userId).digest().readUInt32BE(0) % DESTINATIONS_OF_AN_APP;
  return `${appId.slice(0, 30)}-${place}`;
}

const isSafe = (input: unknown) =>
  !(typeof input === "object" && input !== null && "safety" in input && input.safety === false);

/** The user's trained model, readable for the provider; what it was at acceptance it may have ceased to be. */
async function trainedFor(
  services: Services,
  provider: Provider,
  { kind, input, appId, userId }: JobRecord,
): Promise<TrainedRef | Declined | null> {
  const id = kindOf(kind).trainedModel(input);
  if (id === null) return null;
  const gone = (detail: string): Declined => ({ outcome: "declined", failure: failure("model_not_found", detail) });
  const trained = await findTrainedModel(services.db, appId, userId, id);
  if (trained?.status !== "ready") return gone(`the trained model ${id} is ${trained?.status ?? "deleted"}`);
  const isFlux = trained.family === "flux";
  const weights = await weightsOf(services.db, id, isFlux ? "lora" : "weights");
  const { triggerWord, providerVersion } = trained;
  if (weights) {
    const filename = `${id}.${isFlux ? "safetensors" : "tar"}`;
    return { weights: await offerAsset(services, provider, weights, filename), triggerWord };
  }
  // The provider kept the weights to itself: only there can it be used, by the provider's own name for it.
  if (isFlux && providerVersion && trained.provider === provider.name)
    return { weights: providerVersion.replace(":", "/"), triggerWord };
  return gone(`the trained model ${id} has no weights that ${provider.name} could load`);
}

/** A postponed order is sent as it was committed the first time. */
async function prepareAgain(services: Services, record: JobRecord, postponed: Run): Promise<Prepared> {
  const provider = providerOf(services, postponed.provider);
  let run = postponed;
  // Without a destination it would be sent as something else than a training.
  if (record.kind === "training" && run.destination === null) {
    const destination = await provider.destination(destinationOf(record));
    if (destination.outcome !== "destination") return { provider, run, timeoutSeconds: 0, refusal: destination };
    run = { ...run, destination: destination.model };
  }
  const known = modelOfRun(provider.api, run);
  const timeoutSeconds = known?.model.timeoutSeconds ?? 300;
  if (run.version !== null) return { provider, run, timeoutSeconds, refusal: null };
  // It may be without a version because the provider could not be asked for one.
  const resolved = await provider.resolve(run.model);
  if (resolved.outcome !== "resolved") return { provider, run, timeoutSeconds, refusal: resolved };
  return { provider, run: { ...run, version: resolved.version }, timeoutSeconds, refusal: null };
}

async function offerFiles(
  services: Services,
  provider: Provider,
  record: JobRecord,
  runId: string,
): Promise<Record<string, string>> {
  if (record.kind === "training") {
    const archive = await ensureArchive(services, record);
    const url = await offerAsset(services, provider, archive, "photos.zip");
    // Not sent by whoever fetches it: by it a training whose answer was lost is known among those for the same photos.
    return { [ARCHIVE_FIELD]: `${url}#${runId}` };
  }
  const offered = Object.entries(record.files).map(async ([field, assetId]) => {
    const asset = await findInput(services.db, record.appId, assetId);
    if (!asset) throw new Error(`input ${assetId} of job ${record.job.id} is gone`);
    const name = `${field}.${asset.storageKey.split(".").at(-1)}`;
    return [field, await offerAsset(services, provider, asset, name)] as const;
  });
  return Object.fromEntries(await Promise.all(offered));
}

async function offerAsset(services: Services, provider: Provider, asset: Asset, filename: string): Promise<string> {
  const { storageKey, contentType, bytes } = asset;
  const url = await services.storage.url(storageKey, FILE_URL_SECONDS);
  return provider.offer({ url, filename, contentType, bytes, read: () => readAll(services.storage, storageKey) });
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
 * The caller's seed of the variant, or his seed plus the variant, or 31 bits of the run's own id: random enough for the model, and a marker by
 * which the run can be found in the provider's list when its answer was lost.
 */
function seedOf(input: unknown, variant: number, runId: string): number {
  const { seed, seeds } = (typeof input === "object" && input !== null ? input : {}) as {
    readonly seed?: unknown;
    readonly seeds?: unknown;
  };
  const own = Array.isArray(seeds) ? seeds[variant] : undefined;
  if (typeof own === "number") return own;
  if (typeof seed === "number") return seed + variant;
  return Number.parseInt(runId.slice(-8), 16) & 0x7fff_ffff;
}

export function providerOf(services: Pick<Services, "providers">, name: string): Provider {
  const provider = services.providers.find((each) => each.name === name);
  if (!provider)
    throw new Error(`this deployment has no provider ${name} any more: configure it until its runs have ended`);
  return provider;
}
