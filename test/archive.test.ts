import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, deflateRawSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ArchiveEntry, type ArchiveLimits, readArchive, writeArchive } from "../src/storage/archive.ts";
import { ArchiveRefused } from "../src/storage/archive-refused.ts";
import { checkSafetensors } from "../src/storage/safetensors.ts";
import { extractFromTar } from "../src/storage/tar.ts";

const LIMITS: ArchiveLimits = { maxEntries: 100, maxEntryBytes: 10_000_000, maxTotalBytes: 50_000_000 };

let root: string;
let count = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "darkroom-archive-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const fresh = (extension = "zip") => join(root, `${count++}.${extension}`);

async function fileOf(bytes: Buffer): Promise<string> {
  const path = fresh();
  await writeFile(path, bytes);
  return path;
}

const entry = (name: string, bytes: Buffer | string): ArchiveEntry => ({ name, read: async () => Buffer.from(bytes) });

async function all(path: string, limits = LIMITS): Promise<[string, Buffer][]> {
  const found: [string, Buffer][] = [];
  for await (const each of readArchive(path, limits)) {
    if ("refused" in each) throw new Error(`${each.name}: ${each.refused.message}`);
    found.push([each.name, each.bytes]);
  }
  return found;
}

/** Of each entry, in their order: what is wrong with it, or "read". */
async function fatesOf(zip: Buffer, limits = LIMITS): Promise<string[]> {
  const fates: string[] = [];
  for await (const each of readArchive(await fileOf(zip), limits))
    fates.push("refused" in each ? each.refused.code : "read");
  return fates;
}

async function refusal(work: Promise<unknown>): Promise<ArchiveRefused> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (error instanceof ArchiveRefused) return error;
  throw new Error(`Expected an ArchiveRefused, got ${String(error)}`);
}

const codeOf = async (zip: Buffer, limits = LIMITS) => (await refusal(all(await fileOf(zip), limits))).code;

/** An entry as no honest program writes it. */
interface Crafted {
  name: string;
  data?: Buffer;
  deflate?: boolean;
  /** Instead of what is true. */
  size?: number;
  flags?: number;
  method?: number;
  mode?: number;
  crc?: number;
  /** Points to the bytes of the entry before it. */
  shared?: boolean;
}

function craft(...entries: Crafted[]): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  let previous = 0;
  for (const {
    name,
    data = Buffer.from("data"),
    deflate,
    size,
    flags = 0x800,
    method,
    mode = 0,
    crc,
    shared,
  } of entries) {
    const packed = deflate ? deflateRawSync(data, { level: 9 }) : data;
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(flags, 2);
    fields.writeUInt16LE(method ?? (deflate ? 8 : 0), 4);
    fields.writeUInt32LE(crc ?? crc32(data), 10);
    fields.writeUInt32LE(packed.length, 14);
    fields.writeUInt32LE(size ?? data.length, 18);
    fields.writeUInt16LE(Buffer.byteLength(name), 22);
    const local = Buffer.concat([Buffer.from("504b0304", "hex"), fields, Buffer.from(name), packed]);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE((mode << 16) >>> 0, 6);
    rest.writeUInt32LE(shared ? previous : offset, 10);
    directory.push(Buffer.from("504b01021403", "hex"), fields, rest, Buffer.from(name));
    if (shared) continue;
    previous = offset;
    parts.push(local);
    offset += local.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(entries.length, 4);
  end.writeUInt16LE(entries.length, 6);
  end.writeUInt32LE(central.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...parts, central, Buffer.from("504b0506", "hex"), end]);
}

describe("writing", () => {
  test("what is written is what is read, in its order, and the digest is of the file", async () => {
    const path = fresh();
    const photo = randomBytes(3_000_000);
    const written = await writeArchive(path, [entry("001.jpg", photo), entry("a/bä.txt", "words"), entry("empty", "")]);
    const file = await readFile(path);
    expect(written).toEqual({ bytes: file.length, sha256: createHash("sha256").update(file).digest("hex") });
    expect(file.includes(photo)).toBe(true);
    const found = await all(path);
    expect(found.map(([name]) => name)).toEqual(["001.jpg", "a/bä.txt", "empty"]);
    expect(found.map(([, bytes]) => bytes.equals(photo) || bytes.toString())).toEqual([true, "words", ""]);
  });

  test("equal content gives equal bytes, at another time and in another time zone", async () => {
    const make = async () => writeArchive(fresh(), [entry("1.jpg", "one"), entry("2.jpg", "two")]);
    const first = await make();
    const zone = process.env["TZ"];
    process.env["TZ"] = "Pacific/Kiritimati";
    const second = await make();
    if (zone === undefined) delete process.env["TZ"];
    else process.env["TZ"] = zone;
    expect(second).toEqual(first);
  });

  test("entries are asked for one after the other, and let go", async () => {
    let waiting = 0;
    async function* photos(): AsyncGenerator<ArchiveEntry> {
      for (let i = 0; i < 30; i++) {
        expect(waiting).toBe(0);
        waiting += 1;
        const read = async () => {
          waiting -= 1;
          return Buffer.alloc(8_000_000, i);
        };
        yield { name: `${i}.jpg`, read };
      }
    }
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }, 5);
    const { bytes } = await writeArchive(fresh(), photos());
    clearInterval(watch);
    expect(bytes).toBeGreaterThan(240_000_000);
    expect(most).toBeLessThan(120_000_000);
  });

  test("a photo that cannot be read, or a disk that cannot be written, leaves no file and says why", async () => {
    const path = fresh();
    const bad = { name: "2.jpg", read: () => Promise.reject(new Error("gone")) };
    await expect(writeArchive(path, [entry("1.jpg", randomBytes(500_000)), bad])).rejects.toThrow("gone");
    await expect(stat(path)).rejects.toThrow("ENOENT");
    await expect(writeArchive(join(root, "no/such/folder.zip"), [entry("1.jpg", "x")])).rejects.toThrow("ENOENT");
  });

  test.each(["", "/a", "../a", "a/../b", "a\\b", "C:/a", "a//b", "a\u0000"])(
    "the name %j is a bug of ours",
    async (name) => {
      await expect(writeArchive(fresh(), [entry(name, "x")])).rejects.toThrow("cannot have an entry");
    },
  );

  test("so is a name that comes twice, in whatever spelling", async () => {
    await expect(writeArchive(fresh(), [entry("a.jpg", "x"), entry("A.JPG", "y")])).rejects.toThrow("comes twice");
  });
});

describe("reading", () => {
  test("folders and what systems leave in them are skipped, and do not count", async () => {
    const zip = craft(
      { name: "set/", data: Buffer.alloc(0), mode: 0o040755 },
      { name: "set/1.jpg" },
      { name: "__MACOSX/set/._1.jpg" },
      { name: "set/.DS_Store" },
      { name: "set/Thumbs.db" },
      { name: "set/2.jpg", deflate: true, mode: 0o100644 },
    );
    const found = await all(await fileOf(zip), { ...LIMITS, maxEntries: 2 });
    expect(found.map(([name]) => name)).toEqual(["set/1.jpg", "set/2.jpg"]);
    expect(await codeOf(zip, { ...LIMITS, maxEntries: 1 })).toBe("too_many_entries");
  });

  test("what is no ZIP is told from one that was cut off", async () => {
    for (const bytes of [Buffer.alloc(0), Buffer.from("text"), gzipSync("x"), randomBytes(100_000)]) {
      expect(await codeOf(bytes)).toBe("not_a_zip");
    }
    const whole = craft({ name: "1.jpg", data: randomBytes(5_000) }, { name: "2.jpg", data: randomBytes(5_000) });
    for (const length of [100, 5_000, whole.length - 1]) {
      expect(await codeOf(whole.subarray(0, length))).toBe("corrupt");
    }
    await expect(all(join(root, "nowhere.zip"))).rejects.toThrow("ENOENT");
  });

  test.each([
    "../a.jpg",
    "a/../../b.jpg",
    "/etc/passwd",
    "C:/a.jpg",
    "c:a.jpg",
    "a\\b.jpg",
    "..\\a.jpg",
    "a//b.jpg",
    "./a.jpg",
    "a\u0000.jpg",
    "a\n.jpg",
    "",
    "../",
    "__MACOSX/../../a.jpg",
    `${"x".repeat(600)}.jpg`,
  ])("the name %j is refused before anything is unpacked", async (name) => {
    const found: string[] = [];
    const path = await fileOf(craft({ name: "good.jpg" }, { name }));
    const error = await refusal(
      (async () => {
        for await (const each of readArchive(path, LIMITS)) found.push(each.name);
      })(),
    );
    expect([error.code, found]).toEqual(["unsafe_name", []]);
    expect(error.message).toContain("Rename it");
  });

  test("links and devices, encryption, odd methods and double names are refused", async () => {
    expect(await codeOf(craft({ name: "a.jpg", mode: 0o120777 }))).toBe("symlink");
    expect(await codeOf(craft({ name: ".hidden", mode: 0o120777 }))).toBe("symlink");
    expect(await codeOf(craft({ name: "a.jpg", mode: 0o020666 }))).toBe("symlink");
    expect(await codeOf(craft({ name: "a.jpg", flags: 0x801 }))).toBe("encrypted");
    expect(await codeOf(craft({ name: "a.jpg", flags: 0x841 }))).toBe("encrypted");
    expect(await codeOf(craft({ name: "a.jpg", method: 12 }))).toBe("unsupported");
    expect(await codeOf(craft({ name: "a.jpg" }, { name: "a.jpg" }))).toBe("duplicate_name");
    expect(await codeOf(craft({ name: "é.jpg" }, { name: "É.JPG".normalize("NFD") }))).toBe("duplicate_name");
  });

  test("an archive within is refused by its name, and by its bytes under any name", async () => {
    for (const name of ["a.zip", "a.tar", "a.tar.gz", "a.TGZ", "a.rar", "a.7z"]) {
      expect(await codeOf(craft({ name })), name).toBe("nested_archive");
    }
    const tar = Buffer.alloc(1_024);
    tar.write("ustar", 257);
    for (const data of [
      craft({ name: "b.jpg" }),
      craft(),
      gzipSync("x"),
      tar,
      Buffer.from("526172211a0700", "hex"),
      Buffer.from("377abcaf271c0004", "hex"),
    ]) {
      expect(await codeOf(craft({ name: "photo.jpg", data }))).toBe("nested_archive");
      expect(await codeOf(craft({ name: "photo.jpg", data, deflate: true }))).toBe("nested_archive");
    }
  });

  test("sizes are held to the limits, one by one and in all, by the directory", async () => {
    const data = randomBytes(1_000);
    const two = craft({ name: "1", data }, { name: "2", data });
    const mixed = craft({ name: "1", data }, { name: "2", data: randomBytes(1_001) }, { name: "3", data });
    const least = { ...LIMITS, maxEntryBytes: 1_000, maxTotalBytes: 2_000 };
    expect(await fatesOf(mixed, least)).toEqual(["read", "entry_too_large", "read"]);
    expect(await codeOf(two, { ...LIMITS, maxTotalBytes: 1_999 })).toBe("total_too_large");
    expect(await all(await fileOf(two), { maxEntries: 2, maxEntryBytes: 1_000, maxTotalBytes: 2_000 })).toHaveLength(2);
  });

  test("a bomb is refused: that says so, that lies about its size, and that shares its bytes", async () => {
    const data = Buffer.alloc(9_000_000);
    expect(await codeOf(craft({ name: "honest.jpg", data, deflate: true }))).toBe("bomb");
    const memory = process.memoryUsage.rss();
    const liar = craft({ name: "1.jpg" }, { name: "liar.jpg", data, deflate: true, size: 50_000 }, { name: "3.jpg" });
    expect(await fatesOf(liar)).toEqual(["read", "entry_too_large", "read"]);
    expect(process.memoryUsage.rss() - memory).toBeLessThan(30_000_000);
    const shared = Array.from({ length: 50 }, (_, i) => ({
      name: `${i}.jpg`,
      data: randomBytes(9_000),
      shared: i > 0,
    }));
    expect(await codeOf(craft(...shared))).toBe("bomb");
  });

  test("bytes that are not those that were packed are corrupt, and the others are read all the same", async () => {
    const data = randomBytes(2_000);
    for (const bad of [
      { data, crc: 1 },
      { data, size: 2_001 },
      { data, size: 2_001, deflate: true },
      { data, method: 8 },
    ]) {
      const zip = craft({ name: "1.jpg" }, { name: "2.jpg", ...bad }, { name: "3.jpg", deflate: true });
      expect(await fatesOf(zip), JSON.stringify({ ...bad, data: null })).toEqual(["read", "corrupt", "read"]);
    }
  });

  test("bytes changed at random end in files or a refusal, never in anything else", async () => {
    const original = craft(
      { name: "1.jpg", data: randomBytes(300), deflate: true },
      { name: "2.jpg", data: randomBytes(300) },
    );
    let random = 42;
    const next = (below: number) => {
      random = (random * 1_103_515_245 + 12_345) % 2_147_483_648;
      return random % below;
    };
    for (let i = 0; i < 300; i++) {
      const bytes = Buffer.from(original);
      for (let flips = 0; flips < 4; flips++) bytes[next(bytes.length)] = next(256);
      const outcome = await fatesOf(bytes).catch((reason: unknown) => reason);
      if (outcome instanceof Error) expect(outcome).toBeInstanceOf(ArchiveRefused);
    }
  });

  test("a reader that leaves early closes the file", async () => {
    const path = await fileOf(craft({ name: "1.jpg" }, { name: "2.jpg" }));
    const open = async () => (await readdir("/proc/self/fd").catch(() => [])).length;
    const before = await open();
    for (let i = 0; i < 20; i++) for await (const { name } of readArchive(path, LIMITS)) if (name === "1.jpg") break;
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect((await open()) - before).toBeLessThan(10);
  });
});

/** A tar entry; `size` where it lies. */
function tarEntry(
  name: string,
  data: Buffer | string = "",
  options: { type?: string; prefix?: string; size?: number } = {},
) {
  const bytes = Buffer.from(data);
  const header = Buffer.alloc(512);
  header.write(name, 0, 100);
  header.write("0000644\0", 100);
  header.write(`${(options.size ?? bytes.length).toString(8).padStart(11, "0")}\0`, 124);
  header.write("        ", 148);
  header.write(options.type ?? "0", 156);
  header.write("ustar\u000000", 257, "latin1");
  header.write(options.prefix ?? "", 345, 155);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return Buffer.concat([header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}

const tarOf = (...entries: Buffer[]) => Buffer.concat([...entries, Buffer.alloc(1_024)]);
const lora = (name: string) => name.endsWith("lora.safetensors");

describe("a trained model's tar", () => {
  const model = randomBytes(700_001);
  const sha256 = createHash("sha256").update(model).digest("hex");

  test.each<[string, string, Buffer[]]>([
    ["plain", "lora.safetensors", [tarEntry("lora.safetensors", model)]],
    [
      "after others",
      "out/lora.safetensors",
      [
        tarEntry("out/", "", { type: "5" }),
        tarEntry("out/config.yaml", "steps: 1000"),
        tarEntry("out/lora.safetensors", "/etc/passwd", { type: "2", size: 0 }).subarray(0, 512),
        tarEntry("out/lora.safetensors", model),
        tarEntry("later/lora.safetensors", "another"),
      ],
    ],
    ["with a prefix", "deep/folder/lora.safetensors", [tarEntry("lora.safetensors", model, { prefix: "deep/folder" })]],
    [
      "with a long name of GNU",
      `${"x/".repeat(80)}lora.safetensors`,
      [tarEntry("././@LongLink", `${"x/".repeat(80)}lora.safetensors\0`, { type: "L" }), tarEntry("x/x/x", model)],
    ],
    [
      "with a pax header",
      "ü/lora.safetensors",
      [
        tarEntry("pax_global_header", "19 comment=ignored\n", { type: "g" }),
        tarEntry("PaxHeader", pax("path", "ü/lora.safetensors") + pax("size", String(model.length)), { type: "x" }),
        tarEntry("short", model, { size: 0 }),
      ],
    ],
  ])("gives its LoRA: %s", async (_how, name, entries) => {
    const to = fresh("safetensors");
    const found = await extractFromTar(await fileOf(tarOf(...entries)), lora, to, { maxBytes: 1_000_000 });
    expect(found).toEqual({ name, bytes: model.length, sha256 });
    expect((await readFile(to)).equals(model)).toBe(true);
  });

  test("without a match gives null, and makes no file", async () => {
    const to = fresh("safetensors");
    expect(await extractFromTar(await fileOf(tarOf(tarEntry("a", "b"))), lora, to, { maxBytes: 100 })).toBeNull();
    await expect(stat(to)).rejects.toThrow("ENOENT");
  });

  test("is refused where it is none, is cut off, lies or is too large", async () => {
    const good = tarOf(tarEntry("config", "x"), tarEntry("lora.safetensors", model));
    const broken = Buffer.from(good);
    broken[1_024 + 5] = 0x41;
    for (const [bytes, code] of [
      [Buffer.from("text"), "not_a_tar"],
      [Buffer.alloc(0), "not_a_tar"],
      [gzipSync(good), "not_a_tar"],
      [randomBytes(10_000), "not_a_tar"],
      [broken, "corrupt"],
      [good.subarray(0, 500_000), "corrupt"],
      [tarOf(tarEntry("lora.safetensors", "x", { size: 1e9 })), "corrupt"],
      [tarOf(tarEntry("h", "99 path=lora.safetensors\n", { type: "x" }), tarEntry("y", "x")), "corrupt"],
      [tarOf(tarEntry("lora.safetensors", Buffer.alloc(1_000_001))), "entry_too_large"],
    ] as const) {
      const to = fresh("safetensors");
      const error = await refusal(extractFromTar(await fileOf(bytes), lora, to, { maxBytes: 1_000_000 }));
      expect(error.code).toBe(code);
      await expect(stat(to)).rejects.toThrow("ENOENT");
    }
  });
});

function pax(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const length = Buffer.byteLength(rest);
  return `${length + String(length + 2).length}${rest}`;
}

function safetensors(header: unknown, data: Buffer): Buffer {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

describe("safetensors", () => {
  const tensor = (begin: number, end: number, more: object = {}) => ({
    dtype: "F16",
    shape: [(end - begin) / 2],
    data_offsets: [begin, end],
    ...more,
  });
  const data = Buffer.alloc(16);

  test("that are whole pass", async () => {
    const header = { __metadata__: { format: "pt" }, b: tensor(8, 16), a: tensor(0, 8, { shape: [2, 2] }) };
    await expect(checkSafetensors(await fileOf(safetensors(header, data)))).resolves.toBeUndefined();
    const spaced = `${JSON.stringify({ a: tensor(0, 16) })}      `;
    await expect(checkSafetensors(await fileOf(safetensors(spaced, data)))).resolves.toBeUndefined();
    const unknown = { a: { dtype: "F4_NEW", shape: [32], data_offsets: [0, 16] } };
    await expect(checkSafetensors(await fileOf(safetensors(unknown, data)))).resolves.toBeUndefined();
  });

  test("that are not are refused", async () => {
    const long = safetensors({ a: tensor(0, 16) }, data);
    long.writeBigUInt64LE(200_000_000n);
    for (const [bytes, code] of [
      [Buffer.from("short"), "not_safetensors"],
      [Buffer.from("<!doctype html><html>an error page</html>"), "not_safetensors"],
      [long, "not_safetensors"],
      [safetensors("{", data), "not_safetensors"],
      [safetensors("[]", data), "not_safetensors"],
      [safetensors({ __metadata__: {} }, data), "not_safetensors"],
      [safetensors({ a: { dtype: "F16" } }, data), "not_safetensors"],
      [safetensors({ a: tensor(0, 16, { shape: [9] }) }, data), "not_safetensors"],
      [safetensors({ a: tensor(0, 16, { data_offsets: [16, 0] }) }, data), "not_safetensors"],
      [safetensors({ a: tensor(0, 10), b: tensor(8, 16) }, data), "not_safetensors"],
      [safetensors({ a: tensor(0, 6), b: tensor(8, 16) }, data), "not_safetensors"],
      [safetensors({ a: tensor(0, 16) }, data.subarray(1)), "corrupt"],
      [safetensors({ a: tensor(0, 16) }, Buffer.alloc(17)), "corrupt"],
      [safetensors({ a: tensor(0, 16) }, data).subarray(0, 40), "corrupt"],
    ] as const) {
      expect((await refusal(checkSafetensors(await fileOf(bytes)))).code).toBe(code);
    }
  });
});
