import { type Logger, pino } from "pino";
import { makeApp } from "./app.ts";
import type { BillSheet } from "./bill.ts";
import { makeCloud } from "./cloud.ts";
import type { FaultRule, StandingRule } from "./faults.ts";
import { type LimitRates, USUAL_RATES } from "./limit.ts";
import { secretFrom } from "./webhook.ts";

export interface SandboxOptions {
  /** 0: any free port, which is the default. */
  readonly port?: number;
  readonly host?: string;
  /** Divides the sandbox's own durations; 1 is made for demos, 10 or more for tests. */
  readonly speed?: number;
  /** Origin that https webhook URLs are delivered to, as there is no TLS here; see also `setWebhookRelay`. */
  readonly webhookRelay?: string | null;
  /** The account's name; models can only be created for it. */
  readonly account?: string;
  /** Tokens that are let in; without it, any that begins with "r8_". */
  readonly tokens?: readonly string[];
  readonly webhookSecret?: string;
  /** How long outputs are kept after the end of a run: an hour. */
  readonly outputTtlMs?: number;
  /** How long uploaded files are kept: a day. */
  readonly fileTtlMs?: number;
  /** true: 600 creates and 3,000 other requests a minute. Off without it. */
  readonly rateLimits?: boolean | LimitRates;
  /** A file that gets one JSON line for each acceptance and each end. */
  readonly billFile?: string;
  readonly log?: Logger;
}

export interface Sandbox {
  /** The origin; Replicate's base URL is this with "/v1" behind it. */
  readonly url: string;
  readonly token: string;
  readonly account: string;
  readonly webhookSecret: string;
  readonly faults: {
    /** Throws a RangeError when the fault is not known. */
    add(rule: FaultRule): StandingRule;
    list(): StandingRule[];
    remove(id: number): boolean;
    clear(): void;
  };
  bill(): BillSheet;
  resetBill(): void;
  /** Moves time forward for what expires (outputs, files); runs that are out keep their timers. */
  advanceClock(ms: number): void;
  setWebhookRelay(base: string | null): void;
  /** Ends at once: open requests are cut, runs that are out stay without an end on the bill. */
  close(): Promise<void>;
}

export type { BillSheet } from "./bill.ts";
export type { FaultRule, StandingRule } from "./faults.ts";

const HOUR_MS = 3_600_000;
const TOKEN = "r8_sandbox";

/** Starts a local cloud; refuses in production, where a picture that nobody painted must not be sold. */
export async function startSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  if (process.env["NODE_ENV"] === "production") {
    throw new Error("The sandbox does not start with NODE_ENV=production: it draws pictures, it does not make them.");
  }
  const { account = "sandbox", rateLimits = false, speed = 1 } = options;
  if (!(speed > 0 && speed <= 10_000)) throw new RangeError("speed must be above 0 and at most 10000");
  const webhookSecret = options.webhookSecret ?? secretFrom(account);
  const cloud = await makeCloud({
    log: options.log ?? pino({ level: "silent" }),
    speed,
    account,
    tokens: options.tokens ?? null,
    webhookSecret,
    filesSecret: secretFrom(`files of ${account}`),
    webhookRelay: options.webhookRelay ?? null,
    outputTtlMs: options.outputTtlMs ?? HOUR_MS,
    fileTtlMs: options.fileTtlMs ?? 24 * HOUR_MS,
    rateLimits: rateLimits === true ? USUAL_RATES : rateLimits === false ? null : rateLimits,
    billFile: options.billFile,
  });
  const app = await makeApp(cloud);
  const url = await app.listen({ port: options.port ?? 0, host: options.host ?? "127.0.0.1" }).catch(async (error) => {
    await cloud.close();
    throw error;
  });
  const { faults, bill, clock, webhooks } = cloud;

  return {
    url,
    token: options.tokens?.[0] ?? TOKEN,
    account,
    webhookSecret,
    faults: { add: faults.add, list: faults.list, remove: faults.remove, clear: faults.clear },
    bill: bill.sheet,
    resetBill: bill.reset,
    advanceClock: clock.advance,
    setWebhookRelay: webhooks.setRelay,
    async close() {
      await app.close();
      await cloud.close();
    },
  };
}
