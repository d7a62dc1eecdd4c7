import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { apps } from "../apps/all.ts";
import { type Program, startApi, startWorkerProgram } from "./compose.ts";
import { readConfig } from "./config.ts";
import { connect, disconnect } from "./db/client.ts";
import { startEmbeddedPostgres } from "./db/embedded.ts";
import { createKey, findKeyOwner } from "./db/keys.ts";
import { migrate, saveApps } from "./db/migrate.ts";
import { migrateQueue } from "./queue/backend.ts";

const SANDBOX_START_MS = 30_000;

export interface Dev extends Program {
  readonly key: string;
  readonly adminPassword: string;
}

/** Brings a database up to date in every respect. Repeating is harmless. */
export async function prepareDatabase(databaseUrl: string, definitions = apps): Promise<string[]> {
  const ran = await migrate(databaseUrl);
  await saveApps(databaseUrl, definitions);
  await migrateQueue(databaseUrl);
  return ran;
}

/**
 * Everything in one process for a laptop: embedded Postgres and the sandbox unless the environment names others, the
 * API and a worker. What it makes is kept in `.darkroom/`, so that the next start finds jobs, credits and key again.
 */
export async function startDev(
  env: Readonly<Record<string, string | undefined>>,
  folder = resolve(".darkroom"),
): Promise<Dev> {
  await mkdir(folder, { recursive: true });
  const stops: (() => Promise<void>)[] = [];
  const stop = async () => {
    for (const each of stops.splice(0).reverse()) await each();
  };
  try {
    const secrets = await keepSecrets(join(folder, "secrets.json"));
    const added: Record<string, string> = {
      SIGNING_SECRET: secrets.signingSecret,
      ADMIN_PASSWORD: secrets.adminPassword,
      STORAGE_DIR: join(folder, "files"),
      PORT: "3000",
      HEALTH_PORT: "0",
      HOST: "127.0.0.1",
    };
    if (!env["DATABASE_URL"]) {
      const postgres = await startEmbeddedPostgres({ directory: join(folder, "postgres"), quiet: true });
      stops.push(() => postgres.stop());
      added["DATABASE_URL"] = postgres.url;
    }
    if (!env["AI_PROVIDER"] || (env["AI_PROVIDER"].startsWith("sandbox") && !env["SANDBOX_URL"])) {
      const sandbox = await startSandboxProcess();
      stops.push(sandbox.stop);
      Object.assign(added, { AI_PROVIDER: "sandbox", SANDBOX_URL: sandbox.url, LOST_AFTER_SECONDS: "5" });
    }
    const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
    const config = readConfig({ ...added, ...given });
    await prepareDatabase(config.DATABASE_URL);
    const key = await keepKey(config.DATABASE_URL, join(folder, "api-key"));
    const api = await startApi(config);
    stops.push(api.stop);
    const worker = await startWorkerProgram(config);
    stops.push(worker.stop);
    return { url: api.url, key, adminPassword: config.ADMIN_PASSWORD ?? secrets.adminPassword, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The sandbox is a program of its own: it is talked to over HTTP, like the real thing. */
async function startSandboxProcess(): Promise<{ url: string; stop(): Promise<void> }> {
  const main = fileURLToPath(new URL("../sandbox/main.ts", import.meta.url));
  const child = spawn(process.execPath, ["--import", "tsx", main, "--port", "0"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const url = await firstLine(child);
  return {
    url,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      const late = setTimeout(() => child.kill("SIGKILL"), 3_000);
      await ended;
      clearTimeout(late);
    },
  };
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (!child.stdout) throw new Error("the sandbox has no stdout");
  const late = setTimeout(() => child.kill("SIGKILL"), SANDBOX_START_MS);
  try {
    for await (const line of createInterface({ input: child.stdout })) return JSON.parse(line).listening;
    throw new Error(
      `the sandbox did not start within ${SANDBOX_START_MS} ms: run \`npx tsx sandbox/main.ts\` to see why`,
    );
  } finally {
    clearTimeout(late);
  }
}

async function keepSecrets(file: string): Promise<{ signingSecret: string; adminPassword: string }> {
  const kept = await readFile(file, "utf8").catch(() => null);
  if (kept) return JSON.parse(kept);
  const secrets = {
    signingSecret: randomBytes(32).toString("hex"),
    adminPassword: randomBytes(9).toString("base64url"),
  };
  await writeFile(file, JSON.stringify(secrets), { mode: 0o600 });
  return secrets;
}

async function keepKey(databaseUrl: string, file: string): Promise<string> {
  const db = connect(databaseUrl, { max: 1, name: "dev" });
  try {
    const kept = (await readFile(file, "utf8").catch(() => "")).trim();
    if (kept && (await findKeyOwner(db, kept))) return kept;
    const key = await createKey(db, "demo", "dev");
    await writeFile(file, key, { mode: 0o600 });
    return key;
  } finally {
    await disconnect(db);
  }
}
