import { z } from "zod";
import { type CallSum, costsToday, readBalances, sumCalls } from "../db/provider-logs.ts";
import { type ProviderState, readProviderStates } from "../db/provider-states.ts";
import { isAnswered, isReachable, quantile } from "../domain/call.ts";
import type { ApiServices } from "./app.ts";

/** What is read from the database is shared by everybody who asks within this time. */
const FRESH_MS = 10_000;
/** Adding up a day's runs is worth more patience. */
const COSTS_FRESH_MS = 60_000;

const quantiles = z
  .object({ calls: z.int(), p50Ms: z.int().nullable(), p95Ms: z.int().nullable() })
  .describe("Of the last hour; times are right to a fifth.");

export const providerHealth = z.object({
  name: z.string().describe("The account."),
  api: z.string(),
  reachable: z
    .boolean()
    .nullable()
    .describe("Whether it has answered lately, to any process; null: nobody has asked it for ten minutes."),
  breaker: z.enum(["closed", "half_open", "open"]).nullable().describe("Null: not known at the moment."),
  paused: z
    .object({ reason: z.enum(["provider_no_credit", "provider_auth"]), since: z.iso.datetime() })
    .nullable()
    .describe("It refuses us: nothing is bought there until it does not."),
  statusPage: z.url().nullable().describe("Where the provider says how it is."),
  lastHour: z
    .object({
      submit: quantiles.describe("Taking orders; where the call is the whole run, that."),
      look: quantiles.describe("Telling what became of them."),
      errors: z.record(z.string(), z.int()).describe("Calls of all sorts that had trouble, by the trouble."),
    })
    .nullable()
    .describe("With an API key or the operator's login; otherwise null."),
  money: z
    .object({
      balanceMicroUsd: z.int().nullable().describe("Null: the provider does not tell."),
      balanceAt: z.iso.datetime().nullable(),
      costTodayMicroUsd: z.int().describe("Of the runs sent since midnight (UTC), of all apps."),
    })
    .nullable()
    .describe("With the operator's login; otherwise null."),
});
export type ProviderHealth = z.infer<typeof providerHealth>;

/** Who asks: what is everybody's, what is for those who have an API key, and what is the operator's alone. */
export type Reader = "anybody" | "app" | "admin";

export type ReadProviderHealth = (reader: Reader) => Promise<ProviderHealth[]>;

/** How the accounts are, as the whole fleet has seen them. Never throws: what cannot be read is null. */
export function readProviderHealth({
  db,
  providers,
  logger,
}: Pick<ApiServices, "db" | "providers" | "logger">): ReadProviderHealth {
  const unread = (what: string) => (error: unknown) => {
    logger.warn({ err: error }, `${what} could not be read`);
    return null;
  };
  const seen = remember(FRESH_MS, () =>
    Promise.all([readProviderStates(db), sumCalls(db), readBalances(db)]).catch(unread("how the providers are")),
  );
  const spent = remember(COSTS_FRESH_MS, () =>
    costsToday(
      db,
      providers.map(({ name }) => name),
    ).catch(unread("what was spent today")),
  );
  return async (reader) => {
    const [known, costs] = await Promise.all([seen(), reader === "admin" ? spent() : null]);
    const [states, sums, balances] = known ?? [null, null, null];
    return providers.map(({ name, api, statusPage }) => {
      const state = states?.find(({ provider }) => provider === name);
      const calls = sums?.filter(({ provider }) => provider === name) ?? null;
      const balance = balances?.find(({ provider }) => provider === name);
      return {
        name,
        api,
        reachable: calls && isReachable(calls),
        breaker: states && (state?.breaker ?? "closed"),
        paused: pauseOf(state),
        statusPage: statusPage ?? null,
        lastHour: reader === "anybody" || !calls ? null : lastHourOf(calls),
        money: costs && {
          balanceMicroUsd: balance?.microUsd ?? null,
          balanceAt: balance?.at.toISOString() ?? null,
          costTodayMicroUsd: costs.get(name) ?? 0,
        },
      };
    });
  };
}

/** Whether the operator should look at it. */
export function isTroubled({ reachable, breaker, paused }: ProviderHealth): boolean {
  return reachable === false || breaker === "open" || paused !== null;
}

function pauseOf(state: ProviderState | undefined): ProviderHealth["paused"] {
  return state?.paused ? { reason: state.paused.reason, since: state.paused.since.toISOString() } : null;
}

function lastHourOf(calls: readonly CallSum[]): NonNullable<ProviderHealth["lastHour"]> {
  const of = (verb: CallSum["verb"]) => {
    const its = calls.filter((call) => call.verb === verb);
    const answered = its.filter(({ error }) => isAnswered(error));
    return {
      calls: its.reduce((sum, each) => sum + each.calls, 0),
      p50Ms: quantile(answered, 0.5),
      p95Ms: quantile(answered, 0.95),
    };
  };
  const errors: Record<string, number> = {};
  for (const { error, calls: count } of calls) if (error) errors[error] = (errors[error] ?? 0) + count;
  return { submit: of("submit"), look: of("look"), errors };
}

/** One reading at a time, shared until it is `freshMs` old. */
function remember<T>(freshMs: number, read: () => Promise<T>): () => Promise<T> {
  let last: { readonly value: Promise<T>; readonly at: number } | null = null;
  return () => {
    if (!last || performance.now() - last.at > freshMs) last = { value: read(), at: performance.now() };
    return last.value;
  };
}
