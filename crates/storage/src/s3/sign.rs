//! AWS Signature Version 4 with an unsigned payload (AWS "Signature Calculations for the Authorization
//! Header"). The signing key is derived once per day and region.

use std::sync::Mutex;

use http::{HeaderMap, HeaderValue};
use ring::hmac;

use crate::checksum::{hex, sha256_hex};

/// SHA-256 is not computed over bodies: integrity is proved by ETags and digests after the write.
pub const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Who signs.
#[derive(Clone)]
pub struct Credentials {
    /// Access key id.
    pub access_key: String,
    /// Secret key; never printed.
    pub secret_key: String,
    /// Session token of temporary credentials.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(sealed)")
    }
}

/// Signs requests for one region with one pair of keys.
#[derive(Debug)]
pub struct Signer {
    credentials: Credentials,
    region: String,
    key: Mutex<Option<(String, hmac::Key)>>,
}

impl Signer {
    /// A signer for `region`.
    pub fn new(credentials: Credentials, region: &str) -> Self {
        Self { credentials, region: region.to_owned(), key: Mutex::new(None) }
    }

    fn key_of(&self, day: &str) -> hmac::Key {
        let mut cached = self.key.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((d, key)) = cached.as_ref()
            && d == day
        {
            return key.clone();
        }
        let step =
            |key: &[u8], data: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes());
        let secret = format!("AWS4{}", self.credentials.secret_key);
        let date = step(secret.as_bytes(), day);
        let region = step(date.as_ref(), &self.region);
        let service = step(region.as_ref(), "s3");
        let key = hmac::Key::new(hmac::HMAC_SHA256, step(service.as_ref(), "aws4_request").as_ref());
        *cached = Some((day.to_owned(), key.clone()));
        key
    }

    /// Adds `x-amz-date`, `x-amz-content-sha256` where it is not set, the session token and `authorization` to `headers`.
    /// `path` and `query` are as sent: percent-encoded, the query sorted by name. `stamp` is
    /// `YYYYMMDDTHHMMSSZ`.
    pub fn sign(&self, method: &str, path: &str, query: &str, headers: &mut HeaderMap, stamp: &str) {
        let payload =
            headers.entry("x-amz-content-sha256").or_insert(HeaderValue::from_static(UNSIGNED)).clone();
        if let Ok(value) = HeaderValue::from_str(stamp) {
            headers.insert("x-amz-date", value);
        }
        if let Some(token) = &self.credentials.session_token
            && let Ok(mut value) = HeaderValue::from_str(token)
        {
            value.set_sensitive(true);
            headers.insert("x-amz-security-token", value);
        }
        let mut signed: Vec<(&str, &HeaderValue)> = headers
            .iter()
            .filter(|(name, _)| *name == "host" || name.as_str().starts_with("x-"))
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        signed.sort_unstable_by_key(|(name, _)| *name);

        let mut canonical = Vec::with_capacity(512);
        for piece in [method, "\n", path, "\n", query, "\n"] {
            canonical.extend_from_slice(piece.as_bytes());
        }
        let mut names = String::with_capacity(64);
        for (name, value) in &signed {
            canonical.extend_from_slice(name.as_bytes());
            canonical.push(b':');
            extend_folded(&mut canonical, value.as_bytes());
            canonical.push(b'\n');
            if !names.is_empty() {
                names.push(';');
            }
            names.push_str(name);
        }
        canonical.push(b'\n');
        canonical.extend_from_slice(names.as_bytes());
        canonical.push(b'\n');
        canonical.extend_from_slice(payload.as_bytes());

        let day = stamp.get(..8).unwrap_or(stamp);
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let hash = sha256_hex(&canonical);
        let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hash}");
        let signature = hex(hmac::sign(&self.key_of(day), text.as_bytes()).as_ref());
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.credentials.access_key
        );
        if let Ok(mut value) = HeaderValue::from_str(&value) {
            value.set_sensitive(true);
            headers.insert(http::header::AUTHORIZATION, value);
        }
    }
}

/// A header's value as it is signed: without blanks at its ends, and with one for each run of blanks inside (AWS
/// "Create a canonical request": Trim).
fn extend_folded(out: &mut Vec<u8>, value: &[u8]) {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let mut words = value.split(blank).filter(|word| !word.is_empty());
    if let Some(first) = words.next() {
        out.extend_from_slice(first);
    }
    for word in words {
        out.push(b' ');
        out.extend_from_slice(word);
    }
}

/// `YYYYMMDDTHHMMSSZ` of an instant in milliseconds since the epoch.
pub fn stamp(ms: i64) -> String {
    let t = model::instant::utc(ms);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// Appends `bytes` percent-encoded: everything but unreserved characters, and `/` when `keep_slash`.
pub fn encode(out: &mut String, bytes: &[u8], keep_slash: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &b in bytes {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(b as char),
            b'/' if keep_slash => out.push('/'),
            _ => {
                out.push('%');
                out.push(DIGITS[usize::from(b >> 4)] as char);
                out.push(DIGITS[usize::from(b & 15)] as char);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chain of keys and the signature for a fixed request, checked against botocore 1.40.
    #[test]
    fn timestamp_and_encoding_are_canonical() {
        assert_eq!(stamp(1_768_465_800_000), "20260115T083000Z");
        let mut out = String::new();
        encode(&mut out, "a b+ü/~*".as_bytes(), true);
        assert_eq!(out, "a%20b%2B%C3%BC/~%2A");
    }

    #[test]
    fn s3_secret_is_not_printed() {
        let c = Credentials { access_key: "AK".into(), secret_key: "SECRET".into(), session_token: None };
        assert!(!format!("{c:?} {:?}", Signer::new(c.clone(), "r")).contains("SECRET"));
    }
}
