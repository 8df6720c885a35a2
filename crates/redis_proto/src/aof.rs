//! Append-only files: commands, behind an RDB preamble or not, and the manifest of those in several parts (aof.c).

use crate::error::{Error, Result};

/// What a part of an append-only file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The whole as of some moment.
    Base,
    /// Commands since then.
    Incr,
    /// Superseded, to be ignored.
    History,
}

/// How a file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As an RDB file; commands may follow behind its end.
    Rdb,
    /// With commands.
    Commands,
}

/// The form of a file by its first bytes; none when there are too few of them.
pub fn form(first: &[u8]) -> Option<Form> {
    let starts = |word: &[u8]| {
        let n = word.len().min(first.len());
        first[..n] == word[..n]
    };
    match first {
        [] => None,
        _ if first.len() < 6 && (starts(b"REDIS") || starts(b"VALKEY")) => None,
        _ if starts(b"REDIS") || starts(b"VALKEY") => Some(Form::Rdb),
        _ => Some(Form::Commands),
    }
}

/// The parts that a manifest names, in the order in which they are read; what is history is left out.
///
/// # Errors
/// [`Error`] with the offset of the line that cannot be read, or whose file would lie elsewhere.
pub fn manifest(text: &str) -> Result<Vec<(String, Part)>> {
    let (mut parts, mut offset) = (Vec::new(), 0u64);
    for line in text.split_inclusive('\n') {
        let begin = offset;
        offset += line.len() as u64;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |name: &str| words.chunks(2).find(|w| w[0] == name).and_then(|w| w.get(1).copied());
        let wrong = |what: &str| Error::new(begin, what);
        let file =
            value("file").ok_or_else(|| wrong("a line of the manifest names no file"))?.trim_matches('"');
        if file.contains('/') || file.starts_with('.') {
            return Err(wrong("a file of the manifest lies outside of its folder"));
        }
        let sequence: u64 = value("seq")
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| wrong("a line of the manifest has no sequence number"))?;
        let part = match value("type") {
            Some("b") => Part::Base,
            Some("i") => Part::Incr,
            Some("h") => Part::History,
            _ => return Err(wrong("a line of the manifest has no known type")),
        };
        parts.push((sequence, file.to_owned(), part));
    }
    parts.retain(|(_, _, part)| *part != Part::History);
    if parts.iter().filter(|(_, _, part)| *part == Part::Base).count() > 1 {
        return Err(Error::new(0, "the manifest names more than one base"));
    }
    parts.sort_by_key(|(sequence, _, part)| (*part != Part::Base, *sequence));
    Ok(parts.into_iter().map(|(_, file, part)| (file, part)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_gives_the_base_first() {
        let text = "file a.1.incr.aof seq 1 type i\nfile a.1.base.rdb seq 1 type b\nfile a.0.aof seq 0 type h\n\
                    file a.2.incr.aof seq 2 type i\n";
        let parts = manifest(text).unwrap();
        let names: Vec<&str> = parts.iter().map(|(f, _)| f.as_str()).collect();
        assert_eq!(names, ["a.1.base.rdb", "a.1.incr.aof", "a.2.incr.aof"]);
        for bad in ["file ../x seq 1 type b", "file x type b", "seq 1 type b", "file x seq 1 type z"] {
            assert!(manifest(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_tell_their_form() {
        assert_eq!(form(b"REDIS0011"), Some(Form::Rdb));
        assert_eq!(form(b"VALKEY080"), Some(Form::Rdb));
        assert_eq!(form(b"*2\r\n$6"), Some(Form::Commands));
        assert_eq!((form(b"RED"), form(b"")), (None, None));
    }
}
