//! `ListObjectVersions` and access rules: what only some tasks ask for.

use std::collections::BTreeMap;

use http::Method;
use model::error::{Error, Kind, Result};
use model::key::Key;

use super::client::{ApiCall, S3, body_of};
use crate::etag::Etag;
use crate::s3::list_parser::{flag, listed_time, percent_decode};
use crate::xml::scanner::{Scanner, Token, unescape};
use crate::{Entry, ListRequest, Position, Version, VersionPage};

/// Answers that one key's versions may take: a key with more is refused by name, not cut. All versions of a key are
/// held at once, about 200 bytes each.
const PAGES: usize = 200;

/// One answer: versions as listed, newest first within a key.
#[derive(Default)]
struct VersionsResult {
    versions: Vec<(Key, Version)>,
    more: bool,
    next: (String, String),
}

impl S3 {
    /// Whole keys only: when an answer ends within a key, further answers complete it.
    pub(super) async fn versions_page(&self, request: &ListRequest) -> Result<VersionPage> {
        let max = request.max.clamp(1, 1000).to_string();
        let after = request.from.after_key();
        let mut marker = (String::from_utf8_lossy(after.as_bytes()).into_owned(), String::new());
        let mut found: Vec<(Key, Version)> = Vec::new();
        for _ in 0..PAGES {
            let mut query = vec![("encoding-type", "url")];
            if !marker.0.is_empty() {
                query.push(("key-marker", marker.0.as_str()));
            }
            query.extend([("max-keys", max.as_str()), ("prefix", request.prefix.as_str())]);
            if !marker.1.is_empty() {
                query.push(("version-id-marker", marker.1.as_str()));
            }
            query.push(("versions", ""));
            let call = ApiCall { query: &query, ..ApiCall::new("list_versions", Method::GET, None) };
            let xml = body_of(self.send(call).await?).await?;
            let answer = parse(&xml)?;
            found.extend(answer.versions);
            if !answer.more {
                return Ok(VersionPage { keys: by_key(found), next: None });
            }
            // The last key may go on in the next answer: it is left for the page after, unless it is alone.
            if let Some((last, _)) = found.last().cloned()
                && let Some(before) = found.iter().rev().map(|(k, _)| k).find(|k| **k != last).cloned()
            {
                found.retain(|(k, _)| *k != last);
                return Ok(VersionPage { keys: by_key(found), next: Some(Position::After(before)) });
            }
            if answer.next == marker || answer.next.0.is_empty() {
                let m = "the version listing says it is truncated but its markers did not advance";
                return Err(Error::new(Kind::OutOfOrderListing, "list_versions", m));
            }
            marker = answer.next;
        }
        let Some((key, _)) = found.pop() else {
            let m = format!("{PAGES} pages of the version listing below `{}` have no key", request.prefix);
            return Err(Error::new(Kind::OutOfOrderListing, "list_versions", m));
        };
        let m = format!("`{key}` has more than {} versions", PAGES * 1000);
        let failed = Err(Error::new(Kind::TooLarge, "list_versions", m));
        Ok(VersionPage { keys: vec![(key.clone(), failed)], next: Some(Position::After(key)) })
    }
}

/// Groups what belongs to one key, oldest first. Servers list a key's versions newest first, and some list its
/// deletions apart: time decides, and for equal times which is the newest,
/// then the order of the listing.
fn by_key(found: Vec<(Key, Version)>) -> Vec<(Key, Result<Vec<Version>>)> {
    let mut keys: BTreeMap<Key, Vec<Version>> = BTreeMap::new();
    for (key, version) in found.into_iter().rev() {
        keys.entry(key).or_default().push(version);
    }
    for versions in keys.values_mut() {
        versions.sort_by_key(|v| (v.at_ms, v.latest));
    }
    keys.into_iter().map(|(key, versions)| (key, Ok(versions))).collect()
}

/// The fields of a version, in the order of [`version_of`].
const FIELDS: [&[u8]; 7] =
    [b"Key", b"VersionId", b"LastModified", b"ETag", b"Size", b"StorageClass", b"IsLatest"];

fn parse(xml: &[u8]) -> Result<VersionsResult> {
    let encoded = xml.windows(32).any(|w| w == b"<EncodingType>url</EncodingType>");
    let plain = |raw: &[u8]| String::from_utf8_lossy(&unescape(raw)).into_owned();
    let decoded = |raw: &[u8]| match encoded {
        true => String::from_utf8_lossy(&percent_decode(&unescape(raw), true)).into_owned(),
        false => plain(raw),
    };
    let mut answer = VersionsResult::default();
    let mut scanner = Scanner::new(xml);
    // The version that is being read, and whether it has data.
    let mut current: Option<(bool, [String; 7])> = None;
    let (mut field, mut complete): (&[u8], _) = (b"", false);
    while let Some(token) = scanner.next_token()? {
        match token {
            Token::Open(b"Version") => current = Some((true, Default::default())),
            Token::Open(b"DeleteMarker") => current = Some((false, Default::default())),
            Token::Open(name) => field = name,
            Token::Text(raw) => match (&mut current, field) {
                (Some((_, texts)), b"Key") => texts[0] = decoded(raw),
                (Some((_, texts)), field) => {
                    let at = FIELDS.iter().position(|f| *f == field);
                    at.into_iter().for_each(|i| texts[i] = plain(raw));
                }
                (None, b"IsTruncated") => answer.more = flag(raw)?,
                (None, b"NextKeyMarker") => answer.next.0 = decoded(raw),
                (None, b"NextVersionIdMarker") => answer.next.1 = plain(raw),
                _ => {}
            },
            Token::Close(b"Version" | b"DeleteMarker") => {
                answer.versions.extend(current.take().map(|(data, texts)| version_of(data, texts)));
            }
            Token::Close(b"ListVersionsResult") => complete = true,
            Token::Close(_) => field = b"",
        }
    }
    if !complete {
        let m = "the response is truncated or not a version listing";
        return Err(Error::new(Kind::Corrupt, "list_versions", m));
    }
    Ok(answer)
}

/// A version by the texts of its [`FIELDS`]; a delete marker has no data.
fn version_of(data: bool, [key, id, modified, etag, size, class, latest]: [String; 7]) -> (Key, Version) {
    let key = Key::from(key);
    let at_ms = listed_time(modified.as_bytes()).unwrap_or(0);
    let entry = data.then(|| Entry {
        key: key.clone(),
        size: size.parse().unwrap_or(0),
        modified_ms: at_ms,
        written_ms: at_ms,
        etag: Etag::parse(&etag),
        class: (!class.is_empty() && class != "STANDARD").then(|| class.into()),
    });
    (key, Version { id, at_ms, latest: latest == "true", entry })
}

/// The canned rule that comes nearest to an `AccessControlPolicy`: what everybody, or everybody who is known, may do.
pub(super) fn canned(xml: &[u8]) -> Result<Option<&'static str>> {
    let mut scanner = Scanner::new(xml);
    let (mut field, mut who): (&[u8], String) = (b"", String::new());
    let (mut all_read, mut all_write, mut known_read) = (false, false, false);
    while let Some(token) = scanner.next_token()? {
        match token {
            Token::Open(b"Grant") => who.clear(),
            Token::Open(name) => field = name,
            Token::Text(raw) if field == b"URI" => who = String::from_utf8_lossy(raw).into_owned(),
            Token::Text(raw) if field == b"Permission" => {
                let all = who.ends_with("/global/AllUsers");
                let known = who.ends_with("/global/AuthenticatedUsers");
                all_read |= all && matches!(raw, b"READ" | b"FULL_CONTROL");
                all_write |= all && matches!(raw, b"WRITE" | b"FULL_CONTROL");
                known_read |= known && matches!(raw, b"READ" | b"FULL_CONTROL");
            }
            _ => {}
        }
    }
    Ok(match (all_read, all_write, known_read) {
        (true, true, _) => Some("public-read-write"),
        (true, false, _) => Some("public-read"),
        (false, _, true) => Some("authenticated-read"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_versions_xml() {
        let whole = b"<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextVersionIdMarker>v</NextVersionIdMarker>\
            <Version><Key>k</Key><VersionId>v</VersionId><IsLatest>true</IsLatest><LastModified>2024-01-01T00:00:00.000Z</LastModified>\
            <ETag>&quot;x&quot;</ETag><Size>1</Size></Version><DeleteMarker><Key>k</Key><VersionId>w</VersionId><IsLatest>false</IsLatest>\
            <LastModified>2024-01-01T00:00:00.000Z</LastModified></DeleteMarker></ListVersionsResult>";
        let acl = b"<AccessControlPolicy><AccessControlList><Grant><Grantee><URI>http://acs.amazonaws.com/groups/global/AllUsers</URI></Grantee>\
            <Permission>READ</Permission></Grant></AccessControlList></AccessControlPolicy>";
        testkit::fuzz::fuzz("versions xml", &[whole.to_vec(), acl.to_vec()], |input, _| {
            let _ = parse(input).map(|_| ());
            let _ = canned(input);
        });
    }
}
