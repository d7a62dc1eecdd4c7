-- Who holds the lease, so that a worker that vanished can be named: host:pid:start.
alter table jobs add column worker text;
-- How often in a row a worker's lease lapsed while it acted on the job; 0 again with every fact that is learned.
alter table jobs add column deaths int not null default 0;
-- Three in a row: nothing of it is bought or stored any more.
alter table jobs add column set_aside_at timestamptz;

-- From when on nobody writes the order any more.
alter table runs add column quiet_from timestamptz;
-- Complete readings of the provider's list that did not show the run, since it was last sent.
alter table runs add column readings int not null default 0;
