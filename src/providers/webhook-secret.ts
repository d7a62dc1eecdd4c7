import { keyOf } from "./standard-webhook.ts";

interface WebhookSecretOptions {
  /** From the configuration; empty: `fetch` asks the provider. */
  readonly given: readonly string[];
  fetch(): Promise<string>;
  readonly clock: () => Date;
  readonly onStrange: (what: string) => void;
  /** Throws on a secret without a key; Standard Webhooks' by default. */
  readonly check?: (secret: string) => unknown;
}

interface WebhookSecret {
  /** All that are valid now; empty while the provider has not told. */
  known(): readonly string[];
  /** To be called when nothing known fits. True when the provider was asked, so that it is worth a second look. */
  renew(): Promise<boolean>;
}

/** Anybody can send us a bad signature, and must not make us ask the provider each time. */
const REFETCH_MS = 60_000;
/** While there is none every delivery is refused, so it is asked for sooner. */
const FIRST_FETCH_MS = 5_000;

/** Throws on a given secret without a key. */
export function makeWebhookSecret(options: WebhookSecretOptions): WebhookSecret {
  const { given, fetch, clock, onStrange, check = keyOf } = options;
  for (const secret of given) check(secret);
  let known = given;
  let askedAt = Number.NEGATIVE_INFINITY;
  let asking: Promise<void> | null = null;

  async function ask(): Promise<void> {
    askedAt = clock().getTime();
    try {
      const secret = await fetch();
      check(secret);
      known = [secret];
    } catch (error) {
      onStrange(`webhook secret not fetched: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  async function renew(): Promise<boolean> {
    if (given.length > 0) return false;
    const pauseMs = known.length > 0 ? REFETCH_MS : FIRST_FETCH_MS;
    // Both ways: a clock that was ahead and is set right must not keep us waiting until then.
    if (asking === null && Math.abs(clock().getTime() - askedAt) < pauseMs) return false;
    asking ??= ask().finally(() => {
      asking = null;
    });
    await asking;
    return true;
  }

  return { known: () => known, renew };
}
