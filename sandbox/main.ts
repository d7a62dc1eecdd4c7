import { Command, InvalidArgumentError } from "commander";
import { pino } from "pino";
import { startSandbox } from "./sandbox.ts";

const EXIT_CONFIG = 78; // EX_CONFIG of sysexits.h
const CLOSE_MS = 900; // a supervisor may expect the end within a second

const program = new Command("sandbox")
  .description("A local cloud that speaks Replicate's HTTP contract, draws real pictures, and keeps its own bill.")
  .option("--port <port>", "0 takes any free port", number(0, 65_535), 0)
  .option("--host <address>", "address to listen on", "127.0.0.1")
  .option("--speed <factor>", "divides every duration", number(0.01, 10_000), 1)
  .option("--webhook-relay <origin>", "where https webhook URLs are delivered instead, over plain http", origin)
  .option("--account <name>", "the account that owns the token", "sandbox")
  .option("--bill <file>", "appends a JSON line for each acceptance and each end")
  .option("--output-ttl <seconds>", "how long outputs are kept", number(1, 604_800), 3_600)
  .option("--rate-limits", "600 creates and 3,000 other requests a minute", false)
  .option("--log-level <level>", "of pino, to stderr", "info");

interface Flags {
  readonly port: number;
  readonly host: string;
  readonly speed: number;
  readonly webhookRelay?: string;
  readonly account: string;
  readonly bill?: string;
  readonly outputTtl: number;
  readonly rateLimits: boolean;
  readonly logLevel: string;
}

await run(program.parse().opts<Flags>());

async function run(flags: Flags): Promise<void> {
  if (process.env["NODE_ENV"] === "production") {
    console.error("sandbox: refused with NODE_ENV=production. It sells invented pictures; unset NODE_ENV to start it.");
    process.exitCode = EXIT_CONFIG;
    return;
  }
  const log = pino({ level: flags.logLevel, name: "sandbox" }, pino.destination(2));
  const sandbox = await startSandbox({
    port: flags.port,
    host: flags.host,
    speed: flags.speed,
    webhookRelay: flags.webhookRelay ?? null,
    account: flags.account,
    outputTtlMs: flags.outputTtl * 1_000,
    rateLimits: flags.rateLimits,
    log,
    ...(flags.bill === undefined ? {} : { billFile: flags.bill }),
  }).catch((error: unknown) => {
    log.fatal({ error: String(error) }, "the sandbox could not open");
    process.exitCode = 1;
  });
  if (!sandbox) return;
  process.stdout.write(`${JSON.stringify({ listening: sandbox.url })}\n`);
  log.info({ url: sandbox.url, token: sandbox.token }, "the sandbox is open");

  const close = (signal: string) => {
    log.info({ signal }, "closing");
    setTimeout(() => process.exit(0), CLOSE_MS).unref();
    void sandbox.close().then(() => process.exit(0));
  };
  process.once("SIGTERM", close);
  process.once("SIGINT", close);
}

function number(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() !== "" && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`must be a number from ${least} to ${most}`);
  };
}

function origin(text: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return new URL(text).origin;
  throw new InvalidArgumentError("must be an origin such as http://127.0.0.1:3000");
}
