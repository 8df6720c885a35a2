//! Pure: one line of an object list or a URL list (oms.md §4.3, §4.4).

use model::error::{Error, Kind, Result};

use crate::s3::list_parser::percent_decode;

/// Longest line, bytes.
pub(super) const LINE_MAX: usize = 65_535;

/// What a list file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListForm {
    /// A key of the source per line.
    Keys,
    /// A URL and the key it is to have, with one TAB between them.
    Urls,
}

/// One line, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The key, decoded.
    pub key: Vec<u8>,
    /// Where its bytes are; empty in a list of keys.
    pub url: String,
}

/// Reads line `number` (from 1), without its line end. Empty lines name nothing.
///
/// # Errors
/// [`Kind::ListLineTooLong`] or [`Kind::ListMalformed`], with the number of the line and what is wrong.
pub(super) fn read(form: ListForm, line: &[u8], number: u64) -> Result<Option<Line>> {
    let wrong = |kind, why: &str| Error::new(kind, "list_file", format!("line {number}: {why}"));
    let malformed = |why: &str| wrong(Kind::ListMalformed, why);
    if line.len() > LINE_MAX {
        return Err(wrong(Kind::ListLineTooLong, "is longer than 65,535 bytes"));
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
    if line.is_empty() {
        return Ok(None);
    }
    if form == ListForm::Keys {
        let key = percent_decode(line, false);
        return Ok(Some(Line { key, url: String::new() }));
    }
    let mut columns = line.split(|&b| b == b'\t');
    let (Some(url), Some(key), None) = (columns.next(), columns.next(), columns.next()) else {
        return Err(malformed("must have a URL, one TAB and a destination key"));
    };
    let url = std::str::from_utf8(url).map_err(|_| malformed("the URL is not UTF-8"))?;
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(malformed("the URL must begin with http:// or https://"));
    }
    if url.bytes().any(|b| b <= b' ' || b >= 0x7f) {
        return Err(malformed(
            "the URL must be percent-encoded: it holds a space, control or non-ASCII character",
        ));
    }
    // What is wrong is said without the URL itself, which may hold a password.
    let uri: http::Uri = url.parse().map_err(|_| malformed("the URL is not valid"))?;
    let authority = uri.authority().ok_or_else(|| malformed("the URL has no host"))?;
    if authority.host().is_empty() {
        return Err(malformed("the URL has no host"));
    }
    if authority.as_str().contains('@') {
        return Err(malformed("the URL must not carry a user or password"));
    }
    let whole = |at: usize| key.get(at + 1..at + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
    if !key.iter().enumerate().filter(|(_, b)| **b == b'%').all(|(at, _)| whole(at)) {
        return Err(malformed("the key has a `%` that is not followed by two hex digits"));
    }
    let key = percent_decode(key, false);
    if key.is_empty() || key.len() > 1024 {
        return Err(malformed("the key must have 1 to 1,024 bytes"));
    }
    Ok(Some(Line { key, url: url.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_keys_are_decoded_once_and_plus_is_kept() {
        let key = |line: &str| {
            read(ListForm::Keys, line.as_bytes(), 2).unwrap().map(|l| String::from_utf8(l.key).unwrap())
        };
        assert_eq!(key("oms%2F%E8%80%83.doc").as_deref(), Some("oms/考.doc"));
        assert_eq!(key("a+b%2541\r").as_deref(), Some("a+b%41"));
        assert_eq!(key(" lead ").as_deref(), Some(" lead "));
        assert_eq!(key(""), None);
        assert_eq!(read(ListForm::Keys, "\u{feff}k".as_bytes(), 1).unwrap().unwrap().key, b"k");
    }

    #[test]
    fn url_list_line_requires_two_columns() {
        let url = |line: &str| read(ListForm::Urls, line.as_bytes(), 7);
        let line = url("http://h/a%20b?x=1\tdoc/a%20b").unwrap().unwrap();
        assert_eq!((line.url.as_str(), line.key.as_slice()), ("http://h/a%20b?x=1", &b"doc/a b"[..]));
        for bad in [
            "http://h/a doc",
            "http://h/a\tb\tc",
            "ftp://h/a\tb",
            "http://h/a b\tc",
            "http://h/\t",
            "http://u:p@h/\tk",
            "http:///x\tk",
            "http://h/é\tk",
            "http://h/x\t%zz",
        ] {
            let failure = url(bad).unwrap_err();
            assert_eq!(failure.kind, Kind::ListMalformed, "{bad}");
            assert!(failure.message.starts_with("line 7") && !failure.message.contains("u:p"), "{failure}");
        }
        assert_eq!(read(ListForm::Keys, &vec![b'x'; 65_536], 1).unwrap_err().kind, Kind::ListLineTooLong);
    }

    #[test]
    fn fuzz_list_lines() {
        let lines = [
            &b"a%20b+c/%E6%97%A5"[..],
            b"http://h/a?b=c\tname/x",
            b"%zz\xff",
            b"\xef\xbb\xbfk",
            b"https://[::1]:9/x \t y",
        ];
        testkit::fuzz::fuzz("list files", &lines.map(<[u8]>::to_vec), |input, _| {
            for form in [ListForm::Keys, ListForm::Urls] {
                for (number, line) in (1..).zip(input.split(|b| *b == b'\n')) {
                    let _ = read(form, line, number);
                }
            }
        });
    }
}
