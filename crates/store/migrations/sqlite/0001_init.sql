-- Tasks: what was asked for (spec, desired) and what is so (observed), side by side.
CREATE TABLE tasks (
  id          BIGINT PRIMARY KEY,
  project     TEXT   NOT NULL,
  name        TEXT   NOT NULL UNIQUE,
  spec        TEXT   NOT NULL,
  secrets     TEXT,
  priority    BIGINT NOT NULL,
  desired     TEXT   NOT NULL,
  observed    TEXT   NOT NULL,
  created_at  BIGINT NOT NULL,
  queued_at   BIGINT NOT NULL,
  started_at  BIGINT,
  ended_at    BIGINT,
  running_ms  BIGINT NOT NULL DEFAULT 0,
  retry_at    BIGINT NOT NULL DEFAULT 0,
  attempts    BIGINT NOT NULL DEFAULT 0,
  failed_only BIGINT NOT NULL DEFAULT 0,
  scan_over   BIGINT NOT NULL DEFAULT 0,
  error_kind  TEXT,
  error_side  TEXT,
  error_msg   TEXT,
  note        TEXT   NOT NULL DEFAULT '',
  records     TEXT   NOT NULL DEFAULT '{}',
  outcome_len BIGINT NOT NULL DEFAULT 0,
  owner       TEXT,
  lease_until BIGINT NOT NULL DEFAULT 0,
  fence       BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX tasks_by_project ON tasks (project, created_at);
CREATE INDEX tasks_by_state ON tasks (observed, priority, queued_at);

-- The ledger: ranges of one task's key space. Every key up to the cursor is settled, plus those in ahead.
CREATE TABLE ranges (
  task_id        BIGINT NOT NULL,
  id             BIGINT NOT NULL,
  pass           TEXT   NOT NULL,
  scope          TEXT   NOT NULL,
  upto           BLOB,
  cursor         BLOB   NOT NULL,
  ahead          BLOB   NOT NULL,
  done           BIGINT NOT NULL DEFAULT 0,
  copied         BIGINT NOT NULL DEFAULT 0,
  copied_bytes   BIGINT NOT NULL DEFAULT 0,
  skipped        BIGINT NOT NULL DEFAULT 0,
  skipped_bytes  BIGINT NOT NULL DEFAULT 0,
  failed         BIGINT NOT NULL DEFAULT 0,
  failed_bytes   BIGINT NOT NULL DEFAULT 0,
  gone           BIGINT NOT NULL DEFAULT 0,
  gone_bytes     BIGINT NOT NULL DEFAULT 0,
  deleted        BIGINT NOT NULL DEFAULT 0,
  deleted_bytes  BIGINT NOT NULL DEFAULT 0,
  proof_digest   BIGINT NOT NULL DEFAULT 0,
  proof_etag     BIGINT NOT NULL DEFAULT 0,
  proof_crc64    BIGINT NOT NULL DEFAULT 0,
  proof_size     BIGINT NOT NULL DEFAULT 0,
  owner          TEXT,
  lease_until    BIGINT NOT NULL DEFAULT 0,
  fence          BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (task_id, id)
);

-- Open multipart uploads and their finished parts.
CREATE TABLE uploads (
  task_id   BIGINT NOT NULL,
  key       BLOB   NOT NULL,
  etag      TEXT   NOT NULL,
  upload    TEXT   NOT NULL,
  part_size BIGINT NOT NULL,
  size      BIGINT NOT NULL,
  parts     TEXT   NOT NULL,
  PRIMARY KEY (task_id, key)
);

-- Failed objects only, so that "retry failed only" is a query.
CREATE TABLE failures (
  task_id BIGINT NOT NULL,
  key     BLOB   NOT NULL,
  size    BIGINT NOT NULL,
  kind    TEXT   NOT NULL,
  side    TEXT   NOT NULL,
  op      TEXT   NOT NULL,
  message TEXT   NOT NULL,
  at      BIGINT NOT NULL,
  PRIMARY KEY (task_id, key)
);

CREATE TABLE tokens (
  hash       TEXT   PRIMARY KEY,
  user_name  TEXT   NOT NULL,
  project    TEXT,
  stamp      TEXT   NOT NULL,
  issued_at  BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
);

CREATE TABLE audit (
  at         BIGINT NOT NULL,
  request_id TEXT   NOT NULL,
  project    TEXT   NOT NULL,
  principal  TEXT   NOT NULL,
  action     TEXT   NOT NULL,
  target     TEXT   NOT NULL,
  status     BIGINT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);
