import type { Bill } from "./bill.ts";
import type { Clock } from "./clock.ts";
import type { Faults } from "./faults.ts";
import type { Intake } from "./intake.ts";
import type { Models } from "./models.ts";
import { isOver, type Run, type Status } from "./run.ts";
import type { Webhooks } from "./webhooks.ts";

const START_MS = 300; // queue and boot
const SETTLE_MS = 50; // between the output and the verdict
const CANCEL_MS = 100; // between the request to cancel and the end
const LOGS_MS = 500; // between two "logs" events

const INTERRUPTED = "Prediction interrupted; please retry (code: PA)";
const FAILED = "Error running prediction: CUDA error: an illegal memory access was encountered (E1000)";
const OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 20.00 MiB. The model ran out of memory (E1001)";
const NSFW = "NSFW content detected. Try running it again, or try a different prompt.";

/** How a run will go, decided before it begins. */
type Ending =
  | { readonly as: "succeeded" }
  | { readonly as: "failed"; readonly error: string }
  /** Ends before it started: no started_at, no metrics, nothing billed. */
  | { readonly as: "interrupted" | "aborted" };

/** Takes runs from starting to their end. Every step checks that the run is not over, so any of them may come late. */
export function makeCourse(parts: {
  readonly clock: Clock;
  readonly speed: number;
  readonly faults: Faults;
  readonly webhooks: Webhooks;
  readonly bill: Bill;
  readonly intake: Intake;
  readonly models: Models;
}) {
  const { clock, speed, faults, webhooks, bill, intake, models } = parts;
  const timers = new Map<string, Set<NodeJS.Timeout>>();
  const waiting = new Map<string, Set<() => void>>();
  let closed = false;

  function after(run: Run, pauseMs: number, act: () => void): void {
    if (closed) return;
    const own = timers.get(run.id) ?? new Set();
    timers.set(run.id, own);
    const timer = setTimeout(() => {
      own.delete(timer);
      if (!isOver(run)) act();
    }, pauseMs);
    own.add(timer);
  }

  const tell = webhooks.emit;

  function begin(run: Run, ending: Ending): void {
    if (ending.as === "interrupted" || ending.as === "aborted") {
      const aborted = ending.as === "aborted";
      end(run, aborted ? "aborted" : "failed", aborted ? null : INTERRUPTED);
      return;
    }
    run.status = "processing";
    run.startedAt = clock.now();
    tell(run, "start");
    if (run.events?.includes("logs")) repeatLogs(run);
    const taken = intake.take(run);
    after(run, run.runMs, async () => {
      const failure = await taken;
      if (isOver(run)) return;
      if (failure) end(run, "failed", failure);
      else if (ending.as === "failed") end(run, "failed", ending.error);
      else yieldOutput(run);
    });
  }

  function yieldOutput(run: Run): void {
    run.output = outputOf(run);
    if (run.output === null) {
      end(run, "failed", "Training finished, but the trained image could not be created");
      return;
    }
    tell(run, "output");
    after(run, SETTLE_MS / speed, () => end(run, "succeeded"));
  }

  function outputOf(run: Run): Run["output"] {
    const folder = `${run.origin}/delivery/${run.folder}`;
    if (run.kind === "training") {
      const version = models.addTrained(run.destination ?? "", run.id);
      if (version === null) return null; // the destination was deleted meanwhile
      const weights = faults.strike("weights_null", run) ? null : `${folder}/trained_model.tar`;
      return { version: `${run.destination}:${version}`, weights };
    }
    const single = run.program.output === "single";
    if (run.reel && single) return `${folder}/out.webm`;
    const format = run.reel ? "webm" : String(run.values["output_format"] ?? "png");
    const names = Array.from({ length: run.outputCount }, (_, index) => `${folder}/out-${index}.${format}`);
    return single ? (names[0] ?? null) : names;
  }

  function end(run: Run, status: Exclude<Status, "starting" | "processing">, error: string | null = null): void {
    run.status = status;
    run.error = error;
    run.completedAt = clock.now();
    if (status !== "succeeded") run.output = null;
    for (const timer of timers.get(run.id) ?? []) clearTimeout(timer);
    timers.delete(run.id);
    intake.stop(run);
    bill.end(run);
    tell(run, "completed");
    for (const wake of waiting.get(run.id) ?? []) wake();
    waiting.delete(run.id);
  }

  function repeatLogs(run: Run): void {
    after(run, LOGS_MS, () => {
      tell(run, "logs");
      repeatLogs(run);
    });
  }

  function endingOf(run: Run): Ending {
    const first = faults.strike("fail_first", run);
    if (first && faults.isAmongFirst(first.amount, run)) return { as: "interrupted" };
    if (faults.strike("interrupted", run)) return { as: "interrupted" };
    if (faults.strike("aborted", run)) return { as: "aborted" };
    if (faults.strike("fail", run)) return { as: "failed", error: FAILED };
    if (faults.strike("oom", run)) return { as: "failed", error: OUT_OF_MEMORY };
    if (faults.strike("nsfw", run)) return { as: "failed", error: NSFW };
    return { as: "succeeded" };
  }

  return {
    launch(run: Run): void {
      const ending = endingOf(run);
      after(run, START_MS / speed, () => begin(run, ending));
      if (run.deadline === null) return;
      // Timers of Node hold 24.8 days; deadlines are bounded well below.
      after(run, run.deadline - clock.now(), () => end(run, run.status === "starting" ? "aborted" : "canceled"));
    },

    /** Asks for the end; the answer still shows the run as it is. What is over stays as it is. */
    cancel(run: Run): void {
      if (isOver(run)) return;
      after(run, CANCEL_MS / speed, () => end(run, "canceled"));
    },

    /** Resolves when the run is over, or after `limitMs`. */
    over(run: Run, limitMs: number): Promise<void> {
      if (isOver(run) || closed) return Promise.resolve();
      return new Promise((resolve) => {
        const wakers = waiting.get(run.id) ?? new Set();
        waiting.set(run.id, wakers);
        const done = () => {
          clearTimeout(timer);
          wakers.delete(done);
          resolve();
        };
        const timer = setTimeout(done, limitMs);
        wakers.add(done);
      });
    },

    async close(): Promise<void> {
      closed = true;
      for (const own of timers.values()) for (const timer of own) clearTimeout(timer);
      for (const wakers of waiting.values()) for (const wake of wakers) wake();
      await intake.close();
    },
  };
}
