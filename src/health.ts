import { type Db, ping } from "./db/client.ts";
import { pendingMigrations } from "./db/migrate.ts";
import type { Queues } from "./queue/queue.ts";

export interface Check {
  readonly name: string;
  readonly ok: boolean;
  /** What is wrong and what to do; "ok" otherwise. */
  readonly detail: string;
}

/** Is this process able to work: database, its migrations, queue. Each check ends within a few seconds. */
export async function checkReadiness(db: Db, queues: Queues): Promise<Check[]> {
  return Promise.all([
    check("database", () => ping(db)),
    check("migrations", async () => {
      const pending = await pendingMigrations(db);
      if (pending.length > 0) throw new Error(`${pending.length} migrations are missing: run \`npm run migrate\``);
    }),
    check("queue", () => queues.check()),
  ]);
}

export async function check(name: string, probe: () => Promise<unknown>): Promise<Check> {
  try {
    await probe();
    return { name, ok: true, detail: "ok" };
  } catch (error) {
    return { name, ok: false, detail: reasonOf(error) };
  }
}

/** Of a failed query not the query, but why; of several addresses that were tried, what each said. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof AggregateError) return error.errors.map(reasonOf).join("; ");
  if (error.message.startsWith("Failed query") && error.cause) return reasonOf(error.cause);
  return error.message || error.name;
}
