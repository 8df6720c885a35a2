//! Which keys are migrated, and to which database.
//!
//! Globs are those of the servers' `KEYS` command, which no crate has: `globset` reads `{a,b}` as alternatives, refuses an
//! unclosed `[`, and knows folders. Measured with 200,000 keys of 25 bytes, per key, one core: `user:*` 30 ns (`regex`
//! 61 ns), `user:1*:session:*` 13 ns (17 ns), `*session*f` 74 ns (62 ns). The time is at most the product of both
//! lengths: 5 µs for `*a` 200 times against 1,000 `a`.

mod overlap;

use std::collections::{BTreeMap, BTreeSet};

use model::error::{Error, Kind, Result};
use redis_proto::command;

/// What is migrated, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Only this database of the source; none: all.
    pub only_db: Option<u32>,
    /// Databases that get another number at the target.
    pub db_map: BTreeMap<u32, u32>,
    /// All databases become this one; of equal keys the one that comes last stays.
    pub all_into: Option<u32>,
    /// Globs of keys to keep; empty: all.
    pub include: Vec<String>,
    /// Globs of keys to exclude.
    pub exclude: Vec<String>,
}

/// What becomes of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routed {
    /// It is passed on as it is.
    Whole,
    /// None of its keys are migrated.
    Dropped,
    /// Only these arguments go on.
    Partial(Vec<usize>),
    /// Some of its keys are migrated and others are not, and it cannot be divided.
    Mixed,
}

impl Route {
    /// The text that identities are hashed from. Checkpoints and locks that stand at targets are found by it, so it never
    /// changes, whatever its fields are called: it is what `Debug` said when it was fixed.
    pub fn identity(&self) -> String {
        let Self { only_db, db_map, all_into, include, exclude } = self;
        let number = |n: &Option<u32>| n.map_or("None".to_owned(), |n| format!("Some({n})"));
        let globs = |all: &[String]| all.iter().map(|g| format!("{g:?}")).collect::<Vec<_>>().join(", ");
        let map: Vec<String> = db_map.iter().map(|(from, to)| format!("{from}: {to}")).collect();
        format!(
            "Route {{ only_db: {}, db_map: {{{}}}, all_into: {}, include: [{}], exclude: [{}] }}",
            number(only_db),
            map.join(", "),
            number(all_into),
            globs(include),
            globs(exclude)
        )
    }

    /// Reads `5=6,7=8`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming the pair that is none, or that stands twice.
    pub fn parse_map(text: &str) -> Result<BTreeMap<u32, u32>> {
        let mut out = BTreeMap::new();
        for pair in text.split(',').filter(|p| !p.trim().is_empty()) {
            let wrong = |why: &str| Error::new(Kind::Invalid, "usage", format!("--db-map: `{pair}` {why}"));
            let (from, to) = pair.split_once('=').ok_or_else(|| wrong("is not FROM=TO"))?;
            let number =
                |n: &str| n.trim().parse().map_err(|_| wrong("is not FROM=TO with database numbers"));
            if out.insert(number(from)?, number(to)?).is_some() {
                return Err(wrong("maps a database twice"));
            }
        }
        Ok(out)
    }

    /// Two databases that would become one are a mistake: the later key would replace the earlier.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming the database that two of `dbs` would become.
    pub fn check(&self, dbs: &[u32]) -> Result<()> {
        if self.all_into.is_some() {
            return Ok(());
        }
        let mut seen = BTreeMap::new();
        for (from, to) in dbs.iter().filter_map(|db| Some((*db, self.db(*db)?))) {
            if let Some(other) = seen.insert(to, from) {
                let m = format!(
                    "databases {other} and {from} would both become {to}; hint: map each to its own number with \
                     --db-map"
                );
                return Err(Error::new(Kind::Invalid, "usage", m));
            }
        }
        Ok(())
    }

    /// The target's number of a database; none when it is not migrated.
    pub fn db(&self, from: u32) -> Option<u32> {
        let is_migrated = self.only_db.is_none_or(|only| only == from);
        is_migrated.then(|| self.all_into.or(self.db_map.get(&from).copied()).unwrap_or(from))
    }

    /// Databases of the target that a copy of these databases writes, and those that the mapping names: a typing error
    /// is said before anything is written.
    pub fn targets(&self, from: &[u32]) -> BTreeSet<u32> {
        let from = from.iter().copied().chain(self.only_db).chain(self.db_map.keys().copied());
        from.filter_map(|db| self.db(db)).chain(self.all_into).collect()
    }

    /// True when all databases are migrated, each with its own number.
    pub fn keeps_dbs(&self) -> bool {
        self.only_db.is_none() && self.all_into.is_none() && self.db_map.iter().all(|(from, to)| from == to)
    }

    /// True when keys are filtered.
    pub fn has_filter(&self) -> bool {
        !self.include.is_empty() || !self.exclude.is_empty()
    }

    /// Whether a key is migrated.
    pub fn includes(&self, key: &[u8]) -> bool {
        let any = |globs: &[String]| globs.iter().any(|g| glob_matches(g.as_bytes(), key));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// A database of the target may be written.
    pub(crate) fn may_write(&self, to: u32) -> bool {
        match self.all_into.or(self.only_db.and_then(|only| self.db(only))) {
            Some(db) => db == to,
            None => true,
        }
    }

    /// What becomes of a command whose database is migrated.
    pub fn route_command(&self, args: &[&[u8]]) -> Routed {
        if !self.has_filter() {
            return Routed::Whole;
        }
        Self::divide(args, |key| self.includes(key))
    }

    /// What becomes of a command of whose keys only some may be changed.
    pub(crate) fn divide(args: &[&[u8]], is_kept: impl Fn(&[u8]) -> bool) -> Routed {
        let Some(keys) = command::keys(args) else { return Routed::Whole };
        let kept = keys.iter().filter(|(_, key)| is_kept(key)).count();
        if kept == keys.len() {
            return Routed::Whole;
        }
        if kept == 0 {
            return Routed::Dropped;
        }
        let name = args[0].to_ascii_uppercase();
        let behind = match &name[..] {
            b"DEL" | b"UNLINK" => 1,
            b"MSET" => 2,
            _ => return Routed::Mixed,
        };
        let kept = keys.iter().filter(|(_, key)| is_kept(key));
        Routed::Partial(std::iter::once(0).chain(kept.flat_map(|(i, _)| *i..*i + behind)).collect())
    }
}

/// Globs as the servers' `KEYS` has them: `*`, `?`, `[a-c]`, `[^x]`, `\` before what is meant literally.
pub fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    // Where the last `*` stood, and how much it has taken.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if t == text.len() {
            return glob[g..].iter().all(|b| *b == b'*');
        }
        let here = match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
                continue;
            }
            Some(_) => match_one(&glob[g..], text[t]),
            None => None,
        };
        match (here, star) {
            (Some(used), _) => {
                g += used;
                t += 1;
            }
            (None, Some((at, taken))) => {
                (g, t) = (at + 1, taken + 1);
                star = Some((at, taken + 1));
            }
            (None, None) => return false,
        }
    }
}

/// Length of the glob's first part when it fits `byte`.
fn match_one(glob: &[u8], byte: u8) -> Option<usize> {
    match glob {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', rest @ ..] => {
            let end = rest.iter().skip(1).position(|b| *b == b']')? + 1;
            let (inside, negated) = match &rest[..end] {
                [b'^', inside @ ..] => (inside, true),
                inside => (inside, false),
            };
            let mut found = false;
            let mut i = 0;
            while i < inside.len() {
                match &inside[i..] {
                    [from, b'-', to, ..] => {
                        found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                        i += 3;
                    }
                    [b, ..] => {
                        found |= *b == byte;
                        i += 1;
                    }
                    [] => break,
                }
            }
            (found != negated).then_some(end + 2)
        }
        [b, ..] => (*b == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_globs_match_like_the_keys_command() {
        for (glob, text, want) in [
            ("*", "", true),
            ("user:*", "user:a/b", true),
            ("user:*:name", "user:1:2:name", true),
            ("user:?", "user:12", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("[a-c]x", "bx", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("[abc", "a", false),
            ("**a**b", "xaxxb", true),
        ] {
            assert_eq!(glob_matches(glob.as_bytes(), text.as_bytes()), want, "{glob} {text}");
        }
    }

    #[test]
    fn route_maps_databases_and_filters_keys() {
        let route = Route {
            db_map: Route::parse_map("5=6, 0=0").unwrap(),
            include: vec!["a*".into()],
            exclude: vec!["ab*".into()],
            ..Route::default()
        };
        assert_eq!((route.db(5), route.db(1), route.keeps_dbs()), (Some(6), Some(1), false));
        assert!(route.check(&[5, 6]).is_err() && route.check(&[0, 5]).is_ok());
        let of = |line: &str| route.route_command(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        assert_eq!(of("SET aa 1"), Routed::Whole);
        assert_eq!(of("SET ab 1"), Routed::Dropped);
        assert_eq!(of("MSET b 1 aa 2 ac 3"), Routed::Partial(vec![0, 3, 4, 5, 6]));
        assert_eq!(of("DEL b aa"), Routed::Partial(vec![0, 2]));
        assert_eq!(of("RENAME b aa"), Routed::Mixed);
        for wrong in ["5", "5=x", "1=2,1=3"] {
            assert!(Route::parse_map(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn route_identity_is_stable() {
        assert_eq!(
            Route::default().identity(),
            "Route { only_db: None, db_map: {}, all_into: None, include: [], exclude: [] }"
        );
        let all = Route {
            only_db: Some(3),
            db_map: BTreeMap::from([(5, 6), (0, 1)]),
            all_into: Some(2),
            include: vec!["a*".into(), "\"q\\\n\u{e9}".into()],
            exclude: vec!["x".into()],
        };
        let fixed = r#"Route { only_db: Some(3), db_map: {0: 1, 5: 6}, all_into: Some(2), include: ["a*", "\"q\\\né"], exclude: ["x"] }"#;
        assert_eq!(all.identity(), fixed);
    }
}
