import { wrongs } from "./properties.ts";
import type { World } from "./setting.ts";
import { type State, start, stateKey } from "./state.ts";
import { moves } from "./world.ts";

/** More than this and the world is too rich for a test: make it smaller. */
const MOST_STATES = 600_000;

export interface Found {
  readonly states: State[];
  /** The shortest way to the first state in which something is wrong; null: there is none. */
  readonly story: Story | null;
  /** For every state, its successors; empty unless asked for. */
  readonly edges: readonly (readonly number[])[];
  /** The shortest way to a state, by its number. */
  readonly way: (index: number) => string[];
}

export interface Story {
  /** What is wrong at its end. */
  readonly wrong: string;
  /** One line for each thing that happened, with the time that had passed. */
  readonly lines: readonly string[];
  readonly seconds: number;
}

/** Breadth first, so that what is found first is the shortest way there. */
export function search(world: World, withEdges = false): Found {
  const first = start(world);
  const states: State[] = [first];
  const parents: number[] = [-1];
  const labels: string[] = [""];
  const edges: number[][] = [];
  const numbers = new Map<string, number>([[stateKey(first), 0]]);
  const way = (index: number): string[] => {
    const lines: string[] = [];
    for (let at = index; at > 0; at = parents[at] ?? 0) lines.unshift(labels[at] ?? "");
    return lines;
  };
  const telling = (index: number, wrong: string): Story => {
    let seconds = 0;
    const lines: string[] = [];
    for (const line of way(index)) {
      if (line === TICK) seconds += 5;
      else lines.push(`${String(seconds).padStart(3)} s  ${line}`);
    }
    return { wrong, lines, seconds };
  };
  for (let index = 0; index < states.length; index++) {
    const state = states[index] as State;
    const out: number[] = [];
    for (const [label, after] of moves(world, state)) {
      const key = stateKey(after);
      let number = numbers.get(key);
      if (number === undefined) {
        number = states.length;
        numbers.set(key, number);
        states.push(after);
        parents.push(index);
        labels.push(label);
        const wrong = wrongs(world, after);
        if (wrong !== null) return { states, story: telling(number, wrong), edges, way };
        if (number > MOST_STATES) throw new Error(`more than ${MOST_STATES} states`);
      }
      if (withEdges) out.push(number);
    }
    if (withEdges) edges.push(out);
  }
  return { states, story: null, edges, way };
}

const TICK = "five seconds pass";

/** The states from which no state is reachable that is `good`: computed backwards from those that are. */
export function hopeless({ states, edges }: Found, good: (state: State) => boolean): number[] {
  const before: number[][] = states.map(() => []);
  edges.forEach((out, from) => {
    for (const to of out) before[to]?.push(from);
  });
  const hopeful = new Uint8Array(states.length);
  const queue: number[] = [];
  const reach = (index: number) => {
    if (hopeful[index]) return;
    hopeful[index] = 1;
    queue.push(index);
  };
  states.forEach((state, index) => {
    if (good(state)) reach(index);
  });
  for (let index = queue.pop(); index !== undefined; index = queue.pop()) before[index]?.forEach(reach);
  return [...states.keys()].filter((index) => !hopeful[index]);
}
