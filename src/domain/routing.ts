import { CATALOGUE, findModel, type Model, type Route, routeOf } from "./catalogue.ts";
import type { KindName } from "./kinds/kind.ts";
import type { Provider } from "./provider.ts";

/** The providers of this deployment, the first one first in line. */
export type Providers = readonly [Provider, ...Provider[]];

export interface Choice {
  readonly provider: Provider;
  readonly model: Model;
  readonly route: Route;
}

/** Who is to serve a model: the first provider that has a route to it. Null: none of this deployment's can. */
export function choose(providers: Providers, kind: KindName, alias: string): Choice | null {
  const model = findModel(kind, alias);
  if (!model) return null;
  for (const provider of providers) {
    const route = routeOf(model, provider.api);
    if (route) return { provider, model, route };
  }
  return null;
}

/** The catalogue entry behind a run: what it was ordered as may have left the catalogue since. */
export function modelOfRun(
  api: string,
  run: { readonly model: string; readonly destination: string | null },
): { model: Model; route: Route } | null {
  const isTraining = run.destination !== null;
  for (const model of CATALOGUE) {
    const route = routeOf(model, api);
    // The same name there may be run and be trained.
    if (route?.model === run.model && (model.limits.trains !== undefined) === isTraining) return { model, route };
  }
  return null;
}
