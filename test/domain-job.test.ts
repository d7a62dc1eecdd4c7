import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { provesAbsence, quietAfter, SEND_WINDOW_MS, SENDER_GRACE_MS } from "../src/domain/absence.ts";
import { agenda, stepsDue } from "../src/domain/agenda.ts";
import { FAILURES, type FailureCode, failure } from "../src/domain/failure.ts";
import { type Event, isEnded, JOB_STATUSES, type Job, lastRun, next, variantState } from "../src/domain/job.ts";
import { settlement } from "../src/domain/pricing.ts";
import {
  type IntendedRun,
  isLive,
  isMissing,
  NOTHING_KNOWN,
  RUN_STATUSES,
  type Run,
  type RunStatus,
  type Spent,
} from "../src/domain/run.ts";

const T0 = new Date("2026-11-21T10:00:00Z");
const at = (seconds: number) => new Date(T0.getTime() + seconds * 1_000);

function newJob(over: Partial<Job> = {}): Job {
  return {
    id: "job",
    status: "pending",
    variants: 1,
    minSuccess: 1,
    maxAttempts: 3,
    maxRebuys: 1,
    deadlineAt: at(3_600),
    cancelRequestedAt: null,
    expiredAt: null,
    setAsideAt: null,
    runs: [],
    failure: null,
    startedAt: null,
    endedAt: null,
    ...over,
  };
}

function intendedRun(id: string, variant = 0, seconds = 0): IntendedRun {
  return {
    id,
    variant,
    provider: "p",
    model: "m",
    version: null,
    input: {},
    destination: null,
    sendBefore: new Date(at(seconds).getTime() + SEND_WINDOW_MS),
    quietFrom: quietAfter(new Date(at(seconds).getTime() + SEND_WINDOW_MS)),
    expiresAt: at(seconds + 360),
  };
}

const intended = (id: string, variant = 0, seconds = 0): Event => ({
  type: "intended",
  at: at(seconds),
  run: intendedRun(id, variant, seconds),
});
const took = (seconds: number, costMicroUsd: number): Spent => ({ seconds, costMicroUsd, costSource: "measured" });
const submitted = (runId: string): Event => ({ type: "submitted", at: at(1), runId, providerRunId: `theirs-${runId}` });
const succeeded = (runId: string): Event => ({
  type: "succeeded",
  at: at(5),
  runId,
  providerRunId: `theirs-${runId}`,
  outputs: ["https://x/0.png"],
  ...took(1, 3_000),
  trainedVersion: null,
});
const stored = (runId: string): Event => ({ type: "stored", at: at(6), runId });
const failed = (runId: string, code: FailureCode = "provider_failed"): Event => ({
  type: "failed",
  at: at(5),
  runId,
  failure: failure(code, "x"),
  ...took(2, 40),
});
const canceled = (runId: string): Event => ({ type: "canceled", at: at(5), runId, ...took(3, 60) });
const lost = (runId: string): Event => ({ type: "lost", at: at(20), runId, detail: "reset" });
const abandoned = (runId: string): Event => ({ type: "abandoned", at: at(10), runId });
const absent = (runId: string, sentAt = at(0)): Event => ({
  type: "absent",
  at: at(120),
  runId,
  sentAt,
  detail: "not listed",
});
const declined = (runId: string, code: FailureCode = "input_refused"): Event => ({
  type: "declined",
  at: at(1),
  runId,
  failure: failure(code, "422"),
});
const postponed = (runId: string): Event => ({
  type: "postponed",
  at: at(1),
  runId,
  until: at(6),
  failure: failure("rate_limited", "429"),
});
const storeFailed = (runId: string, again: boolean): Event => ({
  type: "store_failed",
  at: at(6),
  runId,
  until: again ? at(10) : null,
  failure: failure("output_unavailable", "s3"),
});
const cancelSent = (runId: string): Event => ({ type: "cancel_sent", at: at(3), runId });
const claimed: Event = { type: "claimed", at: at(0) };
const cancelRequested: Event = { type: "cancel_requested", at: at(2) };
const setAside: Event = { type: "set_aside", at: at(50), deaths: 3 };
const expired: Event = { type: "expired", at: at(3_600) };

const play = (job: Job, ...events: Event[]): Job => events.reduce(next, job);
const stepTypes = (job: Job, now: Date) => stepsDue(job, now).map((step) => step.type);

describe("which state follows which", () => {
  const reach: Record<RunStatus, Event[]> = {
    submitting: [intended("r")],
    unknown: [intended("r"), lost("r")],
    running: [intended("r"), submitted("r")],
    storing: [intended("r"), submitted("r"), succeeded("r")],
    stored: [intended("r"), submitted("r"), succeeded("r"), stored("r")],
    failed: [intended("r"), submitted("r"), failed("r")],
    canceled: [intended("r"), submitted("r"), canceled("r")],
  };
  const events = {
    submitted: submitted("r"),
    postponed: postponed("r"),
    declined: declined("r"),
    lost: lost("r"),
    abandoned: abandoned("r"),
    absent: absent("r"),
    succeeded: succeeded("r"),
    stored: stored("r"),
    store_failed: storeFailed("r", false),
    failed: failed("r"),
    canceled: canceled("r"),
  };
  // Rows: what a run is. Columns: what is learned. "-": nothing changes.
  const TABLE: Record<RunStatus, Record<keyof typeof events, RunStatus | "-">> = {
    submitting: {
      submitted: "running",
      postponed: "submitting",
      declined: "failed",
      lost: "unknown",
      abandoned: "unknown",
      absent: "-",
      succeeded: "storing",
      stored: "-",
      store_failed: "-",
      failed: "failed",
      canceled: "canceled",
    },
    unknown: {
      submitted: "running",
      postponed: "-",
      declined: "-",
      lost: "-",
      abandoned: "-",
      absent: "failed",
      succeeded: "storing",
      stored: "-",
      store_failed: "-",
      failed: "failed",
      canceled: "canceled",
    },
    running: {
      submitted: "-",
      postponed: "-",
      declined: "-",
      lost: "-",
      abandoned: "-",
      absent: "-",
      succeeded: "storing",
      stored: "-",
      store_failed: "-",
      failed: "failed",
      canceled: "canceled",
    },
    storing: {
      submitted: "-",
      postponed: "-",
      declined: "-",
      lost: "-",
      abandoned: "-",
      absent: "-",
      succeeded: "-",
      stored: "stored",
      store_failed: "failed",
      failed: "-",
      canceled: "-",
    },
    stored: {
      submitted: "-",
      postponed: "-",
      declined: "-",
      lost: "-",
      abandoned: "-",
      absent: "-",
      succeeded: "-",
      stored: "-",
      store_failed: "-",
      failed: "-",
      canceled: "-",
    },
    failed: {
      submitted: "-",
      postponed: "-",
      declined: "-",
      lost: "-",
      abandoned: "-",
      absent: "-",
      succeeded: "-",
      stored: "-",
      store_failed: "-",
      failed: "-",
      canceled: "-",
    },
    canceled: {
      submitted: "-",
      postponed: "-",
      declined: "-",
      lost: "-",
      abandoned: "-",
      absent: "-",
      succeeded: "-",
      stored: "-",
      store_failed: "-",
      failed: "-",
      canceled: "-",
    },
  };
  for (const status of RUN_STATUSES)
    for (const [name, event] of Object.entries(events))
      test(`a ${status} run, told ${name}, becomes ${TABLE[status][name as keyof typeof events]}`, () => {
        // A second variant keeps the job itself open, so that only the run is judged.
        const before = play(newJob({ variants: 2, minSuccess: 1 }), ...reach[status]);
        expect(lastRun(before, 0)?.status).toBe(status);
        const after = next(before, event);
        const wanted = TABLE[status][name as keyof typeof events];
        if (wanted === "-") expect(after).toBe(before);
        else expect(lastRun(after, 0)?.status).toBe(wanted);
      });
});

describe("a job", () => {
  test("goes from pending to completed by claim, purchase, success and storage", () => {
    const job = play(newJob(), claimed, intended("r"), submitted("r"), succeeded("r"), stored("r"));
    expect(job.status).toBe("completed");
    expect(job.endedAt).toEqual(at(6));
    expect(agenda(job)).toEqual([]);
  });

  test("is completed only when every output is in our store", () => {
    const job = play(newJob(), claimed, intended("r"), submitted("r"), succeeded("r"));
    expect(job.status).toBe("processing");
    expect(stepTypes(job, at(5))).toEqual(["store"]);
  });

  test("of two variants with both needed is stopped as a whole when one fails for good", () => {
    const both = newJob({ variants: 2, minSuccess: 2 });
    const job = play(both, claimed, intended("a", 0), intended("b", 1), submitted("a"), submitted("b"), failed("a"));
    expect(job.status).toBe("processing");
    expect(stepTypes(job, at(6))).toEqual(["cancel"]);
    const ended = play(job, cancelSent("b"), canceled("b"));
    expect(ended.status).toBe("failed");
    expect(ended.failure?.code).toBe("provider_failed");
  });

  test("of two variants with both needed does not buy the second once the first is lost for good", () => {
    const job = play(newJob({ variants: 2, minSuccess: 2 }), claimed, intended("a", 0), declined("a"));
    expect(job.status).toBe("failed");
    expect(next(job, intended("b", 1))).toBe(job);
  });

  test("of four variants with one needed delivers what it can", () => {
    const four = newJob({ variants: 4, minSuccess: 1 });
    const runs = ["a", "b", "c", "d"];
    const out = play(four, claimed, ...runs.map((id, variant) => intended(id, variant)), ...runs.map(submitted));
    const job = play(
      out,
      failed("a", "content_refused"),
      succeeded("b"),
      stored("b"),
      failed("c"),
      succeeded("d"),
      stored("d"),
    );
    expect(job.status).toBe("completed");
    expect(settlement(job, 4)).toEqual({ charged: 4, kept: 2, refunded: 2 });
  });

  test("is bought again when the provider interrupts it, after a pause, up to its limit", () => {
    let job = play(newJob(), claimed);
    for (const id of ["1", "2", "3"]) {
      expect(variantState(job, 0)).toBe("open");
      job = play(job, intended(id), submitted(id), failed(id, "interrupted"));
    }
    expect(job.status).toBe("failed");
    expect(job.runs.map((run) => run.attempt)).toEqual([1, 2, 3]);
    const again = play(newJob(), claimed, intended("1"), submitted("1"), failed("1", "interrupted"));
    expect(stepTypes(again, at(5))).toEqual([]);
    expect(stepTypes(again, at(6))).toEqual(["submit"]);
  });

  test("is bought again at most once after a presumed loss", () => {
    const once = play(newJob(), claimed, intended("1"), lost("1"), absent("1"));
    expect(variantState(once, 0)).toBe("open");
    const twice = play(once, intended("2", 0, 121), lost("2"), absent("2", at(121)));
    expect(twice.status).toBe("failed");
    expect(twice.failure?.code).toBe("lost");
  });

  test("of two variants that are both presumed lost buys the first again, whichever is known first", () => {
    const two = play(newJob({ variants: 2, minSuccess: 1 }), claimed, intended("a", 0), intended("b", 1));
    for (const [one, other] of [
      ["a", "b"],
      ["b", "a"],
    ] as const) {
      const job = play(two, lost("a"), lost("b"), absent(one), absent(other));
      expect([variantState(job, 0), variantState(job, 1)]).toEqual(["open", "dead"]);
      const again = play(job, intended("c", 0, 121));
      expect(play(again, lost("c"), absent("c", at(121))).status).toBe("failed");
      expect(play(again, submitted("c"), succeeded("c"), stored("c")).status).toBe("completed");
    }
    // The one that is bought again already stays the only one.
    const late = play(two, lost("a"), lost("b"), absent("b"), intended("c", 1, 121), absent("a"));
    expect([variantState(late, 0), variantState(late, 1)]).toEqual(["dead", "live"]);
  });

  test("is never bought again after a presumed loss when its kind forbids it", () => {
    const job = play(newJob({ maxRebuys: 0 }), claimed, intended("1"), lost("1"), absent("1"));
    expect(job.status).toBe("failed");
  });

  test("whose answer was lost waits for evidence, and buys nothing meanwhile", () => {
    const job = play(newJob(), claimed, intended("1"), lost("1"));
    expect(stepTypes(job, at(1_000))).toEqual([]);
    expect(next(job, intended("2"))).toBe(job);
  });

  test("whose webhook arrived before the answer was lost goes on as running", () => {
    const sending = play(newJob(), claimed, intended("1"));
    const told: Job = { ...sending, runs: sending.runs.map((run) => ({ ...run, providerRunId: "theirs" })) };
    expect(lastRun(next(told, lost("1")), 0)?.status).toBe("running");
  });

  test("that was throttled sends the same order again, not before it may", () => {
    const job = play(newJob(), claimed, intended("1"), postponed("1"));
    expect(stepTypes(job, at(5))).toEqual([]);
    expect(stepsDue(job, at(6))).toMatchObject([{ type: "submit", run: { id: "1" } }]);
    expect(next(job, intended("2"))).toBe(job);
    const again = next(job, intended("1", 0, 6));
    expect(again.runs).toHaveLength(1);
    expect(again.runs[0]?.attempt).toBe(1);
    // Two workers that both want to send: only the first one's intent changes anything.
    expect(next(again, intended("1", 0, 6))).toBe(again);
  });

  test("that was put off takes the version and the destination that are known by now, and no other input", () => {
    const job = play(newJob(), claimed, intended("1"), postponed("1"));
    const known = { version: "v", destination: "ours/ann" };
    const run = { ...intendedRun("1", 0, 6), ...known, input: { prompt: "another" } };
    const again = next(job, { type: "intended", at: at(6), run });
    expect(again.runs).toMatchObject([{ ...known, input: {}, status: "submitting" }]);
    // Once it is out, nothing of it changes any more.
    expect(next(again, { type: "intended", at: at(7), run: { ...run, destination: "ours/bob" } })).toBe(again);
  });

  test("whose sender vanished is looked for at once by whoever holds the lease next", () => {
    const job = play(newJob(), claimed, intended("1"));
    expect(stepTypes(job, at(1))).toEqual(["abandon"]);
    const unknown = next(job, abandoned("1"));
    expect(unknown.runs[0]).toMatchObject({ status: "unknown", sendBefore: job.runs[0]?.sendBefore });
    expect(agenda(unknown).map((due) => due.step.type)).toEqual(["expire"]);
  });

  test("whose sender only stood still believes what that one says when it wakes up", () => {
    const unknown = play(newJob(), claimed, intended("1"), abandoned("1"));
    expect(next(unknown, submitted("1")).runs[0]?.status).toBe("running");
    expect(next(unknown, lost("1")).runs[0]).toMatchObject({ status: "unknown", sendBefore: null });
    expect(next(unknown, declined("1")).runs[0]?.status).toBe("failed");
    expect(stepTypes(next(unknown, postponed("1")), at(6))).toEqual(["submit"]);
    // Evidence of the provider stands against a refusal that somebody else must have written.
    const there = { ...unknown, runs: unknown.runs.map((run) => ({ ...run, providerRunId: "theirs" })) };
    expect(next(there, declined("1"))).toBe(there);
    expect(next(there, postponed("1"))).toBe(there);
  });

  test("that was presumed lost goes on when it turns up and nothing was bought in its place", () => {
    const two = newJob({ variants: 2, minSuccess: 1 });
    const job = play(two, claimed, intended("a", 0), intended("b", 1), submitted("b"), lost("a"), absent("a"));
    for (const [event, status] of [
      [submitted("a"), "running"],
      [succeeded("a"), "storing"],
      [failed("a"), "failed"],
      [canceled("a"), "canceled"],
    ] as const)
      expect(next(job, event).runs[0]?.status).toBe(status);
    expect(next(job, failed("a")).runs[0]?.failure?.code).toBe("provider_failed");
  });

  test("that was bought again leaves the one that turns up as an orphan, with its cost", () => {
    const again = play(newJob(), claimed, intended("1"), lost("1"), absent("1"), intended("2", 0, 121));
    const seen = next(again, submitted("1"));
    expect(seen.runs[0]).toMatchObject({ status: "failed", providerRunId: "theirs-1", costMicroUsd: null });
    expect(seen.runs[1]).toBe(again.runs[1]);
    const booked = play(seen, cancelSent("1"), succeeded("1"));
    expect(booked.runs[0]).toMatchObject({ status: "failed", costMicroUsd: 3_000, seconds: 1, cancelSentAt: at(3) });
    expect(next(booked, canceled("1"))).toBe(booked);
  });

  test("that has ended still notes an orphan, and is moved by nothing of it", () => {
    const ended = play(newJob({ maxRebuys: 0 }), claimed, intended("1"), lost("1"), absent("1"));
    const booked = play(ended, submitted("1"), cancelSent("1"), canceled("1"));
    expect(booked.runs[0]).toMatchObject({ status: "failed", providerRunId: "theirs-1", ...took(3, 60) });
    expect({ ...booked, runs: [] }).toEqual({ ...ended, runs: [] });
    // Nobody can tell what it cost: booked as nothing, and without anybody's word for it.
    const unpriced = play(ended, submitted("1"), { ...canceled("1"), ...NOTHING_KNOWN } as Event);
    expect(unpriced.runs[0]).toMatchObject({ costMicroUsd: 0, costSource: null });
  });

  test("notes what a failed and a canceled run cost, and what nobody can tell", () => {
    const out = play(newJob({ maxAttempts: 1 }), claimed, intended("r"), submitted("r"));
    expect(out.runs[0]).toMatchObject(NOTHING_KNOWN);
    expect(next(out, failed("r")).runs[0]).toMatchObject({ status: "failed", ...took(2, 40) });
    expect(next(out, canceled("r")).runs[0]).toMatchObject({ status: "canceled", ...took(3, 60) });
    const reported: Spent = { seconds: null, costMicroUsd: 7, costSource: "reported" };
    expect(next(out, { ...failed("r"), ...reported } as Event).runs[0]).toMatchObject(reported);
    expect(play(out, succeeded("r"), storeFailed("r", false)).runs[0]).toMatchObject({
      status: "failed",
      ...took(1, 3_000),
    });
  });

  test("whose call was the whole run is bought and over in one go", () => {
    const sending = play(newJob(), claimed, intended("1"));
    expect(play(sending, submitted("1"), succeeded("1")).runs[0]).toMatchObject({ status: "storing" });
    expect(play(sending, submitted("1"), failed("1", "content_refused"))).toMatchObject({ status: "failed" });
    // Its sender only stood still: what it says is true all the same.
    expect(play(sending, abandoned("1"), submitted("1"), succeeded("1")).runs[0]).toMatchObject({ status: "storing" });
  });

  test("that nobody can confirm is not bought again, and its cost is still noted should anybody tell", () => {
    const unconfirmed: Event = { ...failed("1", "unconfirmed"), ...NOTHING_KNOWN } as Event;
    const ended = play(newJob(), claimed, intended("1"), lost("1"), unconfirmed);
    expect(ended).toMatchObject({ status: "failed", failure: { code: "unconfirmed" }, runs: [NOTHING_KNOWN] });
    expect(settlement(ended, 5)).toMatchObject({ kept: 0 });
    const booked = play(ended, submitted("1"), succeeded("1"));
    expect(booked.runs[0]).toMatchObject({ status: "failed", providerRunId: "theirs-1", ...took(1, 3_000) });
    expect({ ...booked, runs: [] }).toEqual({ ...ended, runs: [] });
  });

  test("that kills its workers is set aside: what it made is not touched, what runs is stopped", () => {
    const both = newJob({ variants: 2, minSuccess: 1 });
    const job = play(both, claimed, intended("a", 0), intended("b", 1), submitted("a"), submitted("b"), succeeded("a"));
    const aside = next(job, setAside);
    expect(aside.runs.map((run) => run.status)).toEqual(["failed", "running"]);
    expect(stepTypes(aside, at(51))).toEqual(["cancel"]);
    const ended = next(aside, succeeded("b"));
    expect(ended).toMatchObject({ status: "failed", failure: { code: "set_aside" } });
    expect(ended.runs[1]).toMatchObject({ status: "failed", costMicroUsd: 3_000 });
    expect(settlement(ended, 2)).toEqual({ charged: 2, kept: 0, refunded: 2 });
    const half = play(both, claimed, intended("a", 0), submitted("a"), succeeded("a"), stored("a"), setAside);
    expect(settlement(half, 2)).toEqual({ charged: 2, kept: 1, refunded: 1 });
  });

  test("canceled before anything was bought ends at once with everything back", () => {
    const job = next(newJob(), cancelRequested);
    expect(job.status).toBe("canceled");
    expect(settlement(job, 40)).toEqual({ charged: 40, kept: 0, refunded: 40 });
  });

  test("canceled while running waits for the provider's verdict", () => {
    const running = play(newJob(), claimed, intended("r"), submitted("r"), cancelRequested);
    expect(running.status).toBe("processing");
    expect(stepTypes(running, at(3))).toEqual(["cancel"]);
    const asked = next(running, cancelSent("r"));
    expect(stepTypes(asked, at(4))).toEqual([]);
    expect(next(asked, canceled("r")).status).toBe("canceled");
  });

  test("canceled too late is completed: it was delivered, and is kept and paid", () => {
    const job = play(
      newJob(),
      claimed,
      intended("r"),
      submitted("r"),
      cancelRequested,
      cancelSent("r"),
      succeeded("r"),
      stored("r"),
    );
    expect(job.status).toBe("completed");
    expect(settlement(job, 1).kept).toBe(1);
  });

  test("canceled while throttled is not sent again", () => {
    const job = play(newJob(), claimed, intended("r"), postponed("r"), cancelRequested);
    expect(job.status).toBe("canceled");
    expect(job.runs[0]?.status).toBe("canceled");
  });

  test("past its deadline buys nothing more, stops what runs and fails", () => {
    const job = play(newJob({ variants: 2 }), claimed, intended("a"), submitted("a"), expired);
    expect(stepTypes(job, at(3_601))).toEqual(["cancel"]);
    const ended = play(job, cancelSent("a"), canceled("a"));
    expect(ended.status).toBe("failed");
    expect(ended.failure?.code).toBe("deadline_exceeded");
  });

  test("past its deadline is expired before anything else is done for it", () => {
    const four = play(newJob({ variants: 4 }), claimed);
    expect(stepTypes(four, at(3_599))).toEqual(["submit", "submit", "submit", "submit"]);
    expect(stepTypes(four, at(3_600))).toEqual(["expire"]);
  });

  test("that nobody ever worked on is given up at its deadline", () => {
    expect(stepTypes(newJob(), at(3_600))).toContain("expire");
    expect(next(newJob(), expired)).toMatchObject({ status: "failed", failure: { code: "deadline_exceeded" } });
  });

  test("keeps trying to store, and is refunded when that is given up", () => {
    const storing = play(newJob(), claimed, intended("r"), submitted("r"), succeeded("r"), storeFailed("r", true));
    expect(stepTypes(storing, at(9))).toEqual([]);
    expect(stepTypes(storing, at(10))).toEqual(["store"]);
    expect(next(storing, storeFailed("r", false))).toMatchObject({
      status: "failed",
      failure: { code: "output_unavailable" },
    });
  });

  test("that has ended cannot be moved by anything", () => {
    const ended = play(newJob(), claimed, intended("r"), submitted("r"), succeeded("r"), stored("r"));
    for (const event of [
      claimed,
      intended("x"),
      submitted("r"),
      failed("r"),
      canceled("r"),
      cancelRequested,
      expired,
      lost("r"),
    ])
      expect(next(ended, event)).toBe(ended);
  });
});

type Facts = readonly ((runId: string) => Event)[];
const interrupted = (id: string) => failed(id, "interrupted");
const ALL_FACTS: Facts = [
  submitted,
  postponed,
  declined,
  lost,
  abandoned,
  absent,
  succeeded,
  stored,
  (id) => storeFailed(id, true),
  (id) => storeFailed(id, false),
  failed,
  interrupted,
  canceled,
  cancelSent,
];
/** Two variants multiply the states: without what only repeats another fact's effect on the job. */
const FEW_FACTS: Facts = [
  submitted,
  postponed,
  lost,
  absent,
  succeeded,
  stored,
  (id) => storeFailed(id, false),
  failed,
  interrupted,
  canceled,
];

/** Every job that can be reached by any facts in any order, by breadth-first search over a bounded protocol. */
function reachable(start: Job, runFacts: Facts): Map<string, Job> {
  const facts = (job: Job): Event[] => {
    const events: Event[] = [claimed, cancelRequested, expired, setAside];
    for (let variant = 0; variant < job.variants; variant++) {
      const attempt = lastRun(job, variant)?.attempt ?? 0;
      events.push(intended(`${variant}.${attempt + 1}`, variant));
      if (attempt > 0) events.push(intended(`${variant}.${attempt}`, variant));
    }
    for (const { id } of job.runs) events.push(...runFacts.map((fact) => fact(id)));
    return events;
  };
  const key = (job: Job) =>
    JSON.stringify([
      job.status,
      job.failure?.code,
      job.cancelRequestedAt !== null,
      job.expiredAt !== null,
      job.setAsideAt !== null,
      job.runs.map((run) => [
        run.id,
        run.status,
        run.failure?.code,
        run.sendBefore !== null,
        run.cancelSentAt !== null,
        Math.min(run.storeAttempts, 1),
        isMissing(run) && run.providerRunId !== null,
      ]),
    ]);
  const seen = new Map([[key(start), start]]);
  const queue = [start];
  for (let job = queue.shift(); job; job = queue.shift()) {
    for (const event of facts(job)) {
      const after = next(job, event);
      if (seen.has(key(after))) continue;
      seen.set(key(after), after);
      queue.push(after);
      if (seen.size > 200_000) throw new Error("the protocol has more states than this test can walk");
    }
  }
  return seen;
}

describe("in every state that any facts in any order can lead to", () => {
  const shapes: Record<string, [Job, Facts]> = {
    "one variant": [newJob({ maxAttempts: 2 }), ALL_FACTS],
    "two variants, both or nothing": [newJob({ variants: 2, minSuccess: 2, maxAttempts: 2 }), FEW_FACTS],
    "two variants, one needed": [newJob({ variants: 2, minSuccess: 1, maxAttempts: 1 }), FEW_FACTS],
  };
  const walked = Object.entries(shapes).map(([name, [start, facts]]) => ({
    name,
    states: [...reachable(start, facts).values()],
  }));
  for (const { name, states } of walked) {
    test(`${name}: no variant has two live runs, and none is bought more often than allowed (${states.length} states)`, () => {
      for (const job of states)
        for (let variant = 0; variant < job.variants; variant++) {
          const runs = job.runs.filter((run) => run.variant === variant);
          expect(runs.filter(isLive).length).toBeLessThanOrEqual(1);
          expect(runs.filter((run) => run.status === "stored").length).toBeLessThanOrEqual(1);
          expect(runs.length).toBeLessThanOrEqual(job.maxAttempts);
          expect(
            runs
              .slice(0, -1)
              .every((run) => run.status === "failed" && run.failure && FAILURES[run.failure.code].retryable),
          ).toBe(true);
        }
    });

    test(`${name}: an ended job has no live run and a settlement that adds up; an open one is not settled`, () => {
      for (const job of states) {
        if (!isEnded(job)) {
          expect(job.endedAt).toBeNull();
          expect(() => settlement(job, 40)).toThrow();
          continue;
        }
        expect(job.runs.every((run) => !isLive(run))).toBe(true);
        expect((job.status === "failed") === (job.failure !== null)).toBe(true);
        const { charged, kept, refunded } = settlement(job, 40);
        expect(kept + refunded).toBe(charged);
        const delivered = job.runs.filter((run) => run.status === "stored").length;
        expect(job.status === "completed").toBe(delivered >= job.minSuccess);
        expect(kept).toBe(job.status === "completed" ? (40 * delivered) / job.variants : 0);
      }
    });

    test(`${name}: an open job always has something due, or a run that a look or a list will decide`, () => {
      for (const job of states) {
        if (isEnded(job)) continue;
        const waitsForProvider = job.runs.some((run) => run.status === "running" || run.status === "unknown");
        expect(agenda(job).length > 0 || waitsForProvider).toBe(true);
      }
    });

    test(`${name}: what is due never fails to move the job once it is done`, () => {
      for (const job of states)
        for (const step of stepsDue(job, at(10_000))) {
          const after =
            step.type === "claim"
              ? next(job, claimed)
              : step.type === "expire"
                ? next(job, expired)
                : step.type === "abandon"
                  ? next(job, abandoned(step.run.id))
                  : step.type === "cancel"
                    ? next(job, cancelSent(step.run.id))
                    : step.type === "store"
                      ? next(job, stored(step.run.id))
                      : next(job, intended(step.run?.id ?? "new", step.variant));
          if (after === job) expect([step.type, job]).toBe("moved");
        }
    });
  }

  test("every status of jobs and runs is reached", () => {
    const all = walked.flatMap(({ states }) => states);
    expect(new Set(all.map((job) => job.status))).toEqual(new Set(JOB_STATUSES));
    expect(new Set(all.flatMap((job) => job.runs.map((run: Run) => run.status)))).toEqual(new Set(RUN_STATUSES));
  });
});

describe("whatever is learned, in whatever order and however often", () => {
  const runIds = ["0.1", "0.2", "1.1", "1.2", "2.1"];
  const anyEvent: fc.Arbitrary<Event> = fc.oneof(
    fc.constantFrom<Event[]>(claimed, cancelRequested, expired, setAside),
    fc
      .tuple(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 1, max: 2 }))
      .map(([variant, attempt]) => intended(`${variant}.${attempt}`, variant)),
    fc
      .tuple(
        fc.constantFrom(...runIds),
        fc.constantFrom(
          submitted,
          postponed,
          declined,
          lost,
          abandoned,
          absent,
          succeeded,
          stored,
          failed,
          canceled,
          cancelSent,
          (id: string) => failed(id, "interrupted"),
          (id: string) => storeFailed(id, false),
        ),
      )
      .map(([id, make]) => make(id)),
  );

  test("a job is settled at most once, and what it was settled as does not change", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3 }), fc.array(anyEvent, { maxLength: 60 }), (minSuccess, events) => {
        let job = newJob({ variants: 3, minSuccess });
        let ends = 0;
        for (const event of events) {
          const after = next(job, event);
          if (isEnded(after) && !isEnded(job)) ends++;
          if (isEnded(job)) expect({ ...after, runs: [] }).toEqual({ ...job, runs: [] });
          job = after;
        }
        expect(ends).toBeLessThanOrEqual(1);
      }),
      { numRuns: 2_000 },
    );
  });

  test("applying an event twice is the same as applying it once", () => {
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 40 }), anyEvent, (events, last) => {
        // Postponing is the one thing that may be done again after the order was armed again; not in a row.
        const once = play(newJob({ variants: 3 }), ...events, last);
        if (last.type === "store_failed" || last.type === "intended") return;
        expect(next(once, last)).toBe(once);
      }),
      { numRuns: 2_000 },
    );
  });

  test("a stored run and a failed run stay what they are, unless it was only presumed lost", () => {
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 60 }), (events) => {
        let job = newJob({ variants: 3 });
        for (const event of events) {
          const after = next(job, event);
          for (const run of job.runs)
            if (!isLive(run) && !isMissing(run)) expect(after.runs.find((each) => each.id === run.id)).toEqual(run);
          job = after;
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("that a run does not exist", () => {
  const search = { quietFrom: at(20), readings: 2, readAt: at(110) };
  test("is proven by two complete readings, the last one long after it can have been on its way", () => {
    expect(provesAbsence(search, 90_000)).toBe(true);
    expect(provesAbsence({ ...search, readings: 1 }, 90_000)).toBe(false);
    expect(provesAbsence({ ...search, readAt: at(109) }, 90_000)).toBe(false);
  });

  test("counts from what its sender says, or from when a vanished sender's socket must be gone", () => {
    const sending = play(newJob(), claimed, intended("1"));
    const silent = new Date(at(0).getTime() + SEND_WINDOW_MS + SENDER_GRACE_MS);
    expect(next(sending, abandoned("1")).runs[0]?.quietFrom).toEqual(silent);
    expect(next(sending, lost("1")).runs[0]?.quietFrom).toEqual(at(20));
  });

  test("is not believed of another sending than the one that was searched for, nor against the provider's word", () => {
    const again = play(newJob(), claimed, intended("1"), postponed("1"), intended("1", 0, 60), abandoned("1"));
    expect(next(again, absent("1", at(0)))).toBe(again);
    expect(next(again, absent("1", at(60))).runs[0]?.status).toBe("failed");
    const told = { ...again, runs: again.runs.map((run) => ({ ...run, providerRunId: "theirs" })) };
    expect(next(told, absent("1", at(60)))).toBe(told);
  });
});
