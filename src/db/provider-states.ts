import { sql } from "drizzle-orm";
import { type Failure, failure } from "../domain/failure.ts";
import type { Answer, Load } from "../domain/provider.ts";
import { accountWord, bucketOf, isAccountTrouble, type PauseReason, type Rate, rateOf } from "../domain/turns.ts";
import type { Db } from "./client.ts";
import { providerStates } from "./schema.ts";

/**
 * What the fleet knows together of its accounts at providers. The rules are two functions in the database
 * (migrations/0012_provider_states.sql), so that whoever asks waits for one row and one round trip, by one clock.
 */
export interface ProviderState {
  readonly provider: string;
  /** half_open: the next order, or one that is out, tries whether the provider answers again. */
  readonly breaker: "closed" | "open" | "half_open";
  /**
   * No order is sent before, by the database's clock, unless one that is out tries with success. From then on it is worth
   * choosing again: somebody has to try.
   */
  readonly retryAt: Date | null;
  readonly paused: Pause | null;
  /** As the provider told it; by its own names of the models. */
  readonly load: readonly ModelLoad[];
}

export interface Pause {
  readonly reason: PauseReason;
  readonly since: Date;
  /** Nobody has tried for a while although it was time: no job is in line that could. */
  readonly untried: boolean;
}

interface ModelLoad extends Load {
  readonly model: string;
  readonly at: Date;
}

/** Rows of accounts that are no longer configured stay; there are never many. */
const MOST_ACCOUNTS = 200;
/** After the time of a probe: whoever is in line has come by then. */
const UNTRIED_SECONDS = 30;

/** Every account that was ever used; those that are missing are as new. */
export async function readProviderStates(db: Pick<Db, "select">): Promise<readonly ProviderState[]> {
  const isAhead = (column: unknown) => sql<boolean>`coalesce(${column} > clock_timestamp(), false)`;
  const rows = await db
    .select({
      state: providerStates,
      isOpen: isAhead(providerStates.openUntil),
      isHeld: isAhead(providerStates.notBefore),
      isTried: isAhead(providerStates.canaryUntil),
      untried: sql<boolean>`coalesce(probe_at < clock_timestamp() - make_interval(secs => ${UNTRIED_SECONDS}), false)`,
    })
    .from(providerStates)
    .limit(MOST_ACCOUNTS);
  return rows.map(({ state, isOpen, isHeld, isTried, untried }) => {
    const { provider, openings, openUntil, notBefore, pausedReason, pausedSince, probeAt, canaryUntil, load } = state;
    const times = [isOpen ? openUntil : null, isHeld ? notBefore : null, isTried ? canaryUntil : null, probeAt].filter(
      (time) => time !== null,
    );
    return {
      provider,
      breaker: openings === 0 ? "closed" : isOpen ? "open" : "half_open",
      retryAt: times.length > 0 ? new Date(Math.max(...times.map((time) => time.getTime()))) : null,
      paused: pausedReason && pausedSince ? { reason: pausedReason, since: pausedSince, untried } : null,
      load: Object.entries(load).map(([model, { at, ...figures }]) => ({ model, ...figures, at: new Date(at) })),
    };
  });
}

export interface Turn {
  /** The account. */
  readonly provider: string;
  readonly api: string;
  readonly runId: string;
  /** How long the order may take (`Provider.submitMs`); a canary that is silent for longer is taken for dead. */
  readonly submitMs?: number;
  /** Instead of what the provider publishes; null: no limit. */
  readonly rate?: Rate | null;
}

type TurnAnswer =
  | { readonly go: true }
  /** Park it: nothing was sent, and it is no attempt. */
  | { readonly go: false; readonly retryAfterMs: number; readonly failure: Failure };

const USUAL_SUBMIT_MS = 15_000;
/** From the turn to the first byte, and from the answer to its being noted. */
const CANARY_SLACK_MS = 15_000;
/** Those who wait for the same thing do not come in the same instant. */
const SPREAD_MS = 5_000;

/**
 * To be asked right before an order is committed as intent. In a statement of its own, never within a transaction: others
 * wait for the row. Asked again for the same run it takes another token at most.
 */
export async function takeTurn(db: Pick<Db, "execute">, turn: Turn): Promise<TurnAnswer> {
  const { provider, api, runId, submitMs = USUAL_SUBMIT_MS, rate = rateOf(provider, api) } = turn;
  const bucket = rate ? bucketOf(rate) : null;
  const { rows } = await db.execute<{ go: boolean; wait_seconds: number | null; reason: string; since: number }>(sql`
    select go, wait_seconds, reason, (extract(epoch from since) * 1000)::float8 as since
    from take_turn(${provider}, ${runId}, ${bucket?.perSecond ?? null}, ${bucket?.burst ?? null},
                   ${(submitMs + CANARY_SLACK_MS) / 1_000})`);
  const [row] = rows;
  if (!row) throw new Error("take_turn gave no answer");
  if (row.go) return { go: true };
  const waitMs = Math.ceil((row.wait_seconds ?? 0) * 1_000);
  const since = new Date(row.since).toISOString();
  // Turns are promised one by one; the others are waited for by everybody.
  if (row.reason === "rate_limited") {
    const why = failure(
      "rate_limited",
      `${provider} takes no more orders for now: the turn is promised in ${waitMs} ms`,
    );
    return { go: false, retryAfterMs: waitMs, failure: why };
  }
  const why = isAccountTrouble(row.reason)
    ? failure(
        row.reason,
        `the account ${provider} is paused since ${since}: one order a minute tries whether that is over`,
      )
    : failure("provider_unavailable", `${provider} is left alone since ${since}: order after order had no answer`);
  return { go: false, retryAfterMs: waitMs + Math.round(Math.random() * SPREAD_MS), failure: why };
}

/**
 * What an order came to, right after it is known. Also of what kept it from being sent: a model that could not be asked
 * for. Noting it again changes nothing.
 */
export async function noteAnswer(
  db: Pick<Db, "execute">,
  provider: string,
  runId: string,
  answer: Answer,
): Promise<void> {
  const retrySeconds = answer.outcome === "postponed" ? answer.retryAfterMs / 1_000 : 0;
  await db.execute(sql`select note_answer(${provider}, ${runId}, ${accountWord(answer)}, ${retrySeconds})`);
}

/**
 * For an order that had its turn and was not sent after all: whoever waits for it to try need not wait until it is taken
 * for dead. Its token is gone. Repeating is harmless.
 */
export async function returnTurn(db: Pick<Db, "execute">, provider: string, runId: string): Promise<void> {
  await db.execute(sql`
    update provider_states set canary_run = null, canary_until = null, updated_at = now(),
      probe_at = case when paused_reason is not null then clock_timestamp() end
    where provider = ${provider} and canary_run = ${runId}`);
}

/**
 * Ends a pause and closes the breaker: the operator knows better. Jobs that are parked come by themselves, within about
 * a minute. False: there was nothing to end.
 */
export async function resumeProvider(db: Pick<Db, "execute">, provider: string): Promise<boolean> {
  const { rowCount } = await db.execute(sql`
    update provider_states set paused_reason = null, paused_since = null, probe_at = null,
      openings = 0, opened_at = null, open_until = null, silent_runs = '{}', canary_run = null, canary_until = null,
      updated_at = now()
    where provider = ${provider} and (paused_reason is not null or openings > 0)`);
  return (rowCount ?? 0) > 0;
}

/** A change that nobody has logged yet. */
export interface StateChange {
  readonly provider: string;
  readonly from: "closed" | "open" | PauseReason;
  readonly to: "closed" | "open" | PauseReason;
}

/** Hands each change to one process of the fleet; what came and went in between is not told. */
export async function claimChanges(db: Pick<Db, "execute">): Promise<StateChange[]> {
  const word = sql`coalesce(paused_reason, case when openings > 0 then 'open' else 'closed' end)`;
  const { rows } = await db.execute<{ provider: string; from: StateChange["from"]; to: StateChange["to"] }>(sql`
    with changed as (
      select provider, told, ${word} as word from provider_states where told <> ${word}
      order by provider limit ${MOST_ACCOUNTS} for update skip locked)
    update provider_states s set told = changed.word from changed where s.provider = changed.provider
    returning s.provider, changed.told as "from", changed.word as "to"`);
  return rows;
}

/** What the provider does not tell any more is forgotten after this. */
const LOAD_KEPT_MS = 600_000;

/** Notes how busy models of an account are. The others' figures stay, each with its time. */
export async function saveLoads(
  db: Pick<Db, "execute">,
  provider: string,
  loads: Readonly<Record<string, Load>>,
): Promise<void> {
  await db.execute(sql`
    with told as (
      select model.key, model.value || jsonb_build_object('at', floor(extract(epoch from now()) * 1000)) as value
      from jsonb_each(${JSON.stringify(loads)}::jsonb) model)
    insert into provider_states (provider, load)
    select ${provider}, coalesce(jsonb_object_agg(key, value), '{}') from told
    on conflict (provider) do update set load = (
      select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(provider_states.load || excluded.load)
      where (value ->> 'at')::float8 > extract(epoch from now()) * 1000 - ${LOAD_KEPT_MS})`);
}
