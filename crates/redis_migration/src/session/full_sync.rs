//! The full phase: a snapshot of the source is loaded, and what comes behind it waits; then the stream is followed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use model::error::{Error, Kind, Result, Side};
use redis_proto::command::SLOTS;
use redis_proto::rdb::{Item, Parser};

use crate::checkpoint::fencing::TOKEN_CHECK_INTERVAL;
use crate::checkpoint::selection::{Origin, Selection};
use crate::checkpoint::target_locks::TargetLock;
use crate::checkpoint::{Checkpoint, failures, target_locks};
use crate::events::Event;
use crate::migration::{MasterRank, Migration, Until};
use crate::progress::Summary;
use crate::snapshot::load::{Loader, SPLIT_VALUES_ABOVE, corrupt};
use crate::snapshot::restore::Conflict;
use crate::source::psync::{Link, Position};
use crate::source::spool::Spool;
use crate::stream::apply::Applier;
use crate::stream::connections::{Connections, SessionEnd};
use crate::stream::existing_keys::ExistingKeys;
use crate::stream::follower::Follower;
use crate::target::Writer;

/// What cannot be overcome says how much of the snapshot stands at the target.
pub(crate) fn with_keys_written(failure: Error, keys: u64) -> Error {
    if failure.is_temporary() || failure.kind == Kind::Stopped || keys == 0 {
        return failure;
    }
    let m = format!(
        "{}; {keys} keys of the snapshot were written; running the same command again writes them again",
        failure.message
    );
    Error { message: m, ..failure }
}

impl Migration {
    /// Notes that a snapshot begins. What an interrupted snapshot left at a target that was empty before is deleted first.
    pub(crate) async fn begin_full_sync(
        &self,
        connections: &mut Connections,
        checkpoint: Option<Checkpoint>,
        replid: &str,
        summary: &mut Summary,
    ) -> Result<ExistingKeys> {
        if connections.target_info.missing.transactions {
            return Ok(ExistingKeys::default());
        }
        let target = &mut connections.target;
        let lock = TargetLock::new(&self.options.route, replid);
        lock.supersede(target, &self.names, &self.target, Some(&connections.source_info)).await?;
        // Without a checkpoint no lock is needed.
        if self.options.until != Until::Full {
            lock.record(target, &self.names).await?;
        }
        let mut dbs = self.options.route.targets(&connections.source_info.dbs);
        let again = match &checkpoint {
            Some(Checkpoint::FullSync(written)) => {
                dbs.extend(written);
                true
            }
            _ => false,
        };
        if again {
            // An incomplete snapshot: no client can depend on it yet.
            let (route, ranges) = (&self.options.route, self.shard.as_ref().map(|m| &m.ranges[..]));
            let selection = Selection { dbs: dbs.clone(), route, ranges };
            let is_shared = selection.has_other_keys(target, &connections.target_info.dbs).await?;
            let origin = Origin { client: &mut connections.source, dbs: &connections.source_info.dbs };
            self.note(selection.delete(target, &self.names, is_shared.then_some(origin)).await?, summary);
        } else if connections.writer.is_cluster() && checkpoint.is_some() {
            // Suspects of an earlier run do not concern this one.
            let lists: Vec<Vec<u8>> = (0..SLOTS).map(|slot| self.names.slot_suspects(slot)).collect();
            target.call_each(&lists, &[b"DEL"], &[]).await?;
        }
        if self.options.conflict != Conflict::Skip {
            target.execute(&self.names.existing, &[b"DEL", &self.names.existing]).await?;
        }
        let (suspects, checkpoint_key) = (&self.names.suspects, &self.names.checkpoint);
        target.execute(suspects, &[b"DEL", suspects]).await?;
        target.execute(checkpoint_key, &[b"DEL", checkpoint_key]).await?;
        // Keys of other links of the same migration are not deleted.
        let was_empty =
            self.shard.as_ref().map_or(connections.target_info.keys == 0, |master| master.target_was_empty);
        if again || (checkpoint.is_none() && was_empty) {
            let text = Checkpoint::FullSync(dbs.into_iter().collect()).text();
            target.execute(checkpoint_key, &[b"SET", checkpoint_key, text.as_bytes()]).await?;
        }
        self.read_existing(connections).await
    }

    /// The keys that the target holds before the snapshot. Those that are kept are recorded at once: when the snapshot is
    /// interrupted, they cannot be told from its keys.
    async fn read_existing(&self, connections: &mut Connections) -> Result<ExistingKeys> {
        let (target, set, conflict) = (&mut connections.target, &self.names.existing, self.options.conflict);
        let is_empty = connections.target_info.keys == 0;
        if self.options.until == Until::Full || (is_empty && conflict != Conflict::Skip) {
            return Ok(ExistingKeys::default());
        }
        if conflict == Conflict::Skip
            && let Some(known) = ExistingKeys::recall(target, set, conflict).await?
        {
            return Ok(known);
        }
        let route = &self.options.route;
        let dbs = connections.target_info.dbs.iter().copied().filter(|db| route.may_write(*db)).collect();
        let selection = Selection { dbs, route, ranges: self.shard.as_ref().map(|m| &m.ranges[..]) };
        let mut existing = ExistingKeys::read(&selection, target, conflict).await?;
        if conflict == Conflict::Skip {
            existing.record(target, set).await?;
        }
        Ok(existing)
    }

    /// Says something to know, now and at the end.
    pub(crate) fn note(&self, note: Option<String>, summary: &mut Summary) {
        let Some(note) = note.filter(|note| !summary.notes.contains(note)) else { return };
        self.options.event_sender.send(Event::Note(note.clone()));
        summary.notes.push(note);
    }

    /// The snapshot, where there is one, and the stream behind it.
    pub(crate) async fn sync(
        &self,
        mut link: Link,
        snapshot: Option<Arc<Spool>>,
        mut connections: Connections,
        mut applier: Applier,
        epoch: String,
        summary: &mut Summary,
    ) -> Result<SessionEnd> {
        if connections.writer.is_cluster() {
            applier = applier.for_single_database();
        }
        let applied = connections.writer.shared().applied.clone();
        applied.store(applier.offset(), Ordering::Release);
        let stream = Spool::new(&self.options.spool_dir, self.options.spool)?;
        let ack = Arc::new(tokio::sync::Notify::new());
        let receiver = {
            let (snapshot, stream, applied, ack) = (snapshot.clone(), stream.clone(), applied, ack.clone());
            tokio::spawn(async move {
                if let Some(snapshot) = snapshot {
                    let received = link.snapshot(&snapshot).await;
                    snapshot.end(received.clone());
                    if let Err(failure) = received {
                        return stream.end(Err(failure));
                    }
                }
                let broke = link.stream(&stream, applied, ack).await;
                stream.end(broke);
            })
        };
        // Whatever happens here, the link goes with it.
        let _link = AbortOnDrop(receiver);
        if let Some(snapshot) = snapshot {
            self.progress.phase.store(1, Ordering::Relaxed);
            let began = Instant::now();
            let shared = connections.writer.shared().clone();
            self.load_snapshot(&snapshot, &mut connections, &mut applier, summary)
                .await
                .map_err(|f| with_keys_written(f, shared.keys.load(Ordering::Relaxed)))?;
            let seconds = began.elapsed().as_secs_f64();
            summary.full_seconds += seconds;
            self.options.event_sender.send(Event::SnapshotLoaded { keys: summary.full.keys, seconds });
            if self.options.until == Until::Full {
                return self.finish_full_sync(&mut connections).await;
            }
            self.start_checkpoints(&mut connections, &mut applier, &epoch, summary).await?;
            connections.reconnect_idle_source().await?;
        }
        self.progress.phase.store(2, Ordering::Relaxed);
        summary.resumable = !connections.target_info.missing.transactions;
        Follower::new(self, connections, applier, epoch, ack).run(&stream, summary).await
    }

    /// Loads the items that have arrived whole; functions, which all masters have alike, only from the first master.
    async fn load_items(
        &self,
        parser: &mut Parser,
        loader: &mut Loader<'_>,
        applier: &mut Applier,
    ) -> Result<()> {
        while let Some(item) = parser.next_item().map_err(|e| corrupt(&e))? {
            if let Item::Aux(name, text) = &item
                && **name == b"lua"[..]
            {
                applier.scripts.insert(text);
            }
            let alike = matches!(item, Item::Function(_));
            if !alike || self.shard.as_ref().is_none_or(|master| master.rank() == MasterRank::First) {
                loader.load_item(item).await?;
            }
        }
        Ok(())
    }

    async fn load_snapshot(
        &self,
        snapshot: &Spool,
        connections: &mut Connections,
        applier: &mut Applier,
        summary: &mut Summary,
    ) -> Result<()> {
        let mut parser = Parser::new(SPLIT_VALUES_ABOVE);
        let shared = connections.writer.shared().clone();
        let mut existing = std::mem::take(&mut applier.existing);
        let (route, conflict) = (&self.options.route, existing.conflict_of_snapshot(self.options.conflict));
        let mut loader = Loader::new(
            route,
            &connections.target_info,
            conflict,
            &mut connections.writer,
            &mut connections.target,
            &self.clock,
        );
        loader.policy = self.options.functions;
        loader.existing = Some(&mut existing);
        let mut token_verified_at = Instant::now();
        loop {
            if let Some(token) = connections
                .token_to_verify
                .as_ref()
                .filter(|_| token_verified_at.elapsed() > TOKEN_CHECK_INTERVAL)
            {
                loader.verify_token(&self.names, token).await?;
                token_verified_at = Instant::now();
            }
            let next = async {
                let bytes = snapshot.pop().await?;
                let length = bytes.as_ref().map_or(0, |b| b.len() as u64);
                self.options.bandwidth.acquire(length).await;
                Ok::<_, Error>(bytes)
            };
            let bytes = tokio::select! {
                bytes = loader.keep_alive_while(next) => bytes??,
                () = self.stop.cancelled() => return Err(stopped()),
            };
            let Some(bytes) = bytes else { break };
            self.progress.full_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            parser.push(&bytes);
            self.load_items(&mut parser, &mut loader, applier).await?;
            self.progress.keys.store(shared.keys.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        if !parser.is_over() {
            return Err(Error::new(Kind::Connect, "snapshot", "the snapshot is truncated").at(Side::Source));
        }
        loader.finish_batch().await?;
        let loaded = std::mem::take(&mut loader.loaded);
        summary.notes.append(&mut loader.notes);
        applier.existing = existing;
        connections.writer.flush().await?;
        self.progress.keys.store(shared.keys.load(Ordering::Relaxed), Ordering::Relaxed);
        summary.skipped_existing = shared.skipped_existing.load(Ordering::Relaxed);
        summary.failed = shared.failed();
        summary.full = loaded;
        Ok(())
    }

    /// After the snapshot the position counts.
    async fn start_checkpoints(
        &self,
        connections: &mut Connections,
        applier: &mut Applier,
        epoch: &str,
        summary: &mut Summary,
    ) -> Result<()> {
        if connections.target_info.missing.transactions {
            return Ok(());
        }
        self.record_existing(connections, &mut applier.existing, summary).await?;
        failures::record(&mut connections.target, &self.names, summary).await?;
        let position = Position { replid: applier.replid().to_owned(), offset: applier.offset() };
        let scripts = applier.scripts.store_command(&self.names.scripts, None);
        if !scripts.is_empty() {
            connections.target.execute(&self.names.scripts, &scripts).await?;
        }
        let mut epoch_of_slots = None;
        if let Writer::Cluster(cluster) = &mut connections.writer {
            cluster.begin_changes(epoch, &[]);
            epoch_of_slots = Some(epoch.to_owned());
        }
        let text = Checkpoint::Applied(position, 0, epoch_of_slots).text();
        connections
            .target
            .execute(&self.names.checkpoint, &[b"SET", &self.names.checkpoint, text.as_bytes()])
            .await
    }

    /// Keys that were not in the snapshot are known to later runs too, where a change of one of them and its removal from the
    /// set are one transaction.
    async fn record_existing(
        &self,
        connections: &mut Connections,
        existing: &mut ExistingKeys,
        summary: &mut Summary,
    ) -> Result<()> {
        if self.options.conflict == Conflict::Replace {
            self.note(existing.note(), summary);
        }
        if existing.is_empty() || self.options.conflict == Conflict::Skip {
            return Ok(());
        }
        match connections.writer.is_cluster() {
            true => Ok(()),
            false => existing.record(&mut connections.target, &self.names.existing).await,
        }
    }

    /// Only the snapshot was requested: no reserved key stays at the target.
    async fn finish_full_sync(&self, connections: &mut Connections) -> Result<SessionEnd> {
        for key in [&self.names.checkpoint, &self.names.suspects, &self.names.fencing_token] {
            connections.target.execute(key, &[b"DEL", key]).await?;
        }
        if !connections.target_info.missing.transactions {
            target_locks::release(&mut connections.target, &self.names).await?;
        }
        Ok(SessionEnd::Done)
    }
}

fn stopped() -> Error {
    Error::new(Kind::Stopped, "redis", "the migration was stopped")
}

/// A task that ends with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
