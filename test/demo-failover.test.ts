import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterEach, beforeEach, expect, test } from "vitest";
import { failoverChecks, failoverToJson } from "../demo/routes.ts";

const RUN_MS = 120_000;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "darkroom-failover-test-"));
});
afterEach(() => rm(folder, { recursive: true, force: true, maxRetries: 3 }));

/** As a newcomer runs it, with nothing set in the environment. */
function runDemo(args: readonly string[]): Promise<{ readonly code: number; readonly text: string }> {
  const { REDIS_URL: _, ...env } = process.env;
  const all = ["--import", "tsx", "demo/main.ts", "--out", join(folder, "out"), ...args];
  return new Promise((resolve) => {
    execFile(process.execPath, all, { env, timeout: RUN_MS }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code ?? 1) : 0, text: stdout + stderr });
    });
  });
}

test("twelve jobs go around an empty account and two 429 storms, and each says why", { timeout: RUN_MS }, async () => {
  const json = join(folder, "failover.json");
  const { code, text } = await runDemo(["--failover", "--json", json]);

  expect(code, text).toBe(0);
  expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80 + folder.length);
  const report = JSON.parse(await readFile(json, "utf8"));
  expect(report).toMatchObject({ ok: true, jobs: 12, completed: 12, ledgerDrift: 0, unsettledJobs: 0, billLines: 12 });
  const routes: { account: string; why: string; outputs: string[] }[] = report.routes;
  // Nobody else is asked before anything has happened, and nobody else when all is over.
  expect(routes[0]).toMatchObject({ account: "replicate", why: "sandbox_replicate: first in line" });
  expect(routes.at(-1)).toMatchObject({ account: "replicate" });
  expect(new Set(routes.map(({ account }) => account))).toEqual(new Set(["replicate", "fal", "wavespeed"]));
  for (const { account, why, outputs } of routes) {
    expect(why).toContain(`sandbox_${account}: `);
    expect(text).toContain(why.replaceAll("sandbox_", "").slice(0, 40));
    for (const path of outputs) expect((await sharp(path, { failOn: "error" }).stats()).channels).toHaveLength(3);
  }
  expect(routes.find(({ account }) => account === "fal")?.why).toMatch(/out of credit/);
  expect(routes.find(({ account }) => account === "wavespeed")?.why).toMatch(/(replicate .*fal |fal .*replicate )/);
  const told = report.accounts.filter(({ isAct }: { isAct: boolean }) => !isAct);
  for (const what of ["paused: out of credit", "held back, as its 429 said", "takes orders"])
    expect(told.map((moment: { what: string }) => moment.what)).toContain(what);
});

test.each([
  ["two demos at once", ["--failover", "--all"], "name one of them"],
  ["a provider of one's own", ["--failover", "--provider", "sandbox"], "runs on the sandbox"],
])("refuses %s, with the remedy", { timeout: RUN_MS }, async (_, args, says) => {
  const { code, text } = await runDemo(args);
  expect(code, text).toBe(2);
  expect(text).toContain(says);
});

const nothing = { accounts: 0, credits: 0, unsettledJobs: 0 };
const empty = { routed: [], moments: [], credits: { available: 0, entries: [] }, ledger: nothing, bill: ["p1"] };

test("what does not add up is a check that fails", () => {
  const failed = (change: object) =>
    failoverChecks({ ...empty, ...change })
      .filter(({ ok }) => !ok)
      .map(({ what }) => what);
  expect(failed({ bill: [] })).toEqual(["every account was used"]);
  expect(failed({})).toContain("bought once each");
  expect(failed({ ledger: { ...nothing, credits: 1 } })).toContain("ledger drift 0");
  expect(failoverToJson(empty)).toMatchObject({ jobs: 0, billLines: 1 });
});
