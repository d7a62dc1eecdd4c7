import { type FastifyInstance, fastify } from "fastify";
import type { Cloud } from "./cloud.ts";
import { ALL_FACES } from "./faces.ts";
import { errorPage, notFound, Problem } from "./problem.ts";
import { adminRoutes } from "./routes/admin.ts";
import { deliveryRoutes } from "./routes/delivery.ts";

const BODY_BYTES = 32 * 1024 * 1024; // bytes of a JSON body; pictures may come as data URIs

/** Each provider's contract under its own prefix, outputs under /delivery, the switches under /_sandbox. */
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

  const { tally } = cloud;
  app.addHook("onRequest", async ({ method, url }) => {
    const face = tally.doorOf(method, url);
    if (face !== null) tally.ask(face);
  });
  // Not called for what is cut off.
  app.addHook("onResponse", async ({ method, url }, { statusCode }) => {
    const face = tally.doorOf(method, url);
    if (face !== null) tally.answer(face, statusCode);
  });

  await app.register(adminRoutes(cloud), { prefix: "/_sandbox" });
  await app.register(deliveryRoutes(cloud));
  for (const { prefix, routes } of ALL_FACES) await app.register(routes(cloud), { prefix });
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
