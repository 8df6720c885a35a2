-- What a task belongs to: nothing, a sync task whose events it works off, or a task group.
ALTER TABLE tasks ADD COLUMN member_kind TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN member_of   TEXT NOT NULL DEFAULT '';
CREATE INDEX tasks_by_owner ON tasks (member_of);

-- Sync tasks: events name keys, a batch of them at a time becomes a task of its own.
CREATE TABLE sync_tasks (
  id         TEXT   PRIMARY KEY,
  project    TEXT   NOT NULL,
  spec       TEXT   NOT NULL,
  secrets    TEXT   NOT NULL,
  running    BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  started_at BIGINT NOT NULL,
  next_event BIGINT NOT NULL DEFAULT 1,
  batch_task BIGINT,
  batch_upto BIGINT NOT NULL DEFAULT 0,
  retry_at   BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX sync_tasks_by_project ON sync_tasks (project, created_at);

-- Keys waiting to be synchronised, each once, with the number of its latest event.
CREATE TABLE sync_events (
  sync_id TEXT   NOT NULL,
  key     TEXT   NOT NULL,
  number  BIGINT NOT NULL,
  PRIMARY KEY (sync_id, key)
);
CREATE INDEX sync_events_by_number ON sync_events (sync_id, number);

-- Counts by five minutes.
CREATE TABLE sync_counts (
  sync_id TEXT   NOT NULL,
  kind    TEXT   NOT NULL,
  slot    BIGINT NOT NULL,
  n       BIGINT NOT NULL,
  PRIMARY KEY (sync_id, kind, slot)
);

CREATE TABLE task_groups (
  id         TEXT   PRIMARY KEY,
  project    TEXT   NOT NULL,
  kind       TEXT   NOT NULL,
  spec       TEXT   NOT NULL,
  secrets    TEXT,
  phase      TEXT   NOT NULL,
  made       BIGINT NOT NULL DEFAULT 0,
  created_at BIGINT NOT NULL,
  started_at BIGINT NOT NULL,
  ended_at   BIGINT,
  error_kind TEXT,
  error_side TEXT,
  error_msg  TEXT
);
CREATE INDEX task_groups_by_project ON task_groups (project, created_at);
