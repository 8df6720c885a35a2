//! Answers of `ListObjectsV2` and `ListObjects`, scanned in place: XML is the cost of listing.

use model::error::{Error, Kind, Result};
use model::key::Key;

use crate::etag::Etag;
use crate::xml::scanner::{Scanner, Token, unescape};
use crate::{Entry, Page};

/// The longest token or marker that is accepted, bytes.
const TOKEN_MAX: usize = 8 << 10;

/// One answer, before it is known how the listing goes on.
#[derive(Debug, Default)]
pub struct Listing {
    /// The objects and folders; its `next` is not set.
    pub page: Page,
    /// More keys follow; none where the server does not tell.
    pub truncated: Option<bool>,
    /// `NextContinuationToken` (V2).
    pub token: Option<String>,
    /// `NextMarker` (V1).
    pub marker: Option<Key>,
    /// The answer has a `KeyCount`, which only V2 has.
    pub counted: bool,
}

impl Listing {
    /// Takes a field of the page itself.
    fn set(&mut self, field: &[u8], text: &[u8], encoded: bool) -> Result<()> {
        match field {
            b"IsTruncated" => self.truncated = Some(flag(text)?),
            b"NextContinuationToken" => {
                let token = unescape(bounded(text)?);
                self.token = Some(String::from_utf8_lossy(&token).into_owned());
            }
            b"NextMarker" => self.marker = Some(Key::new(decode(bounded(text)?, encoded))),
            b"KeyCount" => self.counted = true,
            _ => {}
        }
        Ok(())
    }
}

/// An entry of which not all fields have been read.
#[derive(Default)]
struct PartialEntry {
    key: Option<Key>,
    size: Option<u64>,
    etag: Etag,
    modified_ms: i64,
    class: Option<Box<str>>,
}

impl PartialEntry {
    #[inline]
    fn set(&mut self, field: &[u8], text: &[u8], encoded: bool) {
        match field {
            b"Key" => self.key = Some(Key::new(decode(text, encoded))),
            b"Size" => self.size = number(text),
            b"ETag" => self.etag = Etag::parse(&String::from_utf8_lossy(&unescape(text))),
            b"LastModified" => self.modified_ms = listed_time(text).unwrap_or(0),
            b"StorageClass" if text != b"STANDARD" => {
                self.class = Some(String::from_utf8_lossy(text).into());
            }
            _ => {}
        }
    }

    /// The entry; the next one is empty but for its time.
    #[inline]
    fn take(&mut self) -> Result<Entry> {
        let (Some(key), Some(size)) = (self.key.take(), self.size.take()) else {
            return Err(Error::new(Kind::Corrupt, "list", "a listed object has no key or no size"));
        };
        Ok(Entry {
            key,
            size,
            modified_ms: self.modified_ms,
            written_ms: self.modified_ms,
            etag: std::mem::take(&mut self.etag),
            class: self.class.take(),
        })
    }
}

/// Reads one page. Keys are decoded from `encoding-type=url` when the answer says so: `%XX` once, and `+`
/// as a space.
///
/// # Errors
/// [`Kind::Corrupt`] when the document is cut short or a size is no number.
pub fn parse(xml: &[u8]) -> Result<Listing> {
    // Look for the mark once instead of decoding twice: it stands before or after the contents.
    let encoded = contains(xml, b"<EncodingType>url</EncodingType>");
    let mut listing = Listing::default();
    listing.page.entries.reserve(1000);
    let mut scanner = Scanner::new(xml);
    let mut entry = PartialEntry::default();
    let (mut field, mut depth, mut complete): (&[u8], _, _) = (b"", 0u32, false);
    let (mut in_entry, mut in_folder) = (false, false);
    while let Some(token) = scanner.next_token()? {
        match token {
            Token::Open(name) => {
                depth += 1;
                field = name;
                match name {
                    b"Contents" => in_entry = true,
                    b"CommonPrefixes" => in_folder = true,
                    _ => {}
                }
                if depth > 16 {
                    return Err(Error::new(
                        Kind::Corrupt,
                        "list",
                        "the XML of the listing is nested too deeply",
                    ));
                }
            }
            Token::Text(text) if in_entry => entry.set(field, text, encoded),
            Token::Text(text) if in_folder && field == b"Prefix" => {
                let folder = String::from_utf8_lossy(&decode(text, encoded)).into_owned();
                listing.page.folders.push(folder);
            }
            Token::Text(text) if !in_folder => listing.set(field, text, encoded)?,
            Token::Text(_) => {}
            Token::Close(name) => {
                depth = depth.saturating_sub(1);
                field = b"";
                match name {
                    b"Contents" => {
                        in_entry = false;
                        listing.page.entries.push(entry.take()?);
                    }
                    b"CommonPrefixes" => in_folder = false,
                    b"ListBucketResult" => complete = true,
                    _ => {}
                }
            }
        }
    }
    if !complete {
        return Err(Error::new(Kind::Corrupt, "list", "the response is truncated or not a bucket listing"));
    }
    Ok(listing)
}

fn bounded(text: &[u8]) -> Result<&[u8]> {
    if text.len() <= TOKEN_MAX {
        return Ok(text);
    }
    Err(Error::new(
        Kind::Corrupt,
        "list",
        format!("the continuation token of the listing has {} bytes", text.len()),
    ))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    // It stands in the head or the tail of the document, never between two objects.
    let edge = 4096.min(haystack.len());
    let has = |part: &[u8]| part.windows(needle.len()).any(|w| w == needle);
    has(&haystack[..edge]) || has(&haystack[haystack.len() - edge..])
}

/// `true` or `false` as servers spell them (XML Schema part 2: boolean).
///
/// # Errors
/// [`Kind::Corrupt`] for anything else: a listing would end too early.
pub fn flag(text: &[u8]) -> Result<bool> {
    match text.trim_ascii() {
        b"1" => Ok(true),
        b"0" => Ok(false),
        text if text.eq_ignore_ascii_case(b"true") => Ok(true),
        text if text.eq_ignore_ascii_case(b"false") => Ok(false),
        text => {
            let text = String::from_utf8_lossy(&text[..text.len().min(32)]).into_owned();
            Err(Error::new(Kind::Corrupt, "list", format!("`IsTruncated` is `{text}`, not true or false")))
        }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

fn decode(text: &[u8], encoded: bool) -> Box<[u8]> {
    let text = unescape(text);
    if !encoded || !text.iter().any(|b| matches!(b, b'%' | b'+')) {
        return text.into();
    }
    percent_decode(&text, true).into()
}

/// Decodes `%XX` once; a `%` without two hex digits stays as it is.
pub fn percent_decode(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let hex = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut i = 0;
    while i < text.len() {
        match text[i] {
            b'+' if plus_is_space => out.push(b' '),
            b'%' => match (text.get(i + 1).copied().and_then(hex), text.get(i + 2).copied().and_then(hex)) {
                (Some(a), Some(b)) => {
                    out.push(a << 4 | b);
                    i += 2;
                }
                _ => out.push(b'%'),
            },
            b => out.push(b),
        }
        i += 1;
    }
    out
}

/// Milliseconds since the epoch from the forms in which servers tell the time of an object: that of [`instant`], the same
/// with an offset (`+08:00`), or that of an HTTP header.
pub fn listed_time(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    let Some(ms) = instant(text) else { return crate::http::date(std::str::from_utf8(text).ok()?) };
    let digits = |b: &u8| b.is_ascii_digit() || *b == b'.';
    let zone = text.get(19..)?.iter().position(|b| !digits(b)).map(|i| &text[19 + i..]);
    match zone {
        None | Some(b"Z" | b"z") => Some(ms),
        Some([sign @ (b'+' | b'-'), h1, h2, rest @ ..]) => {
            let two = |a: u8, b: u8| {
                let both = a.is_ascii_digit() && b.is_ascii_digit();
                both.then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
            };
            let minutes = match rest {
                [b':', m1, m2] | [m1, m2] => two(*m1, *m2)?,
                [] => 0,
                _ => return None,
            };
            let offset_ms = (two(*h1, *h2)? * 60 + minutes) * 60_000;
            Some(if *sign == b'+' { ms - offset_ms } else { ms + offset_ms })
        }
        Some(_) => None,
    }
}

/// Milliseconds since the epoch from `YYYY-MM-DDThh:mm:ss[.fff]Z`; the zone is not looked at.
pub fn instant(text: &[u8]) -> Option<i64> {
    let n = |from: usize, to: usize| -> Option<i64> {
        let mut value = 0;
        for &b in text.get(from..to)? {
            value = value * 10 + i64::from(b.is_ascii_digit().then(|| b - b'0')?);
        }
        Some(value)
    };
    let (y, m, d) = (n(0, 4)?, n(5, 7)?, n(8, 10)?);
    let (h, min, s) = (n(11, 13)?, n(14, 16)?, n(17, 19)?);
    let ms = if text.get(19) == Some(&b'.') { n(20, 23).unwrap_or(0) } else { 0 };
    // Days from a civil date, after Howard Hinnant's published algorithm.
    let y2 = if m <= 2 { y - 1 } else { y };
    let era = y2.div_euclid(400);
    let yoe = y2 - era * 400;
    let doy = (153 * (m + if m > 2 { -3 } else { 9 }) + 2) / 5 + d - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    Some((((days * 24 + h) * 60 + min) * 60 + s) * 1000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_keys_are_decoded_once() {
        let xml = br#"<?xml version="1.0"?><ListBucketResult xmlns="x"><Name>b</Name><Prefix></Prefix>
            <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
            <Contents><Key>a+b%2Bc%2541</Key><LastModified>2026-01-15T08:30:00.250Z</LastModified>
            <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>7</Size>
            <StorageClass>GLACIER</StorageClass><Owner><ID>x</ID></Owner></Contents>
            <CommonPrefixes><Prefix>d%2Fe/</Prefix></CommonPrefixes></ListBucketResult>"#;
        let Listing { page, truncated, .. } = parse(xml).unwrap();
        assert_eq!(truncated, Some(true));
        assert_eq!(page.folders, ["d/e/"]);
        let e = &page.entries[0];
        assert_eq!((e.key.as_str(), e.size), (Some("a b+c%41"), 7));
        assert_eq!(e.modified_ms, 1_768_465_800_250);
        assert!(matches!(e.etag, Etag::Md5(_)));
        assert_eq!(e.class.as_deref(), Some("GLACIER"));
    }

    #[test]
    fn truncated_page_is_an_error() {
        let whole = b"<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>";
        assert_eq!(parse(whole).unwrap().page.entries.len(), 1);
        for cut in 1..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn timestamps_match_the_time_library() {
        for (text, secs) in [("1970-01-01T00:00:00Z", 0), ("2024-02-29T23:59:59.000Z", 1_709_251_199)] {
            assert_eq!(instant(text.as_bytes()), Some(secs * 1000));
        }
        assert_eq!(instant(b"yesterday"), None);
    }

    #[test]
    fn truncation_is_read_in_every_spelling_and_nothing_else_is_believed() {
        let listing = |flag: &str| format!("<ListBucketResult>{flag}</ListBucketResult>").into_bytes();
        for (text, told) in [("true", true), ("True", true), (" TRUE ", true), ("1", true), ("false", false)]
        {
            let xml = listing(&format!("<IsTruncated>{text}</IsTruncated>"));
            assert_eq!(parse(&xml).unwrap().truncated, Some(told), "{text}");
        }
        assert_eq!(parse(&listing("")).unwrap().truncated, None);
        assert!(parse(&listing("<IsTruncated>yes</IsTruncated>")).is_err());
    }

    #[test]
    fn listed_times_are_read_with_offsets_and_as_http_dates() {
        let at = |text: &str| listed_time(text.as_bytes());
        let want = Some(1_768_465_800_000);
        assert_eq!(at("2026-01-15T08:30:00Z"), want);
        assert_eq!(at("2026-01-15T16:30:00.000+08:00"), want);
        assert_eq!(at("2026-01-15T03:30:00-0500"), want);
        assert_eq!(at("Thu, 15 Jan 2026 08:30:00 GMT"), want);
        assert_eq!([at("2026-01-15T08:30:00 X"), at("yesterday"), at("")], [None; 3]);
    }

    #[test]
    fn fuzz_listing_xml() {
        let whole = br#"<?xml version="1.0"?><ListBucketResult><Name>b</Name><Prefix></Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>
            <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;t</NextContinuationToken><NextMarker>k</NextMarker>
            <Contents><Key>a%20b&lt;</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;0cc175b9c0f1b6a831c399e269772661&quot;</ETag>
            <Size>1</Size><StorageClass>STANDARD</StorageClass><Owner><ID>x</ID></Owner></Contents><!-- c --><CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>
            <Contents><Key><![CDATA[x]]></Key><Size>18446744073709551615</Size></Contents></ListBucketResult>"#;
        testkit::fuzz::fuzz("listing xml", &[whole.to_vec()], |input, _| {
            let _ = parse(input);
            let _ = instant(input);
            let _ = percent_decode(input, true);
        });
    }
}
