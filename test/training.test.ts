import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ZipFile } from "yazl";
import { makeLogger, makeParts } from "../src/compose.ts";
import { loadJob } from "../src/db/jobs.ts";
import type { JobJson } from "../src/job-json.ts";
import type { Storage } from "../src/storage/storage.ts";
import { ensureArchive } from "../src/workers/archive.ts";
import { photo } from "./rig/pictures.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

const LOG = makeLogger({ LOG_LEVEL: "silent" }, "test");

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ speed: 20 });
});
afterAll(async () => {
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  await spine.stop();
});

async function upload(bytes: Buffer): Promise<string> {
  const headers = { "content-type": "application/octet-stream" };
  const { status, body } = await spine.call("POST", "/api/uploads", { body: bytes, headers });
  if (status !== 201) throw new Error(JSON.stringify(body));
  return body.id;
}

const uploads = (from: number, count: number) =>
  Promise.all(Array.from({ length: count }, async (_, index) => upload(await photo(from + index))));

const training = (user: string, photos: readonly string[], more: Record<string, unknown> = {}) => ({
  kind: "training",
  user,
  input: { photos, triggerWord: "ZQX", steps: 500, ...more },
});

const post = (body: unknown) =>
  spine.call("POST", "/api/jobs", { body, headers: { "idempotency-key": crypto.randomUUID() } });

async function available(user: string): Promise<number | null> {
  const { status, body } = await spine.call("GET", `/api/credits/${user}`);
  return status === 404 ? null : body.available;
}

describe("a training", () => {
  let trained: JobJson;

  test("turns photos into a model of the user that a generation can use at once", async () => {
    const photos = await uploads(0, 5);
    const accepted = await spine.submit(training("ann", photos, { name: "me", resolution: 1024 }));
    const { id, price, balance } = accepted;
    expect(accepted).toMatchObject({
      photos: photos.map((upload, photo) => ({ photo, id: upload, verdict: "taken", problems: [] })),
    });
    // 5 + (500 / 1000) × 2
    expect([price.credits, balance.available]).toEqual([6, 194]);
    trained = await spine.ended(id, 30_000);
    expect(trained.status).toBe("completed");
    const [model] = await spine.sql`select * from trained_models where id = ${id}`;
    expect(model).toMatchObject({ status: "ready", name: "me", trigger_word: "ZQX", family: "flux", photos: 5 });
    expect(model?.["quality"]).toBeGreaterThan(0);
    // Nobody said what it is: coloured shapes are no face.
    expect(["object", "style"]).toContain(model?.["task"]);
    expect(model?.["provider_version"]).toMatch(/^sandbox\/demo-\d+:[0-9a-f]{64}$/);
    const roles = await spine.sql`select role, bytes from assets where job_id = ${id} order by role`;
    expect(roles.map(({ role }) => role)).toEqual(["lora", "weights"]);

    const plain = { prompt: "a portrait of ZQX in Lisbon", seed: 4, images: 1 };
    const generation = await spine.submit({ kind: "generation", user: "ann", input: { ...plain, trainedModel: id } });
    expect(generation.model).toBe("flux-schnell-lora");
    const other = await spine.submit({ kind: "generation", user: "ann", model: "flux-schnell-lora", input: plain });
    const [made, without] = await Promise.all([spine.ended(generation.id), spine.ended(other.id)]);
    expect([made.status, without.status]).toEqual(["completed", "completed"]);
    expect(made.results[0]?.file?.sha256).not.toBe(without.results[0]?.file?.sha256);
  });

  test("adds the trigger word to a prompt that lacks it, or the model would not be used", async () => {
    const input = { prompt: "a portrait", trainedModel: trained.id };
    const { id } = await spine.submit({ kind: "generation", user: "ann", input });
    await spine.ended(id);
    const [run] = await spine.sql`select input from runs where job_id = ${id}`;
    expect(run?.["input"].prompt).toBe("ZQX, a portrait");
    expect(run?.["input"].lora_weights).toMatch(/\.safetensors/);
  });

  test("uploads the same photos once, in whatever order they come", async () => {
    const photos = (trained.input as { photos: string[] }).photos;
    const again = await spine.submit(training("ann", [...photos].reverse(), { task: "style" }));
    expect((await spine.ended(again.id, 30_000)).status).toBe("completed");
    expect(await spine.sql`select 1 from assets where role = 'archive'`).toHaveLength(1);
    const inputs = await spine.sql`select input ->> 'input_images' as url from runs where destination is not null`;
    expect(new Set(inputs.map(({ url }) => url.split("?")[0])).size).toBe(1);
  });

  test("makes and uploads the archive of a set once, for several at once and after a death before it was noted", async () => {
    const parts = makeParts(spine.config, LOG, "test");
    try {
      const record = await loadJob(parts.db, trained.id);
      if (!record) throw new Error("the training is gone");
      const [archive] = await spine.sql`select storage_key, sha256, bytes from assets where role = 'archive'`;
      const storageKey: string = archive?.["storage_key"];
      const uploaded: string[] = [];
      const { storage } = parts;
      const counting: Storage = {
        name: storage.name,
        put: (...all) => storage.put(...all),
        get: (key) => storage.get(key),
        exists: (key) => storage.exists(key),
        delete: (key) => storage.delete(key),
        url: (...all) => storage.url(...all),
        check: () => storage.check(),
        async putFile(key, path, contentType) {
          uploaded.push(key);
          await storage.putFile(key, path, contentType);
        },
      };
      const ensure = () => {
        const stop = new AbortController().signal;
        return ensureArchive({ ...parts, storage: counting, prefixOf: (id) => `apps/${id}`, stop }, record);
      };
      const forget = () => spine.sql`delete from assets where role = 'archive'`;
      await forget();
      await storage.delete(storageKey);
      const made = await Promise.all([ensure(), ensure(), ensure()]);
      expect([new Set(made.map(({ id }) => id)).size, uploaded]).toEqual([1, [storageKey]]);
      expect(made[0]).toMatchObject({ storageKey, sha256: archive?.["sha256"] });

      await forget();
      const noted = await ensure();
      expect(uploaded).toHaveLength(1);
      expect(noted).toMatchObject({ storageKey, sha256: made[0]?.sha256, bytes: made[0]?.bytes });
      // One that died while it had the claim holds nobody up for longer than the claim.
      await spine.sql`insert into chores (name, next_at) values (${`archive ${storageKey}`}, now() + interval '1 second')`;
      await storage.delete(storageKey);
      expect(await ensure()).toMatchObject({ id: noted.id });
      expect(uploaded).toHaveLength(2);
      expect(await spine.sql`select 1 from chores where name like 'archive %'`).toHaveLength(0);
    } finally {
      await parts.close();
    }
  });

  test("is the user's own: nobody else can generate with it", async () => {
    const { status, body } = await post({
      kind: "generation",
      user: "bob",
      input: { prompt: "x", trainedModel: trained.id },
    });
    expect([status, body.errors[0].pointer]).toEqual([422, "/input/trainedModel"]);
  });

  test("that fails gives everything back, and its model says so", async () => {
    // Longer than anybody here waits: it cannot have succeeded before it is canceled.
    spine.sandbox.faults.add({ fault: "slow=600", match: { model: "ostris/flux-dev-lora-trainer" }, times: 1 });
    const { id } = await spine.submit(training("cleo", await uploads(50, 4), { triggerWord: "TOK", name: "broken" }));
    await spine.until(id, (job) => job.runs.length > 0);
    await spine.call("POST", `/api/jobs/${id}/cancel`);
    const ended = await spine.ended(id, 30_000);
    expect(ended.settlement).toEqual({ charged: 6, kept: 0, refunded: 6 });
    const [model] = await spine.sql`select status from trained_models where id = ${id}`;
    expect(model?.["status"]).toBe("failed");
  });
});

describe("a training is bought once:", () => {
  const model = "ostris/flux-dev-lora-trainer";

  test("one whose answer was lost on its way is found in the provider's list and goes on", async () => {
    spine.sandbox.faults.add({ fault: "cut", match: { model }, times: 1 });
    const { id } = await spine.submit(training("eve", await uploads(20, 4)));
    const ended = await spine.ended(id, 60_000);
    expect([ended.status, ended.runs.length]).toEqual(["completed", 1]);
  });

  test("one that never arrived is given up and refunded, and never bought again", async () => {
    spine.sandbox.faults.add({ fault: "refuse_before", match: { model }, times: 1 });
    const { id } = await spine.submit(training("eve", await uploads(24, 4)));
    const ended = await spine.ended(id, 90_000);
    expect([ended.status, ended.failure?.code, ended.runs.length]).toEqual(["failed", "lost", 1]);
    expect(ended.settlement).toEqual({ charged: 6, kept: 0, refunded: 6 });
  }, 120_000);

  test("one whose trainer keeps its weights to itself can be used by the provider's own name", async () => {
    spine.sandbox.faults.add({ fault: "weights_null", match: { model }, times: 1 });
    const { id } = await spine.submit(training("eve", await uploads(28, 4)));
    expect((await spine.ended(id, 60_000)).status).toBe("completed");
    const input = { prompt: "ZQX at night", trainedModel: id };
    const made = await spine.submit({ kind: "generation", user: "eve", input });
    expect((await spine.ended(made.id)).status).toBe("completed");
    const [run] = await spine.sql`select input from runs where job_id = ${made.id}`;
    expect(run?.["input"].lora_weights).toMatch(/^sandbox\/demo-\d+\/[0-9a-f]{64}$/);
  });
});

describe("a set of photos that cannot be trained with is refused with a verdict for each, and charges nothing:", () => {
  const bad: [name: string, make: () => Promise<Buffer>, code: RegExp][] = [
    ["a tiny one", () => photo(70, { width: 100, height: 100 }), /too_small/],
    [
      "a blurred one",
      async () =>
        sharp(await photo(71))
          .blur(12)
          .toBuffer(),
      /blurred/,
    ],
    [
      "an animated one",
      async () =>
        sharp([await photo(73, { width: 300, height: 300 }), await photo(74, { width: 300, height: 300 })], {
          join: { animated: true },
        })
          .webp()
          .toBuffer(),
      /animated/,
    ],
  ];
  const unreadable: [name: string, make: () => Promise<Buffer>, code: RegExp][] = [
    ["a damaged one", async () => (await photo(75)).subarray(0, 4_000), /corrupt/],
    [
      "a huge one",
      () =>
        sharp({ create: { width: 8_000, height: 7_000, channels: 3, background: "#888" } })
          .png()
          .toBuffer(),
      /too_many_pixels/,
    ],
    ["one that is no picture", async () => Buffer.from("%PDF-1.7 and so on"), /not_an_image/],
  ];
  test.each(unreadable)("%s, which cannot even be uploaded", async (_name, make, code) => {
    const good = { "1.jpg": await photo(76), "2.jpg": await photo(77), "3.jpg": await photo(78) };
    const zip = await zipOf({ ...good, "4.jpg": await make() });
    const { status, body } = await spine.call("POST", "/api/photo-sets", {
      body: zip,
      headers: { "content-type": "application/zip" },
    });
    expect([status, body.usable]).toEqual([200, false]);
    expect(body.photos.map((each: { verdict: string }) => each.verdict)).toEqual([
      "taken",
      "taken",
      "taken",
      "refused",
    ]);
    expect(body.photos[3].id).toBe(null);
    expect(body.photos[3].problems[0].code).toMatch(code);
    const alone = await spine.call("POST", "/api/uploads", {
      body: await make(),
      headers: { "content-type": "application/octet-stream" },
    });
    expect([alone.status, alone.body.code]).toEqual([422, "file_refused"]);
    expect(alone.body.reason).toMatch(code);
  });

  test.each(bad)("%s", async (_name, make, code) => {
    const good = await uploads(80, 4);
    const zip = await zipOf({ "a.jpg": await make() });
    const set = await spine.call("POST", "/api/photo-sets", {
      body: zip,
      headers: { "content-type": "application/zip" },
    });
    expect(set.status).toBe(200);
    expect(set.body.photos[0]).toMatchObject({ name: "a.jpg", verdict: "refused" });
    expect(set.body.photos[0].problems[0].code).toMatch(code);
    if (set.body.photos[0].id === null) return;
    const { status, body } = await post(training("dora", [...good, set.body.photos[0].id]));
    expect([status, body.code]).toEqual([422, "file_refused"]);
    expect(body.errors[0].pointer).toBe("/input/photos/4");
    expect(body.photos).toHaveLength(5);
    expect(body.photos.filter((each: { verdict: string }) => each.verdict === "taken")).toHaveLength(4);
    expect(await available("dora")).toBe(null);
  });

  test("the same photo twice, once smaller and recompressed", async () => {
    const one = await photo(90);
    const twin = await sharp(one).resize(500).jpeg({ quality: 60 }).toBuffer();
    const ids = [...(await uploads(91, 3)), await upload(one), await upload(twin)];
    const { status, body } = await post(training("dora", ids));
    expect([status, body.errors[0].pointer]).toEqual([422, "/input/photos/4"]);
    expect(body.errors[0].detail).toMatch(/same as photo 4/);
    expect(await available("dora")).toBe(null);
  });

  test("an id that is no upload, and an address where nothing is", async () => {
    const ids = [...(await uploads(95, 3)), crypto.randomUUID(), "https://127.0.0.1/x.jpg"];
    const { body } = await post(training("dora", ids));
    expect(body.photos.map((each: { verdict: string }) => each.verdict)).toEqual([
      "taken",
      "taken",
      "taken",
      "refused",
      "refused",
    ]);
  });
});

test("a photo that lies on its side, or is CMYK, is repaired and says so", async () => {
  const sideways = await sharp(await photo(100, { width: 640, height: 800 }))
    .withMetadata({ orientation: 6 })
    .jpeg()
    .toBuffer();
  const cmyk = await sharp(await photo(101))
    .toColourspace("cmyk")
    .jpeg()
    .toBuffer();
  const zip = await zipOf({ "sideways.jpg": sideways, "print.jpg": cmyk });
  const { body } = await spine.call("POST", "/api/photo-sets", {
    body: zip,
    headers: { "content-type": "application/zip" },
  });
  expect(
    body.photos.map((each: { verdict: string; notes: { code: string }[] }) => [each.verdict, each.notes[0]?.code]),
  ).toEqual([
    ["repaired", "rotated"],
    ["repaired", "cmyk"],
  ]);
  expect(body.usable).toBe(true);
});

test("an archive that is none, holds another one, escapes its folder or is a bomb is refused", async () => {
  const headers = { "content-type": "application/zip" };
  const none = await spine.call("POST", "/api/photo-sets", { body: Buffer.from("not a zip"), headers });
  expect([none.status, none.body.reason]).toEqual([422, "not_a_zip"]);
  const nested = await spine.call("POST", "/api/photo-sets", {
    body: await zipOf({ "more.zip": await zipOf({ "a.jpg": await photo(1) }) }),
    headers,
  });
  expect([nested.status, nested.body.reason]).toEqual([422, "nested_archive"]);
  // The same bytes with another name: no packer would write it.
  const honest = await zipOf({ "aa/photo.jpg": await photo(1) });
  const escaping = Buffer.from(honest.toString("latin1").replaceAll("aa/photo.jpg", "../photo.jpg"), "latin1");
  const escaped = await spine.call("POST", "/api/photo-sets", { body: escaping, headers });
  expect([escaped.status, escaped.body.reason]).toEqual([422, "unsafe_name"]);
  const bomb = await zipOf({ "a.jpg": Buffer.alloc(30_000_000) }, { compress: true });
  const burst = await spine.call("POST", "/api/photo-sets", { body: bomb, headers });
  expect([burst.status, burst.body.reason]).toEqual([422, "bomb"]);
});

describe("one photo of a ZIP that cannot be unpacked is refused alone, and its siblings are kept:", () => {
  const headers = { "content-type": "application/zip" };
  type Answered = { name: string; verdict: string; id: string | null; problems: { code: string; detail: string }[] };

  test.each<[string, (zip: Buffer, marked: Buffer) => Buffer, () => Promise<Buffer>, RegExp]>([
    [
      "one whose checksum is wrong",
      (zip, marked) => {
        const bytes = Buffer.from(zip);
        const at = bytes.indexOf(marked.subarray(1_000, 1_032)) + 16;
        bytes.writeUInt8(bytes.readUInt8(at) ^ 0xff, at);
        return bytes;
      },
      () => photo(111),
      /^corrupt$/,
    ],
    [
      "one that has more bytes than are taken",
      (zip) => zip,
      async () => Buffer.alloc(spine.config.MAX_FILE_BYTES + 1, await photo(111)),
      /^too_many_bytes$/,
    ],
  ])("%s", async (_name, spoil, make, code) => {
    const marked = await make();
    const zip = await zipOf({ "1.jpg": await photo(110), "2.jpg": marked, "3.jpg": await photo(112) });
    const { status, body } = await spine.call("POST", "/api/photo-sets", { body: spoil(zip, marked), headers });
    expect([status, body.usable]).toEqual([200, false]);
    const photos: Answered[] = body.photos;
    expect(photos.map(({ name, verdict }) => [name, verdict])).toEqual([
      ["1.jpg", "taken"],
      ["2.jpg", "refused"],
      ["3.jpg", "taken"],
    ]);
    expect(photos.map(({ id }) => id !== null)).toEqual([true, false, true]);
    expect(photos[1]?.problems).toEqual([
      { code: expect.stringMatching(code), detail: expect.stringMatching(/2\.jpg/) },
    ]);
  });

  test("what is refused as a whole says how many photos before it were kept", async () => {
    const zip = await zipOf({ "1.jpg": await photo(113), "2.jpg": await zipOf({ "a.jpg": await photo(1) }) });
    const { status, body } = await spine.call("POST", "/api/photo-sets", { body: zip, headers });
    expect([status, body.reason]).toEqual([422, "nested_archive"]);
    expect(body.detail).toMatch(/kept as uploads: 1\. Nothing was charged/);
  });
});

async function zipOf(files: Record<string, Buffer>, { compress } = { compress: false }): Promise<Buffer> {
  const zip = new ZipFile();
  for (const [name, bytes] of Object.entries(files)) zip.addBuffer(bytes, name, { compress });
  zip.end();
  const pieces: Buffer[] = [];
  for await (const piece of zip.outputStream) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}
