import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";

/** Switches that an operator turns without a deployment. */
export const SETTINGS = {
  app_enabled: "false: no job is accepted, 503 app_disabled. What was accepted goes on.",
} as const;
export type SettingName = keyof typeof SETTINGS;

/** Of all apps: an app is off when its own switch is, or this one. */
export const ALL_APPS = "*";

interface Setting {
  /** "*": all apps. */
  readonly appId: string;
  readonly name: string;
  readonly value: unknown;
  readonly updatedAt: Date;
}

/** Holds for the next statement that accepts jobs, on every instance. Repeating it changes nothing. */
export async function setSetting(db: Db, appId: string, name: SettingName, value: boolean): Promise<void> {
  await db.execute(sql`
    insert into app_settings (app_id, name, value) values (${appId}, ${name}, ${JSON.stringify(value)}::jsonb)
    on conflict (app_id, name) do update set value = excluded.value, updated_at = now()`);
}

export async function listSettings(db: Db): Promise<Setting[]> {
  const { rows } = await db.execute<{ app_id: string; name: string; value: unknown; updated_at: string }>(
    sql`select app_id, name, value, updated_at from app_settings order by app_id, name limit 1000`,
  );
  return rows.map((row) => ({
    appId: row.app_id,
    name: row.name,
    value: row.value,
    updatedAt: new Date(row.updated_at),
  }));
}
