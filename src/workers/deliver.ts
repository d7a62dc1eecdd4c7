import { setTimeout as sleep } from "node:timers/promises";
import { batchJson } from "../batch-json.ts";
import { signCallback } from "../callback-signing.ts";
import { findBatch } from "../db/batches.ts";
import { claimCallbacks, type Delivery, type DueCallback, giveUpVanished, noteDelivery } from "../db/callbacks.ts";
import { viewJob } from "../db/job-views.ts";
import { viewPipeline } from "../db/pipelines.ts";
import { toJson } from "../job-json.ts";
import { pipelineJson } from "../pipeline-json.ts";
import type { PostAnswer } from "../storage/guarded-post.ts";
import { type Loop, repeat } from "./loop.ts";
import type { Services } from "./services.ts";

const EVERY_MS = 500;
const MOST_UNDER_WAY = 20;
/** So that a backend that does not answer leaves room for those of other apps. */
const MOST_OF_AN_APP = 10;
const CLAIMED_AT_ONCE = 5;
const TIMEOUT_MS = 15_000;
/** What a stopping worker waits for those under way; what is then not noted is told once more, under the same id. */
const DRAIN_MS = 3_000;
/** Items of a batch that are told with its end; the others are a page away. */
const ITEMS = 100;
/** Of what is kept of an answer, or of an error. */
const MOST_ERROR_CHARACTERS = 1_024;

const MINUTE = 60;
const HOUR = 60 * MINUTE;
/** Seconds from one attempt to the next: 5 s to a day, two days in all. */
const PAUSES = [5, 30, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR] as const;

/** Tells the apps' backends what has ended: at least once, under the same id each time. */
export function deliver(services: Services): Loop {
  const underWay = new Map<Promise<void>, string>();
  const loop = repeat("deliver", services.logger, EVERY_MS, async () => {
    if (underWay.size >= MOST_UNDER_WAY) await Promise.race(underWay.keys());
    const room = Math.min(CLAIMED_AT_ONCE, MOST_UNDER_WAY - underWay.size);
    const vanished = await giveUpVanished(services.db, PAUSES.length + 1);
    if (vanished.length > 0) {
      services.metrics.callbacks.inc({ outcome: "given_up" }, vanished.length);
      services.logger.error({ callbacks: vanished }, "gave up: those who told them vanished, one after the other");
    }
    const due = await claimCallbacks(services.db, room, busyAmong([...underWay.values()]));
    for (const callback of due) {
      const telling = tell(services, callback).finally(() => underWay.delete(telling));
      underWay.set(telling, callback.appId);
    }
    return due.length === room;
  });
  return {
    async stop() {
      await loop.stop();
      await Promise.race([Promise.all(underWay.keys()), sleep(DRAIN_MS, undefined, { ref: false })]);
    },
  };
}

const busyAmong = (apps: readonly string[]) =>
  [...new Set(apps)].filter((app) => apps.filter((each) => each === app).length >= MOST_OF_AN_APP);

/** Never throws. */
async function tell(services: Services, due: DueCallback): Promise<void> {
  const { db, logger, metrics } = services;
  const delivery = await send(services, due).then(
    (answer) => judge(due, answer),
    (error: unknown) => judge(due, error),
  );
  const { outcome, status, error } = delivery;
  metrics.callbacks.inc({ outcome });
  const what = { callback_id: due.id, type: due.type, about: due.about.id, attempts: due.attempts, status };
  if (outcome === "delivered") logger.info(what, "told");
  else if (outcome === "retried") logger.warn({ ...what, error }, "could not tell: it is tried again");
  else logger.error({ ...what, error }, "could not tell, and gave up: POST /api/jobs/{id}/callback tells it once more");
  await noteDelivery(db, due, delivery).catch((cause: unknown) =>
    logger.warn({ err: cause, ...what }, "what came of a callback could not be noted: it is told again"),
  );
}

async function send(services: Services, due: DueCallback): Promise<PostAnswer> {
  const data = await dataOf(services, due);
  // As it is now; the type and its time are those of the event.
  const body = JSON.stringify({ type: due.type, timestamp: due.createdAt.toISOString(), data });
  const signed = signCallback(services.callbackSecretOf(due.appId), { id: due.id, at: new Date(), body });
  const headers = { "content-type": "application/json", ...signed };
  const answer = await services.post(due.url, { headers, body, timeoutMs: TIMEOUT_MS });
  await services.reach("deliver.sent", due.about.id);
  return answer;
}

async function dataOf({ db, storage }: Services, { appId, about: { type, id } }: DueCallback): Promise<unknown> {
  if (type === "job") {
    const view = await viewJob(db, appId, id);
    if (view) return toJson(view, storage);
  } else if (type === "batch") {
    const batch = await findBatch(db, appId, id);
    if (batch) return batchJson(db, batch, { after: -1, limit: ITEMS });
  } else {
    const view = await viewPipeline(db, appId, id);
    if (view) return pipelineJson(view);
  }
  throw new Error(`there is no ${type} ${id}`);
}

function judge({ attempts }: DueCallback, came: PostAnswer | unknown): Delivery {
  const answer = isAnswer(came) ? came : null;
  const status = answer?.status ?? null;
  if (status !== null && status >= 200 && status < 300)
    return { outcome: "delivered", nextInSeconds: null, status, error: null };
  const error = storable(answer ? `answered ${answer.status}: ${answer.excerpt}` : wordsOf(came));
  // 410: "gone" is what a receiver says who wants no more of it.
  const nextInSeconds = status === 410 ? null : (PAUSES[attempts - 1] ?? null);
  return { outcome: nextInSeconds === null ? "given_up" : "retried", nextInSeconds, status, error };
}

const isAnswer = (came: unknown): came is PostAnswer => typeof came === "object" && came !== null && "excerpt" in came;

function wordsOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.name === "TimeoutError" ? `no answer within ${TIMEOUT_MS / 1_000} s` : error.message;
}

/** Postgres keeps no U+0000. */
const storable = (text: string) => text.replaceAll("\u0000", "").toWellFormed().slice(0, MOST_ERROR_CHARACTERS);
