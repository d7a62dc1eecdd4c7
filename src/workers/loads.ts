import { claimChore } from "../db/chores.ts";
import { outAt } from "../db/looks.ts";
import { type CallSum, sumCalls } from "../db/provider-logs.ts";
import {
  claimChanges,
  type ProviderState,
  readProviderStates,
  type StateChange,
  saveLoads,
} from "../db/provider-states.ts";
import { isReachable } from "../domain/call.ts";
import { FAILURES } from "../domain/failure.ts";
import { type Load, type Provider, ProviderUnreachable } from "../domain/provider.ts";
import { isAccountTrouble } from "../domain/turns.ts";
import { inLanes } from "../lanes.ts";
import type { Metrics } from "../metrics.ts";
import { routesOf } from "./catalogue.ts";
import { type Loop, repeat } from "./loop.ts";
import type { Services } from "./services.ts";

const EVERY_MS = 5_000;
/** How busy the providers are is asked this often, by one worker of the fleet. */
const LOADS_SECONDS = 10;
/** Models asked about at the same time. */
const LANES = 8;

type LoadServices = Pick<Services, "db" | "providers" | "logger" | "metrics">;

/**
 * Watches the accounts: says once in the fleet's logs when a breaker opens or an account is paused, shows it in the
 * metrics of every worker, and notes how busy those are that tell. It ends no pause: the next order in line does.
 * Where runs are out at an account that this worker does not have, it says so when it starts.
 */
export function loads({ db, providers, logger, metrics }: LoadServices, everyMs = EVERY_MS): Loop {
  let first = true;
  return repeat("loads", logger, everyMs, async () => {
    if (first) for (const out of await outAt(db)) tellForgotten(logger, providers, out);
    first = false;
    for (const change of await claimChanges(db)) tell(logger, change);
    const telling = providers.filter(({ load }) => load);
    if (telling.length > 0 && (await claimChore(db, "loads", LOADS_SECONDS)))
      for (const provider of telling) await saveLoads(db, provider.name, await loadsOf(provider, logger));
    show(metrics, providers, await readProviderStates(db));
    showReachable(metrics, providers, await sumCalls(db));
    return false;
  });
}

type Out = Awaited<ReturnType<typeof outAt>>[number];

/** What could not be learned keeps its older figure. */
async function loadsOf(provider: Provider, logger: Services["logger"]): Promise<Record<string, Load>> {
  const models = [...new Set(routesOf({ providers: [provider] }).map(({ model }) => model))];
  const told = await inLanes(LANES, models, async (model) => {
    try {
      const load = await provider.load?.(model);
      return load ? [[model, load] as const] : [];
    } catch (error) {
      if (!(error instanceof ProviderUnreachable)) throw error;
      logger.debug({ err: error, provider: provider.name, model }, "how busy it is could not be asked");
      return [];
    }
  });
  return Object.fromEntries(told.flat());
}

function tell(logger: Services["logger"], { provider, from, to }: StateChange): void {
  if (isAccountTrouble(to)) {
    const remedy = `${FAILURES[to].remedy} Should that not be noticed within a minute: npm start -- resume ${provider}`;
    logger.error({ provider, reason: to, remedy }, `the account ${provider} is paused: nothing is bought there`);
  } else if (to === "open") logger.error({ provider }, `${provider} does not answer: one order at a time tries`);
  else logger.warn({ provider, before: from }, `${provider} takes orders again`);
}

function tellForgotten(logger: Services["logger"], providers: readonly Provider[], out: Out): void {
  const { provider, runs } = out;
  if (providers.some(({ name }) => name === provider)) return;
  const remedy = `Give the account ${provider} back to this deployment until they have ended: what they make is paid, and nobody else can fetch it.`;
  logger.error({ provider, runs, remedy }, `runs are out at ${provider}, which this deployment does not have any more`);
}

const BREAKER = ["closed", "half_open", "open"] as const;
const REASONS = ["provider_no_credit", "provider_auth"] as const;

/** Of this deployment's accounts; one that nobody has used yet is as a new one. */
function show(metrics: Metrics, providers: readonly Provider[], states: readonly ProviderState[]): void {
  for (const { name: provider } of providers) {
    const state = states.find((each) => each.provider === provider);
    for (const reason of REASONS)
      metrics.providerPaused.set({ provider, reason }, state?.paused?.reason === reason ? 1 : 0);
    for (const word of BREAKER)
      metrics.providerBreaker.set({ provider, state: word }, (state?.breaker ?? "closed") === word ? 1 : 0);
    for (const { model, queued, running, workers } of state?.load ?? []) {
      metrics.providerLoad.set({ provider, model, what: "queued" }, queued);
      metrics.providerLoad.set({ provider, model, what: "running" }, running);
      for (const [word, count] of Object.entries(workers))
        metrics.providerLoad.set({ provider, model, what: `workers_${word}` }, count);
    }
  }
}

/** Of an account that nobody has asked for a while, nothing is shown: it may be well. */
function showReachable(metrics: Metrics, providers: readonly Provider[], sums: readonly CallSum[]): void {
  for (const { name: provider } of providers) {
    const reachable = isReachable(sums.filter((each) => each.provider === provider));
    if (reachable === null) metrics.providerReachable.remove({ provider });
    else metrics.providerReachable.set({ provider }, reachable ? 1 : 0);
  }
}
