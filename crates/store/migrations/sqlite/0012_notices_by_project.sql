-- Whose a notice is, so that the webhooks of one project do not delay those of others. Notices of before are nobody's.
ALTER TABLE notices ADD COLUMN project TEXT NOT NULL DEFAULT '';
