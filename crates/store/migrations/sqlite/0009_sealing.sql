-- What proves that the keyring is the one that sealed this database's secrets.
CREATE TABLE sealing (
  id    BIGINT PRIMARY KEY,
  proof TEXT NOT NULL
);
