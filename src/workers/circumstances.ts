import { readStates } from "../db/catalogue-state.ts";
import type { Db } from "../db/client.ts";
import { readProviderStates } from "../db/provider-states.ts";
import type { Circumstances } from "../domain/routing.ts";

/** A choice may rest on what was true so long ago: the turn, right before the order, asks what is true now. */
const STATES_FRESH_MS = 1_000;
/** Models come and go, and get slower, over hours. */
const ROUTES_FRESH_MS = 10_000;

export type Known = Pick<Circumstances, "states" | "routes">;

/** What the fleet knows of accounts and routes, read now and then however many orders there are. */
export function readCircumstances(db: Db): () => Promise<Known> {
  const states = kept(STATES_FRESH_MS, () => readProviderStates(db));
  const routes = kept(ROUTES_FRESH_MS, () => readStates(db));
  return async () => ({ states: await states(), routes: await routes() });
}

function kept<T>(freshMs: number, read: () => Promise<T>): () => Promise<T> {
  let value: { readonly of: Promise<T>; readonly until: number } | null = null;
  return () => {
    if (value && value.until > performance.now()) return value.of;
    const of = read();
    const mine = { of, until: performance.now() + freshMs };
    value = mine;
    // What failed is not kept.
    of.catch(() => {
      if (value === mine) value = null;
    });
    return of;
  };
}
