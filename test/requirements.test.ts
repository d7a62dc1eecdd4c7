import { access, readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";

const root = new URL("..", import.meta.url);
const page = await readFile(new URL("docs/requirements.md", root), "utf8");
/** The cells of every table row that begins with a number of the list. */
const rows = page
  .split("\n")
  .map((line) => line.split(" | ").map((cell) => cell.replaceAll(/^\| | \|$/g, "")))
  .filter(([number]) => /^[ST]\d/.test(number ?? ""));

/** How many lines each of the five documents has. */
const LINES = { S1: 80, S2: 52, S3: 38, S4: 56, S5: 57 };

describe("docs/requirements.md", () => {
  test("has all 283 lines, in their order, and the 16 conflicts", () => {
    const lines = Object.entries(LINES).flatMap(([product, count]) =>
      Array.from({ length: count }, (_, index) => `${product}.${String(index + 1).padStart(2, "0")}`),
    );
    expect(lines).toHaveLength(283);
    const conflicts = Array.from({ length: 16 }, (_, index) => `T${index + 1}`);
    expect(rows.map(([number]) => number)).toEqual([...lines, ...conflicts]);
  });

  test("says of each line what it asks for, in a few words, and where it is served", () => {
    for (const [number = "", asks = "", where = "", more] of rows) {
      expect(asks.split(/\s+/).length, `${number} ${asks}`).toBeLessThanOrEqual(12);
      expect(where.length, number).toBeGreaterThan(0);
      expect(more === undefined || number.startsWith("T"), number).toBe(true);
      // What has no file says why.
      const hasFile = pathsIn(`${where} ${more ?? ""}`).length > 0;
      const says = /^(\*\*(partly|not yet|app|no)\*\*|as S\d|never there)/.test(where);
      expect(hasFile || says || /`npm run/.test(where), `${number} ${where}`).toBe(true);
    }
  });

  test("counts right what is served, and what is not", () => {
    const lines = rows.filter(([number]) => number?.startsWith("S"));
    const words = new Map(lines.map(([number, , where = ""]) => [number, where]));
    const standing = (where: string): string => {
      const same = /^as (S\d\.\d\d)/.exec(where)?.[1];
      return same ? standing(words.get(same) ?? "") : (/^\*\*(partly|not yet|app|no)\*\*/.exec(where)?.[1] ?? "served");
    };
    const count = (word: string) => lines.filter(([, , where = ""]) => standing(where) === word).length;
    expect(page).toContain(
      `Of the 283, ${count("served")} are served, ${count("partly")} partly, ${count("not yet")} not yet, ${count("app")} belong to the products, and ${count("no")} are left out`,
    );
  });

  test("names no file that is not there", async () => {
    const missing: string[] = [];
    for (const path of new Set(pathsIn(page))) await access(new URL(path, root)).catch(() => missing.push(path));
    expect(missing).toEqual([]);
  });

  test("names no command that is not there", async () => {
    const { scripts } = JSON.parse(await readFile(new URL("package.json", root), "utf8"));
    const commands = [...page.matchAll(/`npm run ([a-z:]+)/g)].map((match) => match[1] ?? "");
    expect(commands.filter((name) => !(name in scripts))).toEqual([]);
  });
});

/** What is written as code and looks like a file of this project. */
function pathsIn(text: string): string[] {
  return [...text.matchAll(/`([^`\s]+)`/g)]
    .map((match) => match[1] ?? "")
    .filter(
      (name) =>
        /^(src|test|apps|migrations|docs|sandbox|chaos|bench|demo|scripts|examples)\//.test(name) ||
        /^[.\w-]+\.(md|yml|example)$|^Dockerfile$/.test(name),
    );
}
