import { z } from "zod";
import { DEPLOYMENT, ENDPOINT, PROVIDER_NAME, PROVIDER_NAMES } from "./accounts.ts";
import { KINDS } from "./domain/kinds/kind.ts";
import { type AimedFault, FAULT_POINTS, parseFault } from "./fault-points.ts";

/**
 * Every variable of the environment that Darkroom reads, with what it is for and where to get it: `.env.example` is
 * written from this table, and a wrong environment is answered with it. A secret may also be given as a file:
 * NAME_FILE=/run/secrets/name.
 */
export interface Variable<T extends z.ZodType> {
  readonly schema: T;
  readonly about: string;
  readonly section: string;
  /** Other names that existing products use for it. */
  readonly aliases?: readonly string[];
  /** NAME_2 to NAME_9 are read too: the value is their list, in which an empty text stands for one that is not set. */
  readonly isPool?: true;
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

const list = (what: z.ZodType<string, string>) =>
  z
    .string()
    .transform((text) => text.split(",").map((each) => each.trim()))
    .pipe(z.array(what).min(1));
const providers = list(z.string().regex(PROVIDER_NAME, `one or several, separated by commas, of: ${PROVIDER_NAMES}`));
const keys = z
  .string()
  .transform((text) => text.split(",").map((each) => each.trim()))
  .pipe(z.array(z.string().regex(/^\S*$/, "holds a space")))
  .optional();
const isPool = true as const;

export const VARIABLES = {
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
    providers,
    "Who serves the runs: who is asked first, and who next, separated by commas. Other providers whose keys are set come after them, the cheapest first. sandbox: the local cloud of this repository, never in production; sandbox:fal and so on are its other faces.",
    { aliases: ["AI_PRIMARY_PROVIDER"], example: "replicate" },
  ),
  AI_SECONDARY_PROVIDER: variable("Providers", providers.optional(), "Who is asked after AI_PROVIDER.", {
    example: "fal",
  }),
  IMAGE_PROVIDER: variable(
    "Providers",
    providers.optional(),
    "Who is asked before AI_PROVIDER for pictures: generation, edit, staging.",
    { example: "wavespeed,replicate" },
  ),
  VIDEO_PROVIDER: variable("Providers", providers.optional(), "Who is asked before AI_PROVIDER for films.", {
    example: "fal",
  }),
  REPLICATE_API_TOKEN: variable("Providers", keys, "From https://replicate.com/account/api-tokens.", {
    aliases: ["REPLICATE_API_KEY"],
    example: "r8_…",
    isPool,
  }),
  REPLICATE_WEBHOOK_SECRET: variable(
    "Providers",
    z
      .string()
      .transform((text) => text.split(",").map((each) => each.trim()))
      .pipe(z.array(z.string().regex(/^(whsec_\S+)?$/, "starts with whsec_")))
      .optional(),
    "The account's webhook signing secret. Fetched with the token when absent.",
    { example: "whsec_…", isPool },
  ),
  REPLICATE_DEPLOYMENTS: variable(
    "Providers",
    list(z.string().regex(DEPLOYMENT, "each as own/flux-dev=<owner>/<name>:<dollars a second>")).optional(),
    "Deployments of your own that take the input of the model, separated by commas: the model, the deployment, what a second on its hardware costs. They are the account replicate_own. Replicate bills their boot and idle time, too, which is in no run's cost.",
    { example: "own/flux-dev=acme/my-flux:0.001525" },
  ),
  RUNPOD_API_KEY: variable("Providers", keys, "From https://console.runpod.io/user/settings.", {
    example: "rpa_…",
    isPool,
  }),
  RUNPOD_ENDPOINTS: variable(
    "Providers",
    list(
      z
        .string()
        .regex(ENDPOINT, "each as own/flux-dev@A40=<endpoint id>, with :<dollars an hour> behind it if need be"),
    ).optional(),
    "Endpoints of your own that run examples/runpod-handler, separated by commas: the model, the GPU, the endpoint's id. An hour on an A40, 4090 or A100 is known to cost $0.40, $0.30, $1.20; say so where it costs you something else.",
    { example: "own/flux-dev@A40=abc123,own/flux-dev@4090=def456:0.34" },
  ),
  FAL_KEY: variable("Providers", keys, "From https://fal.ai/dashboard/keys.", {
    aliases: ["FAL_API_KEY"],
    example: "id:secret",
    isPool,
  }),
  WAVESPEED_API_KEY: variable("Providers", keys, "From https://wavespeed.ai/accesskey.", {
    aliases: ["WAVESPEED_API_TOKEN"],
    example: "…",
    isPool,
  }),
  WAVESPEED_WEBHOOK_SECRET: variable(
    "Providers",
    keys,
    "The account's webhook signing secret. Fetched with the key when absent.",
    { example: "whsec_…", isPool },
  ),
  HF_TOKEN: variable(
    "Providers",
    keys,
    "From https://huggingface.co/settings/tokens, with the right to call Inference Providers.",
    { aliases: ["HUGGINGFACE_API_TOKEN", "HUGGINGFACE_API_KEY", "HUGGINGFACE_TOKEN"], example: "hf_…", isPool },
  ),
  POE_API_KEY: variable("Providers", keys, "From https://poe.com/api_key.", { example: "…", isPool }),
  SANDBOX_URL: variable(
    "Providers",
    url(/^http$/, "an http:// address").optional(),
    "Where the sandbox listens, when it is the provider.",
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
