import { z } from "zod";
import { readLogs } from "../db/provider-logs.ts";
import { askForAdmin } from "./admin.ts";
import type { ApiApp, Routes } from "./app.ts";

const MOST_LINES = 1_000;

const line = z.object({
  at: z.iso.datetime(),
  verb: z.string(),
  method: z.string(),
  path: z.string(),
  status: z.int().nullable(),
  ms: z.int(),
  error: z.string().nullable(),
  detail: z.string().nullable(),
  jobId: z.uuid().nullable(),
  runId: z.uuid().nullable(),
  request: z.string().nullable(),
  response: z.string().nullable(),
});

/** The last calls to a provider, for the operator alone: they hold what users wrote. Not there without ADMIN_PASSWORD. */
export const providerLogRoutes: Routes = (app, { db, adminPassword }) => {
  if (!adminPassword) return;
  app.register(async (instance) => {
    const scope = instance as unknown as ApiApp;
    await askForAdmin(instance, adminPassword);
    scope.route({
      method: "GET",
      url: "/api/providers/:name/logs",
      schema: {
        hide: true,
        params: z.object({ name: z.string().max(60) }),
        querystring: z.object({ limit: z.coerce.number().int().min(1).max(MOST_LINES).default(50) }),
        response: { 200: z.object({ logs: z.array(line) }) },
      },
      handler: async (request) => ({ logs: await readLogs(db, request.params.name, request.query.limit) }),
    });
  });
};
