import { z } from "zod";
import { type CostGroup, costsBy, spendingOf } from "../db/costs.ts";
import { viewJob } from "../db/job-views.ts";
import { RUN_STATUSES } from "../domain/run.ts";
import { ServiceError } from "../errors.ts";
import type { ApiServices, Routes } from "./app.ts";
import { appOf } from "./ordering.ts";
import { problemSchema } from "./problem.ts";
import { isStorable } from "./submission.ts";

const MOST_ROWS = 1_000;
const MOST_DAYS = 92;
const DAY_MS = 86_400_000;
const COLUMNS = ["user", "kind", "model", "plan"] as const;

const time = z.iso.datetime({ offset: true });
const span = {
  from: time.optional().describe("Jobs accepted from then on; by default 30 days before `to`."),
  to: time.optional().describe("Jobs accepted before then; by default now."),
};
const providerUsd = z.number().describe("Of all their runs so far, those that failed included.");
const wastedUsd = z.number().describe("The part of it that went into runs that delivered nothing.");
const marginUsd = z
  .number()
  .nullable()
  .describe("What the kept credits are worth, less what the providers take; null where the app gives no worth.");
const problems = { 401: problemSchema, 422: problemSchema };

const spending = z.object({
  day: z.iso.date().describe("UTC; when the runs ended, of those that have not when they were sent."),
  provider: z.string().describe("The account."),
  model: z.string().describe("The provider's name of it."),
  runs: z.int(),
  delivered: z.int(),
  failed: z.int(),
  canceled: z.int(),
  orphaned: z.int().describe("Presumed lost, and paid all the same."),
  unpriced: z.int().describe("Ended, and only the provider's invoice tells what they cost."),
  providerUsd: z.number(),
  wastedUsd,
});

const jobCosts = z.object({
  credits: z
    .object({ charged: z.int(), kept: z.int(), refunded: z.int() })
    .nullable()
    .describe("Null until the job has ended."),
  providerUsd,
  wastedUsd,
  marginUsd: marginUsd.describe("Null until the job has ended, or where the app gives no worth of a credit."),
  runs: z.array(
    z.object({
      id: z.uuid(),
      provider: z.string(),
      model: z.string(),
      status: z.enum(RUN_STATUSES),
      seconds: z.number().nullable().describe("Billed run time."),
      costUsd: z.number().nullable().describe("Null: not known yet, or by nobody."),
      source: z
        .enum(["reported", "measured"])
        .nullable()
        .describe("Whose figure: the provider's own, or ours by its price."),
    }),
  ),
});

export const costRoutes: Routes = (app, services) => {
  app.route({
    method: "GET",
    url: "/api/costs",
    schema: {
      tags: ["prices"],
      summary: "What jobs cost, added up by what you noted on them",
      description: `For instance by=metadata.campaign: the credits that users paid and the dollars that the providers take, for each campaign. The most expensive first, at most ${MOST_ROWS} values and ${MOST_DAYS} days.`,
      querystring: z.strictObject({
        by: z
          .string()
          .max(110)
          .regex(/^(user|kind|model|plan|metadata\..{1,100})$/s, `one of ${COLUMNS.join(", ")}, or metadata.<name>`)
          .refine(isStorable, "holds a character that cannot be kept"),
        ...span,
      }),
      response: {
        200: z.object({
          by: z.string(),
          from: z.string(),
          to: z.string(),
          costs: z.array(
            z.object({
              value: z.string().nullable().describe("Null: jobs without such a note."),
              jobs: z.int(),
              credits: z.int().describe("Kept, of the jobs that have ended."),
              reserved: z.int().describe("Charged for those that have not."),
              providerUsd,
              wastedUsd,
              marginUsd,
            }),
          ),
          more: z.boolean().describe("There are more values: ask for a shorter time."),
        }),
        ...problems,
      },
    },
    handler: async (request) => {
      const { appId } = await services.authenticate(request);
      const { by } = request.query;
      const { from, to } = toSpan(request.query);
      const worth = worthOf(services, appId);
      const rows = await costsBy(services.db, appId, groupOf(by), { from, to, limit: MOST_ROWS + 1 });
      return {
        by,
        from: from.toISOString(),
        to: to.toISOString(),
        costs: rows.slice(0, MOST_ROWS).map(({ microUsd, wastedMicroUsd, ...row }) => ({
          ...row,
          providerUsd: usd(microUsd),
          wastedUsd: usd(wastedMicroUsd),
          marginUsd: worth === null ? null : usd(row.credits * worth - microUsd),
        })),
        more: rows.length > MOST_ROWS,
      };
    },
  });

  app.route({
    method: "GET",
    url: "/api/costs/providers",
    schema: {
      tags: ["prices"],
      summary: "What was bought from whom, by day and model, what failed included",
      description: `Runs of the jobs accepted in that time; at most ${MOST_ROWS} lines and ${MOST_DAYS} days.`,
      querystring: z.strictObject(span),
      response: {
        200: z.object({
          from: z.string(),
          to: z.string(),
          spending: z.array(spending),
          more: z.boolean().describe("There are more lines: ask for a shorter time."),
        }),
        ...problems,
      },
    },
    handler: async (request) => {
      const { appId } = await services.authenticate(request);
      const { from, to } = toSpan(request.query);
      const rows = await spendingOf(services.db, appId, { from, to, limit: MOST_ROWS + 1 });
      return {
        from: from.toISOString(),
        to: to.toISOString(),
        spending: rows.slice(0, MOST_ROWS).map(({ microUsd, wastedMicroUsd, ...row }) => ({
          ...row,
          providerUsd: usd(microUsd),
          wastedUsd: usd(wastedMicroUsd),
        })),
        more: rows.length > MOST_ROWS,
      };
    },
  });

  app.route({
    method: "GET",
    url: "/api/jobs/:id/costs",
    schema: {
      tags: ["prices"],
      summary: "What one job cost us, run by run, and what is left of its price",
      params: z.object({ id: z.uuid("is not a job's id") }),
      response: { 200: jobCosts, 401: problemSchema, 404: problemSchema },
    },
    handler: async (request) => {
      const { appId } = await services.authenticate(request);
      const { id } = request.params;
      const view = await viewJob(services.db, appId, id);
      if (!view) throw new ServiceError("not_found", `There is no job ${id} for this API key.`);
      const { runs, settlement } = view;
      const sum = (of: typeof runs) => of.reduce((total, run) => total + (run.costMicroUsd ?? 0), 0);
      const microUsd = sum(runs);
      const worth = worthOf(services, appId);
      return {
        credits: settlement && {
          charged: settlement.charged,
          kept: settlement.kept,
          refunded: settlement.refunded,
        },
        providerUsd: usd(microUsd),
        wastedUsd: usd(sum(runs.filter(({ status }) => status === "failed" || status === "canceled"))),
        marginUsd: worth === null || !settlement ? null : usd(settlement.kept * worth - microUsd),
        runs: runs.map((run) => ({
          id: run.id,
          provider: run.provider,
          model: run.model,
          status: run.status,
          seconds: run.seconds,
          costUsd: run.costMicroUsd === null ? null : usd(run.costMicroUsd),
          source: run.costSource,
        })),
      };
    },
  });
};

const usd = (microUsd: number) => Math.round(microUsd) / 1_000_000;

/** Of a credit, in millionths of a dollar; null when the app does not say. */
function worthOf(services: Pick<ApiServices, "apps">, appId: string): number | null {
  return appOf(services, appId).creditMicroUsd ?? null;
}

function toSpan(query: { readonly from?: string | undefined; readonly to?: string | undefined }) {
  const to = query.to ? new Date(query.to) : new Date(Date.now() + 1_000);
  const from = query.from ? new Date(query.from) : new Date(to.getTime() - 30 * DAY_MS);
  if (from < to && to.getTime() - from.getTime() <= MOST_DAYS * DAY_MS) return { from, to };
  const detail = `is to lie before to, by at most ${MOST_DAYS} days`;
  throw new ServiceError("invalid_input", `querystring field /from ${detail}`, {
    fields: [{ pointer: "/from", detail }],
  });
}

function groupOf(by: string): CostGroup {
  return COLUMNS.find((each) => each === by) ?? { metadata: by.slice("metadata.".length) };
}
