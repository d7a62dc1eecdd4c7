import { z } from "zod";
import { redeliver } from "../db/callbacks.ts";
import { isEnded } from "../domain/job.ts";
import { ServiceError } from "../errors.ts";
import type { Routes } from "./app.ts";
import { mustView } from "./jobs.ts";
import { problemSchema } from "./problem.ts";

const time = z.iso.datetime({ offset: true });
const callbackSchema = z
  .object({
    id: z.uuid().describe("The webhook-id, the same for every repetition."),
    type: z.string().describe("job.completed, job.failed or job.canceled."),
    url: z.url(),
    nextAt: time.nullable().describe("When it is tried next."),
    lastStatus: z.int().nullable().describe("What the last attempt was answered with; null: nothing."),
    lastError: z.string().nullable(),
  })
  .meta({ id: "Callback" });

export const callbackRoutes: Routes = (app, services) => {
  app.route({
    method: "POST",
    url: "/api/jobs/:id/callback",
    schema: {
      tags: ["jobs"],
      summary: "Tell the end of a job once more",
      description:
        "For a backend that missed it: the callback is sent again now, under the same webhook-id, and repeated as a new one would be.",
      params: z.object({ id: z.uuid("is not a job's id") }),
      response: { 202: callbackSchema, 401: problemSchema, 404: problemSchema },
    },
    handler: async (request, reply) => {
      const { appId } = await services.authenticate(request);
      const { job } = await mustView(services, appId, request.params.id);
      const row = await redeliver(services.db, appId, job.id);
      if (!row) {
        const why = !isEnded(job)
          ? `The job is ${job.status}: its end is told when it ends.`
          : "The job was submitted without a callbackUrl, and its app has none: there is nobody to tell.";
        throw new ServiceError("not_found", why);
      }
      const { id, type, url, nextAt, lastStatus, lastError } = row;
      return reply.code(202).send({ id, type, url, nextAt: nextAt?.toISOString() ?? null, lastStatus, lastError });
    },
  });
};
