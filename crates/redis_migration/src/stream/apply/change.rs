//! One change: which part of it is migrated, in which commands, what is checked before, and which keys are suspect instead.

use model::error::Result;
use redis_proto::command;
use redis_proto::resp::Command;

use super::Applier;
use crate::checkpoint::target_locks;
use crate::route::Routed;
use crate::stream::command_filter::db_arguments;
use crate::stream::expiry_guard::Verdict;
use crate::stream::translate::{Translation, unconditional};
use crate::target::functions::repeatable;

impl Applier {
    /// Commands that name another database, while databases have other numbers at the target.
    pub(super) fn map_databases(
        &mut self,
        name: &[u8],
        command: &Command<'_>,
        out: &mut Vec<u8>,
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
        let args = as_slices(&args);
        if self
            .translator
            .as_ref()
            .is_some_and(|translator| translator.translate(name, &words) == Translation::Impossible)
        {
            return self.suspect_keys(name, &words, out);
        }
        if !self.guard_expiry(name, &words, &args, db, out, now_ms) {
            self.write_args(db, &args, out);
        }
        if name == b"SWAPDB" {
            self.record_swap(&args, &words, out);
        }
        Ok(())
    }

    /// Databases have changed places: what stands at the target about migrations stays in its database 0, and a suspect key
    /// goes with its database. `in_source_numbers`: the same command in the source's numbers.
    fn record_swap(&mut self, args: &[&[u8]], in_source_numbers: &[&[u8]], out: &mut Vec<u8>) {
        let (Some((a, b)), Some(from)) = (swapdb_arguments(args), swapdb_arguments(in_source_numbers)) else {
            return;
        };
        self.swapped_dbs = Some(from);
        if let Some(names) = self.names.clone().filter(|_| a != b && (a == 0 || b == 0)) {
            for key in [&names.suspects, &names.scripts, &names.fencing_token, &target_locks::locks_key()] {
                self.append_internal(a.max(b), &[b"MOVE", key, b"0"], out);
            }
            self.append_internal(a.max(b), &[b"DEL", &names.checkpoint], out);
        }
        let words = self.expiry_guard.swap_dbs(from);
        self.append_internal(0, &as_slices(&words), out);
    }

    /// A change in words that the target understands; `raw` is how it came, if it goes on whole.
    fn write_translated(
        &mut self,
        name: &[u8],
        args: &[&[u8]],
        raw: Option<&[u8]>,
        db: u32,
        out: &mut Vec<u8>,
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
                if !self.guard_expiry(name, args, args, db, out, now_ms) {
                    match raw {
                        Some(raw) => self.write(db, raw, out),
                        None => self.write_args(db, args, out),
                    }
                }
                Ok(())
            }
            Translation::Commands(all) => {
                for words in all {
                    let words: Vec<&[u8]> = words.iter().map(|word| &**word).collect();
                    let name = words[0].to_ascii_uppercase();
                    if !self.guard_expiry(&name, &words, &words, db, out, now_ms) {
                        self.write_args(db, &words, out);
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

    /// The same of a change whose keys belong to different slots of the target.
    pub(crate) fn suspect_cross_slot(&mut self, words: &[Vec<u8>], out: &mut Vec<u8>) -> Result<()> {
        let args = as_slices(words);
        let name = args.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        self.suspect_keys(&name, &args, out)
    }

    /// A change that the target cannot make: the source is asked what became of its keys.
    pub(super) fn suspect_keys(&mut self, name: &[u8], args: &[&[u8]], out: &mut Vec<u8>) -> Result<()> {
        let unknown = command::keys(args).is_none_or(|keys| keys.is_empty());
        if unknown || !self.from_server {
            return Err(
                self.refused(&String::from_utf8_lossy(name), "the target does not support this command")
            );
        }
        let words = self.expiry_guard.suspect_all(name, args, self.db, self.offset);
        self.append_internal(0, &as_slices(&words), out);
        Ok(())
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

    /// Looks at the keys of a change before it, where they are watched; true when that does the change too.
    pub(super) fn guard_expiry(
        &mut self,
        name: &[u8],
        args: &[&[u8]],
        translated: &[&[u8]],
        db: u32,
        out: &mut Vec<u8>,
        now_ms: i64,
    ) -> bool {
        match self.expiry_guard.check(name, args, translated, (self.db, db), now_ms) {
            Verdict::Pass => {}
            Verdict::CheckFirst(words) => self.append_internal(db, &as_slices(&words), out),
            Verdict::Suspect(words) => self.append_internal(0, &as_slices(&words), out),
            Verdict::Wrap(words) => {
                self.write_args(db, &as_slices(&words), out);
                return true;
            }
        }
        false
    }

    /// A command about libraries of functions. Carried out apart, it counts as applied when that is done ([`Applier::skip_to`]).
    pub(super) fn function(&mut self, command: &Command<'_>, out: &mut Vec<u8>) {
        if self
            .translator
            .as_ref()
            .is_some_and(|translator| translator.translate(b"FUNCTION", &[]) != Translation::Unchanged)
        {
            *self.unsupported.entry("FUNCTION (the target has no such command)".into()).or_default() += 1;
            return;
        }
        let words: Vec<Vec<u8>> = command.args().map(<[u8]>::to_vec).collect();
        // The target may have it already, by the snapshot.
        let words = repeatable(&words);
        if self.separates_functions && !self.changes_only && !self.in_source_transaction {
            self.commands += 1;
            self.offset = self.offset.saturating_sub(command.raw.len() as u64);
            self.library = Some(words);
            return;
        }
        let db = self.target_db.or(self.selected).unwrap_or(0);
        self.write_args(db, &as_slices(&words), out);
    }

    pub(super) fn apply_data(
        &mut self,
        name: &[u8],
        command: &Command<'_>,
        db: u32,
        out: &mut Vec<u8>,
        now_ms: i64,
    ) -> Result<()> {
        let plain = name == b"SET" && command.arg(3).is_none();
        let needs_arguments =
            self.expiry_guard.is_active() || self.route.has_filter() || (self.translator.is_some() && !plain);
        let needs_arguments =
            needs_arguments || matches!(name, b"SWAPDB" | b"EVALSHA") || (name == b"SET" && !plain);
        if !needs_arguments && name != b"FLUSHDB" {
            self.write(db, command.raw, out);
            return Ok(());
        }
        let mut args: Vec<&[u8]> = command.args().collect();
        let (text, mut raw, mut name) = (self.script_text(name, &args)?, Some(command.raw), name);
        if let Some(text) = &text {
            (args[0], args[1], raw, name) = (b"EVAL", text, None, b"EVAL");
        }
        match self.route.route_command(&args) {
            Routed::Whole => {}
            Routed::Dropped => return Ok(()),
            Routed::Partial(places) => {
                let part: Vec<&[u8]> = places.iter().filter_map(|i| args.get(*i).copied()).collect();
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
        self.write_translated(name, &args, raw, db, out, now_ms)?;
        if name == b"FLUSHDB" && db == 0 {
            self.store_scripts(None, out);
        }
        if name == b"SWAPDB" {
            self.record_swap(&args, &args, out);
        }
        Ok(())
    }
}

fn as_slices(words: &[Vec<u8>]) -> Vec<&[u8]> {
    words.iter().map(Vec::as_slice).collect()
}

/// The two numbers of `SWAPDB a b`.
fn swapdb_arguments(args: &[&[u8]]) -> Option<(u32, u32)> {
    let number = |i: usize| std::str::from_utf8(args.get(i)?).ok()?.parse::<u32>().ok();
    Some((number(1)?, number(2)?))
}
