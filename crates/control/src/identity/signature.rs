//! AK/SK signatures as every SDK computes them (auth.md §2): `SDK-HMAC-SHA256`, and `V11-HMAC-SHA256` with its
//! derived key. Pure: raw request in, verdict out.

use ring::hmac;
use storage::checksum::{hex, sha256_hex};
use subtle::ConstantTimeEq;

use super::{Accounts, Principal};

/// Largest difference between the time of a signature and the clock.
const SKEW_MS: i64 = 15 * 60 * 1000;
/// Stands in place of the hash of a body that the signature does not cover.
pub const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// A request as received: nothing normalised, nothing decoded.
#[derive(Debug)]
pub struct RawRequest<'a> {
    /// Method.
    pub method: &'a str,
    /// Path up to `?`.
    pub path: &'a str,
    /// Query without `?`.
    pub query: &'a str,
    /// Names in lower case, raw values, in the order received.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// Body.
    pub body: &'a [u8],
}

/// Why a signature does not let in; the text stands behind `Incorrect IAM authentication information: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureRefused {
    /// The access key that was claimed, when one was.
    pub access_key: Option<String>,
    /// The text (auth.md §2.5).
    pub text: String,
}

fn refused(access_key: Option<&str>, text: impl Into<String>) -> SignatureRefused {
    SignatureRefused { access_key: access_key.map(str::to_owned), text: text.into() }
}

struct SignatureHeader<'a> {
    access_key: &'a str,
    signed: Vec<&'a str>,
    signature: &'a str,
    /// `date/region/service` of V11.
    scope: Option<&'a str>,
}

fn parse(header: &str) -> Option<SignatureHeader<'_>> {
    let (algorithm, params) = header.split_once(' ')?;
    let derived = match algorithm {
        "SDK-HMAC-SHA256" => false,
        "V11-HMAC-SHA256" => true,
        _ => return None,
    };
    let (mut access, mut names, mut signature) = (None, None, None);
    for part in params.split(',') {
        let (name, value) = part.trim().split_once('=')?;
        let slot = match name {
            "Access" if !derived => &mut access,
            "Credential" if derived => &mut access,
            "SignedHeaders" => &mut names,
            "Signature" => &mut signature,
            _ => return None,
        };
        if slot.replace(value).is_some() {
            return None;
        }
    }
    let (access, signature) = (access?, signature?);
    let (access_key, scope) = match derived {
        true => access.split_once('/').map(|(ak, scope)| (ak, Some(scope)))?,
        false => (access, None),
    };
    let is_hex = signature.len() == 64 && signature.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let fits = (1..=super::NAME_MAX).contains(&access_key.len());
    if !is_hex || !fits || !access_key.bytes().all(known) {
        return None;
    }
    Some(SignatureHeader { access_key, signed: names?.split(';').collect(), signature, scope })
}

fn unsupported() -> SignatureRefused {
    refused(None, "unsupported authorization")
}

fn all<'a>(raw: &RawRequest<'a>, name: &str) -> Vec<&'a [u8]> {
    raw.headers.iter().filter(|(n, _)| *n == name).map(|(_, v)| *v).collect()
}

fn one<'a>(raw: &RawRequest<'a>, name: &str) -> Result<Option<&'a str>, SignatureRefused> {
    match all(raw, name)[..] {
        [] => Ok(None),
        [value] => std::str::from_utf8(value).map(|v| Some(v.trim())).map_err(|_| unsupported()),
        _ => Err(unsupported()),
    }
}

/// Checks what can be said without the body: who signed, when, and that what must be signed is. The body of a request
/// that fails here is not waited for.
///
/// # Errors
/// As [`verify`].
pub fn check_head(raw: &RawRequest<'_>, accounts: &Accounts, now: i64) -> Result<(), SignatureRefused> {
    head(raw, accounts, now).map(drop)
}

/// The claim, the key that it names, and the instant that it was signed at.
fn head<'a, 'p>(
    raw: &RawRequest<'a>,
    accounts: &'p Accounts,
    now: i64,
) -> Result<(SignatureHeader<'a>, &'p super::Key, &'a str), SignatureRefused> {
    let claim = one(raw, "authorization")?.and_then(parse).ok_or_else(unsupported)?;
    let ak = claim.access_key;
    let key = accounts.keys.get(ak).ok_or_else(|| refused(Some(ak), format!("ak {ak} not exist")))?;
    if !key.enabled {
        return Err(refused(Some(ak), format!("ak {ak} is disabled")));
    }
    let is_signed = |name: &str| claim.signed.contains(&name);
    let stamp = one(raw, "x-sdk-date")?.filter(|_| is_signed("x-sdk-date"));
    let stamp = stamp.ok_or_else(|| refused(Some(ak), "x-sdk-date must be present and signed"))?;
    let at = instant(stamp).ok_or_else(|| refused(Some(ak), "x-sdk-date is not YYYYMMDDTHHMMSSZ"))?;
    if (now - at).abs() > SKEW_MS {
        let server = storage::s3::sign::stamp(now);
        let text = format!(
            "calc aksk signature fail:signature expired, signature time:{stamp},server time:{server}"
        );
        return Err(refused(Some(ak), text));
    }
    // The Terraform provider adds `x-project-id` and `x-domain-id` after it has signed: the first only narrows what the key may
    // do, the second decides nothing. Of these two the values are used, so they must be the signer's.
    for name in ["x-security-token", "x-sdk-content-sha256"] {
        if !all(raw, name).is_empty() && !is_signed(name) {
            return Err(refused(Some(ak), format!("{name} is present but not signed")));
        }
    }
    if one(raw, "x-security-token")?.is_some() {
        return Err(refused(Some(ak), "this access key is permanent and has no security token"));
    }
    if claim.signed.iter().any(|name| all(raw, name).is_empty()) {
        return Err(refused(Some(ak), "a signed header is missing from the request"));
    }
    Ok((claim, key, stamp))
}

/// Recognises the caller of a signed request, at `now` milliseconds.
///
/// # Errors
/// The first check that fails, in the order of auth.md §2.5.
pub fn verify(raw: &RawRequest<'_>, accounts: &Accounts, now: i64) -> Result<Principal, SignatureRefused> {
    let (claim, key, stamp) = head(raw, accounts, now)?;
    let ak = claim.access_key;
    let own = sha256_hex(raw.body);
    // The header is signed when it is there (see above). The PHP SDK puts this word there for all its JSON, also without a body,
    // where Python takes the hash of nothing all the same (auth.md §2.3 step 5).
    let payloads = match one(raw, "x-sdk-content-sha256")? {
        Some(UNSIGNED) if raw.body.is_empty() => vec![UNSIGNED, own.as_str()],
        Some(UNSIGNED) => vec![UNSIGNED],
        Some(claimed) if !raw.body.is_empty() && claimed != own => {
            return Err(refused(Some(ak), "x-sdk-content-sha256 is not the hash of the body"));
        }
        _ => vec![own.as_str()],
    };
    let Some(headers) = canonical_headers(&claim.signed, &raw.headers) else {
        return Err(refused(Some(ak), "a signed header is missing from the request"));
    };
    let names = claim.signed.join(";");
    let canonical = |query: &str, payload: &str| {
        let mut text = Vec::with_capacity(512);
        for piece in
            [raw.method.as_bytes(), &canonical_path(raw.path), query.as_bytes(), &headers, names.as_bytes()]
        {
            text.extend_from_slice(piece);
            text.push(b'\n');
        }
        text.extend_from_slice(payload.as_bytes());
        text
    };
    let secret = key.secret.expose();
    let good = |canonical: &[u8]| {
        let hashed = sha256_hex(canonical);
        let (key, text) = match claim.scope {
            None => (secret.to_owned(), format!("SDK-HMAC-SHA256\n{stamp}\n{hashed}")),
            Some(scope) => {
                (derive(ak, secret, scope), format!("V11-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"))
            }
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
        bool::from(signature.as_bytes().ct_eq(claim.signature.as_bytes()))
    };
    let dated = claim.scope.is_none_or(|s| s.split('/').next() == stamp.get(..8));
    // Clients disagree on the order of values of a repeated name (auth.md §2.3 step 3).
    let queries = [canonical_query(raw.query, true), canonical_query(raw.query, false)];
    let fine = dated && queries.iter().any(|q| payloads.iter().any(|p| good(&canonical(q, p))));
    if !fine {
        let first = canonical(&queries[0], payloads[0]);
        let shown = mask(&String::from_utf8_lossy(&first)).replace('\n', "|");
        return Err(refused(Some(ak), format!("verify aksk signature fail, canonicalRequest:{shown}")));
    }
    Ok(Principal {
        subject: format!("ak:{ak}"),
        name: ak.to_owned(),
        role: key.role,
        projects: vec![key.project.clone()],
    })
}

/// The 64 characters that sign in V11 (auth.md §2.6).
fn derive(ak: &str, sk: &str, scope: &str) -> String {
    let prk = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, ak.as_bytes()), sk.as_bytes());
    let mut info = scope.as_bytes().to_vec();
    info.push(1);
    hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, prk.as_ref()), &info).as_ref())
}

fn mask(canonical: &str) -> String {
    let line = |l: &str| {
        for name in ["x-security-token:", "x-auth-token:"] {
            if l.starts_with(name) {
                return format!("{name}***");
            }
        }
        l.to_owned()
    };
    canonical.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

fn decode(text: &str) -> Vec<u8> {
    storage::s3::list_parser::percent_decode(text.as_bytes(), false)
}

/// Decoded once as a whole, split at `/`, each segment encoded, with a slash at the end.
fn canonical_path(path: &str) -> Vec<u8> {
    let mut out = String::new();
    storage::s3::sign::encode(&mut out, &decode(path), true);
    if !out.ends_with('/') {
        out.push('/');
    }
    out.into_bytes()
}

fn canonical_query(query: &str, by_value: bool) -> String {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(n, v)| (decode(n), decode(v)))
        .collect();
    if by_value {
        pairs.sort();
    } else {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
    }
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        storage::s3::sign::encode(&mut out, &name, false);
        out.push('=');
        storage::s3::sign::encode(&mut out, &value, false);
    }
    out
}

/// `name:value LF` for each signed header; none when one is missing.
fn canonical_headers(signed: &[&str], headers: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    for name in signed {
        let mut values: Vec<&[u8]> =
            headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.trim_ascii()).collect();
        if values.is_empty() {
            return None;
        }
        values.sort_unstable();
        for value in values {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            out.extend_from_slice(value);
            out.push(b'\n');
        }
    }
    Some(out)
}

fn instant(stamp: &str) -> Option<i64> {
    let b = stamp.as_bytes();
    let shape = b.len() == 16 && b[8] == b'T' && b[15] == b'Z';
    let digits = b.iter().enumerate().all(|(i, c)| i == 8 || i == 15 || c.is_ascii_digit());
    if !shape || !digits {
        return None;
    }
    let n = |from: usize, to: usize| stamp[from..to].parse::<u8>().ok();
    let month = time::Month::try_from(n(4, 6)?).ok()?;
    let date = time::Date::from_calendar_date(stamp[..4].parse().ok()?, month, n(6, 8)?).ok()?;
    let at = date.with_hms(n(9, 11)?, n(11, 13)?, n(13, 15)?).ok()?;
    Some(at.assume_utc().unix_timestamp() * 1000)
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
