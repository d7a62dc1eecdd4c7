/**
 * Places where a process can be made to die or to stand still, so that a test can aim at the very step instead of
 * hoping to hit it. Each stands between two things that must not come apart. Refused in production (config.ts).
 */
export const FAULT_POINTS = {
  "accept.asked": "the request is checked, nothing is written",
  "accept.committed": "charged and committed, neither woken nor answered",
  "advance.claimed": "the lease is taken",
  "apply.written": "facts and settlement are written, not committed",
  "submit.prepared": "inputs are offered, no intent is committed",
  "submit.intended": "the intent is committed, not a byte is sent",
  "submit.answered": "the provider has answered, nothing is recorded",
  "inline.kept": "an output that came inside an answer is put away, nothing is recorded",
  "submit.recorded": "the answer is recorded",
  "abandon.recorded": "a vanished sender's order is unknown now",
  "find.read": "the provider's list is read, nothing is recorded",
  "watch.claimed": "a look is claimed, the provider is not asked",
  "watch.looked": "the provider has answered, nothing is recorded",
  "watch.recorded": "what a look showed is recorded, nobody is woken",
  "store.fetched": "an output is downloaded, nothing is kept",
  "store.kept": "the output is in the store, no row says so",
  "store.recorded": "the run is stored, and perhaps the job settled",
  "cancel.sent": "the provider was asked to stop, nothing is recorded",
  "sweep.claimed": "due jobs are claimed, not woken",
  "webhook.verified": "a webhook is believed, not noted",
  "webhook.noted": "a webhook is noted, not answered",
  "batch.part": "a part of a batch is accepted, the rest is not",
  "pipeline.claimed": "the steps to be started are known, none is accepted",
  "pipeline.started": "a step's job is accepted, not woken",
  "deliver.sent": "a callback is answered, nothing is recorded",
} as const;

export type FaultPoint = keyof typeof FAULT_POINTS;

/** Called at a point, with the job it is reached for. */
export type Reach = (point: FaultPoint, jobId: string) => Promise<void>;

const ACTIONS = ["kill", "stop", "throw"] as const;

export interface AimedFault {
  readonly point: FaultPoint;
  /** Null: for whichever job comes first. */
  readonly jobId: string | null;
  /** kill: SIGKILL. stop: SIGSTOP, until somebody sends SIGCONT. throw: an error that nobody expects. */
  readonly action: (typeof ACTIONS)[number];
}

class FaultStruck extends Error {
  override readonly name = "FaultStruck";
}

/** Reads "submit.intended=kill" or "store.kept@<job id>=stop"; a string in return says what is wrong with it. */
export function parseFault(text: string): AimedFault | string {
  const [, point = "", jobId = null, action = ""] = /^([^@=]+)(?:@([^=]+))?=(.+)$/.exec(text) ?? [];
  if (!Object.hasOwn(FAULT_POINTS, point)) return `the point is one of ${Object.keys(FAULT_POINTS).join(", ")}`;
  const known = ACTIONS.find((each) => each === action);
  if (!known) return `the action is one of ${ACTIONS.join(", ")}`;
  return { point: point as FaultPoint, jobId, action: known };
}

/** Strikes once in the life of the process; without a fault it does nothing. */
export function makeReach(fault: AimedFault | null): Reach {
  if (!fault) return async () => {};
  let struck = false;
  return async (point, jobId) => {
    if (struck || point !== fault.point || (fault.jobId !== null && fault.jobId !== jobId)) return;
    struck = true;
    if (fault.action === "throw") throw new FaultStruck(`struck at ${point}`);
    process.kill(process.pid, fault.action === "kill" ? "SIGKILL" : "SIGSTOP");
    // A signal to oneself may take a moment: nothing of ours runs in it.
    if (fault.action === "kill") await new Promise(() => {});
  };
}
