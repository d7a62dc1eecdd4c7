import { setMaxListeners } from "node:events";
import type { KindName } from "../domain/kinds/kind.ts";
import type { Providers } from "../domain/routing.ts";
import type { Backend } from "../queue/backend.ts";
import { consume } from "../queue/queue.ts";
import { advance } from "./advance.ts";
import { audit } from "./audit.ts";
import { balances } from "./balances.ts";
import { makeBulkheads, roomOf } from "./bulkheads.ts";
import { catalogue } from "./catalogue.ts";
import { chores } from "./chores.ts";
import { readCircumstances } from "./circumstances.ts";
import { deliver } from "./deliver.ts";
import { keepLeases } from "./leases.ts";
import { loads } from "./loads.ts";
import { runPipelines } from "./pipelines.ts";
import type { Services } from "./services.ts";
import { lineUpSuspects } from "./suspects.ts";
import { sweep } from "./sweep.ts";
import { watch } from "./watch.ts";

export interface WorkerOptions {
  readonly kinds: readonly KindName[];
  /** Jobs of each kind acted on at the same time. */
  readonly concurrency: number;
}

/** A step is bounded to seconds; an order that is cut off is looked for in the provider's list. */
const DRAIN_MS = 9_000;
/** What only takes an order has answered by then. */
const ORDER_MS = 15_000;
/** To put away and to record what a call has made that was a whole run. */
const RECORD_MS = 10_000;

/**
 * How long a drain may take, in ms: a call that is a whole run is waited for, for no list will ever tell what became of
 * it. Whoever kills the process earlier loses what it made, and pays for it.
 */
export function drainMs(providers: Providers): number {
  const longest = Math.max(...providers.map(({ submitMs }) => submitMs));
  return longest > ORDER_MS ? longest + RECORD_MS : DRAIN_MS;
}

export interface RunningWorker {
  /** Takes nothing new, finishes the steps under way (see drainMs) and lets go. Repeating is harmless. */
  drain(): Promise<void>;
}

/** A worker: reads wakes, watches the runs that are out, and sweeps. Any number of them may run, on any hosts. */
export function startWorker(
  given: Omit<Services, "stop" | "circumstances" | "bulkheads">,
  backend: Backend,
  { kinds, concurrency }: WorkerOptions,
): RunningWorker {
  const stop = new AbortController();
  // Every download listens to it.
  setMaxListeners(0, stop.signal);
  const services: Services = {
    ...given,
    stop: stop.signal,
    circumstances: readCircumstances(given.db),
    bulkheads: makeBulkheads(roomOf(concurrency * kinds.length, given.providers.length)),
  };
  const leases = keepLeases(services.db, services.logger);
  const working = new Set<Promise<void>>();
  const onWake = (jobId: string): Promise<void> => {
    const work = advance(services, leases, jobId, { suspects: false })
      .then((came) => void (came === "suspect" && suspects.add(jobId)))
      .finally(() => {
        working.delete(work);
        services.metrics.leases.set(leases.size);
      });
    working.add(work);
    return work;
  };
  const suspects = lineUpSuspects(async (jobId) => void (await advance(services, leases, jobId, { suspects: true })));
  let troubles = 0;
  const consumer = consume(backend, kinds, concurrency, onWake, (error) => {
    // Each connection repeats it several times a second while the queue is away: every hundredth says enough.
    if (troubles++ % 100 === 0) services.logger.warn({ err: error, times: troubles }, "queue trouble");
  });
  const room = () => concurrency * kinds.length - working.size;
  const act = (jobId: string) => void onWake(jobId);
  const loops = [
    watch(services),
    sweep(services, { kinds, room, act }),
    audit(services),
    catalogue(services),
    chores(services),
    loads(services),
    balances(services),
  ];
  loops.push(runPipelines(services), deliver(services));
  let drained: Promise<void> | null = null;
  return {
    drain() {
      drained ??= (async () => {
        stop.abort();
        await Promise.all([consumer.close(), ...loops.map((loop) => loop.stop())]);
        await Promise.all([...working, suspects.stop()]);
        leases.stop();
      })();
      return drained;
    },
  };
}
