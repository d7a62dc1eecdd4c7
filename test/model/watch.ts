import { provesAbsence, SEND_WINDOW_MS, SENDER_GRACE_MS } from "../../src/domain/absence.ts";
import { isMissing, type Run } from "../../src/domain/run.ts";
import { NOW, type Told } from "./lifecycle.ts";
import type { World } from "./setting.ts";
import { learn, type State, stop } from "./state.ts";
import type { Move } from "./world.ts";

/** What a watch may find at any moment, whenever it was to look: looks can be brought forward. */
export function watchMoves(world: World, state: State): Move[] {
  const { held } = state;
  const found: Move[] = [];
  if (held) {
    const { order, theirId } = held;
    const told = held.told === "absent" && held.isOld && world.guards.sending ? "absent before" : held.told;
    const from = held.basis === null ? state : { ...state, job: held.basis };
    const after = learn(world, { ...from, held: null }, told, order, theirId);
    found.push(["a watch dies before it records", { ...state, held: null }]);
    if (after)
      found.push([`a watch records, late, that ${order} is ${held.told}`, { ...after, readings: state.readings }]);
  }
  const basis = world.guards.rowLock ? null : state.job;
  for (const run of world.life.job(state.job).runs)
    for (const seen of run.providerRunId ? look(world, state, run) : list(world, state, run)) {
      if (seen.told === null) {
        if (state.readings < seen.readings)
          found.push([`the list does not show ${run.id}`, { ...state, readings: seen.readings }]);
        continue;
      }
      const after = learn(world, state, seen.told, run.id, seen.theirId);
      if (after === null) continue;
      const learned = world.life.job(after.job).runs.find((each) => each.id === run.id);
      const isOrphan = seen.running && learned && isMissing(learned);
      const what = `a watch learns that ${run.id} is ${seen.told} ${seen.theirId}`.trimEnd();
      if (!isOrphan) found.push([what, after]);
      else {
        const stopped = learn(world, stop(after, seen.theirId), "cancel_sent", run.id);
        if (stopped) found.push([`a watch finds the orphan ${seen.theirId} and tells it to stop`, stopped]);
      }
      // Only that something is not there can cease to be true.
      const perishes = seen.told === "absent" || !world.guards.rowLock;
      if (world.watchFreezes && perishes && !held && after !== state)
        found.push([
          `a watch is told that ${run.id} is ${seen.told}`,
          { ...state, held: { told: seen.told, order: run.id, theirId: seen.theirId, isOld: false, basis } },
        ]);
    }
  return found;
}

interface Seen {
  readonly told: Told | null;
  readonly theirId: string;
  readonly readings: number;
  readonly running: boolean;
}

/** One complete reading of the provider's list, as in watch.ts. */
function list(world: World, state: State, run: Run): Seen[] {
  const { guards } = world;
  const missing = isMissing(run);
  if (!(run.status === "unknown" || (missing && guards.orphanLooks))) return [];
  if (!world.listIsReadable && (guards.unlistable || missing)) return [];
  const job = world.life.job(state.job);
  const isUnanswered = (each: Run) =>
    each.providerRunId === null &&
    (each.status === "unknown" || (each.status === "submitting" && each.sendBefore !== null));
  if (missing && guards.twins && job.runs.some(isUnanswered)) return [];
  const ids = job.runs.map((each) => each.providerRunId);
  const theirs = state.theirs.filter(
    ({ id, order }) => world.listIsReadable && !ids.includes(id) && (order === run.id || world.ordersAreEqual),
  );
  const found = theirs.map(({ id }): Seen => ({ told: "submitted", theirId: id, readings: 0, running: false }));
  if (theirs.some(({ age }) => age >= world.lagTicks) || missing) return found;
  const readings = guards.twoReadings ? state.readings + 1 : 2;
  // Without the guard it counts from when the order was sent.
  const early = guards.vanished || !run.sendBefore ? 0 : SEND_WINDOW_MS + SENDER_GRACE_MS;
  const quietFrom = new Date((run.quietFrom ?? NOW).getTime() - early);
  const isProven = !guards.patience || provesAbsence({ quietFrom, readings, readAt: NOW }, world.lostAfterMs);
  return [...found, { told: isProven ? "absent" : null, theirId: "", readings: 1, running: false }];
}

/** One look at a run whose id is known. */
function look(world: World, state: State, run: Run): Seen[] {
  const theirs = state.theirs.find(({ id }) => id === run.providerRunId);
  const isDue =
    ["submitting", "unknown", "running"].includes(run.status) || (isMissing(run) && world.guards.orphanLooks);
  if (!theirs || !isDue) return [];
  const running = theirs.phase === "running";
  if (running && run.status === "running") return [];
  return [{ told: theirs.phase === "running" ? "submitted" : theirs.phase, theirId: theirs.id, readings: 0, running }];
}
