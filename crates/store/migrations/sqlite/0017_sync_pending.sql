-- Keys that wait in a sync task: an event does not count them.
ALTER TABLE sync_tasks ADD COLUMN pending BIGINT NOT NULL DEFAULT 0;
UPDATE sync_tasks SET pending = (SELECT COUNT(*) FROM sync_events e WHERE e.sync_id = sync_tasks.id);
