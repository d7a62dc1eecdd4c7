import type { FastifyRequest } from "fastify";
import { z } from "zod";
import { KINDS } from "../domain/kinds/kind.ts";
import { ServiceError } from "../errors.ts";
import { checkReadiness } from "../health.ts";
import { isAdminHeader } from "./admin.ts";
import type { Routes } from "./app.ts";
import { problemSchema } from "./problem.ts";
import { isTroubled, providerHealth, type Reader, readProviderHealth } from "./provider-health.ts";

const checkSchema = z.object({ name: z.string(), ok: z.boolean(), detail: z.string() });
const readiness = z.object({ status: z.enum(["ok", "unavailable", "draining"]), checks: z.array(checkSchema) });

/** /livez says that the process runs, /readyz that it can serve; /api/health says how the whole is. */
export const healthRoutes: Routes = (app, services) => {
  const { db, queues, metrics, version } = services;
  const providers = readProviderHealth(services);

  /** Nobody must prove who he is; whoever tries and fails is told. */
  const readerOf = async (request: FastifyRequest): Promise<Reader> => {
    const { authorization } = request.headers;
    if (!authorization) return "anybody";
    if (!/^basic\s/i.test(authorization)) {
      await services.authenticate(request);
      return "app";
    }
    if (services.adminPassword && isAdminHeader(authorization, services.adminPassword)) return "admin";
    throw new ServiceError("unauthenticated", "This login is wrong: it is admin with ADMIN_PASSWORD.");
  };

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
      description:
        "Of each account at a provider, too, as the whole fleet has seen it, at most ten seconds old. `degraded`: a check fails, or an account does not answer or takes nothing from us.",
      response: {
        401: problemSchema,
        200: z.object({
          status: z.enum(["ok", "degraded"]),
          version: z.string(),
          checks: z.array(checkSchema),
          queues: z.record(z.string(), z.object({ waiting: z.int(), active: z.int() })).nullable(),
          providers: z.array(providerHealth),
          storage: z.string(),
          kinds: z.array(z.enum(KINDS)),
        }),
      },
    },
    handler: async (request) => {
      const reader = await readerOf(request);
      const [checks, counts, accounts] = await Promise.all([
        checkReadiness(db, queues),
        queues.counts().catch(() => null),
        providers(reader),
      ]);
      const isWell = checks.every((each) => each.ok) && !accounts.some(isTroubled);
      return {
        status: isWell ? ("ok" as const) : ("degraded" as const),
        version,
        checks,
        queues: counts,
        providers: accounts,
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
