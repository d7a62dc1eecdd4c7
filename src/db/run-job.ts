import { and, eq, or, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { jobs, runs } from "./schema.ts";

/**
 * The job of this app that a run was bought for, by our own id of the run or by the provider's; null when there is none.
 * `providers`: the names of all that this deployment has.
 */
export async function jobOfRun(
  db: Db,
  appId: string,
  id: string,
  providers: readonly string[],
): Promise<string | null> {
  const byOurs = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id) ? [eq(runs.id, id)] : [];
  // With the provider's name, as the index has it.
  const byTheirs = providers.map((provider) => and(eq(runs.provider, provider), eq(runs.providerRunId, id)));
  const [row] = await db
    .select({ jobId: runs.jobId })
    .from(runs)
    .innerJoin(jobs, eq(jobs.id, runs.jobId))
    .where(and(eq(jobs.appId, appId), or(...byOurs, ...byTheirs, sql`false`)))
    .limit(1);
  return row?.jobId ?? null;
}
