//! Reading objects and what describes them.

use http::{HeaderValue, Method};
use model::error::{Error, Kind, Result};
use model::key::Key;

use super::client::{ApiCall, S3, body_of};
use super::versions;
use crate::body::Body;
use crate::http::{check_range, length};
use crate::meta::Meta;
use crate::xml::blocks;
use crate::{ReadRequest, Reading, no_length};

impl S3 {
    pub(super) async fn head_object(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        let number = part.map(|n| n.to_string());
        let mut query: Vec<(&str, &str)> = number.iter().map(|n| ("partNumber", n.as_str())).collect();
        query.extend(self.version_query());
        let mut call = ApiCall { query: &query, ..ApiCall::new("head", Method::HEAD, Some(key)) };
        call.headers.insert("x-amz-checksum-mode", HeaderValue::from_static("ENABLED"));
        let answer = match self.send(call).await {
            Err(f) if f.kind == Kind::Invalid => return Err(self.failure_of_get(key, &query, f).await),
            answer => answer?,
        };
        let mut meta = self.meta_of(answer.headers());
        if part.is_some() {
            meta.size = length(answer.headers()).unwrap_or(0);
        }
        Ok(meta)
    }

    /// Why a HEAD was refused: its answer has no body, so the first byte is read instead (AWS "HeadObject").
    pub(super) async fn failure_of_get(&self, key: &Key, query: &[(&str, &str)], refused: Error) -> Error {
        let mut call = ApiCall { query, ..ApiCall::new("head", Method::GET, Some(key)) };
        call.headers.insert(http::header::RANGE, HeaderValue::from_static("bytes=0-0"));
        self.send(call).await.err().unwrap_or(refused)
    }

    pub(super) async fn read_object(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let query: Vec<(&str, &str)> = self.version_query().collect();
        let mut call = ApiCall { query: &query, ..ApiCall::new("read", Method::GET, Some(key)) };
        let value = |text: String| {
            HeaderValue::from_str(&text).map_err(|_| Error::new(Kind::Invalid, "read", "bad header value"))
        };
        match &request.range {
            Some(r) => {
                call.headers.insert(http::header::RANGE, value(format!("bytes={}-{}", r.start, r.end - 1))?);
            }
            // The checksums of the whole object come with the whole.
            None => {
                call.headers.insert("x-amz-checksum-mode", HeaderValue::from_static("ENABLED"));
            }
        }
        if let Some(etag) = request.if_match.as_ref().filter(|e| !e.is_none()) {
            call.headers.insert(http::header::IF_MATCH, value(format!("\"{etag}\""))?);
        }
        let answer = self.send(call).await?;
        check_range(&answer, request.range.as_ref(), key)?;
        let meta = self.meta_of(answer.headers());
        if let Some(wanted) = request.if_match.as_ref().filter(|e| !e.is_none())
            && !meta.etag.is_none()
            && !meta.etag.same_text(wanted)
        {
            let m = format!("{}: the ETag is now {}, expected {wanted}", self.describe(Some(key)), meta.etag);
            return Err(Error::new(Kind::Changed, "read", m));
        }
        let told = length(answer.headers());
        let len = told.or(request.expected_len()).ok_or_else(|| no_length(&self.describe(Some(key))))?;
        let meta = match (told, &request.range) {
            (None, None) => Meta { size: len, ..meta },
            _ => meta,
        };
        Ok(Reading { meta, body: Body::wire(answer.into_body(), len) })
    }

    pub(super) async fn object_tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        let mut query = vec![("tagging", "")];
        query.extend(self.version_query());
        let call = ApiCall { query: &query, ..ApiCall::new("tags", Method::GET, Some(key)) };
        let xml = body_of(self.send(call).await?).await?;
        Ok(blocks(&xml, "Tag", ["Key", "Value"])?.into_iter().map(|[k, v]| (k, v)).collect())
    }

    pub(super) async fn object_acl(&self, key: &Key) -> Result<Option<&'static str>> {
        let mut query = vec![("acl", "")];
        query.extend(self.version_query());
        let call = ApiCall { query: &query, ..ApiCall::new("acl", Method::GET, Some(key)) };
        let xml = body_of(self.send(call).await?).await?;
        versions::canned(&xml)
    }
}
