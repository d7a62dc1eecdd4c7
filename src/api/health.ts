import { z } from "zod";
import { KINDS } from "../domain/kinds/kind.ts";
import { checkReadiness } from "../health.ts";
import type { Routes } from "./app.ts";

const checkSchema = z.object({ name: z.string(), ok: z.boolean(), detail: z.string() });
const readiness = z.object({ status: z.enum(["ok", "unavailable", "draining"]), checks: z.array(checkSchema) });

/** /livez says that the process runs, /readyz that it can serve; /api/health says how the whole is. */
export const healthRoutes: Routes = (app, services) => {
  const { db, queues, metrics, version } = services;

  app.route({
    method: "GET",
    url: "/livez",
    schema: { tags: ["health"], summary: "The process runs", response: { 200: z.object({ status: z.literal("ok") }) } },
    handler: async () => ({ status: "ok" as const }),
  });

  app.route({
    method: "GET",
    url: "/readyz",
    schema: {
      tags: ["health"],
      summary: "It can serve: database, migrations, queue",
      response: { 200: readiness, 503: readiness },
    },
    handler: async (_request, reply) => {
      if (services.draining()) return reply.code(503).send({ status: "draining", checks: [] });
      const checks = await checkReadiness(db, queues);
      const ok = checks.every((each) => each.ok);
      return reply.code(ok ? 200 : 503).send({ status: ok ? "ok" : "unavailable", checks });
    },
  });

  app.route({
    method: "GET",
    url: "/api/health",
    schema: {
      tags: ["health"],
      summary: "How the service is",
      response: {
        200: z.object({
          status: z.enum(["ok", "degraded"]),
          version: z.string(),
          checks: z.array(checkSchema),
          queues: z.record(z.string(), z.object({ waiting: z.int(), active: z.int() })).nullable(),
          providers: z.array(z.object({ name: z.string(), api: z.string() })),
          storage: z.string(),
          kinds: z.array(z.enum(KINDS)),
        }),
      },
    },
    handler: async () => {
      const [checks, counts] = await Promise.all([checkReadiness(db, queues), queues.counts().catch(() => null)]);
      return {
        status: checks.every((each) => each.ok) ? ("ok" as const) : ("degraded" as const),
        version,
        checks,
        queues: counts,
        providers: services.providers.map(({ name, api }) => ({ name, api })),
        storage: services.storage.name,
        kinds: [...KINDS],
      };
    },
  });

  app.route({
    method: "GET",
    url: "/metrics",
    schema: { hide: true },
    handler: async (_request, reply) => reply.type(metrics.registry.contentType).send(await metrics.registry.metrics()),
  });
};
