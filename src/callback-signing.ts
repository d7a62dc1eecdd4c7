import { createHmac } from "node:crypto";

/**
 * Callbacks are signed as Standard Webhooks say (symmetric, v1), so that every library for it can check them. Each app
 * has a secret of its own, made from SIGNING_SECRET: `npm run keys -- callback-secret <app>` prints it.
 */
export function callbackSecret(signingSecret: string, appId: string): string {
  return `whsec_${createHmac("sha256", signingSecret).update(`callback\n${appId}`).digest("base64")}`;
}

/** The headers of one delivery. `id` is the same for every repetition; `at` is when it is sent. */
export function signCallback(
  secret: string,
  { id, at, body }: { readonly id: string; readonly at: Date; readonly body: string },
): Record<"webhook-id" | "webhook-timestamp" | "webhook-signature", string> {
  const timestamp = String(Math.floor(at.getTime() / 1_000));
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const signature = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": `v1,${signature}` };
}
