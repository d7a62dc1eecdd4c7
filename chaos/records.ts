import { createHash } from "node:crypto";
import { sql } from "drizzle-orm";
import { z } from "zod";
import { type Client, makeClient } from "../demo/client.ts";
import { ledgerDrift } from "../src/db/credits.ts";
import type { Sending } from "./clients.ts";
import type { Cluster } from "./cluster.ts";
import type { Order } from "./orders.ts";

const ANSWER_MS = 10_000;
/** Jobs read and downloaded at the same time: both cores, no more. */
const READERS = 4;
/** Of the sandbox's list, 100 runs each; it remembers 50,000. */
const MOST_PAGES = 500;

export interface JobRow {
  readonly id: string;
  readonly key: string;
  readonly user: string;
  readonly kind: string;
  readonly status: string;
  readonly ended: boolean;
  readonly failure: string | null;
  readonly detail: string | null;
  readonly variants: number;
  readonly credits: number;
}

export interface RunRow {
  readonly id: string;
  readonly jobId: string;
  readonly variant: number;
  readonly status: string;
  readonly providerRunId: string | null;
}

export interface BillLine {
  readonly id: string;
  readonly status: string;
  readonly createdAt: string;
  readonly completedAt: string | null;
  /** The mark of the order in the prompt that the provider was sent; null when its list does not show the run. */
  readonly mark: string | null;
}

export interface Delivery {
  readonly jobId: string;
  readonly variant: number;
  readonly trouble: "missing" | "corrupted" | null;
  readonly detail: string;
}

/** Everything that the check looks at. Orders and sendings are the clients', the bill is the provider's, the rest is ours. */
export interface Records {
  readonly orders: readonly Order[];
  readonly sendings: readonly Sending[];
  readonly jobs: readonly JobRow[];
  readonly runs: readonly RunRow[];
  readonly entries: readonly {
    readonly jobId: string | null;
    readonly user: string;
    readonly type: string;
    readonly amount: number;
  }[];
  readonly balances: readonly { readonly user: string; readonly credits: number }[];
  readonly settlements: readonly {
    readonly jobId: string;
    readonly charged: number;
    readonly kept: number;
    readonly refunded: number;
  }[];
  /** What the service's own audit says. */
  readonly drift: number;
  readonly bill: readonly BillLine[];
  /** One for each variant that a client sees as delivered or that our runs call stored. */
  readonly deliveries: readonly Delivery[];
  readonly crashes: readonly string[];
}

/** Reads what is left after the calm. Nothing moves any more; the order of reading does not matter. */
export async function readRecords(
  cluster: Cluster,
  orders: readonly Order[],
  sendings: readonly Sending[],
  halted: AbortSignal,
): Promise<Records> {
  const { db, sandbox, api, apiKey } = cluster;
  const rows = async <T extends object>(query: ReturnType<typeof sql>) =>
    (await db.execute(query)).rows as unknown as readonly T[];
  const jobs = await rows<JobRow>(sql`
    select id, idempotency_key as key, user_id as "user", kind, status, ended_at is not null as ended,
      failure_code as failure, failure_detail as detail, variants, credits::int from jobs`);
  const runs = await rows<RunRow>(sql`
    select id, job_id as "jobId", variant, status, provider_run_id as "providerRunId" from runs`);
  const drift = await ledgerDrift(db);
  const client = makeClient(api.url, apiKey, halted);
  const deliveries: Delivery[] = [];
  await inTurns(jobs, async (job) => void deliveries.push(...(await readDeliveries(client, job, runs))));
  return {
    orders,
    sendings,
    jobs,
    runs,
    deliveries,
    drift: Math.max(drift.accounts, drift.credits),
    entries: await rows(sql`select job_id as "jobId", user_id as "user", type, amount::int from credit_ledger`),
    balances: await rows(sql`select user_id as "user", (balance + allowance)::int as credits from accounts`),
    settlements: await rows(sql`
      select job_id as "jobId", charged::int, kept::int, refunded::int from settlements`),
    bill: await readBill(sandbox),
    crashes: cluster.crashes(),
  };
}

/** Downloads as an app would, and compares every byte's hash with what the API told. */
async function readDeliveries(client: Client, row: JobRow, runs: readonly RunRow[]): Promise<Delivery[]> {
  const job = await client.job(row.id);
  const stored = new Set(
    runs.filter((run) => run.jobId === row.id && run.status === "stored").map((run) => run.variant),
  );
  return Promise.all(
    job.results
      .filter((result) => result.file !== null || stored.has(result.variant))
      .map(async ({ variant, file }): Promise<Delivery> => {
        const base = { jobId: row.id, variant };
        if (!file) return { ...base, trouble: "missing", detail: "its run is stored, and the API names no file" };
        const bytes = await client.download(file.url).catch((error: Error) => error);
        if (bytes instanceof Error) return { ...base, trouble: "missing", detail: bytes.message };
        const found = createHash("sha256").update(bytes).digest("hex");
        const whole = found === file.sha256 && bytes.length === file.bytes;
        return { ...base, trouble: whole ? null : "corrupted", detail: `sha256 ${found}, told ${file.sha256}` };
      }),
  );
}

const bill = z.object({
  lines: z.array(
    z.object({ id: z.string(), status: z.string(), created_at: z.string(), completed_at: z.string().nullable() }),
  ),
});
const page = z.object({
  next: z.string().nullable(),
  results: z.array(z.object({ id: z.string(), input: z.record(z.string(), z.unknown()) })),
});

async function readBill(sandbox: string): Promise<BillLine[]> {
  const ask = async (url: string) => {
    const headers = { authorization: "Bearer r8_chaos" };
    return (await fetch(url, { headers, signal: AbortSignal.timeout(ANSWER_MS) })).json();
  };
  const { lines } = bill.parse(await ask(`${sandbox}/_sandbox/bill`));
  const marks = new Map<string, string | null>();
  let next: string | null = `${sandbox}/v1/predictions`;
  for (let pages = 0; next !== null && pages < MOST_PAGES; pages++) {
    const listed: z.infer<typeof page> = page.parse(await ask(next));
    for (const { id, input } of listed.results) marks.set(id, markIn(String(input["prompt"])));
    next = listed.next;
  }
  return lines.map(({ id, status, created_at, completed_at }) => ({
    id,
    status,
    createdAt: created_at,
    completedAt: completed_at,
    mark: marks.get(id) ?? null,
  }));
}

function markIn(prompt: string): string | null {
  return /order \d+ of seed \d+\./.exec(prompt)?.[0] ?? null;
}

async function inTurns<T>(items: readonly T[], read: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  const reader = async () => {
    for (const item of left) await read(item);
  };
  await Promise.all(Array.from({ length: READERS }, reader));
}
