//! Requests for single objects.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};

use super::body::{CRC64, StoredBody};
use super::{
    Checksums, Options, ParsedRequest, ResponseBody, State, error, kept, lock, now_ms, object, text, with_crc,
};
use crate::content::Content;
use crate::keys::{Keys, Object, Sorted};

/// The headers that are kept with an object.
fn kept_headers(options: &Options, headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut kept = carried(headers);
    if options.checksums == Checksums::Verified {
        for (_, value) in kept.iter_mut().filter(|(name, _)| name == "content-encoding") {
            let text = String::from_utf8_lossy(value).into_owned();
            let words = text.split(',').map(str::trim).filter(|word| *word != "aws-chunked");
            *value = words.collect::<Vec<_>>().join(",").into_bytes();
        }
        kept.retain(|(name, value)| name != "content-encoding" || !value.is_empty());
    }
    kept
}

pub(super) fn carried(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers
        .iter()
        .filter(|(n, _)| {
            storage::Meta::carries(n) || matches!(n.as_str(), "x-amz-storage-class" | "x-amz-tagging")
        })
        .map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec()))
        .collect()
}

pub(super) fn get(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let buckets = lock(&state.buckets);
    let Some(keys) = buckets.get(&asked.bucket) else { return error(StatusCode::NOT_FOUND, "NoSuchBucket") };
    let Some(object) = keys.get(state.options.order, &asked.key) else {
        return error(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    let wanted = asked.headers.get("if-match").and_then(|v| v.to_str().ok()).map(|v| v.trim_matches('"'));
    if wanted.is_some_and(|w| w != object.etag) {
        return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
    }
    let len = object.content.len();
    let part = asked.value("partNumber").and_then(|n| n.parse::<u64>().ok());
    let range = match (part, asked.range(len)) {
        (Some(n), _) => {
            let size = object.part_size.unwrap_or(len.max(1));
            Some((n - 1) * size..(n * size).min(len))
        }
        (None, range) => range,
    };
    let (status, span) = match range {
        Some(range) => (StatusCode::PARTIAL_CONTENT, range),
        None => (StatusCode::OK, 0..len),
    };
    let body = ResponseBody {
        content: object.content.clone(),
        at: span.start,
        end: span.end,
        promised: span.end,
        sized: true,
        state: Some(state.clone()),
    };
    let mut builder = Response::builder().status(status).header("etag", format!("\"{}\"", object.etag));
    let modified = std::time::UNIX_EPOCH + Duration::from_millis(object.modified_ms.max(0) as u64);
    builder = builder.header("last-modified", httpdate::fmt_http_date(modified));
    if status == StatusCode::PARTIAL_CONTENT {
        builder = builder
            .header("content-range", format!("bytes {}-{}/{len}", span.start, span.end.saturating_sub(1)));
    }
    if part.is_some() {
        let count = object.part_size.map_or(1, |p| len.div_ceil(p));
        builder = builder.header("x-amz-mp-parts-count", count);
    }
    for (name, value) in &object.headers {
        match name.as_str() {
            "x-amz-tagging" => {
                let count = value.split(|b| *b == b'&').count();
                builder = builder.header("x-amz-tagging-count", count);
            }
            _ => builder = builder.header(name.as_str(), value.as_slice()),
        }
    }
    builder = builder.header("content-length", span.end - span.start);
    builder.body(body).unwrap_or_else(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
}

pub(super) fn tagging(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let buckets = lock(&state.buckets);
    let object = buckets.get(&asked.bucket).and_then(|k| k.get(state.options.order, &asked.key));
    let mut xml = String::from("<Tagging><TagSet>");
    let tags = object.and_then(|o| o.headers.iter().find(|(n, _)| n == "x-amz-tagging"));
    let decode = |b: &str| {
        String::from_utf8_lossy(&storage::s3::list_parser::percent_decode(b.as_bytes(), true)).into_owned()
    };
    for pair in tags.map(|(_, v)| String::from_utf8_lossy(v).into_owned()).unwrap_or_default().split('&') {
        if let Some((n, v)) = pair.split_once('=') {
            xml.push_str(&format!(
                "<Tag><Key>{}</Key><Value>{}</Value></Tag>",
                storage::xml::escape(&decode(n)),
                storage::xml::escape(&decode(v))
            ));
        }
    }
    text(StatusCode::OK, xml + "</TagSet></Tagging>")
}

pub(super) fn with_etag(etag: &str) -> Response<ResponseBody> {
    let mut response = text(StatusCode::OK, "");
    if let Ok(value) = http::HeaderValue::from_str(&format!("\"{etag}\"")) {
        response.headers_mut().insert("etag", value);
    }
    response
}

pub(super) fn content_of(taken: StoredBody) -> Content {
    match taken {
        StoredBody::Kept(bytes) => Content::Given(bytes.into()),
        StoredBody::Counted(n) => Content::Pattern(n),
    }
}

pub(super) fn put(state: &Arc<State>, asked: &ParsedRequest, taken: StoredBody) -> Response<ResponseBody> {
    if asked.key.len() > 1024 {
        return error(StatusCode::BAD_REQUEST, "KeyTooLongError");
    }
    let content = match asked.headers.get("x-amz-copy-source").and_then(|v| v.to_str().ok()) {
        None => content_of(taken),
        Some(source) => {
            let (bucket, key) = source.trim_start_matches('/').split_once('/').unwrap_or_default();
            let key = storage::s3::list_parser::percent_decode(key.as_bytes(), false);
            let buckets = lock(&state.buckets);
            let found = buckets.get(bucket).and_then(|k| k.get(state.options.order, &key)).cloned();
            drop(buckets);
            let Some(found) = found else { return error(StatusCode::NOT_FOUND, "NoSuchKey") };
            let etag = found.etag.clone();
            store(state, asked, Object { modified_ms: now_ms(), ..found });
            return text(
                StatusCode::OK,
                format!("<CopyObjectResult><ETag>\"{etag}\"</ETag></CopyObjectResult>"),
            );
        }
    };
    let made = kept(&state.options, object(content, None, kept_headers(&state.options, &asked.headers)));
    let answer = with_crc(with_etag(&made.etag), &made);
    store(state, asked, made);
    repeated(state, asked, answer)
}

/// The answer with the checksum of the request, where the server repeats it unread.
pub(super) fn repeated(
    state: &State,
    asked: &ParsedRequest,
    mut answer: Response<ResponseBody>,
) -> Response<ResponseBody> {
    if state.options.checksums == Checksums::Repeated
        && let Some(told) = asked.headers.get(CRC64)
    {
        answer.headers_mut().insert(CRC64, told.clone());
    }
    answer
}

pub(super) fn store(state: &Arc<State>, asked: &ParsedRequest, object: Object) {
    let mut buckets = lock(&state.buckets);
    if state.options.discard && object.content.len() < 1 << 30 && !state.options.log {
        return;
    }
    if let Some(Keys::Kept(map)) = buckets.get_mut(&asked.bucket) {
        map.insert(Sorted(state.options.order, asked.key.clone()), object);
    }
}
