import { createHmac, timingSafeEqual } from "node:crypto";

/** Both ways: a clock that runs ahead is as common as one that lags. */
const TOLERANCE_SECONDS = 300;

type Verdict =
  | { readonly verdict: "genuine"; readonly deliveryId: string }
  /** `forged`: no signature fits any of our secrets; a newer secret may. Each reason tells what to look at. */
  | { readonly verdict: "unsigned" | "stale" | "forged"; readonly reason: string };

/** What of Standard Webhooks a sender does in its own way. */
export interface Scheme {
  readonly version: string;
  /** Of a signature, behind the version. */
  readonly form: RegExp;
  readonly encoding: "base64" | "hex";
  /** Throws on a secret without a key: an empty key would accept what anybody can sign. */
  keyOf(secret: string): string | Buffer;
}

const V1: Scheme = { version: "v1", form: /^/, encoding: "base64", keyOf };

/**
 * Standard Webhooks, by default the symmetric scheme v1. Several secrets may be valid at once, and several signatures present: that
 * is how secrets are rotated. `rawBody` must be the body as it came; parsed and printed again it has other bytes.
 */
export function checkStandardWebhook(
  headers: Readonly<Record<string, string | undefined>>,
  rawBody: string,
  secrets: readonly string[],
  now: Date,
  scheme = V1,
): Verdict {
  const deliveryId = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  const signatures = headers["webhook-signature"];
  if (!deliveryId || !timestamp || !signatures || !/^\d{1,12}$/.test(timestamp))
    return {
      verdict: "unsigned",
      reason:
        "webhook-id, webhook-timestamp (Unix seconds) and webhook-signature are required. " +
        "Either the sender is not the provider, or a proxy in front of us strips these headers.",
    };

  const age = Math.floor(now.getTime() / 1_000) - Number(timestamp);
  if (Math.abs(age) > TOLERANCE_SECONDS)
    return {
      verdict: "stale",
      reason:
        `signed ${Math.abs(age)} s in the ${age > 0 ? "past" : "future"}; at most ${TOLERANCE_SECONDS} s are accepted. ` +
        "Either it is a replay, or this host's clock is wrong: check NTP.",
    };

  const offered = signatures
    .split(" ")
    .flatMap((entry) => (entry.startsWith(`${scheme.version},`) ? [entry.slice(scheme.version.length + 1)] : []))
    .filter((signature) => scheme.form.test(signature))
    .map((signature) => Buffer.from(signature, scheme.encoding));
  const expected = secrets.map((secret) =>
    createHmac("sha256", scheme.keyOf(secret)).update(`${deliveryId}.${timestamp}.${rawBody}`).digest(),
  );
  const fits = expected.some((mac) => offered.some((it) => it.length === mac.length && timingSafeEqual(it, mac)));
  if (fits) return { verdict: "genuine", deliveryId };
  return {
    verdict: "forged",
    reason:
      `no ${scheme.version} signature fits our webhook secret. Either it is forged, or the secret is that of another account, ` +
      "or something in front of us rewrites the body.",
  };
}

/** Throws on a secret without a key: an empty key would accept what anybody can sign. */
export function keyOf(secret: string): Buffer {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  if (key.length < 16) throw new Error("A webhook secret is whsec_ and at least 16 bytes in base64.");
  return key;
}
