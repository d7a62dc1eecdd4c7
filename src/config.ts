import { readFileSync } from "node:fs";
import type { z } from "zod";
import { readAccounts } from "./accounts.ts";
import { type Environment, VARIABLES, type Variable } from "./variables.ts";

/** The environment, read once and passed on; nothing else reads process.env. What there is to read is variables.ts. */
export type Config = Omit<Environment, "PUBLIC_URL"> & { readonly PUBLIC_URL: string };

/** Every problem of the environment, each with its remedy. The command line ends with exit code 78 (EX_CONFIG). */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly problems: readonly string[];
  constructor(problems: readonly string[]) {
    super(
      `the environment has ${problems.length} problem${problems.length === 1 ? "" : "s"}:\n${problems.map((each) => `  - ${each}`).join("\n")}`,
    );
    this.problems = problems;
  }
}

export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const problems: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [name, { schema, about, aliases = [], isPool }] of Object.entries(VARIABLES) as [
    string,
    Variable<z.ZodType>,
  ][]) {
    const names = [name, ...aliases];
    const given = isPool ? lookUpPool(env, names, problems) : lookUp(env, names, problems);
    const parsed = schema.safeParse(given);
    if (parsed.success) values[name] = parsed.data;
    else {
      const wrong =
        given === undefined
          ? "is missing"
          : `is not usable (${parsed.error.issues.map((issue) => issue.message).join("; ")})`;
      problems.push(`${name} ${wrong}. ${about}`);
    }
  }
  problems.push(...rivals(env), ...contradictions(values as Partial<Environment>));
  if (problems.length > 0) throw new ConfigError(problems);
  const environment = values as Environment;
  return {
    ...environment,
    PUBLIC_URL: (environment.PUBLIC_URL ?? `http://localhost:${environment.PORT}`).replace(/\/+$/, ""),
  };
}

/** For what needs nothing but the database, on a host that has no other variable. */
export function readDatabaseUrl(env: Readonly<Record<string, string | undefined>>): string {
  return readOne(env, "DATABASE_URL");
}

/** For what needs nothing but the secret. */
export function readSigningSecret(env: Readonly<Record<string, string | undefined>>): string {
  return readOne(env, "SIGNING_SECRET");
}

function readOne(env: Readonly<Record<string, string | undefined>>, name: "DATABASE_URL" | "SIGNING_SECRET"): string {
  const problems: string[] = [];
  const { schema, about } = VARIABLES[name];
  const parsed = schema.safeParse(lookUp(env, [name], problems));
  if (parsed.success) return parsed.data;
  throw new ConfigError([...problems, `${name} is missing or not usable. ${about}`]);
}

function lookUp(
  env: Readonly<Record<string, string | undefined>>,
  names: readonly string[],
  problems: string[],
): string | undefined {
  for (const name of names) {
    const value = env[name];
    // An empty variable is what a form leaves behind: it means "not set".
    if (value !== undefined && value !== "") return value;
    const file = env[`${name}_FILE`];
    if (file) {
      try {
        return readFileSync(file, "utf8").trim();
      } catch {
        problems.push(`${name}_FILE names a file that cannot be read: ${file}`);
      }
    }
  }
  return undefined;
}

const MOST_IN_POOL = 9;

/** One text of all, separated by commas, so that each keeps its number; undefined when none is set. */
function lookUpPool(
  env: Readonly<Record<string, string | undefined>>,
  names: readonly string[],
  problems: string[],
): string | undefined {
  const found = [lookUp(env, names, problems)];
  for (let number = 2; number <= MOST_IN_POOL; number++)
    found.push(
      lookUp(
        env,
        names.map((name) => `${name}_${number}`),
        problems,
      ),
    );
  const last = found.findLastIndex((each) => each !== undefined);
  return last < 0
    ? undefined
    : found
        .slice(0, last + 1)
        .map((each) => each ?? "")
        .join(",");
}

/** Two names of one thing, either of which would say who is paid first: neither may win in silence. */
function rivals(env: Readonly<Record<string, string | undefined>>): string[] {
  const [own, primary] = ["AI_PROVIDER", "AI_PRIMARY_PROVIDER"].map((name) =>
    lookUp(env, [name], [])
      ?.split(",")
      .map((each) => each.trim())
      .join(","),
  );
  if (own === undefined || primary === undefined || own === primary) return [];
  return [
    `AI_PROVIDER is ${own}, and AI_PRIMARY_PROVIDER, another name of it, is ${primary}: who is asked first? Leave one of them out.`,
  ];
}

/** What is wrong only in combination. */
function contradictions(env: Partial<Environment>): string[] {
  const problems: string[] = [];
  const need = (name: keyof Environment, why: string) => {
    if (env[name] === undefined) problems.push(`${name} is missing: ${why}. ${VARIABLES[name].about}`);
  };
  const named = [env.AI_PROVIDER, env.AI_SECONDARY_PROVIDER, env.IMAGE_PROVIDER, env.VIDEO_PROVIDER].flat();
  const isSandbox = named.some((name) => name?.startsWith("sandbox"));
  if (isSandbox && env.NODE_ENV === "production")
    problems.push(
      "AI_PROVIDER is sandbox, and that is refused with NODE_ENV=production: it draws pictures instead of buying them. Set AI_PROVIDER=replicate.",
    );
  if (isSandbox) need("SANDBOX_URL", "the provider is the sandbox");
  if (env.AI_PROVIDER) problems.push(...readAccounts(env).problems);
  if (env.STORAGE_PROVIDER === "s3")
    for (const name of ["S3_BUCKET", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"] as const)
      need(name, "STORAGE_PROVIDER is s3");
  if (env.FAULT && env.NODE_ENV === "production")
    problems.push("FAULT is set, and that is refused with NODE_ENV=production: it is for tests. Remove it.");
  if (env.NODE_ENV === "production") {
    need("PUBLIC_URL", "signed file addresses are made from it in production");
    if (env.PUBLIC_URL?.startsWith("http://"))
      problems.push(
        "PUBLIC_URL must be https in production: providers only call back to https, and file addresses are secrets.",
      );
  }
  return problems;
}

/** `.env.example`, written from the table above. */
export function envExample(): string {
  const lines = [
    "# Copy to .env and fill in. Every variable that Darkroom reads is here; `npm run doctor` checks them.",
    "# Instead of NAME, NAME_FILE may name a file with its value, such as /run/secrets/name. The demo and the browser's",
    "# tests look for Chromium at CHROMIUM_PATH, too.",
    "",
  ];
  let section = "";
  for (const [name, each] of Object.entries(VARIABLES) as [string, Variable<z.ZodType>][]) {
    if (each.section !== section) lines.push(`# --- ${each.section} ---`, "");
    section = each.section;
    const parsed = each.schema.safeParse(undefined);
    const fallback = parsed.success && parsed.data !== undefined ? String(parsed.data) : null;
    lines.push(...wrap(each.about));
    if (each.isPool) lines.push(`# ${name}_2 to ${name}_${MOST_IN_POOL}: further accounts.`);
    if (each.aliases?.length) lines.push(`# Also read as ${each.aliases.join(", ")}.`);
    lines.push(parsed.success ? `#${name}=${each.example ?? fallback ?? ""}` : `${name}=${each.example ?? ""}`, "");
  }
  return lines.join("\n");
}

function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = "#";
  for (const word of text.split(" ")) {
    if (line.length + word.length > 110) {
      lines.push(line);
      line = "#";
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}
