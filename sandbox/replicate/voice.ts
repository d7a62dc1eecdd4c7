import type { Clock } from "../clock.ts";
import type { CloudOptions } from "../cloud.ts";
import type { Voice } from "../face.ts";
import { portrait } from "../run.ts";
import { secretFrom, sign } from "../webhook.ts";

const FORGED = secretFrom("another secret, not this account's");

/** Standard Webhooks; the body is what GET would answer at this instant. Five tries of the end within about a minute. */
export function replicateVoice(parts: { readonly clock: Clock; readonly options: CloudOptions }): Voice {
  const { webhookSecret, outputTtlMs } = parts.options;
  const door = (kind: "prediction" | "training") => (kind === "training" ? "trainings" : "predictions");
  return {
    events: ["output", "completed"],
    pausesMs: [0, 4_000, 8_000, 16_000, 32_000],
    isTaken: (status) => status >= 200 && status < 300, // a redirect is a refusal
    body: (run) => JSON.stringify(portrait(run, parts.clock, outputTtlMs, door(run.kind))),
    headers({ deliveryId, seconds, body, forged, rotated }) {
      const signed = sign(forged ? FORGED : webhookSecret, deliveryId, seconds, body);
      const old = sign(FORGED, deliveryId, seconds, body)["webhook-signature"];
      return {
        ...signed,
        ...(rotated && { "webhook-signature": `${old} ${signed["webhook-signature"]}` }),
        "content-type": "application/json",
        "user-agent": "Replicate/1.0",
      };
    },
  };
}
