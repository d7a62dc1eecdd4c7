import { type RouteState, readStates } from "../db/catalogue-state.ts";
import type { Db } from "../db/client.ts";
import type { App } from "../domain/app.ts";
import { type Model, modelsOf } from "../domain/catalogue.ts";
import type { KindName } from "../domain/kinds/kind.ts";
import type { Providers } from "../domain/routing.ts";
import { ServiceError } from "../errors.ts";

/** What workers found out is believed for so long; saves a query per submission. */
const FRESH_MS = 10_000;

export interface CatalogueReader {
  /** What is known of the routes of this deployment's providers; at most 10 s old. */
  states(): Promise<readonly RouteState[]>;
  /** Throws model_gone when no provider of this deployment has the model any more. */
  checkThere(app: App, kind: KindName, model: Model): Promise<void>;
}

export function readCatalogue(db: Db, providers: Providers): CatalogueReader {
  let known: { readonly states: readonly RouteState[]; readonly until: number } | null = null;
  let reading: Promise<readonly RouteState[]> | null = null;

  const read = async () => {
    const states = await readStates(db);
    known = { states, until: Date.now() + FRESH_MS };
    return states;
  };
  const states = async (): Promise<readonly RouteState[]> => {
    if (known && known.until > Date.now()) return known.states;
    reading ??= read().finally(() => {
      reading = null;
    });
    return reading;
  };
  const isGone = (model: Model, of: readonly RouteState[]) => {
    const routes = statesOf(model, providers, of);
    return routes.length > 0 && routes.every((route) => route.state?.status === "gone");
  };

  return {
    states,
    async checkThere(app, kind, model) {
      const current = await states();
      if (!isGone(model, current)) return;
      const allowed = app.models[kind]?.allowed;
      const there = modelsOf(kind)
        .filter((each) => (allowed?.includes(each.alias) ?? true) && !isGone(each, current))
        .map(({ alias }) => alias);
      throw new ServiceError(
        "model_gone",
        `The provider no longer has the model ${model.alias}. ${there.length > 0 ? `Name another one for ${kind}: ${there.join(", ")}` : `No other model for ${kind} is there at the moment: try again later`}. Nothing was charged.`,
        {
          fields: [{ pointer: "/model", detail: `is gone; there are: ${there.join(", ") || "none"}` }],
          facts: { models: there },
        },
      );
    },
  };
}

/** The routes by which this deployment can serve a model, with what is known of each. */
export function statesOf(
  model: Model,
  providers: Providers,
  states: readonly RouteState[],
): { readonly provider: string; readonly name: string; readonly state: RouteState | undefined }[] {
  const isTraining = model.limits.trains !== undefined;
  return providers.flatMap(({ name: provider, api }) =>
    model.routes
      .filter((route) => route.api === api)
      .map((route) => ({
        provider,
        name: route.model,
        state: states.find(
          (each) => each.provider === provider && each.model === route.model && each.isTraining === isTraining,
        ),
      })),
  );
}
