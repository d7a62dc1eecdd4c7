import { drizzle } from "drizzle-orm/node-postgres";
import pg from "pg";
import { CHECKS, type Check, EVERYTHING, LIVE_JOB, LIVE_RUN, SUBJECTS } from "./audit-checks.ts";
import type { Db } from "./client.ts";
import { pendingMigrations } from "./migrate.ts";

export type Finding = Readonly<Record<string, unknown>>;

export interface Checked extends Pick<Check, "name" | "never"> {
  readonly count: number;
  /** At most 20, each with the ids and the numbers that do not fit. */
  readonly sample: readonly Finding[];
}

export interface Audit {
  readonly checks: readonly Checked[];
  readonly read: Readonly<Record<"accounts" | "entries" | "jobs" | "runs", number>>;
  readonly seconds: number;
}

const SAMPLE = 20;

type Result = Pick<Audit, "checks" | "read">;

async function ask(
  client: pg.ClientBase,
  checks: readonly Check[],
  scope: string,
  values: unknown[],
  stopped?: AbortSignal,
) {
  const checked: Checked[] = [];
  for (const { name, never, query } of checks) {
    stopped?.throwIfAborted();
    const { rows } = await client.query<Pick<Checked, "count" | "sample">>(
      `with ${scope}, found as materialized (select distinct * from (${query}) q)
       select count(*)::float8 as count, coalesce((select jsonb_agg(s) from
         (select * from found order by 1, 2, 3 limit ${SAMPLE}) s), '[]') as sample from found`,
      values,
    );
    checked.push({ name, never, count: rows[0]?.count ?? 0, sample: rows[0]?.sample ?? [] });
  }
  const { rows } = await client.query<Audit["read"]>(
    `with ${scope} select
       (select count(*) from the_accounts)::float8 as accounts, (select count(*) from the_entries)::float8 as entries,
       (select count(*) from the_jobs)::float8 as jobs, (select count(*) from the_runs)::float8 as runs`,
    values,
  );
  const result: Result = { checks: checked, read: rows[0] ?? { accounts: 0, entries: 0, jobs: 0, runs: 0 } };
  return result;
}

/** One instant for all queries, and no way to write. */
const SNAPSHOT = "begin isolation level repeatable read read only";

/** The audit could not be made; what to do about it is said in one line. */
export class AuditImpossible extends Error {
  override readonly name = "AuditImpossible";
}

/**
 * Everything, on a connection of its own: it reads whole tables, so each query may take 10 minutes. It only reads, and
 * may be pointed at a standby.
 */
export async function auditAll(databaseUrl: string): Promise<Audit> {
  const { host, pathname } = new URL(databaseUrl);
  const client = new pg.Client({
    connectionString: databaseUrl,
    connectionTimeoutMillis: 10_000,
    statement_timeout: 600_000,
    application_name: "darkroom audit",
  });
  client.on("error", () => {}); // Said by the query that fails.
  const started = performance.now();
  try {
    await client.connect().catch((error: NodeJS.ErrnoException) => {
      throw new AuditImpossible(
        `the database ${host}${pathname} cannot be reached (${error.message || error.code}): check DATABASE_URL, and that Postgres is running`,
      );
    });
    const pending = await pendingMigrations(drizzle({ client }));
    if (pending.length > 0)
      throw new AuditImpossible(`the database lacks ${pending.length} migrations: run \`npm run migrate\` first`);
    await client.query(SNAPSHOT);
    await client.query("set local work_mem = '64MB'; set local enable_seqscan = on");
    const result = await ask(client, CHECKS, EVERYTHING, []);
    return { ...result, seconds: (performance.now() - started) / 1_000 };
  } catch (error) {
    if (error instanceof AuditImpossible || !(error instanceof pg.DatabaseError || isCut(error))) throw error;
    throw new AuditImpossible(
      `the audit could not be finished (${error.message}): run it again when the database is calm`,
    );
  } finally {
    await client.end().catch(() => {});
  }
}

function isCut(error: unknown): error is Error {
  return error instanceof Error && /Connection terminated|ECONN|EPIPE/.test(error.message);
}

/** Entries and ended jobs that one round reads at most, and live jobs and runs that it looks at, the oldest first. */
const BATCH = 2_000;
const MOST_LIVE = 1_000;

export interface RoundOptions {
  /** No other round of the fleet begins sooner. */
  readonly pauseMs: number;
  /**
   * What is younger is left to the next round. Rows become visible in another order than their ids and times are given
   * in; after this long nothing older can appear any more, so that no row is passed over.
   */
  readonly settleSeconds?: number;
  readonly stopped?: AbortSignal;
}

export interface Round extends Audit {
  /** What the round before did not find. */
  readonly fresh: readonly Checked[];
  /** More is waiting than one round reads. */
  readonly more: boolean;
}

interface Turn {
  readonly round: string;
  readonly entry_id: string;
  readonly ended_at: string;
  readonly ended_id: string;
  readonly findings: Readonly<Record<string, Pick<Checked, "count" | "sample">>>;
}

/**
 * A round of the continuous audit, if it is nobody else's turn: what was entered and what ended since the round before,
 * what is live, and what did not fit the last time. What it costs does not depend on how much there is. Null: another
 * worker has the turn, or the pause is not over.
 */
export async function auditRecent(db: Db, options: RoundOptions): Promise<Round | null> {
  const started = performance.now();
  const client = await db.$client.connect();
  let trouble: Error | undefined;
  try {
    // For 5 minutes: by then it is over, or its worker is gone.
    const claimed = await client.query<Turn>(
      `update audit_state set round = round + 1, next_at = now() + interval '5 minutes' where next_at <= now()
       returning round, entry_id, ended_at::text, ended_id, findings`,
    );
    const turn = claimed.rows[0];
    if (!turn) return null;
    const { checks, read, more } = await takeTurn(client, turn, options).catch(async (error: unknown) => {
      await client.query("rollback");
      await client.query(NEXT, [turn.round, options.pauseMs]);
      throw error;
    });
    const fresh = checks.flatMap((check) => {
      const known = new Set(turn.findings[check.name]?.sample.map(identity));
      const sample = check.sample.filter((finding) => !known.has(identity(finding)));
      return sample.length > 0 ? [{ ...check, sample }] : [];
    });
    return { checks, read, fresh, more, seconds: (performance.now() - started) / 1_000 };
  } catch (error) {
    trouble = error as Error; // Its turn lapses by itself.
    throw error;
  } finally {
    client.release(trouble);
  }
}

const NEXT = "update audit_state set next_at = now() + make_interval(secs => $2 / 1000.0) where round = $1";

async function takeTurn(client: pg.ClientBase, turn: Turn, { pauseMs, settleSeconds = 60, stopped }: RoundOptions) {
  await client.query(SNAPSHOT);
  await client.query("set local statement_timeout = '3s'"); // A worker that drains waits for no more than one.
  const { values, more, upTo } = await subjects(client, turn, settleSeconds);
  const checks = CHECKS.filter((check) => check.recent !== false);
  const result = await ask(client, checks, SUBJECTS, values, stopped);
  await client.query("commit");
  const found = result.checks.filter((check) => check.count > 0);
  const findings = Object.fromEntries(found.map(({ name, count, sample }) => [name, { count, sample }]));
  await client.query(
    `update audit_state set next_at = now() + make_interval(secs => $2 / 1000.0), entry_id = $3, ended_at = $4,
       ended_id = $5, findings = $6, completed_at = case when $7 then completed_at else now() end
     where round = $1`,
    [turn.round, more ? 0 : pauseMs, ...upTo, JSON.stringify(findings), more],
  );
  return { ...result, more };
}

const IDS = ["app_id", "user_id", "seq", "job_id", "run_id", "variant", "bucket"];
const identity = (finding: Finding) => JSON.stringify(IDS.map((name) => finding[name] ?? null));

/** What a round looks at, and up to where. */
async function subjects(client: pg.ClientBase, turn: Turn, settleSeconds: number) {
  const entries = await client.query(
    `with batch as materialized (
       select id, app_id, user_id, seq, job_id, created_at from credit_ledger where id > $1 order by id limit ${BATCH}),
     settled as materialized (
       select * from batch where id < coalesce(
         (select min(id) from batch where created_at > now() - make_interval(secs => $2)), 9e18::bigint))
     select (select max(id) from settled)::text as up_to, (select count(*) from settled)::int as count,
       (select jsonb_agg(distinct job_id) from settled where job_id is not null) as jobs,
       (select jsonb_agg(s) from (select app_id, user_id, min(seq) as first, max(seq) as last
         from settled group by app_id, user_id) s) as stretches`,
    [turn.entry_id, settleSeconds],
  );
  const ended = await client.query<{ id: string; ended_at: string }>(
    `select id, ended_at::text from jobs
     where ended_at is not null and (ended_at, id) > ($1::timestamptz, $2::uuid) and ended_at <= now() - make_interval(secs => $3)
     order by jobs.ended_at, id limit ${BATCH}`,
    [turn.ended_at, turn.ended_id, settleSeconds],
  );
  const live = await client.query<{ id: string }>(
    `(select id from jobs where status in ${LIVE_JOB} order by due_at limit ${MOST_LIVE})
     union (select id from jobs where status in ${LIVE_JOB} and due_at is null limit ${MOST_LIVE})
     union (select job_id from runs where status in ${LIVE_RUN} order by job_id limit ${MOST_LIVE})
     union (select job_id from runs where next_look_at is not null order by next_look_at limit ${MOST_LIVE})`,
  );
  const suspects = Object.values(turn.findings).flatMap((finding) => [...finding.sample]);
  const row = entries.rows[0];
  const stretches: Finding[] = [
    ...(row.stretches ?? []),
    ...suspects
      .filter((finding) => finding["user_id"] !== undefined)
      .map((finding) => ({ ...finding, first: finding["seq"] ?? 0, last: finding["seq"] ?? 0 })),
  ];
  const jobIds = suspects.flatMap((finding) => (finding["job_id"] ? [finding["job_id"]] : []));
  const ids = [...(row.jobs ?? []), ...ended.rows.map(({ id }) => id), ...live.rows.map(({ id }) => id), ...jobIds];
  const lastEnded = ended.rows.at(-1);
  return {
    values: [...["app_id", "user_id", "first", "last"].map((name) => stretches.map((each) => each[name])), ids],
    more: row.count === BATCH || ended.rows.length === BATCH,
    upTo: [row.up_to ?? turn.entry_id, lastEnded?.ended_at ?? turn.ended_at, lastEnded?.id ?? turn.ended_id],
  };
}

/** What the last round left, whichever worker made it. */
export async function auditState(
  db: Db,
): Promise<{ completedAt: Date | null; counts: Readonly<Record<string, number>> }> {
  const { rows } = await db.$client.query<{ completed_at: Date | null; findings: Turn["findings"] }>(
    "select completed_at, findings from audit_state",
  );
  const findings = rows[0]?.findings ?? {};
  return {
    completedAt: rows[0]?.completed_at ?? null,
    counts: Object.fromEntries(CHECKS.map(({ name }) => [name, findings[name]?.count ?? 0])),
  };
}
