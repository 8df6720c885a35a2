//! Backups as sources: RDB files, append-only files with or without an RDB preamble, and folders of those in several parts.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use model::failure::{Failure, Kind, Result, Side};
use redis_proto::aof::{self, Form};
use redis_proto::rdb::{Item, Parser};
use redis_proto::resp::{Command, Commands};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::apply::Apply;
use crate::asker::Asker;
use crate::full::OPEN_ABOVE;
use crate::load::{Load, Wanted, corrupt};
use crate::mover::Options;
use crate::node::Node;
use crate::progress::{Progress, Summary};
use crate::scatter::across;
use crate::server::Server;
use crate::source::psync::Position;
use crate::target::Writer;
use crate::target::lacks::NOTE;
use crate::target::pipeline::Pipeline;
use crate::tongue::Tongue;
use pace::clock::SharedClock;

const READ: usize = 256 << 10;
/// Pieces that wait to be applied.
const AHEAD: usize = 16;
const MANIFEST_MAX: u64 = 1 << 20;

/// A backup on its way to a server.
pub struct Import {
    /// Files or folders, in the order in which they are applied.
    pub files: Vec<PathBuf>,
    /// Where to.
    pub target: Node,
    /// Which keys travel where, and what happens to those that are there.
    pub options: Options,
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

pub(crate) fn unread(path: &Path, e: &std::io::Error) -> Failure {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        std::io::ErrorKind::PermissionDenied => Kind::Forbidden,
        _ => Kind::Invalid,
    };
    Failure::new(kind, "read", format!("{}: {e}", path.display())).at(Side::Source)
}

/// The files that a path stands for: itself, or the parts that the manifest of a folder names.
///
/// # Errors
/// When a folder holds no manifest, or more than one, or one that cannot be read.
pub fn parts(path: &Path) -> Result<Vec<PathBuf>> {
    let is_manifest = |p: &Path| p.extension().is_some_and(|e| e == "manifest");
    let manifest = if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| unread(path, &e))?;
        let mut found: Vec<PathBuf> =
            entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_manifest(p)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => one,
            _ => {
                let m = format!("{}: a folder of append-only files holds one manifest", path.display());
                return Err(Failure::new(Kind::Invalid, "read", m).at(Side::Source));
            }
        }
    } else if is_manifest(path) {
        path.to_owned()
    } else {
        return Ok(vec![path.to_owned()]);
    };
    let mut text = String::new();
    let file = std::fs::File::open(&manifest).map_err(|e| unread(&manifest, &e))?;
    file.take(MANIFEST_MAX).read_to_string(&mut text).map_err(|e| unread(&manifest, &e))?;
    let wrong =
        |e| Failure::new(Kind::Invalid, "read", format!("{}: {e}", manifest.display())).at(Side::Source);
    let dir = manifest.parent().unwrap_or(Path::new("."));
    Ok(aof::manifest(&text).map_err(wrong)?.into_iter().map(|(name, _)| dir.join(name)).collect())
}

/// What a backup file holds, without applying it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Keys of a snapshot, and commands.
    pub items: u64,
    /// Databases that are named.
    pub dbs: BTreeSet<u32>,
}

impl Checked {
    fn item(&mut self, item: &Item<'_>) {
        match item {
            Item::Value(..) | Item::Open(_) => self.items += 1,
            Item::Db(db) => drop(self.dbs.insert(u32::try_from(*db).unwrap_or(u32::MAX))),
            _ => {}
        }
    }

    fn command(&mut self, command: &Command<'_>) {
        self.items += 1;
        if command.arg(0).is_some_and(|name| name.eq_ignore_ascii_case(b"SELECT")) {
            let db: Option<u32> = command.arg(1).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
            self.dbs.extend(db);
        }
    }
}

/// Reads a whole backup file without applying it: every length, every type and the checksum.
///
/// # Errors
/// [`Kind::Corrupt`] with the byte at which it is wrong or ends.
pub fn check(path: &Path) -> Result<Checked> {
    let said = |f: Failure| Failure { message: format!("{}: {}", path.display(), f.message), ..f };
    let wrong = |m: String| said(Failure::new(Kind::Corrupt, "check", m).at(Side::Source));
    let neither =
        |at: u64| wrong(format!("at byte {at}: this is neither a snapshot nor an append-only file"));
    let mut file = std::fs::File::open(path).map_err(|e| unread(path, &e))?;
    let mut buf = vec![0; READ];
    let (mut found, mut snapshot, mut commands) = (Checked::default(), None, Commands::at(0));
    let mut begins = true;
    loop {
        let read = file.read(&mut buf).map_err(|e| unread(path, &e))?;
        let bytes = &buf[..read];
        if std::mem::take(&mut begins) {
            // The first piece is long enough to tell.
            match aof::form(bytes) {
                Some(Form::Rdb) => snapshot = Some(Parser::new(OPEN_ABOVE)),
                Some(Form::Commands) => {}
                None => return Err(wrong("the file is empty".into())),
            }
        }
        match &mut snapshot {
            None => commands.push(bytes),
            Some(parser) => {
                parser.push(bytes);
                while let Some(item) = parser.next_item().map_err(|e| said(corrupt(&e)))? {
                    found.item(&item);
                }
                if parser.is_over() {
                    commands = Commands::at(parser.offset());
                    commands.push(parser.rest());
                    snapshot = None;
                } else if read == 0 {
                    let at = parser.offset() + parser.waiting() as u64;
                    return Err(wrong(format!("at byte {at}: the file ends here, and is not complete")));
                }
            }
        }
        let mut at = commands.offset();
        while let Some(command) = commands.next_command().map_err(|e| wrong(e.to_string()))? {
            if !matches!(command.raw.first(), Some(b'*' | b'#')) {
                return Err(neither(at));
            }
            at += command.raw.len() as u64;
            found.command(&command);
        }
        if read == 0 && snapshot.is_none() {
            // The last command of an append-only file may be cut off: the server that wrote it was killed.
            let begun = commands.waiting() == 0 || commands.begins_command();
            return if begun { Ok(found) } else { Err(neither(commands.offset())) };
        }
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
            files.extend(parts(path)?);
        }
        let (mut ask, server, topology) = Asker::open(&self.target, Side::Target).await?;
        if server.has_databases() {
            let dbs = self.databases(&files).await?;
            ask.prove(self.options.route.targets(&dbs.into_iter().collect::<Vec<_>>())).await?;
        }
        let mut pipeline = Writer::anew(&self.target, topology.as_ref(), "import").await?;
        let mut summary = Summary::default();
        let began = Instant::now();
        self.progress.phase.store(1, Ordering::Relaxed);
        // An append-only file in parts is one stream: its database and transactions go on from part to part.
        let mut apply = Apply::new(self.options.route.clone(), None, &Position::default(), 0);
        apply.tongue = Some(Tongue::ask(&server, &mut ask).await?);
        if pipeline.is_cluster() {
            apply = apply.bare();
        } else if server.lacks.transactions {
            apply = apply.unnoted();
            summary.notes.push(NOTE.into());
        }
        for path in &files {
            let said = |f: Failure| Failure { message: format!("{}: {}", path.display(), f.message), ..f };
            let done = self.file(path, &server, &mut ask, &mut pipeline, &mut apply, &mut summary).await;
            if !done.map_err(said)? {
                return Ok(summary);
            }
            if !apply.is_open() {
                pipeline.settle().await?;
            }
        }
        if apply.is_open() {
            summary.notes.push("the last transaction has no end and was left out".into());
            match &mut pipeline {
                Writer::One(one) => apply.abandon(one.out()),
                Writer::Many(many) => many.abandon(),
            }
        }
        pipeline.settle().await?;
        if let Writer::Many(many) = &pipeline {
            many.leave(&mut ask).await?;
        }
        let left_out = apply
            .passed_over
            .iter()
            .chain(&apply.left_out)
            .map(|(name, n)| format!("left out of the commands: {n} × {name}"));
        summary.notes.extend(left_out);
        let shared = pipeline.shared();
        self.progress.keys.store(shared.keys.load(Ordering::Relaxed), Ordering::Relaxed);
        summary.failed = shared.failed();
        summary.left_alone = shared.left.load(Ordering::Relaxed);
        summary.full_seconds = began.elapsed().as_secs_f64();
        summary.done = true;
        Ok(summary)
    }

    /// Reads all files through, so that what is damaged is said before anything is written; answers their databases.
    async fn databases(&self, files: &[PathBuf]) -> Result<BTreeSet<u32>> {
        let files = files.to_vec();
        let read = move || {
            let mut dbs = BTreeSet::from([0]);
            for path in files.iter().filter(|f| f.metadata().is_ok_and(|m| m.len() > 0)) {
                dbs.extend(check(path)?.dbs);
            }
            Ok(dbs)
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
        let mut pieces = pieces(path)?;
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
        let mut commands = Commands::at(0);
        match form {
            Form::Commands => commands.push(&first),
            Form::Rdb => {
                let (route, conflict) = (&self.options.route, self.options.conflict);
                let mut load = Load::new(route, server, conflict, pipeline, ask, &self.clock);
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
                let loaded = &mut load.loaded;
                summary.full.keys += loaded.keys;
                summary.full.functions += loaded.functions;
                for (what, n) in std::mem::take(&mut loaded.left_out) {
                    *summary.full.left_out.entry(what).or_default() += n;
                }
                commands = Commands::at(parser.offset());
                commands.push(parser.rest());
                apply.forget_selected();
            }
        }
        loop {
            self.take(&mut commands, pipeline, ask, apply).await?;
            let next = self.next(&mut pieces, true);
            // Within a transaction nothing may be sent between.
            let next = if apply.is_open() { next.await } else { pipeline.alive_while(next).await? };
            match next? {
                Some(piece) => commands.push(&piece),
                None if self.stop.is_cancelled() => return Ok(false),
                None => break,
            }
        }
        if commands.waiting() > 0 {
            let at = commands.offset();
            if !commands.begins_command() {
                let m =
                    format!("at byte {at}: this is neither a snapshot nor a command of an append-only file");
                return Err(Failure::new(Kind::Corrupt, "commands", m).at(Side::Source));
            }
            summary
                .notes
                .push(format!("{}: what begins at byte {at} is cut off and was left out", path.display()));
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
                        "at byte {}: the file ends here, and is not complete",
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
                    let m = format!(
                        "at byte {begin}: this is neither a snapshot nor a command of an append-only file"
                    );
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
                        many.everywhere(&words, ask, None).await?;
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
        pipeline.expect(about, bytes);
    }
    // A transaction that is still open is not sent in parts: its answers are expected as one.
    if apply.is_open() { Ok(()) } else { pipeline.pace().await }
}
