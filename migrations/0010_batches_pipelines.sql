-- Batches are accepted part by part, pipelines step by step. What must come true together is one statement here.

create index pipelines_of_user on pipelines (user_id, app_id, id);

-- From then on nothing more of the batch is accepted.
alter table batches add column cancel_requested_at timestamptz;

-- Accepts a part of a batch: whoever is charged has his item, in one commit. Items that were answered before are passed
-- over; the answers are those of accept_jobs to the others. A refusal writes nothing: its problem document is made by
-- the caller, and kept by insert; it yields to whoever was charged for the same item in this instant.
-- No lock on the batch: that would come before the accounts, and conclude_job takes them the other way round.
create function accept_batch_part(p_batch uuid, p_requests jsonb)
returns table (ord int, outcome text, job_id uuid, balance bigint, allowance bigint, retry_after int, detail text)
language plpgsql set lock_timeout = '1s' as $$
#variable_conflict use_column
begin
  return query
    with answers as materialized (
      select a.* from accept_jobs((
        select jsonb_agg(r.value) from jsonb_array_elements(p_requests) r(value)
        where not exists (
          select 1 from batch_items i where i.batch_id = p_batch and i.ord = (r.value ->> 'ord')::int)
      )) a
    ), kept as (
      insert into batch_items (batch_id, ord, job_id)
      select p_batch, a.ord, a.job_id from answers a where a.outcome in ('accepted', 'replayed', 'reused')
      on conflict (batch_id, ord) do update set job_id = excluded.job_id, problem = null
      where batch_items.job_id is null
    )
    select a.ord, a.outcome, a.job_id, a.balance, a.allowance, a.retry_after, a.detail from answers a;
end $$;

-- Called when every item should have its answer: notes it, and ends the batch if all its jobs have ended meanwhile. The
-- row's lock is the one that conclude_job takes, so that one of the two is the last and sees it.
create function finish_batch(p_batch uuid) returns void language plpgsql as $$
declare
  batch batches;
begin
  select * into strict batch from batches where id = p_batch for no key update;
  if batch.accepted_at is not null or (select count(*) from batch_items where batch_id = p_batch) < batch.size then
    return;
  end if;
  update batches set accepted_at = now() where id = p_batch;
  if not exists (select 1 from jobs where batch_id = p_batch and status in ('pending', 'processing')) then
    perform end_batch(p_batch);
  end if;
end $$;

-- Accepts the job of a step, if the step is still to be started: charge, job and step in one commit, so that nobody pays
-- for a step of a pipeline that was canceled this instant. The account is locked before the pipeline, as by whoever
-- ends a job. outcome: as of accept_jobs, or "stopped".
create function start_pipeline_step(p_pipeline uuid, p_ord int, p_attempt int)
returns table (outcome text, job_id uuid, balance bigint, allowance bigint, retry_after int, detail text)
language plpgsql set lock_timeout = '1s' as $$
#variable_conflict use_column
declare
  pipeline pipelines;
  step pipeline_steps;
begin
  select * into strict pipeline from pipelines where id = p_pipeline;
  perform lock_account(pipeline.app_id, pipeline.user_id);
  select * into strict pipeline from pipelines where id = p_pipeline for no key update;
  select * into strict step from pipeline_steps where pipeline_id = p_pipeline and ord = p_ord;
  if pipeline.status <> 'running' or pipeline.cancel_requested_at is not null
     or step.status <> 'waiting' or step.attempt <> p_attempt then
    return query select 'stopped', null::uuid, null::bigint, null::bigint, null::int, null::text;
    return;
  end if;
  return query
    with answer as materialized (
      select a.* from accept_jobs(jsonb_build_array(step.request)) a
    ), started as (
      update pipeline_steps s set status = 'running', problem = null
      from answer a
      where s.pipeline_id = p_pipeline and s.ord = p_ord and a.outcome in ('accepted', 'replayed')
    )
    select a.outcome, a.job_id, a.balance, a.allowance, a.retry_after, a.detail from answer a;
end $$;
