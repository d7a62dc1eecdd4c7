import { createHash, sign } from "node:crypto";
import type { Voice } from "../face.ts";
import { Problem } from "../problem.ts";
import { FORGED_KEY, KEY, NEXT_KEY } from "./keys.ts";
import { MODELS } from "./models.ts";
import { resultOf } from "./result.ts";

const USER = "sandbox-user";

/** The end of a run only. Ten tries within two hours, each signed with Ed25519 over four lines. */
export function falVoice(): Voice {
  return {
    events: ["completed"],
    pausesMs: [0, 30, 60, 120, 300, 600, 900, 1_290, 1_800, 2_100].map((seconds) => seconds * 1_000),
    isTaken: (status) => status >= 200 && status < 300,
    body(run) {
      const about = { request_id: run.id, gateway_request_id: run.id };
      const model = MODELS.find(({ name }) => name === run.model);
      const result = model ? resultOf(run, model) : {};
      if (!(result instanceof Problem)) return JSON.stringify({ ...about, status: "OK", payload: result });
      const error = `Unexpected status code: ${result.status}`;
      return JSON.stringify({ ...about, status: "ERROR", error, payload: result.body });
    },
    headers({ run, seconds, body, forged, rotated }) {
      const digest = createHash("sha256").update(body).digest("hex");
      const message = Buffer.from([run.id, USER, String(seconds), digest].join("\n"));
      const key = forged ? FORGED_KEY : rotated ? NEXT_KEY : KEY;
      return {
        "content-type": "application/json",
        "user-agent": "fal.ai/1.0",
        "x-fal-webhook-request-id": run.id,
        "x-fal-webhook-user-id": USER,
        "x-fal-webhook-timestamp": String(seconds),
        "x-fal-webhook-signature": sign(null, message, key).toString("hex"),
      };
    },
  };
}
