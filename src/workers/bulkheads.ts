/**
 * How many submissions of this process may wait for one account at the same time: a provider that answers slowly takes
 * some of the slots, and leaves the others to the others.
 */
export interface Bulkheads {
  /** Null: there is no room. What is returned gives the place back; repeating it is harmless. */
  enter(account: string): (() => void) | null;
}

/** `room`: places for each account. */
export function makeBulkheads(room: number): Bulkheads {
  const taken = new Map<string, number>();
  return {
    enter(account) {
      const count = taken.get(account) ?? 0;
      if (count >= room) return null;
      taken.set(account, count + 1);
      let isIn = true;
      return () => {
        if (isIn) taken.set(account, (taken.get(account) ?? 1) - 1);
        isIn = false;
      };
    },
  };
}

/**
 * Half of all slots for one account, so that two that stand still together take no more than all. With a single account
 * there is nobody to keep slots for.
 */
export function roomOf(slots: number, accounts: number): number {
  return accounts === 1 ? Number.POSITIVE_INFINITY : Math.max(1, Math.ceil(slots / 2));
}
