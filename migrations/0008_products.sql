-- What the products need beyond one job of one kind: plans, rate limits, quotes, trained models, batches, pipelines,
-- callbacks, ratings, and what is learned of the catalogue.

-- Plans. Their definition is code (apps/*.ts); these rows carry what the database itself needs of them.
create table plans (
  app_id text not null references apps,
  name text not null check (length(name) between 1 and 40),
  -- Credits that each user of the plan may spend a day before the balance is touched.
  daily_allowance bigint not null check (daily_allowance >= 0),
  primary key (app_id, name)
);
-- The plan of who has none of his own. Null: the app has no plans, and apps.daily_allowance is everybody's.
alter table apps add column default_plan text;
alter table accounts add column plan text check (length(plan) between 1 and 40);
-- What was granted as allowance on allowance_on, so that a change of plan grants the difference, once.
alter table accounts add column allowance_granted bigint not null default 0 check (allowance_granted >= 0);
update accounts a set allowance_granted = p.daily_allowance from apps p
where p.id = a.app_id and a.allowance_on = (now() at time zone 'utc')::date;

create function daily_allowance_of(p_app text, p_plan text) returns bigint language sql stable as $$
  select coalesce(p.daily_allowance, a.daily_allowance)
  from apps a left join plans p on p.app_id = a.id and p.name = coalesce(p_plan, a.default_plan)
  where a.id = p_app
$$;

-- As before, with the allowance of the account's plan.
create or replace function lock_account(p_app text, p_user text) returns accounts language plpgsql as $$
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
  -- A transaction that began before midnight has yesterday's date, and must not grant that day again.
  if account.allowance_on is null or account.allowance_on < today then
    daily := daily_allowance_of(p_app, account.plan);
    if daily > 0 or account.allowance > 0 then
      if account.allowance > 0 then
        perform post_entry(p_app, p_user, 'expiry', 'allowance', -account.allowance, null, null, 'allowance lapsed', '{}');
      end if;
      if daily > 0 then
        perform post_entry(p_app, p_user, 'grant', 'allowance', daily, null, null, 'daily allowance', '{}');
      end if;
      update accounts set allowance_on = today, allowance_granted = daily
      where app_id = p_app and user_id = p_user returning * into account;
    end if;
  end if;
  return account;
end $$;

-- Moves a user to a plan. A larger allowance counts from this moment on, a smaller one from tomorrow; going back and
-- forth grants nothing more.
create function set_plan(p_app text, p_user text, p_plan text) returns accounts language plpgsql as $$
declare
  account accounts;
  daily bigint;
  granted bigint;
  today date := (now() at time zone 'utc')::date;
begin
  if not exists (select 1 from plans where app_id = p_app and name = p_plan) then
    raise exception 'the app "%" has no plan "%"', p_app, p_plan;
  end if;
  perform lock_account(p_app, p_user);
  update accounts set plan = p_plan where app_id = p_app and user_id = p_user returning * into account;
  daily := daily_allowance_of(p_app, p_plan);
  granted := case when account.allowance_on >= today then account.allowance_granted else 0 end;
  if daily > granted then
    perform post_entry(p_app, p_user, 'grant', 'allowance', daily - granted, null, null,
                       'daily allowance of plan ' || p_plan, '{}');
    update accounts set allowance_on = greatest(allowance_on, today), allowance_granted = daily
    where app_id = p_app and user_id = p_user returning * into account;
  end if;
  return account;
end $$;

-- Rate limits, in the database so that they hold across instances. A sliding window: the count of the window that runs,
-- and of the one before as far as it still reaches in.
create table rate_limits (
  app_id text not null references apps,
  -- "user:<id>" or "address:<ip>".
  subject text not null check (length(subject) between 1 and 300),
  action text not null check (length(action) between 1 and 40),
  seconds int not null check (seconds between 1 and 2592000),
  window_start timestamptz not null,
  count int not null default 0,
  previous int not null default 0,
  -- How often it said no, and when last.
  refused bigint not null default 0,
  refused_at timestamptz,
  primary key (app_id, subject, action)
);
create index rate_limits_old on rate_limits (window_start);

-- Counts one request against a limit and returns 0, or counts nothing and returns after how many seconds it may be
-- tried again.
create function take_rate(p_app text, p_subject text, p_action text, p_max int, p_seconds int)
returns int language plpgsql as $$
declare
  row rate_limits;
  at timestamptz;
  this_window timestamptz;
  part float8;
  free_at float8;
begin
  loop
    insert into rate_limits (app_id, subject, action, seconds, window_start)
    values (p_app, p_subject, p_action, p_seconds, 'epoch') on conflict do nothing;
    select * into row from rate_limits where app_id = p_app and subject = p_subject and action = p_action for update;
    exit when found; -- An old one may just have been cleaned away.
  end loop;
  -- Read once the row is ours: who waited for it must not turn its window back.
  at := clock_timestamp();
  this_window := to_timestamp(floor(extract(epoch from at) / p_seconds) * p_seconds);
  part := extract(epoch from at - this_window) / p_seconds;
  if row.seconds <> p_seconds then
    row.previous := 0; row.count := least(row.count, p_max); row.seconds := p_seconds;
  elsif row.window_start = this_window - make_interval(secs => p_seconds) then
    row.previous := row.count; row.count := 0;
  elsif row.window_start < this_window then
    row.previous := 0; row.count := 0;
  end if;
  if row.previous * (1 - part) + row.count + 1 <= p_max then
    update rate_limits set seconds = p_seconds, window_start = this_window, previous = row.previous, count = row.count + 1
    where app_id = p_app and subject = p_subject and action = p_action;
    return 0;
  end if;
  update rate_limits set seconds = p_seconds, window_start = this_window, previous = row.previous, count = row.count,
                         refused = refused + 1, refused_at = at
  where app_id = p_app and subject = p_subject and action = p_action;
  -- The part of a window after which there is room for one more.
  free_at := case
    when row.count + 1 <= p_max then 1 - (p_max - 1 - row.count)::float8 / row.previous
    else 1 + greatest(0, 1 - (p_max - 1)::float8 / row.count) end;
  return greatest(1, ceil((free_at - part) * p_seconds));
end $$;

-- What a product that limits by itself calls: counts, and says what is left.
create function check_rate_limit(
  p_identifier text, p_action text, p_max int, p_window_seconds int, p_metadata jsonb default '{}'
) returns jsonb language plpgsql as $$
declare
  app text := credit_app(p_metadata);
  wait int;
  used int;
begin
  if p_max is null or p_max <= 0 then
    raise exception 'the limit must be a positive number of requests, not %', coalesce(p_max::text, 'null');
  end if;
  wait := take_rate(app, p_identifier, p_action, p_max, p_window_seconds);
  select count into used from rate_limits where app_id = app and subject = p_identifier and action = p_action;
  return jsonb_build_object('allowed', wait = 0, 'limit', p_max, 'remaining', greatest(0, p_max - used),
                            'retry_after', wait);
end $$;

-- Rows of windows that no longer count; at most p_limit, the oldest first (null: all). Returns how many were deleted.
create function cleanup_expired_rate_limits(p_limit int default null) returns bigint language sql as $$
  with gone as (
    delete from rate_limits where (app_id, subject, action) in (
      select app_id, subject, action from rate_limits where window_start < now() - make_interval(secs => 2 * seconds)
      -- One that is just being taken counts again, and whoever takes several must not be waited for.
      order by window_start limit p_limit for update skip locked)
    returning 1
  ) select count(*) from gone
$$;

-- Switches that an operator turns without a deployment. app_enabled = false: no job is accepted; what was accepted goes on.
create table app_settings (
  -- "*": all apps.
  app_id text not null default '*',
  name text not null check (length(name) between 1 and 100),
  value jsonb not null,
  updated_at timestamptz not null default now(),
  primary key (app_id, name)
);
insert into app_settings (name, value) values ('app_enabled', 'true');

-- A price that was promised: whoever submits this very request before it expires pays no more.
create table quotes (
  id uuid primary key,
  app_id text not null references apps,
  user_id text not null,
  -- SHA-256 of the canonical request without the quote.
  fingerprint bytea not null check (length(fingerprint) = 32),
  credits bigint not null check (credits >= 0),
  price_lines jsonb not null,
  price_book text not null,
  -- The request as it will be accepted.
  request jsonb not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null
);
create index quotes_expired on quotes (expires_at);

-- Up to 1,000 jobs under one key.
create table batches (
  id uuid primary key,
  app_id text not null references apps,
  idempotency_key text not null check (length(idempotency_key) between 1 and 255),
  fingerprint bytea not null check (length(fingerprint) = 32),
  metadata jsonb not null default '{}',
  size int not null check (size between 1 and 1000),
  callback_url text,
  created_at timestamptz not null default now(),
  -- When every item had its answer, and when the last job had ended.
  accepted_at timestamptz,
  ended_at timestamptz,
  unique (app_id, idempotency_key)
);
create table batch_items (
  batch_id uuid not null references batches,
  -- 0-based, as sent.
  ord int not null,
  job_id uuid,
  -- Why it was refused, as the problem document that a single job would have had.
  problem jsonb,
  primary key (batch_id, ord),
  check ((job_id is null) <> (problem is null))
);

-- Steps that follow each other: a headshot pack is a training and then generations with what it made.
create table pipelines (
  id uuid primary key,
  app_id text not null references apps,
  user_id text not null,
  name text not null default '',
  status text not null default 'running' check (status in ('running', 'completed', 'failed', 'canceled')),
  metadata jsonb not null default '{}',
  callback_url text,
  idempotency_key text not null check (length(idempotency_key) between 1 and 255),
  fingerprint bytea not null check (length(fingerprint) = 32),
  cancel_requested_at timestamptz,
  -- When somebody looks at it next; null once it has ended.
  due_at timestamptz default now(),
  created_at timestamptz not null default now(),
  ended_at timestamptz,
  unique (app_id, idempotency_key)
);
create index pipelines_due on pipelines (due_at) where due_at is not null;
create table pipeline_steps (
  pipeline_id uuid not null references pipelines,
  ord int not null,
  name text not null check (name ~ '^[a-z][a-z0-9_-]{0,39}$'),
  -- The steps that must have completed before, by name.
  after text[] not null default '{}',
  status text not null default 'waiting' check (status in ('waiting', 'running', 'completed', 'failed', 'canceled')),
  attempt int not null default 1,
  -- Of this attempt: decided beforehand, so that later steps can name it.
  job_id uuid not null,
  -- Everything that accept_jobs takes, priced.
  request jsonb not null,
  -- Why it could not be started; a job's own failure is on the job.
  problem jsonb,
  primary key (pipeline_id, ord),
  unique (pipeline_id, name)
);

alter table jobs
  add column plan text,
  add column price_book text,
  -- What was asked for and is beyond the plan: [{"pointer","from","to","because"}].
  add column clamps jsonb not null default '[]',
  add column quote_id uuid,
  add column batch_id uuid references batches,
  add column pipeline_id uuid references pipelines,
  add column experiment text,
  add column arm text,
  -- SHA-256 of what decides the outcome, for jobs whose results may be used again.
  add column reuse_hash bytea check (length(reuse_hash) = 32),
  add column callback_url text;
create index jobs_of_batch on jobs (batch_id) where batch_id is not null;
create index jobs_of_pipeline on jobs (pipeline_id) where pipeline_id is not null;
create index jobs_reusable on jobs (user_id, reuse_hash) where reuse_hash is not null;
create index jobs_of_experiment on jobs (experiment, arm) where experiment is not null;

-- Keys that were answered with a job of another key: its result was used again, or it was under way.
create table reused_keys (
  app_id text not null references apps,
  idempotency_key text not null check (length(idempotency_key) between 1 and 255),
  fingerprint bytea not null check (length(fingerprint) = 32),
  -- No foreign key: it would lock the job's row while the account is held, and whoever ends the job holds the job and
  -- waits for the account.
  job_id uuid not null,
  created_at timestamptz not null default now(),
  primary key (app_id, idempotency_key)
);

-- Where a training puts what it makes, and the version that the provider made of it.
alter table runs add column destination text, add column trained_version text;

alter table assets alter column width drop not null, alter column height drop not null;
alter table assets
  add column duration_ms int check (duration_ms > 0),
  -- What was measured of a photo: sharpness, hash, orientation …
  add column facts jsonb;
alter table assets drop constraint assets_role_check, drop constraint assets_check;
alter table assets
  add constraint assets_role_check check (role in ('input', 'output', 'thumbnail', 'archive', 'weights', 'lora')),
  add constraint assets_of_run_check check ((role in ('input', 'archive')) = (run_id is null)),
  add constraint assets_size_check check ((width is null) = (height is null));

-- What a training makes, under the id of its job.
create table trained_models (
  id uuid primary key references jobs,
  app_id text not null,
  user_id text not null,
  name text not null check (length(name) between 1 and 100),
  status text not null default 'training' check (status in ('training', 'ready', 'failed', 'deleted')),
  -- Which models can use it.
  family text not null check (family in ('flux', 'sdxl')),
  trigger_word text not null,
  task text not null check (task in ('face', 'object', 'style')),
  resolution int not null,
  steps int not null,
  photos int not null,
  -- 0 to 100, of the photos it was trained on.
  quality int not null check (quality between 0 and 100),
  provider text,
  -- owner/name:version at the provider; null until it is ready, and where the provider keeps none.
  provider_version text,
  created_at timestamptz not null default now(),
  ready_at timestamptz,
  deleted_at timestamptz,
  foreign key (app_id, user_id) references accounts
);
create index trained_models_of_user on trained_models (user_id, app_id, id);
create index trained_models_open on trained_models (id) where status = 'training';

-- What end users thought of an output.
create table ratings (
  job_id uuid not null references jobs,
  variant int not null check (variant >= 0),
  score int not null check (score between 1 and 5),
  comment text not null default '' check (length(comment) <= 1000),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (job_id, variant)
);

-- What is to be told to an app's backend, written in the transaction that made it true.
create table callbacks (
  -- The webhook-id: the same for every repetition.
  id uuid primary key default gen_random_uuid(),
  app_id text not null references apps,
  type text not null,
  job_id uuid references jobs,
  batch_id uuid references batches,
  pipeline_id uuid references pipelines,
  url text not null,
  attempts int not null default 0,
  -- When it is tried next; null: delivered, or given up.
  next_at timestamptz default now(),
  delivered_at timestamptz,
  gave_up_at timestamptz,
  last_status int,
  last_error text,
  created_at timestamptz not null default now(),
  check (num_nonnulls(job_id, batch_id, pipeline_id) = 1)
);
create index callbacks_due on callbacks (next_at) where next_at is not null;
-- One of each type for each thing.
create unique index callbacks_once on callbacks (coalesce(job_id, batch_id, pipeline_id), type);

-- What is known of each model at each provider: whether it is there, and how long it takes.
create table catalogue_state (
  provider text not null,
  model text not null,
  status text not null default 'ok' check (status in ('ok', 'gone')),
  version text,
  detail text,
  checked_at timestamptz not null default now(),
  -- Seconds from sending to the end, of the runs of the last seven days.
  p50 real,
  p95 real,
  samples int not null default 0,
  primary key (provider, model)
);

-- Settles what surrounds a job that has ended: its trained model, its callback, its batch and its pipeline. Repeating it
-- changes nothing.
create function conclude_job(p_job uuid) returns void language plpgsql as $$
declare
  job jobs;
  batch batches;
begin
  select * into strict job from jobs where id = p_job;
  if job.kind = 'training' then
    update trained_models m set
      status = case when job.status = 'completed' then 'ready' else 'failed' end,
      ready_at = case when job.status = 'completed' then job.ended_at end,
      provider = r.provider, provider_version = r.trained_version
    from (select 1) one left join lateral (
      select provider, trained_version from runs where job_id = p_job and status = 'stored' order by attempt desc limit 1
    ) r on true
    where m.id = p_job and m.status = 'training';
  end if;
  if job.callback_url is not null then
    insert into callbacks (app_id, type, job_id, url)
    values (job.app_id, 'job.' || job.status, p_job, job.callback_url) on conflict do nothing;
  end if;
  if job.batch_id is not null then
    -- One after the other, so that the last one sees that it is the last. Not "for update": whoever accepts the batch's
    -- next jobs refers to its row while he waits for accounts.
    select * into batch from batches where id = job.batch_id for no key update;
    if batch.accepted_at is not null and not exists (
      select 1 from jobs where batch_id = batch.id and status in ('pending', 'processing')) then
      perform end_batch(batch.id);
    end if;
  end if;
  if job.pipeline_id is not null then
    update pipelines set due_at = now() where id = job.pipeline_id and due_at is not null;
  end if;
end $$;

create function end_batch(p_batch uuid) returns void language plpgsql as $$
begin
  update batches set ended_at = now() where id = p_batch and ended_at is null;
  insert into callbacks (app_id, type, batch_id, url)
  select app_id, 'batch.ended', id, callback_url from batches where id = p_batch and callback_url is not null
  on conflict do nothing;
end $$;

-- As before, and concludes the job, so that workers of the release before do so, too, while they are replaced.
create or replace function settle_job(p_job uuid, p_kept bigint) returns boolean language plpgsql as $$
declare job jobs;
begin
  select * into strict job from jobs where id = p_job;
  insert into settlements (job_id, charged, kept, refunded)
  values (p_job, job.credits, p_kept, job.credits - p_kept) on conflict do nothing;
  if not found then return false; end if;
  if give_back(job.app_id, job.user_id, p_job, job.credits - p_kept, job.kind || ' ' || job.status, '{}')
     <> job.credits - p_kept then
    raise exception 'job % cannot give back % of % credits: the ledger has no such charge', p_job, job.credits - p_kept, job.credits;
  end if;
  perform conclude_job(p_job);
  return true;
end $$;

-- As before, and: plans, rate limits, the kill switch, quotes, trainings with a limit of models, results used again.
-- Addresses are locked before accounts, both in order, so that two groups cannot wait for each other.
-- outcome: accepted | replayed | key_reused | insufficient_credits | rate_limited | too_many_models | reused | disabled
drop function accept_jobs(jsonb);
create function accept_jobs(p_requests jsonb)
returns table (ord int, outcome text, job_id uuid, balance bigint, allowance bigint, retry_after int, detail text)
language plpgsql set lock_timeout = '1s' as $$
declare
  request record;
  known record;
  rate record;
  account accounts;
  off text[];
begin
  select array_agg(s.app_id) into off from app_settings s where s.name = 'app_enabled' and s.value = 'false';
  -- Most groups have none.
  if p_requests @? '$[*].rates[*].subject ? (@ starts with "address:")' then
    -- Those that are new are made in the same order, since making one locks it.
    insert into rate_limits (app_id, subject, action, seconds, window_start)
    select distinct on (1, 2, 3) r ->> 'app_id', x ->> 'subject', x ->> 'action', (x ->> 'seconds')::int, 'epoch'::timestamptz
    from jsonb_array_elements(p_requests) r, jsonb_array_elements(coalesce(nullif(r -> 'rates', 'null'), '[]')) x
    where x ->> 'subject' like 'address:%' order by 1, 2, 3
    on conflict do nothing;
    perform 1 from rate_limits l where (l.app_id, l.subject) in (
      select r ->> 'app_id', x ->> 'subject' from jsonb_array_elements(p_requests) r,
        jsonb_array_elements(coalesce(nullif(r -> 'rates', 'null'), '[]')) x where x ->> 'subject' like 'address:%'
    ) order by l.app_id, l.subject for update;
  end if;

  for request in
    select r.* from jsonb_to_recordset(p_requests) as r(
      ord int, id uuid, app_id text, user_id text, kind text, model text, input jsonb, files jsonb, metadata jsonb,
      variants int, min_success int, max_attempts int, max_rebuys int, credits bigint, price_lines jsonb,
      idempotency_key text, fingerprint text, deadline_seconds int, plan text, price_book text, clamps jsonb,
      quote_id uuid, batch_id uuid, pipeline_id uuid, experiment text, arm text, reuse_hash text, reuse_seconds int,
      callback_url text, rates jsonb, trained jsonb, max_models int
    ) order by r.app_id, r.user_id, r.ord
  loop
    ord := request.ord;
    outcome := null; job_id := null; retry_after := null; detail := null;
    account := lock_account(request.app_id, request.user_id);

    -- A key that was answered with another key's job never stands for a job of its own.
    select k.job_id as id, k.fingerprint = decode(request.fingerprint, 'hex') as same into known
    from reused_keys k where k.app_id = request.app_id and k.idempotency_key = request.idempotency_key;
    if known.id is not null then
      job_id := known.id;
      outcome := case when known.same then 'reused' else 'key_reused' end;
    elsif jsonb_array_length(coalesce(nullif(request.rates, 'null'), '[]')) > 0 or request.reuse_hash is not null
       or request.trained is not null or off is not null then
      -- What was answered before is answered again, whatever the limits say by now.
      select j.id, j.fingerprint = decode(request.fingerprint, 'hex') as same into known
      from jobs j where j.app_id = request.app_id and j.idempotency_key = request.idempotency_key;
      if known.id is not null then
        job_id := known.id;
        outcome := case when known.same then 'replayed' else 'key_reused' end;
      elsif off && array[request.app_id, '*'] then
        outcome := 'disabled';
      end if;

      if outcome is null and request.reuse_hash is not null then
        select j.id into job_id from jobs j
        where j.user_id = request.user_id and j.reuse_hash = decode(request.reuse_hash, 'hex')
          and j.app_id = request.app_id
          and (j.status in ('pending', 'processing') and j.cancel_requested_at is null
               or j.status = 'completed' and j.ended_at > now() - make_interval(secs => request.reuse_seconds))
        order by j.id desc limit 1;
        if job_id is not null then
          insert into reused_keys (app_id, idempotency_key, fingerprint, job_id)
          values (request.app_id, request.idempotency_key, decode(request.fingerprint, 'hex'), job_id);
          outcome := 'reused';
        end if;
      end if;

      if outcome is null and request.trained is not null and (
        select count(*) from trained_models m
        where m.app_id = request.app_id and m.user_id = request.user_id and m.status in ('training', 'ready')
      ) >= request.max_models then
        outcome := 'too_many_models';
      end if;

      -- Only what can be paid counts, and only what no other limit refuses.
      if outcome is null and account.balance + account.allowance >= request.credits then
        for rate in select r.ord, x.* from jsonb_array_elements(coalesce(nullif(request.rates, 'null'), '[]'))
          with ordinality as r(value, ord), jsonb_to_record(r.value) as x(subject text, action text, max int, seconds int)
          order by r.ord loop
          retry_after := nullif(take_rate(request.app_id, rate.subject, rate.action, rate.max, rate.seconds), 0);
          if retry_after is not null then
            outcome := 'rate_limited';
            detail := format('%s: at most %s in %s s', rate.action, rate.max, rate.seconds);
            update rate_limits l set count = l.count - 1
            from jsonb_array_elements(request.rates) with ordinality as r(value, ord)
            where r.ord < rate.ord and l.app_id = request.app_id and l.subject = r.value ->> 'subject'
              and l.action = r.value ->> 'action';
            exit;
          end if;
        end loop;
      end if;
    end if;

    -- The insert is the look at the key: most keys are new.
    if outcome is null and account.balance + account.allowance >= request.credits then
      insert into jobs (id, app_id, user_id, kind, model, input, files, metadata, variants, min_success, max_attempts,
                        max_rebuys, credits, price_lines, idempotency_key, fingerprint, deadline_at, due_at,
                        plan, price_book, clamps, quote_id, batch_id, pipeline_id, experiment, arm, reuse_hash, callback_url)
      values (request.id, request.app_id, request.user_id, request.kind, request.model, request.input, request.files,
              request.metadata, request.variants, request.min_success, request.max_attempts, request.max_rebuys,
              request.credits, request.price_lines, request.idempotency_key, decode(request.fingerprint, 'hex'),
              -- The database's clock: those of the hosts may differ. The sweep comes after 3 s unless somebody woke it.
              now() + make_interval(secs => request.deadline_seconds), now() + interval '3 seconds',
              request.plan, request.price_book, coalesce(request.clamps, '[]'), request.quote_id, request.batch_id,
              request.pipeline_id, request.experiment, request.arm, decode(request.reuse_hash, 'hex'), request.callback_url)
      on conflict on constraint jobs_app_id_idempotency_key_key do nothing;
      if found then
        account := debit(account, request.credits, request.id, request.kind, '{}');
        if request.trained is not null then
          insert into trained_models (id, app_id, user_id, name, family, trigger_word, task, resolution, steps, photos, quality)
          select request.id, request.app_id, request.user_id, t.name, t.family, t.trigger_word, t.task, t.resolution,
                 t.steps, t.photos, t.quality
          from jsonb_to_record(request.trained) as t(
            name text, family text, trigger_word text, task text, resolution int, steps int, photos int, quality int);
        end if;
        outcome := 'accepted'; job_id := request.id;
      end if;
    end if;

    if outcome is null then
      select j.id, j.fingerprint = decode(request.fingerprint, 'hex') as same into known
      from jobs j where j.app_id = request.app_id and j.idempotency_key = request.idempotency_key;
      job_id := known.id;
      outcome := case when known.id is null then 'insufficient_credits' when known.same then 'replayed' else 'key_reused' end;
    end if;
    balance := account.balance; allowance := account.allowance;
    return next;
  end loop;
end $$;
