//! Writing and deleting objects.

use http::{HeaderValue, Method};
use model::error::{Error, Kind, Reason, Result};
use model::key::Key;

use super::client::{ApiCall, S3, body_of, read_to_end};
use super::error;
use super::sign::encode;
use crate::Written;
use crate::body::Body;
use crate::etag::Etag;
use crate::http::header_text;
use crate::meta::Meta;
use crate::xml;

impl S3 {
    /// Makes the bucket; not an error if this account owns it already.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn create_bucket(&self) -> Result<()> {
        match self.send(ApiCall::new("create_bucket", Method::PUT, None)).await {
            Ok(answer) => {
                read_to_end(answer).await;
                Ok(())
            }
            Err(f) if f.reason == Reason::AlreadyExists => Ok(()),
            Err(f) => Err(f),
        }
    }

    pub(super) async fn put_object(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        if self.keeps_tree && key.is_folder() && !body.is_empty() {
            let m = format!("`{key}` is a folder with content, which this server does not keep");
            return Err(Error::new(Kind::InvalidKey, "write", m));
        }
        let mut headers = self.write_headers(meta)?;
        let (body, proving) = self.with_checksum(&mut headers, body).await?;
        let call = ApiCall { headers, body, ..ApiCall::new("write", Method::PUT, Some(key)) };
        let answer = self.send(call).await?;
        let etag = header_text(answer.headers(), "etag").map_or(Etag::None, Etag::parse);
        let written = self.written(answer.headers(), etag);
        read_to_end(answer).await;
        if let Some(proving) = proving {
            self.prove_whole_framed(key, proving).await?;
        }
        Ok(written)
    }

    pub(super) async fn delete_object(&self, key: &Key) -> Result<()> {
        match self.send(ApiCall::new("delete", Method::DELETE, Some(key))).await {
            Ok(answer) => {
                read_to_end(answer).await;
                Ok(())
            }
            Err(f) if f.kind == Kind::NotFound => Ok(()),
            Err(f) => Err(f),
        }
    }

    pub(super) async fn copy_object(
        &self,
        bucket: &str,
        from: &Key,
        to: &Key,
        if_match: &Etag,
    ) -> Result<Written> {
        let mut source = String::from("/");
        encode(&mut source, bucket.as_bytes(), false);
        source.push('/');
        encode(&mut source, from.as_bytes(), true);
        let mut call = ApiCall::new("copy", Method::PUT, Some(to));
        let bad = |_| Error::new(Kind::InvalidKey, "copy", "the source key is not a valid header value");
        call.headers.insert("x-amz-copy-source", HeaderValue::from_str(&source).map_err(bad)?);
        if !if_match.is_none() {
            let etag = HeaderValue::from_str(&format!("\"{if_match}\"")).map_err(bad)?;
            call.headers.insert("x-amz-copy-source-if-match", etag);
        }
        let answer = self.send(call).await?;
        let headers = answer.headers().clone();
        let xml = body_of(answer).await?;
        let [etag, code] = xml::texts(&xml, ["ETag", "Code"])?;
        if code.is_some() {
            let status = http::StatusCode::INTERNAL_SERVER_ERROR;
            return Err(error::failure("copy", &self.describe(Some(to)), status, &xml, None));
        }
        let etag = etag.map_or(Etag::None, |e| Etag::parse(&e));
        if etag.is_none() {
            let m = format!("{}: the response has no ETag, so nothing was copied", self.describe(Some(to)));
            return Err(Error::new(Kind::Mismatch, "copy", m));
        }
        Ok(self.written(&headers, etag))
    }

    pub(super) async fn restore_object(&self, key: &Key, days: u32) -> Result<()> {
        if !self.config.vendor.restores {
            let m = format!("{} does not support restore requests", self.config.vendor.name);
            return Err(Error::new(Kind::Unsupported, "restore", m));
        }
        let body = format!(
            "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Days>{days}</Days>\
             <GlacierJobParameters><Tier>Standard</Tier></GlacierJobParameters></RestoreRequest>"
        );
        let query = [("restore", "")];
        let call = ApiCall {
            query: &query,
            body: Body::bytes(body.into_bytes()),
            ..ApiCall::new("restore", Method::POST, Some(key))
        };
        match self.send(call).await {
            Ok(answer) => {
                read_to_end(answer).await;
                Ok(())
            }
            Err(f) if f.reason == Reason::RestoreInProgress => Ok(()),
            Err(f) => Err(f),
        }
    }
}
