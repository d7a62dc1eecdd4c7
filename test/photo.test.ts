import { createHash } from "node:crypto";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import { ImageRefused } from "../src/storage/image.ts";
import { judgePhoto, normalizePhoto, type PhotoFacts, type PhotoVerdict } from "../src/storage/photo.ts";
import { detectTask, duplicatesOf, setQuality } from "../src/storage/photo-set.ts";

const LIMITS = { maxBytes: 50_000_000, maxPixels: 40_000_000 };

/** A scene of shapes, the same for the same seed: sharp edges, many colours, no skin. */
function scene(seed: number, width = 1024, height = 1024, contrast = 255): Buffer {
  let random = seed;
  const next = (below: number) => {
    random = (random * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((random / 2_147_483_648) * below);
  };
  const colour = () => `rgb(${[0, 0, 0].map(() => Math.round(128 - contrast / 2) + next(contrast)).join(",")})`;
  const shapes = Array.from({ length: 30 }, (_, i) =>
    i % 2
      ? `<circle cx="${next(width)}" cy="${next(height)}" r="${10 + next(width / 5)}" fill="${colour()}"/>`
      : `<rect x="${next(width)}" y="${next(height)}" width="${10 + next(width / 4)}" height="${10 + next(height / 4)}" fill="${colour()}"/>`,
  );
  return drawing(width, height, `<rect width="100%" height="100%" fill="rgb(120,130,140)"/>${shapes.join("")}`);
}

function portrait(skin: string, width = 1024, height = 1024): Buffer {
  const at = (x: number, y: number) => `cx="${x * width}" cy="${y * height}"`;
  return drawing(
    width,
    height,
    `<rect width="100%" height="100%" fill="#9db4c8"/><rect x="15%" y="5%" width="70%" height="35%" fill="#432"/>
     <ellipse ${at(0.5, 0.5)} rx="28%" ry="36%" fill="${skin}"/><circle ${at(0.4, 0.42)} r="3%" fill="#222"/>
     <circle ${at(0.6, 0.42)} r="3%" fill="#222"/><rect x="42%" y="66%" width="16%" height="3%" fill="#a33"/>`,
  );
}

function drawing(width: number, height: number, content: string): Buffer {
  return Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${content}</svg>`);
}

const jpeg = (svg: Buffer) => sharp(svg).jpeg({ quality: 90 }).toBuffer();
const codes = (remarks: PhotoVerdict["problems"] | PhotoVerdict["notes"]) => remarks.map(({ code }) => code);

async function factsOf(bytes: Buffer): Promise<PhotoFacts> {
  const { facts } = await judgePhoto(bytes, LIMITS);
  if (!facts) throw new Error("Expected facts");
  return facts;
}

describe("a photo", () => {
  test("that is good has facts, no problems and nothing to note", async () => {
    const bytes = await jpeg(scene(1, 1600, 1200));
    expect(await judgePhoto(bytes, LIMITS)).toEqual({
      ok: true,
      problems: [],
      notes: [],
      facts: {
        sha256: createHash("sha256").update(bytes).digest("hex"),
        contentType: "image/jpeg",
        extension: "jpg",
        width: 1600,
        height: 1200,
        bytes: bytes.length,
        sharpness: expect.any(Number),
        dhash: expect.stringMatching(/^[0-9a-f]{16}$/),
        skin: expect.any(Number),
      },
    });
  });

  test("that is none, is cut off, is too large or moves is refused without facts, and never thrown", async () => {
    const whole = await jpeg(scene(1));
    const frames = await Promise.all(
      [1, 2].map((seed) =>
        sharp(scene(seed, 300, 300))
          .png()
          .toBuffer(),
      ),
    );
    const moving = await sharp(frames, { join: { animated: true } })
      .gif()
      .toBuffer();
    const empty = await sharp({ create: { width: 7_000, height: 7_000, channels: 3, background: "#fff" } })
      .png()
      .toBuffer();
    for (const [bytes, code, words] of [
      [Buffer.from("not a picture"), "not_an_image", "Save it as one of these"],
      [Buffer.alloc(0), "not_an_image", "Save it as one of these"],
      [whole.subarray(0, whole.length / 2), "corrupt", "send the whole file"],
      [Buffer.alloc(LIMITS.maxBytes + 1), "too_many_bytes", "at most 50000000"],
      [empty, "too_many_pixels", "7000 × 7000"],
      [moving, "animated", "single frame"],
    ] as const) {
      const verdict = await judgePhoto(bytes, LIMITS);
      expect(verdict, code).toMatchObject({ ok: false, notes: [], facts: null, problems: [{ code }] });
      expect(verdict.problems[0]?.detail).toContain(words);
    }
  });

  test("of less than 256 pixels is too small, of less than 512 it is small", async () => {
    const tiny = await judgePhoto(await jpeg(scene(1, 800, 255)), LIMITS);
    expect([tiny.ok, codes(tiny.problems), tiny.facts?.height]).toEqual([false, ["too_small"], 255]);
    expect(tiny.problems[0]?.detail).toContain("at least 256");
    const small = await judgePhoto(await jpeg(scene(1, 800, 256)), LIMITS);
    expect([small.ok, codes(small.notes)]).toEqual([true, ["small"]]);
    const own = await judgePhoto(await jpeg(scene(1, 800, 600)), { ...LIMITS, minSide: 601 });
    expect(codes(own.problems)).toEqual(["too_small"]);
  });

  test("in CMYK, on its side or see-through is taken, with a note of what is repaired", async () => {
    const cmyk = await sharp(scene(1)).toColourspace("cmyk").jpeg().toBuffer();
    expect((await judgePhoto(cmyk, LIMITS)).notes).toEqual([
      { code: "cmyk", detail: expect.stringContaining("converted to sRGB") },
    ]);
    const through = await sharp(scene(1)).ensureAlpha(0.5).png().toBuffer();
    expect(codes((await judgePhoto(through, LIMITS)).notes)).toEqual(["alpha"]);
    for (let orientation = 1; orientation <= 8; orientation++) {
      const turned = await sharp(scene(1, 900, 600))
        .withMetadata({ orientation })
        .jpeg()
        .toBuffer();
      const { ok, notes, facts } = await judgePhoto(turned, LIMITS);
      expect([ok, codes(notes)], `orientation ${orientation}`).toEqual([true, orientation === 1 ? [] : ["rotated"]]);
      expect([facts?.width, facts?.height]).toEqual(orientation >= 5 ? [600, 900] : [900, 600]);
    }
  });

  test("of one colour is blank, with the noise of a camera too", async () => {
    const noise = { type: "gaussian", mean: 128, sigma: 2 } as const;
    const flat = { width: 600, height: 600, channels: 3, background: "#777" } as const;
    for (const create of [flat, { ...flat, noise }]) {
      expect(codes((await judgePhoto(await sharp({ create }).png().toBuffer(), LIMITS)).problems)).toEqual(["blank"]);
    }
  });
});

describe("sharpness", () => {
  const scenes: [string, Buffer][] = [
    ["shapes", scene(1)],
    ["other shapes", scene(7, 1400, 1000)],
    ["weak contrast", scene(3, 1024, 1024, 90)],
    ["a pale face", portrait("#f3d5c5")],
    ["a dark face", portrait("#6b4530")],
  ];
  test.each(scenes)("tells %s from its blurred copy", async (_name, svg) => {
    const sharpOne = await judgePhoto(await jpeg(svg), LIMITS);
    expect([sharpOne.ok, codes(sharpOne.problems)]).toEqual([true, []]);
    for (const sigma of [4, 6, 10]) {
      const blurred = await sharp(await sharp(svg).png().toBuffer())
        .blur(sigma)
        .jpeg()
        .toBuffer();
      const { problems, facts } = await judgePhoto(blurred, LIMITS);
      expect(codes(problems), `sigma ${sigma}: ${facts?.sharpness}`).toEqual(["blurred"]);
      expect((sharpOne.facts?.sharpness ?? 0) / (facts?.sharpness ?? 1)).toBeGreaterThan(5);
    }
  });

  test("of a face before a soft background is that of the face", async () => {
    const background = await sharp(await jpeg(scene(1)))
      .blur(20)
      .toBuffer();
    const face = await sharp(portrait("#e0ac8a", 400, 400))
      .png()
      .toBuffer();
    const photo = await sharp(background)
      .composite([{ input: face, left: 300, top: 300 }])
      .jpeg()
      .toBuffer();
    expect((await judgePhoto(photo, LIMITS)).ok).toBe(true);
    expect((await judgePhoto(background, LIMITS)).ok).toBe(false);
  });
});

describe("duplicates", () => {
  test("are found by bytes and by sight: smaller, recompressed, brighter, noted as turned", async () => {
    const original = await jpeg(scene(5, 1200, 900));
    const upright = sharp(original);
    const photos = await Promise.all([
      original,
      original,
      upright.clone().resize(700).jpeg({ quality: 40 }).toBuffer(),
      upright.clone().modulate({ brightness: 1.05 }).webp().toBuffer(),
      upright.clone().rotate(-90).withMetadata({ orientation: 6 }).png().toBuffer(),
      jpeg(scene(6, 1200, 900)),
      upright.clone().flop().jpeg().toBuffer(),
    ]);
    const facts = await Promise.all(photos.map(factsOf));
    expect([...duplicatesOf(facts)]).toEqual([
      [1, 0],
      [2, 0],
      [3, 0],
      [4, 0],
    ]);
  });

  test("do not chain: each is near to a photo that stays", () => {
    const facts = ["0000000000000000", "000000000000000f", "00000000000000ff", "0000000000000fff"].map(withHash);
    expect([...duplicatesOf(facts)]).toEqual([
      [1, 0],
      [3, 2],
    ]);
    expect(duplicatesOf(["0000000000000000", "000000000000001f"].map(withHash)).size).toBe(0);
    expect([...duplicatesOf(["8000000100000000", "0000000000000000"].map(withHash))]).toEqual([[1, 0]]);
  });
});

describe("a normalised photo", () => {
  test("is upright, sRGB, on white, small enough, and says nothing about the camera", async () => {
    const bytes = await sharp(scene(1, 900, 600))
      .withExif({ IFD0: { Artist: "Someone" }, IFD3: { GPSLatitude: "52/1 30/1 0/1" } })
      .withMetadata({ orientation: 6 })
      .jpeg()
      .toBuffer();
    const read = await sharp(await normalizePhoto(bytes, 450)).metadata();
    expect(read).toMatchObject({ format: "jpeg", width: 300, height: 450, space: "srgb", chromaSubsampling: "4:4:4" });
    expect([read.exif, read.icc, read.xmp, read.orientation]).toEqual([undefined, undefined, undefined, undefined]);

    const cmyk = await sharp(scene(1)).toColourspace("cmyk").jpeg().toBuffer();
    expect((await sharp(await normalizePhoto(cmyk, 4_096)).metadata()).space).toBe("srgb");

    const clear = await sharp({ create: { width: 300, height: 300, channels: 4, background: "#0000" } })
      .png()
      .toBuffer();
    const { dominant, isOpaque } = await sharp(await normalizePhoto(clear, 4_096)).stats();
    expect([dominant.r > 240, dominant.g > 240, dominant.b > 240, isOpaque]).toEqual([true, true, true, true]);
  });

  test("is never enlarged, and the same bytes give the same bytes", async () => {
    const bytes = await jpeg(scene(1, 600, 500));
    const [one, two] = await Promise.all([normalizePhoto(bytes, 4_096), normalizePhoto(bytes, 4_096)]);
    expect(one.equals(two)).toBe(true);
    expect(await sharp(one).metadata()).toMatchObject({ width: 600, height: 500 });
  });

  test("is refused where there is no whole picture", async () => {
    const bytes = await jpeg(scene(1));
    await expect(normalizePhoto(bytes.subarray(0, bytes.length / 2), 512)).rejects.toBeInstanceOf(ImageRefused);
    await expect(normalizePhoto(Buffer.from("text"), 512)).rejects.toBeInstanceOf(ImageRefused);
  });
});

describe("a set", () => {
  test("is better with more, sharper, larger and more various photos; nothing is worth nothing", () => {
    const one = withHash("0f0f0f0f0f0f0f0f");
    const various = Array.from({ length: 20 }, (_, i) =>
      withHash(createHash("sha256").update(String(i)).digest("hex").slice(0, 16)),
    );
    expect(setQuality([])).toBe(0);
    // 30/20 for one photo, full sharpness and size, no variety.
    expect(setQuality([one])).toBe(52);
    expect(setQuality(various)).toBe(100);
    expect(setQuality(Array.from({ length: 20 }, () => one))).toBe(80);
    expect(setQuality(various.map((photo) => ({ ...photo, sharpness: 150 })))).toBe(88);
    expect(setQuality(various.map((photo) => ({ ...photo, width: 512 })))).toBe(88);
    expect(setQuality(various.slice(0, 10))).toBe(85);
  });

  test("of faces of all tones is a face", async () => {
    const faces = await Promise.all(
      ["#f3d5c5", "#e0ac8a", "#8d5a3a", "#6b4530"].map(async (skin) => factsOf(await jpeg(portrait(skin)))),
    );
    const guess = detectTask(faces);
    expect(guess).toMatchObject({ task: "face", because: expect.stringContaining("skin") });
    expect(guess.confidence).toBeGreaterThan(0.8);
  });

  test("of one thing is an object, of unlike pictures a style, of nothing an object nobody believes in", async () => {
    const similar = [0, 0xff, 0xff00].map((bits) => withHash(bits.toString(16).padStart(16, "0")));
    expect(detectTask(similar)).toMatchObject({ task: "object" });
    const unlike = ["00000000ffffffff", "ffffffff00000000", "0f0f0f0f0f0f0f0f", "f0f0f0f0f0f0f0f0"].map(withHash);
    expect(detectTask(unlike)).toMatchObject({ task: "style" });
    for (const { confidence } of [detectTask(similar), detectTask(unlike)]) {
      expect(confidence).toBeGreaterThanOrEqual(0.5);
      expect(confidence).toBeLessThanOrEqual(1);
    }
    expect(detectTask([])).toMatchObject({ task: "object", confidence: 0 });
  });
});

function withHash(dhash: string, index = 0): PhotoFacts {
  return {
    sha256: `${dhash}-${index}`,
    contentType: "image/jpeg",
    extension: "jpg",
    width: 1024,
    height: 1024,
    bytes: 1_000,
    sharpness: 500,
    dhash,
    skin: 0,
  };
}
