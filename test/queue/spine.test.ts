import sharp from "sharp";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { resumeProvider } from "../../src/db/provider-states.ts";
import { type Spine, startSpine } from "../rig/spine.ts";

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine();
});
afterAll(() => spine?.stop());
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const generation = (prompt: string, input: Record<string, unknown> = {}) => ({
  kind: "generation",
  user: "ann",
  input: { prompt, ...input },
});

async function roomPhoto(width = 640, height = 480): Promise<Buffer> {
  return sharp({ create: { width, height, channels: 3, background: "#c8b8a0" } })
    .jpeg()
    .toBuffer();
}

async function upload(bytes: Buffer, type = "image/jpeg") {
  return spine.call("POST", "/api/uploads", { body: bytes, headers: { "content-type": type } });
}

describe("a generation", () => {
  test("is charged, bought once, stored and kept", async () => {
    const accepted = await spine.submit(generation("a lighthouse at dawn", { size: "landscape" }));
    expect(accepted).toMatchObject({ status: "pending", price: { credits: 1 }, balance: { available: 199 } });
    const job = await spine.ended(accepted.id);
    expect(job).toMatchObject({ status: "completed", settlement: { charged: 1, kept: 1, refunded: 0 } });
    expect(job.runs).toHaveLength(1);
    const [url] = job.resultUrls;
    const file = await fetch(url as string);
    expect(file.headers.get("content-type")).toBe("image/webp");
    const picture = await sharp(Buffer.from(await file.arrayBuffer())).metadata();
    expect(job.results[0]?.file).toMatchObject({ width: picture.width, height: picture.height });
    expect((picture.width ?? 0) / (picture.height ?? 1)).toBeGreaterThan(1.3);
    expect(job.results[0]?.thumbnail?.width).toBeLessThanOrEqual(320);
  });

  test("of three images buys three runs with three seeds", async () => {
    const { id } = await spine.submit(generation("three boats", { images: 3, seed: 7 }));
    const job = await spine.ended(id);
    expect(job.results.map((result) => result.seed)).toEqual([7, 8, 9]);
    expect(new Set(job.results.map((result) => result.file?.sha256)).size).toBe(3);
    expect(job.runs).toHaveLength(3);
  });

  test("sends the fast model its defaults", async () => {
    const { id } = await spine.submit(generation("defaults", { width: 1280, height: 720 }));
    const job = await spine.ended(id);
    const [row] = await spine.sql`select input from runs where job_id = ${job.id}`;
    expect(row?.["input"]).toMatchObject({
      num_inference_steps: 4,
      output_format: "webp",
      output_quality: 80,
      go_fast: true,
      aspect_ratio: "16:9",
      megapixels: "1",
    });
  });

  test("that the safety filter holds back is refunded, and says so to the user", async () => {
    const before = (await spine.call("GET", "/api/credits/ann")).body.available;
    const { id } = await spine.submit(generation("[sandbox: nsfw] something"));
    const job = await spine.ended(id);
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "content_refused" },
      settlement: { charged: 1, kept: 0, refunded: 1 },
    });
    expect(job.failure?.message).toMatch(/safety filter/);
    expect((await spine.call("GET", "/api/credits/ann")).body.available).toBe(before);
  });

  test("keeps and charges the images that came, and refunds the one that did not", async () => {
    spine.sandbox.faults.add({ fault: "nsfw", times: 1, match: { promptContains: "four cats" } });
    const { id } = await spine.submit(generation("four cats", { images: 4 }));
    const job = await spine.ended(id);
    expect(job).toMatchObject({ status: "completed", settlement: { charged: 4, kept: 3, refunded: 1 } });
    expect(job.resultUrls).toHaveLength(3);
    expect(job.results.filter((result) => result.status === "failed")).toHaveLength(1);
  });

  test("that the provider interrupts is bought again, and charged once", async () => {
    spine.sandbox.faults.add({ fault: "interrupted", times: 1, match: { promptContains: "phoenix" } });
    const { id } = await spine.submit(generation("phoenix"));
    const job = await spine.ended(id);
    expect(job).toMatchObject({ status: "completed", settlement: { charged: 1, kept: 1 } });
    expect(job.runs.map((run) => [run.attempt, run.status])).toEqual([
      [1, "failed"],
      [2, "stored"],
    ]);
  });

  test("waits its turn when throttled: one run, one charge", async () => {
    spine.sandbox.faults.add({ fault: "rate_limited", times: 2, match: { promptContains: "patience" } });
    const { id } = await spine.submit(generation("patience"));
    const job = await spine.ended(id, 30_000);
    expect(job.status).toBe("completed");
    expect(job.runs).toHaveLength(1);
  });

  test("with the provider's account empty waits for it, with the remedy, and is bought once", async () => {
    spine.sandbox.faults.add({ fault: "no_credit", times: 1, match: { promptContains: "pauper" } });
    const { id } = await spine.submit(generation("pauper"));
    const waiting = await spine.until(id, ({ runs }) => runs[0]?.failure?.code === "provider_no_credit");
    expect(waiting).toMatchObject({
      status: "processing",
      failure: null,
      runs: [{ attempt: 1, status: "submitting" }],
    });
    expect(waiting.runs[0]?.failure?.remedy).toMatch(/Top it up/);
    await resumeProvider(spine.db, "sandbox");
    const job = await spine.ended(id);
    expect(job).toMatchObject({ status: "completed", settlement: { charged: 1, kept: 1 } });
    expect(job.runs).toHaveLength(1);
  });

  test("whose submission was accepted and then cut off is found again, not bought again", async () => {
    spine.sandbox.faults.add({ fault: "cut", times: 1, match: { promptContains: "severed" } });
    const { id } = await spine.submit(generation("severed"));
    const job = await spine.ended(id);
    expect(job.status).toBe("completed");
    expect(job.runs).toHaveLength(1);
    const lines = spine.sandbox.bill().lines.filter((line) => job.runs.some((run) => run.providerRunId === line.id));
    expect(lines).toHaveLength(1);
  });

  test("whose submission never arrived is bought again once the list proves it", async () => {
    spine.sandbox.faults.add({ fault: "refuse_before", times: 1, match: { promptContains: "vanished" } });
    const { id } = await spine.submit(generation("vanished"));
    const job = await spine.ended(id, 30_000);
    expect(job.status).toBe("completed");
    expect(job.runs.map((run) => run.failure?.code ?? run.status)).toEqual(["lost", "stored"]);
  });

  test("that answers 500 but was accepted is found again, not bought again", async () => {
    spine.sandbox.faults.add({ fault: "server_error_after_accept", times: 1, match: { promptContains: "liar" } });
    const { id } = await spine.submit(generation("liar"));
    const job = await spine.ended(id);
    expect(job.status).toBe("completed");
    expect(job.runs).toHaveLength(1);
  });

  test("two equal ones with the same seed, both cut off, each get a run of their own", async () => {
    spine.sandbox.faults.add({ fault: "cut", times: 2, match: { promptContains: "twins" } });
    const both = await Promise.all([
      spine.submit(generation("twins", { seed: 5 })),
      spine.submit(generation("twins", { seed: 5 })),
    ]);
    const jobs = await Promise.all(both.map(({ id }) => spine.ended(id)));
    expect(jobs.map((job) => job.status)).toEqual(["completed", "completed"]);
    expect(new Set(jobs.flatMap((job) => job.runs.map((run) => run.providerRunId))).size).toBe(2);
  });

  test("whose output is not there yet is fetched a moment later", async () => {
    spine.sandbox.faults.add({ fault: "output_404", times: 2, match: { promptContains: "dawdling" } });
    const { id } = await spine.submit(generation("dawdling"));
    expect(await spine.ended(id)).toMatchObject({ status: "completed", settlement: { kept: 1 } });
  });

  test("whose output cannot be fetched is refunded, and not bought again", async () => {
    spine.sandbox.faults.add({ fault: "output_404", times: 3, match: { promptContains: "ashes" } });
    const { id } = await spine.submit(generation("ashes"));
    const job = await spine.ended(id);
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "output_unavailable" },
      settlement: { refunded: 1 },
    });
    expect(job.runs).toHaveLength(1);
  });

  test("whose output is a web page is refunded: it is not a picture", async () => {
    spine.sandbox.faults.add({ fault: "output_html", times: 1, match: { promptContains: "page" } });
    const { id } = await spine.submit(generation("page"));
    expect(await spine.ended(id)).toMatchObject({ status: "failed", failure: { code: "output_invalid" } });
  });

  test("canceled while it runs is stopped at the provider and refunded", async () => {
    const { id } = await spine.submit(generation("[sandbox: slow=60] a long one"));
    await spine.until(id, (job) => job.runs[0]?.status === "running");
    expect((await spine.call("POST", `/api/jobs/${id}/cancel`)).status).toBe(202);
    const job = await spine.ended(id);
    expect(job).toMatchObject({ status: "canceled", settlement: { charged: 1, kept: 0, refunded: 1 } });
    const line = spine.sandbox.bill().lines.find((each) => each.id === job.runs[0]?.providerRunId);
    expect(line?.status).toBe("canceled");
    expect((await spine.call("POST", `/api/jobs/${id}/cancel`)).status).toBe(202);
    const done = await spine.ended((await spine.submit(generation("done"))).id);
    const late = await spine.call("POST", `/api/jobs/${done.id}/cancel`);
    expect(late).toMatchObject({ status: 409, body: { status: 409, jobStatus: "completed" } });
  });

  test("shows its progress while it runs", async () => {
    const { id } = await spine.submit(generation("[sandbox: slow=30] slowly"));
    const job = await spine.until(id, (each) => each.progress > 0.1);
    expect(job.status).toBe("processing");
    await spine.call("POST", `/api/jobs/${id}/cancel`);
    await spine.ended(id);
  });
});

describe("a staging", () => {
  test("gives two different pictures of the caller's own photo for 40 credits", async () => {
    const uploaded = await upload(await roomPhoto());
    expect(uploaded.status).toBe(201);
    const accepted = await spine.submit({
      kind: "staging",
      user: "bob",
      input: { image: uploaded.body.id, style: "scandinavian" },
    });
    expect(accepted).toMatchObject({
      price: { credits: 40, lines: [{ credits: 20 }, { credits: 20 }] },
      balance: { available: 160 },
    });
    const job = await spine.ended(accepted.id);
    expect(job).toMatchObject({ status: "completed", settlement: { kept: 40 } });
    expect(job.resultUrls).toHaveLength(2);
    expect(new Set(job.results.map((result) => result.seed)).size).toBe(2);
    expect(job.results.map((result) => [result.file?.width, result.file?.height])).toEqual([
      [640, 480],
      [640, 480],
    ]);
    expect(job.runs.map((run) => run.model)).toEqual([
      "black-forest-labs/flux-kontext-pro",
      "black-forest-labs/flux-kontext-pro",
    ]);
  });

  test("takes its photo from an address, checked and kept before anything is charged", async () => {
    const source = await spine.ended((await spine.submit(generation("an empty room", { size: "landscape" }))).id);
    const { body } = await spine.call("GET", `/api/jobs/${source.id}/timeline`);
    // The sandbox's own origin is the one address on this machine that may be fetched from.
    const [url] = body.facts.find((fact: { type: string }) => fact.type === "succeeded").detail.outputs;
    const { id } = await spine.submit({ kind: "staging", user: "bob", input: { image: url } });
    const job = await spine.ended(id);
    expect(job.status).toBe("completed");
    const [row] =
      await spine.sql`select role, width from assets where id::text = (select files->>'image' from jobs where id = ${id})`;
    expect(row).toMatchObject({ role: "input", width: source.results[0]?.file?.width });
  });

  test("delivers both or nothing: one variant failing refunds all 40", async () => {
    const uploaded = await upload(await roomPhoto(320, 240));
    spine.sandbox.faults.add({ fault: "nsfw", times: 1, match: { promptContains: "industrial" } });
    const { id } = await spine.submit({
      kind: "staging",
      user: "bob",
      input: { image: uploaded.body.id, style: "industrial" },
    });
    const job = await spine.ended(id);
    expect(job).toMatchObject({ status: "failed", settlement: { charged: 40, kept: 0, refunded: 40 } });
  });

  test("asks the provider to stop the second variant when the first has ended badly", async () => {
    const uploaded = await upload(await roomPhoto(320, 240));
    spine.sandbox.faults.add({ fault: "slow", ms: 60_000, times: 2, match: { promptContains: "classic" } });
    const { id } = await spine.submit({
      kind: "staging",
      user: "bob",
      input: { image: uploaded.body.id, style: "classic" },
    });
    const { runs } = await spine.until(id, (job) => job.runs.filter((run) => run.status === "running").length === 2);
    // Somebody cancels one of them at the provider's own site.
    await fetch(`${spine.sandbox.url}/v1/predictions/${runs[0]?.providerRunId}/cancel`, {
      method: "POST",
      headers: { authorization: `Bearer ${spine.sandbox.token}` },
    });
    const job = await spine.ended(id);
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "provider_canceled" },
      settlement: { refunded: 40 },
    });
    expect(job.runs.map((run) => run.status)).toEqual(["canceled", "canceled"]);
  });
});
