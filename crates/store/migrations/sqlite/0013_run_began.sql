-- When the present run of a task began. A pause and a resume belong to one run; failures noted before it are of another.
ALTER TABLE tasks ADD COLUMN run_began_at BIGINT NOT NULL DEFAULT 0;
UPDATE tasks SET run_began_at = COALESCE(started_at, created_at);
