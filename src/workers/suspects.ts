/** More than this many are left to other workers, and to the sweep. */
const MOST_WAITING = 1_000;

/**
 * Jobs that are suspected of killing their workers, one at a time in each worker: one that is guilty takes no other
 * suspect with it. They wait here and not in a slot, so that nobody else waits for them, and are claimed only when it is
 * their turn: what waits is nobody's when this worker dies.
 */
export interface Suspects {
  add(jobId: string): void;
  /** Waits for the one at work; the others are taken up by somebody else. */
  stop(): Promise<void>;
}

export function lineUpSuspects(act: (jobId: string) => Promise<void>): Suspects {
  const waiting = new Set<string>();
  let working: Promise<void> | null = null;
  let stopped = false;
  const work = async () => {
    // Goes on with what is added meanwhile.
    for (const jobId of waiting) {
      if (stopped) return;
      await act(jobId);
      waiting.delete(jobId);
    }
    working = null;
  };
  return {
    add(jobId) {
      if (stopped || waiting.size >= MOST_WAITING) return;
      waiting.add(jobId);
      working ??= work();
    },
    async stop() {
      stopped = true;
      await working;
    },
  };
}
