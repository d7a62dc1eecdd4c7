import { readFileSync } from "node:fs";
import { type Logger, pino } from "pino";
import { apps } from "../apps/all.ts";
import { type AccountPlan, readAccounts } from "./accounts.ts";
import { makeAccept } from "./api/accepting.ts";
import { type ApiServices, makeApp } from "./api/app.ts";
import { makeAuthenticate } from "./api/auth.ts";
import { readCatalogue } from "./api/catalogue-state.ts";
import { watchChanges } from "./api/changes.ts";
import { maskPath } from "./api/mask-path.ts";
import { webhookPath } from "./api/webhooks.ts";
import { callbackSecret } from "./callback-signing.ts";
import { type Config, ConfigError } from "./config.ts";
import { connect, type Db, disconnect } from "./db/client.ts";
import { pendingMigrations } from "./db/migrate.ts";
import { type App, routingOf } from "./domain/app.ts";
import { appsProblems } from "./domain/app-check.ts";
import type { KindName } from "./domain/kinds/kind.ts";
import type { Account, Providers, Routing } from "./domain/routing.ts";
import { makeReach, type Reach } from "./fault-points.ts";
import { type Metrics, makeMetrics, WORKERS_ONLY } from "./metrics.ts";
import { makeProviderLog, type ProviderLog } from "./provider-log.ts";
import { ADAPTERS } from "./providers/adapters.ts";
import { type Backend, postgresBackend, redisBackend } from "./queue/backend.ts";
import { makeBoard } from "./queue/board.ts";
import { openQueues, type Queues } from "./queue/queue.ts";
import { readRoutingNotes } from "./routing-notes.ts";
import { type FetchFile, type FetchToFile, makeGuardedDownload, makeGuardedFetch } from "./storage/guarded-fetch.ts";
import { makeGuardedPost } from "./storage/guarded-post.ts";
import { type LocalStorage, makeLocalStorage } from "./storage/local.ts";
import { makeS3Storage } from "./storage/s3.ts";
import { clearScratch } from "./storage/scratch.ts";
import type { Storage } from "./storage/storage.ts";
import { openHealthPort } from "./workers/health.ts";
import { drainMs, startWorker } from "./workers/worker.ts";

/** Programs as values: main runs them with the environment, tests with whatever they like. */
export interface Program {
  readonly url: string;
  /** How long `stop` may take, in ms; 9,000 where it is not said. */
  readonly stopMs?: number;
  /** Finishes what is under way and closes everything. Repeating is harmless. */
  stop(): Promise<void>;
}

interface Parts {
  readonly db: Db;
  readonly backend: Backend;
  readonly queues: Queues;
  readonly storage: Storage | LocalStorage;
  readonly providers: Providers;
  /** Who is asked first for a kind, unless an app or a plan says otherwise. */
  readonly preference: Readonly<Record<KindName, Routing>>;
  /** What of the providers is missing, and what works without it. */
  readonly notes: readonly string[];
  readonly providerLog: ProviderLog;
  readonly fetchFile: FetchFile;
  readonly fetchToFile: FetchToFile;
  readonly metrics: Metrics;
  readonly reach: Reach;
  readonly logger: Logger;
  close(): Promise<void>;
}

export const VERSION = readVersion();

/** Less than the 9 s that main gives a program to stop. */
const DRAIN_MS = 5_000;

/** The API process. `definitions`: the apps that it serves. */
export async function startApi(
  config: Config,
  logger = makeLogger(config, "api"),
  definitions: readonly App[] = apps,
): Promise<Program> {
  checkApps(definitions, config, logger);
  const parts = makeParts(config, logger, "api");
  const { db, queues } = parts;
  for (const note of parts.notes) logger.warn(note);
  for (const name of WORKERS_ONLY) parts.metrics.registry.removeSingleMetric(name);
  let draining = false;
  const changes = watchChanges(db, logger);
  const services: ApiServices = {
    ...parts,
    apps: definitions,
    catalogue: readCatalogue(db, parts.providers),
    changes,
    accept: makeAccept(parts),
    authenticate: makeAuthenticate(db),
    prefixOf,
    limits: { maxBytes: config.MAX_FILE_BYTES, maxPixels: config.MAX_IMAGE_PIXELS },
    callbackOrigins: config.CALLBACK_ORIGINS,
    jobDeadlineSeconds: config.JOB_DEADLINE_SECONDS,
    signingSecret: config.SIGNING_SECRET,
    publicUrl: config.PUBLIC_URL,
    adminPassword: config.ADMIN_PASSWORD ?? null,
    board: config.ADMIN_PASSWORD ? makeBoard(queues, "/queues") : null,
    version: VERSION,
    draining: () => draining,
  };
  const app = await makeApp(services);
  const url = await app.listen({ host: config.HOST, port: config.PORT });
  return {
    url,
    stop: once(async () => {
      draining = true;
      changes.close();
      // What is being answered is finished; who takes his answer too slowly, or has hung up unheard, is cut off.
      const cut = setTimeout(() => app.server.closeAllConnections(), DRAIN_MS);
      await app.close();
      clearTimeout(cut);
      await parts.close();
    }),
  };
}

/** A worker process with its health port. */
export async function startWorkerProgram(
  config: Config,
  logger = makeLogger(config, "worker"),
  definitions: readonly App[] = apps,
): Promise<Program> {
  checkApps(definitions, config, logger);
  const parts = makeParts(config, logger, "worker");
  // BullMQ retries without a pause on a database that lacks its tables, until memory runs out. A database that cannot
  // be reached is another matter: it is waited for.
  const pending = await pendingMigrations(parts.db).catch(() => []);
  if (pending.length > 0) {
    await parts.close();
    throw new ConfigError([
      `the database lacks ${pending.length} migrations: run \`npm run migrate\` before starting workers`,
    ]);
  }
  await clearScratch().catch((error: unknown) => logger.warn({ err: error }, "old scratch folders stay"));
  let draining = false;
  // Providers call back to https only; otherwise every run is looked at, and the log says so once.
  const webhooks = config.PUBLIC_URL.startsWith("https://");
  logger.info(
    webhooks ? { webhooks: config.PUBLIC_URL } : { webhooks: null },
    webhooks ? "providers call back" : "PUBLIC_URL is not https: providers are asked instead of calling back",
  );
  for (const note of parts.notes) logger.warn(note);
  const worker = startWorker(
    {
      ...parts,
      routingFor: ({ appId, plan, kind, model }) => {
        const app = definitions.find(({ id }) => id === appId);
        return (app && routingOf(app, plan, kind, model)) ?? parts.preference[kind];
      },
      webhookUrl: webhooks
        ? (provider, runId) => `${config.PUBLIC_URL}${webhookPath(config.SIGNING_SECRET, provider, runId)}`
        : null,
      lostAfterMs: config.LOST_AFTER_SECONDS * 1_000,
      maxFileBytes: config.MAX_FILE_BYTES,
      prefixOf,
      post: makeGuardedPost({ allowedOrigins: config.CALLBACK_ORIGINS }),
      callbackSecretOf: (appId) => callbackSecret(config.SIGNING_SECRET, appId),
    },
    parts.backend,
    { kinds: config.WORKER_KINDS, concurrency: config.WORKER_CONCURRENCY },
  );
  const health = await openHealthPort(parts, { host: config.HOST, port: config.HEALTH_PORT, draining: () => draining });
  return {
    url: health.url,
    stopMs: drainMs(parts.providers),
    stop: once(async () => {
      draining = true;
      await worker.drain();
      await health.close();
      await parts.close();
    }),
  };
}

/** What contradicts itself in the apps' files, or asks for accounts in vain, is told now, and not to a user later. */
function checkApps(definitions: readonly App[], config: Config, logger: Pick<Logger, "warn">): void {
  const contradictions = appsProblems(definitions);
  if (contradictions.length > 0) throw new ConfigError(contradictions);
  const { notes, problems } = readRoutingNotes(definitions, readAccounts(config).accounts);
  if (problems.length > 0) throw new ConfigError(problems);
  for (const { text, ...where } of notes) logger.warn(where, text);
}

export function makeLogger(config: Pick<Config, "LOG_LEVEL">, name: string): Logger {
  return pino({
    level: config.LOG_LEVEL,
    base: { process: name, pid: process.pid },
    // A webhook's path holds the run's secret, a file's query its signature.
    serializers: {
      err: (error: unknown) => (error instanceof Error ? discreet(pino.stdSerializers.errWithCause(error)) : error),
      req: (request: { method: string; url: string; id: string }) => ({
        id: request.id,
        method: request.method,
        path: maskPath(request.url),
      }),
    },
  });
}

/**
 * A failed query's error repeats the query and its parameters: prompts, and addresses that open files. What is left
 * says which statement failed where, and why.
 */
function discreet(error: object): object {
  const {
    params: _,
    query: __,
    detail: ___,
    message = "",
    stack = "",
    cause,
    ...members
  } = error as Record<string, unknown>;
  const said = String(message);
  const kept = said.split("\nparams: ", 1)[0] ?? "";
  return {
    ...members,
    message: kept,
    stack: String(stack).replace(said, () => kept),
    ...(typeof cause === "object" && cause !== null ? { cause: discreet(cause) } : {}),
  };
}

export function makeParts(config: Config, logger: Logger, name: string): Parts {
  const db = connect(config.DATABASE_URL, { max: config.DATABASE_POOL, name });
  const backend = config.REDIS_URL
    ? redisBackend(config.REDIS_URL, config.QUEUE_PREFIX)
    : postgresBackend(config.DATABASE_URL);
  const queues = openQueues(backend);
  const { accounts, preference, notes } = readAccounts(config);
  const metrics = makeMetrics();
  const providerLog = makeProviderLog({ db, metrics, logger });
  // The sandbox's outputs lie on loopback, where nothing else is fetched from.
  const guard = {
    allowedOrigins: accounts.flatMap(({ baseUrl }) => (baseUrl === null ? [] : [new URL(baseUrl).origin])),
  };
  return {
    db,
    backend,
    queues,
    storage: makeStorage(config),
    providers: makeProviders(accounts, logger, providerLog),
    preference,
    notes,
    providerLog,
    fetchFile: makeGuardedFetch(guard),
    fetchToFile: makeGuardedDownload(guard),
    metrics,
    reach: makeReach(config.FAULT ?? null),
    logger,
    async close() {
      await providerLog.stop();
      await queues.close();
      await backend.close();
      await disconnect(db);
    },
  };
}

/** An app that is no longer defined keeps the place where its files were by default. */
const prefixOf = (appId: string) => apps.find(({ id }) => id === appId)?.storagePrefix ?? `apps/${appId}`;

function makeStorage(config: Config): Storage | LocalStorage {
  if (config.STORAGE_PROVIDER === "local")
    return makeLocalStorage({
      directory: config.STORAGE_DIR,
      publicUrl: config.PUBLIC_URL,
      secret: config.SIGNING_SECRET,
    });
  const { S3_BUCKET: bucket, S3_ACCESS_KEY_ID: accessKeyId, S3_SECRET_ACCESS_KEY: secretAccessKey } = config;
  if (!bucket || !accessKeyId || !secretAccessKey)
    throw new Error("readConfig lets no s3 storage through without bucket and keys");
  return makeS3Storage({
    bucket,
    accessKeyId,
    secretAccessKey,
    region: config.S3_REGION,
    forcePathStyle: config.S3_FORCE_PATH_STYLE,
    ...(config.S3_ENDPOINT ? { endpoint: config.S3_ENDPOINT } : {}),
  });
}

/** The accounts of this deployment, those that are named first at the front. */
function makeProviders(plans: readonly AccountPlan[], logger: Logger, log: ProviderLog): Providers {
  const [first, ...rest] = plans.map((plan) => makeAccount(plan, logger, log));
  if (!first) throw new Error("readConfig lets nothing through without an account");
  return [first, ...rest];
}

function makeAccount(plan: AccountPlan, logger: Logger, log: ProviderLog): Account {
  const { name, api, token, baseUrl, webhookSecret, endpoints, models, secondMicroUsd } = plan;
  const adapter = ADAPTERS.find((each) => each.api === api);
  if (!adapter) throw new Error(`there is no adapter for ${api}: src/providers/adapters.ts lists them`);
  const provider = adapter.make({
    name,
    token,
    baseUrl: baseUrl ?? adapter.baseUrl,
    onCall: log.listen(name, [token, ...(webhookSecret === null ? [] : [webhookSecret])]),
    onStrange: (what) => logger.warn({ provider: name, what }, "the provider said something unknown"),
    ...(webhookSecret === null ? {} : { webhookSecret }),
    ...(endpoints === null ? {} : { endpoints }),
  });
  return {
    ...log.attribute(provider),
    ...(baseUrl === null && adapter.statusPage !== undefined ? { statusPage: adapter.statusPage } : {}),
    ...(models === undefined ? {} : { models }),
    ...(secondMicroUsd === undefined ? {} : { secondMicroUsd }),
  };
}

function once(stop: () => Promise<void>): () => Promise<void> {
  let stopped: Promise<void> | null = null;
  return () => {
    stopped ??= stop();
    return stopped;
  };
}

/** package.json lies beside `src/`, or one level further up when built into `dist/`. */
function readVersion(): string {
  for (const candidate of ["../package.json", "../../package.json"]) {
    try {
      return JSON.parse(readFileSync(new URL(candidate, import.meta.url), "utf8")).version;
    } catch {
      // Not there: the other one.
    }
  }
  throw new Error("package.json is missing beside src/ or dist/");
}
