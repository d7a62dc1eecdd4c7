import { type FastifyInstance, type FastifyRequest, fastify } from "fastify";
import type { Cloud } from "./cloud.ts";
import { errorPage, notFound, Problem, unauthenticated } from "./problem.ts";
import { tokenOf } from "./request.ts";
import { accountRoutes } from "./routes/account.ts";
import { adminRoutes } from "./routes/admin.ts";
import { deliveryRoutes } from "./routes/delivery.ts";
import { fileRoutes } from "./routes/files.ts";
import { modelRoutes } from "./routes/models.ts";
import { runRoutes } from "./routes/runs.ts";

const BODY_BYTES = 32 * 1024 * 1024; // bytes of a JSON body; pictures may come as data URIs

/** The HTTP face: Replicate's contract under /v1, outputs under /delivery, the switches under /_sandbox. */
export async function makeApp(cloud: Cloud): Promise<FastifyInstance> {
  const app = fastify({ logger: false, bodyLimit: BODY_BYTES, forceCloseConnections: true, keepAliveTimeout: 30_000 });

  // Clients send "content-type: application/json" on requests without a body, also on POST …/cancel.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "string" }, (_request, text, done) => {
    try {
      done(null, text === "" ? undefined : JSON.parse(String(text)));
    } catch {
      done(new Problem(400, { detail: "The request body is not valid JSON.", status: 400 }));
    }
  });

  app.setNotFoundHandler((_request, reply) => answer(reply, notFound()));
  app.setErrorHandler((error, request, reply) => {
    if (error instanceof Problem) return answer(reply, error);
    const status = error instanceof Error && "statusCode" in error ? Number(error.statusCode) : 500;
    if (status >= 400 && status < 500) return answer(reply, new Problem(status, { detail: String(error), status }));
    cloud.log.error({ error, url: request.url }, "a route failed");
    return reply.code(500).type("text/html").send(errorPage(500));
  });

  await app.register(adminRoutes(cloud), { prefix: "/_sandbox" });
  await app.register(deliveryRoutes(cloud));
  await app.register(
    async (api) => {
      api.addHook("onRequest", async (request, reply) => {
        if (cloud.faults.strike("down", { model: "", text: "", own: [] })) {
          return reply.code(503).type("text/html").send(errorPage(503));
        }
        const token = admit(cloud, request);
        const creates = request.method === "POST" && /\/(predictions|trainings)$/.test(request.url.split("?")[0] ?? "");
        const { remaining, resetSeconds, refusal } = cloud.limits.take(token, creates ? "creates" : "others");
        reply.header("ratelimit-remaining", remaining).header("ratelimit-reset", resetSeconds);
        if (refusal) throw refusal;
      });
      await api.register(accountRoutes(cloud));
      await api.register(runRoutes(cloud));
      await api.register(modelRoutes(cloud));
      await api.register(fileRoutes(cloud));
    },
    { prefix: "/v1" },
  );
  return app;
}

interface Answering {
  code(status: number): Answering;
  headers(values: Record<string, string>): Answering;
  send(body: Buffer): unknown;
}

/** Error bodies end with a newline, and most are plain application/json: bytes, or Fastify would add a charset. */
function answer(reply: Answering, problem: Problem) {
  const headers = { "content-type": "application/json", ...problem.headers };
  return reply
    .code(problem.status)
    .headers(headers)
    .send(Buffer.from(`${JSON.stringify(problem.body)}\n`));
}

function admit(cloud: Cloud, request: FastifyRequest): string {
  // Download links carry their own signature.
  if (/^\/v1\/files\/[^/]+\/download/.test(request.url)) return "";
  const token = tokenOf(request);
  if (token === null) throw unauthenticated(false);
  const { tokens } = cloud.options;
  const known = tokens === null ? /^r8_./.test(token) : tokens.includes(token);
  if (!known) throw unauthenticated(true);
  return token;
}
