-- A job is this row. Everything that is true of it is here and in the tables below; queue entries and webhooks only
-- say "look at this job now".
create table jobs (
  -- UUIDv7: sorts by the time of acceptance.
  id uuid primary key,
  app_id text not null,
  user_id text not null,
  kind text not null,
  model text not null,
  status text not null default 'pending'
    check (status in ('pending', 'processing', 'completed', 'failed', 'canceled')),
  -- As parsed; never changed.
  input jsonb not null,
  -- The caller's files by the name of the input field: {"image": "<asset id>"}.
  files jsonb not null default '{}',
  -- The caller's own words about the job, echoed back.
  metadata jsonb not null default '{}',
  variants int not null check (variants between 1 and 16),
  min_success int not null check (min_success between 1 and variants),
  max_attempts int not null check (max_attempts between 1 and 10),
  max_rebuys int not null check (max_rebuys between 0 and 1),
  -- The price, frozen at acceptance, and the lines that make it up.
  credits bigint not null check (credits >= 0),
  price_lines jsonb not null,
  idempotency_key text not null check (length(idempotency_key) between 1 and 255),
  -- SHA-256 of the canonical request: the same key with another request is refused.
  fingerprint bytea not null check (length(fingerprint) = 32),
  failure_code text,
  failure_detail text,
  deadline_at timestamptz not null,
  cancel_requested_at timestamptz,
  expired_at timestamptz,
  -- Grows with every fact learned.
  version int not null default 0,
  -- Grows with every lease: a worker whose epoch is not the current one has lost its right to act.
  epoch int not null default 0,
  lease_until timestamptz,
  -- When the sweep wakes the job unless it has moved by then. Null: only the provider or nobody can move it.
  due_at timestamptz,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  ended_at timestamptz,
  foreign key (app_id, user_id) references accounts,
  unique (app_id, idempotency_key),
  check ((status in ('completed', 'failed', 'canceled')) = (ended_at is not null)),
  check ((status = 'failed') = (failure_code is not null))
) with (fillfactor = 80);
create index jobs_due on jobs (due_at) where status in ('pending', 'processing');
-- Begins with the user on purpose: the key's unique index is the only one that begins with the app, so that no plan made
-- on an empty table looks a key up by walking all jobs of its app.
create index jobs_of_user on jobs (user_id, app_id, id);

-- One paid execution at a provider. The row is committed before the first byte is sent.
create table runs (
  id uuid primary key,
  job_id uuid not null references jobs,
  variant int not null check (variant >= 0),
  attempt int not null check (attempt >= 1),
  status text not null
    check (status in ('submitting', 'unknown', 'running', 'storing', 'stored', 'failed', 'canceled')),
  provider text not null,
  model text not null,
  version text,
  -- Exactly what is sent.
  input jsonb not null,
  provider_run_id text,
  send_before timestamptz,
  sent_at timestamptz,
  expires_at timestamptz not null,
  not_before timestamptz,
  outputs jsonb not null default '[]',
  store_attempts int not null default 0,
  failure_code text,
  failure_detail text,
  cancel_sent_at timestamptz,
  created_at timestamptz not null default now(),
  ended_at timestamptz,
  -- What the watch knows: when to ask the provider next, how often it asked, how far the run is (0..1).
  next_look_at timestamptz,
  looks int not null default 0,
  progress real,
  -- Billed seconds as the provider tells them, and what the run cost us in millionths of a dollar.
  seconds real,
  cost_micro_usd bigint,
  unique (job_id, variant, attempt)
) with (fillfactor = 80);
-- Nothing is bought twice: one live run per variant, and one run of ours per run of theirs.
create unique index runs_live on runs (job_id, variant)
  where status in ('submitting', 'unknown', 'running', 'storing');
create unique index runs_of_provider on runs (provider, provider_run_id) where provider_run_id is not null;
create index runs_to_look_at on runs (next_look_at) where next_look_at is not null;

-- A file of ours. Inputs are content-addressed: the same bytes of one app are kept once.
create table assets (
  id uuid primary key,
  app_id text not null references apps,
  role text not null check (role in ('input', 'output', 'thumbnail')),
  job_id uuid references jobs,
  run_id uuid references runs,
  -- Which of the run's outputs, 0-based.
  position int not null default 0,
  storage_key text not null unique,
  sha256 bytea not null check (length(sha256) = 32),
  bytes bigint not null check (bytes > 0),
  content_type text not null,
  width int not null,
  height int not null,
  created_at timestamptz not null default now(),
  check ((role = 'input') = (run_id is null))
);
create unique index assets_input on assets (app_id, sha256) where role = 'input';
create unique index assets_of_run on assets (run_id, role, position) where run_id is not null;
create index assets_of_job on assets (job_id) where job_id is not null;

-- One row per ended job: what became of its credits. The primary key is what makes settling twice impossible.
create table settlements (
  job_id uuid primary key references jobs,
  charged bigint not null check (charged >= 0),
  kept bigint not null check (kept >= 0),
  refunded bigint not null check (refunded >= 0),
  created_at timestamptz not null default now(),
  check (charged = kept + refunded)
);
create trigger settlements_append_only before update or delete or truncate on settlements
  for each statement execute function refuse_change();

-- Every fact that moved a job, in order: the explanation.
create table job_events (
  job_id uuid not null references jobs,
  -- The job's version that the fact led to.
  version int not null,
  type text not null,
  run_id uuid,
  detail jsonb not null default '{}',
  at timestamptz not null,
  primary key (job_id, version)
);

-- What providers told us unasked. A hint is kept for the record; the truth is asked for.
create table webhook_inbox (
  id bigint generated always as identity primary key,
  provider text not null,
  delivery_id text not null,
  run_id uuid references runs,
  provider_run_id text not null,
  status text not null,
  received_at timestamptz not null default now(),
  unique (provider, delivery_id)
);
