import { CATALOGUE, costOf, findModel, isOwn, type Model, type Route } from "./catalogue.ts";
import type { FailureCode } from "./failure.ts";
import type { KindName } from "./kinds/kind.ts";
import type { Answer, Load, Postponed, Provider } from "./provider.ts";
import { spread } from "./spread.ts";
import { isAccountTrouble, type PauseReason } from "./turns.ts";

/**
 * Who is to serve an order. `choose` is pure: the same circumstances give the same choice, with a sentence that says
 * why. What the sentence rests on changes all the time; the run keeps it.
 */

/** An account at a provider, as far as routing knows it. */
export interface Account extends Provider {
  /** It is endpoints of our own, and has these models only; absent: all of its api but such. */
  readonly models?: readonly string[];
  /** What a second on its GPU costs, in millionths of a dollar, instead of the route's price. */
  readonly secondMicroUsd?: number;
  /** Where the provider says how it is; absent: of the sandbox, or it has no such page. */
  readonly statusPage?: string;
}

/** The accounts of this deployment, the first one first in line when nothing else decides. */
export type Providers = readonly [Account, ...Account[]];

/**
 * Who is asked first. A name is an account's ("replicate_2"), or an api's and means all its accounts ("replicate").
 * Whoever is not named comes after those who are, by cost; with `others: false` not at all.
 */
export type Routing =
  | { readonly by: "order"; readonly order: readonly [string, ...string[]]; readonly others?: false }
  /** In these shares, by the run: the same run goes the same way. 0: as if not named. */
  | { readonly by: "weight"; readonly weights: Readonly<Record<string, number>>; readonly others?: false }
  /** The cheapest that meets the deadline. */
  | { readonly by: "cost" };

/** What the fleet knows of an account at the moment. */
export interface AccountState {
  readonly provider: string;
  readonly breaker: "closed" | "open" | "half_open";
  /** No order is sent before; from then on it is worth choosing again: somebody has to try. Null: nothing to wait for. */
  readonly retryAt: Date | null;
  readonly paused: { readonly reason: PauseReason; readonly since: Date } | null;
  /** Of those that tell, by their own names of the models. */
  readonly load: readonly (Load & { readonly model: string; readonly at: Date })[];
}

/** What is known of a model's name at an account. */
export interface KnownRoute {
  readonly provider: string;
  readonly model: string;
  readonly isTraining: boolean;
  readonly status: "ok" | "gone";
  /** Seconds of a run there; null: not learned yet. */
  readonly p50: number | null;
  readonly p95: number | null;
}

export interface Circumstances {
  readonly providers: Providers;
  readonly states: readonly AccountState[];
  readonly routes: readonly KnownRoute[];
  readonly now: Date;
}

export interface Wanted {
  readonly kind: KindName;
  readonly alias: string;
  readonly routing: Routing;
  /** Decides where weights or equals do. */
  readonly runId: string;
  readonly deadlineAt: Date;
  /** Whether it starts from a picture: some routes need one, some take none. */
  readonly hasImage: boolean;
  /** Whether it is to be made with a model of the user's. */
  readonly isTrained: boolean;
  /** Whether a safety checker has to look at it: some routes have none. */
  readonly isSafe: boolean;
  /** Of a film, in seconds. */
  readonly filmSeconds: number;
  /** Of a picture; absent: one. */
  readonly megapixels?: number;
  /** The only account that can do it. */
  readonly only?: { readonly provider: string; readonly because: string } | null;
  /** Who took this order before, and did not accept it. */
  readonly refusedBy?: { readonly provider: string; readonly code: FailureCode } | null;
  /** The accounts at which earlier attempts failed, once for each. */
  readonly failedAt?: readonly string[];
}

export interface Choice {
  readonly provider: Account;
  readonly model: Model;
  /** With the price that it has at this account. */
  readonly route: Route;
  /** What keeps it from being ready; null: nothing. Its turn decides whether it may be asked all the same. */
  readonly trouble: string | null;
  /** Asking it is in vain as far as anybody knows: it is asked only where there is nobody else. */
  readonly isGone: boolean;
  /** What it is expected to cost, in millionths of a dollar. */
  readonly microUsd: number;
  /** From now to its end, in seconds, at its usual pace. */
  readonly seconds: number;
  /** Why it has its place among the others. */
  readonly because: string;
  /** What puts it behind others that are preferred less; behind its name, a sentence. */
  readonly handicap: string | null;
  /** Its place if nobody were in trouble, from 0. */
  readonly place: number;
}

export interface Choices {
  /** The best first; empty: nobody of this deployment can. */
  readonly line: readonly Choice[];
  /** Those that do not have the model any more, unless the line is of them. */
  readonly gone: readonly Choice[];
  /** Who has the model, and cannot be asked for this order. */
  readonly barred: readonly { readonly provider: string; readonly because: string }[];
}

/** A queue that was seen longer ago than this says nothing about the one there is. */
const LOAD_FRESH_MS = 60_000;

/** In what order the accounts of this deployment are to be asked for an order, and why. */
export function choose(circumstances: Circumstances, wanted: Wanted): Choices {
  const model = findModel(wanted.kind, wanted.alias);
  if (!model) return { line: [], gone: [], barred: [] };
  const barred: { provider: string; because: string }[] = [];
  const found: Judged[] = [];
  for (const provider of circumstances.providers) {
    const routes = routesOn(provider, model);
    if (routes.length === 0) continue;
    const route = routes.find((each) => canTake(each, wanted));
    const because = route ? barOf(provider, wanted) : "takes it in another form only";
    if (because !== null || !route) barred.push({ provider: provider.name, because: because ?? "" });
    else found.push(judge(circumstances, wanted, { provider, model, route }));
  }
  const all = lineUp(found, circumstances, wanted);
  const there = all.filter(({ isGone }) => !isGone);
  return there.length > 0
    ? { line: there, gone: all.filter(({ isGone }) => isGone), barred }
    : { line: all, gone: [], barred };
}

/** What an order starts from. */
export type Form = Pick<Wanted, "hasImage" | "isTrained" | "isSafe">;

export const canTake = ({ takes = {} }: Pick<Route, "takes">, { hasImage, isTrained, isSafe }: Form): boolean =>
  (takes.image === undefined || takes.image === hasImage) &&
  (takes.trained !== false || !isTrained) &&
  (takes.safety !== false || !isSafe);

/** Why an account cannot be asked at all; null: it can. */
function barOf(account: Account, { only, routing }: Wanted): string | null {
  if (only && only.provider !== account.name) return only.because;
  return isLetIn(account, routing) ? null : "is not in the app's routing";
}

/** Whether a routing leaves it a place in line, be it the last. */
export function isLetIn(account: Pick<Account, "name" | "api">, routing: Routing): boolean {
  if (routing.by === "cost" || routing.others !== false) return true;
  return namesOf(routing).some((name) => isMeant(name, account));
}

/** A choice, before it has its place among the others. */
interface Judged extends Omit<Choice, "because" | "handicap" | "place"> {
  /** At its usual pace it would end after the deadline. */
  readonly isLate: boolean;
}

function judge(
  { states, routes, now }: Circumstances,
  wanted: Wanted,
  { provider, model, route }: Pick<Choice, "provider" | "model" | "route">,
): Judged {
  const isTraining = model.limits.trains !== undefined;
  const known = routes.find(
    (each) => each.provider === provider.name && each.model === route.model && each.isTraining === isTraining,
  );
  const state = states.find((each) => each.provider === provider.name);
  const p50 = known?.p50 ?? model.expectedSeconds.p50;
  const p95 = known?.p95 ?? model.expectedSeconds.p95;
  const wait = waitSeconds(state, route.model, { p50, p95 }, now);
  const isMissed = wanted.refusedBy?.provider === provider.name && wanted.refusedBy.code === "model_not_found";
  const isGone = known?.status === "gone" || isMissed;
  return {
    provider,
    model,
    route,
    trouble: isGone ? "does not have the model" : (troubleOf(state, now) ?? refusalOf(provider, wanted) ?? null),
    isGone,
    microUsd: costOf(route, now, {
      outputs: 1,
      seconds: p50,
      filmSeconds: wanted.filmSeconds,
      ...(wanted.megapixels === undefined ? {} : { megapixels: wanted.megapixels }),
    }),
    seconds: wait + p50,
    isLate: now.getTime() + (wait + p95) * 1_000 > wanted.deadlineAt.getTime(),
  };
}

/** What the account has said to the very order; undefined: nothing, or to come back in its turn. */
function refusalOf({ name }: Account, { refusedBy }: Wanted): string | undefined {
  return refusedBy?.provider === name ? REFUSED[refusedBy.code] : undefined;
}

const REFUSED: Partial<Record<FailureCode, string>> = {
  provider_no_credit: "has said that its account is out of credit",
  provider_auth: "has refused our key",
  provider_busy: "was too busy to take it",
  provider_unavailable: "did not take it",
};

/** Null as well when it is time to try again: then its turn says who tries. */
function troubleOf(state: AccountState | undefined, now: Date): string | null {
  if (!state || state.retryAt === null || state.retryAt <= now) return null;
  if (state.paused?.reason === "provider_no_credit") return "is paused, its account is out of credit";
  if (state.paused?.reason === "provider_auth") return "is paused, it refuses our key";
  return state.breaker === "closed" ? "takes no orders for a while" : "gives no answers";
}

/** Until a worker takes it, in seconds. Nothing is known: nothing is waited for. */
function waitSeconds(
  state: AccountState | undefined,
  model: string,
  { p50, p95 }: { readonly p50: number; readonly p95: number },
  now: Date,
): number {
  const load = state?.load.find((each) => each.model === model);
  if (!load || now.getTime() - load.at.getTime() > LOAD_FRESH_MS) return 0;
  const { idle, running, initializing } = load.workers;
  const workers = idle + running + initializing;
  if (workers > 0) return (load.queued / workers) * p50;
  // Nobody works there: the first order starts a worker, and a queue says that none has come.
  return load.queued === 0 ? p95 : Number.POSITIVE_INFINITY;
}

/** The best first: what is ready, meets the deadline, has not failed it before, and is preferred; then by cost. */
function lineUp(found: readonly Judged[], { now }: Circumstances, wanted: Wanted): Choice[] {
  const places = new Map(found.map((each) => [each, placeOf(each.provider, wanted)]));
  const failures = ({ provider }: Judged) => wanted.failedAt?.filter((name) => name === provider.name).length ?? 0;
  const share = ({ provider }: Judged) => spread(`${wanted.runId}\n${provider.name}`);
  const sooner = (a: Judged, b: Judged) => (a.seconds === b.seconds ? 0 : a.seconds - b.seconds);
  const better = (a: Judged, b: Judged) =>
    Number(a.isLate) - Number(b.isLate) ||
    (a.isLate ? sooner(a, b) : 0) ||
    failures(a) - failures(b) ||
    (places.get(a)?.place ?? 0) - (places.get(b)?.place ?? 0) ||
    a.microUsd - b.microUsd ||
    sooner(a, b) ||
    share(a) - share(b);
  const because = (each: Judged): string => {
    if (found.length === 1) return "the only one with this model";
    if (each.isLate && found.every(({ isLate }) => isLate)) return "the soonest, none meets the deadline";
    return places.get(each)?.reason ?? cheapestWords(each, wanted, now);
  };
  const handicap = (each: Judged) =>
    each.isLate ? "would miss the deadline" : failures(each) > 0 ? "failed it before" : null;
  const inTrouble = ({ isGone, trouble }: Choice) => (isGone ? 2 : trouble === null ? 0 : 1);
  const line = found
    .toSorted(better)
    .map((each, place) => ({ ...each, because: because(each), handicap: handicap(each), place }));
  // Who refused it is followed by those behind him: should nobody take it, it goes around, and passes nobody over.
  const refused = line.findIndex(({ provider }) => refusalOf(provider, wanted) !== undefined);
  const isPassed = ({ place }: Choice) => Number(place < refused);
  return line.toSorted((a, b) => inTrouble(a) - inTrouble(b) || isPassed(a) - isPassed(b) || a.place - b.place);
}

function cheapestWords({ microUsd, seconds }: Judged, { deadlineAt }: Wanted, now: Date): string {
  const dollars = (microUsd / 1_000_000).toFixed(microUsd < 100_000 ? 4 : 2);
  const left = Math.round((deadlineAt.getTime() - now.getTime()) / 1_000);
  return `the cheapest that meets the deadline, $${dollars} in about ${Math.round(seconds)} s of ${left}`;
}

/** Which of the names that a routing gives means the account, first things first; those without a name are last. */
function placeOf(account: Account, { routing, runId }: Wanted): { readonly place: number; readonly reason?: string } {
  if (routing.by === "cost") return { place: 0 };
  if (routing.by === "order") {
    const place = routing.order.findIndex((name) => isMeant(name, account));
    if (place < 0) return { place: routing.order.length };
    return { place, reason: place === 0 ? "first in line" : `number ${place + 1} in line` };
  }
  const names = namesOf(routing);
  const total = names.reduce((sum, name) => sum + (routing.weights[name] ?? 0), 0);
  // Who comes first of several that are on their way at rates like the weights: one that is not there changes nothing
  // about the order of the others.
  const arrival = (name: string) =>
    -Math.log((spread(`${runId}\n${name}`) + 1) / 2 ** 32) / (routing.weights[name] ?? 1);
  const line = names.toSorted((a, b) => arrival(a) - arrival(b));
  const place = line.findIndex((name) => isMeant(name, account));
  const name = line[place];
  if (name === undefined) return { place: line.length };
  return { place, reason: `by weight, ${routing.weights[name]} of ${total}` };
}

/** Those that a routing names, and gives something to. */
export function namesOf(routing: Routing): readonly string[] {
  if (routing.by === "cost") return [];
  if (routing.by === "order") return routing.order;
  return Object.keys(routing.weights).filter((name) => (routing.weights[name] ?? 0) > 0);
}

export function isMeant(name: string, { name: own, api }: Pick<Account, "name" | "api">): boolean {
  return name === own || name === api;
}

/**
 * The sentence that is kept on the run: whom it goes to, why, and why not to those who would have come before. `met`:
 * what was found out on the way, by the account's name.
 */
export function whyOf(
  { line, gone, barred }: Choices,
  chosen: Choice,
  met: ReadonlyMap<string, string> = new Map(),
): string {
  const before = [...line, ...gone].filter(({ place }) => place < chosen.place);
  const passed = before.map(({ provider: { name }, trouble }) => ({
    provider: name,
    because: met.get(name) ?? trouble,
  }));
  const behind = chosen.handicap === null ? line.filter((each) => each !== chosen && each.handicap !== null) : [];
  const slow = behind.map(({ provider: { name }, handicap }) => ({ provider: name, because: handicap }));
  const others = [...passed, ...slow, ...barred].flatMap(({ provider, because }) =>
    because ? [`${provider} ${because}`] : [],
  );
  return `${chosen.provider.name}: ${[chosen.because, ...others].join("; ")}`.slice(0, 500);
}

/** An account's routes to a model, with the prices that they have there. */
export function routesOn(account: Pick<Account, "api" | "models" | "secondMicroUsd">, model: Model): Route[] {
  return model.routes
    .filter(({ api, model: name }) => api === account.api && (account.models?.includes(name) ?? !isOwn(name)))
    .map((route) => priced(route, account));
}

function priced(route: Route, { secondMicroUsd: microUsd }: Pick<Account, "secondMicroUsd">): Route {
  return microUsd === undefined ? route : { ...route, costs: [{ from: route.costs[0].from, per: "second", microUsd }] };
}

/** The catalogue entry behind a run: what it was ordered as may have left the catalogue since. */
export function modelOfRun(
  account: Pick<Account, "api" | "secondMicroUsd">,
  run: { readonly model: string; readonly destination: string | null },
): { model: Model; route: Route } | null {
  const isTraining = run.destination !== null;
  for (const model of CATALOGUE) {
    const route = model.routes.find((each) => each.api === account.api && each.model === run.model);
    // The same name there may be run and be trained.
    if (route && (model.limits.trains !== undefined) === isTraining) return { model, route: priced(route, account) };
  }
  return null;
}

/** Between two tries of an order that waits for its account to be in order again; the pause grows with its age. */
const PARKED_MS = 5_000;

/**
 * What an account refuses for its own sake is no refusal of the order: it waits until the account is in order, or goes
 * to another one. `elsewhere`: another account is ready to serve it, so there is nothing to wait for. `later`: another
 * one has the model, and will be ready some time.
 */
export function reroute<T extends Answer>(answer: T, elsewhere: boolean, later = elsewhere): T | Postponed {
  if (answer.outcome === "postponed") return elsewhere ? { ...answer, retryAfterMs: 0 } : answer;
  if (answer.outcome !== "declined") return answer;
  const { failure } = answer;
  if (isAccountTrouble(failure.code) || (failure.code === "model_not_found" && (elsewhere || later)))
    return { outcome: "postponed", failure, retryAfterMs: elsewhere ? 0 : PARKED_MS };
  return answer;
}
