import { learnSeconds } from "../db/catalogue-state.ts";
import { type Chore, claimChore, putOffChore } from "../db/chores.ts";
import { deleteOldNews } from "../db/looks.ts";
import { deleteOldCounts, trimLogs } from "../db/provider-logs.ts";
import { deleteOldQuotes } from "../db/quotes.ts";
import { deleteOldRates } from "../db/rates.ts";
import { concludeTrained } from "../db/trained-models.ts";
import { concludeBatches } from "./batches.ts";
import { sweepInline } from "./inline.ts";
import { type Loop, repeat } from "./loop.ts";
import type { Services } from "./services.ts";

const EVERY_MS = 60_000;
/** After a failure. */
const AGAIN_SECONDS = 300;
/** Rows that one statement deletes: others wait for its locks. */
const SLICE = 5_000;
/** Files removed in a row, each a call to the storage. */
const FILES = 100;
/** Statements for one table; what is left then is left to the next time. */
const MOST_STATEMENTS = 100;

type ChoreServices = Pick<Services, "db" | "logger" | "metrics" | "reach" | "storage">;

/** Each once in a while; what providers are asked for is asked by loops of its own. */
type Seldom = Exclude<Chore, "loads" | "balances">;

const CHORES: Readonly<Record<Seldom, { everySeconds: number; work(services: ChoreServices): Promise<object> }>> = {
  learn: { everySeconds: 3_600, work: async ({ db }) => ({ routes: await learnSeconds(db) }) },
  clean: {
    everySeconds: 86_400,
    work: async ({ db, storage }) => ({
      quotes: await inSlices((limit) => deleteOldQuotes(db, limit)),
      rates: await inSlices((limit) => deleteOldRates(db, limit)),
      news: await inSlices((limit) => deleteOldNews(db, limit)),
      inline: await inSlices((limit) => sweepInline({ db, storage }, limit), FILES),
    }),
  },
  // The last calls are the last thousand: a busy account has that many in a minute.
  logs: {
    everySeconds: 300,
    work: async ({ db }) => ({
      logs: await inSlices((limit) => trimLogs(db, limit)),
      counts: await inSlices((limit) => deleteOldCounts(db, limit)),
    }),
  },
  conclude: {
    everySeconds: 600,
    work: async (services) => ({
      models: await concludeTrained(services.db),
      batches: await concludeBatches(services),
    }),
  },
};

async function inSlices(remove: (limit: number) => Promise<number>, slice = SLICE): Promise<number> {
  let gone = 0;
  for (let statements = 0; statements < MOST_STATEMENTS; statements++) {
    const removed = await remove(slice);
    gone += removed;
    if (removed < slice) break;
  }
  return gone;
}

/** What one worker of the fleet does once in a while. Doing it twice does no harm. */
export function chores(services: ChoreServices, everyMs = EVERY_MS): Loop {
  const { db, logger } = services;
  // Workers that were started together do not come together for ever.
  const ownMs = everyMs * (0.9 + Math.random() * 0.2);
  return repeat("chores", logger, ownMs, async () => {
    for (const name of Object.keys(CHORES) as Seldom[]) {
      const { everySeconds, work } = CHORES[name];
      if (!(await claimChore(db, name, everySeconds))) continue;
      try {
        logger.info({ chore: name, ...(await work(services)) }, "chore done");
      } catch (error) {
        await putOffChore(db, name, AGAIN_SECONDS);
        throw error;
      }
    }
    return false;
  });
}
