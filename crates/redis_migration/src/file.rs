//! Backups as sources: RDB files, append-only files with or without an RDB preamble, and folders of those in several parts.
//!
//! Everything is read through once before anything is written ([`check`]), with the commands as they will be applied: what is
//! damaged, what the target does not know and what reaches beyond single keys is refused then. Commands that the target
//! refuses later are counted and named, as by a server that loads the file.

mod check;
mod parts;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use model::failure::{Failure, Kind, Result, Side};
use redis_proto::aof::{self, Form};
use redis_proto::rdb::{Item, Parser};
use redis_proto::resp::Commands;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::apply::Apply;
use crate::asker::Asker;
use crate::full::OPEN_ABOVE;
use crate::functions::{self, Functions};
use crate::load::{Load, Wanted, corrupt};
use crate::marker::{Names, OURS};
use crate::mover::Options;
use crate::node::Node;
use crate::progress::{Progress, Summary};
use crate::scatter::{Piece, across, scatter};
use crate::server::Server;
use crate::source::psync::Position;
use crate::target::Writer;
use crate::target::lacks::NOTE;
use crate::target::pipeline::{About, Pipeline};
use crate::tongue::Tongue;
use pace::clock::SharedClock;

pub use check::{Checked, check};
pub use parts::parts;
pub(crate) use parts::unread;

use check::read_through;
use parts::{end_of, push};

const READ: usize = 256 << 10;
/// Pieces that wait to be applied.
const AHEAD: usize = 16;

/// A backup on its way to a server.
pub struct Import {
    /// Files or folders, in the order in which they are applied.
    pub files: Vec<PathBuf>,
    /// Where to.
    pub target: Node,
    /// Which keys travel where, and what happens to those that are there.
    pub options: Options,
    /// Commands that reach beyond single keys are left out where they cannot be applied, instead of refusing the files.
    pub leave_out: bool,
    /// Time.
    pub clock: SharedClock,
    /// Live numbers.
    pub progress: Arc<Progress>,
    /// Cancelled: come to rest. An import begins anew.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Import({:?} to {})", self.files, self.target.place())
    }
}

/// The bytes of a file, read by a thread of its own.
fn pieces(path: &Path) -> Result<mpsc::Receiver<Result<Bytes>>> {
    let mut file = std::fs::File::open(path).map_err(|e| unread(path, &e))?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let path = path.to_owned();
    let read = move || loop {
        let mut piece = vec![0; READ];
        let piece = match file.read(&mut piece) {
            Ok(0) => return,
            Ok(n) => {
                piece.truncate(n);
                Ok(Bytes::from(piece))
            }
            Err(e) => Err(unread(&path, &e)),
        };
        let last = piece.is_err();
        if sender.blocking_send(piece).is_err() || last {
            return;
        }
    };
    let started = std::thread::Builder::new().name("backup".into()).spawn(read);
    started.map_err(|e| Failure::new(Kind::Internal, "read", e.to_string()))?;
    Ok(receiver)
}

impl Import {
    /// Applies the files one after the other.
    ///
    /// # Errors
    /// For a file that cannot be read, with the offset of what is wrong in it; for what the target answers.
    pub async fn run(&self) -> Result<Summary> {
        let mut files = Vec::new();
        for path in &self.files {
            let parts = parts(path)?;
            let last = parts.len().saturating_sub(1);
            files.extend(parts.into_iter().enumerate().map(|(i, part)| (part, i == last)));
        }
        let (mut ask, server, topology) = Asker::open(&self.target, Side::Target).await?;
        let alone = self.is_alone(&mut ask, &server).await?;
        let tongue = Tongue::ask(&server, &mut ask).await?;
        let mut summary = Summary::default();
        // An append-only file in parts is one stream: its database and transactions go on from part to part.
        let applying = || {
            let mut apply = Apply::new(self.options.route.clone(), None, &Position::default(), 0)
                .without(self.options.skip.clone());
            apply.tongue = Some(tongue.clone());
            apply.functions_apart = self.options.functions != Functions::Stop;
            match (topology.is_some(), server.lacks.transactions, alone) {
                (true, ..) => apply.bare(),
                (_, true, _) => apply.unnoted(),
                (.., true) => apply.taking_all(),
                _ => apply,
            }
        };
        let found = self.rehearse(&files, applying(), topology.is_some()).await?;
        if !alone && !self.leave_out && !found.beyond.is_empty() {
            return Err(beyond(&found.beyond));
        }
        if server.has_databases() {
            ask.prove(self.options.route.targets(&found.dbs.into_iter().collect::<Vec<_>>())).await?;
        }
        let mut pipeline = Writer::anew(&self.target, topology.as_ref(), "import").await?;
        if server.lacks.transactions {
            summary.notes.push(NOTE.into());
        }
        let done = self.work(&files, &server, &mut ask, &mut pipeline, applying(), &mut summary).await;
        if let Writer::Many(many) = &pipeline {
            // Our turn is given up whatever became of it.
            let left = many.leave(&mut ask).await;
            done?;
            left?;
        } else {
            done?;
        }
        Ok(summary)
    }

    /// Applies the files; whether it came to its end stands in the summary.
    async fn work(
        &self,
        files: &[(PathBuf, bool)],
        server: &Server,
        ask: &mut Asker,
        pipeline: &mut Writer,
        mut apply: Apply,
        summary: &mut Summary,
    ) -> Result<()> {
        let began = Instant::now();
        self.progress.phase.store(1, Ordering::Relaxed);
        if let Writer::Many(many) = pipeline {
            many.from_file = true;
            many.functions = self.options.functions;
        }
        for (path, _) in files {
            let said = |f: Failure| Failure { message: format!("{}: {}", path.display(), f.message), ..f };
            if !self.file(path, server, ask, pipeline, &mut apply, summary).await.map_err(said)? {
                return Ok(());
            }
            if !apply.is_open() {
                pipeline.settle().await?;
            }
        }
        if apply.is_open() {
            summary.notes.push("the last transaction is incomplete and was skipped".into());
            match pipeline {
                Writer::One(one) => apply.abandon(one.out()),
                Writer::Many(many) => many.abandon(),
            }
        }
        pipeline.settle().await?;
        let passed_over = apply.passed_over.iter();
        summary.notes.extend(passed_over.map(|(name, n)| format!("commands not applied: {n} × {name}")));
        summary.notes.append(&mut apply.notes);
        // What the files hold and the target has no place for: the import is not complete.
        for (what, n) in std::mem::take(&mut apply.left_out) {
            *summary.full.left_out.entry(what).or_default() += n;
        }
        let shared = pipeline.shared();
        self.progress.keys.store(shared.keys.load(Ordering::Relaxed), Ordering::Relaxed);
        summary.failed = shared.failed();
        summary.left_alone = shared.left.load(Ordering::Relaxed);
        summary.refused = shared.refused.load(Ordering::Relaxed);
        summary.full_seconds = began.elapsed().as_secs_f64();
        summary.done = true;
        Ok(())
    }

    /// The files are all that the target will hold: their commands may do whatever they do.
    async fn is_alone(&self, ask: &mut Asker, server: &Server) -> Result<bool> {
        let route = &self.options.route;
        if server.cluster || server.lacks.transactions || !route.keeps_dbs() || route.has_filter() {
            return Ok(false);
        }
        for db in server.dbs.iter().filter(|_| server.keys > 0) {
            let mut cursor = b"0".to_vec();
            loop {
                let reply = ask.call(*db, b"", &[b"SCAN", &cursor, b"COUNT", b"1000"]).await?;
                let words = reply.array().unwrap_or_default();
                let (Some(next), Some(keys)) =
                    (words.first().and_then(|n| n.text()), words.get(1).and_then(|k| k.array()))
                else {
                    let m = format!("{}: invalid reply to SCAN", self.target.place());
                    return Err(Failure::new(Kind::Corrupt, "import", m).at(Side::Target));
                };
                if keys.iter().filter_map(|k| k.text()).any(|k| !k.starts_with(OURS)) {
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
    async fn rehearse(&self, files: &[(PathBuf, bool)], mut apply: Apply, cluster: bool) -> Result<Checked> {
        let (files, now) = (files.to_vec(), self.clock.now_ms());
        let whole: BTreeSet<PathBuf> = self.files.iter().cloned().collect();
        let read = move || {
            let mut found = Checked { dbs: BTreeSet::from([0]), ..Checked::default() };
            let (mut scratch, names) = (Vec::new(), Names::new("import"));
            for (path, last) in files {
                // A part of an append-only file may hold no command; a backup that is empty is none.
                if !whole.contains(&path) && path.metadata().is_ok_and(|m| m.len() == 0) {
                    continue;
                }
                read_through(&path, last, &mut found, &mut |command, end| {
                    apply.take(command, end, &mut scratch, now)?;
                    if cluster {
                        for piece in scatter(&scratch, &names)? {
                            if let Piece::Across(words) = piece {
                                return Err(across(&words));
                            }
                        }
                    }
                    apply.close(&mut scratch);
                    if !apply.is_open() || cluster {
                        scratch.clear();
                    }
                    Ok(())
                })?;
                apply.set_selected(None);
            }
            Ok(found)
        };
        #[expect(clippy::disallowed_methods, reason = "once per import")]
        let done = tokio::task::spawn_blocking(read).await;
        done.unwrap_or_else(|e| Err(Failure::new(Kind::Internal, "check", e.to_string())))
    }

    /// One file; false when a stop came.
    async fn file(
        &self,
        path: &Path,
        server: &Server,
        ask: &mut Asker,
        pipeline: &mut Writer,
        apply: &mut Apply,
        summary: &mut Summary,
    ) -> Result<bool> {
        if !apply.is_open() {
            apply.set_selected(pipeline.db());
        }
        let mut pieces = pieces(path)?;
        let (end, length) = end_of(path)?;
        let mut first = Vec::new();
        let form = loop {
            match self.next(&mut pieces, true).await? {
                Some(piece) => first.extend_from_slice(&piece),
                None if self.stop.is_cancelled() => return Ok(false),
                // A part of an append-only file may hold no command; a backup that is empty is none.
                None if self.files.iter().any(|f| f == path) => {
                    return Err(Failure::new(Kind::Corrupt, "read", "the file is empty").at(Side::Source));
                }
                None => return Ok(true),
            }
            if let Some(form) = aof::form(&first) {
                break form;
            }
        };
        let longest = self.options.spool.command;
        let (mut commands, mut snapshot_end) = (Commands::at(0).at_most(longest), 0);
        match form {
            Form::Commands => push(&mut commands, &first, end),
            Form::Rdb => {
                let (route, conflict) = (&self.options.route, self.options.conflict);
                let mut load = Load::new(route, server, conflict, pipeline, ask, &self.clock);
                load.policy = self.options.functions;
                let Some(parser) = self.snapshot(first, &mut pieces, &mut load).await? else {
                    return Ok(false);
                };
                if load.passed > 0 {
                    load.wanted = Wanted::Expiring;
                    let mut again = self::pieces(path)?;
                    if self.snapshot(Vec::new(), &mut again, &mut load).await?.is_none() {
                        return Ok(false);
                    }
                }
                load.end().await?;
                // Keys and commands are answered differently, and do not share a transaction.
                load.settle().await?;
                summary.notes.append(&mut load.notes);
                let loaded = &mut load.loaded;
                summary.full.keys += loaded.keys;
                summary.full.functions += loaded.functions;
                summary.full.empty += loaded.empty;
                for (what, n) in std::mem::take(&mut loaded.left_out) {
                    *summary.full.left_out.entry(what).or_default() += n;
                }
                commands = Commands::at(parser.offset()).at_most(longest);
                push(&mut commands, parser.rest(), end);
                apply.set_selected(pipeline.db());
                snapshot_end = parser.offset();
            }
        }
        loop {
            self.take(&mut commands, pipeline, ask, apply).await?;
            let next = self.next(&mut pieces, true);
            // Within a transaction nothing may be sent between.
            let next = if apply.is_open() { next.await } else { pipeline.alive_while(next).await? };
            match next? {
                Some(piece) => push(&mut commands, &piece, end),
                None if self.stop.is_cancelled() => return Ok(false),
                None => break,
            }
        }
        if commands.waiting() > 0 {
            let at = commands.offset();
            if !commands.begins_command() {
                let m = format!("at byte {at}: neither a snapshot nor a command of an append-only file");
                return Err(Failure::new(Kind::Corrupt, "commands", m).at(Side::Source));
            }
            summary
                .notes
                .push(format!("{}: truncated at byte {at}; the incomplete tail was skipped", path.display()));
        }
        let end = end.max(snapshot_end);
        if length > end {
            let n = length - end;
            summary.notes.push(format!(
                "{}: {n} NUL bytes from byte {end} were skipped (a power failure can leave them)",
                path.display()
            ));
        }
        Ok(true)
    }

    /// The snapshot at the beginning of a file, up to its end; none when a stop came. Keys that expire are passed over when
    /// they are the lesser part: they come when the file is read once more.
    async fn snapshot(
        &self,
        first: Vec<u8>,
        pieces: &mut mpsc::Receiver<Result<Bytes>>,
        load: &mut Load<'_>,
    ) -> Result<Option<Parser>> {
        let mut parser = Parser::new(OPEN_ABOVE);
        parser.push(&first);
        drop(first);
        // Of equal keys in several databases the last stays.
        let mut begins = load.wanted == Wanted::All && self.options.route.all_into.is_none();
        loop {
            while let Some(item) = parser.next_item().map_err(|e| corrupt(&e))? {
                if let (Item::Sizes(keys, expire), true) = (&item, begins) {
                    begins = false;
                    if *expire > 0 && *expire <= keys / 2 {
                        load.wanted = Wanted::Lasting;
                    }
                }
                load.item(item).await?;
            }
            if parser.is_over() {
                return Ok(Some(parser));
            }
            let new = load.wanted != Wanted::Expiring;
            match load.alive_while(self.next(pieces, new)).await?? {
                Some(piece) => parser.push(&piece),
                None if self.stop.is_cancelled() => return Ok(None),
                None => {
                    let m = format!(
                        "at byte {}: unexpected end of file",
                        parser.offset() + parser.waiting() as u64
                    );
                    return Err(Failure::new(Kind::Corrupt, "snapshot", m).at(Side::Source));
                }
            }
        }
    }

    /// The next piece; `new`: it is read for the first time.
    async fn next(&self, pieces: &mut mpsc::Receiver<Result<Bytes>>, new: bool) -> Result<Option<Bytes>> {
        let piece = tokio::select! {
            piece = pieces.recv() => piece.transpose()?,
            () = self.stop.cancelled() => return Ok(None),
        };
        if let Some(piece) = &piece {
            let length = if new { piece.len() as u64 } else { 0 };
            self.progress.full_bytes.fetch_add(length, Ordering::Relaxed);
            self.options.bandwidth.pass(piece.len() as u64).await;
        }
        Ok(piece)
    }

    async fn take(
        &self,
        commands: &mut Commands,
        pipeline: &mut Writer,
        ask: &mut Asker,
        apply: &mut Apply,
    ) -> Result<()> {
        let (mut scratch, now) = (Vec::new(), self.clock.now_ms());
        let wrong =
            |e: redis_proto::Error| Failure::new(Kind::Corrupt, "commands", e.to_string()).at(Side::Source);
        loop {
            let begin = commands.offset();
            let Some(command) = commands.next_command().map_err(wrong)? else { break };
            match command.raw.first() {
                Some(b'*') => {}
                // A note of the time, between commands.
                Some(b'#') => continue,
                _ => {
                    let m =
                        format!("at byte {begin}: neither a snapshot nor a command of an append-only file");
                    return Err(Failure::new(Kind::Corrupt, "commands", m).at(Side::Source));
                }
            }
            let end = begin + command.raw.len() as u64;
            // What stands before a transaction does not share its fate, should it have no end.
            let begins = command.arg(0).is_some_and(|name| name.eq_ignore_ascii_case(b"MULTI"));
            match pipeline {
                Writer::One(one) => {
                    if begins {
                        close(one, apply).await?;
                    }
                    let (before, length) = (apply.commands, one.out().len());
                    apply.take(&command, end, one.out(), now)?;
                    if !apply.to_prove.is_empty() {
                        ask.prove(apply.to_prove.clone()).await?;
                        apply.prove();
                    }
                    if apply.is_unnoted() {
                        let bytes = one.out().len() - length;
                        one.expect_changes(apply.commands - before, bytes, end);
                        one.pace().await?;
                    }
                    if let Some(words) = apply.library.take() {
                        close(one, apply).await?;
                        one.settle().await?;
                        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                        let done = functions::everywhere(ask, &words, self.options.functions).await?;
                        apply.told(&done);
                        apply.pass(end);
                    }
                    if apply.is_full(one.out()) {
                        close(one, apply).await?;
                    }
                }
                Writer::Many(many) => {
                    if begins && !apply.is_within() {
                        many.settle().await?;
                    }
                    apply.take(&command, end, &mut scratch, now)?;
                    let apart = many.divide(&scratch, None, apply.is_within()).await?;
                    if let Some(words) = apart.across.first() {
                        return Err(across(words));
                    }
                    let everywhere = apart.everywhere;
                    scratch.clear();
                    if let Some(words) = everywhere {
                        apply.told(&many.everywhere(&words, ask, None).await?);
                    }
                }
            }
        }
        self.progress.commands.store(apply.commands, Ordering::Relaxed);
        self.progress.keys.store(pipeline.shared().keys.load(Ordering::Relaxed), Ordering::Relaxed);
        match pipeline {
            Writer::One(one) => close(one, apply).await,
            Writer::Many(many) => many.pace().await,
        }
    }
}

async fn close(pipeline: &mut Pipeline, apply: &mut Apply) -> Result<()> {
    if let Some((about, bytes)) = apply.close(pipeline.out()) {
        let about = match about {
            // What is open is not sent in parts: all of it is still there.
            About::Applied { answers, .. } => {
                let out = pipeline.out();
                About::Loaded { answers, sent: out[out.len().saturating_sub(bytes)..].into() }
            }
            other => other,
        };
        pipeline.expect(about, bytes);
        pipeline.db = apply.selected();
    }
    if apply.is_open() { Ok(()) } else { pipeline.pace().await }
}

/// Commands that cannot be applied beside what the target holds.
fn beyond(commands: &BTreeMap<String, u64>) -> Failure {
    let named: Vec<String> = commands.iter().take(8).map(|(name, n)| format!("{n} × {name}")).collect();
    let m = format!(
        "the files contain {}, which affect more than single keys: they are applied only when complete files are \
         imported into an empty target",
        named.join(", ")
    );
    Failure::new(Kind::Unsupported, "import", m).at(Side::Source)
}
