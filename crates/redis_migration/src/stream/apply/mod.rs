//! Pure: the source's stream becomes transactions at the target, each of which also says how far the stream is applied.

mod change;
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::Command;

use crate::checkpoint::Checkpoint;
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
use crate::target::pipeline::PendingReply;

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

    /// Takes back what was written of a transaction that will not end; the source sends it again.
    pub fn abandon(&mut self, out: &mut Vec<u8>) {
        self.sets.count = 0;
        if let Some(open) = self.open.take() {
            out.truncate(open.start);
            // Until somebody says where the connection is, what it had selected is not known.
            self.selected = None;
        }
        self.in_source_transaction = false;
    }

    /// True when the transaction should be closed.
    pub fn is_full(&self, out: &[u8]) -> bool {
        let full = |open: OpenTransaction| {
            open.replies >= TRANSACTION_COMMANDS || out.len().saturating_sub(open.start) >= TRANSACTION_BYTES
        };
        !self.in_source_transaction && self.open.is_some_and(full)
    }

    /// True when commands wait for the end of their transaction.
    pub fn is_open(&self) -> bool {
        self.open.is_some() || self.in_source_transaction
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
        let name = match upper.get_mut(..name.len()) {
            Some(short) => {
                short.copy_from_slice(name);
                short.make_ascii_uppercase();
                &*short
            }
            None => name,
        };
        if !self.skipped_commands.is_empty() {
            let name = String::from_utf8_lossy(name).to_ascii_uppercase();
            if self.skipped_commands.contains(&name) {
                *self.unsupported.entry(format!("{name} (excluded by --skip-command)")).or_default() += 1;
                return Ok(CommandOutcome::Nothing);
            }
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
                let m = format!(
                    "{} was executed at one master of the source; the replication streams of several masters cannot \
                     be ordered",
                    String::from_utf8_lossy(name)
                );
                return Err(Error::new(Kind::Changed, FULL_RESYNC, m).at(Side::Source));
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
            _ => {
                if let Some(db) = self.target_db {
                    if self.changes_only && db != 0 {
                        let name = String::from_utf8_lossy(name).into_owned();
                        return Err(self.refused(
                            &name,
                            &format!(
                                "it uses database {db}, which the target does not have; hint: use --db-map {db}=0"
                            ),
                        ));
                    }
                    if matches!(name, b"SWAPDB" | b"MOVE" | b"COPY") {
                        self.require_named_dbs(name, command);
                    }
                    self.apply_data(name, command, db, out, now_ms)?;
                }
            }
        }
        Ok(CommandOutcome::Nothing)
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

    fn begin_transaction(&mut self, out: &mut Vec<u8>) {
        if self.open.is_none() && !self.changes_only {
            self.open = Some(OpenTransaction { start: out.len(), replies: 1 });
            out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
        }
    }

    /// A server checks the number of a database only when the transaction is executed, and then goes on in the one
    /// before: no database is used that nobody has seen.
    fn require_db(&mut self, db: u32) {
        if !self.changes_only && !self.known_dbs.contains(&db) && !self.dbs_to_verify.contains(&db) {
            self.dbs_to_verify.push(db);
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

    /// What was to be proven is there.
    pub(crate) fn confirm_dbs(&mut self) {
        self.known_dbs.extend(self.dbs_to_verify.drain(..));
    }

    fn count_reply(&mut self) {
        if let Some(open) = &mut self.open {
            open.replies += 1;
        }
    }

    fn select(&mut self, db: u32, out: &mut Vec<u8>) {
        if self.selected != Some(db) || self.open.is_none() {
            self.flush_sets(out);
        }
        self.begin_transaction(out);
        if self.selected != Some(db) && !self.changes_only {
            self.require_db(db);
            redis_proto::resp::command(out, &[b"SELECT", db.to_string().as_bytes()]);
            self.selected = Some(db);
            self.count_reply();
        }
    }

    fn write(&mut self, db: u32, raw: &[u8], out: &mut Vec<u8>) {
        self.select(db, out);
        self.commands += 1;
        let set =
            raw.split_at_checked(SET_HEADER.len()).filter(|(head, _)| head.eq_ignore_ascii_case(SET_HEADER));
        match set.filter(|(_, pair)| pair.len() <= SET_VALUE_MAX && !self.changes_only) {
            Some((_, pair)) => {
                if self.sets.count == 0 {
                    self.sets.start = out.len();
                    self.count_reply();
                }
                out.extend_from_slice(pair);
                self.sets.count += 1;
                if self.sets.count == SETS_PER_MSET {
                    self.flush_sets(out);
                }
            }
            None => {
                self.flush_sets(out);
                out.extend_from_slice(raw);
                self.count_reply();
            }
        }
    }

    /// What the `SET`s so far become stands before their keys and values.
    fn flush_sets(&mut self, out: &mut Vec<u8>) {
        let PendingSets { start, count } = std::mem::take(&mut self.sets);
        match count {
            0 => {}
            1 => drop(out.splice(start..start, SET_HEADER.iter().copied())),
            _ => {
                let head = format!("*{}\r\n$4\r\nMSET\r\n", 1 + 2 * count);
                drop(out.splice(start..start, head.into_bytes()));
            }
        }
    }

    /// The same of what is no change of the source's; nothing where there are no words.
    fn append_internal(&mut self, db: u32, args: &[&[u8]], out: &mut Vec<u8>) {
        if !args.is_empty() {
            self.write_args(db, args, out);
            self.commands -= 1;
        }
    }

    fn write_args(&mut self, db: u32, args: &[&[u8]], out: &mut Vec<u8>) {
        self.select(db, out);
        self.flush_sets(out);
        redis_proto::resp::command(out, args);
        self.count_reply();
        self.commands += 1;
    }

    /// Commands that stand in bytes already.
    fn write_built(&mut self, db: u32, bytes: &[u8], count: u64, out: &mut Vec<u8>) {
        if count == 0 {
            return;
        }
        self.select(db, out);
        self.flush_sets(out);
        out.extend_from_slice(bytes);
        for _ in 0..count {
            self.count_reply();
        }
        self.commands += count;
    }

    /// Ends the transaction, if there is one that may end: what is to be expected of it, and how long it is, bytes.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Option<(PendingReply, usize)> {
        if self.in_source_transaction || self.open.is_none() {
            return None;
        }
        self.flush_sets(out);
        if let Some(names) = &self.names {
            let position = Position { replid: self.replid.clone(), offset: self.offset };
            let (key, text) = (names.checkpoint.clone(), Checkpoint::Applied(position, self.db, None).text());
            self.select(0, out);
            redis_proto::resp::command(out, &[b"SET", &key, text.as_bytes()]);
            self.count_reply();
        }
        let open = self.open.take()?;
        out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        Some((
            PendingReply::Transaction { replies: open.replies + 1, offset: self.offset },
            out.len() - open.start,
        ))
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
mod tests {
    use redis_proto::resp::Commands;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn names() -> KeyNames {
        KeyNames {
            id: "t".into(),
            checkpoint: b"M".to_vec(),
            suspects: b"D".to_vec(),
            scripts: b"S".to_vec(),
            writer_name: b"W".to_vec(),
            fencing_token: b"O".to_vec(),
        }
    }

    fn applying(route: Route) -> Applier {
        Applier::new(route, Some(names()), &Position { replid: "r".into(), offset: 0 }, 0)
    }

    fn feed(applier: &mut Applier, lines: &[&str], out: &mut Vec<u8>) -> Result<()> {
        let mut commands = Commands::starting_at(applier.offset());
        for line in lines {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let mut raw = Vec::new();
            redis_proto::resp::command(&mut raw, &args);
            commands.push(&raw);
            let end = commands.offset() + raw.len() as u64;
            let command = commands.next_command().unwrap().unwrap();
            applier.apply(&command, end, out, NOW)?;
        }
        Ok(())
    }

    /// What was written, one command a line.
    fn lines(out: &[u8]) -> Vec<String> {
        let mut commands = Commands::starting_at(0);
        commands.push(out);
        let mut lines = Vec::new();
        while let Some(command) = commands.next_command().unwrap() {
            let words: Vec<String> =
                command.args().map(|a| String::from_utf8_lossy(a).into_owned()).collect();
            lines.push(words.join(" "));
        }
        lines
    }

    #[test]
    fn a_transaction_holds_its_commands_and_the_position_behind_them() {
        let (mut applier, mut out) = (applying(Route::default()), Vec::new());
        feed(&mut applier, &["SELECT 2", "MULTI", "INCR a", "PING"], &mut out).unwrap();
        assert!(applier.close(&mut out).is_none(), "the source's own transaction is not divided");
        feed(&mut applier, &["INCR b", "EXEC"], &mut out).unwrap();
        let offset = applier.offset();
        let (pending, len) = applier.close(&mut out).unwrap();
        assert_eq!(len, out.len());
        let mark = format!("SET M applied r {offset} 2");
        assert_eq!(lines(&out), ["MULTI", "SELECT 2", "INCR a", "INCR b", "SELECT 0", &mark, "EXEC"]);
        assert!(matches!(pending, PendingReply::Transaction { replies: 7, offset: o } if o == offset));
        assert!(applier.close(&mut out).is_none());
        feed(&mut applier, &["PING"], &mut out).unwrap();
        assert!(!applier.is_open());
    }

    #[test]
    fn commands_that_rule_a_server_stop_here() {
        let (mut from_server, mut out) = (applying(Route::default()), Vec::new());
        feed(&mut from_server, &["REPLICAOF h 1", "CONFIG SET a b", "FLUSHALL", "INCR a"], &mut out).unwrap();
        assert_eq!(lines(&out), ["MULTI", "SELECT 0", "FLUSHALL", "INCR a"]);
        assert_eq!(from_server.filtered.len(), 2);
        let mut file = Applier::new(Route::default(), None, &Position { replid: "r".into(), offset: 0 }, 0);
        let mut out = Vec::new();
        let given = [
            "FLUSHALL",
            "SHUTDOWN",
            "EVAL x 0",
            "NEWER a",
            "FUNCTION FLUSH",
            "BF.ADD a b",
            "FUNCTION LOAD x",
            "INCR a",
        ];
        feed(&mut file, &given, &mut out).unwrap();
        assert_eq!(lines(&out), ["MULTI", "SELECT 0", "BF.ADD a b", "FUNCTION LOAD REPLACE x", "INCR a"]);
        let anywhere = Position { replid: "r".into(), offset: 0 };
        let mut file = Applier::new(Route::default(), None, &anywhere, 0).accepting_all_commands();
        let mut out = Vec::new();
        feed(&mut file, &given, &mut out).unwrap();
        let want = [
            "MULTI",
            "SELECT 0",
            "FLUSHALL",
            "EVAL x 0",
            "NEWER a",
            "FUNCTION FLUSH",
            "BF.ADD a b",
            "FUNCTION LOAD REPLACE x",
            "INCR a",
        ];
        assert_eq!(lines(&out), want);
    }

    #[test]
    fn a_master_of_a_cluster_cannot_speak_for_the_others() {
        for line in ["RESTORE-ASKING k 0 x ABSTTL", "CLUSTER SYNCSLOTS FINISH", "flushall", "FLUSHDB"] {
            let (mut applier, mut out) =
                (applying(Route::default()).for_cluster_master(MasterRank::First), Vec::new());
            assert_eq!(feed(&mut applier, &[line], &mut out).unwrap_err().op, FULL_RESYNC, "{line}");
            assert!(out.is_empty());
        }
        for (master_rank, written) in [(MasterRank::First, 3), (MasterRank::Other, 0)] {
            let (mut applier, mut out) =
                (applying(Route::default()).for_cluster_master(master_rank), Vec::new());
            feed(&mut applier, &["FUNCTION LOAD x", "CLUSTER MYID"], &mut out).unwrap();
            assert_eq!(lines(&out).len(), written);
        }
    }

    #[test]
    fn keys_are_looked_at_before_their_changes_while_the_target_is_behind() {
        let route = Route { db_map: Route::parse_map("1=5").unwrap(), ..Route::default() };
        let (mut applier, mut out) = (applying(route), Vec::new());
        applier.expiry_guard.start(Some(b"D".to_vec()), true);
        feed(&mut applier, &["SELECT 1", "INCR k", "SET l 1", "MOVE k 1", "RENAME k l"], &mut out).unwrap();
        let script = String::from_utf8_lossy(crate::stream::expiry_guard::CHECK_SCRIPT).into_owned();
        let written: Vec<String> = lines(&out).iter().map(|line| line.replace(&script, "*")).collect();
        let want = [
            "MULTI",
            "SELECT 5",
            "EVAL * 2 D k 5 600000 0 1 1:k",
            "INCR k",
            "SET l 1",
            "EVAL * 2 D k 5 600000 1 2 1:k 1:k",
            "MOVE k 5",
            "EVAL * 3 D k l 5 600000 1 2 1:k 1:l RENAME k l",
        ];
        assert_eq!(written, want);
        assert_eq!(applier.commands, 4);
    }

    #[test]
    fn databases_are_mapped_and_what_cannot_be_divided_is_refused() {
        let route = Route { db_map: Route::parse_map("1=5").unwrap(), ..Route::default() };
        let (mut applier, mut out) = (applying(route), Vec::new());
        feed(&mut applier, &["SELECT 1", "SET a 1", "MOVE a 1", "COPY a b DB 1", "SWAPDB 0 1"], &mut out)
            .unwrap();
        let want = ["SELECT 5", "SET a 1", "MOVE a 5", "COPY a b DB 5", "SWAPDB 0 5"];
        // What is ours stays where it was.
        let back = ["MOVE D 0", "MOVE S 0", "MOVE O 0", "MOVE whimbrel:redis:claims 0", "DEL M"];
        assert_eq!(lines(&out)[1..], [&want[..], &back].concat());
        assert!(feed(&mut applier, &["FLUSHALL"], &mut out).is_err());
        let route = Route { include: vec!["a*".into()], ..Route::default() };
        let (mut applier, mut out) = (applying(route), Vec::new());
        feed(&mut applier, &["SET b 1", "DEL a b", "INCR a"], &mut out).unwrap();
        assert_eq!(lines(&out)[1..], ["SELECT 0", "DEL a", "INCR a"]);
        for wrong in ["RENAME a b", "FLUSHDB", "FLUSHALL"] {
            assert_eq!(
                feed(&mut applier, &[wrong], &mut out).unwrap_err().kind,
                Kind::Unsupported,
                "{wrong}"
            );
        }
    }

    #[test]
    fn plain_sets_that_follow_each_other_are_one_command() {
        let (mut applier, mut out) = (applying(Route::default()), Vec::new());
        let long = format!("SET f {}", "x".repeat(SET_VALUE_MAX));
        let given = [
            "SET a 1",
            "set b 2",
            "SET a 3",
            "SET c 4 PX 9",
            "SET d 5",
            "SELECT 1",
            "SET e 6",
            &long,
            "SET g 7",
        ];
        feed(&mut applier, &given, &mut out).unwrap();
        let offset = applier.offset();
        let (pending, len) = applier.close(&mut out).unwrap();
        assert_eq!(len, out.len());
        let mark = format!("SET M applied r {offset} 1");
        let want = [
            "MULTI",
            "SELECT 0",
            "MSET a 1 b 2 a 3",
            "SET c 4 PX 9",
            "SET d 5",
            "SELECT 1",
            "SET e 6",
            &long,
            "SET g 7",
            "SELECT 0",
            &mark,
            "EXEC",
        ];
        assert_eq!(lines(&out), want);
        assert!(matches!(pending, PendingReply::Transaction { replies: 12, .. }), "{pending:?}");
        assert_eq!(applier.commands, 8);
        let cluster = vec!["SET k v"; 65];
        let mut out = Vec::new();
        feed(&mut applier, &cluster, &mut out).unwrap();
        applier.abandon(&mut out);
        assert!(out.is_empty());
        feed(&mut applier, &cluster, &mut out).unwrap();
        applier.close(&mut out).unwrap();
        let written = lines(&out);
        assert_eq!((written.len(), &written[3][..]), (7, "SET k v"));
        assert_eq!(written[2].split(' ').count(), 129);
    }

    #[test]
    fn the_whole_of_a_flush_goes_on() {
        let (mut applier, mut out) = (applying(Route::default()), Vec::new());
        feed(&mut applier, &["FLUSHALL", "SELECT 1", "FLUSHDB"], &mut out).unwrap();
        assert_eq!(lines(&out), ["MULTI", "SELECT 0", "FLUSHALL", "SELECT 1", "FLUSHDB"]);
    }
}
