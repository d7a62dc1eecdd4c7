import { createHash } from "node:crypto";
import { sql } from "drizzle-orm";
import { z } from "zod";
import { type Client, makeClient } from "../demo/client.ts";
import { ledgerDrift } from "../src/db/credits.ts";
import type { Sending } from "./clients.ts";
import type { Cluster } from "./cluster.ts";
import type { Struck } from "./nemesis.ts";
import { readObjects, type StoredObject } from "./objects.ts";
import type { Order } from "./orders.ts";
import type { Takeover } from "./recovery.ts";
import type { Passed } from "./storm.ts";
import { type Creates, readCreates } from "./traffic.ts";

const ANSWER_MS = 60_000;
/** Jobs read at the same time: both cores, no more. */
const READERS = 4;
/** Every delivered file is compared on disk; of so many jobs it is also downloaded, as an app would. */
const DOWNLOADED_JOBS = 200;
/** Of the sandbox's lists, 100 runs each; it remembers 50,000. */
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
  readonly failure: string | null;
  readonly providerRunId: string | null;
}

/** A file as our rows know it. */
export interface AssetRow extends StoredObject {
  readonly jobId: string | null;
  readonly runId: string | null;
  readonly role: string;
}

export interface BillLine {
  readonly id: string;
  /** The provider that it was bought from. */
  readonly face: string;
  readonly status: string;
  readonly createdAt: string;
  readonly completedAt: string | null;
  /** The mark of the order in the prompt that the provider was sent; null when its list does not show the run. */
  readonly mark: string | null;
  /** The provider itself says that the same may be tried again. */
  readonly mayRetry: boolean;
  /** Of what the provider made, as its own address of it gives; null when it made nothing, or it was not fetched. */
  readonly sha256: string | null;
}

/** A variant that the API calls delivered, or that our runs call stored. */
export interface Delivery {
  readonly jobId: string;
  readonly variant: number;
  /** As the API tells it; null when it names none. */
  readonly file: StoredObject | null;
  /** What came when it was downloaded; null when it was not tried. */
  readonly downloaded: Pick<StoredObject, "sha256" | "bytes"> | { readonly error: string } | null;
}

/** All that the check looks at: the clients' log, the provider's bill, the store's files, the nemesis, and our rows. */
export interface Records {
  readonly orders: readonly Order[];
  readonly sendings: readonly Sending[];
  readonly struck: readonly Struck[];
  readonly jobs: readonly JobRow[];
  readonly runs: readonly RunRow[];
  readonly assets: readonly AssetRow[];
  readonly takeovers: readonly Takeover[];
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
  readonly objects: readonly StoredObject[];
  readonly deliveries: readonly Delivery[];
  readonly crashes: readonly string[];
  /** Of a run in which providers were in trouble; null: they were not. */
  readonly weather: Weather | null;
}

/** What was done to the providers, and what they counted themselves. */
export interface Weather {
  readonly passed: readonly Passed[];
  readonly creates: Creates;
}

/** Reads what is left after the calm. Nothing moves any more; the order of reading does not matter. */
export async function readRecords(
  cluster: Cluster,
  told: Pick<Records, "orders" | "sendings" | "struck"> & { readonly passed?: readonly Passed[] },
  halted: AbortSignal,
): Promise<Records> {
  const { db, sandbox, url, apiKey } = cluster;
  const rows = async <T extends object>(query: ReturnType<typeof sql>) =>
    (await db.execute(query)).rows as unknown as readonly T[];
  const jobs = await rows<JobRow>(sql`
    select id, idempotency_key as key, user_id as "user", kind, status, ended_at is not null as ended,
      failure_code as failure, failure_detail as detail, variants, credits::int from jobs`);
  const runs = await rows<RunRow>(sql`
    select id, job_id as "jobId", variant, status, failure_code as failure, provider_run_id as "providerRunId"
    from runs`);
  const { passed, ...said } = told;
  const drift = await ledgerDrift(db);
  const client = makeClient(url, apiKey, halted);
  const stored = new Set(runs.filter(({ status }) => status === "stored").map(placeOf));
  const deliveries: Delivery[] = [];
  const every = Math.ceil(jobs.length / DOWNLOADED_JOBS);
  await inTurns([...jobs.entries()], async ([index, job]) => {
    deliveries.push(...(await readDeliveries(client, job.id, stored, index % every === 0)));
  });
  return {
    ...said,
    jobs,
    runs,
    deliveries,
    drift: Math.max(drift.accounts, drift.credits),
    assets: await rows(sql`
      select job_id as "jobId", run_id as "runId", role, storage_key as key, encode(sha256, 'hex') as sha256, bytes::int from assets`),
    takeovers: await rows(sql`
      select job_id as "jobId", detail ->> 'worker' as worker, (extract(epoch from at) * 1000)::float8 as at
      from job_events where type = 'taken_over' and detail ->> 'worker' is not null`),
    entries: await rows(sql`select job_id as "jobId", user_id as "user", type, amount::int from credit_ledger`),
    balances: await rows(sql`select user_id as "user", (balance + allowance)::int as credits from accounts`),
    settlements: await rows(sql`
      select job_id as "jobId", charged::int, kept::int, refunded::int from settlements`),
    bill: await readBill(sandbox),
    objects: await readObjects(cluster.bucketFolder),
    crashes: cluster.crashes(),
    weather: passed ? { passed, creates: await readCreates(sandbox) } : null,
  };
}

export function placeOf({ jobId, variant }: { readonly jobId: string; readonly variant: number }): string {
  return `${jobId} ${variant}`;
}

/** What the API says is delivered, and what comes when that is downloaded. */
async function readDeliveries(
  client: Client,
  jobId: string,
  stored: ReadonlySet<string>,
  download: boolean,
): Promise<Delivery[]> {
  const job = await client.job(jobId);
  return Promise.all(
    job.results
      .filter(({ file, variant }) => file !== null || stored.has(placeOf({ jobId, variant })))
      .map(async ({ variant, file }): Promise<Delivery> => {
        if (!file) return { jobId, variant, file: null, downloaded: null };
        const { url, sha256, bytes } = file;
        // Behind the bucket's name: the address is in path style.
        const key = decodeURIComponent(new URL(url).pathname).split("/").slice(2).join("/");
        const downloaded = download ? await measure(client, url) : null;
        return { jobId, variant, file: { key, sha256, bytes }, downloaded };
      }),
  );
}

async function measure(client: Client, url: string): Promise<Delivery["downloaded"]> {
  const body = await client.download(url).catch((error: Error) => error);
  if (body instanceof Error) return { error: body.message };
  return { sha256: createHash("sha256").update(body).digest("hex"), bytes: body.length };
}

const bill = z.object({
  lines: z.array(
    z.object({
      id: z.string(),
      face: z.string(),
      status: z.string(),
      created_at: z.string(),
      completed_at: z.string().nullable(),
    }),
  ),
});
const page = z.object({
  next: z.int().nullable(),
  results: z.array(
    z.object({
      id: z.string(),
      input: z.record(z.string(), z.unknown()),
      error: z.string().nullish(),
      output: z.unknown(),
    }),
  ),
});

async function readBill(sandbox: string): Promise<BillLine[]> {
  const ask = async (path: string) =>
    (await fetch(`${sandbox}/_sandbox/${path}`, { signal: AbortSignal.timeout(ANSWER_MS) })).json();
  const { lines } = bill.parse(await ask("bill"));
  const shown = new Map<string, Pick<BillLine, "mark" | "mayRetry" | "sha256">>();
  const made = new Map<string, string>();
  const left = [...new Set(lines.map(({ face }) => `runs?face=${face}`))];
  for (let pages = 0; pages < MOST_PAGES; pages++) {
    const path = left.pop();
    if (path === undefined) break;
    const listed = page.parse(await ask(path));
    for (const { id, input, error, output } of listed.results) {
      const mayRetry = /please retry/i.test(error ?? "");
      shown.set(id, { mark: markIn(String(input["prompt"])), mayRetry, sha256: null });
      const [address] = z.array(z.string()).catch([]).parse([output].flat());
      if (address) made.set(id, address);
    }
    if (listed.next !== null) left.push(`${path.split("&")[0]}&before=${listed.next}`);
  }
  const every = Math.ceil(made.size / DOWNLOADED_JOBS);
  await inTurns(
    [...made].filter((_, index) => index % every === 0),
    async ([id, address]) => {
      const answer = await fetch(address, { signal: AbortSignal.timeout(ANSWER_MS) });
      // Some are torn on purpose, each time they are fetched: those were never delivered.
      const body = answer.ok ? await answer.arrayBuffer().catch(() => null) : null;
      const known = shown.get(id);
      if (body && known)
        shown.set(id, { ...known, sha256: createHash("sha256").update(Buffer.from(body)).digest("hex") });
    },
  );
  return lines.map(({ id, face, status, created_at, completed_at }) => ({
    id,
    face,
    status,
    createdAt: created_at,
    completedAt: completed_at,
    ...(shown.get(id) ?? { mark: null, mayRetry: false, sha256: null }),
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
