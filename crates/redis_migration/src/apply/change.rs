//! One change: which part of it travels, in which words the target is told, what is looked at before, and what is doubted instead.

use model::failure::Result;
use redis_proto::command;
use redis_proto::resp::Command;

use super::Apply;
use crate::claims;
use crate::functions::repeatable;
use crate::route::Routed;
use crate::tongue::{Said, unconditional};
use crate::watch::Look;

/// Where the words of a command name databases.
pub(super) fn database_places(name: &[u8], words: &[&[u8]]) -> Vec<usize> {
    match name {
        b"SWAPDB" => vec![1, 2],
        b"MOVE" => vec![2],
        _ => words
            .iter()
            .skip(3)
            .position(|w| w.eq_ignore_ascii_case(b"DB"))
            .map(|i| i + 4)
            .into_iter()
            .collect(),
    }
}

impl Apply {
    /// Commands that name another database, while databases have other numbers at the target.
    pub(super) fn across(
        &mut self,
        name: &[u8],
        command: &Command<'_>,
        out: &mut Vec<u8>,
        now_ms: i64,
    ) -> Result<()> {
        let words: Vec<&[u8]> = command.args().collect();
        let mut args: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
        let places = database_places(name, &words);
        let text = String::from_utf8_lossy(name).into_owned();
        if !places.is_empty() && (self.route.only_db.is_some() || self.route.has_filter()) {
            return Err(self.refused(&text, "it affects databases or keys that are not migrated"));
        }
        for i in &places {
            let to = args.get(*i).and_then(|n| self.route.db(std::str::from_utf8(n).ok()?.parse().ok()?));
            let to = to.ok_or_else(|| self.refused(&text, "it does not name a valid database"))?;
            args[*i] = to.to_string().into_bytes();
        }
        let Some(db) = self.travels else { return Ok(()) };
        let args = borrowed(&args);
        if self.tongue.as_ref().is_some_and(|tongue| tongue.say(name, &words) == Said::Not) {
            return self.doubt(name, &words, out);
        }
        if !self.look(name, &words, &args, db, out, now_ms) {
            self.write_args(db, &args, out);
        }
        if name == b"SWAPDB" {
            self.swapped(&args, &words, out);
        }
        Ok(())
    }

    /// Databases have changed places: what stands at the target about migrations stays in its database 0, and what is doubted
    /// goes with its database. `was`: the same command in the source's numbers.
    fn swapped(&mut self, args: &[&[u8]], was: &[&[u8]], out: &mut Vec<u8>) {
        let (Some((a, b)), Some(from)) = (number_pair(args), number_pair(was)) else { return };
        self.swapped = Some(from);
        if let Some(names) = self.names.clone().filter(|_| a != b && (a == 0 || b == 0)) {
            for key in [&names.doubted, &names.scripts, &names.owner, &claims::list()] {
                self.write_beside(a.max(b), &[b"MOVE", key, b"0"], out);
            }
            self.write_beside(a.max(b), &[b"DEL", &names.marker], out);
        }
        let words = self.watch.swap(from);
        self.write_beside(0, &borrowed(&words), out);
    }

    /// A change in words that the target understands; `raw` is how it came, if it goes on whole.
    fn say(
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
            return self.say(name, &words, None, db, out, now_ms);
        }
        match self.tongue.as_ref().map_or(Said::AsItIs, |tongue| tongue.say(name, args)) {
            Said::AsItIs => {
                if !self.look(name, args, args, db, out, now_ms) {
                    match raw {
                        Some(raw) => self.write(db, raw, out),
                        None => self.write_args(db, args, out),
                    }
                }
                Ok(())
            }
            Said::InWords(all) => {
                for words in all {
                    let words: Vec<&[u8]> = words.iter().map(|word| &**word).collect();
                    let name = words[0].to_ascii_uppercase();
                    if !self.look(&name, &words, &words, db, out, now_ms) {
                        self.write_args(db, &words, out);
                    }
                }
                Ok(())
            }
            Said::Nowhere => {
                let name = String::from_utf8_lossy(name);
                *self.left_out.entry(format!("{name} (not supported by the target)")).or_default() += 1;
                Ok(())
            }
            Said::Not => self.doubt(name, args, out),
        }
    }

    /// The same of a change whose keys belong to different slots of the target.
    pub(crate) fn doubt_across(&mut self, words: &[Vec<u8>], out: &mut Vec<u8>) -> Result<()> {
        let args = borrowed(words);
        let name = args.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        self.doubt(&name, &args, out)
    }

    /// A change that the target cannot make: the source is asked what became of its keys.
    pub(super) fn doubt(&mut self, name: &[u8], args: &[&[u8]], out: &mut Vec<u8>) -> Result<()> {
        let unknown = command::keys(args).is_none_or(|keys| keys.is_empty());
        if unknown || !self.live {
            return Err(
                self.refused(&String::from_utf8_lossy(name), "the target does not support this command")
            );
        }
        let words = self.watch.doubt_all(name, args, self.db, self.offset);
        self.write_beside(0, &borrowed(&words), out);
        Ok(())
    }

    /// The text of the script that an `EVALSHA` calls.
    fn text_of(&self, name: &[u8], args: &[&[u8]]) -> Result<Option<Vec<u8>>> {
        let Some(digest) = args.get(1).filter(|_| name == b"EVALSHA") else { return Ok(None) };
        match self.scripts.text(digest) {
            Some(text) => Ok(Some(text.to_vec())),
            // A file that does not say it is for a server that has it, as its loader would find.
            None if !self.live => Ok(None),
            None => {
                let m = format!("EVALSHA {}", String::from_utf8_lossy(digest));
                Err(self.refused(&m, "the text of the script is not known"))
            }
        }
    }

    /// Looks at the keys of a change before it, where they are watched; true when that does the change too.
    pub(super) fn look(
        &mut self,
        name: &[u8],
        args: &[&[u8]],
        told: &[&[u8]],
        db: u32,
        out: &mut Vec<u8>,
        now_ms: i64,
    ) -> bool {
        match self.watch.look(name, args, told, (self.db, db), now_ms) {
            Look::None => {}
            Look::Before(words) => self.write_beside(db, &borrowed(&words), out),
            Look::Doubted(words) => self.write_beside(0, &borrowed(&words), out),
            Look::Within(words) => {
                self.write_args(db, &borrowed(&words), out);
                return true;
            }
        }
        false
    }

    /// A command about libraries of functions. Carried out apart, it counts as applied when that is done ([`Apply::pass`]).
    pub(super) fn function(&mut self, command: &Command<'_>, out: &mut Vec<u8>) {
        if self.tongue.as_ref().is_some_and(|tongue| tongue.say(b"FUNCTION", &[]) != Said::AsItIs) {
            *self.left_out.entry("FUNCTION (the target has no such command)".into()).or_default() += 1;
            return;
        }
        let words: Vec<Vec<u8>> = command.args().map(<[u8]>::to_vec).collect();
        // The target may have it already, by the snapshot.
        let words = repeatable(&words);
        if self.functions_apart && !self.bare && !self.within {
            self.commands += 1;
            self.offset = self.offset.saturating_sub(command.raw.len() as u64);
            self.library = Some(words);
            return;
        }
        let db = self.travels.or(self.selected).unwrap_or(0);
        self.write_args(db, &borrowed(&words), out);
    }

    pub(super) fn data(
        &mut self,
        name: &[u8],
        command: &Command<'_>,
        db: u32,
        out: &mut Vec<u8>,
        now_ms: i64,
    ) -> Result<()> {
        let plain = name == b"SET" && command.arg(3).is_none();
        let looks = self.watch.is_on() || self.route.has_filter() || (self.tongue.is_some() && !plain);
        let looks = looks || matches!(name, b"SWAPDB" | b"EVALSHA") || (name == b"SET" && !plain);
        if !looks && name != b"FLUSHDB" {
            self.write(db, command.raw, out);
            return Ok(());
        }
        let mut args: Vec<&[u8]> = command.args().collect();
        let (text, mut raw, mut name) = (self.text_of(name, &args)?, Some(command.raw), name);
        if let Some(text) = &text {
            (args[0], args[1], raw, name) = (b"EVAL", text, None, b"EVAL");
        }
        match self.route.command(&args) {
            Routed::Whole => {}
            Routed::Dropped => return Ok(()),
            Routed::Part(places) => {
                let part: Vec<&[u8]> = places.iter().filter_map(|i| args.get(*i).copied()).collect();
                return self.say(name, &part, None, db, out, now_ms);
            }
            Routed::Mixed => {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(self.refused(&name, "the key filter excludes some of its keys"));
            }
        }
        if matches!(name, b"RESTORE" | b"RESTORE-ASKING") && self.tongue.is_some() {
            return self.restore(&args, db, out, now_ms);
        }
        if name == b"FLUSHDB" && self.route.has_filter() {
            return Err(self.refused("FLUSHDB", "the key filter excludes some of its keys"));
        }
        self.say(name, &args, raw, db, out, now_ms)?;
        if name == b"FLUSHDB" && db == 0 {
            self.keep_scripts(None, out);
        }
        if name == b"SWAPDB" {
            self.swapped(&args, &args, out);
        }
        Ok(())
    }
}

fn borrowed(words: &[Vec<u8>]) -> Vec<&[u8]> {
    words.iter().map(Vec::as_slice).collect()
}

/// The two numbers of `SWAPDB a b`.
fn number_pair(args: &[&[u8]]) -> Option<(u32, u32)> {
    let number = |i: usize| std::str::from_utf8(args.get(i)?).ok()?.parse::<u32>().ok();
    Some((number(1)?, number(2)?))
}
