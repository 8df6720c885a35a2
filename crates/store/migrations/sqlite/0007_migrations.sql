-- Redis migrations: what was asked for, where they are, and what they said.
CREATE TABLE migrations (
  id          TEXT   PRIMARY KEY,
  project     TEXT   NOT NULL,
  name        TEXT   NOT NULL,
  description TEXT   NOT NULL,
  kind        TEXT   NOT NULL,
  spec        TEXT   NOT NULL,
  secrets     TEXT,
  phase       TEXT   NOT NULL,
  switch      TEXT,
  cutover     TEXT   NOT NULL DEFAULT '{}',
  job         TEXT   NOT NULL UNIQUE,
  stats       TEXT   NOT NULL DEFAULT '{}',
  error       TEXT,
  created_at  BIGINT NOT NULL,
  updated_at  BIGINT,
  released_at BIGINT,
  owner       TEXT,
  lease_until BIGINT NOT NULL DEFAULT 0,
  fence       BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX migrations_by_project ON migrations (project, created_at);
CREATE INDEX migrations_by_phase ON migrations (phase);

CREATE TABLE migration_logs (
  migration_id TEXT   NOT NULL,
  seq          BIGINT NOT NULL,
  at           BIGINT NOT NULL,
  level        TEXT   NOT NULL,
  code         TEXT   NOT NULL,
  message      TEXT   NOT NULL,
  keywords     TEXT   NOT NULL,
  PRIMARY KEY (migration_id, seq)
);

-- Where clients are led to after a cut-over; an instance without a row is where the configuration says.
CREATE TABLE instances (
  id     TEXT PRIMARY KEY,
  stands TEXT NOT NULL
);

-- Backups of instances that this service made.
CREATE TABLE backups (
  id          TEXT   PRIMARY KEY,
  project     TEXT   NOT NULL,
  instance_id TEXT   NOT NULL,
  remark      TEXT   NOT NULL,
  status      TEXT   NOT NULL,
  size        BIGINT NOT NULL DEFAULT 0,
  error       TEXT,
  created_at  BIGINT NOT NULL,
  updated_at  BIGINT NOT NULL
);
