import { Webhook } from "standardwebhooks";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { webhookPath } from "../../src/api/webhooks.ts";
import type { JobJson } from "../../src/job-json.ts";
import { type Spine, startSpine } from "../rig/spine.ts";

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ webhooks: true });
});
afterAll(() => spine?.stop());
afterEach(async () => {
  spine.sandbox.faults.clear();
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

const generation = (prompt: string) => ({ kind: "generation", user: "ann", input: { prompt } });
const looksOf = (job: JobJson) => job.runs.reduce((sum, run) => sum + run.looks, 0);
const inbox = async (runId: string | undefined): Promise<string[]> =>
  (await spine.sql`select status from webhook_inbox where run_id = ${runId ?? null} order by id`).map(
    (row) => row["status"],
  );

async function deliver(
  runId: string,
  body: unknown,
  options: { token?: string; secret?: string; at?: Date; id?: string; path?: string } = {},
) {
  const raw = JSON.stringify(body);
  const { at = new Date(), id = `msg_${crypto.randomUUID()}` } = options;
  const signature = new Webhook(options.secret ?? spine.sandbox.webhookSecret).sign(id, at, raw);
  const path = options.path ?? webhookPath(spine.config.SIGNING_SECRET, "sandbox", runId);
  return spine.call("POST", path, {
    body: raw,
    key: null,
    headers: {
      "content-type": "application/json",
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(at.getTime() / 1_000)),
      "webhook-signature": signature,
    },
  });
}

describe("a provider that calls back", () => {
  test("finishes the job, and is asked rarely and once at the end", async () => {
    const { id } = await spine.submit(generation("[sandbox: slow=4] called back"));
    const job = await spine.ended(id);
    expect(job.status).toBe("completed");
    // News of progress came twice a second; it was asked no more than every two seconds, and once at the end.
    expect(looksOf(job)).toBeLessThanOrEqual(4);
    expect(await inbox(job.runs[0]?.id)).toContain("succeeded");
  });

  test("twice changes nothing", async () => {
    const { id } = await spine.submit(generation("[sandbox: webhook_duplicate] twice"));
    const job = await spine.ended(id);
    expect(job).toMatchObject({ status: "completed", settlement: { charged: 1, kept: 1 } });
  });

  test("late, with older news after newer, changes nothing", async () => {
    const { id } = await spine.submit(generation("[sandbox: webhook_late=500] out of order"));
    const job = await spine.ended(id, 30_000);
    expect(job.status).toBe("completed");
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect((await spine.call("GET", `/api/jobs/${id}`)).body.status).toBe("completed");
  });

  test("before it has answered the submission is believed about its id, and the job goes on", async () => {
    const { id } = await spine.submit(generation("[sandbox: webhook_early] early"));
    const job = await spine.ended(id);
    expect(job.status).toBe("completed");
    expect(job.runs).toHaveLength(1);
  });

  test("whose answer to the submission was cut off is found again by its callback", async () => {
    const { id } = await spine.submit(generation("[sandbox: cut] found again"));
    const job = await spine.ended(id);
    expect(job.status).toBe("completed");
    expect(job.runs).toHaveLength(1);
  });

  test("never, is asked in the end", async () => {
    const { id } = await spine.submit(generation("[sandbox: webhook_drop=all] silence"));
    const job = await spine.ended(id, 40_000);
    expect(job.status).toBe("completed");
    expect(await inbox(job.runs[0]?.id)).toEqual([]);
    expect(looksOf(job)).toBeGreaterThan(0);
  }, 60_000);

  test("with a wrong signature or an old message is refused, and the job is finished by asking", async () => {
    for (const fault of ["webhook_bad_signature", "webhook_stale"]) {
      const { id } = await spine.submit(generation(`[sandbox: ${fault}] refused`));
      await spine.until(id, (job) => job.runs[0]?.status === "running" || job.endedAt !== null);
      expect((await spine.call("POST", `/api/jobs/${id}/sync`)).status).toBe(202);
      const job = await spine.ended(id, 40_000);
      expect(job.status).toBe("completed");
      expect(await inbox(job.runs[0]?.id)).toEqual([]);
    }
  }, 90_000);
});

describe("somebody else who calls back", () => {
  async function running(): Promise<{ job: JobJson; runId: string; theirs: string }> {
    const { id } = await spine.submit(generation("[sandbox: slow=30] a target"));
    const job = await spine.until(id, (each) => each.runs[0]?.status === "running");
    const [run] = job.runs;
    return { job, runId: run?.id ?? "", theirs: run?.providerRunId ?? "" };
  }

  test("without the right signature, address, age or run is refused and changes nothing", async () => {
    const { job, runId, theirs } = await running();
    const body = { id: theirs, status: "succeeded", output: ["https://evil.example/x.png"] };
    const other = "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0";
    expect((await deliver(runId, body, { secret: other })).status).toBe(401);
    expect((await deliver(runId, body, { at: new Date(Date.now() - 3_600_000) })).status).toBe(401);
    expect((await deliver(runId, body, { at: new Date(Date.now() + 3_600_000) })).status).toBe(401);
    expect((await deliver(runId, body, { path: `/api/webhooks/sandbox/${runId}/wrong-token` })).status).toBe(401);
    expect((await deliver(runId, body, { path: webhookPath("another secret", "sandbox", runId) })).status).toBe(401);
    expect((await deliver(crypto.randomUUID(), body)).status).toBe(404);
    expect(
      (await spine.call("POST", webhookPath(spine.config.SIGNING_SECRET, "sandbox", runId), { body, key: null }))
        .status,
    ).toBe(401);
    expect((await spine.call("POST", "/api/webhooks/nobody", { body, key: null })).status).toBe(404);
    expect(await inbox(runId)).not.toContain("succeeded");
    await spine.call("POST", `/api/jobs/${job.id}/cancel`);
    expect((await spine.ended(job.id)).status).toBe("canceled");
  });

  test("even with the right signature is not believed: the provider is asked", async () => {
    const { job, runId, theirs } = await running();
    const answer = await deliver(runId, { id: theirs, status: "succeeded", output: ["https://evil.example/x.png"] });
    expect(answer).toMatchObject({ status: 200, body: { received: true } });
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    const after = (await spine.call("GET", `/api/jobs/${job.id}`)).body;
    expect(after).toMatchObject({ status: "processing", runs: [{ status: "running" }] });
    await spine.call("POST", `/api/jobs/${job.id}/cancel`);
    await spine.ended(job.id);
  });

  test("at the address without a run is matched by the provider's own id", async () => {
    const { job, theirs, runId } = await running();
    expect(
      (await deliver(runId, { id: theirs, status: "processing" }, { path: "/api/webhooks/sandbox", id: "msg_plain" }))
        .status,
    ).toBe(200);
    expect(
      (await deliver(runId, { id: "not-one-of-ours", status: "processing" }, { path: "/api/webhooks/sandbox" })).status,
    ).toBe(404);
    const rows = await spine.sql`select 1 from webhook_inbox where delivery_id = 'msg_plain'`;
    expect(rows).toHaveLength(1);
    await spine.call("POST", `/api/jobs/${job.id}/cancel`);
    await spine.ended(job.id);
  });
});
