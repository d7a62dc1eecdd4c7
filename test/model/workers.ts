import { SEND_WINDOW_MS } from "../../src/domain/absence.ts";
import type { Step } from "../../src/domain/agenda.ts";
import type { Job } from "../../src/domain/job.ts";
import type { Told } from "./lifecycle.ts";
import { TICK_MS } from "./lifecycle.ts";
import type { World } from "./setting.ts";
import { learn, REST, record, type State, stop, type Worker, write } from "./state.ts";
import type { Move } from "./world.ts";

const NAMES = ["A", "B"];
const SEND_WINDOW_TICKS = SEND_WINDOW_MS / TICK_MS;

/** What one of the two workers may do next; killed at any step, or standing still while others move. */
export function workerMoves(world: World, state: State, worker: Worker, index: number): Move[] {
  const { life, guards } = world;
  const name = NAMES[index];
  const put = (now: Worker, after: State = state): State => ({ ...after, workers: after.workers.with(index, now) });
  const rest = (after: State = state) => put(REST, after);
  const killed: Move = [`${name} is killed`, rest()];

  switch (worker.at) {
    case "rest":
      // Which of two that rest takes it up makes no difference.
      return index > 0 && state.workers[0]?.at === "rest" ? [] : claimMoves(world, state, index);
    case "buying": {
      if (worker.fenced && guards.epoch) return [[`${name} wants to buy, and has lost its lease`, rest()]];
      const order = worker.order || freshOrder(life.job(state.job), state);
      if (!guards.intent)
        return [
          killed,
          [
            `${name} writes order ${order}, no intent committed`,
            put({ at: "waiting", order, reply: "" }, write(state, order)),
          ],
        ];
      const after = learn(world, state, "intended", order);
      if (after === null) return [];
      const { held } = after;
      const armed = held?.order === order ? { ...after, held: { ...held, isOld: true } } : after;
      if (after === state && guards.committed)
        return [[`${name} wants to buy, and it is no longer to be bought`, rest()]];
      return [
        killed,
        [
          `${name} commits the intent ${order}`,
          put({ at: "sending", order, left: SEND_WINDOW_TICKS, checked: false }, armed),
        ],
      ];
    }
    case "abandoning":
      return [
        [
          `${name}, late, says that ${worker.order} is abandoned`,
          rest(learn(world, state, "abandoned", worker.order) ?? state),
        ],
      ];
    case "sending": {
      const { order, left } = worker;
      const written = put({ at: "waiting", order, reply: "" }, write(state, order));
      const unwritten = (why: string): Move => [
        `${name} ${why}: ${order} is postponed`,
        rest(record(world, state, "postponed", order)),
      ];
      const freezes = guards.sendWindow !== true && guards.sendWindow !== false;
      const mayWrite = worker.checked || !guards.sendWindow || (left >= 0 && !freezes);
      return [
        killed,
        ...(mayWrite ? [[`${name} writes order ${order}`, written] as const] : []),
        ...(freezes && left > 0 && !worker.checked
          ? [[`${name} finds that it may write ${order}`, put({ ...worker, checked: true })] as const]
          : []),
        ...(left > 0
          ? [unwritten("cannot connect")]
          : guards.sendWindow === true
            ? [unwritten("is too late to write")]
            : []),
      ];
    }
    case "waiting":
      return [killed, ...answerMoves(world, state, worker, name ?? "", rest, put)];
  }
}

function answerMoves(
  world: World,
  state: State,
  { order, reply }: Worker & { at: "waiting" },
  name: string,
  rest: (after?: State) => State,
  put: (now: Worker, after?: State) => State,
): Move[] {
  const { guards } = world;
  // Without an intent in time it is written down now, with what became of it.
  const noted = guards.intent ? state : (learn(world, state, "intended", order) ?? state);
  const found: Move[] = [];
  if (reply === "429")
    found.push([`${name} hears that ${order} is refused for now`, rest(record(world, noted, "postponed", order))]);
  else if (reply === "422")
    found.push([`${name} hears that ${order} is refused`, rest(record(world, noted, "declined", order))]);
  else if (reply)
    found.push([`${name} hears that ${order} is ${reply}`, rest(record(world, noted, "submitted", order, reply))]);
  const mistakes = {
    unknown: "lost",
    declined: "declined",
    "declined, retryable": "refused",
    postponed: "postponed",
  } as const;
  if (guards.lostAnswer === "sent again")
    return state.posts.length > 1 || state.theirs.length > 1
      ? found
      : [
          ...found,
          [
            `${name} gets no answer and sends ${order} again`,
            put({ at: "waiting", order, reply: "" }, write(state, order)),
          ],
        ];
  if (!world.answersAreLost) return found;
  return [
    ...found,
    [`${name} gets no answer for ${order}`, rest(record(world, noted, mistakes[guards.lostAnswer], order))],
  ];
}

/** Takes the lease, which may lapse at any moment, and does what is due: at once, or decides now and acts later. */
function claimMoves(world: World, state: State, index: number): Move[] {
  const { life } = world;
  const other = state.workers[1 - index];
  const name = other?.at === "rest" ? `${NAMES[index]}` : `${NAMES[index]} takes over and`;
  const fenced: State = {
    ...state,
    workers: state.workers.map((each) => (each.at === "buying" ? { ...each, fenced: true } : each)),
  };
  const put = (now: Worker): State => ({ ...fenced, workers: fenced.workers.with(index, now) });
  const take = (step: Step): Move[] => {
    const does = (what: string, type: Told, order = "", from: State = fenced): Move => [
      `${name} ${what}`,
      learn(world, from, type, order) ?? from,
    ];
    switch (step.type) {
      case "claim":
        return [does("claims the job", "claimed")];
      case "expire":
        return [does("says that the deadline has passed", "expired")];
      case "store":
        return [does(`stores the output of ${step.run.id}`, "stored", step.run.id)];
      case "abandon":
        return [
          does(`says that ${step.run.id} is abandoned`, "abandoned", step.run.id),
          [`${name} sees that ${step.run.id} is abandoned`, put({ at: "abandoning", order: step.run.id })],
        ];
      case "cancel": {
        const stopped = stop(fenced, step.run.providerRunId);
        return [
          [`${name} tells ${step.run.providerRunId} to stop and is killed`, stopped],
          does(`tells ${step.run.providerRunId} to stop`, "cancel_sent", step.run.id, stopped),
        ];
      }
      case "submit":
        return [
          [`${name} sees that it is to be bought`, put({ at: "buying", order: step.run?.id ?? "", fenced: false })],
        ];
    }
  };
  return life.steps(state.job).flatMap(take);
}

function freshOrder(job: Job, state: State): string {
  const used = new Set([
    ...job.runs.map((run) => run.id),
    ...state.theirs.map((run) => run.order),
    ...state.posts.map((post) => post.order),
    ...state.workers.map((worker) => ("order" in worker ? worker.order : "")),
  ]);
  return ["1", "2", "3", "4", "5"].find((order) => !used.has(order)) ?? "6";
}
