-- What runs cost, whoever's figure it is, and what the watch needs to tell a run that is gone from one that hides.

alter table runs
  -- 'reported': the provider's own figure. 'measured': seconds or units times our price of the day. Null with a cost:
  -- from before this was noted, or the 0 of an orphan of which nobody can tell what it cost.
  add column cost_source text check (cost_source in ('reported', 'measured')),
  -- Since when the provider says that it does not know the run, without having shown it in between. Once may be a slip.
  add column gone_at timestamptz;

-- Reconciliation reads an account's runs by when they were sent.
create index runs_sent on runs (provider, sent_at) where sent_at is not null;

-- Outputs that a provider put into its very answer. Their bytes wait in our storage, under inline/<run>-<position>,
-- until they are stored like any other. The row is written before the file, so that none is forgotten; both go when the
-- run has ended.
create table inline_outputs (
  run_id uuid not null references runs,
  position int not null check (position >= 0),
  created_at timestamptz not null default now(),
  primary key (run_id, position)
);
create index inline_outputs_age on inline_outputs (created_at);
alter table inline_outputs enable row level security;
