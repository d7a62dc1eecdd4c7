/** The sandbox's own time, in milliseconds since 1970 with microseconds behind the point; never goes backwards. */
export interface Clock {
  now(): number;
  /** Moves time forward for everything that expires; what is already under way keeps its timers. */
  advance(ms: number): void;
}

export function makeClock(): Clock {
  let offsetMs = 0;
  let last = 0;
  return {
    now() {
      // A microsecond apart at least, so that "newest first" is also the order of created_at.
      const micros = Math.floor((performance.now() % 1) * 1000);
      last = Math.max(Date.now() + offsetMs + micros / 1000, Math.round(last * 1000 + 1) / 1000);
      return last;
    },
    advance(ms) {
      offsetMs += ms;
    },
  };
}

/** Replicate writes six digits behind the second for predictions and nine for trainings. */
export function timestamp(ms: number, digits: 6 | 9 = 6): string {
  const micros = Math.round((ms - Math.floor(ms)) * 1000) % 1000;
  const text = `${new Date(Math.floor(ms)).toISOString().slice(0, -1)}${String(micros).padStart(3, "0")}`;
  return digits === 9 ? `${text}${String((micros * 37) % 1000).padStart(3, "0")}Z` : `${text}Z`;
}
