//! One session of a migration: both ends are opened and checked, and the checkpoint at the target decides how it begins.
//!
//! ```text
//!            checkpoint at the target?        backlog holds it?
//! begin ──┬── no, or `full` ──> full: snapshot ─┐      │no
//!         └── `applied` ──────> PSYNC from it ──┴──────┴───> stream: catch up, follow
//! ```

mod cluster_source;
mod full_sync;
mod run;
pub mod scan;

use std::sync::atomic::Ordering;
use std::time::Instant;

use model::error::{Error, Kind, Reason, Result, Side};
use redis_proto::command::SLOTS;
use redis_proto::rdb::Family;
use redis_proto::resp::Reply;

use crate::checkpoint::fencing::UNFENCED_NOTE;
use crate::checkpoint::target_locks::TargetLock;
use crate::checkpoint::{Checkpoint, failures, target_locks};
use crate::connection::RESERVED_PREFIX;
use crate::connection::capabilities::{NO_RESTORE_NOTE, NO_TRANSACTIONS_NOTE};
use crate::connection::client::Client;
use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;
use crate::connection::server::ServerInfo;
use crate::connection::topology::Topology;
use crate::events::Event;
use crate::migration::{Migration, Until};
use crate::progress::Summary;
use crate::snapshot::restore::Conflict;
use crate::source::psync::{self, Link, Position, PsyncReply};
use crate::source::spool::Spool;
use crate::stream::apply::{Applier, replication_loop};
use crate::stream::connections::{Connections, SessionEnd};
use crate::stream::existing_keys::ExistingKeys;
use crate::stream::translate::CommandTranslator;
use crate::target::Writer;
use crate::target::cluster::{ClusterWriter, Fence};
use crate::target::pipeline::{Pipeline, Shared};

/// The position behind which the stream continues, the database in which it was there, and the epoch of the checkpoint.
type ResumePoint = (Position, u32, String);

/// Clocks that differ by more than this are mentioned, milliseconds.
const CLOCK_SKEW_MAX_MS: i64 = 1000;

impl Migration {
    /// Continues from the target's checkpoint, or begins with a snapshot, until it is done, stopped or broken.
    pub(crate) async fn run_session(
        &self,
        summary: &mut Summary,
        token: &str,
        first: bool,
    ) -> Result<SessionEnd> {
        let (mut source, source_node, from) = self.open_source().await?;
        let (mut target, mut server, topology) = self.open_target().await?;
        let own_keys = self.count_own_keys(&mut target, &server).await?;
        server.keys = server.keys.saturating_sub(own_keys);
        self.check_compatibility(&mut source, &from, &server, first && topology.is_none()).await?;
        if server.has_databases() {
            target.verify_dbs(self.options.route.targets(&from.dbs)).await?;
        }
        // Both ends are there: what breaks from here on is tried again.
        self.progress.phase.store(1, Ordering::Relaxed);
        let (mut writer, fenced) = self
            .open_writer(&mut target, server.missing.transactions, topology.as_ref(), token, first, summary)
            .await?;
        let token_to_verify = (!fenced).then(|| token.to_owned());
        self.report_missing_features(token_to_verify.is_some(), &server, summary);
        if first {
            self.report_ends(&mut source, &mut target, &server, summary).await?;
        }
        if let Some(id) = target_locks::running_migration_from(&mut source, &replids(&server)).await {
            return Err(replication_loop(&id));
        }
        let checkpoint = match server.missing.transactions {
            true => None,
            false => Checkpoint::read(&mut target, &self.names).await?,
        };
        let known = self.resume_point(checkpoint.as_ref());
        let scripts = !server.missing.transactions && self.can_run_scripts(&mut target, summary).await?;
        let translator = command_translator(&from, &server, &mut target).await?;
        // No snapshot is asked for while the target takes nothing.
        if !server.missing.transactions {
            self.write_probe(&mut target).await?;
        }
        let position = known.as_ref().map(|(position, ..)| position);
        let link = writer.keep_alive_while(psync::open(&source_node, position)).await??;
        if let (Writer::Cluster(cluster), PsyncReply::Continued(_), Some((.., epoch))) =
            (&mut writer, &link.begun, &known)
        {
            let done = self.slot_offsets(&mut target, epoch).await?;
            cluster.begin_changes(epoch, &done);
        }
        let connections = Connections {
            source,
            target,
            source_info: from,
            target_info: server,
            writer,
            can_run_scripts: scripts,
            source_node,
            token: token.to_owned(),
            token_to_verify,
        };
        self.start_sync(link, known, checkpoint, connections, translator, summary).await
    }

    /// Does what the source's answer to `PSYNC` asks for.
    async fn start_sync(
        &self,
        link: Link,
        known: Option<ResumePoint>,
        checkpoint: Option<Checkpoint>,
        mut connections: Connections,
        translator: Option<CommandTranslator>,
        summary: &mut Summary,
    ) -> Result<SessionEnd> {
        match (link.begun.clone(), known) {
            (PsyncReply::Continued(replid), Some(known)) => {
                self.resume(link, replid, known, connections, translator, summary).await
            }
            (PsyncReply::Continued(_), None) => {
                Err(Error::new(Kind::Corrupt, "psync", "the source replied +CONTINUE to a full-sync request")
                    .at(Side::Source))
            }
            (PsyncReply::Full(position), known) => {
                if known.is_some() {
                    let note = "the replication backlog no longer covers the checkpoint; a new full sync was made. \
                         Keys that the source deleted in between may remain at the target";
                    summary.notes.push(note.into());
                }
                self.options.event_sender.send(Event::SnapshotStarted {
                    replid: position.replid.clone(),
                    offset: position.offset,
                    keys: connections.source_info.keys,
                    resync: known.is_some(),
                });
                let existing =
                    self.begin_full_sync(&mut connections, checkpoint, &position.replid, summary).await?;
                self.start_full_sync(link, &position, (connections, existing), translator, summary).await
            }
        }
    }

    /// Connects to the source, which must not be a whole cluster.
    async fn open_source(&self) -> Result<(Client, Node, ServerInfo)> {
        let (mut source, node) = self.connect_source().await.map_err(|f| f.at(Side::Source))?;
        let from = ServerInfo::query(&mut source).await.map_err(|f| f.at(Side::Source))?;
        if from.cluster && self.shard.is_none() {
            let m = "the source is a cluster: all of its masters are migrated together";
            return Err(Error::new(Kind::Unavailable, "cluster source", m)
                .at(Side::Source)
                .because(Reason::ClusterSource));
        }
        Ok((source, node, from))
    }

    /// Notes what may make the copy incomplete at one of the ends.
    async fn report_ends(
        &self,
        source: &mut Client,
        target: &mut QueryClient,
        server: &ServerInfo,
        summary: &mut Summary,
    ) -> Result<()> {
        self.note(server.eviction_note(), summary);
        // A proxy may close the connection after a command that it does not know.
        if !server.missing.transactions {
            self.note(clock_note(source, target).await?, summary);
        }
        self.note(self.dump_note(source).await, summary);
        Ok(())
    }

    /// Something to know about a source whose keys cannot be read again.
    async fn dump_note(&self, source: &mut Client) -> Option<String> {
        let probe = [RESERVED_PREFIX, b"probe:", self.names.id.as_bytes()].concat();
        match source.call(&[b"DUMP", &probe]).await {
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => Some(format!(
                "DUMP is not permitted at the source: keys with an expiry that change while the target lags cannot be read \
                 again, and are counted as not migrated; {}",
                f.message
            )),
            // A master of a cluster redirects to the server of the key.
            _ => None,
        }
    }

    /// Keys at the target that belong to this program and not to the data.
    async fn count_own_keys(&self, target: &mut QueryClient, server: &ServerInfo) -> Result<u64> {
        // The token that a killed run left is not data.
        let fencing_token = &self.names.fencing_token;
        let left = target.call(0, fencing_token, &[b"EXISTS", fencing_token]).await?;
        let mut reserved = u64::from(left.number() == Some(1));
        if !server.missing.transactions {
            reserved += target_locks::count_keys(target).await?;
        }
        Ok(reserved)
    }

    /// Where the stream can be continued; none when a full sync is needed or asked for.
    fn resume_point(&self, checkpoint: Option<&Checkpoint>) -> Option<ResumePoint> {
        match checkpoint {
            Some(Checkpoint::Applied(position, db, epoch)) if self.options.until != Until::Full => {
                Some((position.clone(), *db, epoch.clone().unwrap_or_default()))
            }
            _ => None,
        }
    }

    /// Writes and deletes a key, which fails while the target takes nothing.
    async fn write_probe(&self, target: &mut QueryClient) -> Result<()> {
        let probe = [RESERVED_PREFIX, b"probe:", self.names.id.as_bytes()].concat();
        target.execute(&probe, &[b"SET", &probe, b"1", b"PX", b"1000"]).await?;
        target.execute(&probe, &[b"DEL", &probe]).await?;
        Ok(())
    }

    /// Continues the stream behind the checkpoint.
    async fn resume(
        &self,
        link: Link,
        replid: String,
        (position, db, epoch): ResumePoint,
        mut connections: Connections,
        translator: Option<CommandTranslator>,
        summary: &mut Summary,
    ) -> Result<SessionEnd> {
        summary.partial_syncs += 1;
        self.options.event_sender.send(Event::Resumed { offset: position.offset });
        TargetLock::new(&self.options.route, &replid).record(&mut connections.target, &self.names).await?;
        let position = Position { replid, ..position };
        let mut applier = self.new_applier(&position, db, &connections.source_info.dbs, translator);
        let key = &self.names.scripts;
        let kept = connections.target.call(0, key, &[b"HVALS", key]).await?;
        for text in kept.array().unwrap_or_default().iter().filter_map(Reply::text) {
            applier.scripts.insert(text);
        }
        applier.target_replids = replids(&connections.target_info);
        let (target, conflict) = (&mut connections.target, self.options.conflict);
        applier.existing =
            ExistingKeys::recall(target, &self.names.existing, conflict).await?.unwrap_or_default();
        failures::recall(target, &self.names, summary).await?;
        if conflict == Conflict::Replace {
            self.note(applier.existing.note(), summary);
        }
        self.sync(link, None, connections, applier, epoch, summary).await
    }

    /// Receives the snapshot and what follows it; the target is prepared.
    async fn start_full_sync(
        &self,
        link: Link,
        position: &Position,
        (connections, existing): (Connections, ExistingKeys),
        translator: Option<CommandTranslator>,
        summary: &mut Summary,
    ) -> Result<SessionEnd> {
        summary.full_syncs += 1;
        let mut applier = self.new_applier(position, 0, &connections.source_info.dbs, translator);
        applier.target_replids = replids(&connections.target_info);
        applier.existing = existing;
        if connections.target_info.missing.transactions {
            applier = applier.without_checkpoint();
        }
        let dir = &self.options.spool_dir;
        let snapshot = Spool::new(dir, self.options.spool)?;
        let epoch = format!("{:016x}", fastrand::u64(..));
        self.sync(link, Some(snapshot), connections, applier, epoch, summary).await
    }

    /// Whether these ends can have this migration; `is_first_contact`: the target is one server that was never reached before.
    async fn check_compatibility(
        &self,
        source: &mut Client,
        from: &ServerInfo,
        server: &ServerInfo,
        is_first_contact: bool,
    ) -> Result<()> {
        self.options.route.check(&from.dbs)?;
        let other_db = from.dbs.iter().find(|db| self.options.route.db(**db).is_some_and(|to| to != 0));
        if let (Some(db), true) = (other_db, !server.has_databases()) {
            let m = format!(
                "the source has keys in database {db}, and only database 0 of this target can be written; hint: use \
                 --db-map {db}=0, or migrate database 0 only (/0)"
            );
            return Err(Error::new(Kind::Unsupported, "open", m).at(Side::Target));
        }
        if is_first_contact && server.is_replica && !self.options.reconnect.is_always() {
            let m = format!(
                "{} is a read-only replica; hint: use the address of its master",
                self.target.display_url()
            );
            return Err(Error::new(Kind::ReadOnly, "open", m).at(Side::Target));
        }
        if let Some(db) = self.options.route.only_db.filter(|db| *db > 0) {
            source.select(db).await.map_err(|f| {
                let m = format!("database {db} does not exist at the source: {}", f.message);
                Error::new(if f.is_temporary() { f.kind } else { Kind::Invalid }, "open", m).at(Side::Source)
            })?;
        }
        self.progress.keys_expected.store(from.keys, Ordering::Relaxed);
        from.check_distinct(server)
    }

    /// Notes once what the target does not support and is not required.
    fn report_missing_features(&self, unfenced: bool, server: &ServerInfo, summary: &mut Summary) {
        let built = server.missing.restore && !server.missing.transactions;
        for (_, note) in
            [(unfenced, UNFENCED_NOTE), (built, NO_RESTORE_NOTE)].into_iter().filter(|(is, _)| *is)
        {
            if !summary.notes.iter().any(|known| known == note) {
                self.options.event_sender.send(Event::Note(note.into()));
                summary.notes.push(note.into());
            }
        }
    }

    /// The writer, once this run holds the fencing token of the target; false if earlier runs could not be disconnected.
    async fn open_writer(
        &self,
        target: &mut QueryClient,
        lacks_transactions: bool,
        topology: Option<&Topology>,
        token: &str,
        first: bool,
        summary: &mut Summary,
    ) -> Result<(Writer, bool)> {
        let applied = self.progress.applied.clone();
        match topology {
            None => {
                let node = Node { db: None, ..self.target.clone() };
                let mut connection = Client::open(&node).await.map_err(|f| f.at(Side::Target))?;
                let mut fenced = true;
                if lacks_transactions {
                    self.take_token_without_transactions(target, token, first, summary).await?;
                } else {
                    let query = target.client_of_key(&self.names.fencing_token).await?;
                    fenced = self.names.fence(query, &mut connection, token, first).await?;
                }
                Ok((Writer::Standalone(Pipeline::new(connection, applied)), fenced))
            }
            Some(topology) => {
                let fence = Fence { names: self.names.clone(), token: token.to_owned() };
                let shared = Shared::new(applied);
                let mut cluster =
                    ClusterWriter::open(self.target.clone(), topology, fence, first, shared).await?;
                cluster.functions = self.options.functions;
                let fenced = cluster.fenced;
                Ok((Writer::Cluster(Box::new(cluster)), fenced))
            }
        }
    }

    fn new_applier(
        &self,
        position: &Position,
        db: u32,
        source_dbs: &[u32],
        translator: Option<CommandTranslator>,
    ) -> Applier {
        let mut applier = Applier::new(self.options.route.clone(), Some(self.names.clone()), position, db)
            .with_source_dbs(source_dbs)
            .skipping_commands(self.options.skip_commands.clone());
        applier.translator = translator;
        match &self.shard {
            Some(master) => applier.for_cluster_master(master.rank()),
            None => applier,
        }
    }

    /// Whether the target runs scripts; a note explains what follows when it does not.
    async fn can_run_scripts(&self, target: &mut QueryClient, summary: &mut Summary) -> Result<bool> {
        let fencing_token = &self.names.fencing_token;
        match target.call(0, fencing_token, &[b"EVAL", b"return 1", b"1", fencing_token]).await {
            Ok(_) => Ok(true),
            Err(f) if f.is_temporary() => Err(f),
            Err(f) => {
                let note = format!(
                    "scripting (EVAL) is not permitted at the target: every key that changes before the target has \
                     caught up is read again, and a module command for an expired key may end the migration; {}",
                    f.message
                );
                if !summary.notes.contains(&note) {
                    self.options.event_sender.send(Event::Note(note.clone()));
                    summary.notes.push(note);
                }
                Ok(false)
            }
        }
    }

    /// The offset of each slot of a cluster, by its own checkpoint.
    async fn slot_offsets(&self, target: &mut QueryClient, epoch: &str) -> Result<Vec<(u16, u64)>> {
        let keys: Vec<Vec<u8>> = (0..SLOTS).map(|slot| self.names.slot_checkpoint(slot)).collect();
        let found = target.call_each(&keys, &[b"GET"], &[]).await?;
        let offset = |reply: &Reply| {
            let text = String::from_utf8_lossy(reply.text()?).into_owned();
            text.split_once(' ').filter(|(e, _)| *e == epoch)?.1.parse().ok()
        };
        Ok((0..SLOTS).zip(&found).filter_map(|(slot, reply)| Some((slot, offset(reply)?))).collect())
    }

    /// The source, at the first of its addresses that is no replica; its replicas are not used.
    async fn connect_source(&self) -> Result<(Client, Node)> {
        let mut addrs = self.source.addrs.clone();
        if let Some(master) = &self.shard
            && let Ok(topology) = Topology::query(&master.cluster).await
            && let Some(shard) = topology.shard_of_slot(master.first())
        {
            // Who has the slots now: a replica may have taken its master's place.
            addrs = std::iter::once(&shard.master).chain(&shard.replicas).cloned().collect();
        }
        let mut last = Error::new(Kind::Connect, "connect", "the source has no address");
        for (i, addr) in addrs.iter().enumerate() {
            let node = Node { db: None, ..self.source.at_addr(addr) };
            match Client::open(&node).await {
                Ok(mut client) => {
                    let last_one = i + 1 == addrs.len();
                    if last_one || !ServerInfo::query(&mut client).await?.is_replica {
                        return Ok((client, node));
                    }
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// Takes the fencing token at a target where no other writer can be ended, and tells the user what that means.
    async fn take_token_without_transactions(
        &self,
        target: &mut QueryClient,
        token: &str,
        first: bool,
        summary: &mut Summary,
    ) -> Result<()> {
        let fencing_token = &self.names.fencing_token;
        if first {
            target.execute(fencing_token, &[b"SET", fencing_token, token.as_bytes()]).await?;
            self.options.event_sender.send(Event::Note(NO_TRANSACTIONS_NOTE.into()));
            summary.notes.push(NO_TRANSACTIONS_NOTE.into());
        }
        self.names.verify_token(target.client_of_key(fencing_token).await?, token).await
    }
}

/// Something to know about clocks that differ; nothing where a server does not tell its time.
async fn clock_note(source: &mut Client, target: &mut QueryClient) -> Result<Option<String>> {
    let began = Instant::now();
    let at_source = source.call(&[b"TIME"]).await;
    let at_target = target.call(0, b"", &[b"TIME"]).await;
    let took = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    let ms = |reply: &Result<Reply>| {
        let number = |i: usize| {
            let text = reply.as_ref().ok()?.array()?.get(i)?.text()?;
            std::str::from_utf8(text).ok()?.parse::<i64>().ok()
        };
        Some(number(0)? * 1000 + number(1)? / 1000)
    };
    let (Some(from), Some(to)) = (ms(&at_source), ms(&at_target)) else { return Ok(None) };
    Ok(clock_difference(to - from, took))
}

/// The same for a target that is so far ahead, and a question that took so long, milliseconds.
fn clock_difference(ahead: i64, took: i64) -> Option<String> {
    (ahead.abs() > took.saturating_add(CLOCK_SKEW_MAX_MS)).then(|| {
        let direction = if ahead > 0 { "ahead of" } else { "behind" };
        format!(
            "the clock of the target is {} s {direction} that of the source: keys expire at the target at another time, and \
             changes of keys with a short expiry may be lost; hint: synchronise the clocks, and run `whimbrel redis verify`",
            (ahead.abs() + 500) / 1000
        )
    })
}

/// How a server's stream is called, and was before.
fn replids(server: &ServerInfo) -> Vec<String> {
    let all = server.masters.iter().chain([&server.replid, &server.replid_before]);
    all.filter(|id| id.bytes().any(|b| b != b'0')).cloned().collect()
}

/// What the target understands; none where it understands all that the source says.
async fn command_translator(
    from: &ServerInfo,
    to: &ServerInfo,
    target: &mut QueryClient,
) -> Result<Option<CommandTranslator>> {
    let same = from.family == to.family && from.version <= to.version;
    // Valkey began as Redis 7.2.
    let heir = to.family == Family::Valkey && from.family == Family::Redis && from.version <= (7, 2);
    let understands = !to.missing.transactions && !to.missing.restore && (same || heir);
    if understands { Ok(None) } else { CommandTranslator::query(to, target).await.map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_mentioned() {
        assert_eq!((clock_difference(900, 0), clock_difference(-5000, 4500)), (None, None));
        assert!(clock_difference(60_100, 3).unwrap().contains("is 60 s ahead of that of the source"));
        assert!(clock_difference(-1600, 3).unwrap().contains("is 2 s behind that of the source"));
    }
}
