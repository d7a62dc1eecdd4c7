import type { Bench, Traits } from "./bench.ts";

/** One sentence about an adapter, and what shows it; `passes` throws when it is not so. */
export interface Case {
  readonly says: string;
  passes(bench: Bench): Promise<void>;
}

/** A group of sentences: which of them concern a provider of this nature. */
export type Cases = (traits: Traits) => readonly Case[];

export function it(says: string, passes: (bench: Bench) => Promise<void>): Case {
  return { says, passes };
}
