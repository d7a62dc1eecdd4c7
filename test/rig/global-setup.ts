import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { startEmbeddedPostgres } from "../../src/db/embedded.ts";
import { migrate } from "../../src/db/migrate.ts";
import { createDatabase, dropDatabases } from "./database.ts";
import { findChromium, findRedis } from "./programs.ts";
import { removeKeys, startRedis } from "./redis.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** Begins the name of every database and key of this run. */
    readonly run: string;
    readonly databaseUrl: string;
    /** Why the migrations failed, or empty: it concerns the tests that ask for a database, and no others. */
    readonly migrationProblem: string;
    readonly redisUrl: string | null;
    /** Empty; for the programs, compiled once. */
    readonly buildFolder: string;
  }
}

/** One Postgres and one Redis for the whole run; what was started here is stopped here. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const projects = project.vitest.projects.map((each) => each.name);
  if (projects.includes("redis") && findRedis() === null)
    missing("Redis", "the tests of the project redis", "`apt-get install redis-server` or REDIS_URL=redis://…");
  if (projects.includes("browser") && findChromium() === null)
    missing("Chromium", "the tests of the project browser", "`apt-get install chromium` or CHROMIUM_PATH=…");

  const run = `darkroom_test_${randomBytes(4).toString("hex")}`;
  const given = process.env["TEST_DATABASE_URL"];
  const embedded = given ? null : await startEmbeddedPostgres({ quiet: true });
  const databaseUrl = given ?? embedded?.url ?? "";
  const found = projects.includes("redis") ? findRedis() : null;
  const redis = found === null ? null : await startRedis(found);

  const template = await createDatabase(databaseUrl, `${run}_template`);
  const migrationProblem = await migrate(template).then(() => "", String);
  project.provide("run", run);
  project.provide("databaseUrl", databaseUrl);
  project.provide("migrationProblem", migrationProblem);
  project.provide("redisUrl", redis?.url ?? null);
  const buildFolder = await mkdtemp(join(tmpdir(), "darkroom-build-"));
  project.provide("buildFolder", buildFolder);

  return async () => {
    if (redis !== null) await removeKeys(redis.url, run);
    await redis?.stop();
    await rm(buildFolder, { recursive: true, force: true });
    await dropDatabases(databaseUrl, run);
    await embedded?.stop();
  };
}

function missing(what: string, skipped: string, remedy: string): void {
  if (process.env["CI"] === "true") throw new Error(`${what} is missing, and CI skips nothing. Install it: ${remedy}`);
  process.stderr.write(`\n!!! No ${what}: SKIPPING ${skipped}. To have them: ${remedy}\n\n`);
}
