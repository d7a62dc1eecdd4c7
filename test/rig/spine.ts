import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { type Sandbox, startSandbox } from "../../sandbox/sandbox.ts";
import { makeLogger, type Program, startApi, startWorkerProgram } from "../../src/compose.ts";
import { type Config, readConfig } from "../../src/config.ts";
import { connect, type Db, disconnect } from "../../src/db/client.ts";
import { ledgerDrift } from "../../src/db/credits.ts";
import { freePort } from "../../src/db/embedded.ts";
import { createKey } from "../../src/db/keys.ts";
import { prepareDatabase } from "../../src/dev.ts";
import type { App } from "../../src/domain/app.ts";
import type { JobJson } from "../../src/job-json.ts";
import { freshDatabase } from "./database.ts";
import { redisPrefix, redisUrl } from "./redis.ts";

/** Everything of one deployment in this process, with a database of its own. */
export interface Spine {
  readonly api: Program;
  readonly sandbox: Sandbox;
  readonly db: Db;
  /** For looking into the tables. */
  readonly sql: postgres.Sql;
  readonly config: Config;
  readonly key: string;
  /** A new key of any app. */
  keyFor(appId: string): Promise<string>;
  readonly workers: Program[];
  startWorker(env?: Record<string, string>): Promise<Program>;
  call(method: string, path: string, options?: CallOptions): Promise<Answer>;
  /** Submits a job and expects it to be accepted. */
  submit(body: Record<string, unknown>, key?: string): Promise<JobJson & { balance: { available: number } }>;
  /** Asks until the job has ended, at most `ms`. */
  ended(id: string, ms?: number): Promise<JobJson>;
  /** Asks until `what` of the job is true, at most `ms`. */
  until(id: string, what: (job: JobJson) => boolean, ms?: number): Promise<JobJson>;
  /** Everything that is written about a job, and what a caller sees of it but for the signatures in its addresses. */
  story(id: string): Promise<{ json: unknown; tables: Record<string, unknown>[][] }>;
  /** Fails unless the money and the purchases add up: what must hold after every test. */
  audit(): Promise<{ drift: number; unsettled: number; unexplainedRuns: string[] }>;
  stop(): Promise<void>;
}

export interface CallOptions {
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
  /** Instead of the app's own; null: none. */
  readonly key?: string | null;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: a test reads what a caller would see, and asserts it.
  readonly body: any;
}

export interface SpineOptions {
  readonly workers?: number;
  readonly env?: Record<string, string>;
  readonly speed?: number;
  /** The provider calls back: the public address is https, and the sandbox delivers to the API behind it. */
  readonly webhooks?: boolean;
  /** Of a server of the test's own, which it may stop; it is left to the test. */
  readonly databaseUrl?: string;
  /** The app whose key it has; "demo" by default, or the first of `apps`. */
  readonly app?: string;
  /** Instead of those of apps/. An entry that the test replaces is served as it is then. The key is of the first. */
  readonly apps?: App[];
}

const LOG = makeLogger({ LOG_LEVEL: (process.env["TEST_LOG"] as Config["LOG_LEVEL"] | undefined) ?? "silent" }, "test");

export async function startSpine(options: SpineOptions = {}): Promise<Spine> {
  const { workers: count = 1, env = {}, speed = 10, webhooks = false, databaseUrl, app, apps } = options;
  const database = databaseUrl ? { url: databaseUrl, drop: async () => {} } : await freshDatabase();
  await prepareDatabase(database.url, apps);
  const folder = await mkdtemp(join(tmpdir(), "darkroom-spine-"));
  const sandbox = await startSandbox({ speed });
  const redis = process.env["QUEUE_BACKEND"] === "redis" ? redisUrl() : null;
  const port = await freePort();
  const publicUrl = webhooks ? "https://darkroom.example.test" : `http://127.0.0.1:${port}`;
  const config = readConfig({
    NODE_ENV: "test",
    HOST: "127.0.0.1",
    PORT: String(port),
    HEALTH_PORT: "0",
    PUBLIC_URL: publicUrl,
    DATABASE_URL: database.url,
    STORAGE_DIR: folder,
    AI_PROVIDER: "sandbox",
    SANDBOX_URL: sandbox.url,
    SIGNING_SECRET: "a secret of the tests that is long enough",
    ADMIN_PASSWORD: "admin of the tests",
    LOST_AFTER_SECONDS: "3",
    ...(redis ? { REDIS_URL: redis, QUEUE_PREFIX: redisPrefix() } : {}),
    ...env,
  });
  const api = await startApi(config, LOG, apps);
  if (webhooks) sandbox.setWebhookRelay(api.url);
  const db = connect(database.url, { max: 2, name: "test" });
  const tables = postgres(database.url, { max: 2, onnotice: () => {} });
  const keyFor = (id: string) => createKey(db, id, "test");
  const key = await keyFor(app ?? apps?.[0]?.id ?? "demo");
  const workers: Program[] = [];

  const spine: Spine = {
    api,
    sandbox,
    db,
    sql: tables,
    config,
    key,
    keyFor,
    workers,
    async startWorker(more = {}) {
      const worker = await startWorkerProgram({ ...config, ...readConfig({ ...asEnv(config), ...more }) }, LOG, apps);
      workers.push(worker);
      return worker;
    },
    async call(method, path, { body, headers = {}, key: given = key } = {}) {
      const raw = Buffer.isBuffer(body) || typeof body === "string" || body instanceof FormData || body === undefined;
      const response = await fetch(`${api.url}${path}`, {
        method,
        headers: {
          ...(given ? { authorization: `Bearer ${given}` } : {}),
          ...(raw ? {} : { "content-type": "application/json" }),
          ...headers,
        },
        ...(body === undefined
          ? {}
          : { body: (raw ? body : JSON.stringify(body)) as NonNullable<RequestInit["body"]> }),
        signal: AbortSignal.timeout(70_000),
      });
      const text = await response.text();
      const json = /json/.test(response.headers.get("content-type") ?? "");
      return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : text };
    },
    async submit(body, idempotencyKey = crypto.randomUUID()) {
      const answer = await spine.call("POST", "/api/jobs", { body, headers: { "idempotency-key": idempotencyKey } });
      if (answer.status !== 202) throw new Error(`refused: ${JSON.stringify(answer.body)}`);
      return answer.body;
    },
    ended: (id, ms = 20_000) => spine.until(id, (job) => job.endedAt !== null, ms),
    async until(id, what, ms = 20_000) {
      const deadline = Date.now() + ms;
      for (;;) {
        const { body } = await spine.call("GET", `/api/jobs/${id}`);
        if (what(body)) return body;
        if (Date.now() > deadline)
          throw new Error(`job ${id} is not there yet after ${ms} ms: ${JSON.stringify(body, null, 1)}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    async story(id) {
      const rows = await Promise.all([
        tables`select * from jobs where id = ${id}`,
        tables`select * from runs where job_id = ${id} order by id`,
        tables`select * from job_events where job_id = ${id} order by version`,
        tables`select * from credit_ledger where job_id = ${id} order by seq`,
        tables`select * from settlements where job_id = ${id}`,
        tables`select * from assets where job_id = ${id} order by id`,
      ]);
      const { body } = await spine.call("GET", `/api/jobs/${id}`);
      return {
        json: JSON.parse(JSON.stringify(body).replaceAll(/\?[^"]*/g, "")),
        tables: rows.map((each) => each.map((row) => ({ ...row }))),
      };
    },
    async audit() {
      const { credits, unsettledJobs } = await ledgerDrift(db);
      const rows = await tables`select provider_run_id from runs where provider_run_id is not null`;
      const ours = new Set(rows.map((row) => row["provider_run_id"] as string));
      const theirs = sandbox.bill().lines.map((line) => line.id);
      return { drift: credits, unsettled: unsettledJobs, unexplainedRuns: theirs.filter((id) => !ours.has(id)) };
    },
    async stop() {
      await Promise.all(workers.map((worker) => worker.stop()));
      await api.stop();
      await disconnect(db);
      await tables.end({ timeout: 5 });
      await sandbox.close();
      await database.drop();
      await rm(folder, { recursive: true, force: true });
    },
  };
  for (let index = 0; index < count; index++) await spine.startWorker();
  return spine;
}

/** What `readConfig` would have read to give this. */
export function asEnv(config: Config): Record<string, string> {
  return Object.fromEntries(
    Object.entries(config).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, Array.isArray(value) ? value.join(",") : String(value)]],
    ),
  );
}
