import { createHmac } from "node:crypto";
import type { CloudOptions } from "../cloud.ts";
import type { Voice } from "../face.ts";
import { secretFrom } from "../webhook.ts";
import { inputOf, portrait } from "./task.ts";

const FORGED = secretFrom("another key's secret");

/** Told of the end only, with the bare data of the task and its input. Four tries: a number reported, not published. */
export function waveSpeedVoice({ options }: { readonly options: CloudOptions }): Voice {
  return {
    events: ["completed"],
    pausesMs: [0, 1_000, 2_000, 4_000],
    isTaken: (status) => status >= 200 && status < 300,
    body: (run) => JSON.stringify({ ...portrait(run), input: inputOf(run) }),
    headers({ deliveryId, seconds, body, forged, rotated }) {
      const own = signature(forged ? FORGED : options.webhookSecret, deliveryId, seconds, body);
      const old = signature(FORGED, deliveryId, seconds, body);
      return {
        "webhook-id": deliveryId.replace(/^msg_/, ""),
        "webhook-timestamp": String(seconds),
        "webhook-signature": rotated ? `${old} ${own}` : own,
        "content-type": "application/json",
      };
    },
  };
}

/** The letters behind "whsec_" are the key: they are not decoded. */
function signature(secret: string, deliveryId: string, seconds: number, body: string): string {
  const id = deliveryId.replace(/^msg_/, "");
  const mac = createHmac("sha256", secret.replace(/^whsec_/, ""))
    .update(`${id}.${seconds}.${body}`)
    .digest("hex");
  return `v3,${mac}`;
}
