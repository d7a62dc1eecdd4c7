import { createPrivateKey } from "node:crypto";
import { createServer, type RequestListener } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect, createServer as createTcpServer, type Server } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import type { Address } from "../src/storage/connector.ts";
import {
  type FetchFile,
  type FetchRefusal,
  FetchRefused,
  fetchWithRetry,
  makeGuardedFetch,
} from "../src/storage/guarded-fetch.ts";

const LIMITS = { maxBytes: 1_000_000, timeoutMs: 5_000 };

/** Forbidden ground: counts who gets through, on both loopbacks, on one port. */
const forbidden: Server[] = [];
let port = 0;
let touched = 0;

beforeAll(async () => {
  const count = () =>
    createTcpServer((socket) => {
      touched += 1;
      socket.on("error", () => {}).destroy();
    });
  const [v4, v6] = [count(), count()];
  port = await listen(v4, "127.0.0.1");
  await listen(v6, "::1", port);
  forbidden.push(v4, v6);
});

const open: Server[] = [];
afterEach(() => {
  touched = 0;
  vi.unstubAllEnvs();
  for (const server of open.splice(0)) server.close();
});
afterAll(() => {
  for (const server of forbidden) server.close();
});

function listen(server: Server, host: string, onPort = 0): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(onPort, host, () => resolve((server.address() as AddressInfo).port));
  });
}

/** An origin that is allowed to be here, as the sandbox is. */
async function sandbox(answer: RequestListener): Promise<{ origin: string; fetchFile: FetchFile }> {
  const server = createServer(answer);
  open.push(server);
  const origin = `http://127.0.0.1:${await listen(server, "127.0.0.1")}`;
  return { origin, fetchFile: makeGuardedFetch({ allowedOrigins: [origin], ports: [443, port] }) };
}

async function refusal(work: Promise<unknown>): Promise<FetchRefused> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (error instanceof FetchRefused) return error;
  throw new Error(`Expected a FetchRefused, got ${String(error)}`);
}

/** What a name server in the attacker's hands says. */
const NAMES: Readonly<Record<string, readonly string[]>> = {
  "metadata.google.internal": ["169.254.169.254"],
  "127.0.0.1.nip.io": ["127.0.0.1"],
  "localtest.me": ["127.0.0.1", "::1"],
  "db.internal": ["10.0.0.5"],
  "printer.local": ["192.168.1.9"],
  "cgnat.example": ["100.64.0.1"],
  "mapped.example": ["::ffff:127.0.0.1"],
  "compatible.example": ["::7f00:1"],
  "nat64.example": ["64:ff9b::7f00:1"],
  "scoped.example": ["fe80::1%lo"],
  "mixed.example": ["93.184.216.34", "127.0.0.1"],
  "mixed6.example": ["2606:2800:220:1::1", "::1"],
  "azure.example": ["168.63.129.16"],
  "garbage.example": ["not an address"],
  "empty-name.example": [""],
};

const hostileHosts: readonly string[] = [
  // loopback, and its many spellings
  "127.0.0.1",
  "127.0.0.1.",
  "127.1",
  "127.0.1",
  "127.255.255.254",
  "2130706433",
  "0x7f000001",
  "0x7f000001.",
  "0x7f.0.0.1",
  "0x7F.1",
  "017700000001",
  "0177.0.0.1",
  "0177.0x0.0.1",
  "00000177.0.0.1",
  "0",
  "0.0.0.0",
  "0x0",
  "①②⑦.⓪.⓪.①",
  "127。0。0。1",
  "%31%32%37.0.0.1",
  "127.0.0.1%2e",
  // IPv6 loopback, unspecified, mapped, compatible, translated, tunnelled
  "[::1]",
  "[0:0:0:0:0:0:0:1]",
  "[0000::0001]",
  "[::]",
  "[::ffff:127.0.0.1]",
  "[::ffff:7f00:1]",
  "[0:0:0:0:0:ffff:127.0.0.1]",
  "[::127.0.0.1]",
  "[::7f00:1]",
  "[::ffff:0:127.0.0.1]",
  "[64:ff9b::127.0.0.1]",
  "[64:ff9b::a9fe:a9fe]",
  "[64:ff9b:1::a00:1]",
  "[2002:7f00:1::]",
  "[2002:a9fe:a9fe::]",
  "[2001:0:7f00:1::]",
  // private, link local, carrier, metadata
  "10.0.0.1",
  "10.255.255.255",
  "172.16.0.1",
  "172.31.255.254",
  "192.168.0.1",
  "169.254.169.254",
  "169.254.170.2",
  "2852039166",
  "0xA9FEA9FE",
  "0251.0376.0251.0376",
  "[::ffff:169.254.169.254]",
  "100.64.0.1",
  "100.100.100.200",
  "168.63.129.16",
  "192.0.0.192",
  "[fd00:ec2::254]",
  "[fc00::1]",
  "[fe80::1]",
  "[fec0::1]",
  "[fe80::1%25lo]",
  // multicast, broadcast, documentation, reserved, unassigned
  "224.0.0.1",
  "239.255.255.250",
  "255.255.255.255",
  "240.0.0.1",
  "192.0.2.1",
  "198.18.0.1",
  "198.51.100.1",
  "203.0.113.1",
  "[ff02::1]",
  "[2001:db8::1]",
  "[3fff::1]",
  "[100::1]",
  "[4000::1]",
  // names
  "localhost",
  "localhost.",
  "LOCALHOST",
  "ｌｏｃａｌｈｏｓｔ",
  ...Object.keys(NAMES),
];

const hostileUrls: readonly string[] = [
  "",
  "   ",
  "not a url",
  "//127.0.0.1/",
  "/etc/passwd",
  "https://",
  "https:///",
  "https://[::1",
  "https://127.0.0.1:99999/",
  "https://256.256.256.256/",
  "https://1.2.3.4.5/",
  `https://example.com/${"a".repeat(10_000)}`,
  // other schemes
  "http://127.0.0.1:PORT/",
  "http://example.com/",
  "HTTP://localhost:PORT/",
  "ftp://127.0.0.1:PORT/",
  "file:///etc/passwd",
  "file://127.0.0.1:PORT/etc/passwd",
  "gopher://127.0.0.1:PORT/_GET",
  "data:text/plain,hello",
  "blob:https://127.0.0.1:PORT/1",
  "javascript:fetch('https://127.0.0.1:PORT/')",
  "ws://127.0.0.1:PORT/",
  "unix:/var/run/docker.sock",
  "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
  // credentials and tricks with them
  "https://user:secret@127.0.0.1:PORT/",
  "https://user@localhost:PORT/",
  "https://example.com@127.0.0.1:PORT/",
  "https://example.com:443@127.0.0.1:PORT/",
  "https://example.com%2f@127.0.0.1:PORT/",
  "https://127.0.0.1:PORT\\@example.com@127.0.0.1:PORT/",
  "https://1.1.1.1 &@127.0.0.1:PORT# @3.3.3.3/",
  // parsers that disagree
  "https:127.0.0.1:PORT",
  "https:/127.0.0.1:PORT/",
  "https:\\\\127.0.0.1:PORT\\",
  "https://127.0.0.1:PORT\\.example.com/",
  "https://127.0.0.1:PORT#@example.com/",
  "https://127.0.0.1:PORT?@example.com/",
  "https://127.0.0.1\t:PORT/",
  "https://127.0.0.1\n:PORT/",
  " https://127.0.0.1:PORT/ ",
  "https://127.0.0.1:0PORT/",
  // ports
  "https://example.com:22/",
  "https://example.com:6379/",
  "https://example.com:80/",
  "https://example.com:0/",
  "https://example.com:8443/",
];

describe("hostile URLs", () => {
  const resolve = async (name: string): Promise<Address[]> => {
    const addresses = NAMES[name] ?? (/^localhost\.?$/.test(name) ? ["127.0.0.1", "::1"] : []);
    return addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
  };

  test("the listener would notice: an unguarded connection is counted", async () => {
    for (const host of ["127.0.0.1", "::1"]) {
      await new Promise((done) =>
        connect(port, host)
          .on("close", done)
          .on("error", () => {})
          .resume(),
      );
    }
    expect(touched).toBe(2);
  });

  test(`none of ${hostileHosts.length + hostileUrls.length} opens a connection`, async () => {
    expect(hostileHosts.length + hostileUrls.length).toBeGreaterThanOrEqual(60);
    const fetchFile = makeGuardedFetch({ ports: [443, port], resolve });
    const urls = [
      ...hostileHosts.map((host) => `https://${host}:${port}/latest/meta-data/`),
      ...hostileUrls.map((url) => url.replaceAll("PORT", String(port))),
    ];
    for (const url of urls) {
      const { code, retryable, message } = await refusal(fetchFile(url, { ...LIMITS, timeoutMs: 1_000 }));
      expect([code, retryable], url).toEqual([expect.stringMatching(/^(invalid_url|private_address)$/), false]);
      expect(message, url).not.toMatch(/127\.0|169\.254|::1|\d+\.\d+\.\d+\.\d+/);
    }
    await sleep(50);
    expect(touched).toBe(0);
  });

  test("names of this machine are refused with the system's own resolver too", async () => {
    const fetchFile = makeGuardedFetch({ ports: [port] });
    for (const name of ["localhost", "localhost."]) {
      const { code } = await refusal(fetchFile(`https://${name}:${port}/`, LIMITS));
      // A trailing dot is not in every machine's resolver.
      expect(["private_address", "unreachable"]).toContain(code);
    }
    expect(touched).toBe(0);
  });

  test("ranges that the operator denies are refused although they are public", async () => {
    const fetchFile = makeGuardedFetch({ deniedRanges: ["93.184.0.0/16", "2606:2800::/32"] });
    for (const host of ["93.184.216.34", "[2606:2800:220:1::1]", "[::ffff:93.184.216.34]"]) {
      expect((await refusal(fetchFile(`https://${host}/`, LIMITS))).code).toBe("private_address");
    }
    expect(() => makeGuardedFetch({ deniedRanges: ["nonsense"] })).toThrow();
  });

  test("an allowed origin opens that origin only, not its neighbours", async () => {
    const { origin, fetchFile } = await sandbox((_request, response) => response.end("here"));
    expect((await fetchFile(`${origin}/a`, LIMITS)).bytes.toString()).toBe("here");
    for (const url of [`http://127.0.0.1:${port}/`, `http://localhost:${new URL(origin).port}/`]) {
      expect((await refusal(fetchFile(url, LIMITS))).code).toBe("invalid_url");
    }
    expect(() => makeGuardedFetch({ allowedOrigins: ["http://127.0.0.1:4010/path"] })).toThrow("is not an origin");
    expect(touched).toBe(0);
  });
});

describe("names that change their mind", () => {
  test("each fetch resolves once, and connects to what was judged", async () => {
    // 3ffe::/16 counts as public and has been routed nowhere since 2006.
    const answers = ["3ffe::1", "127.0.0.1", "3ffe::1", "::1"];
    let asked = 0;
    const resolve = async () => {
      const address = answers[asked++ % answers.length] ?? "";
      return [{ address, family: address.includes(":") ? 6 : 4 }];
    };
    const fetchFile = makeGuardedFetch({ ports: [port], resolve });
    const codes: FetchRefusal[] = [];
    const before = Date.now();
    for (const _ of answers) {
      codes.push((await refusal(fetchFile(`https://rebind.example:${port}/`, { ...LIMITS, timeoutMs: 300 }))).code);
    }
    expect(asked).toBe(4);
    expect(Date.now() - before).toBeLessThan(1_500);
    expect([codes[1], codes[3]]).toEqual(["private_address", "private_address"]);
    expect(["unreachable", "timeout"]).toContain(codes[0]);
    expect(touched).toBe(0);
  });

  test("the socket gets the judged addresses, whatever the system's resolver would say", async () => {
    const { origin } = await sandbox((request, response) => response.end(request.headers.host));
    const named = origin.replace("127.0.0.1", "no-such-name.invalid");
    const resolve = vi.fn(async () => [{ address: "127.0.0.1", family: 4 }]);
    const fetchFile = makeGuardedFetch({ allowedOrigins: [named], resolve });
    expect((await fetchFile(named, LIMITS)).bytes.toString()).toBe(new URL(named).host);
    expect(resolve).toHaveBeenCalledTimes(1);
  });

  test("a name server that never answers does not outlast the limit", async () => {
    const fetchFile = makeGuardedFetch({ resolve: () => new Promise(() => {}) });
    expect((await refusal(fetchFile("https://slow.example/", { ...LIMITS, timeoutMs: 100 }))).code).toBe("timeout");
  });

  test("a name that does not exist may exist a moment later", async () => {
    const fetchFile = makeGuardedFetch({ resolve: () => Promise.reject(new Error("ENOTFOUND 10.0.0.1")) });
    const error = await refusal(fetchFile("https://nowhere.example/", LIMITS));
    expect(error).toMatchObject({ code: "unreachable", retryable: true });
    expect(error.message).not.toContain("10.0.0.1");
  });
});

describe("redirects", () => {
  test.each<[string, FetchRefusal]>([
    ["https://127.0.0.1:PORT/", "private_address"],
    ["https://[::1]:PORT/", "private_address"],
    ["https://localhost:PORT/", "private_address"],
    ["https://2130706433:PORT/", "private_address"],
    ["https://169.254.169.254/latest/meta-data/", "private_address"],
    ["http://127.0.0.1:PORT/", "invalid_url"],
    ["//127.0.0.1:PORT/", "invalid_url"],
    ["https://me:secret@127.0.0.1:PORT/", "invalid_url"],
    ["file:///etc/passwd", "invalid_url"],
    ["https://example.com:6379/", "invalid_url"],
    ["https://[", "invalid_url"],
  ])("to %s is refused as %s", async (target, code) => {
    const { origin, fetchFile } = await sandbox((request, response) => {
      const location = request.url === "/first" ? "/second" : target.replace("PORT", String(port));
      response.writeHead(302, { location }).end("a body nobody reads");
    });
    expect((await refusal(fetchFile(`${origin}/first`, LIMITS))).code).toBe(code);
    expect(touched).toBe(0);
  });

  test("are followed three times, and not a fourth", async () => {
    let asked = 0;
    const { origin, fetchFile } = await sandbox((request, response) => {
      asked += 1;
      const left = Number(request.url?.slice(1));
      if (left === 0) response.end("arrived");
      else response.writeHead(307, { location: `/${left - 1}` }).end();
    });
    const { bytes, finalUrl } = await fetchFile(`${origin}/3`, LIMITS);
    expect([bytes.toString(), finalUrl]).toEqual(["arrived", `${origin}/0`]);
    asked = 0;
    const error = await refusal(fetchFile(`${origin}/9`, LIMITS));
    expect([error.code, error.retryable, asked]).toEqual(["too_many_redirects", false, 4]);
  });

  test("never lead from https to http, not even to an allowed origin", async () => {
    let asked = 0;
    const plain = await sandbox((_request, response) => {
      asked += 1;
      response.end();
    });
    const server = createTlsServer(TLS, (request, response) => {
      if (request.url === "/file") response.end("over tls");
      else response.writeHead(301, { location: `${plain.origin}/` }).end();
    });
    open.push(server);
    const secure = `https://127.0.0.1:${await listen(server, "127.0.0.1")}`;
    const fetchFile = makeGuardedFetch({ allowedOrigins: [secure, plain.origin] });
    // Certificates are checked: this one is nobody's.
    expect((await refusal(fetchFile(`${secure}/file`, LIMITS))).code).toBe("unreachable");

    vi.stubEnv("NODE_TLS_REJECT_UNAUTHORIZED", "0");
    expect((await fetchFile(`${secure}/file`, LIMITS)).bytes.toString()).toBe("over tls");
    expect((await refusal(fetchFile(`${secure}/`, LIMITS))).code).toBe("invalid_url");
    expect(asked).toBe(0);
  });
});

describe("what comes back", () => {
  test("is the file, its declared type and where it was; what goes out is plain", async () => {
    vi.stubEnv("HTTP_PROXY", `http://127.0.0.1:${port}`);
    vi.stubEnv("HTTPS_PROXY", `http://127.0.0.1:${port}`);
    vi.stubEnv("NODE_USE_ENV_PROXY", "1");
    const body = Buffer.alloc(300_000, 7);
    let sent: unknown;
    const { origin, fetchFile } = await sandbox((request, response) => {
      sent = request.headers;
      response.writeHead(200, { "content-type": "image/png" }).end(body);
    });
    const file = await fetchFile(`${origin}/a.png?b=c#d`, LIMITS);
    expect(file.bytes.equals(body)).toBe(true);
    expect(file).toMatchObject({ contentType: "image/png", finalUrl: `${origin}/a.png?b=c#d` });
    expect(sent).toEqual({
      host: new URL(origin).host,
      connection: expect.any(String),
      "user-agent": "Darkroom/1",
      accept: "*/*",
      "accept-encoding": "identity",
    });
    expect(touched).toBe(0);
  });

  test("is refused by its declared size before a byte is read", async () => {
    const { origin, fetchFile } = await sandbox((_request, response) => {
      response.writeHead(200, { "content-length": 10_000_000 }).flushHeaders();
    });
    expect((await refusal(fetchFile(origin, LIMITS))).code).toBe("too_large");
  });

  test("is cut off at the limit when its size was not declared", async () => {
    let written = 0;
    const { origin, fetchFile } = await sandbox((request, response) => {
      const piece = Buffer.alloc(64_000);
      const more = () => {
        while (!response.destroyed && response.write(piece)) written += piece.length;
      };
      response.on("drain", more).on("error", () => {});
      request.on("close", () => response.destroy());
      more();
    });
    const error = await refusal(fetchFile(origin, LIMITS));
    expect(error).toMatchObject({ code: "too_large", retryable: false });
    expect(error.message).toContain("1000000 bytes");
    expect(written).toBeLessThan(50_000_000);
  });

  test("of exactly the limit is taken, one byte more is not", async () => {
    const { origin, fetchFile } = await sandbox((request, response) => {
      response.write(Buffer.alloc(Number(request.url?.slice(1)) - 1));
      response.end("!");
    });
    expect((await fetchFile(`${origin}/1000000`, LIMITS)).bytes.length).toBe(1_000_000);
    expect((await refusal(fetchFile(`${origin}/1000001`, LIMITS))).code).toBe("too_large");
  });

  test.each([
    ["shorter than declared", { "content-length": "1000" }],
    ["with its last chunk missing", { "transfer-encoding": "chunked" }],
  ])("%s is truncated", async (_what, headers) => {
    const { origin, fetchFile } = await sandbox((request, response) => {
      response.writeHead(200, headers).write("half");
      setTimeout(() => request.socket.destroy(), 20);
    });
    expect(await refusal(fetchFile(origin, LIMITS))).toMatchObject({ code: "truncated", retryable: true });
  });

  test("compressed is refused, for it may be a bomb", async () => {
    const bomb = gzipSync(Buffer.alloc(1_000_000));
    const { origin, fetchFile } = await sandbox((request, response) => {
      const encoding = decodeURIComponent(request.url?.slice(1) ?? "");
      response.writeHead(200, { "content-encoding": encoding }).end(bomb);
    });
    for (const encoding of ["gzip", "GZIP", "br", "deflate", "zstd", "gzip, gzip", "identity, gzip"]) {
      const error = await refusal(fetchFile(`${origin}/${encodeURIComponent(encoding)}`, LIMITS));
      expect([error.code, error.retryable], encoding).toEqual(["bad_encoding", false]);
    }
    expect((await fetchFile(`${origin}/identity`, LIMITS)).bytes.equals(bomb)).toBe(true);
  });

  test.each([
    ["drips", (write: () => void) => setInterval(write, 20)],
    ["stalls", (write: () => void) => setTimeout(write, 60_000)],
  ])("too slowly, because it %s, is a timeout", async (_what, schedule) => {
    const { origin, fetchFile } = await sandbox((request, response) => {
      response.writeHead(200).write("a");
      const timer = schedule(() => response.write("a"));
      request.on("close", () => clearInterval(timer));
    });
    const before = Date.now();
    const error = await refusal(fetchFile(origin, { ...LIMITS, timeoutMs: 300 }));
    expect(error).toMatchObject({ code: "timeout", retryable: true });
    expect(Date.now() - before).toBeLessThan(1_500);
  });

  test("never at all is a timeout", async () => {
    const { origin, fetchFile } = await sandbox(() => {});
    expect((await refusal(fetchFile(origin, { ...LIMITS, timeoutMs: 200 }))).code).toBe("timeout");
  });

  test.each([
    [404, false],
    [403, false],
    [410, false],
    [204, false],
    [304, false],
    [302, false],
    [408, true],
    [429, true],
    [500, true],
    [503, true],
  ])("status %i is an error; trying again helps: %s", async (status, retryable) => {
    const { origin, fetchFile } = await sandbox((_request, response) => {
      response.writeHead(status).end(status === 204 || status === 304 ? undefined : "secret of the inner server");
    });
    const error = await refusal(fetchFile(origin, LIMITS));
    expect(error).toMatchObject({ code: "http_status", status, retryable });
    expect(error.message).not.toContain("secret");
  });

  test("nobody listening is unreachable, and the message does not say where", async () => {
    const { origin, fetchFile } = await sandbox(() => {});
    for (const server of open.splice(0)) await new Promise((done) => server.close(done));
    const error = await refusal(fetchFile(origin, LIMITS));
    expect(error).toMatchObject({ code: "unreachable", retryable: true });
    expect(`${error.message}${JSON.stringify(error)}`).not.toContain("127.0.0.1");
  });

  test("an answer that is not HTTP is unreachable", async () => {
    const server = createTcpServer((socket) => socket.on("error", () => {}).end("220 smtp.example ESMTP\r\n"));
    open.push(server);
    const origin = `http://127.0.0.1:${await listen(server, "127.0.0.1")}`;
    const error = await refusal(makeGuardedFetch({ allowedOrigins: [origin] })(origin, LIMITS));
    expect(error.code).toBe("unreachable");
    expect(error.message).not.toContain("smtp");
  });

  test("the caller's own stop is the caller's own reason", async () => {
    const { origin, fetchFile } = await sandbox(() => {});
    const reason = new Error("shutting down");
    const stop = new AbortController();
    setTimeout(() => stop.abort(reason), 50);
    await expect(fetchFile(origin, { ...LIMITS, signal: stop.signal })).rejects.toBe(reason);
    await expect(fetchFile(origin, { ...LIMITS, signal: stop.signal })).rejects.toBe(reason);
  });
});

describe("retrying", () => {
  /** Answers with the statuses in turn, the last one for ever, and remembers when it was asked. */
  async function scripted(...statuses: number[]) {
    const asked: number[] = [];
    const { origin, fetchFile } = await sandbox((_request, response) => {
      asked.push(Date.now());
      response.writeHead(statuses[asked.length - 1] ?? statuses.at(-1) ?? 200).end("file");
    });
    return { origin, fetchFile, asked };
  }

  test("two bad answers cost two waits, the second twice as long", async () => {
    const { origin, fetchFile, asked } = await scripted(503, 429, 200);
    const file = await fetchWithRetry(fetchFile, origin, { maxBytes: 100 }, { firstDelayMs: 100 });
    expect(file.bytes.toString()).toBe("file");
    const [first = 0, second = 0, third = 0] = asked;
    expect(second - first).toBeGreaterThanOrEqual(95);
    expect(third - second).toBeGreaterThanOrEqual(195);
  });

  test("three attempts are all", async () => {
    const { origin, fetchFile, asked } = await scripted(500);
    const error = await refusal(fetchWithRetry(fetchFile, origin, { maxBytes: 100 }, { firstDelayMs: 1 }));
    expect([error.status, asked.length]).toEqual([500, 3]);
  });

  test("what will not change is asked once", async () => {
    const { origin, fetchFile, asked } = await scripted(404);
    expect((await refusal(fetchWithRetry(fetchFile, origin, { maxBytes: 100 }))).status).toBe(404);
    expect((await refusal(fetchWithRetry(fetchFile, "http://10.0.0.1/", { maxBytes: 100 }))).code).toBe("invalid_url");
    expect(asked.length).toBe(1);
  });

  test("a stop ends the waiting", async () => {
    const { origin, fetchFile, asked } = await scripted(500);
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error("shutting down")), 100);
    const limits = { maxBytes: 100, signal: stop.signal };
    await expect(fetchWithRetry(fetchFile, origin, limits, { firstDelayMs: 60_000 })).rejects.toThrow("shutting down");
    expect(asked.length).toBe(1);
  });
});

/** A certificate of nobody for 127.0.0.1, made for this file. */
const TLS = {
  key: createPrivateKey({
    format: "jwk",
    key: {
      kty: "EC",
      crv: "P-256",
      x: "4k0uPuo4s1vXvmieu39jj3nZURpQ7o2TxM6A7QTOWaM",
      y: "90e7lCRfw4I3n25fKjbM49iSCfvnNT9QG00l_Ze6E64",
      d: "JfhIoRlZHI3llMZZwzghgTCoh3KfCnipMWrYEThOmNA",
    },
  }).export({ format: "pem", type: "pkcs8" }),
  cert: `-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUH2MK7R/Awt3l5Qx1ust1mL2VubUwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTA5Mzc0N1oYDzIxMjYxMDI4
MDkzNzQ3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATiTS4+6jizW9e+aJ67f2OPedlRGlDujZPEzoDtBM5Zo/dHu5QkX8OC
N59uXyo2zOPYkgn75zU/UBtNJf2XuhOuo28wbTAdBgNVHQ4EFgQUPpHRV99V3vPN
XXMAbLBHBarvBSgwHwYDVR0jBBgwFoAUPpHRV99V3vPNXXMAbLBHBarvBSgwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIhAIjAq1C23YmfHLdh2gtLJVsqJMiR93LmCSa4mTJ75zWEAiBX
0ZJl8FfhfnX+hyRckOKaEX1TQoZ2H/5zF54YOCRVYA==
-----END CERTIFICATE-----`,
};
