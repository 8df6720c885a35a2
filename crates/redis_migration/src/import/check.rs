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
use crate::snapshot::load::{SPLIT_VALUES_ABOVE, corrupt};
use crate::source::spool::COMMAND_MAX;
use crate::stream::command_filter::needs_empty_target;

/// What a backup file holds, without applying it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupContents {
    /// Keys of a snapshot, and commands.
    pub items: u64,
    /// Databases that are named.
    pub dbs: BTreeSet<u32>,
    /// Commands that reach beyond single keys, by name, and how often each was met.
    pub unsafe_commands: BTreeMap<String, u64>,
}

impl BackupContents {
    fn add_item(&mut self, item: &Item<'_>) {
        match item {
            Item::Value(..) | Item::Open(_) => self.items += 1,
            Item::Db(db) => drop(self.dbs.insert(u32::try_from(*db).unwrap_or(u32::MAX))),
            _ => {}
        }
    }

    fn add_command(&mut self, command: &Command<'_>) {
        self.items += 1;
        let Some(name) = command.arg(0).map(<[u8]>::to_ascii_uppercase) else { return };
        let number = |i: usize| command.arg(i).and_then(|n| std::str::from_utf8(n).ok()?.parse::<u32>().ok());
        match &name[..] {
            b"SELECT" => self.dbs.extend(number(1)),
            b"SWAPDB" => self.dbs.extend(number(1).into_iter().chain(number(2))),
            b"MOVE" => self.dbs.extend(number(2)),
            b"COPY" => {
                let words: Vec<&[u8]> = command.args().collect();
                let at = words.iter().skip(3).position(|w| w.eq_ignore_ascii_case(b"DB"));
                self.dbs.extend(at.and_then(|at| number(at + 4)));
            }
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

/// The same, with each command given to `take` together with the offset of its end. Only what is `last` may be cut off.
pub(super) fn read_backup(
    path: &Path,
    last: bool,
    found: &mut BackupContents,
    on_command: &mut dyn FnMut(&Command<'_>, u64) -> Result<()>,
) -> Result<()> {
    let said = |f: Error| Error { message: format!("{}: {}", path.display(), f.message), ..f };
    let wrong = |m: String| said(Error::new(Kind::Corrupt, "check", m).at(Side::Source));
    let neither = |at: u64| wrong(format!("at byte {at}: neither a snapshot nor an append-only file"));
    let (end, length) = data_end(path)?;
    if end == 0 && length > 0 {
        return Err(neither(0));
    }
    let mut file = std::fs::File::open(path).map_err(|e| read_failure(path, &e))?;
    let mut buf = vec![0; READ_BYTES];
    let (mut snapshot, mut commands) = (None, Commands::starting_at(0).with_limit(COMMAND_MAX));
    let mut begins = true;
    loop {
        let read = file.read(&mut buf).map_err(|e| read_failure(path, &e))?;
        let bytes = &buf[..read];
        if std::mem::take(&mut begins) {
            // The first piece is long enough to tell.
            match aof::form(bytes) {
                Some(Form::Rdb) => snapshot = Some(Parser::new(SPLIT_VALUES_ABOVE)),
                Some(Form::Commands) => {}
                None => return Err(wrong("the file is empty".into())),
            }
        }
        match &mut snapshot {
            None => push_until(&mut commands, bytes, end),
            Some(parser) => {
                parser.push(bytes);
                while let Some(item) = parser.next_item().map_err(|e| said(corrupt(&e)))? {
                    found.add_item(&item);
                }
                if parser.is_over() {
                    commands = Commands::starting_at(parser.offset()).with_limit(COMMAND_MAX);
                    push_until(&mut commands, parser.rest(), end);
                    snapshot = None;
                } else if read == 0 {
                    let at = parser.offset() + parser.waiting() as u64;
                    return Err(wrong(format!("at byte {at}: unexpected end of file")));
                }
            }
        }
        let mut at = commands.offset();
        while let Some(command) = commands.next_command().map_err(|e| wrong(e.to_string()))? {
            match command.raw.first() {
                Some(b'*') => {}
                // A note of the time, between commands.
                Some(b'#') => {
                    at += command.raw.len() as u64;
                    continue;
                }
                _ => return Err(neither(at)),
            }
            at += command.raw.len() as u64;
            found.add_command(&command);
            on_command(&command, at).map_err(said)?;
        }
        if read == 0 && snapshot.is_none() {
            let at = commands.offset();
            return match commands.waiting() {
                0 => Ok(()),
                _ if !commands.begins_command() => Err(neither(at)),
                // The last command may be cut off: the server that wrote it was killed.
                _ if last => Ok(()),
                _ => Err(wrong(format!("at byte {at}: the file is truncated and is not the last part"))),
            };
        }
    }
}
