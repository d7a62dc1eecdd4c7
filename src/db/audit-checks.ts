/**
 * Whether the money and the purchases add up. Each check is one query for what must never be, written without the code
 * that wrote the rows, so that a fault there is found and not repeated.
 *
 * Entries have no counterpart on another account, so there is no "sum of each transaction is 0" to check. What stands
 * for it is that each job's entries add up to what was kept: charged = kept + refunded.
 *
 * All checks of an audit see one instant: without that a busy system would look wrong at every turn.
 */
export interface Check {
  readonly name: string;
  /** What must never be. */
  readonly never: string;
  /** Reads the relations of the audit's scope (`the_…`): everything, or some accounts and jobs. */
  readonly query: string;
  /** False: only the full audit can afford it; the recent one comes to the same by induction. */
  readonly recent?: false;
}

export const LIVE_JOB = "('pending', 'processing')";
export const LIVE_RUN = "('submitting', 'unknown', 'running', 'storing')";

/** What was charged for each job and given back, in the account that the entries are of. */
const MONEY = `(select job_id, app_id, user_id,
    coalesce(-sum(amount) filter (where type = 'charge'), 0) as charged,
    coalesce(sum(amount) filter (where type = 'refund'), 0) as refunded
  from the_job_entries group by job_id, app_id, user_id)`;
const DELIVERED = `(select job_id, count(distinct variant) as stored from the_runs where status = 'stored' group by job_id)`;

export const CHECKS: readonly Check[] = [
  {
    name: "balance",
    never: "a bucket of an account that is not the sum of its entries",
    recent: false,
    query: "select app_id, user_id, balance_drift, allowance_drift, missing_entries from ledger_drift",
  },
  {
    name: "entry_gap",
    never: "an account whose entries are not numbered 1, 2, 3 …",
    query: `select app_id, user_id, seq, previous as previous_seq from (
      select app_id, user_id, seq, coalesce(lag(seq) over (partition by part, app_id, user_id order by seq),
                                            case when start <= 1 then 0 end) as previous
      from the_entries) e
      where seq <> previous + 1`,
  },
  {
    name: "entry_chain",
    never: "an entry whose balance_after is not that of the entry before it plus its amount",
    query: `select app_id, user_id, seq, bucket, amount, balance_after, previous + amount as expected from (
      select e.*, coalesce(lag(balance_after) over (partition by part, app_id, user_id, bucket order by seq),
                           case when start <= 1 then 0 end) as previous
      from the_entries e) e
      where balance_after <> previous + amount`,
  },
  {
    name: "account_row",
    never: "an account that says something else than its last entries",
    query: `select a.app_id, a.user_id, a.entries, coalesce(l.seq, 0) as last_seq,
        a.balance, b.balance_after as last_balance, a.allowance, c.balance_after as last_allowance
      from the_accounts a
      left join lateral (select seq from credit_ledger e where e.app_id = a.app_id and e.user_id = a.user_id
        order by seq desc limit 1) l on true
      left join lateral (select balance_after from credit_ledger e where e.app_id = a.app_id and e.user_id = a.user_id
        and bucket = 'balance' and seq > l.seq - a.tail order by seq desc limit 1) b on true
      left join lateral (select balance_after from credit_ledger e where e.app_id = a.app_id and e.user_id = a.user_id
        and bucket = 'allowance' and seq > l.seq - a.tail order by seq desc limit 1) c on true
      where a.entries <> coalesce(l.seq, 0)
        or a.balance <> coalesce(b.balance_after, case when coalesce(l.seq, 0) <= a.tail then 0 end)
        or a.allowance <> coalesce(c.balance_after, case when coalesce(l.seq, 0) <= a.tail then 0 end)`,
  },
  {
    name: "negative",
    never: "a bucket below zero, now or after any entry",
    query: `select app_id, user_id, null::bigint as seq, least(balance, allowance) as credits
      from the_accounts where balance < 0 or allowance < 0
      union select app_id, user_id, seq, balance_after from the_entries where balance_after < 0`,
  },
  {
    name: "charge",
    never: "a job that was not charged exactly its price, to its own user",
    query: `select j.id as job_id, j.app_id, j.user_id, j.credits as price, coalesce(m.charged, 0) as charged
      from the_jobs j left join ${MONEY} m on m.job_id = j.id and m.app_id = j.app_id and m.user_id = j.user_id
      where coalesce(m.charged, 0) <> j.credits`,
  },
  {
    name: "strange_entry",
    never: "an entry about a job in an account that is not its user's",
    query: `select j.id as job_id, e.app_id, e.user_id, e.seq, e.type, e.amount
      from the_jobs j join the_job_entries e on e.job_id = j.id
      where (e.app_id, e.user_id) <> (j.app_id, j.user_id)`,
  },
  {
    name: "refund",
    never: "a job of which something else was given back than its settlement says; before the settlement nothing",
    query: `select j.id as job_id, j.app_id, j.user_id, coalesce(s.refunded, 0) as settled,
        coalesce(m.refunded, 0) as refunded
      from the_jobs j left join the_settlements s on s.job_id = j.id
      left join ${MONEY} m on m.job_id = j.id and m.app_id = j.app_id and m.user_id = j.user_id
      where coalesce(s.refunded, 0) <> coalesce(m.refunded, 0)`,
  },
  {
    name: "over_refund",
    never: "more given back to a bucket than was charged to it, for a job of ours or of a product's own",
    query: `select job_id, bucket, coalesce(-sum(amount) filter (where type = 'charge'), 0) as charged,
        sum(amount) filter (where type = 'refund') as refunded
      from the_job_entries group by job_id, bucket having sum(amount) > 0`,
  },
  {
    name: "job_sum",
    never: "a settled job whose entries do not add up to what was kept",
    query: `select s.job_id, s.charged, s.kept, s.refunded, coalesce(m.kept, 0) as taken
      from the_settlements s left join (select job_id, -sum(amount) as kept from the_job_entries group by job_id) m using (job_id)
      where s.kept <> coalesce(m.kept, 0) or s.charged <> s.kept + s.refunded`,
  },
  {
    name: "settled",
    never: "a job that ended without a settlement, or was settled without having ended",
    query: `select j.id as job_id, j.status, j.ended_at, s.kept, s.refunded
      from the_jobs j left join the_settlements s on s.job_id = j.id
      where (j.status not in ${LIVE_JOB}) <> (s.job_id is not null) or (j.ended_at is not null) <> (s.job_id is not null)`,
  },
  {
    name: "share",
    never: "a settlement that keeps anything but the delivered share of the price, rounded down",
    query: `select * from (
      select j.id as job_id, j.status, j.credits as price, j.variants, coalesce(d.stored, 0) as stored, s.charged, s.kept,
        case when j.status = 'completed' then j.credits * coalesce(d.stored, 0) / j.variants else 0 end as share
      from the_jobs j join the_settlements s on s.job_id = j.id left join ${DELIVERED} d on d.job_id = j.id) j
      where charged <> price or kept <> share`,
  },
  {
    name: "verdict",
    never: "a completed job that delivered too little, or another end of one that delivered enough",
    query: `select j.id as job_id, j.status, j.min_success, coalesce(d.stored, 0) as stored
      from the_jobs j left join ${DELIVERED} d on d.job_id = j.id
      where j.status not in ${LIVE_JOB} and (j.status = 'completed') <> (coalesce(d.stored, 0) >= j.min_success)`,
  },
  {
    name: "output",
    never: "a stored run without each of its output files, or an output file of a run that is not stored",
    query: `select r.job_id, r.id as run_id, r.status, jsonb_array_length(r.outputs) as outputs, coalesce(a.files, 0) as files
      from the_runs r left join (select run_id, job_id, count(*) as files from the_outputs group by run_id, job_id) a
        on a.run_id = r.id and a.job_id = r.job_id
      where coalesce(a.files, 0) <> case when r.status = 'stored' then greatest(jsonb_array_length(r.outputs), 1) else 0 end`,
  },
  {
    name: "bought_twice",
    never: "two live runs, or two stored ones, of one variant",
    query: `select job_id, variant, count(*) filter (where status in ${LIVE_RUN}) as live,
        count(*) filter (where status = 'stored') as stored, array_agg(id order by attempt) as run_ids
      from the_runs group by job_id, variant
      having count(*) filter (where status in ${LIVE_RUN}) > 1 or count(*) filter (where status = 'stored') > 1`,
  },
  {
    name: "bought_too_often",
    never: "a variant bought more often than allowed, or a job that bought more of what was presumed lost than allowed",
    query: `select j.id as job_id, j.max_attempts, r.attempts, j.max_rebuys, r.rebuys
      from the_jobs j join (
        select job_id, max(attempt) as attempts, count(*) filter (where after_loss) as rebuys from (
          select job_id, attempt, lag(status = 'failed' and failure_code = 'lost')
            over (partition by job_id, variant order by attempt) as after_loss
          from the_runs) r group by job_id) r on r.job_id = j.id
      where r.attempts > j.max_attempts or r.rebuys > j.max_rebuys`,
  },
  {
    name: "shared_run",
    never: "a run of a provider that two runs of ours claim",
    query: `select (array_agg(job_id order by id))[1] as job_id, provider, provider_run_id, array_agg(id order by id) as run_ids
      from the_namesakes group by provider, provider_run_id having count(*) > 1`,
  },
  {
    name: "nameless_run",
    never: "a run that the provider has accepted, without the provider's id",
    query: `select job_id, id as run_id, status from the_runs
      where status in ('running', 'storing', 'stored') and coalesce(provider_run_id, '') = ''`,
  },
  {
    name: "run_after_end",
    never: "a live run of a job that has ended",
    query: `select r.job_id, r.id as run_id, j.status as job_status, r.status
      from the_jobs j join the_runs r on r.job_id = j.id
      where j.status not in ${LIVE_JOB} and r.status in ${LIVE_RUN}`,
  },
  {
    name: "run_unwatched",
    never: "a run that is out and that nobody has looked at for 5 minutes, or never will",
    query: `select job_id, id as run_id, status, next_look_at, looks from the_runs
      where (status in ('running', 'unknown') and next_look_at is null) or next_look_at < now() - interval '5 minutes'`,
  },
  {
    // The watch gives a run up an hour after its expiry, whatever the provider says or does not say.
    name: "run_out_too_long",
    never: "a run that is running or unknown 2 hours after it had to be over",
    query: `select job_id, id as run_id, status, provider_run_id, sent_at, expires_at from the_runs
      where status in ('running', 'unknown') and expires_at < now() - interval '2 hours'`,
  },
  {
    name: "job_overdue",
    // A lapsed lease alone is none: its worker may have died when all that was left to do was to wait for the provider.
    // Nor is due_at enough: each round of a sweep moves it, whether or not anybody comes. What only a worker or the
    // provider can write is the next fact.
    never:
      "a live job that was due 5 minutes ago, or has had work for 15, and nobody does it; or that nothing will ever move",
    query: `select id as job_id, status, due_at, lease_until from the_jobs j
      where status in ${LIVE_JOB} and (
        -- What nobody has begun yet may wait in a backlog; past its deadline that ends.
        (due_at < now() - interval '5 minutes' and (epoch > 0 or deadline_at < now() - interval '5 minutes')
          and coalesce(lease_until < now() - interval '5 minutes', true))
        or (epoch > 0 and coalesce(lease_until < now() - interval '5 minutes', true)
          and not exists (select from the_runs r where r.job_id = j.id and (r.next_look_at is not null
            or r.not_before > now() - interval '5 minutes'))
          and (select at from job_events e where e.job_id = j.id order by version desc limit 1) < now() - interval '15 minutes')
        or (due_at is null and coalesce(lease_until < now() - interval '5 minutes', true)
          and not exists (select from the_runs r where r.job_id = j.id and r.status in ${LIVE_RUN})))`,
  },
  {
    // After the last run's expiry: an hour until it is given up, or 60 attempts a minute apart to store what it made.
    name: "job_endless",
    never: "a job that is live 6 hours after its deadline and the expiry of its last run",
    query: `select j.id as job_id, j.status, j.deadline_at, r.expires_at
      from the_jobs j left join (select job_id, max(expires_at) as expires_at from the_runs group by job_id) r on r.job_id = j.id
      where j.status in ${LIVE_JOB} and greatest(j.deadline_at, r.expires_at) < now() - interval '6 hours'`,
  },
];

/** The scope of the full audit. */
export const EVERYTHING = `
  the_accounts as not materialized (select *, 9e18::bigint as tail from accounts),
  the_entries as not materialized (select *, 0 as part, 1 as start from credit_ledger),
  the_jobs as not materialized (select * from jobs),
  the_job_entries as not materialized (
    select * from credit_ledger where job_id is not null and type in ('charge', 'refund')),
  the_settlements as not materialized (select * from settlements),
  the_runs as not materialized (select * from runs),
  the_outputs as not materialized (select * from assets where role = 'output'),
  the_namesakes as not materialized (select * from runs where provider_run_id is not null)`;

/**
 * How far before the first new entry of an account, and before its last, the one before it in the same bucket is looked
 * for. A bucket that rested longer is left to the full audit: its last entry may be anywhere.
 */
const ENTRIES_BEFORE = 20;
const ACCOUNT_TAIL = 100;

/** The scope of a recent one: $1–$4 stretches of accounts' entries, $5 jobs. Every row by its index, one subject after the other: `offset 0` keeps the planner from reading a table instead. */
export const SUBJECTS = `
  stretches as materialized (
    select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
      with ordinality as s(app_id, user_id, first_seq, last_seq, part)),
  the_accounts as materialized (
    select a.*, ${ACCOUNT_TAIL}::bigint as tail from (select distinct app_id, user_id from stretches) s
    cross join lateral (select * from accounts a where a.app_id = s.app_id and a.user_id = s.user_id offset 0) a),
  the_entries as materialized (
    select e.*, s.part, s.first_seq - ${ENTRIES_BEFORE} as start from stretches s cross join lateral (
      select * from credit_ledger e where e.app_id = s.app_id and e.user_id = s.user_id
        and e.seq between s.first_seq - ${ENTRIES_BEFORE} and s.last_seq offset 0) e),
  ids as materialized (select distinct id from unnest($5::uuid[]) as id),
  the_jobs as materialized (
    select j.* from ids cross join lateral (select * from jobs where jobs.id = ids.id offset 0) j),
  the_job_entries as materialized (
    select e.* from ids cross join lateral (
      select * from credit_ledger where job_id = ids.id and type in ('charge', 'refund') offset 0) e),
  the_settlements as materialized (
    select s.* from ids cross join lateral (select * from settlements where job_id = ids.id offset 0) s),
  the_runs as materialized (
    select r.* from ids cross join lateral (select * from runs where job_id = ids.id offset 0) r),
  the_outputs as materialized (
    select a.* from the_runs r cross join lateral (
      select * from assets where run_id = r.id and role = 'output' offset 0) a),
  the_namesakes as materialized (
    select distinct o.id, o.job_id, o.provider, o.provider_run_id from the_runs r cross join lateral (
      select * from runs where provider = r.provider and provider_run_id = r.provider_run_id offset 0) o)`;
