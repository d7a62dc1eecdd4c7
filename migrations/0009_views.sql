-- Who may read what, for products that let their signed-in users read the database themselves (Supabase); and the
-- tables that the five products know, as views over ours.
--
-- Row-level security is on for every table. It does not concern whoever owns the tables: the service, when it connects
-- as the role that ran the migrations. All others see nothing but what a policy below allows, and can change nothing.
-- Tables without a policy are for the service only. No role is created and nothing is granted here: docs/README.md has
-- the lines for Supabase, and for a service that connects as another role.

alter table schema_migrations enable row level security;
alter table apps enable row level security;
alter table api_keys enable row level security;
alter table accounts enable row level security;
alter table credit_ledger enable row level security;
alter table jobs enable row level security;
alter table runs enable row level security;
alter table assets enable row level security;
alter table settlements enable row level security;
alter table job_events enable row level security;
alter table webhook_inbox enable row level security;
alter table workers enable row level security;
alter table audit_state enable row level security;
alter table plans enable row level security;
alter table rate_limits enable row level security;
alter table app_settings enable row level security;
alter table quotes enable row level security;
alter table batches enable row level security;
alter table batch_items enable row level security;
alter table pipelines enable row level security;
alter table pipeline_steps enable row level security;
alter table reused_keys enable row level security;
alter table trained_models enable row level security;
alter table ratings enable row level security;
alter table callbacks enable row level security;
alter table catalogue_state enable row level security;
-- A view reads as its owner unless told otherwise.
alter view ledger_drift set (security_invoker = true);

-- The signed-in user, as PostgREST and Supabase say it; null: nobody is signed in, and nothing is anybody's.
create function darkroom_user() returns text language sql stable as $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
$$;

-- The app that he is signed in to, from what only the server can write into his claims ("app", or Supabase's
-- app_metadata.app; never user_metadata), else the setting darkroom.app, else the only app there is. Null: it is not
-- known, and he sees nothing. It reads apps, which he may not: hence with its owner's rights, and with a body whose
-- names were bound when it was made.
create function darkroom_app() returns text language sql stable security definer
begin atomic
  select coalesce(
    claims ->> 'app',
    claims #>> '{app_metadata,app}',
    nullif(current_setting('darkroom.app', true), ''),
    (select min(id) from apps having count(*) = 1))
  from (select nullif(current_setting('request.jwt.claims', true), '')::jsonb as claims) as session;
end;

-- In sub-selects, so that they are asked once for each statement and the indexes that begin with the user are used.
create policy own_jobs on jobs for select
  using (user_id = (select darkroom_user()) and app_id = (select darkroom_app()));
create policy own_account on accounts for select
  using (user_id = (select darkroom_user()) and app_id = (select darkroom_app()));
create policy own_entries on credit_ledger for select
  using (user_id = (select darkroom_user()) and app_id = (select darkroom_app()));
create policy own_trained_models on trained_models for select
  using (user_id = (select darkroom_user()) and app_id = (select darkroom_app()));
-- Through the jobs that the policy above lets him see. As an array: a join would read the whole table.
create policy own_runs on runs for select using (job_id = any (array(select id from jobs)));
create policy own_settlements on settlements for select using (job_id = any (array(select id from jobs)));
create policy own_ratings on ratings for select using (job_id = any (array(select id from jobs)));
-- What his jobs made, and what they were made from: the same bytes are kept once, and may be others' input, too.
create policy own_assets on assets for select using (
  job_id = any (array(select id from jobs))
  or id = any (array(select file.value::uuid from jobs, jsonb_each_text(jobs.files) as file)));

-- The products' tables. All of them read as whoever asks, so the policies above hold in them. All have app_id. A view
-- cannot sign an address: every "url" in them is the path in the store, to be signed by whoever serves it; the API's
-- answers have signed ones. Errors are the stable codes; the API has the sentences. `is_saved` and the like are the
-- product's own and stay in a table of its own.

-- S4's jobs of all kinds, and S3's, by their names: "replicateJobId" has the current purchase of each variant, joined by
-- commas. Their words for the status: pending, processing, completed, failed; what was canceled is failed to them.
-- What is gathered for each job is gathered in sub-selects, which a LIMIT spares the jobs that it leaves out.
create view generation_jobs with (security_invoker = true) as
select j.id, j.app_id, j.user_id, j.kind as operation_type, j.model,
       case j.status when 'canceled' then 'failed' else j.status end as status,
       j.credits as cost, j.idempotency_key,
       (select a.storage_key from runs r join assets a on a.run_id = r.id and a.role = 'output'
        where r.job_id = j.id and r.status = 'stored' and j.status = 'completed'
        order by r.variant, a.position limit 1) as result_url,
       case j.status when 'canceled' then 'canceled' else j.failure_code end as error_message,
       j.metadata, j.created_at, j.ended_at as completed_at,
       (select string_agg(r.provider_run_id, ',' order by r.variant) from runs r where r.job_id = j.id
        and not exists (select 1 from runs n where n.job_id = r.job_id and n.variant = r.variant and n.attempt > r.attempt)
       ) as "replicateJobId",
       (select coalesce(jsonb_agg(a.storage_key order by r.variant, a.position), '[]')
        from runs r join assets a on a.run_id = r.id and a.role = 'output'
        where r.job_id = j.id and r.status = 'stored' and j.status = 'completed') as "resultUrls",
       -- What the user paid in the end; until then, what was taken.
       coalesce((select s.kept from settlements s where s.job_id = j.id), j.credits) as "creditsUsed"
from jobs j;

-- S4's results: one row for each output. What was delivered of a job that failed was given back with its credits.
create view images with (security_invoker = true) as
select a.id, j.app_id, j.user_id, j.id as job_id, a.storage_key as url, j.input ->> 'prompt' as prompt,
       a.width, a.height, a.created_at
from jobs j
join runs r on r.job_id = j.id and r.status = 'stored'
join assets a on a.run_id = r.id and a.role = 'output'
where j.kind = 'generation' and j.status = 'completed';

create view videos with (security_invoker = true) as
select a.id, j.app_id, j.user_id, j.id as job_id, a.storage_key as url, j.input ->> 'prompt' as prompt,
       (j.input ->> 'seconds')::int as duration_seconds, a.width, a.height, a.created_at
from jobs j
join runs r on r.job_id = j.id and r.status = 'stored'
join assets a on a.run_id = r.id and a.role = 'output'
where j.kind = 'video' and j.status = 'completed';

create view edited_images with (security_invoker = true) as
select a.id, j.app_id, j.user_id, j.id as job_id, original.storage_key as input_image_url,
       a.storage_key as output_image_url, j.input ->> 'instruction' as prompt, a.width, a.height, a.created_at
from jobs j
join runs r on r.job_id = j.id and r.status = 'stored'
join assets a on a.run_id = r.id and a.role = 'output'
left join assets original on original.id = (j.files ->> 'image')::uuid
where j.kind = 'edit' and j.status = 'completed';

-- S2's generations, in Replicate's words for the status. One prediction makes one image here: several are joined by
-- commas. `provider` is who was bought from, and until then who it is meant for.
create view prompts with (security_invoker = true) as
select j.id, j.app_id, j.user_id, (j.input ->> 'trainedModel')::uuid as tune_id,
       j.input ->> 'prompt' as prompt, j.input ->> 'negativePrompt' as negative_prompt,
       (select string_agg(r.provider_run_id, ',' order by r.variant) from runs r where r.job_id = j.id
        and not exists (select 1 from runs n where n.job_id = r.job_id and n.variant = r.variant and n.attempt > r.attempt)
       ) as replicate_prediction_id,
       case j.status when 'pending' then 'starting' when 'completed' then 'succeeded' else j.status end as status,
       (select coalesce(jsonb_agg(a.storage_key order by r.variant, a.position), '[]')
        from runs r join assets a on a.run_id = r.id and a.role = 'output'
        where r.job_id = j.id and r.status = 'stored' and j.status = 'completed') as image_urls,
       j.failure_code as error_message,
       j.created_at, coalesce(j.ended_at, j.started_at, j.created_at) as updated_at,
       coalesce((select r.provider from runs r where r.job_id = j.id order by r.variant, r.attempt desc limit 1),
                'replicate') as provider,
       j.model as model_type,
       jsonb_strip_nulls(jsonb_build_object(
         'width', j.input -> 'width', 'height', j.input -> 'height', 'num_outputs', j.input -> 'images',
         'num_inference_steps', j.input -> 'steps', 'guidance_scale', j.input -> 'guidance', 'seed', j.input -> 'seed',
         'lora_scale', j.input -> 'loraScale')) as generation_config
from jobs j
where j.kind = 'generation';

-- S2's trained models, with the training as Replicate tells it. What was deleted is gone.
create view tunes with (security_invoker = true) as
select m.id, m.app_id, m.user_id, m.name, m.trigger_word, r.provider_run_id as replicate_training_id,
       case when m.status = 'ready' then 'succeeded'
            when m.status = 'failed' then case j.status when 'canceled' then 'canceled' else 'failed' end
            when j.status = 'pending' then 'starting' else 'processing' end as status,
       -- Where the provider keeps the weights to itself, its name for the version.
       coalesce(lora.storage_key, m.provider_version) as model_url,
       j.failure_code as error_message,
       m.created_at, coalesce(j.ended_at, j.started_at, j.created_at) as updated_at,
       coalesce(r.provider, m.provider, 'replicate') as provider, m.family || '-lora' as model_type,
       jsonb_build_object('max_train_steps', m.steps, 'resolution', m.resolution) as training_config
from trained_models m
join jobs j on j.id = m.id
left join lateral (
  select provider, provider_run_id from runs where job_id = m.id order by variant, attempt desc limit 1
) r on true
left join assets lora on lora.job_id = m.id and lora.role = 'lora'
where m.status <> 'deleted';

-- S1's trained models, in its words for the status: PROCESSING, TRAINING, READY, ERROR, DELETED.
create view models with (security_invoker = true) as
select m.id, m.app_id, m.user_id as "userId", m.name, m.task, m.trigger_word as "triggerWord",
       case m.status when 'ready' then 'READY' when 'failed' then 'ERROR' when 'deleted' then 'DELETED'
            else case j.status when 'pending' then 'PROCESSING' else 'TRAINING' end end as status,
       case when j.ended_at is not null then 100 else coalesce(floor(100 * r.progress), 0) end::int as progress,
       -- 0 to 1, of the photos it was trained on.
       m.quality / 100.0::float8 as "qualityScore",
       m.photos as "totalPhotos",
       coalesce(lora.storage_key, m.provider_version) as "modelUrl",
       jsonb_build_object('trainingId', r.provider_run_id, 'provider', coalesce(r.provider, m.provider, 'replicate'),
                          'steps', m.steps, 'resolution', m.resolution) as "trainingConfig",
       case j.status when 'canceled' then 'canceled' else j.failure_code end as "errorMessage",
       m.created_at as "createdAt", coalesce(m.deleted_at, j.ended_at, j.started_at, j.created_at) as "updatedAt",
       m.ready_at as "trainedAt"
from trained_models m
join jobs j on j.id = m.id
left join lateral (
  select provider, provider_run_id, progress from runs where job_id = m.id order by variant, attempt desc limit 1
) r on true
left join assets lora on lora.job_id = m.id and lora.role = 'lora';
