import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { afterEach, describe, expect, test } from "vitest";
import { ProviderUnreachable } from "../src/domain/provider.ts";
import { ask, type Call, retryAfterMs, sendOnce } from "../src/providers/http.ts";

const open: Server[] = [];
const sockets = new Set<Socket>();

afterEach(() => {
  for (const socket of sockets) socket.destroy();
  for (const server of open.splice(0)) server.close();
});

async function listen(server: Server, scheme = "http"): Promise<string> {
  open.push(server);
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Answers each request by the next word of the script, the last word for ever; counts what arrived. */
async function http(...script: ((response: ServerResponse, request: IncomingMessage) => void)[]) {
  const seen: string[] = [];
  const url = await listen(
    createHttpServer((request, response) => {
      const answer = script[Math.min(seen.length, script.length - 1)];
      seen.push(`${request.method} ${request.url}`);
      request.resume().on("end", () => answer?.(response, request));
    }),
  );
  return { url, seen };
}

/** Speaks whatever it likes; counts request lines, since a second create on the wire is a second purchase. */
async function tcp(onRequest: (socket: Socket, nth: number) => void) {
  const seen = { creates: 0 };
  const url = await listen(
    createTcpServer((socket) => {
      socket.on("data", (bytes) => {
        const creates = bytes.toString().split("POST /").length - 1;
        if (creates === 0) return;
        seen.creates += creates;
        onRequest(socket, seen.creates);
      });
    }),
  );
  return { url, seen };
}

const say =
  (status: number, body: string, headers: Record<string, string> = {}) =>
  (response: ServerResponse) =>
    void response.writeHead(status, headers).end(body);
const hang = () => {};
const cut = (response: ServerResponse) => void response.socket?.destroy();

const post = (url: string, rest: Partial<Call> = {}): Call => ({
  method: "POST",
  url: `${url}/buy`,
  headers: { "content-type": "application/json", authorization: "Bearer r8_secret" },
  body: '{"input":{}}',
  ...rest,
});
const get = (url: string, rest: Partial<Call> = {}): Call => ({
  method: "GET",
  url: `${url}/look`,
  headers: { authorization: "Bearer r8_secret" },
  ...rest,
});
const within = (ms: number) => ({ sendBefore: new Date(Date.now() + ms) });
const settle = () => new Promise((resolve) => setTimeout(resolve, 150));

describe("a create is sent once", () => {
  test("and its answer comes back whole: status, headers and text", async () => {
    const { url, seen } = await http(say(201, '{"id":"a"}', { "X-One": "1" }));
    expect(await sendOnce(post(url), within(5_000))).toMatchObject({
      sent: "answered",
      status: 201,
      headers: { "x-one": "1" },
      body: '{"id":"a"}',
    });
    expect(seen).toEqual(["POST /buy"]);
  });

  test.each([
    ["500 with HTML", say(500, "<html>oops</html>", { "content-type": "text/html" }), 500],
    ["503 with Retry-After", say(503, "", { "retry-after": "0" }), 503],
    ["429", say(429, '{"retry_after":0}'), 429],
    ["200 with HTML", say(200, "<html>hello</html>"), 200],
    ["a redirect that keeps the method", say(307, "", { location: "/buy-again" }), 307],
    ["an empty 401", say(401, ""), 401],
  ])("when the answer is %s", async (_name, answer, status) => {
    const { url, seen } = await http(answer);
    expect(await sendOnce(post(url), within(5_000))).toMatchObject({ sent: "answered", status });
    await settle();
    expect(seen).toEqual(["POST /buy"]);
  });

  test("when early hints come before the answer", async () => {
    const { url, seen } = await http((response) => {
      response.writeEarlyHints({ link: "</style.css>; rel=preload; as=style" });
      response.writeHead(201).end("ok");
    });
    expect(await sendOnce(post(url), within(5_000))).toMatchObject({ sent: "answered", status: 201, body: "ok" });
    expect(seen).toHaveLength(1);
  });

  test.each<[string, (socket: Socket) => void]>([
    ["the connection is closed without an answer", (socket) => void socket.end()],
    ["the connection is reset", (socket) => void socket.resetAndDestroy()],
    ["the answer breaks off in its headers", (socket) => void socket.end("HTTP/1.1 201 Created\r\nContent-Le")],
    [
      "the answer breaks off in its body",
      (socket) => void socket.end('HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"id":"a'),
    ],
    ["the answer is not HTTP", (socket) => void socket.write("hello?\r\n\r\n")],
    ["there is no answer in time", () => {}],
    [
      "the answer trickles past the total",
      (socket) => {
        socket.write("HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n");
        const drip = setInterval(() => socket.write("x"), 20);
        socket.on("close", () => clearInterval(drip));
      },
    ],
    [
      "the answer is larger than any answer should be",
      (socket) => void socket.write(`HTTP/1.1 201 Created\r\nContent-Length: 6000000\r\n\r\n${"x".repeat(6_000_000)}`),
    ],
  ])("and is unknown when %s", async (_name, misbehave) => {
    const { url, seen } = await tcp(misbehave);
    expect(await sendOnce(post(url, { totalMs: 500 }), within(5_000))).toMatchObject({ sent: "unknown" });
    await settle();
    expect(seen.creates).toBe(1);
    // Nothing of ours is left on the wire: a socket that lives on could still deliver a late answer, or a late byte.
    expect(sockets.size).toBe(0);
  });

  test("when the idle socket from the last create has died", async () => {
    const { url, seen } = await http(say(201, "one"), say(201, "two"));
    await sendOnce(post(url), within(5_000));
    for (const socket of sockets) socket.destroy();
    await settle();
    expect(await sendOnce(post(url), within(5_000))).toMatchObject({ sent: "answered", body: "two" });
    expect(seen).toHaveLength(2);
  });

  test("when the reused socket dies under it: unknown, not repeated on a fresh one", async () => {
    const { url, seen } = await tcp((socket, nth) => {
      if (nth === 1) socket.write("HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\none");
      else socket.resetAndDestroy();
    });
    expect(await sendOnce(post(url), within(5_000))).toMatchObject({ sent: "answered" });
    expect(await sendOnce(post(url), within(5_000))).toMatchObject({ sent: "unknown" });
    await settle();
    expect(seen.creates).toBe(2);
  });
});

describe("a create is known to be unsent", () => {
  test("when the connection is refused", async () => {
    const { url } = await tcp(() => {});
    await new Promise((resolve) => open.pop()?.close(resolve));
    expect(await sendOnce(post(url), within(5_000))).toMatchObject({
      sent: "no",
      detail: expect.stringContaining("ECONNREFUSED"),
    });
  });

  test("when the name does not resolve", async () => {
    expect(await sendOnce(post("http://nowhere.invalid"), within(5_000))).toMatchObject({ sent: "no" });
  });

  test("when the other side does not speak TLS", async () => {
    const { url, seen } = await http(say(201, "ok"));
    expect(await sendOnce(post(url.replace("http:", "https:")), within(5_000))).toMatchObject({ sent: "no" });
    expect(seen).toEqual([]);
  });

  test("when TLS cannot be agreed on", async () => {
    let agreed = 0;
    const url = await listen(
      createTlsServer({}, () => agreed++).on("tlsClientError", () => {}),
      "https",
    );
    expect(await sendOnce(post(url), within(5_000))).toMatchObject({ sent: "no" });
    expect(agreed).toBe(0);
  });

  test("when the handshake takes longer than 3 s", async () => {
    const url = await listen(createTcpServer(), "https");
    const began = performance.now();
    expect(await sendOnce(post(url), within(20_000))).toMatchObject({ sent: "no" });
    expect(performance.now() - began).toBeLessThan(5_000);
  }, 10_000);

  test("when its time had passed before it began", async () => {
    const { url, seen } = await http(say(201, "ok"));
    expect(await sendOnce(post(url), within(-1))).toMatchObject({ sent: "no" });
    await settle();
    expect(seen).toEqual([]);
  });

  test("when its time passes while it waits for the connection", async () => {
    const url = await listen(createTcpServer(), "https");
    const began = performance.now();
    expect(await sendOnce(post(url), within(200))).toMatchObject({ sent: "no" });
    expect(performance.now() - began).toBeLessThan(1_000);
  });

  test("when its time passes in the instant between the connection and the first byte", async () => {
    const { url, seen } = await http(say(201, "ok"));
    const start = Date.now();
    let reads = 0;
    // As if the process had been stopped for a minute after it had found that there was time enough.
    const clock = () => new Date(++reads <= 2 ? start : start + 60_000);
    expect(await sendOnce(post(url), { sendBefore: new Date(start + 10_000), clock })).toMatchObject({ sent: "no" });
    await settle();
    expect(reads).toBeGreaterThan(2);
    expect(seen).toEqual([]);
  });

  test("when all connections stay busy until its time has passed, and it is not sent later either", async () => {
    const { url, seen } = await http(hang);
    const busy = Array.from({ length: 64 }, () => sendOnce(post(url, { totalMs: 800 }), within(5_000)));
    const late = post(url, { url: `${url}/late` });
    expect(await sendOnce(late, within(300))).toMatchObject({ sent: "no" });
    // Here its own total ends first, while its window is still open when a connection becomes free.
    expect(await sendOnce({ ...late, totalMs: 200 }, within(5_000))).toMatchObject({ sent: "no" });
    for (const sent of await Promise.all(busy)) expect(sent.sent).toBe("unknown");
    await settle();
    expect(seen).toHaveLength(64);
    expect(seen).not.toContain("POST /late");
  });

  test("when it cannot be put into a request at all", async () => {
    const { url, seen } = await http(say(201, "ok"));
    const broken = post(url, { headers: { authorization: "Bearer a\nb" } });
    expect(await sendOnce(broken, within(5_000))).toMatchObject({ sent: "no" });
    expect(await sendOnce({ ...broken, url: "not a url" }, within(5_000))).toMatchObject({ sent: "no" });
    expect(seen).toEqual([]);
  });
});

describe("a question may be repeated", () => {
  test("after a broken connection and a 502, and its answer is what counts", async () => {
    const { url, seen } = await http(cut, say(502, "<html>bad gateway</html>"), say(200, "ok"));
    expect(await ask(get(url))).toMatchObject({ status: 200, body: "ok" });
    expect(seen).toHaveLength(3);
  });

  test("three times at most", async () => {
    const { url, seen } = await http(say(500, "no"));
    await expect(ask(get(url))).rejects.toThrow(ProviderUnreachable);
    expect(seen).toHaveLength(3);
  });

  test("when nobody listens, and that is said", async () => {
    const { url } = await http(hang);
    await new Promise((resolve) => open.pop()?.close(resolve));
    await expect(ask(get(url))).rejects.toThrow(/ECONNREFUSED/);
  });

  test("after as long as a 429 wishes, when that is short", async () => {
    const { url, seen } = await http(say(429, '{"retry_after":1}'), say(200, "ok"));
    const began = performance.now();
    expect(await ask(get(url))).toMatchObject({ status: 200 });
    expect(performance.now() - began).toBeGreaterThan(990);
    expect(seen).toHaveLength(2);
  });

  test("but not when a 429 wishes for long: the caller is told how long", async () => {
    const { url, seen } = await http(say(429, "{}", { "retry-after": "30" }));
    await expect(ask(get(url))).rejects.toMatchObject({
      name: "ProviderUnreachable",
      retryAfterMs: 30_000,
      throttled: true,
    });
    expect(seen).toHaveLength(1);
  });

  test.each([301, 400, 401, 404, 422])("but not after a %i, which is an answer", async (status) => {
    const { url, seen } = await http(say(status, "words", { location: "/elsewhere" }));
    expect(await ask(get(url))).toMatchObject({ status, body: "words" });
    expect(seen).toEqual(["GET /look"]);
  });

  test("within the total: tries and waits together end in time", async () => {
    const { url, seen } = await http(hang);
    const began = performance.now();
    await expect(ask(get(url, { totalMs: 300 }))).rejects.toThrow(ProviderUnreachable);
    expect(performance.now() - began).toBeLessThan(800);
    expect(seen).toHaveLength(1);
  });

  test("and what is thrown does not repeat the token", async () => {
    const { url } = await http(say(500, "you sent Bearer r8_secret"));
    const thrown = await ask(get(url)).catch((error: unknown) => error as Error);
    expect(String(thrown)).toContain("answered 500: you sent Bearer [hidden]");
  });
});

describe("how long to wait is read from", () => {
  const reply = (body: string, headers: Record<string, string> = {}) => ({
    status: 429,
    headers,
    body,
    bytes: Buffer.from(body),
  });
  test.each([
    ["the body first", reply('{"retry_after":7}', { "retry-after": "30" }), 7_000],
    ["the header in seconds", reply("{}", { "retry-after": "30" }), 30_000],
    ["the text, as in a capture", reply('{"detail":"Your rate limit resets in ~5s.","status":429}'), 5_000],
    ["the text, as in the documentation", reply('{"detail":"Expected available in 1 second."}'), 1_000],
    ["the text in minutes", reply('{"detail":"Try again in 2 minutes"}'), 120_000],
    ["the text, but not in any number", reply("<html>in 3 models, made in 5 steps"), 5_000],
    ["nothing: the default", reply("<html>"), 5_000],
    ["nonsense: the default", reply('{"retry_after":"soon"}', { "retry-after": "later" }), 5_000],
    ["zero: never at once", reply('{"retry_after":0}'), 500],
    ["an absurd number: never more than ten minutes", reply('{"retry_after":86400}'), 600_000],
  ])("%s", (_name, given, expected) => expect(retryAfterMs(given)).toBe(expected));

  test("the header as a date", () => {
    const inTen = new Date(Date.now() + 10_000).toUTCString();
    expect(retryAfterMs(reply("", { "retry-after": inTen }))).toBeGreaterThan(8_000);
  });
});
