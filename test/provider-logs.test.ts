import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { makeLogger } from "../src/compose.ts";
import { connect, disconnect } from "../src/db/client.ts";
import { freePort } from "../src/db/embedded.ts";
import { deleteOldCounts, readLogs, saveCalls, sumCalls, trimLogs } from "../src/db/provider-logs.ts";
import { latencyBucketOf, quantile, troubleOf } from "../src/domain/call.ts";
import { maskAddress, maskText } from "../src/masking.ts";
import { makeMetrics } from "../src/metrics.ts";
import { makeProviderLog } from "../src/provider-log.ts";
import type { CallRecord } from "../src/providers/http.ts";
import { replicate } from "../src/providers/replicate.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

vi.setConfig({ testTimeout: 60_000 });

const ADMIN = { authorization: `Basic ${Buffer.from("admin:admin of the tests").toString("base64")}` };

let spine: Spine;
beforeAll(async () => {
  spine = await startSpine({ webhooks: true, env: { REPLICATE_WEBHOOK_SECRET: "" } });
});
afterAll(async () => {
  await spine?.stop();
});

const logs = (query = "?limit=1000") =>
  spine.call("GET", `/api/providers/sandbox/logs${query}`, { key: null, headers: ADMIN });
interface Line {
  verb: string;
  status: number | null;
  error: string | null;
  jobId: string | null;
  runId: string | null;
  request: string | null;
  response: string | null;
  at: string;
}
const until = async (what: (lines: Line[]) => boolean): Promise<Line[]> => {
  let lines: Line[] = [];
  const read = async () => {
    lines = (await logs()).body.logs;
    return what(lines);
  };
  await expect.poll(read, { timeout: 20_000 }).toBe(true);
  return lines;
};
const wish = (prompt: string) => ({ kind: "generation", user: "ann", input: { prompt } });

describe("what a secret could be is hidden:", () => {
  const secrets = ["my-own-token"];
  test.each([
    ["the account's own token", "it is my-own-token, yes", "it is [hidden], yes"],
    ["a token by its look", '{"note":"use r8_abcdefghij now"}', '{"note":"use [hidden] now"}'],
    ["an authorization in words", "Authorization: Bearer abc.def-ghi", "Authorization: Bearer [hidden]"],
    [
      "members that are named so",
      '{"key":"whsec","apiKey": "x\\"y","max_tokens":5,"webhook_secret":"a"}',
      '{"key":"[hidden]","apiKey": "[hidden]","max_tokens":5,"webhook_secret":"[hidden]"}',
    ],
    ["a member that is cut off", '{"access_token":"abcdefg', '{"access_token":"[hidden]"'],
    [
      "a signed address",
      '{"image":"https://b.test/a.png?X-Amz-Signature=abc\\u0026X-Amz-Date=1","n":1}',
      '{"image":"https://b.test/a.png?…","n":1}',
    ],
    ["the same with escaped slashes", '"https:\\/\\/b.test\\/a.png?sig=abc"', '"https:\\/\\/b.test\\/a.png?…"'],
    ["a login in an address", '"https://me:word@b.test/a"', '"https://b.test/a"'],
    [
      "the secret of a webhook's address",
      '"https://d.test/api/webhooks/fal/0190-ab/SeCrEt_1"',
      '"https://d.test/api/webhooks/fal/0190-ab/…"',
    ],
    [
      "a picture inside of the text",
      `{"image":"data:image/png;base64,${"A".repeat(500)}","n":1}`,
      '{"image":"data:image/png;base64,… (500 characters)","n":1}',
    ],
    ["a picture without the word", `{"b64":"${"A".repeat(500)}"}`, '{"b64":"… (500 characters)"}'],
  ])("%s", (_what, text, masked) => {
    expect(maskText(text, { secrets })).toBe(masked);
  });

  test("the end of a text that was cut, which may be the beginning of a secret", () => {
    expect(maskText('{"a":"b","c":"my-own-t', { secrets, isCut: true })).toBe('{"a":"b","c":"');
  });

  test("in an address, all values of its query but numbers", () => {
    const url = "https://queue.fal.run/fal-ai/flux?fal_webhook=https%3A%2F%2Fd.test%2Fx&limit=50";
    expect(maskAddress(url)).toBe("/fal-ai/flux?fal_webhook=…&limit=50");
  });
});

test("trouble is told by who has caused it, and times to a fifth", () => {
  const of = (status: number | null, sent: CallRecord["sent"] = "answered") => troubleOf({ status, sent });
  expect([200, 401, 402, 404, 429, 422, 302, 503].map((status) => of(status))).toEqual([
    null,
    "unauthorized",
    "no_credit",
    "not_found",
    "throttled",
    "refused",
    "broken",
    "broken",
  ]);
  expect([of(null, "no"), of(null, "unknown")]).toEqual(["unreachable", "unanswered"]);
  for (const ms of [1, 40, 777, 60_000]) {
    const told = quantile([{ bucket: latencyBucketOf(ms), calls: 3 }], 0.5) ?? 0;
    expect(Math.abs(told - ms) / ms).toBeLessThan(0.2);
  }
  const mixed = [
    { bucket: latencyBucketOf(10), calls: 94 },
    { bucket: latencyBucketOf(5_000), calls: 6 },
  ];
  expect(quantile(mixed, 0.5)).toBeLessThan(15);
  expect(quantile(mixed, 0.95)).toBeGreaterThan(4_000);
  expect(quantile([], 0.5)).toBeNull();
});

test("the calls of a job are in the log with its id, for the operator alone, and no secret is in it", async () => {
  const job = await spine.ended((await spine.submit(wish("a fox, signed token: r8_sandbox"))).id);
  const runId = job.runs[0]?.id;
  const lines = await until((all) => all.some((line) => line.verb === "look" && line.jobId === job.id));
  const submit = lines.find((line) => line.verb === "submit" && line.jobId === job.id);
  expect(submit).toMatchObject({ runId, status: 201, error: null, method: "POST" });
  expect(submit?.request).toContain("a fox");
  expect(submit?.request).toContain(`/api/webhooks/sandbox/${runId}/…`);
  expect(submit?.response).toContain(job.runs[0]?.providerRunId ?? "no id");
  expect(lines.map(({ at }) => at)).toEqual(
    lines
      .map(({ at }) => at)
      .toSorted()
      .toReversed(),
  );

  const everything = JSON.stringify(await spine.sql`select * from provider_logs`);
  expect(everything).not.toContain("r8_sandbox");
  expect(everything).not.toContain("Bearer r8");
  expect(everything).not.toMatch(/whsec_/);
  expect(everything).not.toMatch(/signature=/);

  expect((await spine.call("GET", "/api/providers/sandbox/logs")).status).toBe(401);
  const wrong = { authorization: `Basic ${Buffer.from("admin:guess").toString("base64")}` };
  expect((await spine.call("GET", "/api/providers/sandbox/logs", { key: null, headers: wrong })).status).toBe(401);
  expect((await logs("?limit=1")).body.logs).toHaveLength(1);
  expect((await logs("?limit=0")).status).toBe(422);
});

test("what went wrong is kept with its trouble; of looks that went well one in a while, and all are counted", async () => {
  const troubled = await spine.ended((await spine.submit(wish("[sandbox: get_error] troubled"))).id);
  expect(troubled.status).toBe("completed");
  const lines = await until((all) => all.some(({ jobId, error }) => jobId === troubled.id && error !== null));
  const trouble = lines.find(({ jobId, error }) => jobId === troubled.id && error !== null);
  expect(trouble).toMatchObject({ verb: "look", error: "broken", runId: troubled.runs[0]?.id });

  const jobs = await Promise.all(Array.from({ length: 6 }, (_, index) => spine.submit(wish(`number ${index}`))));
  for (const { id } of jobs) expect((await spine.ended(id)).status).toBe("completed");
  const looks = async () =>
    (await sumCalls(spine.db)).filter(({ verb }) => verb === "look").reduce((sum, { calls }) => sum + calls, 0);
  await expect.poll(looks, { timeout: 10_000 }).toBeGreaterThanOrEqual(7);
  const kept = (await readLogs(spine.db, "sandbox", 1_000)).filter(({ verb, error }) => verb === "look" && !error);
  expect(kept.length).toBeLessThan(await looks());
  const submits = (await readLogs(spine.db, "sandbox", 1_000)).filter(({ verb }) => verb === "submit");
  expect(submits.map(({ jobId }) => jobId)).toEqual(expect.arrayContaining([...jobs.map(({ id }) => id), troubled.id]));
});

test("of each account the last thousand are kept, for seven days, and counts for two hours", async () => {
  await spine.sql`
    insert into provider_logs (provider, verb, method, path, ms, at)
    select 'busy', 'look', 'GET', '/' || n, 1, now() from generate_series(1, 1203) n`;
  await spine.sql`
    insert into provider_logs (provider, verb, method, path, ms, at)
    values ('quiet', 'look', 'GET', '/new', 1, now()), ('quiet', 'look', 'GET', '/old', 1, now() - interval '8 days')`;
  while ((await trimLogs(spine.db, 50)) > 0);
  const busy = await readLogs(spine.db, "busy", 2_000);
  expect([busy.length, busy[0]?.path, busy.at(-1)?.path]).toEqual([1_000, "/1203", "/204"]);
  expect((await readLogs(spine.db, "quiet", 10)).map(({ path }) => path)).toEqual(["/new"]);

  const count = { provider: "busy", verb: "look", error: null, bucket: 8, calls: 2 } as const;
  const minute = new Date(Math.floor(Date.now() / 60_000) * 60_000);
  const old = new Date(minute.getTime() - 3 * 3_600_000);
  const counts = [
    { ...count, minute, lastAt: minute },
    { ...count, minute: old, lastAt: old },
  ];
  await Promise.all([saveCalls(spine.db, [], counts), saveCalls(spine.db, [], counts)]);
  expect(await deleteOldCounts(spine.db, 100)).toBe(1);
  const sums = (await sumCalls(spine.db)).filter(({ provider }) => provider === "busy");
  expect(sums).toMatchObject([{ verb: "look", error: null, bucket: 8, calls: 4 }]);
});

describe("the log holds nothing up:", () => {
  const record: CallRecord = {
    method: "GET",
    url: "https://api.test/v1/predictions/1",
    status: 500,
    ms: 12,
    sent: "answered",
    detail: null,
    request: null,
    // Half of a surrogate pair, and what Postgres cannot keep.
    response: "down \u0000 \ud83d",
  };
  const logger = makeLogger({ LOG_LEVEL: "silent" }, "test");
  const dropped = async (metrics: ReturnType<typeof makeMetrics>) =>
    (await metrics.providerLogDropped.get()).values.reduce((sum, { value }) => sum + value, 0);

  test("a storm is counted, and a part of it kept", async () => {
    const metrics = makeMetrics();
    const log = makeProviderLog({ db: spine.db, metrics, logger });
    const hear = log.listen("stormy", []);
    for (let times = 0; times < 1_000; times++) hear(record);
    await log.stop();
    const lines = await readLogs(spine.db, "stormy", 1_000);
    expect(lines).toHaveLength(100);
    expect(lines[0]).toMatchObject({ error: "broken", response: "down  \ufffd", verb: "other" });
    expect(await dropped(metrics)).toBe(900);
    const sums = (await sumCalls(spine.db)).filter(({ provider }) => provider === "stormy");
    expect(sums.reduce((sum, { calls }) => sum + calls, 0)).toBe(1_000);
  });

  test("without a database its lines are dropped, and that is counted", async () => {
    const db = connect(`postgres://nobody@127.0.0.1:${await freePort()}/none`, { max: 1, name: "test" });
    const metrics = makeMetrics();
    const log = makeProviderLog({ db, metrics, logger });
    log.listen("lost", [])(record);
    await log.stop();
    expect(await dropped(metrics)).toBe(1);
    await disconnect(db);
  });

  test("calls over one shared connection are told apart by what they were for", async () => {
    const log = makeProviderLog({ db: spine.db, metrics: makeMetrics(), logger });
    const onCall = log.listen("shared", []);
    const options = { name: "shared", token: "r8_sandbox", baseUrl: `${spine.sandbox.url}/v1`, onCall };
    const account = log.attribute(replicate.make(options));
    for (let times = 0; times < 3; times++) {
      const ref = { providerRunId: `p${times}`, model: "a/b", isTraining: false };
      await Promise.allSettled([account.account?.(), account.look(ref), account.cancel(ref)]);
    }
    await log.stop();
    const verbs = (await sumCalls(spine.db)).filter((each) => each.provider === "shared");
    const count = (verb: string) =>
      verbs.filter((each) => each.verb === verb).reduce((sum, { calls }) => sum + calls, 0);
    expect([count("account"), count("look"), count("cancel"), count("other")]).toEqual([3, 3, 3, 0]);
  });
});
