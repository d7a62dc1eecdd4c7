import { type Lifecycle, makeLifecycle, newJob } from "./lifecycle.ts";

/** Each is a line of the code that can be left out here. */
export interface Guards {
  /** Nothing is written before its intent is committed. */
  readonly intent: boolean;
  /** What became of a lost answer: looked for; or, without the guard, one of the mistakes. */
  readonly lostAnswer: "unknown" | "sent again" | "declined" | "declined, retryable" | "postponed";
  /** The sender checks its clock before it writes, and nothing comes in between. */
  readonly sendWindow: boolean | "but it freezes between clock and write";
  /** An intent is committed only under the latest lease. */
  readonly epoch: boolean;
  /** Who finds that its intent changed nothing does not send. */
  readonly committed: boolean;
  /** Absence needs time. */
  readonly patience: boolean;
  /** For a vanished sender that time begins when it can no longer write. */
  readonly vanished: boolean;
  /** Absence needs two readings. */
  readonly twoReadings: boolean;
  /** An absence names the sending that was looked for, and says nothing of a later one. */
  readonly sending: boolean;
  /** A provider without a list says nothing by it. */
  readonly unlistable: boolean;
  /** What replaced a missing run must be known before the list can tell the two apart. */
  readonly twins: boolean;
  /** The id in a webhook is kept. */
  readonly webhookId: boolean;
  /** What is missing is still looked for, and stopped. */
  readonly orphanLooks: boolean;
  /** Facts are written on what is known now, under the job's lock. */
  readonly rowLock: boolean;
  /** A job has one settlement. */
  readonly settleOnce: boolean;
}

const ALL_GUARDS: Guards = {
  intent: true,
  lostAnswer: "unknown",
  sendWindow: true,
  epoch: true,
  committed: true,
  patience: true,
  vanished: true,
  twoReadings: true,
  sending: true,
  unlistable: true,
  twins: true,
  webhookId: true,
  orphanLooks: true,
  rowLock: true,
  settleOnce: true,
};

/** "against evidence": absence is concluded although we have the provider's id. "untrue": although it is there. */
export type Property =
  | "paid twice"
  | "bought too often"
  | "settled twice"
  | "settled wrongly"
  | "untrue"
  | "against evidence";

export interface Setting {
  /** What a kind allows, and what is promised: different only where a guard is left out. */
  readonly maxRebuys: number;
  readonly allowedRebuys: number;
  readonly maxAttempts: number;
  /** How long the provider's list may hide a run, in ticks of 5 s. */
  readonly lagTicks: number;
  readonly lostAfterMs: number;
  readonly guards: Guards;
  /** The customer cancels, the deadline passes. */
  readonly endings: boolean;
  /** The provider ends runs with "failed" and "try again" too, and refuses orders. */
  readonly moods: boolean;
  /** Every webhook of a run may be lost for good; otherwise that is only never told. */
  readonly webhooks: "any" | "may be lost" | "none";
  readonly listIsReadable: boolean;
  /** A sender that lives may miss its answer; otherwise it hears whatever was said. */
  readonly answersAreLost: boolean;
  /** A watch may stand still between what it was told and what it records. What does not perish is told at any time. */
  readonly watchFreezes: boolean;
  /** Orders cannot be told apart in the list: a seed of the customer's, and no webhook. */
  readonly ordersAreEqual: boolean;
  readonly properties: readonly Property[];
}

/** A lag of 5 s, and 15 s for an order that is on its way although its sender has heard of an error already. */
const IMAGE: Setting = {
  maxRebuys: 1,
  allowedRebuys: 1,
  maxAttempts: 2,
  lagTicks: 1,
  lostAfterMs: 15_000 + 5_000,
  guards: ALL_GUARDS,
  endings: true,
  moods: true,
  webhooks: "any",
  listIsReadable: true,
  answersAreLost: true,
  watchFreezes: false,
  ordersAreEqual: false,
  properties: ["paid twice", "bought too often", "settled twice", "settled wrongly", "untrue", "against evidence"],
};

export interface World extends Setting {
  readonly life: Lifecycle & { readonly first: number };
}

export function makeWorld(over: Partial<Omit<Setting, "guards">> & { guards?: Partial<Guards> } = {}): World {
  const setting = { ...IMAGE, ...over, guards: { ...ALL_GUARDS, ...over.guards } };
  return { ...setting, life: makeLifecycle(newJob(setting.maxRebuys, setting.maxAttempts), setting.lostAfterMs) };
}
