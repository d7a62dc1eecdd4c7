import { once } from "node:events";
import { createServer } from "node:http";
import { buffer } from "node:stream/consumers";
import { setTimeout as pause } from "node:timers/promises";
import { ALL_FORMATS, BufferSource, EncodedPacketSink, Input } from "mediabunny";
import { chromium } from "playwright-core";
import sharp from "sharp";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ZipFile } from "yazl";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";
import { findChromium } from "./rig/programs.ts";

// biome-ignore lint/suspicious/noExplicitAny: a test reads whatever travels, and fails when it is not there
type Body = any;

const HEADERS = { authorization: "Bearer r8_sandbox", "content-type": "application/json" };
const SEEDANCE = "bytedance/seedance-1-lite";
const WAN = "wan-video/wan-2.2-i2v-fast";
const FILL = "black-forest-labs/flux-fill-pro";
const KONTEXT = "black-forest-labs/flux-kontext-pro";
const SCHNELL_LORA = "black-forest-labs/flux-schnell-lora";
const ZEROSCOPE = "9f747673945c62801b13b84701c783929c0ee784e4748ec062204894dda1a351";
const SDXL = "7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc";
const TRAINER = "e440909d3512c31646ee2e0c7d6f6f4923224863a6a10c494606e79fb5844497";

let sandbox: Sandbox;
/** What the caller's own server has to offer, by path. */
let files: Map<string, Buffer>;
let server: ReturnType<typeof createServer>;
let origin: string;

beforeEach(async () => {
  sandbox = await startSandbox({ speed: 20 });
  files = new Map();
  server = createServer((request, response) => {
    const bytes = files.get(request.url ?? "");
    response.writeHead(bytes ? 200 : 404).end(bytes);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  origin = typeof address === "object" && address ? `http://127.0.0.1:${address.port}` : "";
});

afterEach(async () => {
  server.close();
  server.closeAllConnections();
  await sandbox.close();
});

function offer(path: string, bytes: Buffer): string {
  files.set(path, bytes);
  return `${origin}${path}`;
}

const get = (path: string) => fetch(`${sandbox.url}${path}`, { headers: HEADERS });
const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  fetch(`${sandbox.url}${path}`, { method: "POST", headers: { ...HEADERS, ...headers }, body: JSON.stringify(body) });

/** Runs a model by name, or by version, to its end. */
async function ran(model: string, input: Record<string, unknown>): Promise<Body> {
  const wait = { prefer: "wait=20" };
  return read(
    model.includes("/")
      ? post(`/v1/models/${model}/predictions`, { input }, wait)
      : post("/v1/predictions", { version: model, input }, wait),
  );
}

async function read(answer: Response | Promise<Response>): Promise<Body> {
  return (await answer).json();
}

async function bytesOf(url: string): Promise<Buffer> {
  return Buffer.from(await (await fetch(url)).arrayBuffer());
}

async function drawn(model: string, input: Record<string, unknown>): Promise<Buffer> {
  const run = await ran(model, input);
  expect(run).toMatchObject({ status: "succeeded", error: null });
  return bytesOf([run.output].flat()[0]);
}

/** The mean difference of two pictures, 0 to 255. */
async function apart(a: Buffer, b: Buffer): Promise<number> {
  const thumb = (bytes: Buffer) => sharp(bytes).resize(64, 64, { fit: "fill" }).removeAlpha().raw().toBuffer();
  const [one, other] = await Promise.all([thumb(a), thumb(b)]);
  return one.reduce((sum, byte, at) => sum + Math.abs(byte - (other[at] ?? 0)), 0) / one.length;
}

const plain = (width: number, height: number, background: string) =>
  sharp({ create: { width, height, channels: 3, background } });

/** A photo with something to see in each of its parts. */
async function photo(width = 320, height = 240): Promise<Buffer> {
  const pixels = Buffer.from(Array.from({ length: width * height * 3 }, (_, at) => (at * 7 + (at >> 9) * 13) % 256));
  return sharp(pixels, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();
}

describe("films", () => {
  interface Film {
    readonly seconds: number;
    readonly codec: string | null;
    readonly width: number;
    readonly height: number;
    /** As pictures that sharp reads. */
    readonly frames: Buffer[];
  }

  async function readFilm(bytes: Buffer): Promise<Film> {
    const input = new Input({ formats: ALL_FORMATS, source: new BufferSource(new Uint8Array(bytes)) });
    const track = await input.getPrimaryVideoTrack();
    if (!track) throw new Error("no video");
    const frames: Buffer[] = [];
    for await (const packet of new EncodedPacketSink(track).packets()) frames.push(asWebp(Buffer.from(packet.data)));
    const [codec, width, height] = [await track.getCodec(), await track.getCodedWidth(), await track.getCodedHeight()];
    return { seconds: await input.computeDuration(), codec, width, height, frames };
  }

  /** A VP8 key frame is what a lossy WebP is made of. */
  function asWebp(frame: Buffer): Buffer {
    const padding = Buffer.alloc(frame.length % 2);
    const head = Buffer.from("RIFF0000WEBPVP8 0000", "latin1");
    head.writeUInt32LE(12 + frame.length + padding.length, 4);
    head.writeUInt32LE(frame.length, 16);
    return Buffer.concat([head, frame, padding]);
  }

  test("seedance answers one film of the seconds, the shape and the movement that were asked for", async () => {
    const run = await ran(SEEDANCE, { prompt: "a boat on the sea", duration: 3, aspect_ratio: "9:16", seed: 7 });
    expect(run.output).toMatch(/\/out\.webm$/);
    const answer = await fetch(run.output);
    expect(answer.headers.get("content-type")).toBe("video/webm");
    const film = await readFilm(Buffer.from(await answer.arrayBuffer()));
    expect(film).toMatchObject({ codec: "vp8", seconds: expect.closeTo(3, 2) });
    expect(film.width / film.height).toBeCloseTo(9 / 16, 1);
    expect(film.frames).toHaveLength(24);
    const [first = Buffer.alloc(0), second = Buffer.alloc(0)] = film.frames;
    const last = film.frames.at(-1) ?? first;
    expect(await apart(first, second)).toBeGreaterThan(0.1);
    expect(await apart(first, last)).toBeGreaterThan(4);
  });

  test("the same words and seed give the same bytes, another seed or other words do not", async () => {
    const input = { prompt: "a forest", duration: 2, seed: 1 };
    const [one, again, seeded, worded] = await Promise.all([
      drawn(SEEDANCE, input),
      drawn(SEEDANCE, input),
      drawn(SEEDANCE, { ...input, seed: 2 }),
      drawn(SEEDANCE, { ...input, prompt: "a city" }),
    ]);
    expect(again.equals(one)).toBe(true);
    expect(seeded.equals(one)).toBe(false);
    expect(worded.equals(one)).toBe(false);
  });

  test("a long film is small", async () => {
    const film = await drawn(SEEDANCE, { prompt: "a city at night", duration: 12, resolution: "1080p" });
    expect((await readFilm(film)).seconds).toBeCloseTo(12, 2);
    expect(film.length).toBeLessThan(3_000_000);
  });

  test("wan moves over the caller's photo, in its shape, and fails without one that can be read", async () => {
    const tall = await plain(300, 400, "#20c040").png().toBuffer();
    const film = await readFilm(await drawn(WAN, { prompt: "wind", image: offer("/tall.png", tall) }));
    expect(film.seconds).toBeCloseTo(81 / 16, 2);
    expect(film.width / film.height).toBeCloseTo(3 / 4, 1);
    const { channels } = await sharp(film.frames[0]).stats();
    expect(channels.map(({ mean }) => mean)).toEqual([expect.any(Number), expect.any(Number), expect.any(Number)]);
    expect(channels[1]?.mean).toBeGreaterThan((channels[0]?.mean ?? 255) + 50);

    const gone = await ran(WAN, { prompt: "wind", image: `${origin}/gone.png` });
    expect(gone).toMatchObject({ status: "failed", error: expect.stringContaining("HTTP Error 404") });
    const text = await ran(SEEDANCE, { prompt: "wind", image: offer("/text.png", Buffer.from("hello")) });
    expect(text).toMatchObject({ status: "failed", error: expect.stringContaining("cannot identify image file") });
    expect((await post(`/v1/models/${WAN}/predictions`, { input: { prompt: "wind" } })).status).toBe(422);
  });

  test("zeroscope is run by its version, and answers a list of one", async () => {
    const run = await ran(ZEROSCOPE, { prompt: "a lake", num_frames: 20, fps: 10 });
    expect(run.output).toEqual([expect.stringMatching(/\/out-0\.webm$/)]);
    const film = await readFilm(await bytesOf(run.output[0]));
    expect(film.seconds).toBeCloseTo(2, 2);
    expect(film.width / film.height).toBeCloseTo(576 / 320, 1);
    expect((await post("/v1/models/anotherjesse/zeroscope-v2-xl/predictions", { input: {} })).status).toBe(404);
  });

  test("are billed by second of film, by film, and by second of running", async () => {
    const image = offer("/p.png", await photo());
    await ran(SEEDANCE, { prompt: "x", duration: 10 });
    await ran(WAN, { prompt: "x", image });
    await ran(SEEDANCE, { prompt: "x [sandbox: fail]", duration: 10 });
    const timed = await ran(ZEROSCOPE, { prompt: "x" });
    const costs = sandbox.bill().lines.map(({ cost_usd }) => cost_usd);
    expect(costs.slice(0, 3)).toEqual([0.36, 0.05, 0]);
    expect(costs[3]).toBeCloseTo(timed.metrics.predict_time * 0.000975, 6);
  });

  const program = findChromium();
  test.skipIf(program === null)("play in a browser", async () => {
    const { output } = await ran(SEEDANCE, { prompt: "a lighthouse at dusk", duration: 4 });
    const browser = await chromium.launch({ executablePath: program ?? "", args: ["--no-sandbox"] });
    try {
      const page = await browser.newPage();
      await page.goto(`${sandbox.url}/delivery/none`);
      // A string, because this file is not compiled for a browser.
      const seen: Body = await page.evaluate(`(async () => {
        const video = document.createElement("video");
        video.muted = true;
        video.src = ${JSON.stringify(output)};
        await new Promise((done, failed) => {
          video.oncanplaythrough = done;
          video.onerror = () => failed(new Error(video.error.message));
        });
        await video.play();
        await new Promise((done) => { video.ontimeupdate = () => video.currentTime > 0.3 && done(); });
        const canvas = document.createElement("canvas");
        canvas.width = video.videoWidth;
        canvas.height = video.videoHeight;
        const context = canvas.getContext("2d");
        context.drawImage(video, 0, 0);
        const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
        const colours = new Set();
        for (let at = 0; at < data.length; at += 400) colours.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);
        return { duration: video.duration, width: video.videoWidth, colours: colours.size };
      })()`);
      expect(seen).toMatchObject({ duration: expect.closeTo(4, 1), width: 448 });
      expect(seen.colours).toBeGreaterThan(50);
    } finally {
      await browser.close();
    }
  });
});

describe("filling", () => {
  async function mask(width: number, height: number): Promise<Buffer> {
    const hole = await plain(100, 80, "#ffffff").png().toBuffer();
    return plain(width, height, "#000000")
      .composite([{ input: hole, left: 50, top: 60 }])
      .png()
      .toBuffer();
  }

  test("paints where the mask is white, and leaves every other pixel as it was", async () => {
    const own = await photo();
    const input = { prompt: "a forest", image: offer("/i.png", own), mask: offer("/m.png", await mask(320, 240)) };
    const filled = await drawn(FILL, { ...input, output_format: "png", seed: 3 });
    const raw = (bytes: Buffer) => sharp(bytes).removeAlpha().raw().toBuffer();
    const [before, after] = await Promise.all([raw(own), raw(filled)]);
    expect(after).toHaveLength(before.length);
    let [inside, outside] = [0, 0];
    for (let at = 0; at < before.length; at += 1) {
      const [x, y] = [Math.floor(at / 3) % 320, Math.floor(at / 3 / 320)];
      if (before[at] === after[at]) continue;
      if (x >= 50 && x < 150 && y >= 60 && y < 140) inside += 1;
      else outside += 1;
    }
    expect(outside).toBe(0);
    expect(inside).toBeGreaterThan(100 * 80 * 2);
    expect(sandbox.bill().total.usd).toBe(0.05);
  });

  test("takes a transparent part for the mask, answers jpg unless asked, and one URL", async () => {
    const see = await sharp(await photo())
      .ensureAlpha(0)
      .png()
      .toBuffer();
    const run = await ran(FILL, { prompt: "a city", image: offer("/clear.png", see) });
    expect(run.output).toMatch(/\/out-0\.jpg$/);
    const { format, width } = await sharp(await bytesOf(run.output)).metadata();
    expect({ format, width }).toEqual({ format: "jpeg", width: 320 });
  });

  test("fails when the mask has another size, or there is nothing to tell where", async () => {
    const image = offer("/i.png", await photo());
    const other = await ran(FILL, { prompt: "x", image, mask: offer("/m.png", await mask(321, 240)) });
    expect(other.status).toBe("failed");
    expect(other.error).toContain("same size as the image: the image is 320x240, the mask is 321x240");
    expect(await ran(FILL, { prompt: "x", image })).toMatchObject({
      status: "failed",
      error: expect.stringContaining("mask"),
    });
    expect(await ran(FILL, { prompt: "x", image, mask: `${origin}/gone.png` })).toMatchObject({ status: "failed" });
    expect((await post(`/v1/models/${FILL}/predictions`, { input: { prompt: "x", image, steps: 9 } })).status).toBe(
      422,
    );
    expect(sandbox.bill().total).toMatchObject({ failed: 3, usd: 0 });
  });
});

describe("kontext", () => {
  test("changes the photo by what the words begin with, and each way looks different", async () => {
    const own = await photo();
    const input_image = offer("/room.png", own);
    const prompts = ["Furnish this living room", "Remove all furniture", "Turn it into dusk", "Make the walls green"];
    const edited = await Promise.all(prompts.map((prompt) => drawn(KONTEXT, { prompt, input_image, seed: 1 })));
    const all = [own, ...edited];
    for (const [at, one] of all.entries()) {
      for (const other of all.slice(at + 1)) expect(await apart(one, other)).toBeGreaterThan(2);
    }
  });

  test("smooths the lower part when it is to be emptied", async () => {
    const input_image = offer("/room.png", await photo());
    const emptied = await drawn(KONTEXT, { prompt: "Empty the room", input_image, seed: 1 });
    const noise = async (top: number) => {
      const part = await sharp(emptied)
        .extract({ left: 0, top, width: 320, height: 40 })
        .removeAlpha()
        .raw()
        .toBuffer();
      return (await sharp(part, { raw: { width: 320, height: 40, channels: 3 } }).stats()).channels[0]?.stdev ?? 0;
    };
    expect(await noise(150)).toBeLessThan((await noise(20)) / 3);
  });
});

describe("LoRA weights", () => {
  const lora = (prompt: string, more: Record<string, unknown>) =>
    ({ prompt, seed: 4, megapixels: "0.25", output_format: "png", ...more }) as const;

  /** Trains a model here, which takes an instant for a zip that nobody can read. */
  async function trained(owner: string, name: string, version: string, input = {}): Promise<Body> {
    await post("/v1/models", { owner: "sandbox", name: "mine", visibility: "private", hardware: "cpu" });
    const body = { destination: "sandbox/mine", input: { input_images: "https://x.test/a.zip", ...input } };
    const { id } = await read(post(`/v1/models/${owner}/${name}/versions/${version}/trainings`, body));
    return ended(id);
  }

  test("change the picture, the same ones in the same way, and as much as their scale says", async () => {
    const { output } = await trained("ostris", "flux-dev-lora-trainer", TRAINER);
    const tar = await bytesOf(output.weights);
    const size = Number.parseInt(tar.toString("latin1", 124, 136), 8);
    const weights = tar.subarray(512, 512 + size);
    const lora_weights = offer("/lora.safetensors", weights);
    const other = Buffer.from(weights);
    other.writeUInt8(0x2d, other.length - 1);
    const [none, one, again, less, off, another] = await Promise.all([
      drawn(SCHNELL_LORA, lora("a lake", {})),
      drawn(SCHNELL_LORA, lora("a lake", { lora_weights })),
      drawn(SCHNELL_LORA, lora("a lake", { lora_weights: offer("/copy.safetensors", weights) })),
      drawn(SCHNELL_LORA, lora("a lake", { lora_weights, lora_scale: 0.3 })),
      drawn(SCHNELL_LORA, lora("a lake", { lora_weights, lora_scale: 0 })),
      drawn(SCHNELL_LORA, lora("a lake", { lora_weights: offer("/other.safetensors", other) })),
    ]);
    expect(again.equals(one)).toBe(true);
    expect(off.equals(none)).toBe(true);
    expect(await apart(none, one)).toBeGreaterThan(8);
    expect(await apart(none, less)).toBeLessThan(await apart(none, one));
    expect(await apart(another, one)).toBeGreaterThan(2);
    expect(sandbox.bill().total.usd).toBeGreaterThan(0.12);
  });

  test("are found by the name of a model here or its version, and by a name elsewhere unseen", async () => {
    const { output } = await trained("ostris", "flux-dev-lora-trainer", TRAINER);
    const [, id] = output.version.split(":");
    for (const lora_weights of ["sandbox/mine", `sandbox/mine/${id}`, "huggingface.co/someone/model"]) {
      const run = await ran("black-forest-labs/flux-dev-lora", { prompt: "x", lora_weights });
      expect([lora_weights, run.status]).toEqual([lora_weights, "succeeded"]);
    }
    for (const lora_weights of ["sandbox/none", "sandbox/mine/none", "mine"]) {
      const run = await ran(SCHNELL_LORA, { prompt: "x", lora_weights });
      expect(run).toMatchObject({
        status: "failed",
        error: expect.stringContaining(`'${lora_weights}' was not found`),
      });
    }
  });

  test("that are none, torn, too large, or not there, fail the run", async () => {
    const long = Buffer.alloc(64);
    long.writeBigUInt64LE(4_000n);
    const text = await ran(SCHNELL_LORA, { prompt: "x", lora_weights: offer("/a", Buffer.from("<html></html>")) });
    const torn = await ran(SCHNELL_LORA, { prompt: "x", lora_weights: offer("/b", long) });
    const gone = await ran(SCHNELL_LORA, { prompt: "x", lora_weights: `${origin}/c` });
    const huge = await ran(SCHNELL_LORA, { prompt: "x", lora_weights: offer("/d", Buffer.alloc(65 * 1024 * 1024)) });
    expect(text).toMatchObject({ status: "failed", error: expect.stringContaining("SafetensorError") });
    expect(torn).toMatchObject({ status: "failed", error: expect.stringContaining("SafetensorError") });
    expect(gone).toMatchObject({ status: "failed", error: expect.stringContaining("HTTP Error 404") });
    expect(huge).toMatchObject({ status: "failed", error: expect.stringContaining("at most 64 MB") });
  });

  test("of SDXL come out of a training as a tar, and go in as that or as what is in it", async () => {
    const { output } = await trained("stability-ai", "sdxl", SDXL, { token_string: "SKS" });
    const tar = await bytesOf(output.weights);
    expect(tar.toString("latin1", 0, 16)).toBe("lora.safetensors");
    const inner = tar.subarray(512, 512 + Number.parseInt(tar.toString("latin1", 124, 136), 8));
    const small = { prompt: "a city", seed: 2, width: 256, height: 256 };
    const [none, packed] = await Promise.all([
      drawn(SDXL, small),
      drawn(SDXL, { ...small, replicate_weights: output.weights }),
    ]);
    expect(await apart(none, packed)).toBeGreaterThan(4);
    // Its trigger word is in a file of its own: without the whole archive it has none.
    for (const bytes of [Buffer.from(inner), Buffer.from("hello")]) {
      const text = await ran(SDXL, { ...small, replicate_weights: offer("/t", bytes) });
      expect(text).toMatchObject({ status: "failed", error: expect.stringContaining("LoRA weights") });
    }
  });
});

async function ended(id: string): Promise<Body> {
  for (let look = 0; look < 400; look += 1) {
    const run = await read(get(`/v1/trainings/${id}`));
    if (!["starting", "processing"].includes(run.status)) return run;
    await pause(20);
  }
  throw new Error(`${id} does not end`);
}

describe("trainings", () => {
  async function zip(entries: Record<string, Buffer>): Promise<Buffer> {
    const file = new ZipFile();
    for (const [name, bytes] of Object.entries(entries)) file.addBuffer(bytes, name, { compress: false });
    file.end();
    return buffer(file.outputStream);
  }

  async function trainedOn(input_images: string): Promise<Body> {
    await post("/v1/models", { owner: "sandbox", name: "mine", visibility: "private", hardware: "cpu" });
    const path = `/v1/models/ostris/flux-dev-lora-trainer/versions/${TRAINER}/trainings`;
    return ended((await read(post(path, { destination: "sandbox/mine", input: { input_images } }))).id);
  }

  const jpeg = () => plain(64, 64, "#804020").jpeg().toBuffer();

  test("read the pictures of their zip, from wherever it comes", async () => {
    const one = await jpeg();
    const bytes = await zip({ "a.jpg": one, "b/c.JPEG": one, "d.png": await photo(), "e.jpg": one, "a.txt": one });
    expect(await trainedOn(offer("/u.zip", bytes))).toMatchObject({ status: "succeeded", error: null });
    const form = new FormData();
    form.append("content", new Blob([new Uint8Array(bytes)], { type: "application/zip" }), "u.zip");
    const { authorization } = HEADERS;
    const upload = await fetch(`${sandbox.url}/v1/files`, { method: "POST", headers: { authorization }, body: form });
    const { urls } = await read(upload);
    expect(await trainedOn(urls.get)).toMatchObject({ status: "succeeded" });
  });

  test("fail on what is no zip, too few pictures, a picture that is none, and nothing at all", async () => {
    const one = await jpeg();
    const few = await zip({ "a.jpg": one, "b.jpg": one, "c.jpg": one, "__MACOSX/._c.jpg": one, "notes.txt": one });
    const bad = await zip({ "a.jpg": one, "b.jpg": one, "c.jpg": one, "d.jpg": Buffer.from("not a picture") });
    const says = async (location: string) => {
      const { status, error, output } = await trainedOn(location);
      expect({ status, output }).toEqual({ status: "failed", output: null });
      return error;
    };
    expect(await says(offer("/text.zip", Buffer.from("hello")))).toContain("File is not a zip file");
    expect(await says(offer("/few.zip", few))).toContain("holds 3 images, at least 4 are needed");
    expect(await says(offer("/bad.zip", bad))).toContain("cannot identify image file 'd.jpg'");
    expect(await says(offer("/torn.zip", few.subarray(0, few.length - 30)))).toContain("BadZipFile");
    expect(await says(`${origin}/gone.zip`)).toContain("Failed to download input: ");
    expect(await says("http://127.0.0.1:1/closed.zip")).toContain("Failed to download input: ");
    const model = await read(get("/v1/models/sandbox/mine"));
    expect(model.latest_version).toBeNull();
  });

  test("that are canceled stop to read", async () => {
    let closed = false;
    const endless = createServer((_request, response) => {
      response.writeHead(200).write("PK");
      response.on("close", () => {
        closed = true;
      });
    }).listen(0, "127.0.0.1");
    await once(endless, "listening");
    const address = endless.address();
    const port = typeof address === "object" && address ? address.port : 0;
    await post("/v1/models", { owner: "sandbox", name: "mine", visibility: "private", hardware: "cpu" });
    const path = `/v1/models/ostris/flux-dev-lora-trainer/versions/${TRAINER}/trainings`;
    const input = { input_images: `http://127.0.0.1:${port}/a.zip` };
    const { id } = await read(post(path, { destination: "sandbox/mine", input }));
    await pause(500); // longer than the run itself takes
    await post(`/v1/trainings/${id}/cancel`, {});
    expect(await ended(id)).toMatchObject({ status: "canceled" });
    await expect.poll(() => closed).toBe(true);
    endless.close();
  });
});

describe("a model that vanished", () => {
  const SCHNELL = "black-forest-labs/flux-schnell";
  const statusOf = async (answer: Promise<Response>) => (await answer).status;
  const listed = async () => {
    const { results } = await read(get("/v1/models"));
    return results.map(({ owner, name }: Body) => `${owner}/${name}`);
  };

  test("is not found, not listed and not run, until the rule is gone", async () => {
    const rule = { fault: "vanished", match: { model: SCHNELL } };
    const added = await post("/_sandbox/faults", rule);
    expect(added.status).toBe(201);
    const missing = await get(`/v1/models/${SCHNELL}`);
    expect(missing.status).toBe(404);
    expect(await missing.json()).toEqual({ detail: "The requested resource could not be found.", status: 404 });
    const body = { input: { prompt: "x" } };
    expect(await statusOf(post(`/v1/models/${SCHNELL}/predictions`, body))).toBe(404);
    const named = await post("/v1/predictions", { version: SCHNELL, ...body });
    expect(named.status).toBe(422);
    expect(await named.json()).toMatchObject({ title: "Invalid version or not permitted" });
    expect(await listed()).not.toContain(SCHNELL);
    expect(await statusOf(get("/v1/models/black-forest-labs/flux-dev"))).toBe(200);
    expect(sandbox.bill().lines).toEqual([]);

    const { id } = await read(added);
    await fetch(`${sandbox.url}/_sandbox/faults/${id}`, { method: "DELETE" });
    expect(await statusOf(get(`/v1/models/${SCHNELL}`))).toBe(200);
    expect(await listed()).toContain(SCHNELL);
    expect(await statusOf(post(`/v1/models/${SCHNELL}/predictions`, body))).toBe(201);
  });

  test("takes its versions and its trainings with it, and comes back after as many looks as said", async () => {
    const model = "ostris/flux-dev-lora-trainer";
    sandbox.faults.add({ fault: "vanished", match: { model }, times: 3 });
    const input = { input_images: "https://x.test/a.zip" };
    const train = () => post(`/v1/models/${model}/versions/${TRAINER}/trainings`, { destination: "sandbox/w", input });
    expect(await statusOf(post("/v1/predictions", { version: TRAINER, input: { prompt: "x" } }))).toBe(422);
    expect(await statusOf(get(`/v1/models/${model}/versions/${TRAINER}`))).toBe(404);
    expect(await read(train())).toMatchObject({ detail: "The requested resource could not be found." });
    expect(await read(train())).toMatchObject({ detail: expect.stringContaining("destination") });
    expect(await statusOf(get(`/v1/models/${model}`))).toBe(200);
  });

  test("leaves the runs alone that are out", async () => {
    const answer = await post(`/v1/models/${SCHNELL}/predictions`, { input: { prompt: "x [sandbox: slow=0.5]" } });
    sandbox.faults.add({ fault: "vanished", match: { model: SCHNELL } });
    const { id } = await read(answer);
    await expect
      .poll(async () => (await read(get(`/v1/predictions/${id}`))).status, { timeout: 3_000 })
      .toBe("succeeded");
  });
});
