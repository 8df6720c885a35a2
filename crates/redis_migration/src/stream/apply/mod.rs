//! Pure: decides what the commands of the source's stream mean for the target, as operations ([`crate::operation`]).

mod change;
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::error::{Error, Kind, Reason, Result, Side};
use redis_proto::resp::{Command, Commands};

use crate::checkpoint::Checkpoint;
use crate::checkpoint::keys::KeyNames;
use crate::connection::RESERVED_PREFIX;
use crate::migration::MasterRank;
use crate::operation::{CommandForm, Encoder, Operation, ServerCommand};
use crate::route::{Route, Routed};
use crate::source::psync::Position;
use crate::stream::command_filter::{db_arguments, is_administrative, is_data};
use crate::stream::existing_keys::ExistingKeys;
use crate::stream::expiry_guard::ExpiryGuard;
use crate::stream::scripts::ScriptCache;
use crate::stream::translate::CommandTranslator;
use crate::target::functions::{self, LibraryOutcome};

/// What a command of the stream asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandOutcome {
    /// Nothing more.
    Nothing,
    /// The source wants to know at once how far the stream is applied.
    AckRequested,
}

/// A command's name in upper case, in `buffer` when it fits; longer names are returned as they are.
fn upper_case<'a>(name: &'a [u8], buffer: &'a mut [u8; 16]) -> &'a [u8] {
    match buffer.get_mut(..name.len()) {
        Some(short) => {
            short.copy_from_slice(name);
            short.make_ascii_uppercase();
            short
        }
        None => name,
    }
}

/// The text of a script that a command brings.
fn script_text<'c>(name: &[u8], command: &Command<'c>) -> Option<&'c [u8]> {
    match name {
        b"EVAL" => command.arg(1),
        b"SCRIPT" => {
            command.arg(2).filter(|_| command.arg(1).is_some_and(|w| w.eq_ignore_ascii_case(b"LOAD")))
        }
        _ => None,
    }
}

/// The streams of the source cannot be continued.
pub(crate) fn full_resync_needed(message: impl Into<String>) -> Error {
    Error::new(Kind::Changed, "full_resync", message).at(Side::Source).because(Reason::FullResync)
}

/// A command about more than keys, from one of several masters.
fn unordered_command(name: &[u8]) -> Error {
    let m = format!(
        "{} was executed at one master of the source; the replication streams of several masters cannot \
         be ordered",
        String::from_utf8_lossy(name)
    );
    full_resync_needed(m)
}

/// Turns commands into operations.
#[derive(Debug)]
pub(crate) struct Applier {
    route: Route,
    /// None: nothing is kept at the target, as for an import.
    names: Option<KeyNames>,
    replid: String,
    /// The database of the stream, and its number at the target.
    db: u32,
    target_db: Option<u32>,
    /// Databases of the source that hold keys or were selected: no two of them may become one.
    source_dbs: BTreeSet<u32>,
    /// Within a transaction of the source.
    in_source_transaction: bool,
    offset: u64,
    /// The target has only database 0.
    single_database: bool,
    /// The source is a server of the user's, not a file from anywhere.
    from_server: bool,
    /// Commands that reach beyond single keys are applied too.
    accepts_all: bool,
    /// Expiries are held back, as the end of the file may remove them ([`crate::import`]).
    pub(crate) holds_expiries: bool,
    /// The source is one master of a cluster.
    master_rank: Option<MasterRank>,
    /// The source's scripts.
    pub(crate) scripts: ScriptCache,
    /// Replication identities of the target: a command that names one of them comes from there.
    pub(crate) target_replids: Vec<String>,
    /// Keys that the target's own clock may remove.
    pub(crate) expiry_guard: ExpiryGuard,
    /// Keys that the target held before.
    pub(crate) existing: ExistingKeys,
    /// Changes of such keys that were skipped.
    pub(crate) skipped_changes: u64,
    /// Databases of the source that changed places, until the caller takes them.
    pub(crate) swapped_dbs: Option<(u32, u32)>,
    /// What the target understands, where that may be less than what the source sends.
    pub(crate) translator: Option<CommandTranslator>,
    /// Commands that were passed on.
    pub(crate) commands: u64,
    /// Commands that are not data and were skipped, by name.
    pub(crate) filtered: BTreeMap<String, u64>,
    /// What the target does not support, with its count.
    pub(crate) unsupported: BTreeMap<String, u64>,
    /// Something to know.
    pub(crate) notes: Vec<String>,
    /// Names of commands that are skipped, in upper case.
    skipped_commands: Arc<BTreeSet<String>>,
}

impl Applier {
    /// Continues behind a position, in the database in which the stream was there.
    pub(crate) fn new(route: Route, names: Option<KeyNames>, position: &Position, db: u32) -> Self {
        let (target_db, from_server) = (route.db(db), names.is_some());
        Self {
            route,
            names,
            replid: position.replid.clone(),
            db,
            target_db,
            source_dbs: BTreeSet::new(),
            in_source_transaction: false,
            offset: position.offset,
            single_database: false,
            from_server,
            accepts_all: from_server,
            holds_expiries: false,
            master_rank: None,
            scripts: ScriptCache::default(),
            target_replids: Vec::new(),
            expiry_guard: ExpiryGuard::default(),
            existing: ExistingKeys::default(),
            skipped_changes: 0,
            swapped_dbs: None,
            translator: None,
            commands: 0,
            filtered: BTreeMap::new(),
            unsupported: BTreeMap::new(),
            notes: Vec::new(),
            skipped_commands: Arc::default(),
        }
    }

    /// Leaves out commands of these names, in upper case.
    pub(crate) fn skipping_commands(mut self, names: Arc<BTreeSet<String>>) -> Self {
        self.skipped_commands = names;
        self
    }

    /// Databases of the source that hold keys already.
    pub(crate) fn with_source_dbs(mut self, dbs: &[u32]) -> Self {
        self.source_dbs.extend(dbs);
        self
    }

    /// The target has only database 0.
    pub(crate) fn for_single_database(mut self) -> Self {
        self.single_database = true;
        self
    }

    /// The target has only database 0, and nothing is kept there.
    pub(crate) fn without_checkpoint(mut self) -> Self {
        (self.single_database, self.names) = (true, None);
        self
    }

    /// A file whose target holds nothing else: commands that reach beyond single keys are applied too.
    pub(crate) fn accepting_all_commands(mut self) -> Self {
        self.accepts_all = true;
        self
    }

    /// The source is one master of a cluster.
    pub(crate) fn for_cluster_master(mut self, master_rank: MasterRank) -> Self {
        self.master_rank = Some(master_rank);
        self
    }

    /// The database in which the stream is.
    pub(crate) fn db(&self) -> u32 {
        self.db
    }

    /// Changes in that database are migrated.
    pub(crate) fn is_migrated(&self) -> bool {
        self.target_db.is_some()
    }

    /// Within a transaction of the source.
    pub(crate) fn is_in_source_transaction(&self) -> bool {
        self.in_source_transaction
    }

    /// The transaction of the source that is open is not applied: the source sends it again.
    pub(crate) fn abandon(&mut self) {
        self.in_source_transaction = false;
    }

    /// Offset behind the last command that was taken.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// What begins at the offset so far and ends at this one is applied.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Keeps what became of a command about libraries.
    pub(crate) fn record_libraries(&mut self, done: &LibraryOutcome) {
        self.notes.extend(done.notes());
        if done.skipped {
            *self.unsupported.entry(functions::SKIPPED_LIBRARIES.into()).or_default() += 1;
        }
    }

    /// Whose stream it is.
    pub(crate) fn replid(&self) -> &str {
        &self.replid
    }

    /// The checkpoint of what was taken so far; none when nothing is kept at the target.
    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        let position = || Position { replid: self.replid.clone(), offset: self.offset };
        self.names.is_some().then(|| Checkpoint::Applied(position(), self.db, None))
    }

    /// Takes a command, whose end is at `offset` of the stream; its operations are given to `out`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a command that cannot be divided into what is migrated and what is not, or that the target
    /// has no place for.
    pub(crate) fn apply(
        &mut self,
        command: &Command<'_>,
        offset: u64,
        out: &mut dyn Encoder,
        now_ms: i64,
    ) -> Result<CommandOutcome> {
        self.offset = offset;
        let Some(name) = command.arg(0) else { return Ok(CommandOutcome::Nothing) };
        let mut upper = [0; 16];
        let name = upper_case(name, &mut upper);
        if self.is_skipped(name) {
            return Ok(CommandOutcome::Nothing);
        }
        // A script may be loaded in a database that is not migrated, and be called in one that is.
        if let Some(text) = script_text(name, command) {
            self.remember_script(text, out)?;
        }
        match name {
            // Messages are no data: what a Sentinel says to its master would make the target that master's replica.
            b"PING" | b"PUBLISH" | b"SPUBLISH" | b"OPINFO" => {}
            b"REPLCONF" => {
                let asked = command.arg(1).is_some_and(|w| w.eq_ignore_ascii_case(b"GETACK"));
                return Ok(if asked { CommandOutcome::AckRequested } else { CommandOutcome::Nothing });
            }
            b"SELECT" => self.select(command)?,
            b"MULTI" => {
                self.in_source_transaction = true;
                out.push(Operation::Begin)?;
            }
            b"EXEC" => {
                self.in_source_transaction = false;
                out.push(Operation::End)?;
            }
            _ if self.master_rank.is_some() && is_administrative(name, command.arg(1)) => {
                return Err(unordered_command(name));
            }
            b"FUNCTION" if self.master_rank == Some(MasterRank::Other) => {}
            _ if !is_data(name, command.arg(1), self.accepts_all) => {
                *self.filtered.entry(String::from_utf8_lossy(name).into_owned()).or_default() += 1;
            }
            // Functions belong to no database.
            b"FUNCTION" => self.function(command, out)?,
            b"FLUSHALL" => self.flush_all(command, out)?,
            b"FLUSHDB" | b"SWAPDB" if self.route.all_into.is_some() => {
                return Err(self.refused(&String::from_utf8_lossy(name), "the target has a single database"));
            }
            b"SWAPDB" | b"MOVE" | b"COPY" if !self.route.keeps_dbs() => {
                self.require_named_dbs(name, command, out)?;
                self.map_databases(name, command, out, now_ms)?
            }
            // Keys of other migrations are not data.
            _ if command.arg(1).is_some_and(|key| key.starts_with(RESERVED_PREFIX)) => {
                self.check_loop(command)?;
                self.apply_other_keys(name, command, out, now_ms)?
            }
            _ => self.apply_to_selected_db(name, command, out, now_ms)?,
        }
        Ok(CommandOutcome::Nothing)
    }

    /// The stream is in another database from here on.
    fn select(&mut self, command: &Command<'_>) -> Result<()> {
        let db = command.arg(1).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
        self.db = db.ok_or_else(|| self.refused("SELECT", "it does not name a valid database"))?;
        self.target_db = self.route.db(self.db);
        if self.source_dbs.insert(self.db) {
            self.route.check(&self.source_dbs.iter().copied().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Applies a command about keys, unless the stream is in a database that is not migrated.
    fn apply_to_selected_db(
        &mut self,
        name: &[u8],
        command: &Command<'_>,
        out: &mut dyn Encoder,
        now_ms: i64,
    ) -> Result<()> {
        let Some(db) = self.target_db else { return Ok(()) };
        if self.single_database && db != 0 {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(self.refused(
                &name,
                &format!("it uses database {db}, which the target does not have; hint: use --db-map {db}=0"),
            ));
        }
        if matches!(name, b"SWAPDB" | b"MOVE" | b"COPY") {
            self.require_named_dbs(name, command, out)?;
        }
        self.apply_data(name, command, db, out, now_ms)
    }

    /// The part of a command that is not about keys of migrations, where it can be divided.
    fn apply_other_keys(
        &mut self,
        name: &[u8],
        command: &Command<'_>,
        out: &mut dyn Encoder,
        now_ms: i64,
    ) -> Result<()> {
        let words: Vec<&[u8]> = command.args().collect();
        let Routed::Partial(places) = Route::divide(&words, |key| !key.starts_with(RESERVED_PREFIX)) else {
            return Ok(());
        };
        let (mut raw, mut part) = (Vec::new(), Commands::starting_at(0));
        redis_proto::resp::command(&mut raw, &places.iter().map(|i| words[*i]).collect::<Vec<_>>());
        part.push(&raw);
        match part.next_command() {
            Ok(Some(command)) => self.apply_to_selected_db(name, &command, out, now_ms),
            _ => Ok(()),
        }
    }

    /// True for a command that the user excluded, which is counted.
    fn is_skipped(&mut self, name: &[u8]) -> bool {
        if self.skipped_commands.is_empty() {
            return false;
        }
        let name = String::from_utf8_lossy(name).to_ascii_uppercase();
        let skipped = self.skipped_commands.contains(&name);
        if skipped {
            *self.unsupported.entry(format!("{name} (excluded by --skip-command)")).or_default() += 1;
        }
        skipped
    }

    fn refused(&self, name: &str, why: &str) -> Error {
        let m = match self.from_server {
            true => format!(
                "cannot replicate {name}: {why}; hint: start the migration again when the source no \
                 longer sends it"
            ),
            false => format!("cannot apply {name}: {why}"),
        };
        Error::new(Kind::Unsupported, "apply", m).at(Side::Source)
    }

    /// Keeps a script's text, in memory and next to the checkpoint.
    fn remember_script(&mut self, text: &[u8], out: &mut dyn Encoder) -> Result<()> {
        match self.scripts.insert(text) {
            Some(digest) => self.store_scripts(Some(&digest), out),
            None => Ok(()),
        }
    }

    fn store_scripts(&self, only: Option<&[u8]>, out: &mut dyn Encoder) -> Result<()> {
        let Some(names) = &self.names else { return Ok(()) };
        let args = self.scripts.store_command(&names.scripts, only);
        match args.is_empty() {
            true => Ok(()),
            false => out.push(Operation::Internal { db: 0, key: &names.scripts, args: &args }),
        }
    }

    /// A checkpoint of another migration that applies changes of our target to our source: each change would go round for ever.
    fn check_loop(&self, command: &Command<'_>) -> Result<()> {
        let words = |i: usize| String::from_utf8_lossy(command.arg(i).unwrap_or_default()).into_owned();
        // `SET offset:ID "applied REPLID …"`, `HSET claims ID "WHAT REPLID"`.
        let (told, id) = match command.arg(0) {
            Some(name) if name.eq_ignore_ascii_case(b"HSET") => (words(3), words(2)),
            _ => (words(2), words(1)),
        };
        match told.split(' ').nth(1).filter(|replid| self.target_replids.iter().any(|one| one == replid)) {
            Some(_) => Err(replication_loop(&id)),
            None => Ok(()),
        }
    }

    fn flush_all(&mut self, command: &Command<'_>, out: &mut dyn Encoder) -> Result<()> {
        if self.route.has_filter() {
            return Err(self.refused("FLUSHALL", "the key filter excludes some of its keys"));
        }
        self.require_no_protected_keys("FLUSHALL")?;
        let (db, form) = if self.route.keeps_dbs() {
            (None, CommandForm::Received(*command))
        } else {
            let db = self.route.only_db.and_then(|db| self.route.db(db));
            let shared = || self.refused("FLUSHALL", "the mapped databases are shared with other data");
            (Some(db.ok_or_else(shared)?), CommandForm::Built(&[b"FLUSHDB"]))
        };
        out.push(Operation::Server { db, command: ServerCommand::Flush(form) })?;
        self.commands += 1;
        self.store_scripts(None, out)
    }

    /// Fails for a command that would change keys which keep what they hold.
    pub(super) fn require_no_protected_keys(&self, name: &str) -> Result<()> {
        match self.existing.protects_any() {
            true => Err(self.refused(name, "keys that existed at the target are kept")),
            false => Ok(()),
        }
    }

    /// The databases that a command names are needed too.
    fn require_named_dbs(&self, name: &[u8], command: &Command<'_>, out: &mut dyn Encoder) -> Result<()> {
        let words: Vec<&[u8]> = command.args().collect();
        for place in db_arguments(name, &words) {
            let number = words.get(place).and_then(|w| std::str::from_utf8(w).ok()?.parse().ok());
            if let Some(to) = number.and_then(|db: u32| self.route.db(db)) {
                out.push(Operation::RequireDb(to))?;
            }
        }
        Ok(())
    }
}

/// The source takes changes from the target.
pub(crate) fn replication_loop(id: &str) -> Error {
    let m = format!(
        "migration `{id}` already replicates from the target to the source; each change would be replicated in a loop"
    );
    Error::new(Kind::Conflict, "loop", m).at(Side::Source)
}

#[cfg(test)]
mod tests;
