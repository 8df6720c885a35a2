//! A backup is read through before anything of it is applied: what is damaged, or cannot be done, is said before the first write.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use model::error::{Error, Kind, Result, Side};
use redis_proto::aof::{self, Form};
use redis_proto::rdb::{Item, Parser};
use redis_proto::resp::{Command, Commands};

use super::files::{data_end, push_until, read_failure};
use crate::import::files::READ_BYTES;
use crate::snapshot::load::{SPLIT_VALUES_ABOVE, corrupt, is_hash_with_expiries};
use crate::source::spool::COMMAND_MAX;
use crate::stream::command_filter::{db_arguments, needs_empty_target};

/// What a backup file holds, without applying it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupContents {
    /// Keys of a snapshot, and commands.
    pub items: u64,
    /// Commands among them.
    pub commands: u64,
    /// Fields of hashes may expire.
    pub expires_fields: bool,
    /// Databases that are named.
    pub dbs: BTreeSet<u32>,
    /// Commands that affect more than single keys, by name, with their counts.
    pub unsafe_commands: BTreeMap<String, u64>,
}

impl BackupContents {
    fn add_item(&mut self, item: &Item<'_>) {
        match item {
            Item::Value(head, _) | Item::Open(head) => {
                self.items += 1;
                self.expires_fields |= is_hash_with_expiries(head.kind);
            }
            Item::Db(db) => drop(self.dbs.insert(u32::try_from(*db).unwrap_or(u32::MAX))),
            _ => {}
        }
    }

    fn add_command(&mut self, command: &Command<'_>) {
        self.items += 1;
        self.commands += 1;
        let Some(name) = command.arg(0).map(<[u8]>::to_ascii_uppercase) else { return };
        let number = |i: usize| command.arg(i).and_then(|n| std::str::from_utf8(n).ok()?.parse::<u32>().ok());
        self.expires_fields |= matches!(
            &name[..],
            b"HPEXPIREAT" | b"HEXPIREAT" | b"HPEXPIRE" | b"HEXPIRE" | b"HSETEX" | b"HGETEX"
        );
        match &name[..] {
            b"SELECT" => self.dbs.extend(number(1)),
            b"SWAPDB" | b"MOVE" | b"COPY" => {
                let args: Vec<&[u8]> = command.args().collect();
                self.dbs.extend(db_arguments(&name, &args).into_iter().filter_map(number));
            }
            // Commands before the first `SELECT` are about database 0.
            _ if self.dbs.is_empty() => drop(self.dbs.insert(0)),
            _ => {}
        }
        if needs_empty_target(&name, command.arg(1)) {
            *self.unsafe_commands.entry(String::from_utf8_lossy(&name).into_owned()).or_default() += 1;
        }
    }
}

/// Reads a whole backup file without applying it: every length, every type and the checksum.
///
/// # Errors
/// [`Kind::Corrupt`] with the byte at which it is wrong or ends.
pub fn check(path: &Path) -> Result<BackupContents> {
    let mut found = BackupContents::default();
    read_backup(path, true, &mut found, &mut |_, _| Ok(()))?;
    Ok(found)
}

/// The same, with each command given to `on_command` together with the offset of its end. Only the `last` file may be truncated.
pub(super) fn read_backup(
    path: &Path,
    last: bool,
    found: &mut BackupContents,
    on_command: &mut dyn FnMut(&Command<'_>, u64) -> Result<()>,
) -> Result<()> {
    let named = |f: Error| Error { message: format!("{}: {}", path.display(), f.message), ..f };
    let (end, length) = data_end(path)?;
    if end == 0 && length > 0 {
        return Err(named(neither(0)));
    }
    let mut file = std::fs::File::open(path).map_err(|e| read_failure(path, &e))?;
    let mut buf = vec![0; READ_BYTES];
    let read = file.read(&mut buf).map_err(|e| read_failure(path, &e))?;
    // The first piece is long enough to tell.
    let form = aof::form(&buf[..read]).ok_or_else(|| named(wrong("the file is empty".into())))?;
    let commands = Commands::starting_at(0).with_limit(COMMAND_MAX);
    let snapshot = (form == Form::Rdb).then(|| Parser::new(SPLIT_VALUES_ABOVE));
    let mut reader = BackupReader { end, last, snapshot, commands, found };
    let mut bytes = &buf[..read];
    while reader.take(bytes, on_command).map_err(named)? {
        let read = file.read(&mut buf).map_err(|e| read_failure(path, &e))?;
        bytes = &buf[..read];
    }
    Ok(())
}

fn wrong(message: String) -> Error {
    Error::new(Kind::Corrupt, "check", message).at(Side::Source)
}

fn neither(at: u64) -> Error {
    wrong(format!("at byte {at}: neither a snapshot nor an append-only file"))
}

/// A backup file that is being read.
struct BackupReader<'a> {
    /// Where its data end; NUL bytes may follow.
    end: u64,
    /// It is the last part: its last command may be truncated.
    last: bool,
    /// While the snapshot at its beginning is read.
    snapshot: Option<Parser>,
    commands: Commands,
    found: &'a mut BackupContents,
}

impl BackupReader<'_> {
    /// Takes the next bytes, none at the end of the file; false when everything was read.
    fn take(
        &mut self,
        bytes: &[u8],
        on_command: &mut dyn FnMut(&Command<'_>, u64) -> Result<()>,
    ) -> Result<bool> {
        match self.snapshot.take() {
            None => push_until(&mut self.commands, bytes, self.end),
            Some(parser) => self.take_snapshot(parser, bytes)?,
        }
        self.take_commands(on_command)?;
        match bytes.is_empty() && self.snapshot.is_none() {
            true => self.check_tail().map(|()| false),
            false => Ok(true),
        }
    }

    fn take_snapshot(&mut self, mut parser: Parser, bytes: &[u8]) -> Result<()> {
        parser.push(bytes);
        while let Some(item) = parser.next_item().map_err(|e| corrupt(&e))? {
            self.found.add_item(&item);
        }
        if parser.is_over() {
            self.commands = Commands::starting_at(parser.offset()).with_limit(COMMAND_MAX);
            push_until(&mut self.commands, parser.rest(), self.end);
            return Ok(());
        }
        if bytes.is_empty() {
            let at = parser.offset() + parser.waiting() as u64;
            return Err(wrong(format!("at byte {at}: unexpected end of file")));
        }
        self.snapshot = Some(parser);
        Ok(())
    }

    fn take_commands(&mut self, on_command: &mut dyn FnMut(&Command<'_>, u64) -> Result<()>) -> Result<()> {
        let mut at = self.commands.offset();
        while let Some(command) = self.commands.next_command().map_err(|e| wrong(e.to_string()))? {
            let begin = at;
            at += command.raw.len() as u64;
            match command.raw.first() {
                Some(b'*') => {}
                // A note of the time, between commands.
                Some(b'#') => continue,
                _ => return Err(neither(begin)),
            }
            self.found.add_command(&command);
            on_command(&command, at)?;
        }
        Ok(())
    }

    /// The file has ended: whether it may end so.
    fn check_tail(&self) -> Result<()> {
        let at = self.commands.offset();
        match self.commands.waiting() {
            0 => Ok(()),
            _ if !self.commands.begins_command() => Err(neither(at)),
            // The last command may be truncated: the server that wrote it was killed.
            _ if self.last => Ok(()),
            _ => Err(wrong(format!("at byte {at}: the file is truncated and is not the last part"))),
        }
    }
}
