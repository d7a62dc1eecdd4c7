import type { FailureCode } from "../../src/domain/failure.ts";
import type { FaultPoint } from "../../src/fault-points.ts";
import type { Order } from "../orders.ts";

/** An order, as far as it is not a generation of one image that is sent once and completes. */
export interface Wanted {
  readonly staging?: true;
  readonly images?: number;
  /** For the sandbox, in the prompt: strikes every run of the order. */
  readonly directive?: string;
  readonly rule?: Order["rule"];
  readonly sends?: Order["sends"];
  readonly cancelAfterMs?: number;
  readonly fails?: FailureCode;
}

/** A few orders, and one blow that is aimed at the very step in which some careless engineer's slip would show. */
export interface Scenario {
  readonly orders: readonly Wanted[];
  /**
   * Struck in its first life; a worker is alone then, and another one takes over when it is dead or frozen. A worker
   * that is only thrown an error at has nobody to take over from it.
   */
  readonly strike?: {
    readonly who: "api" | "worker";
    readonly at: FaultPoint;
    readonly how: "kill" | "stop" | "throw";
  };
  /** When the frozen worker goes on: its job is bought by the other one, bought a second time, or has ended. */
  readonly thaw?: "bought" | "bought again" | "ended";
  /** All entries of the queue are lost before a worker has seen them. */
  readonly queueLost?: true;
  readonly webhooks?: true;
  readonly deadlineSeconds?: number;
  readonly act?: "forge webhook" | "end sessions";
  /** After the blow: what has not ended by then is stuck. At least twice what it takes without a bug. */
  readonly patienceSeconds: number;
  /** How long it is watched what happens after the end. */
  readonly lingerSeconds?: number;
}

const cut = { rule: { fault: "cut", times: 1 } } as const;

export const SCENARIOS = {
  repeats: {
    orders: [
      ...Array.from({ length: 6 }, () => ({ sends: "twice at once" }) as const),
      { sends: "again when answered" },
      { sends: "again when answered" },
    ],
    patienceSeconds: 20,
  },
  api_killed_before_commit: {
    orders: [{}],
    strike: { who: "api", at: "accept.asked", how: "kill" },
    patienceSeconds: 25,
  },
  api_killed_after_commit: {
    orders: [{}],
    strike: { who: "api", at: "accept.committed", how: "kill" },
    patienceSeconds: 25,
  },
  poor: {
    // 240 credits, of which a new user has 200.
    orders: Array.from({ length: 6 }, () => ({ staging: true }) as const),
    patienceSeconds: 40,
  },
  failures: {
    orders: [
      { directive: "nsfw", fails: "content_refused" },
      { images: 3, rule: { fault: "nsfw", times: 1 } },
      { images: 3 },
    ],
    patienceSeconds: 20,
  },
  misbehaviour: {
    orders: [
      { rule: { fault: "rate_limited=body", times: 1 } },
      { directive: "get_missing=2" },
      // One try fetches three times.
      { directive: "output_truncated=4" },
    ],
    patienceSeconds: 25,
  },
  answers_lost: {
    orders: [
      cut,
      cut,
      cut,
      { rule: { fault: "server_error_after_accept", times: 1 } },
      { rule: { fault: "garbage_after_accept", times: 1 } },
    ],
    patienceSeconds: 20,
  },
  list_lags: { orders: [{ ...cut, directive: "list_lag=1500" }], patienceSeconds: 20 },
  // The first run fails before its replacement is bought, so that nothing is paid twice; it shows up afterwards.
  shown_late: {
    orders: [{ ...cut, directive: "fail_first=1, list_lag=6000" }],
    patienceSeconds: 20,
    lingerSeconds: 12,
  },
  killed_before_intent: {
    orders: [{}],
    strike: { who: "worker", at: "submit.prepared", how: "kill" },
    patienceSeconds: 30,
  },
  killed_when_answered: {
    orders: [{}],
    strike: { who: "worker", at: "submit.answered", how: "kill" },
    patienceSeconds: 30,
  },
  killed_when_stored: {
    orders: [{}],
    strike: { who: "worker", at: "store.recorded", how: "kill" },
    patienceSeconds: 20,
  },
  killed_at_look: {
    orders: [{}],
    strike: { who: "worker", at: "watch.claimed", how: "kill" },
    patienceSeconds: 30,
  },
  killed_in_sweep: {
    orders: [{}],
    queueLost: true,
    strike: { who: "worker", at: "sweep.claimed", how: "kill" },
    patienceSeconds: 30,
  },
  thrown_when_prepared: {
    orders: [{}],
    strike: { who: "worker", at: "submit.prepared", how: "throw" },
    patienceSeconds: 20,
  },
  frozen_before_intent: {
    orders: [{ directive: "slow=5" }],
    strike: { who: "worker", at: "submit.prepared", how: "stop" },
    thaw: "bought",
    patienceSeconds: 25,
    lingerSeconds: 2,
  },
  frozen_before_sending: {
    orders: [{}],
    strike: { who: "worker", at: "submit.intended", how: "stop" },
    thaw: "bought again",
    patienceSeconds: 40,
    lingerSeconds: 2,
  },
  frozen_when_kept: {
    orders: [{}],
    strike: { who: "worker", at: "store.kept", how: "stop" },
    thaw: "ended",
    patienceSeconds: 25,
    lingerSeconds: 2,
  },
  queue_lost: { orders: [{}], queueLost: true, patienceSeconds: 20 },
  never_accepted: {
    orders: [{ rule: { fault: "rate_limited=body", times: 1_000 }, fails: "deadline_exceeded" }],
    deadlineSeconds: 5,
    patienceSeconds: 20,
  },
  canceled: { orders: [{ directive: "slow=90", cancelAfterMs: 2_000 }], patienceSeconds: 15 },
  canceled_late: { orders: [{ directive: "slow=5", cancelAfterMs: 2_000 }], patienceSeconds: 15, lingerSeconds: 5 },
  forged_webhook: { orders: [{ directive: "slow=5" }], webhooks: true, act: "forge webhook", patienceSeconds: 20 },
  sessions_ended: { orders: [{ directive: "slow=2" }, {}], act: "end sessions", patienceSeconds: 25 },
} as const satisfies Record<string, Scenario>;

export type ScenarioName = keyof typeof SCENARIOS;

const SIDE = 256; // pixels
const STAGING_CREDITS = 40;

/** What the clients send; the mark tells the provider's records whose run it is. */
export function ordersOf(wanted: readonly Wanted[], photo: string | null): Order[] {
  return wanted.map((each, index) => {
    const number = String(index).padStart(4, "0");
    const mark = `order ${number} of seed 0.`;
    const prompt = `${mark}${each.directive ? ` [sandbox: ${each.directive}]` : ""}`;
    const { images = 1 } = each;
    return {
      name: each.directive ?? each.rule?.fault ?? "generation",
      key: `planted-${number}`,
      mark,
      atMs: 0,
      sends: each.sends ?? "once",
      cancelAfterMs: each.cancelAfterMs ?? null,
      body: {
        kind: each.staging ? "staging" : "generation",
        user: "ann",
        input: each.staging
          ? { image: photo, room: "bedroom", prompt }
          : { prompt: `a lighthouse, ${prompt}`, images, width: SIDE, height: SIDE },
      },
      credits: each.staging ? STAGING_CREDITS : images,
      rule: each.rule ?? null,
      fails: each.fails ?? null,
    };
  });
}
