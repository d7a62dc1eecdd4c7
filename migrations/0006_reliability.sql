-- Who holds the lease, so that a worker that vanished can be named: host:pid:start.
alter table jobs add column worker text;
-- The workers whose leases lapsed while they acted on the job; none again with every fact that is learned.
alter table jobs add column vanished text[] not null default '{}';
-- Three of them are dead: nothing of it is bought or stored any more.
alter table jobs add column set_aside_at timestamptz;

-- Which workers live: one that was only cut off from the database for a while is no victim of its job. A row is
-- written every 3 s; `since` begins anew after a gap.
create table workers (
  id text primary key,
  since timestamptz not null default now(),
  seen_at timestamptz not null default now()
);
create index workers_seen on workers (seen_at);

-- From when on nobody writes the order any more.
alter table runs add column quiet_from timestamptz;
-- Complete readings of the provider's list that did not show the run, since it was last sent.
alter table runs add column readings int not null default 0;

-- What was begun is woken whenever it is due. What is new waits in the queue, however long, and is woken only when the
-- queue has too few entries left: then it has lost them.
create index jobs_due_begun on jobs (due_at) where status in ('pending', 'processing') and epoch > 0;
create index jobs_due_new on jobs (kind, due_at) where status = 'pending' and epoch = 0;
-- jobs_due stays: the audit reads by it, and so do workers of the release before while they are replaced.
