import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { BLOW_TYPES, planBlows } from "../chaos/blows.ts";
import { check } from "../chaos/check.ts";
import { verdictsOn } from "../chaos/ends.ts";
import type { CheckName } from "../chaos/finding.ts";
import type { Struck } from "../chaos/nemesis.ts";
import { type Order, planOrders, RECIPES } from "../chaos/orders.ts";
import type { Records } from "../chaos/records.ts";
import { runChaos } from "../chaos/run.ts";
import { makeScorecard } from "../chaos/scorecard.ts";
import type { Passed } from "../chaos/storm.ts";
import { trafficOf } from "../chaos/traffic.ts";
import { type Front, forecast } from "../chaos/weather.ts";

/** Twelve seconds of nemesis; what dies while it buys is given up after 36 s, and a busy machine is slow to start. */
const RUN_MS = 90_000;
const STOP_MS = 15_000;

test("nothing is lost, charged twice or bought twice while everything is broken", {
  timeout: RUN_MS + 5_000,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), "darkroom-chaos-test-"));
  const json = join(folder, "chaos.json");
  const args = ["--seed", "11", "--jobs", "16", "--seconds", "12", "--json", json];
  const child = spawn(process.execPath, ["--import", "tsx", "chaos/main.ts", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const late = setTimeout(() => child.kill("SIGTERM"), RUN_MS);
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (more) => (text += more));
  try {
    const [code] = await once(child, "close");

    expect(code, text).toBe(0);
    const card = JSON.parse(await readFile(json, "utf8"));
    expect(card).toMatchObject({ seed: 11, ok: true, jobs: 16, lost: 0, stuck: 0, duplicatePaidRuns: 0, orphans: 0 });
    expect(card.completed + card.failed + card.canceled).toBe(16);
    // Everything was broken at least once, or the run has proven nothing.
    for (const blow of ["kills", "stops", "pgRestarts", "redisFlushes", "networkFaults"])
      expect(card[blow], blow).toBeGreaterThan(0);
    expect(card.lostAnswers).toBeGreaterThan(0);
  } finally {
    clearTimeout(late);
    child.kill("SIGTERM");
    await rm(folder, { recursive: true, force: true });
  }
});

test("accounts at three providers come and go, and every job is served, once", {
  timeout: RUN_MS + 3 * STOP_MS,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), "darkroom-chaos-test-"));
  const { line } = forecast(3, 12);
  const [first, second = first] = line;
  const fronts: Front[] = [
    { atMs: 1_000, forMs: 4_000, type: "brown_out", faces: [first], creates: 0 },
    { atMs: 2_000, forMs: 3_000, type: "empty", faces: [second], creates: 0 },
    { atMs: 6_000, forMs: 4_500, type: "storm", faces: line, creates: 0 },
  ];
  try {
    const { card, findings } = await runChaos({
      ...{ seed: 3, jobs: 48, seconds: 12, redis: null, weather: "providers", webhooks: true, fronts, folder },
      halted: AbortSignal.timeout(RUN_MS + STOP_MS),
    });
    // So short a run has few orders for what is tried in vain: one in ten is for a whole round of them.
    expect(findings.filter(({ check }) => check !== "tooManyRetries")).toEqual([]);
    expect(card).toMatchObject({ jobs: 48, completed: 48, failedJobs: 0, duplicatePaidRuns: 0, ledgerDrift: 0 });
    const { served = {}, refused = {}, creates = 0 } = card.traffic ?? {};
    // The third is asked only while both others are known to be in trouble.
    expect(Object.keys(served).length).toBeGreaterThan(1);
    expect(Object.keys(refused)).toEqual(expect.arrayContaining(["429"]));
    expect(creates).toBeGreaterThan(card.billLines);
  } finally {
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }
});

test("a seed decides what is ordered and what breaks", () => {
  expect(planOrders(5, 40, 10, "photo")).toEqual(planOrders(5, 40, 10, "photo"));
  expect(planOrders(5, 40, 10, "photo")).not.toEqual(planOrders(6, 40, 10, "photo"));
  expect(new Set(planOrders(5, 40, 10, "photo").map(({ name }) => name)).size).toBe(RECIPES.length);
  expect(planBlows(5, 30)).toEqual(planBlows(5, 30));
  expect(planBlows(5, 30)).not.toEqual(planBlows(6, 30));
});

test("three minutes have enough of every blow, at any seed; the shortest nemesis has the most important ones", () => {
  for (let seed = 0; seed < 50; seed++) {
    const blows = planBlows(seed, 180);
    const times = (...types: string[]) => blows.filter(({ type }) => types.includes(type)).length;
    expect(new Set(blows.map(({ type }) => type)).size).toBe(BLOW_TYPES.length);
    expect(times("kill_worker", "kill_api")).toBeGreaterThanOrEqual(28);
    expect(times("flush_queue")).toBeGreaterThanOrEqual(5);
    expect(times("crash_postgres")).toBeGreaterThanOrEqual(4);
    expect(times("stop_worker", "stop_api")).toBeGreaterThanOrEqual(8);
    // Some of the crashes come while workers recover.
    const crashes = blows.filter(({ type }) => type === "crash_postgres");
    const aimed = crashes.filter(({ atMs }) =>
      blows.some((each) => each.type === "kill_worker" && atMs - each.atMs === 1_000),
    );
    expect(aimed.length).toBeGreaterThan(0);
    const short = new Set<string>(planBlows(seed, 12).map(({ type }) => type));
    for (const type of ["kill_worker", "stop_worker", "flush_queue", "crash_postgres"]) expect(short).toContain(type);
  }
});

test("a queue that is not ours is not frozen, and orders of one user too many are more than the credits of a user", () => {
  expect(planBlows(5, 180, false).filter(({ type }) => type.endsWith("_redis"))).toEqual([]);
  const poor = planOrders(5, 200, 10, "photo").filter(({ body }) => body.user === "poor-0");
  expect(poor.reduce((sum, { credits }) => sum + credits, 0)).toBeGreaterThan(200);
});

const order: Order = {
  name: "generation",
  key: "key",
  mark: "order 0000 of seed 1.",
  atMs: 0,
  sends: "once",
  cancelAfterMs: null,
  body: { kind: "generation", user: "ann", input: {} },
  credits: 2,
  rule: null,
  fails: null,
};
const sending = {
  action: "submit",
  key: "key",
  outcome: "acknowledged",
  jobId: "job",
  credits: 2,
  answer: "202",
} as const;
const job = {
  id: "job",
  key: "key",
  user: "ann",
  kind: "generation",
  status: "completed",
  ended: true,
  failure: null,
  detail: null,
  variants: 2,
  credits: 2,
};
const run = { id: "run", jobId: "job", variant: 0, status: "stored", failure: null, providerRunId: "p0" };
const line = {
  id: "p0",
  face: "replicate",
  status: "succeeded",
  createdAt: "2026-01-01T00:00:00Z",
  completedAt: "2026-01-01T00:00:03Z",
  mark: order.mark,
  mayRetry: false,
  sha256: null,
};
const again = { id: "p2", createdAt: "2026-01-01T00:00:05Z" };
const grant = { jobId: null, user: "ann", type: "grant", amount: 200 };
const charge = { jobId: "job", user: "ann", type: "charge", amount: -2 };
const [file, file1] = [
  { key: "0.webp", sha256: "aa", bytes: 10 },
  { key: "1.webp", sha256: "bb", bytes: 11 },
];
const torn = { ...file1, sha256: "cc" };
const asset = { ...file, jobId: "job", runId: "run", role: "output" };
const asset1 = { ...file1, jobId: "job", runId: "run1", role: "output" };
const delivery = { jobId: "job", variant: 0, file, downloaded: { sha256: "aa", bytes: 10 } };
const delivery1 = { jobId: "job", variant: 1, file: file1, downloaded: null };
const kill: Struck = { atMs: 0, at: 1_000, type: "kill_worker", forMs: 0, pid: 71, what: "kill -9 worker-1" };
const takeover = { jobId: "job", worker: "host:71:ab12", at: 12_000 };
const setAside = { ...job, status: "failed", failure: "set_aside" };

/** One job of two images that went well in every record. */
const good: Records = {
  orders: [order],
  sendings: [sending],
  struck: [kill],
  jobs: [job],
  runs: [run, { ...run, id: "run1", variant: 1, providerRunId: "p1" }],
  assets: [asset, asset1],
  takeovers: [takeover],
  entries: [grant, charge],
  balances: [{ user: "ann", credits: 198 }],
  settlements: [{ jobId: "job", charged: 2, kept: 2, refunded: 0 }],
  drift: 0,
  bill: [line, { ...line, id: "p1" }],
  objects: [file, file1],
  deliveries: [delivery, delivery1],
  crashes: [],
  weather: null,
};
const course = {
  seed: 1,
  seconds: 1,
  weather: "processes",
  queue: "redis",
  webhooks: true,
  failedStarts: 0,
  pgRestarts: 0,
} as const;
const card = (records: Records) => makeScorecard({ ...course, recoverySeconds: 1 }, records, check(records));

test("the check finds nothing in good records", () => {
  expect(check(good)).toEqual([]);
  expect(card(good)).toMatchObject({ ok: true, strayObjects: 0, foundOrphans: 0, plantedBugs: null });
});

test("a second purchase after a failure of the provider is in order", () => {
  const failed = { ...line, status: "failed", mayRetry: true };
  const runs = [{ ...run, status: "failed" }, ...good.runs.slice(1), { ...run, id: "run2", providerRunId: "p2" }];
  const bill = [failed, { ...line, id: "p1" }, { ...line, ...again }];
  expect(check({ ...good, bill, runs })).toEqual([]);
  // Not when trying again cannot help.
  const final = [{ ...failed, mayRetry: false }, ...bill.slice(1)];
  expect(check({ ...good, bill: final, runs }).map((finding) => finding.check)).toEqual(["duplicatePaidRuns"]);
});

test("who ordered more than a user has may be refused, and who cancels takes what comes", () => {
  const refused = { ...sending, key: "key2", outcome: "refused", jobId: null, credits: null } as const;
  const more = { ...order, key: "key2", mark: "order 0001 of seed 1.", credits: 199 };
  const orders = [order, more];
  expect(check({ ...good, orders, sendings: [sending, { ...refused, answer: "402 no" }] })).toEqual([]);
  const late = { ...sending, action: "cancel", outcome: "refused", jobId: null, answer: "409 ended" } as const;
  const canceled = { ...good, orders: [{ ...order, cancelAfterMs: 5 }], sendings: [sending, late] };
  expect(check(canceled)).toEqual([]);
});

test("what was uploaded and never noted is counted, and so is a run that was found late", () => {
  const found = { ...run, id: "run2", status: "failed", failure: "lost", providerRunId: "p2" };
  const bill = [{ ...line, id: "p2", status: "aborted" }, ...good.bill.map((each) => ({ ...each, ...soon }))];
  const records = { ...good, objects: [...good.objects, torn].with(2, { ...torn, key: "2.webp" }) };
  expect(card({ ...records, bill, runs: [...good.runs, found] })).toMatchObject({
    ok: true,
    strayObjects: 1,
    foundOrphans: 1,
  });
});
const soon = { createdAt: "2026-01-01T00:00:04Z" };

/** One face was out of credit from second 1 to 2, and refused one create in the meantime. */
const front: Passed = {
  atMs: 0,
  forMs: 1_000,
  type: "empty",
  faces: ["replicate"],
  creates: 0,
  from: Date.parse("2026-01-01T00:00:01Z"),
  to: Date.parse("2026-01-01T00:00:02Z"),
  what: "402 from replicate for 1 s",
};
const counted = (asked: number) => ({ replicate: { asked, answers: { "201": 2, "402": asked - 2 } } });
const stormy: Records = { ...good, weather: { passed: [front], creates: counted(2) } };

test("of providers in trouble it is told who served, what was in vain, and when they were used again", () => {
  const bill = [line, { ...line, id: "p1", createdAt: "2026-01-01T00:00:03.500Z" }];
  expect(trafficOf({ ...stormy, bill })).toEqual({
    fronts: [{ type: "empty", times: 1 }],
    served: { replicate: 2 },
    creates: 2,
    accepted: 2,
    retries: 0,
    refused: { "402": 0 },
    recoveries: [{ face: "replicate", after: "empty", seconds: 1.5 }],
  });
  // Not after the next trouble: whoever served in it was not struck by it.
  const again = { ...front, from: front.to + 1_000, to: front.to + 5_000 };
  const weather = { passed: [front, again], creates: counted(2) };
  expect(trafficOf({ bill, weather })?.recoveries.map(({ seconds }) => seconds)).toEqual([null, null]);
  expect(trafficOf(good)).toBeNull();
});

test("while only providers are in trouble no job may fail, and one create in ten may be in vain", () => {
  const refunded = { ...job, status: "failed", failure: "lost", detail: "no answer" };
  const lost = { ...run, status: "failed", failure: "lost" };
  const checks = (change: Partial<Records>) => check({ ...stormy, ...change }).map((finding) => finding.check);
  expect(checks({})).toEqual([]);
  // Elsewhere a lost answer is an excuse.
  expect(checks({ jobs: [refunded], runs: [lost, ...good.runs.slice(1)] })).toContain("failedJobs");
  expect(check({ ...good, jobs: [refunded] }).map((finding) => finding.check)).not.toContain("failedJobs");
  expect(checks({ weather: { passed: [], creates: counted(3) } })).toEqual(["tooManyRetries"]);
});

test("a seed decides the weather, and there is always somebody who can be asked what became of a lost answer", () => {
  expect(forecast(5, 120)).toEqual(forecast(5, 120));
  expect(forecast(5, 120)).not.toEqual(forecast(6, 120));
  const endOf = ({ atMs, forMs }: Front) => atMs + forMs;
  for (let seed = 0; seed < 50; seed++) {
    for (const seconds of [30, 120, 600]) {
      const { line, fronts } = forecast(seed, seconds);
      expect(new Set(fronts.map(({ type }) => type)).size).toBe(4);
      expect(Math.max(...fronts.map(endOf))).toBeLessThanOrEqual(seconds * 1_000);
      for (const brown of fronts.filter(({ type }) => type === "brown_out")) {
        expect(brown.faces).toEqual([line[0]]);
        expect(brown.faces).not.toContain("fal");
        const meanwhile = fronts.filter(
          (each) => each !== brown && each.atMs < endOf(brown) && endOf(each) > brown.atMs,
        );
        // Of three, one can still sell.
        expect(new Set([brown, ...meanwhile].flatMap(({ faces }) => faces)).size).toBe(2);
      }
      const all = fronts.filter(({ type, faces }) => faces.length === 3 && type !== "small_limits");
      expect(all.length).toBeGreaterThan(0);
      for (const { forMs } of all) expect(forMs).toBeLessThanOrEqual(15_000);
    }
  }
});

test("recovery is measured from the kill of the very worker that held the job", () => {
  const later = { ...kill, at: 20_000 };
  const [other, second] = [
    { ...takeover, worker: "host:72:cd34" },
    { ...takeover, at: 33_000, worker: "host:71:ef56" },
  ];
  const records = { ...good, struck: [kill, later], takeovers: [takeover, other, second] };
  expect(card(records)).toMatchObject({ recoveries: 2, recoveryP50Ms: 11_000, recoveryMaxMs: 13_000 });
  const outage: Struck = { ...later, type: "stop_redis", pid: 9, forMs: 5_000 };
  expect(card({ ...records, struck: [kill, later, outage] })).toMatchObject({
    clearRecoveries: 1,
    clearRecoveryMaxMs: 11_000,
  });
  expect(card({ ...good, takeovers: [] })).toMatchObject({ recoveries: 0, recoveryP50Ms: null, recoveryP99Ms: null });
});

test("a job that was set aside is excused when each of its workers was struck by us, or cut off", () => {
  const verdict = (change: Partial<Records>) => verdictsOn({ ...good, jobs: [setAside], ...change }).get("job");
  const stranger = { ...takeover, worker: "host:99:ff" };
  const outage: Struck = { ...kill, type: "refuse_postgres", pid: null, forMs: 4_000 };
  expect(verdict({ takeovers: [takeover, takeover, takeover] })).toBe("excused");
  expect(verdict({ takeovers: [takeover, takeover, stranger] })).toBe("unexplained");
  expect(verdict({ takeovers: [stranger], struck: [outage] })).toBe("excused");
  expect(verdict({ takeovers: [stranger], struck: [{ ...outage, what: null }] })).toBe("unexplained");
});

test("a job one of whose runs was lost to us is excused, whichever of its variants is named as the reason", () => {
  const failed = { ...job, status: "failed", failure: "content_refused" };
  const verdict = (runs: Records["runs"]) => verdictsOn({ ...good, jobs: [failed], runs }).get("job");
  expect(verdict([run, { ...run, id: "run1", variant: 1, status: "failed", failure: "lost" }])).toBe("excused");
  expect(verdict([run])).toBe("unexplained");
});

test.each<[CheckName, string, Partial<Records>]>([
  ["lost", "another job under the key", { sendings: [{ ...sending, jobId: "gone" }] }],
  ["stuck", "a job that goes on", { jobs: [{ ...job, status: "processing", ended: false }] }],
  ["stuck", "an order without an answer", { sendings: [{ ...sending, outcome: "lost", jobId: null, credits: null }] }],
  ["duplicateJobs", "two jobs of one key", { jobs: [job, { ...job, id: "job2" }] }],
  ["duplicateJobs", "a job that nobody ordered", { jobs: [{ ...job, key: "other" }] }],
  ["strangeRefusals", "a refusal", { sendings: [sending, { ...sending, outcome: "refused", answer: "401 no" }] }],
  ["duplicateCharges", "two charges", { entries: [grant, charge, charge] }],
  ["duplicateCharges", "a charge without a job", { entries: [grant, charge, { ...charge, jobId: "none" }] }],
  ["duplicateCharges", "another price than told", { sendings: [{ ...sending, credits: 1 }] }],
  ["unsettled", "no settlement", { settlements: [] }],
  [
    "strangeRefusals",
    "no credits, for who had enough",
    { sendings: [{ ...sending, outcome: "refused", answer: "402" }] },
  ],
  [
    "strangeRefusals",
    "a cancel that knows no job",
    { sendings: [sending, { ...sending, action: "cancel", outcome: "refused", answer: "404" }] },
  ],
  ["wrongSettlements", "all kept, half delivered", { deliveries: [delivery] }],
  ["wrongSettlements", "all kept, one file torn", { objects: [file, torn] }],
  [
    "wrongSettlements",
    "a refund without its entry",
    { settlements: [{ jobId: "job", charged: 2, kept: 2, refunded: 1 }] },
  ],
  ["ledgerDrift", "credits from nowhere", { balances: [{ user: "ann", credits: 199 }] }],
  ["ledgerDrift", "our own audit", { drift: 1 }],
  ["missingOutputs", "a file that is gone", { objects: [file] }],
  ["missingOutputs", "a stored run without a file", { deliveries: [delivery, { ...delivery1, file: null }] }],
  ["missingOutputs", "a file that no row knows", { assets: [asset] }],
  [
    "missingOutputs",
    "a download that fails",
    { deliveries: [delivery, { ...delivery1, downloaded: { error: "404" } }] },
  ],
  ["corruptedOutputs", "a torn file", { objects: [file, torn] }],
  ["corruptedOutputs", "another file than the row says", { deliveries: [delivery, { ...delivery1, file: torn }] }],
  ["corruptedOutputs", "a torn download", { deliveries: [{ ...delivery, downloaded: torn }, delivery1] }],
  ["corruptedOutputs", "a torn thumbnail", { assets: [asset, asset1, { ...asset, role: "thumbnail", bytes: 9 }] }],
  [
    "corruptedOutputs",
    "another picture than was bought",
    {
      bill: [
        { ...line, sha256: "ff" },
        { ...line, id: "p1" },
      ],
    },
  ],
  [
    "misbooked",
    "a run that still goes on there",
    {
      bill: [
        { ...line, completedAt: null },
        { ...line, id: "p1" },
      ],
    },
  ],
  ["misbooked", "one that we call canceled", { runs: [{ ...run, status: "canceled" }, ...good.runs.slice(1)] }],
  ["orphans", "a run that nobody knows", { bill: [...good.bill, { ...line, ...again }] }],
  ["unbilled", "a run that was never sold", { bill: [line] }],
  ["strangeRuns", "another order's run", { bill: [line, { ...line, id: "p1", mark: "order 0001 of seed 1." }] }],
  [
    "duplicatePaidRuns",
    "a second one after a success",
    { bill: [...good.bill, { ...line, ...again }], runs: [...good.runs, { ...run, id: "run2", providerRunId: "p2" }] },
  ],
  ["unexplainedFailures", "a plain job that failed", { jobs: [{ ...job, status: "failed", failure: "timeout" }] }],
  ["unexplainedFailures", "a refused one that completed", { orders: [{ ...order, fails: "content_refused" }] }],
  ["unexplainedFailures", "set aside, and nobody was struck", { jobs: [setAside], struck: [] }],
  ["unexplainedFailures", "canceled, and nobody asked for it", { jobs: [{ ...job, status: "canceled" }] }],
  ["crashes", "a program that ended", { crashes: ["worker-1 ended by itself: exit code 1"] }],
])("the check finds %s: %s", (name, _, change) => {
  expect(check({ ...good, ...change }).map((finding) => finding.check)).toContain(name);
});
