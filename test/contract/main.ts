import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Adapter } from "../../src/providers/adapter.ts";
import { describe, FEWEST_CASES, keepContract, type Verdict, waysOf } from "./contract.ts";

const USAGE = "npm run test:provider -- src/providers/fal.ts";
const SHOWN_CHARACTERS = 1_200; // of a fault
const say = (line: string) => process.stdout.write(`${line}\n`);

/** The one export of a file that is an adapter; a string in return says why there is none. */
async function readAdapter(path: string): Promise<Adapter | string> {
  const file = resolve(path);
  if (!existsSync(file)) return `there is no file ${path}`;
  const module: Record<string, unknown> = await import(pathToFileURL(file).href);
  const found = Object.values(module).filter(isAdapter);
  const [adapter] = found;
  if (!adapter) return `${path} exports no Adapter: { api, baseUrl, sample, make }, see src/providers/adapter.ts`;
  if (found.length > 1) return `${path} exports ${found.length} adapters: a file is one provider`;
  return adapter;
}

function isAdapter(value: unknown): value is Adapter {
  if (typeof value !== "object" || value === null) return false;
  const { api, baseUrl, sample, make } = { api: null, baseUrl: null, sample: null, make: null, ...value };
  const isText = typeof api === "string" && typeof baseUrl === "string" && URL.canParse(baseUrl);
  return isText && typeof sample === "object" && sample !== null && typeof make === "function";
}

function tell({ says, ms, fault }: Verdict): void {
  say(`${fault === null ? "✓" : "✗"} ${says} (${ms} ms)`);
  if (fault !== null) say(fault.slice(0, SHOWN_CHARACTERS).replaceAll(/^/gm, "    "));
}

async function main([path, ...surplus]: readonly string[]): Promise<number> {
  if (path === undefined || surplus.length > 0) {
    say(`Which adapter? ${USAGE}`);
    return 2;
  }
  const adapter = await readAdapter(path).catch((error: unknown) => `${path} cannot be loaded: ${String(error)}`);
  if (typeof adapter === "string") {
    say(`${adapter}. Give the file of an adapter: ${USAGE}`);
    return 2;
  }
  // All at once, for they wait more than they work; told one after the other.
  const ways = waysOf(adapter).map((sample) => keepContract(adapter, sample));
  const summaries: string[] = [];
  let isKept = true;
  for (const { sample, traits, verdicts } of await Promise.all(ways)) {
    say(`\n${adapter.api}, ${sample.model}`);
    verdicts.forEach(tell);
    const passed = verdicts.filter(({ fault }) => fault === null).length;
    isKept &&= passed === verdicts.length && passed >= FEWEST_CASES;
    summaries.push(`${adapter.api}: ${passed}/${verdicts.length} (${sample.model}: ${describe(traits)})`);
    if (verdicts.length < FEWEST_CASES) summaries.push(`at least ${FEWEST_CASES} cases are a contract`);
  }
  say(`\n${summaries.join("\n")}`);
  return isKept ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
