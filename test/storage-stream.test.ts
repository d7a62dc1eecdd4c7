import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  downloadWithRetry,
  type FetchRefusal,
  FetchRefused,
  makeGuardedDownload,
} from "../src/storage/guarded-fetch.ts";
import { makeLocalStorage } from "../src/storage/local.ts";
import { makeS3Storage } from "../src/storage/s3.ts";
import { clearScratch, withScratch } from "../src/storage/scratch.ts";
import type { Storage } from "../src/storage/storage.ts";
import { startS3 } from "./rig/s3.ts";

let root: string;
let s3: Awaited<ReturnType<typeof startS3>>;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "darkroom-stream-"));
  s3 = await startS3(join(root, "s3"));
});
afterAll(async () => {
  await s3.close();
  await rm(root, { recursive: true, force: true });
});

const servers: ReturnType<typeof createServer>[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close().closeAllConnections();
});

async function serve(answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const local = (directory = join(root, "local")) =>
  makeLocalStorage({ directory, publicUrl: "https://api.example/", secret: "a secret of sixteen or more" });
const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

const stores: readonly [string, () => Storage][] = [
  ["local", () => local()],
  ["s3", () => makeS3Storage(s3.options)],
];

describe.each(stores)("putting a file into %s storage", (_name, make) => {
  test("gives back its bytes, type and size, and leaves it where it was", async () => {
    const path = join(root, "model.bin");
    for (const bytes of [randomBytes(5_000_001), Buffer.alloc(0)]) {
      await writeFile(path, bytes);
      await make().putFile("app/models/1.safetensors", path, "application/octet-stream");
      const stored = await make().get("app/models/1.safetensors");
      expect([stored.bytes, stored.contentType]).toEqual([bytes.length, "application/octet-stream"]);
      expect(sha256(await buffer(stored.body))).toBe(sha256(bytes));
      expect((await stat(path)).size).toBe(bytes.length);
    }
  });

  test("replaces what is there, and refuses bad keys and missing files", async () => {
    const path = join(root, "new.bin");
    await writeFile(path, "new");
    await make().put("same", Buffer.from("old and longer"), "text/plain");
    await make().putFile("same", path, "image/png");
    const stored = await make().get("same");
    expect([(await buffer(stored.body)).toString(), stored.contentType]).toEqual(["new", "image/png"]);
    await expect(make().putFile("../up", path, "image/png")).rejects.toThrow("is refused");
    await expect(make().putFile("same", join(root, "nowhere"), "image/png")).rejects.toThrow("ENOENT");
    expect((await buffer((await make().get("same")).body)).toString()).toBe("new");
  });
});

test("a local file that cannot be put leaves no litter, and a private one can be served", async () => {
  const directory = join(root, "clean");
  const storage = local(directory);
  const path = join(root, "private.bin");
  await writeFile(path, "x", { mode: 0o400 });
  await storage.putFile("a", path, "text/plain");
  expect((await stat(join(directory, "files/a"))).mode & 0o777).toBe(0o644);
  await expect(storage.putFile("a/b", path, "text/plain")).rejects.toThrow();
  await expect(storage.putFile("b", root, "text/plain")).rejects.toThrow();
  expect(await readdir(join(directory, "tmp"))).toEqual([]);
});

describe("s3 in trouble", () => {
  const whole = randomBytes(3_000_000);

  /** Answers with the statuses in turn, "cut" ends the connection; keeps what was sent whole. */
  async function scripted(...script: (number | "cut")[]) {
    const path = join(root, "whole.bin");
    await writeFile(path, whole);
    const bodies: string[] = [];
    let asked = 0;
    const endpoint = await serve((request, response) => {
      const step = script[asked++] ?? 200;
      if (step === "cut") {
        request.once("data", () => request.socket.destroy());
        return;
      }
      const hash = createHash("sha256");
      request.on("data", (piece: Buffer) => hash.update(piece));
      request.on("end", () => {
        bodies.push(hash.digest("hex"));
        response
          .writeHead(step)
          .end(step === 200 ? "" : `<Error><Code>${step === 403 ? "AccessDenied" : "SlowDown"}</Code></Error>`);
      });
    });
    const storage = makeS3Storage({ ...s3.options, endpoint });
    return { put: () => storage.putFile("a", path, "video/mp4"), bodies, asked: () => asked };
  }

  test("each attempt sends the whole file anew", async () => {
    const { put, bodies, asked } = await scripted(503, "cut", 200);
    await put();
    expect([asked(), bodies]).toEqual([3, [sha256(whole), sha256(whole)]]);
  });

  test("three attempts are all", async () => {
    const { put, asked } = await scripted(500, 503, 500, 200);
    await expect(put()).rejects.toThrow();
    expect(asked()).toBe(3);
  });

  test("what will not change is asked once", async () => {
    const { put, asked } = await scripted(403, 200);
    await expect(put()).rejects.toThrow();
    expect(asked()).toBe(1);
  });
});

describe("fetching to a file", () => {
  const LIMITS = { maxBytes: 30_000_000, timeoutMs: 5_000 };

  async function sandbox(answer: RequestListener) {
    const origin = await serve(answer);
    return { origin, download: makeGuardedDownload({ allowedOrigins: [origin] }), path: join(root, "fetched.bin") };
  }

  async function refused(work: Promise<unknown>, path: string): Promise<FetchRefusal> {
    const error = await work.then(
      () => null,
      (reason: unknown) => reason,
    );
    if (!(error instanceof FetchRefused)) throw new Error(`Expected a FetchRefused, got ${String(error)}`);
    await expect(stat(path)).rejects.toThrow("ENOENT");
    return error.code;
  }

  test("gives the file, its digest, its declared type and where it was", async () => {
    const body = randomBytes(20_000_000);
    const { origin, download, path } = await sandbox((request, response) => {
      if (request.url === "/old") response.writeHead(302, { location: "/new" }).end();
      else response.writeHead(200, { "content-type": "application/x-tar" }).end(body);
    });
    expect(await download(`${origin}/old`, path, LIMITS)).toEqual({
      bytes: body.length,
      contentType: "application/x-tar",
      sha256: sha256(body),
      finalUrl: `${origin}/new`,
    });
    expect((await readFile(path)).equals(body)).toBe(true);
  });

  test("does not hold the file", async () => {
    const { origin, download, path } = await sandbox((_request, response) => {
      let left = 400;
      const more = () => {
        while (left-- > 0) if (!response.write(Buffer.alloc(500_000))) return;
        response.end();
      };
      response.on("drain", more);
      more();
    });
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }, 5);
    const { bytes } = await download(origin, path, { maxBytes: 200_000_000, timeoutMs: 20_000 });
    clearInterval(watch);
    expect(bytes).toBe(200_000_000);
    expect(most).toBeLessThan(100_000_000);
  });

  test("has the same guards, and leaves nothing when it refuses", async () => {
    const { origin, download, path } = await sandbox((request, response) => {
      switch (request.url) {
        case "/declared":
          return void response.writeHead(200, { "content-length": 30_000_001 }).flushHeaders();
        case "/large":
          return void response.end(Buffer.alloc(30_000_001));
        case "/short":
          response.writeHead(200, { "content-length": 1_000_000 }).write("half");
          return void setTimeout(() => request.socket.destroy(), 20);
        case "/gzip":
          return void response.writeHead(200, { "content-encoding": "gzip" }).end(gzipSync("x"));
        case "/slow":
          return void response.write("a little");
        case "/inside":
          return void response.writeHead(302, { location: "https://169.254.169.254/" }).end();
        default:
          return void response.writeHead(404).end();
      }
    });
    for (const [at, code] of [
      ["/declared", "too_large"],
      ["/large", "too_large"],
      ["/short", "truncated"],
      ["/gzip", "bad_encoding"],
      ["/inside", "private_address"],
      ["/missing", "http_status"],
    ] as const) {
      expect(await refused(download(origin + at, path, LIMITS), path), at).toBe(code);
    }
    expect(await refused(download(`${origin}/slow`, path, { ...LIMITS, timeoutMs: 200 }), path)).toBe("timeout");
    expect(await refused(download("https://127.0.0.1/", path, LIMITS), path)).toBe("private_address");
    expect(await refused(download("http://example.com/", path, LIMITS), path)).toBe("invalid_url");
  });

  test("the caller's own stop is the caller's own reason", async () => {
    const { origin, download, path } = await sandbox((_request, response) => void response.write("a little"));
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error("shutting down")), 100);
    await expect(download(origin, path, { ...LIMITS, signal: stop.signal })).rejects.toThrow("shutting down");
    await expect(stat(path)).rejects.toThrow("ENOENT");
  });

  test("a disk that cannot be written is the disk's error, asked for once", async () => {
    let asked = 0;
    const { origin, download } = await sandbox((_request, response) => {
      asked += 1;
      response.end(Buffer.alloc(1_000_000));
    });
    const nowhere = join(root, "no/such/folder.bin");
    await expect(downloadWithRetry(download, origin, nowhere, LIMITS, { firstDelayMs: 1 })).rejects.toThrow("ENOENT");
    expect(asked).toBe(1);
  });

  test("tries again from the beginning, and keeps nothing of the failure", async () => {
    let asked = 0;
    const { origin, download, path } = await sandbox((request, response) => {
      asked += 1;
      if (asked === 1) {
        response.writeHead(200, { "content-length": 1_000 }).write("a false start that is longer");
        setTimeout(() => request.socket.destroy(), 20);
      } else if (asked === 2) response.writeHead(503).end();
      else response.end("the file");
    });
    const { bytes } = await downloadWithRetry(download, origin, path, LIMITS, { firstDelayMs: 1 });
    expect([bytes, asked, await readFile(path, "utf8")]).toEqual([8, 3, "the file"]);
  });
});

describe("scratch", () => {
  test("is gone afterwards, whatever happened; what a dead process left goes after two hours", async () => {
    let own = "";
    await expect(
      withScratch(async (folder) => {
        own = folder;
        await writeFile(join(folder, "x"), "x");
        throw new Error("no");
      }),
    ).rejects.toThrow("no");
    expect(existsSync(own)).toBe(false);
    await withScratch(async (folder) => {
      await mkdir(join(folder, "darkroom-scratch-old"));
      await mkdir(join(folder, "somebody-elses"));
      expect(await clearScratch(folder)).toBe(0);
      expect(await clearScratch(folder, Date.now() + 3 * 3_600_000)).toBe(1);
      expect(await readdir(folder)).toEqual(["somebody-elses"]);
    });
  });
});
