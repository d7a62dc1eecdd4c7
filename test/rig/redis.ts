import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis as Client } from "ioredis";
import { inject } from "vitest";
import { freePort, GUARDED } from "../../src/db/embedded.ts";
import type { Redis } from "./programs.ts";

const READY_MS = 10_000;
const STOP_MS = 5_000;

/** The Redis of this run, or null where the tests run without one. */
export function redisUrl(): string | null {
  return inject("redisUrl");
}

let prefix: string | undefined;

/** Begins every key of the calling test file, and of no other. Keys that begin so are removed after the run. */
export function redisPrefix(): string {
  prefix ??= `${inject("run")}_${randomBytes(4).toString("hex")}`;
  return prefix;
}

/** Takes the Redis that runs, or starts one that keeps nothing and forgets nothing before its end. */
export async function startRedis(redis: Redis): Promise<{ url: string; stop(): Promise<void> }> {
  if ("url" in redis) return { url: redis.url, stop: async () => {} };
  const folder = await mkdtemp(join(tmpdir(), "darkroom-redis-"));
  const port = await freePort();
  const keepNothing = ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--dir", folder];
  const args = ["--port", String(port), "--bind", "127.0.0.1", ...keepNothing];
  // Ended by the watcher when this process is gone; it removes the folder too.
  const server = spawn("/bin/sh", ["-c", GUARDED, folder, redis.program, ...args], {
    detached: true,
    stdio: ["ignore", "ignore", "inherit", "pipe"],
  });
  const exited = once(server, "exit");
  const url = `redis://127.0.0.1:${port}`;
  await answers(url);
  return {
    url,
    async stop() {
      server.kill("SIGTERM");
      await Promise.race([exited, sleep(STOP_MS, undefined, { ref: false })]);
      server.stdio[3]?.destroy();
    },
  };
}

/** Leaves a Redis that is not ours as it was found. */
export async function removeKeys(url: string, prefix: string): Promise<void> {
  await withClient(url, async (client) => {
    for await (const keys of client.scanStream({ match: `${prefix}*`, count: 1000 })) {
      if (keys.length > 0) await client.unlink(keys);
    }
  });
}

async function answers(url: string): Promise<void> {
  await withClient(url, async (client) => {
    const deadline = Date.now() + READY_MS;
    while (Date.now() < deadline) {
      const pong = await client.ping().catch(() => null);
      if (pong !== null) return;
      await sleep(50);
    }
    throw new Error(`Redis did not answer at ${url} within ${READY_MS} ms`);
  });
}

async function withClient(url: string, work: (client: Client) => Promise<void>): Promise<void> {
  const client = new Client(url, { maxRetriesPerRequest: 1, retryStrategy: () => 100 });
  client.on("error", () => {});
  try {
    await work(client);
  } finally {
    client.disconnect();
  }
}
