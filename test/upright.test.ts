import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { inspectImage } from "../src/storage/image.ts";
import { uprightOf } from "../src/storage/upright.ts";
import { photo } from "./rig/pictures.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

const LIMITS = { maxBytes: 40_000_000, maxPixels: 50_000_000 };

/** A picture that is 300 wide and 200 high to who looks at it. */
async function lying(): Promise<Buffer> {
  const upright = await sharp({ create: { width: 300, height: 200, channels: 3, background: "#808080" } })
    .composite([{ input: { create: { width: 150, height: 200, channels: 3, background: "#f00" } }, left: 0, top: 0 }])
    .png()
    .toBuffer();
  return sharp(upright).rotate(-90).withMetadata({ orientation: 6 }).jpeg({ quality: 95 }).toBuffer();
}

const seen = async (bytes: Buffer) => uprightOf(bytes, await inspectImage(bytes, LIMITS), LIMITS.maxPixels);

describe("a picture as a person sees it", () => {
  test("one that the camera held on its side is turned, and loses the note that says so", async () => {
    const upright = await seen(await lying());
    const { width, height, orientation = 1 } = await sharp(upright?.bytes).metadata();
    expect([width, height, orientation]).toEqual([300, 200, 1]);
    const { dominant } = await sharp(upright?.bytes).extract({ left: 20, top: 20, width: 60, height: 100 }).stats();
    expect(dominant.r).toBeGreaterThan(200);
    expect(dominant.g).toBeLessThan(60);
  });

  test("one in CMYK comes in sRGB, and the same bytes give the same bytes", async () => {
    const cmyk = await sharp(await photo(640))
      .toColourspace("cmyk")
      .jpeg()
      .toBuffer();
    expect((await sharp(cmyk).metadata()).space).toBe("cmyk");
    const [upright, again] = [await seen(cmyk), await seen(cmyk)];
    expect((await sharp(upright?.bytes).metadata()).space).toBe("srgb");
    expect(upright?.bytes.equals(again?.bytes ?? Buffer.alloc(0))).toBe(true);
  });

  test("one of a wide gamut, as phones take them, shows the same colours in sRGB", async () => {
    const [wide, plain] = await Promise.all(
      (["p3", "srgb"] as const).map((profile) =>
        sharp({ create: { width: 64, height: 64, channels: 3, background: "#00ff00" } })
          .withIccProfile(profile)
          .png()
          .toBuffer(),
      ),
    );
    if (!wide || !plain) throw new Error("two pictures were made");
    const numbers = (bytes: Buffer) => sharp(bytes).keepIccProfile().raw().toBuffer();
    expect([...(await numbers(wide)).subarray(0, 3)]).toEqual([117, 251, 76]);
    const [red = 255, green = 0, blue = 255] = await numbers((await seen(wide))?.bytes ?? wide);
    expect(green - Math.max(red, blue)).toBeGreaterThan(240);
    expect(await seen(plain)).toBeNull();
  });

  test("one that is upright already stays the file that it is", async () => {
    expect(await seen(await photo(640))).toBeNull();
  });
});

describe("what a provider is given", () => {
  let spine: Spine;
  beforeAll(async () => {
    spine = await startSpine();
  });
  afterAll(() => spine.stop());

  test("is the upright picture, and the caller's own file stays as it came", async () => {
    const bytes = await lying();
    const uploaded = await spine.call("POST", "/api/uploads", {
      body: bytes,
      headers: { "content-type": "image/jpeg" },
    });
    expect(uploaded.body).toMatchObject({ width: 300, height: 200 });
    const job = await spine.submit({
      kind: "edit",
      user: "ann",
      input: { image: uploaded.body.id, instruction: "make it night" },
    });
    expect((await spine.ended(job.id)).status).toBe("completed");

    const [run] = await spine.sql`select input from runs where job_id = ${job.id}`;
    const given = Buffer.from(await (await fetch(run?.["input"].input_image)).arrayBuffer());
    const { width, height, orientation = 1 } = await sharp(given).metadata();
    expect([width, height, orientation]).toEqual([300, 200, 1]);
    const [asset] = await spine.sql`select sha256 from assets where id = ${uploaded.body.id}`;
    expect(asset?.["sha256"].toString("hex")).toBe((await inspectImage(bytes, LIMITS)).sha256);
  });
});
