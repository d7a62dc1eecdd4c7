import { createHmac, timingSafeEqual } from "node:crypto";

/** What the provider recommends, and both ways: a clock that runs ahead is as common as one that lags. */
const TOLERANCE_SECONDS = 300;
/** Anybody can sign with next to nothing. */
const LEAST_KEY_CHARACTERS = 16;

type Verdict =
  | { readonly verdict: "genuine" }
  /** `forged`: no signature fits any of our secrets; a newer secret may. Each reason tells what to look at. */
  | { readonly verdict: "unsigned" | "stale" | "forged"; readonly reason: string };

/**
 * WaveSpeed's signatures, scheme v3: the headers and the signed text of Standard Webhooks, but in hexadecimal digits
 * and with the letters behind "whsec_" as the key, not what they decode to. Several secrets may be valid at once, and
 * several signatures present. `rawBody` must be the body as it came.
 */
export function checkWaveSpeedWebhook(
  headers: Readonly<Record<string, string | undefined>>,
  rawBody: string,
  secrets: readonly string[],
  now: Date,
): Verdict {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  const signatures = headers["webhook-signature"];
  if (!id || !timestamp || !signatures || !/^\d{1,12}$/.test(timestamp))
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
    .filter((entry) => /^v3,[0-9a-f]{64}$/i.test(entry))
    .map((entry) => Buffer.from(entry.slice(3), "hex"));
  const expected = secrets.map((secret) =>
    createHmac("sha256", waveSpeedKeyOf(secret)).update(`${id}.${timestamp}.${rawBody}`).digest(),
  );
  const fits = expected.some((mac) => offered.some((it) => it.length === mac.length && timingSafeEqual(it, mac)));
  if (fits) return { verdict: "genuine" };
  return {
    verdict: "forged",
    reason:
      "no v3 signature fits our webhook secret. Either it is forged, or the secret is that of another account, " +
      "or something in front of us rewrites the body.",
  };
}

/** Throws on a secret without a key: an empty key would accept what anybody can sign. */
export function waveSpeedKeyOf(secret: string): string {
  const key = secret.replace(/^whsec_/, "");
  if (key.length < LEAST_KEY_CHARACTERS)
    throw new Error(`A webhook secret of WaveSpeed is whsec_ and at least ${LEAST_KEY_CHARACTERS} characters.`);
  return key;
}
