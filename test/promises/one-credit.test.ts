import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeProcesses, type Processes } from "../rig/processes.ts";
import { type Spine, startSpine } from "../rig/spine.ts";

/** Three APIs as processes of their own; no worker, so that nothing is given back while it is counted. */
let spine: Spine;
let processes: Processes;
beforeAll(async () => {
  spine = await startSpine({ workers: 0 });
  processes = await makeProcesses(spine);
  await Promise.all(Array.from({ length: 3 }, () => processes.start("api")));
  expect(processes.started.map((api) => api.isRunning())).toEqual([true, true, true]);
}, 90_000);
afterAll(async () => {
  await processes?.close();
  await spine?.stop();
});

/** To the n-th of the three, by turns. */
async function post(turn: number, user: string, key: string): Promise<{ status: number; text: string }> {
  const answer = await fetch(`${processes.started[turn % 3]?.url}/api/jobs`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${spine.key}`,
      "content-type": "application/json",
      "idempotency-key": key,
    },
    body: JSON.stringify({ kind: "generation", user, input: { prompt: "one of many" } }),
    signal: AbortSignal.timeout(60_000),
  });
  return { status: answer.status, text: await answer.text() };
}

/** Takes the signup grant back, as an operator would, and grants what is wanted. */
async function userWith(credits: number): Promise<string> {
  const user = `user-${crypto.randomUUID()}`;
  const grant = { body: { credits }, headers: { "idempotency-key": `grant-${user}` } };
  const granted = () => spine.call("POST", `/api/credits/${user}/grants`, grant);
  await expect.poll(async () => (await granted()).status, { timeout: 20_000, interval: 500 }).toBeLessThan(300);
  const surplus = (await account(user)).balance - credits;
  await spine.sql`select post_entry('demo', ${user}, 'adjustment', 'balance', ${-surplus}, null, null, 'signup grant', '{}')`;
  expect((await account(user)).available).toBe(credits);
  return user;
}

/** An API that has just been overrun may ask for a moment. */
async function account(user: string): Promise<{ available: number; balance: number }> {
  const read = () => spine.call("GET", `/api/credits/${user}`);
  await expect.poll(async () => (await read()).status, { timeout: 20_000, interval: 500 }).toBe(200);
  return (await read()).body;
}

const chargesOf = (user: string) =>
  spine.sql`select job_id, amount from credit_ledger where user_id = ${user} and type = 'charge'`;
const jobsOf = (user: string) => spine.sql`select id from jobs where user_id = ${user}`;

describe("at three APIs at once", () => {
  test.each([
    [1, 1_000],
    [10, 1_000],
  ])(
    "%i credits buy as many jobs of %i requests, and the others are refused for want of credits",
    async (credits, requests) => {
      const user = await userWith(credits);
      const answers = await Promise.all(
        Array.from({ length: requests }, (_, turn) => post(turn, user, `${user}-${turn}`)),
      );

      const accepted = answers.filter((answer) => answer.status === 202);
      const refused = answers.filter((answer) => answer.status === 402);
      expect([accepted.length, refused.length]).toEqual([credits, requests - credits]);
      for (const { text } of refused) expect(JSON.parse(text)).toMatchObject({ code: "insufficient_credits" });
      expect(await account(user)).toMatchObject({ available: 0, balance: 0 });
      const [jobs, charges] = await Promise.all([jobsOf(user), chargesOf(user)]);
      const ids = accepted.map(({ text }) => JSON.parse(text).id).sort();
      expect(jobs.map((job) => job["id"]).sort()).toEqual(ids);
      expect(charges.map((charge) => charge["job_id"]).sort()).toEqual(ids);
      expect(charges.every((charge) => Number(charge["amount"]) === -1)).toBe(true);
      const [lowest] =
        await spine.sql`select min(balance_after)::int as least from credit_ledger where user_id = ${user}`;
      expect(lowest?.["least"]).toBe(0);
      expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
    },
    90_000,
  );

  test("fifty requests with one key are one job and one charge, for each of eight keys", async () => {
    const user = await userWith(100);
    const keys = Array.from({ length: 8 }, (_, index) => `${user}-key-${index}`);
    const answers = await Promise.all(
      keys.flatMap((key) => Array.from({ length: 50 }, async (_, turn) => ({ key, ...(await post(turn, user, key)) }))),
    );

    expect(answers.filter((answer) => answer.status !== 202)).toEqual([]);
    for (const key of keys) {
      const ids = answers.filter((answer) => answer.key === key).map(({ text }) => JSON.parse(text).id);
      expect([ids.length, new Set(ids).size]).toEqual([50, 1]);
    }
    const [jobs, charges] = await Promise.all([jobsOf(user), chargesOf(user)]);
    expect([jobs.length, charges.length]).toEqual([8, 8]);
    expect(new Set(charges.map((charge) => charge["job_id"])).size).toBe(8);
    expect((await account(user)).balance).toBe(92);
    expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  }, 60_000);

  test("one key for two different requests is one job; the other request is refused and charges nothing", async () => {
    const user = await userWith(100);
    const stranger = await userWith(100);
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, turn) => post(turn, turn % 2 ? user : stranger, `${user}-shared`)),
    );
    const accepted = answers.filter((answer) => answer.status === 202).map(({ text }) => JSON.parse(text).id);
    const refused = answers.filter((answer) => answer.status === 422).map(({ text }) => JSON.parse(text).code);
    expect([accepted.length, refused.length]).toEqual([25, 25]);
    expect(new Set(accepted).size).toBe(1);
    expect(new Set(refused)).toEqual(new Set(["idempotency_key_reused"]));
    expect([...(await chargesOf(user)), ...(await chargesOf(stranger))]).toHaveLength(1);
  });
});
