import { AsyncLocalStorage } from "node:async_hooks";
import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import type { Db } from "./db/client.ts";
import { type CallCount, type LoggedCall, saveCalls } from "./db/provider-logs.ts";
import { type CallTrouble, type CallVerb, latencyBucketOf, troubleOf } from "./domain/call.ts";
import { storable } from "./domain/failure.ts";
import type { Order, Provider, RunRef } from "./domain/provider.ts";
import { maskAddress, maskText } from "./masking.ts";
import type { Metrics } from "./metrics.ts";
import type { CallRecord, OnCall } from "./providers/http.ts";

/**
 * Hears every call to a provider, counts it, and keeps the last ones for a person to read. Nobody waits for it: calls
 * are written behind, every two seconds, and what is too much is left out and counted.
 */
export interface ProviderLog {
  /** What an account's adapter is to tell its calls to. `secrets`: what must never be written, whatever it looks like. */
  listen(provider: string, secrets: readonly string[]): OnCall;
  /** The same provider, whose calls are known by what they are for. */
  attribute<T extends Provider>(provider: T): T;
  /** Writes what was heard. Repeating is harmless; never throws. */
  flush(): Promise<void>;
  /** Ends the timer, and writes what is left; takes 2 s at most. */
  stop(): Promise<void>;
}

const EVERY_MS = 2_000;
/** Of one account between two writings; a storm of errors says the same thing over and over. */
const MOST_KEPT = 100;
/** Of all accounts. */
const MOST_BUFFERED = 500;
/** Of distinct minutes, accounts, verbs, troubles and times; while the database is away, they are let go. */
const MOST_COUNTS = 5_000;
/** Questions that are asked all the time, and are worth a line now and then unless something is wrong. */
const FREQUENT: ReadonlySet<CallVerb> = new Set(["look", "resolve", "load", "balance"]);
const SAMPLE_MS = 10_000;
const WARN_MS = 60_000;
const STOP_MS = 2_000;
/** What http.ts cuts texts to. */
const CUT_AT = 2_000;
const MOST_CHARACTERS = 2_000;

interface Purpose {
  readonly verb: CallVerb;
  readonly runId: string | null;
  readonly providerRunId: string | null;
}
const NO_PURPOSE: Purpose = { verb: "other", runId: null, providerRunId: null };

interface Heard {
  readonly provider: string;
  readonly secrets: readonly string[];
  readonly record: CallRecord;
  readonly purpose: Purpose;
  readonly trouble: CallTrouble | null;
  readonly at: Date;
}

export function makeProviderLog(services: {
  readonly db: Db;
  readonly metrics: Metrics;
  readonly logger: Logger;
}): ProviderLog {
  const { db, metrics, logger } = services;
  const purposes = new AsyncLocalStorage<Purpose>();
  const sampledAt = new Map<string, number>();
  let heard: Heard[] = [];
  let kept = new Map<string, number>();
  let counts = new Map<string, CallCount>();
  let writing: Promise<void> | null = null;
  let warnedAt = Number.NEGATIVE_INFINITY;

  function count({ provider, record, purpose, trouble, at }: Heard): void {
    const { verb } = purpose;
    metrics.providerCalls.inc({ provider, verb, outcome: trouble ?? "ok" });
    metrics.providerSeconds.observe({ provider, verb }, record.ms / 1_000);
    const bucket = latencyBucketOf(record.ms);
    const minute = new Date(Math.floor(at.getTime() / 60_000) * 60_000);
    const key = [minute.getTime(), provider, verb, trouble, bucket].join(" ");
    const calls = (counts.get(key)?.calls ?? 0) + 1;
    if (calls > 1 || counts.size < MOST_COUNTS)
      counts.set(key, { minute, provider, verb, error: trouble, bucket, calls, lastAt: at });
  }

  function isWorthALine({ provider, purpose, trouble, at }: Heard): boolean {
    if (trouble !== null || !FREQUENT.has(purpose.verb)) return true;
    const key = `${provider} ${purpose.verb}`;
    if (at.getTime() - (sampledAt.get(key) ?? 0) < SAMPLE_MS) return false;
    sampledAt.set(key, at.getTime());
    return true;
  }

  function note(call: Heard): void {
    count(call);
    if (!isWorthALine(call)) return;
    const { provider } = call;
    const before = kept.get(provider) ?? 0;
    if (before >= MOST_KEPT || heard.length >= MOST_BUFFERED) metrics.providerLogDropped.inc({ provider });
    else {
      kept.set(provider, before + 1);
      heard.push(call);
    }
  }

  async function write(): Promise<void> {
    const [calls, sums] = [heard, [...counts.values()]];
    heard = [];
    kept = new Map();
    counts = new Map();
    try {
      await saveCalls(db, calls.map(toLine), sums);
    } catch (error) {
      for (const { provider } of calls) metrics.providerLogDropped.inc({ provider });
      if (performance.now() - warnedAt < WARN_MS) return;
      warnedAt = performance.now();
      logger.warn({ err: error, calls: calls.length }, "the log of calls to providers could not be written");
    }
  }

  async function flush(): Promise<void> {
    while (writing) await writing;
    if (heard.length === 0 && counts.size === 0) return;
    writing = write().finally(() => {
      writing = null;
    });
    await writing;
  }

  const timer = setInterval(() => void (writing ?? flush()), EVERY_MS);
  timer.unref();

  const during =
    <A extends readonly unknown[], R>(
      verb: CallVerb,
      call: (...given: A) => R,
      about: (...given: A) => Partial<Purpose> = () => ({}),
    ) =>
    (...given: A): R =>
      purposes.run({ ...NO_PURPOSE, verb, ...about(...given) }, () => call(...given));
  const ofOrder = ({ runId }: Order) => ({ runId });
  const ofRun = ({ providerRunId }: RunRef) => ({ providerRunId });

  return {
    listen: (provider, secrets) => (record) =>
      note({
        provider,
        secrets,
        record,
        purpose: purposes.getStore() ?? NO_PURPOSE,
        trouble: troubleOf(record),
        at: new Date(),
      }),
    attribute: (provider) => ({
      ...provider,
      resolve: during("resolve", provider.resolve),
      offer: during("offer", provider.offer),
      destination: during("destination", provider.destination),
      submit: during("submit", provider.submit, ofOrder),
      look: during("look", provider.look, ofRun),
      cancel: during("cancel", provider.cancel, ofRun),
      find: during("find", provider.find, ofOrder),
      verifyWebhook: during("webhook", provider.verifyWebhook),
      ...(provider.load && { load: during("load", provider.load) }),
      ...(provider.account && { account: during("account", provider.account) }),
      ...(provider.balance && { balance: during("balance", provider.balance) }),
    }),
    flush,
    async stop() {
      clearInterval(timer);
      // A database that is away must not keep a process from ending.
      await Promise.race([flush(), wait(STOP_MS, undefined, { ref: false })]);
    },
  };
}

function toLine({ provider, secrets, record, purpose, trouble, at }: Heard): LoggedCall {
  const masked = (text: string | null) =>
    text === null
      ? null
      : storable(maskText(text, { secrets, isCut: text.length >= CUT_AT }).slice(0, MOST_CHARACTERS));
  const { method, url, status, ms, detail, request, response } = record;
  return {
    provider,
    ...purpose,
    method,
    path: storable(maskAddress(url, { secrets }).slice(0, MOST_CHARACTERS)),
    status,
    ms,
    error: trouble,
    detail: masked(detail),
    request: masked(request),
    response: masked(response),
    at,
  };
}
