//! Shared Key and shared access signatures (Azure "Authorize with Shared Key").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use ring::hmac;

use crate::s3::sign::encode;

/// Who asks.
#[derive(Clone)]
pub enum Access {
    /// Anybody: containers that are open to the public.
    Anonymous,
    /// The account's key.
    Key(hmac::Key),
    /// A ready token for the query.
    Sas(String),
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Access::Anonymous => "Anonymous",
            Access::Key(_) => "Key(sealed)",
            Access::Sas(_) => "Sas(sealed)",
        })
    }
}

/// What is signed.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) account: &'a str,
    /// Percent-encoded, as sent.
    pub(super) path: &'a str,
    pub(super) query: &'a [(&'static str, String)],
    pub(super) length: u64,
}

impl Access {
    /// The account's key as it is given out: base64. None when it is no base64.
    pub fn key(text: &str) -> Option<Access> {
        Some(Access::Key(hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(text.trim()).ok()?)))
    }

    /// Adds what proves who asks; answers path and query as they are to be sent.
    pub(super) fn sign(&self, request: &Request<'_>, headers: &mut HeaderMap) -> String {
        let mut url = request.path.to_owned();
        let mut mark = '?';
        for (name, value) in request.query {
            url.push(mark);
            url.push_str(name);
            url.push('=');
            encode(&mut url, value.as_bytes(), false);
            mark = '&';
        }
        match self {
            Access::Anonymous => {}
            Access::Sas(token) => {
                url.push(mark);
                url.push_str(token.trim_start_matches('?'));
            }
            Access::Key(key) => {
                let signature = STANDARD.encode(hmac::sign(key, &canonical(request, headers)));
                let value = format!("SharedKey {}:{signature}", request.account);
                if let Ok(mut value) = HeaderValue::from_str(&value) {
                    value.set_sensitive(true);
                    headers.insert(header::AUTHORIZATION, value);
                }
            }
        }
        url
    }
}

/// The text that is signed, service version 2015-02-21 and later.
fn canonical(request: &Request<'_>, headers: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let value = |name: &str| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    out.extend_from_slice(request.method.as_bytes());
    out.push(b'\n');
    let length = if request.length == 0 { String::new() } else { request.length.to_string() };
    for line in [value("content-encoding"), value("content-language"), length.as_bytes()] {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    for name in [
        "content-md5",
        "content-type",
        "date",
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ] {
        out.extend_from_slice(value(name));
        out.push(b'\n');
    }
    let mut own: Vec<(&str, &HeaderValue)> = headers
        .iter()
        .filter(|(n, _)| n.as_str().starts_with("x-ms-"))
        .map(|(n, v)| (n.as_str(), v))
        .collect();
    own.sort_unstable_by_key(|(n, _)| *n);
    for (name, value) in own {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        out.extend_from_slice(value.as_bytes().trim_ascii());
        out.push(b'\n');
    }
    out.push(b'/');
    out.extend_from_slice(request.account.as_bytes());
    out.extend_from_slice(request.path.as_bytes());
    let mut query: Vec<(String, &str)> =
        request.query.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.as_str())).collect();
    query.sort_unstable();
    for (name, value) in query {
        out.extend_from_slice(format!("\n{name}:{value}").as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_key_is_not_printed() {
        let key = Access::key("c2VjcmV0").unwrap();
        assert_eq!(format!("{key:?} {:?}", Access::Sas("sig=x".into())), "Key(sealed) Sas(sealed)");
        assert!(Access::key("not base64!").is_none());
    }

    /// The layout of Microsoft's published example of a listing, with its lines in their places.
    #[test]
    fn string_to_sign_matches_the_specification() {
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-version", HeaderValue::from_static("2015-02-21"));
        headers.insert("x-ms-date", HeaderValue::from_static("Fri, 26 Jun 2015 23:39:12 GMT"));
        let query = [("restype", "container".to_owned()), ("comp", "metadata".to_owned())];
        let request =
            Request { method: "GET", account: "myaccount", path: "/mycontainer", query: &query, length: 0 };
        let text = String::from_utf8(canonical(&request, &headers)).unwrap();
        assert_eq!(
            text,
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container"
        );
    }
}
