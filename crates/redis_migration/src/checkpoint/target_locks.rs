//! Migrations of one source that write the same keys of a target.
//!
//! Two names of one place make two migrations, each with a position of its own, and whoever went on from the older position would do
//! again what the other has done. So all that write to a target are listed there, with what they move and whose stream they
//! apply. A migration that takes a snapshot of the same keys invalidates the checkpoints of others: they end, and when they are started
//! again, they take a snapshot too.

use model::error::Result;
use redis_proto::resp::Reply;

use crate::checkpoint::fencing;
use crate::checkpoint::keys::KeyNames;
use crate::connection::RESERVED_PREFIX;
use crate::connection::client::Client;
use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;
use crate::connection::server::ServerInfo;
use crate::route::Route;

/// The key at the target, a hash: migration to its lock.
pub(crate) fn locks_key() -> Vec<u8> {
    [RESERVED_PREFIX, b"claims"].concat()
}

/// The lock of a migration: the keys that are migrated, from the stream of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetLock {
    route_digest: String,
    replid: String,
    /// None: an earlier version wrote it, and did not tell.
    route: Option<Route>,
}

impl TargetLock {
    /// The lock of a migration that applies this stream.
    pub(crate) fn new(route: &Route, replid: &str) -> Self {
        Self { route_digest: route_digest(route), replid: replid.to_owned(), route: Some(route.clone()) }
    }

    fn text(&self) -> String {
        let route = self.route.as_ref().map(Route::encode).unwrap_or_default();
        format!("{} {} {route}", self.route_digest, self.replid).trim_end().to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let (digest, replid) = (words.next()?, words.next()?);
        let route = Route::decode(words.next().unwrap_or_default());
        // The digest of an earlier version, which wrote nothing else, tells only whether all keys are selected.
        let route = route.filter(|route| route_digest(route) == digest);
        Some(Self { route_digest: digest.to_owned(), replid: replid.to_owned(), route })
    }

    /// True when another migration may make the same changes again; `source` knows how its stream was called before.
    fn overlaps(&self, other: &Self, source: &ServerInfo) -> bool {
        let known = source.masters.iter().chain([&self.replid, &source.replid, &source.replid_before]);
        known.into_iter().any(|known| *known == other.replid) && self.may_share_keys(other)
    }

    /// True unless both are certain to write other keys.
    fn may_share_keys(&self, other: &Self) -> bool {
        match (&self.route, &other.route) {
            (Some(one), Some(other)) => one.may_overlap(other),
            _ => true,
        }
    }

    /// Writes the lock.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) async fn record(&self, query: &mut QueryClient, names: &KeyNames) -> Result<()> {
        query
            .execute(&locks_key(), &[b"HSET", &locks_key(), names.id.as_bytes(), self.text().as_bytes()])
            .await
    }

    /// Ends every other migration whose lock it overlaps: its connections, its token and its checkpoint; without a `source`, as
    /// for files, that of any source. Returns which.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) async fn supersede(
        &self,
        query: &mut QueryClient,
        names: &KeyNames,
        target: &Node,
        source: Option<&ServerInfo>,
    ) -> Result<Vec<String>> {
        let overlaps = |other: &Self| match source {
            Some(source) => self.overlaps(other, source),
            None => self.may_share_keys(other),
        };
        let mut superseded = Vec::new();
        let all = query.call(0, &locks_key(), &[b"HGETALL", &locks_key()]).await?;
        for pair in all.array().unwrap_or_default().chunks(2) {
            let text = |reply: &Reply| Some(String::from_utf8_lossy(reply.text()?).into_owned());
            let (Some(id), Some(lock)) = (pair.first().and_then(text), pair.get(1).and_then(text)) else {
                continue;
            };
            if names.is_of_same_migration(&id) || !Self::parse(&lock).is_some_and(|other| overlaps(&other)) {
                continue;
            }
            let other = KeyNames::new(&id);
            // First its token and its connections, so that nothing of it comes later.
            fencing::evict_link_writers(target, query, std::slice::from_ref(&other)).await?;
            fencing::invalidate(query, &other).await?;
            release(query, &other).await?;
            tracing::info!(
                "migration {id} wrote the same keys from this source: its checkpoint is now invalid"
            );
            superseded.push(id);
        }
        Ok(superseded)
    }
}

fn route_digest(route: &Route) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, route.identity().as_bytes());
    storage::checksum::hex(digest.as_ref())[..16].to_owned()
}

/// A migration that brings changes of a stream with one of these names to `source`, and runs: its connection is there. Where
/// nobody may look, there is none.
pub(crate) async fn running_migration_from(source: &mut Client, streams: &[String]) -> Option<String> {
    let all = source.call(&[b"HGETALL", &locks_key()]).await.ok()?;
    let clients = source.call(&[b"CLIENT", b"LIST"]).await.ok()?;
    let clients = String::from_utf8_lossy(clients.text()?).into_owned();
    all.array()?.chunks(2).find_map(|pair| {
        let text = |reply: &Reply| Some(String::from_utf8_lossy(reply.text()?).into_owned());
        let (id, lock) = (text(pair.first()?)?, TargetLock::parse(&text(pair.get(1)?)?)?);
        let writer = String::from_utf8_lossy(&KeyNames::new(&id).writer_name).into_owned();
        let runs = clients.split(' ').any(|word| {
            word.strip_prefix("name=")
                .is_some_and(|n| n.strip_prefix(&writer).is_some_and(|n| n.starts_with('/')))
        });
        (runs && streams.contains(&lock.replid)).then_some(id)
    })
}

/// Other migrations that write to a target, by their locks; links of one migration are one.
///
/// # Errors
/// What the target answers.
pub(crate) async fn others(query: &mut QueryClient, names: &KeyNames) -> Result<Vec<String>> {
    let all = query.call(0, &locks_key(), &[b"HKEYS", &locks_key()]).await?;
    let ids = all.array().unwrap_or_default().iter().filter_map(Reply::text);
    let ids = ids.map(|id| String::from_utf8_lossy(id).into_owned());
    Ok(ids.filter(|id| !names.is_of_same_migration(id)).collect())
}

/// The lock of a migration is there.
///
/// # Errors
/// What the target answers.
pub(crate) async fn holds(query: &mut QueryClient, names: &KeyNames) -> Result<bool> {
    let found = query.call(0, &locks_key(), &[b"HEXISTS", &locks_key(), names.id.as_bytes()]).await?;
    Ok(found.number() == Some(1))
}

/// Releases the lock of a migration.
///
/// # Errors
/// What the target answers.
pub(crate) async fn release(query: &mut QueryClient, names: &KeyNames) -> Result<()> {
    query.execute(&locks_key(), &[b"HDEL", &locks_key(), names.id.as_bytes()]).await
}

/// Reserved keys at a target, of any migration.
///
/// # Errors
/// What the target answers.
pub(crate) async fn count_keys(query: &mut QueryClient) -> Result<u64> {
    Ok(u64::from(query.call(0, &locks_key(), &[b"EXISTS", &locks_key()]).await?.number() == Some(1)))
}

#[cfg(test)]
mod tests {
    use redis_proto::rdb::Family;

    use super::*;

    #[test]
    fn target_locks_of_one_source_history_overlap() {
        let source = ServerInfo {
            replid: "new".into(),
            replid_before: "old".into(),
            ..ServerInfo::for_tests(Family::Redis, (7, 0))
        };
        let all = TargetLock::new(&Route::default(), "new");
        assert_eq!(TargetLock::parse(&all.text()), Some(all.clone()));
        for (replid, overlaps) in [("new", true), ("old", true), ("another", false)] {
            assert_eq!(
                all.overlaps(&TargetLock::new(&Route::default(), replid), &source),
                overlaps,
                "{replid}"
            );
        }
        let some = Route { only_db: Some(3), ..Route::default() };
        let other = Route { only_db: Some(4), ..Route::default() };
        let some = TargetLock::new(&some, "new");
        assert!(all.overlaps(&some, &source), "a part of all keys");
        assert!(!some.overlaps(&TargetLock::new(&other, "new"), &source));
        assert_eq!(TargetLock::parse(&some.text()), Some(some.clone()));
        // An earlier version did not tell which keys.
        let unknown = TargetLock::parse("6d1244b4cb1199d2 new").unwrap();
        assert!(unknown.route.is_none() && some.overlaps(&unknown, &source));
    }

    #[test]
    fn target_lock_identity_is_stable() {
        let lock = TargetLock::new(&Route::default(), "r");
        assert_eq!(lock.text(), "ad8f9f99c7b5e2c3 r");
        let some = Route { only_db: Some(3), ..Route::default() };
        assert_eq!(TargetLock::new(&some, "r").text(), "6d1244b4cb1199d2 r only=3");
    }
}
