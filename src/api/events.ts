import { z } from "zod";
import { entriesOfJob } from "../db/credits.ts";
import { eventsOf } from "../db/job-views.ts";
import { isEnded } from "../domain/job.ts";
import { ServiceError } from "../errors.ts";
import { toJson } from "../job-json.ts";
import type { Routes } from "./app.ts";
import { mustView } from "./jobs.ts";
import { problemSchema } from "./problem.ts";

/** A comment line so often keeps proxies from closing the stream. */
const HEARTBEAT_MS = 15_000;
/** Then the stream ends; EventSource comes back by itself. */
const MOST_STREAM_MS = 15 * 60_000;

const idParams = z.object({ id: z.uuid("is not a job's id") });

/** What a job is going through, as it happens and in hindsight. */
export const eventRoutes: Routes = (app, services) => {
  const { db, storage, changes, authenticate } = services;

  app.route({
    method: "GET",
    url: "/api/jobs/:id/events",
    schema: {
      tags: ["jobs"],
      summary: "Progress as server-sent events",
      description: "Sends the whole job as a `job` event whenever something of it changed, and ends after its end.",
      params: idParams,
      response: {
        200: z.string().describe("text/event-stream"),
        401: problemSchema,
        404: problemSchema,
        503: problemSchema,
      },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      let view = await mustView(services, appId, request.params.id);
      if (!changes.next(view.job.id, null, 0))
        throw new ServiceError(
          "too_many_waiting",
          "Too many streams are open. Read the job every second or two instead.",
        );
      reply.hijack();
      const stream = reply.raw;
      stream.writeHead(200, {
        "content-type": "text/event-stream",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
      });
      const until = Date.now() + MOST_STREAM_MS;
      let mark: string | null = null;
      let sent = "";
      try {
        while (!stream.destroyed && Date.now() < until) {
          const data = JSON.stringify(await toJson(view, storage));
          // Signed addresses differ with every answer; they alone are no news.
          const news = data.replaceAll(/\?expires=[^"]*|\?X-Amz[^"]*/g, "");
          stream.write(news === sent ? ": still here\n\n" : `event: job\nid: ${view.job.version}\ndata: ${data}\n\n`);
          sent = news;
          if (isEnded(view.job)) break;
          const moved = changes.next(view.job.id, mark, HEARTBEAT_MS);
          if (!moved) break;
          mark = await moved;
          view = await mustView(services, appId, view.job.id);
        }
      } catch (error) {
        request.log.warn({ err: error }, "event stream broke");
      } finally {
        stream.end();
      }
    },
  });

  app.route({
    method: "GET",
    url: "/api/jobs/:id/timeline",
    schema: {
      tags: ["jobs"],
      summary: "Everything that happened to a job and to its credits",
      params: idParams,
      response: {
        200: z.object({
          job: z.uuid(),
          facts: z.array(
            z.object({
              version: z.int(),
              at: z.iso.datetime(),
              type: z.string(),
              run: z.string().nullable(),
              detail: z.record(z.string(), z.unknown()),
            }),
          ),
          entries: z.array(
            z.object({
              at: z.iso.datetime(),
              type: z.string(),
              bucket: z.string(),
              amount: z.int(),
              balanceAfter: z.int(),
              description: z.string(),
            }),
          ),
        }),
        401: problemSchema,
        404: problemSchema,
      },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      const { job } = await mustView(services, appId, request.params.id);
      const [events, entries] = await Promise.all([eventsOf(db, job.id), entriesOfJob(db, job.id)]);
      const accepted = {
        version: 0,
        at: job.createdAt.toISOString(),
        type: "accepted",
        run: null,
        detail: { credits: job.credits },
      };
      return {
        job: job.id,
        facts: [
          accepted,
          ...events.map(({ version, at, type, runId, detail }) => ({
            version,
            at: at.toISOString(),
            type,
            run: runId,
            detail,
          })),
        ],
        entries: entries.map(({ createdAt, type, bucket, amount, balanceAfter, description }) => ({
          at: createdAt.toISOString(),
          type,
          bucket,
          amount,
          balanceAfter,
          description,
        })),
      };
    },
  });
};
