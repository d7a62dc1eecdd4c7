import { costOf, type Route } from "./catalogue.ts";
import type { Look } from "./provider.ts";
import type { Spent } from "./run.ts";

/** A provider's word that a run is over. */
export type End = Extract<Look, { status: "succeeded" | "failed" | "canceled" }>;

/**
 * What a run took of us, by its end: what the provider reports, otherwise what we measure. Models that are paid by their
 * output cost nothing when they failed, those that are paid by the second cost their seconds. `route` null: it has left
 * the catalogue, and without a report nobody can tell.
 */
export function spentOn(route: Route | null, at: Date, input: Readonly<Record<string, unknown>>, end: End): Spent {
  const { seconds, costMicroUsd } = end;
  if (costMicroUsd !== null) return { seconds, costMicroUsd: Math.round(costMicroUsd), costSource: "reported" };
  if (!route) return { seconds, costMicroUsd: null, costSource: null };
  const outputs = end.status === "succeeded" ? end.outputs.length : 0;
  const used = {
    outputs,
    seconds,
    filmSeconds: outputs * filmSeconds(input),
    megapixels: outputs * (megapixels(input) ?? 1),
  };
  return { seconds, costMicroUsd: costOf(route, at, used), costSource: "measured" };
}

/** Of one picture, as {width, height}, {image_size: {…}} or {size: "1024*768"}; null: as large as the model makes it. */
function megapixels({ width, height, image_size, size }: Readonly<Record<string, unknown>>): number | null {
  if (typeof width === "number" && typeof height === "number") return (width * height) / 1_000_000;
  if (typeof image_size === "object" && image_size !== null) return megapixels({ ...image_size });
  const [, w, h] = typeof size === "string" ? (/^(\d+)\D(\d+)$/.exec(size) ?? []) : [];
  return w && h ? (Number(w) * Number(h)) / 1_000_000 : null;
}

/** Of one film; some providers take the number as a text, some take frames. */
function filmSeconds(input: Readonly<Record<string, unknown>>): number {
  const { duration, num_frames: frames, frames_per_second: fps } = input;
  if (typeof frames === "number" && typeof fps === "number") return frames / fps;
  const seconds = typeof duration === "string" ? Number.parseFloat(duration) : duration;
  return typeof seconds === "number" && Number.isFinite(seconds) ? seconds : 0;
}
