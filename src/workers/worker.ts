import { setMaxListeners } from "node:events";
import type { KindName } from "../domain/kinds/kind.ts";
import type { Backend } from "../queue/backend.ts";
import { consume } from "../queue/queue.ts";
import { advance } from "./advance.ts";
import { audit } from "./audit.ts";
import { catalogue } from "./catalogue.ts";
import { chores } from "./chores.ts";
import { deliver } from "./deliver.ts";
import { keepLeases } from "./leases.ts";
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

export interface RunningWorker {
  /** Takes nothing new, finishes the steps under way (each bounded to seconds) and lets go. Repeating is harmless. */
  drain(): Promise<void>;
}

/** A worker: reads wakes, watches the runs that are out, and sweeps. Any number of them may run, on any hosts. */
export function startWorker(
  given: Omit<Services, "stop">,
  backend: Backend,
  { kinds, concurrency }: WorkerOptions,
): RunningWorker {
  const stop = new AbortController();
  // Every download listens to it.
  setMaxListeners(0, stop.signal);
  const services: Services = { ...given, stop: stop.signal };
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
