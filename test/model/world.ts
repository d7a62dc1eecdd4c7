import { isEnded } from "../../src/domain/job.ts";
import { isMissing } from "../../src/domain/run.ts";
import { NOW, TICK_MS } from "./lifecycle.ts";
import type { World } from "./setting.ts";
import { learn, type Post, type State, type Theirs } from "./state.ts";
import { watchMoves } from "./watch.ts";
import { workerMoves } from "./workers.ts";

/**
 * One job, two workers, the network, the provider and a watch. Whatever may happen next, happens: every one of `moves`
 * leads to a state, at any moment. A worker that stands still is one that nothing happens to for a while.
 */

export type Move = readonly [label: string, after: State];

/** An order is delivered or dead after so long. */
const SOCKET_TICKS = 15_000 / TICK_MS;

export function moves(world: World, state: State): Move[] {
  return [
    ...timeMoves(world, state),
    ...state.workers.flatMap((worker, index) => workerMoves(world, state, worker, index)),
    ...state.posts.flatMap((post, index) => networkMoves(world, state, post, index)),
    ...state.theirs.flatMap((theirs, index) => providerMoves(world, state, theirs, index)),
    ...watchMoves(world, state),
    ...customerMoves(world, state),
  ];
}

function timeMoves(world: World, state: State): Move[] {
  if (state.posts.some((post) => post.age >= SOCKET_TICKS)) return [];
  const after: State = {
    ...state,
    job: world.life.tick(state.job),
    workers: state.workers.map((worker) =>
      worker.at === "sending" ? { ...worker, left: Math.max(-1, worker.left - 1) } : worker,
    ),
    posts: state.posts.map((post) => ({ ...post, age: post.age + 1 })),
    theirs: state.theirs.map((run) => ({ ...run, age: Math.min(run.age + 1, world.lagTicks) })),
  };
  return [["five seconds pass", after]];
}

function networkMoves(world: World, state: State, post: Post, index: number): Move[] {
  const gone: State = { ...state, posts: state.posts.toSpliced(index, 1) };
  const replying = (after: State, reply: string): State => ({
    ...after,
    workers: after.workers.map((worker) =>
      worker.at === "waiting" && worker.order === post.order && !worker.reply ? { ...worker, reply } : worker,
    ),
  });
  const { order } = post;
  const twice = state.theirs.some((theirs) => theirs.order === order);
  const run: Theirs = {
    id: twice ? `their ${order}'` : `their ${order}`,
    order,
    phase: "running",
    age: 0,
    toldToStop: false,
    hasWebhooks: world.webhooks !== "none",
  };
  const accepted: State = {
    ...gone,
    theirs: [...gone.theirs, run],
    doubles: state.doubles + (state.theirs.length > post.excused ? 1 : 0),
  };
  const refused = state.workers.some((worker) => worker.at === "waiting" && worker.order === order);
  return [
    [`order ${order} dies on its way`, gone],
    [`the provider accepts ${order}`, replying(accepted, run.id)],
    ...(world.moods && refused
      ? ([
          [`the provider refuses ${order} for now`, replying(gone, "429")],
          [`the provider refuses ${order}`, replying(gone, "422")],
        ] as const)
      : []),
  ];
}

function providerMoves(world: World, state: State, theirs: Theirs, index: number): Move[] {
  const job = world.life.job(state.job);
  const become = (change: Partial<Theirs>): State => ({
    ...state,
    theirs: state.theirs.with(index, { ...theirs, ...change }),
  });
  const found: Move[] = [];
  const isOpen = !isEnded(job) || job.runs.some((run) => isMissing(run) && run.providerRunId === theirs.id);
  if (theirs.phase === "running" && isOpen) {
    found.push([`${theirs.id} succeeds`, become({ phase: "succeeded" })]);
    if (world.moods) {
      found.push([`${theirs.id} fails`, become({ phase: "failed" })]);
      found.push([`${theirs.id} is interrupted`, become({ phase: "interrupted" })]);
    }
    if (theirs.toldToStop) found.push([`${theirs.id} is canceled`, become({ phase: "canceled" })]);
  }
  const isKnown = job.runs.some((run) => run.providerRunId === theirs.id);
  if (!theirs.hasWebhooks || isKnown) return found;
  if (world.webhooks === "may be lost")
    found.push([`no webhook of ${theirs.id} arrives`, become({ hasWebhooks: false })]);
  if (!world.guards.webhookId) return found;
  const kept = world.life.keepId(state.job, theirs.order, theirs.id);
  if (kept !== state.job) found.push([`a webhook tells that ${theirs.order} is ${theirs.id}`, { ...state, job: kept }]);
  return found;
}

function customerMoves(world: World, state: State): Move[] {
  const job = world.life.job(state.job);
  if (!world.endings || isEnded(job)) return [];
  const found: Move[] = [];
  if (!job.cancelRequestedAt && !job.expiredAt) {
    const after = learn(world, state, "cancel_requested", "");
    if (after) found.push(["the customer cancels", after]);
    if (job.deadlineAt > NOW)
      found.push(["the deadline passes", { ...state, job: world.life.passDeadline(state.job) }]);
  }
  return found;
}
