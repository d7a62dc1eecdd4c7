import {
  type Checked,
  claimCheck,
  nameRoutes,
  type RouteKey,
  type RouteState,
  readStates,
  saveCheck,
} from "../db/catalogue-state.ts";
import { CATALOGUE } from "../domain/catalogue.ts";
import type { Provider } from "../domain/provider.ts";
import { routesOn } from "../domain/routing.ts";
import { type Loop, pause, repeat } from "./loop.ts";
import type { Services } from "./services.ts";

/** Between two looks at what is due; a suspected model waits no longer. */
const EVERY_MS = 5_000;
const DAY_SECONDS = 86_400;
/** A model that is gone may come back, and a provider that gave no answer will. */
const GONE_SECONDS = 300;
const UNREAD_SECONDS = 900;
/** Checks in one round, one after the other. */
const BATCH = 50;
/** Between two answers that a model is not there: one alone may be the provider's mishap. */
const DOUBT_MS = 1_000;

interface CatalogueOptions {
  /** Before the first round: workers that start together do not ask together. Default 5 to 15 s. */
  readonly firstMs?: number;
  readonly everyMs?: number;
  /** What is asked for: by default what this deployment's accounts have of the catalogue. */
  readonly routes?: readonly RouteKey[];
}

type CatalogueServices = Pick<Services, "db" | "providers" | "logger" | "metrics">;

/**
 * Asks the providers once a day for every model of the catalogue, by whichever worker comes first, so that a model that
 * has vanished is marked before users meet it; and at once for one that an order did not find.
 */
export function catalogue(services: CatalogueServices, options: CatalogueOptions = {}): Loop {
  const { firstMs = 5_000 + Math.random() * 10_000, everyMs = EVERY_MS } = options;
  const stopped = new AbortController();
  const routes = options.routes ?? routesOf(services);
  let named = false;
  const loop = repeat("catalogue", services.logger, everyMs, async () => {
    if (!named) {
      await pause(firstMs, stopped.signal);
      if (stopped.signal.aborted) return false;
      await nameRoutes(services.db, routes);
      named = true;
    }
    const more = await checkDue(services, routes, stopped.signal);
    const gone = (await readStates(services.db)).filter(({ status }) => status === "gone");
    for (const { name } of services.providers)
      services.metrics.modelsGone.set({ provider: name }, gone.filter(({ provider }) => provider === name).length);
    return more;
  });
  return {
    stop() {
      stopped.abort();
      return loop.stop();
    },
  };
}

/** What this deployment's providers are asked for; a name that is both run and trained is two. */
export function routesOf({ providers }: Pick<Services, "providers">): RouteKey[] {
  const routes = providers.flatMap((account) =>
    CATALOGUE.flatMap((entry) =>
      routesOn(account, entry).map(({ model }) => ({
        provider: account.name,
        model,
        isTraining: entry.limits.trains !== undefined,
      })),
    ),
  );
  return [...new Map(routes.map((route) => [JSON.stringify(route), route])).values()];
}

/** Checks what is due, at most 50 routes; true when there may be more. */
async function checkDue(
  services: CatalogueServices,
  routes: readonly RouteKey[],
  stopped: AbortSignal,
): Promise<boolean> {
  for (let checks = 0; checks < BATCH; checks++) {
    const state = stopped.aborted ? null : await claimCheck(services.db, routes);
    if (!state) return false;
    await check(services, state, stopped);
  }
  return true;
}

async function check({ db, providers, logger, metrics }: CatalogueServices, state: RouteState, stopped: AbortSignal) {
  const { provider: name, model, isTraining } = state;
  const provider = providers.find((each) => each.name === name);
  if (!provider) return;
  const checked = await ask(provider, model, stopped);
  if (!checked) return; // It is claimed for a while; whoever starts next asks again.
  metrics.modelChecks.inc({ provider: name, outcome: checked.status ?? "unread" });
  const route = { provider: name, model, isTraining };
  const gone = checked.status === "gone";
  if (gone && state.status !== "gone")
    logger.error({ provider: name, model, detail: checked.detail }, "catalogue: the provider no longer has the model");
  if (checked.status === "ok" && state.status === "gone")
    logger.warn({ provider: name, model }, "catalogue: the model is there again");
  if (checked.status === null)
    logger.warn({ provider: name, model, detail: checked.detail }, "catalogue: the provider could not be asked");
  const daily = DAY_SECONDS * (0.9 + Math.random() * 0.1);
  const next = gone ? GONE_SECONDS : checked.status === null ? UNREAD_SECONDS : daily;
  await saveCheck(db, route, checked, next);
}

/** Null: stopped meanwhile. */
async function ask(provider: Provider, model: string, stopped: AbortSignal): Promise<Checked | null> {
  for (let tries = 1; ; tries++) {
    const answer = await provider.resolve(model, { fresh: true });
    if (answer.outcome === "resolved") return { status: "ok", version: answer.version, detail: null };
    const { code, detail } = answer.failure;
    if (answer.outcome === "postponed" || code !== "model_not_found") return { status: null, version: null, detail };
    if (tries === 2) return { status: "gone", version: null, detail };
    await pause(DOUBT_MS, stopped);
    if (stopped.aborted) return null;
  }
}
