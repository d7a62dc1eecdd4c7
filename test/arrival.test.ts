import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, expect, test } from "vitest";
import { expectBody } from "../src/api/arrival.ts";

let server: Server;
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

/** Sends a byte every 50 ms, `bytes` of them; the answer, or how it ended. */
async function drip(bounds: readonly number[], bytes: number): Promise<string> {
  server = createServer(async (incoming, response) => {
    for (const ms of bounds) expectBody(incoming, ms);
    response.end(await text(incoming).catch(() => ""));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return new Promise((resolve) => {
    const headers = { "content-length": bytes };
    const sent = request({ port, method: "POST", headers }, async (answer) => resolve(await text(answer)));
    let left = bytes;
    const tick = setInterval(() => {
      if (left-- > 0) sent.write("x");
      else sent.end();
    }, 50);
    sent.on("error", (error) => resolve(`cut: ${error.message}`));
    sent.on("close", () => clearInterval(tick));
  });
}

test("a body that trickles in is cut off when its time is over", async () => {
  expect(await drip([300], 1_000)).toMatch(/^cut: /);
});

test("a body that is here in time is answered", async () => {
  expect(await drip([20_000], 5)).toBe("xxxxx");
});

test("whoever is given longer may take it", async () => {
  expect(await drip([100, 20_000], 10)).toBe("x".repeat(10));
});

test("a request without a body waits for none", async () => {
  server = createServer((incoming, response) => {
    expectBody(incoming, 50);
    setTimeout(() => response.end("late"), 200);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  expect(await answer.text()).toBe("late");
});
