import pg from "pg";

/** A line of a provider's invoice: its id of a run, and what it took for it, in millionths of a dollar. */
export interface InvoiceLine {
  readonly id: string;
  readonly microUsd: number;
}

export interface ReconcileOptions {
  /** The account, as runs record it. */
  readonly provider: string;
  /** Of runs sent in that time each one that cost us something is to be on the invoice. Null: from the first to the last run of ours that it names. */
  readonly from: Date | null;
  readonly to: Date | null;
  /** Amounts may differ by this share of what the invoice says (0.01 is 1 %), or by 100 millionths of a dollar. */
  readonly tolerance: number;
}

/** `microUsd`: what it is about, all in all. `sample`: at most 1,000, the most expensive first. */
export interface Differences<T> {
  readonly count: number;
  readonly microUsd: number;
  readonly sample: readonly T[];
}

export interface Reconciliation {
  readonly provider: string;
  readonly from: string | null;
  readonly to: string | null;
  readonly invoice: { readonly ids: number; readonly microUsd: number };
  /** Of the invoice's ids, those that are runs of ours. */
  readonly known: { readonly runs: number; readonly microUsd: number };
  /** On the invoice, and no run of ours: bought by nobody we know. */
  readonly unknown: Differences<{ readonly id: string; readonly microUsd: number }>;
  /** Runs of ours that cost something, and are not on the invoice. */
  readonly missing: Differences<{
    readonly runId: string;
    readonly jobId: string;
    readonly id: string;
    readonly microUsd: number;
  }>;
  /** On both, with another amount; ours null: nobody could tell. `microUsd`: theirs less ours. */
  readonly differing: Differences<{
    readonly runId: string;
    readonly jobId: string;
    readonly id: string;
    readonly ours: number | null;
    readonly theirs: number;
  }>;
  /** Runs on the invoice that have not ended here: they are compared when they have. */
  readonly open: number;
}

const SAMPLE = 1_000;
/** Lines written by one statement. */
const BATCH = 1_000;
/** Rounding, in millionths of a dollar. */
const LEAST_MICRO_USD = 100;
/** What has succeeded has its cost already. */
const UNDECIDED = "('submitting', 'unknown', 'running')";

/** No run was ever bought from an account of that name; the message has the names of those that were. */
export class UnknownAccount extends Error {
  override readonly name = "UnknownAccount";
}

/**
 * Compares an invoice with our runs, both ways. The lines go into a temporary table as they come, so that neither side is
 * ever held in memory; nothing that stays is written. Each query may take 10 minutes.
 */
export async function reconcileInvoice(
  databaseUrl: string,
  lines: AsyncIterable<InvoiceLine>,
  options: ReconcileOptions,
): Promise<Reconciliation> {
  const client = new pg.Client({
    connectionString: databaseUrl,
    connectionTimeoutMillis: 10_000,
    statement_timeout: 600_000,
    application_name: "darkroom reconcile",
  });
  client.on("error", () => {}); // Said by the query that fails.
  try {
    await client.connect();
    await checkAccount(client, options.provider);
    await client.query("create temporary table invoice (id text primary key, micro_usd bigint not null)");
    let batch: InvoiceLine[] = [];
    for await (const line of lines) {
      batch.push(line);
      if (batch.length < BATCH) continue;
      await write(client, batch);
      batch = [];
    }
    await write(client, batch);
    await client.query("analyze invoice");
    return await compare(client, options);
  } finally {
    await client.end().catch(() => {});
  }
}

/** By the index alone, one step for each account. */
async function checkAccount(client: pg.Client, provider: string): Promise<void> {
  const { rows } = await client.query<{ provider: string }>(`
    with recursive accounts as (
      (select provider from runs where provider_run_id is not null order by provider limit 1)
      union all
      select (select r.provider from runs r where r.provider_run_id is not null and r.provider > a.provider
              order by r.provider limit 1)
      from accounts a where a.provider is not null)
    select provider from accounts where provider is not null`);
  const names = rows.map((row) => row.provider);
  if (names.includes(provider)) return;
  throw new UnknownAccount(
    `no run was ever bought from "${provider}": one of ${names.join(", ") || "none yet, so there is nothing to compare"}`,
  );
}

/** One run may have several lines, as for time and for storage. */
async function write(client: pg.Client, lines: readonly InvoiceLine[]): Promise<void> {
  if (lines.length === 0) return;
  await client.query(
    `insert into invoice (id, micro_usd)
     select id, sum("microUsd") from jsonb_to_recordset($1::text::jsonb) as line(id text, "microUsd" bigint) group by id
     on conflict (id) do update set micro_usd = invoice.micro_usd + excluded.micro_usd`,
    [JSON.stringify(lines)],
  );
}

async function compare(
  client: pg.Client,
  { provider, from, to, tolerance }: ReconcileOptions,
): Promise<Reconciliation> {
  // One instant for all that is read.
  await client.query("begin isolation level repeatable read");
  const one = async <T extends pg.QueryResultRow>(query: string, values: unknown[]): Promise<T> => {
    const { rows } = await client.query<T>(query, values);
    const [row] = rows;
    if (!row) throw new Error("a sum had no row");
    return row;
  };
  const span = await one<{ from: Date | null; to: Date | null; runs: number; microUsd: number; open: number }>(
    `select coalesce($2, min(r.sent_at)) as from, coalesce($3, max(r.sent_at)) as to, count(*)::float8 as runs,
       coalesce(sum(r.cost_micro_usd), 0)::float8 as "microUsd",
       (count(*) filter (where r.status in ${UNDECIDED}))::float8 as open
     from invoice i join runs r on r.provider = $1 and r.provider_run_id = i.id`,
    [provider, from, to],
  );
  const invoice = await one<{ ids: number; microUsd: number }>(
    `select count(*)::float8 as ids, coalesce(sum(micro_usd), 0)::float8 as "microUsd" from invoice`,
    [],
  );
  const unknown = await differences<Reconciliation["unknown"]["sample"][number]>(
    client,
    `select i.id, i.micro_usd::float8 as "microUsd", i.micro_usd::float8 as difference from invoice i
     where not exists (select from runs r where r.provider = $1 and r.provider_run_id = i.id)`,
    [provider],
  );
  const missing = await differences<Reconciliation["missing"]["sample"][number]>(
    client,
    `select r.id as "runId", r.job_id as "jobId", r.provider_run_id as id, r.cost_micro_usd::float8 as "microUsd",
       r.cost_micro_usd::float8 as difference
     from runs r where r.provider = $1 and r.sent_at >= $2 and r.sent_at <= $3 and r.cost_micro_usd > 0
       and not exists (select from invoice i where i.id = r.provider_run_id)`,
    [provider, span.from, span.to],
  );
  const differing = await differences<Reconciliation["differing"]["sample"][number]>(
    client,
    `select r.id as "runId", r.job_id as "jobId", i.id, r.cost_micro_usd::float8 as ours, i.micro_usd::float8 as theirs,
       (i.micro_usd - coalesce(r.cost_micro_usd, 0))::float8 as difference
     from invoice i join runs r on r.provider = $1 and r.provider_run_id = i.id
     where r.status not in ${UNDECIDED}
       and abs(i.micro_usd - coalesce(r.cost_micro_usd, 0)) > greatest(abs(i.micro_usd) * $2::float8, ${LEAST_MICRO_USD})`,
    [provider, tolerance],
  );
  await client.query("rollback");
  const { runs, microUsd, open } = span;
  const ends = { from: span.from?.toISOString() ?? null, to: span.to?.toISOString() ?? null };
  return { provider, ...ends, invoice, known: { runs, microUsd }, unknown, missing, differing, open };
}

async function differences<T>(client: pg.Client, query: string, values: unknown[]): Promise<Differences<T>> {
  const { rows } = await client.query<Differences<T>>(
    `with found as materialized (${query})
     select (select count(*) from found)::float8 as count,
       (select coalesce(sum(difference), 0) from found)::float8 as "microUsd",
       coalesce((select jsonb_agg(to_jsonb(s) - 'difference') from
         (select * from found order by abs(difference) desc, id limit ${SAMPLE}) s), '[]') as sample`,
    values,
  );
  return rows[0] ?? { count: 0, microUsd: 0, sample: [] };
}
