import type { KindName } from "./kinds/kind.ts";

/** Who can serve a model, and under what name there. */
export interface Route {
  /** Whose names and inputs: an adapter's `api`. */
  readonly api: string;
  /** `owner/name`, resolved when it is used; `owner/name:<64 hex>` only as an override. */
  readonly model: string;
  /** What one output costs us, in millionths of a dollar. */
  readonly microUsdPerOutput: number;
}

export interface Model {
  /** What callers write. */
  readonly alias: string;
  readonly kind: KindName;
  readonly routes: readonly [Route, ...Route[]];
  readonly aspectRatios: readonly string[];
  /** How long a run normally takes, p50 and p95; paces our looks and what callers are told. */
  readonly expectedSeconds: { readonly p50: number; readonly p95: number };
  /** The provider is told to stop a run after this, queue time included. */
  readonly timeoutSeconds: number;
}

const FLUX_RATIOS = ["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"];

/** To add a model, add an entry. Prices and limits: the provider's model pages, 2026-11. */
export const CATALOGUE: readonly Model[] = [
  {
    alias: "flux-schnell",
    kind: "generation",
    routes: [{ api: "replicate", model: "black-forest-labs/flux-schnell", microUsdPerOutput: 3_000 }],
    aspectRatios: FLUX_RATIOS,
    expectedSeconds: { p50: 2, p95: 15 },
    timeoutSeconds: 300,
  },
  {
    alias: "flux-kontext-pro",
    kind: "staging",
    routes: [{ api: "replicate", model: "black-forest-labs/flux-kontext-pro", microUsdPerOutput: 40_000 }],
    aspectRatios: [],
    expectedSeconds: { p50: 12, p95: 90 },
    timeoutSeconds: 600,
  },
];

export function modelsOf(kind: KindName): readonly Model[] {
  return CATALOGUE.filter((model) => model.kind === kind);
}

export function findModel(kind: KindName, alias: string): Model | undefined {
  return CATALOGUE.find((model) => model.kind === kind && model.alias === alias);
}

export function routeOf(model: Model, api: string): Route | undefined {
  return model.routes.find((route) => route.api === api);
}
