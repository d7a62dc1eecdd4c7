import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import ts from "typescript";
import { buildMain } from "../build.ts";
import type { Patch } from "./bug.ts";

/** What the programs are made of. */
const PARTS = ["src", "apps", "migrations", "package.json", "tsconfig.json", "tsconfig.build.json"];

/** Shorter times, for the builds with a bug and for the one without alike. */
export const SHORTER_TIMES: readonly Patch[] = [
  // A deadline is a minute away at least.
  { file: "src/variables.ts", find: "whole(60, 604_800)", replace: "whole(1, 604_800)" },
  { file: "src/db/jobs.ts", find: "const MISSING_LOOK_MS = 30_000;", replace: "const MISSING_LOOK_MS = 6_000;" },
];

/** A project in a folder of its own, compiled. */
export interface Build {
  readonly folder: string;
  /** The program to be started. */
  readonly main: string;
}

/** Copies the project and compiles the copy, without any bug; the project itself is only read. */
export async function buildBase(project: string, packages: string, folder: string): Promise<Build> {
  await mkdir(folder, { recursive: true });
  for (const part of PARTS) await cp(join(project, part), join(folder, part), { recursive: true });
  await symlink(join(packages, "node_modules"), join(folder, "node_modules"));
  for (const [file, text] of await patchedFiles(folder, SHORTER_TIMES)) await writeFile(join(folder, file), text);
  return { folder, main: await buildMain(folder, folder) };
}

/** The same with a bug in it: only the files that it is in are compiled anew. */
export async function plant(patches: readonly Patch[], base: Build, folder: string): Promise<Build> {
  await mkdir(folder, { recursive: true });
  await cp(join(base.folder, "build/dist"), join(folder, "dist"), { recursive: true });
  for (const part of ["migrations", "package.json"])
    await cp(join(base.folder, part), join(folder, part), { recursive: true });
  await symlink(join(base.folder, "node_modules"), join(folder, "node_modules"));
  for (const [file, text] of await patchedFiles(base.folder, patches)) {
    if (!file.endsWith(".ts")) await writeFile(join(folder, file), text);
    else await writeFile(join(folder, "dist", file.replace(/ts$/, "js")), transpile(text));
  }
  return { folder, main: join(folder, "dist/src/main.js") };
}

/** Each file that is changed, with all of its patches in. */
export async function patchedFiles(project: string, patches: readonly Patch[]): Promise<Map<string, string>> {
  const texts = new Map<string, string>();
  for (const patch of patches)
    texts.set(patch.file, patched(texts.get(patch.file) ?? (await readFile(join(project, patch.file), "utf8")), patch));
  return texts;
}

/** Throws when what is to be replaced is not there, or more than once: the source has moved on. */
export function patched(text: string, { file, find, replace }: Patch): string {
  const times = text.split(find).length - 1;
  if (times !== 1) throw new Error(`${file} holds this ${times} times instead of once: ${find}`);
  return text.replace(find, () => replace);
}

function transpile(text: string): string {
  const { ESNext: module } = ts.ModuleKind;
  const { ES2023: target } = ts.ScriptTarget;
  const options = { module, target, verbatimModuleSyntax: true, rewriteRelativeImportExtensions: true };
  return ts.transpileModule(text, { compilerOptions: options }).outputText;
}
