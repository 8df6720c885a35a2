//! Pure: the source's stream becomes transactions at the target, each of which also says how far the stream is applied.

mod change;
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::failure::{Failure, Kind, Result, Side};
use redis_proto::resp::Command;

use crate::allowed::{is_about_others, is_data};
use crate::functions::{self, Libraries};
use crate::marker::{Marker, Names, OURS};
use crate::route::Route;
use crate::scripts::Scripts;
use crate::source::psync::Position;
use crate::target::pipeline::About;
use crate::tongue::Tongue;
use crate::watch::Watch;

/// Commands of one transaction; the source's own transactions are never divided.
const COMMANDS: u64 = 500;
/// Bytes of one transaction.
const BYTES: usize = 256 << 10;

/// What a command of the stream asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing more.
    Noted,
    /// The source wants to know at once how far the stream is applied.
    AckWanted,
}

/// Which of the masters of a cluster the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What all of them have alike, functions, is taken from this one.
    First,
    /// Any other.
    Other,
}

/// What the stream of one master cannot tell of the others: everything is to be looked at anew.
pub const ANEW: &str = "anew";

/// A transaction that is being written.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Where it begins in the buffer.
    began: usize,
    /// Answers to come before that of its `EXEC`.
    answers: u64,
}

/// `SET`s of nothing but a key and a value that follow each other: written as one `MSET` they cost the target half.
#[derive(Clone, Copy, Debug, Default)]
struct Sets {
    /// Where the first of their keys begins in the buffer.
    began: usize,
    count: u64,
}

/// How such a command begins; its key and value follow as they stand in an `MSET`.
const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n";
/// Commands of one `MSET`, and the length from which on a value goes alone, bytes.
const SETS: u64 = 64;
const SET_MAX: usize = 4 << 10;

/// Turns commands into transactions.
#[derive(Debug)]
pub struct Apply {
    route: Route,
    /// None: nothing is noted at the target, as for an import.
    names: Option<Names>,
    replid: String,
    /// Where the stream is, and how that is called at the target.
    db: u32,
    travels: Option<u32>,
    /// Where the target's connection is; none: nobody knows.
    selected: Option<u32>,
    /// Databases of the target that are known to be there.
    proven: BTreeSet<u32>,
    /// Databases that what was written last needs beside them: to be proven before it is sent.
    pub(crate) to_prove: Vec<u32>,
    open: Option<Open>,
    sets: Sets,
    /// Within a transaction of the source.
    within: bool,
    offset: u64,
    /// Only the changes are written, not the transactions around them; there is only database 0.
    bare: bool,
    /// The source is a server of the user's, not a file from anywhere.
    live: bool,
    /// Whatever its commands do is wanted.
    all: bool,
    /// The source is one of several servers that are one.
    part: Option<Part>,
    /// The source's scripts.
    pub(crate) scripts: Scripts,
    /// Replication identities of the target: what bears one of them has come from there.
    pub(crate) comes_from: Vec<String>,
    /// What the target's own clock may have taken.
    pub watch: Watch,
    /// Databases of the source that have changed places, until somebody takes note.
    pub(crate) swapped: Option<(u32, u32)>,
    /// What the target understands, where that may be less than the source says.
    pub tongue: Option<Tongue>,
    /// Commands that went on.
    pub commands: u64,
    /// Commands that are none of a copy's business and were left out, by name.
    pub passed_over: BTreeMap<String, u64>,
    /// What the target has no place for, and how often that was met.
    pub left_out: BTreeMap<String, u64>,
    /// Commands about libraries of functions are carried out apart from transactions.
    pub(crate) functions_apart: bool,
    /// Such a command, until somebody has carried it out: what came before it is applied first.
    pub(crate) library: Option<Vec<Vec<u8>>>,
    /// Something to know.
    pub(crate) notes: Vec<String>,
    /// Names of commands that are left out, in upper case.
    skipped: Arc<BTreeSet<String>>,
}

impl Apply {
    /// Goes on behind a position, in the database in which the stream was there.
    pub fn new(route: Route, names: Option<Names>, position: &Position, db: u32) -> Self {
        let (travels, live) = (route.db(db), names.is_some());
        Self {
            route,
            names,
            replid: position.replid.clone(),
            db,
            travels,
            selected: None,
            proven: BTreeSet::from([0]),
            to_prove: Vec::new(),
            open: None,
            sets: Sets::default(),
            within: false,
            offset: position.offset,
            bare: false,
            live,
            all: live,
            part: None,
            scripts: Scripts::default(),
            comes_from: Vec::new(),
            watch: Watch::default(),
            swapped: None,
            tongue: None,
            commands: 0,
            passed_over: BTreeMap::new(),
            left_out: BTreeMap::new(),
            functions_apart: false,
            library: None,
            notes: Vec::new(),
            skipped: Arc::default(),
        }
    }

    /// Leaves out commands of these names, in upper case.
    pub fn without(mut self, names: Arc<BTreeSet<String>>) -> Self {
        self.skipped = names;
        self
    }

    /// Writes only changes: who takes them makes transactions of them.
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Writes only changes, and notes nothing at the target.
    pub fn unnoted(mut self) -> Self {
        (self.bare, self.names) = (true, None);
        self
    }

    /// A file whose target holds nothing else: commands that reach beyond single keys are applied too.
    pub fn taking_all(mut self) -> Self {
        self.all = true;
        self
    }

    /// Nothing is noted at the target.
    pub fn is_unnoted(&self) -> bool {
        self.bare && self.names.is_none()
    }

    /// The source is one master of a cluster.
    pub fn part_of_many(mut self, part: Part) -> Self {
        self.part = Some(part);
        self
    }

    /// The database in which the stream is.
    pub fn db(&self) -> u32 {
        self.db
    }

    /// What is changed there goes on.
    pub fn travels(&self) -> bool {
        self.travels.is_some()
    }

    /// Within a transaction of the source.
    pub fn is_within(&self) -> bool {
        self.within
    }

    /// Offset behind the last command that was taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What begins at the offset so far and ends at this one is applied.
    pub(crate) fn pass(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Keeps what became of a command about libraries.
    pub(crate) fn told(&mut self, done: &Libraries) {
        self.notes.extend(done.notes());
        if done.skipped {
            *self.left_out.entry(functions::LEFT_OUT.into()).or_default() += 1;
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
            out.truncate(open.began);
            // Until somebody says where the connection is, what it had selected is not known.
            self.selected = None;
        }
        self.within = false;
    }

    /// True when the transaction should be closed.
    pub fn is_full(&self, out: &[u8]) -> bool {
        let full = |open: Open| open.answers >= COMMANDS || out.len().saturating_sub(open.began) >= BYTES;
        !self.within && self.open.is_some_and(full)
    }

    /// True when commands wait for the end of their transaction.
    pub fn is_open(&self) -> bool {
        self.open.is_some() || self.within
    }

    /// Takes a command, whose end is at `offset` of the stream; what goes on is appended to `out`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a command that cannot be divided into what travels and what does not.
    pub fn take(
        &mut self,
        command: &Command<'_>,
        offset: u64,
        out: &mut Vec<u8>,
        now_ms: i64,
    ) -> Result<Taken> {
        self.offset = offset;
        let Some(name) = command.arg(0) else { return Ok(Taken::Noted) };
        let mut upper = [0; 16];
        let name = match upper.get_mut(..name.len()) {
            Some(short) => {
                short.copy_from_slice(name);
                short.make_ascii_uppercase();
                &*short
            }
            None => name,
        };
        if !self.skipped.is_empty() {
            let name = String::from_utf8_lossy(name).to_ascii_uppercase();
            if self.skipped.contains(&name) {
                *self.left_out.entry(format!("{name} (excluded by --skip-command)")).or_default() += 1;
                return Ok(Taken::Noted);
            }
        }
        // A script may be said in a database that does not travel, and be called in one that does.
        match name {
            b"EVAL" => self.learn(command.arg(1), out),
            b"SCRIPT" if command.arg(1).is_some_and(|w| w.eq_ignore_ascii_case(b"LOAD")) => {
                self.learn(command.arg(2), out);
            }
            _ => {}
        }
        match name {
            // Messages are no data: what a Sentinel says to its master would make the target that master's replica.
            b"PING" | b"PUBLISH" | b"SPUBLISH" | b"OPINFO" => {}
            b"REPLCONF" => {
                let asked = command.arg(1).is_some_and(|w| w.eq_ignore_ascii_case(b"GETACK"));
                return Ok(if asked { Taken::AckWanted } else { Taken::Noted });
            }
            b"SELECT" => {
                let db = command.arg(1).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
                self.db = db.ok_or_else(|| self.refused("SELECT", "it does not name a valid database"))?;
                self.travels = self.route.db(self.db);
            }
            b"MULTI" => self.within = true,
            b"EXEC" => self.within = false,
            _ if self.part.is_some() && is_about_others(name, command.arg(1)) => {
                let m = format!(
                    "{} was executed at one master of the source; the replication streams of several masters cannot \
                     be ordered",
                    String::from_utf8_lossy(name)
                );
                return Err(Failure::new(Kind::Changed, ANEW, m).at(Side::Source));
            }
            b"FUNCTION" if self.part == Some(Part::Other) => {}
            _ if !is_data(name, command.arg(1), self.all) => {
                *self.passed_over.entry(String::from_utf8_lossy(name).into_owned()).or_default() += 1;
            }
            // Functions belong to no database.
            b"FUNCTION" => self.function(command, out),
            b"FLUSHALL" => self.flush_all(command, out)?,
            b"FLUSHDB" | b"SWAPDB" if self.route.all_into.is_some() => {
                return Err(self.refused(&String::from_utf8_lossy(name), "the target has a single database"));
            }
            b"SWAPDB" | b"MOVE" | b"COPY" if !self.route.keeps_dbs() => {
                self.needs_named(name, command);
                self.across(name, command, out, now_ms)?
            }
            // Marks of other migrations are no data.
            _ if command.arg(1).is_some_and(|key| key.starts_with(OURS)) => self.is_no_loop(command)?,
            _ => {
                if let Some(db) = self.travels {
                    if self.bare && db != 0 {
                        let name = String::from_utf8_lossy(name).into_owned();
                        return Err(self.refused(
                            &name,
                            &format!(
                                "it uses database {db}, which the target does not have; hint: use --db-map {db}=0"
                            ),
                        ));
                    }
                    if matches!(name, b"SWAPDB" | b"MOVE" | b"COPY") {
                        self.needs_named(name, command);
                    }
                    self.data(name, command, db, out, now_ms)?;
                }
            }
        }
        Ok(Taken::Noted)
    }

    fn refused(&self, name: &str, why: &str) -> Failure {
        let m = match self.live {
            true => format!(
                "cannot replicate {name}: {why}; hint: start the migration again when the source no \
                 longer sends it"
            ),
            false => format!("cannot apply {name}: {why}"),
        };
        Failure::new(Kind::Unsupported, "apply", m).at(Side::Source)
    }

    /// Keeps a script's text, here and beside the position.
    fn learn(&mut self, text: Option<&[u8]>, out: &mut Vec<u8>) {
        let Some(digest) = text.and_then(|text| self.scripts.learn(text)) else { return };
        self.keep_scripts(Some(&digest), out);
    }

    fn keep_scripts(&mut self, only: Option<&[u8]>, out: &mut Vec<u8>) {
        if let Some(names) = &self.names {
            let key = names.scripts.clone();
            let words: Vec<Vec<u8>> = self.scripts.keep(&key, only).into_iter().map(<[u8]>::to_vec).collect();
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            self.write_beside(0, &words, out);
        }
    }

    /// A mark of another migration that applies changes of our target to our source: each change would go round for ever.
    fn is_no_loop(&self, command: &Command<'_>) -> Result<()> {
        let words = |i: usize| String::from_utf8_lossy(command.arg(i).unwrap_or_default()).into_owned();
        // `SET offset:ID "applied REPLID …"`, `HSET claims ID "WHAT REPLID"`.
        let (told, id) = match command.arg(0) {
            Some(name) if name.eq_ignore_ascii_case(b"HSET") => (words(3), words(2)),
            _ => (words(2), words(1)),
        };
        match told.split(' ').nth(1).filter(|replid| self.comes_from.iter().any(|one| one == replid)) {
            Some(_) => Err(going_round(&id)),
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
            self.keep_scripts(None, out);
            return Ok(());
        }
        match self.route.only_db.and_then(|db| self.route.db(db)) {
            Some(db) => {
                self.write_args(db, &[b"FLUSHDB"], out);
                self.keep_scripts(None, out);
                Ok(())
            }
            None => Err(self.refused("FLUSHALL", "the mapped databases are shared with other data")),
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.open.is_none() && !self.bare {
            self.open = Some(Open { began: out.len(), answers: 1 });
            out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
        }
    }

    /// A server checks the number of a database only when the transaction is executed, and then goes on in the one
    /// before: no database is used that nobody has seen.
    fn needs(&mut self, db: u32) {
        if !self.bare && !self.proven.contains(&db) && !self.to_prove.contains(&db) {
            self.to_prove.push(db);
        }
    }

    /// The databases that a command names are needed too.
    fn needs_named(&mut self, name: &[u8], command: &Command<'_>) {
        let words: Vec<&[u8]> = command.args().collect();
        for place in change::database_places(name, &words) {
            let number = words.get(place).and_then(|w| std::str::from_utf8(w).ok()?.parse().ok());
            if let Some(to) = number.and_then(|db: u32| self.route.db(db)) {
                self.needs(to);
            }
        }
    }

    /// What was to be proven is there.
    pub(crate) fn prove(&mut self) {
        self.proven.extend(self.to_prove.drain(..));
    }

    fn one_more(&mut self) {
        if let Some(open) = &mut self.open {
            open.answers += 1;
        }
    }

    fn select(&mut self, db: u32, out: &mut Vec<u8>) {
        if self.selected != Some(db) || self.open.is_none() {
            self.end_sets(out);
        }
        self.begin(out);
        if self.selected != Some(db) && !self.bare {
            self.needs(db);
            redis_proto::resp::command(out, &[b"SELECT", db.to_string().as_bytes()]);
            self.selected = Some(db);
            self.one_more();
        }
    }

    fn write(&mut self, db: u32, raw: &[u8], out: &mut Vec<u8>) {
        self.select(db, out);
        self.commands += 1;
        let set = raw.split_at_checked(SET.len()).filter(|(head, _)| head.eq_ignore_ascii_case(SET));
        match set.filter(|(_, pair)| pair.len() <= SET_MAX && !self.bare) {
            Some((_, pair)) => {
                if self.sets.count == 0 {
                    self.sets.began = out.len();
                    self.one_more();
                }
                out.extend_from_slice(pair);
                self.sets.count += 1;
                if self.sets.count == SETS {
                    self.end_sets(out);
                }
            }
            None => {
                self.end_sets(out);
                out.extend_from_slice(raw);
                self.one_more();
            }
        }
    }

    /// What the `SET`s so far become stands before their keys and values.
    fn end_sets(&mut self, out: &mut Vec<u8>) {
        let Sets { began, count } = std::mem::take(&mut self.sets);
        match count {
            0 => {}
            1 => drop(out.splice(began..began, SET.iter().copied())),
            _ => {
                let head = format!("*{}\r\n$4\r\nMSET\r\n", 1 + 2 * count);
                drop(out.splice(began..began, head.into_bytes()));
            }
        }
    }

    /// The same of what is no change of the source's; nothing where there are no words.
    fn write_beside(&mut self, db: u32, args: &[&[u8]], out: &mut Vec<u8>) {
        if !args.is_empty() {
            self.write_args(db, args, out);
            self.commands -= 1;
        }
    }

    fn write_args(&mut self, db: u32, args: &[&[u8]], out: &mut Vec<u8>) {
        self.select(db, out);
        self.end_sets(out);
        redis_proto::resp::command(out, args);
        self.one_more();
        self.commands += 1;
    }

    /// Commands that stand in bytes already.
    fn write_built(&mut self, db: u32, bytes: &[u8], count: u64, out: &mut Vec<u8>) {
        if count == 0 {
            return;
        }
        self.select(db, out);
        self.end_sets(out);
        out.extend_from_slice(bytes);
        for _ in 0..count {
            self.one_more();
        }
        self.commands += count;
    }

    /// Ends the transaction, if there is one that may end: what is to be expected of it, and how long it is, bytes.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Option<(About, usize)> {
        if self.within || self.open.is_none() {
            return None;
        }
        self.end_sets(out);
        if let Some(names) = &self.names {
            let position = Position { replid: self.replid.clone(), offset: self.offset };
            let (key, text) = (names.marker.clone(), Marker::Applied(position, self.db, None).text());
            self.select(0, out);
            redis_proto::resp::command(out, &[b"SET", &key, text.as_bytes()]);
            self.one_more();
        }
        let open = self.open.take()?;
        out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        Some((About::Applied { answers: open.answers + 1, offset: self.offset }, out.len() - open.began))
    }
}

/// The source takes changes from the target.
pub(crate) fn going_round(id: &str) -> Failure {
    let m = format!(
        "migration `{id}` already replicates from the target to the source; each change would be replicated in a loop"
    );
    Failure::new(Kind::Conflict, "loop", m).at(Side::Source)
}

#[cfg(test)]
mod tests {
    use redis_proto::resp::Commands;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn names() -> Names {
        Names {
            id: "t".into(),
            marker: b"M".to_vec(),
            doubted: b"D".to_vec(),
            scripts: b"S".to_vec(),
            writer: b"W".to_vec(),
            owner: b"O".to_vec(),
        }
    }

    fn applying(route: Route) -> Apply {
        Apply::new(route, Some(names()), &Position { replid: "r".into(), offset: 0 }, 0)
    }

    fn feed(apply: &mut Apply, lines: &[&str], out: &mut Vec<u8>) -> Result<()> {
        let mut commands = Commands::at(apply.offset());
        for line in lines {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let mut raw = Vec::new();
            redis_proto::resp::command(&mut raw, &args);
            commands.push(&raw);
            let end = commands.offset() + raw.len() as u64;
            let command = commands.next_command().unwrap().unwrap();
            apply.take(&command, end, out, NOW)?;
        }
        Ok(())
    }

    /// What was written, one command a line.
    fn lines(out: &[u8]) -> Vec<String> {
        let mut commands = Commands::at(0);
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
        let (mut apply, mut out) = (applying(Route::default()), Vec::new());
        feed(&mut apply, &["SELECT 2", "MULTI", "INCR a", "PING"], &mut out).unwrap();
        assert!(apply.close(&mut out).is_none(), "the source's own transaction is not divided");
        feed(&mut apply, &["INCR b", "EXEC"], &mut out).unwrap();
        let offset = apply.offset();
        let (about, len) = apply.close(&mut out).unwrap();
        assert_eq!(len, out.len());
        let mark = format!("SET M applied r {offset} 2");
        assert_eq!(lines(&out), ["MULTI", "SELECT 2", "INCR a", "INCR b", "SELECT 0", &mark, "EXEC"]);
        assert!(matches!(about, About::Applied { answers: 7, offset: o } if o == offset));
        assert!(apply.close(&mut out).is_none());
        feed(&mut apply, &["PING"], &mut out).unwrap();
        assert!(!apply.is_open());
    }

    #[test]
    fn commands_that_rule_a_server_stop_here() {
        let (mut live, mut out) = (applying(Route::default()), Vec::new());
        feed(&mut live, &["REPLICAOF h 1", "CONFIG SET a b", "FLUSHALL", "INCR a"], &mut out).unwrap();
        assert_eq!(lines(&out), ["MULTI", "SELECT 0", "FLUSHALL", "INCR a"]);
        assert_eq!(live.passed_over.len(), 2);
        let mut file = Apply::new(Route::default(), None, &Position { replid: "r".into(), offset: 0 }, 0);
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
        let mut file = Apply::new(Route::default(), None, &anywhere, 0).taking_all();
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
            let (mut apply, mut out) = (applying(Route::default()).part_of_many(Part::First), Vec::new());
            assert_eq!(feed(&mut apply, &[line], &mut out).unwrap_err().op, ANEW, "{line}");
            assert!(out.is_empty());
        }
        for (part, written) in [(Part::First, 3), (Part::Other, 0)] {
            let (mut apply, mut out) = (applying(Route::default()).part_of_many(part), Vec::new());
            feed(&mut apply, &["FUNCTION LOAD x", "CLUSTER MYID"], &mut out).unwrap();
            assert_eq!(lines(&out).len(), written);
        }
    }

    #[test]
    fn keys_are_looked_at_before_their_changes_while_the_target_is_behind() {
        let route = Route { db_map: Route::parse_map("1=5").unwrap(), ..Route::default() };
        let (mut apply, mut out) = (applying(route), Vec::new());
        apply.watch.begin(Some(b"D".to_vec()), true);
        feed(&mut apply, &["SELECT 1", "INCR k", "SET l 1", "MOVE k 1", "RENAME k l"], &mut out).unwrap();
        let script = String::from_utf8_lossy(crate::watch::SCRIPT).into_owned();
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
        assert_eq!(apply.commands, 4);
    }

    #[test]
    fn databases_are_mapped_and_what_cannot_be_divided_is_refused() {
        let route = Route { db_map: Route::parse_map("1=5").unwrap(), ..Route::default() };
        let (mut apply, mut out) = (applying(route), Vec::new());
        feed(&mut apply, &["SELECT 1", "SET a 1", "MOVE a 1", "COPY a b DB 1", "SWAPDB 0 1"], &mut out)
            .unwrap();
        let want = ["SELECT 5", "SET a 1", "MOVE a 5", "COPY a b DB 5", "SWAPDB 0 5"];
        // What is ours stays where it was.
        let back = ["MOVE D 0", "MOVE S 0", "MOVE O 0", "MOVE whimbrel:redis:claims 0", "DEL M"];
        assert_eq!(lines(&out)[1..], [&want[..], &back].concat());
        assert!(feed(&mut apply, &["FLUSHALL"], &mut out).is_err());
        let route = Route { include: vec!["a*".into()], ..Route::default() };
        let (mut apply, mut out) = (applying(route), Vec::new());
        feed(&mut apply, &["SET b 1", "DEL a b", "INCR a"], &mut out).unwrap();
        assert_eq!(lines(&out)[1..], ["SELECT 0", "DEL a", "INCR a"]);
        for wrong in ["RENAME a b", "FLUSHDB", "FLUSHALL"] {
            assert_eq!(feed(&mut apply, &[wrong], &mut out).unwrap_err().kind, Kind::Unsupported, "{wrong}");
        }
    }

    #[test]
    fn plain_sets_that_follow_each_other_are_one_command() {
        let (mut apply, mut out) = (applying(Route::default()), Vec::new());
        let long = format!("SET f {}", "x".repeat(SET_MAX));
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
        feed(&mut apply, &given, &mut out).unwrap();
        let offset = apply.offset();
        let (about, len) = apply.close(&mut out).unwrap();
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
        assert!(matches!(about, About::Applied { answers: 12, .. }), "{about:?}");
        assert_eq!(apply.commands, 8);
        let many = vec!["SET k v"; 65];
        let mut out = Vec::new();
        feed(&mut apply, &many, &mut out).unwrap();
        apply.abandon(&mut out);
        assert!(out.is_empty());
        feed(&mut apply, &many, &mut out).unwrap();
        apply.close(&mut out).unwrap();
        let written = lines(&out);
        assert_eq!((written.len(), &written[3][..]), (7, "SET k v"));
        assert_eq!(written[2].split(' ').count(), 129);
    }

    #[test]
    fn the_whole_of_a_flush_goes_on() {
        let (mut apply, mut out) = (applying(Route::default()), Vec::new());
        feed(&mut apply, &["FLUSHALL", "SELECT 1", "FLUSHDB"], &mut out).unwrap();
        assert_eq!(lines(&out), ["MULTI", "SELECT 0", "FLUSHALL", "SELECT 1", "FLUSHDB"]);
    }
}
