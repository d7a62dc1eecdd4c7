import { drizzle, type PostgresJsDatabase } from "drizzle-orm/postgres-js";
import postgres from "postgres";

/** The database with typed queries; `$client` is the driver underneath, for SQL functions on the hot path. */
export type Db = PostgresJsDatabase & { readonly $client: postgres.Sql };
/** A database or an open transaction. */
export type Queryable = Pick<Db, "select" | "insert" | "update" | "execute">;

/**
 * A pool of at most `max` connections. 8 connections are the peak on two cores, more are slower (measured).
 * `statement_timeout` bounds every query: 10 s.
 */
export function connect(databaseUrl: string, options: { max?: number; name: string }): Db {
  const client = postgres(databaseUrl, {
    max: options.max ?? 6,
    connect_timeout: 10,
    idle_timeout: 60,
    max_lifetime: 30 * 60,
    onnotice: () => {},
    connection: {
      application_name: `darkroom ${options.name}`,
      statement_timeout: 10_000,
      idle_in_transaction_session_timeout: 15_000,
    },
  });
  return drizzle(client) as Db;
}

/** Waits for running queries, at most 5 s. */
export async function disconnect(db: Db): Promise<void> {
  await db.$client.end({ timeout: 5 });
}

/** Throws when the database does not answer within 2 s. */
export async function ping(db: Db): Promise<void> {
  await Promise.race([
    db.$client`select 1`,
    new Promise((_, reject) =>
      setTimeout(() => reject(new Error("the database did not answer within 2 s")), 2_000).unref(),
    ),
  ]);
}
