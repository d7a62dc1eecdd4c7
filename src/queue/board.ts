import { createBullBoard } from "@bull-board/api";
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { FastifyAdapter } from "@bull-board/fastify";
import type { Queue } from "bullmq";
import type { FastifyPluginCallback } from "fastify";
import type { Queues } from "./queue.ts";

/**
 * Bull Board over our queues, to look at only: its buttons would go past the lifecycle. Entries carry nothing but ids,
 * so that is all it can show. It has no login of its own: whoever mounts it puts one in front.
 */
export function makeBoard(queues: Queues, basePath: string): FastifyPluginCallback {
  const adapter = new FastifyAdapter();
  adapter.setBasePath(basePath);
  createBullBoard({
    // They are BullMQ's queues; the rest of the house sees less of them.
    queues: queues.queues.map(
      (queue) => new BullMQAdapter(queue as unknown as Queue, { readOnlyMode: true, allowRetries: false }),
    ),
    serverAdapter: adapter,
    options: { uiConfig: { boardTitle: "Darkroom queues", hideRedisDetails: true } },
  });
  return adapter.registerPlugin();
}
