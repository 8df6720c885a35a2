//! Keys that may have expired early at the target ([`crate::stream::expiry_guard`]). When the target has caught up, they are read
//! again at the source together with the offset of its stream, and written when the target has applied exactly that offset.
//!
//! ```text
//! suspect at the target ──> read at the source, with its offset ──> stream reaches the offset ──> written, no longer suspect
//! ```
//!
//! Interrupted anywhere, the key is still listed at the target, and the source is asked again.
//!
//! Decision: ADR 0014, `docs/adr/0014-re-read-keys-expired-early-at-target.md`.

use std::collections::BTreeMap;

use flow_control::clock::SharedClock;
use model::error::{Error, Kind, Result};
use redis_proto::command::SLOTS;
use redis_proto::rdb::Item;
use redis_proto::resp::{Reply, command};

use crate::checkpoint::keys::KeyNames;
use crate::checkpoint::suspects::{KeyRef, decode_key_ref, encode_key_ref, swapped_db};
use crate::connection::client::Client;
use crate::connection::reply_error::reply_failure;
use crate::connection::server::replication_offset;
use crate::operation::{Encoder, Operation};
use crate::route::Route;
use crate::snapshot::load::{Loader, add_counts, open_dumped};
use crate::snapshot::restore::Conflict;
use crate::stream::connections::Connections;
use crate::stream::expiry_guard::ExpiryGuard;
use crate::target::Writer;

/// Suspect keys that are read together from a server.
const PAGE_SUSPECTS: u64 = 10_000;
/// Suspect keys of one slot of a cluster that are read together.
const PAGE_SUSPECTS_OF_SLOT: u64 = 64;
/// Pages that are read when a run begins.
const RECALLED_PAGES_MAX: u64 = 50;
/// Keys that are requested from the source together.
const BATCH_KEYS: std::ops::RangeInclusive<usize> = 8..=512;
/// Bytes of values that end a batch.
const BATCH_BYTES: usize = 4 << 20;

/// Keys that stay as the target's clock left them. They remain in the list of suspects, so each run counts them again.
pub(crate) const UNREADABLE: &str =
    "keys with an expiry that cannot be read again (DUMP is not permitted at the source)";

/// A key that may be wrong at the target.
#[derive(Debug)]
struct SuspectKey {
    key_ref: KeyRef,
    /// It is read again even when the source says that the key never expires.
    always_refetch: bool,
}

/// What the source says of it.
#[derive(Debug)]
enum SourceState {
    /// It cannot have expired early, or the stream has all its changes.
    Correct,
    /// It is not there.
    Missing,
    /// It is this.
    Value { payload: Vec<u8>, expire_ms: Option<i64> },
}

/// What the source said at an offset of its stream.
#[derive(Debug)]
struct PendingRepair {
    offset: u64,
    states: Vec<(SuspectKey, SourceState)>,
}

/// Suspects that are read again at the source, and written.
#[derive(Debug)]
pub(crate) struct KeyRepair {
    suspects: Vec<SuspectKey>,
    pending: Option<PendingRepair>,
    batch_keys: usize,
    /// What the target does not support, with its count.
    pub(crate) unsupported: BTreeMap<String, u64>,
    /// Keys that were written.
    written: u64,
}

impl Default for KeyRepair {
    fn default() -> Self {
        Self {
            suspects: vec![],
            pending: None,
            batch_keys: *BATCH_KEYS.start(),
            unsupported: BTreeMap::new(),
            written: 0,
        }
    }
}

impl KeyRepair {
    /// What the source said is to be written at this offset.
    pub(crate) fn is_due(&self, offset: u64) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.offset == offset)
    }

    /// How many keys wait to be read at the source.
    pub(crate) fn suspect_keys(&self) -> u64 {
        self.suspects.len() as u64
    }

    /// The source was asked, and the stream has not been there yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The stream is at this offset: what was to be written before that is suspect again.
    pub(crate) fn advance_to(&mut self, offset: u64) {
        if let Some(pending) = self.pending.take_if(|pending| pending.offset < offset) {
            self.suspects.extend(pending.states.into_iter().map(|(suspect, _)| suspect));
        }
    }

    /// No key is suspect any more; answers how many keys were written. What is unsupported stays.
    pub(crate) fn reset(&mut self) -> u64 {
        let unsupported = std::mem::take(&mut self.unsupported);
        std::mem::replace(self, Self { unsupported, ..Self::default() }).written
    }

    /// Two databases of the source have changed places.
    pub(crate) fn swap_dbs(&mut self, pair: (u32, u32), is_listed: bool) {
        self.advance_to(u64::MAX);
        if is_listed {
            // The list at the target holds them.
            self.suspects.clear();
        }
        for suspect in &mut self.suspects {
            suspect.key_ref.0 = swapped_db(suspect.key_ref.0, pair);
        }
    }

    /// Reads the suspects, when every change that could make one is applied; false when there are none.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) async fn load_suspects(
        &mut self,
        connections: &mut Connections,
        names: &KeyNames,
        expiry_guard: &mut ExpiryGuard,
    ) -> Result<bool> {
        if !self.suspects.is_empty() {
            return Ok(true);
        }
        if !expiry_guard.lists_at_target() {
            self.suspects = expiry_guard
                .take_suspects()
                .into_iter()
                .map(|(key_ref, always_refetch)| SuspectKey { key_ref, always_refetch })
                .collect();
        } else {
            self.suspects = read_suspects(connections, names, 0).await?;
        }
        // Those of one database are asked for together.
        self.suspects.sort_by_key(|suspect| suspect.key_ref.0);
        Ok(!self.suspects.is_empty())
    }

    /// Asks the source for the next of them.
    ///
    /// # Errors
    /// What the source answers.
    pub(crate) async fn refetch(&mut self, source: &mut Client, absolute: bool) -> Result<()> {
        let Some(db) = self.suspects.last().map(|suspect| suspect.key_ref.0) else { return Ok(()) };
        let mut batch = Vec::new();
        while batch.len() < self.batch_keys
            && let Some(suspect) = self.suspects.pop_if(|suspect| suspect.key_ref.0 == db)
        {
            batch.push(suspect);
        }
        source.select(db).await?;
        let mut out = Vec::new();
        for suspect in &batch {
            command(&mut out, &[b"PTTL", &suspect.key_ref.1]);
        }
        let lives = source.pipeline(&out, batch.len()).await?;
        out.clear();
        command(&mut out, &[b"MULTI"]);
        let refetches: Vec<bool> = batch
            .iter()
            .zip(&lives)
            // What is gone now may be there again a moment later.
            .map(|(suspect, left)| suspect.always_refetch || left.number() != Some(-1))
            .collect();
        for (suspect, _) in batch.iter().zip(&refetches).filter(|(_, refetches)| **refetches) {
            command(&mut out, &[b"DUMP", &suspect.key_ref.1]);
            command(&mut out, &[if absolute { b"PEXPIRETIME" } else { b"PTTL" }, &suspect.key_ref.1]);
        }
        command(&mut out, &[b"TIME"]);
        command(&mut out, &[b"INFO", b"replication"]);
        command(&mut out, &[b"EXEC"]);
        let replies =
            source.pipeline(&out, 4 + 2 * refetches.iter().filter(|refetches| **refetches).count()).await?;
        let (offset, mut replies) = parse_replies(source.display_url(), replies, absolute)?;
        let mut bytes = 0;
        let states = batch.into_iter().zip(refetches).map(|(suspect, refetches)| {
            let state =
                if refetches { replies.next().unwrap_or(SourceState::Correct) } else { SourceState::Correct };
            if let SourceState::Value { payload, .. } = &state {
                bytes += payload.len();
            }
            (suspect, state)
        });
        self.pending = Some(PendingRepair { offset, states: states.collect() });
        let batch_keys = if bytes > BATCH_BYTES { self.batch_keys / 2 } else { self.batch_keys * 2 };
        self.batch_keys = batch_keys.clamp(*BATCH_KEYS.start(), *BATCH_KEYS.end());
        Ok(())
    }

    /// Writes what the source said. Everything up to where it said so is applied, nothing else is under way.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) async fn write_pending(
        &mut self,
        connections: &mut Connections,
        route: &Route,
        names: &KeyNames,
        clock: &SharedClock,
        expiry_guard: &mut ExpiryGuard,
    ) -> Result<()> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let mut done: Vec<KeyRef> = Vec::new();
        let family = connections.source_info.family;
        let (server, target) = (&connections.target_info, &mut connections.target);
        let mut loader =
            Loader::new(route, server, Conflict::Replace, &mut connections.writer, target, clock);
        for (suspect, state) in pending.states {
            let changed_again = expiry_guard.take_changed_again(&suspect.key_ref);
            match state {
                SourceState::Correct if changed_again && !suspect.always_refetch => {
                    self.suspects.push(SuspectKey { always_refetch: true, ..suspect });
                    continue;
                }
                SourceState::Correct => {}
                SourceState::Missing => {
                    if let Some(to) = route.db(suspect.key_ref.0) {
                        loader.remove_key(to, &suspect.key_ref.1).await?;
                    }
                }
                SourceState::Value { payload, expire_ms } => {
                    loader.load_item(Item::Db(u64::from(suspect.key_ref.0))).await?;
                    let (head, raw) = open_dumped(family, &suspect.key_ref.1, &payload, expire_ms)?;
                    loader.load_item(Item::Value(head, raw)).await?;
                    self.written += 1;
                }
            }
            expiry_guard.set_repaired(&suspect.key_ref);
            done.push(suspect.key_ref);
        }
        loader.finish_batch().await?;
        add_counts(&mut self.unsupported, std::mem::take(&mut loader.loaded.unsupported));
        connections.writer.flush().await?;
        if expiry_guard.lists_at_target() {
            clear_suspects(connections, names, &done).await?;
        }
        Ok(())
    }
}

/// The replies to a query: the offset of the source's stream, and the state of each key.
fn parse_replies(
    url: &str,
    replies: Vec<Reply>,
    absolute: bool,
) -> Result<(u64, impl Iterator<Item = SourceState> + use<>)> {
    let wrong = |why: &str| Error::new(Kind::Corrupt, "key_repair", format!("{url}: {why}"));
    let refused = replies.iter().find_map(|a| if let Reply::Error(text) = a { Some(text) } else { None });
    if let Some(text) = refused {
        return Err(reply_failure(url, "key_repair", text));
    }
    let Some(Reply::Array(mut replies)) = replies.into_iter().last() else {
        return Err(wrong("the reply to EXEC is not an array"));
    };
    let info = replies.pop().and_then(|reply| Some(String::from_utf8_lossy(reply.text()?).into_owned()));
    let offset = replication_offset(info.as_deref().unwrap_or_default())
        .ok_or_else(|| wrong("the reply to INFO has no replication offset"))?;
    let time = replies.pop().ok_or_else(|| wrong("the reply to EXEC is too short"))?;
    let number = |reply: &Reply| std::str::from_utf8(reply.text()?).ok()?.parse::<i64>().ok();
    let now_ms = match time.array().unwrap_or_default() {
        [seconds, micros] => {
            number(seconds).unwrap_or_default() * 1000 + number(micros).unwrap_or_default() / 1000
        }
        _ => return Err(wrong("invalid reply to TIME")),
    };
    let mut replies = replies.into_iter();
    let states = std::iter::from_fn(move || {
        let (payload, expiry) = (replies.next()?, replies.next()?);
        let expire_ms =
            expiry.number().filter(|at| *at >= 0).map(|at| if absolute { at } else { now_ms + at });
        Some(match payload {
            Reply::Bulk(payload) => SourceState::Value { payload, expire_ms },
            _ => SourceState::Missing,
        })
    });
    Ok((offset, states))
}

/// A page of the suspects that the target lists, of each list that it has.
async fn read_suspects(
    connections: &mut Connections,
    names: &KeyNames,
    page: u64,
) -> Result<Vec<SuspectKey>> {
    let (lists, length) = match &connections.writer {
        Writer::Standalone(_) => (vec![names.suspects.clone()], PAGE_SUSPECTS),
        Writer::Cluster(_) => {
            ((0..SLOTS).map(|slot| names.slot_suspects(slot)).collect(), PAGE_SUSPECTS_OF_SLOT)
        }
    };
    let [first, last] = [page * length, (page + 1) * length - 1].map(|index| index.to_string().into_bytes());
    let mut suspects = Vec::new();
    for reply in connections.target.call_each(&lists, &[b"ZRANGE"], &[&first, &last, b"WITHSCORES"]).await? {
        for pair in reply.array().unwrap_or_default().chunks(2) {
            let [member, weight] = pair else { continue };
            if let Some((db, key)) = member.text().and_then(decode_key_ref) {
                let always_refetch = weight.text() != Some(b"0");
                suspects.push(SuspectKey { key_ref: (db, key.to_vec()), always_refetch });
            }
        }
    }
    Ok(suspects)
}

/// Tells the guard which suspects an earlier run left at the target: a change that would have replaced one of them may not have
/// been made, and only that run knew.
///
/// # Errors
/// What the target answers.
pub(crate) async fn recall_suspects(
    connections: &mut Connections,
    names: &KeyNames,
    expiry_guard: &mut ExpiryGuard,
) -> Result<()> {
    if !expiry_guard.lists_at_target() {
        return Ok(());
    }
    for page in 0..RECALLED_PAGES_MAX {
        let suspects = read_suspects(connections, names, page).await?;
        if suspects.is_empty() {
            break;
        }
        // Of the others, only the key itself was changed: they are of the right type.
        let retyped = suspects.into_iter().filter(|suspect| suspect.always_refetch);
        expiry_guard.recall_retyped(retyped.map(|suspect| suspect.key_ref));
    }
    Ok(())
}

/// These keys are right now: they leave the list.
async fn clear_suspects(connections: &mut Connections, names: &KeyNames, done: &[KeyRef]) -> Result<()> {
    for some in done.chunks(500) {
        match &mut connections.writer {
            Writer::Standalone(_) => {
                let members: Vec<Vec<u8>> = some.iter().map(|(db, key)| encode_key_ref(*db, key)).collect();
                let mut words: Vec<&[u8]> = vec![b"ZREM", &names.suspects];
                words.extend(members.iter().map(Vec::as_slice));
                connections.target.execute(&names.suspects, &words).await?;
            }
            Writer::Cluster(cluster) => {
                cluster.begin_command(None);
                cluster.push(Operation::ClearSuspects(some))?;
                cluster.flush().await?;
            }
        }
    }
    Ok(())
}
