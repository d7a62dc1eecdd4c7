import { createHash } from "node:crypto";
import { type Asset, findInput, presentable } from "../db/assets.ts";
import { type JobRecord, timeBy } from "../db/jobs.ts";
import { findTrainedModel, weightsOf } from "../db/trained-models.ts";
import { failure } from "../domain/failure.ts";
import { kindOf } from "../domain/kinds/all.ts";
import type { TrainedRef } from "../domain/kinds/kind.ts";
import { ARCHIVE_FIELD } from "../domain/kinds/training.ts";
import { type Declined, OfferRefused, type Postponed, type Provider } from "../domain/provider.ts";
import { isSafe } from "../domain/request.ts";
import type { Choice } from "../domain/routing.ts";
import type { Run } from "../domain/run.ts";
import { asOrdered } from "../domain/suffix.ts";
import { FileNotFound, readAll } from "../storage/storage.ts";
import { ensureArchive } from "./archive.ts";
import type { Services } from "./services.ts";

const FILE_URL_SECONDS = 24 * 3_600;
/** An order of an older job is prepared anew at every try, so that its addresses hold for as long again at least. */
const RENEW_AFTER_MS = 12 * 3_600_000;

/** What is ordered, in the words of the account that it is ordered from. */
export type Ordered = Pick<Run, "id" | "provider" | "model" | "version" | "input" | "destination">;

export interface OrderPlan {
  readonly id: string;
  readonly variant: number;
  readonly trained: Trained | null;
  /** It was put off before: what was prepared for the same route is taken again. */
  readonly postponed: Run | null;
}

/**
 * Writes the order for one choice: files are made reachable, the version and a training's destination are looked up. All
 * of it may be repeated. What can never be offered is declined. Throws ProviderUnreachable.
 */
export async function makeOrder(
  services: Services,
  record: JobRecord,
  choice: Choice,
  plan: OrderPlan,
): Promise<Ordered | Declined | Postponed> {
  try {
    return await writeOrder(services, record, choice, plan);
  } catch (error) {
    if (error instanceof OfferRefused) return { outcome: "declined", failure: failure(error.code, error.message) };
    if (error instanceof FileNotFound) return { outcome: "declined", failure: failure("input_missing", error.message) };
    throw error;
  }
}

async function writeOrder(
  services: Services,
  record: JobRecord,
  { provider, model, route }: Choice,
  { id, variant, trained, postponed }: OrderPlan,
): Promise<Ordered | Declined | Postponed> {
  const before = postponed && isFor(postponed, provider, route.model) ? postponed : null;
  const destination = model.limits.trains ? await destinationAt(provider, record, before) : null;
  if (destination !== null && typeof destination !== "string") return destination;
  // It may be without a version because the provider could not be asked for one.
  const resolved = before?.version ? null : await provider.resolve(route.model);
  if (resolved && resolved.outcome !== "resolved") return resolved;
  const version = resolved ? resolved.version : (before?.version ?? null);
  const place = { id, provider: provider.name, model: route.model, version, destination };
  const isFresh = timeBy(record).getTime() - record.createdAt.getTime() < RENEW_AFTER_MS;
  if (before && isFresh) return { ...place, input: before.input };
  const ask = kindOf(record.kind).ask(asOrdered(record.input), model, {
    variant,
    seed: seedOf(record.input, variant, id),
    fileUrls: await offerFiles(services, provider, record, id),
    trained: trained && (await refOf(services, provider, trained)),
    safety: isSafe(record.input),
  });
  return { ...place, input: route.input(ask) };
}

/** What was put off before anything was prepared has no input yet. */
const isFor = (run: Run, provider: Provider, model: string) =>
  run.provider === provider.name && run.model === model && Object.keys(run.input).length > 0;

async function destinationAt(
  provider: Provider,
  record: JobRecord,
  before: Run | null,
): Promise<string | Declined | Postponed> {
  if (before?.destination) return before.destination;
  const destination = await provider.destination(destinationOf(record));
  return destination.outcome === "destination" ? destination.model : destination;
}

/** Users share them: an account may have 1,000 models, and each training is a version of its own. */
const DESTINATIONS_OF_AN_APP = 20;

function destinationOf({ appId, userId }: JobRecord): string {
  const place = createHash("sha256").update(userId).digest().readUInt32BE(0) % DESTINATIONS_OF_AN_APP;
  return `${appId.slice(0, 30)}-${place}`;
}

/** The user's trained model: in our store, or with the one account that made it and keeps it to itself. */
export type Trained = { readonly triggerWord: string } & (
  | { readonly weights: Asset; readonly filename: string; readonly keeper: null }
  | { readonly name: string; readonly keeper: string }
);

/** What it was at acceptance it may have ceased to be. Null: none is wanted. */
export async function trainedFor(
  services: Services,
  { kind, input, appId, userId }: JobRecord,
): Promise<Trained | Declined | null> {
  const id = kindOf(kind).trainedModel(input);
  if (id === null) return null;
  const gone = (detail: string): Declined => ({ outcome: "declined", failure: failure("model_not_found", detail) });
  const trained = await findTrainedModel(services.db, appId, userId, id);
  if (trained?.status !== "ready") return gone(`the trained model ${id} is ${trained?.status ?? "deleted"}`);
  const isFlux = trained.family === "flux";
  const weights = await weightsOf(services.db, id, isFlux ? "lora" : "weights");
  const { triggerWord, provider: keeper, providerVersion } = trained;
  if (weights) return { triggerWord, weights, filename: `${id}.${isFlux ? "safetensors" : "tar"}`, keeper: null };
  // The provider kept the weights to itself: only there can it be used, by the provider's own name for it.
  if (isFlux && providerVersion && keeper) return { triggerWord, name: providerVersion.replace(":", "/"), keeper };
  return gone(`the trained model ${id} has no weights that could be loaded`);
}

async function refOf(services: Services, provider: Provider, trained: Trained): Promise<TrainedRef> {
  const { triggerWord } = trained;
  if (trained.keeper !== null) return { weights: trained.name, triggerWord };
  return { weights: await offerAsset(services, provider, trained.weights, trained.filename), triggerWord };
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
    if (!asset) throw new FileNotFound(`The input ${assetId} of job ${record.job.id} is gone.`);
    const file = presentable(asset);
    const name = `${field}.${file.storageKey.split(".").at(-1)}`;
    return [field, await offerAsset(services, provider, file, name)] as const;
  });
  return Object.fromEntries(await Promise.all(offered));
}

type Offered = Pick<Asset, "storageKey" | "contentType" | "bytes">;

/** The store is asked first: a signed address of a file that is gone would be paid for at the provider. */
async function offerAsset(services: Services, provider: Provider, asset: Offered, filename: string): Promise<string> {
  const { storageKey, contentType, bytes } = asset;
  if (!(await services.storage.exists(storageKey))) throw new FileNotFound(`There is no file ${storageKey}.`);
  const url = await services.storage.url(storageKey, FILE_URL_SECONDS);
  return provider.offer({ url, filename, contentType, bytes, read: () => readAll(services.storage, storageKey) });
}

/**
 * The caller's seed of the variant, or his seed plus the variant, or 31 bits of the run's own id: random enough for the
 * model, and a marker by which the run can be found in the provider's list when its answer was lost.
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
