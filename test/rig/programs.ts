import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Where the tests' Redis is: the URL of a running one, or the program to start. */
export type Redis = { readonly url: string } | { readonly program: string };

export function findRedis(): Redis | null {
  const url = process.env["REDIS_URL"];
  if (url) return { url };
  const program = onPath("redis-server");
  return program === null ? null : { program };
}

export function findChromium(): string | null {
  const named = process.env["CHROMIUM_PATH"];
  if (named) return named;
  return onPath("chromium") ?? onPath("chromium-browser") ?? onPath("google-chrome");
}

function onPath(name: string): string | null {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/bin"];
  return folders.map((folder) => join(folder, name)).find(isExecutable) ?? null;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
