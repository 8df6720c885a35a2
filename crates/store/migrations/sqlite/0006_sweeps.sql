-- A sync task may look through its whole bucket now and then; when the next time is due, and whether the batch under
-- way is such a look.
ALTER TABLE sync_tasks ADD COLUMN sweep_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sync_tasks ADD COLUMN sweeping BIGINT NOT NULL DEFAULT 0;
