import { isEnded } from "../../src/domain/job.ts";
import { settlement } from "../../src/domain/pricing.ts";
import type { Told } from "./lifecycle.ts";
import type { Property, World } from "./setting.ts";

/** Everything that is true at one moment: in the database, in the workers' memories, on the wires, at the provider. */
export interface State {
  readonly job: number;
  /** Complete readings that did not show the order that is looked for. */
  readonly readings: number;
  readonly workers: readonly Worker[];
  readonly posts: readonly Post[];
  readonly theirs: readonly Theirs[];
  readonly held: Held | null;
  /** Credits kept of 12, for each settlement. */
  readonly settled: readonly number[];
  /** Purchases beyond the first that nothing excuses. */
  readonly doubles: number;
  readonly untrue: Property | null;
}

export type Worker =
  | { readonly at: "rest" }
  /** Read that there is something to buy (`order` set: to send again), and may act on it much later. */
  | { readonly at: "buying"; readonly order: string; readonly fenced: boolean }
  | { readonly at: "abandoning"; readonly order: string }
  /** The intent is committed. `left` ticks until its clock refuses; at 0 it may just have been early enough. */
  | { readonly at: "sending"; readonly order: string; readonly left: number; readonly checked: boolean }
  | { readonly at: "waiting"; readonly order: string; readonly reply: string };

/** An order on its way: for 15 s at most, as long as its socket lives. */
export interface Post {
  readonly order: string;
  readonly age: number;
  /** How many runs there had failed when it was written. */
  readonly excused: number;
}
/** A run at the provider, paid for. */
export interface Theirs {
  readonly id: string;
  readonly order: string;
  readonly phase: "running" | "succeeded" | "failed" | "interrupted" | "canceled";
  /** Ticks since it was accepted, up to the lag. */
  readonly age: number;
  readonly toldToStop: boolean;
  readonly hasWebhooks: boolean;
}

/** What a watch was told and has not recorded yet. */
export interface Held {
  readonly told: Told;
  readonly order: string;
  readonly theirId: string;
  /** The order was armed again since. */
  readonly isOld: boolean;
  /** Without the job's lock: what it knew of the job when it asked. */
  readonly basis: number | null;
}

/** What the job of the model costs. */
export const CHARGED = 12;
export const REST: Worker = { at: "rest" };

export function start(world: World): State {
  const job = world.life.first;
  return {
    job,
    readings: 0,
    workers: [REST, REST],
    posts: [],
    theirs: [],
    held: null,
    settled: [],
    doubles: 0,
    untrue: null,
  };
}

const words = new WeakMap<object, string>();
function word(part: object): string {
  let found = words.get(part);
  if (found === undefined) {
    found = Object.values(part).join(" ");
    words.set(part, found);
  }
  return found;
}

/** Equal for states that differ in nothing but which of the two workers it is. */
export function stateKey(state: State): string {
  const { job, readings, workers, posts, theirs, held, settled, doubles, untrue } = state;
  const [a = "", b = ""] = workers.map(word);
  const there = theirs.map(word).join();
  const out = posts.length > 1 ? posts.map(word).sort().join() : posts.map(word).join();
  const pair = a < b ? `${a},${b}` : `${b},${a}`;
  return `${job}|${readings}|${pair}|${out}|${there}|${held ? word(held) : ""}|${settled}|${doubles}|${untrue ?? ""}`;
}

/** Applies a fact as `apply` does: what ended is settled in the same transaction. Null: the database refuses it. */
export function learn(world: World, state: State, type: Told, order: string, theirId = ""): State | null {
  const { life, guards } = world;
  const number = life.learn(state.job, type, order, theirId);
  if (number === null) return null;
  if (number === state.job) return state;
  const job = life.job(number);
  const ends = isEnded(job) && !isEnded(life.job(state.job));
  const settles = ends && (state.settled.length === 0 || !guards.settleOnce);
  const isSought = job.runs.some((run) => run.status === "submitting" || run.status === "unknown");
  return {
    ...state,
    job: number,
    readings: isSought ? state.readings : 0,
    settled: settles ? [...state.settled, settlement(job, CHARGED).kept] : state.settled,
    untrue: state.untrue ?? noted(world, untruth(world, state, type, order)),
  };
}

/** What a sender says; the database's refusal leaves things as they are. */
export function record(world: World, state: State, type: Told, order: string, theirId = ""): State {
  return learn(world, state, type, order, theirId) ?? state;
}

/** What nobody asks for would only double the states. */
function noted(world: World, wrong: Property | null): Property | null {
  return wrong !== null && world.properties.includes(wrong) ? wrong : null;
}

/** A fact that changes something, and is none. */
function untruth(world: World, state: State, type: Told, order: string): Property | null {
  if (!["absent", "declined", "refused", "postponed"].includes(type)) return null;
  const isOrder = (each: object) => "order" in each && each.order === order;
  const knows = world.life.job(state.job).runs.some((run) => run.id === order && run.providerRunId !== null);
  if (type === "absent" && knows) return "against evidence";
  const mayBeWritten = (worker: Worker) =>
    worker.at === "sending" && (worker.left >= 0 || worker.checked || world.guards.sendWindow === false);
  const isComing = type === "absent" && state.workers.some((worker) => isOrder(worker) && mayBeWritten(worker));
  return state.theirs.some(isOrder) || state.posts.some(isOrder) || isComing ? "untrue" : null;
}

/** The order goes out. */
export function write(state: State, order: string): State {
  const excused = state.theirs.filter(({ phase }) => phase !== "running" && phase !== "succeeded").length;
  return { ...state, posts: [...state.posts, { order, age: 0, excused }] };
}

/** The provider is told to stop. */
export function stop(state: State, theirId: string | null): State {
  const theirs = state.theirs.map((run) =>
    run.id === theirId && run.phase === "running" ? { ...run, toldToStop: true } : run,
  );
  return { ...state, theirs };
}
