import { Socket } from "node:net";
import { sql } from "drizzle-orm";
import { drizzle, type NodePgDatabase } from "drizzle-orm/node-postgres";
import pg from "pg";

/**
 * The database with typed queries; `$client` is the pool underneath. The driver is `pg`: `postgres` 3.4.9 throws an
 * uncaught TypeError when a connection dies inside a transaction (its issues 1133, 1154, 1208), and a database that
 * restarts must not take the processes with it.
 */
export type Db = NodePgDatabase & { readonly $client: pg.Pool };
/** A database or an open transaction. */
export type Queryable = Pick<Db, "select" | "insert" | "update" | "execute">;

/** A statement is answered within its 10 s; a connection that is silent for longer has nobody at its other end. */
const SILENCE_MS = 13_000;

/**
 * A socket that a vanished server does not keep half-open: without this a query waits for TCP to give up, a quarter of
 * an hour, and the worker with it.
 */
function connection(): Socket {
  const socket = new Socket();
  socket.setTimeout(SILENCE_MS, () => socket.destroy(new Error(`Postgres was silent for ${SILENCE_MS / 1_000} s`)));
  return socket;
}

/**
 * A pool of at most `max` connections. 8 connections are the peak on two cores, more are slower (measured).
 * `statement_timeout` bounds every query: 10 s.
 */
export function connect(databaseUrl: string, options: { max?: number; name: string }): Db {
  const pool = new pg.Pool({
    connectionString: databaseUrl,
    max: options.max ?? 6,
    connectionTimeoutMillis: 10_000,
    // Closed before the silence would be taken for death.
    idleTimeoutMillis: 10_000,
    stream: connection,
    maxLifetimeSeconds: 30 * 60,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    statement_timeout: 10_000,
    // Every statement here has an index to go by. Plans live as long as the session, and one that was made when a table
    // was empty would go on scanning it: on a fresh database acceptance fell to a quarter within 14 s (measured).
    options: "-c enable_seqscan=off",
    // A frozen process must not keep the locks of its open transaction.
    idle_in_transaction_session_timeout: 5_000,
    application_name: `darkroom ${options.name}`,
  });
  pool.on("error", () => {}); // An idle connection was cut; the next query opens another.
  // A connection that dies in the middle of a transaction says so by its query, and once more as an event.
  pool.on("connect", (client) => client.on("error", () => {}));
  return drizzle({ client: pool });
}

/** Waits for running queries, at most 5 s. */
export async function disconnect(db: Db): Promise<void> {
  const late = new Promise<void>((resolve) => setTimeout(resolve, 5_000).unref());
  await Promise.race([db.$client.end(), late]);
}

/** Throws when the database does not answer within 2 s. */
export async function ping(db: Db): Promise<void> {
  await Promise.race([
    db.execute(sql`select 1`),
    new Promise((_, reject) =>
      setTimeout(() => reject(new Error("the database did not answer within 2 s")), 2_000).unref(),
    ),
  ]);
}
