import { BufferTarget, EncodedPacket, EncodedVideoPacketSource, Output, WebMOutputFormat } from "mediabunny";
import sharp from "sharp";
import { label } from "./pictures/label.ts";
import { framed } from "./pictures/picture.ts";
import { between, randomFrom } from "./pictures/random.ts";
import { scene } from "./pictures/scene.ts";

/** What a film is to be like; more than is drawn here is allowed, and held. */
export interface Reel {
  readonly width: number;
  readonly height: number;
  readonly seconds: number;
  readonly fps: number;
}

export interface Script {
  readonly model: string;
  /** Without directives. */
  readonly prompt: string;
  readonly seed: number;
  /** The caller's own picture, which the film then begins with. */
  readonly photo: Buffer | null;
}

interface Ground {
  readonly data: Buffer;
  readonly width: number;
  readonly height: number;
}

const MAX_SIDE = 512; // pixels; a film of 1080p would take seconds to draw
const MAX_FPS = 8; // drawn frames a second; each is held until the next
const MAX_FRAMES = 72; // drawn frames a film
const MAX_BYTES = 2_500_000; // bytes of all frames
const QUALITIES = [60, 40, 20]; // of WebP, the best first
const WORST_QUALITY = 5;
const MAX_RATIO = 21 / 9;
const MARGIN = 1.3; // how much larger than a frame the ground is that the camera moves over
const MAX_PHOTO_PIXELS = 64_000_000;

/**
 * A film that plays: the camera moves over a painted scene, or over the caller's photo. The same script gives the same
 * bytes. WebM of VP8 key frames, because a lossy WebP is one of those in another wrapper and sharp makes them; real
 * models answer mp4.
 */
export async function film(script: Script, reel: Reel): Promise<Buffer> {
  const { width, height } = await frameSize(reel, script.photo);
  const ground = await groundOf(script, Math.ceil(width * MARGIN), Math.ceil(height * MARGIN));
  const { model, seed, prompt } = script;
  const words = framed(width, height, label(width, height, model, seed, prompt));
  const strip = await sharp(words).ensureAlpha().raw().toBuffer();
  const count = Math.max(2, Math.min(MAX_FRAMES, Math.round(reel.seconds * Math.min(reel.fps, MAX_FPS))));
  const move = movement(script);

  const draw = (at: number, quality: number) =>
    sharp(ground.data, { raw: { width: ground.width, height: ground.height, channels: 3 } })
      .extract(move(at / (count - 1), ground))
      .resize(width, height, { fit: "fill", kernel: "linear" })
      .composite([{ input: strip, raw: { width, height, channels: 4 } }])
      .webp({ quality, effort: 0 })
      .toBuffer();

  const quality = await affordable(async (tried) => (await draw(0, tried)).length * count);
  const output = new Output({ format: new WebMOutputFormat(), target: new BufferTarget() });
  const source = new EncodedVideoPacketSource("vp8");
  const held = reel.seconds / count;
  // The rate tells readers how long the last frame is held; nothing else in the file does.
  output.addVideoTrack(source, { hasOnlyKeyPackets: true, frameRate: 1 / held });
  await output.start();
  for (let at = 0; at < count; at += 1) {
    const packet = new EncodedPacket(keyFrame(await draw(at, quality)), "key", at * held, held);
    await source.add(packet, { decoderConfig: { codec: "vp8", codedWidth: width, codedHeight: height } });
  }
  await output.finalize();
  return Buffer.from(output.target.buffer ?? new ArrayBuffer(0));
}

/** The best quality at which the film stays small; the first frame tells how large all will be. */
async function affordable(bytesAt: (quality: number) => Promise<number>): Promise<number> {
  for (const quality of QUALITIES) if ((await bytesAt(quality)) <= MAX_BYTES) return quality;
  return WORST_QUALITY;
}

/** Even sides, of the shape that was asked for; a photo brings its own. */
async function frameSize(reel: Reel, photo: Buffer | null): Promise<{ width: number; height: number }> {
  const long = Math.min(MAX_SIDE, Math.max(reel.width, reel.height));
  const shape = photo ? (await sharp(photo).metadata()).autoOrient : reel;
  const ratio = Math.min(MAX_RATIO, Math.max(1 / MAX_RATIO, shape.width / shape.height));
  const even = (side: number) => Math.max(16, Math.round(side / 2) * 2);
  return { width: even(long * Math.min(1, ratio)), height: even(long * Math.min(1, 1 / ratio)) };
}

async function groundOf({ model, prompt, seed, photo }: Script, width: number, height: number): Promise<Ground> {
  const drawn = photo
    ? sharp(photo, { limitInputPixels: MAX_PHOTO_PIXELS }).rotate().resize(width, height, { fit: "cover" })
    : sharp(framed(width, height, scene(model, prompt, seed, width, height)));
  const flat = drawn.flatten({ background: "#101218" }).removeAlpha().toColourspace("srgb");
  return { data: await flat.raw().toBuffer(), width, height };
}

/** Where the camera is at 0..1 of the film: it goes in or out, towards a corner that prompt and seed choose. */
function movement({ model, prompt, seed }: Script) {
  const random = randomFrom(`film\n${model}\n${prompt}\n${seed}`);
  const [x, y, inwards] = [between(random, 0, 1), between(random, 0, 1), random() < 0.5];
  return (share: number, { width, height }: Ground) => {
    const near = inwards ? share : 1 - share;
    const zoom = 1 - near * (1 - 1 / MARGIN);
    const [wide, tall] = [Math.floor(width * zoom), Math.floor(height * zoom)];
    return {
      left: Math.floor((width - wide) * x),
      top: Math.floor((height - tall) * y),
      width: wide,
      height: tall,
    };
  };
}

/** The VP8 frame inside a WebP: RIFF, then chunks of a name, a length and an even number of bytes. */
function keyFrame(webp: Buffer): Uint8Array {
  for (let at = 12; at + 8 <= webp.length; ) {
    const length = webp.readUInt32LE(at + 4);
    if (webp.toString("latin1", at, at + 4) === "VP8 ") return webp.subarray(at + 8, at + 8 + length);
    at += 8 + length + (length % 2);
  }
  throw new Error("a lossy WebP without its VP8 frame");
}
