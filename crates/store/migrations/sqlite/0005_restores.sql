-- Archived objects that were asked to be restored and are waited for.
CREATE TABLE restores (
  task_id  BIGINT NOT NULL,
  key      BLOB   NOT NULL,
  size     BIGINT NOT NULL,
  asked_at BIGINT NOT NULL,
  PRIMARY KEY (task_id, key)
);
