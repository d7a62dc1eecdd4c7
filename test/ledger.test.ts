import postgres from "postgres";
import { v7 as uuidv7 } from "uuid";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type AcceptRequest, acceptJobs, findByKey } from "../src/db/accept.ts";
import { connect, type Db, disconnect } from "../src/db/client.ts";
import { balanceOf, grant, ledgerDrift } from "../src/db/credits.ts";
import { apply, LeaseLost, loadJob } from "../src/db/jobs.ts";
import { claim, claimDue, release, renew, unclaimDue } from "../src/db/leases.ts";
import { saveApps } from "../src/db/migrate.ts";
import { countDead, notePresence } from "../src/db/workers.ts";
import { failure } from "../src/domain/failure.ts";
import { KINDS } from "../src/domain/kinds/kind.ts";
import type { IntendedRun, Spent } from "../src/domain/run.ts";
import { makeApp } from "./rig/apps.ts";
import { freshDatabase } from "./rig/database.ts";
import { makeRequest } from "./rig/requests.ts";

const plain = makeApp({ id: "plain", signupGrant: 100 });
const daily = makeApp({ id: "daily", signupGrant: 5 }, { dailyAllowance: 10 });
const SPENT: Spent = { seconds: 1, costMicroUsd: 1, costSource: "measured" };

let database: Awaited<ReturnType<typeof freshDatabase>>;
let db: Db;
let sql: postgres.Sql;
beforeAll(async () => {
  database = await freshDatabase();
  await saveApps(database.url, [plain, daily]);
  db = connect(database.url, { max: 8, name: "test" });
  sql = postgres(database.url, { max: 4, onnotice: () => {} });
});
afterAll(async () => {
  await sql?.end({ timeout: 5 });
  await disconnect(db);
  await database?.drop();
});
afterEach(async () => {
  expect(await ledgerDrift(db)).toEqual({ accounts: 0, credits: 0, unsettledJobs: 0 });
});

const request = (over: Partial<AcceptRequest> = {}) =>
  makeRequest({ appId: "plain", userId: "ann", variants: 2, maxAttempts: 3, credits: 10, ...over });

const accept = async (over: Partial<AcceptRequest> = {}) => (await acceptJobs(db, [request(over)]))[0];
const account = async (appId: string, userId: string) =>
  (await sql`select balance::int, allowance::int from accounts where app_id = ${appId} and user_id = ${userId}`)[0];
const entriesOf = async (userId: string, appId = "plain") =>
  (
    await sql`select type, bucket, amount::int, balance_after::int from credit_ledger where app_id = ${appId} and user_id = ${userId} order by seq`
  ).map((row) => [row["type"], row["bucket"], row["amount"], row["balance_after"]]);

describe("entries", () => {
  test("cannot be changed, deleted or truncated by anybody", async () => {
    await accept({ userId: "immutable" });
    await expect(sql`update credit_ledger set amount = 1`).rejects.toThrow(/append-only/);
    await expect(sql`delete from credit_ledger`).rejects.toThrow(/append-only/);
    await expect(sql`truncate credit_ledger cascade`).rejects.toThrow(/append-only/);
    await expect(sql`update settlements set kept = 0`).rejects.toThrow(/append-only/);
  });

  test("give a new user the app's signup grant once, however the account is made", async () => {
    await sql`insert into accounts (app_id, user_id, balance) values ('plain', 'direct', 999999)`;
    expect(await account("plain", "direct")).toEqual({ balance: 100, allowance: 0 });
    expect(await entriesOf("direct")).toEqual([["grant", "balance", 100, 100]]);
    await sql`insert into accounts (app_id, user_id) values ('plain', 'direct') on conflict do nothing`;
    expect(await entriesOf("direct")).toHaveLength(1);
  });

  test("never take a bucket below zero, whoever writes", async () => {
    await accept({ userId: "floor", credits: 100 });
    await expect(sql`update accounts set balance = -1 where user_id = 'floor'`).rejects.toThrow(/check/);
    await expect(
      sql`select post_entry('plain', 'floor', 'charge', 'balance', -1, null, null, 'x', '{}')`,
    ).rejects.toThrow(/check/);
  });
});

describe("acceptance", () => {
  test("answers each request of a group for itself: accepted, replayed, reused, too poor", async () => {
    const first = request({ userId: "group", idempotencyKey: "g1", credits: 60 });
    const answers = await acceptJobs(db, [
      first,
      request({ userId: "group", idempotencyKey: "g1", credits: 60 }),
      request({ userId: "group", idempotencyKey: "g1", fingerprint: "cd".repeat(32) }),
      request({ userId: "group", idempotencyKey: "g2", credits: 60 }),
      request({ userId: "other", idempotencyKey: "g3", credits: 1 }),
    ]);
    expect(answers.map((answer) => [answer.outcome, answer.available])).toEqual([
      ["accepted", 40],
      ["replayed", 40],
      ["key_reused", 40],
      ["insufficient_credits", 40],
      ["accepted", 99],
    ]);
    expect(answers[1]?.jobId).toBe(first.id);
    expect(await sql`select 1 from jobs where user_id = 'group'`).toHaveLength(1);
  });

  test("of one credit by a thousand requests at once takes exactly one", async () => {
    await sql`insert into accounts (app_id, user_id) values ('plain', 'last')`;
    await accept({ userId: "last", credits: 99 });
    const groups = Array.from({ length: 40 }, () =>
      Array.from({ length: 25 }, () => request({ userId: "last", credits: 1 })),
    );
    const outcomes = (await Promise.all(groups.map((group) => acceptJobs(db, group))))
      .flat()
      .map((answer) => answer.outcome);
    expect(outcomes.filter((outcome) => outcome === "accepted")).toHaveLength(1);
    expect(outcomes.filter((outcome) => outcome === "insufficient_credits")).toHaveLength(999);
    expect(await account("plain", "last")).toEqual({ balance: 0, allowance: 0 });
  });

  test("of the same key by two users of an app at once makes one job and charges one of them", async () => {
    for (let round = 0; round < 20; round++) {
      const idempotencyKey = `race-${round}`;
      const both = await Promise.all([
        accept({ userId: "r1", idempotencyKey, credits: 1 }),
        accept({ userId: "r2", idempotencyKey, credits: 1, fingerprint: "ef".repeat(32) }),
      ]);
      expect(both.map((answer) => answer?.outcome).sort()).toEqual(["accepted", "key_reused"]);
    }
    const [row] =
      await sql`select sum(-amount)::int as n from credit_ledger where user_id in ('r1', 'r2') and type = 'charge'`;
    expect(row?.["n"]).toBe(20);
  });

  test("of groups that share users in opposite order never deadlocks", async () => {
    const users = Array.from({ length: 10 }, (_, index) => `d${index}`);
    const group = (order: string[]) => order.map((userId) => request({ userId, credits: 1 }));
    const rounds = Array.from({ length: 20 }, (_, round) =>
      acceptJobs(db, group(round % 2 ? users : [...users].reverse())),
    );
    expect((await Promise.all(rounds)).flat().every((answer) => answer.outcome === "accepted")).toBe(true);
  });

  test("of groups that share new addresses in opposite order never deadlocks", async () => {
    const limit = (address: string) => [{ subject: `address:${address}`, action: "request", max: 1_000, seconds: 60 }];
    for (let round = 0; round < 10; round++) {
      const addresses = Array.from({ length: 10 }, (_, index) => `${round}.${index}`);
      const group = (user: string, order: string[]) =>
        order.map((at, index) => request({ userId: `${user}${index}`, credits: 1, rates: limit(at) }));
      const both = await Promise.all([
        acceptJobs(db, group("there", addresses)),
        acceptJobs(db, group("back", [...addresses].reverse())),
      ]);
      expect(both.flat().every((answer) => answer.outcome === "accepted")).toBe(true);
    }
    const rows = await sql`select count + previous as count from rate_limits where subject like 'address:%'`;
    expect(rows.map(({ count }) => count)).toEqual(Array(100).fill(2));
  });

  test("waits no more than a second for an account that another transaction keeps", async () => {
    await accept({ userId: "kept", credits: 1 });
    await sql.begin(async (tx) => {
      await tx`select 1 from accounts where user_id = 'kept' for update`;
      const started = Date.now();
      await expect(accept({ userId: "kept", credits: 1 })).rejects.toMatchObject({ code: "55P03" });
      expect(Date.now() - started).toBeLessThan(3_000);
    });
  });

  test("keeps its pace as a fresh database fills: keys are found by their index", async () => {
    const groups = Array.from({ length: 40 }, () =>
      Array.from({ length: 50 }, (_, index) => request({ userId: `fill${index}`, credits: 0 })),
    );
    for (const group of groups) await acceptJobs(db, group);
    const [before] =
      await sql`select coalesce(sum(seq_tup_read), 0)::int as n from pg_stat_user_tables where relname in ('jobs', 'credit_ledger')`;
    await acceptJobs(db, groups[0] ?? []);
    await sql`select pg_stat_force_next_flush()`;
    const [after] =
      await sql`select coalesce(sum(seq_tup_read), 0)::int as n from pg_stat_user_tables where relname in ('jobs', 'credit_ledger')`;
    expect(after?.["n"] - before?.["n"]).toBeLessThan(2_000);
  });

  test("of a group with one impossible row writes nothing of it at all", async () => {
    await expect(
      acceptJobs(db, [request({ userId: "ok" }), request({ userId: "bad", variants: 99 })]),
    ).rejects.toThrow();
    expect(await sql`select 1 from accounts where user_id in ('ok', 'bad')`).toHaveLength(0);
  });
});

function run(id: string, variant: number): IntendedRun {
  return {
    id,
    variant,
    provider: "p",
    model: "m",
    version: null,
    input: {},
    destination: null,
    sendBefore: new Date(Date.now() + 20_000),
    quietFrom: new Date(Date.now() + 36_000),
    expiresAt: new Date(Date.now() + 60_000),
  };
}

describe("a settlement", () => {
  test("gives the refund back to the buckets that were charged, once", async () => {
    await accept({ appId: "daily", userId: "buckets", credits: 12, variants: 1 });
    expect(await account("daily", "buckets")).toEqual({ balance: 3, allowance: 0 });
    const [job] = await sql`select id from jobs where user_id = 'buckets'`;
    const canceled = { type: "cancel_requested", at: new Date() } as const;
    expect((await apply(db, job?.["id"], [canceled])).job.status).toBe("canceled");
    expect(await account("daily", "buckets")).toEqual({ balance: 5, allowance: 10 });
    expect((await apply(db, job?.["id"], [canceled])).changed).toBe(false);
    expect((await sql`select settle_job(${job?.["id"]}, 0) as again`)[0]?.["again"]).toBe(false);
    expect(await account("daily", "buckets")).toEqual({ balance: 5, allowance: 10 });
    expect(
      await sql`select charged::int, kept::int, refunded::int from settlements where job_id = ${job?.["id"]}`,
    ).toEqual([{ charged: 12, kept: 0, refunded: 12 }]);
  });

  test("keeps the delivered share and returns the rest, the balance first", async () => {
    const answer = await accept({ userId: "share", credits: 10, variants: 4 });
    const id = answer?.jobId as string;
    const at = new Date();
    const made = { outputs: ["u"], trainedVersion: null, ...SPENT };
    for (let variant = 0; variant < 4; variant++) {
      const runId = uuidv7();
      await apply(db, id, [
        { type: "intended", at, run: run(runId, variant) },
        { type: "submitted", at, runId, providerRunId: runId },
      ]);
      if (variant < 3)
        await apply(db, id, [
          { type: "succeeded", at, runId, providerRunId: runId, ...made },
          { type: "stored", at, runId },
        ]);
      else
        await apply(db, id, [
          { type: "failed", at, runId, failure: { code: "provider_failed", detail: "x" }, ...SPENT },
        ]);
    }
    // 7.5 of 10: rounded down in the user's favour.
    expect(await sql`select kept::int, refunded::int from settlements where job_id = ${id}`).toEqual([
      { kept: 7, refunded: 3 },
    ]);
    expect(await account("plain", "share")).toEqual({ balance: 93, allowance: 0 });
  });

  test("is written once however many workers report the end at the same time", async () => {
    const answer = await accept({ userId: "race", credits: 10, variants: 1 });
    const id = answer?.jobId as string;
    const at = new Date();
    const runId = uuidv7();
    await apply(db, id, [
      { type: "intended", at, run: run(runId, 0) },
      { type: "submitted", at, runId, providerRunId: runId },
    ]);
    const failed = { type: "failed", at, runId, failure: { code: "provider_failed", detail: "x" }, ...SPENT } as const;
    const reports = await Promise.all(Array.from({ length: 20 }, () => apply(db, id, [failed])));
    expect(reports.filter((report) => report.changed)).toHaveLength(1);
    expect(await account("plain", "race")).toEqual({ balance: 100, allowance: 0 });
  });
});

describe("the daily allowance", () => {
  test("is spent before the balance and lapses with the day", async () => {
    await accept({ appId: "daily", userId: "day", credits: 4, variants: 1 });
    expect(await account("daily", "day")).toEqual({ balance: 5, allowance: 6 });
    await sql`update accounts set allowance_on = allowance_on - 1 where user_id = 'day'`;
    await accept({ appId: "daily", userId: "day", credits: 1, variants: 1 });
    expect(await account("daily", "day")).toEqual({ balance: 5, allowance: 9 });
    expect((await entriesOf("day", "daily")).map((entry) => entry.slice(0, 3))).toEqual([
      ["grant", "balance", 5],
      ["grant", "allowance", 10],
      ["charge", "allowance", -4],
      ["expiry", "allowance", -6],
      ["grant", "allowance", 10],
      ["charge", "allowance", -1],
    ]);
  });
});

describe("a refund of an earlier day's allowance", () => {
  test("lapses with its day, whether or not the account was touched in between", async () => {
    for (const touched of [true, false]) {
      const userId = `yesterday-${touched}`;
      const id = (await accept({ appId: "daily", userId, credits: 4, variants: 1 }))?.jobId as string;
      await sql`alter table credit_ledger disable trigger credit_ledger_append_only`;
      await sql`update credit_ledger set created_at = created_at - interval '1 day' where user_id = ${userId}`;
      await sql`alter table credit_ledger enable trigger credit_ledger_append_only`;
      await sql`update accounts set allowance_on = allowance_on - 1 where user_id = ${userId}`;
      if (touched) await accept({ appId: "daily", userId, credits: 1, variants: 1 });
      await apply(db, id, [{ type: "cancel_requested", at: new Date() }]);
      expect(await account("daily", userId)).toEqual({ balance: 5, allowance: touched ? 9 : 10 });
    }
  });

  test("is not what a caller reads in the morning: that is today's", async () => {
    await accept({ appId: "daily", userId: "morning", credits: 10, variants: 1 });
    expect(await balanceOf(db, "daily", "morning")).toEqual({ balance: 5, allowance: 0 });
    await sql`update accounts set allowance_on = allowance_on - 1 where user_id = 'morning'`;
    expect(await balanceOf(db, "daily", "morning")).toEqual({ balance: 5, allowance: 10 });
  });
});

describe("what a provider says that no database keeps", () => {
  test("is kept without it, and the job ends", async () => {
    const id = (await accept({ userId: "odd", credits: 1, variants: 1 }))?.jobId as string;
    const at = new Date();
    const runId = uuidv7();
    await apply(db, id, [
      { type: "intended", at, run: run(runId, 0) },
      { type: "lost", at, runId, detail: "a\u0000b\ud83d" },
    ]);
    const said = failure("provider_failed", `${"x".repeat(1_999)}\u{1f600}`);
    expect((await apply(db, id, [{ type: "failed", at, runId, failure: said, ...SPENT }])).job.status).toBe("failed");
  });
});

describe("the functions that existing products call", () => {
  const user = uuidv7();
  const charge = (amount: number, job: string | null, metadata = { app: "plain" }) =>
    sql`select atomic_charge_credits(${user}, 'image', ${amount}, 'an image', ${sql.json(metadata)}, ${job}) as answer`.then(
      (rows) => rows[0]?.["answer"],
    );
  const refund = (amount: number, job: string | null, metadata: Record<string, string> = { app: "plain" }) =>
    sql`select refund_credits(${user}, ${amount}, 'sorry', ${sql.json(metadata)}, ${job}) as answer`.then(
      (rows) => rows[0]?.["answer"],
    );

  test("charge once per job, refuse what is not there, and never half", async () => {
    const job = uuidv7();
    expect(await charge(30, job)).toMatchObject({ success: true, charged: 30, new_balance: 70, replayed: false });
    expect(await charge(30, job)).toMatchObject({ success: true, new_balance: 70, replayed: true });
    await expect(charge(31, job)).rejects.toThrow(/already charged 30/);
    expect(await charge(71, null)).toEqual({
      success: false,
      error: "insufficient_credits",
      required: 71,
      available: 70,
    });
    await expect(charge(0, null)).rejects.toThrow(/positive/);
    await expect(charge(-5, null)).rejects.toThrow(/positive/);
  });

  test("refund a job once, never more than it was charged", async () => {
    const job = uuidv7();
    await charge(20, job);
    await expect(refund(21, job)).rejects.toThrow(/was charged 20/);
    expect(await refund(20, job)).toMatchObject({ refunded: 20, replayed: false, new_balance: 70 });
    expect(await refund(20, job)).toMatchObject({ refunded: 0, replayed: true, new_balance: 70 });
    await expect(refund(1, uuidv7())).rejects.toThrow(/was charged 0/);
    expect(await refund(5, null, { app: "plain", key: "k" })).toMatchObject({ refunded: 5, new_balance: 75 });
    expect(await refund(5, null, { app: "plain", key: "k" })).toMatchObject({ refunded: 0, new_balance: 75 });
  });

  test("stay out of the jobs that are settled here", async () => {
    const id = (await accept({ userId: user, credits: 1 }))?.jobId as string;
    await expect(charge(1, id)).rejects.toThrow(/settled by Darkroom/);
    await expect(refund(1, id)).rejects.toThrow(/settled by Darkroom/);
  });

  test("ask which app is meant when there are several", async () => {
    await expect(charge(1, null, {} as { app: string })).rejects.toThrow(/which app/);
    await expect(charge(1, null, { app: "nope" })).rejects.toThrow(/no app "nope"/);
  });

  test("exist with the signatures that are called", async () => {
    const [row] = await sql`select pg_get_function_identity_arguments('atomic_charge_credits'::regproc) as args`;
    expect(row?.["args"]).toBe(
      "p_user uuid, p_type text, p_amount integer, p_description text, p_metadata jsonb, p_job uuid",
    );
  });
});

describe("a grant", () => {
  test("is made once per key", async () => {
    const one = { appId: "plain", userId: "granted", credits: 7, description: "x", key: "pay-1" };
    const answers = await Promise.all(Array.from({ length: 10 }, () => grant(db, one)));
    expect(answers.filter((answer) => answer.granted)).toHaveLength(1);
    expect(await account("plain", "granted")).toEqual({ balance: 107, allowance: 0 });
  });
});

const ALL = { fresh: KINDS, begun: KINDS };

describe("the right to act on a job", () => {
  test("is one worker's at a time, and passes on when that one falls silent", async () => {
    const id = (await accept({ userId: "lease", credits: 1 }))?.jobId as string;
    const claims = (await Promise.all(Array.from({ length: 10 }, () => claim(db, id, "tester")))).filter(
      (claimed) => claimed !== null && claimed !== "suspect",
    );
    expect(claims).toHaveLength(1);
    const [first] = claims;
    if (!first) throw new Error("nobody got it");
    expect(await renew(db, [{ jobId: id, epoch: first.epoch }])).toEqual(new Set([id]));
    await sql`update jobs set lease_until = now() - interval '1 second' where id = ${id}`;
    const second = await claim(db, id, "another");
    if (!second || second === "suspect") throw new Error("not claimed");
    expect(second).toMatchObject({ epoch: first.epoch + 1, vanished: ["tester"] });
    // The first one wakes up: its decisions are refused, its lease is not prolonged, and it cannot let go of what it lost.
    await expect(
      apply(db, id, [{ type: "intended", at: new Date(), run: run(uuidv7(), 0) }], { epoch: first.epoch }),
    ).rejects.toThrow(LeaseLost);
    expect(await renew(db, [{ jobId: id, epoch: first.epoch }])).toEqual(new Set());
    expect(await release(db, id, first)).toBe(false);
    expect((await loadJob(db, id))?.epoch).toBe(second.epoch);

    // Two vanished: from now on it is a suspect, and taken only by who wants one, until something is learned.
    const lapse = () => sql`update jobs set lease_until = now() - interval '1 second' where id = ${id}`;
    await lapse();
    expect(await claim(db, id, "third", { suspects: false })).toBe("suspect");
    expect(await claim(db, id, "third")).toMatchObject({ vanished: ["tester", "another"] });
    await lapse();
    expect(await claim(db, id, "third", { suspects: false })).toBe("suspect");
    await apply(db, id, [{ type: "claimed", at: new Date() }]);
    expect(await claim(db, id, "third", { suspects: false })).toMatchObject({ vanished: [] });
  });

  test("is not denied a job because of workers that were only cut off, or of whom nobody can tell", async () => {
    const all = ["dead", "alive", "lately", "asking"];
    await sql`delete from workers`;
    for (const worker of all) await notePresence(db, worker);
    const seen = (worker: string, ago: string) =>
      sql`update workers set seen_at = now() - ${ago}::interval, since = now() - interval '1 hour' where id = ${worker}`;
    await seen("dead", "21 seconds");
    // It has only just come itself.
    expect(await countDead(db, "asking", ["dead", "alive"])).toBeNull();
    await seen("asking", "1 second");
    expect(await countDead(db, "asking", ["dead", "alive", "dead", "never seen"])).toBe(2);
    await seen("lately", "10 seconds");
    expect(await countDead(db, "asking", ["dead", "lately"])).toBeNull();
    // The database was away for everybody, and is back this instant.
    for (const worker of all) await seen(worker, "5 minutes");
    expect(await countDead(db, "asking", ["dead", "alive"])).toBeNull();
  });

  test("is not let go while there is news", async () => {
    const id = (await accept({ userId: "news", credits: 1 }))?.jobId as string;
    const held = await claim(db, id, "tester");
    if (!held || held === "suspect") throw new Error("not claimed");
    await apply(db, id, [{ type: "claimed", at: new Date() }]);
    expect(await release(db, id, held)).toBe(false);
    const fresh = await loadJob(db, id);
    expect(fresh && (await release(db, id, fresh))).toBe(true);
  });

  test("is offered by the sweep when nobody has it and something is due, to one sweep only", async () => {
    const id = (await accept({ userId: "swept", credits: 1 }))?.jobId as string;
    await sql`update jobs set due_at = now() + interval '1 hour' where id <> ${id}`;
    expect((await claimDue(db, 10, ALL)).map((due) => due.id)).toEqual([]);
    await sql`update jobs set due_at = now() where id = ${id}`;
    // Nobody has begun it, and the queue of its kind is long: its entry is in there.
    expect(await claimDue(db, 10, { fresh: [], begun: KINDS })).toEqual([]);
    const swept = await Promise.all([claimDue(db, 10, ALL), claimDue(db, 10, ALL)]);
    expect(swept.flat().map((due) => due.id)).toEqual([id]);
    // A sweep that could not wake it gives the claim back; what was begun is offered however long the queue is.
    await unclaimDue(db, [id]);
    await sql`update jobs set epoch = 1, due_at = due_at - interval '1 second' where id = ${id}`;
    expect((await claimDue(db, 10, { fresh: [], begun: KINDS })).map((due) => due.id)).toEqual([id]);
  });
});

describe("a request with limits", () => {
  const limit = (userId: string, action: string, max: number) => ({
    subject: `user:${userId}`,
    action,
    max,
    seconds: 86_400,
  });
  const counts = async (userId: string) =>
    Object.fromEntries(
      (await sql`select action, count from rate_limits where subject = ${`user:${userId}`}`).map((row) => [
        row["action"],
        row["count"],
      ]),
    );

  test("counts only if it can be paid, and nothing if one of them refuses it", async () => {
    const rates = [limit("counted", "request", 3), limit("counted", "generation", 1)];
    expect(await accept({ userId: "counted", rates })).toMatchObject({ outcome: "accepted", retryAfter: null });
    expect(await counts("counted")).toEqual({ request: 1, generation: 1 });
    expect(await accept({ userId: "counted", rates })).toMatchObject({
      outcome: "rate_limited",
      retryAfter: expect.any(Number),
      detail: expect.stringContaining("generation"),
    });
    expect(await accept({ userId: "counted", rates, credits: 1_000 })).toMatchObject({
      outcome: "insufficient_credits",
      retryAfter: null,
    });
    expect(await counts("counted")).toEqual({ request: 1, generation: 1 });
  });

  test("is refused with words when the limit is none", async () => {
    for (const max of [0, -1, null])
      await expect(
        sql`select check_rate_limit('user:x', 'request', ${max}, 60, '{"app": "plain"}')`,
        String(max),
      ).rejects.toThrow(/the limit must be a positive number/);
  });
});

describe("a key that was answered with another's job", () => {
  const hash = "cd".repeat(32);
  test("stays with it for a request that wants no reuse, and is told so by findByKey", async () => {
    const reuse = { hash, seconds: 60 };
    const first = await accept({ userId: "again", reuse });
    const reused = await accept({ userId: "again", reuse, idempotencyKey: "again-2" });
    expect(reused).toMatchObject({ outcome: "reused", jobId: first?.jobId });
    expect(await accept({ userId: "again", idempotencyKey: "again-2" })).toMatchObject({
      outcome: "reused",
      jobId: first?.jobId,
    });
    expect(await accept({ userId: "again", idempotencyKey: "again-2", fingerprint: hash })).toMatchObject({
      outcome: "key_reused",
      jobId: first?.jobId,
    });
    expect(await findByKey(db, "plain", "again-2")).toMatchObject({ jobId: first?.jobId, reused: true });
    expect(await account("plain", "again")).toEqual({ balance: 90, allowance: 0 });
  });

  test("is noted while somebody who ends that job holds it", async () => {
    const reuse = { hash: "ce".repeat(32), seconds: 60 };
    const first = await accept({ userId: "held", reuse });
    const answer = await sql.begin(async (tx) => {
      await tx`select 1 from jobs where id = ${first?.jobId ?? ""} for update`;
      return accept({ userId: "held", reuse });
    });
    expect(answer).toMatchObject({ outcome: "reused", jobId: first?.jobId });
  });
});

test("a transaction that began before midnight grants no day a second time", async () => {
  await accept({ appId: "daily", userId: "midnight", credits: 1 });
  const before = await entriesOf("midnight", "daily");
  await sql`update accounts set allowance_on = allowance_on + 1 where user_id = 'midnight'`;
  await sql`select lock_account('daily', 'midnight')`;
  const [plan] = await sql`select name from plans where app_id = 'daily' limit 1`;
  await sql`select set_plan('daily', 'midnight', ${plan?.["name"]})`;
  expect(await entriesOf("midnight", "daily")).toEqual(before);
  const [row] = await sql`
    select allowance_on - (now() at time zone 'utc')::date as ahead from accounts where user_id = 'midnight'`;
  expect(row?.["ahead"]).toBe(1);
});

test("settling a job is all that its end needs: what the release before does tells its callback", async () => {
  const answer = await accept({ userId: "told", callbackUrl: "https://example.com/hook" });
  const id = answer?.jobId ?? "";
  await sql`update jobs set status = 'canceled', ended_at = now() where id = ${id}`;
  await sql`select settle_job(${id}, 0)`;
  expect([...(await sql`select type from callbacks where job_id = ${id}`)]).toEqual([{ type: "job.canceled" }]);
});
