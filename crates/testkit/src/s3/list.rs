//! Listings of objects.

use std::sync::Arc;

use http::{Response, StatusCode};
use storage::checksum::hex;

use super::{ParsedRequest, ResponseBody, State, error, lock, text, unhex};

fn encoded(key: &[u8]) -> String {
    let mut out = String::with_capacity(key.len() + 8);
    storage::s3::sign::encode(&mut out, key, true);
    out
}

/// `YYYY-MM-DDThh:mm:ss.000Z`
fn iso(ms: i64) -> String {
    let stamp = storage::s3::sign::stamp(ms);
    let s = |a: usize, b: usize| stamp.get(a..b).unwrap_or_default();
    format!(
        "{}-{}-{}T{}:{}:{}.{:03}Z",
        s(0, 4),
        s(4, 6),
        s(6, 8),
        s(9, 11),
        s(11, 13),
        s(13, 15),
        ms.rem_euclid(1000)
    )
}

pub(super) fn list(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let buckets = lock(&state.buckets);
    let Some(keys) = buckets.get(&asked.bucket) else { return error(StatusCode::NOT_FOUND, "NoSuchBucket") };
    let max = asked.value("max-keys").and_then(|m| m.parse().ok()).unwrap_or(1000usize).min(1000);
    let second = asked.value("list-type").as_deref() == Some("2");
    let token = asked.value("continuation-token").map(|t| unhex(&t));
    let key = ["marker", "start-after"].into_iter().find_map(|n| asked.value(n)).map(String::into_bytes);
    let after = token.or(key).unwrap_or_default();
    let prefix = asked.value("prefix").unwrap_or_default();
    let mut xml: Vec<u8> = Vec::with_capacity(max * 260 + 400);
    let mut n = 0;
    let mut when = (0, String::new());
    let mut last = Vec::new();
    let more = keys.walk(state.options.order, &after, prefix.as_bytes(), |key, object| {
        if n == max {
            return false;
        }
        n += 1;
        if n == max {
            last = key.to_vec();
        }
        if when.0 != object.modified_ms {
            when = (object.modified_ms, iso(object.modified_ms));
        }
        let plain = key.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'/' | b'.' | b'_'));
        xml.extend_from_slice(b"<Contents><Key>");
        if plain {
            xml.extend_from_slice(key)
        } else {
            xml.extend_from_slice(encoded(key).as_bytes())
        }
        xml.extend_from_slice(b"</Key><LastModified>");
        xml.extend_from_slice(when.1.as_bytes());
        xml.extend_from_slice(b"</LastModified><ETag>&quot;");
        xml.extend_from_slice(object.etag.as_bytes());
        xml.extend_from_slice(b"&quot;</ETag><Size>");
        xml.extend_from_slice(object.content.len().to_string().as_bytes());
        xml.extend_from_slice(b"</Size><StorageClass>STANDARD</StorageClass></Contents>");
        true
    });
    let mut out = Vec::with_capacity(xml.len() + 300);
    out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><EncodingType>url</EncodingType><IsTruncated>");
    out.extend_from_slice(if more { b"true" } else { b"false" });
    out.extend_from_slice(b"</IsTruncated>");
    if second {
        out.extend_from_slice(format!("<KeyCount>{n}</KeyCount>").as_bytes());
    }
    if more && second {
        let token = hex(&last);
        out.extend_from_slice(format!("<NextContinuationToken>{token}</NextContinuationToken>").as_bytes());
    } else if more {
        out.extend_from_slice(format!("<NextMarker>{}</NextMarker>", encoded(&last)).as_bytes());
    }
    out.extend_from_slice(&xml);
    out.extend_from_slice(b"</ListBucketResult>");
    text(StatusCode::OK, out)
}
