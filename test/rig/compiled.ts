import { spawn } from "node:child_process";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inject, vi } from "vitest";
import { buildMain } from "../../chaos/build.ts";

const ROOT = join(import.meta.dirname, "../..");
/** More than buildMain gives itself. */
const BUILD_MS = 130_000;
const COMMAND_MS = 60_000;

/** The path of the main program, compiled by the first of a whole run who asks: a start then takes half as long. */
export async function compiledMain(): Promise<string> {
  const folder = inject("buildFolder");
  const note = join(folder, "built.json");
  const isFirst = await mkdir(join(folder, "begun")).then(
    () => true,
    () => false,
  );
  if (isFirst) {
    const built = await buildMain(ROOT, folder).then(
      (main): Built => ({ main }),
      (error): Built => ({ problem: String(error) }),
    );
    // Whole or not at all, for those who wait for it.
    await writeFile(`${note}.new`, JSON.stringify(built));
    await rename(`${note}.new`, note);
  }
  const text = await vi.waitFor(() => readFile(note, "utf8"), { timeout: BUILD_MS, interval: 100 });
  const built: Built = JSON.parse(text);
  if ("problem" in built) throw new Error(`The main program was not compiled: ${built.problem}`);
  return built.main;
}

type Built = { readonly main: string } | { readonly problem: string };

export interface Said {
  /** Null: it was ended, by a signal or for taking a minute. */
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs a command of the main program as an operator would, with nothing in its environment but what is given. */
export async function darkroom(args: readonly string[], env: Record<string, string> = {}): Promise<Said> {
  const child = spawn(process.execPath, [await compiledMain(), ...args], {
    cwd: ROOT,
    env: { PATH: process.env["PATH"] ?? "", ...env },
    timeout: COMMAND_MS,
  });
  const said = { out: "", err: "" };
  child.stdout.setEncoding("utf8").on("data", (more) => (said.out += more));
  child.stderr.setEncoding("utf8").on("data", (more) => (said.err += more));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, ...said };
}
