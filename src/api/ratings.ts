import { z } from "zod";
import { saveRating } from "../db/ratings.ts";
import { ServiceError } from "../errors.ts";
import type { Routes } from "./app.ts";
import { mustView } from "./jobs.ts";
import { problemSchema } from "./problem.ts";
import { isStorable } from "./submission.ts";

/** What end users think of what they got. */
export const ratingRoutes: Routes = (app, services) => {
  app.route({
    method: "PUT",
    url: "/api/jobs/:id/ratings/:variant",
    schema: {
      tags: ["jobs"],
      summary: "Rate a result",
      description: "Each delivered result has one rating: the last word counts, and repeating it changes nothing.",
      params: z.object({ id: z.uuid("is not a job's id"), variant: z.coerce.number().int().min(0).max(15) }),
      body: z.strictObject({
        score: z.int().min(1).max(5).describe("5 is best."),
        comment: z
          .string()
          .trim()
          .max(1_000)
          .refine(isStorable, "holds a character that cannot be kept")
          .default("")
          .describe("At most 1,000 characters."),
      }),
      response: {
        200: z.object({ job: z.uuid(), variant: z.int(), score: z.int(), comment: z.string() }),
        401: problemSchema,
        404: problemSchema,
        422: problemSchema,
      },
    },
    handler: async (request) => {
      const { appId } = await services.authenticate(request);
      const { id, variant } = request.params;
      const { score, comment } = request.body;
      const { job } = await mustView(services, appId, id);
      if (!(await saveRating(services.db, { jobId: job.id, variant, score, comment })))
        throw new ServiceError(
          "not_found",
          `The job ${job.id} has delivered no result ${variant}: only what is in its \`results\` with status completed can be rated.`,
        );
      return { job: job.id, variant, score, comment };
    },
  });
};
