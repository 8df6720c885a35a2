//! The stream behind a snapshot while it is followed: applied in transactions, compared with the source, stopped.

mod suspects;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::{Command, Commands, Reply};

use crate::checkpoint::fencing::TOKEN_CHECK_INTERVAL;
use crate::checkpoint::watermarks::Watermarks;
use crate::checkpoint::{Checkpoint, checkpoint_missing, failures};
use crate::connection::server::ServerInfo;
use crate::events::Event;
use crate::migration::{Migration, Until};
use crate::progress::Summary;
use crate::snapshot::load::add_counts;
use crate::source::psync::Position;
use crate::source::spool::Spool;
use crate::stream::apply::{Applier, CommandOutcome};
use crate::stream::connections::{Connections, SessionEnd};
use crate::stream::key_repair::{KeyRepair, recall_suspects};
use crate::target::Writer;
use crate::target::cluster::Received;
use crate::target::functions::{self, LibraryCommand};
use crate::target::slot_router::Broadcast;
use crate::target::transaction::{Grouping, TransactionEncoder};

/// How often the source is asked for its offset.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// The same while the migration is finishing.
const FINISHING_PROBE_INTERVAL: Duration = Duration::from_millis(4);
/// How long replies are waited for after a stop.
const STOP_TIMEOUT: Duration = Duration::from_millis(400);
/// When the target has not caught up for this long, changes are checked again.
const LAG_MAX: Duration = Duration::from_millis(200);
/// Pieces of the stream that are applied before the time is read again.
const CHUNKS_PER_PASS: usize = 64;

/// What the source was asked, and when.
#[derive(Clone, Copy, Debug)]
struct Probe {
    offset: u64,
    began: Instant,
}

/// The stream while it is followed.
pub(crate) struct Follower<'a> {
    migration: &'a Migration,
    connections: Connections,
    applier: Applier,
    /// Begins the checkpoints of the slots of a cluster.
    epoch: String,
    /// Which offset is the checkpoint of all slots together, and since when.
    watermarks: Watermarks,
    ack: Arc<tokio::sync::Notify>,
    commands: Option<Commands>,
    /// Suspect keys at the target.
    repair: KeyRepair,
    /// When the fencing token was last verified.
    token_verified_at: Instant,
    /// Everything that the source did until then is applied.
    caught_up_at: Instant,
    probe: Option<Probe>,
    /// `Event::CaughtUp` was sent.
    reported_caught_up: bool,
    /// Done as soon as it is caught up.
    finishing: bool,
    done: bool,
}

impl<'a> Follower<'a> {
    /// Begins behind what `apply` has taken; until it has caught up, changes are watched.
    pub(crate) fn new(
        migration: &'a Migration,
        mut connections: Connections,
        mut applier: Applier,
        epoch: String,
        ack: Arc<tokio::sync::Notify>,
    ) -> Self {
        let keeps_checkpoint = !connections.target_info.missing.transactions;
        if let Writer::Standalone(one) = &mut connections.writer {
            let grouping = if keeps_checkpoint { Grouping::Transactions } else { Grouping::Single };
            let names = keeps_checkpoint.then(|| migration.names.clone());
            *one.changes = TransactionEncoder::new(grouping, names, true);
        }
        connections.writer.resume_changes();
        applier.expiry_guard.start(keeps_checkpoint, connections.can_run_scripts);
        let commands =
            Some(Commands::starting_at(applier.offset()).with_limit(migration.options.spool.command));
        let finishing = migration.options.until == Until::CaughtUp;
        let watermarks = Watermarks::new(applier.offset(), applier.db(), applier.is_migrated());
        Self {
            migration,
            connections,
            applier,
            epoch,
            watermarks,
            ack,
            commands,
            repair: KeyRepair::default(),
            token_verified_at: Instant::now(),
            caught_up_at: Instant::now(),
            probe: None,
            reported_caught_up: false,
            finishing,
            done: false,
        }
    }

    /// Follows until it is done or stopped, or something breaks; what the target has no place for is added to the summary.
    pub(crate) async fn run(mut self, spool: &Spool, summary: &mut Summary) -> Result<SessionEnd> {
        let ended = self.follow(spool).await;
        summary.notes.append(&mut self.applier.notes);
        if self.applier.skipped_changes > 0 {
            let n = self.applier.skipped_changes;
            summary.notes.push(format!("{n} changes of keys that existed at the target were skipped"));
        }
        add_counts(
            &mut summary.full.unsupported,
            std::mem::take(&mut self.applier.unsupported)
                .into_iter()
                .chain(std::mem::take(&mut self.repair.unsupported)),
        );
        if !self.connections.target_info.missing.transactions && !summary.full.unsupported.is_empty() {
            // The connection may be lost, and nothing else.
            let recorded =
                failures::record(&mut self.connections.target, &self.migration.names, summary).await;
            return ended.and_then(|ended| recorded.map(|()| ended));
        }
        ended
    }

    async fn follow(&mut self, spool: &Spool) -> Result<SessionEnd> {
        let names = &self.migration.names;
        recall_suspects(&mut self.connections, names, &mut self.applier.expiry_guard).await?;
        let mut tick = tokio::time::interval(PROBE_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (stop, finish) = (self.migration.stop.clone(), self.migration.finish.clone());
        let mut finish_requested = false;
        loop {
            let bytes = tokio::select! {
                biased;
                () = stop.cancelled() => return self.stop().await,
                () = finish.cancelled(), if !finish_requested => {
                    // What was known of the source before does not count: it may have gone on since.
                    (finish_requested, self.finishing, self.probe) = (true, true, None);
                    tick = tokio::time::interval(FINISHING_PROBE_INTERVAL);
                    None
                }
                _ = tick.tick() => None,
                // What a slot's answers let go on is sent before more is taken.
                received = next_reply(&mut self.connections.writer) => {
                    if let Writer::Cluster(cluster) = &mut self.connections.writer {
                        cluster.handle_reply(received).await?;
                    }
                    continue;
                }
                bytes = spool.pop() => Some(bytes),
            };
            match bytes {
                None => {
                    self.poll().await?;
                    if self.done {
                        self.close(true).await?;
                        self.connections.writer.flush().await?;
                        self.finish_checkpoints().await?;
                        return Ok(SessionEnd::Done);
                    }
                }
                Some(Ok(Some(bytes))) => self.apply_chunk(bytes, spool).await?,
                Some(Ok(None)) => {
                    return Err(
                        Error::new(Kind::Connect, "psync", "the replication stream ended").at(Side::Source)
                    );
                }
                Some(Err(failure)) => {
                    // What has come is applied before the link is opened again.
                    self.abandon().await?;
                    return Err(failure);
                }
            }
        }
    }

    async fn apply_chunk(&mut self, bytes: bytes::Bytes, spool: &Spool) -> Result<()> {
        if !self.applier.expiry_guard.is_lagging() && self.caught_up_at.elapsed() > LAG_MAX {
            self.applier.expiry_guard.set_lagging();
        }
        let Some(mut commands) = self.commands.take() else { return Ok(()) };
        let mut next = Some(bytes);
        let mut chunks = 0;
        while let Some(bytes) = next.take() {
            let progress = &self.migration.progress;
            progress.stream_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.migration.options.bandwidth.acquire(bytes.len() as u64).await;
            commands.push(&bytes);
            // Once for all of them: reading the clock each time would take a fifth of the CPU time.
            let now = self.migration.clock.now_ms();
            self.apply_commands(&mut commands, now).await?;
            let progress = &self.migration.progress;
            progress.commands.store(self.applier.commands, Ordering::Relaxed);
            self.verify_token().await?;
            chunks += 1;
            if chunks < CHUNKS_PER_PASS {
                next = spool.try_pop().ok().flatten().flatten();
            }
        }
        self.commands = Some(commands);
        self.close(true).await
    }

    /// Applies the commands that have arrived whole.
    async fn apply_commands(&mut self, commands: &mut Commands, now_ms: i64) -> Result<()> {
        loop {
            let begin = commands.offset();
            let command = commands.next_command().map_err(|e| match e.long {
                // Asking again would bring the same.
                true => {
                    let m = format!("{e}; hint: raise limits.memory (one command may use a quarter of it)");
                    Error::new(Kind::TooLarge, "stream", m).at(Side::Source)
                }
                false => Error::new(Kind::Corrupt, "stream", e.to_string()).at(Side::Source),
            })?;
            let Some(command) = command else { return Ok(()) };
            let end = begin + command.raw.len() as u64;
            let outcome = self.apply_command(&command, (begin, end), now_ms).await?;
            if let Some(pair) = self.applier.swapped_dbs.take() {
                self.repair.swap_dbs(pair, self.applier.expiry_guard.lists_at_target());
            }
            if outcome == CommandOutcome::AckRequested {
                self.ack.notify_one();
            }
            self.write_if_due(end).await?;
        }
    }

    /// Gives the operations of a command to the writer, and does what else they need.
    async fn apply_command(
        &mut self,
        command: &Command<'_>,
        (begin, end): (u64, u64),
        now_ms: i64,
    ) -> Result<CommandOutcome> {
        let writer = &mut self.connections.writer;
        writer.begin_command(Some((begin, end)));
        let outcome = self.applier.apply(command, end, writer, now_ms)?;
        match writer {
            Writer::Standalone(one) => {
                if !one.changes.dbs_to_verify.is_empty() {
                    // The open transaction has not been sent: when this fails, nothing was done.
                    self.connections.target.verify_dbs(one.changes.dbs_to_verify.clone()).await?;
                    one.changes.confirm_dbs();
                }
                one.push_pending_single(end);
                if let Some(library) = one.changes.barrier.take() {
                    self.change_libraries(&library, (begin, end)).await?;
                } else if one.is_transaction_full() {
                    self.close(false).await?;
                } else if !one.changes.is_unsendable() {
                    one.apply_backpressure().await?;
                }
            }
            Writer::Cluster(cluster) => {
                self.watermarks.record_db(end, self.applier.db(), self.applier.is_migrated());
                for words in std::mem::take(&mut cluster.cross_slot) {
                    self.applier.suspect_cross_slot(&words, &mut **cluster)?;
                }
                cluster.apply_backpressure().await?;
                if let Some(command) = cluster.to_broadcast.take() {
                    self.broadcast(&command, begin).await?;
                }
            }
        }
        Ok(outcome)
    }

    /// Ends the open transaction; `now`: nothing else waits, so it is sent at once.
    async fn close(&mut self, now: bool) -> Result<()> {
        match &mut self.connections.writer {
            Writer::Standalone(one) => {
                one.close_transaction(|| self.applier.checkpoint(), self.applier.offset());
                // A transaction that is still open is not sent in parts: its replies are expected as one.
                match one.changes.is_unsendable() {
                    true => Ok(()),
                    false if now => one.send().await,
                    false => one.apply_backpressure().await,
                }
            }
            Writer::Cluster(cluster) if now => cluster.send().await,
            Writer::Cluster(cluster) => cluster.apply_backpressure().await,
        }
    }

    /// The checkpoint of all slots together at an offset.
    fn checkpoint_at(&self, offset: u64) -> String {
        let position = Position { replid: self.applier.replid().to_owned(), offset };
        Checkpoint::Applied(position, self.watermarks.db_at(offset), Some(self.epoch.clone())).text()
    }

    /// Notes at a cluster up to where all slots are.
    async fn write_checkpoint(&mut self, offset: u64) -> Result<()> {
        let (key, text) = (&self.migration.names.checkpoint, self.checkpoint_at(offset));
        let set = self.connections.target.call(0, key, &[b"SET", key, text.as_bytes(), b"XX"]).await?;
        if set == Reply::Nil { Err(self.explain_missing_checkpoint().await) } else { Ok(()) }
    }

    /// Fails when the checkpoint is not at the target any more.
    async fn verify_checkpoint(&mut self) -> Result<()> {
        if self.connections.target_info.missing.transactions {
            return Ok(());
        }
        let key = &self.migration.names.checkpoint;
        let found = self.connections.target.call(0, key, &[b"EXISTS", key]).await?;
        if found.number() == Some(0) { Err(self.explain_missing_checkpoint().await) } else { Ok(()) }
    }

    /// Another run that has taken over deletes it too.
    async fn explain_missing_checkpoint(&mut self) -> Error {
        let (names, token) = (&self.migration.names, &self.connections.token);
        let verified = match self.connections.target.client_of_key(&names.fencing_token).await {
            Ok(client) => names.verify_token(client, token).await,
            Err(failure) => Err(failure),
        };
        verified.err().unwrap_or_else(|| checkpoint_missing(&self.migration.target.display_url()))
    }

    /// A command that concerns every server of a cluster, and begins at an offset.
    async fn broadcast(&mut self, command: &Broadcast, begin: u64) -> Result<()> {
        let text = self.checkpoint_at(begin);
        self.watermarks.set_checkpointed(begin);
        let checkpoint = Some((self.migration.names.checkpoint.as_slice(), text.as_bytes()));
        match &mut self.connections.writer {
            Writer::Cluster(cluster) => {
                self.applier.record_libraries(
                    &cluster.broadcast(command, &mut self.connections.target, checkpoint).await?,
                );
                Ok(())
            }
            Writer::Standalone(_) => Ok(()),
        }
    }

    /// A command about libraries of functions, between two offsets of the stream: everything before it is applied first, and
    /// it is not part of a transaction, whose other changes its refusal would undo.
    async fn change_libraries(&mut self, library: &LibraryCommand, (begin, end): (u64, u64)) -> Result<()> {
        self.applier.skip_to(begin);
        self.close(true).await?;
        self.connections.writer.flush().await?;
        let policy = self.migration.options.functions;
        let done = functions::run_at_masters(&mut self.connections.target, library, policy).await?;
        for note in done.notes() {
            self.migration.options.event_sender.send(Event::Note(note));
        }
        self.applier.record_libraries(&done);
        self.applier.skip_to(end);
        Ok(())
    }

    /// At the end the one checkpoint is enough: those of the slots are removed.
    async fn finish_checkpoints(&mut self) -> Result<()> {
        let Writer::Cluster(cluster) = &self.connections.writer else { return Ok(()) };
        let keys: Vec<Vec<u8>> = cluster
            .slots_with_checkpoint()
            .into_iter()
            .map(|s| self.migration.names.slot_checkpoint(s))
            .collect();
        self.write_checkpoint(self.applier.offset()).await?;
        self.connections.target.call_each(&keys, &[b"DEL"], &[]).await.map(drop)
    }

    /// What is whole is applied and answered, what is not is forgotten: the source sends it again.
    async fn abandon(&mut self) -> Result<()> {
        self.applier.abandon();
        self.connections.writer.abandon();
        self.connections.writer.flush().await
    }

    /// Polls how far both ends are, and repairs suspect keys.
    async fn poll(&mut self) -> Result<()> {
        self.verify_token().await?;
        // Another run that has taken over, or a lost connection, is noticed when nothing is to be written too.
        self.connections.writer.check().await?;
        self.verify_checkpoint().await?;
        if !self.connections.writer.is_transaction_open() {
            self.connections.writer.keep_alive().await?;
        }
        if !self.connections.writer.is_transaction_open() && self.connections.writer.is_idle() {
            // Signs of life only: they count as applied.
            self.connections.writer.shared().applied.store(self.applier.offset(), Ordering::Release);
        }
        if let Writer::Cluster(cluster) = &self.connections.writer {
            let low = cluster.publish_applied(self.applier.offset());
            if let Some(offset) = self.watermarks.due(low, Instant::now()) {
                self.write_checkpoint(offset).await?;
            }
        }
        let applied = self.connections.writer.shared().applied.load(Ordering::Acquire);
        let progress = &self.migration.progress;
        if let Some(probe) = self.probe {
            progress.lag_bytes.store(probe.offset.saturating_sub(applied), Ordering::Relaxed);
            if applied < probe.offset {
                let lag = u64::try_from(probe.began.elapsed().as_millis()).unwrap_or(u64::MAX);
                progress.lag_ms.store(lag, Ordering::Relaxed);
                return Ok(());
            }
            progress.lag_ms.store(0, Ordering::Relaxed);
            self.caught_up_at = probe.began;
            if self.applier.expiry_guard.is_lagging() {
                self.applier.expiry_guard.set_caught_up(self.applier.offset());
            }
            if self.applier.expiry_guard.is_readable(applied)
                && !self.connections.writer.is_transaction_open()
            {
                self.repair_suspects().await?;
            }
            if self.finishing
                && !self.connections.writer.is_transaction_open()
                && !self.applier.expiry_guard.is_active()
            {
                self.done = true;
                return Ok(());
            }
        }
        let began = Instant::now();
        let server = ServerInfo::query(&mut self.connections.source).await.map_err(|f| f.at(Side::Source))?;
        self.probe = Some(Probe { offset: server.offset, began });
        Ok(())
    }

    /// A run that has lost its token ends by itself where it cannot be disconnected.
    async fn verify_token(&mut self) -> Result<()> {
        let Some(token) = self
            .connections
            .token_to_verify
            .clone()
            .filter(|_| self.token_verified_at.elapsed() > TOKEN_CHECK_INTERVAL)
        else {
            return Ok(());
        };
        let names = &self.migration.names;
        names
            .verify_token(self.connections.target.client_of_key(&names.fencing_token).await?, &token)
            .await?;
        self.token_verified_at = Instant::now();
        Ok(())
    }

    /// The target has caught up and no key is suspect.
    fn report_caught_up(&mut self) {
        let written = self.repair.reset();
        if written > 0 {
            tracing::info!("{written} keys were read again from the source and rewritten");
        }
        let forgotten = self.applier.expiry_guard.finish();
        if forgotten > 0 {
            let m = format!(
                "{forgotten} keys may have expired early at the target and exceeded the tracking limit; hint: run \
                 `whimbrel redis verify`"
            );
            self.migration.options.event_sender.send(Event::Note(m));
        }
        if !std::mem::replace(&mut self.reported_caught_up, true) {
            self.migration.options.event_sender.send(Event::CaughtUp);
        }
    }

    /// Writes what the source said when the stream is where it said so, and asks for what is left.
    async fn write_if_due(&mut self, offset: u64) -> Result<()> {
        while self.repair.is_due(offset) && !self.applier.is_in_source_transaction() {
            self.close(true).await?;
            self.connections.writer.flush().await?;
            let (route, names, clock) =
                (&self.migration.options.route, &self.migration.names, &self.migration.clock);
            self.repair
                .write_pending(&mut self.connections, route, names, clock, &mut self.applier.expiry_guard)
                .await?;
            self.connections.writer.resume_changes();
            self.refetch().await?;
        }
        Ok(())
    }

    /// After a stop: what is under way is answered, so that the position at the target is exact.
    async fn stop(&mut self) -> Result<SessionEnd> {
        match tokio::time::timeout(STOP_TIMEOUT, self.abandon()).await {
            Ok(settled) => settled?,
            Err(_) => tracing::warn!(
                "the target did not acknowledge before shutdown; the stored checkpoint is \
                 authoritative"
            ),
        }
        Ok(SessionEnd::Stopped)
    }
}

/// The next reply of a cluster, when something is in flight; a single server's are counted elsewhere.
async fn next_reply(writer: &mut Writer) -> Received {
    match writer {
        Writer::Cluster(cluster) if !cluster.is_idle() => cluster.next_reply().await,
        _ => std::future::pending().await,
    }
}
