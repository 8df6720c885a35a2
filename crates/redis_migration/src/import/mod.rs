//! Backups as sources: RDB files, append-only files with or without an RDB preamble, and folders of those in several parts.
//!
//! Everything is read through once before anything is written ([`check()`]), with the commands as they will be applied: what is
//! damaged, what the target does not know and what reaches beyond single keys is refused then. Commands that the target
//! refuses later are counted and named, as by a server that loads the file.

pub mod archive;
mod check;
mod commands;
pub(crate) mod expiry;
mod files;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use flow_control::clock::SharedClock;
use model::error::{Error, Kind, Result, Side};
use redis_proto::aof::{self, Form};
use redis_proto::rdb::{Item, Parser};
use redis_proto::resp::Commands;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::keys::KeyNames;
use crate::checkpoint::selection::Selection;
use crate::checkpoint::target_locks::TargetLock;
use crate::connection::RESERVED_PREFIX;
use crate::connection::capabilities::NO_TRANSACTIONS_NOTE;
use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;
use crate::connection::server::ServerInfo;
use crate::import::check::read_backup;
use crate::import::files::{READ_BYTES, data_end, push_until};
use crate::migration::Options;
use crate::operation::{Encoder, Operation};
use crate::progress::{Progress, Summary};
use crate::snapshot::load::{KeyFilter, Loader, SPLIT_VALUES_ABOVE, add_counts, corrupt};
use crate::snapshot::restore::Conflict;
use crate::source::psync::Position;
use crate::stream::apply::Applier;
use crate::stream::existing_keys::ExistingKeys;
use crate::stream::translate::CommandTranslator;
use crate::target::Writer;
use crate::target::functions::FunctionPolicy;
use crate::target::slot_router::{Broadcast, SlotSink, cross_slot_failure, route};
use crate::target::transaction::{Grouping, TransactionEncoder};

pub use check::{BackupContents, check};
use commands::unsafe_commands_failure;
pub use files::backup_files;
pub(crate) use files::read_failure;

/// Pieces that wait to be applied.
const CHUNKS_AHEAD: usize = 16;

/// A backup on its way to a server.
pub struct Import {
    /// Files or folders, in the order in which they are applied.
    pub files: Vec<PathBuf>,
    /// Where to.
    pub target: Node,
    /// Which keys are migrated, and where to, and what happens to those that are there.
    pub options: Options,
    /// Commands that affect more than single keys are skipped if they cannot be applied, instead of rejecting the files.
    pub skip_unsafe_commands: bool,
    /// Time.
    pub clock: SharedClock,
    /// Live numbers.
    pub progress: Arc<Progress>,
    /// Cancelled: stop. An import starts over.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Import({:?} to {})", self.files, self.target.display_url())
    }
}

/// The bytes of a file, read by a thread of its own.
fn read_chunks(path: &Path) -> Result<mpsc::Receiver<Result<Bytes>>> {
    let mut file = std::fs::File::open(path).map_err(|e| read_failure(path, &e))?;
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let path = path.to_owned();
    let read = move || loop {
        let mut chunk = vec![0; READ_BYTES];
        let chunk = match file.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) => {
                chunk.truncate(n);
                Ok(Bytes::from(chunk))
            }
            Err(e) => Err(read_failure(&path, &e)),
        };
        let last = chunk.is_err();
        if sender.blocking_send(chunk).is_err() || last {
            return;
        }
    };
    let started = std::thread::Builder::new().name("backup".into()).spawn(read);
    started.map_err(|e| Error::new(Kind::Internal, "read", e.to_string()))?;
    Ok(receiver)
}

/// The beginning of a file.
enum FileStart {
    /// The bytes read so far, and what they begin.
    Known(Vec<u8>, Form),
    /// A part of an append-only file without commands.
    Empty,
    /// A stop came first.
    Stopped,
}

/// Takes operations and writes nothing; fails for those that the target has no place for.
struct DryRun {
    cluster: bool,
    names: Arc<KeyNames>,
}

impl Encoder for DryRun {
    fn push(&mut self, operation: Operation<'_>) -> Result<()> {
        if !self.cluster {
            return Ok(());
        }
        let names = self.names.clone();
        route(operation, &names, self)
    }
}

impl SlotSink for DryRun {
    fn to_slot(&mut self, _: u16, _: u32, _: &dyn Fn(&mut Vec<u8>)) {}

    fn to_all(&mut self, _: Broadcast) {}

    fn across_slots(&mut self, args: &[&[u8]]) -> Result<()> {
        Err(cross_slot_failure(args))
    }

    fn source_transaction(&mut self, _: bool) {}
}

/// Adds what was loaded from a snapshot to the summary.
fn record_loaded(loader: &mut Loader<'_>, summary: &mut Summary) {
    summary.notes.append(&mut loader.notes);
    let loaded = &mut loader.loaded;
    summary.full.keys += loaded.keys;
    summary.full.functions += loaded.functions;
    summary.full.empty += loaded.empty;
    add_counts(&mut summary.full.unsupported, std::mem::take(&mut loaded.unsupported));
}

/// Notes the incomplete command and the NUL bytes at the end of a file.
///
/// # Errors
/// [`Kind::Corrupt`] when what remains begins no command.
fn note_skipped_tail(
    path: &Path,
    commands: &Commands,
    end: u64,
    length: u64,
    summary: &mut Summary,
) -> Result<()> {
    if commands.waiting() > 0 {
        let at = commands.offset();
        if !commands.begins_command() {
            let m = format!("at byte {at}: neither a snapshot nor a command of an append-only file");
            return Err(Error::new(Kind::Corrupt, "commands", m).at(Side::Source));
        }
        summary
            .notes
            .push(format!("{}: truncated at byte {at}; the incomplete tail was skipped", path.display()));
    }
    if length > end {
        let n = length - end;
        summary.notes.push(format!(
            "{}: {n} NUL bytes from byte {end} were skipped (a power failure can leave them)",
            path.display()
        ));
    }
    Ok(())
}

impl Import {
    /// Applies the files one after the other.
    ///
    /// # Errors
    /// For a file that cannot be read, with the offset of what is wrong in it; for what the target answers.
    pub async fn run(&self) -> Result<Summary> {
        let mut files = Vec::new();
        for path in &self.files {
            let paths = backup_files(path)?;
            let last = paths.len().saturating_sub(1);
            files.extend(paths.into_iter().enumerate().map(|(i, file)| (file, i == last)));
        }
        let (mut query, server, topology) = QueryClient::open(&self.target, Side::Target).await?;
        let target_is_empty = self.target_is_empty(&mut query, &server).await?;
        let translator = CommandTranslator::query(&server, &mut query).await?;
        let mut summary = Summary::default();
        // An append-only file in parts is one stream: its database and transactions go on from part to part.
        let applying = || {
            let mut applier = Applier::new(self.options.route.clone(), None, &Position::default(), 0)
                .skipping_commands(self.options.skip_commands.clone());
            applier.translator = Some(translator.clone());
            match (topology.is_some(), server.missing.transactions, target_is_empty) {
                (true, ..) => applier.for_single_database(),
                (_, true, _) => applier.without_checkpoint(),
                (.., true) => applier.accepting_all_commands(),
                _ => applier,
            }
        };
        let found = self.check_files(&files, applying(), topology.is_some()).await?;
        if !target_is_empty && !self.skip_unsafe_commands && !found.unsafe_commands.is_empty() {
            return Err(unsafe_commands_failure(&found.unsafe_commands));
        }
        let mut existing = ExistingKeys::default();
        if found.commands > 0 {
            existing = self.read_existing(&server, &mut query).await?;
        }
        summary.notes.extend(existing.note().filter(|_| existing.is_empty()));
        if self.options.conflict == Conflict::Fail && !existing.is_empty() {
            let mut applier = applying();
            applier.existing = existing.clone();
            self.check_files(&files, applier, topology.is_some()).await?;
        }
        self.options.route.check(&found.dbs.iter().copied().collect::<Vec<_>>())?;
        if server.has_databases() {
            query.verify_dbs(self.options.route.targets(&found.dbs.into_iter().collect::<Vec<_>>())).await?;
        }
        if server.missing.transactions {
            summary.notes.push(NO_TRANSACTIONS_NOTE.into());
        } else {
            self.supersede_migrations(&mut query, &mut summary).await?;
        }
        let mut writer = Writer::for_restartable_work(&self.target, topology.as_ref(), "import").await?;
        let mut applier = applying();
        // Where there are no commands, nothing changes an expiry. A proxy cannot be asked for its keys.
        applier.holds_expiries = found.commands > 0 && !server.missing.transactions;
        applier.existing = existing;
        let holds_expiries = applier.holds_expiries;
        let mut done =
            self.apply_files(&files, &server, &mut query, &mut writer, applier, &mut summary).await;
        if holds_expiries {
            done = done.and(expiry::release(&mut query, found.expires_fields).await);
        }
        if let Writer::Cluster(cluster) = &writer {
            // The token is removed whatever became of it.
            let left = cluster.release_token(&mut query).await;
            done?;
            left?;
        } else {
            done?;
        }
        Ok(summary)
    }

    /// The keys that the target holds and commands may change.
    async fn read_existing(&self, server: &ServerInfo, query: &mut QueryClient) -> Result<ExistingKeys> {
        if server.missing.transactions || server.keys == 0 {
            return Ok(ExistingKeys::default());
        }
        let (route, conflict) = (&self.options.route, self.options.conflict);
        let dbs = server.dbs.iter().copied().filter(|db| route.may_write(*db)).collect();
        ExistingKeys::read(&Selection { dbs, route, ranges: None }, query, conflict).await
    }

    /// Ends the migrations that write keys which the files may hold: what they would apply next may be in the files already.
    async fn supersede_migrations(&self, query: &mut QueryClient, summary: &mut Summary) -> Result<()> {
        let lock = TargetLock::new(&self.options.route, "");
        for id in lock.supersede(query, &KeyNames::new("import"), &self.target, None).await? {
            summary.notes.push(format!(
                "migration `{id}` writes to the same keys of this target; its checkpoint is no longer valid, and its next \
                 run starts a full sync"
            ));
        }
        Ok(())
    }

    /// Applies the files; whether it came to its end stands in the summary.
    async fn apply_files(
        &self,
        files: &[(PathBuf, bool)],
        server: &ServerInfo,
        query: &mut QueryClient,
        writer: &mut Writer,
        mut applier: Applier,
        summary: &mut Summary,
    ) -> Result<()> {
        let began = Instant::now();
        self.progress.phase.store(1, Ordering::Relaxed);
        match writer {
            Writer::Cluster(cluster) => {
                cluster.from_file = true;
                cluster.functions = self.options.functions;
            }
            Writer::Standalone(one) => {
                let single = server.missing.transactions;
                let grouping = if single { Grouping::Single } else { Grouping::Transactions };
                let separates_libraries = self.options.functions != FunctionPolicy::Stop;
                *one.changes = TransactionEncoder::new(grouping, None, separates_libraries);
            }
        }
        for (path, _) in files {
            let said = |f: Error| Error { message: format!("{}: {}", path.display(), f.message), ..f };
            if !self.apply_file(path, server, query, writer, &mut applier, summary).await.map_err(said)? {
                return Ok(());
            }
            if !writer.is_transaction_open() {
                writer.flush().await?;
            }
        }
        if writer.is_transaction_open() {
            summary.notes.push("the last transaction is incomplete and was skipped".into());
            writer.abandon();
        }
        writer.flush().await?;
        let filtered = applier.filtered.iter();
        summary.notes.extend(filtered.map(|(name, n)| format!("commands not applied: {n} × {name}")));
        summary.notes.append(&mut applier.notes);
        if applier.skipped_changes > 0 {
            let n = applier.skipped_changes;
            summary.notes.push(format!("{n} changes of keys that existed at the target were skipped"));
        }
        // What the files hold and the target has no place for: the import is not complete.
        add_counts(&mut summary.full.unsupported, std::mem::take(&mut applier.unsupported));
        let shared = writer.shared();
        self.progress.keys.store(shared.keys.load(Ordering::Relaxed), Ordering::Relaxed);
        summary.failed = shared.failed();
        summary.skipped_existing = shared.skipped_existing.load(Ordering::Relaxed);
        summary.refused = shared.refused.load(Ordering::Relaxed);
        summary.full_seconds = began.elapsed().as_secs_f64();
        summary.done = true;
        Ok(())
    }

    /// The files are all that the target will hold: their commands may do whatever they do.
    async fn target_is_empty(&self, query: &mut QueryClient, server: &ServerInfo) -> Result<bool> {
        let route = &self.options.route;
        if server.cluster || server.missing.transactions || !route.keeps_dbs() || route.has_filter() {
            return Ok(false);
        }
        for db in server.dbs.iter().filter(|_| server.keys > 0) {
            let mut cursor = b"0".to_vec();
            loop {
                let reply = query.call(*db, b"", &[b"SCAN", &cursor, b"COUNT", b"1000"]).await?;
                let words = reply.array().unwrap_or_default();
                let (Some(next), Some(keys)) =
                    (words.first().and_then(|n| n.text()), words.get(1).and_then(|k| k.array()))
                else {
                    let m = format!("{}: invalid reply to SCAN", self.target.display_url());
                    return Err(Error::new(Kind::Corrupt, "import", m).at(Side::Target));
                };
                if keys.iter().filter_map(|k| k.text()).any(|k| !k.starts_with(RESERVED_PREFIX)) {
                    return Ok(false);
                }
                if next == b"0" {
                    break;
                }
                cursor = next.to_vec();
            }
        }
        Ok(true)
    }

    /// Reads all files through, with their commands as they will be applied, and writes nothing.
    async fn check_files(
        &self,
        files: &[(PathBuf, bool)],
        mut applier: Applier,
        cluster: bool,
    ) -> Result<BackupContents> {
        let (files, now) = (files.to_vec(), self.clock.now_ms());
        let whole: BTreeSet<PathBuf> = self.files.iter().cloned().collect();
        let read = move || {
            let mut found = BackupContents::default();
            let mut dry_run = DryRun { cluster, names: Arc::new(KeyNames::new("import")) };
            for (path, last) in files {
                // A part of an append-only file may hold no command; a backup that is empty is none.
                if !whole.contains(&path) && path.metadata().is_ok_and(|m| m.len() == 0) {
                    continue;
                }
                read_backup(&path, last, &mut found, &mut |command, end| {
                    applier.apply(command, end, &mut dry_run, now).map(drop)
                })?;
            }
            Ok(found)
        };
        #[expect(clippy::disallowed_methods, reason = "once per import")]
        let done = tokio::task::spawn_blocking(read).await;
        done.unwrap_or_else(|e| Err(Error::new(Kind::Internal, "check", e.to_string())))
    }

    /// One file; false when a stop came.
    async fn apply_file(
        &self,
        path: &Path,
        server: &ServerInfo,
        query: &mut QueryClient,
        writer: &mut Writer,
        applier: &mut Applier,
        summary: &mut Summary,
    ) -> Result<bool> {
        if !writer.is_transaction_open() {
            writer.resume_changes();
        }
        let mut chunks = read_chunks(path)?;
        let (end, length) = data_end(path)?;
        let (first, form) = match self.read_form(path, &mut chunks).await? {
            FileStart::Known(first, form) => (first, form),
            FileStart::Empty => return Ok(true),
            FileStart::Stopped => return Ok(false),
        };
        let (mut commands, snapshot_end) = match form {
            Form::Commands => {
                let mut commands = self.commands_from(0);
                push_until(&mut commands, &first, end);
                (commands, 0)
            }
            Form::Rdb => {
                let (route, conflict) = (&self.options.route, self.options.conflict);
                let mut existing = std::mem::take(&mut applier.existing);
                let mut loader = Loader::new(route, server, conflict, writer, query, &self.clock);
                loader.existing = Some(&mut existing);
                loader.policy = self.options.functions;
                loader.held_ms = if applier.holds_expiries { expiry::HELD_MS } else { 0 };
                let Some(parser) = self.load_preamble(path, first, &mut chunks, &mut loader).await? else {
                    return Ok(false);
                };
                record_loaded(&mut loader, summary);
                applier.existing = existing;
                let mut commands = self.commands_from(parser.offset());
                push_until(&mut commands, parser.rest(), end);
                writer.resume_changes();
                (commands, parser.offset())
            }
        };
        loop {
            self.apply_commands(&mut commands, writer, query, applier).await?;
            let next = self.next_chunk(&mut chunks, true);
            // Within a transaction nothing may be sent between.
            let next =
                if writer.is_transaction_open() { next.await } else { writer.keep_alive_while(next).await? };
            match next? {
                Some(chunk) => push_until(&mut commands, &chunk, end),
                None if self.stop.is_cancelled() => return Ok(false),
                None => break,
            }
        }
        note_skipped_tail(path, &commands, end.max(snapshot_end), length, summary)?;
        Ok(true)
    }

    /// Reads commands that begin at an offset of a file.
    fn commands_from(&self, offset: u64) -> Commands {
        Commands::starting_at(offset).with_limit(self.options.spool.command)
    }

    /// Loads the snapshot at the beginning of a file, in one pass or two; none when a stop came.
    async fn load_preamble(
        &self,
        path: &Path,
        first: Vec<u8>,
        chunks: &mut mpsc::Receiver<Result<Bytes>>,
        loader: &mut Loader<'_>,
    ) -> Result<Option<Parser>> {
        let Some(parser) = self.snapshot(first, chunks, loader).await? else { return Ok(None) };
        if loader.deferred > 0 {
            loader.filter = KeyFilter::Expiring;
            let mut second_pass = read_chunks(path)?;
            if self.snapshot(Vec::new(), &mut second_pass, loader).await?.is_none() {
                return Ok(None);
            }
        }
        loader.finish_batch().await?;
        // Keys and commands are answered differently, and do not share a transaction.
        loader.flush().await?;
        Ok(Some(parser))
    }

    /// Reads until a file shows what it is.
    async fn read_form(&self, path: &Path, chunks: &mut mpsc::Receiver<Result<Bytes>>) -> Result<FileStart> {
        let mut first = Vec::new();
        loop {
            match self.next_chunk(chunks, true).await? {
                Some(chunk) => first.extend_from_slice(&chunk),
                None if self.stop.is_cancelled() => return Ok(FileStart::Stopped),
                // A part of an append-only file may hold no command; a backup that is empty is none.
                None if self.files.iter().any(|f| f == path) => {
                    return Err(Error::new(Kind::Corrupt, "read", "the file is empty").at(Side::Source));
                }
                None => return Ok(FileStart::Empty),
            }
            if let Some(form) = aof::form(&first) {
                return Ok(FileStart::Known(first, form));
            }
        }
    }

    /// The snapshot at the beginning of a file, up to its end; none when a stop came. Keys that expire are skipped when
    /// they are the lesser part: they come when the file is read once more.
    async fn snapshot(
        &self,
        first: Vec<u8>,
        chunks: &mut mpsc::Receiver<Result<Bytes>>,
        loader: &mut Loader<'_>,
    ) -> Result<Option<Parser>> {
        let mut parser = Parser::new(SPLIT_VALUES_ABOVE);
        parser.push(&first);
        drop(first);
        // Of equal keys in several databases the last stays.
        let mut begins = loader.filter == KeyFilter::All && self.options.route.all_into.is_none();
        loop {
            while let Some(item) = parser.next_item().map_err(|e| corrupt(&e))? {
                if let (Item::Sizes(keys, expire), true) = (&item, begins) {
                    begins = false;
                    if *expire > 0 && *expire <= keys / 2 {
                        loader.filter = KeyFilter::Persistent;
                    }
                }
                loader.load_item(item).await?;
            }
            if parser.is_over() {
                return Ok(Some(parser));
            }
            let new = loader.filter != KeyFilter::Expiring;
            match loader.keep_alive_while(self.next_chunk(chunks, new)).await?? {
                Some(chunk) => parser.push(&chunk),
                None if self.stop.is_cancelled() => return Ok(None),
                None => {
                    let m = format!(
                        "at byte {}: unexpected end of file",
                        parser.offset() + parser.waiting() as u64
                    );
                    return Err(Error::new(Kind::Corrupt, "snapshot", m).at(Side::Source));
                }
            }
        }
    }
}
