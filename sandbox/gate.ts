export type Gate = <Result>(work: () => Promise<Result>) => Promise<Result>;

/** Lets so many through at once; the others wait in their order. */
export function makeGate(places: number): Gate {
  const waiting: (() => void)[] = [];
  let free = places;

  return async (work) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      // A place is handed over, not given back, so that nobody who comes now takes it.
      if (next) next();
      else free += 1;
    }
  };
}
