import type { FaceName } from "./face.ts";
import { type Fault, type FaultName, parseFault } from "./fault.ts";

/** What a fault may strike: a run with the directives of its own text, or a request that is not yet a run. */
export interface Target {
  readonly face: FaceName;
  readonly model: string;
  /** All words of the input. */
  readonly text: string;
  readonly own: OwnFault[];
}

export interface OwnFault {
  readonly fault: Fault;
  left: number;
}

export interface FaultRule {
  readonly fault: string;
  readonly match?:
    | {
        readonly face?: FaceName | undefined;
        readonly model?: string | undefined;
        readonly promptContains?: string | undefined;
      }
    | undefined;
  /** How often it strikes before it is gone; without it, until it is deleted. */
  readonly times?: number | undefined;
  /** The amount of a fault that takes a time, as an alternative to writing it behind "=". */
  readonly ms?: number | undefined;
  /** Of what it could strike, by chance; 0 to 1. Without it, all. */
  readonly share?: number | undefined;
}

export interface StandingRule extends FaultRule {
  readonly id: number;
  readonly left: number | null;
  readonly struck: number;
}

const MAX_RULES = 1_000;
const MAX_REMEMBERED_TEXTS = 10_000;

export type Faults = ReturnType<typeof makeFaults>;

export function makeFaults() {
  const rules = new Map<number, { rule: FaultRule; fault: Fault; left: number | null; struck: number }>();
  const failures = new Map<string, number>();
  let lastId = 0;

  return {
    /** Throws a RangeError whose message says what is wrong with the rule. */
    add(rule: FaultRule): StandingRule {
      const fault = parseFault(rule.fault, rule.ms);
      if (typeof fault === "string") throw new RangeError(fault);
      if (rules.size >= MAX_RULES) throw new RangeError(`at most ${MAX_RULES} rules may stand`);
      const counted = rule.fault.includes("=") && fault.times === fault.amount ? fault.times : null;
      lastId += 1;
      rules.set(lastId, { rule, fault, left: rule.times ?? counted, struck: 0 });
      return { ...rule, id: lastId, left: rule.times ?? counted, struck: 0 };
    },

    list(): StandingRule[] {
      return [...rules].map(([id, { rule, left, struck }]) => ({ ...rule, id, left, struck }));
    },

    remove(id: number): boolean {
      return rules.delete(id);
    },

    clear(): void {
      rules.clear();
      failures.clear();
    },

    /** Says whether a fault strikes now, and counts the strike. The run's own directives come before standing rules. */
    strike(name: FaultName, target: Target, applies: (fault: Fault) => boolean = () => true): Fault | null {
      const own = target.own.find(({ fault, left }) => fault.name === name && left > 0 && applies(fault));
      if (own) {
        own.left -= 1;
        return own.fault;
      }
      for (const standing of rules.values()) {
        if (standing.fault.name !== name || standing.left === 0) continue;
        if (!matches(standing.rule, target) || !applies(standing.fault)) continue;
        if (Math.random() >= (standing.rule.share ?? 1)) continue;
        standing.struck += 1;
        if (standing.left !== null) standing.left -= 1;
        return standing.fault;
      }
      return null;
    },

    /** Says whether a standing rule would strike, and counts nothing. */
    stands(name: FaultName, target: Target): boolean {
      return [...rules.values()].some(
        ({ fault, left, rule }) => fault.name === name && left !== 0 && matches(rule, target),
      );
    },

    /** True for the first `count` runs of one model with one text. */
    isAmongFirst(count: number, target: Target): boolean {
      const key = `${target.model}\n${target.text}`;
      const failed = failures.get(key) ?? 0;
      if (failed >= count) return false;
      failures.set(key, failed + 1);
      const oldest = failures.keys().next().value;
      if (failures.size > MAX_REMEMBERED_TEXTS && oldest !== undefined) failures.delete(oldest);
      return true;
    },
  };
}

function matches(rule: FaultRule, target: Target): boolean {
  const { face, model, promptContains } = rule.match ?? {};
  const isThere = (face ?? target.face) === target.face && (model ?? target.model) === target.model;
  return isThere && target.text.includes(promptContains ?? "");
}
