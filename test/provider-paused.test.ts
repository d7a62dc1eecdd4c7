import { afterAll, beforeAll, expect, test } from "vitest";
import { noteAnswer, resumeProvider } from "../src/db/provider-states.ts";
import { failure } from "../src/domain/failure.ts";
import { darkroom } from "./rig/compiled.ts";
import { type Answer, type Spine, startSpine } from "./rig/spine.ts";

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ workers: 0 });
});
afterAll(async () => {
  await spine?.stop();
});

const wish = { kind: "generation", user: "ann", input: { prompt: "a fox" } };
/** A machine that is busy with other tests says so: that is not what is asked here. */
async function post(path: string, body: unknown, key: string): Promise<Answer> {
  let answer: Answer | null = null;
  await expect
    .poll(
      async () => {
        answer = await spine.call("POST", path, { body, headers: { "idempotency-key": key } });
        return answer.body.code;
      },
      { timeout: 15_000, interval: 300 },
    )
    .not.toBe("unavailable");
  if (!answer) throw new Error("there was no answer");
  return answer;
}
const send = (key: string = crypto.randomUUID()) => post("/api/jobs", wish, key);
const noCredit = { outcome: "declined", failure: failure("provider_no_credit", "pay") } as const;
/** The API looks every 2 s. */
const becomes = (status: number, key?: string) =>
  expect.poll(async () => (await send(key)).status, { timeout: 20_000, interval: 200 }).toBe(status);

/** As the operator does it. */
const resume = (account: string) => darkroom(["resume", account], { DATABASE_URL: spine.config.DATABASE_URL });

test("while the account is out of credit submissions get 503 with the reason and cost nothing; quotes and replays go on", async () => {
  const before = await send("before");
  expect(before.status).toBe(202);
  await noteAnswer(spine.db, "sandbox", crypto.randomUUID(), noCredit);
  await becomes(503);
  const [charged] = await spine.sql`select count(*)::int as n from credit_ledger where type = 'charge'`;
  const refused = await send("order-7");
  expect(refused).toMatchObject({
    status: 503,
    body: {
      type: "urn:darkroom:error:provider_paused",
      code: "provider_paused",
      retryable: true,
      paused: [{ provider: "sandbox", reason: "provider_no_credit" }],
    },
  });
  expect(refused.body.detail).toMatch(/sandbox has been without credit since 20.*Nothing was charged/);
  expect(refused.headers.get("retry-after")).toBe("60");
  expect((await post("/api/quotes", wish, "quote")).status).toBe(201);
  const again = await send("before");
  expect(again).toMatchObject({ status: 202, body: { id: before.body.id } });
  expect(again.headers.get("idempotency-replayed")).toBe("true");
  const [after] = await spine.sql`select count(*)::int as n from credit_ledger where type = 'charge'`;
  expect(after).toEqual(charged);

  // The operator has paid: the very same request is taken.
  expect(await resume("sandbox")).toMatchObject({ code: 0, out: expect.stringMatching(/sandbox takes orders again/) });
  await becomes(202, "order-7");
  expect(await resume("sandbox")).toMatchObject({
    code: 1,
    err: expect.stringMatching(/neither paused nor left alone/),
  });
  expect(await spine.audit()).toMatchObject({ drift: 0 });
}, 90_000);

test("each job of a batch gets the refusal as its own answer", async () => {
  await noteAnswer(spine.db, "sandbox", crypto.randomUUID(), noCredit);
  await becomes(503);
  const batch = await post("/api/batches", { jobs: [wish, { ...wish, kind: "poem" }, wish] }, "batch");
  expect(batch).toMatchObject({ status: 202, body: { accepted: 0, refused: 3, credits: { charged: 0 } } });
  const codes = batch.body.items.map(({ problem }: { problem: { code: string } }) => problem.code);
  expect(codes).toEqual(["provider_paused", "invalid_input", "provider_paused"]);
  await resumeProvider(spine.db, "sandbox");
  await becomes(202);
});

test("jobs that meet an account without credit are parked, not failed, and one of them finds out that it is over", async () => {
  const rule = spine.sandbox.faults.add({ fault: "no_credit" });
  await spine.startWorker();
  await send();
  const pauses = async () => (await spine.sql`select 1 from provider_states where paused_reason is not null`).length;
  await expect.poll(pauses, { timeout: 20_000 }).toBe(1);
  await becomes(503);
  const { length: failed } = await spine.sql`select 1 from jobs where status = 'failed'`;
  expect(failed).toBe(0);
  expect(spine.sandbox.bill().lines).toEqual([]);

  spine.sandbox.faults.remove(rule.id);
  const open = async () => {
    // Nobody here waits for a minute, not for the next try either: an order that was out may be refused as the last one.
    await spine.sql`update provider_states set probe_at = now() where probe_at > now() and provider = 'sandbox'`;
    await spine.sql`update runs set not_before = now() where status = 'submitting' and send_before is null`;
    await spine.sql`
      update jobs set due_at = now() where lease_until is null and status in ('pending', 'processing')
        and id in (select job_id from runs where status = 'submitting' and not_before <= now())`;
    return (await spine.sql`select 1 from jobs where status in ('pending', 'processing')`).length;
  };
  await expect.poll(open, { timeout: 60_000, interval: 500 }).toBe(0);
  expect(await pauses()).toBe(0);
  const jobs = await spine.sql`select distinct status from jobs where ended_at is not null`;
  expect([...jobs]).toEqual([{ status: "completed" }]);
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  await becomes(202);
}, 120_000);
