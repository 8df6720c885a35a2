//! Pure: whether two selections of one source may write the same keys of a target, whatever words they were given in.

use std::collections::{BTreeMap, BTreeSet};

use super::Route;

/// What cannot be a literal part of a glob.
const SPECIAL: [u8; 4] = [b'*', b'?', b'[', b'\\'];

impl Route {
    /// True unless it is certain that no key of the source is written to the same place by both.
    pub(crate) fn may_overlap(&self, other: &Self) -> bool {
        self.shares_database(other) && self.may_share_key(other) && other.may_share_key(self)
    }

    /// A database of the source becomes the same database of the target in both.
    fn shares_database(&self, other: &Self) -> bool {
        let numbers = |route: &Self| -> BTreeSet<u32> {
            let mapped = route.db_map.iter().flat_map(|(from, to)| [*from, *to]);
            mapped.chain(route.only_db).chain(route.all_into).collect()
        };
        let mut dbs = numbers(self);
        dbs.extend(numbers(other));
        // Databases that neither names are alike.
        let unnamed = (0..).find(|db| !dbs.contains(db));
        dbs.extend(unnamed);
        dbs.into_iter().any(|db| self.db(db).is_some_and(|to| other.db(db) == Some(to)))
    }

    /// False when nothing that this selects is selected by the other.
    fn may_share_key(&self, other: &Self) -> bool {
        let may_match_both = |a: &String, b: &String| {
            let (a, b) = (literal_prefix(a), literal_prefix(b));
            a.starts_with(b) || b.starts_with(a)
        };
        // Without a list, all keys are included.
        let selected = |glob: &String| {
            let included = other.include.is_empty() || other.include.iter().any(|o| may_match_both(glob, o));
            included && !other.exclude.contains(glob) && !self.exclude.contains(glob)
        };
        self.include.is_empty() || self.include.iter().any(selected)
    }

    /// The selection for a lock at a target; nothing for all keys.
    pub(crate) fn encode(&self) -> String {
        let hex = |all: &[String]| -> Vec<String> {
            all.iter().map(|glob| storage::checksum::hex(glob.as_bytes())).collect()
        };
        let map = self.db_map.iter().map(|(from, to)| format!("{from}:{to}"));
        let lists = [
            ("only", self.only_db.iter().map(u32::to_string).collect()),
            ("all", self.all_into.iter().map(u32::to_string).collect()),
            ("map", map.collect()),
            ("include", hex(&self.include)),
            ("exclude", hex(&self.exclude)),
        ];
        let words = lists.iter().filter(|(_, values): &&(&str, Vec<String>)| !values.is_empty());
        words.map(|(name, values)| format!("{name}={}", values.join(","))).collect::<Vec<_>>().join(" ")
    }

    /// The same, read back; none for what another version wrote.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut route = Self::default();
        let globs = |values: &str| values.split(',').map(decode_glob).collect::<Option<Vec<_>>>();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            match word.split_once('=')? {
                ("only", db) => route.only_db = Some(db.parse().ok()?),
                ("all", db) => route.all_into = Some(db.parse().ok()?),
                ("map", pairs) => route.db_map = decode_map(pairs)?,
                ("include", values) => route.include = globs(values)?,
                ("exclude", values) => route.exclude = globs(values)?,
                _ => return None,
            }
        }
        Some(route)
    }
}

fn decode_map(pairs: &str) -> Option<BTreeMap<u32, u32>> {
    let pair = |pair: &str| {
        let (from, to) = pair.split_once(':')?;
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    pairs.split(',').map(pair).collect()
}

fn decode_glob(hex: &str) -> Option<String> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    String::from_utf8(hex.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>()?).ok()
}

/// What every key that a glob matches begins with.
fn literal_prefix(glob: &str) -> &[u8] {
    let end = glob.bytes().position(|byte| SPECIAL.contains(&byte)).unwrap_or(glob.len());
    &glob.as_bytes()[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `SRC DST MAP +INCLUDE -EXCLUDE`, as far as given.
    fn route(words: &str) -> Route {
        let mut route = Route::default();
        for word in words.split(' ').filter(|word| !word.is_empty()) {
            match (word.split_at(1), word.parse()) {
                (("+", glob), _) if !glob.is_empty() => route.include.push(glob.into()),
                (("-", glob), _) => route.exclude.push(glob.into()),
                (_, Ok(db)) => route.only_db = Some(db),
                _ => route.db_map = Route::parse_map(word).unwrap(),
            }
        }
        route
    }

    #[test]
    fn selections_overlap_unless_that_is_excluded() {
        for (a, b, overlap) in [
            ("", "", true),
            ("", "0", true),
            ("", "0=0", true),
            ("", "0 0=7", false),
            ("0", "3", false),
            ("0 0=7", "3 3=7", false),
            ("0 0=7", "0=7", true),
            ("", "+*", true),
            ("", "-x", true),
            ("", "+l*", true),
            ("+a* +b*", "+b* +a*", true),
            ("+a*", "+b*", false),
            ("+user:*", "+user:1:*", true),
            ("+[ab]*", "+c*", true),
            ("+a*", "-a*", false),
            ("+a* +b*", "-a*", true),
        ] {
            let (one, other) = (route(a), route(b));
            assert_eq!((one.may_overlap(&other), other.may_overlap(&one)), (overlap, overlap), "{a} / {b}");
        }
        let all_into = Route { all_into: Some(2), ..Route::default() };
        assert!(all_into.may_overlap(&route("2")) && !all_into.may_overlap(&route("3")));
    }

    #[test]
    fn selections_round_trip() {
        for words in ["", "3 3=4 +a* +\u{e9}\\[x -b", "5=6,7=8"] {
            let one = Route { all_into: Some(1), ..route(words) };
            for one in [one, route(words)] {
                assert_eq!(Route::decode(&one.encode()), Some(one));
            }
        }
        for wrong in ["only=x", "new=1", "include=zz"] {
            assert_eq!(Route::decode(wrong), None, "{wrong}");
        }
    }
}
