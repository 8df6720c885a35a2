//! XML of requests and responses, except listings of S3 ([`scanner`]). `quick-xml` parses and escapes it.
//!
//! Accepted as leniently as servers write it: end tags are not compared with start tags, and an unknown entity or a bare `&`
//! is text. A DOCTYPE is refused, so that nothing is defined or included.

pub mod scanner;

use std::borrow::Cow;

use model::error::{Error, Kind, Result};
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, Event};

/// What a document consists of. The names of elements are without namespace prefix.
enum Token<'a> {
    Open(&'a str),
    /// All text up to the next tag, with entities decoded.
    Text(String),
    Close(&'a str),
}

/// Calls `take` for each tag and text of a document.
fn each_token(input: &[u8], mut take: impl FnMut(Token<'_>)) -> Result<()> {
    let bad = |why: String| Error::new(Kind::Corrupt, "parse", why);
    let document = String::from_utf8_lossy(input);
    let mut reader = Reader::from_str(&document);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    config.expand_empty_elements = true;
    // `quick-xml` splits a text at entities and comments.
    let mut text: Option<String> = None;
    loop {
        let event = reader.read_event().map_err(|e| bad(format!("the response XML cannot be read: {e}")))?;
        if matches!(event, Event::Start(_) | Event::End(_) | Event::Eof)
            && let Some(text) = text.take()
        {
            take(Token::Text(text));
        }
        match event {
            Event::Start(tag) => take(Token::Open(tag.local_name().as_ref())),
            Event::End(tag) => take(Token::Close(tag.local_name().as_ref())),
            Event::Text(part) => text.get_or_insert_default().push_str(&part),
            Event::CData(part) => text.get_or_insert_default().push_str(&part),
            Event::GeneralRef(entity) => push_entity(text.get_or_insert_default(), &entity),
            Event::DocType(_) => {
                return Err(bad("the response XML has a DOCTYPE, which is not accepted".to_owned()));
            }
            Event::Empty(_) | Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof => return Ok(()),
        }
    }
}

/// Appends the character that an entity stands for, or the entity as it is written.
fn push_entity(text: &mut String, entity: &BytesRef<'_>) {
    let character = entity.resolve_char_ref().ok().flatten();
    match (character, resolve_predefined_entity(entity)) {
        (Some(c), _) => text.push(c),
        (None, Some(known)) => text.push_str(known),
        (None, None) => {
            text.push('&');
            text.push_str(entity);
            text.push(';');
        }
    }
}

/// The text of the first element of each given name, in the order of `names`.
///
/// # Errors
/// [`Kind::Corrupt`] for a broken document.
pub fn texts<const N: usize>(input: &[u8], names: [&str; N]) -> Result<[Option<String>; N]> {
    let mut found: [Option<String>; N] = std::array::from_fn(|_| None);
    let mut wanted = None;
    each_token(input, |token| match token {
        Token::Open(name) => wanted = names.iter().position(|n| *n == name),
        Token::Text(text) => {
            if let Some(i) = wanted
                && found[i].is_none()
            {
                found[i] = Some(text);
            }
        }
        Token::Close(_) => wanted = None,
    })?;
    Ok(found)
}

/// Escapes text for an element's content.
pub fn escape(text: &str) -> Cow<'_, str> {
    quick_xml::escape::escape(text)
}

/// The named texts of each `<block>`; what is missing is empty.
///
/// # Errors
/// [`Kind::Corrupt`] for a broken document.
pub fn blocks<const N: usize>(input: &[u8], block: &str, names: [&str; N]) -> Result<Vec<[String; N]>> {
    let mut out = Vec::new();
    let mut current: Option<[String; N]> = None;
    let mut field = None;
    each_token(input, |token| match token {
        Token::Open(name) if name == block => current = Some(std::array::from_fn(|_| String::new())),
        Token::Open(name) => field = names.iter().position(|n| *n == name),
        Token::Text(text) => {
            if let (Some(i), Some(c)) = (field, &mut current) {
                c[i] = text;
            }
        }
        Token::Close(name) if name == block => out.extend(current.take()),
        Token::Close(_) => field = None,
    })?;
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
    fn xml_that_is_not_well_formed_is_read_leniently() {
        let of = |xml: &str| texts(xml.as_bytes(), ["a"]).unwrap().map(Option::unwrap_or_default);
        assert_eq!(of("<x><a>1 & 2</b></x></y>"), ["1 & 2"]);
        assert_eq!(of("<a><![CDATA[<1>]]>&#0;</a>"), ["<1>&#0;"]);
        assert_eq!(of("<s:a t=\">\"> 1\n</s:a>"), [" 1\n"]);
    }

    #[test]
    fn escaped_text_is_read_back() {
        let key = "a<b>&\"c'\r\n\té";
        let xml = format!("<Key>{}</Key>", escape(key));
        assert!(!xml.contains('\r'), "servers read a bare return as a line feed");
        assert_eq!(texts(xml.as_bytes(), ["Key"]).unwrap(), [Some(key.to_owned())]);
    }

    #[test]
    fn doctype_and_truncated_xml_are_rejected() {
        assert!(texts(b"<!DOCTYPE x [<!ENTITY a 'b'>]><a/>", ["a"]).is_err());
        assert!(texts(b"<a><b", ["b"]).is_err());
    }
}
