import sharp from "sharp";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { type Answer, type Spine, startSpine } from "./rig/spine.ts";

vi.setConfig({ testTimeout: 90_000 });

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine();
});
afterAll(() => spine?.stop());
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const wish = (
  user: string,
  prompt: string,
  more: Record<string, unknown> = {},
  input: Record<string, unknown> = {},
) => ({
  kind: "generation",
  user,
  input: { prompt, ...input },
  reuse: { seconds: 3_600 },
  ...more,
});
const send = (body: unknown, key: string = crypto.randomUUID(), headers: Record<string, string> = {}) =>
  spine.call("POST", "/api/jobs", { body, headers: { "idempotency-key": key, ...headers } });

/** A connection that was cut in the crowd is tried again with the same key, as callers do. */
async function insist(body: unknown): Promise<Answer> {
  const key = crypto.randomUUID();
  for (let tries = 1; ; tries++) {
    const answer = await send(body, key).catch((error: unknown) => {
      if (tries === 20) throw error;
      return null;
    });
    if (answer && answer.body.code !== "unavailable") return answer;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

async function charges(user: string): Promise<number> {
  const [row] = await spine.sql`
    select count(*)::int as n from credit_ledger where user_id = ${user} and type = 'charge'`;
  return row?.["n"];
}

test("an equal request while the first is under way gets the same job, charged once, and its replay the same answer", async () => {
  spine.sandbox.faults.add({ fault: "slow=6", match: { promptContains: "a slow fox" } });
  const body = wish("ann", "a slow fox");
  const first = await send(body, "one");
  const second = await send(body, "two");
  expect([first.status, second.status]).toEqual([202, 202]);
  expect(first.headers.get("result-reused")).toBeNull();
  expect(second.headers.get("result-reused")).toBe("true");
  expect(second.body.id).toBe(first.body.id);
  expect(await charges("ann")).toBe(1);
  const replay = await send(body, "two");
  expect(replay.body.id).toBe(first.body.id);
  expect(replay.headers.get("result-reused")).toBe("true");
  expect(await send(wish("ann", "another fox"), "two")).toMatchObject({
    status: 422,
    body: { code: "idempotency_key_reused" },
  });
  await spine.ended(first.body.id, 60_000);
  const after = await send(body, "two");
  expect(after).toMatchObject({ status: 200, body: { id: first.body.id, status: "completed" } });
  expect(await charges("ann")).toBe(1);
});

test("what completed within the period is answered at once; after it, and for another user, there is a new job", async () => {
  const job = await spine.submit(wish("bea", "a hare"));
  await spine.ended(job.id, 60_000);
  const at = await send(wish("bea", "a hare"));
  expect(at).toMatchObject({ status: 200, body: { id: job.id, status: "completed" } });
  expect(at.body.resultUrls).toHaveLength(1);
  expect(at.headers.get("result-reused")).toBe("true");

  const other = await send(wish("bob", "a hare"));
  expect(other.status).toBe(202);
  expect(other.body.id).not.toBe(job.id);
  await spine.sql`update jobs set ended_at = ended_at - interval '2 hours' where id = ${job.id}`;
  const later = await send(wish("bea", "a hare"));
  expect(later.status).toBe(202);
  expect(later.body.id).not.toBe(job.id);
  // 0 s: only what is under way.
  await spine.ended(later.body.id, 60_000);
  const never = await send(wish("bea", "a hare", { reuse: { seconds: 0 } }));
  expect(never.body.id).not.toBe(later.body.id);
  await Promise.all([other.body.id, never.body.id].map((id) => spine.ended(id, 60_000)));
});

test("what failed, was canceled, is being canceled, or never offered itself is not used again", async () => {
  spine.sandbox.faults.add({ fault: "nsfw", match: { promptContains: "a bad one" } });
  const failed = await spine.submit(wish("cid", "a bad one"));
  expect(await spine.ended(failed.id, 60_000)).toMatchObject({ status: "failed" });
  spine.sandbox.faults.clear();
  const again = await send(wish("cid", "a bad one"));
  expect(again.body.id).not.toBe(failed.id);

  spine.sandbox.faults.add({ fault: "slow=6", match: { promptContains: "a slow one" } });
  const canceled = await spine.submit(wish("cid", "a slow one"));
  await spine.call("POST", `/api/jobs/${canceled.id}/cancel`);
  const next = await send(wish("cid", "a slow one"));
  expect(next.body.id).not.toBe(canceled.id);

  const { reuse: _, ...plain } = wish("cid", "a plain one");
  const first = await spine.submit(plain);
  expect((await send(wish("cid", "a plain one"))).body.id).not.toBe(first.id);
  await spine.call("POST", `/api/jobs/${next.body.id}/cancel`);
  const jobs = await spine.call("GET", "/api/jobs?user=cid");
  for (const { id } of jobs.body.jobs) await spine.ended(id, 60_000);
});

test("what comes to the same is the same; what changes the outcome is another job", async () => {
  const same = [
    wish("dan", "an elk"),
    wish("dan", "  an elk "),
    wish("dan", "an elk", { metadata: { order: 1 } }),
    wish("dan", "an elk", { model: "flux-schnell" }, { size: "square", images: 1 }),
    wish("dan", "an elk", {}, { width: 1024, height: 1024, minSuccess: 1 }),
  ];
  const ids = new Set<string>();
  for (const body of same) ids.add((await send(body)).body.id);
  expect(ids.size).toBe(1);
  const others = [
    wish("dan", "an elk", {}, { seed: 7 }),
    wish("dan", "an elk", {}, { seed: 8 }),
    wish("dan", "an elk", {}, { images: 2 }),
    wish("dan", "an elk", {}, { images: 2, minSuccess: 2 }),
    wish("dan", "an elk", { model: "flux-dev" }),
    wish("dan", "an elk", {}, { safety: false }),
  ];
  for (const body of others) ids.add((await send(body)).body.id);
  expect(ids.size).toBe(1 + others.length);
  expect((await send(wish("dan", "an elk", {}, { seed: 7 }))).headers.get("result-reused")).toBe("true");
  await Promise.all([...ids].map((id) => spine.ended(id, 60_000)));
});

test("the same picture under another name is the same, another picture is not", async () => {
  const upload = async (background: string): Promise<string> => {
    const bytes = await sharp({ create: { width: 320, height: 240, channels: 3, background } })
      .png()
      .toBuffer();
    const { body } = await spine.call("POST", "/api/uploads", {
      body: bytes,
      headers: { "content-type": "image/png" },
    });
    return body.id;
  };
  const [red, blue] = [await upload("#aa0000"), await upload("#0000aa")];
  const edit = (image: string) => ({
    kind: "edit",
    user: "fay",
    input: { image, instruction: "add snow" },
    reuse: { seconds: 3_600 },
  });
  const first = await send(edit(red), "fay-1");
  const same = await send(edit(red.toUpperCase()), "fay-2");
  expect(same.body.id).toBe(first.body.id);
  expect(same.headers.get("result-reused")).toBe("true");
  const other = await send(edit(blue));
  expect(other.body.id).not.toBe(first.body.id);
  for (const { body } of [first, other]) await spine.ended(body.id, 60_000);
  // Also when its files would have to be prepared again.
  const replay = await send(edit(red.toUpperCase()), "fay-2");
  expect(replay).toMatchObject({ status: 200, body: { id: first.body.id } });
  expect(replay.headers.get("result-reused")).toBe("true");
});

test("a thousand equal requests at once with different keys are one job", async () => {
  spine.sandbox.faults.add({ fault: "slow=15", match: { promptContains: "a herd" } });
  const answers = await Promise.all(Array.from({ length: 1_000 }, () => insist(wish("eve", "a herd"))));
  // 200: the job had ended by then.
  expect(answers.every(({ status }) => status === 202 || status === 200)).toBe(true);
  expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
  expect(answers.filter(({ headers }) => headers.get("result-reused") === null)).toHaveLength(1);
  expect(await charges("eve")).toBe(1);
  await spine.ended(answers[0]?.body.id, 60_000);
}, 90_000);
