import { v7 as uuidv7 } from "uuid";
import { suspectRoute } from "../db/catalogue-state.ts";
import { type JobRecord, timeBy } from "../db/jobs.ts";
import { noteAnswer, returnTurn, takeTurn } from "../db/provider-states.ts";
import { failure } from "../domain/failure.ts";
import { patienceMs } from "../domain/pacing.ts";
import { type Answer, type Declined, isOfferRefusal, type Postponed, postponedBy } from "../domain/provider.ts";
import { isSafe } from "../domain/request.ts";
import { type Account, type Choice, type Choices, choose, reroute, type Wanted, whyOf } from "../domain/routing.ts";
import type { Run } from "../domain/run.ts";
import { isAccountTrouble } from "../domain/turns.ts";
import { makeOrder, type Ordered, type OrderPlan, trainedFor } from "./order.ts";
import type { Services } from "./services.ts";

/** An order that may be sent, by whose turn it is; or what became of the search for somebody to send it to. */
export interface Prepared {
  readonly provider: Account;
  readonly run: Ordered & { readonly routeWhy: string };
  readonly timeoutSeconds: number;
  /** Not null: nothing is to be sent. */
  readonly refusal: Declined | Postponed | null;
  /** Another account behind it in line is ready, should this one refuse for its own sake. */
  readonly elsewhere: boolean;
  /** Another account has the model, ready or not. */
  readonly later: boolean;
  /** Gives the place among those who wait for this account back; repeating it is harmless. */
  leave(): void;
}

/** When all places are taken of those who may wait for an account. */
const NO_ROOM_MS = 1_000;
const UNREACHABLE_MS = 5_000;

/**
 * Goes down the line of those who can serve a variant, until one of them can be sent the order now. A run that was put
 * off was definitely not accepted: it is chosen for anew, and may go to somebody else.
 */
export async function prepare(
  services: Services,
  record: JobRecord,
  variant: number,
  postponed: Run | null,
): Promise<Prepared> {
  const id = postponed?.id ?? uuidv7();
  const trained = await trainedFor(services, record);
  if (trained && "outcome" in trained) return unsent(services, record, id, { postponed, refusal: trained });
  const plan: OrderPlan = { id, variant, trained, postponed };
  const circumstances = { ...(await services.circumstances()), providers: services.providers, now: timeBy(record) };
  const choices = choose(circumstances, wantedOf(services, record, plan));
  const met = new Map<string, Passed>();
  for (const choice of choices.line) {
    const tried = await tryAt(services, record, choice, plan);
    if ("refusal" in tried) {
      met.set(choice.provider.name, tried);
      if (tried.isFinal) break;
      continue;
    }
    const words = new Map([...met].map(([name, { because }]) => [name, because]));
    const others = choices.line.filter((each) => each !== choice && !each.isGone);
    // It goes around once without a pause, no more.
    const isNext = ({ trouble, place, provider }: Choice) =>
      trouble === null && place > choice.place && !met.has(provider.name);
    return {
      provider: choice.provider,
      run: { ...tried.order, routeWhy: whyOf(choices, choice, words) },
      timeoutSeconds: choice.model.timeoutSeconds,
      refusal: null,
      elsewhere: others.some(isNext),
      later: others.some(({ provider }) => mayServe(met.get(provider.name))),
      leave: tried.leave,
    };
  }
  return unsent(services, record, id, { postponed, choices, met, refusal: sumUp(record, choices, [...met.values()]) });
}

function wantedOf(services: Services, record: JobRecord, { id, variant, trained, postponed }: OrderPlan): Wanted {
  const { kind, model: alias, job, input, files } = record;
  const earlier = job.runs.filter((run) => run.variant === variant && run.id !== id);
  // A training is worth dollars, and its sender may be wrong about it: whoever was sent it once is the only one to ask.
  const sentTo = [...earlier, ...(postponed ? [postponed] : [])].findLast(({ destination }) => destination !== null);
  const keeper = trained?.keeper ?? null;
  return {
    kind,
    alias,
    routing: services.routingFor(record),
    runId: id,
    deadlineAt: job.deadlineAt,
    hasImage: "image" in files,
    isTrained: trained !== null,
    isSafe: isSafe(input),
    ...sizesOf(input),
    only: sentTo
      ? { provider: sentTo.provider, because: "was not sent the training before" }
      : keeper === null
        ? null
        : { provider: keeper, because: "cannot load the user's trained weights" },
    refusedBy: postponed?.failure ? { provider: postponed.provider, code: postponed.failure.code } : null,
    failedAt: earlier.filter(({ status }) => status === "failed").map(({ provider }) => provider),
  };
}

/** By which some providers charge. */
function sizesOf(input: unknown): Pick<Wanted, "filmSeconds" | "megapixels"> {
  const fields: Readonly<Record<string, unknown>> = typeof input === "object" && input !== null ? { ...input } : {};
  const { seconds, width, height } = fields;
  return {
    filmSeconds: typeof seconds === "number" ? seconds : 0,
    ...(typeof width === "number" && typeof height === "number" ? { megapixels: (width * height) / 1_000_000 } : {}),
  };
}

/** An account that cannot be sent the order now. */
interface Passed {
  /** Behind its name, this makes a sentence. */
  readonly because: string;
  readonly refusal: Declined | Postponed;
  /** The order itself is at fault: nobody else is asked. */
  readonly isFinal: boolean;
}

interface Ready {
  readonly order: Ordered;
  readonly leave: () => void;
}

async function tryAt(services: Services, record: JobRecord, choice: Choice, plan: OrderPlan): Promise<Ready | Passed> {
  const { provider } = choice;
  const { name, api, submitMs } = provider;
  const ask = () => takeTurn(services.db, { provider: name, api, runId: plan.id, submitMs });
  const leave = services.bulkheads.enter(name);
  if (!leave) {
    const why = failure("rate_limited", `as many orders of this process as may wait for ${name} at a time already do`);
    const refusal: Postponed = { outcome: "postponed", failure: why, retryAfterMs: NO_ROOM_MS + patienceOf(record) };
    return { because: "answers slowly, and has orders enough to answer", refusal, isFinal: false };
  }
  let isReady = false;
  try {
    // Whom the fleet leaves alone is asked for nothing, unless it is this order's turn to try.
    const early = choice.trouble === null || choice.isGone ? null : await ask();
    if (early && !early.go) return passed(record, { outcome: "postponed", ...early });
    const order = await makeOrder(services, record, choice, plan).catch((error) => postponedBy(error, UNREACHABLE_MS));
    if ("outcome" in order) {
      // What our own files are refused for is no word of the account.
      const { code } = order.failure;
      if (code === "input_missing" || isOfferRefusal(code)) await unsentAt(services, name, plan.id);
      else await noteOf(services, record, { provider, model: choice.route.model, runId: plan.id }, order);
      return passed(record, order);
    }
    const turn = early ?? (await ask());
    if (!turn.go) return passed(record, { outcome: "postponed", ...turn });
    isReady = true;
    return { order, leave };
  } finally {
    if (!isReady) leave();
  }
}

function passed(record: JobRecord, met: Declined | Postponed): Passed {
  const refusal = met.outcome === "postponed" ? patiently(record, met) : met;
  const { code } = refusal.failure;
  const isElsewhere = code === "model_not_found" || isAccountTrouble(code) || isOfferRefusal(code);
  const isFinal = refusal.outcome === "declined" && !isElsewhere;
  return { because: WORDS[code] ?? "refused it", refusal, isFinal };
}

const WORDS: Partial<Record<string, string>> = {
  rate_limited: "has no turn free",
  provider_unavailable: "cannot be reached",
  provider_no_credit: "is out of credit",
  provider_auth: "refuses our key",
  model_not_found: "does not have the model",
  input_too_large: "takes no file of that size",
  input_unreachable: "cannot be given the file",
};

/** Whether somebody could be sent the order later who could not be sent it now. */
const mayServe = (passed: Passed | undefined): boolean =>
  passed === undefined || reroute(passed.refusal, false).outcome === "postponed";

/**
 * What an answer means for the order, in the light of who else has the model: whoever put it off is asked again
 * patiently, somebody else at once.
 */
export function rerouted<T extends Answer>(
  record: JobRecord,
  answer: T,
  { elsewhere = false, later = false }: Partial<Pick<Prepared, "elsewhere" | "later">>,
): T | Postponed {
  const next = reroute(answer, elsewhere, later);
  return next.outcome === "postponed" && !elsewhere ? patiently(record, next) : next;
}

/**
 * The longer an order has been put off, the more rarely it is offered. Not where it waits for a turn: the pace of a
 * throttled account is the fleet's to keep, and whoever is old need not come last for it.
 */
function patiently(record: JobRecord, refusal: Postponed): Postponed {
  if (refusal.failure.code === "rate_limited") return refusal;
  return { ...refusal, retryAfterMs: Math.max(refusal.retryAfterMs, patienceOf(record)) };
}

const patienceOf = (record: JobRecord): number => patienceMs(timeBy(record).getTime() - record.createdAt.getTime());

/** What it means for the order that nobody could be sent it. */
function sumUp(record: JobRecord, { barred }: Choices, met: readonly Passed[]): Declined | Postponed {
  const refusals = met.map(({ refusal }) => refusal);
  const final = met.find(({ isFinal }) => isFinal)?.refusal;
  if (final) return final;
  const waiting = refusals
    .map((each) => (each.outcome === "declined" ? rerouted(record, each, {}) : each))
    .filter((each) => each.outcome === "postponed");
  const [first] = waiting;
  // The first in line says why; whoever is free first is asked first.
  if (first) return { ...first, retryAfterMs: Math.min(...waiting.map(({ retryAfterMs }) => retryAfterMs)) };
  if (refusals[0]) return refusals[0];
  const reasons = barred.map(({ provider, because }) => `${provider} ${because}`).join("; ");
  const detail = `no account of this deployment serves ${record.kind} with ${record.model}${reasons && `: ${reasons}`}`;
  return { outcome: "declined", failure: failure("model_not_found", detail) };
}

interface Search {
  readonly postponed: Run | null;
  readonly choices?: Choices;
  readonly met?: ReadonlyMap<string, Passed>;
  readonly refusal: Declined | Postponed;
}

/** Written down as an order that was not accepted. What was committed of it before stays as it was. */
function unsent(services: Services, record: JobRecord, id: string, search: Search): Prepared {
  const { postponed, choices, met, refusal } = search;
  const first = choices?.line[0];
  const provider = services.providers.find(({ name }) => name === postponed?.provider) ?? first?.provider;
  const account = provider ?? services.providers[0];
  const fresh = {
    provider: account.name,
    model: first?.route.model ?? record.model,
    version: null,
    input: {},
    destination: null,
  };
  const { model, version, input, destination, provider: name } = postponed ?? fresh;
  const reasons = [...(met ?? [])].map(([each, { because }]) => `${each} ${because}`).join("; ");
  return {
    provider: account,
    run: { id, provider: name, model, version, input, destination, routeWhy: `nobody${reasons && `: ${reasons}`}` },
    timeoutSeconds: 0,
    refusal,
    elsewhere: false,
    later: false,
    leave() {},
  };
}

interface Asked {
  readonly provider: Account;
  readonly model: string;
  readonly runId: string;
}

/** It had its turn, and nothing was sent: another order may try in its place. */
export async function unsentAt({ db, logger }: Pick<Services, "db" | "logger">, provider: string, runId: string) {
  await returnTurn(db, provider, runId).catch((error: unknown) =>
    logger.warn({ err: error, provider, run_id: runId }, "a turn was not given back: it lapses"),
  );
}

/** What an answer says about the account, for the fleet; and whether the catalogue should ask if the model is there. */
export async function noteOf(
  { db, logger }: Pick<Services, "db" | "logger">,
  { kind }: Pick<JobRecord, "kind">,
  { provider: { name: provider }, model, runId }: Asked,
  answer: Answer,
): Promise<void> {
  try {
    await noteAnswer(db, provider, runId, answer);
    if (answer.outcome === "declined" && answer.failure.code === "model_not_found")
      await suspectRoute(db, { provider, model, isTraining: kind === "training" });
  } catch (error) {
    // The next answer says it again, and models are checked once a day.
    logger.warn({ err: error, provider, run_id: runId }, "could not note what an answer says about the account");
  }
}
