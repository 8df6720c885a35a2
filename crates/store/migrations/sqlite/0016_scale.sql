-- Specs with long lists of keys. The row of the task or group has the beginning of the list only, as lists show it.
CREATE TABLE long_specs (
  owner TEXT PRIMARY KEY,
  spec  TEXT NOT NULL
);
ALTER TABLE tasks ADD COLUMN shortened BIGINT NOT NULL DEFAULT 0;
ALTER TABLE task_groups ADD COLUMN shortened BIGINT NOT NULL DEFAULT 0;
-- The dispatcher reads waiting tasks, and a group the states of its members, from an index alone.
DROP INDEX tasks_by_state;
CREATE INDEX tasks_by_state ON tasks (observed, project, member_kind, priority, queued_at, id, member_of, desired);
DROP INDEX tasks_by_owner;
CREATE INDEX tasks_by_owner ON tasks (member_of, created_at, id, observed, desired);
