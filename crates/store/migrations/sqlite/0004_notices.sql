-- Notices of ended tasks and groups, written with the end itself and posted until they arrive or are given up.
CREATE TABLE notices (
  about    TEXT   PRIMARY KEY,
  topic    TEXT   NOT NULL,
  body     TEXT   NOT NULL,
  attempts BIGINT NOT NULL DEFAULT 0,
  next_at  BIGINT NOT NULL,
  state    TEXT   NOT NULL,
  code     TEXT   NOT NULL DEFAULT ''
);
CREATE INDEX notices_by_time ON notices (state, next_at);
