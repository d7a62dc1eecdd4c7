import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BatchJson } from "../src/batch-json.ts";
import { makeLogger } from "../src/compose.ts";
import { acceptPart } from "../src/db/batches.ts";
import { setSetting } from "../src/db/settings.ts";
import { makeMetrics } from "../src/metrics.ts";
import { concludeBatches } from "../src/workers/batches.ts";
import { type Backend, startBackend } from "./rig/backend.ts";
import { makeProcesses } from "./rig/processes.ts";
import { makeRequest } from "./rig/requests.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

const LOG = makeLogger({ LOG_LEVEL: "silent" }, "test");
let backend: Backend;
/** Nobody works here: what was accepted stays as it was accepted. */
let idle: Spine;
let spine: Spine;
beforeAll(async () => {
  backend = await startBackend();
  idle = await startSpine({ workers: 0, env: { CALLBACK_ORIGINS: backend.origin } });
  spine = await startSpine({ env: { CALLBACK_ORIGINS: backend.origin } });
}, 90_000);
afterAll(async () => {
  await idle?.stop();
  await spine?.stop();
  await backend?.close();
});

const image = (user: string, input: Record<string, unknown> = {}) => ({
  kind: "generation",
  user,
  input: { prompt: "one of many", width: 256, height: 256, ...input },
});
const post = (at: Spine, jobs: readonly unknown[], key: string, more: Record<string, unknown> = {}) =>
  at.call("POST", "/api/batches", { body: { jobs, ...more }, headers: { "idempotency-key": key } });
const grant = (at: Spine, user: string, credits: number) =>
  at.call("POST", `/api/credits/${user}/grants`, {
    body: { credits },
    headers: { "idempotency-key": `grant-${user}` },
  });
const chargesOf = async (at: Spine, user: string) =>
  (await at.sql`select amount from credit_ledger where user_id = ${user} and type = 'charge'`).map(({ amount }) =>
    Number(amount),
  );
function tally({ items }: { items: { problem: { code: string } | null }[] }): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { problem } of items) {
    const answer = problem?.code ?? "accepted";
    counts[answer] = (counts[answer] ?? 0) + 1;
  }
  return counts;
}

describe("a batch of 1,000", () => {
  /** Of each ten: seven good ones, one that cannot be read, one whose file is missing, one that is too dear in the end. */
  const jobs = Array.from({ length: 1_000 }, (_, index) => {
    if (index % 10 === 7) return image("rich", { prompt: "" });
    if (index % 10 === 8) return { kind: "staging", user: "rich", input: { image: crypto.randomUUID() } };
    if (index % 10 === 9) return image("poor", { images: 4, prompt: `poor ${index}` });
    return image("rich", { prompt: `good ${index}` });
  });

  test("accepts what can be, refuses the rest with what each would have been told alone, and answers the same again", async () => {
    await grant(idle, "rich", 1_000);
    const startedAt = performance.now();
    const { status, body } = await post(idle, jobs, "thousand", { metadata: { campaign: "autumn" } });
    const seconds = (performance.now() - startedAt) / 1_000;
    process.stdout.write(`a batch of 1,000 jobs was answered in ${seconds.toFixed(2)} s\n`);
    expect(status).toBe(202);
    expect(tally(body)).toEqual({ accepted: 750, invalid_input: 100, file_refused: 100, insufficient_credits: 50 });
    expect(body).toMatchObject({
      size: 1_000,
      accepted: 750,
      refused: 250,
      metadata: { campaign: "autumn" },
      counts: { pending: 750, processing: 0, completed: 0, failed: 0, canceled: 0 },
      credits: { charged: 900, kept: 0, refunded: 0 },
      endedAt: null,
      nextCursor: null,
    });
    expect(body.items.map((item: { index: number }) => item.index)).toEqual([...jobs.keys()]);
    expect((await chargesOf(idle, "rich")).length).toBe(700);
    expect(await chargesOf(idle, "poor")).toEqual(Array(50).fill(-4));

    // As a single one of the kind would have been refused, but for what names the request.
    for (const index of [7, 8]) {
      const alone = await idle.call("POST", "/api/jobs", {
        body: jobs[index],
        headers: { "idempotency-key": crypto.randomUUID() },
      });
      const { instance: _, detail, ...same } = body.items[index].problem;
      expect(alone.body).toMatchObject(same);
      expect(detail).toMatch(/^body field \/input/);
    }
    expect(body.items[999].problem).toMatchObject({ status: 402, required: 4, available: 0 });

    const again = await post(idle, jobs, "thousand", { metadata: { campaign: "autumn" } });
    expect(again.headers.get("idempotency-replayed")).toBe("true");
    expect(again.body).toEqual(body);
    expect((await chargesOf(idle, "rich")).length).toBe(700);

    const other = await post(idle, jobs.slice(1), "thousand", { metadata: { campaign: "autumn" } });
    expect([other.status, other.body.code]).toEqual([422, "idempotency_key_reused"]);
    expect(await idle.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  }, 120_000);

  test("is canceled whole: all that was charged is given back, and its end is told", async () => {
    const many = Array.from({ length: 230 }, (_, index) => image("fickle", { prompt: `unwanted ${index}` }));
    const { body } = await post(idle, many, "unwanted", { callbackUrl: `${backend.origin}/ended` });
    expect(body).toMatchObject({ accepted: 200, refused: 30, credits: { charged: 200 } });
    const canceled = await idle.call("POST", `${body.links.cancel}`);
    expect(canceled).toMatchObject({
      status: 202,
      body: { counts: { pending: 0, canceled: 200 }, credits: { charged: 200, kept: 0, refunded: 200 } },
    });
    expect(canceled.body.endedAt).not.toBeNull();
    const rows = await idle.sql`select type, url from callbacks where batch_id = ${body.id}`;
    expect([...rows]).toEqual([{ type: "batch.ended", url: `${backend.origin}/ended` }]);
    expect((await idle.call("POST", body.links.cancel)).body).toEqual(canceled.body);
    expect(await idle.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  }, 60_000);
});

test("a batch whose API is killed in the middle goes on where it broke off, and charges each item once", async () => {
  const processes = await makeProcesses(idle);
  try {
    const jobs = Array.from({ length: 250 }, (_, index) => image("interrupted", { prompt: `part ${index}` }));
    jobs[120] = image("interrupted", { prompt: "" });
    await grant(idle, "interrupted", 100);
    const doomed = await processes.start("api", { FAULT: "batch.part=kill" });
    const send = (url: string) =>
      fetch(`${url}/api/batches`, {
        method: "POST",
        headers: {
          authorization: `Bearer ${idle.key}`,
          "content-type": "application/json",
          "idempotency-key": "interrupted",
        },
        body: JSON.stringify({ jobs }),
      });
    await expect(send(doomed.url)).rejects.toThrow();
    expect(await doomed.ended).toBe("SIGKILL");
    const [row] = await idle.sql`select id, accepted_at from batches where idempotency_key = 'interrupted'`;
    expect(row?.["accepted_at"]).toBeNull();
    const halfway = await idle.call("GET", `/api/batches/${row?.["id"]}?limit=1000`);
    expect(halfway.body).toMatchObject({ accepted: 100, acceptedAt: null, credits: { charged: 100 } });

    const body = (await (await send(idle.api.url)).json()) as BatchJson;
    expect(body).toMatchObject({ id: row?.["id"], accepted: 249, refused: 1, credits: { charged: 249 } });
    expect(body.items.slice(0, 100)).toEqual(halfway.body.items);
    expect((await chargesOf(idle, "interrupted")).length).toBe(249);
    expect(await (await send(idle.api.url)).json()).toEqual(body);
    expect(await idle.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  } finally {
    await processes.close();
  }
}, 120_000);

test("one batch that is sent five times at once is one batch, charged once", async () => {
  const jobs = Array.from({ length: 120 }, (_, index) => image(`crowd-${index % 7}`, { prompt: `at once ${index}` }));
  const answers = await Promise.all(Array.from({ length: 5 }, () => post(idle, jobs, "at-once")));
  expect(answers.map(({ status }) => status)).toEqual([202, 202, 202, 202, 202]);
  for (const { body } of answers) expect(body.items).toEqual(answers[0]?.body.items);
  const [row] = await idle.sql`
    select count(*)::int as charges from credit_ledger where user_id like 'crowd-%' and type = 'charge'`;
  expect(row?.["charges"]).toBe(120);
  expect(await idle.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
}, 60_000);

test("a batch runs to its end, reports page by page what it cost and kept, and tells its end", async () => {
  const jobs = [
    ...Array.from({ length: 5 }, (_, index) => image("maker", { prompt: `made ${index}` })),
    image("maker", { prompt: "broken [sandbox: nsfw]" }),
    image("maker", { steps: 99 }),
  ];
  const { body } = await post(spine, jobs, "to-the-end", {
    callbackUrl: `${backend.origin}/batch`,
    metadata: { order: 4 },
  });
  expect(body).toMatchObject({ accepted: 6, refused: 1, credits: { charged: 6 } });
  await expect.poll(() => backend.received.some(({ path }) => path === "/batch"), { timeout: 30_000 }).toBe(true);
  const report = {
    counts: { pending: 0, processing: 0, completed: 5, failed: 1, canceled: 0 },
    credits: { charged: 6, kept: 5, refunded: 1 },
    metadata: { order: 4 },
  };
  const [told] = backend.genuine(spine);
  expect(told).toMatchObject({ type: "batch.ended", data: { id: body.id, ...report } });

  const seen: unknown[] = [];
  for (let cursor: string | null = ""; cursor !== null; ) {
    const page = await spine.call("GET", `${body.links.self}?limit=3${cursor && `&cursor=${cursor}`}`);
    expect(page.body).toMatchObject(report);
    expect(page.body.startedAt <= page.body.endedAt).toBe(true);
    seen.push(...page.body.items);
    cursor = page.body.nextCursor;
  }
  expect(seen).toEqual(told?.data.items);
  expect(seen).toHaveLength(7);
  expect(seen[6]).toMatchObject({ index: 6, job: null, problem: { errors: [{ pointer: "/input/steps" }] } });
  // A replay long after is the same batch.
  expect(
    (await post(spine, jobs, "to-the-end", { callbackUrl: `${backend.origin}/batch`, metadata: { order: 4 } })).body,
  ).toMatchObject({ id: body.id, ...report });
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
}, 60_000);

test("jobs of many users that end while the rest of their batch is accepted hold nothing up", async () => {
  const jobs = Array.from({ length: 150 }, (_, index) => image(`busy-${index % 40}`, { prompt: `busy ${index}` }));
  const { status, body } = await post(spine, jobs, "busy");
  expect([status, body.accepted]).toEqual([202, 150]);
  await expect
    .poll(async () => (await spine.call("GET", `${body.links.self}?limit=1`)).body, { timeout: 150_000, interval: 500 })
    .toMatchObject({ counts: { completed: 150 }, credits: { charged: 150, kept: 150, refunded: 0 } });
  expect((await spine.call("GET", `${body.links.self}?limit=1`)).body.endedAt).not.toBeNull();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
}, 180_000);

describe("a batch is refused as a whole", () => {
  test.each([
    ["without jobs", { jobs: [] }, 422],
    ["with 1,001 jobs", { jobs: Array(1_001).fill({}) }, 422],
    ["with an unknown field", { jobs: [{}], more: 1 }, 422],
    ["with a private address to call", { jobs: [{}], callbackUrl: "https://10.0.0.1/" }, 422],
    ["with what is nested without end", `{"jobs":[${"[".repeat(200_000)}${"]".repeat(200_000)}]}`, 422],
    ["with more than 5 MB", { jobs: [{ prompt: "x".repeat(5_100_000) }] }, 413],
  ])("%s", async (_, body, status) => {
    const headers = { "idempotency-key": crypto.randomUUID(), "content-type": "application/json" };
    expect((await idle.call("POST", "/api/batches", { body, headers })).status).toBe(status);
  });

  test("without a key", async () => {
    const answer = await idle.call("POST", "/api/batches", { body: { jobs: [{}] } });
    expect([answer.status, answer.body.code]).toEqual([400, "idempotency_key_missing"]);
  });
});

test("a batch of which nothing is accepted has ended at once, and is nobody else's", async () => {
  const { body } = await post(idle, [{}, image("x", { prompt: "" }), 7], "nothing");
  expect(body).toMatchObject({ accepted: 0, refused: 3, credits: { charged: 0 } });
  expect(body.endedAt).not.toBeNull();
  const stranger = await idle.keyFor("virtual-staging");
  expect((await idle.call("GET", body.links.self, { key: stranger })).status).toBe(404);
  expect((await idle.call("POST", body.links.cancel, { key: stranger })).status).toBe(404);
});

describe("a batch that is canceled while it is accepted", () => {
  test("accepts nothing more, and cancels what it accepted at that moment", async () => {
    const many = (user: string, count: number) =>
      Array.from({ length: count }, (_, index) => image(user, { prompt: `${user} ${index}` }));
    const jobs = [...many("swift", 100), ...many("stuck", 100), ...many("swift-2", 50)];
    let answer: ReturnType<typeof post> | undefined;
    await idle.sql.begin(async (tx) => {
      await tx`select lock_account('demo', 'stuck')`;
      answer = post(idle, jobs, "halfway");
      const accepted = async () =>
        (await idle.sql`select batch_id from jobs where user_id = 'swift' and batch_id is not null`).map(
          (row) => row["batch_id"] as string,
        );
      await expect.poll(async () => (await accepted()).length, { timeout: 20_000 }).toBe(100);
      const [id] = await accepted();
      expect((await idle.call("POST", `/api/batches/${id}/cancel`)).status).toBe(202);
    });
    const { status, body } = (await answer) ?? {};
    expect(status).toBe(202);
    const refused = tally(body)["canceled"] ?? 0;
    // The part in the middle may have been prepared before or after; the last one never is.
    expect([50, 150]).toContain(refused);
    expect(body.counts).toMatchObject({ pending: 0, canceled: 250 - refused });
    expect(body.credits).toMatchObject({ kept: 0, refunded: body.credits.charged });
    expect(body.endedAt).not.toBeNull();
    expect(body.items[249].problem).toMatchObject({ code: "canceled", status: 409 });
    expect(await idle.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  }, 60_000);
});

test("a batch that was canceled after its API died midway is ended by a worker, and what slipped in is stopped", async () => {
  const processes = await makeProcesses(idle);
  try {
    const jobs = Array.from({ length: 150 }, (_, index) => image("orphan", { prompt: `orphan ${index}` }));
    const doomed = await processes.start("api", { FAULT: "batch.part=kill" });
    const headers = {
      authorization: `Bearer ${idle.key}`,
      "content-type": "application/json",
      "idempotency-key": "orphan",
    };
    const body = JSON.stringify({ jobs, callbackUrl: `${backend.origin}/orphan` });
    await expect(fetch(`${doomed.url}/api/batches`, { method: "POST", headers, body })).rejects.toThrow();
    const [row] = await idle.sql`select id from batches where idempotency_key = 'orphan'`;
    const id = row?.["id"] as string;
    const canceled = await idle.call("POST", `/api/batches/${id}/cancel`);
    expect(canceled.body).toMatchObject({ acceptedAt: null, endedAt: null, counts: { canceled: 100 } });
    const slipped = makeRequest({ appId: "demo", userId: "orphan", batchId: id });
    await acceptPart(idle.db, id, [{ ord: 120, request: slipped }]);

    const services = { db: idle.db, logger: LOG, metrics: makeMetrics(), reach: async () => {} };
    // Its API may still be at it.
    expect(await concludeBatches(services)).toBe(0);
    await idle.sql`update batches set cancel_requested_at = now() - interval '1 hour' where id = ${id}`;
    expect(await concludeBatches(services)).toBe(1);
    expect(await concludeBatches(services)).toBe(0);

    const ended = await idle.call("GET", `/api/batches/${id}?limit=1000`);
    expect(ended.body).toMatchObject({ accepted: 101, refused: 49, counts: { pending: 0, canceled: 101 } });
    expect(ended.body.credits).toMatchObject({ kept: 0, refunded: ended.body.credits.charged });
    expect(ended.body.endedAt).not.toBeNull();
    expect(ended.body.items[149].problem).toMatchObject({ code: "canceled", status: 409 });
    expect(await idle.sql`select type from callbacks where batch_id = ${id}`).toHaveLength(1);
    expect(await idle.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  } finally {
    await processes.close();
  }
}, 120_000);

test("whoever is charged for an item has it, also when another attempt refuses it in that instant", async () => {
  const { body } = await post(idle, [{}, {}], "raced");
  await idle.sql`delete from batch_items where batch_id = ${body.id} and ord = 1`;
  const request = makeRequest({ appId: "demo", userId: "raced", batchId: body.id });
  let answers: ReturnType<typeof acceptPart> | undefined;
  await idle.sql.begin(async (tx) => {
    await tx`insert into batch_items (batch_id, ord, problem) values (${body.id}, 1, '{"code": "unavailable"}')`;
    answers = acceptPart(idle.db, body.id, [{ ord: 1, request }]);
    await new Promise((resolve) => setTimeout(resolve, 300));
  });
  expect((await answers)?.get(1)?.outcome).toBe("accepted");
  const [row] = await idle.sql`select job_id, problem from batch_items where batch_id = ${body.id} and ord = 1`;
  expect(row).toEqual({ job_id: request.id, problem: null });
});

test("an item's problem is kept whatever its fields are called, and however many there are", async () => {
  const many = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`${index}${"x".repeat(500)}`, 1]));
  const reused = { ...image("odd"), reuse: { seconds: 60 } };
  const { status, body } = await post(
    idle,
    [{ ...image("odd"), "a\u0000b\ud800": 1 }, { ...image("odd"), ...many }, reused],
    "odd",
  );
  expect([status, body.refused]).toEqual([202, 3]);
  expect(body.items[0].problem.errors).toMatchObject([{ pointer: "/ab\ufffd" }]);
  const { errors, detail } = body.items[1].problem;
  expect(errors).toHaveLength(21);
  expect(errors[0].pointer).toHaveLength(201);
  expect(errors[20]).toEqual({ pointer: "", detail: "… and 30 more" });
  expect(detail.length).toBeLessThan(10_000);
  expect(body.items[2].problem).toMatchObject({ code: "invalid_input", errors: [{ pointer: "/reuse" }] });
});

test("an app that is switched off answers no item: the same key goes on when it is on again", async () => {
  const jobs = [image("patient"), image("patient", { prompt: "" })];
  await setSetting(idle.db, "demo", "app_enabled", false);
  const refused = await post(idle, jobs, "switch").finally(() => setSetting(idle.db, "demo", "app_enabled", true));
  expect(refused).toMatchObject({ status: 503, body: { code: "app_disabled" } });
  expect(refused.headers.get("retry-after")).not.toBeNull();
  expect(refused.body.detail).toMatch(/1 of the 2 jobs/);
  expect((await post(idle, jobs, "switch")).body).toMatchObject({ accepted: 1, refused: 1 });
});
