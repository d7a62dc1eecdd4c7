import { setTimeout as sleep } from "node:timers/promises";
import pRetry from "p-retry";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../src/db/embedded.ts";

/** A start is given 20 s; what recovers from a crash on a machine that is busy with everything else may need longer. */
const RETRIES = 3;

/** A server whose directory and port outlive its crashes. */
export interface Postgres {
  /** Past every proxy. */
  readonly url: string;
  readonly port: number;
  /** Immediate stop: no checkpoint, every session torn. It starts again after so long; null when it is down already. */
  crash(downMs: number): number | null;
  /** How often it came back. */
  restarts(): number;
  /** Resolves when it is up; rejects when it did not come back. */
  up(): Promise<void>;
  stop(): Promise<void>;
}

export async function startPostgres(directory: string): Promise<Postgres> {
  let server: EmbeddedPostgres = await startEmbeddedPostgres({ directory, quiet: true });
  const { url, port } = server;
  let coming: Promise<void> | null = null;
  let failure: unknown = null;
  let restarts = 0;
  let stopped = false;

  async function restart(downMs: number): Promise<void> {
    process.kill(server.pid, "SIGQUIT");
    await server.stop();
    await sleep(downMs);
    if (stopped) return;
    server = await pRetry(() => startEmbeddedPostgres({ directory, port, quiet: true }), { retries: RETRIES });
    restarts++;
  }

  return {
    url,
    port,
    restarts: () => restarts,
    crash(downMs) {
      if (coming || failure) return null;
      const { pid } = server;
      coming = restart(downMs)
        .catch((error: unknown) => {
          failure = error;
        })
        .finally(() => {
          coming = null;
        });
      return pid;
    },
    async up() {
      await coming;
      if (failure) throw failure;
    },
    async stop() {
      stopped = true;
      await coming;
      await server.stop();
    },
  };
}
