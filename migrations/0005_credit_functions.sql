-- The functions that existing products call by name. They take the app from the metadata's "app", else from the
-- setting darkroom.app (set it per role or database), else it is the only app there is. Plans are kept per session and
-- may have been made when the tables were empty: without the setting on them they would go on scanning.
create function credit_app(p_metadata jsonb) returns text language plpgsql stable as $$
declare
  named text := coalesce(p_metadata ->> 'app', nullif(current_setting('darkroom.app', true), ''));
  only_app text;
begin
  if named is not null then
    if not exists (select 1 from apps where id = named) then
      raise exception 'there is no app "%"', named using hint = 'Name one of the apps table in metadata.app.';
    end if;
    return named;
  end if;
  select min(id) into only_app from apps having count(*) = 1;
  if only_app is null then
    raise exception 'which app?' using hint = 'Pass {"app": "…"} in the metadata or set darkroom.app.';
  end if;
  return only_app;
end $$;

-- What both functions refuse before they touch anything: amounts that are none, and jobs of this deployment.
create function check_credit_call(p_amount int, p_job uuid) returns void language plpgsql as $$
begin
  if p_amount is null or p_amount <= 0 then
    raise exception 'the amount must be a positive number of credits, not %', coalesce(p_amount::text, 'null');
  end if;
  if exists (select 1 from jobs where id = p_job) then
    raise exception 'job % is charged and settled by Darkroom itself', p_job;
  end if;
end $$;

-- Charges a user, or refuses; never half. With a job, the same job is charged once: a second call answers as the first.
-- p_type is the caller's word for what is bought ("image", "video_5s"); it is kept in the entry's metadata.
create function atomic_charge_credits(
  p_user uuid, p_type text, p_amount int, p_description text, p_metadata jsonb default '{}', p_job uuid default null
) returns jsonb language plpgsql set enable_seqscan = off as $$
declare
  app text := credit_app(p_metadata);
  account accounts;
  before bigint;
begin
  perform check_credit_call(p_amount, p_job);
  account := lock_account(app, p_user::text);
  if p_job is not null then
    select -sum(amount) into before from credit_ledger
    where job_id = p_job and type = 'charge' and app_id = app and user_id = p_user::text;
    if before is not null then
      if before <> p_amount then
        raise exception 'job % was already charged % credits, not %', p_job, before, p_amount;
      end if;
      return jsonb_build_object('success', true, 'replayed', true, 'charged', before,
                                'new_balance', account.balance + account.allowance);
    end if;
  end if;
  if account.balance + account.allowance < p_amount then
    return jsonb_build_object('success', false, 'error', 'insufficient_credits', 'required', p_amount,
                              'available', account.balance + account.allowance);
  end if;
  perform debit(account, p_amount, p_job, coalesce(p_description, p_type), coalesce(p_metadata, '{}') || jsonb_build_object('type', p_type));
  return jsonb_build_object('success', true, 'replayed', false, 'charged', p_amount,
                            'new_balance', account.balance + account.allowance - p_amount);
end $$;

-- Gives credits back. With a job: what was charged for it, to the buckets it came from, once, and never more than was
-- charged. Without one: to the balance; pass a "key" in the metadata to make it repeatable.
create function refund_credits(
  p_user uuid, p_amount int, p_description text, p_metadata jsonb default '{}', p_job uuid default null
) returns jsonb language plpgsql set enable_seqscan = off as $$
declare
  app text := credit_app(p_metadata);
  account accounts;
  refund_key text := 'refund:' || (p_metadata ->> 'key');
  given bigint;
  charged bigint;
  refunded bigint;
begin
  perform check_credit_call(p_amount, p_job);
  account := lock_account(app, p_user::text);
  if p_job is null then
    if refund_key is not null and exists (
      select 1 from credit_ledger where app_id = app and user_id = p_user::text and key = refund_key) then
      given := 0;
    else
      perform post_entry(app, p_user::text, 'refund', 'balance', p_amount, null, refund_key, p_description, p_metadata);
      given := p_amount;
    end if;
  else
    select coalesce(-sum(amount) filter (where type = 'charge'), 0), coalesce(sum(amount) filter (where type = 'refund'), 0)
    into charged, refunded from credit_ledger
    where job_id = p_job and app_id = app and user_id = p_user::text;
    if p_amount > charged then
      raise exception 'job % was charged % credits: % cannot be given back', p_job, charged, p_amount;
    end if;
    -- Given back before: the same answer, no second refund.
    given := case when refunded > 0 then 0 else give_back(app, p_user::text, p_job, p_amount, p_description, p_metadata) end;
  end if;
  select * into account from accounts where app_id = app and user_id = p_user::text;
  return jsonb_build_object('success', true, 'refunded', given, 'replayed', given = 0,
                            'new_balance', account.balance + account.allowance);
end $$;
