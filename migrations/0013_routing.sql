-- Why a run was ordered from this account and from no other, as a sentence: "fal: number 2 in line; replicate is paused,
-- its account is out of credit". What it rests on (queues, prices, breakers) is another a minute later, so it is kept.
-- Null: from before reasons were kept.
alter table runs add column route_why text;
