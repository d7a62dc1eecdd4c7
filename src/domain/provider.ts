import { type Failure, type FailureCode, failure } from "./failure.ts";

/**
 * The port to those who sell runs. An adapter is one file in src/providers; it translates, and decides nothing.
 * Every method is bounded in time by the adapter (15 s a call). Only `submit` may never be repeated.
 */
export interface Provider {
  /** The name of this account, recorded on every run: "replicate", "sandbox". */
  readonly name: string;
  /** Whose model names and inputs it takes; a catalogue route names one: "replicate". */
  readonly api: string;
  /**
   * How long `submit` may take, in ms, from the first byte to its answer: 15,000 where it only takes the order, more
   * where the call is the whole run and its answer the output ("completed"); then never longer than the order's
   * `cancelAfterSeconds`.
   */
  readonly submitMs: number;
  /** Whether its webhooks carry a proof of their own; otherwise only the run's secret address is one. */
  readonly signsWebhooks: boolean;

  /**
   * Looks a model's name up. Safe to repeat; cached. `version` is null where the name alone is enough. `fresh`: asks
   * whatever is cached, and for the version of a pin too.
   */
  resolve(model: string, options?: { readonly fresh: boolean }): Promise<Resolved | Declined | Postponed>;

  /**
   * Makes a file of ours reachable for the provider and returns the URL to put into the input. Safe to repeat. Throws
   * ProviderUnreachable, or OfferRefused when trying again would not help.
   */
  offer(file: OfferedFile): Promise<string>;

  /**
   * Makes sure that there is a model of our account that a training can write to, and returns its name there. Safe to
   * repeat. `name`: lower-case letters, digits and hyphens, at most 60.
   */
  destination(name: string): Promise<Destination | Declined | Postponed>;

  /** Sends one create, exactly once: no retry at any layer below. Never throws: every outcome is an answer. */
  submit(order: Order): Promise<Answer>;

  /** Asks what became of a run. Safe to repeat. Throws ProviderUnreachable when there was no usable answer. */
  look(ref: RunRef): Promise<Look>;

  /** Asks the provider to stop. Safe to repeat; the verdict comes from `look`. Throws ProviderUnreachable. */
  cancel(ref: RunRef): Promise<void>;

  /**
   * Looks for the run of an order whose answer was lost, by listing what was created since `sentAt` and matching the
   * order's exact marker. "absent" means: the list was read completely and it is not there (yet: lists lag).
   * `isTaken` says of a run there whether another run of ours already stands for it: two orders may be equal.
   */
  find(order: Order, sentAt: Date, isTaken: (providerRunId: string) => Promise<boolean>): Promise<Found>;

  /** Checks the signature and age of a webhook. Throws WebhookRefused. The body is a hint, never the truth. */
  verifyWebhook(headers: Readonly<Record<string, string | undefined>>, rawBody: string): Promise<Delivery>;

  /**
   * How busy those are who serve a model, where the provider tells. Safe to repeat, and a picture of that instant only.
   * Throws ProviderUnreachable.
   */
  load?(model: string): Promise<Load>;

  /** Whose account it is, where the provider tells. Safe to repeat. Throws ProviderUnreachable. */
  account?(): Promise<Holder | Declined>;

  /** What is left on the account, in millionths of a dollar, where the provider tells. Throws ProviderUnreachable. */
  balance?(): Promise<number>;
}

export interface Holder {
  readonly outcome: "holder";
  /** As people know it there: "organization acme". */
  readonly name: string;
}

/** Counts of one model's queue and of the workers behind it. No worker at all and a queue: nobody will ever take it. */
export interface Load {
  /** Runs that wait for a worker. */
  readonly queued: number;
  readonly running: number;
  readonly workers: {
    readonly idle: number;
    readonly running: number;
    /** Wanted, but the provider has no machine for them now. */
    readonly throttled: number;
    /** Fetching their image or their model. */
    readonly initializing: number;
  };
}

export interface Resolved {
  readonly outcome: "resolved";
  /** 64 hex digits, or null for a model that is addressed by name alone. */
  readonly version: string | null;
}

export interface Destination {
  readonly outcome: "destination";
  /** owner/name. */
  readonly model: string;
}

export interface OfferedFile {
  /** A signed URL of our own storage; may be one that only this machine can reach. */
  readonly url: string;
  readonly filename: string;
  readonly contentType: string;
  readonly bytes: number;
  /** Reads the whole file, which is why only what is at most a few tens of MB can be uploaded. */
  read(): Promise<Buffer>;
}

/** One purchase, complete: what is sent is what was committed as intent before the first byte was written. */
export interface Order {
  readonly runId: string;
  readonly model: string;
  readonly version: string | null;
  readonly input: Readonly<Record<string, unknown>>;
  /** Of a training, the model that it writes to; null: it is no training. */
  readonly destination: string | null;
  /** HTTPS, carries the run's secret token; null where the provider cannot reach us. */
  readonly webhookUrl: string | null;
  /** No byte may be written after this instant. */
  readonly sendBefore: Date;
  /** The provider is told to stop the run after so many seconds, queue time included. */
  readonly cancelAfterSeconds: number;
}

export interface RunRef {
  readonly providerRunId: string;
  /** The provider's own name of what was ordered; some keep their runs below it. */
  readonly model: string;
  /** Trainings are asked for elsewhere than predictions. */
  readonly isTraining: boolean;
}

/** The closed list of what a submission can come to. */
export type Answer = Submitted | Completed | Declined | Postponed | Lost;

export interface Submitted {
  readonly outcome: "submitted";
  readonly providerRunId: string;
}
/** The call was the whole run: bought, and over. There is nothing to look at later. */
export interface Completed {
  readonly outcome: "completed";
  /** The provider's word for the call where it has one, otherwise the run's own id. */
  readonly providerRunId: string;
  readonly end: Succeeded | Failed;
}
/** Definitely not accepted, and asking again as it is would not help. */
export interface Declined {
  readonly outcome: "declined";
  readonly failure: Failure;
}
/** Definitely not accepted, but may be asked again after `retryAfterMs`. */
export interface Postponed {
  readonly outcome: "postponed";
  readonly failure: Failure;
  readonly retryAfterMs: number;
}
export function declined(code: FailureCode, detail: string): Declined {
  return { outcome: "declined", failure: failure(code, detail) };
}
export function postponed(code: FailureCode, detail: string, retryAfterMs: number): Postponed {
  return { outcome: "postponed", failure: failure(code, detail), retryAfterMs };
}
/** Nobody knows: something was written, and no usable answer came back. Never send again on this ground. */
export interface Lost {
  readonly outcome: "lost";
  readonly detail: string;
}

export type Look =
  /** `progress` is 0..1, null when the provider does not tell. */
  | { readonly status: "running"; readonly progress: number | null }
  | Succeeded
  | Failed
  | Canceled
  /** The provider does not know this id (any more). */
  | { readonly status: "gone" };

/** What the provider says that a run took; a failed and a canceled one may have cost us too. */
export interface Used {
  /** The billed run time, null when not told. */
  readonly seconds: number | null;
  /** What the provider says that it cost, in millionths of a dollar; null when it does not say. */
  readonly costMicroUsd: number | null;
}

export interface Failed extends Used {
  readonly status: "failed";
  readonly failure: Failure;
}

export interface Canceled extends Used {
  readonly status: "canceled";
}

export interface Succeeded extends Used {
  readonly status: "succeeded";
  /**
   * URLs that expire soon, or `data:` URLs where the answer holds the bytes. Of a training: its weights, or none where
   * the provider keeps them to itself.
   */
  readonly outputs: readonly string[];
  /** Of a training, what can be run from now on: owner/name:version. */
  readonly trainedVersion: string | null;
}

export type Found =
  | { readonly outcome: "found"; readonly providerRunId: string }
  | { readonly outcome: "absent" }
  /** The list could not be read completely; says nothing. */
  | { readonly outcome: "unread" }
  /** The provider has no list to look into: only its webhook can still tell of the run. */
  | { readonly outcome: "unlistable" };

export interface Delivery {
  /** The sender's id of this delivery; equal for all repetitions of one event. */
  readonly deliveryId: string;
  readonly providerRunId: string;
  /** The provider's own word, for the record only. */
  readonly status: string;
  /** Whether it says that the run is over; a look follows at once, while mere progress can wait a moment. */
  readonly ended: boolean;
}

/** No usable answer to a call that may be repeated: network, 429, 5xx, or something that does not parse. */
export class ProviderUnreachable extends Error {
  override readonly name = "ProviderUnreachable";
  readonly retryAfterMs: number | null;
  /** Somebody answered, and wants to be asked less: a 429. */
  readonly throttled: boolean;
  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number; throttled?: boolean } = {}) {
    super(message, { cause: options.cause });
    this.retryAfterMs = options.retryAfterMs ?? null;
    this.throttled = options.throttled ?? false;
  }
}

/** What is to be known before an order could not be asked: later, then. Throws whatever else went wrong. */
export function postponedBy(error: unknown, retryAfterMs: number): Postponed {
  if (!(error instanceof ProviderUnreachable)) throw error;
  const why = failure(error.throttled ? "rate_limited" : "provider_unavailable", error.message);
  return { outcome: "postponed", failure: why, retryAfterMs: error.retryAfterMs ?? retryAfterMs };
}

/** This account can never be given this file; another one may take it. The message says what to do. */
export class OfferRefused extends Error {
  override readonly name = "OfferRefused";
  readonly code: OfferRefusal;
  constructor(code: OfferRefusal, message: string) {
    super(message);
    this.code = code;
  }
}

type OfferRefusal = Extract<FailureCode, "input_too_large" | "input_unreachable">;

/** The account's limit, not the order's fault: said of an order before it is sent, another account may do. */
export function isOfferRefusal(code: FailureCode): code is OfferRefusal {
  return code === "input_too_large" || code === "input_unreachable";
}

export class WebhookRefused extends Error {
  override readonly name = "WebhookRefused";
}
