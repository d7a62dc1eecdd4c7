import { getTableConfig, type PgTable } from "drizzle-orm/pg-core";
import postgres from "postgres";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connect, disconnect } from "../src/db/client.ts";
import { migrate, pendingMigrations } from "../src/db/migrate.ts";
import * as schema from "../src/db/schema.ts";
import { freshDatabase } from "./rig/database.ts";

let database: Awaited<ReturnType<typeof freshDatabase>>;
let sql: postgres.Sql;
beforeAll(async () => {
  database = await freshDatabase();
  sql = postgres(database.url, { max: 2, onnotice: () => {} });
});
afterAll(async () => {
  await sql?.end({ timeout: 5 });
  await database?.drop();
});

for (const table of Object.values(schema) as PgTable[]) {
  const { name, columns } = getTableConfig(table);
  test(`the table ${name} is what the migrations make it`, async () => {
    const rows = await sql`
      select column_name as name, data_type as type, is_nullable = 'NO' as filled
      from information_schema.columns where table_name = ${name} and table_schema = 'public'`;
    const real = Object.fromEntries(rows.map((row) => [row["name"], [row["type"], row["filled"]]]));
    const described = Object.fromEntries(
      columns.map((column) => [column.name, [typeOf(column.getSQLType()), column.notNull]]),
    );
    // A date is read as text; nothing computes with it in TypeScript.
    if (real["allowance_on"]) real["allowance_on"] = ["text", false];
    expect(described).toEqual(real);
  });
}

function typeOf(type: string): string {
  if (type.endsWith("[]")) return "ARRAY";
  return type === "timestamp with time zone" ? type : type.replace(/ generated.*/, "");
}

test("migrating again changes nothing, and two at once take turns", async () => {
  expect(await Promise.all([migrate(database.url), migrate(database.url)])).toEqual([[], []]);
  const db = connect(database.url, { max: 1, name: "test" });
  expect(await pendingMigrations(db)).toEqual([]);
  await sql`delete from schema_migrations where name like '0005%'`;
  expect(await pendingMigrations(db)).toEqual(["0005_credit_functions.sql"]);
  await disconnect(db);
});

test("a migration that must wait for a table lets the others go on meanwhile", async () => {
  const own = await freshDatabase();
  const other = postgres(own.url, { max: 2, onnotice: () => {} });
  await other`drop index jobs_ended`;
  await other`drop table audit_state`;
  await other`delete from schema_migrations where name like '0007%'`;
  const busy = await other.reserve();
  await busy`begin`;
  await busy`lock table jobs in row exclusive mode`;
  const migrating = migrate(own.url);
  // It waits for the table by now, and whoever comes after it waits for it: half a second, and not for the transaction.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const startedAt = performance.now();
  await other`update jobs set model = model`;
  expect(performance.now() - startedAt).toBeLessThan(2_000);
  await busy`commit`;
  busy.release();
  expect(await migrating).toEqual(["0007_audit.sql"]);
  await other.end({ timeout: 5 });
  await own.drop();
});

test("a migration that was changed after it ran is refused", async () => {
  await sql`update schema_migrations set sha256 = 'other' where name like '0001%'`;
  await expect(migrate(database.url)).rejects.toThrow(/0001_apps.sql was changed after it was applied/);
});
