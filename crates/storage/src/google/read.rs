//! Reading objects and what describes them.

use http::{Method, header};
use model::error::{Error, Kind, Result};
use model::key::Key;

use super::client::Google;
use super::meta::Object;
use crate::body::Body;
use crate::etag::Etag;
use crate::http::length;
use crate::meta::Meta;
use crate::{ReadRequest, Reading, no_length};

impl Google {
    pub(super) async fn object_resource(&self, key: &Key) -> Result<Object> {
        self.json(self.call("head", Method::GET, self.object(key.as_bytes()), Some(key))).await
    }

    pub(super) async fn read_object(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let wanted = request.if_match.as_ref().filter(|e| !e.is_none());
        // A range comes without what describes the object; the whole is described by a request of its own.
        let known = match request.range {
            None => Some(self.object_resource(key).await?.meta()),
            Some(_) => None,
        };
        let changed = |now: &str| {
            let m = format!("`{}/{key}` has changed (generation is now {now})", self.config.bucket);
            Error::new(Kind::Changed, "read", m)
        };
        if let (Some(meta), Some(wanted)) = (&known, wanted)
            && meta.etag.to_string() != wanted.to_string()
        {
            return Err(changed(&meta.etag.to_string()));
        }
        let mut call = self.call("read", Method::GET, self.object(key.as_bytes()), Some(key));
        call.query.push(("alt", "media".into()));
        if let Some(etag) = wanted.or(known.as_ref().map(|m| &m.etag)) {
            call.query.push(("ifGenerationMatch", etag.to_string()));
        }
        if let Some(r) = &request.range {
            call.headers.push((header::RANGE, format!("bytes={}-{}", r.start, r.end - 1)));
        }
        let answer = self.send(call).await?;
        let headers = answer.headers();
        crate::http::check_range(&answer, request.range.as_ref(), key)?;
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let generation = text("x-goog-generation").unwrap_or_default();
        if let Some(wanted) = wanted.filter(|w| !generation.is_empty() && w.to_string() != generation) {
            tracing::debug!(%key, %wanted, generation, "the object has changed");
            return Err(changed(generation));
        }
        let expected = request.expected_len().or(known.as_ref().map(|meta| meta.size));
        let len = length(headers).or(expected).ok_or_else(|| no_length(&format!("`{key}`")))?;
        let meta = known.unwrap_or_else(|| {
            let total = text("content-range").and_then(|r| r.rsplit('/').next()?.parse().ok());
            Meta { size: total.unwrap_or(len), etag: Etag::tagged(generation, None), ..Meta::default() }
        });
        Ok(Reading { meta, body: Body::wire(answer.into_body(), len) })
    }
}
