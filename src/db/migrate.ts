import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sql } from "drizzle-orm";
import pg from "pg";
import { type App, planOf } from "../domain/app.ts";
import type { Db } from "./client.ts";

/** Any number: the same for every process that migrates this database, so that they take turns. */
const LOCK = 7_014_021;

/**
 * Brings the database up to date: runs the files of `migrations/` that it has not seen, each in a transaction of its
 * own, in the order of their names. Returns the names of those that ran. Repeating is harmless; two at once take turns.
 * A file that was changed after it ran is refused: migrations are only ever added to.
 */
export async function migrate(databaseUrl: string): Promise<string[]> {
  return withClient(databaseUrl, async (client) => {
    await client.query("select pg_advisory_lock($1)", [LOCK]);
    await client.query(`create table if not exists schema_migrations (
      name text primary key, sha256 text not null, applied_at timestamptz not null default now())`);
    const { rows } = await client.query<{ name: string; sha256: string }>("select name, sha256 from schema_migrations");
    const applied = new Map(rows.map((row) => [row.name, row.sha256]));
    const ran: string[] = [];
    for (const { name, text, sha256 } of await migrations()) {
      const known = applied.get(name);
      if (known === sha256) continue;
      if (known)
        throw new Error(`migrations/${name} was changed after it was applied. Restore it and add a new file instead.`);
      await apply(client, { name, text, sha256 });
      ran.push(name);
    }
    return ran;
  });
}

/** Whoever waits for the lock of a table holds up everybody behind him: so no longer than this at a time, */
const LOCK_TIMEOUT_MS = 500;
/** and with pauses in which the others go on, for five minutes. */
const LOCK_TRIES = 200;
const LOCK_PAUSE_MS = 1_000;

async function apply(client: pg.Client, { name, text, sha256 }: Migration): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await client.query(`begin; set local lock_timeout = ${LOCK_TIMEOUT_MS}`);
      await client.query(text);
      await client.query("insert into schema_migrations (name, sha256) values ($1, $2)", [name, sha256]);
      await client.query("commit");
      return;
    } catch (error) {
      await client.query("rollback");
      if (!(error instanceof pg.DatabaseError && error.code === LOCK_NOT_AVAILABLE)) throw error;
      if (tries === LOCK_TRIES)
        throw new Error(
          `migrations/${name} waited five minutes for a lock: something reads or writes without end (a backup, an audit). Run it again when that is over.`,
          { cause: error },
        );
      await new Promise((resolve) => setTimeout(resolve, LOCK_PAUSE_MS));
    }
  }
}

const LOCK_NOT_AVAILABLE = "55P03";

/** Which files of `migrations/` the database has not seen yet; empty when it is up to date. */
export async function pendingMigrations(db: Pick<Db, "execute">): Promise<string[]> {
  const found = await db.execute(sql`select 1 where to_regclass('schema_migrations') is not null`);
  const applied = found.rowCount ? await db.execute<{ name: string }>(sql`select name from schema_migrations`) : null;
  const names = new Set(applied?.rows.map((row) => row.name));
  return (await migrations()).map((each) => each.name).filter((name) => !names.has(name));
}

/** Writes what the database needs of the apps' definitions. An app that is no longer defined keeps its row: it has money. */
export async function saveApps(databaseUrl: string, apps: readonly App[]): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    for (const app of apps) {
      const allowance = planOf(app, null).plan.dailyAllowance;
      await client.query(
        `insert into apps (id, name, signup_grant, daily_allowance, default_plan) values ($1, $2, $3, $4, $5)
         on conflict (id) do update set name = excluded.name, signup_grant = excluded.signup_grant,
           daily_allowance = excluded.daily_allowance, default_plan = excluded.default_plan, updated_at = now()`,
        [app.id, app.name, app.signupGrant, allowance, app.defaultPlan],
      );
      // Who is on a plan that is no longer defined has the default's.
      await client.query("delete from plans where app_id = $1 and name <> all($2)", [app.id, Object.keys(app.plans)]);
      for (const [name, plan] of Object.entries(app.plans))
        await client.query(
          `insert into plans (app_id, name, daily_allowance) values ($1, $2, $3)
           on conflict (app_id, name) do update set daily_allowance = excluded.daily_allowance`,
          [app.id, name, plan.dailyAllowance],
        );
    }
  });
}

/** A connection of its own, closed whatever happens: an open transaction is rolled back and locks are released. */
async function withClient<T>(databaseUrl: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 10_000 });
  client.on("error", () => {}); // Said by the query that fails.
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

interface Migration {
  readonly name: string;
  readonly text: string;
  readonly sha256: string;
}

async function migrations(): Promise<Migration[]> {
  const folder = await migrationsFolder();
  const names = (await readdir(folder)).filter((name) => /^\d{4}_[a-z0-9_]+\.sql$/.test(name)).sort();
  if (names.length === 0) throw new Error(`no migrations in ${folder}`);
  return Promise.all(
    names.map(async (name) => {
      const text = await readFile(join(folder, name), "utf8");
      return { name, text, sha256: createHash("sha256").update(text).digest("hex") };
    }),
  );
}

/** Beside `src/` when run from source, one level further up when built into `dist/`. */
async function migrationsFolder(): Promise<string> {
  for (const candidate of ["../../migrations", "../../../migrations"]) {
    const folder = fileURLToPath(new URL(candidate, import.meta.url));
    if ((await readdir(folder).catch(() => [])).length > 0) return folder;
  }
  throw new Error("the folder migrations/ is missing beside src/ or dist/");
}
