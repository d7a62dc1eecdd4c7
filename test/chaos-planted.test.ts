import { readdir, readFile } from "node:fs/promises";
import ts from "typescript";
import { describe, expect, test } from "vitest";
import { readOptions } from "../chaos/options.ts";
import { BUGS } from "../chaos/planted/bugs.ts";
import { patched, patchedFiles, SHORTER_TIMES } from "../chaos/planted/build.ts";
import { isProof, plantedCard, plantedLine } from "../chaos/planted/planted.ts";
import { ordersOf, SCENARIOS } from "../chaos/planted/scenarios.ts";
import { BadOption } from "../demo/options.ts";

const ROOT = process.cwd();
const text = (file: string) => readFile(file, "utf8");

/** What the parser says; types are not looked at, which would take a minute for all of them. */
function syntaxErrors(texts: ReadonlyMap<string, string>): string[] {
  return [...texts]
    .filter(([file]) => file.endsWith(".ts"))
    .flatMap(([fileName, text]) => ts.transpileModule(text, { fileName, reportDiagnostics: true }).diagnostics ?? [])
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, " "));
}

describe("a planted bug", () => {
  test.each(BUGS.map((bug) => [bug.name, bug] as const))(
    "%s still fits the source, and parses",
    async (_, { patches }) => {
      expect(patches.length).toBeGreaterThan(0);
      expect(syntaxErrors(await patchedFiles(ROOT, patches))).toEqual([]);
      // In the build that is run the shorter times are in already.
      await patchedFiles(ROOT, [...SHORTER_TIMES, ...patches]);
    },
  );

  test("in a function of the database is in the one that counts: no later migration replaces it", async () => {
    const names = (await readdir("migrations")).toSorted();
    const texts = new Map(
      await Promise.all(names.map(async (name) => [name, await text(`migrations/${name}`)] as const)),
    );
    const inMigrations = BUGS.flatMap(({ patches }) => patches).filter(({ file }) => file.startsWith("migrations/"));
    expect(inMigrations.length).toBeGreaterThan(5);
    for (const { file, find } of inMigrations) {
      const before = (await text(file)).split(find)[0] ?? "";
      const [open] = [...before.matchAll(/^create (?:or replace )?function (\w+)|^end \$\$;/gm)].slice(-1);
      if (!open?.[1]) continue;
      const last = names.findLast((name) => texts.get(name)?.includes(` function ${open[1]}(`));
      expect([`${open[1]} of ${file}`, file]).toEqual([`${open[1]} of ${file}`, `migrations/${last}`]);
    }
  });

  test("has a name, a sentence and a set of patches of its own", () => {
    for (const key of ["name", "says"] as const) expect(new Set(BUGS.map((bug) => bug[key])).size).toBe(BUGS.length);
    expect(new Set(BUGS.map(({ patches }) => JSON.stringify(patches))).size).toBe(BUGS.length);
    expect(BUGS.length).toBeGreaterThanOrEqual(22);
  });

  test("is looked for in a scenario, and every scenario is for one", () => {
    expect(new Set<string>(BUGS.map(({ scenario }) => scenario))).toEqual(new Set(Object.keys(SCENARIOS)));
  });
});

test("what replaces nothing, or more than one place, is refused", () => {
  const patch = { file: "a.ts", find: "x", replace: "y" };
  expect(patched("a x b", patch)).toBe("a y b");
  expect(() => patched("a b", patch)).toThrow("0 times");
  expect(() => patched("x x", patch)).toThrow("2 times");
});

test("orders have keys and marks of their own", () => {
  const orders = ordersOf([{ images: 3 }, { staging: true }], "photo");
  expect(orders.map(({ credits }) => credits)).toEqual([3, 40]);
  expect(new Set(orders.map(({ mark }) => mark)).size).toBe(2);
});

test("all bugs are planted, or one by its name, alone or before an ordinary run", () => {
  const read = (...args: string[]) => readOptions(args, {});
  expect(read()).toMatchObject({ planted: [], runs: true });
  expect(read("--planted", "--json", "x.json")).toMatchObject({ planted: BUGS, runs: false });
  expect(read("--planted", "post_retried")?.planted.map(({ name }) => name)).toEqual(["post_retried"]);
  expect(read("--planted", "--jobs", "5")).toMatchObject({ planted: BUGS, runs: true, jobs: 5 });
  expect(read("--minutes", "1")).toMatchObject({ planted: BUGS, runs: true });
  expect(read("--planted", "none")).toMatchObject({ planted: [], runs: true });
  expect(() => read("--planted", "nothing_like_it")).toThrow(BadOption);
});

test("proof is that every bug is caught, and nothing where there is none", () => {
  const result = { bugs: 2, caught: 2, falseAlarms: 0, medianSeconds: 4.2, seconds: 9, clean: [], planted: [] };
  expect(isProof(result)).toBe(true);
  expect(isProof({ ...result, caught: 1 })).toBe(false);
  expect(isProof({ ...result, falseAlarms: 1 })).toBe(false);
  expect(plantedLine(result)).toContain("planted bugs 2/2 caught, false alarms 0, median 4.2 s");
  expect(plantedCard(result)).toMatchObject({ ok: true, plantedBugs: 2, plantedCaught: 2, falseAlarms: 0 });
});
