import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { makeLogger, makeParts } from "../src/compose.ts";
import type { Answer, Order } from "../src/domain/provider.ts";
import type { Account } from "../src/domain/routing.ts";
import { type FaultPoint, makeReach, type Reach } from "../src/fault-points.ts";
import { FileNotFound } from "../src/storage/storage.ts";
import { dropInline, InlineRefused, keepInline, readingInline, sweepInline } from "../src/workers/inline.ts";
import type { Services } from "../src/workers/services.ts";
import { drainMs, type RunningWorker, startWorker } from "../src/workers/worker.ts";
import { alone } from "./rig/alone.ts";
import { makeProcesses } from "./rig/processes.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

const LOG = makeLogger({ LOG_LEVEL: "silent" }, "test");

let spine: Spine;
let parts: ReturnType<typeof makeParts>;
const workers: RunningWorker[] = [];
beforeAll(async () => {
  spine = await startSpine({ workers: 0 });
  parts = makeParts(spine.config, LOG, "test");
});
afterAll(async () => {
  await parts?.close();
  await spine?.stop();
});
afterEach(async () => {
  for (const worker of workers.splice(0)) await worker.drain();
  spine.sandbox.faults.clear();
  const { drift, unsettled } = await spine.audit();
  expect({ drift, unsettled }).toEqual({ drift: 0, unsettled: 0 });
});

/** What becomes of an answer on its way to us. */
type Fate = (answer: Answer, order: Order) => Promise<Answer> | Answer;

/** The sandbox as a provider of the other kind: one call that lasts as long as the run, its answer the bytes, and no list. */
function blocking(real: Account, fate: Fate): Account {
  return {
    ...real,
    submitMs: 60_000,
    signsWebhooks: false,
    find: async () => ({ outcome: "unlistable" }),
    async submit(order) {
      const answer = await real.submit({ ...order, webhookUrl: null });
      if (answer.outcome !== "submitted") return answer;
      const { providerRunId } = answer;
      for (;;) {
        const look = await real.look({ providerRunId, model: order.model, isTraining: false });
        if (look.status === "failed") return fate({ outcome: "completed", providerRunId, end: look }, order);
        if (look.status === "succeeded") {
          const outputs = await Promise.all(look.outputs.map(inside));
          return fate({ outcome: "completed", providerRunId, end: { ...look, outputs } }, order);
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
  };
}

async function inside(url: string): Promise<string> {
  const answer = await fetch(url);
  const bytes = Buffer.from(await answer.arrayBuffer());
  return `data:${answer.headers.get("content-type")};base64,${bytes.toString("base64")}`;
}

function startBlocking(fate: Fate = (answer) => answer, reach: Reach = makeReach(null)): RunningWorker {
  const [real] = parts.providers;
  return startWith(blocking(real, fate), reach);
}

function startWith(provider: Account, reach: Reach): RunningWorker {
  const worker = startWorker(
    {
      ...parts,
      providers: [provider],
      reach,
      ...alone(spine.config),
    },
    parts.backend,
    { kinds: ["generation"], concurrency: 4 },
  );
  workers.push(worker);
  return worker;
}

const generation = (prompt: string, input: object = {}) => ({
  kind: "generation",
  user: "ann",
  input: { prompt, ...input },
});
const bought = (prompt: string) => spine.sandbox.bill().lines.length - (before.get(prompt) ?? 0);
const before = new Map<string, number>();
async function submit(prompt: string, input: object = {}): Promise<string> {
  before.set(prompt, spine.sandbox.bill().lines.length);
  return (await spine.submit(generation(prompt, input))).id;
}
const waiting = async () => Number((await spine.sql`select count(*) from inline_outputs`)[0]?.["count"]);
const expireNow = (id: string) => spine.sql`
  update runs set expires_at = now() - interval '1 second', quiet_from = now() - interval '1 second', next_look_at = now()
  where job_id = ${id}`;
async function facts(id: string): Promise<string[]> {
  const { body } = await spine.call("GET", `/api/jobs/${id}/timeline`);
  return body.facts.map((fact: { type: string }) => fact.type);
}

describe("a call that is the whole run", () => {
  test("is bought and over with one answer, whose bytes never go into the database", async () => {
    startBlocking();
    const id = await submit("one call", { images: 2 });
    const job = await spine.ended(id);
    expect(job).toMatchObject({ status: "completed", settlement: { charged: 2, kept: 2 } });
    expect(job.runs.map((run) => [run.status, run.looks])).toEqual([
      ["stored", 0],
      ["stored", 0],
    ]);
    for (const run of job.runs)
      expect(run.costUsd).toBe(spine.sandbox.bill().lines.find((line) => line.id === run.providerRunId)?.cost_usd);
    const file = await fetch(job.resultUrls[0] ?? "");
    expect(file.headers.get("content-type")).toMatch(/^image\//);
    expect((await file.arrayBuffer()).byteLength).toBeGreaterThan(500);

    const [row] = await spine.sql`select outputs from runs where job_id = ${id} and variant = 0`;
    expect(row?.["outputs"]).toEqual([`stored:inline/${job.runs[0]?.id}-0`]);
    const [{ count } = { count: "" }] = await spine.sql`
      select count(*) from runs, job_events where outputs::text like '%data:%' or detail::text like '%data:%'`;
    expect(Number(count)).toBe(0);
    // Stored like any other, it waits nowhere else.
    await expect.poll(waiting).toBe(0);
    await expect(parts.storage.get(`inline/${job.runs[0]?.id}-0`)).rejects.toThrow(FileNotFound);
    const told = (await facts(id)).filter((fact) => ["submitted", "succeeded", "stored"].includes(fact));
    expect(told.slice(0, 2)).toEqual(["submitted", "succeeded"]);
  });

  test("that ends badly is given back, with what it took", async () => {
    startBlocking();
    const id = await submit("[sandbox: nsfw] refused");
    const job = await spine.ended(id);
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "content_refused" },
      settlement: { refunded: 1 },
      runs: [{ status: "failed", costUsd: 0, providerRunId: expect.any(String) }],
    });
    expect(bought("[sandbox: nsfw] refused")).toBe(1);
  });

  test("and whose answer is no picture that could be kept is given back, and what it cost is ours", async () => {
    startBlocking((answer) =>
      answer.outcome === "completed" && answer.end.status === "succeeded"
        ? { ...answer, end: { ...answer.end, outputs: ["data:image/png;base64,"] } }
        : answer,
    );
    const job = await spine.ended(await submit("hollow"));
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "output_invalid" },
      settlement: { refunded: 1 },
      runs: [{ costUsd: 0.003 }],
    });
  });

  test("and whose answer is lost is not bought again: it waits its time, and is given back", async () => {
    startBlocking(() => ({ outcome: "lost", detail: "the connection was reset" }));
    const id = await submit("unheard");
    await spine.until(id, (job) => job.runs[0]?.status === "unknown");
    // Two looks and more: nothing can be concluded from a list that is not there.
    for (let look = 0; look < 3; look++) {
      await spine.sql`update runs set next_look_at = now() where job_id = ${id}`;
      await new Promise((resolve) => setTimeout(resolve, 700));
    }
    expect((await spine.call("GET", `/api/jobs/${id}`)).body).toMatchObject({
      status: "processing",
      runs: [{ status: "unknown" }],
    });
    await expireNow(id);
    const job = await spine.ended(id);
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "unconfirmed", detail: expect.stringContaining("no list") },
      settlement: { charged: 1, kept: 0, refunded: 1 },
    });
    expect(job.runs).toHaveLength(1);
    expect(job.runs[0]).toMatchObject({ providerRunId: null, costUsd: null });
    expect(bought("unheard")).toBe(1);

    // A webhook tells of it after all: its cost is noted, and the refund stands.
    const line = spine.sandbox.bill().lines.at(-1);
    await spine.sql`update runs set provider_run_id = ${line?.id ?? ""}, next_look_at = now() where job_id = ${id}`;
    const after = await spine.until(id, (each) => each.runs[0]?.costUsd !== null);
    expect(after).toMatchObject({ status: "failed", settlement: { refunded: 1 }, runs: [{ costUsd: line?.cost_usd }] });
  }, 60_000);

  /** Throws at a point from the answer on, so many times. */
  function striking(point: FaultPoint, times: number): { readonly heard: Fate; readonly reach: Reach } {
    let left = 0;
    return {
      heard: (answer) => {
        left = times;
        return answer;
      },
      reach: async (reached) => {
        if (left === 0 || reached !== point) return;
        left--;
        throw new Error(`struck at ${point}`);
      },
    };
  }

  test("and whose worker fails at its answer leaves nothing behind, and buys nothing twice", async () => {
    const { heard, reach } = striking("submit.answered", 1);
    startBlocking(heard, reach);
    const id = await submit("struck");
    await spine.until(id, (job) => job.runs[0]?.status === "unknown", 25_000);
    await expireNow(id);
    expect(await spine.ended(id)).toMatchObject({ status: "failed", failure: { code: "unconfirmed" } });
    expect(bought("struck")).toBe(1);
    expect(await waiting()).toBe(0);
  }, 60_000);

  test("and that the database cannot take down for a moment is not lost: it is told again", async () => {
    const { heard, reach } = striking("apply.written", 2);
    startBlocking(heard, reach);
    const job = await spine.ended(await submit("a hiccup"), 25_000);
    expect(job).toMatchObject({
      status: "completed",
      settlement: { kept: 1 },
      runs: [{ attempt: 1, status: "stored" }],
    });
    expect((await facts(job.id)).filter((fact) => fact === "submitted" || fact === "succeeded")).toHaveLength(2);
    expect(bought("a hiccup")).toBe(1);
  }, 60_000);

  test("and whose file nobody will ask for is removed later", async () => {
    const { heard, reach } = striking("submit.answered", 1);
    startBlocking(heard, reach);
    const id = await submit("left");
    await spine.until(id, (job) => job.runs[0]?.status === "unknown", 25_000);
    const runId = (await spine.sql`select id from runs where job_id = ${id}`)[0]?.["id"] as string;
    await keepInline(parts, { runId, jobId: "" }, ["data:image/png;base64,aGVsbG8="]);
    await expireNow(id);
    await spine.ended(id);
    expect(await sweepInline(parts, 10)).toBe(0);
    await spine.sql`update inline_outputs set created_at = now() - interval '2 hours'`;
    expect(await sweepInline(parts, 10)).toBe(1);
    expect(await waiting()).toBe(0);
  }, 60_000);

  test("and whose answer has a name that another's had is kept under its run's own", async () => {
    const echo: Fate = (answer) =>
      answer.outcome === "completed" ? { ...answer, providerRunId: "req_of_a_proxy" } : answer;
    startBlocking(echo);
    for (const prompt of ["an original", "an echo"]) {
      const job = await spine.ended(await submit(prompt));
      expect(job).toMatchObject({ status: "completed", settlement: { kept: 1 } });
    }
    const rows = await spine.sql`select id, provider_run_id from runs order by created_at desc, id desc limit 2`;
    expect(rows.map((row) => row["provider_run_id"])).toEqual([rows[0]?.["id"], "req_of_a_proxy"]);
  }, 60_000);

  test("is waited for by a worker that drains", async () => {
    const worker = startBlocking();
    const id = await submit("[sandbox: slow=3] patient");
    await spine.until(id, (job) => job.runs[0]?.status === "submitting");
    await expect.poll(() => bought("[sandbox: slow=3] patient")).toBe(1);
    await worker.drain();
    const [row] = await spine.sql`select status from runs where job_id = ${id}`;
    expect(["storing", "stored"]).toContain(row?.["status"]);
    startBlocking();
    expect(await spine.ended(id)).toMatchObject({ status: "completed" });
    expect(bought("[sandbox: slow=3] patient")).toBe(1);
  }, 30_000);

  test("is not begun by a worker that drains: another one makes it", async () => {
    const prompt = "handed on";
    let worker: RunningWorker | null = null;
    worker = startBlocking(undefined, async (point) => {
      if (point === "advance.claimed") void worker?.drain();
    });
    const id = await submit(prompt);
    await expect.poll(async () => (await spine.sql`select epoch from jobs where id = ${id}`)[0]?.["epoch"]).toBe(1);
    await worker.drain();
    expect(bought(prompt)).toBe(0);
    startBlocking();
    expect(await spine.ended(id)).toMatchObject({ status: "completed" });
    expect(bought(prompt)).toBe(1);
  });

  test("or a look that finds the bytes in the answer: they are put away all the same", async () => {
    const [real] = parts.providers;
    const seen: Account = {
      ...real,
      async look(ref) {
        const look = await real.look(ref);
        return look.status === "succeeded" ? { ...look, outputs: await Promise.all(look.outputs.map(inside)) } : look;
      },
    };
    startWith(seen, makeReach(null));
    const job = await spine.ended(await submit("seen"));
    expect(job).toMatchObject({ status: "completed", settlement: { kept: 1 } });
    const [row] = await spine.sql`select outputs from runs where job_id = ${job.id}`;
    expect(row?.["outputs"]).toEqual([`stored:inline/${job.runs[0]?.id}-0`]);
    await expect.poll(waiting).toBe(0);
  });

  test("may make a drain long, and says so", () => {
    const [real] = parts.providers;
    expect(drainMs([real])).toBe(9_000);
    expect(drainMs([real, { ...real, submitMs: 120_000 }])).toBe(130_000);
  });
});

test("a call that is the whole run, whose worker is killed with the bytes in the store, is given back and bought once", async () => {
  const own = await startSpine({ workers: 0, env: { AI_PROVIDER: "sandbox:huggingface" } });
  const processes = await makeProcesses(own);
  try {
    // Nobody looks at what this provider makes.
    const { id } = await own.submit(generation("killed with the bytes", { safety: false }));
    const first = await processes.start("worker", { FAULT: `inline.kept@${id}=kill` });
    const late = new Promise<string>((resolve) => setTimeout(resolve, 40_000, "nothing struck it").unref());
    expect(await Promise.race([first.ended, late])).toBe("SIGKILL");
    const left = () => own.sql`select run_id from inline_outputs`;
    expect(await left()).toHaveLength(1);
    expect((await own.sql`select status from runs where job_id = ${id}`)[0]?.["status"]).toBe("submitting");

    await own.startWorker();
    await own.until(id, (job) => job.runs[0]?.status === "unknown", 40_000);
    // There is no list to find it in: it waits its time.
    await own.sql`
      update runs set expires_at = now() - interval '1 second', quiet_from = now() - interval '1 second',
        next_look_at = now()
      where job_id = ${id}`;
    const job = await own.ended(id, 40_000);
    expect(job).toMatchObject({
      status: "failed",
      failure: { code: "unconfirmed" },
      settlement: { charged: 1, kept: 0, refunded: 1 },
    });
    expect(job.runs).toHaveLength(1);
    expect(own.sandbox.bill().lines.map(({ face, status }) => [face, status])).toEqual([["huggingface", "succeeded"]]);
    expect(await own.audit()).toMatchObject({ drift: 0, unsettled: 0 });

    await own.sql`update inline_outputs set created_at = now() - interval '2 hours'`;
    const ownParts = makeParts(own.config, LOG, "test");
    await sweepInline(ownParts, 10).finally(() => ownParts.close());
    expect(await left()).toHaveLength(0);
  } finally {
    await processes.close();
    await own.stop();
  }
}, 150_000);

describe("an output inside of an answer", () => {
  let folder: string;
  let runId: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "darkroom-inline-"));
    runId = (await spine.sql`select id from runs limit 1`)[0]?.["id"] as string;
  });
  afterAll(() => rm(folder, { recursive: true }));
  const limits = { maxBytes: 100, timeoutMs: 1_000 };
  const reading = (position: number) =>
    readingInline({ ...parts, maxFileBytes: 100 } as unknown as Services, runId, position);

  test("is put away under its run and its place, as often as it is said", async () => {
    const outputs = ["https://x.example/0.png", "data:image/png;base64,aGVsbG8=", "data:,a%20b"];
    const kept = await keepInline(parts, { runId, jobId: "" }, outputs);
    expect(kept).toEqual(["https://x.example/0.png", `stored:inline/${runId}-1`, `stored:inline/${runId}-2`]);
    expect(await keepInline(parts, { runId, jobId: "" }, outputs)).toEqual(kept);
    expect(await waiting()).toBe(2);
    expect(await reading(1).fetchFile(kept[1] ?? "", limits)).toMatchObject({
      bytes: Buffer.from("hello"),
      contentType: "image/png",
    });
    const path = join(folder, "out");
    expect(await reading(2).fetchToFile(kept[2] ?? "", path, limits)).toMatchObject({
      bytes: 3,
      contentType: "application/octet-stream",
      sha256: createHash("sha256").update("a b").digest("hex"),
    });
    expect(await readFile(path, "utf8")).toBe("a b");

    await expect(reading(1).fetchFile(kept[1] ?? "", { ...limits, maxBytes: 4 })).rejects.toMatchObject({
      code: "too_large",
    });
    // The address of another output is somebody else's word, and goes the guarded way.
    await expect(reading(2).fetchFile(kept[1] ?? "", limits)).rejects.toMatchObject({ code: "invalid_url" });
    await dropInline(parts, { id: runId, outputs: kept });
    expect(await waiting()).toBe(0);
    await expect(reading(1).fetchFile(kept[1] ?? "", limits)).rejects.toMatchObject({
      code: "http_status",
      status: 404,
    });
  });

  test.each([
    ["cut off", "data:image/png;base64"],
    ["empty", "data:image/png;base64,"],
    ["too large", `data:image/png;base64,${"A".repeat(140_000_000)}`],
  ])("that is %s is refused", async (_, output) => {
    await expect(keepInline(parts, { runId, jobId: "" }, [output])).rejects.toThrow(InlineRefused);
    expect(await waiting()).toBe(0);
  });

  test("in a crowd is refused", async () => {
    await expect(keepInline(parts, { runId, jobId: "" }, Array(65).fill("data:,x"))).rejects.toThrow(/65 outputs/);
  });
});
