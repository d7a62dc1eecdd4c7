import { and, eq, lt, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { firstIdAt } from "./ids.ts";
import { catalogueState } from "./schema.ts";

export type RouteState = typeof catalogueState.$inferSelect;

/** A model's name at a provider, to be run or to be trained. */
export interface RouteKey {
  readonly provider: string;
  readonly model: string;
  readonly isTraining: boolean;
}

/** Whoever was to ask and vanished holds nobody up for longer. */
const CLAIM_SECONDS = 600;
/** Several orders that fail at once are one reason to ask. */
const SUSPECT_SECONDS = 10;
/** What is known of a route; at most 1,000 of them. */
export async function readStates(db: Db): Promise<RouteState[]> {
  return db.select().from(catalogueState).limit(1_000);
}

/** Makes sure that every route has its row; those that are there stay as they are. */
export async function nameRoutes(db: Db, routes: readonly RouteKey[]): Promise<void> {
  if (routes.length > 0)
    await db
      .insert(catalogueState)
      .values([...routes])
      .onConflictDoNothing();
}

/** The route that has waited longest to be asked for, for one worker of the fleet; null when none is due. */
export async function claimCheck(db: Db, routes: readonly RouteKey[]): Promise<RouteState | null> {
  const { rows } = await db.execute<{ provider: string; model: string; is_training: boolean }>(sql`
    update catalogue_state s set check_at = now() + make_interval(secs => ${CLAIM_SECONDS})
    from (
      select provider, model, is_training from catalogue_state
      where check_at <= now() and (provider, model, is_training) in (
        select x ->> 'provider', x ->> 'model', (x ->> 'isTraining')::boolean
        from jsonb_array_elements(${JSON.stringify(routes)}::jsonb) x)
      order by check_at limit 1 for update skip locked
    ) due
    where (s.provider, s.model, s.is_training) = (due.provider, due.model, due.is_training)
    returning s.provider, s.model, s.is_training`);
  const [row] = rows;
  if (!row) return null;
  const [state] = await db
    .select()
    .from(catalogueState)
    .where(isRoute({ provider: row.provider, model: row.model, isTraining: row.is_training }));
  return state ?? null;
}

export interface Checked {
  /** Null: the provider gave no answer that says whether it is there; what was known stays. */
  readonly status: "ok" | "gone" | null;
  readonly version: string | null;
  /** Why; in the provider's words. */
  readonly detail: string | null;
}

/** Writes down what a check found; the next one comes after so many seconds. */
export async function saveCheck(db: Db, route: RouteKey, checked: Checked, nextSeconds: number): Promise<void> {
  const { status, version, detail } = checked;
  await db
    .update(catalogueState)
    .set({
      detail,
      ...(status ? { status, version, checkedAt: sql`now()` } : {}),
      checkAt: sql`now() + make_interval(secs => ${nextSeconds})`,
    })
    .where(isRoute(route));
}

/** An order was declined because the model is not there: it is asked for at the next round, by whoever comes first. */
export async function suspectRoute(db: Db, route: RouteKey): Promise<void> {
  await db
    .update(catalogueState)
    .set({ checkAt: sql`now()` })
    .where(
      and(
        isRoute(route),
        lt(sql`coalesce(checked_at, '-infinity')`, sql`now() - make_interval(secs => ${SUSPECT_SECONDS})`),
      ),
    );
}

const isRoute = ({ provider, model, isTraining }: RouteKey) =>
  and(
    eq(catalogueState.provider, provider),
    eq(catalogueState.model, model),
    eq(catalogueState.isTraining, isTraining),
  );

/** Fewer runs than this say little about how long the next one takes. */
const LEAST_SAMPLES = 20;
const LEARN_DAYS = 7;
/** The newest of all models together. */
const MOST_SAMPLES = 100_000;

/** How long the models took, from sending to the end, in the last 7 days. Returns how many routes it is known of. */
export async function learnSeconds(db: Db): Promise<number> {
  const since = firstIdAt(Date.now() - LEARN_DAYS * 86_400_000);
  const { rowCount } = await db.execute(sql`
    with recent as materialized (
      select provider, model, destination is not null as is_training, extract(epoch from ended_at - sent_at) as seconds
      from (select * from runs where id >= ${since} order by id desc limit ${MOST_SAMPLES}) newest
      where status = 'stored' and sent_at > now() - make_interval(days => ${LEARN_DAYS}) and ended_at >= sent_at
    ), learned as (
      select provider, model, is_training, count(*)::int as samples,
        percentile_cont(0.5) within group (order by seconds) as p50,
        percentile_cont(0.95) within group (order by seconds) as p95
      from recent group by provider, model, is_training having count(*) >= ${LEAST_SAMPLES}
    )
    update catalogue_state s set p50 = l.p50, p95 = l.p95, samples = l.samples
    from learned l where (s.provider, s.model, s.is_training) = (l.provider, l.model, l.is_training)`);
  return rowCount ?? 0;
}
