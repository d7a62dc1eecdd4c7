import { setTimeout as wait } from "node:timers/promises";
import type { Route } from "../domain/catalogue.ts";
import { type End, spentOn } from "../domain/cost.ts";
import { failure } from "../domain/failure.ts";
import type { Completed } from "../domain/provider.ts";
import type { RunEvent } from "../domain/run.ts";
import { InlineRefused, keepInline } from "./inline.ts";
import type { Services } from "./services.ts";

/** The run that ended, and who sold it; `route` null: it has left the catalogue. */
export interface Sold {
  readonly jobId: string;
  readonly runId: string;
  readonly providerRunId: string;
  readonly input: Readonly<Record<string, unknown>>;
  readonly route: Route | null;
}

type Kept = Pick<Services, "db" | "storage" | "reach">;

/** What a provider's word of an end teaches us. Outputs inside of it are put away before it is told. */
export async function toEndEvent(services: Kept, sold: Sold, at: Date, end: End): Promise<RunEvent> {
  const { runId, providerRunId, route, input } = sold;
  const spent = spentOn(route, at, input, end);
  if (end.status === "canceled") return { type: "canceled", at, runId, ...spent };
  if (end.status === "failed") return { type: "failed", at, runId, failure: end.failure, ...spent };
  try {
    const outputs = await keepInline(services, sold, end.outputs);
    return { type: "succeeded", at, runId, providerRunId, outputs, trainedVersion: end.trainedVersion, ...spent };
  } catch (error) {
    if (!(error instanceof InlineRefused)) throw error;
    return { type: "failed", at, runId, failure: failure("output_invalid", error.message), ...spent };
  }
}

/** Between the attempts to put away what nobody will give us again; half a minute in all, and what the storage takes. */
const PAUSES_MS = [1_000, 2_000, 4_000, 8_000, 15_000];

/**
 * What a call teaches that was the whole run: that it was bought, and how it ended, to be learned in one go. Where nobody
 * says for how long it ran, it ran as long as the call took. Its answer is the only copy: where our storage refuses it
 * again and again, the run has failed, and its cost is ours.
 */
export async function toEndEvents(
  services: Kept & Pick<Services, "logger">,
  sold: Omit<Sold, "providerRunId">,
  at: Date,
  tookMs: number,
  { providerRunId, end: told }: Completed,
): Promise<RunEvent[]> {
  const { runId } = sold;
  const end = { ...told, seconds: told.seconds ?? tookMs / 1_000 };
  const submitted: RunEvent = { type: "submitted", at, runId, providerRunId };
  let trouble: unknown;
  for (const pauseMs of [...PAUSES_MS, 0]) {
    try {
      return [submitted, await toEndEvent(services, { ...sold, providerRunId }, at, end)];
    } catch (error) {
      trouble = error;
      services.logger.warn({ err: error, run_id: runId }, "could not put an answer's output away");
      await wait(pauseMs);
    }
  }
  const detail = `the output came inside the answer and could not be kept: ${trouble instanceof Error ? trouble.message : String(trouble)}`;
  const why = failure("output_unavailable", detail);
  return [submitted, { type: "failed", at, runId, failure: why, ...spentOn(sold.route, at, sold.input, end) }];
}
