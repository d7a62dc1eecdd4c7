import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Spine, startSpine } from "./rig/spine.ts";

/** s3rver has no types; this is what is used of it. */
interface S3rver {
  run(): Promise<{ port: number }>;
  close(): Promise<void>;
}
const S3rver = createRequire(import.meta.url)("s3rver") as new (options: Record<string, unknown>) => S3rver;

let folder: string;
let s3: S3rver;
let spine: Spine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "darkroom-s3-"));
  s3 = new S3rver({
    port: 0,
    address: "127.0.0.1",
    silent: true,
    directory: folder,
    configureBuckets: [{ name: "darkroom" }],
  });
  const { port } = await s3.run();
  spine = await startSpine({
    env: {
      STORAGE_PROVIDER: "s3",
      S3_BUCKET: "darkroom",
      S3_ENDPOINT: `http://127.0.0.1:${port}`,
      S3_ACCESS_KEY_ID: "S3RVER",
      S3_SECRET_ACCESS_KEY: "S3RVER",
      S3_FORCE_PATH_STYLE: "true",
    },
  });
});
afterAll(async () => {
  await spine?.stop();
  await s3?.close();
  await rm(folder, { recursive: true, force: true });
});

test("a staging goes through a bucket: input, outputs and thumbnails, read by presigned addresses", async () => {
  const room = await sharp({ create: { width: 320, height: 240, channels: 3, background: "#c8b8a0" } })
    .jpeg()
    .toBuffer();
  const uploaded = await spine.call("POST", "/api/uploads", { body: room, headers: { "content-type": "image/jpeg" } });
  const { id } = await spine.submit({ kind: "staging", user: "ann", input: { image: uploaded.body.id } });
  const job = await spine.ended(id);
  expect(job).toMatchObject({ status: "completed", settlement: { kept: 40 } });
  for (const result of job.results)
    for (const file of [result.file, result.thumbnail]) {
      expect(file?.url).toMatch(/X-Amz-Signature/);
      const bytes = Buffer.from(await (await fetch(file?.url ?? "")).arrayBuffer());
      expect(bytes.length).toBe(file?.bytes);
      const { width, height } = await sharp(bytes).metadata();
      expect([width, height]).toEqual([file?.width, file?.height]);
    }
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});
