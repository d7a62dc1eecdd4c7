import type { Failure } from "./failure.ts";

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
   * Looks a model's name up. Safe to repeat; cached. `version` is null where the name alone is enough. `fresh`: asks
   * whatever is cached, and for the version of a pin too.
   */
  resolve(model: string, options?: { readonly fresh: boolean }): Promise<Resolved | Declined | Postponed>;

  /** Makes a file of ours reachable for the provider and returns the URL to put into the input. Safe to repeat. */
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
  /** Trainings are asked for elsewhere than predictions. */
  readonly isTraining: boolean;
}

/** The closed list of what a submission can come to. */
export type Answer = Submitted | Declined | Postponed | Lost;

export interface Submitted {
  readonly outcome: "submitted";
  readonly providerRunId: string;
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
/** Nobody knows: something was written, and no usable answer came back. Never send again on this ground. */
export interface Lost {
  readonly outcome: "lost";
  readonly detail: string;
}

export type Look =
  /** `progress` is 0..1, null when the provider does not tell. */
  | { readonly status: "running"; readonly progress: number | null }
  | Succeeded
  | { readonly status: "failed"; readonly failure: Failure }
  | { readonly status: "canceled" }
  /** The provider does not know this id (any more). */
  | { readonly status: "gone" };

export interface Succeeded {
  readonly status: "succeeded";
  /** URLs that expire soon. Of a training: its weights, or none where the provider keeps them to itself. */
  readonly outputs: readonly string[];
  /** The billed run time, null when not told. */
  readonly seconds: number | null;
  /** Of a training, what can be run from now on: owner/name:version. */
  readonly trainedVersion: string | null;
}

export type Found =
  | { readonly outcome: "found"; readonly providerRunId: string }
  | { readonly outcome: "absent" }
  /** The list could not be read completely; says nothing. */
  | { readonly outcome: "unread" };

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
  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number } = {}) {
    super(message, { cause: options.cause });
    this.retryAfterMs = options.retryAfterMs ?? null;
  }
}

export class WebhookRefused extends Error {
  override readonly name = "WebhookRefused";
}
