import type { FastifyReply } from "fastify";
import type { Cloud } from "./cloud.ts";
import { makeRun, type Order } from "./order.ts";
import type { Run } from "./run.ts";
import { type Refusals, sendPage, standsBefore } from "./wire.ts";

/** Accepts an order and sets it going. Null: the connection is gone or answered, and nothing was accepted. */
export async function purchase(
  { faults, runs, clock, bill, course, options }: Cloud,
  order: Order,
  reply: FastifyReply,
  refusals: Refusals,
  id: string,
): Promise<Run | null> {
  if (!(await standsBefore(faults, order, reply, refusals))) return null;
  if (!runs.hasRoom()) {
    await sendPage(reply, 503);
    return null;
  }
  const run = makeRun(order, { clock, faults, speed: options.speed, number: runs.nextNumber(), id });
  runs.add(run);
  bill.accept(run);
  course.launch(run);
  return run;
}
