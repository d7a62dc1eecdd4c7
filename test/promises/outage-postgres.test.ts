import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Webhook } from "standardwebhooks";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { webhookPath } from "../../src/api/webhooks.ts";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../src/db/embedded.ts";
import type { JobJson } from "../../src/job-json.ts";
import { type Spine, startSpine } from "../rig/spine.ts";

/** How long it is down where it is down for long; `OUTAGE_SECONDS=600` tries ten minutes. */
const LONG_MS = Number(process.env["OUTAGE_SECONDS"] ?? 3) * 1_000;

/** A Postgres of this file's own, that is struck down without a checkpoint. The API and the worker are never restarted. */
let folder: string;
let server: EmbeddedPostgres;
let spine: Spine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "darkroom-outage-"));
  server = await startEmbeddedPostgres({ directory: join(folder, "data"), quiet: true });
  spine = await startSpine({ webhooks: true, databaseUrl: server.url });
});
afterAll(async () => {
  await spine?.stop();
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
});
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

/** Immediate stop: every session is torn, and the next start recovers from the log. */
async function strike(): Promise<void> {
  process.kill(server.pid, "SIGQUIT");
  await server.stop();
}

async function revive(): Promise<void> {
  server = await startEmbeddedPostgres({ directory: join(folder, "data"), port: server.port, quiet: true });
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
let lastNumber = 0;
const body = (directives = "") => {
  lastNumber++;
  const prompt = `number ${lastNumber} ${directives && `[sandbox: ${directives}]`}`;
  return { kind: "generation", user: `user-${lastNumber % 5}`, input: { prompt, width: 512, height: 512 } };
};

const post = (request: unknown, key: string) =>
  spine.call("POST", "/api/jobs", { body: request, headers: { "idempotency-key": key } });

/** Completed, bought once, charged once; whatever went down in between. */
async function expectWhole(ids: readonly string[]): Promise<void> {
  const open = async () => (await spine.sql`select id from jobs where ended_at is null`).map((row) => row["id"]);
  await expect.poll(() => open().catch(String), { timeout: 60_000, interval: 200 }).toEqual([]);
  const charges =
    await spine.sql`select job_id from credit_ledger where type = 'charge' and job_id in ${spine.sql(ids)}`;
  expect(charges.map((charge) => charge["job_id"]).sort()).toEqual([...ids].sort());
  for (const id of ids) {
    const job: JobJson = (await spine.call("GET", `/api/jobs/${id}`)).body;
    expect(job).toMatchObject({ status: "completed", settlement: { charged: 1, kept: 1, refunded: 0 } });
    const bought = spine.sandbox.bill().lines.filter((line) => job.runs.some((run) => line.webhook?.includes(run.id)));
    expect([job.runs.length, bought.length], JSON.stringify(job.runs)).toEqual([1, 1]);
  }
}

test(
  "while it is down requests are told to come again, and nothing is bought; afterwards everything goes on by itself",
  async () => {
    // The provider is slow to answer, so that most of them have not been bought when it goes down.
    spine.sandbox.faults.add({ fault: "slow_create", ms: 700 });
    const accepted = await Promise.all(
      Array.from({ length: 30 }, (_, index) => spine.submit(body(index % 2 ? "slow=2" : ""))),
    );
    // And these are on their way at that very moment: whoever gets no answer does not know.
    await expect.poll(() => spine.sandbox.bill().lines.length, { timeout: 10_000 }).toBeGreaterThan(3);
    const unsure = Array.from({ length: 20 }, (_, index) => ({ request: body(), key: `unsure-${index}` }));
    const underWay = unsure.map(({ request, key }) => post(request, key));
    const down = strike();
    const first = await Promise.all(underWay);
    await down;
    const downFrom = Date.now();
    for (const { status } of first) expect([202, 503]).toContain(status);

    const refused = { request: body(), key: "refused" };
    const answer = await post(refused.request, refused.key);
    expect(answer).toMatchObject({ status: 503, body: { code: "unavailable", status: 503, retryable: true } });
    expect(answer.headers.get("content-type")).toContain("application/problem+json");
    expect(answer.headers.get("retry-after")).toMatch(/^\d+$/);
    expect(answer.body.detail).toMatch(/again with the same Idempotency-Key/);
    const [, aJob] = accepted;
    expect((await spine.call("GET", `/api/jobs/${aJob?.id}`)).status).toBe(503);
    // A provider that hears 5xx sends its news again.
    const theirs = spine.sandbox.bill().lines[0];
    const runId = /sandbox\/([0-9a-f-]{36})\//.exec(theirs?.webhook ?? "")?.[1] as string;
    expect((await tell(runId, { id: theirs?.id, status: "succeeded" })).status).toBe(503);

    await sleep(LONG_MS);
    const bought = spine.sandbox.bill().lines.filter((line) => Date.parse(line.created_at) >= downFrom);
    const downUntil = Date.now();
    await revive();

    // What the provider accepted meanwhile had been decided before: never without an intent.
    const intents = await spine.sql`select id, created_at from runs`;
    for (const line of bought) {
      const intent = intents.find((row) => line.webhook?.includes(row["id"]));
      expect(intent?.["created_at"].getTime()).toBeLessThan(downFrom);
    }
    expect(bought.length).toBeLessThanOrEqual(spine.config.WORKER_CONCURRENCY);
    expect(spine.sandbox.bill().lines.filter((line) => Date.parse(line.created_at) < downUntil).length).toBeLessThan(
      30,
    );

    const ids = accepted.map((job) => job.id);
    for (const [index, { request, key }] of [...unsure, refused].entries()) {
      const again = await post(request, key);
      expect(again.status).toBe(202);
      // What was acknowledged is still there, under the same id.
      if (first[index]?.status === 202) expect(again.body.id).toBe(first[index]?.body.id);
      ids.push(again.body.id);
    }
    expect(new Set(ids).size).toBe(51);
    await expectWhole(ids);
  },
  120_000 + LONG_MS,
);

test("three stops in a row, one of them while the sweep takes everything up again, strand nothing", async () => {
  const ids: string[] = [];
  const submitMany = async (count: number) => {
    const jobs = await Promise.all(
      Array.from({ length: count }, (_, index) => spine.submit(body(["", "slow=3", "output_slow=2000"][index % 3]))),
    );
    ids.push(...jobs.map((job) => job.id));
  };
  /** Its answers may fail at first: connections that died are found out one by one. */
  const answers = () =>
    expect.poll(async () => (await spine.call("GET", "/api/jobs?limit=1")).status, { timeout: 10_000 }).toBe(200);

  await submitMany(9);
  await sleep(1_000);
  await strike();
  await sleep(1_500);
  await revive();
  // Everything that was due meanwhile is due now, and is claimed within the first second.
  await sleep(700);
  await strike();
  await revive();
  await answers();
  await submitMany(6);
  await strike();
  await sleep(500);
  await revive();
  await answers();
  await submitMany(3);
  await expectWhole(ids);
}, 120_000);

async function tell(runId: string, news: unknown) {
  const [id, at, raw] = [`msg_${crypto.randomUUID()}`, new Date(), JSON.stringify(news)];
  return spine.call("POST", webhookPath(spine.config.SIGNING_SECRET, "sandbox", runId), {
    body: raw,
    key: null,
    headers: {
      "content-type": "application/json",
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(at.getTime() / 1_000)),
      "webhook-signature": new Webhook(spine.sandbox.webhookSecret).sign(id, at, raw),
    },
  });
}
