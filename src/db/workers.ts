import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";

/** A worker notes every 3 s that it lives; one that was not seen for so long is dead, or stands still. */
const SILENT = sql`interval '10 seconds'`;
const FORGOTTEN = sql`interval '1 day'`;

/** Notes that a worker lives. */
export async function notePresence(db: Db, worker: string): Promise<void> {
  await db.execute(sql`
    with forgotten as (delete from workers where seen_at < now() - ${FORGOTTEN})
    insert into workers (id) values (${worker})
    on conflict (id) do update set seen_at = now(),
      since = case when workers.seen_at < now() - ${SILENT} then now() else workers.since end`);
}

/**
 * How many of these workers are dead. Null when `asking` cannot tell: it has itself only just come, or come back, and
 * the others may not have had the time to say that they live.
 */
export async function countDead(db: Db, asking: string, workers: readonly string[]): Promise<number | null> {
  const { rows } = await db.execute<{ settled: boolean; dead: number }>(sql`
    select exists (select 1 from workers where id = ${asking} and since < now() - ${SILENT}) as settled,
      (select count(distinct gone)::int from jsonb_array_elements_text(${JSON.stringify(workers)}::text::jsonb) as gone
       where not exists (select 1 from workers where id = gone and seen_at > now() - ${SILENT})) as dead`);
  const [row] = rows;
  return row?.settled ? row.dead : null;
}
