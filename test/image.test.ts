import { createHash } from "node:crypto";
import { crc32, deflateSync } from "node:zlib";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import { type ImageLimits, ImageRefused, inspectImage, sniff, thumbnail } from "../src/storage/image.ts";

const LIMITS: ImageLimits = { maxBytes: 20_000_000, maxPixels: 40_000_000 };

/** Noise, because it compresses to the size of a real photo. */
function photo(width = 320, height = 240) {
  return sharp({
    create: { width, height, channels: 3, background: "#888", noise: { type: "gaussian", mean: 128, sigma: 40 } },
  });
}

async function refusal(work: Promise<unknown>): Promise<ImageRefused> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (error instanceof ImageRefused) return error;
  throw new Error(`Expected an ImageRefused, got ${String(error)}`);
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const frame = Buffer.alloc(8);
  frame.writeUInt32BE(data.length, 0);
  frame.writeUInt32BE(crc32(body), 4);
  return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
}

/** A PNG of one bit per pixel, as large as it says when `rows` are there, and tiny as a file. */
function flatPng(width: number, height: number, rows = height): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([1, 0, 0, 0, 0], 8);
  const pixels = deflateSync(Buffer.alloc((1 + Math.ceil(width / 8)) * rows), { level: 9 });
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", Buffer.alloc(0))]);
}

async function animated(format: "gif" | "webp"): Promise<Buffer> {
  const frames = await Promise.all(["#f00", "#0f0", "#00f"].map((background) => flat(background)));
  return sharp(frames, { join: { animated: true } })
    .toFormat(format)
    .toBuffer();
}

function flat(background: string) {
  return sharp({ create: { width: 64, height: 48, channels: 3, background } })
    .png()
    .toBuffer();
}

describe("sniffing", () => {
  test("knows what is on the list by its bytes", async () => {
    for (const [format, contentType, extension] of [
      ["jpeg", "image/jpeg", "jpg"],
      ["png", "image/png", "png"],
      ["webp", "image/webp", "webp"],
      ["gif", "image/gif", "gif"],
    ] as const) {
      expect(await sniff(await photo().toFormat(format).toBuffer())).toEqual({ contentType, extension });
    }
    const mp4 = Buffer.from("00000020667479706d703432000000006d70343269736f6d", "hex");
    expect(await sniff(Buffer.concat([mp4, Buffer.alloc(64)]))).toEqual({ contentType: "video/mp4", extension: "mp4" });
    const webm = Buffer.from("1a45dfa39f4286810142f7810142f2810442f381084282847765626d", "hex");
    expect(await sniff(webm)).toEqual({ contentType: "video/webm", extension: "webm" });
    const emptyZip = Buffer.concat([Buffer.from("504b0506", "hex"), Buffer.alloc(18)]);
    expect(await sniff(emptyZip)).toEqual({ contentType: "application/zip", extension: "zip" });
    expect(await sniff(storedZip("photos/1.jpg", await photo(64, 64).jpeg().toBuffer()))).toEqual({
      contentType: "application/zip",
      extension: "zip",
    });
  });

  test.each<[string, string]>([
    ["HTML", "<!doctype html><script>alert(1)</script>"],
    ["SVG", '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'],
    ["SVG behind an XML declaration", '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'],
    ["PDF", "%PDF-1.7\n"],
    ["a script", "#!/bin/sh\nrm -rf /\n"],
    ["an executable", "\u007fELF\u0002\u0001\u0001"],
    ["text", "hello"],
    ["nothing", ""],
  ])("does not know %s", async (_what, text) => {
    const bytes = Buffer.from(text);
    expect(await sniff(bytes)).toBeNull();
    expect((await refusal(inspectImage(bytes, LIMITS))).code).toBe("not_an_image");
    expect((await refusal(thumbnail(bytes))).code).toBe("not_an_image");
  });

  test("does not know picture formats that are not on the list", async () => {
    for (const format of ["tiff", "avif"] as const) {
      expect(await sniff(await photo(64, 64).toFormat(format).toBuffer())).toBeNull();
    }
  });
});

describe("inspecting", () => {
  test.each(["jpeg", "png", "webp", "gif"] as const)("a %s gives its facts", async (format) => {
    const bytes = await photo(320, 240).toFormat(format).toBuffer();
    expect(await inspectImage(bytes, LIMITS)).toEqual({
      contentType: `image/${format}`,
      extension: format === "jpeg" ? "jpg" : format,
      width: 320,
      height: 240,
      pages: 1,
      sha256: createHash("sha256").update(bytes).digest("hex"),
      bytes: bytes.length,
    });
  });

  test("the sides are those seen, after the camera's orientation", async () => {
    for (let orientation = 1; orientation <= 8; orientation++) {
      const bytes = await photo(120, 80).jpeg().withMetadata({ orientation }).toBuffer();
      const { width, height } = await inspectImage(bytes, LIMITS);
      expect([width, height], `orientation ${orientation}`).toEqual(orientation >= 5 ? [80, 120] : [120, 80]);
    }
  });

  test("a CMYK, a grey, a 16-bit, an interlaced and a see-through picture are fine", async () => {
    for (const bytes of await Promise.all([
      photo().toColourspace("cmyk").jpeg().toBuffer(),
      photo().greyscale().jpeg().toBuffer(),
      photo().jpeg({ progressive: true }).toBuffer(),
      photo().toColourspace("rgb16").png().toBuffer(),
      photo().png({ progressive: true }).toBuffer(),
      photo().ensureAlpha(0.5).webp({ lossless: true }).toBuffer(),
    ])) {
      expect(await inspectImage(bytes, LIMITS)).toMatchObject({ width: 320, height: 240 });
    }
  });

  test.each([
    ["a jpeg", () => photo().jpeg()],
    ["a progressive jpeg", () => photo().jpeg({ progressive: true })],
    ["a png", () => photo().png()],
    ["an interlaced png", () => photo().png({ progressive: true })],
    ["a webp", () => photo().webp()],
    ["a gif", () => photo().gif({ effort: 1 })],
  ])("%s that is cut off anywhere is corrupt", async (_what, make) => {
    const bytes = await make().toBuffer();
    // From the last 20 bytes on: a PNG without its empty end marker still has all its pixels.
    for (const length of [bytes.length * 0.1, bytes.length * 0.5, bytes.length * 0.99, bytes.length - 20]) {
      const error = await refusal(inspectImage(bytes.subarray(0, Math.floor(length)), LIMITS));
      expect(error.code).toBe("corrupt");
      expect(error.message).toContain("send the whole file");
    }
  });

  test("a header with nothing behind it is corrupt", async () => {
    const bytes = await photo().png().toBuffer();
    for (const length of [8, 16, 33]) {
      expect(["corrupt", "not_an_image"]).toContain(
        (await refusal(inspectImage(bytes.subarray(0, length), LIMITS))).code,
      );
    }
  });

  test("a file over the limit is refused unread", async () => {
    const error = await refusal(inspectImage(Buffer.alloc(101), { ...LIMITS, maxBytes: 100 }));
    expect(error.code).toBe("too_many_bytes");
    expect(error.message).toMatch(/101 bytes; at most 100 .*Send it smaller/);
  });

  test("a picture that claims 50,000 × 50,000 in a hundred bytes is refused by its header", async () => {
    const bomb = flatPng(50_000, 50_000, 1);
    expect(bomb.length).toBeLessThan(200);
    const error = await refusal(inspectImage(bomb, LIMITS));
    expect(error.code).toBe("too_many_pixels");
    expect(error.message).toMatch(/50000 × 50000 pixels; at most 40000000 .*scaled down/);
    expect((await refusal(thumbnail(bomb))).code).toBe("too_many_pixels");
  });

  test("a true picture of 20,000 × 20,000 in 60 kB is refused before it is decoded", async () => {
    const bomb = flatPng(20_000, 20_000);
    expect(bomb.length).toBeLessThan(100_000);
    const memory = process.memoryUsage().rss;
    const before = performance.now();
    expect((await refusal(inspectImage(bomb, LIMITS))).code).toBe("too_many_pixels");
    expect((await refusal(thumbnail(bomb))).code).toBe("too_many_pixels");
    expect(performance.now() - before).toBeLessThan(300);
    expect(process.memoryUsage().rss - memory).toBeLessThan(50_000_000);
  });

  test("the same bomb within the limit is decoded row by row, not held in memory", async () => {
    const large = flatPng(20_000, 20_000);
    const memory = process.resourceUsage().maxRSS;
    expect(await inspectImage(large, { ...LIMITS, maxPixels: 400_000_000 })).toMatchObject({ width: 20_000 });
    expect((process.resourceUsage().maxRSS - memory) / 1024).toBeLessThan(150);
  });

  test("frames count as pixels, and more than one needs permission", async () => {
    for (const format of ["gif", "webp"] as const) {
      const bytes = await animated(format);
      const error = await refusal(inspectImage(bytes, LIMITS));
      expect(error.code).toBe("animated");
      expect(error.message).toMatch(/3 frames; at most 1 .*single frame/);
      expect(await inspectImage(bytes, { ...LIMITS, maxPages: 3 })).toMatchObject({ width: 64, height: 48, pages: 3 });
      const tight = { ...LIMITS, maxPages: 3, maxPixels: 64 * 48 * 2 };
      expect((await refusal(inspectImage(bytes, tight))).code).toBe("too_many_pixels");
      for (let length = 100; length < bytes.length; length += 1) {
        const error = await refusal(inspectImage(bytes.subarray(0, length), { ...LIMITS, maxPages: 3 }));
        expect(error.code, `${format} ${length} of ${bytes.length}`).toBe("corrupt");
      }
    }
  });

  test("sides have limits of their own", async () => {
    const bytes = await photo(600, 100).png().toBuffer();
    expect(await refusal(inspectImage(bytes, { ...LIMITS, minSide: 101 }))).toMatchObject({
      code: "too_small",
      message: expect.stringContaining("at least 101"),
    });
    expect((await refusal(inspectImage(bytes, { ...LIMITS, maxSide: 599 }))).code).toBe("too_many_pixels");
    expect(await inspectImage(bytes, { ...LIMITS, minSide: 100, maxSide: 600 })).toMatchObject({ width: 600 });
  });

  test("bytes changed at random end in facts or in a refusal, never in anything else", async () => {
    const originals = await Promise.all(
      (["jpeg", "png", "webp", "gif"] as const).map((format) => photo(64, 64).toFormat(format).toBuffer()),
    );
    let random = 42;
    const next = (below: number) => {
      random = (random * 1_103_515_245 + 12_345) % 2_147_483_648;
      return random % below;
    };
    for (let i = 0; i < 400; i++) {
      const bytes = Buffer.from(originals[i % originals.length] ?? []);
      for (let flips = 0; flips < 8; flips++) bytes[next(i % 2 ? 100 : bytes.length)] = next(256);
      const outcome = await inspectImage(bytes, LIMITS).catch((reason: unknown) => reason);
      if (outcome instanceof Error) expect(outcome).toBeInstanceOf(ImageRefused);
    }
  });
});

describe("thumbnails", () => {
  test.each([
    [1000, 500, 320, 160],
    [500, 1000, 160, 320],
    [200, 100, 200, 100],
    [4000, 4, 320, 1],
  ])("of %i × %i are %i × %i WebP", async (width, height, smallWidth, smallHeight) => {
    const small = await thumbnail(await photo(width, height).png().toBuffer());
    expect(small).toMatchObject({ width: smallWidth, height: smallHeight, contentType: "image/webp" });
    const read = await sharp(small.bytes).metadata();
    expect([read.format, read.width, read.height]).toEqual(["webp", smallWidth, smallHeight]);
  });

  test("stand upright and tell nothing about the photographer", async () => {
    const bytes = await photo(600, 400)
      .withExif({ IFD0: { Artist: "Someone", Copyright: "secret" }, IFD3: { GPSLatitude: "52/1 30/1 0/1" } })
      .withMetadata({ orientation: 6 })
      .jpeg()
      .toBuffer();
    const small = await thumbnail(bytes);
    expect([small.width, small.height]).toEqual([213, 320]);
    const read = await sharp(small.bytes).metadata();
    expect([read.exif, read.xmp, read.iptc, read.orientation]).toEqual([undefined, undefined, undefined, undefined]);
    expect(small.bytes.includes("Someone")).toBe(false);
  });

  test("of CMYK are in sRGB, of an animation its first frame", async () => {
    const small = await thumbnail(await photo().toColourspace("cmyk").jpeg().toBuffer());
    expect((await sharp(small.bytes).metadata()).space).toBe("srgb");
    const first = await thumbnail(await animated("gif"));
    const { dominant } = await sharp(first.bytes).stats();
    expect([(await sharp(first.bytes).metadata()).pages ?? 1, dominant.r > 200, dominant.b < 50]).toEqual([
      1,
      true,
      true,
    ]);
  });

  test("of a damaged picture are refused", async () => {
    const bytes = await photo().jpeg().toBuffer();
    expect((await refusal(thumbnail(bytes.subarray(0, bytes.length / 2)))).code).toBe("corrupt");
  });

  test("a crowd is served in turn, and a refusal gives its place back", async () => {
    const good = await photo(300, 300).jpeg().toBuffer();
    const bad = good.subarray(0, 3_000);
    const outcomes = await Promise.allSettled(Array.from({ length: 40 }, (_, i) => thumbnail(i % 2 ? bad : good)));
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(20);
    expect((await thumbnail(good)).width).toBe(300);
  });
});

/** One file, not compressed, as training sets are packed. */
function storedZip(name: string, data: Buffer): Buffer {
  const fields = Buffer.alloc(26);
  fields.writeUInt16LE(20, 0);
  fields.writeUInt32LE(crc32(data), 10);
  fields.writeUInt32LE(data.length, 14);
  fields.writeUInt32LE(data.length, 18);
  fields.writeUInt16LE(name.length, 22);
  const local = Buffer.concat([Buffer.from("504b0304", "hex"), fields, Buffer.from(name), data]);
  const central = Buffer.concat([Buffer.from("504b01021400", "hex"), fields, Buffer.alloc(14), Buffer.from(name)]);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(1, 4);
  end.writeUInt16LE(1, 6);
  end.writeUInt32LE(central.length, 8);
  end.writeUInt32LE(local.length, 12);
  return Buffer.concat([local, central, Buffer.from("504b0506", "hex"), end]);
}
