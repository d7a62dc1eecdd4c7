import { createHmac } from "node:crypto";
import { truncate } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { DrizzleQueryError } from "drizzle-orm";
import { fastify } from "fastify";
import { pino } from "pino";
import sharp from "sharp";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { secretFrom } from "../sandbox/webhook.ts";
import { answerProblems } from "../src/api/problem.ts";
import { makeLogger } from "../src/compose.ts";
import { createKey, revokeKey } from "../src/db/keys.ts";
import { KINDS, type KindName } from "../src/domain/kinds/kind.ts";
import { STYLES, stylesOf } from "../src/domain/styles.ts";
import { photo as picture } from "./rig/pictures.ts";
import { type Answer, type CallOptions, type Spine, startSpine } from "./rig/spine.ts";

let spine: Spine;
/** Serves what it is told to: a web server that is none of ours. */
let elsewhere: Server;
const call = (method: string, path: string, options?: CallOptions) => spine.call(method, path, options);
const post = (body: unknown, headers: Record<string, string> = {}) =>
  call("POST", "/api/jobs", { body, headers: { "idempotency-key": crypto.randomUUID(), ...headers } });

beforeAll(async () => {
  spine = await startSpine({ workers: 0 });
  elsewhere = createServer((_request, response) => response.end("hello"));
  await new Promise<void>((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
});
afterAll(async () => {
  elsewhere?.close();
  await spine?.stop();
});
afterEach(async () => {
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const fine = { kind: "generation", user: "ann", input: { prompt: "a lighthouse" } };
const generation = (input: Record<string, unknown>) => ({ ...fine, input: { ...fine.input, ...input } });

/** As text: this side could not even write it from a value. */
const nested = (depth: number) =>
  `{"kind":"generation","user":"ann","input":{"prompt":"x"},"metadata":{"deep":${"[".repeat(depth)}${"]".repeat(depth)}}}`;

async function entries(): Promise<number> {
  const [row] = await spine.sql`select count(*)::int as n from credit_ledger where type <> 'grant'`;
  return row?.["n"];
}

describe("what is refused is a problem document that names the field and the remedy, and charges nothing", () => {
  const cases: [string, () => Promise<Answer>, number, string, RegExp][] = [
    ["an unknown field", () => post({ ...fine, colour: "red" }), 422, "/colour", /unknown field/],
    ["an unknown field of the input", () => post(generation({ colour: "red" })), 422, "/input/colour", /unknown field/],
    ["a wrong type", () => post(generation({ images: "two" })), 422, "/input/images", /expected (number|int)/i],
    ["no prompt", () => post({ ...fine, input: {} }), 422, "/input/prompt", /string/],
    ["a blank prompt", () => post(generation({ prompt: "   " })), 422, "/input/prompt", /1/],
    ["a prompt that is too long", () => post(generation({ prompt: "x".repeat(2_001) })), 422, "/input/prompt", /2000/],
    ["a width out of range", () => post(generation({ width: 100, height: 512 })), 422, "/input/width", /256/],
    ["a width without a height", () => post(generation({ width: 512 })), 422, "/input/height", /give height too/],
    [
      "a size and a width",
      () => post(generation({ size: "square", width: 512, height: 512 })),
      422,
      "/input/size",
      /either/,
    ],
    [
      "more pixels than the model makes",
      () => post(generation({ width: 1_100, height: 1_100 })),
      422,
      "/input/width",
      /1048576/,
    ],
    ["five images", () => post(generation({ images: 5 })), 422, "/input/images", /4/],
    ["no images", () => post(generation({ images: 0 })), 422, "/input/images", /1/],
    ["a fractional seed", () => post(generation({ seed: 1.5 })), 422, "/input/seed", /int/],
    ["an unknown kind", () => post({ ...fine, kind: "sculpture" }), 422, "/kind", /kind|Invalid/i],
    ["an unknown model", () => post({ ...fine, model: "dall-e-9" }), 422, "/model", /flux-schnell/],
    ["a model of another kind", () => post({ ...fine, model: "flux-kontext-pro" }), 422, "/model", /flux-schnell/],
    ["no user", () => post({ kind: "generation", input: { prompt: "x" } }), 422, "/user", /string/],
    [
      "metadata that is too large",
      () => post({ ...fine, metadata: { note: "x".repeat(9_000) } }),
      422,
      "/metadata",
      /8192/,
    ],
    [
      "a character that no database keeps",
      () => post({ ...fine, metadata: { note: "\u0000" } }),
      422,
      "/metadata/note",
      /U\+0000/,
    ],
    [
      "half a character in the prompt",
      () => post(generation({ prompt: "a \ud83d b" })),
      422,
      "/input/prompt",
      /surrogate/,
    ],
    ["a user that no database keeps", () => post({ ...fine, user: "a\u0000b" }), 422, "/user", /U\+0000/],
    [
      "metadata that is nested without end",
      () => post(nested(3_000), { "content-type": "application/json" }),
      422,
      "/metadata",
      /nested deeper than 50/,
    ],
    [
      "a staging without a photo",
      () => post({ kind: "staging", user: "ann", input: {} }),
      422,
      "/input/image",
      /string/,
    ],
    [
      "a staging of an unknown upload",
      () => post({ kind: "staging", user: "ann", input: { image: crypto.randomUUID() } }),
      422,
      "/input/image",
      /no upload/,
    ],
    [
      "a photo at a private address",
      () => post({ kind: "staging", user: "ann", input: { image: "https://10.0.0.1/room.jpg" } }),
      422,
      "/input/image",
      /./,
    ],
    [
      "a photo on this very machine",
      () =>
        post({
          kind: "staging",
          user: "ann",
          input: { image: `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/` },
        }),
      422,
      "/input/image",
      /./,
    ],
    [
      "a photo that is no address",
      () => post({ kind: "staging", user: "ann", input: { image: "room.jpg" } }),
      422,
      "/input/image",
      /./,
    ],
    [
      "a style that does not exist",
      () => post({ kind: "staging", user: "ann", input: { image: crypto.randomUUID(), style: "baroque" } }),
      422,
      "/input/style",
      /modern/,
    ],
    [
      "a style of another kind",
      () => post({ kind: "staging", user: "ann", input: { image: crypto.randomUUID(), style: styleNotOf("staging") } }),
      422,
      "/input/style",
      /is a style of .*, not of staging; one of: .*modern/,
    ],
    [
      "a film from a picture with a model that takes words only",
      async () =>
        post({
          kind: "video",
          user: "ann",
          model: "zeroscope-v2-xl",
          input: { prompt: "waves", image: await uploaded(await photo()) },
        }),
      422,
      "/input/image",
      /zeroscope-v2-xl takes no image; seedance-1-lite, wan-2\.2-i2v-fast do/,
    ],
    [
      "a film that is longer than the model's, without naming one",
      () => post({ kind: "video", user: "ann", input: { prompt: "waves", seconds: 15 } }),
      422,
      "/input/seconds",
      /zeroscope-v2-xl, campaign-film make 15 s/,
    ],
    [
      "a mask of another size than the picture",
      async () =>
        post({
          kind: "edit",
          user: "ann",
          model: "flux-fill-pro",
          input: {
            image: await uploaded(await photo(64, 48)),
            mask: await uploaded(await photo(48, 64)),
            instruction: "a red door",
          },
        }),
      422,
      "/input/mask",
      /is 48×64 pixels, the image 64×48/,
    ],
    [
      "an upload in a training whose file was damaged since",
      async () => {
        const id = await uploaded(await picture(9));
        const [asset] = await spine.sql`select storage_key from assets where id = ${id}`;
        const file = join(spine.config.STORAGE_DIR, "files", asset?.["storage_key"]);
        await truncate(file, 4_000);
        return training(id);
      },
      422,
      "/input/photos/4",
      /damaged or incomplete|declared/,
    ],
    [
      "an animated photo in a training, by address",
      async () => training(await hosted(await animated())),
      422,
      "/input/photos/4",
      /has 2 frames; at most 1/,
    ],
    [
      "a photo that is cut off in a training, by address",
      async () => training(await hosted((await picture(9)).subarray(0, 4_000))),
      422,
      "/input/photos/4",
      /damaged or incomplete/,
    ],
    [
      "a photo that is no picture in a training, by address",
      async () => training(await hosted(Buffer.from("%PDF-1.7 and so on"))),
      422,
      "/input/photos/4",
      /./,
    ],
  ];
  for (const [name, send, status, pointer, detail] of cases)
    test(name, async () => {
      const before = await entries();
      const answer = await send();
      expect(answer.body).toMatchObject({ status, errors: [{ pointer }] });
      expect(answer.status).toBe(status);
      expect(answer.headers.get("content-type")).toMatch("application/problem+json");
      expect(answer.body.errors[0].detail).toMatch(detail);
      expect(answer.body.detail).toContain(pointer);
      expect(answer.body.instance).toBe(answer.headers.get("x-request-id"));
      expect(await entries()).toBe(before);
      expect(await spine.sql`select 1 from jobs`).toHaveLength(0);
    });

  test("no API key", async () => {
    const answer = await call("POST", "/api/jobs", { body: fine, key: null });
    expect(answer).toMatchObject({ status: 401, body: { code: "unauthenticated" } });
    expect(answer.headers.get("www-authenticate")).toMatch("Bearer");
    expect(answer.body.detail).toMatch(/npm run keys/);
  });

  test("an API key that is not ours, or was altered", async () => {
    for (const key of ["nonsense", `${spine.key}x`, spine.key.replace(/.$/, (last) => (last === "A" ? "B" : "A"))])
      expect((await call("GET", "/api/jobs", { key })).status).toBe(401);
  });

  test("a revoked API key", async () => {
    const key = await createKey(spine.db, "demo", "short-lived");
    await revokeKey(spine.db, key.split("_")[1] as string);
    expect((await call("GET", "/api/jobs", { key })).status).toBe(401);
  });

  test("no Idempotency-Key", async () => {
    const answer = await call("POST", "/api/jobs", { body: fine });
    expect(answer).toMatchObject({ status: 400, body: { code: "idempotency_key_missing" } });
  });

  test("more credits than the user has, with what is required and what there is", async () => {
    await call("POST", "/api/credits/poor/grants", { body: { credits: 1 }, headers: { "idempotency-key": "poor" } });
    const uploaded = await call("POST", "/api/uploads", {
      body: await photo(),
      headers: { "content-type": "image/png" },
    });
    const staging = { kind: "staging", user: "poor", input: { image: uploaded.body.id } };
    // Spend what the signup and the grant gave, 201, down to 1.
    for (let spent = 0; spent < 200; spent += 40) expect((await post(staging)).status).toBe(202);
    const answer = await post(staging);
    expect(answer).toMatchObject({ status: 402, body: { code: "insufficient_credits", required: 40, available: 1 } });
    expect(answer.body.detail).toMatch(/grants/);
    await spine.sql`update jobs set due_at = null`; // Nobody works on them here.
    expect((await call("GET", "/api/credits/poor")).body).toMatchObject({ available: 1 });
  });

  test("a body that is too large", async () => {
    const answer = await post({ ...fine, metadata: { note: "x".repeat(1_100_000) } });
    expect(answer).toMatchObject({ status: 413, body: { code: "payload_too_large" } });
  });

  test("a body that is not JSON", async () => {
    const headers = { "idempotency-key": "k", "content-type": "application/json" };
    expect(await call("POST", "/api/jobs", { body: nested(100_000), headers })).toMatchObject({ status: 422 });
    expect(await call("POST", "/api/jobs", { body: "{nope", headers })).toMatchObject({
      status: 400,
      body: { code: "malformed_request" },
    });
    expect(await call("POST", "/api/jobs", { body: "", headers })).toMatchObject({
      status: 400,
      body: { code: "malformed_request" },
    });
    expect(
      await call("POST", "/api/jobs", { body: "a=b", headers: { ...headers, "content-type": "text/plain" } }),
    ).toMatchObject({ status: 415, body: { code: "unsupported_media_type" } });
  });

  test("a job of another app, which does not exist for this one", async () => {
    await spine.sql`insert into apps (id, name, signup_grant, daily_allowance) values ('other', 'Other', 0, 0) on conflict do nothing`;
    const theirs = await createKey(spine.db, "other", "test");
    const { id } = await spine.submit(fine);
    for (const [method, path] of [
      ["GET", ""],
      ["GET", "/timeline"],
      ["GET", "/events"],
      ["POST", "/cancel"],
      ["POST", "/sync"],
    ])
      expect(await call(method as string, `/api/jobs/${id}${path}`, { key: theirs })).toMatchObject({
        status: 404,
        body: { code: "not_found" },
      });
    expect((await call("GET", "/api/jobs", { key: theirs })).body.jobs).toEqual([]);
    expect(await call("GET", "/api/jobs/not-an-id")).toMatchObject({ status: 422 });
    expect(await call("GET", `/api/jobs/${crypto.randomUUID()}`)).toMatchObject({ status: 404 });
  });

  test("a route that does not exist", async () => {
    expect(await call("GET", "/api/nope")).toMatchObject({ status: 404, body: { code: "not_found" } });
  });
});

async function photo(width = 64, height = 48): Promise<Buffer> {
  return sharp({ create: { width, height, channels: 3, background: "#a08060" } })
    .png()
    .toBuffer();
}

async function animated(): Promise<Buffer> {
  const frames = await Promise.all([7, 8].map((number) => picture(number, { width: 300, height: 300 })));
  return sharp(frames, { join: { animated: true } })
    .webp()
    .toBuffer();
}

async function uploaded(bytes: Buffer): Promise<string> {
  const headers = { "content-type": "application/octet-stream" };
  const { status, body } = await call("POST", "/api/uploads", { body: bytes, headers });
  if (status !== 201) throw new Error(JSON.stringify(body));
  return body.id;
}

/** At an address that may be fetched from: of the sandbox's own files. */
async function hosted(bytes: Buffer): Promise<string> {
  const form = new FormData();
  form.append("content", new Blob([new Uint8Array(bytes)]), "photo.jpg");
  const headers = { authorization: "Bearer r8_sandbox" };
  const kept = await fetch(`${spine.sandbox.url}/v1/files`, { method: "POST", headers, body: form });
  const { id } = (await kept.json()) as { id: string };
  const expiry = String(Math.floor(Date.now() / 1_000) + 3_600);
  const signature = createHmac("sha256", secretFrom("files of sandbox"))
    .update(`sandbox ${id} ${expiry}`)
    .digest("base64");
  return `${spine.sandbox.url}/v1/files/${id}/download?${new URLSearchParams({ owner: "sandbox", expiry, signature })}`;
}

/** Four good photos, and this one. */
async function training(fifth: string): Promise<Answer> {
  const good = await Promise.all([1, 2, 3, 4].map(async (number) => uploaded(await picture(number))));
  return post({ kind: "training", user: "ann", input: { photos: [...good, fifth], triggerWord: "ZQX" } });
}

function styleNotOf(kind: KindName): string {
  const own = stylesOf(kind).map(({ id }) => id);
  const other = STYLES.find(({ id }) => !own.includes(id));
  if (!other) throw new Error(`every style is one of ${kind}`);
  return other.id;
}

describe("an upload", () => {
  const upload = (body: unknown, type: string) =>
    call("POST", "/api/uploads", { body, headers: { "content-type": type } });

  test("is told by its bytes, whatever the request calls it, and kept once", async () => {
    const first = await upload(await photo(), "image/jpeg");
    expect(first).toMatchObject({ status: 201, body: { contentType: "image/png", width: 64, height: 48 } });
    const form = new FormData();
    form.append("file", new Blob([await photo()]), "room.png");
    const second = await call("POST", "/api/uploads", { body: form });
    expect(second).toMatchObject({ status: 201, body: { id: first.body.id } });
  });

  test("that is no image is refused, and so is one that only claims to be", async () => {
    expect(await upload(Buffer.from("<svg xmlns='http://www.w3.org/2000/svg'/>"), "image/png")).toMatchObject({
      status: 422,
      body: { code: "file_refused", reason: "not_an_image" },
    });
    const half = (await photo(800, 600)).subarray(0, 400);
    expect(await upload(half, "image/png")).toMatchObject({
      status: 422,
      body: { code: "file_refused", reason: "corrupt" },
    });
  });

  test("that is animated is refused: there would be no saying which of its pictures is meant", async () => {
    const answer = await upload(await animated(), "image/webp");
    expect(answer).toMatchObject({ status: 422, body: { code: "file_refused", reason: "animated" } });
  });

  test("that would unfold to gigabytes is refused before it is decoded", async () => {
    const bomb = await sharp({ create: { width: 12_000, height: 12_000, channels: 3, background: "white" } })
      .png({ compressionLevel: 9 })
      .toBuffer();
    expect(bomb.length).toBeLessThan(2_000_000);
    expect(await upload(bomb, "image/png")).toMatchObject({ status: 422, body: { reason: "too_many_pixels" } });
  });

  test("of the wrong content type, of an empty form, or without a key is refused", async () => {
    expect((await upload("hello", "text/plain")).status).toBe(415);
    expect((await call("POST", "/api/uploads", { body: new FormData() })).status).toBe(400);
    expect(
      (await call("POST", "/api/uploads", { body: await photo(), headers: { "content-type": "image/png" }, key: null }))
        .status,
    ).toBe(401);
  });
});

describe("the same Idempotency-Key", () => {
  test("with the same body answers with the same job, charged once, however often and at once", async () => {
    const body = { ...fine, user: "once" };
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => call("POST", "/api/jobs", { body, headers: { "idempotency-key": "same" } })),
    );
    expect(new Set(answers.map((answer) => answer.body.id)).size).toBe(1);
    expect(answers.every((answer) => answer.status === 202)).toBe(true);
    expect(answers.filter((answer) => answer.headers.get("idempotency-replayed") === null)).toHaveLength(1);
    expect((await call("GET", "/api/credits/once")).body.available).toBe(199);
    // Quoted, as the draft has it, and bare mean the same; and so does another order of the members.
    const quoted = await call("POST", "/api/jobs", {
      body: { input: { prompt: "a lighthouse" }, user: "once", kind: "generation" },
      headers: { "idempotency-key": '"same"' },
    });
    expect(quoted.headers.get("idempotency-replayed")).toBe("true");
    expect(quoted.body.id).toBe(answers[0]?.body.id);
  });

  test("with another body is refused with 422 and changes nothing", async () => {
    const headers = { "idempotency-key": "reused" };
    const first = await call("POST", "/api/jobs", { body: { ...fine, user: "re" }, headers });
    const answer = await call("POST", "/api/jobs", {
      body: { ...fine, user: "re", input: { prompt: "another" } },
      headers,
    });
    expect(answer).toMatchObject({ status: 422, body: { code: "idempotency_key_reused", jobId: first.body.id } });
    expect((await call("GET", "/api/credits/re")).body.available).toBe(199);
  });

  test("may be used again after a refusal: a refusal keeps nothing", async () => {
    const headers = { "idempotency-key": "after-refusal" };
    expect((await call("POST", "/api/jobs", { body: generation({ images: 9 }), headers })).status).toBe(422);
    expect((await call("POST", "/api/jobs", { body: fine, headers })).status).toBe(202);
  });
});

describe("credits", () => {
  test("are granted once per key, and show the entries that make them up", async () => {
    const grant = (credits: number) =>
      call("POST", "/api/credits/gil/grants", {
        body: { credits, description: "order 7" },
        headers: { "idempotency-key": "order-7" },
      });
    expect(await grant(50)).toMatchObject({ status: 201, body: { available: 250 } });
    expect(await grant(50)).toMatchObject({ status: 200, body: { available: 250 } });
    expect(await grant(51)).toMatchObject({ status: 422, body: { code: "idempotency_key_reused" } });
    const { body } = await call("GET", "/api/credits/gil");
    expect(
      body.entries.map((entry: { type: string; amount: number; balanceAfter: number }) => [
        entry.type,
        entry.amount,
        entry.balanceAfter,
      ]),
    ).toEqual([
      ["grant", 50, 250],
      ["grant", 200, 200],
    ]);
  });

  test("of a user that nobody mentioned are not there", async () => {
    expect(await call("GET", "/api/credits/nobody")).toMatchObject({ status: 404 });
  });
});

describe("lists", () => {
  test("are paged by cursor, newest first, and filtered", async () => {
    const ids: string[] = [];
    for (let index = 0; index < 5; index++) ids.push((await spine.submit({ ...fine, user: "lister" })).id);
    const first = await call("GET", "/api/jobs?user=lister&limit=3");
    expect(first.body.jobs.map((job: { id: string }) => job.id)).toEqual(ids.slice(2).reverse());
    expect(first.headers.get("link")).toMatch(/rel="next"/);
    const second = await call("GET", `/api/jobs?user=lister&limit=3&cursor=${first.body.nextCursor}`);
    expect(second.body.jobs.map((job: { id: string }) => job.id)).toEqual(ids.slice(0, 2).reverse());
    expect(second.body.nextCursor).toBeNull();
    expect((await call("GET", "/api/jobs?user=lister&status=completed")).body.jobs).toEqual([]);
    expect(await call("GET", "/api/jobs?limit=1000")).toMatchObject({ status: 422 });
    expect(await call("GET", "/api/jobs?colour=red")).toMatchObject({ status: 422 });
  });
});

describe("the operator's pages", () => {
  test("say that the service is alive and ready, and what it consists of", async () => {
    expect(await call("GET", "/livez", { key: null })).toMatchObject({ status: 200 });
    expect(await call("GET", "/readyz", { key: null })).toMatchObject({ status: 200, body: { status: "ok" } });
    expect(await call("GET", "/api/health", { key: null })).toMatchObject({
      status: 200,
      body: { status: "ok", storage: "local", providers: [{ name: "sandbox" }] },
    });
    const metrics = await call("GET", "/metrics", { key: null });
    expect(metrics.body).toMatch(/jobs_accepted_total\{kind="generation",outcome="accepted"\} \d/);
  });

  test("describe every route in OpenAPI 3.1, from the schemas that validate", async () => {
    const { body } = await call("GET", "/docs/json", { key: null });
    expect(body.openapi).toBe("3.1.0");
    expect(Object.keys(body.paths)).toEqual(
      expect.arrayContaining(["/api/jobs", "/api/jobs/{id}", "/api/uploads", "/api/credits/{user}"]),
    );
    expect(JSON.stringify(body.paths["/api/jobs"].post)).toMatch(/GenerationSubmission|generation/);
  });

  test("show the queues only to the admin, and only to look at", async () => {
    expect((await call("GET", "/queues", { key: null })).status).toBe(401);
    expect((await call("GET", "/queues/api/queues", { key: null })).status).toBe(401);
    const login = { authorization: `Basic ${Buffer.from("admin:admin of the tests").toString("base64")}` };
    const queues = await call("GET", "/queues/api/queues", { key: null, headers: login });
    expect(queues.status).toBe(200);
    expect(queues.body.queues.map((queue: { name: string }) => queue.name)).toEqual([...KINDS]);
    expect(queues.body.queues.every((queue: { readOnlyMode: boolean }) => queue.readOnlyMode)).toBe(true);
    expect((await call("PUT", "/queues/api/queues/generation/pause", { key: null, headers: login })).status).toBe(405);
  });
});

test("a user's id is read without the spaces around it, wherever it is named", async () => {
  await call("POST", "/api/credits/%20trim%20/grants", {
    body: { credits: 5 },
    headers: { "idempotency-key": "trim" },
  });
  for (const path of ["/api/credits/trim", "/api/credits/%20trim", "/api/users/trim%20"])
    expect((await call("GET", path)).body, path).toMatchObject({ user: "trim" });
  expect((await call("GET", "/api/credits/%20%20")).status).toBe(422);
});

test("a request with a thousand fields at fault is answered with twenty of them", async () => {
  const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`${index}${"y".repeat(300)}`, 1]));
  const { status, body } = await post({ ...fine, ...many });
  expect([status, body.errors.length]).toEqual([422, 21]);
  expect(body.errors[20].detail).toBe("… and 980 more");
  expect(JSON.stringify(body).length).toBeLessThan(10_000);
});

test("a deadlock is something to be tried again", async () => {
  const app = fastify();
  answerProblems(app);
  app.get("/", () => {
    throw Object.assign(new Error("deadlock detected"), { code: "40P01" });
  });
  const answer = await app.inject("/");
  expect([answer.statusCode, answer.json().code, answer.headers["retry-after"]]).toEqual([503, "unavailable", "5"]);
});

test("the log has no parameters of a failed query: neither in its words nor beside them", () => {
  const logger = makeLogger({ LOG_LEVEL: "silent" }, "test") as unknown as Record<
    symbol,
    Record<string, (e: Error) => object>
  >;
  const cause = Object.assign(new Error("violates check"), {
    code: "23514",
    detail: "Failing row contains (a secret)",
  });
  const failed = new DrizzleQueryError("insert into jobs values ($1)", ["a secret\n    at night"], cause);
  const logged = logger[pino.symbols.serializersSym]?.["err"]?.(new Error("outside", { cause: failed }));
  expect(JSON.stringify(logged)).not.toContain("secret");
  expect(JSON.stringify(logged)).not.toContain("night");
  expect(logged).toMatchObject({
    message: "outside",
    stack: expect.stringContaining("api.test.ts"),
    cause: {
      message: "Failed query: insert into jobs values ($1)",
      cause: { code: "23514", message: "violates check" },
    },
  });
});
