import postgres from "postgres";
import { expect, test } from "vitest";
import { freshDatabase } from "./rig/database.ts";

test("databases made at once are strangers, have the migrations, and go when dropped", async () => {
  const databases = await Promise.all([freshDatabase(), freshDatabase(), freshDatabase()]);
  for (const { url, drop } of databases) {
    const sql = postgres(url, { max: 1, onnotice: () => {} });
    expect(await sql`select to_regclass('jobs') is not null as there`).toEqual([{ there: true }]);
    await sql`create table only_here (id int)`;
    await drop();
    await expect(sql`select 1`).rejects.toThrow();
    await sql.end({ timeout: 1 });
  }
});
