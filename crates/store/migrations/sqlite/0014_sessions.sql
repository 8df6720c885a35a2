-- Processes that work on this database, what one of them at a time does for all, and outcomes that any of them can read.
CREATE TABLE sessions (
  id          TEXT   PRIMARY KEY,
  host        TEXT   NOT NULL,
  role        TEXT   NOT NULL,
  version     TEXT   NOT NULL,
  started_at  BIGINT NOT NULL,
  lease_until BIGINT NOT NULL,
  draining    BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE duties (
  name        TEXT   PRIMARY KEY,
  owner       TEXT   NOT NULL,
  lease_until BIGINT NOT NULL
);
CREATE TABLE outcome_chunks (
  task_id BIGINT NOT NULL,
  at      BIGINT NOT NULL,
  lines   BLOB   NOT NULL,
  PRIMARY KEY (task_id, at)
);
