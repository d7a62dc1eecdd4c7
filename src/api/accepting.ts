import type { Logger } from "pino";
import { type AcceptAnswer, type AcceptRequest, acceptJobs } from "../db/accept.ts";
import type { Db } from "../db/client.ts";
import type { Reach } from "../fault-points.ts";
import type { Metrics } from "../metrics.ts";
import type { Queues, Wake } from "../queue/queue.ts";

/** Rows in one statement, and statements under way at the same time. Measured: more of either is slower. */
const GROUP_SIZE = 64;
const MOST_UNDER_WAY = 2;
/** Requests that may wait for a statement; beyond it the database is the bottleneck and the caller should know. */
const MOST_WAITING = 5_000;

/** In one round trip to the queue. */
const MOST_WAKES = 1_000;

export class TooManyWaiting extends Error {
  override readonly name = "TooManyWaiting";
}

export interface AcceptServices {
  readonly db: Db;
  readonly queues: Queues;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly reach: Reach;
}

export type Accept = (request: AcceptRequest) => Promise<AcceptAnswer>;

interface Waiting {
  readonly request: AcceptRequest;
  resolve(answer: AcceptAnswer): void;
  reject(error: unknown): void;
}

/**
 * Accepts requests together that arrive together. Not a timer: while two statements are under way the next group
 * fills by itself; at low load a group is one request and nothing is delayed. Jobs that were accepted are woken at
 * once; should the queue not answer, the sweep wakes them.
 */
export function makeAccept({ db, queues, logger, metrics, reach }: AcceptServices): Accept {
  const waiting: Waiting[] = [];
  let underWay = 0;
  const toWake: Wake[] = [];
  let waking = false;

  const pump = () => {
    while (waiting.length > 0 && underWay < MOST_UNDER_WAY) {
      const group = waiting.splice(0, GROUP_SIZE);
      underWay++;
      void acceptGroup(group).finally(() => {
        underWay--;
        pump();
      });
    }
  };

  const acceptGroup = async (group: readonly Waiting[]): Promise<void> => {
    metrics.acceptGroup.observe(group.length);
    try {
      for (const { request } of group) await reach("accept.asked", request.id);
      const answers = await acceptJobs(
        db,
        group.map((each) => each.request),
      );
      for (const { request } of group) await reach("accept.committed", request.id);
      wake(group, answers);
      group.forEach((each, index) => {
        each.resolve(answers[index] as AcceptAnswer);
      });
    } catch (error) {
      // One bad row fails the statement: its neighbours are taken one by one and do not notice. If the commit's answer
      // was what got lost, the keys make this a replay.
      if (isLocked(error) && oneUser(group)) for (const each of group) each.reject(error);
      else if (group.length > 1) await Promise.all(split(group).map((each) => acceptGroup(each)));
      else group[0]?.reject(error);
    }
  };

  const wake = (group: readonly Waiting[], answers: readonly AcceptAnswer[]) => {
    for (const [index, { request }] of group.entries()) {
      const outcome = answers[index]?.outcome ?? "refused";
      metrics.accepted.inc({ kind: request.kind, outcome });
      if (outcome === "rate_limited")
        metrics.rateLimited.inc({ app: request.appId, limit: answers[index]?.detail?.split(":")[0] ?? "" });
      if (outcome !== "accepted") continue;
      metrics.creditsCharged.inc({ kind: request.kind }, request.credits);
      toWake.push({ id: request.id, kind: request.kind, epoch: 0 });
    }
    if (!waking) void wakeAll();
  };

  /** Like the groups themselves: while one round trip to the queue is under way, the next one's wakes gather. */
  const wakeAll = async (): Promise<void> => {
    waking = true;
    while (toWake.length > 0) {
      const wakes = toWake.splice(0, MOST_WAKES);
      await queues
        .wake(wakes)
        .catch((error: unknown) => logger.warn({ err: error, jobs: wakes.length }, "could not wake: the sweep will"));
    }
    waking = false;
  };

  return (request) =>
    new Promise((resolve, reject) => {
      if (waiting.length >= MOST_WAITING)
        return reject(new TooManyWaiting(`${MOST_WAITING} requests wait for the database`));
      waiting.push({ request, resolve, reject });
      // What arrives in the same turn of the event loop joins the same group.
      setImmediate(pump);
    });
}

/** Counts what another statement has accepted, and wakes it in one round trip; else the sweep does. */
export async function wakeAccepted(
  { queues, logger, metrics }: Pick<AcceptServices, "queues" | "logger" | "metrics">,
  answered: readonly { readonly request: AcceptRequest; readonly answer: AcceptAnswer }[],
): Promise<void> {
  for (const { request, answer } of answered) metrics.accepted.inc({ kind: request.kind, outcome: answer.outcome });
  const accepted = answered.flatMap(({ request, answer }) => (answer.outcome === "accepted" ? [request] : []));
  if (accepted.length === 0) return;
  for (const { kind, credits } of accepted) metrics.creditsCharged.inc({ kind }, credits);
  await queues
    .wake(accepted.map(({ id, kind }) => ({ id, kind, epoch: 0 })))
    .catch((error: unknown) => logger.warn({ err: error, jobs: accepted.length }, "could not wake: the sweep will"));
}

const oneUser = (group: readonly Waiting[]) =>
  group.every(
    ({ request: { appId, userId } }) => appId === group[0]?.request.appId && userId === group[0]?.request.userId,
  );

/** By user, then one by one. */
function split(group: readonly Waiting[]): Waiting[][] {
  if (oneUser(group)) return group.map((each) => [each]);
  const byUser = new Map<string, Waiting[]>();
  for (const each of group) {
    const user = JSON.stringify([each.request.appId, each.request.userId]);
    byUser.set(user, [...(byUser.get(user) ?? []), each]);
  }
  return [...byUser.values()];
}

/** lock_not_available: another transaction has had the account for longer than lock_timeout. */
function isLocked(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "55P03";
}
