import { isEnded, type Job } from "../../src/domain/job.ts";
import { settlement } from "../../src/domain/pricing.ts";
import { isMissing } from "../../src/domain/run.ts";
import type { Property, World } from "./setting.ts";
import { CHARGED, type State, type Theirs } from "./state.ts";

/** What is wrong in a state, if that is asked for. */
export function wrongs(world: World, state: State): Property | null {
  const job = world.life.job(state.job);
  const again = job.runs.filter(
    (run) => run.failure?.code === "interrupted" || run.failure?.code === "provider_unavailable",
  );
  const allowed = 1 + world.allowedRebuys + again.length;
  const wrong: Record<Property, boolean> = {
    "paid twice": state.doubles > 0,
    "bought too often": job.runs.length > allowed || state.theirs.length > allowed,
    "settled twice": state.settled.length > 1,
    "settled wrongly": !isSettledRight(job, state.settled),
    untrue: state.untrue === "untrue",
    "against evidence": state.untrue === "against evidence",
  };
  return world.properties.find((property) => wrong[property]) ?? null;
}

function isSettledRight(job: Job, settled: readonly number[]): boolean {
  if (!isEnded(job)) return settled.length === 0;
  const { charged, kept, refunded } = settlement(job, CHARGED);
  const delivered = job.runs.some((run) => run.status === "stored");
  return (
    settled.length === 1 && settled[0] === kept && kept + refunded === charged && kept === (delivered ? CHARGED : 0)
  );
}

/** Everything is over, and no run there is unknown to us: it is ours, or it was seen and stopped or booked. */
export function isFinished(world: World, state: State): boolean {
  const job = world.life.job(state.job);
  const isKnown = (theirs: Theirs) => {
    const run = job.runs.find((each) => each.providerRunId === theirs.id);
    return run !== undefined && (!isMissing(run) || run.cancelSentAt !== null);
  };
  return isEnded(job) && state.posts.length === 0 && state.theirs.every(isKnown);
}
