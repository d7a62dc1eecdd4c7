-- What each user of each app can spend, in two buckets: the daily allowance, which is spent first and lapses with the
-- day (UTC), and the balance. No row can go below zero, and each bucket is always the sum of its entries.
create table accounts (
  app_id text not null references apps,
  user_id text not null check (length(user_id) between 1 and 200),
  balance bigint not null default 0 check (balance >= 0),
  allowance bigint not null default 0 check (allowance >= 0),
  -- The day for which the allowance was granted.
  allowance_on date,
  -- How many entries the account has; the number of its last one.
  entries bigint not null default 0,
  created_at timestamptz not null default now(),
  primary key (app_id, user_id)
) with (fillfactor = 70);

-- The credit ledger. Entries are only ever added; a correction is another entry.
create table credit_ledger (
  id bigint generated always as identity primary key,
  app_id text not null,
  user_id text not null,
  -- 1, 2, 3 … within the account: a missing or altered entry can be located.
  seq bigint not null,
  type text not null check (type in ('grant', 'charge', 'refund', 'adjustment', 'expiry')),
  bucket text not null check (bucket in ('balance', 'allowance')),
  amount bigint not null check (amount <> 0),
  -- Of the bucket, with this entry.
  balance_after bigint not null check (balance_after >= 0),
  -- The reason. Not a foreign key: charges may be made for work that is not a job of this deployment.
  job_id uuid,
  -- Decided by whoever grants: the same grant is never made twice.
  key text check (length(key) between 1 and 255),
  description text not null check (length(description) <= 500),
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  foreign key (app_id, user_id) references accounts,
  unique (app_id, user_id, seq)
);
-- One charge and one refund per job and bucket: a second one cannot be written, whatever the code does.
create unique index credit_ledger_job on credit_ledger (job_id, type, bucket)
  where job_id is not null and type in ('charge', 'refund');
create unique index credit_ledger_key on credit_ledger (app_id, user_id, key) where key is not null;

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only: add a correcting row instead', tg_table_name using errcode = 'restrict_violation';
end $$;
create trigger credit_ledger_append_only before update or delete or truncate on credit_ledger
  for each statement execute function refuse_change();

-- The signup grant is the database's own doing: whoever creates an account, and however, the user gets it once.
create function grant_at_signup() returns trigger language plpgsql as $$
declare granted bigint;
begin
  select signup_grant into strict granted from apps where id = new.app_id;
  if tg_when = 'BEFORE' then
    new.balance := granted;
    new.entries := case when granted > 0 then 1 else 0 end;
  elsif granted > 0 then
    insert into credit_ledger (app_id, user_id, seq, type, bucket, amount, balance_after, description)
    values (new.app_id, new.user_id, 1, 'grant', 'balance', granted, granted, 'signup grant');
  end if;
  return new;
end $$;
create trigger accounts_signup_balance before insert on accounts for each row execute function grant_at_signup();
create trigger accounts_signup_entry after insert on accounts for each row execute function grant_at_signup();

-- Writes an entry and moves the bucket with it. The only place that does either; the caller holds the row's lock.
create function post_entry(
  p_app text, p_user text, p_type text, p_bucket text, p_amount bigint, p_job uuid, p_key text,
  p_description text, p_metadata jsonb
) returns accounts language plpgsql as $$
declare account accounts;
begin
  update accounts set
    balance = balance + case when p_bucket = 'balance' then p_amount else 0 end,
    allowance = allowance + case when p_bucket = 'allowance' then p_amount else 0 end,
    entries = entries + 1
  where app_id = p_app and user_id = p_user
  returning * into strict account;
  insert into credit_ledger (app_id, user_id, seq, type, bucket, amount, balance_after, job_id, key, description, metadata)
  values (p_app, p_user, account.entries, p_type, p_bucket, p_amount,
          case when p_bucket = 'balance' then account.balance else account.allowance end,
          p_job, p_key, p_description, p_metadata);
  return account;
end $$;

-- Locks the account, creating it for a new user, with today's allowance in place.
create function lock_account(p_app text, p_user text) returns accounts language plpgsql as $$
declare
  account accounts;
  daily bigint;
  today date := (now() at time zone 'utc')::date;
begin
  select * into account from accounts where app_id = p_app and user_id = p_user for update;
  if not found then
    insert into accounts (app_id, user_id) values (p_app, p_user) on conflict do nothing;
    select * into strict account from accounts where app_id = p_app and user_id = p_user for update;
  end if;
  if account.allowance_on is distinct from today then
    select daily_allowance into strict daily from apps where id = p_app;
    if daily > 0 or account.allowance > 0 then
      if account.allowance > 0 then
        perform post_entry(p_app, p_user, 'expiry', 'allowance', -account.allowance, null, null, 'allowance lapsed', '{}');
      end if;
      if daily > 0 then
        perform post_entry(p_app, p_user, 'grant', 'allowance', daily, null, null, 'daily allowance', '{}');
      end if;
      update accounts set allowance_on = today where app_id = p_app and user_id = p_user returning * into account;
    end if;
  end if;
  return account;
end $$;

-- Takes credits from a locked account: the allowance first, then the balance. The caller has checked that they suffice;
-- if not, the CHECK on the account says no and nothing is written. Returns the account as it is then.
create function debit(account accounts, p_amount bigint, p_job uuid, p_description text, p_metadata jsonb)
returns accounts language plpgsql as $$
declare from_allowance bigint := least(account.allowance, p_amount);
begin
  if from_allowance > 0 then
    account := post_entry(account.app_id, account.user_id, 'charge', 'allowance', -from_allowance, p_job, null, p_description, p_metadata);
  end if;
  if p_amount > from_allowance then
    account := post_entry(account.app_id, account.user_id, 'charge', 'balance', from_allowance - p_amount, p_job, null, p_description, p_metadata);
  end if;
  return account;
end $$;

-- Gives back up to p_amount of what was charged for a job, to the buckets it came from, the balance first.
-- Never more than was charged and not yet given back. Returns what was given back. An allowance of an earlier day has
-- lapsed with its day: it is given back and lapses at once, whoever touched the account in between.
create function give_back(p_app text, p_user text, p_job uuid, p_amount bigint, p_description text, p_metadata jsonb)
returns bigint language plpgsql as $$
declare
  given bigint := 0;
  share bigint;
  charge record;
begin
  perform lock_account(p_app, p_user);
  for charge in
    select bucket, -sum(amount) as open, min(created_at) as at from credit_ledger
    where job_id = p_job and app_id = p_app and user_id = p_user and type in ('charge', 'refund')
    group by bucket order by bucket = 'balance' desc
  loop
    share := least(charge.open, p_amount - given);
    if share > 0 then
      perform post_entry(p_app, p_user, 'refund', charge.bucket, share, p_job, null, p_description, p_metadata);
      if charge.bucket = 'allowance' and (charge.at at time zone 'utc')::date < (now() at time zone 'utc')::date then
        perform post_entry(p_app, p_user, 'expiry', 'allowance', -share, null, null, 'refunded allowance of an earlier day lapsed', '{}');
      end if;
      given := given + share;
    end if;
  end loop;
  return given;
end $$;

-- Every account whose buckets are not the sum of their entries, or whose entries have a gap. Must be empty, always.
create view ledger_drift as
select a.app_id, a.user_id,
       a.balance - coalesce(e.balance, 0) as balance_drift,
       a.allowance - coalesce(e.allowance, 0) as allowance_drift,
       a.entries - coalesce(e.entries, 0) as missing_entries
from accounts a
left join (
  select app_id, user_id, count(*) as entries,
         coalesce(sum(amount) filter (where bucket = 'balance'), 0) as balance,
         coalesce(sum(amount) filter (where bucket = 'allowance'), 0) as allowance
  from credit_ledger group by app_id, user_id
) e using (app_id, user_id)
where a.balance <> coalesce(e.balance, 0) or a.allowance <> coalesce(e.allowance, 0) or a.entries <> coalesce(e.entries, 0);
