//! Reading objects and what describes them.

use http::Method;
use model::error::Result;
use model::key::Key;

use super::client::{ApiCall, Azure, MAX_RESPONSE_BYTES};
use super::meta::meta_of;
use crate::body::Body;
use crate::http::{check_range, collect, length};
use crate::meta::Meta;
use crate::xml::blocks;
use crate::{ReadRequest, Reading, no_length};

impl Azure {
    pub(super) async fn head_blob(&self, key: &Key, _part: Option<u32>) -> Result<Meta> {
        let answer = self.send(ApiCall::new("head", Method::HEAD, Some(key))).await?;
        Ok(meta_of(answer.headers()))
    }

    pub(super) async fn read_blob(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let mut call = ApiCall::new("read", Method::GET, Some(key));
        if let Some(r) = &request.range {
            call.set("x-ms-range", format!("bytes={}-{}", r.start, r.end - 1).as_bytes())?;
        }
        if let Some(etag) = request.if_match.as_ref().filter(|e| !e.is_none()) {
            call.set("if-match", format!("\"{etag}\"").as_bytes())?;
        }
        let answer = self.send(call).await?;
        let what = self.describe(Some(key));
        check_range(&answer, request.range.as_ref(), key)?;
        let meta = meta_of(answer.headers());
        let len = length(answer.headers()).or(request.expected_len()).ok_or_else(|| no_length(&what))?;
        Ok(Reading { meta, body: Body::wire(answer.into_body(), len) })
    }

    pub(super) async fn blob_tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        let mut call = ApiCall::new("tags", Method::GET, Some(key));
        call.query.push(("comp", "tags".into()));
        let xml = collect(self.send(call).await?, MAX_RESPONSE_BYTES).await?;
        Ok(blocks(&xml, "Tag", ["Key", "Value"])?.into_iter().map(|[k, v]| (k, v)).collect())
    }
}
