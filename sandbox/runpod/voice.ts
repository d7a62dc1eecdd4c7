import type { Clock } from "../clock.ts";
import type { Voice } from "../face.ts";
import { jobOf } from "./job.ts";

/** One event, the end, unsigned; anything but 200 is tried twice more, ten seconds apart. */
export function runpodVoice({ clock }: { readonly clock: Clock }): Voice {
  return {
    events: ["completed"],
    pausesMs: [0, 10_000, 10_000],
    isTaken: (status) => status === 200,
    body: (run) => JSON.stringify(jobOf(run, clock.now(), null)),
    headers: () => ({ "content-type": "application/json", "user-agent": "Go-http-client/2.0" }),
  };
}
