-- The catalogue that stays valid, the chores of the fleet, and jobs found by what their callers noted on them.

-- Some models are both run and trained, and a training takes another time than a run.
alter table catalogue_state drop constraint catalogue_state_pkey;
alter table catalogue_state
  add column is_training boolean not null default false,
  -- Whoever comes first after this asks the provider; while somebody asks, when the next one may.
  add column check_at timestamptz not null default now(),
  alter column checked_at drop not null,
  alter column checked_at drop default,
  add primary key (provider, model, is_training);
create index catalogue_state_due on catalogue_state (check_at);

-- What one worker of the fleet does once in a while.
create table chores (
  name text primary key,
  next_at timestamptz not null default now()
);
insert into chores (name) values ('learn'), ('clean'), ('conclude');

-- Jobs by what their callers noted: {"campaign": "spring"}. Empty notes take no room in it.
create index jobs_of_metadata on jobs using gin (metadata jsonb_path_ops);

alter table chores enable row level security;
