//! XML as S3 sends it, scanned in place: tags and text, the five named entities and character
//! references. No DTD, no external entity, no tree; nesting and input are bounded.

use std::borrow::Cow;

use model::error::{Error, Kind, Result};

/// Something met while scanning.
#[derive(Debug, PartialEq)]
pub enum Token<'a> {
    /// `<name …>`, without a namespace prefix.
    Open(&'a [u8]),
    /// `</name>` or the end of `<name/>`.
    Close(&'a [u8]),
    /// Text between tags, entities not yet decoded.
    Text(&'a [u8]),
}

/// A scanner over a complete document.
#[derive(Debug)]
pub struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
    empty: Option<&'a [u8]>,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, empty: None }
    }

    /// The next token; none at the end.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for a document that is cut short or has a document type.
    pub fn next_token(&mut self) -> Result<Option<Token<'a>>> {
        if let Some(name) = self.empty.take() {
            return Ok(Some(Token::Close(name)));
        }
        let rest = &self.input[self.at..];
        match rest.first() {
            None => Ok(None),
            Some(b'<') => self.tag(rest),
            Some(_) => {
                let end = find(rest, b'<').unwrap_or(rest.len());
                self.at += end;
                Ok(Some(Token::Text(&rest[..end])))
            }
        }
    }

    fn tag(&mut self, rest: &'a [u8]) -> Result<Option<Token<'a>>> {
        let end = find(rest, b'>').ok_or_else(|| bad("the response XML is truncated"))?;
        let start = self.at;
        self.at += end + 1;
        let inner = &rest[1..end];
        match inner.first() {
            Some(b'?') => self.next_token(),
            Some(b'!') if inner.starts_with(b"!--") => {
                let from = start + 4;
                let close = self.input.get(from..).unwrap_or_default().windows(3).position(|w| w == b"-->");
                self.at =
                    from + close.ok_or_else(|| bad("the response XML has an unterminated comment"))? + 3;
                self.next_token()
            }
            Some(b'!') => Err(bad("the response XML has a DOCTYPE, which is not accepted")),
            Some(b'/') => Ok(Some(Token::Close(local(&inner[1..])))),
            _ => {
                let closed = inner.last() == Some(&b'/');
                let name = local(if closed { &inner[..inner.len() - 1] } else { inner });
                if closed {
                    self.empty = Some(name);
                }
                Ok(Some(Token::Open(name)))
            }
        }
    }
}

fn local(tag: &[u8]) -> &[u8] {
    let name = tag.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    name.iter().position(|&b| b == b':').map_or(name, |i| &name[i + 1..])
}

fn find(haystack: &[u8], needle: u8) -> Option<usize> {
    haystack.iter().position(|&b| b == needle)
}

fn bad(message: &str) -> Error {
    Error::new(Kind::Corrupt, "parse", message)
}

/// Decodes the five named entities and character references.
pub fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'&') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(i) = find(rest, b'&') {
        out.extend_from_slice(&rest[..i]);
        rest = &rest[i..];
        let end = find(&rest[..rest.len().min(12)], b';');
        let decoded = end.and_then(|e| entity(&rest[1..e]));
        match (decoded, end) {
            (Some(c), Some(e)) => {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[e + 1..];
            }
            _ => {
                out.push(b'&');
                rest = &rest[1..];
            }
        }
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

fn entity(name: &[u8]) -> Option<char> {
    match name {
        b"amp" => Some('&'),
        b"lt" => Some('<'),
        b"gt" => Some('>'),
        b"quot" => Some('"'),
        b"apos" => Some('\''),
        _ => {
            let digits = std::str::from_utf8(name.strip_prefix(b"#")?).ok()?;
            let code = match digits.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => digits.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

/// The text of the first element of each given name, in the order of `names`.
///
/// # Errors
/// [`Kind::Corrupt`] for a broken document.
pub fn texts<const N: usize>(input: &[u8], names: [&str; N]) -> Result<[Option<String>; N]> {
    let mut found: [Option<String>; N] = std::array::from_fn(|_| None);
    let mut scanner = Scanner::new(input);
    let mut wanted = None;
    while let Some(token) = scanner.next_token()? {
        match token {
            Token::Open(name) => {
                wanted = names.iter().position(|n| n.as_bytes() == name);
            }
            Token::Text(text) => {
                if let Some(i) = wanted
                    && found[i].is_none()
                {
                    found[i] = Some(String::from_utf8_lossy(&unescape(text)).into_owned());
                }
            }
            Token::Close(_) => wanted = None,
        }
    }
    Ok(found)
}

/// Escapes text for an element's content.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\r']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The named texts of each `<block>`; what is missing is empty.
///
/// # Errors
/// As [`Scanner::next_token`].
pub fn blocks<const N: usize>(input: &[u8], block: &str, names: [&str; N]) -> Result<Vec<[String; N]>> {
    let mut out = Vec::new();
    let mut scanner = Scanner::new(input);
    let mut current: Option<[String; N]> = None;
    let mut field = None;
    while let Some(token) = scanner.next_token()? {
        match token {
            Token::Open(name) if name == block.as_bytes() => {
                current = Some(std::array::from_fn(|_| String::new()));
            }
            Token::Open(name) => field = names.iter().position(|n| n.as_bytes() == name),
            Token::Text(text) => {
                if let (Some(i), Some(c)) = (field, &mut current) {
                    c[i] = String::from_utf8_lossy(&unescape(text)).into_owned();
                }
            }
            Token::Close(name) if name == block.as_bytes() => out.extend(current.take()),
            Token::Close(_) => field = None,
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_texts_are_found_and_decoded() {
        let xml = b"<?xml version=\"1.0\"?><!-- x --><Error xmlns=\"u\"><Code>NoSuchKey</Code>\
            <Key>a&amp;b&#x41;&#66;&bad;</Key><Empty/></Error>";
        let [code, key, none] = texts(xml, ["Code", "Key", "Missing"]).unwrap();
        assert_eq!(code.as_deref(), Some("NoSuchKey"));
        assert_eq!(key.as_deref(), Some("a&bAB&bad;"));
        assert_eq!(none, None);
    }

    #[test]
    fn doctype_and_truncated_xml_are_rejected() {
        assert!(texts(b"<!DOCTYPE x [<!ENTITY a 'b'>]><a/>", ["a"]).is_err());
        assert!(texts(b"<a><b", ["b"]).is_err());
    }

    /// Any bytes give tokens or an error, never a panic or a loop without end.
    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 7u64;
        for _ in 0..20_000 {
            let mut input = Vec::new();
            for _ in 0..24 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                input.push(b"<>/!-?&;#xa1 "[(seed >> 33) as usize % 13]);
            }
            let mut scanner = Scanner::new(&input);
            while let Ok(Some(token)) = scanner.next_token() {
                if let Token::Text(text) = token {
                    unescape(text);
                }
            }
        }
    }
}
