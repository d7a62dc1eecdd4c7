import { claimChore } from "../db/chores.ts";
import { costsToday, readBalances, saveBalance } from "../db/provider-logs.ts";
import { ProviderUnreachable } from "../domain/provider.ts";
import { type Loop, repeat } from "./loop.ts";
import type { Services } from "./services.ts";

const EVERY_MS = 60_000;
/** Asked by one worker of the fleet. */
const ASKED_SECONDS = 300;

type BalanceServices = Pick<Services, "db" | "providers" | "logger" | "metrics">;

/** Notes what is left on the accounts that tell; shows that, and what today cost, in the metrics of every worker. */
export function balances({ db, providers, logger, metrics }: BalanceServices, everyMs = EVERY_MS): Loop {
  const telling = providers.filter(({ balance }) => balance);
  return repeat("balances", logger, everyMs, async () => {
    const names = providers.map(({ name }) => name);
    const costs = await costsToday(db, names);
    for (const provider of names) metrics.providerCostToday.set({ provider }, (costs.get(provider) ?? 0) / 1_000_000);
    if (telling.length === 0) return false;
    if (await claimChore(db, "balances", ASKED_SECONDS))
      for (const { name, balance } of telling) {
        try {
          const microUsd = await balance?.();
          if (microUsd !== undefined) await saveBalance(db, name, microUsd);
        } catch (error) {
          if (!(error instanceof ProviderUnreachable)) throw error;
          logger.warn({ err: error, provider: name }, "what is left on the account could not be asked");
        }
      }
    for (const { provider, microUsd } of await readBalances(db))
      if (telling.some(({ name }) => name === provider))
        metrics.providerBalance.set({ provider }, microUsd / 1_000_000);
    return false;
  });
}
