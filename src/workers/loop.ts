import type { Logger } from "pino";

export interface Loop {
  /** Resolves when the round under way, if any, is over. */
  stop(): Promise<void>;
}

/**
 * Runs rounds one after the other, `everyMs` apart; at once again when a round says that there is more. A round that
 * throws is logged and the next one comes after a pause, so that a dead database is not hammered.
 */
export function repeat(name: string, logger: Logger, everyMs: number, round: () => Promise<boolean>): Loop {
  const stopped = new AbortController();
  const running = (async () => {
    while (!stopped.signal.aborted) {
      const more = await round().catch((error: unknown) => {
        logger.error({ err: error, loop: name }, `${name}: round failed`);
        return false;
      });
      if (!more) await pause(everyMs, stopped.signal);
    }
  })();
  return {
    async stop() {
      stopped.abort();
      await running;
    },
  };
}

/** Ends early, without an error, when the signal comes. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}
