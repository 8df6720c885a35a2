-- All that a list of tasks is filtered and sorted by stands in the index: specs are read for the page alone.
DROP INDEX tasks_by_project;
CREATE INDEX tasks_by_project ON tasks (project, created_at, id, observed, desired, member_of, name);
