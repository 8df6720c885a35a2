-- The order that listings of each end were found to keep, where it is not the one that the store declares.
ALTER TABLE tasks ADD COLUMN source_order TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN target_order TEXT NOT NULL DEFAULT '';
