import type { Clock } from "./clock.ts";
import type { FaceName } from "./face.ts";
import { isOver, isRemoved, type Run } from "./run.ts";

export const MAX_RUNS = 50_000;
const MAX_INPUT_BYTES = 256 * 1024 * 1024; // bytes of all inputs kept
const PAGE = 100; // runs a page

export interface Page {
  readonly runs: readonly Run[];
  readonly newer: number | null;
  readonly older: number | null;
}

export interface PageQuery {
  readonly face: FaceName;
  /** Run numbers, exclusive: only runs older than one, or newer than one. */
  readonly before?: number | undefined;
  readonly after?: number | undefined;
  readonly createdAfter?: number | undefined;
  readonly createdBefore?: number | undefined;
}

/** All runs that are remembered: at most 50,000, the oldest ended ones forgotten first. */
export function makeRuns(clock: Clock, keptMs: number) {
  const byId = new Map<string, Run>(); // in order of creation
  const byFolder = new Map<string, Run>();
  let inputBytes = 0;
  let lastNumber = 0;
  /** Creation order, for paging; forgotten runs leave it when they are half of it. */
  let order: Run[] = [];

  function forget(run: Run): void {
    byId.delete(run.id);
    byFolder.delete(run.folder);
    inputBytes -= run.input === EMPTY ? 0 : run.inputBytes;
    if (order.length > 1_000 && order.length > byId.size * 2) order = [...byId.values()];
  }

  function makeRoom(): void {
    if (byId.size < MAX_RUNS && inputBytes < MAX_INPUT_BYTES) return;
    // Enough room for a while, so that the walk over runs that are still out is paid once in a hundred creates.
    let wanted = 100;
    for (const run of byId.values()) {
      if (!isOver(run)) continue;
      forget(run);
      wanted -= 1;
      if (wanted <= 0 && inputBytes < MAX_INPUT_BYTES) return;
    }
  }

  return {
    nextNumber(): number {
      lastNumber += 1;
      return lastNumber;
    },

    /** False when everything that is remembered is still running. */
    hasRoom(): boolean {
      makeRoom();
      return byId.size < MAX_RUNS;
    },

    add(run: Run): void {
      byId.set(run.id, run);
      byFolder.set(run.folder, run);
      order.push(run);
      inputBytes += run.inputBytes;
    },

    get(id: string): Run | undefined {
      return byId.get(id);
    },

    inFolder(folder: string): Run | undefined {
      return byFolder.get(folder);
    },

    count(): { kept: number; out: number } {
      let out = 0;
      for (const run of byId.values()) if (!isOver(run)) out += 1;
      return { kept: byId.size, out };
    },

    out(): Run[] {
      return [...byId.values()].filter((run) => !isOver(run));
    },

    /** Gives back the memory of inputs whose time is over. Called now and then; what is shown does not depend on it. */
    removeData(): void {
      const now = clock.now();
      for (const run of byId.values()) {
        if (run.input === EMPTY || !isRemoved(run, now, keptMs)) continue;
        inputBytes -= run.inputBytes;
        run.input = EMPTY;
        run.values = {};
        run.output = null;
      }
    },

    /** One page, newest first. */
    page(kind: Run["kind"] | "none", query: PageQuery): Page {
      const now = clock.now();
      const shown = (run: Run) =>
        run.face === query.face &&
        run.kind === kind &&
        byId.has(run.id) &&
        run.listedAt <= now &&
        (query.createdAfter === undefined || run.createdAt >= query.createdAfter) &&
        (query.createdBefore === undefined || run.createdAt < query.createdBefore);

      const runs: Run[] = [];
      let more = false;
      if (query.after !== undefined) {
        for (let at = firstAfter(order, query.after); at < order.length && !more; at += 1) {
          const run = order[at];
          if (!run || !shown(run)) continue;
          if (runs.length < PAGE) runs.push(run);
          else more = true;
        }
        runs.reverse();
        return { runs, newer: more ? (runs[0]?.number ?? null) : null, older: runs.at(-1)?.number ?? null };
      }
      const from = query.before === undefined ? order.length : firstAfter(order, query.before - 1);
      for (let at = from - 1; at >= 0 && !more; at -= 1) {
        const run = order[at];
        if (!run) continue;
        if (query.createdAfter !== undefined && run.createdAt < query.createdAfter) break;
        if (!shown(run)) continue;
        if (runs.length < PAGE) runs.push(run);
        else more = true;
      }
      return {
        runs,
        newer: query.before === undefined ? null : (runs[0]?.number ?? null),
        older: more ? (runs.at(-1)?.number ?? null) : null,
      };
    },
  };
}

const EMPTY: Readonly<Record<string, never>> = Object.freeze({});

/** The index of the first run whose number is greater; runs are in order of their numbers. */
function firstAfter(order: readonly Run[], number: number): number {
  let low = 0;
  let high = order.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((order[middle]?.number ?? Number.POSITIVE_INFINITY) <= number) low = middle + 1;
    else high = middle;
  }
  return low;
}
