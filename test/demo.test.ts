import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import sharp from "sharp";
import { afterEach, beforeEach, expect, test } from "vitest";
import { apps } from "../apps/all.ts";
import { findChromium } from "../demo/playing.ts";
import { kindsOf } from "../src/domain/app.ts";

const TEST_MS = 60_000;
/** Everything below has ended a moment after the demo: the zombies of a container are nobody's processes. */
const GONE_MS = 3_000;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "darkroom-demo-test-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

interface Ran {
  readonly code: number | null;
  readonly text: string;
  /** Of every process that the demo said it started. */
  readonly pids: number[];
}

/** Runs the demo as a newcomer does, with `onLine` for each line as it appears. */
async function runDemo(
  args: string[],
  onLine: (line: string, pidOf: (name: string) => number, demo: number) => void = () => {},
): Promise<Ran> {
  const { REDIS_URL: _, REPLICATE_API_TOKEN: __, REPLICATE_API_KEY: ___, ...env } = process.env;
  const child = spawn(process.execPath, ["--import", "tsx", "demo/main.ts", "--out", join(folder, "out"), ...args], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const closed = once(child, "close");
  let text = "";
  child.stderr.setEncoding("utf8").on("data", (more: string) => {
    text += more;
  });
  const pids = new Map<string, number>();
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      text += `${line}\n`;
      const [, name, pid] = /✔ (\S+) +pid (\d+)/.exec(line) ?? [];
      if (name) pids.set(name, Number(pid));
      onLine(line, (wanted) => pids.get(wanted) ?? Number.NaN, child.pid ?? Number.NaN);
    }
    const [code] = await closed;
    return { code, text, pids: [...pids.values()] };
  } finally {
    child.kill("SIGTERM");
  }
}

const readJson = async (file: string) => JSON.parse(await readFile(file, "utf8"));

async function expectGone(pids: readonly number[]): Promise<void> {
  await expect.poll(() => aliveAmong(pids), { timeout: GONE_MS }).toEqual([]);
}

async function aliveAmong(pids: readonly number[]): Promise<number[]> {
  const states = await Promise.all(
    pids.map(async (pid) => {
      try {
        process.kill(pid, 0);
      } catch (error) {
        return (error as NodeJS.ErrnoException).code === "EPERM";
      }
      const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
      return !/^State:\s+Z/m.test(status);
    }),
  );
  return pids.filter((_, index) => states[index]);
}

test("buys three jobs, refunds the one that fails, and every account agrees", { timeout: TEST_MS }, async () => {
  const json = join(folder, "demo.json");
  const { code, text, pids } = await runDemo(["--json", json]);

  expect(code, text).toBe(0);
  const report = await readJson(json);
  const refused = report.details.find((job: { status: string }) => job.status === "failed");
  expect(report).toMatchObject({ ok: true, jobs: 3, completed: 2, failed: 1, ledgerDrift: 0, unsettledJobs: 0 });
  expect(refused.charged).toBeGreaterThan(0);
  expect(report.refunded).toBe(refused.charged);
  expect(report.balance).toBe(200 - report.charged + report.refunded);
  expect(report.billLines).toBe(
    report.details.flatMap((job: { providerRunIds: string[] }) => job.providerRunIds).length,
  );
  expect(report.outputs).toHaveLength(4);
  for (const path of [...report.outputs, report.photo]) {
    const { data, info } = await sharp(path, { failOn: "error" }).raw().toBuffer({ resolveWithObject: true });
    expect(data.length).toBe(info.width * info.height * info.channels);
  }
  expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80 + folder.length);
  expect(pids).toHaveLength(5);
  await expectGone(pids);
});

test("goes on with one worker when the other is killed in the middle", { timeout: TEST_MS }, async () => {
  const json = join(folder, "demo.json");
  let killed = 0;
  const { code, text, pids } = await runDemo(
    ["--json", json, "--prompt", "a fox in the snow [sandbox: slow=4]"],
    (line, pidOf) => {
      // Half way: it runs at the provider, and somebody must notice its end.
      const done = Number(/generation +processing +(\d+)%/.exec(line)?.[1] ?? 0);
      if (killed !== 0 || done < 20) return;
      killed = pidOf("worker-1");
      process.kill(killed, "SIGKILL");
    },
  );

  expect(code, text).toBe(0);
  expect(text).toContain(`worker-1 (pid ${killed}) died: SIGKILL; worker-2 takes over its jobs`);
  expect(await readJson(json)).toMatchObject({ ok: true, jobs: 3, completed: 2, failed: 1, ledgerDrift: 0 });
  await expectGone(pids);
});

test("leaves nothing running when it is told to stop", { timeout: TEST_MS }, async () => {
  const { code, text, pids } = await runDemo([], (line, _, demo) => {
    if (line.includes("processing")) process.kill(demo, "SIGTERM");
  });

  expect(code, text).toBe(143);
  expect(text).toContain("stopped by SIGTERM");
  expect(pids).toHaveLength(5);
  await expectGone(pids);
});

test.each([
  [2, "a missing image", ["--image", "/nowhere/room.jpg"], "there is no file /nowhere/room.jpg"],
  [2, "an image that is none", ["--image", "package.json"], "not a JPEG, PNG, WebP or GIF picture"],
  [2, "a prompt that is too long", ["--prompt", "x".repeat(2_001)], "it takes 1 to 2,000"],
  [2, "an unknown option", ["--pictures"], "Unknown option '--pictures'"],
  [78, "a missing token", ["--provider", "replicate"], "needs REPLICATE_API_TOKEN"],
])("exits with %i and the remedy for %s", { timeout: TEST_MS }, async (wanted, _, args, says) => {
  const { code, text, pids } = await runDemo(args);

  expect(code, text).toBe(wanted);
  expect(text).toContain(says);
  expect(pids).toEqual([]);
});

test("--all buys every kind for every app, and every file opens", { timeout: 240_000 }, async () => {
  const json = join(folder, "all.json");
  const { code, text, pids } = await runDemo(["--all", "--json", json]);

  expect(code, text).toBe(0);
  const report = await readJson(json);
  expect(report).toMatchObject({ ok: true, ledgerDrift: 0, unsettledJobs: 0 });
  expect(report.completed).toBe(report.jobs);
  const bought = report.table.map(({ app, what }: { app: string; what: string }) => `${app} ${what}`);
  for (const app of apps) for (const kind of kindsOf(app)) expect(bought).toContain(`${app.id} ${kind}`);
  // Told in the order of apps and kinds, whichever ended first.
  const rows = report.table.map(({ app, what }: { app: string; what: string }) =>
    text.search(new RegExp(`^\\W*${app}\\W+${what}\\b`, "m")),
  );
  expect(rows).not.toContain(-1);
  expect(rows).toEqual([...rows].sort((a, b) => a - b));
  expect(report.table.filter(({ what }: { what: string }) => what === "own model").length).toBeGreaterThan(1);
  for (const { outputs, credits } of report.table) {
    expect(outputs.length).toBeGreaterThan(0);
    expect(credits).toBeGreaterThan(0);
  }
  const films = report.checks.find(({ what }: { what: string }) => what === "films play");
  const canPlay = (await findChromium()) !== null;
  expect(films).toMatchObject({ ok: true, isTried: canPlay });
  if (canPlay) expect(films.detail).toMatch(/^([1-9]\d*) of \1 in Chromium$/);
  await expectGone(pids);
});
