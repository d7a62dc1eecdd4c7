import { createHmac } from "node:crypto";

export interface Signature {
  readonly "webhook-id": string;
  readonly "webhook-timestamp": string;
  readonly "webhook-signature": string;
}

/** Standard Webhooks v1: HMAC-SHA256 over "id.seconds.body" with the key behind "whsec_". */
export function sign(secret: string, id: string, seconds: number, body: string): Signature {
  const key = Buffer.from(secret.slice(secret.lastIndexOf("_") + 1), "base64");
  const mac = createHmac("sha256", key).update(`${id}.${seconds}.${body}`).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": String(seconds), "webhook-signature": `v1,${mac}` };
}

/** A secret from any words; tests and the demo want the same one every time. */
export function secretFrom(words: string): string {
  return `whsec_${createHmac("sha256", "sandbox webhook secret").update(words).digest("base64")}`;
}

/**
 * Where a webhook is really sent. There is no TLS here, so with a relay an https URL goes to the relay's origin with its
 * own path and query, as behind a load balancer that ends TLS.
 */
export function addressed(webhook: string, relay: string | null): { url: string; headers: Record<string, string> } {
  const url = new URL(webhook);
  if (relay === null || url.protocol !== "https:") return { url: webhook, headers: {} };
  const target = new URL(relay);
  target.pathname = url.pathname;
  target.search = url.search;
  return { url: target.href, headers: { "x-forwarded-proto": "https", "x-forwarded-host": url.host } };
}
