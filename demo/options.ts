import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { generationInput } from "../src/domain/kinds/generation.ts";
import { ImageRefused, inspectImage } from "../src/storage/image.ts";

/** As MAX_FILE_BYTES and MAX_IMAGE_PIXELS are by default: what passes here is not refused by the API. */
const PHOTO_LIMITS = { maxBytes: 40_000_000, maxPixels: 50_000_000, maxPages: 1 };

const PROMPT = "a lighthouse on a rocky coast at golden hour, calm sea, drifting clouds";

export const USAGE = `
npm run demo [-- --image FILE] [--prompt TEXT] [--provider sandbox|replicate] [--out DIR] [--json FILE] [--keep]
npm run demo -- --all [--out DIR] [--json FILE] [--keep]
npm run demo -- --failover [--out DIR] [--json FILE] [--keep]

  --image FILE      the room to stage: JPEG, PNG or WebP; a drawn one without it
  --prompt TEXT     what the generation shows, 1 to 2,000 characters
  --provider NAME   sandbox (a local cloud, free) or replicate (real pictures, real money: about $0.09)
  --out DIR         where pictures and logs go; ./demo-output without it
  --json FILE       also write what came out, for programs
  --all             every kind of job for every app in apps/, on the sandbox; films are played where there is a Chromium
  --failover        twelve jobs, while accounts at three providers come and go; shows the route of each
  --keep            leave everything running afterwards, until Ctrl-C

Try: --prompt "a fox in the snow [sandbox: slow=20]", and kill -9 a worker while it runs.
`;

/** What was typed is at fault, or the environment: the message names the remedy. */
export class BadOption extends Error {
  override readonly name = "BadOption";
  readonly exitCode: number;
  constructor(message: string, exitCode = 2) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** sysexits.h: the configuration is at fault, trying again will not help. */
const EX_CONFIG = 78;

export type ProviderChoice =
  | { readonly name: "sandbox" }
  /** The real thing, with the caller's own token. */
  | { readonly name: "replicate"; readonly token: string };

export interface Photo {
  readonly bytes: Buffer;
  readonly contentType: string;
  /** Without the dot. */
  readonly extension: string;
}

export interface Options {
  /** Null: the drawn room. */
  readonly photo: Photo | null;
  readonly prompt: string;
  readonly provider: ProviderChoice;
  readonly out: string;
  readonly json: string | null;
  readonly keep: boolean;
  /** Every kind for every app, instead of three jobs. */
  readonly all: boolean;
  /** Jobs from three providers that come and go, instead of three jobs. */
  readonly failover: boolean;
  /** The queue is on Redis when there is one. */
  readonly redisUrl: string | null;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Everything that can be wrong with what was typed is found here, before anything is started. Null: help was asked for. */
export async function readOptions(args: string[], env: Env): Promise<Options | null> {
  const given = parse(args);
  if (given.help) return null;
  // npm runs scripts in the project's folder; paths are meant from where they were typed.
  const from = (path: string) => resolve(env["INIT_CWD"] || process.cwd(), path);
  if (given.all && given.failover) throw new BadOption("--all and --failover are two demos: name one of them.");
  if ((given.all || given.failover) && (given.image ?? given.prompt ?? given.provider) !== undefined)
    throw new BadOption(
      `--${given.all ? "all" : "failover"} brings its own pictures and words, and runs on the sandbox: leave --image, --prompt and --provider out.`,
    );
  const options = {
    prompt: readPrompt(given.prompt ?? PROMPT),
    provider: readProvider(given.provider ?? "sandbox", env),
    out: given.out === undefined ? resolve("demo-output") : from(notEmpty("--out", given.out)),
    json: given.json === undefined ? null : from(notEmpty("--json", given.json)),
    keep: given.keep ?? false,
    all: given.all ?? false,
    failover: given.failover ?? false,
    redisUrl: env["REDIS_URL"] || null,
  };
  return {
    ...options,
    photo: given.image === undefined ? null : await readPhoto(from(notEmpty("--image", given.image))),
  };
}

function parse(args: string[]) {
  try {
    const text = { type: "string" } as const;
    const flag = { type: "boolean" } as const;
    return parseArgs({
      args,
      options: {
        image: text,
        prompt: text,
        json: text,
        provider: text,
        out: text,
        keep: flag,
        all: flag,
        failover: flag,
        help: flag,
      },
    }).values;
  } catch (error) {
    const [what = ""] = (error instanceof Error ? error.message : String(error)).split(". ");
    throw new BadOption(`${what}. See: npm run demo -- --help`);
  }
}

function notEmpty(option: string, value: string): string {
  if (value.trim() === "") throw new BadOption(`${option} is empty: name a path, or leave it out.`);
  return value;
}

function readPrompt(text: string): string {
  const parsed = generationInput.safeParse({ prompt: text });
  if (parsed.success) return parsed.data.prompt;
  throw new BadOption(
    `--prompt has ${text.trim().length} characters; it takes 1 to 2,000. Say it ${text.trim() ? "shorter" : "in words"}, or leave it out.`,
  );
}

function readProvider(name: string, env: Env): ProviderChoice {
  if (name === "sandbox") return { name };
  if (name !== "replicate")
    throw new BadOption(`--provider is sandbox or replicate, not "${name}". Leave it out for the sandbox.`);
  const token = env["REPLICATE_API_TOKEN"] || env["REPLICATE_API_KEY"];
  if (token) return { name, token };
  throw new BadOption(
    "--provider replicate needs REPLICATE_API_TOKEN in the environment. Get one at " +
      "https://replicate.com/account/api-tokens, or leave --provider out: the sandbox needs no account.",
    EX_CONFIG,
  );
}

async function readPhoto(path: string): Promise<Photo> {
  const found = await stat(path).catch(() => null);
  if (!found)
    throw new BadOption(`--image: there is no file ${path}. Check the path, or leave it out for a drawn room.`);
  if (!found.isFile()) throw new BadOption(`--image: ${path} is not a file. Name a JPEG, PNG or WebP picture.`);
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new BadOption(`--image: ${path} cannot be read (${error.code}). Make it readable, or name another picture.`);
  });
  try {
    const { contentType, extension } = await inspectImage(bytes, PHOTO_LIMITS);
    return { bytes, contentType, extension };
  } catch (error) {
    if (!(error instanceof ImageRefused)) throw error;
    throw new BadOption(`--image: ${path}: ${error.message}`);
  }
}
