import { z } from "zod";
import { type CostGroup, costsBy } from "../db/costs.ts";
import { ServiceError } from "../errors.ts";
import type { Routes } from "./app.ts";
import { problemSchema } from "./problem.ts";
import { isStorable } from "./submission.ts";

const MOST_ROWS = 1_000;
const MOST_DAYS = 92;
const DAY_MS = 86_400_000;
const COLUMNS = ["user", "kind", "model", "plan"] as const;

const time = z.iso.datetime({ offset: true });

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
        from: time.optional().describe("Jobs accepted from then on; by default 30 days before `to`."),
        to: time.optional().describe("Jobs accepted before then; by default now."),
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
              providerUsd: z.number().describe("Of all their runs so far, those that failed included."),
            }),
          ),
          more: z.boolean().describe("There are more values: ask for a shorter time."),
        }),
        401: problemSchema,
        422: problemSchema,
      },
    },
    handler: async (request) => {
      const { appId } = await services.authenticate(request);
      const { by } = request.query;
      const to = request.query.to ? new Date(request.query.to) : new Date(Date.now() + 1_000);
      const from = request.query.from ? new Date(request.query.from) : new Date(to.getTime() - 30 * DAY_MS);
      if (from >= to || to.getTime() - from.getTime() > MOST_DAYS * DAY_MS) {
        const detail = `is to lie before to, by at most ${MOST_DAYS} days`;
        throw new ServiceError("invalid_input", `querystring field /from ${detail}`, {
          fields: [{ pointer: "/from", detail }],
        });
      }
      const rows = await costsBy(services.db, appId, groupOf(by), { from, to, limit: MOST_ROWS + 1 });
      return {
        by,
        from: from.toISOString(),
        to: to.toISOString(),
        costs: rows.slice(0, MOST_ROWS).map(({ microUsd, ...row }) => ({ ...row, providerUsd: microUsd / 1_000_000 })),
        more: rows.length > MOST_ROWS,
      };
    },
  });
};

function groupOf(by: string): CostGroup {
  return COLUMNS.find((each) => each === by) ?? { metadata: by.slice("metadata.".length) };
}
