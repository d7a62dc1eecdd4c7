import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startProxy, type TcpProxy } from "../chaos/proxy.ts";

/** Answers each piece with its own name and the piece. */
async function startEcho(name: string): Promise<Server> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (chunk) => socket.write(`${name}:${chunk}`));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

const portOf = (server: Server) => (server.address() as AddressInfo).port;

let servers: Server[];
let proxy: TcpProxy;
beforeEach(async () => {
  servers = [await startEcho("a"), await startEcho("b")];
  proxy = await startProxy(servers.map(portOf));
});
afterEach(() => {
  proxy.close();
  for (const server of servers) server.close();
});

async function dial(): Promise<Socket> {
  const socket = connect({ port: proxy.port, host: "127.0.0.1", allowHalfOpen: true });
  await once(socket, "connect");
  return socket;
}

/** The answer; "nothing" when none comes for a while, or how the connection ended. */
async function say(socket: Socket, word: string, patienceMs = 5_000): Promise<string> {
  const answer = Promise.race([
    once(socket, "data").then(([chunk]) => String(chunk)),
    once(socket, "close").then(() => "closed"),
    sleep(patienceMs).then(() => "nothing"),
  ]);
  socket.write(word);
  return answer.catch((error: NodeJS.ErrnoException) => String(error.code));
}

test("it takes turns between the ports, and passes by one that does not accept", async () => {
  expect(await say(await dial(), "1")).toBe("a:1");
  expect(await say(await dial(), "2")).toBe("b:2");
  servers[0]?.close();
  expect(await say(await dial(), "3")).toBe("b:3");
  expect(await say(await dial(), "4")).toBe("b:4");
});

test("large answers come whole, and an end comes as an end", async () => {
  const socket = await dial();
  let received = 0;
  socket.on("data", (chunk) => {
    received += chunk.length;
  });
  socket.end(Buffer.alloc(3_000_000, "x"));
  await once(socket, "end");
  expect(received).toBeGreaterThan(3_000_000);
});

test("a cut is a reset, and the next connection is as before", async () => {
  const socket = await dial();
  expect(await say(socket, "1")).toBe("a:1");
  expect(proxy.cut()).toBe(1);
  expect(await say(socket, "2")).toBe("ECONNRESET");
  expect(await say(await dial(), "3")).toBe("b:3");
});

test("while it refuses nobody is let in; afterwards the port is there again", async () => {
  const socket = await dial();
  proxy.refuse(100);
  expect(await say(socket, "1")).toBe("ECONNRESET");
  await expect(dial()).rejects.toThrow("ECONNREFUSED");
  await sleep(200);
  expect(await say(await dial(), "2")).toMatch(/:2$/);
});

test("while it is frozen everything stays open and nothing arrives; then it is reset", async () => {
  const before = await dial();
  expect(await say(before, "1")).toBe("a:1");
  proxy.freeze(1_500);
  const during = await dial();
  expect([await say(before, "2", 200), await say(during, "3", 200)]).toEqual(["nothing", "nothing"]);
  await Promise.all([once(before, "error"), once(during, "error")]);
  expect(await say(await dial(), "4")).toBe("b:4");
});

test("a slow line is late, in order, and heals at once", async () => {
  const socket = await dial();
  proxy.delay(400, 60_000);
  const startedAt = performance.now();
  expect(await say(socket, "1")).toBe("a:1");
  expect(performance.now() - startedAt).toBeGreaterThan(700);
  proxy.refuse(60_000);
  proxy.heal();
  await sleep(100);
  const healedAt = performance.now();
  expect(await say(await dial(), "2")).toBe("b:2");
  expect(performance.now() - healedAt).toBeLessThan(700);
});
