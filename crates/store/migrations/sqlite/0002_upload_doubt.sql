-- An upload that was asked for and whose answer was lost may begin late: it is looked for again at the end.
-- 0: none such; 1: there may be one beside the upload of this row; 2: there may be one, and the object is done.
ALTER TABLE uploads ADD COLUMN doubt BIGINT NOT NULL DEFAULT 0;
