import { z } from "zod";
import { balanceOf } from "../db/credits.ts";
import { planNameOf, setPlan } from "../db/plans.ts";
import { ratesLeft } from "../db/rates.ts";
import { type App, planOf } from "../domain/app.ts";
import { KINDS } from "../domain/kinds/kind.ts";
import { allRatesOf } from "../domain/request.ts";
import { ServiceError } from "../errors.ts";
import type { Routes } from "./app.ts";
import { appOf } from "./ordering.ts";
import { problemSchema } from "./problem.ts";
import { isStorable } from "./submission.ts";

const params = z.object({
  user: z.string().trim().min(1).max(200).refine(isStorable, "holds a character that cannot be kept"),
});
const userSchema = z.object({
  user: z.string(),
  plan: z.string(),
  available: z.int().describe("Balance and what is left of today's allowance."),
  balance: z.int(),
  allowance: z.int(),
});
const limits = z.object({
  dailyAllowance: z.int().describe("Credits a day before the balance is touched."),
  maxSide: z.int().describe("Pixels of the longest side of an output."),
  maxSteps: z.int().nullable().describe("Of a generation; null: what the model takes."),
  maxSeconds: z.number().describe("Of a video."),
  maxModels: z.int().describe("Trained models kept; 0: none can be trained."),
  maxTrainingResolution: z.int(),
});
const rate = z.object({
  action: z.enum(["request", ...KINDS]).describe("request: every submission."),
  max: z.int(),
  seconds: z.int(),
  left: z.int(),
  resetSeconds: z.int().describe("Until the window ends; when nothing is left, until one more is allowed."),
});

/** End users as an app's backend sees them: on which plan, and how much of it is left. */
export const userRoutes: Routes = (app, services) => {
  const { db, authenticate } = services;

  app.route({
    method: "GET",
    url: "/api/users/:user",
    schema: {
      tags: ["users"],
      summary: "A user's plan, its limits and what is left of them",
      params,
      response: {
        200: userSchema.extend({
          limits,
          overLimit: z.enum(["clamp", "refuse"]).describe("What becomes of a request beyond the plan."),
          rates: z.array(rate),
        }),
        401: problemSchema,
        404: problemSchema,
      },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      const { user } = request.params;
      const owner = appOf(services, appId);
      const balance = await balanceOf(db, appId, user);
      if (!balance)
        throw new ServiceError(
          "not_found",
          `The user ${user} has no account yet: it is made with the first job, grant or plan.`,
        );
      const { name, plan } = planOf(owner, await planNameOf(db, appId, user));
      const { rates: _, ...limited } = plan;
      const left = await ratesLeft(db, appId, allRatesOf(plan, user));
      return {
        user,
        plan: name,
        available: balance.balance + balance.allowance,
        ...balance,
        limits: limited,
        overLimit: owner.overLimit,
        rates: left.map(({ action, max, seconds, left: some, resetSeconds }) => ({
          action: action as z.infer<typeof rate>["action"],
          max,
          seconds,
          left: some,
          resetSeconds,
        })),
      };
    },
  });

  app.route({
    method: "PUT",
    url: "/api/users/:user",
    schema: {
      tags: ["users"],
      summary: "Put a user on a plan",
      description:
        "Counts from the next submission on; jobs that were accepted stay as they are. A larger daily allowance counts today, a smaller one from tomorrow. Repeating it changes nothing.",
      params,
      body: z.strictObject({ plan: z.string().min(1).max(40).describe("One of the app's plans: GET /api/prices.") }),
      response: { 200: userSchema, 401: problemSchema, 422: problemSchema },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      const { user } = request.params;
      const { plan } = request.body;
      checkPlan(appOf(services, appId), plan);
      const { balance, allowance } = await setPlan(db, appId, user, plan);
      return { user, plan, available: balance + allowance, balance, allowance };
    },
  });
};

function checkPlan(app: App, plan: string): void {
  if (Object.hasOwn(app.plans, plan)) return;
  const detail = `is no plan of the app ${app.id}; one of: ${Object.keys(app.plans).join(", ")}`;
  throw new ServiceError("invalid_input", `body field /plan ${detail}`, { fields: [{ pointer: "/plan", detail }] });
}
