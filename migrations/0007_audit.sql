-- Where the continuous audit stands: one row for the whole fleet.
create table audit_state (
  only_row boolean primary key default true check (only_row),
  -- Who comes first after this does the next round.
  next_at timestamptz not null default now(),
  -- Grows with each claim: a round whose turn has passed to another worker writes nothing.
  round bigint not null default 0,
  -- Everything up to here has been audited: entries by id, ended jobs by their end.
  entry_id bigint not null,
  ended_at timestamptz not null,
  ended_id uuid not null default '00000000-0000-0000-0000-000000000000',
  completed_at timestamptz,
  -- What the last round found, by check: it is looked at again in every round until it is gone, and logged once.
  findings jsonb not null default '{}'
);
-- What was there before is for the full audit.
insert into audit_state (entry_id, ended_at) select coalesce(max(id), 0), now() from credit_ledger;

-- The jobs that ended since the last round; without it every round would read all jobs.
create index jobs_ended on jobs (ended_at, id) where ended_at is not null;
