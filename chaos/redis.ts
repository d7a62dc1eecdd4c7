import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis as Client } from "ioredis";
import { freePort, GUARDED } from "../src/db/embedded.ts";

const READY_MS = 10_000;
const STOP_MS = 5_000;

/** A Redis of our own: keeps nothing on disk, evicts nothing, and can be struck. */
export interface RedisServer {
  readonly port: number;
  /** Accepts connections and answers nothing, for so long; null when it is down or frozen already. */
  freeze(forMs: number): number | null;
  /** SIGKILL, and a new and empty one on the same port after so long. */
  kill(downMs: number): number | null;
  /** Lets it go on at once; resolves when it is up. */
  heal(): Promise<void>;
  stop(): Promise<void>;
}

export async function startRedis(program: string, folder: string): Promise<RedisServer> {
  await mkdir(folder, { recursive: true });
  const port = await freePort();
  const settings = ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--dir", folder];
  const args = [program, "--port", `${port}`, "--bind", "127.0.0.1", ...settings];
  let frozen: NodeJS.Timeout | null = null;
  let coming: Promise<void> | null = null;
  let hurry = new AbortController();
  let stopped = false;
  let server = await start(args, port, folder);

  function thaw(): void {
    if (frozen) clearTimeout(frozen);
    frozen = null;
    server.signal("SIGCONT");
  }

  async function restart(downMs: number): Promise<void> {
    server.signal("SIGKILL");
    await server.ended;
    await sleep(downMs, undefined, { signal: hurry.signal }).catch(() => {}); // Healed before its time.
    if (!stopped) server = await start(args, port, folder);
  }

  return {
    port,
    freeze(forMs) {
      if (coming || frozen) return null;
      frozen = setTimeout(thaw, forMs);
      return server.signal("SIGSTOP");
    },
    kill(downMs) {
      if (coming || frozen) return null;
      const { pid } = server;
      hurry = new AbortController();
      coming = restart(downMs).finally(() => {
        coming = null;
      });
      coming.catch(() => {}); // Told by heal.
      return pid;
    },
    async heal() {
      thaw();
      hurry.abort();
      await coming;
    },
    async stop() {
      stopped = true;
      hurry.abort();
      await coming?.catch(() => {});
      thaw();
      server.signal("SIGTERM");
      await Promise.race([server.ended, sleep(STOP_MS, undefined, { ref: false })]);
    },
  };
}

/** One life of it. It ends with this process, however that ends. */
async function start(args: readonly string[], port: number, folder: string) {
  const child = spawn("/bin/sh", ["-c", GUARDED, `${folder}/nothing`, ...args], {
    detached: true,
    stdio: ["ignore", "ignore", "ignore", "pipe"],
  });
  const lifeline = child.stdio[3];
  const { pid } = child;
  if (pid === undefined || !(lifeline instanceof Writable)) throw new Error("Redis could not be started");
  lifeline.on("error", () => {});
  const ended = once(child, "exit").then(() => void lifeline.end("ended\n"));
  const signal = (name: NodeJS.Signals) => (child.kill(name) ? pid : null);
  const client = new Client(port, "127.0.0.1", { maxRetriesPerRequest: 1, retryStrategy: () => 100 });
  client.on("error", () => {});
  try {
    const deadline = Date.now() + READY_MS;
    while ((await client.ping().catch(() => null)) === null) {
      if (Date.now() > deadline) throw new Error(`Redis did not answer within ${READY_MS / 1_000} s`);
      await sleep(50);
    }
    return { pid, ended, signal };
  } catch (error) {
    signal("SIGKILL");
    throw error;
  } finally {
    client.disconnect();
  }
}
