import { z } from "zod";
import { type ArmOutcome, armOutcomes } from "../db/ratings.ts";
import { intervalOf } from "../domain/interval.ts";
import { KINDS } from "../domain/kinds/kind.ts";
import { ServiceError } from "../errors.ts";
import type { Routes } from "./app.ts";
import { appOf } from "./ordering.ts";
import { problemSchema } from "./problem.ts";

const interval = z.object({ low: z.number(), high: z.number() });
const armSchema = z.object({
  arm: z.string(),
  weight: z.int().nullable().describe("Null: it is no longer part of the experiment."),
  jobs: z.int(),
  completed: z.int(),
  failed: z.int(),
  canceled: z.int(),
  meanSeconds: z.number().nullable().describe("From acceptance to completion."),
  ratings: z.object({
    count: z.int(),
    mean: z.number().nullable().describe("1 to 5."),
    interval: interval
      .nullable()
      .describe(
        "95 % of such intervals hold the true mean; null for fewer than two ratings. Arms whose intervals do not overlap differ.",
      ),
  }),
});

export const experimentRoutes: Routes = (app, services) => {
  app.route({
    method: "GET",
    url: "/api/experiments/:name",
    schema: {
      tags: ["experiments"],
      summary: "How the arms of an experiment compare",
      description: "A user always gets the same arm; over many users the weights decide. What counts is how they rate.",
      params: z.object({ name: z.string().min(1).max(100) }),
      response: {
        200: z.object({ experiment: z.string(), kind: z.enum(KINDS).nullable(), arms: z.array(armSchema) }),
        401: problemSchema,
        404: problemSchema,
      },
    },
    handler: async (request) => {
      const { appId } = await services.authenticate(request);
      const { name } = request.params;
      const { experiments } = appOf(services, appId);
      const experiment = Object.hasOwn(experiments, name) ? experiments[name] : undefined;
      const outcomes = await armOutcomes(services.db, appId, name);
      if (!experiment && outcomes.length === 0)
        throw new ServiceError(
          "not_found",
          `There is no experiment ${name}; there are: ${Object.keys(experiments).join(", ") || "none"}.`,
        );
      const current = experiment?.arms ?? [];
      const former = outcomes.filter(({ arm }) => !current.some((each) => each.name === arm));
      return {
        experiment: name,
        kind: experiment?.kind ?? null,
        arms: [
          ...current.map((arm) => toArm(arm.name, arm.weight, outcomes)),
          ...former.map(({ arm }) => toArm(arm, null, outcomes)),
        ],
      };
    },
  });
};

function toArm(arm: string, weight: number | null, outcomes: readonly ArmOutcome[]): z.input<typeof armSchema> {
  const outcome = outcomes.find((each) => each.arm === arm);
  const { jobs = 0, completed = 0, failed = 0, canceled = 0, ratings = 0 } = outcome ?? {};
  const { meanSeconds = null, meanRating = null, ratingDeviation = null } = outcome ?? {};
  const interval =
    meanRating !== null && ratingDeviation !== null
      ? intervalOf(ratings, meanRating, ratingDeviation, { low: 1, high: 5 })
      : null;
  return {
    arm,
    weight,
    jobs,
    completed,
    failed,
    canceled,
    meanSeconds: meanSeconds === null ? null : hundredths(meanSeconds),
    ratings: {
      count: ratings,
      mean: meanRating === null ? null : hundredths(meanRating),
      interval: interval && { low: hundredths(interval.low), high: hundredths(interval.high) },
    },
  };
}

const hundredths = (value: number) => Math.round(value * 100) / 100;
