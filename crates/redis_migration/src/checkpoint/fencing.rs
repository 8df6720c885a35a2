//! One run of a migration writes at a time: the token says which, and the connections of any other are ended.

use std::time::Duration;

use model::error::{Error, Kind, Result, Side};
use redis_proto::command::SLOTS;
use redis_proto::resp::Reply;

use crate::checkpoint::keys::{KeyNames, new_token};
use crate::connection::client::Client;
use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;

/// The note if the target does not permit `CLIENT`.
pub(crate) const UNFENCED_NOTE: &str = "CLIENT is not permitted at the target: an earlier run of this migration cannot be disconnected. \
                                   If it is stalled, it may still write buffered changes";

/// How often a run checks its token where it cannot be disconnected.
pub(crate) const TOKEN_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a new run waits for that.
pub(super) const STALE_WRITER_TIMEOUT: Duration = Duration::from_millis(2500);

/// Waits until an earlier run has noticed that its fencing token is not valid any more.
pub(crate) async fn wait_for_stale_writers() {
    tokio::time::sleep(STALE_WRITER_TIMEOUT).await;
}

/// Ends every writer of these links: it loses its token and its connections.
///
/// # Errors
/// An error of a connection.
pub(crate) async fn evict_link_writers(
    target: &Node,
    query: &mut QueryClient,
    links: &[KeyNames],
) -> Result<()> {
    let mut fenced = true;
    for names in links {
        let token = new_token();
        query.execute(&names.fencing_token, &[b"SET", &names.fencing_token, token.as_bytes()]).await?;
        for addr in query.masters() {
            let mut writer = Client::open(&Node { db: None, ..target.at_addr(&addr) }).await?;
            fenced &= names.evict_stale_writers(query.client_at(&addr).await?, &mut writer).await?;
        }
    }
    if !fenced {
        wait_for_stale_writers().await;
    }
    Ok(())
}

/// No checkpoint counts any more; the fencing token stays.
///
/// # Errors
/// An error of a connection.
pub(crate) async fn invalidate(query: &mut QueryClient, names: &KeyNames) -> Result<()> {
    let mut keys =
        vec![names.checkpoint.clone(), names.suspects.clone(), names.scripts.clone(), names.failed.clone()];
    if query.is_cluster() {
        keys.extend((0..SLOTS).flat_map(|slot| [names.slot_checkpoint(slot), names.slot_suspects(slot)]));
    }
    query.select(0).await?;
    query.call_each(&keys, &[b"DEL"], &[]).await.map(drop)
}

impl KeyNames {
    /// Makes sure that only the run with `token` writes for this migration. Commands of another run may still wait in the
    /// target's buffers and would be applied later: its connection is ended. Must be called before the checkpoint is read, when
    /// `writer`, our own connection, has its name: a later run then finds it and ends it. The run that began last holds the
    /// token; `first` is true for the first attempt of a run. False where the target refuses `CLIENT`: the earlier run was given
    /// time to notice, and this one must check its token ([`KeyNames::verify_token`]).
    ///
    /// # Errors
    /// [`Kind::Conflict`] when another run has taken over; an error of a connection.
    pub async fn fence(
        &self,
        query: &mut Client,
        writer: &mut Client,
        token: &str,
        first: bool,
    ) -> Result<bool> {
        if first {
            query
                .execute(&[b"SET", &self.fencing_token, token.as_bytes()])
                .await
                .map_err(|f| f.at(Side::Target))?;
        }
        let fenced = self.evict_stale_writers(query, writer).await?;
        if !fenced {
            wait_for_stale_writers().await;
        }
        self.verify_token(query, token).await?;
        Ok(fenced)
    }

    /// The run that began last holds the token.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when that is another one.
    pub async fn verify_token(&self, query: &mut Client, token: &str) -> Result<()> {
        let fencing_token =
            query.call(&[b"GET", &self.fencing_token]).await.map_err(|f| f.at(Side::Target))?;
        if fencing_token == Reply::Nil {
            // The target has lost everything, and the token with it: the first run that comes takes it.
            query
                .execute(&[b"SET", &self.fencing_token, token.as_bytes(), b"NX"])
                .await
                .map_err(|f| f.at(Side::Target))?;
            return Ok(());
        }
        if fencing_token.text() != Some(token.as_bytes()) {
            let m = "another run of this migration has taken over at the target";
            return Err(Error::new(Kind::Conflict, "fence", m).at(Side::Target));
        }
        Ok(())
    }

    /// Names the connection that writes, and ends every other of that name; false where the target refuses `CLIENT`.
    ///
    /// # Errors
    /// An error of the connection.
    pub async fn evict_stale_writers(&self, query: &mut Client, writer: &mut Client) -> Result<bool> {
        let at = |f: Error| f.at(Side::Target);
        // Without transactions nothing is exact: better to know that now.
        writer.execute(&[b"MULTI"]).await.map_err(at)?;
        writer.execute(&[b"EXEC"]).await.map_err(at)?;
        match self.kill_other_writers(query, writer).await.map_err(at) {
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => Ok(false),
            done => done.map(|()| true),
        }
    }

    async fn kill_other_writers(&self, query: &mut Client, writer: &mut Client) -> Result<()> {
        // Servers before 5.0 know no `CLIENT ID`: it is known by its name.
        let all = format!("{}/", String::from_utf8_lossy(&self.writer_name));
        let own = format!("{all}{:016x}", fastrand::u64(..));
        writer.execute(&[b"CLIENT", b"SETNAME", own.as_bytes()]).await?;
        let reply = query.call(&[b"CLIENT", b"LIST"]).await?;
        let text = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
        for line in text.lines() {
            let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
            let (Some(id), Some(name)) = (field("id="), field("name=")) else { continue };
            if name.starts_with(&all) && name != own {
                // It may have ended since.
                query.call(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()]).await?;
            }
        }
        Ok(())
    }
}
