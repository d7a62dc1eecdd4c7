import { z } from "zod";
import type { Face } from "./weather.ts";

const ANSWER_MS = 10_000;
/** The sandbox keeps 1,000 standing rules; long before, those that struck as often as they should are removed. */
const TIDY_EVERY = 100;

const standing = z.object({ faults: z.array(z.object({ id: z.int(), left: z.int().nullable() })) });
const created = z.object({ id: z.int() });

export interface Rule {
  readonly fault: string;
  readonly match?: { readonly face: Face };
  readonly share?: number;
  readonly ms?: number;
}

/** The sandbox's switches. It is not ours, so nothing that is done to it goes beyond what it offers itself. */
export interface ProviderSwitches {
  /** What is to happen to whatever has these words in its prompt. */
  addRule(rule: { readonly fault: string; readonly times: number }, promptContains: string): Promise<void>;
  /** Holds until what is returned is called, or all is healed. */
  stand(rule: Rule): Promise<() => Promise<void>>;
  /** So many creates a minute for each token, and as many at once; null: as many as there are. */
  limit(creates: number | null): Promise<void>;
  /** 503 for all of its API, for so long. */
  down(forMs: number): Promise<void>;
  /** Ends whatever is broken. */
  heal(): Promise<void>;
}

export function makeProviderSwitches(sandbox: string, halted: AbortSignal): ProviderSwitches {
  const outages = new Map<number, NodeJS.Timeout | null>();
  let added = 0;
  let isLimited = false;

  async function ask(method: string, path: string, body?: object): Promise<unknown> {
    const answer = await fetch(`${sandbox}/_sandbox/${path}`, {
      method,
      ...(body && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
      signal: AbortSignal.any([halted, AbortSignal.timeout(ANSWER_MS)]),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`the sandbox refused ${method} ${path}: ${answer.status} ${text}`);
    return text === "" ? null : JSON.parse(text);
  }

  async function tidy(): Promise<void> {
    const { faults } = standing.parse(await ask("GET", "faults"));
    for (const { id } of faults.filter(({ left }) => left === 0)) await ask("DELETE", `faults/${id}`);
  }

  async function up(id: number): Promise<void> {
    clearTimeout(outages.get(id) ?? undefined);
    if (outages.delete(id)) await ask("DELETE", `faults/${id}`);
  }

  async function limit(creates: number | null): Promise<void> {
    isLimited = creates !== null;
    await ask("PUT", "limits", creates === null ? { enabled: false } : { enabled: true, creates, others: MANY });
  }

  return {
    async addRule(rule, promptContains) {
      await ask("POST", "faults", { ...rule, match: { promptContains } });
      if (++added % TIDY_EVERY === 0) await tidy();
    },
    async stand(rule) {
      const { id } = created.parse(await ask("POST", "faults", rule));
      outages.set(id, null);
      return () => up(id);
    },
    limit,
    async down(forMs) {
      const { id } = created.parse(await ask("POST", "faults", { fault: "down" }));
      const timer = setTimeout(() => void up(id).catch(() => outages.set(id, timer)), forMs); // heal tries again.
      outages.set(id, timer);
    },
    async heal() {
      for (const id of [...outages.keys()]) await up(id);
      if (isLimited) await limit(null);
    },
  };
}

/** Nobody is to be kept from asking. */
const MANY = 1_000_000;
