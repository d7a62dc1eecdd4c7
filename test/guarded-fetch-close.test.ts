import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connectorTo } from "../src/storage/connector.ts";
import { makeGuardedFetch } from "../src/storage/guarded-fetch.ts";

const BODY = Buffer.alloc(2_000_000, 0x61);

let server: Server;
let port: number;
beforeAll(async () => {
  // Says that it will close, sends everything at once, and closes: the last byte and the end arrive together.
  server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => {
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${BODY.length}\r\nconnection: close\r\n\r\n`);
      socket.end(BODY);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  port = (server.address() as AddressInfo).port;
});
afterAll(() => void server.close());

test("a server that closes its connection with the last byte is read to the end", async () => {
  const origin = `http://127.0.0.1:${port}`;
  const fetchFile = makeGuardedFetch({ allowedOrigins: [origin] });
  for (let round = 0; round < 10; round++) {
    const { bytes } = await fetchFile(`${origin}/x`, { maxBytes: 10_000_000, timeoutMs: 10_000 });
    expect(bytes.length).toBe(BODY.length);
  }
});

// undici 7 does throw there: https://github.com/nodejs/undici/issues/5360. A worker was gone by it.
test("what throws when the far end closes ends the connection, not the process", async () => {
  const connect = connectorTo([{ address: "127.0.0.1", family: 4 }], () => true, new AbortController().signal);
  const target = { hostname: "127.0.0.1", host: "127.0.0.1", protocol: "http:", port: `${port}` };
  const socket = await new Promise<Socket>((resolve, reject) =>
    connect(target, (...[error, made]) => (made ? resolve(made as Socket) : reject(error))),
  );
  socket.on("end", () => {
    throw new Error("assert(!this.paused)");
  });
  const failed = once(socket, "error");
  socket.resume().write("GET / HTTP/1.1\r\n\r\n");
  expect(String((await failed)[0])).toMatch(/paused/);
  expect(socket.destroyed).toBe(true);
});
