-- Accepts an array of requests in one statement and one commit. Each gets an answer of its own: a refused one does not
-- disturb its neighbours and writes nothing. Requests are taken in the order of their users, so that two groups that
-- share users take their locks in the same order. A loop, not a join: a set-based plan scanned whole tables per call.
--
-- outcome: accepted | replayed | key_reused | insufficient_credits
create function accept_jobs(p_requests jsonb)
returns table (ord int, outcome text, job_id uuid, balance bigint, allowance bigint)
-- A transaction that hangs with one user's account must not hold up everybody else's requests.
language plpgsql set lock_timeout = '1s' as $$
declare
  request record;
  known record;
  account accounts;
begin
  for request in
    select r.* from jsonb_to_recordset(p_requests) as r(
      ord int, id uuid, app_id text, user_id text, kind text, model text, input jsonb, files jsonb, metadata jsonb,
      variants int, min_success int, max_attempts int, max_rebuys int, credits bigint, price_lines jsonb,
      idempotency_key text, fingerprint text, deadline_seconds int
    ) order by r.app_id, r.user_id, r.ord
  loop
    ord := request.ord;
    outcome := null;
    account := lock_account(request.app_id, request.user_id);

    -- The insert is the look at the key: most keys are new.
    if account.balance + account.allowance >= request.credits then
      insert into jobs (id, app_id, user_id, kind, model, input, files, metadata, variants, min_success, max_attempts,
                        max_rebuys, credits, price_lines, idempotency_key, fingerprint, deadline_at, due_at)
      values (request.id, request.app_id, request.user_id, request.kind, request.model, request.input, request.files,
              request.metadata, request.variants, request.min_success, request.max_attempts, request.max_rebuys,
              request.credits, request.price_lines, request.idempotency_key, decode(request.fingerprint, 'hex'),
              -- The database's clock: those of the hosts may differ. The sweep comes after 3 s unless somebody woke it.
              now() + make_interval(secs => request.deadline_seconds), now() + interval '3 seconds')
      on conflict on constraint jobs_app_id_idempotency_key_key do nothing;
      if found then
        account := debit(account, request.credits, request.id, request.kind, '{}');
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

-- Settles an ended job, once: the row says what became of the credits, and what is not kept goes back to the buckets
-- it was taken from. Called in the transaction that ends the job. False: it was settled before.
create function settle_job(p_job uuid, p_kept bigint) returns boolean language plpgsql as $$
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
  return true;
end $$;
