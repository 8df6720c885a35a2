//! User metadata in Azure's names (letters, digits and `_` only) and values (ASCII only). A name with anything else is renamed the way
//! Microsoft's own mover does it, so that either can restore it: `rename_a_b` holds the value and
//! `rename_key_a_b` the name `a-b`. A value that is not ASCII is percent-encoded, and its name is listed in
//! `whimbrel_encoded`, so that it comes back as it went.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::s3::list_parser::percent_decode;

const S3_META_PREFIX: &str = "x-amz-meta-";
const AZURE_META_PREFIX: &str = "x-ms-meta-";
const ENCODED_NAMES: &str = "whimbrel_encoded";

/// What another name may stand in for is renamed too, so that each name comes back as itself.
fn is_azure_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.starts_with("rename_")
        && name != ENCODED_NAMES
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A name behind `rename_` that no other of this blob has.
fn unused_name(bare: &str, taken: &mut HashSet<String>) -> String {
    let mut plain: String = bare.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if plain.starts_with("key_") {
        plain.insert(0, 'x');
    }
    let first = plain.clone();
    let mut n = 1;
    while !taken.insert(plain.clone()) {
        n += 1;
        plain = format!("{first}_{n}");
    }
    plain
}

fn encode(value: &[u8]) -> String {
    let mut out = String::new();
    for &b in value {
        if b.is_ascii() && b != b'%' { out.push(b as char) } else { out.push_str(&format!("%{b:02X}")) }
    }
    out
}

/// What a write sends.
pub(super) fn to_azure(headers: &[(HeaderName, HeaderValue)]) -> Vec<(HeaderName, HeaderValue)> {
    let (mut out, mut encoded, mut taken) = (Vec::new(), Vec::new(), HashSet::new());
    let mut push = |name: &str, value: HeaderValue| {
        if let Ok(name) = HeaderName::try_from(format!("{AZURE_META_PREFIX}{name}")) {
            out.push((name, value));
        }
    };
    for (name, value) in headers {
        let Some(bare) = name.as_str().strip_prefix(S3_META_PREFIX) else { continue };
        let (mut name, mut value) = (bare.to_owned(), value.clone());
        if !is_azure_name(bare) {
            let plain = unused_name(bare, &mut taken);
            if let Ok(original) = HeaderValue::from_str(bare) {
                push(&format!("rename_key_{plain}"), original);
            }
            name = format!("rename_{plain}");
        }
        if !value.as_bytes().is_ascii()
            && let Ok(ascii) = HeaderValue::from_str(&encode(value.as_bytes()))
        {
            value = ascii;
            encoded.push(name.clone());
        }
        push(&name, value);
    }
    if let Ok(list) = HeaderValue::from_str(&encoded.join(","))
        && !encoded.is_empty()
    {
        push(ENCODED_NAMES, list);
    }
    out
}

/// What a read brings.
pub(super) fn from_azure(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let at_azure =
        |name: &str| headers.get(format!("{AZURE_META_PREFIX}{name}")).and_then(|v| v.to_str().ok());
    let encoded: Vec<&str> =
        at_azure(ENCODED_NAMES).map(|list| list.split(',').collect()).unwrap_or_default();
    let mut out = Vec::new();
    for (name, value) in headers {
        let Some(bare) = name.as_str().strip_prefix(AZURE_META_PREFIX) else { continue };
        let names_another =
            bare.strip_prefix("rename_key_").is_some_and(|p| at_azure(&format!("rename_{p}")).is_some());
        if names_another || bare == ENCODED_NAMES {
            continue;
        }
        let renamed = bare.strip_prefix("rename_").and_then(|plain| at_azure(&format!("rename_key_{plain}")));
        let value = match encoded.contains(&bare) {
            true => HeaderValue::from_bytes(&percent_decode(value.as_bytes(), false)),
            false => Ok(value.clone()),
        };
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(format!("{S3_META_PREFIX}{}", renamed.unwrap_or(bare))), value)
        {
            out.push((name, value));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_names_round_trip() {
        let header =
            |n: &'static str, v: &[u8]| (HeaderName::from_static(n), HeaderValue::from_bytes(v).unwrap());
        let original = vec![
            header("x-amz-meta-plain", b"1%41"),
            header("x-amz-meta-my-key.x", "ü%".as_bytes()),
            header("etag", b"3"),
        ];
        let at_azure = to_azure(&original);
        let names: Vec<&str> = at_azure.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(
            names,
            [
                "x-ms-meta-plain",
                "x-ms-meta-rename_key_my_key_x",
                "x-ms-meta-rename_my_key_x",
                "x-ms-meta-whimbrel_encoded"
            ]
        );
        assert_eq!(at_azure[2].1, "%C3%BC%25");
        let mut back = from_azure(&at_azure.into_iter().collect());
        back.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        assert_eq!(back, [original[1].clone(), original[0].clone()]);
    }

    #[test]
    fn similar_metadata_names_stay_distinct() {
        let names = [
            "a-b",
            "a.b",
            "a_b",
            "a-b_2",
            "rename_a_b",
            "rename_key_a_b",
            "key-a-b",
            "key_a_b",
            "whimbrel_encoded",
            "x",
            "1a",
        ];
        let mut original: Vec<(HeaderName, HeaderValue)> = names
            .iter()
            .map(|n| {
                (
                    HeaderName::try_from(format!("{S3_META_PREFIX}{n}")).unwrap(),
                    HeaderValue::from_str(n).unwrap(),
                )
            })
            .collect();
        let at_azure = to_azure(&original);
        let distinct: HashSet<&HeaderName> = at_azure.iter().map(|(n, _)| n).collect();
        assert_eq!(distinct.len(), at_azure.len());
        let mut back = from_azure(&at_azure.into_iter().collect());
        original.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        back.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        assert_eq!(back, original);
    }
}
