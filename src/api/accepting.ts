import type { Logger } from "pino";
import { type AcceptAnswer, type AcceptRequest, acceptJobs } from "../db/accept.ts";
import type { Db } from "../db/client.ts";
import type { Metrics } from "../metrics.ts";
import type { Queues } from "../queue/queue.ts";

/** Rows in one statement, and statements under way at the same time. Measured: more of either is slower. */
const GROUP_SIZE = 64;
const MOST_UNDER_WAY = 2;
/** Requests that may wait for a statement; beyond it the database is the bottleneck and the caller should know. */
const MOST_WAITING = 5_000;

export class TooManyWaiting extends Error {
  override readonly name = "TooManyWaiting";
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
export function makeAccept(db: Db, queues: Queues, logger: Logger, metrics: Metrics): Accept {
  const waiting: Waiting[] = [];
  let underWay = 0;

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
      const answers = await acceptJobs(
        db,
        group.map((each) => each.request),
      );
      wake(group, answers);
      group.forEach((each, index) => {
        each.resolve(answers[index] as AcceptAnswer);
      });
    } catch (error) {
      // One bad row fails the statement: its neighbours are taken one by one and do not notice. If the commit's answer
      // was what got lost, the keys make this a replay.
      if (group.length > 1) await Promise.all(group.map((each) => acceptGroup([each])));
      else group[0]?.reject(error);
    }
  };

  const wake = (group: readonly Waiting[], answers: readonly AcceptAnswer[]) => {
    const accepted = group.flatMap(({ request }, index) => {
      const outcome = answers[index]?.outcome ?? "refused";
      metrics.accepted.inc({ kind: request.kind, outcome });
      if (outcome !== "accepted") return [];
      metrics.creditsCharged.inc({ kind: request.kind }, request.credits);
      return [{ id: request.id, kind: request.kind, epoch: 0 }];
    });
    if (accepted.length > 0)
      queues
        .wake(accepted)
        .catch((error: unknown) =>
          logger.warn({ err: error, jobs: accepted.length }, "could not wake: the sweep will"),
        );
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
