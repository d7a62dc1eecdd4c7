import { describe, expect, test } from "vitest";
import { isFinished } from "./model/properties.ts";
import { type Found, hopeless, type Story, search } from "./model/search.ts";
import { type Guards, makeWorld, type World } from "./model/setting.ts";
import type { State } from "./model/state.ts";

/**
 * The submit-once protocol, explored whole: every order in which two workers, the network, a provider whose list lags,
 * its webhooks, a watch and a customer may act on one job, each of them killed or standing still at any step. The job
 * is moved by the real `next`, `stepsDue` and `provesAbsence`; what is around them is in test/model. Time goes in ticks of 5 s:
 * the send window is 2, a socket lives 3, the list lags 1, LOST_AFTER is 4.
 *
 * Assumed: an order is delivered or dead 15 s after it was written, the list lags by no more than LOST_AFTER less those
 * 15 s, and no freeze falls between the sender's look at its clock and its write. Not modelled: several variants, storage
 * that fails, jobs set aside, the run's end by its own time limit.
 *
 * | world                                                  | states | shortest way to pay twice                |
 * | ------------------------------------------------------ | -----: | ---------------------------------------- |
 * | image, the watch may stand still with a reading        | 33,651 | none                                     |
 * | image, provider refuses, fails and interrupts          | 36,597 | none                                     |
 * | image, customer cancels, deadline passes, no webhooks  | 44,658 | none                                     |
 * | image, every webhook may be lost                       | 16,046 | none                                     |
 * | training, refused, failed, watch stands still          | 37,064 | none                                     |
 * | training, canceled or at its deadline too, no webhooks | 68,777 | none                                     |
 * | equal orders, no webhooks                              |  7,592 | none                                     |
 * | intent not committed before the write                  |        | 6 steps, at once                         |
 * | lost answer sent again                                 |        | 6 steps, at once                         |
 * | lost answer taken for "not accepted, ask again"        |        | 9 steps, at once                         |
 * | no send window, or a freeze between clock and write    |        | 11 and 13 steps: the sender wakes late   |
 * | no epoch and no look at what the intent changed        |        | 8 steps: two senders                     |
 * | absent at the first reading                            |        |10 steps: the list has not shown it yet  |
 * | absence counted from the order's first moment          |        | 11 steps: written late by a vanished one |
 * | absence that does not name its sending                 |        | 16 steps: armed again meanwhile          |
 * | the list lags longer than LOST_AFTER covers            |        | 11 steps; the orphan is found, stopped   |
 * | no list, taken for an empty one                        |        | bought again while the first one runs    |
 *
 * Left out alone, these break no promise: the epoch or the look at what the intent changed (each does the other's work),
 * the second reading (time does it), the one settlement per job (the row lock does it), the webhook's id (it saves the
 * wait for the list, and is the only evidence where the list cannot be read).
 */

type Over = Parameters<typeof makeWorld>[0];

/** Without what ends a job early, and without refusals and failures: those have worlds of their own. */
const SMALL = { endings: false, moods: false };
const TRAINING = { maxRebuys: 0, allowedRebuys: 0 };

function explore(over: Over, withEdges = false): Found & { readonly world: World } {
  const world = makeWorld({ ...SMALL, ...over });
  return { ...search(world, withEdges), world };
}

/** The states from which not everything can end well any more, with nothing there unknown to us. */
function explorePaths(over: Over): { readonly states: readonly State[]; readonly stuck: readonly State[] } {
  const found = explore(over, true);
  expect(found.story).toBeNull();
  const stuck = hopeless(found, (state) => isFinished(found.world, state));
  return { states: found.states, stuck: stuck.flatMap((index) => found.states[index] ?? []) };
}

function mustGoWrong(over: Over): Story {
  const { story, states } = explore(over);
  if (!story) throw new Error(`nothing is wrong in ${states.length} states`);
  return story;
}

/** Not one state of it is wrong; a world that has shrunk proves less than is claimed. */
function expectSafe(over: Over, leastStates: number): void {
  const { story, states } = explore(over);
  expect(story).toBeNull();
  expect(states.length).toBeGreaterThan(leastStates);
}

const without = (guards: Partial<Guards>, over: Over = {}): Over => ({ properties: ["paid twice"], ...over, guards });

describe("whoever is killed, stands still or is not heard: paid once, bought as often as allowed, settled once", () => {
  test("an image, and a watch that records what it read much later", () => {
    expectSafe({ watchFreezes: true }, 30_000);
  });

  test("an image, refused, failed, interrupted", () => {
    expectSafe({ moods: true }, 30_000);
  });

  test("an image, canceled by its customer or given up at its deadline, whose every run can still be known", () => {
    const { states, stuck } = explorePaths({ endings: true, webhooks: "none" });
    expect(stuck).toEqual([]);
    expect(states.length).toBeGreaterThan(40_000);
  });

  test("an image whose webhooks may all be lost: every run can still be known", () => {
    const { states, stuck } = explorePaths({ webhooks: "may be lost" });
    expect(stuck).toEqual([]);
    expect(states.length).toBeGreaterThan(14_000);
  });

  test("a training, which is never bought again after a presumed loss", () => {
    expectSafe({ ...TRAINING, watchFreezes: true, moods: true }, 30_000);
    expect(explorePaths({ ...TRAINING, webhooks: "none", moods: true, endings: true }).stuck).toEqual([]);
  });

  test("orders that cannot be told apart in the list", () => {
    expectSafe({ ordersAreEqual: true, webhooks: "none" }, 7_000);
  });
});

describe("without a guard there is a way to pay twice", () => {
  test.each<[string, Over, number, number, string]>([
    ["no intent before the write", without({ intent: false }), 6, 0, "A writes order 1, no intent committed"],
    ["a lost answer is sent again", without({ lostAnswer: "sent again" }), 6, 0, "gets no answer and sends 1 again"],
    ["a lost answer is put off", without({ lostAnswer: "postponed" }), 9, 0, "A gets no answer for 1"],
    ["a lost answer is a refusal", without({ lostAnswer: "declined, retryable" }), 9, 5, "A gets no answer for 1"],
    ["no send window", without({ sendWindow: false }), 11, 55, "A writes order 1"],
    [
      "a freeze before the write",
      without({ sendWindow: "but it freezes between clock and write" }),
      13,
      55,
      "may write 1",
    ],
    [
      "neither epoch nor a look at the commit",
      without({ epoch: false, committed: false }),
      8,
      0,
      "B commits the intent",
    ],
    ["absent at once", without({ patience: false }), 10, 5, "a watch learns that 1 is absent"],
    [
      "absence from the first moment",
      without({ vanished: false }),
      11,
      25,
      "B takes over and says that 1 is abandoned",
    ],
    [
      "an absence of no sending",
      without({ sending: false }, { watchFreezes: true, properties: ["paid twice"] }),
      16,
      55,
      "a watch records, late, that 1 is absent",
    ],
  ])("%s", (_, over, steps, seconds, turn) => {
    const story = mustGoWrong(over);
    expect(story.wrong).toBe("paid twice");
    expect(story.lines.at(-1)).toContain("the provider accepts");
    expect(story.lines.join("\n")).toContain(turn);
    expect([story.lines.length, story.seconds]).toEqual([steps, seconds]);
  });

  test("the story can be read", () => {
    expect(mustGoWrong(without({ patience: false })).lines).toEqual([
      "  0 s  A sees that it is to be bought",
      "  0 s  A commits the intent 1",
      "  0 s  A writes order 1",
      "  0 s  A gets no answer for 1",
      "  0 s  the provider accepts 1",
      "  0 s  a watch learns that 1 is absent",
      "  5 s  A sees that it is to be bought",
      "  5 s  A commits the intent 2",
      "  5 s  A writes order 2",
      "  5 s  the provider accepts 2",
    ]);
  });
});

test("a provider without a list is paid once, and twice if nothing is taken for an empty list", () => {
  // A webhook that may never come is all that can tell; without one the run waits for its own time limit.
  const unlistable = { listIsReadable: false, properties: ["paid twice", "bought too often", "untrue"] } as const;
  expectSafe(unlistable, 1_000);
  const story = mustGoWrong({ ...unlistable, guards: { unlistable: false }, properties: ["paid twice"] });
  expect(story.wrong).toBe("paid twice");
  expect(story.lines.join("\n")).toContain("a watch learns that 1 is absent");
});

describe("without a guard another promise breaks", () => {
  test("rebuys unlimited: bought a third time", () => {
    const story = mustGoWrong({ maxRebuys: 9, maxAttempts: 3, webhooks: "none" });
    expect(story.wrong).toBe("bought too often");
    expect(story.lines.at(-1)).toBe(" 50 s  A commits the intent 3");
  });

  test("a training that may be bought again: bought twice, and beyond the assumptions paid twice", () => {
    expect(mustGoWrong({ ...TRAINING, maxRebuys: 1 }).wrong).toBe("bought too often");
    expect(mustGoWrong({ ...TRAINING, maxRebuys: 1, lagTicks: 2, properties: ["paid twice"] }).wrong).toBe(
      "paid twice",
    );
    expectSafe({ ...TRAINING, lagTicks: 2, properties: ["paid twice", "bought too often"] }, 2_000);
  });

  test("a lost answer taken for a refusal: not paid twice, but a run that nobody ever learns of", () => {
    const over = { guards: { lostAnswer: "declined" }, webhooks: "none" } as const;
    const { stuck } = explorePaths({ ...over, properties: ["paid twice"] });
    expect(stuck.length).toBeGreaterThan(0);
    expect(stuck.every((state) => state.theirs.length + state.posts.length > 0)).toBe(true);
    expect(mustGoWrong(over).wrong).toBe("untrue");
  });

  test("a replacement taken for what it replaced: its own absence is recorded while it runs", () => {
    const story = mustGoWrong({ ordersAreEqual: true, webhooks: "none", guards: { twins: false } });
    expect(story.wrong).toBe("untrue");
    expect(story.lines.join("\n")).toContain("a watch learns that 1 is submitted their 2");
  });

  test("facts written on what was known before: what ended is opened again, and settled twice if nothing forbids it", () => {
    const blind = { watchFreezes: true, webhooks: "none", maxAttempts: 1 } as const;
    expect(mustGoWrong({ ...blind, guards: { rowLock: false } }).wrong).toBe("settled wrongly");
    const twice = mustGoWrong({
      ...blind,
      guards: { rowLock: false, settleOnce: false },
      properties: ["settled twice"],
    });
    expect(twice.lines.at(-1)).toContain("stores the output of 1");
    expectSafe({ ...blind, guards: { rowLock: false }, properties: ["settled twice"] }, 1_000);
  });
});

describe("guards that only another one, time or money would miss", () => {
  test.each<[string, Partial<Guards>]>([
    ["the epoch of the intent: what is committed already changes nothing", { epoch: false }],
    ["the look at what the intent changed: its epoch is refused before", { committed: false }],
    ["the second reading: the first one counts only when the list must show it", { twoReadings: false }],
    ["one settlement per job: the row lock lets a job end only once", { settleOnce: false }],
    ["the webhook's id: the list has it too", { webhookId: false }],
    ["the search for what is missing: what is presumed absent is", { orphanLooks: false }],
  ])("%s", (_, guards) => {
    expectSafe({ guards, webhooks: guards.webhookId === false ? "any" : "none" }, 5_000);
  });

  test("where the list cannot be read the webhook's id is the only evidence", () => {
    const silent = { listIsReadable: false, properties: [] };
    const isOut = (state: State) => state.theirs.length > 0;
    expect(explorePaths(silent).stuck.filter(isOut)).toEqual([]);
    expect(explorePaths({ ...silent, guards: { webhookId: false } }).stuck.filter(isOut).length).toBeGreaterThan(0);
  });

  test("counting from when a vanished sender is silent lets LOST_AFTER be as short as the lag, if errors are not early", () => {
    const prompt = { answersAreLost: false, lostAfterMs: 5_000, properties: ["paid twice"] } as const;
    expectSafe(prompt, 8_000);
    expect(mustGoWrong({ ...prompt, guards: { vanished: false } }).seconds).toBe(10);
  });
});

describe("beyond the assumptions", () => {
  const late = { lagTicks: 2, webhooks: "none", properties: [] } as const;

  test("the lag that is covered is LOST_AFTER less the 15 s in which an order may be on its way", () => {
    const story = mustGoWrong({ ...late, properties: ["paid twice"] });
    expect(story.lines).toContain(" 20 s  a watch learns that 1 is absent");
    expect(story.lines).toHaveLength(11);
    expectSafe({ ...late, lostAfterMs: 25_000, properties: ["paid twice"] }, 7_000);
  });

  test("a list that lags longer costs one run more, never two; it is found and stopped, and known in the end", () => {
    const { states, stuck } = explorePaths(late);
    expect(Math.max(...states.map((state) => state.doubles))).toBe(1);
    expect(stuck).toEqual([]);
    const isStopped = (state: State) => state.theirs.length === 2 && state.theirs[0]?.phase === "canceled";
    expect(states.some(isStopped)).toBe(true);
  });

  test("for a training it costs nothing more: it fails, is given back, and its run is stopped", () => {
    const { states, stuck } = explorePaths({ ...late, ...TRAINING });
    expect(Math.max(...states.map((state) => state.theirs.length))).toBe(1);
    expect(stuck).toEqual([]);
  });

  test("without the search for what is missing the run would stay unknown for ever", () => {
    const { stuck } = explorePaths({ ...late, guards: { orphanLooks: false } });
    expect(stuck.length).toBeGreaterThan(0);
    expect(stuck.every((state) => state.theirs.length > 0)).toBe(true);
  });

  test("even then nothing is presumed absent whose id a webhook has told", () => {
    expectSafe({ ...TRAINING, lagTicks: 2, watchFreezes: true, properties: ["against evidence"] }, 4_000);
  });

  test("without a limit of rebuys it would cost a run for each", () => {
    const found = explore({ ...late, maxRebuys: 9, maxAttempts: 3, properties: ["bought too often"] });
    expect(found.story?.wrong).toBe("bought too often");
  });
});
