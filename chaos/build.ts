import { execFile } from "node:child_process";
import { cp, mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const BUILD_MS = 120_000;

/**
 * The project as it runs in production, compiled into the folder; returns its main program. Killed programs are started
 * again a hundred times, and compiling anew took more than half of a start.
 */
export async function buildMain(root: string, folder: string): Promise<string> {
  const build = join(folder, "build");
  await mkdir(build);
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const args = [tsc, "-p", join(root, "tsconfig.build.json"), "--noCheck", "--outDir", join(build, "dist")];
  await promisify(execFile)(process.execPath, args, { timeout: BUILD_MS });
  await symlink(join(root, "node_modules"), join(build, "node_modules"));
  // Copied: who works on in the tree meanwhile changes nothing here, and a new migration would stop every program.
  for (const part of ["migrations", "package.json"]) await cp(join(root, part), join(build, part), { recursive: true });
  return join(build, "dist/src/main.js");
}
