import type { ZodTypeProvider } from "fastify-type-provider-zod";
import type { ApiApp, Routes } from "./app.ts";
import { creativeRoutes } from "./compat/creatives.ts";
import { headshotRoutes } from "./compat/headshots.ts";
import { photoShootRoutes } from "./compat/photo-shoots.ts";
import { stagingRoutes } from "./compat/staging.ts";
import { studioRoutes } from "./compat/studio.ts";

/**
 * The paths that the five products already call, with their own bodies and answers, over the same acceptance as
 * POST /api/jobs. Refusals are the same problem documents, with `error` beside `detail`: that is what those products show.
 */
export const compatRoutes: Routes = (app, services) => {
  app.register(async (instance) => {
    const scope = instance.withTypeProvider<ZodTypeProvider>() as unknown as ApiApp;
    scope.addHook("onSend", async (_request, reply, payload) => {
      const isProblem = String(reply.getHeader("content-type")).startsWith("application/problem+json");
      if (!isProblem || typeof payload !== "string") return payload;
      const problem = JSON.parse(payload);
      return JSON.stringify({ ...problem, success: false, error: problem.detail });
    });
    for (const routes of [photoShootRoutes, headshotRoutes, stagingRoutes, studioRoutes, creativeRoutes])
      routes(scope, services);
  });
};
