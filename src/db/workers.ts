import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";

/** A worker notes every 3 s that it lives. One that was seen this lately does. */
const LIVES = sql`interval '6 seconds'`;
/** One that was not seen for so long is dead, or stands still. Between the two nobody can tell. */
const DEAD = sql`interval '20 seconds'`;
/** After such a gap the others may have had no chance to be seen either: the database was away. */
const GAP = sql`interval '10 seconds'`;
const FORGOTTEN = sql`interval '1 day'`;

/** Notes that a worker lives. */
export async function notePresence(db: Db, worker: string): Promise<void> {
  await db.execute(sql`
    with forgotten as (delete from workers where seen_at < now() - ${FORGOTTEN})
    insert into workers (id) values (${worker})
    on conflict (id) do update set seen_at = now(),
      since = case when workers.seen_at < now() - ${GAP} then now() else workers.since end`);
}

/**
 * How many of these workers are dead. Null when that cannot be told yet: one of them was seen a moment ago, or `asking`
 * has itself only just come, or come back.
 */
export async function countDead(db: Db, asking: string, workers: readonly string[]): Promise<number | null> {
  const { rows } = await db.execute<{ settled: boolean; unsure: number; dead: number }>(sql`
    with gone as (select distinct id from jsonb_array_elements_text(${JSON.stringify(workers)}::text::jsonb) as id),
    seen as (select gone.id, workers.seen_at from gone left join workers using (id))
    select exists (select 1 from workers
        where id = ${asking} and since < now() - ${GAP} and seen_at > now() - ${LIVES}) as settled,
      (count(*) filter (where seen_at between now() - ${DEAD} and now() - ${LIVES}))::int as unsure,
      (count(*) filter (where seen_at is null or seen_at < now() - ${DEAD}))::int as dead
    from seen`);
  const [row] = rows;
  return row?.settled && row.unsure === 0 ? row.dead : null;
}
