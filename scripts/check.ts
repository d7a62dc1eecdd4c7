import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { findBreaches, readProject } from "./house-rules.ts";
import { lockProblems } from "./lock-file.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
/** Each check takes seconds; five minutes means that it hangs. */
const CHECK_MS = 5 * 60_000;

interface Check {
  readonly name: string;
  /** What is wrong; empty when nothing is. */
  problems(): Promise<string>;
}

const checks: Check[] = [
  command("types", "tsc", "--noEmit"),
  command("format and lint", "biome", "ci", "--colors=off", "."),
  command("nothing unused", "knip", "--no-progress"),
  {
    name: "lock file",
    problems: async () => {
      const [lock, manifest] = await Promise.all(["package-lock.json", "package.json"].map(readJson));
      return lockProblems(lock, manifest).join("\n");
    },
  },
  {
    name: "rules of the house",
    problems: async () => {
      const breaches = findBreaches(await readProject(ROOT));
      return breaches.map(({ file, line, what }) => `${file}:${line} ${what}`).join("\n");
    },
  },
  // What is generated is committed, so that it can be read; here it is compared with what the code says.
  ...(existsSync(join(ROOT, "src/main.ts"))
    ? [
        command(".env.example", "tsx", "src/main.ts", "env-example", "--check"),
        command("docs/openapi.json", "tsx", "src/main.ts", "openapi", "--check"),
      ]
    : []),
];

/** A check that passes when the program exits with 0. */
function command(name: string, program: string, ...args: string[]): Check {
  const path = [join(ROOT, "node_modules/.bin"), process.env["PATH"]].join(delimiter);
  const options = { cwd: ROOT, timeout: CHECK_MS, maxBuffer: 16 * 1024 * 1024, env: { ...process.env, PATH: path } };
  return {
    name,
    problems: () =>
      new Promise((resolve) => {
        execFile(program, args, options, (error, stdout, stderr) => {
          if (error === null) return resolve("");
          resolve([stdout, stderr].filter((text) => text.trim() !== "").join("\n") || error.message);
        });
      }),
  };
}

async function readJson(name: string): Promise<unknown> {
  return JSON.parse(await readFile(join(ROOT, name), "utf8"));
}

let failed = 0;
for (const { name, problems } of checks) {
  const found = (await problems().catch(String)).trim();
  if (found !== "") failed += 1;
  process.stdout.write(found === "" ? `✔ ${name}\n` : `✖ ${name}\n${found.replace(/^/gm, "  ")}\n`);
}
process.stdout.write(`${checks.length - failed} checks passed, ${failed} failed\n`);
process.exitCode = failed > 0 ? 1 : 0;
