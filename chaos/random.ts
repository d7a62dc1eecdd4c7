import { createHash } from "node:crypto";
import { makeRandom } from "../demo/perspective.ts";

/** The same choices for the same seed, on every machine. */
export interface Random {
  /** Whole, both ends included. */
  whole(from: number, to: number): number;
  chance(share: number): boolean;
  /** Throws when there is nothing to choose from. */
  pick<T>(choices: readonly T[]): T;
  /** Heavier ones more often. */
  weighted<T extends { readonly weight: number }>(choices: readonly T[]): T;
  shuffled<T>(list: readonly T[]): T[];
}

/** Each purpose draws from a stream of its own: another number of jobs leaves the nemesis as it was. */
export function seeded(seed: number, purpose: string): Random {
  const random = makeRandom(createHash("sha256").update(`${seed} ${purpose}`).digest().readInt32BE());
  const pick = <T>(choices: readonly T[]): T => {
    if (choices.length === 0) throw new Error("there is nothing to choose from");
    return choices[Math.floor(random() * choices.length)] as T;
  };
  return {
    whole: (from, to) => from + Math.floor(random() * (to - from + 1)),
    chance: (share) => random() < share,
    pick,
    weighted(choices) {
      let left = random() * choices.reduce((sum, each) => sum + each.weight, 0);
      for (const each of choices) {
        left -= each.weight;
        if (left < 0) return each;
      }
      return pick(choices);
    },
    shuffled(list) {
      const keyed = list.map((item) => ({ item, rank: random() }));
      return keyed.sort((a, b) => a.rank - b.rank).map(({ item }) => item);
    },
  };
}
