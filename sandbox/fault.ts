/**
 * The vocabulary of misbehaviour. "times" counts how often it strikes one run; "count" is a number the fault itself
 * uses; every number has a bound so that a typo cannot hang a demo for a day.
 */
type Spec =
  | { readonly takes: "nothing" }
  | { readonly takes: "seconds" | "ms" | "times" | "count" | "megabytes"; readonly usual: number; readonly max: number }
  | { readonly takes: "word"; readonly words: readonly [string, ...string[]] };

const HOUR_MS = 3_600_000;
const nothing = { takes: "nothing" } as const;
const ms = (usual: number) => ({ takes: "ms", usual, max: HOUR_MS }) as const;
const times = (usual: number) => ({ takes: "times", usual, max: 1_000_000 }) as const;
const ALWAYS = 1_000_000; // times; more than anyone asks

const SPECS = {
  // At create, before anything is accepted
  no_credit: nothing,
  rate_limited: { takes: "word", words: ["body", "header", "neither"] },
  unauthorized: nothing,
  server_error: nothing,
  refuse_before: nothing,
  late_accept: ms(5_000),
  // At create, after it was accepted and billed
  server_error_after_accept: nothing,
  garbage_after_accept: nothing,
  cut: nothing,
  cut_half: nothing,
  slow_create: ms(5_000),
  // While it runs
  slow: { takes: "seconds", usual: 20, max: 1_800 },
  fail: nothing,
  fail_first: { takes: "count", usual: 1, max: 1_000 },
  interrupted: nothing,
  nsfw: nothing,
  oom: nothing,
  aborted: nothing,
  weights_null: nothing,
  // When it is asked about
  get_error: times(1),
  get_garbage: times(1),
  get_missing: times(1),
  list_lag: ms(5_000),
  // When it tells of itself
  webhook_drop: { takes: "word", words: ["all", "start", "output", "logs", "completed"] },
  webhook_duplicate: nothing,
  webhook_early: nothing,
  webhook_late: ms(3_000),
  webhook_bad_signature: nothing,
  webhook_stale: nothing,
  webhook_rotated: nothing,
  // When its output is fetched
  output_404: times(ALWAYS),
  output_truncated: times(ALWAYS),
  output_html: times(ALWAYS),
  output_huge: { takes: "megabytes", usual: 300, max: 4_096 },
  output_slow: ms(30_000),
  // Around it
  file_error: nothing,
  vanished: nothing,
  down: nothing,
} as const satisfies Record<string, Spec>;

export type FaultName = keyof typeof SPECS;
export const FAULT_NAMES = Object.keys(SPECS) as readonly FaultName[];

export interface Fault {
  readonly name: FaultName;
  /** In the unit of the fault; 0 where it takes none. */
  readonly amount: number;
  /** For faults that come in several forms; "" elsewhere. */
  readonly word: string;
  /** How often it may strike when nobody said otherwise. */
  readonly times: number;
}

/** Reads "slow=20", "rate_limited=header" or "fail"; a string in return says what is wrong with it. */
export function parseFault(text: string, amountMs?: number): Fault | string {
  const [name = "", given] = text.split("=", 2).map((part) => part.trim());
  if (!isFaultName(name)) return `unknown fault "${name}"; known are ${FAULT_NAMES.join(", ")}`;
  const spec: Spec = SPECS[name];
  switch (spec.takes) {
    case "nothing":
      if (given !== undefined) return `${name} takes no value`;
      return { name, amount: 0, word: "", times: ALWAYS };
    case "word": {
      const word = given ?? spec.words[0];
      if (!spec.words.includes(word)) return `${name} is one of ${spec.words.join(", ")}`;
      return { name, amount: 0, word, times: ALWAYS };
    }
    case "seconds":
    case "ms":
    case "times":
    case "count":
    case "megabytes": {
      const said = amountMs === undefined ? undefined : spec.takes === "seconds" ? amountMs / 1_000 : amountMs;
      const amount = given === undefined ? (said ?? spec.usual) : given === "" ? Number.NaN : Number(given);
      if (!(amount >= 0 && amount <= spec.max)) return `${name} takes a number of ${spec.takes}, at most ${spec.max}`;
      return { name, amount, word: "", times: spec.takes === "times" ? amount : ALWAYS };
    }
  }
}

function isFaultName(name: string): name is FaultName {
  return Object.hasOwn(SPECS, name);
}

const DIRECTIVE = /\[sandbox:([^\]]{0,500})\]/gi; // 500 characters

/** The faults that a text asks for, and what is wrong with those it asks for wrongly. */
export function parseDirectives(text: string): { readonly faults: Fault[]; readonly mistakes: string[] } {
  const faults: Fault[] = [];
  const mistakes: string[] = [];
  for (const [, list = ""] of text.matchAll(DIRECTIVE)) {
    for (const part of list.split(",")) {
      const fault = parseFault(part.trim());
      if (typeof fault === "string") mistakes.push(fault);
      else faults.push(fault);
    }
  }
  return { faults, mistakes };
}

/** The text as a model would see it. */
export function withoutDirectives(text: string): string {
  return text.replace(DIRECTIVE, " ").replace(/\s+/g, " ").trim();
}
