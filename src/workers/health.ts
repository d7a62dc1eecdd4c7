import fastify from "fastify";
import type { Db } from "../db/client.ts";
import { checkReadiness } from "../health.ts";
import type { Metrics } from "../metrics.ts";
import type { Queues } from "../queue/queue.ts";

export interface HealthPort {
  readonly url: string;
  close(): Promise<void>;
}

/** A worker's own small port, so that a host can probe it and Prometheus can read it. */
export async function openHealthPort(
  { db, queues, metrics }: { db: Db; queues: Queues; metrics: Metrics },
  { host, port, draining }: { host: string; port: number; draining: () => boolean },
): Promise<HealthPort> {
  const app = fastify({ logger: false, requestTimeout: 10_000, connectionTimeout: 15_000 });
  app.get("/livez", async () => ({ status: "ok" }));
  app.get("/readyz", async (_request, reply) => {
    const checks = draining() ? [] : await checkReadiness(db, queues);
    const ok = !draining() && checks.every((each) => each.ok);
    return reply.code(ok ? 200 : 503).send({ status: draining() ? "draining" : ok ? "ok" : "unavailable", checks });
  });
  app.get("/metrics", async (_request, reply) =>
    reply.type(metrics.registry.contentType).send(await metrics.registry.metrics()),
  );
  const url = await app.listen({ host, port });
  return { url, close: () => app.close() };
}
