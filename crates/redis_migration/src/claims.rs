//! Migrations of one source that write the same keys of a target.
//!
//! Two names of one place make two migrations, each with a position of its own, and whoever went on from the older position would do
//! again what the other has done. So all that write to a target are listed there, with what they move and whose stream they
//! apply. Whoever takes a snapshot of the same keys makes the positions of others void: they end, and when they are started
//! again, they take a snapshot too.

use model::failure::Result;
use redis_proto::resp::Reply;

use crate::asker::Asker;
use crate::client::Client;
use crate::marker::{Names, OURS};
use crate::node::Node;
use crate::parts;
use crate::route::Route;
use crate::server::Server;

/// The key at the target, a hash: migration to what it claims.
pub(crate) fn list() -> Vec<u8> {
    [OURS, b"claims"].concat()
}

/// What a migration claims: the keys that travel, from the stream of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    what: String,
    replid: String,
}

impl Claim {
    /// The claim of a migration that applies this stream.
    pub(crate) fn new(route: &Route, replid: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, route.identity().as_bytes());
        let what = storage::checksum::hex(digest.as_ref())[..16].to_owned();
        Self { what, replid: replid.to_owned() }
    }

    fn text(&self) -> String {
        format!("{} {}", self.what, self.replid)
    }

    fn parse(text: &str) -> Option<Self> {
        let (what, replid) = text.split_once(' ')?;
        Some(Self { what: what.to_owned(), replid: replid.to_owned() })
    }

    /// True when another one would do the same changes again; `source` knows how its stream was called before.
    fn meets(&self, other: &Self, source: &Server) -> bool {
        let known = [&self.replid, &source.replid, &source.replid_before];
        self.what == other.what && known.contains(&&other.replid)
    }

    /// Lists it.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) async fn note(&self, ask: &mut Asker, names: &Names) -> Result<()> {
        ask.ok(&list(), &[b"HSET", &list(), names.id.as_bytes(), self.text().as_bytes()]).await
    }

    /// Ends every other migration whose claim it meets: its connections, its turn and its position.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) async fn prevail(
        &self,
        ask: &mut Asker,
        names: &Names,
        target: &Node,
        source: &Server,
    ) -> Result<()> {
        let all = ask.call(0, &list(), &[b"HGETALL", &list()]).await?;
        for pair in all.array().unwrap_or_default().chunks(2) {
            let text = |reply: &Reply| Some(String::from_utf8_lossy(reply.text()?).into_owned());
            let (Some(id), Some(claim)) = (pair.first().and_then(text), pair.get(1).and_then(text)) else {
                continue;
            };
            if id == names.id || !Self::parse(&claim).is_some_and(|other| self.meets(&other, source)) {
                continue;
            }
            let other = Names::new(&id);
            // First its turn and its connections, so that nothing of it comes behind.
            parts::shut_out(target, ask, std::slice::from_ref(&other)).await?;
            parts::void(ask, &other).await?;
            withdraw(ask, &other).await?;
            tracing::info!(
                "migration {id} wrote the same keys from this source: its checkpoint is now invalid"
            );
        }
        Ok(())
    }
}

/// A migration that brings changes of a stream with one of these names to `source`, and runs: its connection is there. Where
/// nobody may look, there is none.
pub(crate) async fn coming_from(source: &mut Client, streams: &[String]) -> Option<String> {
    let all = source.call(&[b"HGETALL", &list()]).await.ok()?;
    let clients = source.call(&[b"CLIENT", b"LIST"]).await.ok()?;
    let clients = String::from_utf8_lossy(clients.text()?).into_owned();
    all.array()?.chunks(2).find_map(|pair| {
        let text = |reply: &Reply| Some(String::from_utf8_lossy(reply.text()?).into_owned());
        let (id, claim) = (text(pair.first()?)?, Claim::parse(&text(pair.get(1)?)?)?);
        let writer = String::from_utf8_lossy(&Names::new(&id).writer).into_owned();
        let runs = clients.split(' ').any(|word| {
            word.strip_prefix("name=")
                .is_some_and(|n| n.strip_prefix(&writer).is_some_and(|n| n.starts_with('/')))
        });
        (runs && streams.contains(&claim.replid)).then_some(id)
    })
}

/// It claims nothing any more.
///
/// # Errors
/// What the target answers.
pub(crate) async fn withdraw(ask: &mut Asker, names: &Names) -> Result<()> {
    ask.ok(&list(), &[b"HDEL", &list(), names.id.as_bytes()]).await
}

/// Keys of ours that stand at a target beside any data, whoever brought those.
///
/// # Errors
/// What the target answers.
pub(crate) async fn keys(ask: &mut Asker) -> Result<u64> {
    Ok(u64::from(ask.call(0, &list(), &[b"EXISTS", &list()]).await?.number() == Some(1)))
}

#[cfg(test)]
mod tests {
    use redis_proto::rdb::Family;

    use super::*;

    #[test]
    fn claims_meet_on_the_same_keys_of_one_stream() {
        let source = Server {
            replid: "new".into(),
            replid_before: "old".into(),
            ..Server::for_tests(Family::Redis, (7, 0))
        };
        let all = Claim::new(&Route::default(), "new");
        assert_eq!(Claim::parse(&all.text()), Some(all.clone()));
        for (replid, meets) in [("new", true), ("old", true), ("another", false)] {
            assert_eq!(all.meets(&Claim::new(&Route::default(), replid), &source), meets, "{replid}");
        }
        let some = Route { only_db: Some(3), ..Route::default() };
        assert!(!all.meets(&Claim::new(&some, "new"), &source));
    }

    #[test]
    fn identity_of_a_claim_never_changes() {
        let claim = Claim::new(&Route::default(), "r");
        assert_eq!(claim.text(), "ad8f9f99c7b5e2c3 r");
        let some = Route { only_db: Some(3), ..Route::default() };
        assert_eq!(Claim::new(&some, "r").text(), "6d1244b4cb1199d2 r");
    }
}
