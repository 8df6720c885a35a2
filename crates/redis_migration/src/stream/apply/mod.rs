//! Pure: the source's stream becomes transactions at the target, each of which also says how far the stream is applied.

mod change;
mod restore;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::Command;

use crate::checkpoint::keys::KeyNames;
use crate::connection::RESERVED_PREFIX;
use crate::migration::MasterRank;
use crate::route::Route;
use crate::source::psync::Position;
use crate::stream::command_filter::{db_arguments, is_administrative, is_data};
use crate::stream::expiry_guard::ExpiryGuard;
use crate::stream::scripts::ScriptCache;
use crate::stream::translate::CommandTranslator;
use crate::target::functions::{self, LibraryOutcome};

/// Commands of one transaction; the source's own transactions are never divided.
const TRANSACTION_COMMANDS: u64 = 500;
/// Bytes of one transaction.
const TRANSACTION_BYTES: usize = 256 << 10;

/// What a command of the stream asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// Nothing more.
    Nothing,
    /// The source wants to know at once how far the stream is applied.
    AckRequested,
}

/// What the stream of one master cannot tell of the others: a full resynchronisation is needed.
pub const FULL_RESYNC: &str = "anew";

/// A transaction that is being written.
#[derive(Clone, Copy, Debug)]
struct OpenTransaction {
    /// Where it begins in the buffer.
    start: usize,
    /// Answers to come before that of its `EXEC`.
    replies: u64,
}

/// `SET`s of nothing but a key and a value that follow each other: written as one `MSET` they cost the target half.
#[derive(Clone, Copy, Debug, Default)]
struct PendingSets {
    /// Where the first of their keys begins in the buffer.
    start: usize,
    count: u64,
}

/// How such a command begins; its key and value follow as they stand in an `MSET`.
const SET_HEADER: &[u8] = b"*3\r\n$3\r\nSET\r\n";
/// Commands of one `MSET`, and the length from which on a value goes alone, bytes.
const SETS_PER_MSET: u64 = 64;
const SET_VALUE_MAX: usize = 4 << 10;

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

/// A command about more than keys, from one of several masters.
fn unordered_command(name: &[u8]) -> Error {
    let m = format!(
        "{} was executed at one master of the source; the replication streams of several masters cannot \
         be ordered",
        String::from_utf8_lossy(name)
    );
    Error::new(Kind::Changed, FULL_RESYNC, m).at(Side::Source)
}

/// Turns commands into transactions.
#[derive(Debug)]
pub struct Applier {
    route: Route,
    /// None: nothing is noted at the target, as for an import.
    names: Option<KeyNames>,
    replid: String,
    /// Where the stream is, and how that is called at the target.
    db: u32,
    target_db: Option<u32>,
    /// Where the target's connection is; none: nobody knows.
    selected: Option<u32>,
    /// Databases of the target that are known to be there.
    known_dbs: BTreeSet<u32>,
    /// Databases that what was written last needs beside them: to be proven before it is sent.
    pub(crate) dbs_to_verify: Vec<u32>,
    open: Option<OpenTransaction>,
    sets: PendingSets,
    /// Within a transaction of the source.
    in_source_transaction: bool,
    offset: u64,
    /// Only the changes are written, not the transactions around them; there is only database 0.
    changes_only: bool,
    /// The source is a server of the user's, not a file from anywhere.
    from_server: bool,
    /// Whatever its commands do is wanted.
    accepts_all: bool,
    /// The source is one of several servers that are one.
    master_rank: Option<MasterRank>,
    /// The source's scripts.
    pub(crate) scripts: ScriptCache,
    /// Replication identities of the target: what bears one of them has come from there.
    pub(crate) target_replids: Vec<String>,
    /// What the target's own clock may have taken.
    pub expiry_guard: ExpiryGuard,
    /// Databases of the source that have changed places, until somebody takes note.
    pub(crate) swapped_dbs: Option<(u32, u32)>,
    /// What the target understands, where that may be less than the source says.
    pub translator: Option<CommandTranslator>,
    /// Commands that went on.
    pub commands: u64,
    /// Commands that are none of a copy's business and were left out, by name.
    pub filtered: BTreeMap<String, u64>,
    /// What the target has no place for, and how often that was met.
    pub unsupported: BTreeMap<String, u64>,
    /// Commands about libraries of functions are carried out apart from transactions.
    pub(crate) separates_functions: bool,
    /// Such a command, until somebody has carried it out: what came before it is applied first.
    pub(crate) library: Option<Vec<Vec<u8>>>,
    /// Something to know.
    pub(crate) notes: Vec<String>,
    /// Names of commands that are left out, in upper case.
    skipped_commands: Arc<BTreeSet<String>>,
}

impl Applier {
    /// Goes on behind a position, in the database in which the stream was there.
    pub fn new(route: Route, names: Option<KeyNames>, position: &Position, db: u32) -> Self {
        let (target_db, from_server) = (route.db(db), names.is_some());
        Self {
            route,
            names,
            replid: position.replid.clone(),
            db,
            target_db,
            selected: None,
            known_dbs: BTreeSet::from([0]),
            dbs_to_verify: Vec::new(),
            open: None,
            sets: PendingSets::default(),
            in_source_transaction: false,
            offset: position.offset,
            changes_only: false,
            from_server,
            accepts_all: from_server,
            master_rank: None,
            scripts: ScriptCache::default(),
            target_replids: Vec::new(),
            expiry_guard: ExpiryGuard::default(),
            swapped_dbs: None,
            translator: None,
            commands: 0,
            filtered: BTreeMap::new(),
            unsupported: BTreeMap::new(),
            separates_functions: false,
            library: None,
            notes: Vec::new(),
            skipped_commands: Arc::default(),
        }
    }

    /// Leaves out commands of these names, in upper case.
    pub fn skipping_commands(mut self, names: Arc<BTreeSet<String>>) -> Self {
        self.skipped_commands = names;
        self
    }

    /// Writes only changes: who takes them makes transactions of them.
    pub fn changes_only(mut self) -> Self {
        self.changes_only = true;
        self
    }

    /// Writes only changes, and notes nothing at the target.
    pub fn without_checkpoint(mut self) -> Self {
        (self.changes_only, self.names) = (true, None);
        self
    }

    /// A file whose target holds nothing else: commands that reach beyond single keys are applied too.
    pub fn accepting_all_commands(mut self) -> Self {
        self.accepts_all = true;
        self
    }

    /// Nothing is noted at the target.
    pub fn is_without_checkpoint(&self) -> bool {
        self.changes_only && self.names.is_none()
    }

    /// The source is one master of a cluster.
    pub fn for_cluster_master(mut self, master_rank: MasterRank) -> Self {
        self.master_rank = Some(master_rank);
        self
    }

    /// The database in which the stream is.
    pub fn db(&self) -> u32 {
        self.db
    }

    /// What is changed there goes on.
    pub fn is_migrated(&self) -> bool {
        self.target_db.is_some()
    }

    /// Within a transaction of the source.
    pub fn is_in_source_transaction(&self) -> bool {
        self.in_source_transaction
    }

    /// Offset behind the last command that was taken.
    pub fn offset(&self) -> u64 {
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
    pub fn replid(&self) -> &str {
        &self.replid
    }

    /// Something else has used the connection, which is in this database; none: nobody knows.
    pub fn set_selected(&mut self, db: Option<u32>) {
        self.selected = db;
    }

    /// Where the connection is behind the last transaction.
    pub(crate) fn selected(&self) -> Option<u32> {
        self.selected
    }

    /// Takes a command, whose end is at `offset` of the stream; what goes on is appended to `out`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a command that cannot be divided into what is migrated and what is not.
    pub fn apply(
        &mut self,
        command: &Command<'_>,
        offset: u64,
        out: &mut Vec<u8>,
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
        match name {
            b"EVAL" => self.remember_script(command.arg(1), out),
            b"SCRIPT" if command.arg(1).is_some_and(|w| w.eq_ignore_ascii_case(b"LOAD")) => {
                self.remember_script(command.arg(2), out);
            }
            _ => {}
        }
        match name {
            // Messages are no data: what a Sentinel says to its master would make the target that master's replica.
            b"PING" | b"PUBLISH" | b"SPUBLISH" | b"OPINFO" => {}
            b"REPLCONF" => {
                let asked = command.arg(1).is_some_and(|w| w.eq_ignore_ascii_case(b"GETACK"));
                return Ok(if asked { CommandOutcome::AckRequested } else { CommandOutcome::Nothing });
            }
            b"SELECT" => {
                let db = command.arg(1).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
                self.db = db.ok_or_else(|| self.refused("SELECT", "it does not name a valid database"))?;
                self.target_db = self.route.db(self.db);
            }
            b"MULTI" => self.in_source_transaction = true,
            b"EXEC" => self.in_source_transaction = false,
            _ if self.master_rank.is_some() && is_administrative(name, command.arg(1)) => {
                return Err(unordered_command(name));
            }
            b"FUNCTION" if self.master_rank == Some(MasterRank::Other) => {}
            _ if !is_data(name, command.arg(1), self.accepts_all) => {
                *self.filtered.entry(String::from_utf8_lossy(name).into_owned()).or_default() += 1;
            }
            // Functions belong to no database.
            b"FUNCTION" => self.function(command, out),
            b"FLUSHALL" => self.flush_all(command, out)?,
            b"FLUSHDB" | b"SWAPDB" if self.route.all_into.is_some() => {
                return Err(self.refused(&String::from_utf8_lossy(name), "the target has a single database"));
            }
            b"SWAPDB" | b"MOVE" | b"COPY" if !self.route.keeps_dbs() => {
                self.require_named_dbs(name, command);
                self.map_databases(name, command, out, now_ms)?
            }
            // Keys of other migrations are not data.
            _ if command.arg(1).is_some_and(|key| key.starts_with(RESERVED_PREFIX)) => {
                self.check_loop(command)?
            }
            _ => self.apply_to_selected_db(name, command, out, now_ms)?,
        }
        Ok(CommandOutcome::Nothing)
    }

    /// Applies a command about keys, unless the stream is in a database that is not migrated.
    fn apply_to_selected_db(
        &mut self,
        name: &[u8],
        command: &Command<'_>,
        out: &mut Vec<u8>,
        now_ms: i64,
    ) -> Result<()> {
        let Some(db) = self.target_db else { return Ok(()) };
        if self.changes_only && db != 0 {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(self.refused(
                &name,
                &format!("it uses database {db}, which the target does not have; hint: use --db-map {db}=0"),
            ));
        }
        if matches!(name, b"SWAPDB" | b"MOVE" | b"COPY") {
            self.require_named_dbs(name, command);
        }
        self.apply_data(name, command, db, out, now_ms)
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

    /// Keeps a script's text, here and beside the position.
    fn remember_script(&mut self, text: Option<&[u8]>, out: &mut Vec<u8>) {
        let Some(digest) = text.and_then(|text| self.scripts.insert(text)) else { return };
        self.store_scripts(Some(&digest), out);
    }

    fn store_scripts(&mut self, only: Option<&[u8]>, out: &mut Vec<u8>) {
        if let Some(names) = &self.names {
            let key = names.scripts.clone();
            let words: Vec<Vec<u8>> =
                self.scripts.store_command(&key, only).into_iter().map(<[u8]>::to_vec).collect();
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            self.append_internal(0, &words, out);
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

    fn flush_all(&mut self, command: &Command<'_>, out: &mut Vec<u8>) -> Result<()> {
        if self.route.has_filter() {
            return Err(self.refused("FLUSHALL", "the key filter excludes some of its keys"));
        }
        if self.route.keeps_dbs() {
            let db = self.selected.unwrap_or(0);
            self.write(db, command.raw, out);
            self.store_scripts(None, out);
            return Ok(());
        }
        match self.route.only_db.and_then(|db| self.route.db(db)) {
            Some(db) => {
                self.write_args(db, &[b"FLUSHDB"], out);
                self.store_scripts(None, out);
                Ok(())
            }
            None => Err(self.refused("FLUSHALL", "the mapped databases are shared with other data")),
        }
    }

    /// The databases that a command names are needed too.
    fn require_named_dbs(&mut self, name: &[u8], command: &Command<'_>) {
        let words: Vec<&[u8]> = command.args().collect();
        for place in db_arguments(name, &words) {
            let number = words.get(place).and_then(|w| std::str::from_utf8(w).ok()?.parse().ok());
            if let Some(to) = number.and_then(|db: u32| self.route.db(db)) {
                self.require_db(to);
            }
        }
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
