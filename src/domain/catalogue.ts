import type { Ask } from "./ask.ts";
import { MODELS } from "./catalogue-models.ts";
import type { KindName } from "./kinds/kind.ts";

/** What a provider takes for it, valid from a day on (UTC). The newest that has begun counts. */
export interface Cost {
  /** YYYY-MM-DD. */
  readonly from: string;
  /** An output, a million pixels of it, a second that the run was billed for, or a second of film. */
  readonly per: "output" | "megapixel" | "second" | "film_second";
  /** In millionths of a dollar. */
  readonly microUsd: number;
}

/** Who can serve a model, under what name there, and in what words. */
export interface Route {
  /** Whose names and inputs: an adapter's `api`. */
  readonly api: string;
  /** `owner/name`, resolved when it is used; `owner/name:<64 hex>` only as an override. */
  readonly model: string;
  /**
   * What it does not take of what the model can do: `image` true, only asks that start from a picture, false, only those
   * that do not; `trained` false, no trained models; `safety` false, only asks without a safety checker, as it has none.
   * Absent: all of it.
   */
  readonly takes?: { readonly image?: boolean; readonly trained?: false; readonly safety?: false };
  /** The provider's input for what is asked. Pure: the same ask gives the same input. */
  input(ask: Ask): Readonly<Record<string, unknown>>;
  readonly costs: readonly [Cost, ...Cost[]];
}

/** Which trained models fit which models. */
export const FAMILIES = ["flux", "sdxl"] as const;
export type Family = (typeof FAMILIES)[number];

export interface Range {
  readonly min: number;
  readonly max: number;
}

/** What a model takes. Absent: it has no such thing. */
export interface ModelLimits {
  readonly steps?: { readonly min: number; readonly max: number; readonly default: number };
  /** How closely the prompt is followed. */
  readonly guidance?: Range;
  readonly loraScale?: Range;
  /** It makes these shapes only, of about a megapixel; without them it makes any width and height up to maxSide. */
  readonly aspectRatios?: readonly string[];
  /** Pixels of the longest side. */
  readonly maxSide?: number;
  /** Seconds of film. */
  readonly seconds?: Range;
  readonly image?: "optional" | "required";
  readonly mask?: "optional" | "required";
  readonly formats?: readonly ("webp" | "jpg" | "png")[];
  /** It can be used with trained models of this family. */
  readonly lora?: Family;
  /** It trains models of this family, at these resolutions. */
  readonly trains?: Family;
  readonly resolutions?: readonly number[];
}

export interface Model {
  /** What callers write. */
  readonly alias: string;
  /** What a person reads. */
  readonly title: string;
  readonly kinds: readonly KindName[];
  readonly routes: readonly [Route, ...Route[]];
  readonly limits: ModelLimits;
  /** How long a run normally takes, p50 and p95, until our own runs tell; paces our looks and what callers are told. */
  readonly expectedSeconds: { readonly p50: number; readonly p95: number };
  /** The provider is told to stop a run after this, queue time included. */
  readonly timeoutSeconds: number;
}

/** What an hour on a GPU of RunPod costs, in dollars; for endpoints of our own whose price the environment does not say. */
export const GPU_HOUR_USD: Readonly<Record<string, number>> = { A40: 0.4, "4090": 0.3, A100: 1.2 };

export const CATALOGUE: readonly Model[] = MODELS;

export function modelsOf(kind: KindName): readonly Model[] {
  return CATALOGUE.filter((model) => model.kinds.includes(kind));
}

export function findModel(kind: KindName, alias: string): Model | undefined {
  return modelsOf(kind).find((model) => model.alias === alias);
}

/** What a run made and took. `seconds` null: not told, and counted as none. */
export interface Units {
  readonly outputs: number;
  readonly seconds: number | null;
  readonly filmSeconds: number;
  /** Of all outputs together; absent: one for each, the size that most models make. */
  readonly megapixels?: number;
}

/** What the provider takes at that time, in millionths of a dollar. */
export function costOf(route: Pick<Route, "costs">, at: Date, used: Units): number {
  const day = at.toISOString().slice(0, 10);
  const newestFirst = [...route.costs].sort((a, b) => (a.from < b.from ? 1 : -1));
  const cost = newestFirst.find(({ from }) => from <= day) ?? newestFirst.at(-1) ?? route.costs[0];
  return Math.round(cost.microUsd * unitsOf(cost.per, used));
}

function unitsOf(per: Cost["per"], { outputs, seconds, filmSeconds, megapixels = outputs }: Units): number {
  switch (per) {
    case "output":
      return outputs;
    case "megapixel":
      return megapixels;
    case "second":
      return seconds ?? 0;
    case "film_second":
      return filmSeconds;
  }
}

/** Whether a route's model is an endpoint or a deployment of ours: it exists only where an account names it. */
export const isOwn = (model: string): boolean => model.startsWith("own/");
