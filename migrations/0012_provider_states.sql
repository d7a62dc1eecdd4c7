-- What the fleet knows together about its accounts at providers: how fast they may be asked, whether they answer, and
-- whether they are in order. Not money, and not truth about any job: a state that is lost is learned anew in seconds.
--
-- One row for each account is enough: providers grant us 5 to 100 orders a second, and one row gave 1,200 turns a second
-- to two processes on two busy cores (measured), because nobody waits for the disk while holding it (see below).
create table provider_states (
  -- The account: "replicate", "replicate_2", "sandbox".
  provider text primary key,

  -- The token bucket. Null per_second: the provider publishes no limit, and until it says 429 there is no bucket.
  per_second float8 check (per_second > 0),
  burst float8 check (burst >= 1),
  level float8 not null default 0,
  refilled_at timestamptz,
  -- Learned from 429s, in place of per_second and with a burst of 1; null: nothing to be learned. As it was at paced_at:
  -- see grown_pace.
  pace float8 check (pace > 0),
  paced_at timestamptz,
  -- No order before this: the provider's Retry-After.
  not_before timestamptz,
  -- The 429s in a row, with no order accepted in between; those of one moment are one.
  throttles int not null default 0 check (throttles >= 0),
  -- The latest time at which somebody who was put off was told to come again. One interval apart, so that a thousand
  -- who wait do not come all at once, again and again.
  promised_at timestamptz,

  -- The breaker. The orders to which there was no answer; each answer in between takes one back, and five open it.
  silent_runs uuid[] not null default '{}',
  silent_at timestamptz,
  -- How often it has opened since it was last closed. 0: closed.
  openings int not null default 0 check (openings >= 0),
  opened_at timestamptz,
  -- Open until then; afterwards half-open: one order may try.
  open_until timestamptz,

  -- Paused, because the provider refuses us: no credit (402), or no such token (401).
  paused_reason text check (paused_reason in ('provider_no_credit', 'provider_auth')),
  paused_since timestamptz,
  -- When the next order may try whether it is over.
  probe_at timestamptz,

  -- The one order that tries, of a half-open breaker or of a pause. Nobody else does before canary_until: then it is
  -- taken for dead.
  canary_run uuid,
  canary_until timestamptz,

  -- By the provider's name of a model: {"queued": 3, "running": 2, "workers": {"idle": 1, …}, "at": ms since 1970}.
  load jsonb not null default '{}',
  -- What the log was last told: closed, open, or why it is paused. One process of the fleet says each change.
  told text not null default 'closed',
  updated_at timestamptz not null default now(),

  check ((pace is null) = (paced_at is null)),
  check ((openings = 0) = (open_until is null)),
  check ((paused_reason is null) = (probe_at is null)),
  check ((canary_run is null) = (canary_until is null))
);
alter table provider_states enable row level security;

insert into chores (name) values ('loads');

-- Locks the row of an account, made if it is new. For statements that stand alone: the commit does not wait for the
-- disk, so the row is held for a fraction of a millisecond. What a crash of the database forgets is harmless.
create function lock_provider_state(p_provider text) returns provider_states language plpgsql as $$
declare s provider_states;
begin
  perform set_config('synchronous_commit', 'off', true);
  select * into s from provider_states where provider = p_provider for update;
  if not found then
    insert into provider_states (provider) values (p_provider) on conflict do nothing;
    select * into strict s from provider_states where provider = p_provider for update;
  end if;
  return s;
end $$;

-- The pace at a time: twice as fast for every half minute since it was noted, null once it is what it was before. It
-- grows with each order that is accepted, too (note_answer): but at one order in ten seconds that alone takes minutes to
-- double. While nothing has been accepted since the last 429 it does not grow.
create function grown_pace(s provider_states, p_per_second float8, at timestamptz) returns float8 language sql as $$
  with grown as (
    select s.pace * 2 ^ case when s.throttles > 0 then 0
      else least(greatest(extract(epoch from at - s.paced_at), 0) / 30, 20) end as pace
  )
  -- Without a published limit there is none again from the pace on of which a first 429 takes its share. Then the burst
  -- is back, too: what was refused long enough ago says nothing any more.
  select case when s.throttles > 0 or pace < coalesce(p_per_second, 8) then pace end from grown
$$;

-- May this run be sent now? Answers go, or how long to wait, why, and since when that is so. Asked twice for one run it
-- takes at most two tokens, and a canary stays the canary. p_per_second null: no bucket.
create function take_turn(
  p_provider text, p_run uuid, p_per_second float8, p_burst float8, p_canary_seconds float8,
  out go boolean, out wait_seconds float8, out reason text, out since timestamptz
) language plpgsql as $$
declare
  s provider_states;
  -- The clock of the database, read when the row is ours: now() stood still while we waited for it.
  at timestamptz;
  rate float8;
  most float8;
  canary boolean := false;
  promised timestamptz;
  -- Whoever waits for a canary asks again after this.
  canary_pause constant float8 := 5;
  -- Nobody is put off for longer: by then the pace has changed.
  most_wait constant interval := '60 seconds';
begin
  go := false;
  select * into s from provider_states where provider = p_provider;
  -- Nothing to wait for and nothing to count: nothing is written.
  if found and p_per_second is null and s.pace is null and s.not_before is null and s.openings = 0
     and s.paused_reason is null then
    go := true;
    return;
  end if;
  s := lock_provider_state(p_provider);
  at := clock_timestamp();

  if s.canary_run = p_run and s.canary_until > at then
    go := true;
    return;
  end if;
  if s.paused_reason is not null then
    reason := s.paused_reason; since := s.paused_since;
    wait_seconds := greatest(extract(epoch from s.probe_at - at), case when s.canary_until > at then canary_pause else 0 end);
    if wait_seconds > 0 then return; end if;
    canary := true;
  end if;
  if s.openings > 0 then
    reason := 'provider_unavailable'; since := s.opened_at;
    wait_seconds := greatest(extract(epoch from s.open_until - at), case when s.canary_until > at then canary_pause else 0 end);
    if wait_seconds > 0 then return; end if;
    canary := true;
  end if;

  s.pace := grown_pace(s, p_per_second, at);
  s.paced_at := case when s.pace is not null then at end;
  -- Learned before anybody knew what is published, the pace may be the greater one.
  rate := least(s.pace, p_per_second);
  most := case when s.pace is null then p_burst else 1 end;
  if rate is not null then
    -- A clock that was set back costs what would have been refilled, no more.
    s.level := case when s.refilled_at is null then most
      else least(most, s.level + greatest(0, extract(epoch from at - s.refilled_at)) * rate) end;
    s.refilled_at := at;
  end if;
  if s.not_before > at or (rate is not null and s.level < 1) then
    reason := 'rate_limited'; since := at;
    promised := greatest(s.promised_at, s.not_before, at);
    if rate is not null and s.level < 1 then
      promised := greatest(promised, at + make_interval(secs => least((1 - s.level) / rate, 86400)));
    end if;
    promised := least(promised, greatest(s.not_before, at) + most_wait);
    -- A learned pace will have grown by then: twice as many are told to come.
    s.promised_at := promised + make_interval(secs => least(case when s.pace is null then 1 else 0.5 end / coalesce(rate, 1), 60));
    wait_seconds := extract(epoch from promised - at);
    canary := false;
  else
    go := true;
    if rate is not null then s.level := s.level - 1; end if;
    reason := null; since := null; wait_seconds := 0;
  end if;

  update provider_states set
    per_second = p_per_second, burst = p_burst, pace = s.pace, paced_at = s.paced_at,
    level = s.level, refilled_at = s.refilled_at,
    not_before = case when s.not_before > at then s.not_before end,
    promised_at = s.promised_at,
    canary_run = case when canary then p_run else canary_run end,
    canary_until = case when canary then at + make_interval(secs => p_canary_seconds) else canary_until end,
    -- Should the canary die, the next one comes no sooner than after any other.
    probe_at = case when canary and paused_reason is not null then at + interval '60 seconds' else probe_at end,
    updated_at = at
  where provider = p_provider;
end $$;

-- What became of a run that had its turn, in one word: accepted, answered (refused for what it asked), throttled (429),
-- silent (nobody knows, or nobody answered), provider_no_credit, provider_auth. Noted twice it changes nothing more, but
-- for a pace that grows: a silence is counted once for each run, and a canary answers once.
create function note_answer(p_provider text, p_run uuid, p_says text, p_retry_seconds float8) returns void
language plpgsql as $$
declare
  s provider_states;
  at timestamptz;
  canary boolean;
  -- Five orders without an answer more than with one, each within a minute of the one before. Not five in a row: of
  -- orders that fail at seven in ten it takes twelve until five of them stand side by side.
  enough constant int := 5;
  series constant interval := '60 seconds';
  -- Open for 10 s, then 20, 40 … to 300.
  first_open constant float8 := 10;
  most_open constant float8 := 300;
  probe_pause constant interval := '60 seconds';
  -- A 429 takes three tenths of the pace, and each order that is accepted gives a twentieth: where one order in nine is
  -- refused whatever the pace, because it is the model that is busy, it does not shrink.
  slower constant float8 := 0.7;
  faster constant float8 := 1.05;
  -- Orders a second of an account without a bucket, of which a first 429 takes its share.
  free_pace constant float8 := 8;
  -- What Replicate grants an account without credit, the least that anybody publishes. Who grants less says 429 again at
  -- once, and is asked ever more rarely for that.
  least_pace constant float8 := 0.1;
  -- No Retry-After is believed for longer: then one order asks again.
  most_retry constant float8 := 3600;
  -- After a second 429 in a row, at the least: 2 s, then 4, 8 … to 60.
  most_pause constant float8 := 60;
begin
  if p_says not in ('accepted', 'answered', 'throttled', 'silent', 'provider_no_credit', 'provider_auth') then
    raise exception 'note_answer knows no %', p_says;
  end if;
  select * into s from provider_states where provider = p_provider;
  -- All is well and was before: nothing is written.
  if p_says in ('accepted', 'answered') and (not found or (s.silent_runs = '{}' and s.openings = 0
     and s.paused_reason is null and s.canary_run is null and s.pace is null and s.throttles = 0)) then
    return;
  end if;
  s := lock_provider_state(p_provider);
  at := clock_timestamp();
  canary := coalesce(s.canary_run = p_run, false);
  if canary then
    s.canary_run := null; s.canary_until := null;
  end if;

  if p_says = 'silent' then
    if s.openings = 0 then
      -- Silences that lie further apart are no series.
      if s.silent_at < at - series then s.silent_runs := '{}'; end if;
      if not p_run = any (s.silent_runs) then s.silent_runs := s.silent_runs || p_run; end if;
      s.silent_at := at;
    end if;
    -- Who was under way when it opened tells nothing new.
    if cardinality(s.silent_runs) >= enough or (canary and s.openings > 0) then
      s.opened_at := case when s.openings = 0 then at else s.opened_at end;
      s.openings := least(s.openings + 1, 20);
      s.open_until := at + make_interval(secs => least(first_open * 2 ^ (s.openings - 1), most_open));
      s.silent_runs := '{}';
    end if;
  elsif s.openings = 0 then
    s.silent_runs := s.silent_runs[2:];
  elsif canary then
    -- Any answer at all says that somebody is there; while it is open, only the canary's is from now.
    s.openings := 0; s.opened_at := null; s.open_until := null; s.silent_runs := '{}';
  end if;

  if p_says = 'throttled' then
    -- What was under way at the first 429 is no reason to go slower still.
    if s.not_before is null or s.not_before <= at then
      -- Another one with nothing accepted in between says nothing about the pace: then nobody is served at all, and is
      -- told a Retry-After that is too short.
      if s.throttles = 0 then
        s.pace := greatest(least_pace, coalesce(grown_pace(s, s.per_second, at), s.per_second, free_pace) * slower);
        s.paced_at := at;
      else
        s.not_before := at + make_interval(secs => least(2 ^ least(s.throttles, 10), most_pause));
      end if;
      s.throttles := s.throttles + 1;
    end if;
    s.not_before := greatest(s.not_before, at + make_interval(secs => least(p_retry_seconds, most_retry)));
    -- The first turn after it is there at once.
    s.level := 1; s.refilled_at := at;
    s.promised_at := greatest(s.promised_at, s.not_before);
  elsif p_says = 'accepted' then
    s.pace := grown_pace(s, s.per_second, at) * faster;
    s.paced_at := case when s.pace is not null then at end;
    s.throttles := 0;
  end if;

  if p_says in ('provider_no_credit', 'provider_auth') then
    if s.paused_reason is null then
      s.paused_reason := p_says; s.paused_since := at; s.probe_at := at + probe_pause;
    elsif canary or s.probe_at <= at then
      -- Also of one that was refused before it had its turn: the next need not try so soon.
      s.paused_reason := p_says; s.probe_at := at + probe_pause;
    end if;
  elsif s.paused_reason is not null and canary then
    if p_says = 'accepted' then
      s.paused_reason := null; s.paused_since := null; s.probe_at := null;
    elsif p_says = 'answered' then
      -- It was refused for itself before anybody looked at our account: the next one in line tries.
      s.probe_at := at;
    end if;
  end if;

  update provider_states set
    level = s.level, refilled_at = s.refilled_at, pace = s.pace, paced_at = s.paced_at, not_before = s.not_before,
    throttles = s.throttles, promised_at = s.promised_at,
    silent_runs = s.silent_runs, silent_at = s.silent_at,
    openings = s.openings, opened_at = s.opened_at, open_until = s.open_until,
    paused_reason = s.paused_reason, paused_since = s.paused_since, probe_at = s.probe_at,
    canary_run = s.canary_run, canary_until = s.canary_until, updated_at = at
  where provider = p_provider;
end $$;
