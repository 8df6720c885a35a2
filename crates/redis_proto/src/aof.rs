//! Append-only files: commands, behind an RDB preamble or not, and the manifest of those in several parts (aof.c).

use crate::error::{ProtocolError, Result};

/// What a part of an append-only file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AofFileKind {
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

/// The parts that a manifest names, in the order in which they are read; files of type history are not included.
///
/// # Errors
/// [`ProtocolError`] with the offset of the line that cannot be read, or whose file would lie elsewhere.
pub fn manifest(text: &[u8]) -> Result<Vec<(Vec<u8>, AofFileKind)>> {
    let (mut parts, mut offset) = (Vec::new(), 0u64);
    for line in text.split_inclusive(|b| *b == b'\n') {
        let begin = offset;
        offset += line.len() as u64;
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let wrong = |what: &str| ProtocolError::new(begin, what);
        let words = words(line).ok_or_else(|| wrong("unterminated quote in the manifest"))?;
        let value =
            |name: &[u8]| words.chunks(2).find(|w| w[0] == name).and_then(|w| Some(w.get(1)?.as_slice()));
        let file = value(b"file").ok_or_else(|| wrong("a manifest line has no file name"))?;
        if file.is_empty() || file.contains(&b'/') || file.contains(&0) || file == b"." || file == b".." {
            return Err(wrong("a manifest line names a file outside of the folder"));
        }
        let sequence: u64 = value(b"seq")
            .and_then(|n| std::str::from_utf8(n).ok()?.parse().ok())
            .ok_or_else(|| wrong("a manifest line has no sequence number"))?;
        let part = match value(b"type") {
            Some(b"b") => AofFileKind::Base,
            Some(b"i") => AofFileKind::Incr,
            Some(b"h") => AofFileKind::History,
            _ => return Err(wrong("a manifest line has an unknown file type")),
        };
        parts.push((sequence, file.to_owned(), part));
    }
    parts.retain(|(_, _, part)| *part != AofFileKind::History);
    if parts.iter().filter(|(_, _, part)| *part == AofFileKind::Base).count() > 1 {
        return Err(ProtocolError::new(0, "the manifest has more than one base file"));
    }
    parts.sort_by_key(|(sequence, _, part)| (*part != AofFileKind::Base, *sequence));
    Ok(parts.into_iter().map(|(_, file, part)| (file, part)).collect())
}

/// The words of a line as a server divides it (sds.c, sdssplitargs): words may stand in quotes, where they have blanks,
/// quotes or bytes that are no text. None when a quote has no end, or something follows it at once.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut all, mut rest) = (Vec::new(), line.trim_ascii_start());
    while let Some(first) = rest.first() {
        let mut word = Vec::new();
        match first {
            b'"' | b'\'' => {
                rest = &rest[quoted(rest, &mut word)?..];
                if rest.first().is_some_and(|b| !b.is_ascii_whitespace()) {
                    return None;
                }
            }
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                word.extend_from_slice(&rest[..end]);
                rest = &rest[end..];
            }
        }
        all.push(word);
        rest = rest.trim_ascii_start();
    }
    Some(all)
}

/// The content of a quoted word, which begins with its quote; returns how many bytes of the text it took.
fn quoted(text: &[u8], word: &mut Vec<u8>) -> Option<usize> {
    let (quote, mut at) = (*text.first()?, 1);
    loop {
        let byte = *text.get(at)?;
        at += 1;
        match byte {
            b if b == quote => return Some(at),
            b'\\' if quote == b'"' => at += escaped(&text[at..], word)?,
            b'\\' if text.get(at) == Some(&b'\'') => {
                word.push(b'\'');
                at += 1;
            }
            b => word.push(b),
        }
    }
}

/// The byte that stands behind a backslash; answers how many bytes of the text it took.
fn escaped(text: &[u8], word: &mut Vec<u8>) -> Option<usize> {
    let hex =
        || std::str::from_utf8(text.get(1..3)?).ok().filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
    let byte = match *text.first()? {
        b'x' if hex().is_some() => {
            word.push(u8::from_str_radix(hex()?, 16).ok()?);
            return Some(3);
        }
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    };
    word.push(byte);
    Some(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aof_manifest_lists_the_base_first() {
        let text =
            b"file a.1.incr.aof seq 1 type i\nfile a.1.base.rdb seq 1 type b\nfile a.0.aof seq 0 type h\n\
                    file a.2.incr.aof seq 2 type i\n";
        let parts = manifest(text).unwrap();
        let names: Vec<&[u8]> = parts.iter().map(|(f, _)| f.as_slice()).collect();
        assert_eq!(names, [&b"a.1.base.rdb"[..], b"a.1.incr.aof", b"a.2.incr.aof"]);
        for bad in ["file ../x seq 1 type b", "file x type b", "seq 1 type b", "file x seq 1 type z"] {
            assert!(manifest(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn red_11_quoted_manifest_names_are_read() {
        let text = b"file \"my aof.1.base.rdb\" seq 1 type b\nfile \"we\\\"ird\\t\\xc3\\xa4.aof\" seq 2 type i\nfile .x seq 3 type i\n";
        let names: Vec<Vec<u8>> = manifest(text).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"my aof.1.base.rdb"[..], "we\"ird\tä.aof".as_bytes(), b".x"]);
        for bad in [
            "file \"x seq 1 type b",
            "file \"a\"b seq 1 type b",
            "file \"../x\" seq 1 type b",
            "file '..' seq 1 type b",
        ] {
            assert!(manifest(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn file_format_is_detected_by_content() {
        assert_eq!(form(b"REDIS0011"), Some(Form::Rdb));
        assert_eq!(form(b"VALKEY080"), Some(Form::Rdb));
        assert_eq!(form(b"*2\r\n$6"), Some(Form::Commands));
        assert_eq!((form(b"RED"), form(b"")), (None, None));
    }
}
