-- The token that a token was exchanged for, by hash, so that revoking one ends all that came of it. Tokens of before have none.
ALTER TABLE tokens ADD COLUMN parent TEXT NOT NULL DEFAULT '';
CREATE INDEX tokens_by_parent ON tokens (parent);
