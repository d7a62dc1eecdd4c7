import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";

/** Written before the file, so that no file is forgotten. Repeating is harmless. */
export async function noteInline(db: Db, runId: string, position: number): Promise<void> {
  await db.execute(sql`
    insert into inline_outputs (run_id, position) values (${runId}, ${position}) on conflict do nothing`);
}

/** To be called when the file is gone. */
export async function forgetInline(db: Db, runId: string, position: number): Promise<void> {
  await db.execute(sql`delete from inline_outputs where run_id = ${runId} and position = ${position}`);
}

export interface InlineFile {
  readonly runId: string;
  readonly position: number;
}

/** No file is written so long after its row. */
const LEFT_AFTER_SECONDS = 3_600;

/** Files of runs that have ended, which nobody removed. At most `limit`, the oldest first. */
export async function leftInline(db: Db, limit: number): Promise<InlineFile[]> {
  const { rows } = await db.execute<InlineFile & Record<string, unknown>>(sql`
    select i.run_id as "runId", i.position from inline_outputs i join runs on runs.id = i.run_id
    where i.created_at < now() - make_interval(secs => ${LEFT_AFTER_SECONDS})
      and runs.status in ('stored', 'failed', 'canceled')
    order by i.created_at limit ${limit}`);
  return rows;
}
