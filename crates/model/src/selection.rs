//! What a task selects, as a set of disjoint scopes of the source's key space.

use serde::{Deserialize, Serialize};

/// The selection as the client wrote it (OMS §4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "entries")]
pub enum Selection {
    /// Entries ending in `/` are folders, all others exactly one key; `[""]` is the whole bucket.
    Object(Vec<String>),
    /// Plain string prefixes; `[""]` is the whole bucket.
    Prefix(Vec<String>),
    /// Exactly these keys, each of which must be there.
    Keys(Vec<String>),
    /// The keys that a list file names.
    List(ListFile),
    /// The URLs that a list file names, and the keys that they are to have.
    UrlList(ListFile),
}

/// A list file: it lies in a bucket of the destination's store, and is read with its credentials (OMS §2.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListFile {
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
}

/// One piece of the key space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Every key that begins with this.
    Prefix(String),
    /// Exactly this key.
    Key(String),
}

impl Scope {
    /// The prefix to list with.
    pub fn prefix(&self) -> &str {
        match self {
            Scope::Prefix(p) | Scope::Key(p) => p,
        }
    }
}

impl Selection {
    /// The entries as the client wrote them.
    pub fn entries(&self) -> &[String] {
        match self {
            Selection::Object(e) | Selection::Prefix(e) | Selection::Keys(e) => e,
            Selection::List(_) | Selection::UrlList(_) => &[],
        }
    }

    /// True when every key is named: one that is missing is a failure.
    pub fn names_keys(&self) -> bool {
        matches!(self, Selection::Keys(_) | Selection::List(_) | Selection::UrlList(_))
    }

    /// The list file, where there is one.
    pub fn list_file(&self) -> Option<&ListFile> {
        match self {
            Selection::List(file) | Selection::UrlList(file) => Some(file),
            Selection::Object(_) | Selection::Prefix(_) | Selection::Keys(_) => None,
        }
    }

    /// Disjoint scopes that select every wanted key exactly once, in byte order.
    pub fn scopes(&self) -> Vec<Scope> {
        if self.names_keys() {
            // The list is the key space.
            return vec![Scope::Prefix(String::new())];
        }
        let is_prefix = |e: &str| match self {
            Selection::Prefix(_) => true,
            _ => e.is_empty() || e.ends_with('/'),
        };
        let mut sorted: Vec<&str> = self.entries().iter().map(String::as_str).collect();
        // A prefix sorts before every key that it covers, so one pass finds what is covered already.
        sorted.sort_by(|a, b| a.cmp(b).then(is_prefix(b).cmp(&is_prefix(a))));
        sorted.dedup();
        let mut scopes: Vec<Scope> = Vec::new();
        let mut covering: Option<&str> = None;
        for entry in sorted {
            if covering.is_some_and(|c| entry.starts_with(c)) {
                continue;
            }
            if is_prefix(entry) {
                covering = Some(entry);
                scopes.push(Scope::Prefix(entry.into()));
            } else {
                scopes.push(Scope::Key(entry.into()));
            }
        }
        scopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(entries: &[&str]) -> Vec<Scope> {
        Selection::Object(entries.iter().map(|s| s.to_string()).collect()).scopes()
    }

    #[test]
    fn overlapping_entries_select_each_key_once() {
        assert_eq!(object(&["a/b", "a/", "a/c/", "z"]), [Scope::Prefix("a/".into()), Scope::Key("z".into())]);
        assert_eq!(object(&["a", "a"]), [Scope::Key("a".into())]);
        assert_eq!(object(&["", "x"]), [Scope::Prefix("".into())]);
        let prefixes = Selection::Prefix(vec!["log".into(), "logs/".into(), "b".into()]);
        assert_eq!(prefixes.scopes(), [Scope::Prefix("b".into()), Scope::Prefix("log".into())]);
    }

    #[test]
    fn folder_and_key_of_the_same_name_are_distinct() {
        assert_eq!(object(&["a", "a/"]), [Scope::Key("a".into()), Scope::Prefix("a/".into())]);
    }
}
