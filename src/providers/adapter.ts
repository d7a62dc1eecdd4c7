import type { Provider } from "../domain/provider.ts";
import type { OnCall } from "./http.ts";

/** What every adapter is made of: one account at one provider. */
export interface AdapterOptions {
  /** The account's name in our records: "replicate", "replicate_2", "sandbox". */
  readonly name: string;
  readonly token: string;
  /** Without a slash at its end. On loopback it is the sandbox. */
  readonly baseUrl: string;
  /** One, or several while one is being replaced; only where the provider signs with a secret. */
  readonly webhookSecret?: string | readonly string[];
  /** Where what we name has another name in each account: our name of a model to the account's, as of RunPod endpoints. */
  readonly endpoints?: Readonly<Record<string, string>>;
  readonly clock?: () => Date;
  /** The bound of one call in ms; default 15 s. Of a call that is a whole run, the adapter's own is longer. */
  readonly totalMs?: number;
  /** Hears of words that this adapter does not know yet. */
  readonly onStrange?: (what: string) => void;
  /** Hears of every exchange with the provider. */
  readonly onCall?: OnCall;
}

export interface Sample {
  /** As a route of the catalogue would name it; the sandbox's face has it too. */
  readonly model: string;
  /** Everything else is left to the model's defaults. The words stay as they are: they may hold directives of the sandbox. */
  input(prompt: string): Readonly<Record<string, unknown>>;
  /** Where the model has another name in each account: the name that it has in the sandbox. */
  readonly endpoints?: AdapterOptions["endpoints"];
}

/** One provider's HTTP API, and how to come by an account there. */
export interface Adapter {
  /** Whose model names and inputs: what routes of the catalogue name. */
  readonly api: string;
  /** The real service. */
  readonly baseUrl: string;
  /** Where people read whether it is down. */
  readonly statusPage?: string;
  /** The smallest order there is: what the contract test buys in the sandbox, and what a check of an account looks up. */
  readonly sample: Sample;
  /** Where it buys in another way, too, that is as good as another provider: a sample of each, for the contract test. */
  readonly otherSamples?: readonly Sample[];
  make(options: AdapterOptions): Provider;
}

/** Addresses of this machine: there it is the sandbox, which can read our files wherever they lie. */
export function isLoopback(url: string): boolean {
  const { hostname } = new URL(url);
  return hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.");
}

/**
 * What a 403 is about: one model that the account may not use, which others sell, or the account itself, which is given
 * no orders then until it is in order again.
 */
export function codeOfForbidden(words: string): "model_not_found" | "provider_auth" {
  return /\b(gated|models?|bots?|endpoints?)\b/i.test(words) ? "model_not_found" : "provider_auth";
}
