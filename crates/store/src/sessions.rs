//! Sessions: the processes that work on one database, and duties that one of them at a time has.
//!
//! A session renews its row every [`crate::RENEW_INTERVAL`]; a row that was not renewed for [`crate::LEASE_MS`] is of a
//! process that has ended or cannot reach the database. Tasks and migrations have leases of their own, which name the
//! session as their owner.

use model::error::Result;

use crate::{LEASE_MS, Row, StoreTx, args};

/// Rows of sessions that ended so long ago are removed, milliseconds.
const KEEP_MS: i64 = 3_600_000;

/// A process that works on this database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Identity, random.
    pub id: String,
    /// Name of the machine.
    pub host: String,
    /// `server` or `worker`.
    pub role: String,
    /// Version of the program.
    pub version: String,
    /// Since when, milliseconds.
    pub started_at: i64,
    /// Until when it is taken to be alive, milliseconds.
    pub lease_until: i64,
    /// It takes no more work and gives back what it has.
    pub draining: bool,
}

fn row(r: &Row) -> Result<Session> {
    Ok(Session {
        id: r.text(0)?.to_owned(),
        host: r.text(1)?.to_owned(),
        role: r.text(2)?.to_owned(),
        version: r.text(3)?.to_owned(),
        started_at: r.int(4)?,
        lease_until: r.int(5)?,
        draining: r.int(6)? != 0,
    })
}

impl StoreTx {
    /// Adds or renews a session; true when it has been asked to drain.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew_session(&mut self, s: &Session, now: i64) -> Result<bool> {
        let sql = "INSERT INTO sessions (id, host, role, version, started_at, lease_until) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until";
        let args = args![
            s.id.as_str(),
            s.host.as_str(),
            s.role.as_str(),
            s.version.as_str(),
            s.started_at,
            now + LEASE_MS
        ];
        self.tx.execute(sql, args).await?;
        self.tx.execute("DELETE FROM sessions WHERE lease_until < $1", args![now - KEEP_MS]).await?;
        let rows = self.tx.query("SELECT draining FROM sessions WHERE id = $1", args![s.id.as_str()]).await?;
        rows.first().map_or(Ok(false), |r| Ok(r.int(0)? != 0))
    }

    /// Removes a session that ends in good order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_session(&mut self, id: &str) -> Result<()> {
        self.tx.execute("DELETE FROM sessions WHERE id = $1", args![id]).await?;
        self.tx.execute("DELETE FROM duties WHERE owner = $1", args![id]).await?;
        self.wakes = true;
        Ok(())
    }

    /// All sessions, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sessions(&mut self) -> Result<Vec<Session>> {
        let sql = "SELECT id, host, role, version, started_at, lease_until, draining FROM sessions \
                   ORDER BY started_at, id LIMIT 10000";
        self.tx.query(sql, args![]).await?.iter().map(row).collect()
    }

    /// Asks a session to drain; false when there is none of this identity.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drain_session(&mut self, id: &str) -> Result<bool> {
        let changed = self.tx.execute("UPDATE sessions SET draining = 1 WHERE id = $1", args![id]).await?;
        self.wakes = true;
        Ok(changed == 1)
    }

    /// Takes or keeps a duty; false when another session has it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_duty(&mut self, name: &str, owner: &str, now: i64) -> Result<bool> {
        let sql = "INSERT INTO duties (name, owner, lease_until) VALUES ($1, $2, $4) \
                   ON CONFLICT (name) DO UPDATE SET owner = $2, lease_until = $4 \
                   WHERE duties.owner = $2 OR duties.lease_until < $3";
        Ok(self.tx.execute(sql, args![name, owner, now, now + LEASE_MS]).await? == 1)
    }
}

#[cfg(test)]
mod tests {
    use crate::Store;

    use super::*;

    #[tokio::test]
    async fn duty_has_one_owner_until_its_lease_ends() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        assert!(tx.take_duty("scheduler", "a", 0).await.unwrap());
        assert!(!tx.take_duty("scheduler", "b", LEASE_MS).await.unwrap());
        assert!(tx.take_duty("scheduler", "a", LEASE_MS).await.unwrap());
        assert!(tx.take_duty("scheduler", "b", 2 * LEASE_MS + 1).await.unwrap());
        assert!(!tx.take_duty("scheduler", "a", 2 * LEASE_MS + 2).await.unwrap());
        tx.end_session("b").await.unwrap();
        assert!(tx.take_duty("scheduler", "a", 2 * LEASE_MS + 3).await.unwrap());
    }

    #[tokio::test]
    async fn session_is_renewed_drained_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let session = |id: &str| Session {
            id: id.into(),
            host: "h".into(),
            role: "worker".into(),
            version: "1".into(),
            started_at: 0,
            lease_until: 0,
            draining: false,
        };
        assert!(!tx.renew_session(&session("a"), 10).await.unwrap());
        assert!(tx.drain_session("a").await.unwrap() && !tx.drain_session("b").await.unwrap());
        assert!(tx.renew_session(&session("a"), 20).await.unwrap(), "it is told to drain");
        assert_eq!(tx.sessions().await.unwrap()[0].lease_until, 20 + LEASE_MS);
        tx.renew_session(&session("b"), 30 + LEASE_MS + KEEP_MS).await.unwrap();
        assert_eq!(tx.sessions().await.unwrap().len(), 1, "the first has ended long ago");
    }
}
