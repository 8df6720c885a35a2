-- Where a call came from, and as what; and a row that proves that the database can be written.
ALTER TABLE audit ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN role    TEXT NOT NULL DEFAULT '';
CREATE INDEX audit_by_project ON audit (project, at);
CREATE TABLE pulse (
  id BIGINT PRIMARY KEY,
  at BIGINT NOT NULL
);
