import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type CheckName, check } from "../chaos/check.ts";
import { planBlows } from "../chaos/nemesis.ts";
import type { Order } from "../chaos/orders.ts";
import { planOrders } from "../chaos/orders.ts";
import type { Records } from "../chaos/records.ts";

/** Twelve seconds of nemesis; what dies while it buys is given up after 36 s, and a busy machine is slow to start. */
const RUN_MS = 90_000;

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
    expect(card.completed + card.failed).toBe(16);
    // Everything was broken at least once, or the run has proven nothing.
    for (const blow of ["kills", "stops", "redisFlushes", "backendCuts"]) expect(card[blow], blow).toBeGreaterThan(0);
    expect(card.lostAnswers).toBeGreaterThan(0);
  } finally {
    clearTimeout(late);
    child.kill("SIGTERM");
    await rm(folder, { recursive: true, force: true });
  }
});

test("a seed decides what is ordered and what breaks", () => {
  expect(planOrders(5, 30, 10, "photo")).toEqual(planOrders(5, 30, 10, "photo"));
  expect(planOrders(5, 30, 10, "photo")).not.toEqual(planOrders(6, 30, 10, "photo"));
  expect(new Set(planOrders(5, 30, 10, "photo").map(({ name }) => name)).size).toBe(22);
  expect(planBlows(5, 30)).toEqual(planBlows(5, 30));
  expect(new Set(planBlows(5, 12).map(({ type }) => type)).size).toBe(5);
});

const order: Order = {
  name: "generation",
  key: "key",
  mark: "order 0000 of seed 1.",
  atMs: 0,
  sends: "once",
  body: { kind: "generation", user: "ann", input: {} },
  rule: null,
  fails: null,
};
const sending = { key: "key", at: "", outcome: "acknowledged", jobId: "job", credits: 2, answer: "202" } as const;
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
const run = { id: "run", jobId: "job", variant: 0, status: "stored", providerRunId: "p0" };
const line = {
  id: "p0",
  status: "succeeded",
  createdAt: "2026-01-01T00:00:00Z",
  completedAt: "2026-01-01T00:00:03Z",
  mark: order.mark,
};
const again = { id: "p2", createdAt: "2026-01-01T00:00:05Z" };
const grant = { jobId: null, user: "ann", type: "grant", amount: 200 };
const charge = { jobId: "job", user: "ann", type: "charge", amount: -2 };
const delivery = { jobId: "job", variant: 0, trouble: null, detail: "" };

/** One job of two images that went well in every record. */
const good: Records = {
  orders: [order],
  sendings: [sending],
  jobs: [job],
  runs: [run, { ...run, id: "run1", variant: 1, providerRunId: "p1" }],
  entries: [grant, charge],
  balances: [{ user: "ann", credits: 198 }],
  settlements: [{ jobId: "job", charged: 2, kept: 2, refunded: 0 }],
  drift: 0,
  bill: [line, { ...line, id: "p1" }],
  deliveries: [delivery, { ...delivery, variant: 1 }],
  crashes: [],
};

test("the check finds nothing in good records", () => {
  expect(check(good)).toEqual([]);
});

test("a second purchase after a failure of the provider is in order", () => {
  const bill = [...good.bill.map((each) => ({ ...each, status: "failed" })), { ...line, ...again }];
  expect(check({ ...good, bill, runs: [...good.runs, { ...run, id: "run2", providerRunId: "p2" }] })).toEqual([]);
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
  ["wrongSettlements", "all kept, half delivered", { deliveries: [delivery] }],
  [
    "wrongSettlements",
    "a refund without its entry",
    { settlements: [{ jobId: "job", charged: 2, kept: 2, refunded: 1 }] },
  ],
  ["ledgerDrift", "credits from nowhere", { balances: [{ user: "ann", credits: 199 }] }],
  ["ledgerDrift", "our own audit", { drift: 1 }],
  [
    "missingOutputs",
    "a file that is gone",
    { deliveries: [delivery, { ...delivery, variant: 1, trouble: "missing" }] },
  ],
  ["corruptedOutputs", "a torn file", { deliveries: [delivery, { ...delivery, variant: 1, trouble: "corrupted" }] }],
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
  ["crashes", "a program that ended", { crashes: ["worker-1 ended by itself: exit code 1"] }],
])("the check finds %s: %s", (name, _, change) => {
  expect(check({ ...good, ...change }).map((finding) => finding.check)).toContain(name);
});
