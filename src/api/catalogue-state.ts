import { type RouteState, readStates } from "../db/catalogue-state.ts";
import type { Db } from "../db/client.ts";
import { type Pause, type ProviderState, readProviderStates } from "../db/provider-states.ts";
import { keeperOf } from "../db/trained-models.ts";
import { type App, routingOf } from "../domain/app.ts";
import { type Model, modelsOf, type Route } from "../domain/catalogue.ts";
import { type Fitted, isSafe } from "../domain/request.ts";
import { canTake, type Form, isLetIn, type Providers, routesOn } from "../domain/routing.ts";
import { ServiceError } from "../errors.ts";

/** What workers found out is believed for so long; saves a query per submission. */
const FRESH_MS = 10_000;
/** So much later than the fleet the API knows that an account is paused, or no more. */
const ACCOUNTS_FRESH_MS = 2_000;
/** As often as an order tries whether a pause is over. */
const PAUSED_RETRY_SECONDS = 60;

export interface CatalogueReader {
  /** What is known of the routes of this deployment's providers; at most 10 s old. */
  states(): Promise<readonly RouteState[]>;
  /** What is known of the accounts; at most 2 s old. */
  accounts(): Promise<readonly ProviderState[]>;
  /** Throws model_gone when no provider of this deployment has the model for such an order, or none any more. */
  checkThere(app: App, fitted: Order): Promise<void>;
  /**
   * Throws provider_paused when every account that may serve such an order is paused, at most 2 s late, and model_gone
   * when the app lets nobody serve it who can. A pause that nobody has tried to end although it was time lets
   * submissions through: one of them will. A provider that only does not answer refuses nobody: jobs wait for it.
   */
  checkOpen(app: App, fitted: Order & Pick<Fitted, "plan">): Promise<void>;
}

type Order = Pick<Fitted, "kind" | "model" | "files" | "input" | "trainedModel">;

const formOf = ({ files, input, trainedModel }: Order): Form => ({
  hasImage: "image" in files,
  isTrained: trainedModel !== null,
  isSafe: isSafe(input),
});

export function readCatalogue(db: Db, providers: Providers): CatalogueReader {
  const states = fresh(FRESH_MS, () => readStates(db));
  const accounts = fresh(ACCOUNTS_FRESH_MS, () => readProviderStates(db));
  const isGone = (model: Model, of: readonly RouteState[], form: Form) =>
    statesOf(model, providers, of).every(({ route, state }) => state?.status === "gone" || !canTake(route, form));

  return {
    states,
    accounts,
    async checkThere(app, fitted) {
      const { kind, model } = fitted;
      const current = await states();
      const form = formOf(fitted);
      if (!isGone(model, current, form)) return;
      const isUnchecked = form.isSafe && !isGone(model, current, { ...form, isSafe: false });
      const allowed = app.models[kind]?.allowed;
      const there = modelsOf(kind)
        .filter((each) => (allowed?.includes(each.alias) ?? true) && !isGone(each, current, form))
        .map(({ alias }) => alias);
      throw new ServiceError(
        "model_gone",
        `${providers.some((account) => routesOn(account, model).some((route) => canTake(route, form))) ? "The provider no longer has" : "No provider of this deployment has"} the model ${model.alias}${form.hasImage && model.limits.image === "optional" ? " for what starts from a picture" : ""}${isUnchecked ? " with a safety checker" : ""}. ${there.length > 0 ? `Name another one for ${kind}: ${there.join(", ")}` : `No other model for ${kind} is there at the moment: try again later`}. Nothing was charged.`,
        {
          fields: [{ pointer: "/model", detail: `is gone; there are: ${there.join(", ") || "none"}` }],
          facts: { models: there },
        },
      );
    },
    async checkOpen(app, fitted) {
      const { kind, model, plan, trainedModel } = fitted;
      const [known, current] = await Promise.all([accounts(), states()]);
      const routing = routingOf(app, plan, kind, model.alias);
      const form = formOf(fitted);
      const able = statesOf(model, providers, current).filter(
        ({ route, state }) => state?.status !== "gone" && canTake(route, form),
      );
      const allowed = providers.filter(
        (account) =>
          able.some(({ provider }) => provider === account.name) && (routing === null || isLetIn(account, routing)),
      );
      const pauses = new Map(
        known.flatMap(({ provider, paused }) => (paused && !paused.untried ? [[provider, paused] as const] : [])),
      );
      // Looked up only where it may matter: one account alone can load weights that are not in our store.
      const mayMatter = trainedModel !== null && allowed.some(({ name }) => pauses.has(name));
      const keeper = mayMatter ? await keeperOf(db, trainedModel) : null;
      const serving = allowed.filter(({ name }) => keeper === null || name === keeper);
      if (serving.length === 0)
        throw new ServiceError(
          "model_gone",
          `No provider that this app lets serve ${model.alias} can serve such an order${keeper === null ? "" : `: its trained weights are with ${keeper}`}. Name another model for ${kind}. Nothing was charged.`,
          { fields: [{ pointer: "/model", detail: "nobody may serve it" }], facts: { models: [] } },
        );
      const paused = serving.flatMap(({ name }): (Pause & { provider: string })[] => {
        const pause = pauses.get(name);
        return pause ? [{ provider: name, ...pause }] : [];
      });
      if (paused.length < serving.length) return;
      const why = paused.map(
        ({ provider, reason, since }) => `${provider} ${PAUSED[reason]} since ${since.toISOString()}`,
      );
      throw new ServiceError(
        "provider_paused",
        `Nobody takes orders for ${model.alias} from us: ${why.join(", ")}. It is tried again every minute. Nothing was charged. Send it again in ${PAUSED_RETRY_SECONDS} s.`,
        {
          facts: {
            retryAfter: PAUSED_RETRY_SECONDS,
            paused: paused.map(({ provider, reason, since }) => ({ provider, reason, since: since.toISOString() })),
          },
        },
      );
    },
  };
}

const PAUSED = {
  provider_no_credit: "has been without credit",
  provider_auth: "has refused our token",
} as const satisfies Record<Pause["reason"], string>;

/** What was read is believed for so long; whoever asks meanwhile, or while it is being read, shares it. */
function fresh<T>(ms: number, read: () => Promise<T>): () => Promise<T> {
  let known: { readonly value: T; readonly until: number } | null = null;
  let reading: Promise<T> | null = null;
  const renew = async () => {
    const value = await read();
    known = { value, until: Date.now() + ms };
    return value;
  };
  return async () => {
    if (known && known.until > Date.now()) return known.value;
    reading ??= renew().finally(() => {
      reading = null;
    });
    return reading;
  };
}

interface StateOfRoute {
  readonly provider: string;
  readonly name: string;
  readonly route: Route;
  readonly state: RouteState | undefined;
}

/** The routes by which this deployment can serve a model, with what is known of each. */
export function statesOf(model: Model, providers: Providers, states: readonly RouteState[]): StateOfRoute[] {
  const isTraining = model.limits.trains !== undefined;
  return providers.flatMap((account) =>
    routesOn(account, model).map((route) => ({
      provider: account.name,
      name: route.model,
      route,
      state: states.find(
        (each) => each.provider === account.name && each.model === route.model && each.isTraining === isTraining,
      ),
    })),
  );
}
