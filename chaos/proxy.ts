import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../src/db/embedded.ts";

const HOST = "127.0.0.1";
const LISTEN_AGAIN_MS = 50;

/** A line between two programs that can be broken in the ways in which networks break. */
export interface TcpProxy {
  readonly port: number;
  /** RST to both ends of every connection; returns how many there were. */
  cut(): number;
  /** Cuts, and refuses new ones for so long. */
  refuse(forMs: number): number;
  /** Half-open for so long: connections stay, new ones are accepted, and nothing arrives any more. Then all are RST. */
  freeze(forMs: number): number;
  /** Every piece is late by so much, for so long. */
  delay(byMs: number, forMs: number): number;
  /** Ends whatever is broken. */
  heal(): void;
  close(): void;
}

interface Pair {
  readonly client: Socket;
  server: Socket | null;
  /** What comes in is thrown away. */
  frozen: boolean;
}

/** Passes on to the first of the ports that accepts, beginning with another one each time, as a load balancer does. */
export async function startProxy(targets: readonly number[]): Promise<TcpProxy> {
  const pairs = new Set<Pair>();
  const timers = new Map<"refuse" | "freeze" | "delay", NodeJS.Timeout>();
  let turn = 0;
  let delayMs = 0;
  let closed = false;
  const port = await freePort();
  const listener = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (client) => {
    void join(client).catch(() => client.resetAndDestroy());
  });
  listener.on("error", () => {}); // The port is not free yet: tried again.
  await listen();

  async function listen(): Promise<void> {
    while (!closed && !timers.has("refuse")) {
      if (listener.listening) return;
      listener.listen({ port, host: HOST, exclusive: true });
      await once(listener, "listening").catch(() => sleep(LISTEN_AGAIN_MS));
    }
  }

  async function join(client: Socket): Promise<void> {
    const pair: Pair = { client, server: null, frozen: timers.has("freeze") };
    pairs.add(pair);
    client.on("error", () => {}); // "close" follows.
    client.on("close", () => end(pair));
    if (pair.frozen) {
      client.resume();
      return;
    }
    const server = await reach();
    server.on("error", () => {});
    server.on("close", () => end(pair));
    pair.server = server;
    if (!pairs.has(pair)) return void server.resetAndDestroy(); // Cut while we were reaching out.
    pump(pair, client, server);
    pump(pair, server, client);
  }

  async function reach(): Promise<Socket> {
    const first = turn++;
    for (let index = 0; index < targets.length; index++) {
      const target = targets[(first + index) % targets.length] as number;
      const server = connect({ port: target, host: HOST, allowHalfOpen: true, noDelay: true });
      const reached = await once(server, "connect").then(
        () => true,
        () => false,
      );
      if (reached) return server;
      server.destroy();
    }
    throw new Error("nobody accepts");
  }

  function pump(pair: Pair, from: Socket, to: Socket): void {
    const pass = (chunk: Buffer) => {
      if (pair.frozen || to.destroyed || to.write(chunk)) return;
      from.pause();
      to.once("drain", () => from.resume());
    };
    from.on("data", (chunk: Buffer) => {
      if (delayMs === 0) return pass(chunk);
      from.pause();
      setTimeout(() => {
        from.resume();
        pass(chunk);
      }, delayMs);
    });
    from.on("end", () => void (pair.frozen || to.end()));
    from.resume();
  }

  /** Who closes in good order leaves the other its last words; everything else is a reset. */
  function end(pair: Pair, reset = false): void {
    // Nobody learns of the other's end before the freeze is over.
    if (!pairs.has(pair) || (pair.frozen && !reset)) return;
    pairs.delete(pair);
    const torn = reset || pair.client.errored || pair.server?.errored;
    for (const socket of [pair.client, pair.server])
      if (torn) socket?.resetAndDestroy();
      else socket?.destroySoon();
  }

  function cut(): number {
    const count = pairs.size;
    for (const pair of [...pairs]) end(pair, true);
    return count;
  }

  function during(what: "refuse" | "freeze" | "delay", forMs: number, over: () => void): void {
    clearTimeout(timers.get(what));
    timers.set(
      what,
      setTimeout(() => {
        timers.delete(what);
        over();
      }, forMs),
    );
  }

  const over = {
    refuse: () => void listen(),
    freeze() {
      for (const pair of [...pairs]) if (pair.frozen) end(pair, true);
    },
    delay() {
      delayMs = 0;
    },
  };
  return {
    port,
    cut,
    refuse(forMs) {
      during("refuse", forMs, over.refuse);
      listener.close();
      return cut();
    },
    freeze(forMs) {
      during("freeze", forMs, over.freeze);
      for (const pair of pairs) pair.frozen = true;
      return pairs.size;
    },
    delay(byMs, forMs) {
      delayMs = byMs;
      during("delay", forMs, over.delay);
      return pairs.size;
    },
    heal() {
      for (const [what, timer] of [...timers]) {
        clearTimeout(timer);
        timers.delete(what);
        over[what]();
      }
    },
    close() {
      closed = true;
      for (const timer of timers.values()) clearTimeout(timer);
      listener.close();
      cut();
    },
  };
}
