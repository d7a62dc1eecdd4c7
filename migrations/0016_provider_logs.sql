-- What was said between us and the providers: the last calls of each account for a person to read, and how many there
-- were, how fast and with what trouble, for /api/health. Both are written behind, in batches, and may miss what a
-- process heard in its last seconds: a log, not a truth. What may be relied on of a run is in runs and job_events.

-- The last calls of each account: 1,000 of them, 7 days at most; the chore `logs` takes the older ones away. What went
-- wrong and what was ordered is kept; of looks that went well, one in a while. Secrets are masked before they get here.
create table provider_logs (
  id bigint generated always as identity primary key,
  -- The account: "replicate", "replicate_2", "sandbox".
  provider text not null,
  -- What it was for, by the port's word: submit, look, cancel, …
  verb text not null,
  method text not null,
  -- Without the values of its query.
  path text not null,
  -- Null: no answer.
  status int,
  ms int not null check (ms >= 0),
  -- Null: it went well. Otherwise the trouble in one word: unreachable, throttled, …
  error text,
  -- Why there is no answer.
  detail text,
  -- Where they are known. No foreign keys: the log must never be what stops something else.
  run_id uuid,
  job_id uuid,
  -- The first 2,000 characters of each. Null: none, or no text.
  request text,
  response text,
  -- When it was over.
  at timestamptz not null
);
create index provider_logs_of_account on provider_logs (provider, at desc, id desc);
alter table provider_logs enable row level security;

-- All calls, counted: by minute, account, verb, trouble ('': it went well) and time taken. Bucket n holds what took
-- 2^(n/4) ms and less than 2^((n+1)/4). Two hours are kept.
create table provider_calls (
  minute timestamptz not null,
  provider text not null,
  verb text not null,
  error text not null,
  bucket smallint not null check (bucket between 0 and 80),
  calls int not null check (calls > 0),
  last_at timestamptz not null,
  primary key (minute, provider, verb, error, bucket)
);
alter table provider_calls enable row level security;

-- What is left on each account, where the provider tells it.
create table provider_balances (
  provider text primary key,
  -- In millionths of a dollar; below zero is owed.
  micro_usd bigint not null,
  at timestamptz not null default now()
);
alter table provider_balances enable row level security;

insert into chores (name) values ('logs'), ('balances');
