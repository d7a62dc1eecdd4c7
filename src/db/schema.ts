import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  customType,
  doublePrecision,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  real,
  text,
  timestamp,
  uuid,
} from "drizzle-orm/pg-core";
import type { Family } from "../domain/catalogue.ts";
import type { FailureCode } from "../domain/failure.ts";
import type { JobStatus } from "../domain/job.ts";
import type { Clamp, KindName } from "../domain/kinds/kind.ts";
import type { PriceLine } from "../domain/pricing.ts";
import type { Load } from "../domain/provider.ts";
import type { CostSource, RunStatus } from "../domain/run.ts";
import type { PauseReason } from "../domain/turns.ts";

/**
 * The tables as TypeScript sees them. `migrations/` is the definition, with the reasons; test/db-schema.test.ts
 * compares the two.
 */
export type AssetRole = "input" | "output" | "thumbnail" | "archive" | "weights" | "lora";

const time = (name: string) => timestamp(name, { withTimezone: true, mode: "date" });
const bytes = customType<{ data: Buffer; driverData: Buffer }>({ dataType: () => "bytea" });
const json = <T>(name: string) => jsonb(name).$type<T>().notNull();

export const apiKeys = pgTable("api_keys", {
  id: text().primaryKey(),
  appId: text("app_id").notNull(),
  name: text().notNull(),
  secretHash: bytes("secret_hash").notNull(),
  createdAt: time("created_at").notNull().defaultNow(),
  expiresAt: time("expires_at"),
  revokedAt: time("revoked_at"),
});

export const accounts = pgTable(
  "accounts",
  {
    appId: text("app_id").notNull(),
    userId: text("user_id").notNull(),
    balance: bigint({ mode: "number" }).notNull().default(0),
    allowance: bigint({ mode: "number" }).notNull().default(0),
    allowanceOn: text("allowance_on"),
    plan: text(),
    allowanceGranted: bigint("allowance_granted", { mode: "number" }).notNull().default(0),
    entries: bigint({ mode: "number" }).notNull().default(0),
    createdAt: time("created_at").notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.appId, table.userId] })],
);

export const creditLedger = pgTable("credit_ledger", {
  id: bigint({ mode: "number" }).primaryKey().generatedAlwaysAsIdentity(),
  appId: text("app_id").notNull(),
  userId: text("user_id").notNull(),
  seq: bigint({ mode: "number" }).notNull(),
  type: text().$type<"grant" | "charge" | "refund" | "adjustment" | "expiry">().notNull(),
  bucket: text().$type<"balance" | "allowance">().notNull(),
  amount: bigint({ mode: "number" }).notNull(),
  balanceAfter: bigint("balance_after", { mode: "number" }).notNull(),
  jobId: uuid("job_id"),
  key: text(),
  description: text().notNull(),
  metadata: json<Record<string, unknown>>("metadata").default({}),
  createdAt: time("created_at").notNull().defaultNow(),
});

export const jobs = pgTable("jobs", {
  id: uuid().primaryKey(),
  appId: text("app_id").notNull(),
  userId: text("user_id").notNull(),
  kind: text().$type<KindName>().notNull(),
  model: text().notNull(),
  status: text().$type<JobStatus>().notNull().default("pending"),
  input: json<unknown>("input"),
  files: json<Record<string, string>>("files").default({}),
  metadata: json<Record<string, unknown>>("metadata").default({}),
  variants: integer().notNull(),
  minSuccess: integer("min_success").notNull(),
  maxAttempts: integer("max_attempts").notNull(),
  maxRebuys: integer("max_rebuys").notNull(),
  credits: bigint({ mode: "number" }).notNull(),
  priceLines: json<readonly PriceLine[]>("price_lines"),
  idempotencyKey: text("idempotency_key").notNull(),
  fingerprint: bytes().notNull(),
  failureCode: text("failure_code").$type<FailureCode>(),
  failureDetail: text("failure_detail"),
  deadlineAt: time("deadline_at").notNull(),
  cancelRequestedAt: time("cancel_requested_at"),
  expiredAt: time("expired_at"),
  setAsideAt: time("set_aside_at"),
  version: integer().notNull().default(0),
  epoch: integer().notNull().default(0),
  leaseUntil: time("lease_until"),
  worker: text(),
  vanished: text().array().notNull().default([]),
  dueAt: time("due_at"),
  createdAt: time("created_at").notNull().defaultNow(),
  startedAt: time("started_at"),
  endedAt: time("ended_at"),
  plan: text(),
  priceBook: text("price_book"),
  clamps: json<readonly Clamp[]>("clamps").default([]),
  quoteId: uuid("quote_id"),
  batchId: uuid("batch_id"),
  pipelineId: uuid("pipeline_id"),
  experiment: text(),
  arm: text(),
  reuseHash: bytes("reuse_hash"),
  callbackUrl: text("callback_url"),
});

export const runs = pgTable("runs", {
  id: uuid().primaryKey(),
  jobId: uuid("job_id").notNull(),
  variant: integer().notNull(),
  attempt: integer().notNull(),
  status: text().$type<RunStatus>().notNull(),
  provider: text().notNull(),
  model: text().notNull(),
  version: text(),
  input: json<Record<string, unknown>>("input"),
  providerRunId: text("provider_run_id"),
  sendBefore: time("send_before"),
  sentAt: time("sent_at"),
  quietFrom: time("quiet_from"),
  expiresAt: time("expires_at").notNull(),
  notBefore: time("not_before"),
  outputs: json<string[]>("outputs").default([]),
  storeAttempts: integer("store_attempts").notNull().default(0),
  failureCode: text("failure_code").$type<FailureCode>(),
  failureDetail: text("failure_detail"),
  cancelSentAt: time("cancel_sent_at"),
  createdAt: time("created_at").notNull().defaultNow(),
  endedAt: time("ended_at"),
  nextLookAt: time("next_look_at"),
  looks: integer().notNull().default(0),
  readings: integer().notNull().default(0),
  progress: real(),
  seconds: real(),
  costMicroUsd: bigint("cost_micro_usd", { mode: "number" }),
  destination: text(),
  trainedVersion: text("trained_version"),
  routeWhy: text("route_why"),
  costSource: text("cost_source").$type<CostSource>(),
  goneAt: time("gone_at"),
});

export const assets = pgTable("assets", {
  id: uuid().primaryKey(),
  appId: text("app_id").notNull(),
  role: text().$type<AssetRole>().notNull(),
  jobId: uuid("job_id"),
  runId: uuid("run_id"),
  position: integer().notNull().default(0),
  storageKey: text("storage_key").notNull(),
  sha256: bytes().notNull(),
  bytes: bigint({ mode: "number" }).notNull(),
  contentType: text("content_type").notNull(),
  /** Of pictures and films; null of everything else. */
  width: integer(),
  height: integer(),
  createdAt: time("created_at").notNull().defaultNow(),
  durationMs: integer("duration_ms"),
  facts: jsonb(),
  /** Of an input that lies on its side or is in CMYK: the file that providers are given instead. */
  upright: jsonb().$type<{ readonly storageKey: string; readonly contentType: string; readonly bytes: number }>(),
});

export const settlements = pgTable("settlements", {
  jobId: uuid("job_id").primaryKey(),
  charged: bigint({ mode: "number" }).notNull(),
  kept: bigint({ mode: "number" }).notNull(),
  refunded: bigint({ mode: "number" }).notNull(),
  createdAt: time("created_at").notNull().defaultNow(),
});

export const jobEvents = pgTable(
  "job_events",
  {
    jobId: uuid("job_id").notNull(),
    version: integer().notNull(),
    type: text().notNull(),
    runId: uuid("run_id"),
    detail: json<Record<string, unknown>>("detail").default(sql`'{}'`),
    at: time("at").notNull(),
  },
  (table) => [primaryKey({ columns: [table.jobId, table.version] })],
);

export const webhookInbox = pgTable("webhook_inbox", {
  id: bigint({ mode: "number" }).primaryKey().generatedAlwaysAsIdentity(),
  provider: text().notNull(),
  deliveryId: text("delivery_id").notNull(),
  runId: uuid("run_id"),
  providerRunId: text("provider_run_id").notNull(),
  status: text().notNull(),
  receivedAt: time("received_at").notNull().defaultNow(),
});

export const quotes = pgTable("quotes", {
  id: uuid().primaryKey(),
  appId: text("app_id").notNull(),
  userId: text("user_id").notNull(),
  fingerprint: bytes().notNull(),
  credits: bigint({ mode: "number" }).notNull(),
  priceLines: json<readonly PriceLine[]>("price_lines"),
  priceBook: text("price_book").notNull(),
  request: json<unknown>("request"),
  createdAt: time("created_at").notNull().defaultNow(),
  expiresAt: time("expires_at").notNull(),
});

export const batches = pgTable("batches", {
  id: uuid().primaryKey(),
  appId: text("app_id").notNull(),
  idempotencyKey: text("idempotency_key").notNull(),
  fingerprint: bytes().notNull(),
  metadata: json<Record<string, unknown>>("metadata").default({}),
  size: integer().notNull(),
  callbackUrl: text("callback_url"),
  createdAt: time("created_at").notNull().defaultNow(),
  acceptedAt: time("accepted_at"),
  cancelRequestedAt: time("cancel_requested_at"),
  endedAt: time("ended_at"),
});

export const batchItems = pgTable(
  "batch_items",
  {
    batchId: uuid("batch_id").notNull(),
    ord: integer().notNull(),
    jobId: uuid("job_id"),
    problem: jsonb().$type<Record<string, unknown>>(),
  },
  (table) => [primaryKey({ columns: [table.batchId, table.ord] })],
);

export const pipelines = pgTable("pipelines", {
  id: uuid().primaryKey(),
  appId: text("app_id").notNull(),
  userId: text("user_id").notNull(),
  name: text().notNull().default(""),
  status: text().$type<"running" | "completed" | "failed" | "canceled">().notNull().default("running"),
  metadata: json<Record<string, unknown>>("metadata").default({}),
  callbackUrl: text("callback_url"),
  idempotencyKey: text("idempotency_key").notNull(),
  fingerprint: bytes().notNull(),
  cancelRequestedAt: time("cancel_requested_at"),
  dueAt: time("due_at").defaultNow(),
  createdAt: time("created_at").notNull().defaultNow(),
  endedAt: time("ended_at"),
});

export const pipelineSteps = pgTable(
  "pipeline_steps",
  {
    pipelineId: uuid("pipeline_id").notNull(),
    ord: integer().notNull(),
    name: text().notNull(),
    after: text().array().notNull().default([]),
    status: text().$type<"waiting" | "running" | "completed" | "failed" | "canceled">().notNull().default("waiting"),
    attempt: integer().notNull().default(1),
    jobId: uuid("job_id").notNull(),
    request: json<unknown>("request"),
    problem: jsonb().$type<Record<string, unknown>>(),
  },
  (table) => [primaryKey({ columns: [table.pipelineId, table.ord] })],
);

export const trainedModels = pgTable("trained_models", {
  id: uuid().primaryKey(),
  appId: text("app_id").notNull(),
  userId: text("user_id").notNull(),
  name: text().notNull(),
  status: text().$type<"training" | "ready" | "failed" | "deleted">().notNull().default("training"),
  family: text().$type<Family>().notNull(),
  triggerWord: text("trigger_word").notNull(),
  task: text().$type<"face" | "object" | "style">().notNull(),
  resolution: integer().notNull(),
  steps: integer().notNull(),
  photos: integer().notNull(),
  quality: integer().notNull(),
  provider: text(),
  providerVersion: text("provider_version"),
  createdAt: time("created_at").notNull().defaultNow(),
  readyAt: time("ready_at"),
  deletedAt: time("deleted_at"),
});

export const ratings = pgTable(
  "ratings",
  {
    jobId: uuid("job_id").notNull(),
    variant: integer().notNull(),
    score: integer().notNull(),
    comment: text().notNull().default(""),
    createdAt: time("created_at").notNull().defaultNow(),
    updatedAt: time("updated_at").notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.jobId, table.variant] })],
);

export const callbacks = pgTable("callbacks", {
  id: uuid().primaryKey().defaultRandom(),
  appId: text("app_id").notNull(),
  type: text().notNull(),
  jobId: uuid("job_id"),
  batchId: uuid("batch_id"),
  pipelineId: uuid("pipeline_id"),
  url: text().notNull(),
  attempts: integer().notNull().default(0),
  nextAt: time("next_at").defaultNow(),
  deliveredAt: time("delivered_at"),
  gaveUpAt: time("gave_up_at"),
  lastStatus: integer("last_status"),
  lastError: text("last_error"),
  createdAt: time("created_at").notNull().defaultNow(),
});

export const catalogueState = pgTable(
  "catalogue_state",
  {
    provider: text().notNull(),
    model: text().notNull(),
    status: text().$type<"ok" | "gone">().notNull().default("ok"),
    version: text(),
    detail: text(),
    checkedAt: time("checked_at"),
    p50: real(),
    p95: real(),
    samples: integer().notNull().default(0),
    isTraining: boolean("is_training").notNull().default(false),
    checkAt: time("check_at").notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.provider, table.model, table.isTraining] })],
);

export const providerStates = pgTable("provider_states", {
  provider: text().primaryKey(),
  perSecond: doublePrecision("per_second"),
  burst: doublePrecision(),
  level: doublePrecision().notNull().default(0),
  refilledAt: time("refilled_at"),
  pace: doublePrecision(),
  pacedAt: time("paced_at"),
  notBefore: time("not_before"),
  throttles: integer().notNull().default(0),
  promisedAt: time("promised_at"),
  silentRuns: uuid("silent_runs").array().notNull().default([]),
  silentAt: time("silent_at"),
  openings: integer().notNull().default(0),
  openedAt: time("opened_at"),
  openUntil: time("open_until"),
  pausedReason: text("paused_reason").$type<PauseReason>(),
  pausedSince: time("paused_since"),
  probeAt: time("probe_at"),
  canaryRun: uuid("canary_run"),
  canaryUntil: time("canary_until"),
  load: json<Record<string, Load & { readonly at: number }>>("load").default({}),
  told: text().notNull().default("closed"),
  updatedAt: time("updated_at").notNull().defaultNow(),
});
