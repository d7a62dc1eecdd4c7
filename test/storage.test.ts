import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LocalStorage, makeLocalStorage } from "../src/storage/local.ts";
import { makeS3Storage, type S3StorageOptions } from "../src/storage/s3.ts";
import { FileNotFound, type Storage } from "../src/storage/storage.ts";
import { startS3 } from "./rig/s3.ts";

let root: string;
let s3: Awaited<ReturnType<typeof startS3>>;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "darkroom-storage-"));
  s3 = await startS3(join(root, "s3"));
});

afterAll(async () => {
  await s3.close();
  await rm(root, { recursive: true, force: true });
});

let now = Date.UTC(2026, 10, 21);
function local(overrides: { directory?: string; secret?: string } = {}): LocalStorage {
  const secret = overrides.secret ?? "a secret of sixteen or more";
  const directory = overrides.directory ?? join(root, "local");
  return makeLocalStorage({ directory, publicUrl: "https://api.example/", secret, clock: () => now });
}

const stores: readonly [string, () => Storage][] = [
  ["local", () => local()],
  ["s3", () => makeS3Storage(s3.options)],
  ["s3 with a prefix", () => makeS3Storage({ ...s3.options, prefix: "eu/darkroom" })],
];

test("a bucket that is not there says nothing about files", async () => {
  await expect(makeS3Storage({ ...s3.options, bucket: "no-such-bucket" }).exists("a.png")).rejects.toThrow();
});

describe.each(stores)("%s storage", (_name, make) => {
  test("gives back what was put, with its type and size", async () => {
    const storage = make();
    await storage.put("app/outputs/run-1.png", Buffer.from("picture"), "image/png");
    const { body, bytes, contentType } = await storage.get("app/outputs/run-1.png");
    expect([(await buffer(body)).toString(), bytes, contentType]).toEqual(["picture", 7, "image/png"]);
  });

  test("puts again over what is there, bytes and type", async () => {
    const storage = make();
    await storage.put("again", Buffer.from("a longer first version"), "text/plain");
    await storage.put("again", Buffer.from("second"), "image/webp");
    const { body, contentType } = await storage.get("again");
    expect([(await buffer(body)).toString(), contentType]).toEqual(["second", "image/webp"]);
  });

  test("keeps 5 MB unchanged", async () => {
    const storage = make();
    const file = randomBytes(5 * 1024 * 1024);
    await storage.put("large.bin", file, "application/octet-stream");
    const { body, bytes } = await storage.get("large.bin");
    expect([sha256(await buffer(body)), bytes]).toEqual([sha256(file), file.length]);
  });

  test("keeps an empty file", async () => {
    const storage = make();
    await storage.put("empty", Buffer.alloc(0), "text/plain");
    const { body, bytes } = await storage.get("empty");
    expect([(await buffer(body)).length, bytes]).toEqual([0, 0]);
  });

  test("says FileNotFound for what is not there, and for what was deleted; deleting twice is harmless", async () => {
    const storage = make();
    await expect(storage.get("nowhere/at-all.png")).rejects.toBeInstanceOf(FileNotFound);
    await storage.put("gone.png", Buffer.from("x"), "image/png");
    await storage.delete("gone.png");
    await storage.delete("gone.png");
    await expect(storage.get("gone.png")).rejects.toBeInstanceOf(FileNotFound);
  });

  test("knows whether a file is there", async () => {
    const storage = make();
    expect(await storage.exists("nowhere/at-all.png")).toBe(false);
    await storage.put("there.png", Buffer.from("x"), "image/png");
    expect(await storage.exists("there.png")).toBe(true);
    await storage.delete("there.png");
    expect(await storage.exists("there.png")).toBe(false);
  });

  test("checks itself and leaves nothing behind", async () => {
    await expect(make().check()).resolves.toBeUndefined();
  });

  test.each([
    "",
    "/etc/passwd",
    "../secret",
    "a/../../b",
    "a/..",
    "a//b",
    "a/",
    "./a",
    "a/./b",
    "a b",
    "a\\b",
    "a\u0000b",
    "a%2fb",
    "ä",
    "a?b",
    "a\n",
    "x".repeat(513),
    `${"x".repeat(256)}/a`,
  ])("refuses the key %j everywhere, loudly", async (key) => {
    const storage = make();
    await expect(storage.put(key, Buffer.from("x"), "text/plain")).rejects.toThrow("is refused");
    await expect(storage.get(key)).rejects.toThrow("is refused");
    await expect(storage.delete(key)).rejects.toThrow("is refused");
    await expect(storage.url(key, 60)).rejects.toThrow("is refused");
  });

  test("takes a key of 512 bytes", async () => {
    const key = `${`${"a".repeat(99)}/`.repeat(5)}${"b".repeat(8)}.png`;
    expect(key.length).toBe(512);
    await make().put(key, Buffer.from("x"), "image/png");
    expect((await read(make(), key)).toString()).toBe("x");
  });

  test.each([0, -1, 1.5, 604_801, Number.NaN])("signs no URL for %d seconds", async (ttl) => {
    await expect(make().url("a", ttl)).rejects.toThrow("1 to 604800");
  });
});

describe("local URLs", () => {
  const parts = async (storage: LocalStorage, key: string, ttl = 60) => {
    const url = new URL(await storage.url(key, ttl));
    expect(`${url.origin}${url.pathname}`).toBe(`https://api.example/files/${key}`);
    return [url.searchParams.get("expires") ?? "", url.searchParams.get("signature") ?? ""] as const;
  };

  test("open the file they were made for, until they expire", async () => {
    const storage = local();
    await storage.put("app/a.png", Buffer.from("a"), "image/png");
    const [expires, signature] = await parts(storage, "app/a.png", 60);
    expect(Number(expires)).toBe(now / 1000 + 60);
    const file = await storage.open("app/a.png", expires, signature);
    expect(file?.bytes).toBe(1);
    file?.body.destroy();
    now += 59_999;
    expect(storage.verifyUrl("app/a.png", expires, signature)).toBe(true);
    now += 1;
    expect(storage.verifyUrl("app/a.png", expires, signature)).toBe(false);
    expect(await storage.open("app/a.png", expires, signature)).toBeNull();
  });

  test("open nothing else: other keys, later expiries, other secrets, other spellings", async () => {
    const storage = local();
    const [expires, signature] = await parts(storage, "app/a.png");
    expect(storage.verifyUrl("app/a.png", expires, signature)).toBe(true);
    const flipped = (signature.startsWith("A") ? "B" : "A") + signature.slice(1);
    // 256 bits in 43 letters leave 2 bits over, which a lenient decoder ignores.
    const last = signature.at(-1) ?? "";
    const twin = signature.slice(0, -1) + String.fromCharCode(last.charCodeAt(0) + 1);
    for (const [key, until, proof] of [
      ["app/b.png", expires, signature],
      ["app/a.pn", expires, signature],
      ["../app/a.png", expires, signature],
      ["app/a.png", String(Number(expires) + 1), signature],
      ["app/a.png", `0${expires}`, signature],
      ["app/a.png", `${expires} `, signature],
      ["app/a.png", "", signature],
      ["app/a.png", "NaN", signature],
      ["app/a.png", "9".repeat(13), signature],
      ["app/a.png", expires, ""],
      ["app/a.png", expires, flipped],
      ["app/a.png", expires, twin],
      ["app/a.png", expires, `${signature}=`],
      ["app/a.png", expires, "ü".repeat(43)],
    ] as const) {
      expect(storage.verifyUrl(key, until, proof), `${key} ${until} ${proof}`).toBe(false);
    }
    expect(local({ secret: "another secret of 16" }).verifyUrl("app/a.png", expires, signature)).toBe(false);
  });

  test("are not signed with a secret that can be guessed", () => {
    expect(() => local({ secret: "short" })).toThrow("16 characters");
  });
});

describe("local files", () => {
  test("are replaced whole or not at all: a reader never sees half a file", async () => {
    const storage = local();
    const versions = ["a", "b"].map((letter) => Buffer.alloc(2_000_000, letter));
    const [first = Buffer.alloc(0)] = versions;
    await storage.put("busy.bin", first, "text/plain");
    let writing = true;
    const writer = (async () => {
      for (let i = 0; i < 20; i++) await storage.put("busy.bin", versions[i % 2] ?? first, "text/plain");
      writing = false;
    })();
    let reads = 0;
    while (writing) {
      const seen = await read(storage, "busy.bin");
      expect(versions.some((version) => version.equals(seen))).toBe(true);
      reads += 1;
    }
    await writer;
    expect(reads).toBeGreaterThan(3);
  });

  test("a write that fails leaves the old file, and no litter", async () => {
    const directory = join(root, "failing");
    const storage = local({ directory });
    await storage.put("a", Buffer.from("old"), "text/plain");
    // A file stands where a folder is needed.
    await expect(storage.put("a/b", Buffer.from("new"), "text/plain")).rejects.toThrow();
    expect((await read(storage, "a")).toString()).toBe("old");
    await expect(storage.get("a/b")).rejects.toBeInstanceOf(FileNotFound);
    expect(await readdir(join(directory, "tmp"))).toEqual([]);
  });

  test("a folder is not a file", async () => {
    const storage = local();
    await storage.put("folder/a", Buffer.from("x"), "text/plain");
    await expect(storage.get("folder")).rejects.toBeInstanceOf(FileNotFound);
  });

  test("check names a directory that cannot be used, and what to do", async () => {
    const directory = join(root, "a-file");
    await writeFile(directory, "not a folder");
    await expect(local({ directory }).check()).rejects.toThrow(
      /cannot be kept in .*a-file.*Make the directory writable/,
    );
  });
});

describe("s3", () => {
  test("a signed URL opens the file in a plain client, with its type, until it expires", async () => {
    const storage = makeS3Storage(s3.options);
    await storage.put("signed.png", Buffer.from("picture"), "image/png");
    const url = await storage.url("signed.png", 1);
    const answer = await fetch(url);
    expect([answer.status, answer.headers.get("content-type"), await answer.text()]).toEqual([
      200,
      "image/png",
      "picture",
    ]);
    await sleep(2_100);
    expect((await fetch(url)).status).toBe(403);
  });

  test("a prefix keeps two deployments in one bucket apart", async () => {
    const [one, two] = ["one", "two/"].map((prefix) => makeS3Storage({ ...s3.options, prefix }));
    await one?.put("same", Buffer.from("1"), "text/plain");
    await expect(two?.get("same")).rejects.toBeInstanceOf(FileNotFound);
    expect((await read(makeS3Storage(s3.options), "one/same")).toString()).toBe("1");
    expect(() => makeS3Storage({ ...s3.options, prefix: "../up" })).toThrow("is refused");
  });

  test.each<[string, Partial<S3StorageOptions>, RegExp]>([
    [
      "a missing bucket",
      { bucket: "no-such-bucket" },
      /"no-such-bucket" does not exist.*Create it, or correct its name/,
    ],
    ["wrong credentials", { accessKeyId: "NOBODY" }, /does not accept the credentials.*Set the access key id/],
    ["a closed port", { endpoint: "http://127.0.0.1:1" }, /127\.0\.0\.1:1 cannot be reached.*Correct the endpoint/],
    ["a wrong name", { endpoint: "http://no-such-host.invalid" }, /cannot be resolved.*Correct the endpoint/],
  ])("check names %s, and what to do", async (_what, wrong, message) => {
    await expect(makeS3Storage({ ...s3.options, ...wrong }).check()).rejects.toThrow(message);
  });

  test.each<[number, string, RegExp]>([
    [403, "SignatureDoesNotMatch", /does not accept the credentials/],
    [403, "AccessDenied", /may not write \(s3:PutObject\) in the bucket "photos"\. Grant that right/],
    [301, "PermanentRedirect", /not in the region "us-east-1".*Set the bucket's own region/],
    [400, "AuthorizationHeaderMalformed", /not in the region/],
    [403, "RequestTimeTooSkewed", /refuses our clock/],
    [418, "Teapot", /could not write.*Teapot.*Check the endpoint/],
  ])("check explains %i %s", async (status, code, message) => {
    const server = createServer((request, response) => {
      request.resume();
      response.writeHead(status, { "content-type": "application/xml" });
      response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>no</Message></Error>`);
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await expect(makeS3Storage({ ...s3.options, endpoint }).check()).rejects.toThrow(message);
    server.close();
  });

  test("check tells apart a right to read from a right to list", async () => {
    let written = "";
    const server = createServer((request, response) => {
      const answer = (status: number, body = "") => {
        response.statusCode = status;
        response.end(body);
      };
      if (request.method === "PUT") {
        request.on("data", (piece) => (written += piece)).on("end", () => answer(200));
      } else if (request.method === "DELETE") {
        written = "";
        answer(204);
      } else if (written) answer(200, written);
      else answer(403, "<Error><Code>AccessDenied</Code></Error>");
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await expect(makeS3Storage({ ...s3.options, endpoint }).check()).rejects.toThrow("s3:ListBucket");
    server.close();
  });
});

async function read(storage: Storage, key: string): Promise<Buffer> {
  return buffer((await storage.get(key)).body);
}

function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
