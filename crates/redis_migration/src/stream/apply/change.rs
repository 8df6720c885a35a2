//! One change: which part of it is migrated, in which commands, what is checked before, and which keys are suspect instead.

use model::error::{Error, Kind, Result, Side};
use redis_proto::command;
use redis_proto::resp::Command;

use super::{Applier, upper_case};
use crate::checkpoint::target_locks;
use crate::import::expiry::hold_back;
use crate::operation::{CommandForm, Encoder, Operation, ServerCommand};
use crate::route::{Route, Routed};
use crate::stream::command_filter::db_arguments;
use crate::stream::existing_keys::{ExistingKeys, ExistingVerdict};
use crate::stream::expiry_guard::{SuspectList, Verdict, other_db_key};
use crate::stream::translate::{Translation, unconditional};
use crate::target::functions::LibraryCommand;

impl Applier {
    /// Commands that name another database, while databases have other numbers at the target.
    pub(super) fn map_databases(
        &mut self,
        name: &[u8],
        command: &Command<'_>,
        out: &mut dyn Encoder,
        now_ms: i64,
    ) -> Result<()> {
        let words: Vec<&[u8]> = command.args().collect();
        let mut args: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
        let places = db_arguments(name, &words);
        let text = String::from_utf8_lossy(name).into_owned();
        if !places.is_empty() && (self.route.only_db.is_some() || self.route.has_filter()) {
            return Err(self.refused(&text, "it affects databases or keys that are not migrated"));
        }
        for i in &places {
            let to = args.get(*i).and_then(|n| self.route.db(std::str::from_utf8(n).ok()?.parse().ok()?));
            let to = to.ok_or_else(|| self.refused(&text, "it does not name a valid database"))?;
            args[*i] = to.to_string().into_bytes();
        }
        let Some(db) = self.target_db else { return Ok(()) };
        if name == b"SWAPDB" {
            self.require_no_protected_keys("SWAPDB")?;
        } else if self.is_existing_kept(name, &words, db, out, now_ms)? {
            return Ok(());
        }
        let args = as_slices(&args);
        if self
            .translator
            .as_ref()
            .is_some_and(|translator| translator.translate(name, &words) == Translation::Impossible)
        {
            return self.suspect_keys(name, &words, out);
        }
        if !self.guard_expiry(name, &words, &args, db, out, now_ms)? {
            self.write(db, name, CommandForm::Built(&args), out)?;
        }
        match name {
            b"SWAPDB" => self.record_swap(&args, &words, out),
            _ => Ok(()),
        }
    }

    /// Databases have changed places: what stands at the target about migrations stays in its database 0, and a suspect key
    /// goes with its database. `in_source_numbers`: the same command in the source's numbers.
    fn record_swap(
        &mut self,
        args: &[&[u8]],
        in_source_numbers: &[&[u8]],
        out: &mut dyn Encoder,
    ) -> Result<()> {
        let (Some((a, b)), Some(from)) = (swapdb_arguments(args), swapdb_arguments(in_source_numbers)) else {
            return Ok(());
        };
        self.swapped_dbs = Some(from);
        if let Some(names) = self.names.as_ref().filter(|_| a != b && (a == 0 || b == 0)) {
            let db = a.max(b);
            for key in [
                &names.suspects,
                &names.scripts,
                &names.fencing_token,
                &names.existing,
                &names.failed,
                &target_locks::locks_key(),
            ] {
                out.push(Operation::Internal { db, key, args: &[b"MOVE", key, b"0"] })?;
            }
            let key = &names.checkpoint;
            out.push(Operation::Internal { db, key, args: &[b"DEL", key] })?;
        }
        if let Some(set) = self.existing.forget() {
            out.push(Operation::Internal { db: 0, key: &set, args: &[b"DEL", &set] })?;
        }
        match self.expiry_guard.swap_dbs(from) {
            true => out.push(Operation::SwapSuspects(from.0, from.1)),
            false => Ok(()),
        }
    }

    /// Passes a command on.
    pub(super) fn write(
        &mut self,
        db: u32,
        name: &[u8],
        command: CommandForm<'_>,
        out: &mut dyn Encoder,
    ) -> Result<()> {
        self.commands += 1;
        out.push(match name {
            b"FLUSHDB" => Operation::Server { db: Some(db), command: ServerCommand::Flush(command) },
            b"SCRIPT" => Operation::Server { db: Some(db), command: ServerCommand::Scripts(command) },
            _ => Operation::Data { db, name, command },
        })
    }

    /// A change in commands that the target supports; `received` is the whole command, if that is passed on.
    fn write_translated(
        &mut self,
        name: &[u8],
        args: &[&[u8]],
        received: Option<Command<'_>>,
        db: u32,
        out: &mut dyn Encoder,
        now_ms: i64,
    ) -> Result<()> {
        let words = if name == b"SET" { unconditional(args) } else { None };
        if let Some(words) = words {
            let words: Vec<&[u8]> = words.iter().map(|word| &**word).collect();
            return self.write_translated(name, &words, None, db, out, now_ms);
        }
        match self
            .translator
            .as_ref()
            .map_or(Translation::Unchanged, |translator| translator.translate(name, args))
        {
            Translation::Unchanged => {
                if self.guard_expiry(name, args, args, db, out, now_ms)? {
                    return Ok(());
                }
                if let (b"SET", [_, key, value]) = (name, args) {
                    return self.write_set(db, key, value, out);
                }
                self.write(db, name, received.map_or(CommandForm::Built(args), CommandForm::Received), out)
            }
            Translation::Commands(all) => {
                for words in all {
                    let words: Vec<&[u8]> = words.iter().map(|word| &**word).collect();
                    let name = words[0].to_ascii_uppercase();
                    if !self.guard_expiry(&name, &words, &words, db, out, now_ms)? {
                        self.write(db, &name, CommandForm::Built(&words), out)?;
                    }
                }
                Ok(())
            }
            Translation::Dropped => {
                let name = String::from_utf8_lossy(name);
                *self.unsupported.entry(format!("{name} (not supported by the target)")).or_default() += 1;
                Ok(())
            }
            Translation::Impossible => self.suspect_keys(name, args, out),
        }
    }

    /// The keys of a change that belong to different slots of the target become suspect.
    pub(crate) fn suspect_cross_slot(&mut self, words: &[Vec<u8>], out: &mut dyn Encoder) -> Result<()> {
        let (args, mut upper) = (as_slices(words), [0; 16]);
        let name = upper_case(args.first().copied().unwrap_or_default(), &mut upper);
        self.suspect_keys(name, &args, out)
    }

    /// A change that the target cannot make: the source is asked what became of its keys.
    pub(super) fn suspect_keys(&mut self, name: &[u8], args: &[&[u8]], out: &mut dyn Encoder) -> Result<()> {
        let unknown = command::keys(args).is_none_or(|keys| keys.is_empty());
        if unknown || !self.from_server {
            return Err(
                self.refused(&String::from_utf8_lossy(name), "the target does not support this command")
            );
        }
        list_suspects(&self.expiry_guard.suspect_all(name, args, self.db, self.offset), out)
    }

    /// The text of the script that an `EVALSHA` calls.
    fn script_text(&self, name: &[u8], args: &[&[u8]]) -> Result<Option<Vec<u8>>> {
        let Some(digest) = args.get(1).filter(|_| name == b"EVALSHA") else { return Ok(None) };
        match self.scripts.text(digest) {
            Some(text) => Ok(Some(text.to_vec())),
            // A file that does not say it is for a server that has it, as its loader would find.
            None if !self.from_server => Ok(None),
            None => {
                let m = format!("EVALSHA {}", String::from_utf8_lossy(digest));
                Err(self.refused(&m, "the text of the script is not known"))
            }
        }
    }

    /// Checks the keys of a change before it, where that is needed; true when the check makes the change too, or it
    /// is not made.
    pub(super) fn guard_expiry(
        &mut self,
        name: &[u8],
        args: &[&[u8]],
        translated: &[&[u8]],
        db: u32,
        out: &mut dyn Encoder,
        now_ms: i64,
    ) -> Result<bool> {
        match self.expiry_guard.check(name, args, self.db, now_ms) {
            Verdict::Pass => {}
            Verdict::CheckFirst(check) => out.push(Operation::Check { db, check: &check })?,
            Verdict::Suspect(list) => list_suspects(&list, out)?,
            Verdict::Wrap(check) => {
                self.commands += 1;
                out.push(Operation::CheckedChange { db, check: &check, change: translated })?;
                return Ok(true);
            }
            Verdict::Refetch => {
                self.suspect_keys(name, args, out)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A command about libraries of functions.
    pub(super) fn function(&mut self, command: &Command<'_>, out: &mut dyn Encoder) -> Result<()> {
        if self
            .translator
            .as_ref()
            .is_some_and(|translator| translator.translate(b"FUNCTION", &[]) != Translation::Unchanged)
        {
            *self.unsupported.entry("FUNCTION (the target has no such command)".into()).or_default() += 1;
            return Ok(());
        }
        let library = LibraryCommand::parse(&command.args().collect::<Vec<_>>());
        self.commands += 1;
        out.push(Operation::Server { db: self.target_db, command: ServerCommand::Libraries(&library) })
    }

    fn write_set(&mut self, db: u32, key: &[u8], value: &[u8], out: &mut dyn Encoder) -> Result<()> {
        self.commands += 1;
        out.push(Operation::Set { db, key, value })
    }

    pub(super) fn apply_data(
        &mut self,
        name: &[u8],
        command: &Command<'_>,
        db: u32,
        out: &mut dyn Encoder,
        now_ms: i64,
    ) -> Result<()> {
        let plain = name == b"SET" && command.len() == 3;
        if !self.needs_arguments(name, plain) {
            return match (command.arg(1), command.arg(2)) {
                (Some(key), Some(value)) if plain => self.write_set(db, key, value, out),
                _ => self.write(db, name, CommandForm::Received(*command), out),
            };
        }
        let mut args: Vec<&[u8]> = command.args().collect();
        let held = if self.holds_expiries { hold_back(name, &args) } else { None };
        if let Some(held) = &held {
            args = as_slices(held);
        }
        if let (b"MSETEX", Some(sets)) = (name, as_sets(&args)) {
            return self.write_sets(&sets, db, out, now_ms);
        }
        let (text, mut received, mut name) =
            (self.script_text(name, &args)?, held.is_none().then_some(*command), name);
        if let Some(text) = &text {
            (args[0], args[1], received, name) = (b"EVAL", text, None, b"EVAL");
        }
        if matches!(name, b"FLUSHDB" | b"SWAPDB") {
            self.require_no_protected_keys(&String::from_utf8_lossy(name))?;
        }
        match self.route.route_command(&args) {
            Routed::Whole if self.is_existing_kept(name, &args, db, out, now_ms)? => return Ok(()),
            Routed::Whole => {}
            Routed::Dropped => return Ok(()),
            Routed::Partial(places) => {
                let part: Vec<&[u8]> = places.iter().filter_map(|i| args.get(*i).copied()).collect();
                if self.is_existing_kept(name, &part, db, out, now_ms)? {
                    return Ok(());
                }
                return self.write_translated(name, &part, None, db, out, now_ms);
            }
            Routed::Mixed => {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(self.refused(&name, "the key filter excludes some of its keys"));
            }
        }
        if matches!(name, b"RESTORE" | b"RESTORE-ASKING") && self.translator.is_some() {
            return self.restore(&args, db, out, now_ms);
        }
        if name == b"FLUSHDB" && self.route.has_filter() {
            return Err(self.refused("FLUSHDB", "the key filter excludes some of its keys"));
        }
        self.write_translated(name, &args, received, db, out, now_ms)?;
        match name {
            b"FLUSHDB" if db == 0 => self.store_scripts(None, out),
            b"SWAPDB" => self.record_swap(&args, &args, out),
            _ => Ok(()),
        }
    }
}

impl Applier {
    /// A change is looked at before it is passed on; `plain`: it is a `SET` without options.
    fn needs_arguments(&self, name: &[u8], plain: bool) -> bool {
        self.expiry_guard.is_active()
            || self.route.has_filter()
            || self.holds_expiries
            || !self.existing.is_empty()
            || (self.translator.is_some() && !plain)
            || matches!(name, b"SWAPDB" | b"EVALSHA" | b"MSETEX" | b"FLUSHDB")
            || (name == b"SET" && !plain)
    }

    /// The `SET`s that one command stands for.
    fn write_sets(&mut self, sets: &[Vec<&[u8]>], db: u32, out: &mut dyn Encoder, now_ms: i64) -> Result<()> {
        for set in sets {
            if self.route.includes(set[1]) && !self.is_existing_kept(b"SET", set, db, out, now_ms)? {
                self.write_translated(b"SET", set, None, db, out, now_ms)?;
            }
        }
        Ok(())
    }

    /// Does what a change needs whose keys existed at the target; true when it is not applied as a whole.
    fn is_existing_kept(
        &mut self,
        name: &[u8],
        args: &[&[u8]],
        db: u32,
        out: &mut dyn Encoder,
        now_ms: i64,
    ) -> Result<bool> {
        if self.existing.is_empty() {
            return Ok(false);
        }
        if let Some((to, key)) = other_db_key(name, args)
            && let Some(to) = self.route.db(to)
            && self.existing.take(to, &key)
        {
            self.delete_existing(&[&key], to, out)?;
        }
        match self.existing.check(name, args, db) {
            ExistingVerdict::Pass => {}
            ExistingVerdict::Delete(keys) => self.delete_existing(&keys, db, out)?,
            ExistingVerdict::Fail(key) => {
                let m = format!("key `{}` already exists at the target", String::from_utf8_lossy(key));
                return Err(Error::new(Kind::Conflict, "restore", m).at(Side::Target));
            }
        }
        match Route::divide(args, |key| !self.existing.is_protected(db, key)) {
            Routed::Whole => return Ok(false),
            Routed::Dropped => {}
            Routed::Partial(places) => {
                let part: Vec<&[u8]> = places.iter().filter_map(|i| args.get(*i).copied()).collect();
                self.write_translated(name, &part, None, db, out, now_ms)?;
            }
            Routed::Mixed => {
                let name = String::from_utf8_lossy(name);
                *self.unsupported.entry(format!("{name} of keys that existed at the target")).or_default() +=
                    1;
            }
        }
        self.skipped_changes += 1;
        Ok(true)
    }

    /// The source has no such keys before this change.
    fn delete_existing(&mut self, keys: &[&[u8]], db: u32, out: &mut dyn Encoder) -> Result<()> {
        for key in keys {
            let command = CommandForm::Built(&[b"DEL", key]);
            out.push(Operation::Data { db, name: b"DEL", command })?;
            if let Some(set) = self.existing.set() {
                let args: [&[u8]; 3] = [b"SREM", set, &ExistingKeys::member(db, key)];
                out.push(Operation::Internal { db: 0, key: set, args: &args })?;
            }
        }
        Ok(())
    }
}

/// Lists keys as suspect at the target, where any are to be listed there.
fn list_suspects(list: &SuspectList, out: &mut dyn Encoder) -> Result<()> {
    match list.key_refs.is_empty() {
        true => Ok(()),
        false => {
            let (key_refs, always_refetch) = (&list.key_refs[..], list.always_refetch);
            out.push(Operation::Suspect { key_refs, always_refetch })
        }
    }
}

/// `MSETEX n key value … option …` as one `SET` for each key, which has its own slot and may be excluded alone. The source has
/// found its condition met.
fn as_sets<'a>(args: &[&'a [u8]]) -> Option<Vec<Vec<&'a [u8]>>> {
    let keys = command::keys(args)?;
    let options = args.get(2 + 2 * keys.len()..)?;
    let set = |(i, key): &(usize, &'a [u8])| {
        let words: [&'a [u8]; 3] = [b"SET", key, args.get(i + 1)?];
        Some(words.iter().chain(options).copied().collect())
    };
    keys.iter().map(set).collect()
}

fn as_slices(words: &[Vec<u8>]) -> Vec<&[u8]> {
    words.iter().map(Vec::as_slice).collect()
}

/// The two numbers of `SWAPDB a b`.
fn swapdb_arguments(args: &[&[u8]]) -> Option<(u32, u32)> {
    let number = |i: usize| std::str::from_utf8(args.get(i)?).ok()?.parse::<u32>().ok();
    Some((number(1)?, number(2)?))
}
