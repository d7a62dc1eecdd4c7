import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  BufferTarget,
  EncodedAudioPacketSource,
  EncodedPacket,
  EncodedVideoPacketSource,
  MkvOutputFormat,
  MovOutputFormat,
  Mp4OutputFormat,
  Output,
  type OutputFormat,
  WebMOutputFormat,
} from "mediabunny";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { inspectVideo, VideoRefused } from "../src/storage/video.ts";

const LIMITS = { maxBytes: 50_000_000, maxSeconds: 60, maxPixels: 4_000_000 };
const FRAMES = 12;

let root: string;
let frames: Buffer[];
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "darkroom-video-"));
  frames = await Promise.all(Array.from({ length: FRAMES }, (_, i) => frame(i)));
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** A lossy WebP holds one VP8 key frame. */
async function frame(index: number): Promise<Buffer> {
  const noise = { type: "gaussian", mean: 100 + index, sigma: 30 } as const;
  const webp = await sharp({ create: { width: 160, height: 120, channels: 3, background: "#888", noise } })
    .webp({ quality: 60 })
    .toBuffer();
  for (let at = 12; at < webp.length; ) {
    const length = webp.readUInt32LE(at + 4);
    if (webp.toString("latin1", at, at + 4) === "VP8 ") return webp.subarray(at + 8, at + 8 + length);
    at += 8 + length + (length & 1);
  }
  throw new Error("no VP8 in this WebP");
}

/** Ten frames a second. */
async function film(format: OutputFormat, options: { sound?: boolean; count?: number } = {}): Promise<Buffer> {
  const target = new BufferTarget();
  const output = new Output({ format, target });
  const pictures = new EncodedVideoPacketSource("vp8");
  output.addVideoTrack(pictures, { frameRate: 10 });
  const sound = new EncodedAudioPacketSource("opus");
  if (options.sound) output.addAudioTrack(sound);
  await output.start();
  const decoderConfig = { codec: "vp8", codedWidth: 160, codedHeight: 120 };
  for (const [i, data] of frames.slice(0, options.count ?? FRAMES).entries()) {
    await pictures.add(new EncodedPacket(data, "key", i / 10, 0.1), { decoderConfig });
  }
  for (let i = 0; options.sound && i < 10; i++) {
    const silence = new EncodedPacket(Buffer.from("f8fffe", "hex"), "key", i / 50, 0.02);
    await sound.add(silence, { decoderConfig: { codec: "opus", sampleRate: 48_000, numberOfChannels: 2 } });
  }
  await output.finalize();
  return Buffer.from(target.buffer ?? new ArrayBuffer(0));
}

async function refusal(work: Promise<unknown>): Promise<VideoRefused> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (error instanceof VideoRefused) return error;
  throw new Error(`Expected a VideoRefused, got ${String(error)}`);
}

const formats: [string, () => OutputFormat, "mp4" | "webm"][] = [
  ["WebM", () => new WebMOutputFormat(), "webm"],
  ["WebM of a recorder, without lengths", () => new WebMOutputFormat({ appendOnly: true }), "webm"],
  ["MP4 with its index first", () => new Mp4OutputFormat({ fastStart: "in-memory" }), "mp4"],
  ["MP4 with its index last", () => new Mp4OutputFormat({ fastStart: false }), "mp4"],
  ["MP4 in fragments", () => new Mp4OutputFormat({ fastStart: "fragmented" }), "mp4"],
];

describe.each(formats)("a %s", (name, format, extension) => {
  test("gives its facts, from bytes and from a file alike", async () => {
    const bytes = await film(format());
    const path = join(root, name);
    await writeFile(path, bytes);
    const facts = await inspectVideo(bytes, LIMITS);
    expect(facts).toEqual({
      contentType: `video/${extension}`,
      extension,
      width: 160,
      height: 120,
      seconds: 1.2,
      codec: "vp8",
      hasAudio: false,
      bytes: bytes.length,
      sha256: createHash("sha256").update(bytes).digest("hex"),
    });
    expect(await inspectVideo(path, LIMITS)).toEqual(facts);
    expect(await inspectVideo(await film(format(), { sound: true }), LIMITS)).toMatchObject({ hasAudio: true });
  });

  test("that is cut off anywhere is corrupt", async () => {
    const bytes = await film(format());
    const path = join(root, `${name}.cut`);
    for (const share of [0.05, 0.3, 0.5, 0.9, 0.99, 1 - 1 / bytes.length]) {
      const cut = bytes.subarray(0, Math.floor(bytes.length * share));
      await writeFile(path, cut);
      expect((await refusal(inspectVideo(cut, LIMITS))).code, String(share)).toBe("corrupt");
      expect((await refusal(inspectVideo(path, LIMITS))).message).toContain("send the whole file");
    }
  });

  test("is held to the limits", async () => {
    const bytes = await film(format());
    const tooLong = await refusal(inspectVideo(bytes, { ...LIMITS, maxSeconds: 1 }));
    expect([tooLong.code, tooLong.message]).toEqual(["too_long", expect.stringContaining("1.2 s long; at most 1 s")]);
    expect((await refusal(inspectVideo(bytes, { ...LIMITS, maxBytes: bytes.length - 1 }))).code).toBe("too_many_bytes");
    expect((await refusal(inspectVideo(bytes, { ...LIMITS, maxPixels: 160 * 120 - 1 }))).code).toBe("too_many_pixels");
    const exact = { maxBytes: bytes.length, maxSeconds: 1.2, maxPixels: 160 * 120 };
    expect((await inspectVideo(bytes, exact)).seconds).toBe(1.2);
  });

  test("with bytes changed at random ends in facts or a refusal, soon", async () => {
    const original = await film(format(), { count: 4 });
    let random = 42;
    const next = (below: number) => {
      random = (random * 1_103_515_245 + 12_345) % 2_147_483_648;
      return random % below;
    };
    // Each takes a thread.
    for (let i = 0; i < 24; i++) {
      const bytes = Buffer.from(original);
      for (let flips = 0; flips < 8; flips++) bytes[next(i % 2 ? 600 : bytes.length)] = next(256);
      const outcome = await inspectVideo(bytes, { ...LIMITS, timeoutMs: 5_000 }).catch((reason: unknown) => reason);
      if (outcome instanceof Error && !outcome.message.includes("not examined within")) {
        expect(outcome).toBeInstanceOf(VideoRefused);
      }
    }
  });
});

describe("what is no video of ours", () => {
  test("is refused: text, pictures, Matroska, QuickTime, nothing", async () => {
    const picture = await sharp({ create: { width: 64, height: 64, channels: 3, background: "#123" } })
      .gif()
      .toBuffer();
    for (const bytes of [
      Buffer.from("not a video"),
      Buffer.alloc(0),
      picture,
      await film(new MkvOutputFormat()),
      await film(new MovOutputFormat()),
    ]) {
      expect((await refusal(inspectVideo(bytes, LIMITS))).code).toBe("not_a_video");
    }
  });

  test("with sound only, or without a frame, is empty", async () => {
    const target = new BufferTarget();
    const output = new Output({ format: new WebMOutputFormat(), target });
    const sound = new EncodedAudioPacketSource("opus");
    output.addAudioTrack(sound);
    await output.start();
    await sound.add(new EncodedPacket(Buffer.from("f8fffe", "hex"), "key", 0, 0.02), {
      decoderConfig: { codec: "opus", sampleRate: 48_000, numberOfChannels: 2 },
    });
    await output.finalize();
    expect((await refusal(inspectVideo(Buffer.from(target.buffer ?? new ArrayBuffer(0)), LIMITS))).code).toBe("empty");
  });

  test("a WebM that sends the demuxer in circles is refused soon", async () => {
    const bytes = await film(new WebMOutputFormat());
    // The tracks keep their id, and lose what says how long they are.
    const id = Buffer.from("1654ae6b", "hex");
    // The first place is the one in the table of contents.
    const tracks = bytes.indexOf(id, bytes.indexOf(id) + 1);
    bytes[tracks + 4] = 0;
    const before = performance.now();
    expect((await refusal(inspectVideo(bytes, LIMITS))).code).toBe("corrupt");
    expect(performance.now() - before).toBeLessThan(5_000);
  });

  test("an MP4 that claims billions of samples stops nobody, and is given up", async () => {
    const bytes = await film(new Mp4OutputFormat({ fastStart: "in-memory" }));
    // Version, number of entries, first chunk; then how many samples a chunk has.
    bytes.writeUInt32BE(0x7fffffff, bytes.indexOf("stsc") + 16);
    let ticks = 0;
    const clock = setInterval(() => (ticks += 1), 20);
    await expect(inspectVideo(bytes, { ...LIMITS, timeoutMs: 2_000 })).rejects.toThrow("not examined within 2000 ms");
    clearInterval(clock);
    expect(ticks).toBeGreaterThan(10);
  });

  test("a file that is not there is the disk's error", async () => {
    await expect(inspectVideo(join(root, "nowhere.mp4"), LIMITS)).rejects.toThrow("ENOENT");
  });
});
