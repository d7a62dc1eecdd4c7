import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasDifferences, type ReconcileCommand, readInvoice, reconcile, reconcileReport } from "../src/reconcile.ts";
import { darkroom } from "./rig/compiled.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

let spine: Spine;
let folder: string;
beforeAll(async () => {
  spine = await startSpine();
  folder = await mkdtemp(join(tmpdir(), "darkroom-invoice-"));
  const jobs = ["one", "two [sandbox: nsfw]", "three", "four"].map((prompt) =>
    spine.submit({ kind: "generation", user: "ann", model: "sdxl", input: { prompt } }),
  );
  for (const job of jobs) await spine.ended((await job).id, 30_000);
});
afterAll(async () => {
  await spine?.stop();
  if (folder) await rm(folder, { recursive: true });
});

let files = 0;
async function csv(text: string): Promise<string> {
  const path = join(folder, `invoice-${files++}.csv`);
  await writeFile(path, text);
  return path;
}

/** The sandbox's own bill, as an invoice; `change` doctors it. */
async function invoice(change: (lines: { id: string; cost: number }[]) => { id: string; cost: number }[] = (l) => l) {
  const lines = spine.sandbox.bill().lines.map(({ id, cost_usd: cost }) => ({ id, cost }));
  return csv(
    `id,model,cost_usd\n${change(lines)
      .map(({ id, cost }) => `${id},"a, b",${cost}`)
      .join("\n")}\n`,
  );
}

const compare = async (path: string, more: Partial<ReconcileCommand> = {}) =>
  reconcile(spine.config.DATABASE_URL, { provider: "sandbox", csv: path, ...more });

/** From the first of our runs to the last. */
async function span(): Promise<{ from: string; to: string }> {
  const [row = {}] = await spine.sql`select to_json(min(sent_at) - interval '1 minute') as from from runs`;
  return { from: String(row["from"]), to: new Date(Date.now() + 60_000).toISOString() };
}

describe("an invoice and our runs", () => {
  test("agree when the invoice is the provider's own bill", async () => {
    const found = await compare(await invoice());
    const total = Math.round(spine.sandbox.bill().total.usd * 1_000_000);
    expect(found).toMatchObject({
      provider: "sandbox",
      invoice: { ids: 4, microUsd: total },
      known: { runs: 4, microUsd: total },
      unknown: { count: 0, sample: [] },
      missing: { count: 0 },
      differing: { count: 0 },
      open: 0,
    });
    expect(hasDifferences(found)).toBe(false);
    expect(hasDifferences(await compare(await invoice(), await span()))).toBe(false);
    expect(reconcileReport(found)).toMatch(/✔ on the invoice, and no run of ours: 0/);
  });

  test("differ by a run that nobody here knows", async () => {
    const found = await compare(await invoice((lines) => [...lines, { id: "stranger", cost: 1.5 }]));
    expect(found.unknown).toEqual({ count: 1, microUsd: 1_500_000, sample: [{ id: "stranger", microUsd: 1_500_000 }] });
    expect(found).toMatchObject({ missing: { count: 0 }, differing: { count: 0 } });
    expect(hasDifferences(found)).toBe(true);
    expect(reconcileReport(found)).toContain("✖ on the invoice, and no run of ours: 1, $1.500000");
  });

  test("differ by a run of ours that is not on it", async () => {
    const [gone] = spine.sandbox.bill().lines;
    const path = await invoice((lines) => lines.filter(({ id }) => id !== gone?.id));
    const found = await compare(path, await span());
    const microUsd = Math.round((gone?.cost_usd ?? 0) * 1_000_000);
    expect(found.missing).toEqual({
      count: 1,
      microUsd,
      sample: [{ id: gone?.id, microUsd, runId: expect.any(String), jobId: expect.any(String) }],
    });
    expect(found).toMatchObject({ unknown: { count: 0 }, differing: { count: 0 } });
    // Outside of the time that the invoice is for, it need not be there.
    expect((await compare(path, { from: "2020-01-01", to: "2020-02-01" })).missing.count).toBe(0);
  });

  test("differ by an amount, beyond what may be rounding", async () => {
    const dear = await invoice((lines) =>
      lines.map((line, at) => (at === 1 ? { ...line, cost: line.cost + 0.5 } : line)),
    );
    const found = await compare(dear);
    expect(found.differing).toMatchObject({ count: 1, microUsd: 500_000 });
    const [line] = found.differing.sample;
    expect((line?.theirs ?? 0) - (line?.ours ?? 0)).toBe(500_000);
    const close = await invoice((lines) => lines.map((each) => ({ ...each, cost: each.cost * 1.02 + 0.001 })));
    expect((await compare(close)).differing.count).toBeGreaterThan(0);
    expect((await compare(close, { tolerance: "100" })).differing.count).toBe(0);
  });

  test("differ where nobody here could tell the amount, and the invoice does", async () => {
    const [line] = spine.sandbox.bill().lines;
    const kept = await spine.sql`select cost_micro_usd from runs where provider_run_id = ${line?.id ?? ""}`;
    await spine.sql`update runs set cost_micro_usd = null where provider_run_id = ${line?.id ?? ""}`;
    const found = await compare(await invoice());
    expect(found.differing).toMatchObject({ count: 1, sample: [{ id: line?.id, ours: null }] });
    expect(reconcileReport(found)).toContain("ours unknown");
    await spine.sql`update runs set cost_micro_usd = ${kept[0]?.["cost_micro_usd"]} where provider_run_id = ${line?.id ?? ""}`;
  });

  test("agree when one run has several lines that add up", async () => {
    const halves = await invoice((lines) =>
      lines.flatMap((line) => [line, line].map((l) => ({ ...l, cost: l.cost / 2 }))),
    );
    expect(hasDifferences(await compare(halves))).toBe(false);
  });
});

describe("a file", () => {
  const read = async (text: string, provider = "sandbox") => {
    const found: unknown[] = [];
    for await (const line of readInvoice(await csv(text), provider)) found.push(line);
    return found;
  };

  test("may use the provider's own names, a byte order mark, dollar signs and quotes", async () => {
    expect(await read('\ufeff"Prediction ID",Region,Cost\r\na,x,$0.0025\r\n"b",y,1e-3\r\n', "replicate_2")).toEqual([
      { id: "a", microUsd: 2_500 },
      { id: "b", microUsd: 1_000 },
    ]);
    expect(await read("cost_cents,request_id\n12,r\n", "huggingface")).toEqual([{ id: "r", microUsd: 120_000 }]);
  });

  test.each([
    [
      "day,amount\n1,2\n",
      /no column for the run's id \(one of id\) and what it cost \(one of cost_usd\); the file has day, amount/,
    ],
    ["id,amount\n1,2\n", /no column for what it cost/],
    ["id,cost_usd\na,much\n", /line \d of .*cost/],
    ["id,cost_usd\n,1\n", /line \d of .*id/],
    ["id,cost_usd\na,1,2\n", /cannot be read: .*length/i],
  ])("that says %j is refused with the place", async (text, says) => {
    await expect(read(text)).rejects.toThrow(says);
  });

  test("that is not there, an account that nobody bought from and odd options are said", async () => {
    await expect(compare(join(folder, "nothing.csv"))).rejects.toThrow(/cannot be read: ENOENT/);
    await expect(compare(await invoice(), { provider: "acme" })).rejects.toThrow(/from "acme": one of sandbox/);
    await expect(compare(await invoice(), { from: "yesterday" })).rejects.toThrow(/--from is a day or a time/);
    await expect(compare(await invoice(), { from: "2026-02-01", to: "2026-01-01" })).rejects.toThrow(/before --to/);
    await expect(compare(await invoice(), { tolerance: "much" })).rejects.toThrow(/percentage/);
  });

  test("is read piece by piece: a hundred thousand lines that nobody knows are counted, and a thousand shown", async () => {
    const lines = Array.from({ length: 100_000 }, (_, index) => `unknown-${index},0.001`);
    const found = await compare(await csv(`id,cost_usd\n${lines.join("\n")}\n`));
    expect(found.unknown).toMatchObject({ count: 100_000, microUsd: 100_000_000 });
    expect(found.unknown.sample).toHaveLength(1_000);
    expect(found).toMatchObject({ from: null, to: null, missing: { count: 0 } });
  }, 60_000);
});

test("the command ends with 0 when nothing differs, and with 1 when something does", async () => {
  const run = (path: string, ...more: string[]) =>
    darkroom(["reconcile", "--provider", "sandbox", "--csv", path, ...more], {
      DATABASE_URL: spine.config.DATABASE_URL,
    });
  expect(await run(await invoice())).toMatchObject({ code: 0, out: expect.stringContaining("✔ another amount: 0") });
  const doctored = await run(await invoice((lines) => [...lines, { id: "stranger", cost: 1 }]), "--json");
  expect(doctored.code).toBe(1);
  expect(JSON.parse(doctored.out)).toMatchObject({ unknown: { count: 1, sample: [{ id: "stranger" }] } });
  const lacking = await run(await csv("a,b\n1,2\n"));
  expect(lacking).toMatchObject({ code: 78, err: expect.stringMatching(/^darkroom: no column for/) });
}, 60_000);
