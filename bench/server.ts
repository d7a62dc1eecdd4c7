import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePort } from "../src/db/embedded.ts";
import type { Serving } from "./serve.ts";

const START_MS = 30_000;
const STOP_MS = 5_000;

export interface Server {
  readonly origin: string;
  readonly pid: number;
  stop(): Promise<void>;
}

/** The API exactly as it is deployed: its own process, its own environment, its log written and thrown away. */
export function startRealApi(env: Readonly<Record<string, string>>): Promise<Server> {
  return start(["src/main.ts", "api"], env);
}

export function startServing(what: Serving, env: Readonly<Record<string, string>>): Promise<Server> {
  return start(["bench/main.ts", "serve", what], env);
}

async function start([file = "", ...args]: string[], env: Readonly<Record<string, string>>): Promise<Server> {
  const port = await freePort();
  const path = fileURLToPath(new URL(`../${file}`, import.meta.url));
  const child = spawn(process.execPath, ["--import", "tsx", path, ...args], {
    env: { PATH: process.env["PATH"], ...env, HOST: "127.0.0.1", PORT: String(port) },
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  const stop = () => end(child);
  const origin = `http://127.0.0.1:${port}`;
  const deadline = Date.now() + START_MS;
  while (Date.now() < deadline && child.exitCode === null) {
    const answer = await fetch(`${origin}/readyz`).catch(() => null);
    await answer?.text();
    if (answer?.ok && child.pid !== undefined) return { origin, pid: child.pid, stop };
    await sleep(100);
  }
  await stop();
  throw new Error(`${file} ${args.join(" ")} did not become ready within ${START_MS} ms`);
}

/** What the API needs to know, as in production but for the provider, which nobody calls here. */
export function environment(databaseUrl: string, redisUrl?: string): Record<string, string> {
  return {
    DATABASE_URL: databaseUrl,
    SIGNING_SECRET: randomBytes(32).toString("hex"),
    AI_PROVIDER: "sandbox",
    SANDBOX_URL: "http://127.0.0.1:9",
    ...(redisUrl ? { REDIS_URL: redisUrl } : {}),
  };
}

/** A Redis that keeps nothing; null where none is installed. */
export async function startRedis(): Promise<{ url: string; pid: number; stop(): Promise<void> } | null> {
  const port = await freePort();
  const args = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  const child = spawn("redis-server", args, { stdio: "ignore" });
  const started = await once(child, "spawn").catch(() => null);
  if (!started || child.pid === undefined) return null;
  return { url: `redis://127.0.0.1:${port}`, pid: child.pid, stop: () => end(child) };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
  await ended;
  clearTimeout(late);
}
