-- A batch that was canceled while its API died midway has items without an answer, and nobody to give them one: a worker
-- looks for such batches every ten minutes.
create index batches_to_conclude on batches (cancel_requested_at)
  where cancel_requested_at is not null and accepted_at is null;
