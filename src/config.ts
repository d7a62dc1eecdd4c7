import { readFileSync } from "node:fs";
import { z } from "zod";
import { KINDS } from "./domain/kinds/kind.ts";
import { type AimedFault, FAULT_POINTS, parseFault } from "./fault-points.ts";

/**
 * The environment, read once and passed on; nothing else reads process.env. Every variable is declared here with what
 * it is for and where to get it: `.env.example` is written from this table, and a wrong environment is answered with it.
 * A secret may also be given as a file: NAME_FILE=/run/secrets/name.
 */
interface Variable<T extends z.ZodType> {
  readonly schema: T;
  readonly about: string;
  readonly section: string;
  /** Other names that existing products use for it. */
  readonly aliases?: readonly string[];
  /** Written to .env.example, commented out when it is only an example. */
  readonly example?: string;
}

function variable<T extends z.ZodType>(
  section: string,
  schema: T,
  about: string,
  rest: Partial<Variable<T>> = {},
): Variable<T> {
  return { schema, about, section, ...rest };
}

const url = (protocols: RegExp, what: string) => z.url({ protocol: protocols, error: `must be ${what}` });
const port = z.coerce.number().int().min(0).max(65_535);
const whole = (min: number, max: number) => z.coerce.number().int().min(min).max(max);
const yes = z.enum(["true", "false", "1", "0"]).transform((text) => text === "true" || text === "1");

const VARIABLES = {
  NODE_ENV: variable(
    "Process",
    z.enum(["development", "test", "production"]).default("development"),
    "production refuses the sandbox and everything that is only for development.",
  ),
  LOG_LEVEL: variable(
    "Process",
    z.enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"]).default("info"),
    "How much is logged, as JSON lines on stdout.",
  ),
  HOST: variable(
    "Process",
    z.string().min(1).default("0.0.0.0"),
    "The address that the API and the workers' health ports listen on.",
  ),
  PORT: variable("Process", port.default(3000), "The API's port. 0: any free one.", { aliases: ["API_PORT"] }),
  HEALTH_PORT: variable(
    "Process",
    port.default(3001),
    "A worker's own small port: /livez, /readyz, /metrics. 0: any free one.",
  ),
  PUBLIC_URL: variable(
    "Process",
    url(/^https?$/, "an http:// or https:// address").optional(),
    "Where callers and providers reach the API. With https, providers call back; otherwise they are asked. Default: http://localhost:PORT.",
    { aliases: ["NEXT_PUBLIC_APP_URL"], example: "https://jobs.example.com" },
  ),
  DATABASE_URL: variable(
    "Stores",
    url(/^postgres(ql)?$/, "a postgres:// address"),
    "PostgreSQL 15 or newer, where everything that is true is kept. `npm run dev` brings its own.",
    { example: "postgres://darkroom:secret@localhost:5432/darkroom" },
  ),
  REDIS_URL: variable(
    "Stores",
    url(/^rediss?$/, "a redis:// or rediss:// address").optional(),
    "Redis 6.2 or newer with maxmemory-policy noeviction, for the queue. Without it the queue is kept in Postgres, which serves one worker process.",
    { example: "redis://localhost:6379" },
  ),
  QUEUE_PREFIX: variable(
    "Stores",
    z
      .string()
      .regex(/^[\w-]{1,40}$/, "letters, digits, _ and -, at most 40")
      .default("darkroom"),
    "Begins every key in Redis; keeps deployments that share one apart.",
  ),
  STORAGE_PROVIDER: variable(
    "Stores",
    z
      .enum(["local", "s3", "aws"])
      .default("local")
      .transform((name) => (name === "aws" ? ("s3" as const) : name)),
    "Where files are kept: local disk, or any S3-compatible bucket (AWS, R2, MinIO). aws means s3.",
  ),
  STORAGE_DIR: variable(
    "Stores",
    z.string().min(1).default(".darkroom/files"),
    "The folder of local storage. All processes must see the same one.",
  ),
  S3_BUCKET: variable("Stores", z.string().min(1).optional(), "The bucket.", {
    aliases: ["AWS_S3_BUCKET"],
    example: "darkroom",
  }),
  S3_REGION: variable("Stores", z.string().min(1).default("us-east-1"), "The bucket's region; auto for R2.", {
    aliases: ["AWS_REGION"],
  }),
  S3_ENDPOINT: variable(
    "Stores",
    url(/^https?$/, "an http:// or https:// address").optional(),
    "For anything but AWS: https://<account>.r2.cloudflarestorage.com, http://minio:9000.",
    { example: "http://localhost:9000" },
  ),
  S3_ACCESS_KEY_ID: variable("Stores", z.string().min(1).optional(), "The bucket's access key.", {
    aliases: ["AWS_ACCESS_KEY_ID"],
    example: "minioadmin",
  }),
  S3_SECRET_ACCESS_KEY: variable("Stores", z.string().min(1).optional(), "The bucket's secret key.", {
    aliases: ["AWS_SECRET_ACCESS_KEY"],
    example: "minioadmin",
  }),
  S3_FORCE_PATH_STYLE: variable("Stores", yes.default(false), "true for MinIO and most servers of one's own."),
  AI_PROVIDER: variable(
    "Providers",
    z.enum(["replicate", "sandbox"]),
    "Who serves the runs. sandbox: the local cloud of this repository, never in production.",
    { aliases: ["AI_PRIMARY_PROVIDER"], example: "replicate" },
  ),
  REPLICATE_API_TOKEN: variable(
    "Providers",
    z.string().min(1).optional(),
    "From https://replicate.com/account/api-tokens.",
    { aliases: ["REPLICATE_API_KEY"], example: "r8_…" },
  ),
  REPLICATE_WEBHOOK_SECRET: variable(
    "Providers",
    z.string().startsWith("whsec_", "starts with whsec_").optional(),
    "The account's webhook signing secret. Fetched with the token when absent.",
    { example: "whsec_…" },
  ),
  SANDBOX_URL: variable(
    "Providers",
    url(/^http$/, "an http:// address").optional(),
    "Where the sandbox listens, with AI_PROVIDER=sandbox.",
    { example: "http://127.0.0.1:3100" },
  ),
  SIGNING_SECRET: variable(
    "Secrets",
    z.string().min(32, "at least 32 characters"),
    "Signs our own file URLs and webhook addresses. Make one: openssl rand -hex 32",
    { example: "change-me-change-me-change-me-change-me" },
  ),
  ADMIN_PASSWORD: variable(
    "Secrets",
    z.string().min(12, "at least 12 characters").optional(),
    "Login of /queues, as user admin. Without it /queues is not there.",
    { example: "change-me-please" },
  ),
  CALLBACK_ORIGINS: variable(
    "Limits",
    z
      .string()
      .default("")
      .transform((list, context) =>
        list
          .split(",")
          .map((each) => each.trim().replace(/\/$/, ""))
          .filter((each) => each !== "")
          .map((each) => {
            if (!URL.canParse(each) || new URL(each).origin !== each)
              context.addIssue(`"${each}" is no origin: write it like http://backend:8080`);
            return each;
          }),
      ),
    "Where callbacks may go besides public https addresses: origins separated by commas, such as those of a private network.",
    { example: "http://backend:8080" },
  ),
  WORKER_KINDS: variable(
    "Limits",
    z
      .string()
      .default(KINDS.join(","))
      .transform((list) => list.split(",").map((kind) => kind.trim()))
      .pipe(z.array(z.enum(KINDS)).min(1)),
    "Which kinds a worker serves, separated by commas.",
  ),
  WORKER_CONCURRENCY: variable(
    "Limits",
    whole(1, 200).default(8),
    "Jobs of each kind that one worker acts on at the same time. Jobs that wait for a provider do not count.",
  ),
  DATABASE_POOL: variable(
    "Limits",
    whole(2, 50).default(6),
    "Connections to Postgres per process. 4 to 8 are best on two cores.",
  ),
  MAX_FILE_BYTES: variable(
    "Limits",
    whole(1_000_000, 200_000_000).default(40_000_000),
    "The largest input or output file, in bytes.",
  ),
  MAX_IMAGE_PIXELS: variable(
    "Limits",
    whole(1_000_000, 268_000_000).default(50_000_000),
    "The largest input image, in pixels.",
  ),
  JOB_DEADLINE_SECONDS: variable(
    "Limits",
    whole(60, 604_800).default(3_600),
    "Nothing is bought for a job later than this after it was accepted; what is out then is stopped, and what was not delivered is refunded.",
  ),
  LOST_AFTER_SECONDS: variable(
    "Limits",
    whole(1, 3_600).default(90),
    "A run whose submission was not answered is presumed lost when no list shows it this long after the last moment at which it may have been on its way. Three times the longest lag of the provider's list.",
  ),
  FAULT: variable(
    "Tests",
    z
      .string()
      .transform((text, context): AimedFault => {
        const fault = parseFault(text);
        if (typeof fault !== "string") return fault;
        context.addIssue(fault);
        return z.NEVER;
      })
      .optional(),
    `The process dies or stands still at this place, once: POINT=kill or POINT@JOB=stop. Points: ${Object.keys(FAULT_POINTS).join(", ")}. Refused in production.`,
    { example: "submit.intended=kill" },
  ),
} satisfies Record<string, Variable<z.ZodType>>;

type Variables = typeof VARIABLES;
export type Environment = { [K in keyof Variables]: z.output<Variables[K]["schema"]> };
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
  for (const [name, { schema, about, aliases = [] }] of Object.entries(VARIABLES) as [string, Variable<z.ZodType>][]) {
    const given = lookUp(env, [name, ...aliases], problems);
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
  problems.push(...contradictions(values as Partial<Environment>));
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

/** What is wrong only in combination. */
function contradictions(env: Partial<Environment>): string[] {
  const problems: string[] = [];
  const need = (name: keyof Environment, why: string) => {
    if (env[name] === undefined) problems.push(`${name} is missing: ${why}. ${VARIABLES[name].about}`);
  };
  if (env.AI_PROVIDER === "sandbox" && env.NODE_ENV === "production")
    problems.push(
      "AI_PROVIDER is sandbox, and that is refused with NODE_ENV=production: it draws pictures instead of buying them. Set AI_PROVIDER=replicate.",
    );
  if (env.AI_PROVIDER === "sandbox") need("SANDBOX_URL", "AI_PROVIDER is sandbox");
  if (env.AI_PROVIDER === "replicate") need("REPLICATE_API_TOKEN", "AI_PROVIDER is replicate");
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
    "",
  ];
  let section = "";
  for (const [name, each] of Object.entries(VARIABLES) as [string, Variable<z.ZodType>][]) {
    if (each.section !== section) lines.push(`# --- ${each.section} ---`, "");
    section = each.section;
    const parsed = each.schema.safeParse(undefined);
    const fallback = parsed.success && parsed.data !== undefined ? String(parsed.data) : null;
    lines.push(...wrap(each.about));
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
