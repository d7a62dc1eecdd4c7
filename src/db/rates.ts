import { sql } from "drizzle-orm";
import type { RateCheck } from "../domain/request.ts";
import type { Db } from "./client.ts";

/** What is left of a limit. */
export interface RateLeft extends RateCheck {
  readonly left: number;
  /** Seconds until the running window ends, or, when nothing is left, until one more is allowed. */
  readonly resetSeconds: number;
}

interface Row {
  readonly subject: string;
  readonly action: string;
  readonly seconds: number;
  readonly count: number;
  readonly previous: number;
  /** Seconds since the start of the window of the row, by the database's clock. */
  readonly age: number;
  /** Seconds since the start of the window that runs. */
  readonly passed: number;
}

/** Counts nothing; the same arithmetic as take_rate in the database. In the order of `rates`. */
export async function ratesLeft(db: Db, appId: string, rates: readonly RateCheck[]): Promise<RateLeft[]> {
  if (rates.length === 0) return [];
  const { rows } = await db.execute<{ [Name in keyof Row]: Row[Name] }>(sql`
    select subject, action, seconds, count, previous,
      extract(epoch from now() - window_start)::float8 as age,
      (extract(epoch from now())::numeric % seconds)::float8 as passed
    from rate_limits where app_id = ${appId} and (subject, action) in (
      select x ->> 'subject', x ->> 'action' from jsonb_array_elements(${JSON.stringify(rates)}::jsonb) x)`);
  return rates.map((rate) => {
    const row = rows.find((each) => each.subject === rate.subject && each.action === rate.action);
    return { ...rate, ...leftOf(rate, row) };
  });
}

function leftOf({ max, seconds }: RateCheck, row: Row | undefined): Pick<RateLeft, "left" | "resetSeconds"> {
  if (!row || row.seconds !== seconds) return { left: max, resetSeconds: seconds };
  // Of this window, or of the one before; what is older no longer counts.
  const isCurrent = row.age < seconds;
  const count = isCurrent ? row.count : 0;
  const previous = isCurrent ? row.previous : row.age < 2 * seconds ? row.count : 0;
  const part = row.passed / seconds;
  const left = Math.max(0, Math.floor(max - count - previous * (1 - part)));
  if (left > 0) return { left, resetSeconds: Math.max(1, Math.ceil(seconds - row.passed)) };
  const freeAt = count + 1 <= max ? 1 - (max - 1 - count) / previous : 1 + Math.max(0, 1 - (max - 1) / count);
  return { left, resetSeconds: Math.max(1, Math.ceil((freeAt - part) * seconds)) };
}

/** Deletes up to `limit` rows that no longer count; returns how many. */
export async function deleteOldRates(db: Db, limit: number): Promise<number> {
  const { rows } = await db.execute<{ gone: string }>(sql`select cleanup_expired_rate_limits(${limit}::int) as gone`);
  return Number(rows[0]?.gone ?? 0);
}
